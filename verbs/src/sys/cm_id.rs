//! Ids of the connection manager.
//!
//! # Safety
//!
//! This file exists to own the pointers that librdmacm gives out. It promises that a [`CmId`] is
//! live and bound to its [`EventChannel`] as long as the Rust value, and that no two calls on it
//! run at once: the pointer is only given out by [`CmId::with`], under the id's lock.

#![allow(unsafe_code)]

use std::{
    io,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use rdma_core_sys as c;

use super::{
    event_channel::{EventChannel, check},
    rxe_quirk,
};

/// An id with an event channel of its own.
pub(super) struct CmId {
    raw: NonNull<c::rdma_cm_id>,
    channel: Arc<EventChannel>,
    lock: Mutex<()>,
    /// True once the id may have a connection, whose end sends a message to the peer.
    connects: AtomicBool,
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
        Ok(Self { raw, channel: channel.into(), lock: Mutex::default(), connects: false.into() })
    }

    /// Takes over one that came with an event, which is acknowledged, and moves it from the
    /// listener's channel to one of its own.
    ///
    /// # Safety
    ///
    /// The id is live, without another owner, and its present channel lives during this call.
    pub(super) unsafe fn adopt(raw: NonNull<c::rdma_cm_id>) -> io::Result<Self> {
        let channel = match EventChannel::open() {
            Ok(channel) => channel,
            Err(error) => {
                // SAFETY: the id has no other owner, as the caller promises; it is not used again.
                unsafe { c::rdma_destroy_id(raw.as_ptr()) };
                return Err(error);
            }
        };
        let (channel, lock) = (channel.into(), Mutex::default());
        let id = Self { raw, channel, lock, connects: true.into() };
        // SAFETY: both are live; on failure the id is destroyed by `Drop`, and has no events.
        check(unsafe { c::rdma_migrate_id(raw.as_ptr(), id.channel.pointer()) })?;
        Ok(id)
    }

    /// Runs a call on the id under its lock. The pointer is live during the call.
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

    /// As [`with_device`](Self::with_device), for the calls that make a connection.
    pub(super) fn with_connection(
        &self,
        call: impl FnOnce(*mut c::rdma_cm_id) -> libc::c_int,
    ) -> io::Result<()> {
        self.connects.store(true, Ordering::Relaxed);
        self.with_device(call)
    }

    /// The device's context, once the id is bound to a device.
    pub(super) fn context(&self) -> Option<NonNull<c::ibv_context>> {
        // SAFETY: `with` gives a live pointer, and its lock keeps the id from changing.
        self.with(|id| NonNull::new(unsafe { (*id).verbs }))
    }

    pub(super) fn channel(&self) -> &EventChannel {
        &self.channel
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: the sole owner. Its queue pair holds the id and so is gone.
        let id = unsafe { rxe_quirk::UnusedId::new(self.raw, self.channel.clone()) };
        if *self.connects.get_mut() {
            rxe_quirk::close(id);
        }
    }
}
