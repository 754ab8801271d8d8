//! A subsystem over several paths: each class of failure over the fabric, against two scripted
//! ports over one medium; `multipath/bed.rs` has Linux's target.

// bed: waits --target tests/targets/multipath.toml

#[path = "multipath/bed.rs"]
mod bed;
#[path = "multipath/commands.rs"]
mod commands;
#[path = "multipath/controller_reset.rs"]
mod controller_reset;
#[path = "multipath/nvmf.rs"]
mod nvmf;
#[path = "multipath/poller.rs"]
mod poller;
#[path = "multipath/preemption.rs"]
mod preemption;
#[path = "multipath/scripted_port.rs"]
mod scripted_port;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdma_fabric::Host;
use rdma_host::{
    Command, Data, Error, ErrorClass, ExecutionStatus, Fence, FenceOptions, LifecycleState, PathId,
    PathPolicy, PathState, Subsystem, SubsystemNamespace,
    error::PathError,
    wire::{NamespaceId, Opcode, Sqe},
};
use scripted_port::{
    CHANGE, INACCESSIBLE, NON_OPTIMIZED, OPTIMIZED, PERSISTENT_LOSS, Port, Ports, both,
    connect_options, second_address,
};
use tests::target::Answer;
use tracing_subscriber::filter::LevelFilter;
use verbs::{Buffer, Provider};

const READ: u8 = 0x02;
const WRITE: u8 = 0x01;

/// Runs a test with a limit against hanging for ever.
fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
    });
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn read(namespace: &SubsystemNamespace, buffer: Buffer, count: usize) -> Buffer {
    let mut buffer = buffer;
    for _ in 0..count {
        buffer = namespace.read(0, buffer).await.expect("a path is usable");
    }
    buffer
}

/// Commands, failures and switches of each path.
fn counts<P: Provider>(subsystem: &Subsystem<P>) -> [(u64, u64, u64); 2] {
    let status = subsystem.status();
    println!("{status}");
    [0, 1].map(|index| {
        let path = &status.paths[index];
        (path.commands, path.failures, path.switches)
    })
}

/// Number of reads that each port saw since the last call.
fn reads_of(ports: &[Arc<Port>; 2], before: &mut [usize; 2]) -> [usize; 2] {
    let now = [0, 1].map(|index| ports[index].count(READ));
    let new = [0, 1].map(|index| now[index] - before[index]);
    *before = now;
    new
}

#[test]
fn both_paths_are_used_and_what_one_writes_the_other_reads() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let mut buffer = subsystem.allocate(512).expect("memory");
        for byte in 1..=10 {
            buffer.fill(byte);
            buffer = namespace.write(7, buffer).await.expect("both are live");
            buffer.fill(0);
            buffer = namespace.read(7, buffer).await.expect("both are live");
            let mut read = [0];
            buffer.copy_out(511, &mut read);
            assert_eq!(read, [byte]);
            // Else each path would have either the reads or the writes.
            namespace.flush().await.expect("both are live");
        }
        let written = all.ports.each_ref().map(|port| port.count(WRITE));
        assert_eq!(written, [5, 5]);
        assert_eq!(counts(&subsystem), [(15, 0, 0); 2]);
        assert!(subsystem.status().to_string().contains("round-robin"));
        // Larger than one command.
        let large = subsystem.allocate(256 << 10).expect("memory");
        let large = namespace.write(0, large).await.expect("it is split");
        namespace.read(0, large).await.expect("it is split");
        subsystem.shutdown().await;
    });
}

