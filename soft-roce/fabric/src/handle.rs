//! What users hold: each keeps its object in the world, and takes it away when dropped.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use verbs::provider::Keys;

use super::{
    shared_receive_queue::SharedId,
    signal::Signal,
    world::{DomainId, EndpointId, PairId, QueueId, World},
};

/// The world under its lock, and whether it runs by itself.
pub(super) struct Shared {
    world: Mutex<World>,
    auto: AtomicBool,
}

impl Shared {
    pub(super) fn new(seed: u64, auto: bool) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(World::new(seed)), auto: auto.into() })
    }

    /// From now on, nothing moves by itself.
    #[cfg(test)]
    pub(super) fn stop(&self) {
        self.auto.store(false, Ordering::Relaxed);
    }

    /// Does something to the world. One that runs by itself is settled before and after.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut World) -> T) -> T {
        // A test that failed while it held the lock has said so; drops go on.
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let auto = self.auto.load(Ordering::Relaxed);
        if auto {
            world.settle();
        }
        let result = action(&mut world);
        if auto {
            world.settle();
        }
        result
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric").field("auto", &self.auto).finish_non_exhaustive()
    }
}

/// An endpoint of a fabric's host.
pub struct HostEndpoint {
    pub(super) id: EndpointId,
    pub(super) world: Arc<Shared>,
    pub(super) signal: Arc<Signal>,
}

/// A protection domain of a fabric's host.
pub struct HostDomain(pub(super) Arc<DomainHold>);

/// Keeps a domain as long as anything is of it.
pub(super) struct DomainHold {
    pub(super) id: DomainId,
    pub(super) world: Arc<Shared>,
    pub(super) signal: Arc<Signal>,
}

/// Memory, or a window, registered with a fabric's host.
pub struct HostRegistration {
    pub(super) keys: Keys,
    pub(super) domain: Arc<DomainHold>,
}

/// A completion queue of a fabric's host.
pub struct HostQueue(pub(super) Arc<QueueHold>);

/// Keeps a completion queue as long as a queue pair completes there.
pub(super) struct QueueHold {
    pub(super) id: QueueId,
    pub(super) world: Arc<Shared>,
    pub(super) signal: Arc<Signal>,
}

/// A shared receive queue of a fabric's host.
pub struct HostSharedReceiveQueue(pub(super) Arc<SharedHold>);

/// Keeps a shared receive queue as long as a queue pair receives from it.
pub(super) struct SharedHold {
    pub(super) id: SharedId,
    pub(super) domain: Arc<DomainHold>,
}

/// A queue pair of a fabric's host.
pub struct HostQueuePair {
    pub(super) id: PairId,
    pub(super) world: Arc<Shared>,
    pub(super) _domain: Arc<DomainHold>,
    pub(super) _queue: Arc<QueueHold>,
    pub(super) _shared: Option<Arc<SharedHold>>,
}

impl AsFd for HostEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

impl AsFd for HostDomain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }
}

impl AsFd for HostQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }
}

impl Drop for HostEndpoint {
    fn drop(&mut self) {
        self.world.with(|world| world.release_endpoint(self.id));
    }
}

impl Drop for DomainHold {
    fn drop(&mut self) {
        self.world.with(|world| world.domains.remove(&self.id));
    }
}

impl Drop for HostRegistration {
    fn drop(&mut self) {
        self.domain.world.with(|world| world.memory.forget(self.keys));
    }
}

impl Drop for QueueHold {
    fn drop(&mut self) {
        self.world.with(|world| world.queues.remove(&self.id));
    }
}

impl Drop for SharedHold {
    fn drop(&mut self) {
        self.domain.world.with(|world| world.shared.remove(&self.id));
    }
}

impl Drop for HostQueuePair {
    fn drop(&mut self) {
        self.world.with(|world| world.destroy_pair(self.id));
    }
}
