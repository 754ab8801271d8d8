//! The sending side of a queue pair: what is on its way, answered, tried again, given up.

use std::time::Duration;

use verbs::{Access, Status, provider::Operation};

use super::{
    completion_queue::Done,
    fault::{Fault, Kind},
    memory::Checked,
    queue_pair::{Flow, Halt, Outgoing, State},
    world::{Event, PairId, World},
};

impl World {
    /// Queues a request, behind those that wait for their turn.
    pub(super) fn enqueue(&mut self, id: PairId, outgoing: Outgoing) {
        self.pair(id).flow.sends.push_back(outgoing);
        self.start_waiting(id);
    }

    /// Starts what waits, up to a read beyond the reads that may be open.
    fn start_waiting(&mut self, id: PairId) {
        while let Some(sequence) = self.next_to_start(id) {
            self.start(id, sequence);
        }
    }

    fn next_to_start(&self, id: PairId) -> Option<u64> {
        let pair = self.pairs.get(&id).filter(|pair| pair.state == State::Ready)?;
        let flow = &pair.flow;
        let next = flow.index(flow.started).and_then(|index| flow.sends.get(index))?;
        let waits = next.reads() && flow.open_reads() >= pair.patience.reads;
        (!flow.broken && !waits).then_some(flow.started)
    }

    /// Starts a request: it is done here, or sent to the peer.
    fn start(&mut self, id: PairId, sequence: u64) {
        let flow = &mut self.pair(id).flow;
        flow.started += 1;
        let Some(index) = flow.index(sequence) else { return };
        let Some(mut outgoing) = flow.sends.remove(index) else { return };
        self.prepare(id, &mut outgoing);
        outgoing.decided_here = outgoing.verdict.is_some();
        let (here, failed) = (outgoing.decided_here, outgoing.failed());
        let flow = &mut self.pair(id).flow;
        flow.sends.insert(index, outgoing);
        flow.broken |= failed;
        if here {
            self.complete_front(id);
        } else {
            self.send_request(id, sequence);
        }
    }

    /// Checks our own side of a request and gathers its bytes; does what needs no peer.
    fn prepare(&mut self, id: PairId, outgoing: &mut Outgoing) {
        let domain = self.pairs[&id].domain;
        outgoing.verdict = match outgoing.request.operation {
            Operation::BindWindow(bind) => {
                let bound = self.memory.bind(domain, id, &bind);
                Some(if bound { Status::SUCCESS } else { Status::WINDOW_BIND })
            }
            Operation::LocalInvalidate(key) => {
                let done = self.memory.invalidate(id, key);
                Some(if done { Status::SUCCESS } else { Status::LOCAL_OPERATION })
            }
            Operation::RdmaRead(_) => {
                let scattered = self.segments(id, outgoing, Access::LOCAL_WRITE);
                scattered.is_none().then_some(Status::LOCAL_PROTECTION)
            }
            Operation::RdmaWrite(_) | Operation::Send | Operation::SendWithInvalidate(_) => {
                match self.segments(id, outgoing, Access::NONE) {
                    Some(gathered) => {
                        gathered.iter().for_each(|checked| checked.read(&mut outgoing.bytes));
                        None
                    }
                    None => Some(Status::LOCAL_PROTECTION),
                }
            }
        };
    }

    /// The memory of a request's segments, if all of it may be used.
    fn segments(&self, id: PairId, outgoing: &Outgoing, access: Access) -> Option<Vec<Checked>> {
        let domain = self.pairs.get(&id)?.domain;
        let segments = outgoing.segments.iter();
        segments.map(|segment| self.memory.local(domain, segment, access)).collect()
    }

    fn send_request(&mut self, id: PairId, sequence: u64) {
        let (host, patience) = (self.pairs[&id].device.host, self.pairs[&id].patience);
        let mut crossing = self.cross();
        for fault in self.faults.strike(Kind::Message, host.0) {
            match fault {
                Fault::Delay(by) => crossing.delay += by,
                Fault::Drop => crossing.losses = u32::MAX,
                Fault::Corrupt { offset, bits } => {
                    let outgoing = self.pair(id).flow.outgoing(sequence);
                    if let Some(byte) = outgoing.and_then(|sent| sent.bytes.get_mut(offset)) {
                        *byte ^= bits;
                    }
                }
                other => self.strike(&other),
            }
        }
        if crossing.losses > patience.retries {
            return self.fall_silent(id);
        }
        let at = self.clock.now() + crossing.delay + patience.timeout * crossing.losses;
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.flow.last_arrival = pair.flow.last_arrival.max(at);
        let at = pair.flow.last_arrival;
        self.clock.deliver(at, Event::Arrive { pair: id, sequence });
    }

