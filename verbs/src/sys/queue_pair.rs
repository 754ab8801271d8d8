//! Queue pairs: posting chains of work requests.
//!
//! # Safety
//!
//! This file exists to post. It promises that every pointer in a chain is to arrays that are
//! borrowed meanwhile, to the caller's inline bytes, or to windows and memory regions of the
//! caller's table, all of which live during the call: plug-ins copy work requests, and inline
//! bytes, before they return. Registered memory is named by number, and the device checks it
//! against the key.

#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    io,
    ptr::{self, NonNull},
    sync::Arc,
};

use rdma_core_sys as c;

use super::{
    chain::{EMPTY_SGE, post_error, post_error_of_one, refused_index, to_sge},
    cm_id::CmId,
    completion_queue::QueueInner,
    device::UNBOUND,
    domain::{DomainInner, to_bind},
    event_channel::check,
    extended_sends::{ExtendedSends, OPERATIONS},
    receive_chain,
};
use crate::{
    Error, QueuePairCapabilities, RdmaCore, RemoteAddress, SENDS_QUEUED_MAX, SGE_MAX, VerbsApi,
    provider::{
        BindWindow, Operation, Payload, Payloads, PostError, QueuePairInfo, QueuePairRequest,
        ReceiveRequest, SendRequest, WindowTable,
    },
};

/// A queue pair bound to an id.
pub struct RawQueuePair {
    raw: NonNull<c::ibv_qp>,
    /// Calls of the extended API, if sends are posted by them.
    extended: Option<ExtendedSends>,
    id: Arc<CmId>,
    /// A send alone, and its segments: all but what it sends is filled in for good.
    single_send: (c::ibv_send_wr, [c::ibv_sge; SGE_MAX]),
    _domain: Arc<DomainInner>,
    _queue: Arc<QueueInner>,
}

// SAFETY: a queue pair is tied to no thread; the pointers in its one request are only meaningful,
// and only followed, during a post, which writes them first.
unsafe impl Send for RawQueuePair {}

impl RawQueuePair {
    pub(super) fn new(
        id: &Arc<CmId>,
        request: QueuePairRequest<'_, RdmaCore>,
        api: VerbsApi,
    ) -> Result<(Self, QueuePairInfo), Error> {
        let QueuePairRequest { domain, queue, capabilities } = request;
        let context = id.context().ok_or(UNBOUND)?;
        let (domain, queue) = (domain.inner(), queue.inner());
        if !domain.device().is_of(context) {
            return Err(Error::AnotherDevice("domain"));
        }
        if !queue.device().is_of(context) {
            return Err(Error::AnotherDevice("completion queue"));
        }
        let mut attributes = attributes(queue, capabilities);
        let (raw, extended) = id.with(|id| {
            // SAFETY: `with` gives a live id, and locks it.
            if !unsafe { (*id).qp }.is_null() {
                return Err(Error::Misuse("the endpoint has a queue pair already"));
            }
            let made = match api {
                // Lists of segments are added up wrongly by rxe before rdma-core 64.
                VerbsApi::Extended if capabilities.max_send_sge == 1 => {
                    create_extended(id, domain, &mut attributes)
                }
                _ => create(id, domain, &mut attributes).map(|raw| (raw, None)),
            };
            made.map_err(|source| Error::CreateQueuePair { requested: capabilities, source })
        })?;
        // SAFETY: `create` returns a live queue pair.
        let number = unsafe { raw.as_ref() }.qp_num;
        let pair = Self {
            raw,
            extended,
            id: id.clone(),
            single_send: (EMPTY_SEND, [EMPTY_SGE; SGE_MAX]),
            _domain: domain.clone(),
            _queue: queue.clone(),
        };
        let api = if pair.extended.is_some() { VerbsApi::Extended } else { VerbsApi::Legacy };
        Ok((pair, QueuePairInfo { number, api }))
    }

    #[inline(never)]
    pub(super) fn post_send(
        &mut self,
        requests: &[SendRequest],
        payloads: &Payloads,
        windows: &mut WindowTable,
    ) -> Result<(), PostError> {
        match (&mut self.extended, requests) {
            (Some(extended), _) => extended.post(requests, payloads, windows),
            (None, [request]) if matches!(request.operation, Operation::Send) => {
                match payloads.of_inline(&request.payload) {
                    Some(message) => self.post_one(request, message),
                    None => self.post_chains(requests, payloads, windows),
                }
            }
            (None, _) => self.post_chains(requests, payloads, windows),
        }
    }

