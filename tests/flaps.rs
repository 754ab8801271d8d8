//! A link that goes down under load, for five seconds: every request ends, with its buffer, and the
//! same process connects again, where the CM of rxe survives.
//!
//! It survives if no side sends a message of the CM over a device whose port is down. Where one
//! device is both ends, the kernel's target sends one. So the tests of what *we* do have a machine
//! of their own: a network namespace, with a device of its own, which rxe knows from 7.

// bed: waits --target tests/targets/deep.toml

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use rdma_host::{ConnectOptions, Controller, Error, ReconnectOptions, wire::NamespaceId};
use tests::{
    SUBSYSTEM, command,
    load::{HANG_TIMEOUT, Load, quick_options},
    other_machine::{self, TARGET_ADDRESS},
    process_resources::ProcessResources,
    shutdown::{STATES, cancel_after, shut_down_in},
    target, wait_for,
};
use tokio::runtime::Runtime;

fn before_7() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    release.starts_with("6.")
}

/// Runs a test of this file on a machine of its own.
fn on_another_machine(test: &str) {
    if before_7() {
        println!("SKIPPED: {test}: before 7, rxe hears nothing in other network namespaces");
        return;
    }
    other_machine::run_test(test);
}

fn over_the_wire() -> ConnectOptions {
    let address = format!("{TARGET_ADDRESS}:4420").parse().expect("an address");
    quick_options().address(address)
}

/// A load, once the link has found the other end; with a dead CM, never.
fn load(runtime: &Runtime, options: &ConnectOptions) -> Load {
    let mut load = None;
    wait_for("it connects", HANG_TIMEOUT, || {
        load = runtime.block_on(Load::start(options)).ok();
        load.is_some()
    });
    load.expect("just made")
}

fn connects(runtime: &Runtime, options: &ConnectOptions) {
    let load = load(runtime, options);
    assert!(load.is_running());
    runtime.block_on(load.stop());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_was_under_load_ends_and_connects_again() {
    if !other_machine::is_here() {
        return on_another_machine("what_was_under_load_ends_and_connects_again");
    }
    let runtime = Runtime::new().expect("a runtime");
    connects(&runtime, &over_the_wire()); // what is made once, and stays, is made now
    let before = ProcessResources::of("far");
    for _ in 0..2 {
        let load = load(&runtime, &over_the_wire());
        command("ip", "link set veth1 down");
        let cause = runtime.block_on(load.failure());
        println!("while the link was down: {cause}");
        sleep(Duration::from_secs(5));
        command("ip", "link set veth1 up");
        connects(&runtime, &over_the_wire());
        before.wait_until_released("far");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_connect_waits_for_the_link() {
    if !other_machine::is_here() {
        return on_another_machine("a_connect_waits_for_the_link");
    }
    let runtime = Runtime::new().expect("a runtime");
    let load = load(&runtime, &over_the_wire());
    command("ip", "link set veth1 down");
    let connecting = runtime.spawn(async { Controller::connect(&over_the_wire()).await });
    runtime.block_on(load.failure());
    sleep(Duration::from_secs(2));
    command("ip", "link set veth1 up");
    match runtime.block_on(connecting).expect("it does not panic") {
        Ok(controller) => runtime.block_on(controller.shutdown()),
        // Without a link there is no way to resolve: that is an answer too, and at once.
        Err(error) => println!("while the link was down: {error}"),
    }
    connects(&runtime, &over_the_wire());
}

/// The delay is that of Linux, ten seconds: it is the port that brings the connection back.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_go_on_as_soon_as_the_link_is_back() {
    if !other_machine::is_here() {
        return on_another_machine("commands_go_on_as_soon_as_the_link_is_back");
    }
    let runtime = Runtime::new().expect("a runtime");
    // The target's end of the wire has just come up in this test's place in the file.
    runtime.block_on(load(&runtime, &over_the_wire()).stop());
    let options = over_the_wire().reconnect(ReconnectOptions::default());
    runtime.block_on(async {
        let controller = Controller::connect(&options).await.expect("it connects");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut changes = controller.changes();
        let begun = Instant::now();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                println!("{:.1} s: {change}", begun.elapsed().as_secs_f64());
            }
        });
        let buffer = controller.allocate(4096).expect("memory");
        let link = |state| {
            tokio::task::spawn_blocking(move || {
                command("ip", &format!("link set veth1 {state}"));
            })
        };
        link("down").await.expect("the link goes down");
        let read = tokio::spawn(async move { namespace.read(0, buffer).await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!read.is_finished(), "the read is held");
        link("up").await.expect("the link comes up");
        let back = Instant::now();
        let read = tokio::time::timeout(HANG_TIMEOUT, read).await.expect("it does not hang");
        read.expect("no panic").expect("the read was held");
        println!("the read was done {:?} after the link was back", back.elapsed());
        controller.shutdown().await;
    });
}

