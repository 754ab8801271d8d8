//! Provider that answers from a recording.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use verbs::{
    ConnectionParameters, DeviceEvent, DeviceEventKind, Error, EventSubject, Limits, PrivateData,
    Provider, RemoteKey, Status, VerbsApi,
    memory::{Agent, Mapping},
    provider::{
        Batch, CmEvent, CmEventKind, CmRequest, CompletionQueueInfo, Keys, PostError,
        QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        Registration, SendRequest, WorkCompletion,
    },
};

use super::{
    recording::{self, CmEventRecord, CompletionRecord, MemoryChange, PostedRequest, Record},
    signal::Signal,
};

/// Answers from the [recording](super::Trace::recording) of a run, so that behaviour seen on a
/// device can be examined without one.
///
/// Each endpoint, queue pair and domain gets the events and completions that the one with the same
/// number had in the recorded run, and memory gets what peers had written. Each is available once
/// the same calls have been made as in the recorded run, and all events and completions before it
/// have been taken or their object is gone: so that their order is the recorded one whatever the
/// threads of the program do. Nothing depends on time.
///
/// The program must make the same calls in the same order for each object;
/// [`divergence`](Self::divergence) returns the first different call. Calls beyond the end of the
/// recording get no events.
pub struct Replay {
    state: Arc<Mutex<ReplayState>>,
}

#[derive(Default)]
struct ReplayState {
    endpoints: Vec<RecordedCalls<CmEventRecord>>,
    pairs: Vec<ReplayPair>,
    domains: Vec<VecDeque<Report<DeviceEvent>>>,
    limits: Option<Limits>,
    registrations: VecDeque<(u32, u32)>,
    regions: Vec<Option<Arc<Mapping>>>,
    queues: VecDeque<(u32, u32)>,
    numbers: VecDeque<u32>,
    /// Number of objects created so far, by kind.
    made: ObjectCounts,
    /// Number of calls so far, and the signals of objects that may be waited for.
    calls_made: usize,
    signals: Vec<(Object, Arc<Signal>)>,
    divergence: Option<String>,
}

#[derive(Default)]
struct ObjectCounts {
    endpoints: usize,
    domains: usize,
    pairs: usize,
    queues: usize,
}

/// Recorded calls of an object, and its events or completions.
struct RecordedCalls<T> {
    calls: VecDeque<(String, Option<i32>)>,
    reports: VecDeque<Report<T>>,
}

/// Event or completion of the recorded run.
struct Report<T> {
    /// Position among the reports of all objects.
    position: usize,
    /// Number of calls that must precede it.
    calls: usize,
    report: T,
}

impl<T> Default for RecordedCalls<T> {
    fn default() -> Self {
        Self { calls: VecDeque::new(), reports: VecDeque::new() }
    }
}

#[derive(Default)]
struct ReplayPair {
    number: u32,
    /// Index of its completion queue in this run.
    queue: Option<usize>,
    recorded: RecordedCalls<CompletionRecord>,
    /// Number of posts that must precede each completion.
    needs: VecDeque<usize>,
    posted: usize,
    sends: Vec<u64>,
    receives: Vec<u64>,
}

/// Object of a replayed run, by its number.
#[derive(Clone, Copy)]
enum Object {
    Domain(usize),
    Endpoint(usize),
    Queue(usize),
    QueuePair(usize),
}

/// Numbers of calls and reports so far, while a recording is loaded.
#[derive(Default)]
struct LoadedCounts {
    calls: usize,
    reports: usize,
}

impl LoadedCounts {
    fn report<T>(&mut self, calls: usize, report: T) -> Report<T> {
        self.reports += 1;
        Report { position: self.reports, calls, report }
    }
}

