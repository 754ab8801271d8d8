//! Queue pairs that share their receives.

use super::*;
use crate::SharedReceiveQueue;

const SIZE: Capabilities = Capabilities { max_recv_wr: 0, ..CAPABILITIES };

#[test]
fn shared_receives_are_one_batch_and_retire_there() {
    let (device, domain, mut shared, mut pair) = sharing();
    shared.post_receive(buffer(&domain, 10), 1).expect("there is room");
    shared.post_receive(buffer(&domain, 11), 2).expect("there is room");
    device.log().lines.clear();
    shared.flush().expect("the device takes both");
    shared.flush().expect("there is nothing to do");
    assert_eq!(device.calls(), ["shared receive 10 11"]);
    let completion = Completion::new(device.tokens()[1], Status::SUCCESS, NUMBER, 7);
    assert_eq!(pair.complete(&completion).expect_err("it has none itself"), StaleCompletion);
    let completed = pair.complete_shared(&completion, &mut shared).expect("it is of the queue");
    assert!(matches!(completed, CompletedWork::Receive { tag: 2, length: 7, .. }), "{completed:?}");
    assert!(pair.complete_shared(&completion, &mut shared).is_err(), "only once");
    let elsewhere = Completion::new(device.tokens()[0], Status::SUCCESS, NUMBER + 1, 7);
    assert!(pair.complete_shared(&elsewhere, &mut shared).is_err(), "of another queue pair");
    assert!(shared.complete(&elsewhere).is_ok(), "which may be gone");
    assert_eq!(shared.receive_credits(), 4);
    let refused = pair.post_receive(buffer(&domain, 10), 1).expect_err("it has none itself");
    assert!(matches!(refused.error, Error::QueueFull));
}

#[test]
fn a_shared_queue_closes_after_its_queue_pairs() {
    let (device, domain, mut shared, pair) = sharing();
    shared.post_receive(buffer(&domain, 10), 1).expect("there is room");
    let shared = shared.close().expect_err("the device may still write there");
    device.log().lines.clear();
    drop(pair);
    let returned = shared.close().expect("nobody shares it");
    assert_eq!(device.calls(), ["queue pair destroyed", "shared receive queue destroyed"]);
    assert_eq!((returned.len(), returned[0].tag, returned[0].kind), (1, 1, WorkKind::Receive));
}

#[test]
fn those_who_share_reserve_room_for_the_receives_once() {
    let device = Device::new();
    let mut endpoint = open(&device);
    let domain = endpoint.domain().expect("a domain");
    let shared = domain.shared_receive_queue(4).expect("a queue");
    let mut queue = endpoint.completion_queue(8 + 8 + 4).expect("a queue");
    let mut make =
        |queue: &CompletionQueue<Device>| endpoint.queue_pair_sharing(queue, &shared, SIZE);
    let pairs = [make(&queue), make(&queue)].map(|pair| pair.expect("there is room for two"));
    assert!(matches!(make(&queue), Err(Error::Misuse(_))), "there is none for three");
    assert!(matches!(queue.resize(19), Err(Error::Misuse(_))), "that is reserved");
    queue.resize(28).expect("the device below is never full");
    assert_eq!(queue.capacity(), 28);
    let third = make(&queue).expect("now there is room for three");
    drop((pairs, third));
    queue.resize(1).expect("nothing is reserved any more");
}

#[test]
fn a_queue_pair_has_receives_of_its_own_or_shares() {
    let mut endpoint = open(&Device::new());
    let domain = endpoint.domain().expect("a domain");
    let shared = domain.shared_receive_queue(4).expect("a queue");
    let queue = endpoint.completion_queue(64).expect("a queue");
    let both = endpoint.queue_pair_sharing(&queue, &shared, CAPABILITIES);
    assert!(matches!(both, Err(Error::Misuse(_))));
    assert!(matches!(domain.shared_receive_queue(0), Err(Error::Misuse(_))));
}

fn sharing() -> (Device, ProtectionDomain<Device>, SharedReceiveQueue<Device>, QueuePair<Device>) {
    let device = Device::new();
    let mut endpoint = open(&device);
    let domain = endpoint.domain().expect("a domain");
    let queue = endpoint.completion_queue(16).expect("a queue");
    let shared = domain.shared_receive_queue(4).expect("a queue");
    let pair = endpoint.queue_pair_sharing(&queue, &shared, SIZE).expect("a queue pair");
    let pair = pair.ready(&established(&mut endpoint));
    (device, domain, shared, pair)
}
