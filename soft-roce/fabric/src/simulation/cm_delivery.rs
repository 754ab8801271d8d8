//! Delivery of messages between connection managers, and their handling.

use std::time::Duration;

use rustix::io::Errno;
use verbs::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectionParameters, PrivateData, REJECT_DATA_MAX,
    provider::CmEventKind,
};

use crate::simulation::{
    EndpointId, HostId, SimEvent, Simulation,
    cm_message::{CmConnectData, CmMessage},
    connection::{CONSUMER_REJECT, Endpoint, EndpointState, NO_DELAY, PendingCmEvent},
};

/// Management datagram (MAD): a CM message in transit.
#[derive(Clone)]
pub(crate) struct CmMad {
    from: (EndpointId, HostId),
    /// Receiver; `None` for a connection request, which goes to the listener.
    to: (Option<EndpointId>, HostId),
    message: CmMessage,
    retries: u32,
}

impl Simulation {
    /// Sends a message of an endpoint to its peer, after a delay.
    pub(crate) fn send_cm_message(&mut self, id: EndpointId, message: CmMessage, delay: Duration) {
        let endpoint = &self.endpoints[&id];
        let Some(remote_host) = endpoint.remote_host else { return };
        let to = (endpoint.peer, remote_host);
        let mad = CmMad { from: (id, endpoint.host), to, message, retries: 0 };
        self.transmit_mad(mad, delay);
    }

    /// Sends the last message of an endpoint that has been removed.
    pub(crate) fn send_last_cm_message(
        &mut self,
        id: EndpointId,
        endpoint: &Endpoint,
        message: CmMessage,
    ) {
        let Some(remote_host) = endpoint.remote_host else { return };
        let to = (endpoint.peer, remote_host);
        self.transmit_mad(CmMad { from: (id, endpoint.host), to, message, retries: 0 }, NO_DELAY);
    }

    /// Generates a rejection on the endpoint's own host.
    pub(crate) fn reject_locally(&mut self, id: EndpointId, reason: i32) {
        let endpoint = &self.endpoints[&id];
        let host = endpoint.remote_host.unwrap_or(endpoint.host);
        let message = CmMessage::Reject { reason, data: PrivateData::default() };
        let to = (Some(id), endpoint.host);
        self.transmit_mad(CmMad { from: (id, host), to, message, retries: 0 }, NO_DELAY);
    }

    pub(crate) fn deliver_mad(&mut self, mad: CmMad) {
        let CmMad { from, to, .. } = mad;
        let cm_works = |host: HostId| {
            let host = &self.hosts[host.0];
            host.device.is_some() && host.cm_alive
        };
        let (here, there) = (cm_works(from.1), cm_works(to.1));
        if !here {
            return;
        }
        if !there || !self.reaches(from.1, to.1) {
            return self.retransmit_mad(mad);
        }
        match (mad.message.clone(), to.0) {
            (CmMessage::Request(peer_data), _) => self.handle_connect_request(mad, peer_data),
            (message, Some(id)) if self.endpoints.contains_key(&id) => {
                self.handle_cm_message(id, from.0, message);
            }
            (CmMessage::Disconnect, _) => self.reply_to_mad(&mad, CmMessage::DisconnectReply),
            (CmMessage::Accept(_), _) => {
                let data = PrivateData::default();
                self.reply_to_mad(&mad, CmMessage::Reject { reason: INVALID_COMM_ID, data });
            }
            _ => {}
        }
    }

    /// Handles the timeout of a connection request.
    pub(crate) fn time_out_connect(&mut self, id: EndpointId) {
        let waits = |endpoint: &Endpoint| endpoint.state == EndpointState::Connecting;
        if self.endpoints.get(&id).is_some_and(waits) {
            self.endpoint(id).state = EndpointState::Ended;
            self.push_cm_event(id, PendingCmEvent::new(CmEventKind::UNREACHABLE, TIMED_OUT));
        }
    }