#[test]
fn a_path_that_is_not_there_at_first_is_used_later() {
    run(async {
        let all = Ports::new();
        all.ports[0].close();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let status = subsystem.status();
        assert_eq!(status.paths[0].state, PathState::Reconnecting);
        assert!(status.paths[0].cause.is_some(), "{status}");
        assert!(subsystem.controller(PathId(0)).is_none());
        let buffer = subsystem.allocate(512).expect("memory");
        let buffer = read(&namespace, buffer, 4).await;
        all.ports[0].open();
        until(|| subsystem.status().paths[0].state == PathState::Live).await;
        read(&namespace, buffer, 4).await;
        assert_eq!(all.ports.each_ref().map(|port| port.count(READ)), [2, 6]);
        assert_eq!(counts(&subsystem)[0].2, 1, "commands are led to it");
        subsystem.shutdown().await;
    });
}

#[test]
fn a_path_that_does_not_answer_is_not_waited_for() {
    run(async {
        let all = Ports::new();
        // The connection is accepted, and no command is answered.
        all.ports[0].answer(|_, answer| answer.messages.clear());
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let status = subsystem.status();
        assert_eq!(status.paths[0].state, PathState::Reconnecting);
        assert!(status.paths[0].cause.is_none(), "{status}");
        let buffer = subsystem.allocate(512).expect("memory");
        read(&namespace, buffer, 4).await;
        assert_eq!(all.ports.each_ref().map(|port| port.count(READ)), [0, 4]);
        // Closed, the first attempt fails, and further ones find the port open again.
        all.ports[0].answer(|_, _| {});
        all.ports[0].cut();
        until(|| subsystem.status().paths[0].state == PathState::Live).await;
        subsystem.shutdown().await;
    });
}