    /// Requests up to a sequence number have come to the peer's host.
    pub(super) fn arrive(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pairs.get(&id) else { return };
        if pair.state != State::Ready || matches!(pair.flow.halt, Halt::Silent(_)) {
            return;
        }
        if self.peer_of(id).is_none() {
            return self.fall_silent(id);
        }
        let flow = &mut self.pair(id).flow;
        flow.arrived = flow.arrived.max(sequence + 1);
        self.work_off(id);
    }

    /// Has the peer execute what has arrived, in order.
    fn work_off(&mut self, id: PairId) {
        while let Some(peer) = self.peer_of(id) {
            let flow = &mut self.pair(id).flow;
            let waits = matches!(flow.halt, Halt::NotReady(_) | Halt::Silent(_));
            if waits || flow.executed >= flow.arrived {
                return;
            }
            let sequence = flow.executed;
            let Some(outgoing) = flow.outgoing(sequence) else { return };
            if outgoing.decided_here {
                if outgoing.verdict != Some(Status::SUCCESS) {
                    return; // what follows is flushed
                }
                flow.executed += 1;
                continue;
            }
            let (operation, bytes) =
                (outgoing.request.operation, std::mem::take(&mut outgoing.bytes));
            let wanted = outgoing.segments.iter().map(|one| one.length as usize).sum();
            let answer = self.execute(peer, &operation, (&bytes, wanted));
            let Some(pair) = self.pairs.get_mut(&id) else { return };
            let Some(outgoing) = pair.flow.outgoing(sequence) else { return };
            let Some((verdict, data)) = answer else {
                outgoing.bytes = bytes;
                return self.wait_for_receive(id);
            };
            outgoing.verdict = Some(verdict);
            outgoing.bytes = data;
            pair.flow.executed += 1;
            self.send_answer(id, sequence);
            if !verdict.is_success() {
                return;
            }
        }
    }

    fn send_answer(&mut self, id: PairId, sequence: u64) {
        let crossing = self.cross();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if crossing.losses > pair.patience.retries {
            return self.fall_silent(id);
        }
        let lost = pair.patience.timeout * crossing.losses;
        let at = self.clock.now() + crossing.delay + lost;
        pair.flow.last_answer = pair.flow.last_answer.max(at);
        let at = pair.flow.last_answer;
        self.clock.deliver(at, Event::Answer { pair: id, sequence });
    }

    /// Answers up to a sequence number have come back. They count even if later requests have
    /// met silence meanwhile: a peer that refuses one request answers no other.
    pub(super) fn take_answer(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pairs.get(&id).filter(|pair| pair.state == State::Ready) else {
            return;
        };
        if pair.far.is_none_or(|far| !self.reaches(pair.device.host, far)) {
            return self.fall_silent(id);
        }
        let flow = &mut self.pair(id).flow;
        flow.acknowledged = flow.acknowledged.max(sequence + 1);
        self.complete_front(id);
        self.start_waiting(id);
    }

    /// Completes what is done, in order, up to the first that isn't.
    fn complete_front(&mut self, id: PairId) {
        while let Some(pair) = self.pairs.get_mut(&id) {
            let flow = &mut pair.flow;
            let Some(front) = flow.sends.front() else { return };
            let Some(verdict) = front.verdict else { return };
            if !front.decided_here && flow.first >= flow.acknowledged {
                return;
            }
            let Some(done) = flow.sends.pop_front() else { return };
            flow.first += 1;
            flow.acknowledged = flow.acknowledged.max(flow.first);
            flow.executed = flow.executed.max(flow.first);
            flow.arrived = flow.arrived.max(flow.first);
            self.finish(id, &done, verdict);
        }
    }

    fn finish(&mut self, id: PairId, done: &Outgoing, verdict: Status) {
        let mut verdict = verdict;
        if verdict.is_success() && matches!(done.request.operation, Operation::RdmaRead(_)) {
            // The registration may be gone meanwhile.
            match self.segments(id, done, Access::LOCAL_WRITE) {
                Some(places) => {
                    let mut rest = &done.bytes[..];
                    places.iter().for_each(|place| rest = place.write(rest));
                }
                None => verdict = Status::LOCAL_PROTECTION,
            }
        }
        if !verdict.is_success() || done.request.signaled {
            self.complete(id, Done::new(done.request.token, verdict));
        }
        if !verdict.is_success() {
            self.fail_pair(id);
        }
    }