    /// Starts the timewait state, after which no message of the ended connection can arrive.
    pub(crate) fn start_timewait(&mut self, id: EndpointId) {
        let kind = CmEventKind::TIMEWAIT_EXIT;
        self.clock.set_timer(TIME_WAIT, SimEvent::LocalCmEvent { endpoint: id, kind, status: 0 });
    }

    fn transmit_mad(&mut self, mad: CmMad, delay: Duration) {
        let transit = self.transmit();
        let lost = RETRY_INTERVAL * transit.losses;
        let at = self.clock.now() + transit.delay + delay + lost;
        let way = (mad.from.1, mad.to.1);
        let last = self.last_mads.entry(way).or_default();
        *last = at.max(*last);
        let at = *last;
        self.clock.deliver(at, SimEvent::CmMad(Box::new(mad)));
    }

    fn reply_to_mad(&mut self, mad: &CmMad, message: CmMessage) {
        let CmMad { from, to, .. } = *mad;
        let from_id = to.0.unwrap_or(from.0);
        let reply =
            CmMad { from: (from_id, to.1), to: (Some(from.0), from.1), message, retries: 0 };
        self.transmit_mad(reply, NO_DELAY);
    }

    /// Retransmits a message that was not delivered, up to the maximum of retries.
    fn retransmit_mad(&mut self, mut mad: CmMad) {
        mad.retries += 1;
        if mad.retries <= RETRIES_MAX {
            return self.clock.set_timer(RETRY_INTERVAL, SimEvent::CmMad(Box::new(mad)));
        }
        let id = mad.from.0;
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let kind = match (mad.message, endpoint.state) {
            (CmMessage::Request(_), EndpointState::Connecting)
            | (CmMessage::Accept(_), EndpointState::Accepting) => CmEventKind::UNREACHABLE,
            (CmMessage::Disconnect, EndpointState::Disconnecting) => CmEventKind::DISCONNECTED,
            _ => return,
        };
        self.endpoint(id).state = EndpointState::Ended;
        self.push_cm_event(id, PendingCmEvent::new(kind, TIMED_OUT));
        if kind == CmEventKind::DISCONNECTED {
            self.start_timewait(id);
        }
    }

    fn handle_connect_request(&mut self, mad: CmMad, peer_data: CmConnectData) {
        let CmMad { from, to, .. } = mad;
        let Some(destination) = peer_data.destination else { return };
        let listens = |endpoint: &Endpoint| match endpoint.state {
            EndpointState::Listening { address, .. } => {
                let here = address.ip().is_unspecified() || address.ip() == destination.ip();
                endpoint.host == to.1 && here && address.port() == destination.port()
            }
            _ => false,
        };
        let listener = self.endpoints.iter().find(|(_, endpoint)| listens(endpoint));
        let Some((&listener, endpoint)) = listener else {
            let data = PrivateData::default();
            return self.reply_to_mad(&mad, CmMessage::Reject { reason: INVALID_SERVICE_ID, data });
        };
        let EndpointState::Listening { backlog, .. } = endpoint.state else { return };
        let full = endpoint.events.len() >= backlog as usize;
        if full {
            return self.retransmit_mad(mad);
        }
        // Without a file descriptor the request is dropped.
        let Ok((id, signal)) = self.make_endpoint(to.1, EndpointState::Requested) else { return };
        let device = self.hosts[to.1.0].device;
        let made = self.endpoint(id);
        (made.device, made.peer, made.remote_host) = (device, Some(from.0), Some(from.1));
        made.peer_data = Some(peer_data.clone());
        let mut event = PendingCmEvent::new(CmEventKind::CONNECT_REQUEST, 0);
        event.private_data = padded(&peer_data.data, CONNECT_DATA_MAX);
        event.parameters = peer_data.peer_parameters();
        event.incoming = Some((id, signal));
        self.push_cm_event(listener, event);
    }

