//! A controller that loses its connection and comes back, or does not: over the fabric, against a
//! target that does whatever a test wants, so that no case needs a device or luck.

#[path = "lifecycle/device_events.rs"]
mod device_events;
#[path = "lifecycle/event_descriptor.rs"]
mod event_descriptor;
#[path = "lifecycle/events.rs"]
mod events;
#[path = "lifecycle/keep_alive.rs"]
mod keep_alive;
#[path = "lifecycle/retries.rs"]
mod retries;
#[path = "lifecycle/walks.rs"]
mod walks;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Command, ConnectOptions, Controller, Error, ErrorClass, ExecutionStatus, HostIdentity,
    LifecycleState, Namespace, ReconnectOptions, StateChanges,
    error::{GiveUpReason, Misuse},
    wire::NamespaceId,
};
use tests::target::{Answer, Hook, ReceivedCommand, TARGET_ADDRESS, Target};

/// A fabric, a target whose manners change while it runs, and a host.
struct Bed {
    fabric: Fabric,
    host: Arc<Host>,
    hook: Arc<Mutex<Hook>>,
}

impl Bed {
    /// Must be called in a runtime: the target is a task of it.
    fn new() -> Self {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
        let hook: Arc<Mutex<Hook>> = Arc::new(Mutex::new(Box::new(|_, _| {})));
        let inner = Arc::clone(&hook);
        let call = move |seen: ReceivedCommand, answer: &mut Answer| {
            inner.lock().unwrap_or_else(PoisonError::into_inner)(seen, answer);
        };
        tokio::spawn(Target::new(&fabric, Box::new(call)).run());
        Self { fabric, host, hook }
    }

    /// From now on the target answers like this.
    fn answer(&self, hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(hook);
    }

    async fn connect(&self, options: &ConnectOptions) -> (Controller<Host>, Namespace) {
        let controller = Controller::connect_over(&self.host, options).await;
        let controller = controller.expect("an honest target");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        (controller, namespace)
    }
}

/// Reconnects quickly and for long.
fn options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.io_queues = 2;
    options.reconnect =
        ReconnectOptions::default().delay(Duration::from_millis(50)).loss_timeout(None);
    options
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Against hanging for ever; nothing here takes a fraction of it.
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
    });
}

/// Takes changes until the state is entered.
async fn reach(changes: &mut StateChanges, state: LifecycleState) -> rdma_host::StateChange {
    loop {
        let change = changes.next().await.expect("the controller goes on");
        if change.state == state {
            return change;
        }
    }
}

/// An answer to nothing, which condemns the connection.
fn bogus(answer: &mut Answer) {
    answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]);
}

/// A status for every admin Connect, once the first connection has been condemned.
fn refuse_connect(bed: &Bed, status: u16) {
    bed.answer(move |seen, answer| {
        if seen.is_fabrics(0x01) {
            answer.messages = vec![seen.response(status, 0)];
        } else if seen.is_io() {
            bogus(answer);
        }
    });
}

#[test]
fn commands_wait_for_a_partition_to_heal() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut changes = controller.changes();
        let data = tests::noise(8192, 7);
        let mut buffer = controller.allocate(8192).unwrap();
        buffer.copy_in(0, &data);
        let buffer = namespace.write(16, buffer).await.unwrap();
        bed.fabric.partition("host", "target");
        let read = tokio::spawn({
            let namespace = namespace.clone();
            async move { namespace.read(16, buffer).await }
        });
        let lost = reach(&mut changes, LifecycleState::Resetting).await;
        assert_eq!(lost.cause.expect("a cause").class(), ErrorClass::Transport);
        let failed = reach(&mut changes, LifecycleState::Waiting).await;
        assert!(failed.next.is_some(), "{failed}");
        bed.fabric.heal("host", "target");
        reach(&mut changes, LifecycleState::Live).await;
        let mut read_back = vec![0; 8192];
        read.await.unwrap().expect("the read was held").copy_out(0, &mut read_back);
        assert!(read_back == data);
        controller.shutdown().await;
    });
}

