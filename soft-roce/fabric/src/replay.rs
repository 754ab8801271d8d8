//! Provider that answers from a recording.

mod state;

use std::{
    any::Any,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use verbs::{
    ConnectionParameters, DeviceEvent, Error, Limits, PrivateData, Provider, RemoteKey, VerbsApi,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmEventKind, CmRequest, CompletionQueueInfo, Keys, PostError,
        QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        Registration, SendRequest,
    },
};

use self::state::{LoadedCounts, Object, ReplayState, Report, entry_of};
use super::{
    recording::{self, PostedRequest},
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
