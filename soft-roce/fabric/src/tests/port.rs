//! Tests of link state, address changes and hosts with two addresses.

use std::time::Duration;

use verbs::{
    ConnectParameters, ConnectionEvent, DeviceEventKind, Endpoint, Error, ProtectionDomain, Status,
};

use super::{
    Fabric, Fault, Host, Pair, Point,
    pair::{self, PATIENT, SIZE, address, resolved},
};

fn reported(domain: &ProtectionDomain<Host>) -> Vec<DeviceEventKind> {
    let next = || domain.next_event().expect("it can be read");
    std::iter::from_fn(next).map(|event| event.kind).collect()
}

#[test]
fn a_port_is_reported_and_carries_nothing_while_it_is_down() {
    let fabric = Fabric::auto(31);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(1);
    fabric.at(Point::Time(Duration::from_millis(1)), Fault::PortDown("client".into()));
    fabric.at(Point::Time(Duration::from_millis(200)), Fault::PortActive("client".into()));
    fabric.advance(Duration::from_millis(2));
    assert_eq!(reported(&pair.client.domain), [DeviceEventKind::PORT_ERROR]);
    assert_eq!(reported(&pair.server.domain), [], "that port has its link");
    pair.client.send(b"later");
    fabric.advance(Duration::from_millis(100));
    assert_eq!(pair.server.statuses(), []);
    fabric.advance(Duration::from_millis(200));
    assert_eq!(reported(&pair.client.domain), [DeviceEventKind::PORT_ACTIVE]);
    assert_eq!(pair.server.messages(), [b"later"]);
    assert_eq!(pair.client.statuses(), [Status::SUCCESS]);
}

#[test]
fn a_port_that_stays_down_uses_up_the_retries() {
    let fabric = Fabric::auto(32);
    let mut pair = Pair::connect(&fabric);
    fabric.set_port("server", false);
    pair.client.send(b"into the void");
    fabric.run_until_idle();
    assert_eq!(pair.client.statuses(), [Status::RETRY_EXCEEDED]);
}

/// Sends a connection request from the client and returns its outcome.
fn request(fabric: &Fabric, endpoint: &mut Endpoint<Host>) -> Option<ConnectionEvent<Host>> {
    let (domain, queue) = (endpoint.domain(), endpoint.completion_queue(128));
    let (domain, queue) = (domain.expect("a domain"), queue.expect("a queue"));
    let _pair = endpoint.queue_pair(&domain, &queue, SIZE).expect("a queue pair");
    endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    fabric.run_until_idle();
    endpoint.next_event().expect("it can be read")
}

#[test]
fn a_request_while_the_port_is_down_stops_the_cm() {
    let fabric = Fabric::auto(33);
    let (client, server) = pair::hosts(&fabric);
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    fabric.set_port("client", false);
    let event = request(&fabric, &mut resolved(client.clone()));
    assert!(matches!(event, Some(ConnectionEvent::Unreachable { .. })), "{event:?}");
    fabric.set_port("client", true);
    let event = request(&fabric, &mut resolved(client.clone()));
    assert!(matches!(event, Some(ConnectionEvent::Unreachable { .. })), "still: {event:?}");
    assert!(listener.next_event().expect("it can be read").is_none(), "neither got there");
    fabric.remove_device("client");
    fabric.restore_device("client");
    // The request arrives, where no listener responds.
    request(&fabric, &mut resolved(client));
    let event = listener.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::ConnectRequest { .. })), "{event:?}");
}

#[test]
fn a_link_flap_without_requests_is_harmless() {
    let fabric = Fabric::auto(34);
    fabric.host("client", [10, 0, 0, 1].into());
    fabric.set_port("client", false);
    fabric.set_port("client", true);
    let mut pair = Pair::connect(&fabric);
    pair.server.post_receives(1);
    pair.client.send(b"message");
    assert_eq!(pair.server.messages(), [b"message"]);
}

#[test]
fn a_moved_address_is_reported_to_its_endpoints() {
    let fabric = Fabric::auto(35);
    let mut pair = Pair::connect(&fabric);
    fabric.at(Point::Time(Duration::ZERO), Fault::ChangeAddress("client".into()));
    fabric.advance(Duration::from_millis(1));
    let event = pair.client.endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::AddressChange)), "{event:?}");
    assert!(pair.server.endpoint.next_event().expect("it can be read").is_none());
}

#[test]
fn a_host_is_reached_by_each_of_its_addresses() {
    let fabric = Fabric::auto(36);
    let (client, server) = pair::hosts(&fabric);
    let other = "[fd00::2]:4420".parse().expect("an address");
    fabric.add_address("server", "fd00::2".parse().expect("an address"));
    let resolve = |source: Option<&str>| {
        let mut endpoint = Endpoint::open_with(client.clone()).expect("an endpoint");
        let source = source.map(|address| address.parse().expect("an address"));
        endpoint.resolve_address(source, other, PATIENT).map(|()| endpoint)
    };
    let mut endpoint = resolve(None).expect("there is a device");
    let event = endpoint.next_event().expect("it can be read");
    assert!(matches!(event, Some(ConnectionEvent::AddressResolved)), "{event:?}");
    assert!(matches!(resolve(Some("10.0.0.9:0")), Err(Error::ResolveAddress(_))), "not ours");
    fabric.add_address("client", [10, 0, 0, 9].into());
    assert!(resolve(Some("10.0.0.9:0")).is_ok());

    // A listener on one address does not receive requests to another.
    let mut listener = Endpoint::open_with(server).expect("an endpoint");
    listener.listen(address(), 1).expect("the port is free");
    endpoint.resolve_route(PATIENT).expect("the address is resolved");
    let _ = endpoint.next_event();
    let event = request(&fabric, &mut endpoint);
    assert!(matches!(event, Some(ConnectionEvent::Rejected { status: 8, .. })), "{event:?}");
}

#[test]
fn timewait_ends_without_a_reply_too() {
    let fabric = Fabric::auto(37);
    let mut pair = Pair::connect(&fabric);
    fabric.partition("client", "server");
    pair.client.endpoint.disconnect().expect("there is a connection");
    fabric.run_until_idle();
    let mut next = || pair.client.endpoint.next_event().expect("it can be read");
    let events = (next(), next());
    let expected: (_, Option<ConnectionEvent<Host>>) =
        (Some(ConnectionEvent::<Host>::Disconnected), Some(ConnectionEvent::TimewaitExit));
    assert_eq!(format!("{events:?}"), format!("{expected:?}"));
}