impl Replay {
    /// Parses a recording.
    ///
    /// # Errors
    ///
    /// InvalidData, with the number of the invalid line.
    pub fn new(recording: &str) -> io::Result<Arc<Self>> {
        let mut state = ReplayState::default();
        let mut counts = LoadedCounts::default();
        for (index, line) in recording.lines().enumerate() {
            let entry = serde_json::from_str(line).map_err(|error| {
                let text = format!("line {} is not a line of a recording: {error}", index + 1);
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            state.load(entry, &mut counts);
        }
        Ok(Arc::new(Self { state: Arc::new(Mutex::new(state)) }))
    }

    /// Returns the first call that differs from the recorded run, if any.
    pub fn divergence(&self) -> Option<String> {
        self.state().divergence.clone()
    }

    fn state(&self) -> MutexGuard<'_, ReplayState> {
        lock(&self.state)
    }

    fn discard(&self, object: Object) -> Discard {
        Discard { object, state: Arc::clone(&self.state) }
    }

    /// Creates an endpoint; its events are discarded when it is destroyed.
    fn endpoint_in(&self, state: &mut ReplayState) -> Result<ReplayEndpoint, Error> {
        let number = state.made.endpoints;
        state.made.endpoints += 1;
        let object = Object::Endpoint(number);
        let signal = state.signal(object).map_err(Error::CreateEndpoint)?;
        Ok(ReplayEndpoint { number, signal, _discard: self.discard(object) })
    }

    /// Changes the state, and then raises the signals of objects with pending events.
    fn with<T>(&self, change: impl FnOnce(&mut ReplayState) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        state.wake();
        result
    }
}

impl ReplayState {
    fn load(&mut self, entry: Record, counts: &mut LoadedCounts) {
        match entry {
            Record::Request { endpoint, what, errno } => {
                counts.calls += 1;
                entry_of(&mut self.endpoints, endpoint).calls.push_back((what, errno));
            }
            Record::Event(event) => {
                let endpoint = entry_of(&mut self.endpoints, event.endpoint);
                endpoint.reports.push_back(counts.report(counts.calls, event));
            }
            Record::Limits { names, numbers, .. } => {
                self.limits.get_or_insert_with(|| recording::limits_in(&names, &numbers));
            }
            Record::Registered { local, remote } => self.registrations.push_back((local, remote)),
            Record::CompletionQueue { capacity, number } => {
                self.queues.push_back((capacity, number))
            }
            Record::QueuePair { number } => self.numbers.push_back(number),
            Record::Post { pair, what } => {
                counts.calls += 1;
                entry_of(&mut self.pairs, pair).recorded.calls.push_back((what, None));
            }
            Record::Refused { pair, untaken, errno } => {
                let calls = &mut entry_of(&mut self.pairs, pair).recorded.calls;
                let first = calls.len().saturating_sub(untaken);
                calls.truncate(first + 1); // those after it were not tried
                if let Some(first) = calls.get_mut(first) {
                    first.1 = Some(errno);
                }
            }
            Record::Completion(completion) => {
                let pair = entry_of(&mut self.pairs, completion.pair);
                // A success depends on the earlier posts of its queue pair only; a failure may
                // result from any earlier call.
                let failed = completion.status != Status::SUCCESS.0;
                let calls = if failed { counts.calls } else { 0 };
                pair.needs.push_back(pair.recorded.calls.len());
                pair.recorded.reports.push_back(counts.report(calls, completion));
            }
            Record::DeviceEvent { domain, kind, subject } => {
                let subject = match subject {
                    (1, number) => EventSubject::Port(number),
                    (2, number) => EventSubject::QueuePair(number),
                    (3, number) => EventSubject::CompletionQueue(number),
                    _ => EventSubject::Device,
                };
                let event = DeviceEvent { kind: DeviceEventKind(kind), subject };
                let report = counts.report(counts.calls, event);
                entry_of(&mut self.domains, domain).push_back(report);
            }
        }
    }

    /// Compares a call with the next recorded one, and returns the recorded errno.
    fn call(&mut self, next: Option<(String, Option<i32>)>, what: &str) -> Option<i32> {
        self.calls_made += 1;
        let (recorded, errno) = next?;
        if recorded != what {
            let text = format!("call {}: {what}, and not {recorded}", self.calls_made);
            self.divergence.get_or_insert(text);
        }
        errno
    }

    fn post(&mut self, pair: usize, post: &PostedRequest) -> Option<i32> {
        let next = self.pairs[pair].recorded.calls.pop_front();
        let errno = self.call(next, &post.what);
        let known = &mut self.pairs[pair];
        known.posted += 1;
        if errno.is_none() {
            let tokens = if post.receive { &mut known.receives } else { &mut known.sends };
            tokens.push(post.token);
        }
        errno
    }

