//! Completion queues and their channels.
//!
//! # Safety
//!
//! This file exists to poll. It promises that a queue outlives the queue pairs that complete on
//! it, and its channel outlives the queue.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::Arc,
};

use rdma_core_sys as c;

use super::{
    device::Hold,
    extended_poll::{self, ExtendedPoll},
    id::set_nonblocking,
};
use crate::{
    Completion, Error, RemoteKey, Status, VerbsApi, completion::Invalidated,
    provider::CompletionQueueInfo,
};

/// A completion queue, shared with the queue pairs that complete on it.
pub struct RawCompletionQueue {
    inner: Arc<QueueInner>,
    /// How to poll, if not by `ibv_poll_cq`.
    extended: Option<ExtendedPoll>,
    /// Where the device's plug-in writes, before it is translated.
    scratch: Box<[c::ibv_wc; POLL_BATCH]>,
    /// The most events that can still come off the channel.
    armed: u32,
}

pub(super) struct QueueInner {
    raw: NonNull<c::ibv_cq>,
    channel: CompletionChannel,
}

// SAFETY: a queue is tied to no thread, and verbs calls on it may run at once.
unsafe impl Send for QueueInner {}
// SAFETY: through a shared queue only the pointer can be read; verbs calls may run at once.
unsafe impl Sync for QueueInner {}

impl RawCompletionQueue {
    pub(super) fn new(
        hold: Arc<Hold>,
        capacity: u32,
        api: VerbsApi,
    ) -> Result<(Self, CompletionQueueInfo), Error> {
        let failed = |source| Error::CreateCompletionQueue { capacity, source };
        let channel = CompletionChannel::new(hold).map_err(failed)?;
        let entries = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
        let context = channel.hold.context();
        let raw = match api {
            VerbsApi::Legacy => None,
            VerbsApi::Extended => extended_poll::create(&channel, capacity),
        };
        // SAFETY: a queue from there is an extended one; both become parts of `Self`.
        let extended = raw.and_then(|raw| unsafe { ExtendedPoll::of(raw) });
        // SAFETY: the channel holds the context open, and becomes part of the queue's owner.
        let classic =
            || unsafe { c::ibv_create_cq(context, entries, ptr::null_mut(), channel.pointer(), 0) };
        let raw = raw.or_else(|| NonNull::new(classic()));
        let raw = raw.ok_or_else(|| failed(io::Error::last_os_error()))?;
        // SAFETY: the call succeeded, so this is a live queue.
        let made = unsafe { raw.as_ref() };
        let (capacity, number) = (made.cqe.max(0).cast_unsigned(), made.handle);
        let inner = Arc::new(QueueInner { raw, channel });
        // SAFETY: the structure is integers, for which zeroes are valid.
        let empty: c::ibv_wc = unsafe { std::mem::zeroed() };
        let api = if extended.is_some() { VerbsApi::Extended } else { VerbsApi::Legacy };
        let scratch = Box::new([empty; POLL_BATCH]);
        let info = CompletionQueueInfo { capacity, number, api };
        Ok((Self { inner, extended, scratch, armed: 0 }, info))
    }

    #[inline(never)]
    pub(super) fn poll(&mut self, out: &mut [Completion]) -> Result<usize, Error> {
        if let Some(extended) = &mut self.extended {
            return extended.poll(out);
        }
        match self.poll_batch(out) {
            Some(POLL_BATCH) => self.poll_on(out),
            Some(count) => Ok(count),
            None => Err(broken()),
        }
    }

    /// Takes a batch at most; nothing when the queue is broken.
    #[inline(always)]
    fn poll_batch(&mut self, out: &mut [Completion]) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        let entries = out.len().min(POLL_BATCH) as libc::c_int; // a batch is of a few entries
        // SAFETY: the queue is live as long as `self`, and `scratch` has that many entries.
        let count =
            unsafe { c::ibv_poll_cq(self.inner.raw.as_ptr(), entries, self.scratch.as_mut_ptr()) };
        let count = usize::try_from(count).ok()?;
        for (completion, raw) in out.iter_mut().zip(self.scratch.iter_mut()).take(count) {
            *completion = translate(raw);
            raw.imm_data_or_invalidated_rkey = 0; // so that no later completion shows it
        }
        Some(count)
    }

    /// Goes on after a first batch that was full. Apart, since most polls are done by then.
    #[inline(never)]
    fn poll_on(&mut self, out: &mut [Completion]) -> Result<usize, Error> {
        let mut taken = POLL_BATCH;
        while taken < out.len() {
            match self.poll_batch(&mut out[taken..]) {
                Some(0) => break,
                Some(count) => taken += count,
                None => return Err(broken()),
            }
        }
        Ok(taken)
    }

    pub(super) fn arm(&mut self) -> Result<usize, Error> {
        // SAFETY: the queue is live as long as `self`.
        match unsafe { c::ibv_req_notify_cq(self.inner.raw.as_ptr(), 0) } {
            0 => {
                self.armed = self.armed.saturating_add(1);
                Ok(0)
            }
            errno => Err(Error::Arm(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Each arming makes one event at most, so reading stops there, which saves the call that
    /// would find nothing.
    pub(super) fn acknowledge(&mut self) -> Result<usize, Error> {
        let mut events = 0;
        while events < self.armed && self.read_event().map_err(Error::AcknowledgeCompletions)? {
            events += 1;
        }
        if events > 0 {
            // SAFETY: the queue is live; as many events were read and not acknowledged yet.
            unsafe { c::ibv_ack_cq_events(self.inner.raw.as_ptr(), events) };
        }
        // Arming twice without an event between is one arming, so at most one can be left.
        self.armed = (self.armed - events).min(1);
        Ok(events as usize)
    }

    pub(super) fn resize(&mut self, capacity: u32) -> Result<usize, Error> {
        let entries = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
        // SAFETY: the queue is live, and borrowed exclusively, so nobody polls it meanwhile.
        match unsafe { c::ibv_resize_cq(self.inner.raw.as_ptr(), entries) } {
            0 => {
                // SAFETY: the queue is live, and only this call changes its size.
                let made = unsafe { self.inner.raw.as_ref() }.cqe;
                Ok(usize::try_from(made).unwrap_or_default())
            }
            libc::ENOSYS | libc::EOPNOTSUPP => {
                Err(Error::Unsupported("this device cannot change a completion queue's size"))
            }
            errno => {
                let source = io::Error::from_raw_os_error(errno.abs());
                Err(Error::ResizeCompletionQueue { capacity, source })
            }
        }
    }

    pub(super) fn inner(&self) -> &Arc<QueueInner> {
        &self.inner
    }

    fn read_event(&self) -> io::Result<bool> {
        let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
        let channel = self.inner.channel.raw.as_ptr();
        // SAFETY: the channel is live and does not block; both results are writable.
        match unsafe { c::ibv_get_cq_event(channel, &raw mut queue, &raw mut context) } {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                error => Err(error),
            },
        }
    }
}

impl AsFd for RawCompletionQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.channel.as_fd()
    }
}

