//! Queue pairs: what is posted to them, and how they fail.

use std::{collections::VecDeque, time::Duration};

use rustix::io::Errno;
use verbs::{
    Capabilities, DeviceEventKind, Error, SEGMENTS_MAX, Status, Subject,
    provider::{Operation, Payload, Payloads, ReceiveRequest, Segment, SendRequest},
};

use super::{
    completion_queue::WorkCompletion,
    shared_receive_queue::SharedReceiveQueueId,
    simulation::{DeviceId, DomainId, EndpointId, HostId, PairId, QueueId, Simulation},
};

/// Where a queue pair is in its life.
///
/// ```text
///   Prepared -- connected --> Ready -- a failure, or disconnected --> Failed
///      '--------------------------- disconnected -------------------------^
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum QueuePairState {
    /// Everything outstanding was flushed; so is what is posted from now on.
    Failed,
    /// Receives can be posted.
    Prepared,
    /// Connected.
    Ready,
}

pub(super) struct QueuePair {
    pub(super) device: DeviceId,
    pub(super) endpoint: EndpointId,
    pub(super) domain: DomainId,
    pub(super) queue: QueueId,
    pub(super) shared: Option<SharedReceiveQueueId>,
    pub(super) capabilities: Capabilities,
    pub(super) state: QueuePairState,
    pub(super) peer: Option<PairId>,
    /// Where the peer is.
    pub(super) remote_host: Option<HostId>,
    pub(super) policy: RetryPolicy,
    pub(super) flow: Flow,
    receives: VecDeque<ReceiveRequest>,
}

/// How often, and how long, a queue pair tries, and how much at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryPolicy {
    /// How long it waits for an answer before it sends again.
    pub(super) timeout: Duration,
    /// How often it does, without any answer.
    pub(super) retries: u32,
    /// How often it does, when the peer has no receive; nothing for ever so often.
    pub(super) receiver_retries: Option<u32>,
    /// How many reads it may have without an answer.
    pub(super) reads: usize,
}

/// What goes from one queue pair to its peer. Sequence numbers count requests.
///
/// ```text
///      first        acknowledged    executed     arrived        started    first + sends
///        |  answered     |  answer      |  waiting  |   on the     |   waiting   |
///        |  here         |  on its way  |  there    |   way there  |   here      |
/// ```
pub(super) struct Flow {
    /// What was posted and has not completed.
    pub(super) sends: VecDeque<PendingSend>,
    pub(super) first: u64,
    pub(super) acknowledged: u64,
    pub(super) executed: u64,
    pub(super) arrived: u64,
    pub(super) started: u64,
    /// When the latest request arrives, and the latest answer: none overtakes another.
    pub(super) last_arrival: Duration,
    pub(super) last_response: Duration,
    pub(super) stall: Stall,
    /// A request could not even start: it completes, with a failure, once those before it have,
    /// and none behind it starts.
    pub(super) broken: bool,
    /// Counts the stalls, so that the timers of earlier ones are told apart.
    pub(super) stalls: u64,
}

/// Why nothing moves, if so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stall {
    /// It moves.
    None,
    /// The peer has no receive, since then.
    NotReady(Duration),
    /// There is no answer, since then.
    NoResponse(Duration),
}

/// A request that has not completed.
pub(super) struct PendingSend {
    pub(super) request: SendRequest,
    /// What its payload names.
    pub(super) segments: Vec<Segment>,
    /// Inline bytes, or those gathered.
    pub(super) bytes: Vec<u8>,
    /// How it ended, once that is known, here or at the peer.
    pub(super) status: Option<Status>,
    /// Whether it ended before it was sent.
    pub(super) completed_locally: bool,
}

/// What a queue pair is made of.
pub(super) struct QueuePairParts {
    pub(super) device: DeviceId,
    pub(super) endpoint: EndpointId,
    pub(super) domain: DomainId,
    pub(super) queue: QueueId,
    pub(super) shared: Option<SharedReceiveQueueId>,
    pub(super) capabilities: Capabilities,
}

