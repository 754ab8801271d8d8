//! The connection manager's ends: what each may ask for, and what it is told.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use rustix::io::Errno;
use verbs::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionParameters, Error, PrivateData,
    REJECT_DATA_MAX,
    provider::{CmEventKind, CmRequest},
};

use super::{
    fault::{Fault, Kind},
    letter::{Message, Offer},
    queue_pair::Patience,
    signal::Signal,
    world::{DeviceId, EndpointId, Event, HostId, PairId, World},
};

pub(super) struct Endpoint {
    pub(super) host: HostId,
    pub(super) device: Option<DeviceId>,
    pub(super) state: Stage,
    pub(super) pair: Option<PairId>,
    pub(super) peer: Option<EndpointId>,
    pub(super) far: Option<HostId>,
    /// What the peer proposed or answered.
    pub(super) offer: Option<Offer>,
    /// What we proposed.
    pub(super) proposed: Option<Offer>,
    pub(super) events: VecDeque<Happening>,
    /// Whether somebody still has it; if not, it goes with its queue pair.
    held: bool,
    ack_timeout: u8,
    signal: Arc<Signal>,
}

/// Where an endpoint is in its life.
///
/// ```text
///   Idle - Resolving - AddressKnown - Routing - RouteKnown - Connecting ------ Connected
///     '- Listening ··> Requested ------------------------------ Accepting ----' |    |
///                          '-- rejected --> Ended <-- Disconnecting <-----------'  Asked
///                                             ^--------------------------------------'
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// It took a request, and waits to hear that the peer knows.
    Accepting,
    AddressKnown,
    /// The peer has disconnected, and waits for our answer.
    Asked,
    Connected,
    Connecting,
    /// We have disconnected, and wait for the peer's answer.
    Disconnecting,
    Ended,
    Idle,
    Listening {
        address: SocketAddr,
        backlog: u32,
    },
    /// It came with a connection request.
    Requested,
    Resolving(SocketAddr),
    RouteKnown,
    Routing,
}

/// An event of the connection manager that was not fetched yet.
pub(super) struct Happening {
    pub(super) kind: CmEventKind,
    pub(super) status: i32,
    pub(super) private_data: PrivateData,
    pub(super) parameters: ConnectionParameters,
    pub(super) incoming: Option<(EndpointId, Arc<Signal>)>,
}

impl Happening {
    pub(super) fn new(kind: CmEventKind, status: i32) -> Self {
        Self {
            kind,
            status,
            private_data: PrivateData::default(),
            parameters: ConnectionParameters::default(),
            incoming: None,
        }
    }
}

impl World {
    pub(super) fn make_endpoint(
        &mut self,
        host: HostId,
        state: Stage,
    ) -> Result<(EndpointId, Arc<Signal>), Error> {
        let signal = Arc::new(Signal::new().map_err(Error::CreateEndpoint)?);
        let id = EndpointId(self.number());
        let endpoint = Endpoint {
            host,
            device: None,
            state,
            pair: None,
            peer: None,
            far: None,
            offer: None,
            proposed: None,
            events: VecDeque::new(),
            held: true,
            ack_timeout: ACK_TIMEOUT,
            signal: signal.clone(),
        };
        self.endpoints.insert(id, endpoint);
        Ok((id, signal))
    }