/// The wire swallows everything, and both ports stay up: only a clock can tell.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_silent_peer_is_noticed_by_the_clock() {
    if !other_machine::is_here() {
        return on_another_machine("a_silent_peer_is_noticed_by_the_clock");
    }
    let runtime = Runtime::new().expect("a runtime");
    // As the kernel's initiator, whose retries never end on rxe; and with a clock for each packet.
    let patient = over_the_wire().retry_count(7);
    let quick = over_the_wire().retry_count(1).ack_timeout(Some(14));
    for (name, options) in [("keep-alive of 2 s", patient), ("acknowledge timeout", quick)] {
        let load = load(&runtime, &options);
        command("tc", "qdisc add dev veth1 root netem loss 100%");
        let silent = Instant::now();
        let cause = runtime.block_on(load.failure());
        println!("{name}: noticed after {:?}: {cause}", silent.elapsed());
        assert!(matches!(cause, Error::KeepAlive(_)) == (options.retry_count == 7), "{cause}");
        command("tc", "qdisc del dev veth1 root");
    }
}

/// A shutdown in every state, while the wire loses every packet.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_end_comes_soon_while_nothing_is_heard() {
    if !other_machine::is_here() {
        return on_another_machine("the_end_comes_soon_while_nothing_is_heard");
    }
    let runtime = Runtime::new().expect("a runtime");
    let delay = Duration::from_millis(500);
    let reconnect = ReconnectOptions::default().delay(delay);
    let options = over_the_wire().reconnect(reconnect);
    for state in STATES {
        runtime.block_on(load(&runtime, &over_the_wire()).stop());
        let took = runtime.block_on(shut_down_in(state, &options, async || {
            command("tc", "qdisc add dev veth1 root netem loss 100%");
        }));
        println!("{state}, a silent wire: ended {took:?} after the wish");
        command("tc", "qdisc del dev veth1 root");
    }
    command("tc", "qdisc add dev veth1 root netem loss 100%");
    for milliseconds in [0, 300, 1500, 4000] {
        let time = Duration::from_millis(milliseconds);
        let took = runtime.block_on(cancel_after(time, &options));
        println!("a first connect over it for {time:?}: ended {took:?} after the wish");
    }
    command("tc", "qdisc del dev veth1 root");
    connects(&runtime, &over_the_wire());
}

/// Attempts that end while the port is down leave nothing open, though rxe must send no message of
/// the connection manager then. They have a device of their own: without carrier there is no port,
/// but still a route, to a neighbour that is known.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn attempts_without_a_link_keep_no_descriptors() {
    if !other_machine::is_here() {
        return on_another_machine("attempts_without_a_link_keep_no_descriptors");
    }
    command("ip", "link add veth2 type veth peer name veth3");
    command("ip", "addr add 10.30.0.2/24 dev veth2");
    command("ip", "link set veth2 up");
    command("ip", "link set veth3 up");
    command("rdma", "link add unlinked type rxe netdev veth2");
    command("ip", "neigh replace 10.30.0.1 lladdr 02:00:00:00:00:01 nud permanent dev veth2");
    command("ip", "link set veth3 down");
    let runtime = Runtime::new().expect("a runtime");
    let attempt = Duration::from_millis(400);
    let fifty = || {
        let attempts = (0..50).map(|_| {
            runtime.spawn(async move {
                let options = quick_options().address("10.30.0.1:4420".parse().expect("it is one"));
                match tokio::time::timeout(attempt, Controller::connect(&options)).await {
                    Ok(Ok(_)) => panic!("there is no target"),
                    Ok(Err(error)) => println!("an attempt ended early: {error}"),
                    Err(_) => {}
                }
            })
        });
        let attempts: Vec<_> = attempts.collect();
        attempts.into_iter().for_each(|one| runtime.block_on(one).expect("no panic"));
    };
    fifty(); // what is made once is made now
    sleep(Duration::from_secs(3)); // supervisors end after the attempts that they belong to
    let before = ProcessResources::of("unlinked");
    (0..20).for_each(|_| fifty());
    before.wait_until_released("unlinked");
    command("rdma", "link delete unlinked");
    command("ip", "link delete veth2");
}

/// Both ends are one device: the target's goodbye, while the port is down, is the last message of
/// its CM. We say so, and need no new process once there is a new device. Runs last of its file, by
/// its name: it takes the device away.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn z_a_cm_that_the_target_has_killed_is_noticed_and_survived() {
    let runtime = Runtime::new().expect("a runtime");
    let load = runtime.block_on(Load::start(&quick_options())).expect("it connects");
    command("ip", "link set dum0 down");
    let cause = runtime.block_on(load.failure());
    println!("while the link was down: {cause}");
    sleep(Duration::from_secs(5));
    command("ip", "link set dum0 up");
    let error = runtime
        .block_on(Controller::connect(&quick_options()).into_future())
        .err()
        .expect("the CM is dead");
    assert!(matches!(error, Error::Transport(_)), "{error}");
    println!("after it: {error}");
    if before_7() {
        println!(
            "SKIPPED: the rest: before 7 the kernel deletes no device that a process has open"
        );
        return;
    }
    command("rdma", "link delete rxe0");
    command("rdma", "link add rxe0 type rxe netdev dum0");
    target(&["unlink", "port", "1", SUBSYSTEM]);
    target(&["link", "port", "1", SUBSYSTEM]);
    connects(&runtime, &quick_options());
}
