//! Writes of a lost connection that the target executes late: lost data without a fence, and none
//! with it. Over the fabric, against a target that holds the execution of a write; `fence/bed.rs`
//! has the same over rxe, and Linux's target.

// bed: waits --target tests/targets/fence.toml -- --skip preempt_and_abort
// bed (preempt and abort): waits --target tests/targets/fence.toml -- preempt_and_abort

#[path = "fence/bed.rs"]
mod bed;
#[path = "fence/late_write.rs"]
mod late_write;
#[path = "fence/preemption.rs"]
mod preemption;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use late_write::{LateWrite, connect_options, options, run};
use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Command, CommandCompletion, Controller, Data, Error, ExecutionStatus, Fence, FenceChangeKind,
    LifecycleState, Namespace, Poller,
    proto::FenceProof,
    wire::{NamespaceId, Opcode, Sqe},
};
use tests::target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target};

/// Seed of the fabric, and a late write over it.
async fn over_fabric(
    seed: u64,
    fence: Fence,
    resend: bool,
    alter: impl FnOnce(Target) -> Target,
) -> (Fabric, LateWrite<Host>) {
    let fabric = Fabric::auto(seed);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let target = fabric.host("target", "10.0.0.2".parse().expect("an address"));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let options = connect_options(address, fence).reconnect(options(resend));
    let late = LateWrite::begin(&host, target, options, alter).await;
    (fabric, late)
}

#[test]
fn without_the_fence_a_late_write_overwrites_a_later_one() {
    for resend in [true, false] {
        run(async {
            let (_fabric, late) = over_fabric(1, Fence::Off, resend, |target| target).await;
            assert_eq!(late.play().await, b'A', "resend {resend}");
        });
    }
}

#[test]
fn behind_the_fence_no_write_is_lost() {
    for seed in 0..100 {
        run(async {
            let resend = seed % 2 == 0;
            let (_fabric, late) = over_fabric(seed, Fence::Proof, resend, |target| target).await;
            assert_eq!(late.play().await, b'B', "seed {seed}");
        });
    }
}

/// The time in which the target ends its commands is a proof, where it reports it.
#[test]
fn the_quiesce_time_opens_the_fence() {
    run(async {
        let alter = |target: Target| target.of_model("").quiescing_within(10);
        let (_fabric, late) = over_fabric(1, Fence::Proof, true, alter).await;
        let mut changes = late.controller.fence_changes();
        late.cut().await;
        // As the target reports: long before the time that the host waits.
        late.execute();
        late.first().await.expect("it is sent again");
        let change = changes.next().await.expect("the fence has closed");
        assert!(matches!(change.kind, FenceChangeKind::Closed { is_probed: false, .. }));
        let change = changes.next().await.expect("and opened");
        let FenceChangeKind::Opened { proof, after } = change.kind else { panic!("{change}") };
        assert_eq!(proof, FenceProof::Time);
        assert!(after > Duration::from_millis(2010), "{after:?}");
    });
}

