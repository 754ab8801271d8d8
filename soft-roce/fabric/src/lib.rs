//! Simulated RDMA network within one process, for tests of behaviour that a real device cannot be
//! made to show.
//!
//! A [`Fabric`] is a network of hosts. Each [`Host`] is a [`verbs::Provider`], so any program
//! written against `verbs` runs over it unchanged. There are no threads, no real clock and no
//! entropy: all random decisions come from the seed, and time is virtual and advances only on
//! request. The same calls with the same seed always have the same results.
//!
//! # Structure
//!
//! ```text
//!      program                                              program
//!         | verbs                                              | verbs
//!   Host "client"                                         Host "server"
//!     endpoints ---- messages of the connection manager --- endpoints
//!     queue pairs -- requests --> [ Link: latency, loss ] --> queue pairs
//!        ^    '----- <-- response, no response, or RNR NAK -----'    |
//!        |                        [ Fault at a Point ]               v
//!     completion queues, memory, windows            completion queues, memory, windows
//!   ------------------------------------------------------------------------------------
//!                  Simulation: one lock, one virtual clock
//! ```
//!
//! # Quick start
//!
//! The package `rdma-fabric` is a development dependency beside `rdma-verbs`, which links
//! libibverbs and librdmacm (Debian: `libibverbs-dev`, `librdmacm-dev`); no device is needed.
//!
//! ```
//! use std::time::Duration;
//!
//! use rdma_fabric::Fabric;
//! use verbs::{QueuePairCapabilities, ConnectParameters, ConnectionEvent, Endpoint, Status};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fabric = Fabric::auto(1);
//! let (client, server) =
//!     (fabric.host("client", "10.0.0.1".parse()?), fabric.host("server", "10.0.0.2".parse()?));
//! let address = "10.0.0.2:4420".parse()?;
//! let size = QueuePairCapabilities {
//!     max_send_wr: 4,
//!     max_recv_wr: 4,
//!     max_send_sge: 1,
//!     max_inline_data: 64,
//! };
//!
//! let mut listener = Endpoint::open_with(server)?;
//! listener.listen(address, 1)?;
//! let mut near = Endpoint::open_with(client)?;
//! near.resolve_address(None, address, Duration::from_secs(1))?;
//! assert!(matches!(near.next_event()?, Some(ConnectionEvent::AddressResolved)));
//! near.resolve_route(Duration::from_secs(1))?;
//! assert!(matches!(near.next_event()?, Some(ConnectionEvent::RouteResolved)));
//! let (domain, mut queue) = (near.domain()?, near.completion_queue(8)?);
//! let prepared = near.queue_pair(&domain, &queue, size)?;
//! near.connect(&ConnectParameters { rnr_retry_count: 1, ..ConnectParameters::default() })?;
//!
//! let Some(ConnectionEvent::ConnectRequest { endpoint: mut far, .. }) = listener.next_event()?
//! else { panic!("a request has arrived") };
//! let (far_domain, far_queue) = (far.domain()?, far.completion_queue(8)?);
//! let _far_queue_pair = far.queue_pair(&far_domain, &far_queue, size)?;
//! far.accept(&ConnectParameters { rnr_retry_count: 1, ..ConnectParameters::default() })?;
//! let Some(ConnectionEvent::Established(established)) = near.next_event()?
//! else { panic!("it was accepted") };
//!
//! // The server has posted no receive, so the one RNR retry is exceeded once time passes.
//! let mut queue_pair = prepared.ready(&established);
//! queue_pair.send_inline(b"hello?")?;
//! queue_pair.flush()?;
//! let mut completions = [verbs::Completion::default(); 4];
//! assert_eq!(queue.poll(&mut completions)?, 0);
//! fabric.advance(Duration::from_secs(1));
//! assert_eq!(queue.poll(&mut completions)?, 1);
//! assert_eq!(completions[0].status(), Status::RECEIVER_NOT_READY);
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! With [`Fabric::new`] nothing happens by itself: [`step`](Fabric::step) executes the next event,
//! [`run_until_idle`](Fabric::run_until_idle) all events, and [`advance`](Fabric::advance) those of
//! a span of time. With [`Fabric::auto`] everything in transit is delivered with each call, so that
//! code written for a real device works unchanged and sleeps on the same file descriptors; timers
//! still expire only if time is advanced.
//!
//! # Features
//!
//! Reliable connections as in InfiniBand: delivery in order, retries when a peer has no receive or
//! does not respond, keys and windows checked on each access, flushing on failure. [`Link`] adds
//! latency, loss and reordering; [`Fabric::at`] schedules a [`Fault`] at a [`Point`]. [`Recorder`]
//! wraps this or any other provider and records each call; [`Replay`] is a provider that answers
//! from such a recording.
//!
//! A port that is [down](Fabric::set_port) drops all messages and raises a device event. The
//! connection manager behaves like that of rxe, the worst known: after a connection request while
//! the port is down, the host's connection manager neither sends nor receives until the device is
//! [removed](Fabric::remove_device) and [restored](Fabric::restore_device).
//!
//! # Limits
//!
//! * No datagrams, atomics or immediate data.
//! * Requests that need no peer (bind, invalidate) take effect when they start, which is when they
//!   are posted, unless a read before them exceeds the maximum of outstanding reads.
//! * Queue pair numbers and keys are unique in a whole fabric, unlike on devices.
//! * A host has one device with one port.

