//! Asynchronous events of a device.

use std::{io::Write, process::Command, time::Instant};

use verbs::{Access, DeviceEventKind, EventSubject, ProtectionDomain};

use crate::pair::{CAPABILITIES, Pair, TIMEOUT, readable, resolved};

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_port_that_goes_down_and_up_is_reported_to_every_domain() {
    let mut pair = Pair::connect(4761, CAPABILITIES);
    let other = pair.client.endpoint.domain().expect("a domain");
    drain(&other);
    let link = link_of_the_device();
    ip(&["link", "set", &link, "down"]);
    ip(&["link", "set", &link, "up"]);
    for domain in [&pair.client.domain, &other] {
        wait_for(domain, DeviceEventKind::PORT_ERROR, EventSubject::Port(1));
        wait_for(domain, DeviceEventKind::PORT_ACTIVE, EventSubject::Port(1));
    }
    // No message was under way, so the connection is as good as before.
    let buffer = pair.server.domain.allocate(64, Access::LOCAL_WRITE).expect("memory");
    pair.server.queue_pair.post_receive(buffer, 0).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    pair.client.queue_pair.send_inline(b"still here").expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    assert!(pair.server.completions(1)[0].status().is_success());
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_removed_device_is_reported_once() {
    if kernel_is_older_than(7) {
        // There `rdma link del` waits until this process has closed the device (measured).
        // Not `println`, whose output the test runner keeps to itself.
        let text = b"\nSKIPPED: this kernel removes no device that is open\n";
        std::io::stdout().write_all(text).expect("it can be written");
        return;
    }
    let pair = Pair::connect(4762, CAPABILITIES);
    let other = pair.client.endpoint.domain().expect("a domain");
    drain(&other);
    let link = link_of_the_device();
    let status = Command::new("rdma").args(["link", "del", "rxe0"]).status();
    assert!(status.expect("the program `rdma` of iproute2 is needed").success());
    for domain in [&pair.client.domain, &other] {
        wait_for(domain, DeviceEventKind::DEVICE_FATAL, EventSubject::Device);
        assert_eq!(domain.next_event().expect("that is no error"), None);
        assert!(!readable(domain, Instant::now()), "or whoever waits would spin");
    }
    drop((pair, other)); // on a device that is gone
    let add = ["link", "add", "rxe0", "type", "rxe", "netdev", &link];
    let status = Command::new("rdma").args(add).status();
    assert!(status.expect("the program `rdma` of iproute2 is needed").success());
    wait_for_address();
    let _works_again = Pair::connect(4763, CAPABILITIES);
}

/// Waits for an event, whatever else comes.
fn wait_for(domain: &ProtectionDomain, kind: DeviceEventKind, subject: EventSubject) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match domain.next_event().expect("events can be read") {
            Some(event) if event.kind == kind => return assert_eq!(event.subject, subject),
            Some(_) => {}
            None => assert!(readable(domain, deadline), "no {kind:?} within {TIMEOUT:?}"),
        }
    }
}

fn drain(domain: &ProtectionDomain) {
    while domain.next_event().expect("events can be read").is_some() {}
}

/// The network interface that the RDMA device is on.
fn link_of_the_device() -> String {
    let output = Command::new("rdma").args(["link", "show", "rxe0/1"]).output();
    let output = output.expect("the program `rdma` of iproute2 is needed").stdout;
    let text = String::from_utf8(output).expect("it prints text");
    let mut words = text.split_whitespace().skip_while(|&word| word != "netdev");
    words.nth(1).expect("a device is on an interface").to_owned()
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("the program `ip` of iproute2 is needed").success());
}

/// A new device has its address a little later.
fn wait_for_address() {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut endpoint = crate::pair::open();
        let there = endpoint.resolve_address(None, crate::pair::address(4763), TIMEOUT).is_ok()
            && matches!(crate::pair::event(&mut endpoint), verbs::ConnectionEvent::AddressResolved);
        if there {
            drop(resolved(4763));
            return;
        }
        assert!(Instant::now() < deadline, "no device leads to the address");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn kernel_is_older_than(major: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let number = release.split('.').next().and_then(|number| number.parse::<u32>().ok());
    number.expect("a release begins with a number") < major
}
