//! Commands that fail with a status that allows a retry.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rdma_host::{
    Command, ConnectOptions, Controller, Error, ExecutionStatus, LifecycleState, MemoryMode,
    TransferError,
    error::{Misuse, Rejected},
    wire::{NamespaceId, Opcode, Sqe, Status},
};
use tests::target::{Answer, ReceivedCommand};

use super::{Bed, options, reach, run};

/// Retry delays (CRDT1 to CRDT3) and asymmetric access of the target.
#[derive(Clone, Copy, Default)]
struct Controls {
    /// In units of 100 ms.
    delays: [u16; 3],
    /// ANATT in seconds; without one the target reports no asymmetric access.
    ana_transition_time: u8,
}

/// ANATT of a second: a path in change is waited for for two.
const ANA: Controls = Controls { delays: [0; 3], ana_transition_time: 1 };

/// Answers every Identify Controller with `controls`, and I/O commands by `status`, which has the
/// number of the command and the time since the first; records the times of the I/O commands.
fn answer_io(
    bed: &Bed,
    controls: Controls,
    mut status: impl FnMut(usize, Duration) -> u16 + Send + 'static,
) -> Arc<Mutex<Vec<Instant>>> {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen_at = Arc::clone(&times);
    bed.answer(move |seen, answer| {
        if seen.is_identify_controller() {
            identify(controls, answer);
        } else if seen.is_io() {
            let mut times = seen_at.lock().expect("no test panics");
            times.push(Instant::now());
            let status = status(times.len(), times[0].elapsed());
            refuse(seen, answer, status);
        }
    });
    times
}

fn identify(controls: Controls, answer: &mut Answer) {
    let Controls { delays, ana_transition_time } = controls;
    for (at, delay) in (128..).step_by(2).zip(delays) {
        answer.data[at..at + 2].copy_from_slice(&delay.to_le_bytes());
    }
    if ana_transition_time > 0 {
        answer.data[76] |= 1 << 3;
        answer.data[342] = ana_transition_time;
    }
}

/// Answers with a status, and moves no data unless that is success.
fn refuse(seen: ReceivedCommand, answer: &mut Answer, status: u16) {
    answer.messages = vec![seen.response(status, 0)];
    if status != 0 {
        answer.data.clear();
    }
}

fn status_of(error: &Error) -> Option<u16> {
    match error {
        Error::Rejected(Rejected::Command { status, .. }) => Some(status.code().0),
        _ => None,
    }
}

/// Outcome of one read: the number of times that it was sent, and the status it failed with.
async fn read_once(
    options: &ConnectOptions,
    controls: Controls,
    status: impl FnMut(usize, Duration) -> u16 + Send + 'static,
) -> (usize, Result<(), TransferError>) {
    let bed = Bed::new();
    let times = answer_io(&bed, controls, status);
    let (controller, namespace) = bed.connect(options).await;
    let outcome = namespace.read(0, controller.allocate(512).expect("memory")).await.map(drop);
    controller.shutdown().await;
    let count = times.lock().expect("no test panics").len();
    (count, outcome)
}

#[test]
fn each_status_is_retried_as_often_as_by_linux() {
    for (status, controls, sends) in [
        (0x006, Controls::default(), 6),
        (0x021, Controls::default(), 6),
        (0x082, ANA, 6),
        (0x281, Controls::default(), 6),
        (0x300, ANA, 6),
        (0x302, Controls::default(), 6),
        (0x303, Controls::default(), 6),
        (0x191, Controls::default(), 1),
        (0x301, ANA, 1),
        (0x4006, Controls::default(), 1),
        (0x4303, ANA, 1),
    ] {
        for memory in [MemoryMode::Pool, MemoryMode::Window] {
            run(async {
                let options = options().memory(memory);
                let (count, outcome) = read_once(&options, controls, move |_, _| status).await;
                let failed = outcome.expect_err("the status does not change");
                assert_eq!(status_of(&failed.error), Some(status & 0x7ff), "{failed}");
                assert_eq!(failed.execution, ExecutionStatus::Answered);
                assert!(failed.buffer.is_some());
                assert_eq!(count, sends, "{status:#x} {memory:?}");
            });
        }
    }
}

