//! The wrapped provider.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, Weak},
};

use verbs::{
    DeviceEvent, Error, Limits, Provider,
    memory::{Agent, Mapping},
    provider::{
        Batch, CmEvent, CmEventKind, CmRequest, CompletionQueueInfo, Keys, Operation, Payloads,
        PostError, QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        Registration, SendRequest, Sge, WorkCompletion,
    },
};

use crate::{
    capture_file::CaptureFile,
    cm_message::{self, Ids},
    frame::{Message, Route},
    lock,
};

/// Port of the connection manager's IP service where the source port is not known.
const SOURCE_PORT: u16 = 0;

/// Provider that executes all calls on another one and writes the traffic to a [`CaptureFile`], if
/// it has one.
pub struct Capture<P> {
    inner: Arc<P>,
    recorder: Option<Recorder>,
}

/// Writer of the frames that calls and completions imply.
struct Recorder {
    file: CaptureFile,
    registry: Arc<Mutex<Registry>>,
}

/// Objects that names in work requests and completions refer to.
#[derive(Default)]
struct Registry {
    /// Registered memory by its local key.
    memory: HashMap<u32, Arc<Mapping>>,
    /// Connections by the number of their queue pair.
    connections: HashMap<u32, Weak<Mutex<Connection>>>,
    /// Posted receives by the number of their queue pair and their token.
    receives: HashMap<(u32, u64), Sge>,
}

/// An active side.
struct Connection {
    ids: Ids,
    destination: Option<SocketAddr>,
    source: Option<SocketAddr>,
    queue_pair: u32,
    peer_queue_pair: u32,
    /// Messages so far, from here and from the peer.
    sent: u32,
    received: u32,
    is_disconnecting: bool,
}

impl Registry {
    /// Bytes of registered memory; `None` when they are not known here.
    fn read(&self, segment: &Sge, length: usize) -> Option<Vec<u8>> {
        let mapping = self.memory.get(&segment.local_key)?;
        let offset = usize::try_from(segment.address.checked_sub(mapping.address())?).ok()?;
        let end = offset.checked_add(length)?;
        (length <= segment.length as usize && end <= mapping.len()).then(|| {
            let mut bytes = vec![0; length];
            mapping.device_read(offset, &mut bytes);
            bytes
        })
    }

    fn payload(&self, request: &SendRequest, payloads: &Payloads) -> Option<Vec<u8>> {
        if let Some(bytes) = payloads.of_inline(&request.payload) {
            return Some(bytes.to_vec());
        }
        let segments = payloads.sg_list(&request.payload).iter();
        let parts: Option<Vec<_>> =
            segments.map(|segment| self.read(segment, segment.length as usize)).collect();
        Some(parts?.concat())
    }

    fn connection(&self, queue_pair: u32) -> Option<Arc<Mutex<Connection>>> {
        self.connections.get(&queue_pair)?.upgrade()
    }
}

impl Connection {
    fn route(&self) -> Option<Route> {
        Some(Route { source: self.source?, destination: self.destination? })
    }

    fn reversed_route(&self) -> Option<Route> {
        self.route().map(Route::reversed)
    }
}

/// Local address of packets to that address, by the routing table; unspecified where it has none.
fn local_address(destination: SocketAddr) -> SocketAddr {
    let unspecified: SocketAddr = match destination {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, SOURCE_PORT).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, SOURCE_PORT).into(),
    };
    let found = UdpSocket::bind(unspecified).and_then(|socket| {
        socket.connect(destination)?;
        socket.local_addr()
    });
    let mut address = found.unwrap_or(unspecified);
    address.set_port(SOURCE_PORT);
    address
}

impl<P: Provider> Capture<P> {
    /// Wraps a provider; what passes goes to the file.
    pub fn new(inner: Arc<P>, file: &CaptureFile) -> Arc<Self> {
        let recorder = Recorder { file: file.clone(), registry: Arc::default() };
        Arc::new(Self { inner, recorder: Some(recorder) })
    }

