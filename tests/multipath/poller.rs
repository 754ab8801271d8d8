//! Pollers of the queues of several paths.

use std::time::Instant;

use rdma_fabric::Host;
use rdma_host::{
    CommandCompletion, ConnectOptions, SubsystemOptions, SubsystemPoller, error::Misuse,
    wire::Status,
};
use tests::load::HANG_TIMEOUT;

use super::*;

/// Namespace of the ports.
const NAMESPACE: NamespaceId = NamespaceId(1);

type Pollers = Vec<SubsystemPoller<Host>>;

/// Connects, and identifies the namespace.
async fn connect(
    all: &Ports,
    options: &SubsystemOptions,
    count: usize,
) -> (Subsystem<Host>, Pollers) {
    let connecting = Subsystem::connect_over(&all.host, options);
    let (subsystem, pollers) = connecting.polled(count).await.expect("an honest target");
    subsystem.identify_namespace(NAMESPACE).await.expect("it is there");
    (subsystem, pollers)
}

/// Connects with one poller.
async fn connect_one(
    all: &Ports,
    options: &SubsystemOptions,
) -> (Subsystem<Host>, SubsystemPoller<Host>) {
    let (subsystem, mut pollers) = connect(all, options, 1).await;
    (subsystem, pollers.pop().expect("there is one"))
}

/// Options of both paths, of which the first is preferred.
fn first_preferred(connect: ConnectOptions) -> SubsystemOptions {
    both(connect).policy(PathPolicy::Preferred(PathId(0)))
}

/// Completes all commands.
async fn complete(poller: &mut SubsystemPoller<Host>) -> Vec<CommandCompletion> {
    let mut completions = Vec::new();
    poller.ring_doorbells();
    while poller.in_flight() > 0 {
        poller.poll_with(|done| completions.push(done));
        poller.ready(Duration::from_millis(100)).await;
    }
    completions
}

/// Completes all commands, which succeed; returns their buffers.
async fn succeed(poller: &mut SubsystemPoller<Host>) -> Vec<Buffer> {
    let buffer = |done: CommandCompletion| {
        let succeeded = done.outcome.as_ref().is_ok_and(|response| response.status().is_success());
        assert!(succeeded, "{:?}", done.outcome);
        done.data.expect("it is back")
    };
    complete(poller).await.into_iter().map(buffer).collect()
}

/// Reads once, which succeeds.
async fn read_once(poller: &mut SubsystemPoller<Host>, buffer: Buffer) -> Buffer {
    poller.submit(Command::read(NAMESPACE, 0, 1, buffer)).expect("there is room");
    succeed(poller).await.pop().expect("one command")
}

/// The error with which a read fails.
async fn fail_once(poller: &mut SubsystemPoller<Host>, buffer: Buffer) -> (Error, Buffer) {
    poller.submit(Command::read(NAMESPACE, 0, 1, buffer).with_user(3)).expect("there is room");
    let done = complete(poller).await.pop().expect("one command");
    assert_eq!((done.user, done.execution), (3, ExecutionStatus::NotSent));
    (done.outcome.expect_err("no path"), done.data.expect("it is back"))
}

#[test]
fn commands_go_over_all_paths() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &both(connect_options())).await;
        let mut buffers = subsystem.allocate_many(16, 512).expect("memory");
        let depth = poller.depth();
        for round in 0..20 {
            assert_eq!(poller.room(), depth);
            for (lba, buffer) in (0..).zip(buffers.drain(..)) {
                let command = match round % 2 {
                    0 => Command::write(NAMESPACE, lba, 1, buffer),
                    _ => Command::read(NAMESPACE, lba, 1, buffer),
                };
                poller.submit(command).expect("there is room");
            }
            assert_eq!((poller.room(), poller.in_flight()), (depth - 16, 16));
            buffers = succeed(&mut poller).await;
            assert_eq!(buffers.len(), 16);
        }
        let statistics = poller.statistics().take();
        for operation in [&statistics.read, &statistics.write] {
            assert_eq!((operation.completed, operation.failed, operation.retried), (160, 0, 0));
            assert_eq!((operation.bytes, operation.latency_ns.len()), (160 * 512, 160));
        }
        assert!(statistics.device.doorbells >= 40 && statistics.device.completions >= 320);
        assert_eq!(counts(&subsystem), [(160, 0, 0); 2]);
        let status = subsystem.status();
        assert!(status.paths.iter().all(|path| path.latency.is_some()), "{status}");
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// Each poller has queues of both paths, whose commands fill all of them, and no more.
/// Fused operations on each path: the first of a block succeeds, and no second.
#[test]
fn fused_operations_go_over_all_paths() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &both(connect_options())).await;
        for expected in [Status::SUCCESS, Status::COMPARE_FAILURE] {
            for lba in 0..4 {
                let mut buffer = subsystem.allocate(1024).expect("memory");
                buffer.fill(1);
                buffer.copy_in(0, &[0; 512]);
                let command = Command::compare_and_write(NAMESPACE, lba, 1, buffer);
                poller.submit(command).expect("there is room");
            }
            let completions = complete(&mut poller).await;
            assert_eq!(completions.len(), 4);
            for done in completions {
                assert_eq!(done.data.expect("it is back").len(), 1024);
                assert_eq!(done.outcome.expect("it is answered").status().code(), expected);
            }
        }
        assert_eq!(all.ports.each_ref().map(|port| port.count(0x05)), [4, 4]);
        subsystem.shutdown().await;
    });
}

