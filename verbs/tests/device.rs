//! The whole crate on a real device. Run serially, with `RDMA_TEST_ADDRESS` set to the address
//! of an RDMA device of this machine.

// bed:
// bed (extended calls): RDMA_TEST_API=extended

#[path = "device/events.rs"]
mod events;
#[path = "device/one_sided.rs"]
mod one_sided;
mod pair;
#[path = "device/queues.rs"]
mod queues;
#[path = "device/verbs_api.rs"]
mod verbs_api;
#[path = "device/windows.rs"]
mod windows;

use std::{collections::BTreeSet, net::IpAddr, process::Command};

use pair::{CAPABILITIES, End, Pair, Prepared, event, listen, request, resolved};
use verbs::{
    Access, Buffer, CompletedWork, ConnectParameters, ConnectionEvent, Error, PortState,
    QueuePairCapabilities, SgList, Status, WorkKind, devices,
};

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn devices_are_found() {
    let devices = devices().expect("devices can be opened");
    let ports: Vec<_> = devices.iter().flat_map(|device| &device.ports).collect();
    assert!(ports.iter().any(|port| port.state == PortState::ACTIVE), "{devices:?}");
    assert!(ports.iter().all(|port| port.active_mtu >= 256), "{devices:?}");
    assert!(devices.iter().all(|device| device.node_guid != 0), "{devices:?}");
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn limits_are_known_once_the_address_is_resolved() {
    let endpoint = pair::open();
    assert!(matches!(endpoint.limits(), Err(Error::Misuse(_))));
    assert!(matches!(endpoint.domain(), Err(Error::Misuse(_))));
    let limits = resolved(4701).limits().expect("the device answers");
    assert!(devices().expect("devices").iter().any(|device| device.name == limits.device));
    assert!(limits.queue_pair_work_requests >= 128, "{limits:?}");
    assert!(limits.read_atomic > 0 && limits.send_sge >= 2, "{limits:?}");
    assert!(limits.memory_region_bytes >= 1 << 20, "{limits:?}");
}

/// The path of a connection keeps its MTU where that of the port is changed.
#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn the_mtu_of_a_connection_is_that_of_its_path() {
    let pair = Pair::connect(4721, CAPABILITIES);
    let Some(before) = pair.client.endpoint.limits().expect("limits").path_mtu else {
        println!("SKIPPED: iWARP has no MTU of its own");
        return;
    };
    let interface = interface_of(pair::address(0).ip());
    let bytes = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).expect("an MTU");
    set_mtu(&interface, "600");
    let port = resolved(4722).limits().expect("limits").path_mtu;
    let path = pair.client.endpoint.limits().expect("limits").path_mtu;
    set_mtu(&interface, bytes.trim());
    assert_eq!((port, path), (Some(512), Some(before)));
    assert!(before > 512, "{before}");
}

/// Network interface with an address.
fn interface_of(address: IpAddr) -> String {
    let output = Command::new("ip").args(["-o", "addr", "show"]).output().expect("ip runs");
    let output = String::from_utf8(output.stdout).expect("text");
    let line = output.lines().find(|line| line.contains(&format!(" {address}/")));
    let name = line.and_then(|line| line.split_whitespace().nth(1));
    name.expect("the address is one of this machine").to_owned()
}

