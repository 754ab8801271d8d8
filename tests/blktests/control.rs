//! Connecting, resetting and disconnecting.

use std::{collections::HashSet, os::unix::fs::OpenOptionsExt};

use rdma_host::{
    Command, DiscoveryEvent, DiscoveryWatch, Error, ExecutionStatus, LifecycleState, StateChanges,
};

use super::*;

/// Takes changes until the state is entered.
async fn reach(changes: &mut StateChanges, state: LifecycleState) {
    while changes.next().await.expect("the controller goes on").state != state {}
}

/// Log of the target's kernel.
fn kernel_log() -> Vec<String> {
    /// `O_NONBLOCK`: ends where there is nothing more, rather than waiting for it.
    const NONBLOCK: i32 = 0o4000;
    use std::io::Read;
    let file = std::fs::File::options().read(true).custom_flags(NONBLOCK).open("/dev/kmsg");
    let mut file = file.expect("the guest is root");
    let (mut lines, mut record) = (Vec::new(), [0; 8192]);
    while let Ok(length) = file.read(&mut record) {
        lines.push(String::from_utf8_lossy(&record[..length]).into_owned());
    }
    lines
}

/// blktests nvme/003: a discovery connection stays, without an error on either side.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_discovery_connection_stays_quiet() {
    let before = kernel_log().len();
    in_runtime(async {
        let mut options = options();
        options.subsystem = rdma_host::wire::Nqn::DISCOVERY.parse().unwrap();
        options.keep_alive = Duration::from_secs(2);
        let mut watch = DiscoveryWatch::connect(&options).await.unwrap();
        let DiscoveryEvent::Log(log) = watch.next().await else { panic!("the log comes first") };
        assert!(!log.entries.is_empty());
        let news = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        assert!(news.is_err(), "{news:?}");
        watch.shutdown().await;
    });
    let bad = ["keep-alive", "unhandled", "unsupported", "fatal"];
    let lines = kernel_log().split_off(before);
    let found: Vec<_> =
        lines.iter().filter(|line| bad.iter().any(|word| line.contains(word))).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// blktests nvme/005 and nvme/022: after a reset the same namespaces are there, with their data.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_reset_brings_the_same_namespaces_back() {
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(FIRST).await.unwrap();
        let data = blocks_of_noise(&namespace, 100);
        write(&controller, &namespace, 7, &data).await;
        let before = controller.rescan().await.unwrap();
        let mut changes = controller.changes();
        for _ in 0..3 {
            controller.reset().await;
            reach(&mut changes, LifecycleState::Live).await;
            assert!(read(&controller, &namespace, 7, data.len()).await == data);
            assert_eq!(controller.rescan().await.unwrap(), before);
        }
        assert_eq!(controllers_of_target().await, 1);
        controller.shutdown().await;
    });
    wait_for_none();
}

async fn controllers_of_target() -> usize {
    tokio::task::spawn_blocking(|| controllers(SUBSYSTEM)).await.expect("it ends")
}

/// blktests nvme/030: the generation of the discovery log rises with each change.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn every_change_makes_another_discovery_log() {
    in_runtime(async {
        let mut options = options();
        options.subsystem = rdma_host::wire::Nqn::DISCOVERY.parse().unwrap();
        let mut last = None;
        let changes: [&[&str]; 5] = [
            &["show"],
            &["set", "subsystem", SUBSYSTEM, "allow_any_host", "0"],
            &["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"],
            &["unlink", "port", "1", SUBSYSTEM],
            &["link", "port", "1", SUBSYSTEM],
        ];
        let mut controller = None;
        for change in changes {
            if change[0] == "unlink" {
                // The last subsystem takes the port with it.
                controller = None;
            }
            change_target(change).await;
            if change[0] == "unlink" {
                continue;
            }
            if controller.is_none() {
                let connect = rdma_host::DiscoveryController::connect(&options);
                controller = Some(connect.await.unwrap());
            }
            let log = controller.as_mut().unwrap().read_log().await.unwrap();
            println!(
                "generation {}, {} entries after {change:?}",
                log.generation,
                log.entries.len()
            );
            assert!(last.is_none_or(|last| log.generation > last), "{last:?} after {change:?}");
            last = Some(log.generation);
        }
    });
}

/// blktests nvme/031: connect, and at once disconnect, ten times; each way there is.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn connections_that_end_at_once_leave_nothing() {
    in_runtime(async {
        for _ in 0..10 {
            connected().await.shutdown().await;
        }
        for _ in 0..10 {
            drop(connected().await);
        }
        for index in 0..10 {
            let time = Duration::from_millis(5 * index);
            // Dropped when the time is over.
            let _ = tokio::time::timeout(time, Controller::connect(&options())).await;
        }
    });
    wait_for_none();
}