#[test]
fn without_any_path_the_first_error_is_told() {
    run(async {
        let all = Ports::new();
        all.ports.iter().for_each(|port| port.close());
        let failed = Subsystem::connect_over(&all.host, &both(connect_options())).await;
        let error = failed.err().expect("both refuse");
        assert!(matches!(error, Error::Rejected(_)), "{error}");
    });
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    run(async {
        let all = Ports::new();
        let twice = both(connect_options()).path(second_address(), None);
        let error = Subsystem::connect_over(&all.host, &twice).await.err().expect("a mistake");
        assert_eq!(error.to_string(), "10.0.0.3:4420 is given twice as a path");
        let (subsystem, _) = all.connect(&both(connect_options())).await;
        subsystem.shutdown().await;
        all.ports[1].answer(|seen, answer| {
            if seen.is_identify_controller() {
                answer.data[4..10].copy_from_slice(b"OTHER1");
            }
        });
        let failed = Subsystem::connect_over(&all.host, &both(connect_options())).await;
        let error = failed.err().expect("another serial number");
        let text = error.to_string();
        assert!(
            text.contains("no paths of one subsystem: serial number SCRIPT and OTHER1"),
            "{text}"
        );
        // Another name of the namespace, another size, no name.
        for (byte, value, name, expected) in [
            (Some(5), 8, 0x03, "UUID 0707"),
            (Some(0), 1, 0x00, "size in blocks 1024 and 1025"),
            (None, 0, 0x03, "namespace 1 has neither UUID, NGUID nor EUI64"),
        ] {
            for port in &all.ports {
                port.answer(|_, _| {});
            }
            for port in all.ports.iter().skip(usize::from(byte.is_some())) {
                port.answer(move |seen, answer| {
                    if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == name {
                        match byte {
                            Some(byte) => answer.data[byte] = value,
                            None => answer.data.fill(0),
                        }
                    }
                });
            }
            let subsystem = Subsystem::connect_over(&all.host, &both(connect_options())).await;
            let subsystem = subsystem.expect("the subsystem is the same");
            let error = subsystem.namespace(NamespaceId(1)).await.err().expect("it differs");
            assert!(matches!(error, Error::Path(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            subsystem.shutdown().await;
        }
    });
}

/// A path that connects late, of another subsystem, is not used.
#[test]
fn a_late_path_of_another_subsystem_is_not_used() {
    run(async {
        let all = Ports::new();
        all.ports[1].close();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        all.ports[1].answer(|seen, answer| {
            if seen.is_identify_controller() {
                answer.data[4..10].copy_from_slice(b"OTHER1");
            }
        });
        all.ports[1].open();
        until(|| subsystem.status().paths[1].state == PathState::Ended).await;
        let buffer = subsystem.allocate(512).expect("memory");
        read(&namespace, buffer, 3).await;
        let status = subsystem.status();
        assert!(status.to_string().contains("serial number SCRIPT and OTHER1"), "{status}");
        assert_eq!(all.ports[1].count(READ), 0);
        subsystem.shutdown().await;
    });
}

/// Access of the ports, and the numbers of ten reads that each of them has then.
#[test]
fn commands_go_where_the_access_is_best() {
    run(async {
        let all = Ports::new();
        let [first, second] = &all.ports;
        first.set_access(OPTIMIZED);
        second.set_access(NON_OPTIMIZED);
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let mut buffer = read(&namespace, subsystem.allocate(512).expect("memory"), 10).await;
        let mut before = [0; 2];
        assert_eq!(reads_of(&all.ports, &mut before), [10, 0]);
        for (one, other, expected) in [
            (NON_OPTIMIZED, NON_OPTIMIZED, [5, 5]),
            (CHANGE, NON_OPTIMIZED, [0, 10]),
            (INACCESSIBLE, OPTIMIZED, [0, 10]),
            (OPTIMIZED, OPTIMIZED, [5, 5]),
            (OPTIMIZED, PERSISTENT_LOSS, [10, 0]),
            (OPTIMIZED, OPTIMIZED, [5, 5]),
        ] {
            first.announce(one);
            second.announce(other);
            let expected_access = [one, other].map(|state| Some(rdma_host::wire::AnaState(state)));
            until(|| {
                let paths = subsystem.status().paths;
                [0, 1].map(|index: usize| paths[index].namespaces[0].access) == expected_access
            })
            .await;
            buffer = read(&namespace, buffer, 10).await;
            assert_eq!(reads_of(&all.ports, &mut before), expected, "{one} {other}");
        }
        let [first, second] = counts(&subsystem);
        assert_eq!((first.1, second.1), (0, 0), "no command failed");
        assert!(first.2 >= 2 && second.2 >= 3, "{first:?} {second:?}");
        subsystem.shutdown().await;
    });
}

/// The status comes before the event: the command goes elsewhere at once, and the path is used
/// again after the event.
#[test]
fn a_status_of_the_access_sends_commands_elsewhere_at_once() {
    run(async {
        let all = Ports::new();
        all.ports.iter().for_each(|port| port.set_access(OPTIMIZED));
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let mut buffer = subsystem.allocate(512).expect("memory");
        for state in [INACCESSIBLE, CHANGE, PERSISTENT_LOSS] {
            all.ports[0].set_access(state);
            buffer = read(&namespace, buffer, 10).await;
            all.ports[0].announce(OPTIMIZED);
            until(|| subsystem.status().paths[0].namespaces[0].is_active).await;
        }
        let mut before = [0; 2];
        reads_of(&all.ports, &mut before);
        read(&namespace, buffer, 10).await;
        assert_eq!(reads_of(&all.ports, &mut before), [5, 5]);
        let [first, second] = counts(&subsystem);
        assert!(first.1 >= 3 && second.1 == 0, "{first:?}");
        assert!(first.2 >= 6 && subsystem.status().paths[0].switched_at.is_some());
        subsystem.shutdown().await;
    });
}

#[test]
fn commands_are_held_while_no_path_is_usable_and_fail_in_the_end() {
    run(async {
        let all = Ports::new();
        all.ports.iter().for_each(|port| port.set_access(OPTIMIZED));
        let limit = Duration::from_millis(300);
        let mut options = connect_options();
        options.reconnect = options.reconnect.fast_io_fail(Some(limit));
        let (subsystem, namespace) = all.connect(&both(options)).await;
        let buffer = subsystem.allocate(512).expect("memory");
        all.ports.iter().for_each(|port| port.announce(INACCESSIBLE));
        until(|| subsystem.status().paths.iter().all(|path| !path.namespaces[0].is_active)).await;
        let began = tokio::time::Instant::now();
        let failed = namespace.read(0, buffer).await.expect_err("no path is usable");
        assert!(began.elapsed() >= limit, "{failed}");
        assert_eq!(failed.error.class(), ErrorClass::Transport);
        assert_eq!(failed.execution, ExecutionStatus::NotSent);
        assert_eq!(
            failed.to_string(),
            "no path to namespace 1: 10.0.0.2:4420 is live, access inaccessible; 10.0.0.3:4420 is \
             live, access inaccessible"
        );
        let reader = {
            let (namespace, buffer) = (namespace.clone(), failed.buffer.expect("it is back"));
            tokio::spawn(async move { namespace.read(0, buffer).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!reader.is_finished(), "it is held");
        all.ports[1].announce(OPTIMIZED);
        let buffer = reader.await.unwrap().expect("a path is usable again");
        // No wait for what will not come back.
        all.ports.iter().for_each(|port| port.announce(PERSISTENT_LOSS));
        until(|| subsystem.status().paths.iter().all(|path| !path.namespaces[0].is_active)).await;
        let failed = namespace.read(0, buffer).await.expect_err("the access is lost for good");
        let error = failed.error;
        let Error::Path(path) = &error else { panic!("{error}") };
        assert!(matches!(**path, PathError::NoPath { .. }), "{error}");
        subsystem.shutdown().await;
    });
}

/// Commands that a port gets and never answers, until its connections are cut.
struct Silence {
    received: Arc<AtomicUsize>,
}

impl Silence {
    fn on(port: &Port) -> Self {
        let received = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&received);
        let silent = Arc::new(AtomicBool::new(false));
        port.answer(move |seen, answer| {
            if seen.is_io() {
                counted.fetch_add(1, Ordering::Relaxed);
                answer.gate = Some(Arc::clone(&silent));
            }
        });
        Self { received }
    }

    async fn until_received(&self, count: usize) {
        until(|| self.received.load(Ordering::Relaxed) >= count).await;
    }
}

async fn preferring_first(ports: &Ports) -> (Subsystem<Host>, SubsystemNamespace) {
    let options = both(connect_options()).policy(PathPolicy::Preferred(PathId(0)));
    ports.connect(&options).await
}

/// Reads and writes in flight on a path that is lost: sent again on the other one, and back to the
/// first once that is live.
#[test]
fn commands_of_a_lost_path_go_on_and_come_back() {
    run(lose_a_path());
}

/// Events of `tracing`, of this test alone in a process: threads without a subscriber would turn
/// some off for all.
#[test]
fn a_lost_path_is_told_by_events() {
    const ALONE: &str = "MULTIPATH_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return check_events();
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut alone = std::process::Command::new(program);
    alone.args(["a_lost_path_is_told_by_events", "--exact"]).env(ALONE, "1");
    let output = alone.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
}

fn check_events() {
    let text = tests::log_of(LevelFilter::INFO, || run(lose_a_path()));
    // Each once, in this order.
    let mut lines = text.lines();
    for parts in [
        &["a path is live", "path=0 address=10.0.0.2:4420"][..],
        &["commands go to other paths", "namespace=1 before=\"0, 1\" now=\"1\""],
        &["a path is lost", "path=0 address=10.0.0.2:4420", "cause=the target or the network"],
        &["a path is live", "path=0"],
        &["commands go to other paths", "namespace=1 before=\"1\" now=\"0, 1\""],
    ] {
        let found = lines.any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in its turn:\n{text}");
    }
    assert_eq!(text.matches("commands go to other paths").count(), 2, "{text}");
}

async fn lose_a_path() {
    let all = Ports::new();
    let (subsystem, namespace) = preferring_first(&all).await;
    let silence = Silence::on(&all.ports[0]);
    let mut tasks = Vec::new();
    for lba in 0..8 {
        let (namespace, mut buffer) = (namespace.clone(), subsystem.allocate(512).expect("memory"));
        buffer.fill(b'A');
        tasks.push(tokio::spawn(async move {
            let buffer = namespace.write(lba, buffer).await?;
            namespace.read(lba, buffer).await
        }));
    }
    silence.until_received(8).await;
    all.ports[0].close();
    for task in tasks {
        let buffer = task.await.expect("no panic").expect("the other path is usable");
        let mut read = [0];
        buffer.copy_out(0, &mut read);
        assert_eq!(read, [b'A']);
    }
    let [first, second] = counts(&subsystem);
    assert_eq!((first.0, first.1), (8, 8));
    assert_eq!((second.0, second.1), (16, 0));
    let status = subsystem.status();
    assert_eq!(status.paths[0].state, PathState::Reconnecting, "{status}");
    all.ports[0].answer(|_, _| {});
    all.ports[0].open();
    until(|| subsystem.status().paths[0].state == PathState::Live).await;
    read(&namespace, subsystem.allocate(512).expect("memory"), 4).await;
    assert_eq!(counts(&subsystem)[0], (12, 8, 2), "back to the preferred path");
    subsystem.shutdown().await;
}

/// Without `resend`, the outcome of a command without a response is the caller's to know.
#[test]
fn without_resend_a_command_of_a_lost_path_fails_as_unknown() {
    run(async {
        let all = Ports::new();
        let mut options = connect_options();
        options.reconnect = options.reconnect.resend(false);
        let options = both(options).policy(PathPolicy::Preferred(PathId(0)));
        let (subsystem, namespace) = all.connect(&options).await;
        let silence = Silence::on(&all.ports[0]);
        let (writer, buffer) = (namespace.clone(), subsystem.allocate(512).unwrap());
        let write = tokio::spawn(async move { writer.write(0, buffer).await });
        silence.until_received(1).await;
        all.ports[0].close();
        let failed = write.await.unwrap().expect_err("its outcome is unknown");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let buffer = failed.buffer.expect("it is back");
        namespace.write(0, buffer).await.expect("a new one goes to the other path");
        assert_eq!(all.ports[1].count(WRITE), 1);
        subsystem.shutdown().await;
    });
}

/// A command that may have another outcome when it is executed twice.
#[test]
fn what_is_not_repeatable_is_never_sent_again() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = preferring_first(&all).await;
        let silence = Silence::on(&all.ports[0]);
        /// Opcode of which nothing is known.
        const UNKNOWN: Opcode = Opcode(0x81);
        let execute = move |namespace: SubsystemNamespace| async move {
            let sqe = Sqe::new(UNKNOWN, NamespaceId(1));
            namespace.execute(Command { sqe, data: Data::None, user: 5 }).await
        };
        let in_flight = tokio::spawn(execute(namespace.clone()));
        silence.until_received(1).await;
        all.ports[0].close();
        let failed = in_flight.await.unwrap();
        assert_eq!((failed.user, failed.execution), (5, ExecutionStatus::Unknown));
        assert_eq!(all.ports[1].count(UNKNOWN.0), 0);
        let done = execute(namespace.clone()).await;
        assert!(done.outcome.is_ok_and(|response| response.status().is_success()));
        assert_eq!(all.ports[1].count(UNKNOWN.0), 1, "a new one is sent");
        let sqe = Sqe::flush(NamespaceId(2));
        let refused = namespace.execute(Command { sqe, data: Data::None, user: 0 }).await;
        assert!(matches!(refused.outcome, Err(Error::Misuse(_))), "of another namespace");
        subsystem.shutdown().await;
    });
}

/// Statuses that are not of the path, by Linux's rules; those of the path, elsewhere.
#[test]
fn other_statuses_are_retried_as_by_a_controller() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = preferring_first(&all).await;
        let mut buffer = subsystem.allocate(512).expect("memory");
        for (status, failures, second, fails) in [
            (0x006, 3, 0, false), // an internal error, three times
            (0x006, 99, 0, true), // always
            (0x4281, 1, 0, true), // do not retry
            (0x370, 1, 1, false), // of the path
        ] {
            let mut left = failures;
            all.ports[0].answer(move |seen, answer| {
                if seen.is_io() && left > 0 {
                    left -= 1;
                    let messages = vec![seen.response(status, 0)];
                    *answer = Answer { messages, ..Answer::default() };
                }
            });
            let before = all.ports[1].count(READ);
            let outcome = namespace.read(0, buffer).await;
            assert_eq!(outcome.is_err(), fails, "{status:#x}");
            assert_eq!(all.ports[1].count(READ) - before, second, "{status:#x}");
            buffer = match outcome {
                Ok(buffer) => buffer,
                Err(failed) => failed.buffer.expect("it is back"),
            };
        }
        subsystem.shutdown().await;
    });
}