/// Without a proof a write fails in the end, and its blocks stay closed to the next one.
#[test]
fn without_a_proof_the_blocks_stay_closed_until_the_owner_opens_them() {
    run(async {
        let (_fabric, late) =
            over_fabric(1, Fence::Proof, true, |target| target.of_model("another")).await;
        late.cut().await;
        let failed = late.first().await.expect_err("nothing proves the end");
        assert!(matches!(failed.error, Error::Fenced(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let namespace = &late.namespace;
        let failed = namespace.write(7, failed.buffer.unwrap()).await.expect_err("still closed");
        assert!(matches!(failed.error, Error::Fenced(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
        let buffer = namespace.read(7, failed.buffer.unwrap()).await.expect("reads do not wait");
        let buffer = namespace.write(8, buffer).await.expect("nor do writes to other blocks");
        late.execute();
        late.controller.open_fence();
        namespace.write(7, buffer).await.expect("the owner has opened it");
        assert_eq!(late.probes(), 0, "its ids prove nothing");
    });
}

/// The next connection is given the id of the old controller, which is gone.
#[test]
fn the_same_controller_id_is_a_proof() {
    run(async {
        let (_fabric, late) = over_fabric(1, Fence::Proof, true, |target| target).await;
        let mut changes = late.controller.fence_changes();
        late.execute();
        late.cut().await;
        late.first().await.expect("it is sent again");
        assert!(matches!(
            changes.next().await.expect("the fence has closed").kind,
            FenceChangeKind::Closed { writes: 1, span: (NamespaceId(1), 7, 7), .. }
        ));
        let change = changes.next().await.expect("and opened");
        let FenceChangeKind::Opened { proof, .. } = change.kind else { panic!("{change}") };
        assert_eq!(proof, FenceProof::SameController);
    });
}

/// The id of the old controller is given to another process of the same host NQN, before the host
/// that lost it can ask. The controllers differ in their queues.
#[test]
fn an_id_that_is_in_use_again_does_not_keep_the_fence_closed() {
    run(async {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
        let target = fabric.host("target", "10.0.0.2".parse().expect("an address"));
        let connect = connect_options(TARGET_ADDRESS.parse().unwrap(), Fence::Proof);
        let slowly = options(true).delay(Duration::from_secs(1));
        let late =
            LateWrite::begin(&host, target, connect.clone().reconnect(slowly), |target| target)
                .await;
        let old = late.controller.negotiated();
        let mut changes = late.controller.fence_changes();
        late.execute();
        let (another, ()) = tokio::join!(
            async {
                let mut states = late.controller.changes();
                while states.next().await.expect("it goes on").state != LifecycleState::Waiting {}
                Controller::connect_over(&host, &connect).await.expect("an honest target")
            },
            late.cut(),
        );
        let (new, another) = (late.controller.negotiated(), another.negotiated());
        assert_eq!(another.controller, old.controller, "the id is given to another one");
        assert_ne!(new.controller, old.controller);
        assert_ne!(another.first_io_queue, old.first_io_queue);
        assert_eq!(new.first_io_queue, old.first_io_queue);
        let change = changes.next().await.expect("the fence has closed");
        assert!(matches!(change.kind, FenceChangeKind::Closed { .. }), "{change}");
        let change = changes.next().await.expect("and opened");
        let FenceChangeKind::Opened { proof, .. } = change.kind else { panic!("{change}") };
        assert_eq!(proof, FenceProof::QueuesGone);
        late.first().await.expect("it is sent again");
    });
}

/// A second loss while writes wait: they wait behind both controllers.
#[test]
fn a_second_loss_keeps_the_fence_closed() {
    run(async {
        let (_fabric, late) = over_fabric(1, Fence::Proof, true, |target| target).await;
        late.cut().await;
        late.until_probed(1).await;
        late.cut().await;
        late.until_probed(late.probes() + 1).await;
        assert_eq!(late.play().await, b'B');
    });
}

/// Drives pollers until `is_done`.
async fn drive(pollers: &mut [Poller<Host>], mut is_done: impl FnMut(&mut [Poller<Host>]) -> bool) {
    while !is_done(pollers) {
        for poller in &mut *pollers {
            poller.ready(Duration::from_millis(1)).await.expect("it goes on");
            poller.poll().expect("it goes on");
        }
    }
}

/// A poller that has nothing of its own behind the fence keeps to it for the writes of another.
#[test]
fn the_fence_is_that_of_all_pollers() {
    run(async {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().unwrap());
        let (gate, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let writes = Arc::new(AtomicUsize::new(0));
        let (held, counted) = (Arc::clone(&gate), Arc::clone(&writes));
        let hook = Box::new(move |seen: ReceivedCommand, answer: &mut Answer| {
            if seen.is_write() {
                counted.fetch_add(1, Ordering::Relaxed);
                answer.execute = Some(Arc::clone(&held));
            }
        });
        tokio::spawn(Target::new(&fabric, hook).disconnecting(Arc::clone(&cut)).run());
        let connect = connect_options(TARGET_ADDRESS.parse().unwrap(), Fence::Proof);
        let connect = connect.reconnect(options(false)).io_queues(2);
        let connecting = Controller::connect_over(&host, &connect);
        let (controller, mut pollers) = connecting.polled(2).await.expect("an honest target");
        let submit = |poller: &mut Poller<Host>, user| {
            let buffer = controller.allocate(512).expect("memory");
            let command = Command::write(NamespaceId(1), 7, 1, buffer).with_user(user);
            poller.submit(command).expect("there is room");
            poller.ring_doorbells().expect("it is connected");
        };
        submit(&mut pollers[0], 1);
        drive(&mut pollers, |_| writes.load(Ordering::Relaxed) == 1).await;
        cut.store(true, Ordering::Relaxed);
        let mut failed = None;
        drive(&mut pollers, |pollers| {
            failed = failed.take().or_else(|| pollers[0].take());
            failed.is_some() && pollers.iter().all(Poller::is_connected)
        })
        .await;
        assert_eq!(failed.map(|failed| failed.execution), Some(ExecutionStatus::Unknown));
        submit(&mut pollers[1], 2);
        let mut changes = controller.fence_changes();
        let mut rounds = 0..50;
        drive(&mut pollers, |_| rounds.next().is_none()).await;
        assert_eq!(writes.load(Ordering::Relaxed), 1, "the second write waits");
        assert_eq!(pollers[1].in_flight(), 1);
        gate.store(true, Ordering::Relaxed);
        let mut done = None;
        drive(&mut pollers, |pollers| {
            done = pollers[1].take();
            done.is_some()
        })
        .await;
        assert!(done.is_some_and(|done| done.outcome.is_ok() && done.user == 2));
        let change = changes.next().await.expect("the fence has opened");
        assert!(matches!(change.kind, FenceChangeKind::Opened { .. }), "{change}");
        drop(pollers);
        controller.shutdown().await;
    });
}

/// A command that may have another outcome when it is executed twice is not sent again, though
/// `resend` is set.
#[test]
fn what_is_not_repeatable_is_never_sent_again() {
    run(async {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().unwrap());
        let (cut, seen_count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&seen_count);
        let hook = Box::new(move |seen: ReceivedCommand, answer: &mut Answer| {
            if seen.is_io() && [0x05, 0x7d].contains(&seen.sqe[0]) {
                count.fetch_add(1, Ordering::Relaxed);
                answer.messages.clear();
            }
        });
        tokio::spawn(Target::new(&fabric, hook).disconnecting(Arc::clone(&cut)).run());
        let connect = connect_options(TARGET_ADDRESS.parse().unwrap(), Fence::Off);
        let connecting = Controller::connect_over(&host, &connect.reconnect(options(true)));
        let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
        for (user, opcode) in [(1, Opcode::COMPARE), (2, Opcode(0x7d))] {
            let sqe = Sqe::new(opcode, NamespaceId(1));
            let command = Command { sqe, data: Data::None, user };
            pollers[0].submit(command).expect("there is room");
        }
        pollers[0].ring_doorbells().expect("it is connected");
        drive(&mut pollers, |_| seen_count.load(Ordering::Relaxed) == 2).await;
        cut.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        drive(&mut pollers, |pollers| {
            failed.extend(pollers[0].take());
            failed.len() == 2 && pollers[0].is_connected()
        })
        .await;
        let unknown = |one: &CommandCompletion| one.execution == ExecutionStatus::Unknown;
        assert!(failed.iter().all(unknown), "{failed:?}");
        assert_eq!(seen_count.load(Ordering::Relaxed), 2);
        drop(pollers);
        controller.shutdown().await;
    });
}
