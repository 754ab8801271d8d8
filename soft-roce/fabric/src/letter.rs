//! What connection managers write to each other, and what they make of it.

use std::{net::SocketAddr, time::Duration};

use rustix::io::Errno;
use verbs::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionParameters, PrivateData,
    REJECT_DATA_MAX, provider::CmEventKind,
};

use super::{
    connection::{Endpoint, Happening, NOW, Stage},
    world::{EndpointId, Event, HostId, PairId, World},
};

/// A message on its way.
#[derive(Clone)]
pub(super) struct Letter {
    from: (EndpointId, HostId),
    /// Nothing for a request, which goes to whoever listens.
    to: (Option<EndpointId>, HostId),
    message: Message,
    tries: u32,
}

#[derive(Clone)]
pub(super) enum Message {
    Accept(Offer),
    Disconnect,
    DisconnectReply,
    Ready,
    Reject { reason: i32, data: PrivateData },
    Request(Offer),
}

/// What one end offers the other.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) destination: Option<SocketAddr>,
    pub(super) pair: Option<PairId>,
    pub(super) data: PrivateData,
    pub(super) parameters: ConnectionParameters,
}

impl Offer {
    pub(super) fn to(destination: SocketAddr) -> Self {
        Self::new(&ConnectParameters::default(), None, Some(destination))
    }

    pub(super) fn new(
        parameters: &ConnectParameters<'_>,
        pair: Option<PairId>,
        destination: Option<SocketAddr>,
    ) -> Self {
        let data = PrivateData::new(parameters.private_data);
        let parameters = ConnectionParameters {
            responder_resources: parameters.responder_resources,
            initiator_depth: parameters.initiator_depth,
            retry_count: parameters.retry_count,
            rnr_retry_count: parameters.rnr_retry_count,
        };
        Self { destination, pair, data, parameters }
    }

    /// As the other end sees it: what one end may have outstanding, the other must bear.
    fn seen(&self) -> ConnectionParameters {
        ConnectionParameters {
            responder_resources: self.parameters.initiator_depth,
            initiator_depth: self.parameters.responder_resources,
            ..self.parameters
        }
    }
}

impl World {
    /// Sends a message of an endpoint to its peer, after a delay.
    pub(super) fn write_late(&mut self, id: EndpointId, message: Message, delay: Duration) {
        let endpoint = &self.endpoints[&id];
        let Some(far) = endpoint.far else { return };
        let to = (endpoint.peer, far);
        let letter = Letter { from: (id, endpoint.host), to, message, tries: 0 };
        self.post_letter(letter, delay);
    }

    /// The same, of an endpoint that is no more.
    pub(super) fn write(&mut self, id: EndpointId, endpoint: &Endpoint, message: Message) {
        let Some(far) = endpoint.far else { return };
        let to = (endpoint.peer, far);
        self.post_letter(Letter { from: (id, endpoint.host), to, message, tries: 0 }, NOW);
    }

    /// A rejection that is made up here.
    pub(super) fn reject_ourselves(&mut self, id: EndpointId, reason: i32) {
        let endpoint = &self.endpoints[&id];
        let host = endpoint.far.unwrap_or(endpoint.host);
        let message = Message::Reject { reason, data: PrivateData::default() };
        let to = (Some(id), endpoint.host);
        self.post_letter(Letter { from: (id, host), to, message, tries: 0 }, NOW);
    }

    pub(super) fn deliver_letter(&mut self, letter: Letter) {
        let Letter { from, to, .. } = letter;
        let talks = |host: HostId| {
            let host = &self.hosts[host.0];
            host.device.is_some() && host.manager_alive
        };
        let (here, there) = (talks(from.1), talks(to.1));
        if !here {
            return;
        }
        if !there || !self.reaches(from.1, to.1) {
            return self.write_again(letter);
        }
        match (letter.message.clone(), to.0) {
            (Message::Request(offer), _) => self.take_request(letter, offer),
            (message, Some(id)) if self.endpoints.contains_key(&id) => {
                self.read_letter(id, from.0, message);
            }
            (Message::Disconnect, _) => self.answer(&letter, Message::DisconnectReply),
            (Message::Accept(_), _) => {
                let data = PrivateData::default();
                self.answer(&letter, Message::Reject { reason: UNKNOWN_CONNECTION, data });
            }
            _ => {}
        }
    }

