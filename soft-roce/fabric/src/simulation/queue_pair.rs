//! Queue pairs: posting, connecting and failing.

use std::{collections::VecDeque, time::Duration};

use rustix::io::Errno;
use verbs::{
    DeviceEventKind, Error, EventSubject, QueuePairCapabilities, SGE_MAX, Status,
    provider::{Operation, Payload, Payloads, ReceiveRequest, SendRequest, Sge},
};

use crate::simulation::{
    DeviceId, DomainId, EndpointId, HostId, PairId, QueueId, Simulation,
    completion_queue::RequestOutcome,
};

/// State of a queue pair.
///
/// ```text
///   Prepared -- connected --> Ready -- a failure, or disconnected --> Failed
///      '--------------------------- disconnected -------------------------^
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum QueuePairState {
    /// Error state: everything outstanding has been flushed, and new work requests are flushed.
    Failed,
    /// Initialized: receives can be posted.
    Prepared,
    /// Ready to send and receive.
    Ready,
}

pub(crate) struct QueuePair {
    pub(crate) device: DeviceId,
    pub(crate) endpoint: EndpointId,
    pub(crate) domain: DomainId,
    pub(crate) queue: QueueId,
    pub(crate) capabilities: QueuePairCapabilities,
    pub(crate) state: QueuePairState,
    pub(crate) peer: Option<PairId>,
    /// Host of the peer.
    pub(crate) remote_host: Option<HostId>,
    pub(crate) policy: RetryPolicy,
    pub(crate) flow: Flow,
    receives: VecDeque<ReceiveRequest>,
}

/// Retry counts, timeout and maximum of outstanding reads of a queue pair.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetryPolicy {
    /// ACK timeout.
    pub(crate) timeout: Duration,
    /// Retry count.
    pub(crate) retries: u32,
    /// RNR retry count; `None` for unlimited.
    pub(crate) rnr_retries: Option<u32>,
    /// Maximum number of outstanding reads.
    pub(crate) reads: usize,
}

/// Flow of requests from a queue pair to its peer. Sequence numbers count requests.
///
/// ```text
///      first        acknowledged    executed     arrived        started    first + sends
///        |  answered     |  answer      |  waiting  |   on the     |   waiting   |
///        |  here         |  on its way  |  there    |   way there  |   here      |
/// ```
pub(crate) struct Flow {
    /// Posted sends that have not completed.
    pub(crate) sends: VecDeque<PendingSend>,
    pub(crate) first: u64,
    pub(crate) acknowledged: u64,
    pub(crate) executed: u64,
    pub(crate) arrived: u64,
    pub(crate) started: u64,
    /// Arrival times of the latest request and the latest response; they do not overtake each
    /// other.
    pub(crate) last_arrival: Duration,
    pub(crate) last_response: Duration,
    pub(crate) stall: Stall,
    /// A request failed locally: it completes with an error after those before it, and none after
    /// it starts.
    pub(crate) broken: bool,
    /// Number of stalls, by which timers of earlier stalls are recognized.
    pub(crate) stalls: u64,
}

/// Reason for a stall of the flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stall {
    /// Not stalled.
    None,
    /// Receiver not ready, since this time.
    NotReady(Duration),
    /// No response, since this time.
    NoResponse(Duration),
}

/// Send request that has not completed.
pub(crate) struct PendingSend {
    pub(crate) request: SendRequest,
    /// Segments of its payload.
    pub(crate) sg_list: Vec<Sge>,
    /// Inline or gathered bytes.
    pub(crate) bytes: Vec<u8>,
    /// Completion status, once known locally or at the peer.
    pub(crate) status: Option<Status>,
    /// True if it was completed without being sent.
    pub(crate) completed_locally: bool,
}

/// Objects and sizes of a new queue pair.
pub(crate) struct QueuePairParts {
    pub(crate) device: DeviceId,
    pub(crate) endpoint: EndpointId,
    pub(crate) domain: DomainId,
    pub(crate) queue: QueueId,
    pub(crate) capabilities: QueuePairCapabilities,
}

