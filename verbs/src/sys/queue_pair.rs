//! Queue pairs: posting chains of work requests.
//!
//! # Safety
//!
//! This file exists to post. It promises that every pointer in a chain is to this queue pair's
//! own arrays, to the caller's inline bytes, or to windows and memory regions that the domain's
//! lock keeps, all of which live during the call: plug-ins copy work requests, and inline bytes,
//! before they return. Registered memory is named by number, and the device checks it against
//! the key.

#![allow(unsafe_code)]

use std::{
    io,
    ptr::{self, NonNull},
    sync::Arc,
};

use rdma_core_sys as c;

use super::{
    completion_queue::QueueInner,
    device::UNBOUND,
    domain::{DomainInner, Named},
    id::{Id, check},
    receives::ReceiveChain,
    shared_receive_queue::{RawSharedReceiveQueue, SharedInner},
};
use crate::{
    Capabilities, Error, RdmaCore, RemoteAddress, SEGMENTS_MAX,
    provider::{
        Operation, Payload, PostError, QueuePairRequest, ReceiveRequest, Segment, SendRequest,
    },
};

/// A queue pair bound to an id.
pub struct RawQueuePair {
    raw: NonNull<c::ibv_qp>,
    id: Arc<Id>,
    sends: Box<[c::ibv_send_wr]>,
    gathered: Box<[[c::ibv_sge; SEGMENTS_MAX]]>,
    receives: ReceiveChain,
    domain: Arc<DomainInner>,
    _shared: Option<Arc<SharedInner>>,
    _queue: Arc<QueueInner>,
}

// SAFETY: a queue pair is tied to no thread; the pointers in the arrays are only meaningful, and
// only followed, during a post, which writes them anew.
unsafe impl Send for RawQueuePair {}

impl RawQueuePair {
    pub(super) fn new(
        id: &Arc<Id>,
        request: QueuePairRequest<'_, RdmaCore>,
    ) -> Result<(Self, u32), Error> {
        let QueuePairRequest { domain, queue, shared, capabilities } = request;
        let context = id.context().ok_or(UNBOUND)?;
        let (domain, queue) = (domain.inner(), queue.inner());
        let shared = shared.map(RawSharedReceiveQueue::inner);
        if !domain.hold().is_of(context) {
            return Err(Error::AnotherDevice("domain"));
        }
        if !queue.hold().is_of(context) {
            return Err(Error::AnotherDevice("completion queue"));
        }
        if shared.is_some_and(|shared| !shared.domain().hold().is_of(context)) {
            return Err(Error::AnotherDevice("shared receive queue"));
        }
        let mut attributes = attributes(queue, shared, capabilities);
        let raw = id.with(|id| create(id, domain, &mut attributes))?;
        // SAFETY: `create` returns a live queue pair.
        let number = unsafe { raw.as_ref() }.qp_num;
        let pair = Self {
            raw,
            id: id.clone(),
            sends: filled(capabilities.send, EMPTY_SEND),
            gathered: filled(capabilities.send, [c::ibv_sge::default(); SEGMENTS_MAX]),
            receives: ReceiveChain::new(capabilities.receive),
            domain: domain.clone(),
            _shared: shared.cloned(),
            _queue: queue.clone(),
        };
        Ok((pair, number))
    }

    #[inline]
    pub(super) fn post_send(
        &mut self,
        requests: &[SendRequest],
        inline: &[u8],
    ) -> Result<(), PostError> {
        let mut accepted = 0;
        for batch in requests.chunks(self.sends.len()) {
            self.post_sends(batch, inline).map_err(|error| PostError {
                accepted: accepted + error.accepted,
                source: error.source,
            })?;
            accepted += batch.len();
        }
        Ok(())
    }

    #[inline]
    pub(super) fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        let pair = self.raw.as_ptr();
        // SAFETY: the queue pair is live; the chain and its segments are, during the call.
        self.receives.post(requests, |first, bad| unsafe { c::ibv_post_recv(pair, first, bad) })
    }

    /// Posts at most as many sends as there are rows.
    fn post_sends(&mut self, batch: &[SendRequest], inline: &[u8]) -> Result<(), PostError> {
        // Held during the post, which follows the pointers that a bind is made of.
        let mut named = batch.iter().any(is_bind).then(|| self.domain.named());
        let rows = self.sends.iter_mut().zip(&mut self.gathered);
        fill_sends(rows, batch, inline, named.as_deref())
            .map_err(|source| PostError { accepted: 0, source })?;
        let first = link(&mut self.sends[..batch.len()], |request, next| request.next = next);
        let mut refused = ptr::null_mut();
        // SAFETY: the queue pair is live; the chain and what it points to is of `self`, of
        // `inline` and of `named`, see the file's top.
        let errno = unsafe { c::ibv_post_send(self.raw.as_ptr(), first, &raw mut refused) };
        let accepted = if errno == 0 { batch.len() } else { index(first, refused, batch.len()) };
        if let Some(named) = &mut named {
            for request in &batch[..accepted] {
                if let Operation::BindWindow(bind) = &request.operation {
                    named.note_bound(bind);
                }
            }
        }
        if errno == 0 { Ok(()) } else { Err(stopped(0, errno, accepted)) }
    }
}