    /// Wraps a provider and captures nothing: for programs that compile one code for both.
    pub fn disabled(inner: Arc<P>) -> Arc<Self> {
        Arc::new(Self { inner, recorder: None })
    }

    fn endpoint_of(&self, inner: P::Endpoint) -> CaptureEndpoint<P> {
        let connection = self.recorder.as_ref().map(Recorder::connection);
        CaptureEndpoint { inner, connection }
    }
}

impl Recorder {
    /// State of a new endpoint's connection.
    fn connection(&self) -> Arc<Mutex<Connection>> {
        let id = self.file.next_id();
        Arc::new(Mutex::new(Connection {
            ids: Ids { active: id, passive: !id },
            destination: None,
            source: None,
            queue_pair: 0,
            peer_queue_pair: 0,
            sent: 0,
            received: 0,
            is_disconnecting: false,
        }))
    }

    /// Notes memory that messages are read from.
    fn registered(&self, memory: Arc<Mapping>, key: u32) -> RecordedMemory {
        lock(&self.registry).memory.insert(key, memory);
        RecordedMemory { key, registry: Arc::clone(&self.registry) }
    }

    /// Notes the queue pair of a connection.
    fn bound(&self, connection: &Arc<Mutex<Connection>>, number: u32) -> RecordedQueuePair {
        lock(connection).queue_pair = number;
        let registry = Arc::clone(&self.registry);
        lock(&registry).connections.insert(number, Arc::downgrade(connection));
        RecordedQueuePair { number, registry, _connection: Arc::clone(connection) }
    }

    fn write_receives(&self, queue_pair: u32, requests: &[ReceiveRequest]) {
        let receives = requests.iter().map(|one| ((queue_pair, one.token), one.sge));
        lock(&self.registry).receives.extend(receives);
    }

    fn write_request(&self, connection: &mut Connection, request: &CmRequest<'_>) {
        let ids = connection.ids;
        match request {
            CmRequest::ResolveAddress { source, destination, .. } => {
                connection.destination = Some(*destination);
                connection.source = Some(source.unwrap_or_else(|| local_address(*destination)));
            }
            CmRequest::Connect(parameters) => {
                let Some(route) = connection.route() else { return };
                let request = cm_message::Request {
                    queue_pair: connection.queue_pair,
                    responder_resources: parameters.responder_resources,
                    initiator_depth: parameters.initiator_depth,
                    retry_count: parameters.retry_count,
                    rnr_retry_count: parameters.rnr_retry_count,
                    private_data: parameters.private_data,
                };
                let datagram = cm_message::request(ids, route, &request);
                self.file.write_management(Some(route), ids.active, &datagram);
            }
            CmRequest::Disconnect => {
                connection.is_disconnecting = true;
                let datagram = cm_message::disconnect_request(ids, connection.peer_queue_pair);
                self.file.write_management(connection.route(), ids.active, &datagram);
            }
            _ => {}
        }
    }

    fn write_event<E>(&self, connection: &mut Connection, event: &CmEvent<E>) {
        let (ids, data) = (connection.ids, &event.private_data);
        match event.kind {
            CmEventKind::ESTABLISHED => {
                connection.peer_queue_pair = event.parameters.queue_pair;
                let reply = cm_message::reply(ids, connection.peer_queue_pair, data);
                self.file.write_management(connection.reversed_route(), ids.active, &reply);
                let ready = cm_message::ready_to_use(ids);
                self.file.write_management(connection.route(), ids.active, &ready);
            }
            CmEventKind::REJECTED => {
                let reason = u16::try_from(event.status).unwrap_or_default();
                let rejection = cm_message::rejection(ids, reason, data);
                self.file.write_management(connection.reversed_route(), ids.active, &rejection);
            }
            CmEventKind::DISCONNECTED if !connection.is_disconnecting => {
                let request = cm_message::peer_disconnect_request(ids, connection.queue_pair);
                self.file.write_management(connection.reversed_route(), ids.active, &request);
                let reply = cm_message::disconnect_reply(ids);
                self.file.write_management(connection.route(), ids.active, &reply);
            }
            _ => {}
        }
    }