#[test]
fn a_status_that_passes_is_no_error() {
    for status in [0x006, 0x021, 0x281, 0x360] {
        run(async {
            let fails = move |count, _| if count <= 5 { status } else { 0 };
            let (count, outcome) = read_once(&options(), Controls::default(), fails).await;
            outcome.expect("the fifth retry succeeds");
            assert_eq!(count, 6, "{status:#x}");
        });
    }
}

#[test]
fn without_resending_each_status_is_final() {
    for (status, controls) in [(0x006, Controls::default()), (0x303, ANA)] {
        run(async {
            let mut options = options();
            options.reconnect.resend = false;
            let (count, outcome) = read_once(&options, controls, move |_, _| status).await;
            outcome.expect_err("it is not sent again");
            assert_eq!(count, 1, "{status:#x}");
        });
    }
}

/// Nothing fails while the path changes, though the command timeout is shorter than that.
#[test]
fn a_path_in_change_is_waited_for() {
    for status in [0x302, 0x303] {
        run(async {
            let mut options = options();
            options.io_timeout = Duration::from_millis(500);
            let change = Duration::from_millis(1500);
            let changes = move |_, since| if since < change { status } else { 0 };
            let began = Instant::now();
            let (count, outcome) = read_once(&options, ANA, changes).await;
            outcome.expect("the path comes back");
            assert!((change..2 * change).contains(&began.elapsed()), "{:?}", began.elapsed());
            assert!((10..=17).contains(&count), "{count} sends in {change:?}");
        });
    }
}

#[test]
fn a_path_that_does_not_come_back_fails_after_twice_its_transition_time() {
    for status in [0x302, 0x303] {
        run(async {
            let began = Instant::now();
            let (_, outcome) = read_once(&options(), ANA, move |_, _| status).await;
            let failed = outcome.expect_err("it does not come back");
            assert_eq!(status_of(&failed.error), Some(status), "{failed}");
            let limits = Duration::from_secs(2)..Duration::from_secs(3);
            assert!(limits.contains(&began.elapsed()), "{:?}", began.elapsed());
        });
    }
}

/// Retries of another kind are left after a change of the path.
#[test]
fn waiting_for_a_path_is_no_retry() {
    run(async {
        let statuses = |count, _| if count <= 10 { 0x303 } else { 0x006 };
        let (count, outcome) = read_once(&options(), ANA, statuses).await;
        outcome.expect_err("the other status stays");
        assert_eq!(count, 16);
    });
}

#[test]
fn the_delays_of_the_controller_are_heeded_once_it_knows() {
    let controls = Controls { delays: [1, 3, 0], ana_transition_time: 0 };
    for (index, delay) in [(0, 0), (1, 100), (2, 300), (3, 0)] {
        run(async {
            let bed = Bed::new();
            let status = 0x006 | index << 11;
            let fails = move |count, _| if count <= 2 { status } else { 0 };
            let times = answer_io(&bed, controls, fails);
            let (controller, namespace) = bed.connect(&options()).await;
            namespace.read(0, controller.allocate(512).unwrap()).await.expect("the third succeeds");
            for pair in times.lock().unwrap().windows(2) {
                let (waited, delay) = (pair[1] - pair[0], Duration::from_millis(delay));
                assert!(waited >= delay, "{waited:?} for CRD {index}");
                assert!(waited < delay + Duration::from_millis(90), "{waited:?} for CRD {index}");
            }
            controller.shutdown().await;
        });
    }
}