mod clock;
mod fault;
mod handle;
mod host;
mod link;
mod recorder;
mod recording;
mod replay;
mod signal;
mod simulation;

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

pub use fault::{Fault, Point};
pub use handle::{HostDomain, HostEndpoint, HostQueue, HostQueuePair, HostRegistration};
pub use host::Host;
pub use link::Link;
pub use recorder::{
    Recorder, RecorderDomain, RecorderEndpoint, RecorderQueue, RecorderQueuePair,
    RecorderRegistration, Trace,
};

pub use replay::{
    Replay, ReplayDomain, ReplayEndpoint, ReplayQueue, ReplayQueuePair, ReplayRegistration,
};

pub use signal::Readiness;

use handle::SharedSimulation;
use signal::Signals;
use simulation::HostId;

/// Simulated network. Clones refer to the same network.
#[derive(Clone, Debug)]
pub struct Fabric {
    simulation: Arc<SharedSimulation>,
}

impl Fabric {
    /// Creates a network in which events happen only by [`step`](Self::step) and the like.
    pub fn new(seed: u64) -> Self {
        Self { simulation: SharedSimulation::new(seed, false) }
    }

    /// Creates a network in which each call first delivers everything in transit.
    pub fn auto(seed: u64) -> Self {
        Self { simulation: SharedSimulation::new(seed, true) }
    }

    /// Creates a network as [`new`](Self::new) for a runtime in virtual time: no file descriptor
    /// becomes readable; tasks await the [`Readiness`] of an object instead.
    pub fn in_virtual_time(seed: u64) -> Self {
        let this = Self::new(seed);
        this.simulation.with(|simulation| simulation.signals = Some(Signals::new(1)));
        this
    }

    /// Creates a network as [`in_virtual_time`](Self::in_virtual_time) for thousands of hosts,
    /// beyond the limit of open files: up to `objects` objects of a host share a file descriptor,
    /// and a [`Readiness`] is that of any of them.
    pub fn of_many_hosts(seed: u64, objects: usize) -> Self {
        let this = Self::new(seed);
        this.simulation.with(|simulation| simulation.signals = Some(Signals::new(objects)));
        this
    }

    /// Returns the host with this name, which is created on first use.
    pub fn host(&self, name: &str, address: IpAddr) -> Arc<Host> {
        let id = self.simulation.with(|simulation| simulation.add_host(name, address));
        Arc::new(Host { id, simulation: self.simulation.clone() })
    }

    /// Executes the next event; returns false if there is none.
    pub fn step(&self) -> bool {
        self.simulation.with(|simulation| simulation.step(Duration::MAX))
    }

    /// Executes all events until none is left.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// Delivers everything in transit, without expiring timers.
    pub fn settle(&self) {
        self.simulation.with(simulation::Simulation::settle);
    }

    /// Advances time and executes the events in that span.
    pub fn advance(&self, by: Duration) {
        self.simulation.with(|simulation| {
            let until = simulation.clock.now().saturating_add(by);
            while simulation.step(until) {}
            simulation.clock.set(until);
        });
    }