    /// Posts any requests, in as many chains as it takes.
    #[inline(never)]
    fn post_chains(
        &mut self,
        requests: &[SendRequest],
        payloads: &Payloads,
        windows: &mut WindowTable,
    ) -> Result<(), PostError> {
        SENDS.with_borrow_mut(|rows| {
            if requests.len() <= rows.requests.len() {
                self.post_chain(rows, requests, payloads, windows)
            } else {
                self.post_several(rows, requests, payloads, windows)
            }
        })
    }

    #[cold]
    fn post_several(
        &mut self,
        rows: &mut SendChain,
        requests: &[SendRequest],
        payloads: &Payloads,
        windows: &mut WindowTable,
    ) -> Result<(), PostError> {
        let mut accepted = 0;
        for requests in requests.chunks(rows.requests.len()) {
            self.post_chain(rows, requests, payloads, windows).map_err(|refused| PostError {
                accepted: accepted + refused.accepted,
                ..refused
            })?;
            accepted += requests.len();
        }
        Ok(())
    }

    /// Posts one inline send, for callers that wait for the answer to each: without a loop, and
    /// apart from it, so that few registers need be saved.
    #[inline(always)]
    fn post_one(&mut self, request: &SendRequest, message: &[u8]) -> Result<(), PostError> {
        let (raw, row) = &mut self.single_send;
        set_inline(raw, row, request, message);
        let mut refused = ptr::null_mut();
        // SAFETY: the queue pair is ours; the chain of one is filled in, with the caller's payload.
        match unsafe { c::ibv_post_send(self.raw.as_ptr(), raw, &raw mut refused) } {
            0 => Ok(()),
            errno => Err(post_error_of_one(errno, refused.is_null())),
        }
    }

    /// Posts a chain, of at most as many sends as there are rows.
    #[inline(never)]
    fn post_chain(
        &mut self,
        rows: &mut SendChain,
        requests: &[SendRequest],
        payloads: &Payloads,
        windows: &mut WindowTable,
    ) -> Result<(), PostError> {
        if requests.is_empty() || requests.len() > rows.requests.len() {
            return Err(not_taken(io::ErrorKind::InvalidInput.into()));
        }
        let mut place = rows.requests.as_mut_ptr();
        for (request, row) in requests.iter().zip(&mut rows.sges) {
            // SAFETY: there are as many rows as requests at least, borrowed exclusively; no other
            // reference to this one is alive.
            let raw = unsafe { &mut *place };
            place = place.wrapping_add(1);
            raw.next = place;
            if matches!(request.operation, Operation::Send)
                && let Some(message) = payloads.of_inline(&request.payload)
            {
                raw.opcode = c::IBV_WR_SEND;
                set_inline(raw, row, request, message);
            } else {
                fill_any(raw, row, request, (payloads, windows)).map_err(not_taken)?;
            }
        }
        rows.requests[requests.len() - 1].next = ptr::null_mut();
        // SAFETY: the queue pair is ours; that many rows are filled in, with the caller's payloads,
        // and with what the caller's windows keep.
        unsafe { post_to_plugin(self.raw, rows.requests.as_mut_ptr(), requests.len()) }
    }

    #[inline(never)]
    pub(super) fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        let pair = self.raw.as_ptr();
        // SAFETY: the queue pair is live; the chain and its segments are, during the call.
        receive_chain::post(requests, |first, bad| unsafe { c::ibv_post_recv(pair, first, bad) })
    }
}

impl Drop for RawQueuePair {
    fn drop(&mut self) {
        // SAFETY: the id is live and this is the queue pair on it. What the queue pair needs are
        // fields, which go after this.
        self.id.with(|id| unsafe { c::rdma_destroy_qp(id) });
    }
}

/// Memory for a chain of sends, written by each post.
struct SendChain {
    requests: [c::ibv_send_wr; SENDS_QUEUED_MAX as usize],
    sges: [[c::ibv_sge; SGE_MAX]; SENDS_QUEUED_MAX as usize],
}

thread_local! {
    /// Chain of the thread; a queue pair needs one only during a post. All zeroes, so that threads
    /// which post nothing have no page of it in memory.
    static SENDS: RefCell<SendChain> = const {
        RefCell::new(SendChain {
            requests: [ALL_ZERO; SENDS_QUEUED_MAX as usize],
            sges: [[EMPTY_SGE; SGE_MAX]; SENDS_QUEUED_MAX as usize],
        })
    };
}

/// The number 0 is that of a write.
const ALL_ZERO: c::ibv_send_wr = c::ibv_send_wr { opcode: c::IBV_WR_RDMA_WRITE, ..EMPTY_SEND };

