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
/// number of the command; records the times of the I/O commands.
fn answer_io(
    bed: &Bed,
    controls: Controls,
    mut status: impl FnMut(usize) -> u16 + Send + 'static,
) -> Arc<Mutex<Vec<Instant>>> {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen_at = Arc::clone(&times);
    bed.answer(move |seen, answer| {
        if seen.is_identify_controller() {
            identify(controls, answer);
        } else if seen.is_io() {
            let mut times = seen_at.lock().expect("no test panics");
            times.push(Instant::now());
            let status = status(times.len());
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

/// Outcome of one read: the times at which it was sent, and the status it failed with.
async fn read_once(
    options: &ConnectOptions,
    controls: Controls,
    status: impl FnMut(usize) -> u16 + Send + 'static,
) -> (Vec<Instant>, Result<(), TransferError>) {
    let bed = Bed::new();
    let times = answer_io(&bed, controls, status);
    let (controller, namespace) = bed.connect(options).await;
    let outcome = namespace.read(0, controller.allocate(512).expect("memory")).await.map(drop);
    controller.shutdown().await;
    let times = times.lock().expect("no test panics").clone();
    (times, outcome)
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
                let (times, outcome) = read_once(&options, controls, move |_| status).await;
                let failed = outcome.expect_err("the status does not change");
                assert_eq!(status_of(&failed.error), Some(status & 0x7ff), "{failed}");
                assert_eq!(failed.execution, ExecutionStatus::Responded);
                assert!(failed.buffer.is_some());
                assert_eq!(times.len(), sends, "{status:#x} {memory:?}");
            });
        }
    }
}

#[test]
fn a_status_that_passes_is_no_error() {
    for status in [0x006, 0x021, 0x281, 0x360] {
        run(async {
            let fails = move |count| if count <= 5 { status } else { 0 };
            let (times, outcome) = read_once(&options(), Controls::default(), fails).await;
            outcome.expect("the fifth retry succeeds");
            assert_eq!(times.len(), 6, "{status:#x}");
        });
    }
}

#[test]
fn without_resending_each_status_is_final() {
    for (status, controls) in [(0x006, Controls::default()), (0x303, ANA)] {
        run(async {
            let mut options = options();
            options.reconnect.resend = false;
            let (times, outcome) = read_once(&options, controls, move |_| status).await;
            outcome.expect_err("it is not sent again");
            assert_eq!(times.len(), 1, "{status:#x}");
        });
    }
}

/// Time between the sends of a command while its path changes.
const PATH_INTERVAL: Duration = Duration::from_millis(100);

/// Nothing fails while the path changes, though the command timeout is shorter than that.
#[test]
fn a_path_in_change_is_waited_for() {
    /// Sends during the change: more than five retries.
    const SENDS: usize = 20;
    for status in [0x302, 0x303] {
        run(async {
            let mut options = options();
            options.io_timeout = Duration::from_secs(1);
            let controls = Controls { ana_transition_time: 60, ..ANA };
            let changes = move |count| if count <= SENDS { status } else { 0 };
            let (times, outcome) = read_once(&options, controls, changes).await;
            outcome.expect("the path comes back");
            assert_eq!(times.len(), SENDS + 1);
            for pair in times.windows(2) {
                let waited = pair[1] - pair[0];
                assert!(waited >= PATH_INTERVAL, "{waited:?}");
            }
            assert!(times[SENDS] - times[0] > options.io_timeout);
        });
    }
}

#[test]
fn a_path_that_does_not_come_back_fails_after_twice_its_transition_time() {
    for status in [0x302, 0x303] {
        run(async {
            let (twice, began) = (Duration::from_secs(2), Instant::now());
            let (times, outcome) = read_once(&options(), ANA, move |_| status).await;
            let failed = outcome.expect_err("it does not come back");
            assert_eq!(status_of(&failed.error), Some(status), "{failed}");
            assert!(began.elapsed() >= twice, "{:?}", began.elapsed());
            // No more than fit that time, one begun before its end included.
            let most = twice.as_millis() / PATH_INTERVAL.as_millis() + 2;
            assert!(times.len() as u128 <= most, "{} sends", times.len());
        });
    }
}