    /// Time of the next event, if one is scheduled.
    pub fn next_event(&self) -> Option<Duration> {
        self.simulation.with(|simulation| simulation.clock.next_event())
    }

    /// Finds the object with this file descriptor, in a fabric
    /// [in virtual time](Self::in_virtual_time); `None` if there is none.
    pub fn readiness(&self, fd: BorrowedFd<'_>) -> Option<Readiness> {
        let fd = fd.as_raw_fd();
        let signal = self.simulation.with(|simulation| simulation.signals.as_ref()?.find(fd));
        signal.map(Readiness::new)
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.simulation.with(|simulation| simulation.clock.now())
    }

    /// Sets the properties of the wire from now on.
    pub fn set_link(&self, link: Link) {
        self.simulation.with(|simulation| simulation.link = link);
    }

    /// Schedules a fault.
    ///
    /// # Panics
    ///
    /// When the point names an unknown host.
    pub fn at(&self, point: Point, fault: Fault) {
        let scheduled =
            self.simulation.with(|simulation| simulation.schedule_fault(point.clone(), fault));
        assert!(scheduled, "no host of that name: {point:?}");
    }

    /// Cuts the network between two hosts.
    ///
    /// # Panics
    ///
    /// When there is no host with one of the names.
    pub fn partition(&self, one: &str, other: &str) {
        let (one, other) = (self.find(one), self.find(other));
        self.simulation.with(|simulation| simulation.partition(one, other));
    }

    /// Restores the network between two hosts.
    ///
    /// # Panics
    ///
    /// When there is no host with one of the names.
    pub fn heal(&self, one: &str, other: &str) {
        let (one, other) = (self.find(one), self.find(other));
        self.simulation.with(|simulation| simulation.heal(one, other));
    }

    /// Removes a host's device, as unplugging it would.
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn remove_device(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.remove_device(host));
    }

    /// Adds a new device to a host. Objects of the old one stay unusable.
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn restore_device(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.restore_device(host));
    }

    /// Adds an address to a host.
    ///
    /// # Panics
    ///
    /// When there is no host with this name, or another host has the address.
    pub fn add_address(&self, host: &str, address: IpAddr) {
        let id = self.find(host);
        let added = self.simulation.with(|simulation| simulation.add_address(id, address));
        assert!(added, "{address} is the address of another host");
    }

    /// Sets the link state of a host's port.
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn set_port(&self, host: &str, active: bool) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.set_port(host, active));
    }

    /// Makes a host's devices report no support for memory windows.
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn without_windows(&self, host: &str) {
        let HostId(host) = self.find(host);
        self.simulation.with(|simulation| simulation.hosts[host].windows = false);
    }

    /// Sets the NUMA node that a host's devices report.
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn set_numa_node(&self, host: &str, node: u32) {
        let HostId(host) = self.find(host);
        self.simulation.with(|simulation| simulation.hosts[host].numa_node = Some(node));
    }

    /// Moves a host's address to another device, as a failover of a bond does: each endpoint that
    /// is bound to the device receives [`AddressChange`](verbs::ConnectionEvent::AddressChange).
    ///
    /// # Panics
    ///
    /// When there is no host with this name.
    pub fn change_address(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.change_address(host));
    }

    /// Counts the objects of all hosts by kind.
    pub fn objects(&self) -> Objects {
        self.simulation.with(|simulation| Objects {
            endpoints: simulation.endpoints.len(),
            domains: simulation.domains.len(),
            registrations: simulation.memory.len(),
            completion_queues: simulation.queues.len(),
            queue_pairs: simulation.pairs.len(),
        })
    }

    fn find(&self, host: &str) -> HostId {
        let found = self.simulation.with(|simulation| simulation.find_host(host));
        found.unwrap_or_else(|| panic!("no host is named {host}"))
    }
}

/// Number of objects of a fabric. All are 0 once every object has been dropped and everything in
/// transit has been delivered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Objects {
    /// Endpoints, including those kept alive by their queue pair or an unread event.
    pub endpoints: usize,
    /// Protection domains.
    pub domains: usize,
    /// Registrations of memory, and memory windows.
    pub registrations: usize,
    /// Completion queues.
    pub completion_queues: usize,
    /// Queue pairs.
    pub queue_pairs: usize,
}

#[cfg(test)]
mod tests;