    /// The peer has no receive for the next request.
    fn wait_for_receive(&mut self, id: PairId) {
        let now = self.clock.now();
        let pair = self.pair(id);
        pair.flow.halts += 1;
        pair.flow.halt = Halt::NotReady(now);
        let halts = pair.flow.halts;
        if let Some(retries) = pair.patience.receiver_retries {
            let event = Event::GiveUp { pair: id, patience: halts };
            self.clock.set_timer(RECEIVER_NOT_READY * retries, event);
        }
    }

    /// The peer of a queue pair has a receive again: whoever waits for it tries at the next beat
    /// of its timer.
    pub(super) fn wake_sender_to(&mut self, receiver: PairId) {
        let sender = self.pairs.get(&receiver).and_then(|pair| pair.peer);
        let Some((id, pair)) = sender.and_then(|id| Some((id, self.pairs.get(&id)?))) else {
            return;
        };
        if let Halt::NotReady(since) = pair.flow.halt {
            let event = Event::TryAgain { pair: id, patience: pair.flow.halts };
            self.clock.deliver(next_beat(since, RECEIVER_NOT_READY, self.clock.now()), event);
        }
    }

    pub(super) fn try_again(&mut self, id: PairId, halts: u64) {
        let Some(flow) = self.halted(id, halts) else { return };
        flow.halt = Halt::No;
        self.work_off(id);
    }

    /// There is no answer any more: the peer, or the way to it, is gone.
    pub(super) fn fall_silent(&mut self, id: PairId) {
        let now = self.clock.now();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if pair.state != State::Ready || matches!(pair.flow.halt, Halt::Silent(_)) {
            return;
        }
        pair.flow.halts += 1;
        pair.flow.halt = Halt::Silent(now);
        let event = Event::GiveUp { pair: id, patience: pair.flow.halts };
        let timeout = pair.patience.timeout * (pair.patience.retries + 1);
        self.clock.set_timer(timeout, event);
    }

    /// Every silent queue pair tries again at the next beat of its timer.
    pub(super) fn resume_pairs(&mut self) {
        let now = self.clock.now();
        for (&id, pair) in &self.pairs {
            if let Halt::Silent(since) = pair.flow.halt {
                let event = Event::Resume { pair: id, patience: pair.flow.halts };
                self.clock.deliver(next_beat(since, pair.patience.timeout, now), event);
            }
        }
    }

    pub(super) fn resume(&mut self, id: PairId, halts: u64) {
        if self.peer_of(id).is_none() {
            return; // its patience keeps running
        }
        let Some(flow) = self.halted(id, halts) else { return };
        flow.halt = Halt::No;
        flow.arrived = flow.started;
        if flow.executed > flow.acknowledged {
            let sequence = flow.executed - 1;
            self.send_answer(id, sequence);
        }
        self.work_off(id);
    }

    /// Patience has run out.
    pub(super) fn give_up(&mut self, id: PairId, halts: u64) {
        let Some(flow) = self.halted(id, halts) else { return };
        let status = match flow.halt {
            Halt::NotReady(_) => Status::RECEIVER_NOT_READY,
            _ => Status::RETRY_EXCEEDED,
        };
        if let Some(front) = flow.sends.pop_front() {
            self.complete(id, Done::new(front.request.token, status));
        }
        self.fail_pair(id);
    }

    fn halted(&mut self, id: PairId, halts: u64) -> Option<&mut Flow> {
        let pair = self.pairs.get_mut(&id).filter(|pair| pair.state == State::Ready)?;
        let waits = matches!(pair.flow.halt, Halt::NotReady(_) | Halt::Silent(_));
        (waits && pair.flow.halts == halts).then_some(&mut pair.flow)
    }

    /// The peer of a queue pair, if messages get there and it takes them.
    fn peer_of(&self, id: PairId) -> Option<PairId> {
        let pair = self.pairs.get(&id).filter(|pair| pair.state == State::Ready)?;
        let peer_id = pair.peer?;
        let peer = self.pairs.get(&peer_id)?;
        let takes = peer.state == State::Ready && peer.peer == Some(id);
        let reached = self.reaches(pair.device.host, peer.device.host);
        (takes && reached && self.is_alive(peer.device)).then_some(peer_id)
    }
}

/// The first whole number of periods after `since` that is not before `now`.
fn next_beat(since: Duration, period: Duration, now: Duration) -> Duration {
    let waited = now.saturating_sub(since).as_nanos();
    let beats = waited.div_ceil(period.as_nanos().max(1)).max(1);
    since + period * u32::try_from(beats).unwrap_or(u32::MAX)
}

/// How long a peer without a receive asks to wait: the kernel's connection manager says so.
const RECEIVER_NOT_READY: Duration = Duration::from_micros(655_360);