    /// Returns the next completion of a queue, if it is due.
    fn completion(&mut self, queue: usize) -> Option<WorkCompletion> {
        let next = self.next();
        let pair = self.pairs.iter_mut().find(|pair| pair.ready(queue, next))?;
        pair.needs.pop_front();
        let Report { report: entry, .. } = pair.recorded.reports.pop_front()?;
        let tokens = if entry.receive { &pair.receives } else { &pair.sends };
        let token = tokens[entry.nth];
        let completion =
            WorkCompletion::new(token, Status(entry.status), pair.number, entry.length);
        entry.written.iter().for_each(|patch| self.apply(patch));
        Some(match entry.invalidated {
            Some(key) => completion.with_invalidated(RemoteKey(key)),
            None => completion,
        })
    }

    fn apply(&self, patch: &MemoryChange) {
        let region = self.regions.get(patch.registration).and_then(Option::as_ref);
        let bytes = patch.decode();
        let end = patch.offset.saturating_add(bytes.len());
        if let Some(region) = region.filter(|region| end <= region.len()) {
            region.device_write(patch.offset, &bytes);
        }
    }

    fn signal(&mut self, owner: Object) -> io::Result<Arc<Signal>> {
        let signal = Arc::new(Signal::new()?);
        self.signals.push((owner, signal.clone()));
        Ok(signal)
    }

    /// What a report must be to be due: the first of all that are left, with its calls made.
    fn next(&self) -> Next {
        let endpoints =
            self.endpoints.iter().filter_map(|one| one.reports.front()?.position.into());
        let pairs =
            self.pairs.iter().filter_map(|one| one.recorded.reports.front()?.position.into());
        let domains = self.domains.iter().filter_map(|one| one.front()?.position.into());
        let position = endpoints.chain(pairs).chain(domains).min();
        Next { position, calls_made: self.calls_made }
    }

    /// Discards the reports left for an object that is destroyed.
    fn discard(&mut self, object: Object) {
        match object {
            Object::Domain(index) => entry_of(&mut self.domains, index).clear(),
            Object::Endpoint(index) => entry_of(&mut self.endpoints, index).reports.clear(),
            Object::QueuePair(index) => {
                let pair = entry_of(&mut self.pairs, index);
                pair.recorded.reports.clear();
                pair.needs.clear();
            }
            Object::Queue(_) => {} // no queue pair outlives it
        }
    }

    fn wake(&self) {
        let next = self.next();
        for (owner, signal) in &self.signals {
            let ready = match *owner {
                Object::Domain(index) => next.is_first(self.domains.get(index)),
                Object::Endpoint(index) => {
                    next.is_first(self.endpoints.get(index).map(|one| &one.reports))
                }
                Object::Queue(index) => self.pairs.iter().any(|pair| pair.ready(index, next)),
                Object::QueuePair(_) => false, // its queue has a signal
            };
            if ready {
                signal.raise();
            } else {
                signal.clear();
            }
        }
    }
}

impl ReplayPair {
    /// Returns true if its next completion is due and belongs to this queue.
    fn ready(&self, queue: usize, next: Next) -> bool {
        let reports = &self.recorded.reports;
        let (Some(Report { report: entry, .. }), Some(posted)) =
            (reports.front(), self.needs.front())
        else {
            return false;
        };
        let tokens = if entry.receive { &self.receives } else { &self.sends };
        let there = self.posted >= *posted && tokens.len() > entry.nth;
        self.queue == Some(queue) && there && next.is_first(Some(reports))
    }
}

/// Position of the next report of all, and the number of calls made.
#[derive(Clone, Copy)]
struct Next {
    position: Option<usize>,
    calls_made: usize,
}

impl Next {
    /// Returns true if the first of these reports is due.
    fn is_first<T>(self, reports: Option<&VecDeque<Report<T>>>) -> bool {
        reports.and_then(VecDeque::front).is_some_and(|report| {
            Some(report.position) == self.position && report.calls <= self.calls_made
        })
    }
}

/// Returns the object with this number; creates it and those before it if necessary.
fn entry_of<T: Default>(all: &mut Vec<T>, index: usize) -> &mut T {
    while all.len() <= index {
        all.push(T::default());
    }
    &mut all[index]
}

/// Endpoint of a replayed run.
pub struct ReplayEndpoint {
    number: usize,
    signal: Arc<Signal>,
    _discard: Discard,
}

/// Protection domain of a replayed run.
pub struct ReplayDomain {
    number: usize,
    signal: Arc<Signal>,
    _discard: Discard,
}

/// Completion queue of a replayed run.
pub struct ReplayQueue {
    number: usize,
    signal: Arc<Signal>,
}

/// Queue pair of a replayed run.
pub struct ReplayQueuePair {
    number: usize,
    _discard: Discard,
}
/// Discards what the recording has left for an object when the object is destroyed.
struct Discard {
    object: Object,
    state: Arc<Mutex<ReplayState>>,
}

impl Drop for Discard {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.discard(self.object);
        state.wake();
    }
}

