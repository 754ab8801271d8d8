//! Two connected ends in one thread: everything in `verbs` returns at once, so one thread can
//! play both.

use std::{
    cell::Cell,
    net::SocketAddr,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::{
    Completion, CompletionQueue, ConnectParameters, ConnectionEvent, Endpoint, Established,
    PreparedQueuePair, PrivateData, ProtectionDomain, QueuePair, QueuePairCapabilities, RdmaCore,
    VerbsApi,
};

pub(crate) const CAPABILITIES: QueuePairCapabilities = QueuePairCapabilities {
    max_send_wr: 32,
    max_recv_wr: 32,
    max_send_sge: 2,
    max_inline_data: 64,
};

/// The address of an RDMA device of this machine, with a port of its own for each test.
pub(crate) fn address(port: u16) -> SocketAddr {
    let address = std::env::var("RDMA_TEST_ADDRESS")
        .expect("set RDMA_TEST_ADDRESS to the IP address of an RDMA device of this machine");
    let address = address.parse().expect("RDMA_TEST_ADDRESS is an IP address without a port");
    SocketAddr::new(address, port)
}

/// An endpoint by the calls that the tests are run for.
pub(crate) fn open() -> Endpoint {
    Endpoint::open_with(Arc::new(RdmaCore::with(api()))).expect("an endpoint")
}

/// Calls by which the tests are run: `RDMA_TEST_API=extended` is for the extended ones.
fn api() -> VerbsApi {
    if let Some(chosen) = CHOSEN.get() {
        return chosen;
    }
    match std::env::var("RDMA_TEST_API").as_deref() {
        Ok("extended") => VerbsApi::Extended,
        Ok(other) if other != "legacy" => panic!("no interface is named {other}"),
        _ => VerbsApi::Legacy,
    }
}

/// Sets the calls by which the rest of this test runs.
pub(crate) fn choose(api: VerbsApi) {
    CHOSEN.set(Some(api));
}

thread_local! {
    static CHOSEN: Cell<Option<VerbsApi>> = const { Cell::new(None) };
}

/// One end before its connection is established.
pub(crate) struct Prepared {
    pub(crate) endpoint: Endpoint,
    pub(crate) domain: ProtectionDomain,
    pub(crate) queue: CompletionQueue,
    pub(crate) queue_pair: PreparedQueuePair,
}

/// One connected end.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) domain: ProtectionDomain,
    pub(crate) queue: CompletionQueue,
    pub(crate) queue_pair: QueuePair,
    pub(crate) established: Established,
}

/// Two connected ends.
pub(crate) struct Pair {
    pub(crate) client: End,
    pub(crate) server: End,
}

impl Prepared {
    pub(crate) fn new(endpoint: Endpoint, capabilities: QueuePairCapabilities) -> Self {
        let domain = endpoint.domain().expect("a domain");
        let queue = endpoint
            .completion_queue(capabilities.max_send_wr + capabilities.max_recv_wr)
            .expect("a completion queue");
        Self::with(endpoint, domain, queue, capabilities)
    }

    pub(crate) fn with(
        mut endpoint: Endpoint,
        domain: ProtectionDomain,
        queue: CompletionQueue,
        capabilities: QueuePairCapabilities,
    ) -> Self {
        let queue_pair = endpoint.queue_pair(&domain, &queue, capabilities).expect("a queue pair");
        Self { endpoint, domain, queue, queue_pair }
    }

    pub(crate) fn ready(mut self) -> End {
        let established = established(&mut self.endpoint);
        End {
            queue_pair: self.queue_pair.ready(&established),
            endpoint: self.endpoint,
            domain: self.domain,
            queue: self.queue,
            established,
        }
    }
}

impl Pair {
    pub(crate) fn connect(port: u16, capabilities: QueuePairCapabilities) -> Self {
        let endpoint = resolved(port);
        let domain = endpoint.domain().expect("a domain");
        Self::with(endpoint, port, capabilities, &domain)
    }

    /// Connects a pair whose client is in a domain that is there already.
    pub(crate) fn connect_in(
        port: u16,
        capabilities: QueuePairCapabilities,
        domain: &ProtectionDomain,
    ) -> Self {
        Self::with(resolved(port), port, capabilities, domain)
    }