    pub(super) fn cm_request(
        &mut self,
        id: EndpointId,
        request: CmRequest<'_>,
    ) -> Result<(), Error> {
        match request {
            CmRequest::Accept(parameters) => self.accept(id, &parameters).map_err(accept_error),
            CmRequest::BindListen { address, backlog } => {
                self.listen(id, address, backlog).map_err(|errno| Error::Listen(errno.into()))
            }
            CmRequest::Connect(parameters) => {
                self.connect(id, &parameters).map_err(|errno| Error::Connect(errno.into()))
            }
            CmRequest::Disconnect => {
                self.disconnect(id).map_err(|errno| Error::Disconnect(errno.into()))
            }
            CmRequest::Reject(data) => {
                self.reject(id, data).map_err(|errno| Error::Reject(errno.into()))
            }
            CmRequest::ResolveAddress { source, destination, .. } => self
                .resolve_address(id, source, destination)
                .map_err(|errno| Error::ResolveAddress(errno.into())),
            CmRequest::ResolveRoute { .. } => {
                self.resolve_route(id).map_err(|errno| Error::ResolveRoute(errno.into()))
            }
            CmRequest::SetAckTimeout(exponent) if exponent > 31 => {
                Err(Error::SetAckTimeout(Errno::INVAL.into()))
            }
            CmRequest::SetAckTimeout(exponent) => {
                self.endpoint(id).ack_timeout = exponent;
                Ok(())
            }
            CmRequest::SetTypeOfService(_) => Ok(()),
        }
    }

    pub(super) fn next_cm_event(&mut self, id: EndpointId) -> Option<Happening> {
        let endpoint = self.endpoint(id);
        let event = endpoint.events.pop_front();
        if endpoint.events.is_empty() {
            endpoint.signal.clear();
        }
        event
    }

    /// Nobody has the endpoint any more.
    pub(super) fn release_endpoint(&mut self, id: EndpointId) {
        self.endpoint(id).held = false;
        self.forget_endpoint_if_unused(id);
    }

    /// Takes an endpoint away that neither its owner nor a queue pair needs, and tells its peer.
    pub(super) fn forget_endpoint_if_unused(&mut self, id: EndpointId) {
        let unused = |endpoint: &Endpoint| !endpoint.held && endpoint.pair.is_none();
        if !self.endpoints.get(&id).is_some_and(unused) {
            return;
        }
        let Some(mut endpoint) = self.endpoints.remove(&id) else { return };
        for event in endpoint.events.drain(..) {
            if let Some((incoming, _)) = event.incoming {
                self.release_endpoint(incoming);
            }
        }
        let farewell = match endpoint.state {
            Stage::Requested => {
                let data = PrivateData::default();
                Message::Reject { reason: CONSUMER_REJECTS, data }
            }
            Stage::Accepting | Stage::Connected => Message::Disconnect,
            Stage::Asked => Message::DisconnectReply,
            _ => return,
        };
        self.write(id, &endpoint, farewell);
    }

    /// The device of an endpoint, once it is known.
    pub(super) fn device_of(&self, id: EndpointId) -> Result<DeviceId, Error> {
        self.endpoints[&id].device.ok_or(Error::Misuse("no address is resolved yet"))
    }

