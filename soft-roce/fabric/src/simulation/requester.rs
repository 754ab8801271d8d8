//! Requester of a queue pair: sending, responses, retries and errors.

use std::time::Duration;

use verbs::{Access, Status, provider::Operation};

use crate::{
    fault::{Fault, FaultCounter},
    simulation::{
        PairId, SimEvent, Simulation,
        completion_queue::RequestOutcome,
        memory::MemoryRange,
        queue_pair::{Flow, PendingSend, QueuePairState, Stall},
    },
};

impl Simulation {
    /// Queues a request after those that have not started.
    pub(crate) fn enqueue(&mut self, id: PairId, pending: PendingSend) {
        self.pair(id).flow.sends.push_back(pending);
        self.start_pending(id);
    }

    /// Starts queued requests, up to a read that exceeds the maximum of outstanding reads.
    fn start_pending(&mut self, id: PairId) {
        while let Some(sequence) = self.next_to_start(id) {
            self.start(id, sequence);
        }
    }

    fn next_to_start(&self, id: PairId) -> Option<u64> {
        let pair = self.pairs.get(&id).filter(|pair| pair.state == QueuePairState::Ready)?;
        let flow = &pair.flow;
        let next = flow.index(flow.started).and_then(|index| flow.sends.get(index))?;
        let waits = next.reads() && flow.open_reads() >= pair.policy.reads;
        (!flow.broken && !waits).then_some(flow.started)
    }

    /// Starts a request: it is completed locally or sent to the peer.
    fn start(&mut self, id: PairId, sequence: u64) {
        let flow = &mut self.pair(id).flow;
        flow.started += 1;
        let Some(index) = flow.index(sequence) else { return };
        let Some(mut pending) = flow.sends.remove(index) else { return };
        self.prepare(id, &mut pending);
        pending.completed_locally = pending.status.is_some();
        let (here, failed) = (pending.completed_locally, pending.failed());
        let flow = &mut self.pair(id).flow;
        flow.sends.insert(index, pending);
        flow.broken |= failed;
        if here {
            self.complete_front(id);
        } else {
            self.send_request(id, sequence);
        }
    }

    /// Checks the local memory of a request and gathers its bytes; executes operations that need no
    /// peer.
    fn prepare(&mut self, id: PairId, pending: &mut PendingSend) {
        let domain = self.pairs[&id].domain;
        pending.status = match pending.request.operation {
            Operation::BindWindow(bind) => {
                let bound = self.memory.bind(domain, id, &bind);
                Some(if bound { Status::SUCCESS } else { Status::WINDOW_BIND })
            }
            Operation::LocalInvalidate(key) => {
                let done = self.memory.invalidate(id, key);
                Some(if done { Status::SUCCESS } else { Status::LOCAL_OPERATION })
            }
            Operation::RdmaRead(_) => {
                let scattered = self.memory_of(id, pending, Access::LOCAL_WRITE);
                scattered.is_none().then_some(Status::LOCAL_PROTECTION)
            }
            Operation::RdmaWrite(_) | Operation::Send | Operation::SendWithInvalidate(_) => {
                match self.memory_of(id, pending, Access::NONE) {
                    Some(gathered) => {
                        gathered.iter().for_each(|checked| checked.read(&mut pending.bytes));
                        None
                    }
                    None => Some(Status::LOCAL_PROTECTION),
                }
            }
        };
    }

    /// Returns the memory of a request's segments, if all of it is accessible.
    fn memory_of(
        &self,
        id: PairId,
        pending: &PendingSend,
        access: Access,
    ) -> Option<Vec<MemoryRange>> {
        let domain = self.pairs.get(&id)?.domain;
        let sges = pending.sg_list.iter();
        sges.map(|sge| self.memory.local(domain, sge, access)).collect()
    }

    fn send_request(&mut self, id: PairId, sequence: u64) {
        let (host, policy) = (self.pairs[&id].device.host, self.pairs[&id].policy);
        let mut transit = self.transmit();
        for fault in self.faults.take(FaultCounter::Message, host.0) {
            match fault {
                Fault::Delay(by) => transit.delay += by,
                Fault::Drop => transit.losses = u32::MAX,
                Fault::Corrupt { offset, bits } => {
                    let pending = self.pair(id).flow.pending(sequence);
                    if let Some(byte) = pending.and_then(|sent| sent.bytes.get_mut(offset)) {
                        *byte ^= bits;
                    }
                }
                other => self.apply_fault(&other),
            }
        }
        if transit.losses > policy.retries {
            return self.stall_without_response(id);
        }
        let at = self.clock.now() + transit.delay + policy.timeout * transit.losses;
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.flow.last_arrival = pair.flow.last_arrival.max(at);
        let at = pair.flow.last_arrival;
        self.clock.deliver(at, SimEvent::RequestArrival { pair: id, sequence });
    }