/// The verdict for every status a Connect may get, through the whole driver.
#[test]
fn a_refused_reconnect_ends_by_dnr_alone() {
    for (status, retried) in [
        (0x006, true),
        (0x181, true),
        (0x184, true),
        (0x4180, false),
        (0x4181, false),
        (0x4182, false),
        (0x4184, false),
        (0x400c, false),
    ] {
        run(async {
            let bed = Bed::new();
            let (controller, namespace) = bed.connect(&options()).await;
            let mut changes = controller.changes();
            refuse_connect(&bed, status);
            let buffer = controller.allocate(512).unwrap();
            let read = tokio::spawn(async move { namespace.read(0, buffer).await });
            if retried {
                for attempt in 1..=3 {
                    let connecting = reach(&mut changes, LifecycleState::Connecting).await;
                    assert_eq!(connecting.attempt, attempt, "{status:#x}");
                }
                bed.answer(|_, _| {});
                read.await.unwrap().expect("the target is honest again");
                controller.shutdown().await;
            } else {
                let error = controller.failed().await;
                let Error::GaveUp(end) = &error else { panic!("{status:#x}: {error}") };
                assert_eq!((end.attempts, end.reason), (1, GiveUpReason::NotRetryable), "{error}");
                let is_busy = status & 0x7ff == 0x181;
                let class = if is_busy { ErrorClass::Failed } else { ErrorClass::Access };
                assert_eq!(error.class(), class, "{error}");
                let failed = read.await.unwrap().expect_err("there is no connection");
                assert_eq!(failed.execution, ExecutionStatus::Unknown);
                assert!(failed.buffer.is_some());
            }
        });
    }
}

#[test]
fn a_demand_for_a_key_ends_it() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        bed.answer(|seen, answer| {
            if seen.is_fabrics(0x01) {
                answer.messages = vec![seen.response(0, 0x0002_0007)];
            } else if seen.is_io() {
                bogus(answer);
            }
        });
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.read(0, buffer).await.expect_err("no key, no connection");
        assert_eq!(failed.error.class(), ErrorClass::Access, "{failed}");
        assert!(failed.error.to_string().contains("trying again can't help"), "{failed}");
    });
}

#[test]
fn attempts_run_out() {
    run(async {
        let bed = Bed::new();
        let mut options = options();
        options.reconnect.loss_timeout = Some(Duration::from_millis(150));
        let (controller, namespace) = bed.connect(&options).await;
        refuse_connect(&bed, 0x006);
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.read(0, buffer).await.expect_err("three attempts are all");
        let Error::GaveUp(end) = &failed.error else { panic!("{failed}") };
        assert_eq!((end.attempts, end.reason), (3, GiveUpReason::Exhausted));
        // Later requests fail with the same error.
        let failed = namespace.read(0, failed.buffer.unwrap()).await.expect_err("it is over");
        assert!(matches!(failed.error, Error::GaveUp(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::NotSent);
    });
}

#[test]
fn commands_fail_when_they_are_not_to_wait() {
    for hold in [Duration::ZERO, Duration::from_millis(200)] {
        run(async {
            let bed = Bed::new();
            let mut options = options();
            options.reconnect.fast_io_fail = Some(hold);
            let (controller, namespace) = bed.connect(&options).await;
            refuse_connect(&bed, 0x006);
            let buffer = controller.allocate(512).unwrap();
            let failed = namespace.read(0, buffer).await.expect_err("it does not wait for long");
            assert!(matches!(failed.error, Error::NotConnected(_)), "{failed}");
            assert_eq!(failed.execution, ExecutionStatus::Unknown);
            let failed = namespace.read(0, failed.buffer.unwrap()).await.expect_err("nor this");
            assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
            // Attempts go on meanwhile.
            bed.answer(|_, _| {});
            let mut buffer = failed.buffer;
            while let Err(failed) = namespace.read(0, buffer.take().unwrap()).await {
                buffer = failed.buffer;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            controller.shutdown().await;
        });
    }
}

#[test]
fn what_was_in_flight_fails_if_it_is_not_to_be_sent_again() {
    run(async {
        let bed = Bed::new();
        let mut options = options();
        options.reconnect.resend = false;
        let (controller, namespace) = bed.connect(&options).await;
        bed.answer(|seen, answer| {
            if seen.is_io() {
                bogus(answer);
            }
        });
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.write(0, buffer).await.expect_err("it was in flight");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        bed.answer(|_, _| {});
        namespace.read(0, failed.buffer.unwrap()).await.expect("a new one waits");
        controller.shutdown().await;
    });
}

/// Every write is executed at least once and answered exactly once, across twenty losses.
#[test]
fn nothing_is_lost_or_answered_twice() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut count = 0;
        bed.answer(move |seen, answer| {
            if seen.is_io() {
                count += 1;
                if count % 50 == 0 {
                    bogus(answer);
                }
            }
        });
        let mut writers = tokio::task::JoinSet::new();
        for lba in 0..40u64 {
            let namespace = namespace.clone();
            let mut buffer = controller.allocate(512).unwrap();
            writers.spawn(async move {
                for round in 0..25u64 {
                    buffer.copy_in(0, &tests::noise(512, lba << 8 | round));
                    buffer = namespace.write(lba, buffer).await.expect("it is held");
                }
                buffer.fill(0);
                let buffer = namespace.read(lba, buffer).await.expect("it is held");
                let mut read = vec![0; 512];
                buffer.copy_out(0, &mut read);
                assert!(read == tests::noise(512, lba << 8 | 24), "block {lba}");
            });
        }
        while let Some(outcome) = writers.join_next().await {
            outcome.expect("every writer ends well");
        }
        controller.shutdown().await;
    });
}