impl Simulation {
    pub(crate) fn make_pair(&mut self, parts: QueuePairParts) -> Result<PairId, Error> {
        let QueuePairParts { device, endpoint, domain, queue, capabilities } = parts;
        if self.domains[&domain].device != device {
            return Err(Error::AnotherDevice("domain"));
        }
        if self.queues[&queue].device != device {
            return Err(Error::AnotherDevice("completion queue"));
        }
        if self.endpoints[&endpoint].pair.is_some() {
            return Err(Error::Misuse("the endpoint has a queue pair already"));
        }
        let refused = |errno: Errno| {
            Err(Error::CreateQueuePair { requested: capabilities, source: errno.into() })
        };
        if !self.is_alive(device) {
            return refused(Errno::IO);
        }
        if !fits(&capabilities) {
            return refused(Errno::INVAL);
        }
        let offset = u32::try_from(self.next_id()).expect("fewer than 2^32 objects are ever made");
        let id = PairId(FIRST_NUMBER + offset);
        let pair = QueuePair {
            device,
            endpoint,
            domain,
            queue,
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

    /// Destroys a queue pair: its memory is not accessed any more.
    pub(crate) fn destroy_pair(&mut self, id: PairId) {
        let Some(pair) = self.pairs.remove(&id) else { return };
        if let Some(endpoint) = self.endpoints.get_mut(&pair.endpoint) {
            endpoint.pair = None;
        }
        self.remove_endpoint_if_unused(pair.endpoint);
    }

    /// Moves a queue pair to ready to send.
    pub(crate) fn connect_pair(&mut self, id: PairId, peer: Option<PairId>, policy: RetryPolicy) {
        let remote_host = peer.and_then(|peer| Some(self.pairs.get(&peer)?.device.host));
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.policy = policy;
        (pair.peer, pair.remote_host) = (peer, remote_host);
        if pair.state == QueuePairState::Prepared {
            pair.state = QueuePairState::Ready;
        }
    }

    /// Moves a queue pair to the error state: everything outstanding is flushed.
    pub(crate) fn fail_pair(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if pair.state == QueuePairState::Failed {
            return;
        }
        pair.state = QueuePairState::Failed;
        let sends = std::mem::take(&mut pair.flow.sends);
        let receives = std::mem::take(&mut pair.receives);
        let sends = sends.iter().map(|pending| pending.request.token);
        let receives = receives.iter().map(|receive| receive.token);
        for token in sends.chain(receives) {
            self.complete(id, RequestOutcome::new(token, Status::FLUSHED));
        }
    }

    /// Fails all queue pairs of a host, without completing what is posted.
    pub(crate) fn fail_pairs_silently(&mut self, host: HostId) {
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
            self.report(device, DeviceEventKind::QUEUE_PAIR_FATAL, EventSubject::QueuePair(id.0));
        }
    }

    /// Posts one send.
    pub(crate) fn post_send(
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
        if pair.flow.sends.len() == pair.capabilities.max_send_wr as usize {
            return Err(Errno::NOMEM);
        }
        let bytes = match request.payload {
            Payload::Inline { offset, length } => {
                payloads.bytes(offset, length).ok_or(Errno::INVAL)?.to_vec()
            }
            _ => Vec::new(),
        };
        let sg_list = payloads.sg_list(&request.payload).to_vec();
        if pair.state == QueuePairState::Failed {
            self.complete(id, RequestOutcome::new(request.token, Status::FLUSHED));
        } else {
            self.enqueue(id, PendingSend::new(*request, sg_list, bytes));
        }
        Ok(())
    }

    /// Posts one receive.
    pub(crate) fn post_receive(
        &mut self,
        id: PairId,
        request: ReceiveRequest,
    ) -> Result<(), Errno> {
        let pair = self.pairs.get(&id).ok_or(Errno::INVAL)?;
        if !self.is_alive(pair.device) {
            return Err(Errno::IO);
        }
        if pair.receives.len() == pair.capabilities.max_recv_wr as usize {
            return Err(Errno::NOMEM);
        }
        if pair.state == QueuePairState::Failed {
            self.complete(id, RequestOutcome::new(request.token, Status::FLUSHED));
        } else {
            self.pair(id).receives.push_back(request);
            self.resume_sender_of(id);
        }
        Ok(())
    }

    /// Takes the receive for the next message, with the domain that its memory must belong to.
    pub(crate) fn take_receive(&mut self, id: PairId) -> Option<(ReceiveRequest, DomainId)> {
        let pair = self.pairs.get_mut(&id)?;
        pair.receives.pop_front().map(|receive| (receive, pair.domain))
    }

    pub(crate) fn pair(&mut self, id: PairId) -> &mut QueuePair {
        self.pairs.get_mut(&id).expect("the caller has found this queue pair")
    }
}

impl PendingSend {
    fn new(request: SendRequest, sg_list: Vec<Sge>, bytes: Vec<u8>) -> Self {
        Self { request, sg_list, bytes, status: None, completed_locally: false }
    }

    pub(crate) fn reads(&self) -> bool {
        matches!(self.request.operation, Operation::RdmaRead(_))
    }

    pub(crate) fn failed(&self) -> bool {
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

    /// Returns the request of a sequence number, if it has not completed.
    pub(crate) fn pending(&mut self, sequence: u64) -> Option<&mut PendingSend> {
        let index = self.index(sequence)?;
        self.sends.get_mut(index)
    }

    /// Index of a sequence number in the queue.
    pub(crate) fn index(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }

    /// Number of reads started and without a response.
    pub(crate) fn open_reads(&self) -> usize {
        let open = self.sends.iter().zip(self.first..self.started);
        open.filter(|(one, sequence)| one.reads() && *sequence >= self.acknowledged).count()
    }
}

/// Returns true if a queue pair of this size can be created.
fn fits(capabilities: &QueuePairCapabilities) -> bool {
    capabilities.max_send_wr <= WORK_REQUESTS_MAX
        && capabilities.max_recv_wr <= WORK_REQUESTS_MAX
        && capabilities.max_send_sge as usize <= SGE_MAX
        && capabilities.max_inline_data <= INLINE_MAX
}

/// Returns true if a device accepts this request.
fn is_valid(capabilities: &QueuePairCapabilities, request: &SendRequest) -> bool {
    match (&request.operation, &request.payload) {
        (Operation::BindWindow(_) | Operation::LocalInvalidate(_), payload) => {
            matches!(payload, Payload::Nothing)
        }
        (Operation::RdmaRead(_), Payload::Inline { .. } | Payload::Nothing) => false,
        (_, Payload::Inline { length, .. }) => *length <= capabilities.max_inline_data,
        (_, Payload::Nothing) => true,
        (_, Payload::SgList { count, .. }) => *count <= capabilities.max_send_sge,
    }
}

/// First queue pair number, as on rxe.
const FIRST_NUMBER: u32 = 0x11;
/// Maximum number of outstanding work requests of one queue.
pub(crate) const WORK_REQUESTS_MAX: u32 = 1 << 16;
/// Maximum bytes of an inline send, as on rxe.
const INLINE_MAX: u32 = 512;
