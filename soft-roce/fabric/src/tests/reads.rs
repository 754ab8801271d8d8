//! Tests of the maximum number of outstanding reads.

use std::time::Duration;

use verbs::{Access, ConnectParameters, RemoteAddress, Status};

use super::{Fabric, Host, Link, Pair};

/// Connects a pair with these read depths, over a wire of 1 ms.
fn pair(fabric: &Fabric, depths: (u8, u8)) -> Pair<Host> {
    let (initiator_depth, responder_resources) = depths;
    let parameters =
        ConnectParameters { initiator_depth, responder_resources, ..ConnectParameters::default() };
    let pair = Pair::connect_with(fabric, &parameters);
    let latency = Duration::from_millis(1);
    fabric.set_link(Link { latency, jitter: Duration::ZERO, ..Link::default() });
    fabric.simulation.disable_auto(); // from now on by steps
    pair
}

/// Posts reads of 8 bytes each, and a send after them.
fn read(pair: &mut Pair<Host>, count: u64) -> verbs::Buffer {
    let source = pair.server.domain.allocate(8, Access::REMOTE_READ).expect("memory");
    let from = RemoteAddress { address: source.address(), key: source.remote_key() };
    for tag in 0..count {
        let buffer = pair.client.domain.allocate(8, Access::LOCAL_WRITE).expect("memory");
        pair.client.queue_pair.rdma_read(buffer, from, tag).expect("there is room");
    }
    pair.client.queue_pair.flush().expect("the device takes them");
    source
}

#[test]
fn reads_beyond_the_maximum_wait() {
    for (depths, at_once) in [((1, 1), 1), ((2, 16), 2), ((16, 2), 2), ((16, 16), 6)] {
        let fabric = Fabric::auto(21);
        let mut pair = pair(&fabric, depths);
        let _source = read(&mut pair, 6);
        for round in 1..=6 / at_once {
            let done = pair.client.statuses().len();
            assert_eq!(done, 0, "{depths:?}, round {round}: a read takes 2 ms");
            fabric.advance(Duration::from_millis(2));
            assert_eq!(pair.client.statuses(), vec![Status::SUCCESS; at_once], "{depths:?}");
        }
    }
}

#[test]
fn requests_after_a_waiting_read_wait_too() {
    let fabric = Fabric::auto(22);
    let mut pair = pair(&fabric, (1, 1));
    pair.server.post_receives(1);
    let _source = read(&mut pair, 2);
    pair.client.send(b"in order");
    fabric.advance(Duration::from_millis(2));
    assert_eq!(pair.client.statuses(), [Status::SUCCESS], "the first read");
    assert_eq!(pair.server.statuses(), [], "the send is not on its way");
    fabric.advance(Duration::from_millis(2));
    assert_eq!(pair.server.messages(), [b"in order"]);
    assert_eq!(pair.client.statuses(), [Status::SUCCESS; 2]);
}

#[test]
fn a_read_that_never_starts_is_flushed() {
    let fabric = Fabric::auto(23);
    let mut pair = pair(&fabric, (0, 1));
    let _source = read(&mut pair, 2);
    fabric.run_until_idle();
    assert_eq!(pair.client.statuses(), []);
    pair.client.endpoint.disconnect().expect("there is a connection");
    assert_eq!(pair.client.statuses(), [Status::FLUSHED; 2]);
}

#[test]
fn waiting_reads_resume_with_the_network() {
    let fabric = Fabric::auto(24);
    let mut pair = pair(&fabric, (1, 1));
    let _source = read(&mut pair, 3);
    fabric.partition("client", "server");
    fabric.advance(Duration::from_millis(100));
    assert_eq!(pair.client.statuses(), []);
    fabric.heal("client", "server");
    fabric.advance(Duration::from_millis(200));
    assert_eq!(pair.client.statuses(), [Status::SUCCESS; 3]);
}