    fn write_sends(&self, queue_pair: u32, requests: &[SendRequest], payloads: &Payloads) {
        let registry = lock(&self.registry);
        let Some(connection) = registry.connection(queue_pair) else { return };
        let mut connection = lock(&connection);
        for request in requests {
            let invalidates = match request.operation {
                Operation::Send => None,
                Operation::SendWithInvalidate(key) => Some(key.0),
                _ => continue,
            };
            let message = Message {
                destination_queue_pair: connection.peer_queue_pair,
                sequence_number: connection.sent,
                invalidates,
                payload: &registry.payload(request, payloads).unwrap_or_default(),
            };
            self.file.write_message(connection.route(), &message);
            connection.sent = connection.sent.wrapping_add(1);
        }
    }

    fn write_received(&self, completions: &[WorkCompletion]) {
        if completions.is_empty() {
            return;
        }
        let mut registry = lock(&self.registry);
        for completion in completions.iter().filter(|completion| completion.is_receive()) {
            let queue_pair = completion.queue_pair();
            let segment = registry.receives.remove(&(queue_pair, completion.token()));
            let Some(segment) = segment.filter(|_| completion.status().is_success()) else {
                continue;
            };
            let Some(connection) = registry.connection(queue_pair) else { continue };
            let mut connection = lock(&connection);
            let payload = registry.read(&segment, completion.length() as usize);
            let message = Message {
                destination_queue_pair: queue_pair,
                sequence_number: connection.received,
                invalidates: completion.invalidated().map(|key| key.0),
                payload: &payload.unwrap_or_default(),
            };
            self.file.write_message(connection.reversed_route(), &message);
            connection.received = connection.received.wrapping_add(1);
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Capture<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Capture").field(&self.inner).finish()
    }
}

/// Endpoint whose connection is captured, unless captures are disabled.
pub struct CaptureEndpoint<P: Provider> {
    inner: P::Endpoint,
    connection: Option<Arc<Mutex<Connection>>>,
}

/// Queue pair whose messages are captured, unless captures are disabled.
pub struct CaptureQueuePair<P: Provider> {
    inner: P::QueuePair,
    recorded: Option<RecordedQueuePair>,
}

/// Registration whose memory is read at sends and receives, unless captures are disabled.
pub struct CaptureRegistration<P: Provider> {
    inner: P::Registration,
    /// None of a window or of another device's memory.
    _recorded: Option<RecordedMemory>,
}

impl<P: Provider> Registration for CaptureRegistration<P> {
    fn innermost(&self) -> &dyn Any {
        self.inner.innermost()
    }
}

struct RecordedQueuePair {
    number: u32,
    registry: Arc<Mutex<Registry>>,
    /// Keeps the connection known while there is a queue pair.
    _connection: Arc<Mutex<Connection>>,
}

impl Drop for RecordedQueuePair {
    fn drop(&mut self) {
        let mut registry = lock(&self.registry);
        registry.connections.remove(&self.number);
        registry.receives.retain(|(number, _), _| *number != self.number);
    }
}

struct RecordedMemory {
    key: u32,
    registry: Arc<Mutex<Registry>>,
}

impl Drop for RecordedMemory {
    fn drop(&mut self) {
        lock(&self.registry).memory.remove(&self.key);
    }
}

impl<P: Provider> AsFd for CaptureEndpoint<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<P: Provider> Provider for Capture<P> {
    type Endpoint = CaptureEndpoint<P>;
    type ProtectionDomain = P::ProtectionDomain;
    type Registration = CaptureRegistration<P>;
    type CompletionQueue = P::CompletionQueue;
    type QueuePair = CaptureQueuePair<P>;