/// Host Behavior Support is set where there are delays (CRDT1), and may be refused.
#[test]
fn retry_delays_are_enabled_where_there_are_any() {
    for (delays, status, expected) in [
        ([0; 3], 0, None),
        ([0, 7, 7], 0, None),
        ([7, 0, 0], 0, Some(1)),
        ([7, 0, 0], 0x4002, Some(1)),
    ] {
        run(async {
            let bed = Bed::new();
            let enabled: Arc<Mutex<Option<u8>>> = Arc::default();
            let seen_enabled = Arc::clone(&enabled);
            bed.answer(move |seen, answer| {
                if seen.is_identify_controller() {
                    identify(Controls { delays, ana_transition_time: 0 }, answer);
                } else if seen.is_host_behavior() {
                    assert_eq!(answer.carried.len(), 512);
                    *seen_enabled.lock().unwrap() = Some(answer.carried[0]);
                    answer.messages = vec![seen.response(status, 0)];
                }
            });
            let (controller, namespace) = bed.connect(&options()).await;
            namespace.read(0, controller.allocate(512).unwrap()).await.expect("it is live");
            assert_eq!(*enabled.lock().unwrap(), expected, "{delays:?}");
            controller.shutdown().await;
        });
    }
}

/// Held commands take the place of new ones, as those in flight do, and survive a loss.
#[test]
fn a_poller_holds_commands_within_its_depth() {
    run(async {
        let bed = Bed::new();
        answer_io(&bed, ANA, |_, _| 0x303);
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.unwrap();
        let poller = &mut pollers[0];
        let mut changes = controller.changes();
        let read = |lba| {
            Command::read(NamespaceId(1), lba, 1, controller.allocate(512).unwrap()).with_user(lba)
        };
        let depth = poller.depth() as u64;
        for lba in 0..depth {
            poller.submit(read(lba)).expect("there is room");
        }
        poller.flush().unwrap();
        let until = Instant::now() + Duration::from_millis(350);
        while Instant::now() < until {
            poller.poll().unwrap();
            assert!(poller.take().is_none(), "the path is waited for");
            assert_eq!((poller.in_flight() as u64, poller.room()), (depth, 0));
            let refused = poller.submit(read(0)).expect_err("held commands count");
            assert!(matches!(refused.error, Error::Misuse(Misuse::QueuesFull)), "{refused}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(poller.statistics().read.retried >= 3 * depth);
        controller.reset().await;
        answer_io(&bed, ANA, |_, _| 0);
        let mut done = Vec::new();
        while (done.len() as u64) < depth {
            poller.ready(Duration::from_millis(10)).await.unwrap();
            poller.poll().unwrap();
            done.extend(std::iter::from_fn(|| poller.take()));
        }
        done.sort_unstable_by_key(|completion| completion.user);
        for (user, completion) in (0..).zip(&done) {
            assert_eq!(completion.user, user);
            assert!(completion.outcome.as_ref().unwrap().status().is_success());
            assert!(completion.data.is_some());
        }
        reach(&mut changes, LifecycleState::Live).await;
        drop(pollers);
        controller.shutdown().await;
    });
}

/// Linux sends its passthrough commands once as well.
#[test]
fn a_command_that_is_none_of_a_block_device_is_sent_once() {
    run(async {
        let bed = Bed::new();
        let times = answer_io(&bed, Controls::default(), |_, _| 0x006);
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.unwrap();
        let poller = &mut pollers[0];
        let mut command = Command::flush(NamespaceId(1));
        command.sqe = Sqe::new(Opcode(0x0d), NamespaceId(1)); // Reservation Register
        poller.submit(command).unwrap();
        poller.flush().unwrap();
        let done = loop {
            poller.ready(Duration::from_millis(10)).await.unwrap();
            poller.poll().unwrap();
            if let Some(done) = poller.take() {
                break done;
            }
        };
        assert_eq!(done.outcome.unwrap().status(), Status(0x006));
        assert_eq!(times.lock().unwrap().len(), 1);
        drop(pollers);
        controller.shutdown().await;
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_path() {
    run(async {
        let bed = Bed::new();
        let controls = Controls { delays: [0; 3], ana_transition_time: 60 };
        answer_io(&bed, controls, |_, _| 0x302);
        let (controller, namespace) = bed.connect(&options()).await;
        let buffer = controller.allocate(512).unwrap();
        let read = tokio::spawn(async move { namespace.read(0, buffer).await });
        tokio::time::sleep(Duration::from_millis(250)).await;
        let began = Instant::now();
        controller.shutdown().await;
        let failed = read.await.unwrap().expect_err("the controller is closed");
        assert!(matches!(failed.error, Error::Closed), "{failed}");
        assert!(failed.buffer.is_some());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}