/// Attributes of a new queue pair.
fn attributes(queue: &QueueInner, capabilities: QueuePairCapabilities) -> c::ibv_qp_init_attr {
    c::ibv_qp_init_attr {
        qp_context: ptr::null_mut(),
        send_cq: queue.pointer(),
        recv_cq: queue.pointer(),
        srq: ptr::null_mut(),
        cap: c::ibv_qp_cap {
            max_send_wr: capabilities.max_send_wr,
            max_recv_wr: capabilities.max_recv_wr,
            max_send_sge: capabilities.max_send_sge,
            max_recv_sge: 1,
            max_inline_data: capabilities.max_inline_data,
        },
        qp_type: c::IBV_QPT_RC,
        sq_sig_all: 0,
    }
}

/// Makes the id's queue pair, if it has none. Under the id's lock.
fn create(
    id: *mut c::rdma_cm_id,
    domain: &DomainInner,
    attributes: &mut c::ibv_qp_init_attr,
) -> io::Result<NonNull<c::ibv_qp>> {
    // SAFETY: the id and all that the attributes name are live and of one device.
    check(unsafe { c::rdma_create_qp(id, domain.pointer(), &raw mut *attributes) })?;
    queue_pair_of(id)
}

/// Creates the id's queue pair as an extended one, or as a plain one if the device cannot. Under
/// the id's lock.
fn create_extended(
    id: *mut c::rdma_cm_id,
    domain: &DomainInner,
    attributes: &mut c::ibv_qp_init_attr,
) -> io::Result<(NonNull<c::ibv_qp>, Option<ExtendedSends>)> {
    let mut extended = c::ibv_qp_init_attr_ex {
        qp_context: attributes.qp_context,
        send_cq: attributes.send_cq,
        recv_cq: attributes.recv_cq,
        srq: attributes.srq,
        cap: attributes.cap,
        qp_type: attributes.qp_type,
        sq_sig_all: attributes.sq_sig_all,
        comp_mask: c::IBV_QP_INIT_ATTR_PD | c::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        pd: domain.pointer(),
        xrcd: ptr::null_mut(),
        create_flags: 0,
        max_tso_header: 0,
        rwq_ind_tbl: ptr::null_mut(),
        rx_hash_conf: c::ibv_rx_hash_conf {
            rx_hash_function: 0,
            rx_hash_key_len: 0,
            rx_hash_key: ptr::null_mut(),
            rx_hash_fields_mask: 0,
        },
        source_qpn: 0,
        send_ops_flags: OPERATIONS.into(),
    };
    // SAFETY: the id and all that the attributes name are live and of one device.
    if unsafe { c::rdma_create_qp_ex(id, &raw mut extended) } != 0 {
        return Ok((create(id, domain, attributes)?, None));
    }
    let raw = queue_pair_of(id)?;
    // SAFETY: the queue pair was just made with those operations; both become parts of one value.
    Ok((raw, unsafe { ExtendedSends::of(raw) }))
}