impl Drop for RawQueuePair {
    fn drop(&mut self) {
        // SAFETY: the id is live and this is the queue pair on it. What the queue pair needs are
        // fields, which go after this.
        self.id.with(|id| unsafe { c::rdma_destroy_qp(id) });
    }
}

/// What to ask of the device.
fn attributes(
    queue: &QueueInner,
    shared: Option<&Arc<SharedInner>>,
    capabilities: Capabilities,
) -> c::ibv_qp_init_attr {
    c::ibv_qp_init_attr {
        qp_context: ptr::null_mut(),
        send_cq: queue.pointer(),
        recv_cq: queue.pointer(),
        srq: shared.map_or(ptr::null_mut(), |shared| shared.pointer()),
        cap: c::ibv_qp_cap {
            max_send_wr: capabilities.send,
            max_recv_wr: capabilities.receive,
            max_send_sge: capabilities.segments,
            max_recv_sge: 1,
            max_inline_data: capabilities.inline,
        },
        qp_type: c::IBV_QPT_RC,
        sq_sig_all: 0,
    }
}

/// Makes the id's queue pair. Under the id's lock.
fn create(
    id: *mut c::rdma_cm_id,
    domain: &DomainInner,
    attributes: &mut c::ibv_qp_init_attr,
) -> Result<NonNull<c::ibv_qp>, Error> {
    // SAFETY: the caller's id is live, and locked.
    if !unsafe { (*id).qp }.is_null() {
        return Err(Error::Misuse("the endpoint has a queue pair already"));
    }
    // SAFETY: the id and all that the attributes name are live and of one device.
    check(unsafe { c::rdma_create_qp(id, domain.pointer(), &raw mut *attributes) })
        .map_err(Error::CreateQueuePair)?;
    // SAFETY: the caller's id is live, and locked.
    NonNull::new(unsafe { (*id).qp })
        .ok_or_else(|| Error::CreateQueuePair(io::Error::from_raw_os_error(libc::EINVAL)))
}

fn fill_sends<'a>(
    rows: impl Iterator<Item = (&'a mut c::ibv_send_wr, &'a mut [c::ibv_sge; SEGMENTS_MAX])>,
    requests: &[SendRequest],
    inline: &[u8],
    named: Option<&Named>,
) -> io::Result<()> {
    for (request, (raw, segments)) in requests.iter().zip(rows) {
        set_operation(raw, &request.operation, named)?;
        let (count, flags) = gather(&request.payload, inline, segments)?;
        let signaled = if request.signaled { c::IBV_SEND_SIGNALED } else { 0 };
        raw.wr_id = request.token;
        raw.sg_list = segments.as_mut_ptr();
        raw.num_sge = count;
        raw.send_flags = flags | signaled;
    }
    Ok(())
}

fn is_bind(request: &SendRequest) -> bool {
    matches!(request.operation, Operation::BindWindow(_))
}

/// Fills in what a request does.
fn set_operation(
    raw: &mut c::ibv_send_wr,
    operation: &Operation,
    named: Option<&Named>,
) -> io::Result<()> {
    match operation {
        Operation::BindWindow(bind) => {
            raw.opcode = c::IBV_WR_BIND_MW;
            raw.imm_data_or_invalidate_rkey = 0; // or rxe's plug-in refuses it
            raw.bind_mw =
                named.and_then(|named| named.bind(bind)).ok_or(io::ErrorKind::InvalidInput)?;
        }
        Operation::LocalInvalidate(key) => {
            raw.opcode = c::IBV_WR_LOCAL_INV;
            raw.imm_data_or_invalidate_rkey = key.0;
        }
        Operation::RdmaRead(remote) => {
            raw.opcode = c::IBV_WR_RDMA_READ;
            raw.wr = at(*remote);
        }
        Operation::RdmaWrite(remote) => {
            raw.opcode = c::IBV_WR_RDMA_WRITE;
            raw.wr = at(*remote);
        }
        Operation::Send => raw.opcode = c::IBV_WR_SEND,
        Operation::SendWithInvalidate(key) => {
            raw.opcode = c::IBV_WR_SEND_WITH_INV;
            raw.imm_data_or_invalidate_rkey = key.0;
        }
    }
    Ok(())
}

fn at(remote: RemoteAddress) -> c::ibv_send_wr_wr {
    let rdma = c::ibv_send_wr_rdma { remote_addr: remote.address, rkey: remote.key.0 };
    c::ibv_send_wr_wr { rdma }
}