    /// Handles a message from the peer of an endpoint.
    fn handle_cm_message(&mut self, id: EndpointId, from: EndpointId, message: CmMessage) {
        let state = self.endpoints[&id].state;
        match (message, state) {
            (CmMessage::Accept(peer_data), EndpointState::Connecting) => {
                self.handle_accept(id, from, &peer_data)
            }
            (CmMessage::Ready, EndpointState::Accepting) => {
                self.endpoint(id).state = EndpointState::Connected;
                self.push_cm_event(id, PendingCmEvent::new(CmEventKind::ESTABLISHED, 0));
            }
            (
                CmMessage::Reject { reason, data },
                EndpointState::Accepting | EndpointState::Connecting,
            ) => {
                self.handle_reject(id, reason, &data);
            }
            (CmMessage::Disconnect, EndpointState::Accepting | EndpointState::Connected) => {
                self.endpoint(id).state = EndpointState::DisconnectReceived;
                self.push_cm_event(id, PendingCmEvent::new(CmEventKind::DISCONNECTED, 0));
            }
            (CmMessage::Disconnect, EndpointState::Disconnecting) => {
                self.send_cm_message(id, CmMessage::DisconnectReply, NO_DELAY);
                self.end(id);
            }
            (CmMessage::Disconnect, EndpointState::Ended) => {
                self.send_cm_message(id, CmMessage::DisconnectReply, NO_DELAY);
            }
            (CmMessage::DisconnectReply, EndpointState::Disconnecting) => self.end(id),
            _ => {} // late or duplicate
        }
    }

    fn handle_accept(&mut self, id: EndpointId, from: EndpointId, peer_data: &CmConnectData) {
        let endpoint = self.endpoint(id);
        endpoint.peer = Some(from);
        let (pair, own_data) = (endpoint.pair, endpoint.own_data.clone());
        let (Some(pair), Some(own_data)) = (pair, own_data) else {
            self.push_cm_event(id, PendingCmEvent::new(CmEventKind::CONNECT_RESPONSE, 0));
            return;
        };
        let reads =
            own_data.parameters.initiator_depth.min(peer_data.parameters.responder_resources);
        let policy = self.retry_policy(
            id,
            own_data.parameters.retry_count,
            peer_data.parameters.rnr_retry_count,
            reads,
        );
        self.connect_pair(pair, peer_data.pair, policy);
        self.endpoint(id).state = EndpointState::Connected;
        let mut event = PendingCmEvent::new(CmEventKind::ESTABLISHED, 0);
        event.private_data = padded(&peer_data.data, ACCEPT_DATA_MAX);
        // An acceptance does not contain the retry count of the acceptor.
        event.parameters = ConnectionParameters { retry_count: 0, ..peer_data.peer_parameters() };
        self.push_cm_event(id, event);
        self.send_cm_message(id, CmMessage::Ready, NO_DELAY);
    }

    fn handle_reject(&mut self, id: EndpointId, reason: i32, data: &PrivateData) {
        self.endpoint(id).state = EndpointState::Ended;
        if let Some(pair) = self.endpoints[&id].pair {
            self.fail_pair(pair);
        }
        let mut event = PendingCmEvent::new(CmEventKind::REJECTED, reason);
        if reason == CONSUMER_REJECT {
            event.private_data = padded(data, REJECT_DATA_MAX);
        }
        self.push_cm_event(id, event);
    }

    fn end(&mut self, id: EndpointId) {
        self.endpoint(id).state = EndpointState::Ended;
        self.push_cm_event(id, PendingCmEvent::new(CmEventKind::DISCONNECTED, 0));
        self.start_timewait(id);
    }
}

/// Pads private data to the fixed length of its field.
fn padded(data: &PrivateData, length: usize) -> PrivateData {
    let mut bytes = data.to_vec();
    bytes.resize(length, 0);
    PrivateData::new(&bytes)
}

/// Reject reason: invalid service id.
const INVALID_SERVICE_ID: i32 = 8;
/// Reject reason: invalid communication id.
const INVALID_COMM_ID: i32 = 6;
/// Time before a message without a reply is sent again, and maximum number of retries.
const RETRY_INTERVAL: Duration = Duration::from_nanos(4096 << 20);
const RETRIES_MAX: u32 = 14;
/// Duration of the timewait state.
const TIME_WAIT: Duration = Duration::from_secs(2);
const TIMED_OUT: i32 = -Errno::TIMEDOUT.raw_os_error();
