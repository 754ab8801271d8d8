//! Tests of faults, timeouts and determinism.

mod chaos;
mod pair;
mod port;
mod read_only;
mod reads;
mod waiting;

use std::time::Duration;

use verbs::{
    ConnectParameters, ConnectionEvent, DeviceEventKind, Endpoint, Error, Provider, Status,
};

use super::*;
use pair::{PATIENT, Pair, address, resolved};

#[test]
fn nothing_happens_without_a_step() {
    let fabric = Fabric::new(1);
    let (client, server) = pair::hosts(&fabric);
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    let mut endpoint = Endpoint::open_with(client).expect("an endpoint");
    endpoint.resolve_address(None, address(), PATIENT).expect("there is a device");
    assert!(endpoint.next_event().expect("it can be read").is_none());
    assert!(fabric.step());
    let event = endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::AddressResolved)), "{event:?}");
    assert!(!fabric.step(), "nothing else was planned");
}

#[test]
fn a_cut_network_exceeds_the_retries() {
    let fabric = Fabric::auto(2);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(2);
    fabric.partition("client", "server");
    pair.client.send(b"into the void");
    fabric.advance(Duration::from_millis(300));
    assert_eq!(pair.client.statuses(), [], "four retries of 67 ms are not over");
    fabric.advance(Duration::from_millis(100));
    assert_eq!(pair.client.statuses(), [Status::RETRY_EXCEEDED]);
    assert_eq!(pair.server.statuses(), [], "that side does not notice");
}

#[test]
fn a_restored_network_delivers_pending_sends() {
    let fabric = Fabric::auto(3);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(2);
    fabric.partition("client", "server");
    pair.client.send(b"first");
    pair.client.send(b"second");
    fabric.advance(Duration::from_millis(200));
    fabric.heal("server", "client");
    fabric.settle();
    assert_eq!(pair.server.messages(), [b"first".to_vec(), b"second".to_vec()]);
    fabric.run_until_idle();
    assert!(pair.client.statuses().iter().all(|status| status.is_success()));
}

#[test]
fn loss_costs_time_and_nothing_else() {
    let run = |lost_per_mille| {
        let fabric = Fabric::auto(4);
        let mut pair = Pair::connect(&fabric);
        fabric.set_link(Link { lost_per_mille, reordered_per_mille: 100, ..Link::default() });
        for round in 0..50_u8 {
            pair.server.post_receives(1);
            pair.client.send(&[round; 32]);
            assert_eq!(pair.server.messages(), [vec![round; 32]]);
            assert!(pair.client.statuses().iter().all(|status| status.is_success()));
        }
        fabric.now()
    };
    let (quiet, lossy) = (run(0), run(100));
    assert!(quiet < Duration::from_millis(10), "{quiet:?}");
    assert!(lossy > quiet + Duration::from_millis(300), "{lossy:?}");
}

#[test]
fn a_late_receive_costs_an_rnr_timer_tick() {
    let fabric = Fabric::auto(5);
    let mut pair = Pair::connect(&fabric);
    pair.client.send(b"early");
    assert_eq!(pair.server.statuses(), []);
    let before = fabric.now();
    pair.server.post_receives(1);
    assert_eq!(pair.server.messages(), [b"early".to_vec()]);
    let waited = fabric.now() - before;
    assert!(waited > Duration::from_millis(600), "{waited:?}");
}

#[test]
fn a_missing_receive_exceeds_the_rnr_retries() {
    let fabric = Fabric::auto(6);
    let parameters = ConnectParameters { rnr_retry_count: 2, ..ConnectParameters::default() };
    let mut pair = Pair::connect_with(&fabric, &parameters);
    pair.client.send(b"one");
    pair.client.send(b"two");
    fabric.advance(Duration::from_millis(1300));
    assert_eq!(pair.client.statuses(), []);
    fabric.advance(Duration::from_millis(20));
    assert_eq!(pair.client.statuses(), [Status::RECEIVER_NOT_READY, Status::FLUSHED]);
}