impl QueueInner {
    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_cq {
        self.raw.as_ptr()
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.channel.hold
    }
}

impl Drop for QueueInner {
    fn drop(&mut self) {
        // SAFETY: the sole owner; queue pairs hold the queue, so none is left, and events are
        // acknowledged where they are read. The channel, a field, goes after this.
        unsafe { c::ibv_destroy_cq(self.raw.as_ptr()) };
    }
}

pub(super) struct CompletionChannel {
    raw: NonNull<c::ibv_comp_channel>,
    hold: Arc<Hold>,
}

impl CompletionChannel {
    fn new(hold: Arc<Hold>) -> io::Result<Self> {
        // SAFETY: the hold keeps the context open.
        let raw = unsafe { c::ibv_create_comp_channel(hold.context()) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        let channel = Self { raw, hold };
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_comp_channel {
        self.raw.as_ptr()
    }

    /// Open as long as `self`.
    pub(super) fn context(&self) -> *mut c::ibv_context {
        self.hold.context()
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.raw` is live until this value is dropped, see `new`.
        let descriptor = unsafe { self.raw.as_ref() }.fd;
        // SAFETY: the channel owns the descriptor and is borrowed as long as the result.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: the sole owner; its queue is destroyed before, see `QueueInner`'s `Drop`.
        unsafe { c::ibv_destroy_comp_channel(self.raw.as_ptr()) };
    }
}

#[cold]
fn broken() -> Error {
    Error::Poll(io::Error::from_raw_os_error(libc::EIO))
}

#[inline]
fn translate(raw: &c::ibv_wc) -> Completion {
    let succeeded = raw.status == c::IBV_WC_SUCCESS && raw.opcode == c::IBV_WC_RECV;
    let key = raw.imm_data_or_invalidated_rkey;
    Completion {
        token: raw.wr_id,
        status: Status(raw.status.0),
        queue_pair: raw.qp_num,
        length: raw.byte_len,
        invalidated: if succeeded { invalidated(raw.wc_flags, key) } else { Invalidated::No },
        vendor_error: raw.vendor_err,
    }
}

/// Devices set bit 3. rxe sets bit 2, which elsewhere says that a checksum was right; so there
/// the key must be one that the queue pair has bound, which the queue pair finds out.
#[inline]
pub(super) fn invalidated(flags: u32, key: u32) -> Invalidated {
    let key = RemoteKey(key);
    if flags & c::IBV_WC_WITH_INV != 0 {
        Invalidated::Certainly(key)
    } else if flags & c::IBV_WC_IP_CSUM_OK != 0 {
        Invalidated::Perhaps(key)
    } else {
        Invalidated::No
    }
}

/// Completions taken by one call of the device's plug-in.
const POLL_BATCH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn received(wc_flags: u32, key: u32) -> c::ibv_wc {
        c::ibv_wc {
            wr_id: 1,
            status: c::IBV_WC_SUCCESS,
            opcode: c::IBV_WC_RECV,
            vendor_err: 0,
            byte_len: 16,
            imm_data_or_invalidated_rkey: key,
            qp_num: 17,
            src_qp: 18,
            wc_flags,
            pkey_index: 0,
            slid: 0,
            sl: 0,
            dlid_path_bits: 0,
        }
    }

    #[test]
    fn an_invalidated_key_is_reported_in_both_dialects() {
        let key = RemoteKey(0x2e3);
        assert_eq!(translate(&received(8, 0x2e3)).invalidated(), Some(key));
        assert_eq!(translate(&received(4, 0x2e3)).invalidated, Invalidated::Perhaps(key));
        assert_eq!(translate(&received(4, 0x2e3)).invalidated(), None);
        assert_eq!(translate(&received(0, 0x2e3)).invalidated, Invalidated::No);
        let failed = c::ibv_wc { status: c::IBV_WC_WR_FLUSH_ERR, ..received(8, 0x2e3) };
        assert_eq!(translate(&failed).invalidated, Invalidated::No);
    }

    #[test]
    fn numbers_come_through() {
        let raw = c::ibv_wc { status: c::ibv_wc_status(99), vendor_err: 5, ..received(0, 0) };
        let completion = translate(&raw);
        assert_eq!(completion.status(), Status(99));
        assert_eq!(completion.vendor_error(), 5);
        assert_eq!((completion.queue_pair(), completion.length()), (17, 16));
    }
}
