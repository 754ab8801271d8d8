//! Tests of sleeping on a completion queue, and of the race between polling and arming.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::Completion;

use super::*;

/// Connects a pair whose server has posted a receive, and turns automatic delivery off.
fn held(seed: u64) -> (Fabric, Pair<Host>) {
    let fabric = Fabric::auto(seed);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(2);
    fabric.simulation.disable_auto();
    (fabric, pair)
}

fn wakes(file: impl AsFd) -> bool {
    let mut files = [PollFd::new(&file, PollFlags::IN)];
    poll(&mut files, Some(&Timespec::default())).expect("polling is possible") > 0
}

/// Shows that a poll must follow the arming: a completion just before it raises no event.
#[test]
fn a_completion_just_before_the_arming_makes_no_event() {
    let (fabric, mut pair) = held(31);
    assert_eq!(pair.server.poll().len(), 0);
    pair.client.send(b"too early");
    fabric.at(Point::arm("server", 1), Fault::Arrive);
    pair.server.queue.arm().expect("the device is there");
    assert!(!wakes(&pair.server.queue), "whoever slept now would sleep for ever");
    assert_eq!(pair.server.messages(), [b"too early".to_vec()]);
}

#[test]
fn a_completion_between_poll_and_arming_is_found() {
    let (fabric, mut pair) = held(32);
    let mut out = [Completion::default(); 4];
    pair.client.send(b"in between");
    fabric.at(Point::arm("server", 1), Fault::Arrive);
    assert_eq!(pair.server.queue.poll_or_arm(&mut out).expect("it works"), 1);
}

#[test]
fn a_completion_after_the_arming_wakes() {
    let (fabric, mut pair) = held(33);
    let mut out = [Completion::default(); 4];
    for _ in 0..2 {
        assert_eq!(pair.server.queue.poll_or_arm(&mut out).expect("it works"), 0);
        assert!(!wakes(&pair.server.queue));
        pair.client.send(b"wake up");
        fabric.settle();
        assert!(wakes(&pair.server.queue));
        assert_eq!(pair.server.queue.poll_or_arm(&mut out).expect("it works"), 1);
    }
    assert_eq!(pair.server.queue.poll_or_arm(&mut out).expect("it works"), 0);
    assert!(!wakes(&pair.server.queue), "events of what was found are taken off before sleeping");
}