impl Simulation {
    pub(super) fn make_pair(&mut self, plan: QueuePairParts) -> Result<PairId, Error> {
        let QueuePairParts { device, endpoint, domain, queue, shared, capabilities } = plan;
        if self.domains[&domain].device != device {
            return Err(Error::AnotherDevice("domain"));
        }
        if self.queues[&queue].device != device {
            return Err(Error::AnotherDevice("completion queue"));
        }
        if shared.is_some_and(|shared| self.shared[&shared].device != device) {
            return Err(Error::AnotherDevice("shared receive queue"));
        }
        if self.endpoints[&endpoint].pair.is_some() {
            return Err(Error::Misuse("the endpoint has a queue pair already"));
        }
        if !self.is_alive(device) {
            return Err(Error::CreateQueuePair(Errno::IO.into()));
        }
        if !fits(&capabilities) {
            return Err(Error::CreateQueuePair(Errno::INVAL.into()));
        }
        let offset = u32::try_from(self.next_id()).expect("fewer than 2^32 objects are ever made");
        let id = PairId(FIRST_NUMBER + offset);
        let pair = QueuePair {
            device,
            endpoint,
            domain,
            queue,
            shared,
            capabilities,
            state: QueuePairState::Prepared,
            peer: None,
            remote_host: None,
            policy: RetryPolicy::default(),
            flow: Flow::new(),
            receives: VecDeque::new(),
        };
        self.pairs.insert(id, pair);
        if let Some(endpoint) = self.endpoints.get_mut(&endpoint) {
            endpoint.pair = Some(id);
        }
        Ok(id)
    }

    /// Destroys a queue pair: nothing it held is touched any more.
    pub(super) fn destroy_pair(&mut self, id: PairId) {
        let Some(pair) = self.pairs.remove(&id) else { return };
        if let Some(endpoint) = self.endpoints.get_mut(&pair.endpoint) {
            endpoint.pair = None;
        }
        self.remove_endpoint_if_unused(pair.endpoint);
    }

    /// Moves a queue pair to the state in which it can send.
    pub(super) fn connect_pair(&mut self, id: PairId, peer: Option<PairId>, policy: RetryPolicy) {
        let remote_host = peer.and_then(|peer| Some(self.pairs.get(&peer)?.device.host));
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.policy = policy;
        (pair.peer, pair.remote_host) = (peer, remote_host);
        if pair.state == QueuePairState::Prepared {
            pair.state = QueuePairState::Ready;
        }
    }

    /// Fails a queue pair: everything outstanding is flushed.
    pub(super) fn fail_pair(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if pair.state == QueuePairState::Failed {
            return;
        }
        pair.state = QueuePairState::Failed;
        let sharing = pair.shared.map(|_| pair.device);
        let sends = std::mem::take(&mut pair.flow.sends);
        let receives = std::mem::take(&mut pair.receives);
        let sends = sends.iter().map(|pending| pending.request.token);
        let receives = receives.iter().map(|receive| receive.token);
        for token in sends.chain(receives) {
            self.complete(id, WorkCompletion::new(token, Status::FLUSHED));
        }
        if let Some(device) = sharing {
            let subject = Subject::QueuePair(id.0);
            self.report(device, DeviceEventKind::LAST_RECEIVE_REACHED, subject);
        }
    }

    /// All queue pairs of a host fail; of what is posted there is no completion.
    pub(super) fn fail_pairs_silently(&mut self, host: HostId) {
        let mut failed = Vec::new();
        for (&id, pair) in &mut self.pairs {
            if pair.device.host == host && pair.state != QueuePairState::Failed {
                pair.state = QueuePairState::Failed;
                pair.flow.sends.clear();
                pair.receives.clear();
                failed.push((id, pair.device));
            }
        }
        for (id, device) in failed {
            self.report(device, DeviceEventKind::QUEUE_PAIR_FATAL, Subject::QueuePair(id.0));
        }
    }

    /// Takes one send; says why not.
    pub(super) fn post_send(
        &mut self,
        id: PairId,
        request: &SendRequest,
        payloads: &Payloads,
    ) -> Result<(), Errno> {
        let pair = self.pairs.get(&id).ok_or(Errno::INVAL)?;
        if !self.is_alive(pair.device) {
            return Err(Errno::IO);
        }
        if pair.state == QueuePairState::Prepared || !is_valid(&pair.capabilities, request) {
            return Err(Errno::INVAL);
        }
        if pair.flow.sends.len() == pair.capabilities.send as usize {
            return Err(Errno::NOMEM);
        }
        let bytes = match request.payload {
            Payload::Inline { offset, length } => {
                payloads.bytes(offset, length).ok_or(Errno::INVAL)?.to_vec()
            }
            _ => Vec::new(),
        };
        let segments = payloads.segments(&request.payload).to_vec();
        if pair.state == QueuePairState::Failed {
            self.complete(id, WorkCompletion::new(request.token, Status::FLUSHED));
        } else {
            self.enqueue(id, PendingSend::new(*request, segments, bytes));
        }
        Ok(())
    }

