//! Handles of the users: each keeps its object in the simulation, and removes it when dropped.

use std::{
    any::Any,
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use verbs::provider::{Keys, Registration};

use super::{
    signal::Signal,
    simulation::{DomainId, EndpointId, PairId, QueueId, Simulation},
};

/// Simulation under its lock, with the flag for automatic delivery.
pub(super) struct SharedSimulation {
    simulation: Mutex<Simulation>,
    auto: AtomicBool,
}

impl SharedSimulation {
    pub(super) fn new(seed: u64, auto: bool) -> Arc<Self> {
        Arc::new(Self { simulation: Mutex::new(Simulation::new(seed)), auto: auto.into() })
    }

    /// Turns automatic delivery off.
    #[cfg(test)]
    pub(super) fn disable_auto(&self) {
        self.auto.store(false, Ordering::Relaxed);
    }

    /// Applies an action to the simulation. With automatic delivery, everything in transit is
    /// delivered before and after.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut Simulation) -> T) -> T {
        // A test that panicked while it held the lock has reported its failure; drops must still
        // work.
        let mut simulation = self.simulation.lock().unwrap_or_else(PoisonError::into_inner);
        let auto = self.auto.load(Ordering::Relaxed);
        if auto {
            simulation.settle();
        }
        let result = action(&mut simulation);
        if auto {
            simulation.settle();
        }
        result
    }
}

impl fmt::Debug for SharedSimulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric").field("auto", &self.auto).finish_non_exhaustive()
    }
}

/// Endpoint of a fabric's host.
pub struct HostEndpoint {
    pub(super) id: EndpointId,
    pub(super) simulation: Arc<SharedSimulation>,
    pub(super) signal: Arc<Signal>,
}

/// Protection domain of a fabric's host.
pub struct HostDomain(pub(super) Arc<DomainHandle>);

/// Keeps a domain alive while it has any objects.
pub(super) struct DomainHandle {
    pub(super) id: DomainId,
    pub(super) simulation: Arc<SharedSimulation>,
    pub(super) signal: Arc<Signal>,
}

/// Memory or window registered with a fabric's host.
pub struct HostRegistration {
    pub(super) keys: Keys,
    pub(super) domain: Arc<DomainHandle>,
}

/// Completion queue of a fabric's host.
pub struct HostQueue(pub(super) Arc<QueueHandle>);

/// Keeps a completion queue alive while a queue pair uses it.
pub(super) struct QueueHandle {
    pub(super) id: QueueId,
    pub(super) simulation: Arc<SharedSimulation>,
    pub(super) signal: Arc<Signal>,
}

/// Queue pair of a fabric's host.
pub struct HostQueuePair {
    pub(super) id: PairId,
    pub(super) simulation: Arc<SharedSimulation>,
    pub(super) _domain: Arc<DomainHandle>,
    pub(super) _queue: Arc<QueueHandle>,
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
        self.simulation.with(|simulation| simulation.release_endpoint(self.id));
    }
}

impl Drop for DomainHandle {
    fn drop(&mut self) {
        self.simulation.with(|simulation| simulation.domains.remove(&self.id));
    }
}

impl Registration for HostRegistration {
    fn innermost(&self) -> &dyn Any {
        self
    }
}

impl Drop for HostRegistration {
    fn drop(&mut self) {
        self.domain.simulation.with(|simulation| simulation.memory.deregister(self.keys));
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.simulation.with(|simulation| simulation.queues.remove(&self.id));
    }
}

impl Drop for HostQueuePair {
    fn drop(&mut self) {
        self.simulation.with(|simulation| simulation.destroy_pair(self.id));
    }
}