/// Fills one request's segments; says how many, and with which flags.
fn gather(
    payload: &Payload,
    inline: &[u8],
    segments: &mut [c::ibv_sge; SEGMENTS_MAX],
) -> io::Result<(libc::c_int, libc::c_uint)> {
    match payload {
        Payload::Inline { offset, length } => {
            let message = inline
                .get(*offset..)
                .and_then(|rest| rest.get(..*length as usize))
                .ok_or(io::ErrorKind::InvalidInput)?;
            let address = message.as_ptr().addr() as u64;
            segments[0] = c::ibv_sge { addr: address, length: *length, lkey: 0 };
            // No segment at all for an empty message, see `SEGMENT_LENGTH_MAX`.
            Ok((libc::c_int::from(*length > 0), c::IBV_SEND_INLINE))
        }
        Payload::Nothing => Ok((0, 0)),
        Payload::Segments(list) => {
            for (raw, segment) in segments.iter_mut().zip(list) {
                *raw = translate(*segment);
            }
            let count = libc::c_int::try_from(list.len()).expect("a send has a few segments");
            Ok((count, 0))
        }
    }
}

pub(super) fn translate(segment: Segment) -> c::ibv_sge {
    c::ibv_sge { addr: segment.address, length: segment.length, lkey: segment.local_key }
}

/// Chains the requests and returns the first.
pub(super) fn link<R>(requests: &mut [R], mut set_next: impl FnMut(&mut R, *mut R)) -> *mut R {
    let first = requests.as_mut_ptr();
    for index in 0..requests.len() {
        let next = if index + 1 < requests.len() {
            first.wrapping_add(index + 1)
        } else {
            ptr::null_mut()
        };
        // SAFETY: the index is within the slice, which is borrowed exclusively; no other
        // reference to an element is alive.
        set_next(unsafe { &mut *first.wrapping_add(index) }, next);
    }
    first
}

/// Which request of a chain a plug-in refused.
pub(super) fn index<R>(first: *mut R, refused: *mut R, length: usize) -> usize {
    let bytes = refused.addr().wrapping_sub(first.addr());
    // A plug-in that fails without saying where is taken to have accepted nothing.
    Some(bytes / size_of::<R>()).filter(|&index| index < length).unwrap_or_default()
}

pub(super) fn stopped(accepted: usize, errno: libc::c_int, index: usize) -> PostError {
    PostError { accepted: accepted + index, source: io::Error::from_raw_os_error(errno.abs()) }
}

pub(super) fn filled<T: Clone>(length: u32, value: T) -> Box<[T]> {
    vec![value; length as usize].into_boxed_slice()
}

const EMPTY_SEND: c::ibv_send_wr = c::ibv_send_wr {
    wr_id: 0,
    next: ptr::null_mut(),
    sg_list: ptr::null_mut(),
    num_sge: 0,
    opcode: c::IBV_WR_SEND,
    send_flags: 0,
    imm_data_or_invalidate_rkey: 0,
    wr: c::ibv_send_wr_wr {
        atomic: c::ibv_send_wr_atomic { remote_addr: 0, compare_add: 0, swap: 0, rkey: 0 },
    },
    qp_type: c::ibv_send_wr_xrc { remote_srqn: 0 },
    bind_mw: c::ibv_send_wr_bind_mw {
        mw: ptr::null_mut(),
        rkey: 0,
        bind_info: c::ibv_mw_bind_info {
            mr: ptr::null_mut(),
            addr: 0,
            length: 0,
            mw_access_flags: 0,
        },
    },
};

#[cfg(test)]
mod tests {
    use super::{super::receives::EMPTY_RECEIVE, *};

    #[test]
    fn requests_are_chained_in_order() {
        let mut requests = [EMPTY_RECEIVE; 3];
        let first = link(&mut requests, |request, next| request.next = next);
        assert_eq!(requests[0].next, first.wrapping_add(1));
        assert_eq!(requests[1].next, first.wrapping_add(2));
        assert!(requests[2].next.is_null());
    }

    #[test]
    fn the_refused_request_is_found() {
        let mut requests = [EMPTY_RECEIVE; 3];
        let first = requests.as_mut_ptr();
        assert_eq!(index(first, first.wrapping_add(2), 3), 2);
        assert_eq!(index(first, ptr::null_mut(), 3), 0);
        assert_eq!(index(first, first.wrapping_add(3), 3), 0);
    }

    #[test]
    fn an_inline_message_is_found_in_the_batch() {
        let inline = [0_u8; 64];
        let mut segments = [c::ibv_sge::default(); SEGMENTS_MAX];
        let message = Payload::Inline { offset: 16, length: 8 };
        let made = gather(&message, &inline, &mut segments).expect("it is within the batch");
        assert_eq!(made, (1, c::IBV_SEND_INLINE));
        assert_eq!(segments[0].addr, inline[16..].as_ptr().addr() as u64);
        let beyond = Payload::Inline { offset: 60, length: 8 };
        assert!(gather(&beyond, &inline, &mut segments).is_err());
    }
}