/// A write of a lost path that is executed late, and the next write to its block: without the fence
/// the late one overwrites it.
async fn late_write(fence: Fence) -> u8 {
    let all = Ports::new();
    let fence = FenceOptions::default().mode(fence).timeout(Duration::from_secs(5));
    let options = both(connect_options().fence(fence).keep_alive(Duration::from_secs(1)));
    let options = options.policy(PathPolicy::Preferred(PathId(0)));
    let (subsystem, namespace) = all.connect(&options).await;
    let (gate, received) = all.ports[0].hold_write();
    let mut buffer = subsystem.allocate(512).expect("memory");
    buffer.fill(b'A');
    let writer = namespace.clone();
    let first = tokio::spawn(async move { writer.write(7, buffer).await });
    until(|| received.load(Ordering::Relaxed)).await;
    all.ports[0].cut();
    let both = async {
        let mut buffer = first.await.expect("no panic").expect("it is sent again");
        buffer.fill(b'B');
        namespace.write(7, buffer).await.expect("it is answered")
    };
    let mut both = std::pin::pin!(both);
    let answered = tokio::select! {
        buffer = &mut both => Some(buffer),
        () = until(|| all.ports[0].probes() >= 2) => None,
    };
    if answered.is_none() {
        assert_eq!(all.ports[1].count(WRITE), 0, "the repetition waits");
        let buffer = subsystem.allocate(512).expect("memory");
        let buffer = namespace.read(7, buffer).await.expect("a read does not wait");
        namespace.write(8, buffer).await.expect("nor does a write to another block");
    }
    gate.store(true, Ordering::Relaxed);
    let buffer = match answered {
        Some(buffer) => buffer,
        None => both.await,
    };
    let buffer = read_block(&namespace, buffer).await;
    let mut read = [0];
    buffer.copy_out(0, &mut read);
    subsystem.shutdown().await;
    read[0]
}

