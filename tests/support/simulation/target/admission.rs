//! Acceptance of connections, which takes a target time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rdma_fabric::Host;
use verbs::{ConnectionEvent, Endpoint, PrivateData};

use super::{Due, Subsystem, connection::Connection};

/// Limits of a target that accepts one connection after the other.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Time that the target takes to accept a connection.
    pub time: Duration,
    /// Requests that may wait; others are rejected.
    pub backlog: usize,
}

/// Connection requests of a target.
#[derive(Default)]
pub(super) struct Admission {
    /// `None` if every request is accepted at once.
    limits: Option<AdmissionLimits>,
    waiting: VecDeque<ConnectionRequest>,
    /// True while a request is being accepted.
    is_accepting: bool,
    /// Number of requests, by the second in which they arrived.
    pub(super) by_second: BTreeMap<u64, u64>,
}

/// Endpoint of a connection request, and its private data.
type ConnectionRequest = (Endpoint<Host>, PrivateData);

impl Admission {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self { limits: Some(limits), ..Self::default() }
    }

    /// Forgets the requests that wait.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

impl Subsystem {
    /// Takes the connection requests that have arrived.
    pub(super) fn take_requests(&mut self, now: Duration) {
        let Some(listener) = &mut self.listener else { return };
        let mut requests = Vec::new();
        while let Some(event) = listener.endpoint.next_event().expect("the listener lives") {
            if let ConnectionEvent::ConnectRequest { endpoint, private_data, .. } = event {
                requests.push((endpoint, private_data));
            }
        }
        for mut request in requests {
            *self.admission.by_second.entry(now.as_secs()).or_default() += 1;
            match self.admission.limits {
                None => self.accept(request),
                Some(limits) if self.admission.waiting.len() >= limits.backlog => {
                    // The host may have given up.
                    let _ = request.0.reject(&[]);
                    self.count("connection requests rejected");
                }
                Some(limits) => {
                    self.admission.waiting.push_back(request);
                    if !std::mem::replace(&mut self.admission.is_accepting, true) {
                        self.plan(now + limits.time, Due::Accept);
                    }
                }
            }
        }
    }

    /// Accepts the request that has waited longest.
    pub(super) fn accept_next(&mut self, now: Duration) {
        self.admission.is_accepting = false;
        let Some(request) = self.admission.waiting.pop_front() else { return };
        self.accept(request);
        if let Some(limits) = self.admission.limits.filter(|_| !self.admission.waiting.is_empty()) {
            self.admission.is_accepting = true;
            self.plan(now + limits.time, Due::Accept);
        }
    }

    fn accept(&mut self, (endpoint, private_data): ConnectionRequest) {
        let key = self.next();
        let notice = self.notices.of(key);
        // A host that has given up is not accepted.
        if let Some(connection) = Connection::accept(&self.world, endpoint, &private_data, notice) {
            self.connections.insert(key, connection);
        }
    }
}