/// Retries of another kind are left after a change of the path.
#[test]
fn waiting_for_a_path_is_no_retry() {
    run(async {
        let statuses = |count| if count <= 10 { 0x303 } else { 0x006 };
        let (times, outcome) = read_once(&options(), ANA, statuses).await;
        outcome.expect_err("the other status stays");
        assert_eq!(times.len(), 16);
    });
}

/// Each delay is waited for, and no longer: a command is sent for the third time before another one
/// is sent again whose delay is three seconds.
#[test]
fn the_delays_of_the_controller_are_heeded_once_it_knows() {
    const LONG: u16 = 30;
    for (index, delays, long) in
        [(0, [LONG, 0, 0], 1), (1, [1, LONG, 0], 2), (2, [LONG, 3, 0], 1), (3, [LONG, 0, 0], 1)]
    {
        run(async {
            let bed = Bed::new();
            let sends: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
            let seen_sends = Arc::clone(&sends);
            bed.answer(move |seen, answer| {
                if seen.is_identify_controller() {
                    identify(Controls { delays, ana_transition_time: 0 }, answer);
                } else if seen.is_io() {
                    let mut sends = seen_sends.lock().expect("no test panics");
                    let lba = seen.u64_at(40);
                    sends.push((lba, Instant::now()));
                    let count = sends.iter().filter(|send| send.0 == lba).count();
                    let status = match lba {
                        0 if count <= 2 => 0x006 | index << 11,
                        1 if count == 1 => 0x006 | long << 11,
                        _ => 0,
                    };
                    refuse(seen, answer, status);
                }
            });
            let (controller, namespace) = bed.connect(&options()).await;
            let [one, other] = [0, 1].map(|_| controller.allocate(512).unwrap());
            let (one, other) = tokio::join!(namespace.read(0, one), namespace.read(1, other));
            one.and(other).expect("each succeeds in the end");
            let sends = sends.lock().unwrap().clone();
            let last = sends.last().expect("there were some");
            assert_eq!((sends.len(), last.0), (5, 1), "CRD {index}: {sends:?}");
            let times: Vec<_> =
                sends.iter().filter(|send| send.0 == 0).map(|send| send.1).collect();
            let delay = match index {
                1 | 2 => Duration::from_millis(100) * u32::from(delays[usize::from(index) - 1]),
                _ => Duration::ZERO,
            };
            for pair in times.windows(2) {
                let waited = pair[1] - pair[0];
                assert!(waited >= delay, "{waited:?} for CRD {index}");
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
        answer_io(&bed, ANA, |_| 0x303);
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
        poller.ring_doorbells().unwrap();
        while poller.statistics().read.retried < 3 * depth {
            poller.poll().unwrap();
            assert!(poller.take().is_none(), "the path is waited for");
            assert_eq!((poller.in_flight() as u64, poller.room()), (depth, 0));
            let refused = poller.submit(read(0)).expect_err("held commands count");
            assert!(matches!(refused.error, Error::Misuse(Misuse::QueuesFull)), "{refused}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        controller.reset().await;
        answer_io(&bed, ANA, |_| 0);
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
        let times = answer_io(&bed, Controls::default(), |_| 0x006);
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.unwrap();
        let poller = &mut pollers[0];
        let mut command = Command::flush(NamespaceId(1));
        command.sqe = Sqe::new(Opcode(0x0d), NamespaceId(1)); // Reservation Register
        poller.submit(command).unwrap();
        poller.ring_doorbells().unwrap();
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
        let times = answer_io(&bed, controls, |_| 0x302);
        let (controller, namespace) = bed.connect(&options()).await;
        let buffer = controller.allocate(512).unwrap();
        let read = tokio::spawn(async move { namespace.read(0, buffer).await });
        tokio::time::sleep(Duration::from_millis(250)).await;
        let sent = times.lock().unwrap().len();
        controller.shutdown().await;
        let failed = read.await.unwrap().expect_err("the controller is closed");
        assert!(matches!(failed.error, Error::Closed), "{failed}");
        assert!(failed.buffer.is_some());
        // At most the one that was being sent.
        let sent_since = times.lock().unwrap().len() - sent;
        assert!(sent_since <= 1, "{sent_since}");
    });
}