    /// Handles the arrival of requests at the peer, up to a sequence number.
    pub(crate) fn handle_arrival(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pairs.get(&id) else { return };
        if pair.state != QueuePairState::Ready || matches!(pair.flow.stall, Stall::NoResponse(_)) {
            return;
        }
        if self.peer_of(id).is_none() {
            return self.stall_without_response(id);
        }
        let flow = &mut self.pair(id).flow;
        flow.arrived = flow.arrived.max(sequence + 1);
        self.execute_arrived(id);
    }

    /// Lets the peer execute the requests that have arrived, in order.
    fn execute_arrived(&mut self, id: PairId) {
        while let Some(peer) = self.peer_of(id) {
            let flow = &mut self.pair(id).flow;
            let waits = matches!(flow.stall, Stall::NotReady(_) | Stall::NoResponse(_));
            if waits || flow.executed >= flow.arrived {
                return;
            }
            let sequence = flow.executed;
            let Some(pending) = flow.pending(sequence) else { return };
            if pending.completed_locally {
                if pending.status != Some(Status::SUCCESS) {
                    return; // the requests after it are flushed
                }
                flow.executed += 1;
                continue;
            }
            let (operation, bytes) =
                (pending.request.operation, std::mem::take(&mut pending.bytes));
            let read_length = pending.sg_list.iter().map(|one| one.length as usize).sum();
            let response = self.execute(peer, &operation, &bytes, read_length);
            let Some(pair) = self.pairs.get_mut(&id) else { return };
            let Some(pending) = pair.flow.pending(sequence) else { return };
            let Some((status, data)) = response else {
                pending.bytes = bytes;
                return self.stall_not_ready(id);
            };
            pending.status = Some(status);
            pending.bytes = data;
            pair.flow.executed += 1;
            self.send_response(id, sequence);
            if !status.is_success() {
                return;
            }
        }
    }

    fn send_response(&mut self, id: PairId, sequence: u64) {
        let transit = self.transmit();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if transit.losses > pair.policy.retries {
            return self.stall_without_response(id);
        }
        let lost = pair.policy.timeout * transit.losses;
        let at = self.clock.now() + transit.delay + lost;
        pair.flow.last_response = pair.flow.last_response.max(at);
        let at = pair.flow.last_response;
        self.clock.deliver(at, SimEvent::ResponseArrival { pair: id, sequence });
    }

    /// Handles responses up to a sequence number. They count even if a later request has met
    /// silence meanwhile: a peer that refuses one request responds to no other.
    pub(crate) fn handle_response(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pairs.get(&id).filter(|pair| pair.state == QueuePairState::Ready)
        else {
            return;
        };
        if pair.remote_host.is_none_or(|remote_host| !self.reaches(pair.device.host, remote_host)) {
            return self.stall_without_response(id);
        }
        let flow = &mut self.pair(id).flow;
        flow.acknowledged = flow.acknowledged.max(sequence + 1);
        self.complete_front(id);
        self.start_pending(id);
    }

    /// Completes finished requests in order, up to the first unfinished one.
    fn complete_front(&mut self, id: PairId) {
        while let Some(pair) = self.pairs.get_mut(&id) {
            let flow = &mut pair.flow;
            let Some(front) = flow.sends.front() else { return };
            let Some(status) = front.status else { return };
            if !front.completed_locally && flow.first >= flow.acknowledged {
                return;
            }
            let Some(done) = flow.sends.pop_front() else { return };
            flow.first += 1;
            flow.acknowledged = flow.acknowledged.max(flow.first);
            flow.executed = flow.executed.max(flow.first);
            flow.arrived = flow.arrived.max(flow.first);
            self.finish(id, &done, status);
        }
    }

    fn finish(&mut self, id: PairId, done: &PendingSend, status: Status) {
        let mut status = status;
        if status.is_success() && matches!(done.request.operation, Operation::RdmaRead(_)) {
            // The memory may have been deregistered meanwhile.
            match self.memory_of(id, done, Access::LOCAL_WRITE) {
                Some(places) => {
                    let mut rest = &done.bytes[..];
                    places.iter().for_each(|place| rest = place.write(rest));
                }
                None => status = Status::LOCAL_PROTECTION,
            }
        }
        if !status.is_success() || done.request.signaled {
            self.complete(id, RequestOutcome::new(done.request.token, status));
        }
        if !status.is_success() {
            self.fail_pair(id);
        }
    }

    /// Stalls because the peer has no receive for the next request.
    fn stall_not_ready(&mut self, id: PairId) {
        let now = self.clock.now();
        let pair = self.pair(id);
        pair.flow.stalls += 1;
        pair.flow.stall = Stall::NotReady(now);
        let stalls = pair.flow.stalls;
        if let Some(retries) = pair.policy.rnr_retries {
            let event = SimEvent::RetriesExceeded { pair: id, stall: stalls };
            self.clock.set_timer(RECEIVER_NOT_READY * retries, event);
        }
    }

