//! Completion queues that grow, and what a device reports by itself.

use std::time::Duration;

use verbs::{Access, ConnectParameters, EventSubject, ProtectionDomain, RemoteAddress, Status};

use super::fixture::{Bench, Case, End, Pair, Prepared, SIZE, listen, requested, resolved};

pub(crate) fn cases<B: Bench>() -> Vec<Case<B>> {
    vec![
        Case {
            name: "event: access refused",
            must: "[QUEUE_PAIR_ACCESS_ERROR of the pair]",
            ask: access_refused,
        },
        Case {
            name: "event: queue overrun",
            must: "[COMPLETION_QUEUE_ERROR of the queue]",
            ask: overrun,
        },
        Case { name: "queue: grown with entries", must: "256, [SUCCESS, SUCCESS]", ask: grown },
    ]
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

/// Event that the device reported, for a certain object or otherwise; once, if it came more often.
fn reported<B: Bench>(
    bench: &B,
    domain: &ProtectionDomain<B::Provider>,
    subject: EventSubject,
    name: &str,
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
    reported(bench, &pair.server.domain, EventSubject::QueuePair(number), "the pair")
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
            return reported(bench, &domain, subject, "the queue");
        }
        kept = Some((domain, other, queue));
    }
}
