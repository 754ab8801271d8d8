//! Provider that records the calls of another provider and their results.

use std::{
    any::Any,
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use verbs::{
    Access, DeviceEvent, Error, EventSubject, Limits, Provider,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmRequest, CompletionQueueInfo, Keys, Operation, Payload, Payloads,
        PostError, QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        Registration, SendRequest, WorkCompletion,
    },
};

use super::recording::{self, CmEventRecord, PostedRequest, Record, Recording};

/// Wraps a provider and writes one line per call and event to a [`Trace`].
///
/// The trace also has a [recording](Trace::recording), from which [`Replay`](super::Replay) answers
/// as the recorded provider did. For that it compares registered memory at each completion; so all
/// memory access is atomic, byte by byte, and slow.
///
/// Objects are numbered in the order of creation; addresses and tokens, which differ from run to
/// run, are left out. So two runs over a [`Fabric`](super::Fabric) with the same seed and the same
/// calls have equal traces, and a run can be compared with a stored one.
pub struct Recorder<P> {
    inner: Arc<P>,
    trace: Trace,
}

impl<P: Provider> Recorder<P> {
    /// Wraps a provider.
    pub fn new(inner: Arc<P>, trace: &Trace) -> Arc<Self> {
        Arc::new(Self { inner, trace: trace.clone() })
    }

    fn endpoint_of(&self, inner: P::Endpoint) -> RecorderEndpoint<P> {
        let index = self.trace.recording_mut(Recording::endpoint);
        RecorderEndpoint { inner, number: self.trace.number(), index }
    }
}

impl<P: fmt::Debug> fmt::Debug for Recorder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.inner).finish()
    }
}

/// Trace of the calls. Clones refer to the same trace.
#[derive(Clone, Default)]
pub struct Trace {
    inner: Arc<TraceInner>,
}

#[derive(Default)]
struct TraceInner {
    lines: Mutex<Vec<String>>,
    recording: Mutex<Recording>,
    last_number: AtomicU64,
    clock: Option<Box<dyn Fn() -> Duration + Send + Sync>>,
}

