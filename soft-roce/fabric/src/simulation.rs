//! Everything there is, under one lock: hosts, objects, and what is on its way between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use verbs::{DeviceEventKind, Subject, provider::CmEventKind};

use super::{
    clock::Clock,
    cm_message::CmMad,
    completion_queue::CompletionQueue,
    connection::Endpoint,
    domain::Domain,
    fault::{Fault, FaultCounter, Faults, Point},
    link::{Link, Random, Transit},
    memory::Memory,
    queue_pair::QueuePair,
    shared_receive_queue::{SharedReceiveQueue, SharedReceiveQueueId},
};

/// A host, by its place in [`Simulation::hosts`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct HostId(pub(super) usize);

/// A device. A host that loses its device and gets one again has another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DeviceId {
    pub(super) host: HostId,
    generation: u32,
}

/// An endpoint.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct EndpointId(pub(super) u64);

/// A protection domain.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct DomainId(pub(super) u64);

/// A completion queue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct QueueId(pub(super) u64);

impl QueueId {
    /// By what device events name it.
    pub(super) fn number(self) -> u32 {
        u32::try_from(self.0).expect("fewer than 2^32 objects are ever made")
    }
}

/// A queue pair's number. It is unique in the whole fabric.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PairId(pub(super) u32);

/// Something that is planned to happen.
pub(super) enum SimEvent {
    /// Requests of a queue pair reach its peer, up to a sequence number.
    RequestArrival { pair: PairId, sequence: u64 },
    /// Answers reach a queue pair, up to a sequence number.
    ResponseArrival { pair: PairId, sequence: u64 },
    /// A queue pair sends again what its peer was not ready for.
    RetryNotReady { pair: PairId, stall: u64 },
    /// A queue pair gives up.
    RetriesExceeded { pair: PairId, stall: u64 },
    /// The network is whole again: a queue pair sends again what was not answered.
    Resume { pair: PairId, stall: u64 },
    /// A completion that was delayed.
    Complete { queue: QueueId, completion: verbs::Completion },
    /// A message between connection managers.
    CmMad(Box<CmMad>),
    /// An event that an endpoint's own system makes.
    LocalCmEvent { endpoint: EndpointId, kind: CmEventKind, status: i32 },
    /// Nobody answered a connection request.
    ConnectTimeout { endpoint: EndpointId },
    /// A fault planned for a time.
    Fault(Fault),
}

/// A host: its name, its addresses, and its device while there is one.
pub(super) struct HostState {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) device: Option<DeviceId>,
    /// Whether the device's port has a link.
    pub(super) port_active: bool,
    /// Whether the device's connection manager still sends and hears.
    pub(super) cm_alive: bool,
    /// Whether its devices have memory windows.
    pub(super) windows: bool,
    /// Which NUMA node they say they are on.
    pub(super) numa_node: Option<u32>,
}

