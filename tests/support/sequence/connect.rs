//! Connection set-up, event by event.

use std::time::Duration;

use rdma_fabric::Host;
use verbs::{ConnectParameters, ConnectionEvent, Endpoint, PreparedQueuePair};

use super::{
    At, CONNECTIONS_MAX, QUEUES, Run,
    connection_end::{ConnectionEnd, Pair, SIZE},
    host::{Queue, address},
};

impl Run<'_> {
    /// Carries out all steps of a connection, unless a fault prevents it.
    pub(super) fn establish(&mut self, at: At, value: u8) {
        if self.end(at).is_none() {
            self.open(at, value);
        }
        for _ in 0..8 {
            self.fabric.settle();
            self.connection_event(at, value);
            self.listener_event(1 - at.host, value);
            self.fabric.settle();
            for end in 0..CONNECTIONS_MAX {
                self.connection_event(At { host: 1 - at.host, end }, value);
            }
        }
    }

    /// Begins a connection to the other host or, for one value, to the same.
    pub(super) fn open(&mut self, at: At, value: u8) {
        if self.end(at).is_some() {
            return;
        }
        self.listen(1 - at.host);
        let destination = address(if value == 255 { at.host } else { 1 - at.host });
        let provider = self.hosts[at.host].provider.clone();
        let mut endpoint = Endpoint::open_with(provider).expect("an endpoint");
        if endpoint.resolve_address(None, destination, RESOLVE_TIMEOUT).is_err() {
            return; // there is no device
        }
        let name = self.number();
        self.hosts[at.host].ends[at.end] = Some(ConnectionEnd::new(name, endpoint));
        self.count("opened");
    }

    fn listen(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        if state.listener.is_none() {
            let mut listener = Endpoint::open_with(state.provider.clone()).expect("an endpoint");
            if listener.listen(address(host), 2).is_ok() {
                state.listener = Some(listener);
            }
        }
    }

    /// Takes the next event of the listener: accepts, rejects or drops the request.
    pub(super) fn listener_event(&mut self, host: usize, value: u8) {
        let Some(listener) = &mut self.hosts[host].listener else { return };
        let event = listener.next_event().expect("it can be read");
        let Some(ConnectionEvent::ConnectRequest { mut endpoint, private_data, .. }) = event else {
            return;
        };
        let peer = u32::from_le_bytes([0, 1, 2, 3].map(|index| private_data[index]));
        let place = self.hosts[host].ends.iter().position(Option::is_none);
        let (Some(place), true) = (place, value % 16 != 15) else {
            let _ = endpoint.reject(b"no room");
            self.count("rejected");
            return;
        };
        let name = self.number();
        let mut end = ConnectionEnd::new(name, endpoint);
        end.peer = peer;
        self.hosts[host].ends[place] = Some(end);
        let at = At { host, end: place };
        self.prepare(at, value);
        let Some(end) = self.end(at) else { return };
        let (name, endpoint) = (name.to_le_bytes(), end.endpoint.as_mut());
        if let Some(Err(error)) = endpoint.map(|one| one.accept(&parameters(&name, value))) {
            self.count("not accepted");
            assert!(matches!(error, verbs::Error::Accept(_)), "{error}");
        }
    }

    /// Takes the next event of an end, and carries out the step that follows.
    pub(super) fn connection_event(&mut self, at: At, value: u8) {
        let removed = self.hosts[at.host].removals > 0;
        let Some(end) = self.end(at) else { return };
        let Some(endpoint) = &mut end.endpoint else { return };
        let name = end.name.to_le_bytes();
        let Some(event) = endpoint.next_event().expect("it can be read") else { return };
        match event {
            ConnectionEvent::AddressResolved => {
                self.prepare(at, value);
                let endpoint = self.end(at).and_then(|end| end.endpoint.as_mut());
                endpoint.map(|one| one.resolve_route(RESOLVE_TIMEOUT));
            }
            ConnectionEvent::RouteResolved => {
                let sent = endpoint.connect(&parameters(&name, value));
                assert!(sent.is_ok() || removed, "the route is resolved: {sent:?}");
            }
            ConnectionEvent::Established(established) => {
                if let &[a, b, c, d, ..] = established.private_data() {
                    end.peer = u32::from_le_bytes([a, b, c, d]);
                }
                end.pair = match std::mem::replace(&mut end.pair, Pair::None) {
                    Pair::Prepared(prepared) => Pair::Live(prepared.ready(&established)),
                    other => other,
                };
                let early = std::mem::take(&mut end.early);
                early.iter().for_each(|completion| self.complete(at, completion));
                self.count("established");
            }
            other => {
                let text = format!("{other:?}");
                let kind = text.split([' ', '(']).next().unwrap_or_default();
                self.count(kind);
            }
        }
    }

    /// Makes the queue pair, and posts a receive.
    fn prepare(&mut self, at: At, value: u8) {
        let queue = usize::from(value) % QUEUES;
        let made = self.pair(at, queue);
        let host = &mut self.hosts[at.host];
        let (number, domain, removals) = (
            host.queues[queue].as_ref().map_or(0, |queue| queue.number),
            host.domains_made,
            host.removals,
        );
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let Some(prepared) = made else { return };
        end.pair = Pair::Prepared(prepared);
        (end.queue, end.domain, end.removals) = (number, domain, removals);
        self.post_receive(at);
        self.flush(at);
        self.count("prepared");
    }

    /// Makes a queue pair and what it needs; none if the device is gone or the queue is full.
    fn pair(&mut self, at: At, queue: usize) -> Option<PreparedQueuePair<Host>> {
        let number = self.number();
        let host = &mut self.hosts[at.host];
        let mut endpoint = host.ends[at.end].as_mut()?.endpoint.take()?;
        let domain = host.domain(&endpoint);
        if host.queues[queue].is_none() {
            let raw = endpoint.completion_queue(COMPLETIONS).ok();
            host.queues[queue] = raw.map(|raw| Queue { raw, number, armed: false, awaited: false });
        }
        let made = match (&domain, &host.queues[queue]) {
            (Some(domain), Some(queue)) => endpoint.queue_pair(domain, &queue.raw, SIZE).ok(),
            _ => None,
        };
        if let Some(end) = host.ends[at.end].as_mut() {
            end.endpoint = Some(endpoint);
        }
        made
    }
}

fn parameters(name: &[u8; 4], value: u8) -> ConnectParameters<'_> {
    ConnectParameters {
        private_data: name,
        responder_resources: value >> 6,
        initiator_depth: value >> 4 & 3,
        retry_count: value >> 3 & 7,
        rnr_retry_count: value & 7,
    }
}

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Entries of a completion queue: room for four queue pairs, so that sometimes there is none.
const COMPLETIONS: u32 = 5 * 14 - 4;
