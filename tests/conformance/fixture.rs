//! Device that the cases run on, and two connected ends to run them with.

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, Established, PreparedQueuePair, ProtectionDomain, Provider, QueuePair,
    QueuePairCapabilities, RdmaCore, Status, VerbsApi,
};

/// One question: what must come of it, and how to ask.
pub(crate) struct Case<B> {
    pub(crate) name: &'static str,
    pub(crate) must: &'static str,
    pub(crate) ask: fn(&B) -> String,
}

/// A place with two hosts, which may be the same.
pub(crate) trait Bench {
    type Provider: Provider + Debug;
    fn client(&self) -> Arc<Self::Provider>;
    fn server(&self) -> Arc<Self::Provider>;
    /// The server's address.
    fn address(&self) -> IpAddr;
    /// Waits until a file may be readable; false when it won't be.
    fn wait(&self, file: BorrowedFd<'_>) -> bool;
    /// Waits until what is on its way has arrived.
    fn quiet(&self, at_least: Duration);
}

/// Two hosts of a fabric.
pub(crate) struct OnFabric {
    fabric: Fabric,
    client: Arc<Host>,
    server: Arc<Host>,
}

impl OnFabric {
    pub(crate) fn new() -> Self {
        let fabric = Fabric::new(1);
        let client = fabric.host("client", [10, 0, 0, 1].into());
        let server = fabric.host("server", [10, 0, 0, 2].into());
        Self { fabric, client, server }
    }
}

impl Bench for OnFabric {
    type Provider = Host;

    fn client(&self) -> Arc<Host> {
        self.client.clone()
    }

    fn server(&self) -> Arc<Host> {
        self.server.clone()
    }

    fn address(&self) -> IpAddr {
        [10, 0, 0, 2].into()
    }

    fn wait(&self, file: BorrowedFd<'_>) -> bool {
        readable(file, Duration::ZERO) || self.fabric.step()
    }

    fn quiet(&self, at_least: Duration) {
        self.fabric.advance(at_least);
        self.fabric.settle();
    }
}

/// The device of the test bed, which is both hosts.
pub(crate) struct OnDevice {
    /// Limit of a wait for an event.
    pub(crate) wait: Duration,
}

impl Bench for OnDevice {
    type Provider = RdmaCore;

    fn client(&self) -> Arc<RdmaCore> {
        Arc::new(RdmaCore::with(api()))
    }

    fn server(&self) -> Arc<RdmaCore> {
        Arc::new(RdmaCore::with(api()))
    }

    fn address(&self) -> IpAddr {
        let address = std::env::var("RDMA_TEST_ADDRESS").expect("run inside the test bed");
        address.parse().expect("it is an address")
    }

    fn wait(&self, file: BorrowedFd<'_>) -> bool {
        readable(file, self.wait)
    }

    fn quiet(&self, at_least: Duration) {
        std::thread::sleep(at_least.max(Duration::from_millis(30)));
    }
}

/// The calls that the device gets: `RDMA_TEST_API=extended` is for the extended ones.
fn api() -> VerbsApi {
    match std::env::var("RDMA_TEST_API").as_deref() {
        Ok("extended") => VerbsApi::Extended,
        Ok(other) if other != "legacy" => panic!("no interface is named {other}"),
        _ => VerbsApi::Legacy,
    }
}

/// One end before it is connected.
pub(crate) struct Prepared<P: Provider> {
    pub(crate) endpoint: Endpoint<P>,
    pub(crate) domain: ProtectionDomain<P>,
    pub(crate) queue: CompletionQueue<P>,
    pub(crate) queue_pair: PreparedQueuePair<P>,
}

/// One connected end.
pub(crate) struct End<P: Provider> {
    pub(crate) endpoint: Endpoint<P>,
    pub(crate) domain: ProtectionDomain<P>,
    pub(crate) queue: CompletionQueue<P>,
    pub(crate) queue_pair: QueuePair<P>,
}

/// Two connected ends.
pub(crate) struct Pair<'a, B: Bench> {
    pub(crate) bench: &'a B,
    pub(crate) client: End<B::Provider>,
    pub(crate) server: End<B::Provider>,
}

