//! Ids of the connection manager, and their event channels.
//!
//! # Safety
//!
//! This file exists to own the pointers that librdmacm gives out. It promises that an [`CmId`] is
//! live and bound to its [`Channel`] as long as the Rust value, and that no two calls on it run
//! at once: the pointer is only given out by [`CmId::with`], under the id's lock.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
};

use parking_lot::Mutex;
use rdma_core_sys as c;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// An event channel, whose file descriptor does not block.
pub(super) struct EventChannel(NonNull<c::rdma_event_channel>);

// SAFETY: a channel is a file descriptor in an allocation; librdmacm ties neither to a thread.
unsafe impl Send for EventChannel {}
// SAFETY: what is reachable through a shared channel is its descriptor, which never changes.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: the call takes nothing, and what it returns is checked before use.
        let raw = unsafe { c::rdma_create_event_channel() };
        let channel = Self(NonNull::new(raw).ok_or_else(io::Error::last_os_error)?);
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    pub(super) fn pointer(&self) -> *mut c::rdma_event_channel {
        self.0.as_ptr()
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.0` is live until this value is dropped, see `open`.
        let descriptor = unsafe { self.0.as_ref() }.fd;
        // SAFETY: the channel owns the descriptor and is borrowed as long as the result.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: the sole owner; ids of this channel are destroyed before, see `CmId`'s `Drop`.
        unsafe { c::rdma_destroy_event_channel(self.0.as_ptr()) };
    }
}

/// An id with an event channel of its own.
pub(super) struct CmId {
    raw: NonNull<c::rdma_cm_id>,
    channel: EventChannel,
    lock: Mutex<()>,
}

// SAFETY: librdmacm ties ids to no thread; the pointer is only used under `lock`.
unsafe impl Send for CmId {}
// SAFETY: through a shared `CmId` the pointer is reached only by `with`, which takes `lock`.
unsafe impl Sync for CmId {}

impl CmId {
    /// Makes a new one, with TCP-like ports.
    pub(super) fn new(channel: EventChannel) -> io::Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: the channel is live, and becomes part of the value that owns the id.
        let result = unsafe {
            c::rdma_create_id(channel.pointer(), &raw mut raw, ptr::null_mut(), c::RDMA_PS_TCP)
        };
        check(result)?;
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { raw, channel, lock: Mutex::new(()) })
    }

    /// Takes over one that came with an event, which is acknowledged, and moves it from the
    /// listener's channel to one of its own.
    ///
    /// # Safety
    ///
    /// The id is live, nobody else owns it, and its present channel lives during this call.
    pub(super) unsafe fn adopt(raw: NonNull<c::rdma_cm_id>) -> io::Result<Self> {
        let channel = match EventChannel::open() {
            Ok(channel) => channel,
            Err(error) => {
                // SAFETY: nobody else owns the id, as the caller promises; it is not used again.
                unsafe { c::rdma_destroy_id(raw.as_ptr()) };
                return Err(error);
            }
        };
        let id = Self { raw, channel, lock: Mutex::new(()) };
        // SAFETY: both are live; on failure the id is destroyed by `Drop`, and has no events.
        check(unsafe { c::rdma_migrate_id(raw.as_ptr(), id.channel.pointer()) })?;
        Ok(id)
    }

    /// Runs a call on the id while nobody else does. The pointer is live during the call.
    pub(super) fn with<R>(&self, call: impl FnOnce(*mut c::rdma_cm_id) -> R) -> R {
        let _guard = self.lock.lock();
        call(self.raw.as_ptr())
    }

    /// As [`with`](Self::with), for the calls of librdmacm that follow the id's device without
    /// asking whether there is one.
    pub(super) fn with_device(
        &self,
        call: impl FnOnce(*mut c::rdma_cm_id) -> libc::c_int,
    ) -> io::Result<()> {
        if self.context().is_none() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        check(self.with(call))
    }

    /// The device's context, once the id is bound to a device.
    pub(super) fn context(&self) -> Option<NonNull<c::ibv_context>> {
        // SAFETY: `with` gives a live pointer, and nobody changes the id meanwhile.
        self.with(|id| NonNull::new(unsafe { (*id).verbs }))
    }

    pub(super) fn channel(&self) -> &EventChannel {
        &self.channel
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: the sole owner. Its queue pair holds the id and so is gone, and each event is
        // acknowledged where it is read. The channel, a field, goes after this.
        unsafe { c::rdma_destroy_id(self.raw.as_ptr()) };
    }
}

/// The error that a call of librdmacm left in `errno`.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(descriptor)?;
    fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
    Ok(())
}
