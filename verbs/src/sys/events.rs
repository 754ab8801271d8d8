//! Asynchronous events of devices.
//!
//! A context has one stream of events, and every domain of it gets all of them: a reader takes what
//! has arrived and distributes it. So each domain has a descriptor of its own, which is ready when
//! the device has an event, or when another domain's reader has left one.
//!
//! # Safety
//!
//! This file exists to read asynchronous events. It promises that what an event points to is
//! looked at only before the event is acknowledged, which destruction waits for.

#![allow(unsafe_code)]

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use rdma_core_sys as c;
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::{DeviceEvent, DeviceEventKind, EventSubject};

/// Event stream of a context, and its subscribers.
#[derive(Default)]
pub(super) struct Stream(Mutex<Listeners>);

#[derive(Default)]
struct Listeners {
    domains: Vec<Weak<Subscription>>,
    /// Numbers of the ports that are active; unknown before the first subscription, and once the
    /// device is gone.
    active_ports: Option<BTreeSet<u32>>,
    /// True once the device is gone, and every domain was told.
    ended: bool,
}

impl Stream {
    pub(super) fn subscribe(
        &self,
        device: BorrowedFd<'_>,
        active_ports: impl FnOnce() -> Option<BTreeSet<u32>>,
    ) -> io::Result<Arc<Subscription>> {
        let mut listeners = self.0.lock();
        if listeners.active_ports.is_none() && !listeners.ended {
            listeners.active_ports = active_ports();
        }
        let subscription = Arc::new(Subscription::new((!listeners.ended).then_some(device))?);
        listeners.domains.retain(|domain| domain.strong_count() > 0);
        listeners.domains.push(Arc::downgrade(&subscription));
        Ok(subscription)
    }

    /// Returns true if all ports are down, as far as events were [read](Self::distribute).
    pub(super) fn is_port_down(&self) -> Option<bool> {
        self.0.lock().active_ports.as_ref().map(BTreeSet::is_empty)
    }

    /// Takes what has arrived and hands it to every domain.
    ///
    /// # Safety
    ///
    /// The context is open, and its event descriptor, which is `device`, does not block.
    pub(super) unsafe fn distribute(
        &self,
        context: NonNull<c::ibv_context>,
        device: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut listeners = self.0.lock();
        while !listeners.ended {
            // SAFETY: the caller's context is open and its events do not block.
            match unsafe { read(context) } {
                Ok(event) => {
                    listeners.note(event);
                    listeners.broadcast(event)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    listeners.note(REMOVED);
                    listeners.broadcast(REMOVED)?;
                }
                Err(error) => return Err(error),
            }
        }
        for domain in listeners.domains.iter().filter_map(Weak::upgrade) {
            // The descriptor of a removed device is ready for ever. Once it is out of the set,
            // taking it out again fails, which is as well.
            let _ = epoll::delete(&domain.ready, device);
        }
        Ok(())
    }
}

impl Listeners {
    /// Notes the state of the device and its ports.
    fn note(&mut self, event: DeviceEvent) {
        let DeviceEvent { kind, subject } = event;
        match (kind, subject, &mut self.active_ports) {
            (DeviceEventKind::DEVICE_FATAL, ..) => (self.ended, self.active_ports) = (true, None),
            (DeviceEventKind::PORT_ACTIVE, EventSubject::Port(port), Some(active)) => {
                active.insert(port);
            }
            (DeviceEventKind::PORT_ERROR, EventSubject::Port(port), Some(active)) => {
                active.remove(&port);
            }
            _ => {}
        }
    }

    fn broadcast(&self, event: DeviceEvent) -> io::Result<()> {
        self.domains.iter().filter_map(Weak::upgrade).try_for_each(|domain| domain.push(event))
    }
}

/// One domain's share of its device's events.
pub(super) struct Subscription {
    /// Ready when the device is, or `left`.
    ready: OwnedFd,
    /// Counts while `pending` has something.
    left: OwnedFd,
    pending: Mutex<VecDeque<DeviceEvent>>,
}

impl Subscription {
    fn new(device: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let left = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let watch = |file| epoll::add(&ready, file, epoll::EventData::new_u64(0), READABLE);
        watch(left.as_fd())?;
        device.map(watch).transpose()?;
        Ok(Self { ready, left, pending: Mutex::default() })
    }

    pub(super) fn pop(&self) -> io::Result<Option<DeviceEvent>> {
        let mut pending = self.pending.lock();
        let event = pending.pop_front();
        if event.is_some() && pending.is_empty() {
            rustix::io::read(&self.left, &mut [0; 8])?;
        }
        Ok(event)
    }

