//! Two connected ends in one thread.

use std::{fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, Established, ProtectionDomain, Provider, QueuePair, QueuePairCapabilities, Status,
};

use super::{Fabric, Host};

pub(super) const SIZE: QueuePairCapabilities = QueuePairCapabilities {
    max_send_wr: 32,
    max_recv_wr: 32,
    max_send_sge: 2,
    max_inline_data: 64,
};
pub(super) const PATIENT: Duration = Duration::from_secs(10);

pub(super) struct End<P: Provider> {
    pub(super) endpoint: Endpoint<P>,
    pub(super) domain: ProtectionDomain<P>,
    pub(super) queue: CompletionQueue<P>,
    pub(super) queue_pair: QueuePair<P>,
}

pub(super) struct Pair<P: Provider> {
    pub(super) client: End<P>,
    pub(super) server: End<P>,
    _listener: Endpoint<P>,
}

impl Pair<Host> {
    pub(super) fn connect(fabric: &Fabric) -> Self {
        Self::connect_with(fabric, &ConnectParameters::default())
    }

    pub(super) fn connect_with(fabric: &Fabric, parameters: &ConnectParameters<'_>) -> Self {
        let (client, server) = hosts(fabric);
        Self::of(client, server, parameters)
    }
}

impl<P: Provider + Debug> Pair<P> {
    pub(super) fn of(client: Arc<P>, server: Arc<P>, parameters: &ConnectParameters<'_>) -> Self {
        let mut listener = Endpoint::open_with(server).expect("an endpoint");
        listener.listen(address(), 1).expect("the port is free");
        let mut near = resolved(client);
        let near_parts = parts(&mut near);
        near.connect(parameters).expect("it is sent");
        let event = listener.next_event().expect("it can be read");
        let Some(ConnectionEvent::ConnectRequest { endpoint: mut far, .. }) = event else {
            panic!("expected a request: {event:?}")
        };
        let far_parts = parts(&mut far);
        far.accept(parameters).expect("it is sent");
        let client = finish(near, near_parts);
        Self { client, server: finish(far, far_parts), _listener: listener }
    }
}

type Parts<P> = (ProtectionDomain<P>, CompletionQueue<P>, verbs::PreparedQueuePair<P>);

fn parts<P: Provider>(endpoint: &mut Endpoint<P>) -> Parts<P> {
    let domain = endpoint.domain().expect("a domain");
    let queue = endpoint.completion_queue(SIZE.max_send_wr + SIZE.max_recv_wr).expect("a queue");
    let pair = endpoint.queue_pair(&domain, &queue, SIZE).expect("a queue pair");
    (domain, queue, pair)
}

fn finish<P: Provider + Debug>(mut endpoint: Endpoint<P>, parts: Parts<P>) -> End<P> {
    let (domain, queue, prepared) = parts;
    let queue_pair = prepared.ready(&established(&mut endpoint));
    End { endpoint, domain, queue, queue_pair }
}

impl<P: Provider> End<P> {
    pub(super) fn post_receives(&mut self, count: u64) {
        for tag in 0..count {
            let buffer = self.buffer(64);
            self.queue_pair.post_receive(buffer, tag).expect("there is room");
        }
        self.queue_pair.flush().expect("the device takes them");
    }

    pub(super) fn send(&mut self, message: &[u8]) {
        let mut buffer = self.buffer(message.len());
        buffer.copy_in(0, message);
        self.queue_pair.send(buffer, 0).expect("there is room");
        self.queue_pair.flush().expect("the device takes it");
    }

    pub(super) fn poll(&mut self) -> Vec<Completion> {
        let mut completions = [Completion::default(); 64];
        let count = self.queue.poll(&mut completions).expect("the queue has not overrun");
        completions[..count].to_vec()
    }

    /// Polls completions and returns their statuses.
    pub(super) fn statuses(&mut self) -> Vec<Status> {
        let completions = self.poll();
        for completion in &completions {
            self.queue_pair.complete(completion).expect("it is ours");
        }
        completions.iter().map(|completion| completion.status()).collect()
    }

    /// Polls completions and returns the messages received.
    pub(super) fn messages(&mut self) -> Vec<Vec<u8>> {
        let completions = self.poll();
        let take = |completion| {
            let completed = self.queue_pair.complete(completion).expect("it is ours");
            let CompletedWork::Receive { buffer, length, .. } = completed else {
                panic!("{completed:?}")
            };
            let mut bytes = vec![0; length as usize];
            buffer.copy_out(0, &mut bytes);
            bytes
        };
        completions.iter().map(take).collect()
    }

    fn buffer(&self, length: usize) -> Buffer {
        self.domain.allocate(length, Access::LOCAL_WRITE).expect("memory")
    }
}

pub(super) fn hosts(fabric: &Fabric) -> (Arc<Host>, Arc<Host>) {
    let near = fabric.host("client", [10, 0, 0, 1].into());
    (near, fabric.host("server", [10, 0, 0, 2].into()))
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4420))
}

pub(super) fn resolved<P: Provider + Debug>(provider: Arc<P>) -> Endpoint<P> {
    let mut endpoint = Endpoint::open_with(provider).expect("an endpoint");
    endpoint.resolve_address(None, address(), PATIENT).expect("a device leads there");
    let event = endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::AddressResolved)), "{event:?}");
    endpoint.set_ack_timeout(14).expect("it is a small number");
    endpoint.resolve_route(PATIENT).expect("the address is resolved");
    let event = endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::RouteResolved)), "{event:?}");
    endpoint
}

pub(super) fn established<P: Provider + Debug>(endpoint: &mut Endpoint<P>) -> Established {
    let event = endpoint.next_event().expect("it can be read");
    let Some(ConnectionEvent::Established(established)) = event else {
        panic!("expected a connection: {event:?}")
    };
    established
}
