//! Shared receive queues, queues that grow, and what a device reports by itself.

use std::time::Duration;

use verbs::{
    Access, Capabilities, CompletedWork, ConnectParameters, EventSubject, ProtectionDomain,
    RemoteAddress, SharedReceiveQueue, Status,
};

use super::fixture::{Bench, Case, End, Pair, Prepared, SIZE, listen, requested, resolved};

pub(crate) fn cases<B: Bench>() -> Vec<Case<B>> {
    vec![
        Case {
            name: "event: access refused",
            must: "[QUEUE_PAIR_ACCESS_ERROR of the pair]",
            ask: access_refused,
        },
        Case {
            name: "event: no more of a shared queue",
            must: "[LAST_RECEIVE_REACHED of the pair]",
            ask: last_receive,
        },
        Case {
            name: "event: queue overrun",
            must: "[COMPLETION_QUEUE_ERROR of the queue]",
            ask: overrun,
        },
        Case { name: "queue: grown with entries", must: "256, [SUCCESS, SUCCESS]", ask: grown },
        Case { name: "shared: in order", must: "[(0, 1), (1, 2), (2, 1)]", ask: in_order },
        Case {
            name: "shared: left to the others",
            must: "[] flushed, then [(0, 1)]",
            ask: left_toothers,
        },
    ]
}

/// A connection whose server takes its receives from a shared queue.
fn sharing<'a, B: Bench>(
    bench: &'a B,
    shared: &mut Option<SharedReceiveQueue<B::Provider>>,
) -> Pair<'a, B> {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    let mut endpoint = requested(bench, &mut listener);
    let make = || {
        let domain = endpoint.domain().expect("a domain");
        let mut queue = domain.shared_receive_queue(8).expect("a shared receive queue");
        for tag in 0..4 {
            let buffer = domain.allocate(64, Access::LOCAL_WRITE).expect("memory");
            queue.post_receive(buffer, tag).expect("there is room");
        }
        queue.flush().expect("the device takes them");
        queue
    };
    let shared = &*shared.get_or_insert_with(make);
    let domain = endpoint.domain().expect("a domain");
    let queue = endpoint.completion_queue(SIZE.max_send_wr + SIZE.max_recv_wr).expect("a queue");
    let size = Capabilities { max_recv_wr: 0, ..SIZE };
    let queue_pair = endpoint.queue_pair_sharing(&queue, shared, size).expect("a queue pair");
    let mut server = Prepared { endpoint, domain, queue, queue_pair };
    server.endpoint.accept(&ConnectParameters::default()).expect("it is sent");
    let (client, _) = client.ready(bench);
    Pair { bench, client, server: server.ready(bench).0 }
}

/// Sends one message; returns the tag of the receive that took it, and the message's length.
fn take<B: Bench>(
    pair: &mut Pair<'_, B>,
    shared: &mut Option<SharedReceiveQueue<B::Provider>>,
    message: &[u8],
) -> (u64, u32) {
    pair.client.send(message);
    let completions = pair.server.completions(pair.bench, 1);
    let shared = shared.as_mut().expect("it was made");
    match pair.server.queue_pair.complete_shared(&completions[0], shared) {
        Ok(CompletedWork::Receive { tag, length, .. }) => (tag, length),
        other => panic!("expected a message: {other:?}"),
    }
}

fn in_order<B: Bench>(bench: &B) -> String {
    let mut shared = None;
    let (mut first, mut second) = (sharing(bench, &mut shared), sharing(bench, &mut shared));
    let taken = [
        take(&mut first, &mut shared, b"a"),
        take(&mut second, &mut shared, b"bb"),
        take(&mut first, &mut shared, b"c"),
    ];
    format!("{taken:?}")
}

fn left_toothers<B: Bench>(bench: &B) -> String {
    let mut shared = None;
    let (mut first, mut second) = (sharing(bench, &mut shared), sharing(bench, &mut shared));
    first.server.endpoint.disconnect().expect("there is a connection");
    bench.quiet(Duration::from_millis(50));
    let mut flushed = [verbs::Completion::default(); 4];
    let count = first.server.queue.poll(&mut flushed).expect("it has not overrun");
    let taken = take(&mut second, &mut shared, b"a");
    format!("{:?} flushed, then [{taken:?}]", &flushed[..count])
}