    /// Resumes the peer of a queue pair that has posted a receive, at the next tick of the RNR
    /// timer.
    pub(crate) fn resume_sender_of(&mut self, receiver: PairId) {
        let sender = self.pairs.get(&receiver).and_then(|pair| pair.peer);
        let Some((id, pair)) = sender.and_then(|id| Some((id, self.pairs.get(&id)?))) else {
            return;
        };
        if let Stall::NotReady(since) = pair.flow.stall {
            let event = SimEvent::RetryNotReady { pair: id, stall: pair.flow.stalls };
            self.clock.deliver(next_tick(since, RECEIVER_NOT_READY, self.clock.now()), event);
        }
    }

    pub(crate) fn retry_not_ready(&mut self, id: PairId, stalls: u64) {
        let Some(flow) = self.stalled(id, stalls) else { return };
        flow.stall = Stall::None;
        self.execute_arrived(id);
    }

    /// Stalls because there is no response: the peer or the path to it is gone.
    pub(crate) fn stall_without_response(&mut self, id: PairId) {
        let now = self.clock.now();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if pair.state != QueuePairState::Ready || matches!(pair.flow.stall, Stall::NoResponse(_)) {
            return;
        }
        pair.flow.stalls += 1;
        pair.flow.stall = Stall::NoResponse(now);
        let event = SimEvent::RetriesExceeded { pair: id, stall: pair.flow.stalls };
        let timeout = pair.policy.timeout * (pair.policy.retries + 1);
        self.clock.set_timer(timeout, event);
    }

    /// Schedules a retry of every queue pair stalled without a response, at the next tick of its
    /// timer.
    pub(crate) fn resume_pairs(&mut self) {
        let now = self.clock.now();
        for (&id, pair) in &self.pairs {
            if let Stall::NoResponse(since) = pair.flow.stall {
                let event = SimEvent::Resume { pair: id, stall: pair.flow.stalls };
                self.clock.deliver(next_tick(since, pair.policy.timeout, now), event);
            }
        }
    }

    pub(crate) fn resume(&mut self, id: PairId, stalls: u64) {
        if self.peer_of(id).is_none() {
            return; // its retry timer keeps running
        }
        let Some(flow) = self.stalled(id, stalls) else { return };
        flow.stall = Stall::None;
        flow.arrived = flow.started;
        if flow.executed > flow.acknowledged {
            let sequence = flow.executed - 1;
            self.send_response(id, sequence);
        }
        self.execute_arrived(id);
    }

    /// Fails a queue pair whose retries are exceeded.
    pub(crate) fn exceed_retries(&mut self, id: PairId, stalls: u64) {
        let Some(flow) = self.stalled(id, stalls) else { return };
        let status = match flow.stall {
            Stall::NotReady(_) => Status::RECEIVER_NOT_READY,
            _ => Status::RETRY_EXCEEDED,
        };
        if let Some(front) = flow.sends.pop_front() {
            self.complete(id, RequestOutcome::new(front.request.token, status));
        }
        self.fail_pair(id);
    }

    fn stalled(&mut self, id: PairId, stalls: u64) -> Option<&mut Flow> {
        let pair = self.pairs.get_mut(&id).filter(|pair| pair.state == QueuePairState::Ready)?;
        let waits = matches!(pair.flow.stall, Stall::NotReady(_) | Stall::NoResponse(_));
        (waits && pair.flow.stalls == stalls).then_some(&mut pair.flow)
    }

    /// Returns the peer of a queue pair if it is reachable and accepts requests.
    fn peer_of(&self, id: PairId) -> Option<PairId> {
        let pair = self.pairs.get(&id).filter(|pair| pair.state == QueuePairState::Ready)?;
        let peer_id = pair.peer?;
        let peer = self.pairs.get(&peer_id)?;
        let takes = peer.state == QueuePairState::Ready && peer.peer == Some(id);
        let reached = self.reaches(pair.device.host, peer.device.host);
        (takes && reached && self.is_alive(peer.device)).then_some(peer_id)
    }
}

/// Returns the first time at or after `now` that is a whole number of periods after `since`.
fn next_tick(since: Duration, period: Duration, now: Duration) -> Duration {
    let waited = now.saturating_sub(since).as_nanos();
    let ticks = waited.div_ceil(period.as_nanos().max(1)).max(1);
    since + period * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// RNR timer: delay before a retry after a receiver-not-ready NAK, as set by the kernel's
/// connection manager.
const RECEIVER_NOT_READY: Duration = Duration::from_micros(655_360);