#[test]
fn several_pollers_fill_the_queues_of_all_paths() {
    run(async {
        let all = Ports::new();
        let mut options = connect_options().io_queues(2);
        options.queue_entries = 8;
        let (subsystem, mut pollers) = connect(&all, &both(options), 3).await;
        assert_eq!(pollers.len(), 2, "as many as there are queues");
        for poller in &mut pollers {
            assert_eq!((poller.depth(), poller.room()), (14, 14));
            for buffer in subsystem.allocate_many(14, 512).expect("memory") {
                poller.submit(Command::read(NAMESPACE, 0, 1, buffer)).expect("there is room");
            }
            let buffer = subsystem.allocate(512).expect("memory");
            let refused = poller.submit(Command::read(NAMESPACE, 0, 1, buffer).with_user(9));
            let refused = refused.expect_err("there is no room");
            assert!(matches!(refused.error, Error::Misuse(Misuse::QueuesFull)), "{refused}");
            assert_eq!((refused.user, refused.data.is_some()), (9, true));
            poller.ring_doorbells();
        }
        assert_eq!(subsystem.status().paths[1].in_flight, 14);
        for poller in &mut pollers {
            assert_eq!(succeed(poller).await.len(), 14);
        }
        assert_eq!(counts(&subsystem), [(14, 0, 0); 2]);
        assert_eq!(subsystem.status().paths[1].in_flight, 0);
        drop(pollers);
        subsystem.shutdown().await;
    });
}

