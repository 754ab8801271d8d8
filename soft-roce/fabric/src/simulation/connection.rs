//! Endpoints of the connection manager: requests and events.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use rustix::io::Errno;
use verbs::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionParameters, Error, PrivateData,
    REJECT_DATA_MAX,
    provider::{CmEventKind, CmRequest},
};

use crate::{
    fault::{Fault, FaultCounter},
    signal::Signal,
    simulation::{
        DeviceId, EndpointId, HostId, PairId, SimEvent, Simulation,
        cm_message::{CmConnectData, CmMessage},
        queue_pair::RetryPolicy,
    },
};

pub(crate) struct Endpoint {
    pub(crate) host: HostId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) state: EndpointState,
    pub(crate) pair: Option<PairId>,
    pub(crate) peer: Option<EndpointId>,
    pub(crate) remote_host: Option<HostId>,
    /// Contents of the peer's request or acceptance.
    pub(crate) peer_data: Option<CmConnectData>,
    /// Contents of this endpoint's request.
    pub(crate) own_data: Option<CmConnectData>,
    pub(crate) events: VecDeque<PendingCmEvent>,
    /// True while its owner has it; afterwards it is removed with its queue pair.
    owned: bool,
    ack_timeout: u8,
    signal: Arc<Signal>,
}

/// State of an endpoint.
///
/// ```text
///   Idle - Resolving - AddressKnown - Routing - RouteKnown - Connecting ------ Connected
///     '- Listening ··> Requested ------------------------------ Accepting ----' |    |
///                          '-- rejected --> Ended <-- Disconnecting <-----------'    |
///                                             ^-------- DisconnectReceived <---------'
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndpointState {
    /// Has accepted a request, and waits for the peer's ready message.
    Accepting,
    AddressKnown,
    /// The peer has disconnected, and waits for the reply.
    DisconnectReceived,
    Connected,
    Connecting,
    /// This side has disconnected, and waits for the reply.
    Disconnecting,
    Ended,
    Idle,
    Listening {
        address: SocketAddr,
        backlog: u32,
    },
    /// Created by a connection request.
    Requested,
    Resolving(SocketAddr),
    RouteKnown,
    Routing,
}

/// CM event that has not been read yet.
pub(crate) struct PendingCmEvent {
    pub(crate) kind: CmEventKind,
    pub(crate) status: i32,
    pub(crate) private_data: PrivateData,
    pub(crate) parameters: ConnectionParameters,
    pub(crate) incoming: Option<(EndpointId, Arc<Signal>)>,
}

impl PendingCmEvent {
    pub(crate) fn new(kind: CmEventKind, status: i32) -> Self {
        Self {
            kind,
            status,
            private_data: PrivateData::default(),
            parameters: ConnectionParameters::default(),
            incoming: None,
        }
    }
}

impl Simulation {
    pub(crate) fn make_endpoint(
        &mut self,
        host: HostId,
        state: EndpointState,
    ) -> Result<(EndpointId, Arc<Signal>), Error> {
        let signal = self.make_signal(host).map_err(Error::CreateEndpoint)?;
        let id = EndpointId(self.next_id());
        let endpoint = Endpoint {
            host,
            device: None,
            state,
            pair: None,
            peer: None,
            remote_host: None,
            peer_data: None,
            own_data: None,
            events: VecDeque::new(),
            owned: true,
            ack_timeout: ACK_TIMEOUT,
            signal: signal.clone(),
        };
        self.endpoints.insert(id, endpoint);
        Ok((id, signal))
    }

    pub(crate) fn cm_request(
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

    pub(crate) fn next_cm_event(&mut self, id: EndpointId) -> Option<PendingCmEvent> {
        let endpoint = self.endpoint(id);
        let event = endpoint.events.pop_front();
        if endpoint.events.is_empty() {
            endpoint.signal.clear();
        }
        event
    }

    /// Releases an endpoint whose owner has dropped it.
    pub(crate) fn release_endpoint(&mut self, id: EndpointId) {
        self.endpoint(id).owned = false;
        self.remove_endpoint_if_unused(id);
    }

    /// Removes an endpoint that neither its owner nor a queue pair needs, and notifies its peer.
    pub(crate) fn remove_endpoint_if_unused(&mut self, id: EndpointId) {
        let unused = |endpoint: &Endpoint| !endpoint.owned && endpoint.pair.is_none();
        if !self.endpoints.get(&id).is_some_and(unused) {
            return;
        }
        let Some(mut endpoint) = self.endpoints.remove(&id) else { return };
        for event in endpoint.events.drain(..) {
            if let Some((incoming, _)) = event.incoming {
                self.release_endpoint(incoming);
            }
        }
        let last_message = match endpoint.state {
            EndpointState::Requested => {
                let data = PrivateData::default();
                CmMessage::Reject { reason: CONSUMER_REJECT, data }
            }
            EndpointState::Accepting | EndpointState::Connected => CmMessage::Disconnect,
            EndpointState::DisconnectReceived => CmMessage::DisconnectReply,
            _ => return,
        };
        self.send_last_cm_message(id, &endpoint, last_message);
    }

    /// Returns the device of an endpoint once its address is resolved.
    pub(crate) fn device_of(&self, id: EndpointId) -> Result<DeviceId, Error> {
        self.endpoints[&id].device.ok_or(Error::Misuse("no address is resolved yet"))
    }

    /// Notifies the endpoints of a device of its removal.
    pub(crate) fn notify_removal(&mut self, device: DeviceId) {
        let bound = self.endpoints.iter().filter(|(_, one)| one.device == Some(device));
        for id in bound.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.endpoint(id).state = EndpointState::Ended;
            self.push_cm_event(id, PendingCmEvent::new(CmEventKind::DEVICE_REMOVAL, 0));
        }
    }

