//! RDMA within this process, for tests that no real device can be made to play.
//!
//! A [`Fabric`] is a network of hosts; each [`Host`] is a [`verbs::Provider`], so everything that
//! is written against `verbs` runs over it unchanged. There is no thread, no clock and no
//! randomness in it: the seed decides everything that chance would, and time is a number that
//! moves when somebody moves it. The same calls with the same seed do the same, always.
//!
//! # Picture
//!
//! ```text
//!      program                                              program
//!         | verbs                                              | verbs
//!   Host "client"                                         Host "server"
//!     endpoints ---- letters of the connection manager ---- endpoints
//!     queue pairs -- requests --> [ Link: latency, loss ] --> queue pairs
//!        ^    '----- <-- answers, or silence, or "no receive" --'    |
//!        |                        [ Fault at a Point ]               v
//!     completion queues, memory, windows            completion queues, memory, windows
//!   ------------------------------------------------------------------------------------
//!                          one simulation: one lock, one virtual clock
//! ```
//!
//! # Quick start
//!
//! ```
//! use std::time::Duration;
//!
//! use rdma_fabric::Fabric;
//! use verbs::{Capabilities, ConnectParameters, ConnectionEvent, Endpoint, Status};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fabric = Fabric::auto(1);
//! let (client, server) =
//!     (fabric.host("client", "10.0.0.1".parse()?), fabric.host("server", "10.0.0.2".parse()?));
//! let address = "10.0.0.2:4420".parse()?;
//! let size = Capabilities { send: 4, receive: 4, segments: 1, inline: 64 };
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
//! // Nobody posts a receive there, and one retry is soon over, once time passes.
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
//! With [`Fabric::new`] nothing moves by itself: [`step`](Fabric::step) lets the next thing
//! happen, [`run_until_idle`](Fabric::run_until_idle) all of them, and
//! [`advance`](Fabric::advance) what falls into a span of time. With [`Fabric::auto`] whatever is
//! on its way arrives with every call, so that code for a real device just works, and sleeps on
//! the same file descriptors; but nobody's patience runs out unless time is moved.
//!
//! # What it does
//!
//! Reliable connections only, as InfiniBand has them: in order, with retries when a peer has no
//! receive or does not answer, keys and windows that are checked on each access, and flushing on
//! failure. [`Link`] makes the wire slow, lossy and disorderly; [`Fabric::at`] plans a [`Fault`]
//! at a [`Point`]. [`Recorder`] wraps this provider, or any other, and writes down each call;
//! [`Replay`] is a provider that answers as a recorded one did.
//!
//! A port that is [down](Fabric::set_port) lets nothing through and is reported as a device event.
//! The connection manager is that of rxe, the worst known: who sends a connection request meanwhile
//! has sent the last one, until the device is [removed](Fabric::remove_device) and
//! [restored](Fabric::restore_device).
//!
//! # What it does not do
//!
//! * No datagrams, atomics or immediate data.
//! * Requests that need no peer (binding, invalidating) take effect when they start, which is when
//!   they are posted, unless a read before them waits for its turn.
//! * Numbers of queue pairs are unique in a whole fabric, keys too; on a device they are not.
//! * A host has one device, and that one port.

mod clock;
mod cm_message;
mod completion_queue;
mod connection;
mod domain;
mod fault;
mod handle;
mod host;
mod link;
mod memory;
mod queue_pair;
mod recorder;
mod recording;
mod replay;
mod requester;
mod responder;
mod shared_receive_queue;
mod signal;
mod simulation;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use fault::{Fault, Point};
pub use handle::{
    HostDomain, HostEndpoint, HostQueue, HostQueuePair, HostRegistration, HostSharedReceiveQueue,
};
pub use host::Host;
pub use link::Link;
pub use recorder::{
    Recorder, RecorderDomain, RecorderEndpoint, RecorderQueue, RecorderQueuePair,
    RecorderRegistration, RecorderSharedReceiveQueue, Trace,
};

pub use replay::{
    Replay, ReplayDomain, ReplayEndpoint, ReplayQueue, ReplayQueuePair, ReplayRegistration,
};

use handle::SharedSimulation;
use simulation::HostId;

/// A network within this process. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Fabric {
    simulation: Arc<SharedSimulation>,
}

impl Fabric {
    /// A network where nothing moves by itself.
    pub fn new(seed: u64) -> Self {
        Self { simulation: SharedSimulation::new(seed, false) }
    }

    /// A network where each call lets arrive what is on its way.
    pub fn auto(seed: u64) -> Self {
        Self { simulation: SharedSimulation::new(seed, true) }
    }

    /// The host of a name, which is made on first use.
    pub fn host(&self, name: &str, address: IpAddr) -> Arc<Host> {
        let id = self.simulation.with(|simulation| simulation.add_host(name, address));
        Arc::new(Host { id, simulation: self.simulation.clone() })
    }