    /// Tells the endpoints of a device that it is gone.
    pub(super) fn tell_removal(&mut self, device: DeviceId) {
        let bound = self.endpoints.iter().filter(|(_, one)| one.device == Some(device));
        for id in bound.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.endpoint(id).state = Stage::Ended;
            self.tell(id, Happening::new(CmEventKind::DEVICE_REMOVAL, 0));
        }
    }

    /// Tells the endpoints of a host that their address has moved.
    pub(super) fn change_address(&mut self, host: HostId) {
        let bound = |one: &&Endpoint| one.host == host && one.device.is_some();
        let bound = self.endpoints.iter().filter(|(_, one)| bound(one));
        for id in bound.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.tell(id, Happening::new(CmEventKind::ADDRESS_CHANGE, 0));
        }
    }

    pub(super) fn tell(&mut self, id: EndpointId, event: Happening) {
        let endpoint = self.endpoint(id);
        endpoint.events.push_back(event);
        endpoint.signal.raise();
    }

    /// Something that an endpoint's own system reports.
    pub(super) fn happen(&mut self, id: EndpointId, kind: CmEventKind, status: i32) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let (host, state) = (endpoint.host, endpoint.state);
        match (kind, state) {
            (CmEventKind::ADDRESS_RESOLVED, Stage::Resolving(_)) => {
                let device = self.hosts[host.0].device;
                let endpoint = self.endpoint(id);
                endpoint.device = device;
                endpoint.state = Stage::AddressKnown;
            }
            (CmEventKind::ADDRESS_ERROR, Stage::Resolving(_)) => {
                self.endpoint(id).state = Stage::Idle;
            }
            (CmEventKind::ROUTE_RESOLVED, Stage::Routing) => {
                self.endpoint(id).state = Stage::RouteKnown;
            }
            (CmEventKind::TIMEWAIT_EXIT, Stage::Ended) => {}
            _ => return, // overtaken by something else
        }
        self.tell(id, Happening::new(kind, status));
    }

    /// Patience of an endpoint, with what the peer asks of it, and the reads it may have open.
    pub(super) fn patience(
        &self,
        id: EndpointId,
        (retries, receiver): (u8, u8),
        reads: u8,
    ) -> Patience {
        let timeout = match self.endpoints[&id].ack_timeout {
            0 => FOR_EVER,
            exponent => Duration::from_nanos(4096 << exponent),
        };
        let receiver = u32::from(receiver & 7);
        let receiver_retries = (receiver < 7).then_some(receiver);
        let (retries, reads) = (u32::from(retries & 7), usize::from(reads));
        Patience { timeout, retries, receiver_retries, reads }
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) -> &mut Endpoint {
        self.endpoints.get_mut(&id).expect("the caller has found this endpoint")
    }

    fn listen(&mut self, id: EndpointId, address: SocketAddr, backlog: u32) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let host = &self.hosts[endpoint.host.0];
        if endpoint.state != Stage::Idle {
            return Err(Errno::INVAL);
        }
        if !address.ip().is_unspecified() && !host.addresses.contains(&address.ip()) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        let device = host.device.ok_or(Errno::NODEV)?;
        let taken = |other: &Endpoint| match other.state {
            Stage::Listening { address: used, .. } => used.port() == address.port(),
            _ => false,
        };
        let host = endpoint.host;
        if self.endpoints.values().any(|other| other.host == host && taken(other)) {
            return Err(Errno::ADDRINUSE);
        }
        let endpoint = self.endpoint(id);
        endpoint.state = Stage::Listening { address, backlog: backlog.max(1) };
        endpoint.device = (!address.ip().is_unspecified()).then_some(device);
        Ok(())
    }

    fn resolve_address(
        &mut self,
        id: EndpointId,
        source: Option<SocketAddr>,
        destination: SocketAddr,
    ) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let host = &self.hosts[endpoint.host.0];
        if endpoint.state != Stage::Idle {
            return Err(Errno::INVAL);
        }
        let is_ours = |source: SocketAddr| {
            source.ip().is_unspecified() || host.addresses.contains(&source.ip())
        };
        if !source.is_none_or(is_ours) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        if host.device.is_none() {
            return Err(Errno::NODEV);
        }
        let far = self.host_at(destination.ip());
        self.endpoint(id).state = Stage::Resolving(destination);
        let (kind, status) = if far.is_some() {
            (CmEventKind::ADDRESS_RESOLVED, 0)
        } else {
            (CmEventKind::ADDRESS_ERROR, -Errno::HOSTUNREACH.raw_os_error())
        };
        self.endpoint(id).far = far;
        self.endpoint(id).proposed = Some(Offer::to(destination));
        self.later(Event::Local { endpoint: id, kind, status });
        Ok(())
    }

    fn resolve_route(&mut self, id: EndpointId) -> Result<(), Errno> {
        if self.endpoints[&id].state != Stage::AddressKnown {
            return Err(Errno::INVAL);
        }
        self.endpoint(id).state = Stage::Routing;
        self.later(Event::Local { endpoint: id, kind: CmEventKind::ROUTE_RESOLVED, status: 0 });
        Ok(())
    }

    fn connect(&mut self, id: EndpointId, parameters: &ConnectParameters<'_>) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let sane = parameters.private_data.len() <= CONNECT_DATA_MAX;
        if endpoint.state != Stage::RouteKnown || !sane {
            return Err(Errno::INVAL);
        }
        let (host, pair) = (endpoint.host, endpoint.pair);
        let endpoint = self.endpoint(id);
        endpoint.state = Stage::Connecting;
        let destination = endpoint.proposed.as_ref().and_then(|offer| offer.destination);
        let offer = Offer::new(parameters, pair, destination);
        endpoint.proposed = Some(offer.clone());
        self.clock.set_timer(ANSWER_WITHIN, Event::Unanswered { endpoint: id });
        if !self.hosts[host.0].port_active {
            self.hosts[host.0].manager_alive = false;
        }
        let mut delay = Duration::ZERO;
        for fault in self.faults.strike(Kind::Connect, host.0) {
            match fault {
                Fault::Delay(by) => delay += by,
                Fault::Drop => return Ok(()),
                Fault::Reject(reason) => {
                    self.reject_ourselves(id, reason);
                    return Ok(());
                }
                other => self.strike(&other),
            }
        }
        let message = Message::Request(offer);
        self.write_late(id, message, delay);
        Ok(())
    }

    fn accept(&mut self, id: EndpointId, parameters: &ConnectParameters<'_>) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let sane = parameters.private_data.len() <= ACCEPT_DATA_MAX;
        let (pair, offer) = (endpoint.pair, endpoint.offer.clone());
        let (Some(pair), Some(offer), Stage::Requested, true) = (pair, offer, endpoint.state, sane)
        else {
            return Err(Errno::INVAL);
        };
        let peer = offer.parameters;
        let reads = parameters.initiator_depth.min(peer.responder_resources);
        let patience = self.patience(id, (peer.retry_count, peer.rnr_retry_count), reads);
        self.connect_pair(pair, offer.pair, patience);
        self.endpoint(id).state = Stage::Accepting;
        self.write_late(id, Message::Accept(Offer::new(parameters, Some(pair), None)), NOW);
        Ok(())
    }

    fn reject(&mut self, id: EndpointId, data: &[u8]) -> Result<(), Errno> {
        if self.endpoints[&id].state != Stage::Requested || data.len() > REJECT_DATA_MAX {
            return Err(Errno::INVAL);
        }
        self.endpoint(id).state = Stage::Ended;
        let data = PrivateData::new(data);
        self.write_late(id, Message::Reject { reason: CONSUMER_REJECTS, data }, NOW);
        Ok(())
    }

    fn disconnect(&mut self, id: EndpointId) -> Result<(), Errno> {
        let (state, message) = match self.endpoints[&id].state {
            Stage::Accepting | Stage::Connected => (Stage::Disconnecting, Message::Disconnect),
            Stage::Asked => (Stage::Ended, Message::DisconnectReply),
            _ => return Err(Errno::INVAL),
        };
        if let Some(pair) = self.endpoints[&id].pair {
            self.fail_pair(pair);
        }
        self.endpoint(id).state = state;
        self.write_late(id, message, NOW);
        if state == Stage::Ended {
            self.wait_time(id);
        }
        Ok(())
    }

    fn later(&mut self, event: Event) {
        let at = self.clock.now() + Duration::from_micros(1);
        self.clock.deliver(at, event);
    }
}

fn accept_error(errno: Errno) -> Error {
    Error::Accept(errno.into())
}

/// What the peer's program said no with.
pub(super) const CONSUMER_REJECTS: i32 = 28;
/// How long a connection request waits for an answer, all in all.
const ANSWER_WITHIN: Duration = Duration::from_secs(64);
/// The acknowledge timeout of who does not set one: about a second.
const ACK_TIMEOUT: u8 = 18;
/// What an acknowledge timeout of 0 stands for, near enough.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
pub(super) const NOW: Duration = Duration::ZERO;