#[test]
fn another_namespace_in_the_place_of_one_is_not_written_to() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut condemned = false;
        bed.answer(move |seen, answer| {
            if seen.is_io() && !condemned {
                condemned = true;
                bogus(answer);
            }
            if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x00 {
                answer.data[104] = 0xaa; // NGUID
            }
        });
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.write(0, buffer).await.expect_err("it is another namespace");
        let replaced = Misuse::NamespaceReplaced(NamespaceId(1));
        assert!(matches!(&failed.error, Error::Misuse(misuse) if *misuse == replaced), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Unknown);
        let failed = namespace.read(0, failed.buffer.unwrap()).await.expect_err("it still is");
        assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
        // A namespace that is identified again may be used; the old handle stays closed.
        let anew = controller.namespace(NamespaceId(1)).await.unwrap();
        let buffer = anew.read(0, failed.buffer.unwrap()).await.expect("this one is known");
        namespace.read(0, buffer).await.expect_err("the old one is not this one");
        controller.shutdown().await;
    });
}

#[test]
fn fewer_queues_serve_all_and_more_are_taken_again() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        for granted in [0u64, 1, 0, 3] {
            let mut changes = controller.changes();
            let mut condemned = false;
            bed.answer(move |seen, answer| {
                if seen.is_io() && !condemned {
                    condemned = true;
                    bogus(answer);
                }
                if seen.queue == 0 && seen.sqe[0] == 0x09 && seen.sqe[40] == 0x07 {
                    answer.messages = vec![seen.response(0, granted << 16 | granted)];
                }
            });
            let mut readers = tokio::task::JoinSet::new();
            for lba in 0..30u64 {
                let namespace = namespace.clone();
                let buffer = controller.allocate(512).unwrap();
                readers.spawn(async move { namespace.read(lba, buffer).await.map(drop) });
            }
            while let Some(outcome) = readers.join_next().await {
                outcome.unwrap().expect("somebody serves it");
            }
            reach(&mut changes, LifecycleState::Live).await;
            assert_eq!(u64::from(controller.negotiated().io_queues), (granted + 1).min(2));
        }
        controller.shutdown().await;
    });
}

#[test]
fn a_smaller_transfer_limit_splits_what_is_under_way() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let data = tests::noise(128 << 10, 3);
        let mut buffer = controller.allocate(data.len()).unwrap();
        buffer.copy_in(0, &data);
        let mut buffer = namespace.write(0, buffer).await.unwrap();
        buffer.fill(0);
        let mut condemned = false;
        bed.answer(move |seen, answer| {
            if seen.is_io() && !condemned {
                condemned = true;
                bogus(answer);
            }
            if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x01 {
                answer.data[77] = 2; // MDTS: 16 KiB
            }
        });
        let buffer = namespace.read(0, buffer).await.expect("in smaller parts");
        assert_eq!(namespace.transfer_bytes_max(), 16 << 10);
        let mut read = vec![0; data.len()];
        buffer.copy_out(0, &mut read);
        assert!(read == data);
        controller.shutdown().await;
    });
}

#[test]
fn a_late_command_is_aborted_and_the_connection_lives() {
    run(async {
        let bed = Bed::new();
        let mut options = options();
        options.io_queues = 1;
        options.io_timeout = Duration::from_millis(200);
        let (controller, namespace) = bed.connect(&options).await;
        let mut changes = controller.changes();
        let mut late = None;
        bed.answer(move |seen, answer| {
            if seen.is_io() && late.is_none() {
                answer.messages.clear();
                answer.data.clear();
                late = Some(seen);
            } else if seen.is_io() {
                // The one that was aborted is answered along with another.
                let aborted = late.expect("it was seen first").response(0x007, 0);
                answer.messages.push(aborted);
            }
        });
        let buffer = controller.allocate(512).unwrap();
        let first = tokio::spawn({
            let namespace = namespace.clone();
            async move { namespace.read(0, buffer).await }
        });
        tokio::time::sleep(Duration::from_millis(400)).await;
        let buffer = controller.allocate(512).unwrap();
        namespace.read(1, buffer).await.expect("the connection lives");
        let failed = first.await.unwrap().expect_err("it was aborted");
        assert!(failed.error.to_string().contains("aborted by request"), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Responded);
        controller.shutdown().await;
        let mut states = Vec::new();
        while let Some(change) = changes.next().await {
            states.push(change.state);
        }
        assert_eq!(states, [LifecycleState::Deleting, LifecycleState::Dead]);
    });
}

