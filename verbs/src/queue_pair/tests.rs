//! The queue pair over a provider that only writes down what it is asked.

use std::{
    io,
    sync::{Mutex, MutexGuard},
};

mod message_slots;
mod work;

use super::*;
use crate::{
    Access, CompletionQueue, ConnectionEvent, DeviceEvent, Endpoint, Limits, ProtectionDomain,
    RemoteKey, Status, WorkKind,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmEventKind, CmRequest, CompletionQueueInfo, Keys, Payload, Payloads,
        PostError, QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        SendRequest, WorkCompletion,
    },
    token::SLOTS_MAX,
};

#[test]
fn a_flush_is_one_batch_each_way() {
    let (device, domain, mut pair) = connected();
    pair.post_receive(buffer(&domain, 10), 1).expect("there is room");
    pair.post_receive(buffer(&domain, 11), 2).expect("there is room");
    pair.send_inline(b"one").expect("there is room");
    pair.send(buffer(&domain, 12), 3).expect("there is room");
    pair.send_inline(b"two").expect("there is room");
    assert_eq!(device.calls(), ["queue pair made"], "nothing is handed over before the flush");
    pair.flush().expect("the device takes all");
    assert_eq!(device.calls(), ["receive 10 11", "send 'one'? 12! 'two'?"]);
    pair.flush().expect("there is nothing to do");
    assert!(device.calls().is_empty());
}

#[test]
fn what_is_not_taken_stays_queued_in_order() {
    let (device, _, mut pair) = connected();
    device.log().take_at_most = Some(2);
    for message in [b"a", b"b", b"c"] {
        pair.send_inline(message).expect("there is room");
    }
    assert!(matches!(pair.flush(), Err(Error::PostSend(_))));
    assert_eq!(device.calls(), ["queue pair made", "send 'a'? 'b'!"]);
    pair.send_inline(b"d").expect("there is room");
    pair.flush().expect("the device takes two");
    assert_eq!(device.calls(), ["send 'c'? 'd'!"]);
}

#[test]
fn an_inline_message_may_be_reused_at_once() {
    let (device, _, mut pair) = connected();
    let mut message = *b"first";
    pair.send_inline(&message).expect("there is room");
    message = *b"again";
    pair.send_inline(&message).expect("there is room");
    pair.flush().expect("the device takes all");
    assert_eq!(device.calls().last().expect("a call"), "send 'first'? 'again'!");
}

#[test]
fn closing_destroys_the_queue_pair_before_it_returns_buffers() {
    let (device, domain, mut pair) = connected();
    pair.post_receive(buffer(&domain, 10), 1).expect("there is room");
    pair.send((buffer(&domain, 11), buffer(&domain, 12)), 2).expect("there is room");
    device.log().lines.clear();
    let returned = pair.close();
    assert_eq!(device.calls(), ["queue pair destroyed"]);
    let found: Vec<_> = returned
        .iter()
        .map(|returned| (returned.tag, returned.kind, returned.buffers.len()))
        .collect();
    assert_eq!(found, [(2, WorkKind::Send, 2), (1, WorkKind::Receive, 1)]);
}

#[test]
fn dropping_destroys_the_queue_pair_before_the_memory() {
    let (device, domain, mut pair) = connected();
    pair.post_receive(buffer(&domain, 10), 1).expect("there is room");
    device.log().lines.clear();
    drop(pair);
    assert_eq!(device.calls(), ["queue pair destroyed", "10 bytes deregistered"]);
}

#[test]
fn retiring_hands_back_what_was_posted() {
    let (device, domain, mut pair) = connected();
    pair.post_receive(buffer(&domain, 10), 1).expect("there is room");
    pair.send(buffer(&domain, 11), 2).expect("there is room");
    pair.flush().expect("the device takes all");
    let [receive, send] = device.tokens()[..] else { panic!("two were posted") };

    let completion = completion_of(receive, Status::SUCCESS, NUMBER, 7);
    let completed = pair.complete(&completion).expect("it is ours");
    assert!(matches!(completed, CompletedWork::Receive { tag: 1, length: 7, .. }), "{completed:?}");
    assert_eq!(pair.complete(&completion).expect_err("only once"), StaleCompletion);

    let elsewhere = completion_of(send, Status::SUCCESS, NUMBER + 1, 0);
    assert_eq!(pair.complete(&elsewhere).expect_err("of another"), StaleCompletion);
    let failed = completion_of(send, Status::FLUSHED, NUMBER, 0);
    let completed = pair.complete(&failed).expect("a failure frees the slot as well");
    assert!(matches!(completed, CompletedWork::Send { tag: 2, .. }), "{completed:?}");
    assert_eq!(pair.complete(&Completion::default()).expect_err("no token"), StaleCompletion);
}

