//! Quirk of rxe, the kernel's soft-RoCE: no message of the connection manager while its port is
//! down.
//!
//! Destroying an id that has a connection sends a message. On rxe, one that is sent while the port
//! is down fails the special queue pair of the connection manager, and nothing connects over that
//! device any more. So such an id is destroyed when the port is active again: when the next
//! endpoint is opened, or the device's event is read. Until then all ids that wait share one event
//! channel, hence one descriptor; the peer notices the loss by its own timeouts.
//!
//! # Safety
//!
//! This file exists to delay destruction. It promises that an [`UnusedId`] is destroyed once, by
//! `Drop`, and that its event channel lives longer.

#![allow(unsafe_code)]

use std::{
    ptr::NonNull,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use rdma_core_sys as c;

use super::{
    attributes,
    event_channel::{EventChannel, check},
};

/// Id whose owner has dropped it.
pub(super) struct UnusedId {
    raw: NonNull<c::rdma_cm_id>,
    channel: Arc<EventChannel>,
}

// SAFETY: librdmacm ties ids to no thread, and this one has a single owner.
unsafe impl Send for UnusedId {}

impl UnusedId {
    /// # Safety
    ///
    /// The id is live, bound to the channel, and used by nothing else any more; its events that
    /// were read are acknowledged.
    pub(super) unsafe fn new(raw: NonNull<c::rdma_cm_id>, channel: Arc<EventChannel>) -> Self {
        Self { raw, channel }
    }

    fn is_port_down(&self) -> bool {
        // SAFETY: the id is live as long as `self`.
        unsafe { is_port_down(self.raw.as_ptr()) }
    }

    /// Moves the id to another event channel; it stays on its own where that fails.
    fn migrate(&mut self, channel: Arc<EventChannel>) {
        // SAFETY: both are live; the id's events that were read are acknowledged.
        let moved = check(unsafe { c::rdma_migrate_id(self.raw.as_ptr(), channel.pointer()) });
        if moved.is_ok() {
            self.channel = channel;
        }
    }
}

impl Drop for UnusedId {
    fn drop(&mut self) {
        // SAFETY: the sole owner, see `new`. The channel, a field, goes after this.
        unsafe { c::rdma_destroy_id(self.raw.as_ptr()) };
    }
}

/// Destroys an id, now or when its port is active again.
pub(super) fn close(mut id: UnusedId) {
    if !id.is_port_down() {
        return;
    }
    let mut waiting = WAITING.lock();
    let channel = waiting.channel.upgrade().or_else(|| EventChannel::open().ok().map(Arc::new));
    if let Some(channel) = channel {
        waiting.channel = Arc::downgrade(&channel);
        id.migrate(channel);
    }
    waiting.ids.push(id);
}

/// Destroys the waiting ids whose port is active.
pub(super) fn release() {
    let mut waiting = WAITING.lock();
    let (silenced, active): (Vec<_>, Vec<_>) =
        waiting.ids.drain(..).partition(UnusedId::is_port_down);
    waiting.ids = silenced;
    drop(waiting);
    drop(active); // which calls the kernel
}

/// Returns true if the connection manager must send nothing for an id: its device is rxe, and its
/// port is down.
///
/// # Safety
///
/// The id is live, and nothing changes it during the call.
pub(super) unsafe fn is_port_down(id: *mut c::rdma_cm_id) -> bool {
    // SAFETY: the caller's id is live, and nothing changes it.
    let id = unsafe { &*id };
    let Some(context) = NonNull::new(id.verbs) else { return false };
    // SAFETY: an id keeps the context of its device open.
    let port = unsafe { attributes::query_port(context, id.port_num) };
    if !port.is_ok_and(|port| port.state != c::IBV_PORT_ACTIVE) {
        return false;
    }
    // SAFETY: as above, an id keeps the context of its device open.
    unsafe { attributes::query(context) }.is_ok_and(|device| device.vendor_id == RXE_VENDOR_ID)
}

/// Ids that wait for their port.
struct Waiting {
    ids: Vec<UnusedId>,
    /// Channel of all of them, closed with the last.
    channel: Weak<EventChannel>,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { ids: Vec::new(), channel: Weak::new() });

/// `RXE_VENDOR_ID` of the kernel's `rxe_param.h`.
const RXE_VENDOR_ID: u32 = 0x00ff_ffff;