#[test]
fn removing_a_device_fails_its_objects() {
    let fabric = Fabric::auto(7);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(2);
    fabric.at(Point::Time(Duration::from_millis(1)), Fault::RemoveDevice("server".into()));
    fabric.advance(Duration::from_millis(2));
    assert_eq!(pair.server.statuses(), [Status::FLUSHED; 2]);
    let event = pair.server.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::DeviceRemoval)), "{event:?}");
    let refused = pair.server.endpoint.domain().expect_err("it is gone");
    assert!(matches!(refused, Error::CreateProtectionDomain(_)), "{refused}");
    assert!(matches!(pair.server.queue.arm(), Err(Error::Arm(_))));
    pair.client.send(b"anybody there?");
    fabric.run_until_idle();
    assert_eq!(pair.client.statuses(), [Status::RETRY_EXCEEDED]);
    drop(pair);
    fabric.restore_device("server");
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(1);
    pair.client.send(b"back again");
    assert_eq!(pair.server.messages(), [b"back again".to_vec()]);
}

#[test]
fn removing_a_device_raises_device_events() {
    let fabric = Fabric::auto(8);
    let (client, _) = pair::hosts(&fabric);
    let mut endpoint = client.endpoint().expect("an endpoint");
    let request = verbs::provider::CmRequest::ResolveAddress {
        source: None,
        destination: address(),
        timeout: PATIENT,
    };
    client.request(&mut endpoint, request).expect("there is a device");
    let domain = client.domain(&endpoint).expect("a domain");
    assert_eq!(client.device_event(&domain).expect("it can be read"), None);
    fabric.remove_device("client");
    let event = client.device_event(&domain).expect("it can be read").expect("it was told");
    assert_eq!(event.kind, DeviceEventKind::DEVICE_FATAL);
    assert_eq!(client.device_event(&domain).expect("it can be read"), None);
}

#[test]
fn faults_apply_to_messages() {
    let fabric = Fabric::auto(9);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(4);
    fabric.at(Point::message("client", 2), Fault::Corrupt { offset: 1, bits: 0x20 });
    fabric.at(Point::message("client", 3), Fault::Delay(Duration::from_secs(1)));
    fabric.at(Point::message("client", 4), Fault::Drop);
    pair.client.send(b"abc");
    pair.client.send(b"abc");
    assert_eq!(pair.server.messages(), [b"abc".to_vec(), b"aBc".to_vec()]);
    let before = fabric.now();
    pair.client.send(b"late");
    assert_eq!(pair.server.messages(), [b"late".to_vec()]);
    assert!(fabric.now() - before >= Duration::from_secs(1));
    pair.client.statuses();
    pair.client.send(b"lost");
    fabric.run_until_idle();
    assert_eq!(pair.client.statuses().last(), Some(&Status::RETRY_EXCEEDED));
}

#[test]
fn faults_apply_to_completions() {
    let fabric = Fabric::auto(10);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(4);
    fabric.at(Point::completion("server", 1), Fault::Duplicate);
    fabric.at(Point::completion("server", 2), Fault::Suppress);
    fabric.at(Point::completion("server", 3), Fault::Fail(Status::GENERAL));
    pair.client.send(b"twice");
    let completions = pair.server.poll();
    assert_eq!(completions.len(), 2);
    pair.server.queue_pair.complete(&completions[0]).expect("it is ours");
    pair.server.queue_pair.complete(&completions[1]).expect_err("it came before");
    pair.client.send(b"never");
    assert_eq!(pair.server.statuses(), []);
    pair.client.send(b"fails");
    assert_eq!(pair.server.statuses(), [Status::GENERAL, Status::FLUSHED]);
}

#[test]
fn faults_apply_to_connection_requests() {
    let fabric = Fabric::auto(11);
    let (client, server) = pair::hosts(&fabric);
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    fabric.at(Point::connect("client", 1), Fault::Reject(10));
    fabric.at(Point::connect("client", 2), Fault::Drop);
    let connect = || {
        let mut endpoint = resolved(client.clone());
        let queue = endpoint.completion_queue(128).expect("a queue");
        let domain = endpoint.domain().expect("a domain");
        let pair = endpoint.queue_pair(&domain, &queue, pair::SIZE).expect("a queue pair");
        endpoint.connect(&ConnectParameters::default()).expect("it is sent");
        fabric.run_until_idle();
        let event = endpoint.next_event().expect("it can be read");
        (event, endpoint, pair)
    };
    let (event, ..) = connect();
    assert!(matches!(event, Some(ConnectionEvent::Rejected { status: 10, .. })), "{event:?}");
    let (event, ..) = connect();
    assert!(matches!(event, Some(ConnectionEvent::Unreachable { status: -110 })), "{event:?}");
    assert!(listener.next_event().expect("it can be read").is_none(), "neither came here");
}

