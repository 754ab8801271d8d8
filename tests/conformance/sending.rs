//! Sends and receives: order, credits, waiting, and what fails how.

use std::os::fd::AsFd;

use verbs::{Access, CompletedWork, ConnectParameters, Error};

use super::{
    connecting::refusal,
    fixture::{Bench, Case, PATIENT, Pair, readable},
};

pub(crate) fn cases<B: Bench>() -> Vec<Case<B>> {
    vec![
        Case { name: "arm: after a completion", must: "0 events", ask: armed_late },
        Case { name: "arm: before a completion", must: "1 events, then 0", ask: armed_early },
        Case { name: "send: a failed pair flushes", must: "5 flushed, 32 credits", ask: flushed },
        Case { name: "send: credits come back", must: "500 messages", ask: credits },
        Case { name: "send: empty", must: "0 bytes", ask: empty },
        Case { name: "send: gathered", must: "one two", ask: gathered },
        Case { name: "send: in order", must: "in order", ask: in_order },
        Case { name: "send: no receive, then one", must: "patient", ask: late_receive },
        Case {
            name: "send: no receive, retries used up",
            must: "[RECEIVER_NOT_READY, FLUSHED]",
            ask: no_receive,
        },
        Case {
            name: "send: too long",
            must: "server [LOCAL_LENGTH, FLUSHED], client [REMOTE_INVALID_REQUEST, FLUSHED]",
            ask: too_long,
        },
        Case { name: "close: nothing is lost", must: "3 receives", ask: closed },
    ]
}

fn armed_early<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(2, 64);
    pair.server.queue.arm().expect("the device is there");
    pair.client.send(b"one");
    pair.client.send(b"two");
    bench.quiet(PATIENT / 100);
    assert!(readable(pair.server.queue.as_fd(), PATIENT / 100), "the file is readable");
    let first = pair.server.queue.acknowledge().expect("it can be read");
    let second = pair.server.queue.acknowledge().expect("it can be read");
    assert!(!readable(pair.server.queue.as_fd(), PATIENT / 100), "the file is not readable");
    format!("{first} events, then {second}")
}

fn armed_late<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(1, 64);
    pair.client.send(b"one");
    bench.quiet(PATIENT / 100);
    pair.server.queue.arm().expect("the device is there");
    bench.quiet(PATIENT / 100);
    format!("{} events", pair.server.queue.acknowledge().expect("it can be read"))
}

fn in_order<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(32, 64);
    for number in 0..32_u8 {
        let sent = pair.client.buffer(&[number; 16], Access::NONE);
        pair.client.queue_pair.send(sent, 0).expect("there is room");
    }
    pair.client.queue_pair.flush().expect("the device takes them");
    let came = pair.server.messages(bench, 32);
    let ordered = (0..32_u8).zip(&came).all(|(number, one)| *one == [number; 16]);
    let sent = pair.client_says(32).iter().all(|status| status.is_success());
    if ordered && sent { "in order".to_owned() } else { format!("{came:?}") }
}

fn empty<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(1, 64);
    pair.client.queue_pair.send_inline(b"").expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    format!("{} bytes", pair.server.messages(bench, 1)[0].len())
}

fn gathered<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(1, 64);
    let parts = [&b"one "[..], b"two"].map(|part| pair.client.buffer(part, Access::NONE));
    let [first, second] = parts;
    pair.client.queue_pair.send((first, second), 0).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    String::from_utf8_lossy(&pair.server.messages(bench, 1)[0]).into_owned()
}

fn credits<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let mut arrived = 0;
    for _ in 0..500 {
        pair.server.post_receives(1, 64);
        loop {
            match pair.client.queue_pair.send_inline(b"message") {
                Ok(()) => break,
                Err(Error::QueueFull) => drop(pair.client_says(1)),
                Err(other) => panic!("{other}"),
            }
        }
        pair.client.queue_pair.flush().expect("the device takes it");
        arrived += pair.server.messages(bench, 1).len();
    }
    format!("{arrived} messages")
}

fn late_receive<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.client.send(b"patient");
    bench.quiet(PATIENT / 100);
    pair.server.post_receives(1, 64);
    String::from_utf8_lossy(&pair.server.messages(bench, 1)[0]).into_owned()
}

fn no_receive<B: Bench>(bench: &B) -> String {
    let parameters = ConnectParameters { rnr_retry_count: 1, ..ConnectParameters::default() };
    let mut pair = Pair::with(bench, &parameters);
    pair.client.send(b"one");
    pair.client.send(b"two");
    format!("{:?}", pair.client_says(2))
}

fn too_long<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(2, 16);
    pair.client.send(&[1; 64]);
    pair.client.send(b"later");
    let server = pair.server_says(2);
    format!("server {server:?}, client {:?}", pair.client_says(2))
}

fn flushed<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.client.endpoint.disconnect().expect("there is a connection");
    bench.quiet(PATIENT / 100);
    for _ in 0..5 {
        pair.client.queue_pair.send_inline(b"late").expect("there is room");
    }
    if let Err(error) = pair.client.queue_pair.flush() {
        return refusal::<()>(Err(error));
    }
    let statuses = pair.client_says(5);
    let flushed = statuses.iter().filter(|&&status| status == verbs::Status::FLUSHED).count();
    format!("{flushed} flushed, {} credits", pair.client.queue_pair.send_credits())
}

fn closed<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(4, 64);
    pair.client.send(b"one");
    let completions = pair.server.completions(bench, 1);
    let completed = pair.server.queue_pair.complete(&completions[0]).expect("it is ours");
    assert!(matches!(completed, CompletedWork::Receive { tag: 0, length: 3, .. }), "{completed:?}");
    format!("{} receives", pair.server.queue_pair.close().len())
}