impl Trace {
    /// Creates a trace whose lines begin with a time, such as [`Fabric::now`](super::Fabric::now).
    pub fn timed(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let inner = TraceInner { clock: Some(Box::new(clock)), ..TraceInner::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Returns all lines so far.
    pub fn text(&self) -> String {
        let lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Returns the recording so far, for a [`Replay`](super::Replay): one JSON value per line.
    pub fn recording(&self) -> String {
        self.recording_mut(|recording| recording.text())
    }

    fn recording_mut<T>(&self, change: impl FnOnce(&mut Recording) -> T) -> T {
        change(&mut self.inner.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, line: impl fmt::Display) {
        let line = match &self.inner.clock {
            Some(clock) => format!("{:>12} {line}", clock().as_nanos()),
            None => line.to_string(),
        };
        self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn number(&self) -> u64 {
        self.inner.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

macro_rules! recorded {
    ($($(#[$doc:meta])* $name:ident of $inner:ident $(with $index:ident)?;)*) => {$(
        $(#[$doc])*
        pub struct $name<P: Provider> {
            inner: P::$inner,
            number: u64,
            $(/// Number in the recording.
            $index: usize,)?
        }
    )*};
}

recorded! {
    /// Recorded endpoint.
    RecorderEndpoint of Endpoint with index;
    /// Recorded protection domain.
    RecorderDomain of ProtectionDomain with index;
    /// Recorded completion queue.
    RecorderQueue of CompletionQueue;
    /// Recorded queue pair.
    RecorderQueuePair of QueuePair with index;
}

/// Recorded memory or window.
pub struct RecorderRegistration<P: Provider> {
    inner: P::Registration,
}

impl<P: Provider> Registration for RecorderRegistration<P> {
    fn innermost(&self) -> &dyn Any {
        self.inner.innermost()
    }
}

impl<P: Provider> AsFd for RecorderEndpoint<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<P: Provider> AsFd for RecorderDomain<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<P: Provider> AsFd for RecorderQueue<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<P: Provider> Provider for Recorder<P> {
    type Endpoint = RecorderEndpoint<P>;
    type ProtectionDomain = RecorderDomain<P>;
    type Registration = RecorderRegistration<P>;
    type CompletionQueue = RecorderQueue<P>;
    type QueuePair = RecorderQueuePair<P>;

    // The recorder itself reads the memory.
    fn agent(&self) -> Agent {
        Agent::Thread
    }

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        let made = self.inner.endpoint().map(|inner| self.endpoint_of(inner));
        let outcome = Outcome(made.as_ref().map(|endpoint| endpoint.number));
        self.trace.write(format_args!("endpoint: {outcome}"));
        made
    }

    fn request(&self, endpoint: &mut Self::Endpoint, request: CmRequest<'_>) -> Result<(), Error> {
        let done = self.inner.request(&mut endpoint.inner, request);
        let errno = done.as_ref().err().map(errno);
        let (index, what) = (endpoint.index, recording::request(&request));
        self.trace.recording_mut(|recording| {
            recording.write(Record::Request { endpoint: index, what, errno })
        });
        let outcome = Outcome(done.as_ref().map(|()| "ok"));
        self.trace.write(format_args!("endpoint {}: {request:?}: {outcome}", endpoint.number));
        done
    }

    fn cm_event(
        &self,
        endpoint: &mut Self::Endpoint,
    ) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        let Some(event) = self.inner.cm_event(&mut endpoint.inner)? else { return Ok(None) };
        let CmEvent { kind, status, private_data, parameters, incoming } = event;
        self.trace.recording_mut(|recording| {
            recording.write(Record::Event(CmEventRecord {
                endpoint: endpoint.index,
                kind: kind.0,
                status,
                data: private_data.to_vec(),
                parameters: [
                    parameters.responder_resources,
                    parameters.initiator_depth,
                    parameters.retry_count,
                    parameters.rnr_retry_count,
                ],
                incoming: incoming.is_some(),
            }));
        });
        let incoming = incoming.map(|inner| self.endpoint_of(inner));
        let made = incoming.as_ref().map(|endpoint| endpoint.number);
        self.trace.write(format_args!(
            "endpoint {}: event {}, status {status}, {private_data:?}, {parameters:?}, {made:?}",
            endpoint.number, kind.0,
        ));
        Ok(Some(CmEvent { kind, status, private_data, parameters, incoming }))
    }

    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error> {
        let limits = self.inner.limits(&endpoint.inner)?;
        let (endpoint, (names, numbers)) = (endpoint.index, recording::limits_out(&limits));
        self.trace.recording_mut(|recording| {
            recording.write(Record::Limits { endpoint, names, numbers })
        });
        Ok(limits)
    }

    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        let number = self.trace.number();
        let made = self.inner.domain(&endpoint.inner);
        let outcome = Outcome(made.as_ref().map(|_| number));
        self.trace.write(format_args!("domain of endpoint {}: {outcome}", endpoint.number));
        made.map(|inner| {
            let index = self.trace.recording_mut(Recording::domain);
            RecorderDomain { inner, number, index }
        })
    }

    fn device_event(&self, domain: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        let event = self.inner.device_event(&domain.inner)?;
        if let Some(event) = &event {
            self.trace.write(format_args!("domain {}: {event:?}", domain.number));
            let subject = match event.subject {
                EventSubject::Port(number) => (1, number),
                EventSubject::QueuePair(number) => (2, number),
                EventSubject::CompletionQueue(number) => (3, number),
                EventSubject::Device => (0, 0),
            };
            let (domain, kind) = (domain.index, event.kind.0);
            self.trace.recording_mut(|recording| {
                recording.write(Record::DeviceEvent { domain, kind, subject })
            });
        }
        Ok(event)
    }

    fn is_port_down(&self, domain: &Self::ProtectionDomain) -> Option<bool> {
        self.inner.is_port_down(&domain.inner)
    }

    fn register(
        &self,
        domain: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        let what = match &request {
            RegisterRequest::Memory(memory) => {
                format!("{} bytes, {:?}", memory.len(), memory.access())
            }
            RegisterRequest::DmaBuf(dma_buf) => {
                format!("dma-buf of {} bytes, {:?}", dma_buf.length, dma_buf.access)
            }
            RegisterRequest::Window => "window".to_owned(),
        };
        // Memory that no device may write changes by its owner's hand alone, in a replay too.
        let memory = match &request {
            RegisterRequest::Memory(memory) if memory.access().contains(Access::LOCAL_WRITE) => {
                Some(memory.clone())
            }
            _ => None,
        };
        let made = self.inner.register(&domain.inner, request);
        if let Ok((_, keys)) = &made {
            let (local, remote) = (keys.local, keys.remote.0);
            self.trace.recording_mut(|recording| {
                recording.region(memory.as_ref());
                recording.write(Record::Registered { local, remote });
            });
        }
        let outcome = Outcome(made.as_ref().map(|(_, keys)| format!("{keys:x?}")));
        self.trace.write(format_args!("domain {}: {what}: {outcome}", domain.number));
        made.map(|(inner, keys)| (RecorderRegistration { inner }, keys))
    }

    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        let number = self.trace.number();
        let made = self.inner.completion_queue(&endpoint.inner, capacity);
        let outcome =
            Outcome(made.as_ref().map(|(_, info)| format!("{number} of {}", info.capacity)));
        self.trace.write(format_args!("completion queue of {capacity}: {outcome}"));
        let (inner, info) = made?;
        self.trace.recording_mut(|recording| {
            recording
                .write(Record::CompletionQueue { capacity: info.capacity, number: info.number })
        });
        Ok((RecorderQueue { inner, number }, info))
    }

    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        let QueuePairRequest { domain, queue, capabilities } = request;
        let number = self.trace.number();
        let request = QueuePairRequest { domain: &domain.inner, queue: &queue.inner, capabilities };
        let made = self.inner.queue_pair(&mut endpoint.inner, request);
        let outcome =
            Outcome(made.as_ref().map(|(_, info)| format!("{number}, number {}", info.number)));
        self.trace.write(format_args!(
            "queue pair of endpoint {}, domain {}, queue {}, {capabilities:?}: {outcome}",
            endpoint.number, domain.number, queue.number,
        ));
        let (inner, info) = made?;
        let index = self.trace.recording_mut(|recording| recording.pair(info.number));
        Ok((RecorderQueuePair { inner, number, index }, info))
    }

    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        let what = describe(&batch);
        let (pair, posts) = posts(&batch);
        // Recorded before the device can complete any of it.
        self.trace.recording_mut(|recording| {
            posts.iter().for_each(|post| recording.post(pair, post));
        });
        let done = self.inner.post(match batch {
            Batch::Receives { queue_pair, requests } => {
                Batch::Receives { queue_pair: &mut queue_pair.inner, requests }
            }
            Batch::Sends { queue_pair, requests, payloads, windows } => {
                Batch::Sends { queue_pair: &mut queue_pair.inner, requests, payloads, windows }
            }
        });
        match &done {
            Ok(()) => self.trace.write(what),
            Err(error) => self
                .trace
                .write(format_args!("{what}: {} taken, then {}", error.accepted, error.source)),
        }
        if let Err(error) = &done {
            let errno = error.source.raw_os_error().unwrap_or_default();
            let untaken = posts.get(error.accepted..).unwrap_or_default();
            self.trace.recording_mut(|recording| recording.refuse(pair, untaken, errno));
        }
        done
    }

    fn completions(
        &self,
        queue: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        let number = queue.number;
        let (what, done) = match request {
            QueueRequest::Poll(out) => {
                let done = self.inner.completions(&mut queue.inner, QueueRequest::Poll(&mut *out));
                let count = *done.as_ref().unwrap_or(&0);
                out[..count].iter().for_each(|one| self.trace.write(PolledCompletion(number, one)));
                self.trace.recording_mut(|recording| {
                    out[..count].iter().for_each(|one| recording.complete(one))
                });
                if matches!(done, Ok(0)) {
                    return done; // empty polls are not recorded
                }
                ("poll".to_owned(), done)
            }
            other => (format!("{other:?}"), self.inner.completions(&mut queue.inner, other)),
        };
        let outcome = Outcome(done.as_ref());
        self.trace.write(format_args!("queue {number}: {what}: {outcome}"));
        done
    }
}

fn describe<P: Provider>(batch: &Batch<'_, Recorder<P>>) -> String {
    match batch {
        Batch::Receives { queue_pair, requests } => {
            format!("queue pair {}: {}", queue_pair.number, receives(requests))
        }
        Batch::Sends { queue_pair, requests, payloads, .. } => {
            let sends: Vec<_> = requests.iter().map(|request| send(request, payloads)).collect();
            format!("queue pair {}: {}", queue_pair.number, sends.join("; "))
        }
    }
}

/// Returns the queue pair of a batch and its requests, as recorded.
fn posts<P: Provider>(batch: &Batch<'_, Recorder<P>>) -> (usize, Vec<PostedRequest>) {
    match batch {
        Batch::Receives { queue_pair, requests } => {
            let post = |one: &ReceiveRequest| PostedRequest {
                receive: true,
                token: one.token,
                what: recording::receive(one),
            };
            (queue_pair.index, requests.iter().map(post).collect())
        }
        Batch::Sends { queue_pair, requests, payloads, .. } => {
            let post = |one: &SendRequest| PostedRequest {
                receive: false,
                token: one.token,
                what: recording::send(one, payloads),
            };
            (queue_pair.index, requests.iter().map(post).collect())
        }
    }
}

/// Returns the errno of a failed request.
fn errno(error: &Error) -> i32 {
    let source = std::error::Error::source(error);
    let number = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    number.and_then(std::io::Error::raw_os_error).unwrap_or_default()
}

fn receives(requests: &[ReceiveRequest]) -> String {
    let lengths: Vec<_> = requests.iter().map(|request| request.sge.length).collect();
    format!("receive {lengths:?}")
}

fn send(request: &SendRequest, payloads: &Payloads) -> String {
    let operation = match request.operation {
        Operation::BindWindow(bind) => format!("bind {:x?}, {} bytes", bind.key, bind.length),
        Operation::LocalInvalidate(key) => format!("invalidate {key:x?}"),
        Operation::RdmaRead(remote) => format!("read {:x?}", remote.key),
        Operation::RdmaWrite(remote) => format!("write {:x?}", remote.key),
        Operation::Send => "send".to_owned(),
        Operation::SendWithInvalidate(key) => format!("send and invalidate {key:x?}"),
    };
    let payload = match &request.payload {
        Payload::Inline { offset, length } => {
            format!("{:02x?}", payloads.bytes(*offset, *length).unwrap_or_default())
        }
        Payload::Nothing => "nothing".to_owned(),
        payload @ Payload::SgList { .. } => {
            let segments = payloads.sg_list(payload);
            let lengths: Vec<_> = segments.iter().map(|sge| sge.length).collect();
            format!("segments {lengths:?}")
        }
    };
    let signaled = if request.signaled { "!" } else { "" };
    format!("{operation} {payload}{signaled}")
}

/// Formats an outcome on one line.
struct Outcome<T, E>(Result<T, E>);

impl<T: fmt::Display, E: fmt::Display> fmt::Display for Outcome<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(value) => write!(f, "{value}"),
            Err(error) => write!(f, "refused: {error}"),
        }
    }
}

/// Formats a polled completion.
struct PolledCompletion<'a>(u64, &'a WorkCompletion);

impl fmt::Display for PolledCompletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, completion) = self;
        let kind = if completion.is_receive() { "receive" } else { "send" };
        write!(
            f,
            "queue {number}: {kind} of number {}: {:?}, {} bytes, {:x?}",
            completion.queue_pair(),
            completion.status(),
            completion.length(),
            completion.invalidated(),
        )
    }
}