#[test]
fn a_later_queue_pair_does_not_know_an_earlier_ones_completions() {
    let (device, domain, mut first) = connected();
    first.post_receive(buffer(&domain, 10), 1).expect("there is room");
    first.flush().expect("the device takes it");
    let token = device.tokens()[0];
    drop(first);
    let (_, domain, mut second) = connected();
    second.post_receive(buffer(&domain, 10), 1).expect("there is room");
    let late = completion_of(token, Status::FLUSHED, NUMBER, 0);
    assert_eq!(second.complete(&late).expect_err("the number is the same"), StaleCompletion);
}

#[test]
fn a_completion_queue_is_not_overbooked() {
    let device = Device::new();
    let mut endpoint = Endpoint::open_with(Arc::new(device.clone())).expect("an endpoint");
    let domain = endpoint.domain().expect("a domain");
    let queue = endpoint.completion_queue(20).expect("a queue");
    let first = endpoint.queue_pair(&domain, &queue, CAPABILITIES).expect("it has room");
    let refused = endpoint.queue_pair(&domain, &queue, CAPABILITIES);
    assert!(matches!(refused, Err(Error::Misuse(_))));
    drop(first);
    endpoint.queue_pair(&domain, &queue, CAPABILITIES).expect("the room came back");
}

#[test]
fn impossible_sizes_are_refused() {
    let mut endpoint = Endpoint::open_with(Arc::new(Device::new())).expect("an endpoint");
    let domain = endpoint.domain().expect("a domain");
    let queue = endpoint.completion_queue(u32::MAX).expect("a queue");
    let mut make = |size| endpoint.queue_pair(&domain, &queue, size).map(drop);
    for size in [
        QueuePairCapabilities { max_send_wr: 0, ..CAPABILITIES },
        QueuePairCapabilities { max_recv_wr: 0, ..CAPABILITIES },
        QueuePairCapabilities { max_send_wr: SLOTS_MAX + 1, ..CAPABILITIES },
        QueuePairCapabilities { max_recv_wr: u32::MAX, ..CAPABILITIES },
        QueuePairCapabilities { max_send_sge: 0, ..CAPABILITIES },
        QueuePairCapabilities { max_send_sge: 5, ..CAPABILITIES },
    ] {
        assert!(matches!(make(size), Err(Error::Misuse(_))), "{size:?}");
    }
}

#[test]
#[should_panic(expected = "another queue pair's")]
fn another_connections_proof_is_not_taken() {
    let device = Device::new();
    let (mut one, mut other) = (open(&device), open(&device));
    let proof = established(&mut other);
    prepared(&mut one).1.ready(&proof);
}

#[test]
fn types_can_change_threads() {
    fn assert_send<T: Send>() {}
    fn assert_sync<T: Sync>() {}
    assert_send::<Endpoint>();
    assert_send::<ConnectionEvent>();
    assert_send::<CompletionQueue>();
    assert_send::<PreparedQueuePair>();
    assert_send::<QueuePair>();
    assert_send::<Buffer>();
    assert_send::<crate::Window>();
    assert_send::<ProtectionDomain>();
    assert_sync::<ProtectionDomain>();
    assert_send::<Error>();
}