    /// Lets the next thing happen; says whether there was one.
    pub fn step(&self) -> bool {
        self.simulation.with(|simulation| simulation.step(Duration::MAX))
    }

    /// Lets everything happen, until nothing is planned any more.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// Lets what is on its way arrive, but nobody's patience run out.
    pub fn settle(&self) {
        self.simulation.with(simulation::Simulation::settle);
    }

    /// Lets time pass, and what falls into it happen.
    pub fn advance(&self, by: Duration) {
        self.simulation.with(|simulation| {
            let until = simulation.clock.now().saturating_add(by);
            while simulation.step(until) {}
            simulation.clock.set(until);
        });
    }

    /// How much time has passed.
    pub fn now(&self) -> Duration {
        self.simulation.with(|simulation| simulation.clock.now())
    }

    /// What the wire does from now on.
    pub fn set_link(&self, link: Link) {
        self.simulation.with(|simulation| simulation.link = link);
    }

    /// Plans a fault.
    ///
    /// # Panics
    ///
    /// When the point names a host that there is not.
    pub fn at(&self, point: Point, fault: Fault) {
        let planned =
            self.simulation.with(|simulation| simulation.schedule_fault(point.clone(), fault));
        assert!(planned, "no host of that name: {point:?}");
    }

    /// Cuts the network between two hosts.
    ///
    /// # Panics
    ///
    /// When there is no host of a name.
    pub fn partition(&self, one: &str, other: &str) {
        let (one, other) = (self.find(one), self.find(other));
        self.simulation.with(|simulation| simulation.partition(one, other));
    }

    /// Makes the network between two hosts whole again.
    ///
    /// # Panics
    ///
    /// When there is no host of a name.
    pub fn heal(&self, one: &str, other: &str) {
        let (one, other) = (self.find(one), self.find(other));
        self.simulation.with(|simulation| simulation.heal(one, other));
    }

    /// Takes a host's device away, as pulling it out would.
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn remove_device(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.remove_device(host));
    }

    /// Gives a host a device again. What was made from the old one stays dead.
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn restore_device(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.restore_device(host));
    }

    /// Gives a host one more address.
    ///
    /// # Panics
    ///
    /// When there is no host of the name, or another has the address.
    pub fn add_address(&self, host: &str, address: IpAddr) {
        let id = self.find(host);
        let added = self.simulation.with(|simulation| simulation.add_address(id, address));
        assert!(added, "{address} is the address of another host");
    }

    /// Takes the link of a host's port away, or gives it back.
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn set_port(&self, host: &str, active: bool) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.set_port(host, active));
    }

    /// Has a host's devices be of a kind without memory windows.
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn without_windows(&self, host: &str) {
        let HostId(host) = self.find(host);
        self.simulation.with(|simulation| simulation.hosts[host].windows = false);
    }

    /// Has a host's devices be on this NUMA node, as far as they are asked.
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn set_numa_node(&self, host: &str, node: u32) {
        let HostId(host) = self.find(host);
        self.simulation.with(|simulation| simulation.hosts[host].numa_node = Some(node));
    }

    /// Moves a host's address to another device, as a bond that fails over: each endpoint that had
    /// found its device hears [`AddressChange`](verbs::ConnectionEvent::AddressChange).
    ///
    /// # Panics
    ///
    /// When there is no host of the name.
    pub fn change_address(&self, host: &str) {
        let host = self.find(host);
        self.simulation.with(|simulation| simulation.change_address(host));
    }

    /// How much there is, of each kind, on all hosts together.
    pub fn objects(&self) -> Objects {
        self.simulation.with(|simulation| Objects {
            endpoints: simulation.endpoints.len(),
            domains: simulation.domains.len(),
            registrations: simulation.memory.len(),
            completion_queues: simulation.queues.len(),
            queue_pairs: simulation.pairs.len(),
            shared_receive_queues: simulation.shared.len(),
        })
    }

    fn find(&self, host: &str) -> HostId {
        let found = self.simulation.with(|simulation| simulation.find_host(host));
        found.unwrap_or_else(|| panic!("no host is named {host}"))
    }
}

/// How many objects a fabric has. Once all that was made is dropped, and what was on its way has
/// arrived, there is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Objects {
    /// Endpoints, also those that only their queue pair or an unread event keeps.
    pub endpoints: usize,
    /// Protection domains.
    pub domains: usize,
    /// Registrations of memory, and memory windows.
    pub registrations: usize,
    /// Completion queues.
    pub completion_queues: usize,
    /// Queue pairs.
    pub queue_pairs: usize,
    /// SharedSimulation receive queues.
    pub shared_receive_queues: usize,
}

#[cfg(test)]
mod tests;