fn grown<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(2, 64);
    pair.client.send(b"one");
    pair.client.send(b"two");
    bench.quiet(Duration::from_millis(50));
    pair.client.queue.resize(256).expect("the device can");
    let capacity = if pair.client.queue.capacity() >= 256 { "256" } else { "less" };
    format!("{capacity}, {:?}", pair.client_says(2))
}

/// What the device of a domain reported, of a certain object or otherwise; once, however often.
fn reported<B: Bench>(
    bench: &B,
    domain: &ProtectionDomain<B::Provider>,
    (subject, name): (EventSubject, &str),
) -> String {
    bench.quiet(Duration::from_millis(50));
    let mut said = Vec::new();
    while let Some(event) = domain.next_event().expect("events can be read") {
        let certain = event.subject == subject;
        let of = if certain { name.to_owned() } else { format!("{:?}", event.subject) };
        said.push(format!("{:?} of {of}", event.kind));
    }
    said.dedup();
    format!("[{}]", said.join(", "))
}

fn access_refused<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 32], Access::REMOTE_READ);
    let at = RemoteAddress { address: memory.address(), key: memory.remote_key() };
    let bytes = pair.client.buffer(&[2; 32], Access::NONE);
    pair.client.queue_pair.rdma_write(bytes, at, 0).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    let client = pair.client_says(1);
    if client != [Status::REMOTE_ACCESS] {
        return format!("client {client:?}");
    }
    let number = pair.server.queue_pair.number();
    reported(bench, &pair.server.domain, (EventSubject::QueuePair(number), "the pair"))
}

/// A queue pair reserves room for all its completions, but gives it back when it is closed, while
/// its completions stay: so queue pairs that are closed one after the other, unpolled, overrun
/// the queue. The device says which of two queues it was.
fn overrun<B: Bench>(bench: &B) -> String {
    let (mut listener, address) = listen(bench);
    let mut kept = None;
    let mut sent = 0;
    loop {
        let mut client = Prepared::new(resolved(bench, address));
        client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
        let mut endpoint = requested(bench, &mut listener);
        let (domain, other, queue) = kept.take().unwrap_or_else(|| {
            let domain = endpoint.domain().expect("a domain");
            let make =
                || endpoint.completion_queue(SIZE.max_send_wr + SIZE.max_recv_wr).expect("a queue");
            (domain, make(), make())
        });
        let queue_pair = endpoint.queue_pair(&domain, &queue, SIZE).expect("room is back");
        let mut server = Prepared { endpoint, domain, queue, queue_pair };
        for tag in 0..SIZE.max_recv_wr {
            let buffer = server.domain.allocate(64, Access::LOCAL_WRITE).expect("memory");
            server.queue_pair.post_receive(buffer, tag.into()).expect("there is room");
        }
        server.queue_pair.flush().expect("the device takes them");
        server.endpoint.accept(&ConnectParameters::default()).expect("it is sent");
        let (client, _) = client.ready(bench);
        let mut pair = Pair { bench, client, server: server.ready(bench).0 };
        for _ in 0..SIZE.max_recv_wr {
            pair.client.send(b"one more");
        }
        // The one without room for its completion may or may not be acknowledged.
        pair.client_says(SIZE.max_recv_wr as usize);
        sent += SIZE.max_recv_wr;
        let End { domain, queue, queue_pair, .. } = pair.server;
        queue_pair.close();
        if sent > queue.capacity() {
            assert_ne!(queue.number(), other.number());
            let subject = EventSubject::CompletionQueue(queue.number());
            return reported(bench, &domain, (subject, "the queue"));
        }
        kept = Some((domain, other, queue));
    }
}

fn last_receive<B: Bench>(bench: &B) -> String {
    let mut shared = None;
    let mut pair = sharing(bench, &mut shared);
    pair.server.endpoint.disconnect().expect("there is a connection");
    let number = pair.server.queue_pair.number();
    reported(bench, &pair.server.domain, (EventSubject::QueuePair(number), "the pair"))
}