#[test]
fn a_listener_behind_a_cut_cannot_be_reached() {
    let fabric = Fabric::auto(12);
    let (client, server) = pair::hosts(&fabric);
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    let mut endpoint = resolved(client);
    let (queue, domain) = (endpoint.completion_queue(128), endpoint.domain());
    let (queue, domain) = (queue.expect("a queue"), domain.expect("a domain"));
    let _pair = endpoint.queue_pair(&domain, &queue, pair::SIZE).expect("a queue pair");
    fabric.partition("client", "server");
    endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    fabric.run_until_idle();
    let event = endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::Unreachable { .. })), "{event:?}");
}

#[test]
fn a_disconnect_without_reply_times_out() {
    let fabric = Fabric::auto(13);
    let mut pair = Pair::connect(&fabric);
    fabric.partition("client", "server");
    pair.client.endpoint.disconnect().expect("there is a connection");
    fabric.run_until_idle();
    let event = pair.client.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::Disconnected)), "{event:?}");
    assert!(pair.server.endpoint.next_event().expect("it can be read").is_none());
}

#[test]
fn timewait_exit_is_reported() {
    let fabric = Fabric::auto(14);
    let mut pair = Pair::connect(&fabric);
    pair.client.endpoint.disconnect().expect("there is a connection");
    let event = pair.server.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::Disconnected)), "{event:?}");
    pair.server.endpoint.disconnect().expect("it is the answer");
    let event = pair.client.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::Disconnected)), "{event:?}");
    fabric.run_until_idle();
    for end in [&mut pair.client, &mut pair.server] {
        let event = end.endpoint.next_event().expect("it can be read");
        assert!(matches!(event, Some(ConnectionEvent::TimewaitExit)), "{event:?}");
    }
}

#[test]
fn a_dropped_end_disconnects_the_other() {
    let fabric = Fabric::auto(15);
    let Pair { client, mut server, .. } = Pair::connect(&fabric);
    drop(client);
    let event = server.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::Disconnected)), "{event:?}");
}

#[test]
fn no_object_is_left_after_all_are_dropped() {
    let fabric = Fabric::auto(16);
    for _ in 0..3 {
        let mut pair = Pair::connect(&fabric);
        pair.server.post_receives(3);
        pair.client.send(b"message");
        drop(pair);
    }
    fabric.run_until_idle();
    assert_eq!(fabric.objects(), Objects::default());
}

#[test]
fn the_same_seed_and_the_same_calls_make_the_same_trace() {
    let (first, again, other) = (trace(17), trace(17), trace(18));
    assert!(first.lines().count() > 30, "{first}");
    assert_eq!(first, again);
    assert_ne!(first, other, "the seed shows in keys and times");
}

/// Records both ends of a short connection over a lossy wire.
fn trace(seed: u64) -> String {
    let fabric = Fabric::auto(seed);
    let clock = fabric.clone();
    let trace = Trace::timed(move || clock.now());
    let (client, server) = pair::hosts(&fabric);
    let client = Recorder::new(client, &trace);
    let server = Recorder::new(server, &trace);
    let mut pair = Pair::of(client, server, &ConnectParameters::default());
    fabric.set_link(Link { lost_per_mille: 200, ..Link::default() });
    pair.server.post_receives(8);
    for round in 0..8_u8 {
        pair.client.send(&[round; 16]);
    }
    fabric.run_until_idle();
    pair.server.messages();
    pair.client.statuses();
    pair.client.endpoint.disconnect().expect("there is a connection");
    fabric.run_until_idle();
    let _ = pair.server.endpoint.next_event();
    trace.text()
}
