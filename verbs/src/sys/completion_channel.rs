//! Completion channels.
//!
//! # Safety
//!
//! This file exists to own a channel. It promises that the device's context stays open as long as
//! the channel.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use rdma_core_sys as c;

use super::{device::DeviceContext, event_channel::set_nonblocking};

pub(super) struct CompletionChannel {
    raw: NonNull<c::ibv_comp_channel>,
    device: Arc<DeviceContext>,
}

impl CompletionChannel {
    pub(super) fn new(device: Arc<DeviceContext>) -> io::Result<Self> {
        // SAFETY: the device keeps its context open.
        let raw = unsafe { c::ibv_create_comp_channel(device.context()) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        let channel = Self { raw, device };
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_comp_channel {
        self.raw.as_ptr()
    }

    pub(super) fn device(&self) -> &DeviceContext {
        &self.device
    }

    /// Open as long as `self`.
    pub(super) fn context(&self) -> *mut c::ibv_context {
        self.device.context()
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