    /// Takes one receive; says why not.
    pub(super) fn post_receive(
        &mut self,
        id: PairId,
        request: ReceiveRequest,
    ) -> Result<(), Errno> {
        let pair = self.pairs.get(&id).ok_or(Errno::INVAL)?;
        if !self.is_alive(pair.device) {
            return Err(Errno::IO);
        }
        if pair.shared.is_some() {
            return Err(Errno::INVAL);
        }
        if pair.receives.len() == pair.capabilities.receive as usize {
            return Err(Errno::NOMEM);
        }
        if pair.state == QueuePairState::Failed {
            self.complete(id, WorkCompletion::new(request.token, Status::FLUSHED));
        } else {
            self.pair(id).receives.push_back(request);
            self.resume_sender_of(id);
        }
        Ok(())
    }

    /// The receive that the next message takes, and the domain its memory must be of.
    pub(super) fn take_receive(&mut self, id: PairId) -> Option<(ReceiveRequest, DomainId)> {
        let pair = self.pairs.get_mut(&id)?;
        match pair.shared {
            None => pair.receives.pop_front().map(|receive| (receive, pair.domain)),
            Some(shared) => {
                let queue = self.shared.get_mut(&shared)?;
                queue.receives.pop_front().map(|receive| (receive, queue.domain))
            }
        }
    }

    pub(super) fn pair(&mut self, id: PairId) -> &mut QueuePair {
        self.pairs.get_mut(&id).expect("the caller has found this queue pair")
    }
}

impl PendingSend {
    fn new(request: SendRequest, segments: Vec<Segment>, bytes: Vec<u8>) -> Self {
        Self { request, segments, bytes, status: None, completed_locally: false }
    }

    pub(super) fn reads(&self) -> bool {
        matches!(self.request.operation, Operation::RdmaRead(_))
    }

    pub(super) fn failed(&self) -> bool {
        self.status.is_some_and(|status| !status.is_success())
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            sends: VecDeque::new(),
            first: 0,
            acknowledged: 0,
            executed: 0,
            arrived: 0,
            started: 0,
            last_arrival: Duration::ZERO,
            last_response: Duration::ZERO,
            stall: Stall::None,
            broken: false,
            stalls: 0,
        }
    }

    /// The request of a sequence number, if it has not completed.
    pub(super) fn pending(&mut self, sequence: u64) -> Option<&mut PendingSend> {
        let index = self.index(sequence)?;
        self.sends.get_mut(index)
    }

    /// Where in the queue a sequence number is.
    pub(super) fn index(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }

    /// How many reads are started and not answered.
    pub(super) fn open_reads(&self) -> usize {
        let open = self.sends.iter().zip(self.first..self.started);
        open.filter(|(one, sequence)| one.reads() && *sequence >= self.acknowledged).count()
    }
}

/// Whether a queue pair of this size can be made.
fn fits(capabilities: &Capabilities) -> bool {
    let Capabilities { send, receive, segments, inline } = *capabilities;
    send <= WORK_REQUESTS_MAX
        && receive <= WORK_REQUESTS_MAX
        && segments as usize <= SEGMENTS_MAX
        && inline <= INLINE_MAX
}

/// Whether a request is one that a device takes.
fn is_valid(capabilities: &Capabilities, request: &SendRequest) -> bool {
    match (&request.operation, &request.payload) {
        (Operation::BindWindow(_) | Operation::LocalInvalidate(_), payload) => {
            matches!(payload, Payload::Nothing)
        }
        (Operation::RdmaRead(_), Payload::Inline { .. } | Payload::Nothing) => false,
        (_, Payload::Inline { length, .. }) => *length <= capabilities.inline,
        (_, Payload::Nothing) => true,
        (_, Payload::Segments { count, .. }) => *count <= capabilities.segments,
    }
}

/// As on rxe, the first number a queue pair can have.
const FIRST_NUMBER: u32 = 0x11;
/// Outstanding work requests of one queue.
pub(super) const WORK_REQUESTS_MAX: u32 = 1 << 16;
/// Bytes of an inline send, as on rxe.
const INLINE_MAX: u32 = 512;