#[test]
fn memory_of_another_domain_of_the_device_is_refused() {
    let device = Device::new();
    let mut endpoint = open(&device);
    let [ours, other] = [(); 2].map(|()| endpoint.domain().expect("a domain"));
    let queue = endpoint.completion_queue(16).expect("a queue");
    let pair = endpoint.queue_pair(&ours, &queue, CAPABILITIES).expect("a queue pair");
    let mut pair: QueuePair<Device> = pair.ready(&established(&mut endpoint));
    let buffer = ours.allocate(10, Access::LOCAL_WRITE).expect("memory");
    pair.post_receive(buffer, 1).expect("it is of the domain");
    let stranger = other.allocate(11, Access::LOCAL_WRITE).expect("memory");
    let refused = pair.send(stranger, 2).expect_err("it is of another domain");
    assert!(matches!(refused.error, Error::Misuse(_)), "{}", refused.error);
    let returned = pair.close();
    assert_eq!(returned.len(), 1);
    let buffer = returned.into_iter().flat_map(|one| one.buffers).next();
    assert_eq!(buffer.expect("the one that was posted").len(), 10);
}

fn connected() -> (Device, ProtectionDomain<Device>, QueuePair<Device>) {
    connected_with(CAPABILITIES)
}

fn connected_with(
    capabilities: QueuePairCapabilities,
) -> (Device, ProtectionDomain<Device>, QueuePair<Device>) {
    let device = Device::new();
    let mut endpoint = open(&device);
    let (domain, pair) = prepared_with(&mut endpoint, capabilities);
    let pair = pair.ready(&established(&mut endpoint));
    (device, domain, pair)
}

fn open(device: &Device) -> Endpoint<Device> {
    Endpoint::open_with(Arc::new(device.clone())).expect("an endpoint")
}

fn prepared(
    endpoint: &mut Endpoint<Device>,
) -> (ProtectionDomain<Device>, PreparedQueuePair<Device>) {
    prepared_with(endpoint, CAPABILITIES)
}

fn prepared_with(
    endpoint: &mut Endpoint<Device>,
    capabilities: QueuePairCapabilities,
) -> (ProtectionDomain<Device>, PreparedQueuePair<Device>) {
    let domain = endpoint.domain().expect("a domain");
    let entries = capabilities.max_send_wr + capabilities.max_recv_wr;
    let queue = endpoint.completion_queue(entries).expect("a queue");
    let pair = endpoint.queue_pair(&domain, &queue, capabilities).expect("a queue pair");
    (domain, pair)
}

fn established(endpoint: &mut Endpoint<Device>) -> Established {
    match endpoint.next_event() {
        Ok(Some(ConnectionEvent::Established(established))) => established,
        other => panic!("the device below has no other event: {other:?}"),
    }
}

/// Completion as the device would report it.
fn completion_of(token: u64, status: Status, queue_pair: u32, length: u32) -> Completion {
    WorkCompletion::new(token, status, queue_pair, length).into()
}

fn buffer(domain: &ProtectionDomain<Device>, length: usize) -> Buffer {
    domain.allocate(length, Access::LOCAL_WRITE).expect("memory")
}

const CAPABILITIES: QueuePairCapabilities =
    QueuePairCapabilities { max_send_wr: 8, max_recv_wr: 8, max_send_sge: 2, max_inline_data: 8 };
const NUMBER: u32 = 17;
const INFO: QueuePairInfo = QueuePairInfo { number: NUMBER, api: VerbsApi::Legacy };

/// Calls made to the device, in words.
#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    tokens: Vec<u64>,
    take_at_most: Option<usize>,
}

#[derive(Clone, Debug)]
struct Device(Arc<Mutex<Log>>);

/// Says that it is gone.
struct Noted {
    device: Device,
    line: String,
}

impl crate::provider::Registration for Noted {
    fn innermost(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.device.log().lines.push(std::mem::take(&mut self.line));
    }
}

impl Device {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().expect("no panic while logging")
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.log().lines)
    }

    fn tokens(&self) -> Vec<u64> {
        self.log().tokens.clone()
    }

    fn take(
        &self,
        what: &str,
        requests: impl Iterator<Item = (u64, String)>,
    ) -> Result<(), PostError> {
        let requests = requests.collect::<Vec<_>>();
        let mut log = self.log();
        let accepted = log.take_at_most.unwrap_or(usize::MAX).min(requests.len());
        let words: Vec<_> = requests[..accepted].iter().map(|(_, word)| word.as_str()).collect();
        log.lines.push(format!("{what} {}", words.join(" ")));
        log.tokens.extend(requests[..accepted].iter().map(|(token, _)| token));
        if accepted < requests.len() {
            return Err(PostError { accepted, source: io::ErrorKind::OutOfMemory.into() });
        }
        Ok(())
    }
}

