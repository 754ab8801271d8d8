//! Random operations and faults: each work request ends once, and no object is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use verbs::{ConnectParameters, Status};

use super::{Fabric, Fault, Host, Link, Pair, Point, pair::End};
use crate::link::Random;

#[test]
fn every_work_request_completes_once() {
    let mut endings = BTreeSet::new();
    let runs = if cfg!(miri) { 3 } else { 300 };
    for seed in 0..runs {
        let (first, again) = (run(seed), run(seed));
        assert_eq!(first, again, "seed {seed} is not the same twice");
        endings.extend(first.into_iter().map(|(_, ending)| ending));
    }
    if cfg!(miri) {
        return; // too few runs to cover everything
    }
    // The runs vary: successes and failures of all kinds, and requests that never completed.
    for status in [
        Status::SUCCESS,
        Status::LOCAL_LENGTH,
        Status::FLUSHED,
        Status::REMOTE_INVALID_REQUEST,
        Status::RETRY_EXCEEDED,
        Status::RECEIVER_NOT_READY,
        Status::GENERAL,
        Status(u32::MAX),
    ] {
        assert!(endings.contains(&status.0), "{status:?} never came: {endings:?}");
    }
}

/// Runs random operations on two connected ends; returns the completion status of each work
/// request.
fn run(seed: u64) -> Vec<(u64, u32)> {
    let mut random = Random::new(seed);
    let fabric = Fabric::auto(seed);
    let parameters = ConnectParameters { rnr_retry_count: 2, ..ConnectParameters::default() };
    let mut pair = Pair::connect_with(&fabric, &parameters);
    if seed.is_multiple_of(2) {
        fabric.simulation.disable_auto(); // from now on by steps
    }
    fabric.set_link(Link { lost_per_mille: 50, reordered_per_mille: 50, ..Link::default() });
    let mut ended = BTreeMap::new();
    let mut posted = 0;
    for _ in 0..60 {
        let end = if random.next().is_multiple_of(2) { &mut pair.client } else { &mut pair.server };
        match random.next() % 12 {
            0..3 => {
                let size = usize::try_from(random.next() % 80 + 1).expect("a small number");
                posted += u64::from(post_send(end, posted, size));
            }
            3..6 => posted += u64::from(post_receive(end, posted)),
            6 | 7 => drop(fabric.step()),
            8 => fabric.advance(Duration::from_millis(random.next() % 700)),
            9 => inject_fault(&fabric, random.next()),
            10 if random.next().is_multiple_of(8) => drop(end.endpoint.disconnect()),
            _ => take(end, &mut ended, seed),
        }
    }
    fabric.run_until_idle();
    take(&mut pair.client, &mut ended, seed);
    take(&mut pair.server, &mut ended, seed);
    let Pair { client, server, .. } = pair;
    for end in [client, server] {
        for returned in end.queue_pair.close() {
            let twice = ended.insert(returned.tag, u32::MAX);
            assert_eq!(twice, None, "seed {seed}: {} came back twice", returned.tag);
        }
    }
    fabric.run_until_idle();
    assert_eq!(ended.len() as u64, posted, "seed {seed}: something is lost");
    ended.into_iter().collect()
}

fn post_send(end: &mut End<Host>, tag: u64, size: usize) -> bool {
    let buffer = end.domain.allocate(size, verbs::Access::NONE);
    let Ok(buffer) = buffer else { return false }; // the device has been removed
    let posted = end.queue_pair.send(buffer, tag).is_ok();
    let _ = end.queue_pair.flush(); // requests refused by a removed device come back at the end
    posted
}

fn post_receive(end: &mut End<Host>, tag: u64) -> bool {
    let Ok(buffer) = end.domain.allocate(64, verbs::Access::LOCAL_WRITE) else { return false };
    let posted = end.queue_pair.post_receive(buffer, tag).is_ok();
    let _ = end.queue_pair.flush();
    posted
}

fn inject_fault(fabric: &Fabric, choice: u64) {
    let nth = u32::try_from(choice % 5 + 1).expect("a small number");
    match choice % 13 {
        0 => fabric.partition("client", "server"),
        1 | 2 => fabric.heal("client", "server"),
        3 => fabric.at(Point::message("client", nth), Fault::Drop),
        4 => fabric.at(Point::message("server", nth), Fault::Delay(Duration::from_secs(1))),
        5 => fabric.at(Point::completion("client", nth), Fault::Duplicate),
        6 => fabric.at(Point::completion("server", nth), Fault::Fail(Status::GENERAL)),
        7 if choice.is_multiple_of(5) => fabric.remove_device("server"),
        _ => fabric.settle(),
    }
}

/// Handles completions; a duplicate is recognized as such.
fn take(end: &mut End<Host>, ended: &mut BTreeMap<u64, u32>, seed: u64) {
    for completion in end.poll() {
        let tag = match end.queue_pair.complete(&completion) {
            Ok(
                verbs::CompletedWork::Receive { tag, .. } | verbs::CompletedWork::Send { tag, .. },
            ) => tag,
            Ok(verbs::CompletedWork::Credit) => {
                panic!("seed {seed}: nothing of that kind was posted")
            }
            Err(verbs::StaleCompletion) => continue,
        };
        let twice = ended.insert(tag, completion.status().0);
        assert_eq!(twice, None, "seed {seed}: {tag} ended twice");
    }
}