    /// Notifies the endpoints of a host of an address change.
    pub(crate) fn change_address(&mut self, host: HostId) {
        let bound = |one: &&Endpoint| one.host == host && one.device.is_some();
        let bound = self.endpoints.iter().filter(|(_, one)| bound(one));
        for id in bound.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.push_cm_event(id, PendingCmEvent::new(CmEventKind::ADDRESS_CHANGE, 0));
        }
    }

    pub(crate) fn push_cm_event(&mut self, id: EndpointId, event: PendingCmEvent) {
        let endpoint = self.endpoint(id);
        endpoint.events.push_back(event);
        endpoint.signal.raise();
    }

    /// Handles a CM event generated by the endpoint's own system.
    pub(crate) fn handle_local_event(&mut self, id: EndpointId, kind: CmEventKind, status: i32) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let (host, state) = (endpoint.host, endpoint.state);
        match (kind, state) {
            (CmEventKind::ADDRESS_RESOLVED, EndpointState::Resolving(_)) => {
                let device = self.hosts[host.0].device;
                let endpoint = self.endpoint(id);
                endpoint.device = device;
                endpoint.state = EndpointState::AddressKnown;
            }
            (CmEventKind::ADDRESS_ERROR, EndpointState::Resolving(_)) => {
                self.endpoint(id).state = EndpointState::Idle;
            }
            (CmEventKind::ROUTE_RESOLVED, EndpointState::Routing) => {
                self.endpoint(id).state = EndpointState::RouteKnown;
            }
            (CmEventKind::TIMEWAIT_EXIT, EndpointState::Ended) => {}
            _ => return, // stale
        }
        self.push_cm_event(id, PendingCmEvent::new(kind, status));
    }

    /// Returns the retry policy of an endpoint: the retry counts requested by the peer, and the
    /// maximum of outstanding reads.
    pub(crate) fn retry_policy(
        &self,
        id: EndpointId,
        retries: u8,
        rnr_retries: u8,
        reads: u8,
    ) -> RetryPolicy {
        let timeout = match self.endpoints[&id].ack_timeout {
            0 => NO_ACK_TIMEOUT,
            exponent => Duration::from_nanos(4096 << exponent),
        };
        let rnr_retries = u32::from(rnr_retries & 7);
        let rnr_retries = (rnr_retries < 7).then_some(rnr_retries);
        let (retries, reads) = (u32::from(retries & 7), usize::from(reads));
        RetryPolicy { timeout, retries, rnr_retries, reads }
    }

    pub(crate) fn endpoint(&mut self, id: EndpointId) -> &mut Endpoint {
        self.endpoints.get_mut(&id).expect("the caller has found this endpoint")
    }

    fn listen(&mut self, id: EndpointId, address: SocketAddr, backlog: u32) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let host = &self.hosts[endpoint.host.0];
        if endpoint.state != EndpointState::Idle {
            return Err(Errno::INVAL);
        }
        if !address.ip().is_unspecified() && !host.addresses.contains(&address.ip()) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        let device = host.device.ok_or(Errno::NODEV)?;
        let taken = |other: &Endpoint| match other.state {
            EndpointState::Listening { address: used, .. } => used.port() == address.port(),
            _ => false,
        };
        let host = endpoint.host;
        if self.endpoints.values().any(|other| other.host == host && taken(other)) {
            return Err(Errno::ADDRINUSE);
        }
        let endpoint = self.endpoint(id);
        endpoint.state = EndpointState::Listening { address, backlog: backlog.max(1) };
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
        if endpoint.state != EndpointState::Idle {
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
        let remote_host = self.host_at(destination.ip());
        self.endpoint(id).state = EndpointState::Resolving(destination);
        let (kind, status) = if remote_host.is_some() {
            (CmEventKind::ADDRESS_RESOLVED, 0)
        } else {
            (CmEventKind::ADDRESS_ERROR, -Errno::HOSTUNREACH.raw_os_error())
        };
        self.endpoint(id).remote_host = remote_host;
        self.endpoint(id).own_data = Some(CmConnectData::to(destination));
        self.deliver_soon(SimEvent::LocalCmEvent { endpoint: id, kind, status });
        Ok(())
    }

    fn resolve_route(&mut self, id: EndpointId) -> Result<(), Errno> {
        if self.endpoints[&id].state != EndpointState::AddressKnown {
            return Err(Errno::INVAL);
        }
        self.endpoint(id).state = EndpointState::Routing;
        self.deliver_soon(SimEvent::LocalCmEvent {
            endpoint: id,
            kind: CmEventKind::ROUTE_RESOLVED,
            status: 0,
        });
        Ok(())
    }

    fn connect(&mut self, id: EndpointId, parameters: &ConnectParameters<'_>) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let valid = parameters.private_data.len() <= CONNECT_DATA_MAX;
        if endpoint.state != EndpointState::RouteKnown || !valid {
            return Err(Errno::INVAL);
        }
        let (host, pair) = (endpoint.host, endpoint.pair);
        let endpoint = self.endpoint(id);
        endpoint.state = EndpointState::Connecting;
        let destination = endpoint.own_data.as_ref().and_then(|data| data.destination);
        let own_data = CmConnectData::new(parameters, pair, destination);
        endpoint.own_data = Some(own_data.clone());
        self.clock.set_timer(CONNECT_TIMEOUT, SimEvent::ConnectTimeout { endpoint: id });
        if !self.hosts[host.0].port_active {
            self.hosts[host.0].cm_alive = false;
        }
        let mut delay = Duration::ZERO;
        for fault in self.faults.take(FaultCounter::Connect, host.0) {
            match fault {
                Fault::Delay(by) => delay += by,
                Fault::Drop => return Ok(()),
                Fault::Reject(reason) => {
                    self.reject_locally(id, reason);
                    return Ok(());
                }
                other => self.apply_fault(&other),
            }
        }
        let message = CmMessage::Request(own_data);
        self.send_cm_message(id, message, delay);
        Ok(())
    }

    fn accept(&mut self, id: EndpointId, parameters: &ConnectParameters<'_>) -> Result<(), Errno> {
        let endpoint = &self.endpoints[&id];
        let valid = parameters.private_data.len() <= ACCEPT_DATA_MAX;
        let (pair, peer_data) = (endpoint.pair, endpoint.peer_data.clone());
        let (Some(pair), Some(peer_data), EndpointState::Requested, true) =
            (pair, peer_data, endpoint.state, valid)
        else {
            return Err(Errno::INVAL);
        };
        let peer = peer_data.parameters;
        let reads = parameters.initiator_depth.min(peer.responder_resources);
        let policy = self.retry_policy(id, peer.retry_count, peer.rnr_retry_count, reads);
        self.connect_pair(pair, peer_data.pair, policy);
        self.endpoint(id).state = EndpointState::Accepting;
        self.send_cm_message(
            id,
            CmMessage::Accept(CmConnectData::new(parameters, Some(pair), None)),
            NO_DELAY,
        );
        Ok(())
    }

    fn reject(&mut self, id: EndpointId, data: &[u8]) -> Result<(), Errno> {
        if self.endpoints[&id].state != EndpointState::Requested || data.len() > REJECT_DATA_MAX {
            return Err(Errno::INVAL);
        }
        self.endpoint(id).state = EndpointState::Ended;
        let data = PrivateData::new(data);
        self.send_cm_message(id, CmMessage::Reject { reason: CONSUMER_REJECT, data }, NO_DELAY);
        Ok(())
    }

    fn disconnect(&mut self, id: EndpointId) -> Result<(), Errno> {
        let (state, message) = match self.endpoints[&id].state {
            EndpointState::Accepting | EndpointState::Connected => {
                (EndpointState::Disconnecting, CmMessage::Disconnect)
            }
            EndpointState::DisconnectReceived => (EndpointState::Ended, CmMessage::DisconnectReply),
            _ => return Err(Errno::INVAL),
        };
        if let Some(pair) = self.endpoints[&id].pair {
            self.fail_pair(pair);
        }
        self.endpoint(id).state = state;
        self.send_cm_message(id, message, NO_DELAY);
        if state == EndpointState::Ended {
            self.start_timewait(id);
        }
        Ok(())
    }

    fn deliver_soon(&mut self, event: SimEvent) {
        let at = self.clock.now() + Duration::from_micros(1);
        self.clock.deliver(at, event);
    }
}

fn accept_error(errno: Errno) -> Error {
    Error::Accept(errno.into())
}

/// Reject reason: rejected by the consumer.
pub(crate) const CONSUMER_REJECT: i32 = 28;
/// Total timeout of a connection request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(64);
/// Default ACK timeout, as an exponent: about a second.
const ACK_TIMEOUT: u8 = 18;
/// Duration that stands for an ACK timeout of 0, which is unlimited.
const NO_ACK_TIMEOUT: Duration = Duration::from_secs(1 << 20);
pub(crate) const NO_DELAY: Duration = Duration::ZERO;