    fn with(
        endpoint: Endpoint,
        port: u16,
        capabilities: QueuePairCapabilities,
        domain: &ProtectionDomain,
    ) -> Self {
        let mut listener = listen(port);
        let queue = endpoint
            .completion_queue(capabilities.max_send_wr + capabilities.max_recv_wr)
            .expect("a completion queue");
        let mut client = Prepared::with(endpoint, domain.clone(), queue, capabilities);
        client.endpoint.connect(&ConnectParameters::default()).expect("a request is sent");
        let (endpoint, _) = request(&mut listener);
        let mut server = Prepared::new(endpoint, capabilities);
        server.endpoint.accept(&ConnectParameters::default()).expect("an answer is sent");
        Self { client: client.ready(), server: server.ready() }
    }
}

impl End {
    /// Takes completions until there are as many as asked for.
    pub(crate) fn completions(&mut self, count: usize) -> Vec<Completion> {
        completions(&mut self.queue, count)
    }
}

pub(crate) fn listen(port: u16) -> Endpoint {
    let mut listener = open();
    listener.listen(address(port), 16).expect("the port is free");
    listener
}

/// An endpoint that has found its device and its route.
pub(crate) fn resolved(port: u16) -> Endpoint {
    let mut endpoint = open();
    endpoint.resolve_address(None, address(port), TIMEOUT).expect("a device leads there");
    let event = event(&mut endpoint);
    assert!(matches!(event, ConnectionEvent::AddressResolved), "{event:?}");
    endpoint.set_type_of_service(0).expect("any type of service is taken");
    endpoint.set_ack_timeout(14).expect("this kernel can");
    endpoint.resolve_route(TIMEOUT).expect("the address is resolved");
    let event = self::event(&mut endpoint);
    assert!(matches!(event, ConnectionEvent::RouteResolved), "{event:?}");
    endpoint
}

pub(crate) fn request(listener: &mut Endpoint) -> (Endpoint, PrivateData) {
    match event(listener) {
        ConnectionEvent::ConnectRequest { endpoint, private_data, .. } => (endpoint, private_data),
        other => panic!("expected a connection request: {other:?}"),
    }
}

pub(crate) fn established(endpoint: &mut Endpoint) -> Established {
    match event(endpoint) {
        ConnectionEvent::Established(established) => established,
        other => panic!("expected a connection: {other:?}"),
    }
}

/// Waits for the next event.
pub(crate) fn event(endpoint: &mut Endpoint) -> ConnectionEvent {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(event) = endpoint.next_event().expect("events can be read") {
            return event;
        }
        assert!(readable(&*endpoint, deadline), "no event within {TIMEOUT:?}");
    }
}

/// Takes completions until there are as many as asked for, sleeping where there are none.
pub(crate) fn completions(queue: &mut CompletionQueue, count: usize) -> Vec<Completion> {
    let deadline = Instant::now() + TIMEOUT;
    let mut all = vec![Completion::default(); count];
    let mut taken = 0;
    while taken < count {
        queue.arm().expect("the device is there");
        let now = queue.poll(&mut all[taken..]).expect("the queue has not overrun");
        taken += now;
        if now == 0 {
            assert!(readable(&*queue, deadline), "only {taken} of {count} completions came");
            queue.acknowledge().expect("the channel can be read");
        }
    }
    all
}

/// Sleeps until one of two queues may have a completion.
pub(crate) fn wait_for_either(one: &mut CompletionQueue, other: &mut CompletionQueue) {
    one.arm().expect("the device is there");
    other.arm().expect("the device is there");
    let mut files = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    // A completion between the caller's poll and the arming made no event: look again soon.
    let soon = Timespec::try_from(Duration::from_millis(20)).expect("it fits");
    poll(&mut files, Some(&soon)).expect("polling is possible");
    one.acknowledge().expect("the channel can be read");
    other.acknowledge().expect("the channel can be read");
}

pub(crate) fn readable(file: impl AsFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).expect("a few seconds fit");
    let mut files = [PollFd::new(&file, PollFlags::IN)];
    poll(&mut files, Some(&timeout)).expect("polling is possible") > 0
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