    fn agent(&self) -> Agent {
        // The capture itself reads the memory.
        if self.recorder.is_some() { Agent::Thread } else { self.inner.agent() }
    }

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        self.inner.endpoint().map(|inner| self.endpoint_of(inner))
    }

    fn request(&self, endpoint: &mut Self::Endpoint, request: CmRequest<'_>) -> Result<(), Error> {
        // Written first: a peer in this process may answer within the call.
        if let (Some(recorder), Some(connection)) = (&self.recorder, &endpoint.connection) {
            recorder.write_request(&mut lock(connection), &request);
        }
        self.inner.request(&mut endpoint.inner, request)
    }

    fn cm_event(
        &self,
        endpoint: &mut Self::Endpoint,
    ) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        let Some(event) = self.inner.cm_event(&mut endpoint.inner)? else { return Ok(None) };
        if let (Some(recorder), Some(connection)) = (&self.recorder, &endpoint.connection) {
            recorder.write_event(&mut lock(connection), &event);
        }
        let CmEvent { kind, status, private_data, parameters, incoming } = event;
        let incoming = incoming.map(|inner| self.endpoint_of(inner));
        Ok(Some(CmEvent { kind, status, private_data, parameters, incoming }))
    }

    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error> {
        self.inner.limits(&endpoint.inner)
    }

    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        self.inner.domain(&endpoint.inner)
    }

    fn device_event(&self, domain: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        self.inner.device_event(domain)
    }

    fn is_port_down(&self, domain: &Self::ProtectionDomain) -> Option<bool> {
        self.inner.is_port_down(domain)
    }

    fn register(
        &self,
        domain: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        let memory = match &request {
            RegisterRequest::Memory(memory) => Some(memory.clone()),
            _ => None,
        };
        let (inner, keys) = self.inner.register(domain, request)?;
        let recorded = self.recorder.as_ref().zip(memory);
        let recorded = recorded.map(|(recorder, memory)| recorder.registered(memory, keys.local));
        Ok((CaptureRegistration { inner, _recorded: recorded }, keys))
    }

    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        self.inner.completion_queue(&endpoint.inner, capacity)
    }

    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        let QueuePairRequest { domain, queue, capabilities } = request;
        let request = QueuePairRequest { domain, queue, capabilities };
        let (inner, info) = self.inner.queue_pair(&mut endpoint.inner, request)?;
        let recorded = self.recorder.as_ref().zip(endpoint.connection.as_ref());
        let recorded =
            recorded.map(|(recorder, connection)| recorder.bound(connection, info.number));
        Ok((CaptureQueuePair { inner, recorded }, info))
    }

    #[inline]
    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        match batch {
            Batch::Receives { queue_pair, requests } => {
                if let (Some(recorder), Some(pair)) = (&self.recorder, &queue_pair.recorded) {
                    recorder.write_receives(pair.number, requests);
                }
                self.inner.post(Batch::Receives { queue_pair: &mut queue_pair.inner, requests })
            }
            Batch::Sends { queue_pair, requests, payloads, windows } => {
                if let (Some(recorder), Some(pair)) = (&self.recorder, &queue_pair.recorded) {
                    recorder.write_sends(pair.number, requests, payloads);
                }
                let queue_pair = &mut queue_pair.inner;
                self.inner.post(Batch::Sends { queue_pair, requests, payloads, windows })
            }
        }
    }

    #[inline]
    fn completions(
        &self,
        queue: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        match (request, &self.recorder) {
            (QueueRequest::Poll(out), Some(recorder)) => {
                let count = self.inner.completions(queue, QueueRequest::Poll(&mut *out))?;
                recorder.write_received(&out[..count]);
                Ok(count)
            }
            (request, _) => self.inner.completions(queue, request),
        }
    }
}