fn lock(state: &Mutex<ReplayState>) -> MutexGuard<'_, ReplayState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registered memory or window of a replayed run.
pub struct ReplayRegistration(());

impl Registration for ReplayRegistration {
    fn innermost(&self) -> &dyn Any {
        self
    }
}

macro_rules! readable {
    ($($name:ident)*) => {$(
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.signal.as_fd()
            }
        }
    )*};
}

readable!(ReplayEndpoint ReplayDomain ReplayQueue);

impl Provider for Replay {
    type Endpoint = ReplayEndpoint;
    type ProtectionDomain = ReplayDomain;
    type Registration = ReplayRegistration;
    type CompletionQueue = ReplayQueue;
    type QueuePair = ReplayQueuePair;

    fn agent(&self) -> Agent {
        Agent::Thread
    }

    fn endpoint(&self) -> Result<ReplayEndpoint, Error> {
        self.with(|state| self.endpoint_in(state))
    }

    fn request(&self, endpoint: &mut ReplayEndpoint, request: CmRequest<'_>) -> Result<(), Error> {
        let errno = self.with(|state| {
            let next = entry_of(&mut state.endpoints, endpoint.number).calls.pop_front();
            state.call(next, &recording::request(&request))
        });
        errno.map_or(Ok(()), |errno| Err(refusal(&request)(io::Error::from_raw_os_error(errno))))
    }

    fn cm_event(
        &self,
        endpoint: &mut ReplayEndpoint,
    ) -> Result<Option<CmEvent<ReplayEndpoint>>, Error> {
        self.with(|state| {
            let next = state.next();
            let reports = &mut entry_of(&mut state.endpoints, endpoint.number).reports;
            if !next.is_first(Some(reports)) {
                return Ok(None);
            }
            let Some(Report { report: event, .. }) = reports.pop_front() else { return Ok(None) };
            let incoming = event.incoming.then(|| self.endpoint_in(state)).transpose()?;
            let [responder_resources, initiator_depth, retry_count, rnr_retry_count] =
                event.parameters;
            Ok(Some(CmEvent {
                kind: CmEventKind(event.kind),
                status: event.status,
                private_data: PrivateData::new(&event.data),
                parameters: ConnectionParameters {
                    responder_resources,
                    initiator_depth,
                    retry_count,
                    rnr_retry_count,
                    queue_pair: 0, // not recorded
                },
                incoming,
            }))
        })
    }

    fn limits(&self, _: &ReplayEndpoint) -> Result<Limits, Error> {
        self.state().limits.clone().ok_or(Error::Misuse("the recorded run asked for no limits"))
    }

    fn domain(&self, _: &ReplayEndpoint) -> Result<ReplayDomain, Error> {
        self.with(|state| {
            let number = state.made.domains;
            state.made.domains += 1;
            let object = Object::Domain(number);
            let signal = state.signal(object).map_err(Error::CreateProtectionDomain)?;
            Ok(ReplayDomain { number, signal, _discard: self.discard(object) })
        })
    }

    fn device_event(&self, domain: &ReplayDomain) -> Result<Option<DeviceEvent>, Error> {
        self.with(|state| {
            let next = state.next();
            let reports = entry_of(&mut state.domains, domain.number);
            let due = next.is_first(Some(reports));
            Ok(if due { reports.pop_front().map(|first| first.report) } else { None })
        })
    }