/// An owner that spins, and lets no other task of its thread run, gets all completions, too.
#[test]
fn a_poller_is_polled_without_waiting() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &both(connect_options())).await;
        let mut buffers = subsystem.allocate_many(4, 512).expect("memory");
        let (mut completed, began) = (0, Instant::now());
        while completed < 300 {
            assert!(began.elapsed() < HANG_TIMEOUT, "{completed} have completed");
            buffers.drain(..).for_each(|buffer| {
                poller.submit(Command::read(NAMESPACE, 0, 1, buffer)).expect("there is room");
            });
            poller.ring_doorbells();
            completed += poller.poll_with(|done| buffers.push(done.data.expect("it is back")));
            std::thread::yield_now();
        }
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// Commands in flight on a path that is lost complete on the other one, and new ones go there,
/// until the path is back.
#[test]
fn commands_outlive_a_path() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &first_preferred(connect_options())).await;
        let silence = Silence::on(&all.ports[0]);
        for buffer in subsystem.allocate_many(8, 512).expect("memory") {
            poller.submit(Command::write(NAMESPACE, 3, 1, buffer)).expect("there is room");
        }
        poller.ring_doorbells();
        silence.until_received(8).await;
        all.ports[0].close();
        let mut buffers = succeed(&mut poller).await;
        assert_eq!(counts(&subsystem), [(8, 8, 1), (8, 0, 0)]);
        let buffer = buffers.pop().expect("eight came back");
        let buffer = read_once(&mut poller, buffer).await;
        assert_eq!(counts(&subsystem), [(8, 8, 1), (9, 0, 0)]);
        all.ports[0].answer(|_, _| {});
        all.ports[0].open();
        // The poller takes the queues of the new connection.
        while subsystem.status().paths[0].state != PathState::Live {
            poller.poll_with(|_| panic!("nothing is in flight"));
            poller.ready(Duration::from_millis(1)).await;
        }
        read_once(&mut poller, buffer).await;
        assert_eq!(counts(&subsystem), [(9, 8, 2), (9, 0, 0)]);
        let statistics = poller.statistics().take();
        assert_eq!((statistics.write.completed, statistics.write.failed), (8, 0));
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// A status that allows it is a retry, one of the path is repeated on the other one, and one that
/// allows neither is a failure.
#[test]
fn statuses_are_retried_as_by_a_controller() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &first_preferred(connect_options())).await;
        let mut buffer = subsystem.allocate(512).expect("memory");
        for (status, on_second, fails) in [(0x006, 0, false), (0x370, 1, false), (0x4281, 0, true)]
        {
            let (mut left, before) = (1, all.ports[1].count(READ));
            all.ports[0].answer(move |seen, answer| {
                if seen.is_io() && left > 0 {
                    left -= 1;
                    let messages = vec![seen.response(status, 0)];
                    *answer = Answer { messages, ..Answer::default() };
                }
            });
            poller.submit(Command::read(NAMESPACE, 3, 1, buffer)).expect("there is room");
            let done = complete(&mut poller).await.pop().expect("one command");
            let succeeded = done.outcome.is_ok_and(|response| response.status().is_success());
            assert_eq!(succeeded, !fails, "{status:#x}");
            assert_eq!(all.ports[1].count(READ) - before, on_second, "{status:#x}");
            buffer = done.data.expect("it is back");
        }
        let read = &poller.statistics().take().read;
        assert_eq!((read.completed, read.failed, read.retried), (2, 1, 1));
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// A command that must not be executed twice fails with an unknown outcome.
#[test]
fn what_is_not_repeatable_is_not_sent_again() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &first_preferred(connect_options())).await;
        let silence = Silence::on(&all.ports[0]);
        let sqe = Sqe::new(Opcode(0x7d), NAMESPACE);
        poller.submit(Command { sqe, data: Data::None, user: 5 }).expect("there is room");
        poller.ring_doorbells();
        silence.until_received(1).await;
        all.ports[0].close();
        let done = complete(&mut poller).await.pop().expect("one command");
        assert_eq!((done.user, done.execution), (5, ExecutionStatus::Unknown));
        assert!(done.outcome.is_err());
        assert_eq!(all.ports[1].count(0x7d), 0);
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// Writes A, whose path is cut while the target holds it, then B over the other path, and lets the
/// target execute what it holds; returns what is read then.
async fn late_write(fence: Fence) -> u8 {
    let all = Ports::new();
    let fence = FenceOptions::default().mode(fence).timeout(Duration::from_secs(5));
    let options = connect_options().fence(fence).keep_alive(Duration::from_secs(1));
    let (subsystem, mut poller) = connect_one(&all, &first_preferred(options)).await;
    let (gate, received) = all.ports[0].hold_write();
    let mut buffer = subsystem.allocate(512).expect("memory");
    buffer.fill(b'A');
    poller.submit(Command::write(NAMESPACE, 7, 1, buffer)).expect("there is room");
    poller.ring_doorbells();
    until(|| received.load(Ordering::Relaxed)).await;
    all.ports[0].cut();
    let mut answered = None;
    while answered.is_none() && all.ports[0].probes() < 2 {
        poller.poll_with(|done| answered = done.data);
        poller.ready(Duration::from_millis(1)).await;
    }
    if answered.is_none() {
        assert_eq!(all.ports[1].count(WRITE), 0, "the repetition waits");
        gate.store(true, Ordering::Relaxed);
    }
    let mut buffer = match answered {
        Some(buffer) => buffer,
        None => succeed(&mut poller).await.pop().expect("it is sent again"),
    };
    buffer.fill(b'B');
    poller.submit(Command::write(NAMESPACE, 7, 1, buffer)).expect("there is room");
    let mut buffer = succeed(&mut poller).await.pop().expect("one command");
    gate.store(true, Ordering::Relaxed);
    // The target executes a held write between two commands.
    for _ in 0..4 {
        poller.submit(Command::read(NAMESPACE, 7, 1, buffer)).expect("there is room");
        buffer = succeed(&mut poller).await.pop().expect("one command");
    }
    let mut read = [0];
    buffer.copy_out(0, &mut read);
    drop(poller);
    subsystem.shutdown().await;
    read[0]
}

#[test]
fn a_late_write_overwrites_a_later_one_only_without_the_fence() {
    run(async {
        assert_eq!(late_write(Fence::Off).await, b'A');
        for _ in 0..10 {
            assert_eq!(late_write(Fence::Proof).await, b'B');
        }
    });
}