impl<P: Provider + Debug> Prepared<P> {
    pub(crate) fn new(endpoint: Endpoint<P>) -> Self {
        let domain = endpoint.domain().expect("a domain");
        Self::of(endpoint, domain)
    }

    pub(crate) fn of(mut endpoint: Endpoint<P>, domain: ProtectionDomain<P>) -> Self {
        let queue =
            endpoint.completion_queue(SIZE.max_send_wr + SIZE.max_recv_wr).expect("a queue");
        let queue_pair = endpoint.queue_pair(&domain, &queue, SIZE).expect("a queue pair");
        Self { endpoint, domain, queue, queue_pair }
    }

    pub(crate) fn ready<B: Bench<Provider = P>>(mut self, bench: &B) -> (End<P>, Established) {
        let event = event(bench, &mut self.endpoint);
        let Some(ConnectionEvent::Established(established)) = event else {
            panic!("expected a connection: {event:?}")
        };
        let Self { endpoint, domain, queue, queue_pair } = self;
        let queue_pair = queue_pair.ready(&established);
        (End { endpoint, domain, queue, queue_pair }, established)
    }
}

impl<'a, B: Bench> Pair<'a, B> {
    pub(crate) fn connect(bench: &'a B) -> Self {
        Self::with(bench, &ConnectParameters::default())
    }

    pub(crate) fn with(bench: &'a B, parameters: &ConnectParameters<'_>) -> Self {
        let (mut listener, address) = listen(bench);
        let client = Prepared::new(resolved(bench, address));
        Self::between(bench, &mut listener, client, None, parameters)
    }

    /// Connects a prepared client; the server's domain may be one that is there already.
    pub(crate) fn between(
        bench: &'a B,
        listener: &mut Endpoint<B::Provider>,
        mut client: Prepared<B::Provider>,
        domain: Option<ProtectionDomain<B::Provider>>,
        parameters: &ConnectParameters<'_>,
    ) -> Self {
        client.endpoint.connect(parameters).expect("it is sent");
        let endpoint = requested(bench, listener);
        let domain = domain.unwrap_or_else(|| endpoint.domain().expect("a domain"));
        let mut server = Prepared::of(endpoint, domain);
        server.endpoint.accept(parameters).expect("it is sent");
        let (client, _) = client.ready(bench);
        Self { bench, client, server: server.ready(bench).0 }
    }

    /// Statuses of the client's next completions.
    pub(crate) fn client_says(&mut self, count: usize) -> Vec<Status> {
        self.client.statuses(self.bench, count)
    }

    /// Statuses of the server's next completions.
    pub(crate) fn server_says(&mut self, count: usize) -> Vec<Status> {
        self.server.statuses(self.bench, count)
    }
}

impl<P: Provider> End<P> {
    pub(crate) fn buffer(&self, bytes: &[u8], access: Access) -> Buffer {
        let mut buffer = self.domain.allocate(bytes.len(), access).expect("memory");
        buffer.copy_in(0, bytes);
        buffer
    }

    pub(crate) fn post_receives(&mut self, count: u64, length: usize) {
        for tag in 0..count {
            let buffer = self.buffer(&vec![0; length], Access::LOCAL_WRITE);
            self.queue_pair.post_receive(buffer, tag).expect("there is room");
        }
        self.queue_pair.flush().expect("the device takes them");
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        let buffer = self.buffer(message, Access::NONE);
        self.queue_pair.send(buffer, 0).expect("there is room");
        self.queue_pair.flush().expect("the device takes it");
    }

    /// The next completions, or as many as come.
    pub(crate) fn completions<B: Bench>(&mut self, bench: &B, count: usize) -> Vec<Completion> {
        let mut all = vec![Completion::default(); count];
        let mut taken = 0;
        while taken < count {
            self.queue.arm().expect("the device is there");
            let now = self.queue.poll(&mut all[taken..]).expect("it has not overrun");
            taken += now;
            if now == 0 {
                if !bench.wait(self.queue.as_fd()) {
                    break;
                }
                self.queue.acknowledge().expect("the channel can be read");
            }
        }
        all.truncate(taken);
        all
    }