#[test]
fn a_reset_is_a_new_connection_with_nothing_lost() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut changes = controller.changes();
        let mut buffer = controller.allocate(512).unwrap();
        for _ in 0..5 {
            controller.reset().await;
            buffer = namespace.read(0, buffer).await.expect("it is held");
            reach(&mut changes, LifecycleState::Live).await;
        }
        controller.shutdown().await;
    });
}

/// Ends a controller in every state it can be in, with the target gone.
#[test]
fn the_end_comes_in_every_state() {
    for state in [
        LifecycleState::Live,
        LifecycleState::Resetting,
        LifecycleState::Waiting,
        LifecycleState::Connecting,
    ] {
        run(async {
            let bed = Bed::new();
            let mut options = options();
            options.reconnect.delay = Duration::from_secs(match state {
                LifecycleState::Waiting => 3600,
                _ => 1,
            });
            let (controller, namespace) = bed.connect(&options).await;
            let mut changes = controller.changes();
            bed.fabric.partition("host", "target");
            let buffer = controller.allocate(512).unwrap();
            let read = tokio::spawn(async move { namespace.read(0, buffer).await });
            if state != LifecycleState::Live {
                reach(&mut changes, state).await;
            }
            controller.shutdown().await;
            let failed = read.await.unwrap().expect_err("it is over");
            assert!(matches!(failed.error, Error::Closed), "{state}: {failed}");
            assert!(failed.buffer.is_some());
        });
    }
}

#[test]
fn the_first_connect_is_retried_if_asked() {
    run(async {
        let bed = Bed::new();
        bed.fabric.partition("host", "target");
        let mut options = options();
        options.reconnect.first_connect = true;
        let connecting = Controller::connect_over(&bed.host, &options);
        let mut changes = connecting.changes();
        let live = tokio::spawn(connecting.into_future());
        let waiting = reach(&mut changes, LifecycleState::Waiting).await;
        assert!(waiting.cause.is_some() && waiting.next.is_some(), "{waiting}");
        bed.fabric.heal("host", "target");
        live.await.unwrap().expect("it gets there").shutdown().await;
    });
}

/// A poller that its owner drives goes through a loss like the tasks of the library.
#[test]
fn a_poller_takes_up_its_new_queues() {
    run(async {
        let bed = Bed::new();
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.unwrap();
        let poller = &mut pollers[0];
        let mut count = 0;
        bed.answer(move |seen, answer| {
            if seen.is_io() {
                count += 1;
                if count == 5 {
                    bogus(answer);
                }
            }
        });
        let buffers = controller.allocate_many(16, 512).unwrap();
        for (user, buffer) in buffers.into_iter().enumerate() {
            let command = Command::read(NamespaceId(1), 0, 1, buffer).with_user(user as u64);
            poller.submit(command).expect("there is room");
        }
        poller.ring_doorbells().unwrap();
        let mut done = Vec::new();
        while done.len() < 16 {
            poller.poll().expect("the controller goes on");
            while let Some(one) = poller.take() {
                assert_eq!(one.execution, ExecutionStatus::Responded);
                done.push(one.user);
            }
            poller.ready(Duration::from_millis(10)).await.expect("the controller goes on");
        }
        done.sort_unstable();
        assert!(done.into_iter().eq(0..16));
        drop(pollers);
        controller.shutdown().await;
    });
}

/// A command with which the connection is lost each time is not sent for ever.
#[test]
fn a_command_that_breaks_every_connection_is_given_back() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut seen_poison = 0;
        let count = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&count);
        bed.answer(move |seen, answer| {
            if seen.is_io() && seen.sqe[0] == 0x02 && seen.sqe[40] == 7 {
                seen_poison += 1;
                *counted.lock().unwrap() = seen_poison;
                bogus(answer);
            }
        });
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.read(7, buffer).await.expect_err("it breaks them all");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        assert_eq!(*count.lock().unwrap(), 6, "once, and five times again");
        namespace.read(8, failed.buffer.unwrap()).await.expect("the controller goes on");
        controller.shutdown().await;
    });
}

/// The target could not reach it by its key, and would end the connection.
#[test]
fn memory_of_another_controller_is_refused_before_anything_is_sent() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let (other, _namespace) = bed.connect(&options()).await;
        let foreign = other.allocate(512).unwrap();
        let failed = namespace.read(0, foreign).await.expect_err("it is not ours");
        assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
        assert!(failed.buffer.is_some());
        let buffer = controller.allocate(512).unwrap();
        namespace.read(0, buffer).await.expect("the connection lives");
        controller.shutdown().await;
        other.shutdown().await;
    });
}