impl Provider for Device {
    type Endpoint = io::Stdin; // has a file descriptor
    type ProtectionDomain = io::Stdin;
    type Registration = Noted;
    type CompletionQueue = io::Stdin;
    type QueuePair = Noted;

    fn agent(&self) -> Agent {
        Agent::Thread
    }

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        Ok(io::stdin())
    }

    fn request(&self, _: &mut Self::Endpoint, _: CmRequest<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn cm_event(&self, _: &mut Self::Endpoint) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        Ok(Some(CmEvent {
            kind: CmEventKind::ESTABLISHED,
            status: 0,
            private_data: Default::default(),
            parameters: Default::default(),
            incoming: None,
        }))
    }

    fn limits(&self, _: &Self::Endpoint) -> Result<Limits, Error> {
        Ok(Limits::default())
    }

    fn domain(&self, _: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        Ok(io::stdin())
    }

    fn device_event(&self, _: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        Ok(None)
    }

    fn is_port_down(&self, _: &Self::ProtectionDomain) -> Option<bool> {
        None
    }

    fn register(
        &self,
        _: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        let (line, keys) = match request {
            RegisterRequest::DmaBuf(_) => return Err(Error::Unsupported("a device of paper")),
            RegisterRequest::Memory(memory) => (
                format!("{} bytes deregistered", memory.len()),
                Keys { local: 1, remote: RemoteKey(2) },
            ),
            RegisterRequest::Window => {
                ("window freed".to_owned(), Keys { local: 3, remote: RemoteKey(0x300) })
            }
        };
        Ok((Noted { device: self.clone(), line }, keys))
    }

    fn completion_queue(
        &self,
        _: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        Ok((io::stdin(), CompletionQueueInfo { capacity, number: 1, api: VerbsApi::Legacy }))
    }

    fn queue_pair(
        &self,
        _: &mut Self::Endpoint,
        _: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        self.log().lines.push("queue pair made".to_owned());
        let line = "queue pair destroyed".to_owned();
        Ok((Noted { device: self.clone(), line }, INFO))
    }

    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        match batch {
            Batch::Receives { requests, .. } => self.take("receive", requests.iter().map(received)),
            Batch::Sends { requests, payloads, .. } => {
                self.take("send", requests.iter().map(|request| sent(request, payloads)))
            }
        }
    }

    fn completions(
        &self,
        _: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        Ok(if let QueueRequest::Resize(capacity) = request { capacity as usize } else { 0 })
    }
}

fn received(request: &ReceiveRequest) -> (u64, String) {
    (request.token, request.sge.length.to_string())
}

/// Inline messages in quotes, otherwise lengths; with `!` when signaled, `<` for a read, `>` for
/// a write, `-` for the key to invalidate.
fn sent(request: &SendRequest, payloads: &Payloads) -> (u64, String) {
    let mark = if request.signaled { '!' } else { '?' };
    let what = match &request.payload {
        Payload::Inline { offset, length } => {
            let message = payloads.bytes(*offset, *length).expect("it is within the batch");
            format!("'{}'", String::from_utf8_lossy(message))
        }
        Payload::Nothing => String::new(),
        payload @ Payload::SgList { count, .. } => {
            let segments = payloads.sg_list(payload);
            assert_eq!(segments.len(), *count as usize);
            segments.iter().map(|sge| sge.length).sum::<u32>().to_string()
        }
    };
    let words = match &request.operation {
        Operation::BindWindow(bind) => format!("bind {}{mark}", bind.window),
        Operation::LocalInvalidate(key) => format!("invalidate {}{mark}", key.0 >> 8),
        Operation::RdmaRead(at) => format!("{what}{mark}<{}@{}", at.key.0, at.address),
        Operation::RdmaWrite(at) => format!("{what}{mark}>{}@{}", at.key.0, at.address),
        Operation::Send => format!("{what}{mark}"),
        Operation::SendWithInvalidate(key) => format!("{what}{mark}-{}", key.0),
    };
    (request.token, words)
}