    fn push(&self, event: DeviceEvent) -> io::Result<()> {
        let mut pending = self.pending.lock();
        if pending.is_empty() {
            rustix::io::write(&self.left, &1_u64.to_ne_bytes())?;
        }
        if pending.len() == PENDING_MAX {
            pending.pop_front();
        }
        pending.push_back(event);
        Ok(())
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// # Safety
///
/// The context is open, and its event descriptor does not block.
unsafe fn read(context: NonNull<c::ibv_context>) -> io::Result<DeviceEvent> {
    let mut raw = MaybeUninit::<c::ibv_async_event>::zeroed();
    // SAFETY: the caller's context is open, and the event is writable.
    if unsafe { c::ibv_get_async_event(context.as_ptr(), raw.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the event.
    let mut raw = unsafe { raw.assume_init() };
    let kind = DeviceEventKind(raw.event_type.0);
    // SAFETY: the event is not acknowledged yet.
    let subject = unsafe { subject(&raw) };
    // SAFETY: the event came from the call above, and is not used after this.
    unsafe { c::ibv_ack_async_event(&raw mut raw) };
    Ok(DeviceEvent { kind, subject })
}

/// # Safety
///
/// The event was read, and is not acknowledged yet.
unsafe fn subject(event: &c::ibv_async_event) -> EventSubject {
    match event.event_type {
        c::IBV_EVENT_QP_FATAL
        | c::IBV_EVENT_QP_REQ_ERR
        | c::IBV_EVENT_QP_ACCESS_ERR
        | c::IBV_EVENT_COMM_EST
        | c::IBV_EVENT_SQ_DRAINED
        | c::IBV_EVENT_PATH_MIG
        | c::IBV_EVENT_PATH_MIG_ERR
        | c::IBV_EVENT_QP_LAST_WQE_REACHED => {
            // SAFETY: for these kinds libibverbs fills this member in.
            let queue_pair = unsafe { event.element.qp };
            // SAFETY: its destruction waits for the acknowledgement, so it is still there.
            EventSubject::QueuePair(unsafe { (*queue_pair).qp_num })
        }
        c::IBV_EVENT_CQ_ERR => {
            // SAFETY: for this kind libibverbs fills this member in.
            let queue = unsafe { event.element.cq };
            // SAFETY: its destruction waits for the acknowledgement, so it is still there.
            EventSubject::CompletionQueue(unsafe { (*queue).handle })
        }
        c::IBV_EVENT_PORT_ACTIVE
        | c::IBV_EVENT_PORT_ERR
        | c::IBV_EVENT_LID_CHANGE
        | c::IBV_EVENT_PKEY_CHANGE
        | c::IBV_EVENT_SM_CHANGE
        | c::IBV_EVENT_CLIENT_REREGISTER
        | c::IBV_EVENT_GID_CHANGE => {
            // SAFETY: for these kinds libibverbs fills this member in.
            let port = unsafe { event.element.port_num };
            EventSubject::Port(port.max(0).cast_unsigned())
        }
        _ => EventSubject::Device,
    }
}

const REMOVED: DeviceEvent =
    DeviceEvent { kind: DeviceEventKind::DEVICE_FATAL, subject: EventSubject::Device };

const READABLE: epoll::EventFlags = epoll::EventFlags::IN;

/// Maximum number of unread events of a domain.
const PENDING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn every_listener_gets_every_event_and_is_woken() {
        let stream = Stream::default();
        let device = eventfd(0, EventfdFlags::CLOEXEC).expect("descriptors are not used up");
        let [one, other] = [0; 2]
            .map(|_| stream.subscribe(device.as_fd(), || None).expect("descriptors are there"));
        assert!(!is_ready(&one) && !is_ready(&other));
        let listeners = stream.0.lock();
        listeners.broadcast(REMOVED).expect("it can be woken");
        listeners.broadcast(REMOVED).expect("it can be woken");
        for listener in [one, other] {
            for _ in 0..2 {
                assert!(is_ready(&listener));
                assert_eq!(listener.pop().expect("it can be read"), Some(REMOVED));
            }
            assert!(!is_ready(&listener));
            assert_eq!(listener.pop().expect("it can be read"), None);
        }
        rustix::io::write(&device, &1_u64.to_ne_bytes()).expect("it can be written");
        let late = Subscription::new(Some(device.as_fd())).expect("descriptors are there");
        assert!(is_ready(&late), "the device has something");
    }

    #[test]
    fn a_listener_that_does_not_read_is_bounded() {
        let listener = Subscription::new(None).expect("descriptors are there");
        for port in 0..100 {
            let kind = DeviceEventKind::PORT_ERROR;
            listener.push(DeviceEvent { kind, subject: EventSubject::Port(port) }).expect("woken");
        }
        let first = listener.pop().expect("it can be read").expect("there is one");
        assert_eq!(first.subject, EventSubject::Port(36));
        assert_eq!(std::iter::from_fn(|| listener.pop().expect("read")).count(), 63);
        assert!(!is_ready(&listener));
    }

    fn is_ready(listener: &Subscription) -> bool {
        let mut files = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut files, Some(&Timespec::default())).expect("polling is possible") > 0
    }
}
