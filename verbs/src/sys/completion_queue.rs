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
    completion_channel::CompletionChannel,
    device::DeviceContext,
    extended_poll::{self, ExtendedPoll},
    work_completion,
};
use crate::{
    Error, VerbsApi,
    provider::{CompletionQueueInfo, WorkCompletion},
};

/// A completion queue, shared with the queue pairs that complete on it.
pub struct RawCompletionQueue {
    inner: Arc<QueueInner>,
    /// Calls of the extended API, if the queue is polled by them.
    extended: Option<ExtendedPoll>,
    /// Completions as rdma-core's provider writes them, before they are translated.
    scratch: Box<[c::ibv_wc; POLL_BATCH]>,
    /// The most events that can still come off the channel.
    armed: u32,
    /// True if the channel was found empty since the queue was armed last.
    is_drained: bool,
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
        device: Arc<DeviceContext>,
        capacity: u32,
        api: VerbsApi,
    ) -> Result<(Self, CompletionQueueInfo), Error> {
        let failed = |source| Error::CreateCompletionQueue { capacity, source };
        let channel = CompletionChannel::new(device).map_err(failed)?;
        let entries = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
        let (context, vector) = (channel.context(), channel.device().next_vector());
        let raw = match api {
            VerbsApi::Legacy => None,
            VerbsApi::Extended => extended_poll::create(&channel, capacity, vector),
        };
        // SAFETY: a queue from there is an extended one; both become parts of `Self`.
        let extended = raw.and_then(|raw| unsafe { ExtendedPoll::of(raw) });
        // SAFETY: the channel holds the context open, and becomes part of the queue's owner.
        let classic = || unsafe {
            c::ibv_create_cq(context, entries, ptr::null_mut(), channel.pointer(), vector)
        };
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
        Ok((Self { inner, extended, scratch, armed: 0, is_drained: false }, info))
    }

    #[inline(never)]
    pub(super) fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        if let Some(extended) = &mut self.extended {
            return extended.poll(out);
        }
        match self.poll_batch(out) {
            Some(POLL_BATCH) => self.poll_on(out),
            Some(count) => Ok(count),
            None => Err(broken()),
        }
    }

    /// Takes a batch at most; `None` when the queue is broken.
    #[inline(always)]
    fn poll_batch(&mut self, out: &mut [WorkCompletion]) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        let entries = out.len().min(POLL_BATCH) as libc::c_int; // a batch is of a few entries
        // SAFETY: the queue is live as long as `self`, and `scratch` has that many entries.
        let count =
            unsafe { c::ibv_poll_cq(self.inner.raw.as_ptr(), entries, self.scratch.as_mut_ptr()) };
        let count = usize::try_from(count).ok()?;
        for (completion, raw) in out.iter_mut().zip(self.scratch.iter_mut()).take(count) {
            *completion = work_completion::translate(raw);
            raw.imm_data_or_invalidated_rkey = 0; // so that no later completion shows it
        }
        Some(count)
    }

    /// Goes on after a first batch that was full. Apart, since most polls are done by then.
    #[inline(never)]
    fn poll_on(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
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
                // Armed twice without an event between, it makes one; the rare event that came
                // between is taken after the next sleep, which it ends at once.
                let pending = if self.is_drained { 0 } else { self.armed };
                (self.armed, self.is_drained) = (pending.saturating_add(1), false);
                Ok(0)
            }
            errno => Err(Error::Arm(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Each arming makes one event at most, so reading stops there, which saves the call that
    /// would find nothing.
    pub(super) fn acknowledge(&mut self) -> Result<usize, Error> {
        let mut events = 0;
        while events < self.armed {
            self.is_drained = !self.read_event().map_err(Error::AcknowledgeCompletions)?;
            if self.is_drained {
                break;
            }
            events += 1;
        }
        if events > 0 {
            // SAFETY: the queue is live; as many events were read and not acknowledged yet.
            unsafe { c::ibv_ack_cq_events(self.inner.raw.as_ptr(), events) };
        }
        debug_assert!(events <= self.armed, "an arming makes one event at most");
        // Arming twice without an event between is one arming, so at most one can be left.
        self.armed = (self.armed - events).min(1);
        Ok(events as usize)
    }

    pub(super) fn resize(&mut self, capacity: u32) -> Result<usize, Error> {
        let entries = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
        // SAFETY: the queue is live, and borrowed exclusively, so it is not polled meanwhile.
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
        let channel = self.inner.channel.pointer();
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

    pub(super) fn device(&self) -> &DeviceContext {
        self.channel.device()
    }
}

impl Drop for QueueInner {
    fn drop(&mut self) {
        // SAFETY: the sole owner; queue pairs hold the queue, so none is left, and events are
        // acknowledged where they are read. The channel, a field, goes after this.
        unsafe { c::ibv_destroy_cq(self.raw.as_ptr()) };
    }
}

#[cold]
fn broken() -> Error {
    Error::Poll(io::Error::from_raw_os_error(libc::EIO))
}

/// Completions taken by one call of the device's plug-in.
const POLL_BATCH: usize = 32;