    /// Nobody answered in all that time.
    pub(super) fn unanswered(&mut self, id: EndpointId) {
        let waits = |endpoint: &Endpoint| endpoint.state == Stage::Connecting;
        if self.endpoints.get(&id).is_some_and(waits) {
            self.endpoint(id).state = Stage::Ended;
            self.tell(id, Happening::new(CmEventKind::UNREACHABLE, TIMED_OUT));
        }
    }

    /// Waits until no message of the ended connection can come any more.
    pub(super) fn wait_time(&mut self, id: EndpointId) {
        let kind = CmEventKind::TIMEWAIT_EXIT;
        self.clock.set_timer(TIME_WAIT, Event::Local { endpoint: id, kind, status: 0 });
    }

    fn post_letter(&mut self, letter: Letter, delay: Duration) {
        let crossing = self.cross();
        let lost = TRY_EVERY * crossing.losses;
        let at = self.clock.now() + crossing.delay + delay + lost;
        let way = (letter.from.1, letter.to.1);
        let last = self.last_letters.entry(way).or_default();
        *last = at.max(*last);
        let at = *last;
        self.clock.deliver(at, Event::Letter(Box::new(letter)));
    }

    fn answer(&mut self, letter: &Letter, message: Message) {
        let Letter { from, to, .. } = *letter;
        let from_id = to.0.unwrap_or(from.0);
        let answer =
            Letter { from: (from_id, to.1), to: (Some(from.0), from.1), message, tries: 0 };
        self.post_letter(answer, NOW);
    }

    /// A message did not get there: it is tried again, up to a point.
    fn write_again(&mut self, mut letter: Letter) {
        letter.tries += 1;
        if letter.tries <= TRIES_MAX {
            return self.clock.set_timer(TRY_EVERY, Event::Letter(Box::new(letter)));
        }
        let id = letter.from.0;
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let kind = match (letter.message, endpoint.state) {
            (Message::Request(_), Stage::Connecting) | (Message::Accept(_), Stage::Accepting) => {
                CmEventKind::UNREACHABLE
            }
            (Message::Disconnect, Stage::Disconnecting) => CmEventKind::DISCONNECTED,
            _ => return,
        };
        self.endpoint(id).state = Stage::Ended;
        self.tell(id, Happening::new(kind, TIMED_OUT));
        if kind == CmEventKind::DISCONNECTED {
            self.wait_time(id);
        }
    }

    fn take_request(&mut self, letter: Letter, offer: Offer) {
        let Letter { from, to, .. } = letter;
        let Some(destination) = offer.destination else { return };
        let hears = |endpoint: &Endpoint| match endpoint.state {
            Stage::Listening { address, .. } => {
                let here = address.ip().is_unspecified() || address.ip() == destination.ip();
                endpoint.host == to.1 && here && address.port() == destination.port()
            }
            _ => false,
        };
        let listener = self.endpoints.iter().find(|(_, endpoint)| hears(endpoint));
        let Some((&listener, endpoint)) = listener else {
            let data = PrivateData::default();
            return self.answer(&letter, Message::Reject { reason: NOBODY_LISTENS, data });
        };
        let Stage::Listening { backlog, .. } = endpoint.state else { return };
        let full = endpoint.events.len() >= backlog as usize;
        if full {
            return self.write_again(letter);
        }
        // Where there are no file descriptors left, the request is lost.
        let Ok((id, signal)) = self.make_endpoint(to.1, Stage::Requested) else { return };
        let device = self.hosts[to.1.0].device;
        let made = self.endpoint(id);
        (made.device, made.peer, made.far) = (device, Some(from.0), Some(from.1));
        made.offer = Some(offer.clone());
        let mut event = Happening::new(CmEventKind::CONNECT_REQUEST, 0);
        event.private_data = padded(&offer.data, CONNECT_DATA_MAX);
        event.parameters = offer.seen();
        event.incoming = Some((id, signal));
        self.tell(listener, event);
    }