/// blktests nvme/069: what is held of a controller that has ended gives errors, and buffers come
/// back.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn handles_outlive_their_controller() {
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(FIRST).await.unwrap();
        let mut events = controller.events();
        let buffer = controller.allocate(4096).unwrap();
        let (other, mut pollers) =
            Controller::connect(&options()).polled(1).await.expect("the target is there");
        controller.shutdown().await;
        other.shutdown().await;
        let failed = namespace.read(0, buffer).await.unwrap_err();
        assert!(matches!(failed.error, Error::Closed), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::NotSent);
        assert_eq!(failed.buffer.expect("it comes back").len(), 4096);
        assert!(matches!(namespace.flush().await, Err(Error::Closed)));
        assert!(events.next().await.is_none());
        let refused = pollers[0].submit(Command::flush(FIRST)).map_err(|refused| refused.error);
        let polled = pollers[0].poll().map(drop);
        assert!(refused.is_err() || polled.is_err(), "{refused:?} {polled:?}");
    });
    wait_for_none();
}

/// blktests nvme/040: a reset and then the end, under load: every command is done, and once.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn every_command_is_done_once_whatever_ends_the_connection() {
    const RESETS: usize = 3;
    in_runtime(async {
        let mut options = options();
        options.io_queues = 2;
        let (controller, mut pollers) = Controller::connect(&options).polled(1).await.unwrap();
        let mut poller = pollers.remove(0);
        let changes = controller.changes();
        let (mut submitted, mut answered, mut failed) = (0_u64, 0_u64, 0_u64);
        let (mut open, mut live, mut since) = (HashSet::new(), 0, 0);
        let mut end = None;
        let mut controller = Some(controller);
        loop {
            while end.is_none() && open.len() < 32 {
                let buffer = controller.as_ref().unwrap().allocate(4096).unwrap();
                let lba = submitted % 1000 * 8;
                let command = Command::read(FIRST, lba, 8, buffer).with_user(submitted);
                poller.submit(command).expect("there is room");
                assert!(open.insert(submitted));
                submitted += 1;
            }
            let over = poller.ring_doorbells().and_then(|()| poller.poll()).is_err();
            while let Some(done) = poller.take() {
                assert!(open.remove(&done.user), "{} is done twice", done.user);
                assert!(done.data.is_some(), "the buffer comes back");
                match done.outcome {
                    Ok(response) => {
                        assert!(response.status().is_success());
                        (answered, since) = (answered + 1, since + 1);
                    }
                    Err(error) => {
                        assert!(end.is_some(), "nothing fails before the end: {error}");
                        failed += 1;
                    }
                }
            }
            if over {
                break;
            }
            if since >= 200 && end.is_none() {
                since = 0;
                live += 1;
                if live > RESETS {
                    end = controller.take().map(|one| tokio::spawn(one.shutdown()));
                } else {
                    controller.as_ref().unwrap().reset().await;
                }
            }
            let _ = poller.ready(Duration::from_millis(10)).await;
        }
        assert!(open.is_empty(), "{open:?} never came back");
        assert_eq!(submitted, answered + failed);
        println!("{submitted} commands, {answered} answered, {failed} failed at the end");
        end.unwrap().await.unwrap();
        assert_eq!(connections(changes).await, RESETS, "a new connection after each reset");
    });
    wait_for_none();
}

/// Number of new connections among the changes to the end of a controller.
async fn connections(mut changes: StateChanges) -> usize {
    let mut connections = 0;
    while let Some(change) = changes.next().await {
        connections += usize::from(change.state == LifecycleState::Live);
    }
    connections
}

/// blktests nvme/060: the controllers of the target turn fatal, over and over, while a host comes
/// and goes.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn hosts_come_and_go_while_the_target_resets() {
    let over = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    let resets = std::thread::scope(|scope| {
        let resetter = scope.spawn(|| {
            let program = std::env::var("SOFT_ROCE_PROGRAM").expect("run by ./tests/run");
            let mut resets = 0;
            while !over.load(ordering) {
                let mut fatal = std::process::Command::new(&program);
                // Without a controller, there is none to turn fatal.
                let output = tests::run(fatal.args(["target", "fatal", SUBSYSTEM]), &[]);
                resets += usize::from(output.status.success());
            }
            resets
        });
        in_runtime(async {
            let mut options = options();
            options.keep_alive = Duration::from_secs(1);
            options.reconnect.first_connect = true;
            options.reconnect.delay = Duration::from_millis(100);
            for _ in 0..6 {
                let controller = Controller::connect(&options).await.expect("it goes on trying");
                // Long enough to be hit, and to come back.
                tokio::time::sleep(Duration::from_millis(500)).await;
                controller.shutdown().await;
            }
        });
        over.store(true, ordering);
        resetter.join().unwrap()
    });
    println!("{resets} resets by the target");
    assert!(resets > 0);
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(FIRST).await.unwrap();
        let data = blocks_of_noise(&namespace, 8);
        write(&controller, &namespace, 0, &data).await;
        assert!(read(&controller, &namespace, 0, data.len()).await == data);
        controller.shutdown().await;
    });
    wait_for_none();
}
