//! Tests of sleeping on a completion queue, and of the race between polling and arming.

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

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

/// Waker that counts its calls.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_in_virtual_time_are_woken_without_descriptors() {
    let fabric = Fabric::in_virtual_time(34);
    let (client, server) = pair::hosts(&fabric);
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    let mut endpoint = Endpoint::open_with(client).expect("an endpoint");
    let readiness = fabric.readiness(endpoint.as_fd()).expect("it is of this fabric");
    let (count, other) = (Arc::new(Count::default()), Fabric::new(1));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    assert!(other.readiness(endpoint.as_fd()).is_none());
    endpoint.resolve_address(None, address(), PATIENT).expect("there is a device");
    assert!(readiness.poll_ready(&mut context).is_pending(), "nothing has happened");
    let next = fabric.next_event().expect("the resolution is scheduled");
    fabric.advance(next);
    assert_eq!((fabric.now(), count.0.load(Ordering::Relaxed)), (next, 1));
    assert!(!wakes(&endpoint), "the descriptor is not used");
    assert!(readiness.poll_ready(&mut context).is_ready());
    assert!(readiness.poll_ready(&mut context).is_pending(), "once for each event");
    let late = fabric.readiness(endpoint.as_fd()).expect("it is of this fabric");
    assert!(late.poll_ready(&mut context).is_ready(), "the event is not read yet");
    assert!(endpoint.next_event().expect("it can be read").is_some());
    let later = fabric.readiness(endpoint.as_fd()).expect("it is of this fabric");
    assert!(later.poll_ready(&mut context).is_pending(), "it was read");
}