    /// An endpoint gets a message from its peer.
    fn read_letter(&mut self, id: EndpointId, from: EndpointId, message: Message) {
        let state = self.endpoints[&id].state;
        match (message, state) {
            (Message::Accept(offer), Stage::Connecting) => self.take_acceptance(id, from, &offer),
            (Message::Ready, Stage::Accepting) => {
                self.endpoint(id).state = Stage::Connected;
                self.tell(id, Happening::new(CmEventKind::ESTABLISHED, 0));
            }
            (Message::Reject { reason, data }, Stage::Accepting | Stage::Connecting) => {
                self.take_rejection(id, reason, &data);
            }
            (Message::Disconnect, Stage::Accepting | Stage::Connected) => {
                self.endpoint(id).state = Stage::Asked;
                self.tell(id, Happening::new(CmEventKind::DISCONNECTED, 0));
            }
            (Message::Disconnect, Stage::Disconnecting) => {
                self.write_late(id, Message::DisconnectReply, NOW);
                self.end(id);
            }
            (Message::Disconnect, Stage::Ended) => {
                self.write_late(id, Message::DisconnectReply, NOW);
            }
            (Message::DisconnectReply, Stage::Disconnecting) => self.end(id),
            _ => {} // too late, or twice
        }
    }

    fn take_acceptance(&mut self, id: EndpointId, from: EndpointId, offer: &Offer) {
        let endpoint = self.endpoint(id);
        endpoint.peer = Some(from);
        let (pair, proposed) = (endpoint.pair, endpoint.proposed.clone());
        let (Some(pair), Some(proposed)) = (pair, proposed) else {
            self.tell(id, Happening::new(CmEventKind::CONNECT_RESPONSE, 0));
            return;
        };
        let retries = (proposed.parameters.retry_count, offer.parameters.rnr_retry_count);
        let reads = proposed.parameters.initiator_depth.min(offer.parameters.responder_resources);
        let patience = self.patience(id, retries, reads);
        self.connect_pair(pair, offer.pair, patience);
        self.endpoint(id).state = Stage::Connected;
        let mut event = Happening::new(CmEventKind::ESTABLISHED, 0);
        event.private_data = padded(&offer.data, ACCEPT_DATA_MAX);
        // An acceptance does not carry how often the acceptor sends again.
        event.parameters = ConnectionParameters { retry_count: 0, ..offer.seen() };
        self.tell(id, event);
        self.write_late(id, Message::Ready, NOW);
    }

    fn take_rejection(&mut self, id: EndpointId, reason: i32, data: &PrivateData) {
        self.endpoint(id).state = Stage::Ended;
        if let Some(pair) = self.endpoints[&id].pair {
            self.fail_pair(pair);
        }
        let mut event = Happening::new(CmEventKind::REJECTED, reason);
        if reason == super::connection::CONSUMER_REJECTS {
            event.private_data = padded(data, REJECT_DATA_MAX);
        }
        self.tell(id, event);
    }

    fn end(&mut self, id: EndpointId) {
        self.endpoint(id).state = Stage::Ended;
        self.tell(id, Happening::new(CmEventKind::DISCONNECTED, 0));
        self.wait_time(id);
    }
}

/// The connection manager's messages have fields of fixed length.
fn padded(data: &PrivateData, length: usize) -> PrivateData {
    let mut bytes = data.to_vec();
    bytes.resize(length, 0);
    PrivateData::new(&bytes)
}

/// No service has this number.
const NOBODY_LISTENS: i32 = 8;
/// No connection has this number.
const UNKNOWN_CONNECTION: i32 = 6;
/// How long a message waits for its answer before it is sent again, and how often it is.
const TRY_EVERY: Duration = Duration::from_nanos(4096 << 20);
const TRIES_MAX: u32 = 14;
/// How long an ended connection is remembered.
const TIME_WAIT: Duration = Duration::from_secs(2);
const TIMED_OUT: i32 = -Errno::TIMEDOUT.raw_os_error();