#[test]
fn a_path_that_is_connected_later_is_used() {
    run(async {
        let all = Ports::new();
        all.ports[0].close();
        let (subsystem, mut poller) = connect_one(&all, &both(connect_options())).await;
        let depth = poller.depth();
        let mut buffer = subsystem.allocate(512).expect("memory");
        for _ in 0..4 {
            buffer = read_once(&mut poller, buffer).await;
        }
        all.ports[0].open();
        until(|| subsystem.status().paths[0].state == PathState::Live).await;
        for _ in 0..4 {
            buffer = read_once(&mut poller, buffer).await;
        }
        assert_eq!(all.ports.each_ref().map(|port| port.count(READ)), [2, 6]);
        assert_eq!(poller.depth(), 2 * depth);
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// Commands are held while no path has access to the namespace, and fail once they were held for as
/// long as the options say.
#[test]
fn commands_are_held_while_no_path_is_usable() {
    run(async {
        let all = Ports::new();
        all.ports.iter().for_each(|port| port.set_access(OPTIMIZED));
        let mut options = connect_options();
        options.reconnect = options.reconnect.fast_io_fail(Some(Duration::from_millis(300)));
        let (subsystem, mut poller) = connect_one(&all, &both(options)).await;
        let buffer = subsystem.allocate(512).expect("memory");
        let buffer = read_once(&mut poller, buffer).await;
        all.ports.iter().for_each(|port| port.announce(INACCESSIBLE));
        let is_active = |path: &rdma_host::PathStatus| path.namespaces[0].is_active;
        until(|| !subsystem.status().paths.iter().any(is_active)).await;
        poller.submit(Command::read(NAMESPACE, 0, 1, buffer)).expect("there is room");
        poller.ring_doorbells();
        poller.ready(Duration::from_millis(50)).await;
        assert_eq!(poller.poll_with(|_| panic!("no path is usable")), 0);
        all.ports[1].announce(OPTIMIZED);
        let buffer = succeed(&mut poller).await.pop().expect("one command");
        all.ports[1].announce(INACCESSIBLE);
        until(|| !subsystem.status().paths.iter().any(is_active)).await;
        let (error, buffer) = fail_once(&mut poller, buffer).await;
        assert!(matches!(error, Error::Path(_)), "{error}");
        all.ports.iter().for_each(|port| port.close());
        until(|| subsystem.status().paths[1].state == PathState::Reconnecting).await;
        let (error, _) = fail_once(&mut poller, buffer).await;
        assert!(matches!(error, Error::Path(_)), "{error}");
        drop(poller);
        subsystem.shutdown().await;
    });
}

/// Commands in flight, and new ones, fail once the controllers of all paths have ended.
#[test]
fn commands_fail_once_all_controllers_have_ended() {
    run(async {
        let all = Ports::new();
        let mut options = connect_options();
        options.reconnect = options.reconnect.loss_timeout(Some(Duration::from_millis(100)));
        let (subsystem, mut poller) = connect_one(&all, &both(options)).await;
        let silence = all.ports.each_ref().map(|port| Silence::on(port));
        for buffer in subsystem.allocate_many(2, 512).expect("memory") {
            poller.submit(Command::write(NAMESPACE, 0, 1, buffer)).expect("there is room");
        }
        poller.ring_doorbells();
        for silence in &silence {
            silence.until_received(1).await;
        }
        all.ports.iter().for_each(|port| port.close());
        let mut completions = complete(&mut poller).await;
        assert_eq!(completions.len(), 2);
        for done in &completions {
            assert_eq!(done.execution, ExecutionStatus::Unknown, "{:?}", done.outcome);
        }
        until(|| subsystem.status().paths.iter().all(|path| path.state == PathState::Ended)).await;
        let buffer = completions.pop().and_then(|done| done.data).expect("it is back");
        let (error, _) = fail_once(&mut poller, buffer).await;
        assert!(matches!(error, Error::Path(_)), "{error}");
        drop(poller);
        subsystem.shutdown().await;
    });
}

#[test]
fn what_is_wrong_with_a_command_is_told_by_its_completion() {
    run(async {
        let all = Ports::new();
        let (subsystem, mut poller) = connect_one(&all, &both(connect_options())).await;
        poller.submit(Command::flush(NamespaceId(2)).with_user(1)).expect("there is room");
        let done = complete(&mut poller).await.pop().expect("one command");
        assert!(matches!(done.outcome, Err(Error::Misuse(Misuse::NoNamespace(NamespaceId(2))))));
        assert_eq!((done.user, done.execution), (1, ExecutionStatus::NotSent));
        let failed = subsystem.namespace(NAMESPACE).await.err().expect("its queues are polled");
        assert!(matches!(failed, Error::Misuse(Misuse::PolledController)), "{failed}");
        // Dropped with a command in flight, and after the subsystem.
        let buffer = subsystem.allocate(512).expect("memory");
        let silence = all.ports.each_ref().map(|port| Silence::on(port));
        poller.submit(Command::read(NAMESPACE, 0, 1, buffer)).expect("there is room");
        poller.ring_doorbells();
        until(|| silence.iter().any(|port| port.received.load(Ordering::Relaxed) == 1)).await;
        drop(subsystem);
        drop(poller);
    });
}