/// The target executes a held write between two commands.
async fn read_block(namespace: &SubsystemNamespace, mut buffer: Buffer) -> Buffer {
    for _ in 0..4 {
        buffer = namespace.read(7, buffer).await.expect("it is read");
    }
    buffer
}

#[test]
fn a_late_write_of_a_lost_path_overwrites_a_later_one_only_without_the_fence() {
    run(async {
        assert_eq!(late_write(Fence::Off).await, b'A');
        for _ in 0..20 {
            assert_eq!(late_write(Fence::Proof).await, b'B');
        }
    });
}

/// The other port may be another node: that it has no such controller proves nothing.
#[test]
fn another_node_does_not_open_the_fence() {
    run(async {
        let all = Ports::new();
        let fence = FenceOptions::default().timeout(Duration::from_millis(500));
        let options = both(connect_options().fence(fence)).policy(PathPolicy::Preferred(PathId(0)));
        let (subsystem, namespace) = all.connect(&options).await;
        let silence = Silence::on(&all.ports[0]);
        let (writer, buffer) = (namespace.clone(), subsystem.allocate(512).expect("memory"));
        let write = tokio::spawn(async move { writer.write(7, buffer).await });
        silence.until_received(1).await;
        all.ports[0].close();
        let failed = write.await.expect("no panic").expect_err("nothing proves its end");
        assert!(matches!(failed.error, Error::Fenced(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let buffer = failed.buffer.expect("it is back");
        let failed = namespace.write(7, buffer).await.expect_err("its block stays closed");
        assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
        let buffer = namespace.write(8, failed.buffer.expect("it is back")).await;
        let buffer = namespace.read(7, buffer.expect("another block")).await.expect("a read");
        subsystem.open_fence();
        namespace.write(7, buffer).await.expect("the owner has opened it");
        subsystem.shutdown().await;
    });
}

/// A change of the access that does not end within twice the time that the controller allows for it
/// (ANATT) has the path reset.
#[test]
fn a_change_that_does_not_end_resets_the_path() {
    run(async {
        let all = Ports::new();
        all.ports.iter().for_each(|port| port.set_access(OPTIMIZED));
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        let controller = subsystem.controller(PathId(0)).expect("it is connected");
        let mut changes = controller.changes();
        let began = tokio::time::Instant::now();
        all.ports[0].announce(CHANGE);
        let buffer = read(&namespace, subsystem.allocate(512).expect("memory"), 4).await;
        let change = changes.next().await.expect("it goes on");
        assert_eq!(change.state, LifecycleState::Resetting, "{change}");
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        all.ports[0].set_access(OPTIMIZED);
        until(|| subsystem.status().paths[0].namespaces[0].is_active).await;
        let mut before = all.ports.each_ref().map(|port| port.count(READ));
        read(&namespace, buffer, 4).await;
        assert_eq!(reads_of(&all.ports, &mut before), [2, 2]);
        drop(controller);
        subsystem.shutdown().await;
    });
}

/// Another namespace has the id on one path after its connection was lost.
#[test]
fn a_namespace_that_is_replaced_on_a_path_is_not_used_there() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        all.ports[1].answer(|seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x03 {
                answer.data[4..20].fill(8);
            }
        });
        all.ports[1].cut();
        until(|| subsystem.status().paths[1].state != PathState::Live).await;
        until(|| subsystem.status().paths[1].state == PathState::Live).await;
        let status = subsystem.status();
        assert!(!status.paths[1].namespaces[0].is_there, "{status}");
        assert!(status.to_string().contains("namespace 1 not seen"), "{status}");
        let mut before = all.ports.each_ref().map(|port| port.count(READ));
        let buffer = read(&namespace, subsystem.allocate(512).expect("memory"), 4).await;
        assert_eq!(reads_of(&all.ports, &mut before), [4, 0]);
        // Dropped, it is closed to its namespaces.
        drop(subsystem);
        let failed = namespace.read(0, buffer).await.expect_err("it is closed");
        assert!(matches!(failed.error, Error::Closed), "{failed}");
    });
}

/// All paths are gone, and nothing comes back: held, and then an error that names each.
#[test]
fn with_all_paths_gone_commands_are_held_and_go_on_when_one_is_back() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        all.ports.iter().for_each(|port| port.close());
        until(|| subsystem.status().paths.iter().all(|path| path.state != PathState::Live)).await;
        let (reader, buffer) = (namespace.clone(), subsystem.allocate(512).unwrap());
        let read = tokio::spawn(async move { reader.read(0, buffer).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!read.is_finished(), "it is held");
        all.ports[1].open();
        let buffer = read.await.unwrap().expect("a path is back");
        let reader = namespace.clone();
        all.ports[1].close();
        until(|| subsystem.status().paths.iter().all(|path| path.state != PathState::Live)).await;
        let read = tokio::spawn(async move { reader.read(0, buffer).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        subsystem.shutdown().await;
        let failed = read.await.unwrap().expect_err("it was closed");
        assert!(matches!(failed.error, Error::Closed), "{failed}");
        assert!(failed.buffer.is_some());
    });
}