    fn is_port_down(&self, _: &ReplayDomain) -> Option<bool> {
        None
    }

    fn register(
        &self,
        _: &ReplayDomain,
        request: RegisterRequest,
    ) -> Result<(ReplayRegistration, Keys), Error> {
        self.with(|state| {
            let memory = match request {
                RegisterRequest::Memory(memory) => Some(memory),
                RegisterRequest::DmaBuf(_) | RegisterRequest::Window => None,
            };
            state.regions.push(memory);
            let (local, remote) = state.registrations.pop_front().unwrap_or_default();
            Ok((ReplayRegistration(()), Keys { local, remote: RemoteKey(remote) }))
        })
    }

    fn completion_queue(
        &self,
        _: &ReplayEndpoint,
        capacity: u32,
    ) -> Result<(ReplayQueue, CompletionQueueInfo), Error> {
        self.with(|state| {
            let index = state.made.queues;
            state.made.queues += 1;
            let (capacity, number) = state.queues.pop_front().unwrap_or((capacity, 0));
            let refuse = |source| Error::CreateCompletionQueue { capacity, source };
            let signal = state.signal(Object::Queue(index)).map_err(refuse)?;
            let info = CompletionQueueInfo { capacity, number, api: VerbsApi::Legacy };
            Ok((ReplayQueue { number: index, signal }, info))
        })
    }

    fn queue_pair(
        &self,
        _: &mut ReplayEndpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(ReplayQueuePair, QueuePairInfo), Error> {
        self.with(|state| {
            let number = state.numbers.pop_front().unwrap_or_default();
            let index = state.made.pairs;
            state.made.pairs += 1;
            let pair = entry_of(&mut state.pairs, index);
            (pair.number, pair.queue) = (number, Some(request.queue.number));
            let info = QueuePairInfo { number, api: VerbsApi::Legacy };
            let _discard = self.discard(Object::QueuePair(index));
            Ok((ReplayQueuePair { number: index, _discard }, info))
        })
    }

    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        let (pair, posts): (_, Vec<_>) = match batch {
            Batch::Receives { queue_pair, requests } => {
                let post = |one: &ReceiveRequest| PostedRequest {
                    receive: true,
                    token: one.token,
                    what: recording::receive(one),
                };
                (queue_pair.number, requests.iter().map(post).collect())
            }
            Batch::Sends { queue_pair, requests, payloads, .. } => {
                let post = |one: &SendRequest| PostedRequest {
                    receive: false,
                    token: one.token,
                    what: recording::send(one, payloads),
                };
                (queue_pair.number, requests.iter().map(post).collect())
            }
        };
        self.with(|state| {
            for (accepted, post) in posts.iter().enumerate() {
                if let Some(errno) = state.post(pair, post) {
                    return Err(PostError {
                        accepted,
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
            }
            Ok(())
        })
    }

    fn completions(
        &self,
        queue: &mut ReplayQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        self.with(|state| match request {
            QueueRequest::Acknowledge | QueueRequest::Arm => Ok(0),
            QueueRequest::Poll(out) => {
                let mut count = 0;
                while count < out.len()
                    && let Some(completion) = state.completion(queue.number)
                {
                    out[count] = completion;
                    count += 1;
                }
                Ok(count)
            }
            QueueRequest::Resize(capacity) => Ok(capacity as usize),
        })
    }
}

/// Returns the error constructor for a refused request.
fn refusal(request: &CmRequest<'_>) -> fn(io::Error) -> Error {
    match request {
        CmRequest::Accept(_) => Error::Accept,
        CmRequest::BindListen { .. } => Error::Listen,
        CmRequest::Connect(_) => Error::Connect,
        CmRequest::Disconnect => Error::Disconnect,
        CmRequest::Reject(_) => Error::Reject,
        CmRequest::ResolveAddress { .. } => Error::ResolveAddress,
        CmRequest::ResolveRoute { .. } => Error::ResolveRoute,
        CmRequest::SetAckTimeout(_) => Error::SetAckTimeout,
        CmRequest::SetTypeOfService(_) => Error::SetTypeOfService,
    }
}