/// The queue pair that an id has. Under the id's lock.
fn queue_pair_of(id: *mut c::rdma_cm_id) -> io::Result<NonNull<c::ibv_qp>> {
    // SAFETY: the caller's id is live, and locked.
    NonNull::new(unsafe { (*id).qp }).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Hands a chain of `count` requests to the plug-in.
///
/// # Safety
///
/// The queue pair is live. The chain is filled in, and what it points to lives during the call, see
/// the file's top.
#[inline(always)]
unsafe fn post_to_plugin(
    pair: NonNull<c::ibv_qp>,
    first: *mut c::ibv_send_wr,
    count: usize,
) -> Result<(), PostError> {
    let mut refused = ptr::null_mut();
    // SAFETY: the caller promises that the queue pair, and all that the chain points to, is live.
    match unsafe { c::ibv_post_send(pair.as_ptr(), first, &raw mut refused) } {
        0 => Ok(()),
        errno => Err(post_error(0, errno, refused_index(first, refused, count))),
    }
}

/// Nothing of a batch was taken.
#[cold]
fn not_taken(source: io::Error) -> PostError {
    PostError { accepted: 0, source }
}

/// Fills in any request, all but its place in the chain.
#[inline(never)]
fn fill_any(
    raw: &mut c::ibv_send_wr,
    row: &mut [c::ibv_sge; SGE_MAX],
    request: &SendRequest,
    (payloads, windows): (&Payloads, &mut WindowTable),
) -> io::Result<()> {
    match &request.operation {
        Operation::BindWindow(bind) => fill_bind(raw, request, bind, windows),
        _ => fill_send(raw, row, request, payloads),
    }
}

/// Fills in one request that binds, all but its place in the chain.
fn fill_bind(
    raw: &mut c::ibv_send_wr,
    request: &SendRequest,
    bind: &BindWindow,
    windows: &mut WindowTable,
) -> io::Result<()> {
    let bind = windows.registrations(bind).and_then(|made| to_bind(made, bind));
    raw.wr_id = request.token;
    raw.opcode = c::IBV_WR_BIND_MW;
    raw.imm_data_or_invalidate_rkey = 0; // or rxe's plug-in refuses it
    raw.bind_mw = bind.ok_or(io::ErrorKind::InvalidInput)?;
    raw.num_sge = 0;
    raw.send_flags = flags(request);
    Ok(())
}

/// Fills in one request that does not bind, all but its place in the chain.
fn fill_send(
    raw: &mut c::ibv_send_wr,
    row: &mut [c::ibv_sge; SGE_MAX],
    request: &SendRequest,
    payloads: &Payloads,
) -> io::Result<()> {
    match request.operation {
        Operation::BindWindow(_) => return Err(io::ErrorKind::InvalidInput.into()),
        Operation::LocalInvalidate(key) => {
            raw.opcode = c::IBV_WR_LOCAL_INV;
            raw.imm_data_or_invalidate_rkey = key.0;
        }
        Operation::RdmaRead(remote) => {
            raw.opcode = c::IBV_WR_RDMA_READ;
            raw.wr = at(remote);
        }
        Operation::RdmaWrite(remote) => {
            raw.opcode = c::IBV_WR_RDMA_WRITE;
            raw.wr = at(remote);
        }
        Operation::Send => raw.opcode = c::IBV_WR_SEND,
        Operation::SendWithInvalidate(key) => {
            raw.opcode = c::IBV_WR_SEND_WITH_INV;
            raw.imm_data_or_invalidate_rkey = key.0;
        }
    }
    if let Payload::Inline { .. } = request.payload {
        let message = payloads.of_inline(&request.payload).ok_or(io::ErrorKind::InvalidInput)?;
        set_inline(raw, row, request, message);
        return Ok(());
    }
    let mut count = 0;
    for (raw, sge) in row.iter_mut().zip(payloads.sg_list(&request.payload)) {
        *raw = to_sge(*sge);
        count += 1;
    }
    raw.wr_id = request.token;
    raw.sg_list = row.as_mut_ptr();
    raw.num_sge = count;
    raw.send_flags = flags(request);
    Ok(())
}

/// Fills in what an inline request sends.
#[inline(always)]
fn set_inline(
    raw: &mut c::ibv_send_wr,
    row: &mut [c::ibv_sge; SGE_MAX],
    request: &SendRequest,
    message: &[u8],
) {
    #[expect(clippy::cast_possible_truncation, reason = "a payload's length has 32 bits")]
    let length = message.len() as u32;
    row[0] = c::ibv_sge { addr: message.as_ptr().addr() as u64, length, lkey: 0 };
    raw.wr_id = request.token;
    raw.sg_list = row.as_mut_ptr();
    // No segment at all for an empty message, see `SGE_LENGTH_MAX`.
    raw.num_sge = libc::c_int::from(length > 0);
    raw.send_flags = flags(request) | c::IBV_SEND_INLINE;
}

#[inline(always)]
fn flags(request: &SendRequest) -> libc::c_uint {
    if request.signaled { c::IBV_SEND_SIGNALED } else { 0 }
}

fn at(remote: RemoteAddress) -> c::ibv_send_wr_wr {
    let rdma = c::ibv_send_wr_rdma { remote_addr: remote.address, rkey: remote.key.0 };
    c::ibv_send_wr_wr { rdma }
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
    use super::*;

    #[test]
    fn an_inline_message_is_found_in_the_batch() {
        let payloads = &Payloads::new(64, 0);
        let mut row = [c::ibv_sge::default(); SGE_MAX];
        let mut raw = EMPTY_SEND;
        let message = |offset, length| SendRequest {
            payload: Payload::Inline { offset, length },
            ..SendRequest::EMPTY
        };
        let mut fill = |request| fill_send(&mut raw, &mut row, &request, payloads);
        assert!(fill(message(60, 8)).is_err(), "it ends beyond");
        fill(message(0, 0)).expect("an empty message is one");
        fill(message(16, 8)).expect("it is within the batch");
        assert_eq!((raw.num_sge, raw.send_flags), (1, c::IBV_SEND_INLINE));
        let there = payloads.bytes(16, 8).expect("it is within").as_ptr().addr() as u64;
        assert_eq!((row[0].addr, row[0].length), (there, 8));
    }
}
