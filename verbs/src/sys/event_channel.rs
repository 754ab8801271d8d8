//! Event channels of the connection manager.
//!
//! # Safety
//!
//! This file exists to own a channel. It promises that the channel lives as long as the Rust value.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

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

/// The error that a call of librdmacm left in `errno`.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(descriptor)?;
    fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
    Ok(())
}