    pub(crate) fn statuses<B: Bench>(&mut self, bench: &B, count: usize) -> Vec<Status> {
        let completions = self.completions(bench, count);
        for completion in &completions {
            self.queue_pair.complete(completion).expect("it is ours");
        }
        completions.iter().map(|completion| completion.status()).collect()
    }

    /// The next messages.
    pub(crate) fn messages<B: Bench>(&mut self, bench: &B, count: usize) -> Vec<Vec<u8>> {
        let take = |completion| match self.queue_pair.complete(completion) {
            Ok(CompletedWork::Receive { buffer, length, .. }) => contents(&buffer, length as usize),
            other => panic!("expected a message: {other:?}"),
        };
        self.queue.arm().expect("the device is there");
        let mut all = vec![Completion::default(); count];
        let mut taken = 0;
        while taken < count {
            self.queue.arm().expect("the device is there");
            let now = self.queue.poll(&mut all[taken..]).expect("it has not overrun");
            taken += now;
            if now == 0 {
                assert!(bench.wait(self.queue.as_fd()), "only {taken} of {count} messages came");
                self.queue.acknowledge().expect("the channel can be read");
            }
        }
        all.iter().map(take).collect()
    }
}

pub(crate) fn contents(buffer: &Buffer, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    buffer.copy_out(0, &mut bytes);
    bytes
}

pub(crate) fn listen<B: Bench>(bench: &B) -> (Endpoint<B::Provider>, SocketAddr) {
    let address = SocketAddr::new(bench.address(), PORT.fetch_add(1, Ordering::Relaxed));
    let mut listener = Endpoint::open_with(bench.server()).expect("an endpoint");
    listener.listen(address, 4).expect("the port is free");
    (listener, address)
}

pub(crate) fn resolved<B: Bench>(bench: &B, address: SocketAddr) -> Endpoint<B::Provider> {
    let mut endpoint = Endpoint::open_with(bench.client()).expect("an endpoint");
    endpoint.resolve_address(None, address, PATIENT).expect("a device leads there");
    let found = event(bench, &mut endpoint);
    assert!(matches!(found, Some(ConnectionEvent::AddressResolved)), "{found:?}");
    endpoint.set_ack_timeout(14).expect("it is a small number");
    endpoint.resolve_route(PATIENT).expect("the address is resolved");
    let found = event(bench, &mut endpoint);
    assert!(matches!(found, Some(ConnectionEvent::RouteResolved)), "{found:?}");
    endpoint
}

pub(crate) fn requested<B: Bench>(
    bench: &B,
    listener: &mut Endpoint<B::Provider>,
) -> Endpoint<B::Provider> {
    match event(bench, listener) {
        Some(ConnectionEvent::ConnectRequest { endpoint, .. }) => endpoint,
        other => panic!("expected a request: {other:?}"),
    }
}

/// The next event, if one comes.
pub(crate) fn event<B: Bench>(
    bench: &B,
    endpoint: &mut Endpoint<B::Provider>,
) -> Option<ConnectionEvent<B::Provider>> {
    loop {
        if let Some(event) = endpoint.next_event().expect("events can be read") {
            return Some(event);
        }
        if !bench.wait(endpoint.as_fd()) {
            return None;
        }
    }
}

pub(crate) fn readable(file: BorrowedFd<'_>, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).expect("a few seconds fit");
    let mut files = [PollFd::new(&file, PollFlags::IN)];
    poll(&mut files, Some(&timeout)).expect("polling is possible") > 0
}

pub(crate) const SIZE: QueuePairCapabilities = QueuePairCapabilities {
    max_send_wr: 32,
    max_recv_wr: 32,
    max_send_sge: 2,
    max_inline_data: 64,
};
pub(crate) const PATIENT: Duration = Duration::from_secs(5);

static PORT: AtomicU16 = AtomicU16::new(4800);