pub(super) struct Simulation {
    pub(super) clock: Clock<SimEvent>,
    pub(super) link: Link,
    pub(super) faults: Faults,
    pub(super) hosts: Vec<HostState>,
    pub(super) endpoints: BTreeMap<EndpointId, Endpoint>,
    pub(super) domains: BTreeMap<DomainId, Domain>,
    pub(super) memory: Memory,
    pub(super) queues: BTreeMap<QueueId, CompletionQueue>,
    pub(super) pairs: BTreeMap<PairId, QueuePair>,
    pub(super) shared: BTreeMap<SharedReceiveQueueId, SharedReceiveQueue>,
    pub(super) random: Random,
    /// When the last letter from one host to another arrives: none overtakes another.
    pub(super) last_mads: BTreeMap<(HostId, HostId), Duration>,
    partitions: BTreeSet<(HostId, HostId)>,
    last_id: u64,
    generation: u32,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            clock: Clock::new(),
            link: Link::default(),
            faults: Faults::default(),
            hosts: Vec::new(),
            endpoints: BTreeMap::new(),
            domains: BTreeMap::new(),
            memory: Memory::default(),
            queues: BTreeMap::new(),
            pairs: BTreeMap::new(),
            shared: BTreeMap::new(),
            random: Random::new(seed),
            last_mads: BTreeMap::new(),
            partitions: BTreeSet::new(),
            last_id: 0,
            generation: 0,
        }
    }

    /// The host of a name; made on first use.
    pub(super) fn add_host(&mut self, name: &str, address: IpAddr) -> HostId {
        if let Some(host) = self.find_host(name) {
            return host;
        }
        let host = HostId(self.hosts.len());
        self.hosts.push(HostState {
            name: name.to_owned(),
            addresses: vec![address],
            device: None,
            port_active: true,
            cm_alive: true,
            windows: true,
            numa_node: None,
        });
        self.restore_device(host);
        host
    }

    pub(super) fn find_host(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().position(|host| host.name == name).map(HostId)
    }

    pub(super) fn restore_device(&mut self, host: HostId) {
        self.generation += 1;
        let device = DeviceId { host, generation: self.generation };
        let host = &mut self.hosts[host.0];
        if host.device.is_none() {
            (host.device, host.cm_alive) = (Some(device), true);
        }
    }

    /// Takes a device away: its endpoints are told, its queue pairs fail.
    pub(super) fn remove_device(&mut self, host: HostId) {
        let Some(device) = self.hosts[host.0].device.take() else { return };
        let pairs = self.pairs.iter().filter(|(_, pair)| pair.device == device);
        for pair in pairs.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.fail_pair(pair);
        }
        self.report(device, DeviceEventKind::DEVICE_FATAL, Subject::Device);
        self.notify_removal(device);
    }

    /// The host that has an address.
    pub(super) fn host_at(&self, address: IpAddr) -> Option<HostId> {
        self.hosts.iter().position(|host| host.addresses.contains(&address)).map(HostId)
    }

    /// Gives a host one more address; says whether it was free.
    pub(super) fn add_address(&mut self, host: HostId, address: IpAddr) -> bool {
        match self.host_at(address) {
            Some(owner) => owner == host,
            None => {
                self.hosts[host.0].addresses.push(address);
                true
            }
        }
    }

    /// A port loses its link, or gets it back; its device reports that.
    pub(super) fn set_port(&mut self, host: HostId, active: bool) {
        if std::mem::replace(&mut self.hosts[host.0].port_active, active) == active {
            return;
        }
        let kind = if active { DeviceEventKind::PORT_ACTIVE } else { DeviceEventKind::PORT_ERROR };
        if let Some(device) = self.hosts[host.0].device {
            self.report(device, kind, Subject::Port(1));
        }
        if active {
            self.resume_pairs();
        }
    }

    pub(super) fn is_alive(&self, device: DeviceId) -> bool {
        self.hosts[device.host.0].device == Some(device)
    }

    pub(super) fn partition(&mut self, one: HostId, other: HostId) {
        self.partitions.insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal(&mut self, one: HostId, other: HostId) {
        self.partitions.remove(&(one.min(other), one.max(other)));
        self.resume_pairs();
    }

    /// Whether messages get from one host to another and back.
    pub(super) fn reaches(&self, one: HostId, other: HostId) -> bool {
        let linked = |host: HostId| self.hosts[host.0].port_active;
        // Within one host a message takes no port.
        let linked = one == other || linked(one) && linked(other);
        linked && !self.partitions.contains(&(one.min(other), one.max(other)))
    }

    /// Sends one message over the wire.
    pub(super) fn transmit(&mut self) -> Transit {
        self.link.transmit(&mut self.random)
    }

    /// A number that was not given out before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Lets the next thing happen, if there is one up to `limit`.
    pub(super) fn step(&mut self, limit: Duration) -> bool {
        let Some(event) = self.clock.next(limit) else { return false };
        match event {
            SimEvent::RequestArrival { pair, sequence } => self.handle_arrival(pair, sequence),
            SimEvent::ResponseArrival { pair, sequence } => self.handle_response(pair, sequence),
            SimEvent::RetryNotReady { pair, stall } => self.retry_not_ready(pair, stall),
            SimEvent::RetriesExceeded { pair, stall } => self.exceed_retries(pair, stall),
            SimEvent::Resume { pair, stall } => self.resume(pair, stall),
            SimEvent::Complete { queue, completion } => self.push_completion(queue, completion),
            SimEvent::CmMad(mad) => self.deliver_mad(*mad),
            SimEvent::LocalCmEvent { endpoint, kind, status } => {
                self.handle_local_event(endpoint, kind, status)
            }
            SimEvent::ConnectTimeout { endpoint } => self.time_out_connect(endpoint),
            SimEvent::Fault(fault) => self.apply_fault(&fault),
        }
        true
    }

    /// Lets everything that is on its way arrive, and what follows from it.
    pub(super) fn settle(&mut self) {
        while let Some(at) = self.clock.next_delivery() {
            self.step(at);
        }
    }

    /// Plans a fault. Says whether the host it names is known.
    pub(super) fn schedule_fault(&mut self, point: Point, fault: Fault) -> bool {
        let (kind, name, nth) = match point {
            Point::Arm { host, nth } => (FaultCounter::Arm, host, nth),
            Point::Completion { host, nth } => (FaultCounter::Completion, host, nth),
            Point::Connect { host, nth } => (FaultCounter::Connect, host, nth),
            Point::Message { host, nth } => (FaultCounter::Message, host, nth),
            Point::Time(after) => {
                self.clock.set_timer(after, SimEvent::Fault(fault));
                return true;
            }
        };
        let Some(host) = self.find_host(&name) else { return false };
        self.faults.schedule(kind, (host.0, nth), fault);
        true
    }

    /// What a fault does that needs no message or completion to do it to.
    pub(super) fn apply_fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Arrive => self.settle(),
            Fault::Partition(one, other) => {
                if let (Some(one), Some(other)) = (self.find_host(one), self.find_host(other)) {
                    self.partition(one, other);
                }
            }
            Fault::CompletionQueuesFail(host) => self.on_host(host, Self::fail_queues),
            Fault::QueuePairsDie(host) => self.on_host(host, Self::fail_pairs_silently),
            Fault::ChangeAddress(host) => self.on_host(host, Self::change_address),
            Fault::PortActive(host) => {
                self.on_host(host, |simulation, id| simulation.set_port(id, true))
            }
            Fault::PortDown(host) => {
                self.on_host(host, |simulation, id| simulation.set_port(id, false))
            }
            Fault::RemoveDevice(host) => self.on_host(host, Self::remove_device),
            _ => {}
        }
    }

    /// Does something to the host of a name, if there is one.
    fn on_host(&mut self, name: &str, action: impl FnOnce(&mut Self, HostId)) {
        if let Some(host) = self.find_host(name) {
            action(self, host);
        }
    }
}
