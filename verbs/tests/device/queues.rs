//! Completion queues that change their size, and waiting for them.

use std::time::{Duration, Instant};

use verbs::{Completion, Error, Status};

use crate::{
    memory,
    pair::{CAPABILITIES, Pair, TIMEOUT, readable},
};

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_queue_grows_with_completions_in_it() {
    let mut pair = Pair::connect(4771, CAPABILITIES);
    let before = pair.client.queue.capacity();
    for _ in 0..CAPABILITIES.max_send_wr / 2 {
        let buffer = memory(&pair.server, 64);
        pair.server.queue_pair.post_receive(buffer, 0).expect("there is room");
        let buffer = memory(&pair.client, 64);
        pair.client.queue_pair.send(buffer, 0).expect("there is room");
    }
    pair.server.queue_pair.flush().expect("the device takes them");
    pair.client.queue_pair.flush().expect("the device takes them");
    pair.server.completions(CAPABILITIES.max_send_wr as usize / 2);
    assert!(matches!(pair.client.queue.resize(1), Err(Error::Misuse(_))), "more is reserved");
    pair.client.queue.resize(4 * before).expect("rxe can");
    assert!(pair.client.queue.capacity() >= 4 * before);
    for completion in pair.client.completions(CAPABILITIES.max_send_wr as usize / 2) {
        assert_eq!(completion.status(), Status::SUCCESS);
        pair.client.queue_pair.complete(&completion).expect("it is ours");
    }
    let most = pair.client.endpoint.limits().expect("limits").completion_queue_entries;
    let refused = pair.client.queue.resize(most + 1).expect_err("beyond the device's limit");
    assert!(matches!(refused, Error::ResizeCompletionQueue { .. }), "{refused}");
    assert!(pair.client.queue.capacity() >= 4 * before, "it is as it was");
}

/// Safety of sleeping: a completion that arrives between a poll and the arming makes no event, and
/// is found by the poll after the arming; one that arrives later makes an event.
#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_completion_between_poll_and_arm_is_never_lost() {
    let mut pair = Pair::connect(4772, CAPABILITIES);
    let mut out = [Completion::default(); 4];
    for delay in [0, 50, 200, 1000, 5000].into_iter().cycle().take(200) {
        let buffer = memory(&pair.server, 64);
        pair.server.queue_pair.post_receive(buffer, 0).expect("there is room");
        pair.server.queue_pair.flush().expect("the device takes it");
        assert_eq!(pair.server.queue.poll(&mut out).expect("it works"), 0);
        pair.client.queue_pair.send_inline(b"now").expect("there is room");
        pair.client.queue_pair.flush().expect("the device takes it");
        std::thread::sleep(Duration::from_micros(delay));
        // Whether the message is here by now or not, one of these two finds it.
        pair.server.queue.arm().expect("the device is there");
        let mut count = pair.server.queue.poll(&mut out).expect("it works");
        while count == 0 {
            assert!(readable(&pair.server.queue, Instant::now() + TIMEOUT), "the wake was lost");
            pair.server.queue.acknowledge().expect("the channel can be read");
            // The event may be of a completion that the poll after an earlier arming has found.
            pair.server.queue.arm().expect("the device is there");
            count = pair.server.queue.poll(&mut out).expect("it works");
        }
        assert_eq!(count, 1, "after {delay} µs");
        pair.server.queue_pair.complete(&out[0]).expect("it is ours");
        let count = pair.client.queue.poll(&mut out).expect("it works");
        for completion in &out[..count] {
            pair.client.queue_pair.complete(completion).expect("it is ours");
        }
    }
}