fn set_mtu(interface: &str, bytes: &str) {
    let arguments = ["link", "set", "dev", interface, "mtu", bytes];
    let status = Command::new("ip").args(arguments).status().expect("ip runs");
    assert!(status.success(), "{arguments:?}");
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn private_data_travels_both_ways() {
    let mut listener = listen(4702);
    let mut client = Prepared::new(resolved(4702), CAPABILITIES);
    let parameters = ConnectParameters {
        private_data: b"from the client",
        responder_resources: 3,
        ..ConnectParameters::default()
    };
    client.endpoint.connect(&parameters).expect("a request is sent");
    let (endpoint, data) = request(&mut listener);
    assert_eq!(&data[..15], b"from the client");
    assert!(data[15..].iter().all(|&byte| byte == 0), "padded: {data:?}");

    let mut server = Prepared::new(endpoint, CAPABILITIES);
    let parameters =
        ConnectParameters { private_data: b"from the server", ..ConnectParameters::default() };
    server.endpoint.accept(&parameters).expect("an answer is sent");
    let client = client.ready();
    assert_eq!(&client.established.private_data()[..15], b"from the server");
    server.ready();
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_rejection_carries_private_data() {
    let mut listener = listen(4703);
    let mut client = Prepared::new(resolved(4703), CAPABILITIES);
    client.endpoint.connect(&ConnectParameters::default()).expect("a request is sent");
    let (mut endpoint, _) = request(&mut listener);
    endpoint.reject(b"no thanks").expect("an answer is sent");
    match event(&mut client.endpoint) {
        ConnectionEvent::Rejected { status, private_data } => {
            assert_eq!(status, 28, "the program said no");
            assert_eq!(&private_data[..9], b"no thanks");
        }
        other => panic!("expected a rejection: {other:?}"),
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn nobody_listens() {
    let mut client = Prepared::new(resolved(4704), CAPABILITIES);
    client.endpoint.connect(&ConnectParameters::default()).expect("a request is sent");
    match event(&mut client.endpoint) {
        ConnectionEvent::Rejected { status, .. } => assert_eq!(status, 8, "invalid service id"),
        other => panic!("expected a rejection: {other:?}"),
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn an_address_without_device_is_told_at_once_or_by_event() {
    let mut endpoint = pair::open();
    let nowhere = "192.0.2.1:4420".parse().expect("it is an address");
    match endpoint.resolve_address(None, nowhere, std::time::Duration::from_millis(300)) {
        Err(Error::ResolveAddress(_)) => {}
        Ok(()) => match event(&mut endpoint) {
            ConnectionEvent::AddressError { status } => assert_ne!(status, 0),
            other => panic!("expected an address error: {other:?}"),
        },
        other => panic!("expected another error: {other:?}"),
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn buffers_travel_at_depth() {
    let mut pair = Pair::connect(4705, CAPABILITIES);
    let depth = CAPABILITIES.max_send_wr;
    let mut received = receives(&pair.server, depth, 4096);
    let mut sent =
        pair.client.domain.allocate(depth as usize * 4096, Access::NONE).expect("memory");
    for round in 0..8_u8 {
        for (tag, buffer) in (0..).zip(std::mem::take(&mut received)) {
            pair.server.queue_pair.post_receive(buffer, tag).expect("there is room");
        }
        pair.server.queue_pair.flush().expect("the device takes them");
        for tag in 0..depth {
            let mut rest = sent.split_off(4096);
            std::mem::swap(&mut sent, &mut rest);
            let mut head = rest;
            head.fill(pattern(round, tag.into()));
            let tail = head.split_off(1000);
            pair.client.queue_pair.send((head, tail), tag.into()).expect("there is room");
        }
        pair.client.queue_pair.flush().expect("the device takes them");
        for completion in pair.client.completions(depth as usize) {
            assert_eq!(completion.status(), Status::SUCCESS);
            let completed = pair.client.queue_pair.complete(&completion).expect("it is ours");
            let CompletedWork::Send { buffers, .. } = completed else { panic!("{completed:?}") };
            rejoin(&mut sent, buffers);
        }
        for completion in pair.server.completions(depth as usize) {
            assert!(completion.is_receive() && completion.status().is_success());
            let completed = pair.server.queue_pair.complete(&completion).expect("it is ours");
            let CompletedWork::Receive { tag, buffer, length } = completed else {
                panic!("{completed:?}")
            };
            assert_eq!(length, 4096);
            let mut bytes = [0; 4096];
            buffer.copy_out(0, &mut bytes);
            assert!(bytes.iter().all(|&byte| byte == pattern(round, tag)));
            received.push(buffer);
        }
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn ten_thousand_inline_sends_never_stall() {
    let mut pair = Pair::connect(4706, CAPABILITIES);
    for buffer in receives(&pair.server, CAPABILITIES.max_recv_wr, 64) {
        pair.server.queue_pair.post_receive(buffer, 0).expect("there is room");
    }
    pair.server.queue_pair.flush().expect("the device takes them");
    let (mut sent, mut received, mut credits) = (0, 0, 0);
    while received < 10_000 {
        // Never more than there are receives: the peer would have to wait 0.65 s for each.
        while sent < 10_000 && sent - received < CAPABILITIES.max_recv_wr {
            match pair.client.queue_pair.send_inline(&sent.to_le_bytes()) {
                Ok(()) => sent += 1,
                Err(Error::QueueFull) => break,
                Err(other) => panic!("{other}"),
            }
        }
        pair.client.queue_pair.flush().expect("the device takes them");
        let (came, back) = (take_numbers(&mut pair.server, received), complete(&mut pair.client));
        received += came;
        credits += back;
        if came + back == 0 {
            pair::wait_for_either(&mut pair.client.queue, &mut pair.server.queue);
        }
    }
    assert_eq!(sent, 10_000);
    assert!(credits <= 10_000 / 8, "one completion for eight sends: {credits}");
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_full_queue_hands_the_buffers_back() {
    let mut pair = Pair::connect(
        4707,
        QueuePairCapabilities { max_send_wr: 2, max_recv_wr: 2, ..CAPABILITIES },
    );
    for tag in 0..2 {
        let buffer = memory(&pair.client, 64);
        pair.client.queue_pair.send(buffer, tag).expect("there is room");
        let buffer = memory(&pair.client, 64);
        pair.client.queue_pair.post_receive(buffer, tag).expect("there is room");
    }
    let buffers = (memory(&pair.client, 64), memory(&pair.client, 65));
    let refused = pair.client.queue_pair.send(buffers, 9).expect_err("it is full");
    assert!(matches!(refused.error, Error::QueueFull));
    assert_eq!(refused.buffers.iter().map(Buffer::len).collect::<Vec<_>>(), [64, 65]);
    let buffer = memory(&pair.client, 66);
    let refused = pair.client.queue_pair.post_receive(buffer, 9).expect_err("it is full");
    assert!(matches!(refused.error, Error::QueueFull));
    assert_eq!(refused.buffer.len(), 66);
    assert!(matches!(pair.client.queue_pair.send_inline(b"x"), Err(Error::QueueFull)));
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn wrong_buffers_are_refused() {
    let mut pair = Pair::connect(4708, CAPABILITIES);
    let stranger = memory(&pair.server, 64);
    let refused = pair.client.queue_pair.send(stranger, 0).expect_err("another domain's");
    assert!(matches!(refused.error, Error::Misuse(_)), "{refused}");
    let stranger = refused.buffers.into_iter().next().expect("it was handed back");
    let refused = pair.client.queue_pair.post_receive(stranger, 0).expect_err("another domain's");
    assert!(matches!(refused.error, Error::Misuse(_)), "{refused}");
    let read_only = pair.client.domain.allocate(64, Access::NONE).expect("memory");
    let refused = pair.client.queue_pair.post_receive(read_only, 0).expect_err("not writable");
    assert!(matches!(refused.error, Error::Misuse(_)), "{refused}");
    let mut three = SgList::new();
    for _ in 0..3 {
        three.push(memory(&pair.client, 64)).expect("four fit");
    }
    assert!(pair.client.queue_pair.send(three, 0).is_err(), "two buffers were asked for");
    let nothing: SgList = SgList::new();
    assert!(pair.client.queue_pair.send(nothing, 0).is_err());
    assert!(matches!(pair.client.queue_pair.send_inline(&[0; 65]), Err(Error::Misuse(_))));
    assert_eq!(pair.client.queue_pair.send_credits(), CAPABILITIES.max_send_wr);
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_message_too_long_fails_both_ends_and_loses_no_buffer() {
    let mut pair = Pair::connect(4709, CAPABILITIES);
    for tag in 0..5 {
        let buffer = memory(&pair.server, 16);
        pair.server.queue_pair.post_receive(buffer, tag).expect("there is room");
    }
    pair.server.queue_pair.flush().expect("the device takes them");
    let mut refused = memory(&pair.client, 64);
    let later = refused.split_off(32);
    pair.client.queue_pair.send(refused, 100).expect("there is room");
    pair.client.queue_pair.send(later, 101).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes them");

    let [received] = pair.server.completions(1)[..] else { panic!("one was asked for") };
    // rxe calls it an operation error.
    let expected = [Status::LOCAL_LENGTH, Status::LOCAL_OPERATION];
    assert!(expected.contains(&received.status()), "{received:?}");
    let completed = pair.server.queue_pair.complete(&received).expect("it is ours");
    assert!(matches!(completed, CompletedWork::Receive { tag: 0, length: 0, .. }), "{completed:?}");
    let [sent] = pair.client.completions(1)[..] else { panic!("one was asked for") };
    let expected = [Status::REMOTE_INVALID_REQUEST, Status::REMOTE_OPERATION];
    assert!(expected.contains(&sent.status()), "{sent:?}");
    let completed = pair.client.queue_pair.complete(&sent).expect("it is ours");
    assert!(matches!(completed, CompletedWork::Send { tag: 100, .. }), "{completed:?}");
    assert!(pair.client.queue_pair.complete(&sent).is_err(), "only once");
    assert!(pair.server.queue_pair.complete(&sent).is_err(), "of another queue pair");

    let returned = pair.server.queue_pair.close();
    let tags: BTreeSet<_> = returned.iter().map(|returned| returned.tag).collect();
    assert_eq!(tags, BTreeSet::from([1, 2, 3, 4]));
    assert!(returned.iter().all(|returned| returned.kind == WorkKind::Receive));
    let returned = pair.client.queue_pair.close();
    assert_eq!(returned.len(), 1);
    assert_eq!((returned[0].tag, returned[0].kind), (101, WorkKind::Send));
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_disconnect_flushes_both_ends() {
    let mut pair = Pair::connect(4710, CAPABILITIES);
    for tag in 0..4 {
        let buffer = memory(&pair.server, 16);
        pair.server.queue_pair.post_receive(buffer, tag).expect("there is room");
    }
    pair.server.queue_pair.flush().expect("the device takes them");
    disconnect(&mut pair);
    for (tag, completion) in (0..).zip(pair.server.completions(4)) {
        assert_eq!(completion.status(), Status::FLUSHED);
        let completed = pair.server.queue_pair.complete(&completion).expect("it is ours");
        assert!(
            matches!(completed, CompletedWork::Receive { tag: t, .. } if t == tag),
            "{completed:?}"
        );
    }
    // Sends after the end are flushed, each with a completion: credits come back even so.
    for _ in 0..5 {
        pair.client.queue_pair.send_inline(b"late").expect("there is room");
    }
    pair.client.queue_pair.flush().expect("the device takes them");
    for completion in pair.client.completions(5) {
        assert_eq!(completion.status(), Status::FLUSHED);
        let completed = pair.client.queue_pair.complete(&completion).expect("it is ours");
        assert!(matches!(completed, CompletedWork::Credit), "{completed:?}");
    }
    assert_eq!(pair.client.queue_pair.send_credits(), CAPABILITIES.max_send_wr);
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn one_queue_and_one_domain_serve_two_connections() {
    let mut listener = listen(4711);
    let first = resolved(4711);
    let domain = first.domain().expect("a domain");
    let queue = first.completion_queue(2 * 64).expect("a completion queue");
    drop(first); // what was made from it does not need it
    let mut second = resolved(4711);
    let mut third = resolved(4711);
    let queue_pairs = [&mut second, &mut third]
        .map(|endpoint| endpoint.queue_pair(&domain, &queue, CAPABILITIES).expect("it has room"));
    let mut fourth = resolved(4711);
    if queue.capacity() < 3 * 64 {
        let refused = fourth.queue_pair(&domain, &queue, CAPABILITIES).expect_err("no room");
        assert!(matches!(refused, Error::Misuse(_)), "{refused}");
    }
    let mut ends = Vec::new();
    for (mut endpoint, queue_pair) in [second, third].into_iter().zip(queue_pairs) {
        endpoint.connect(&ConnectParameters::default()).expect("a request is sent");
        let mut server = Prepared::new(request(&mut listener).0, CAPABILITIES);
        server.endpoint.accept(&ConnectParameters::default()).expect("an answer is sent");
        let queue_pair = queue_pair.ready(&pair::established(&mut endpoint));
        ends.push((endpoint, queue_pair, server.ready()));
    }
    let mut queue = queue;
    let numbers: BTreeSet<_> = ends.iter().map(|(_, queue_pair, _)| queue_pair.number()).collect();
    assert_eq!(numbers.len(), 2);
    for (_, queue_pair, server) in &mut ends {
        let buffer = memory(server, 64);
        server.queue_pair.post_receive(buffer, 0).expect("there is room");
        server.queue_pair.flush().expect("the device takes it");
        let buffer = domain.allocate(64, Access::NONE).expect("memory");
        queue_pair.send(buffer, 0).expect("there is room");
        queue_pair.flush().expect("the device takes it");
    }
    let completed: BTreeSet<_> =
        pair::completions(&mut queue, 2).iter().map(|completion| completion.queue_pair()).collect();
    assert_eq!(completed, numbers);
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn everything_may_be_dropped_in_any_order() {
    drop(Pair::connect(4712, CAPABILITIES)); // opens the device, which then stays open
    let (files, resources) = (open_files(), resources());
    for order in 0..24 {
        let mut pair = Pair::connect(4712, CAPABILITIES);
        let client = &mut pair.client;
        let mut buffer = memory(client, 64);
        let kept = buffer.split_off(32);
        client.queue_pair.post_receive(buffer, 0).expect("there is room");
        client.queue_pair.flush().expect("the device takes it");
        drop_in_order(pair.client, order);
        drop_in_order(pair.server, 23 - order);
        drop(kept);
    }
    assert_eq!(self::resources(), resources, "the kernel holds something of ours");
    assert_eq!(open_files(), files);
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn two_hundred_connections_leave_nothing_behind() {
    drop(Pair::connect(4713, CAPABILITIES)); // opens the device, which then stays open
    let (files, resources) = (open_files(), resources());
    for _ in 0..200 {
        let mut pair = Pair::connect(4713, CAPABILITIES);
        disconnect(&mut pair);
    }
    assert_eq!(open_files(), files);
    assert_eq!(self::resources(), resources, "the kernel holds something of ours");
}

/// The client ends the connection, and the server answers.
fn disconnect(pair: &mut Pair) {
    pair.client.endpoint.disconnect().expect("there is a connection");
    for end in [&mut pair.server, &mut pair.client] {
        let event = event(&mut end.endpoint);
        assert!(matches!(event, ConnectionEvent::Disconnected), "{event:?}");
        let _ = end.endpoint.disconnect(); // answers, or finds that nothing is left to do
    }
}

fn memory(end: &End, length: usize) -> Buffer {
    end.domain.allocate(length, Access::LOCAL_WRITE).expect("memory can be registered")
}

fn receives(end: &End, count: u32, length: usize) -> Vec<Buffer> {
    let mut rest = memory(end, count as usize * length);
    let mut buffers = Vec::new();
    for _ in 0..count {
        let tail = rest.split_off(length);
        buffers.push(std::mem::replace(&mut rest, tail));
    }
    buffers
}

/// Joins what was split off `whole`'s front, in order, to an otherwise empty buffer.
fn rejoin(whole: &mut Buffer, parts: SgList) {
    for part in parts {
        if whole.is_empty() {
            *whole = part;
        } else {
            whole.unsplit(part).expect("parts come back in order");
        }
    }
}

fn pattern(round: u8, tag: u64) -> u8 {
    round.wrapping_mul(31).wrapping_add(tag.to_le_bytes()[0])
}

/// Takes the messages that came, which are numbered in order, and posts their buffers again.
fn take_numbers(end: &mut End, first: u32) -> u32 {
    let mut completions = [verbs::Completion::default(); 32];
    let count = end.queue.poll(&mut completions).expect("the queue has not overrun");
    for (expected, completion) in (first..).zip(&completions[..count]) {
        let completed = end.queue_pair.complete(completion).expect("it is ours");
        let CompletedWork::Receive { buffer, length: 4, .. } = completed else {
            panic!("{completed:?}")
        };
        let mut number = [0; 4];
        buffer.copy_out(0, &mut number);
        assert_eq!(u32::from_le_bytes(number), expected);
        end.queue_pair.post_receive(buffer, 0).expect("one has just come back");
    }
    end.queue_pair.flush().expect("the device takes them");
    u32::try_from(count).expect("a few")
}

/// Takes the completions of inline sends that came.
fn complete(end: &mut End) -> u32 {
    let mut completions = [verbs::Completion::default(); 32];
    let count = end.queue.poll(&mut completions).expect("the queue has not overrun");
    for completion in &completions[..count] {
        assert_eq!(completion.status(), Status::SUCCESS);
        let completed = end.queue_pair.complete(completion).expect("it is ours");
        assert!(matches!(completed, CompletedWork::Credit), "{completed:?}");
    }
    u32::try_from(count).expect("a few")
}

/// Drops the parts of an end in one of the 24 orders.
fn drop_in_order(end: End, mut order: usize) {
    let End { endpoint, domain, queue, queue_pair, .. } = end;
    let mut parts: Vec<Box<dyn std::any::Any>> =
        vec![Box::new(endpoint), Box::new(domain), Box::new(queue), Box::new(queue_pair)];
    while !parts.is_empty() {
        let next = order % parts.len();
        order /= parts.len();
        drop(parts.swap_remove(next));
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// Counts of the kernel for all RDMA devices: domains, queues, queue pairs, regions.
fn resources() -> String {
    let output = Command::new("rdma").args(["resource", "show"]).output();
    let output = output.expect("the program `rdma` of iproute2 is needed to count");
    String::from_utf8(output.stdout).expect("it prints text")
}
