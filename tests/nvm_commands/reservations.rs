//! Reservations: on the kernel's target by two hosts, and what becomes of the commands without a
//! response.

use std::{process::Command, time::Duration};

use rdma_host::{
    Controller, EventDetail, ExecutionStatus, HostIdentity,
    wire::{
        AcquireAction, AsyncEventKind, ControllerId, NamespaceId, RegisterAction, ReleaseAction,
        ReservationCommand, ReservationNotificationKind, ReservationReport, ReservationType,
    },
};
use serde_json::Value;
use tests::{KernelInitiator, SUBSYSTEM, enable_reservations, noise, run, uri};

use super::{
    BLOCK,
    bed::{done, refused},
    on_controller,
};

/// ONCS of a controller with reservations.
const ONCS: u16 = 0x0020;

const REGISTER: ReservationCommand = ReservationCommand::Register {
    action: RegisterAction::Register,
    current_key: 0,
    new_key: 9,
    persist: None,
};

#[test]
fn a_report_is_read_with_as_many_registrants_as_fit() {
    let hook = |seen: tests::target::ReceivedCommand, answer: &mut tests::target::Answer| {
        let (length, _) = seen.keyed();
        let mut report = vec![0; 64 * 3];
        report[4..7].copy_from_slice(&[1, 2, 0]);
        report[64..67].copy_from_slice(&[3, 0, 1]);
        report.truncate(length);
        answer.data = report;
    };
    on_controller((ONCS, 0), hook, |controller, namespace, _| async move {
        for (bytes, shown) in [(64, 0), (128, 1), (192, 2), (4096, 2)] {
            let buffer = controller.allocate(bytes).unwrap();
            let (report, buffer) = namespace.reservation_report(buffer).await.unwrap();
            let ReservationReport { reservation, count, registrants, .. } = report;
            assert_eq!((reservation, count), (ReservationType::WRITE_EXCLUSIVE, 2));
            assert_eq!((registrants.len(), buffer.len()), (shown, bytes));
            assert!(registrants.first().is_none_or(|first| first.controller == ControllerId(3)));
        }
        let failed = namespace.reservation_report(controller.allocate(100).unwrap()).await;
        assert_eq!(failed.unwrap_err().execution, ExecutionStatus::NotSent);
        let failed = namespace.reserve(&REGISTER, false, controller.allocate(15).unwrap()).await;
        assert_eq!(failed.unwrap_err().execution, ExecutionStatus::NotSent);
        controller.shutdown().await;
    });
}

#[test]
fn a_reservation_is_not_acquired_twice() {
    let hook = |_: tests::target::ReceivedCommand, answer: &mut tests::target::Answer| {
        answer.messages.clear();
        answer.disconnect = true;
    };
    on_controller((ONCS, 0), hook, |controller, namespace, arrived| async move {
        let preempt = ReservationCommand::Acquire {
            action: AcquireAction::PreemptAndAbort,
            reservation: ReservationType::WRITE_EXCLUSIVE,
            current_key: 9,
            preempt_key: 8,
        };
        for command in [REGISTER, preempt] {
            let keys = controller.allocate(16).unwrap();
            let failed = namespace.reserve(&command, false, keys).await.unwrap_err();
            assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        }
        assert_eq!(*arrived.lock().unwrap(), [0x0d, 0x11]);
        controller.shutdown().await;
    });
}

/// Options that make a host of its own of this number.
fn host(number: u8) -> String {
    let id = format!("00000000-0000-0000-0000-0000000000{number:02x}");
    format!("--ns 1 --hostnqn nqn.2014-08.org.nvmexpress:uuid:{id} --hostid {id}")
}

/// Report as `nvmf` shows it to a host.
fn reported(host: &str) -> Value {
    let shown = done(&uri(SUBSYSTEM), &format!("resv-report {host} -o json"), &[]);
    serde_json::from_slice(&shown).expect("JSON")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_namespace_without_reservations_is_named() {
    let words = if has_reservations() { "(RESCAP)" } else { "(ONCS bit 5)" };
    for line in [
        "resv-report --ns 2",
        "resv-register --ns 2 --nrkey 1",
        "resv-acquire --ns 2 --crkey 1 --rtype 1",
        "resv-release --ns 2 --crkey 1 --rtype 1",
    ] {
        refused(&uri(SUBSYSTEM), line, &[], 1, words);
    }
}

fn has_reservations() -> bool {
    let folder = format!("/sys/kernel/config/nvmet/subsystems/{SUBSYSTEM}/namespaces/2");
    std::path::Path::new(&folder).join("resv_enable").exists()
}

/// Two hosts in turn; the kernel's initiator reads the same report.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn two_hosts_share_a_namespace() {
    if !enable_reservations(1) {
        println!("SKIPPED: this kernel's target has no reservations");
        return;
    }
    let (target, [a, b]) = (uri(SUBSYSTEM), [host(0xa), host(0xb)]);
    let on = |line: String| done(&target, &line, &[]);
    let write = |host: &str| format!("write {host} --lba 0 --overwrite --force");
    let conflict =
        |line: &str, input: &[u8]| refused(&target, line, input, 1, "reservation conflict");
    let data = noise(8 * BLOCK, 6);
    on(format!("resv-register {a} --nrkey 0xa"));
    on(format!("resv-register {b} --nrkey 0xb0"));
    conflict(&format!("resv-register {b} --nrkey 0xb --crkey 7 --rrega replace"), &[]);
    on(format!("resv-register {b} --nrkey 0xb --crkey 0xb0 --rrega 2"));
    conflict(&format!("resv-acquire {a} --crkey 0xb --rtype 1"), &[]);
    on(format!("resv-acquire {a} --crkey 0xa --rtype 1"));
    done(&target, &write(&a), &data);
    conflict(&write(&b), &data);
    let read = done(&target, &format!("read {b} --lba 0 --blocks 8"), &[]);
    assert!(read == data, "its holder alone writes, all read");

    let seen = reported(&b);
    assert_eq!((&seen["rtype"], &seen["regctl"]), (&1.into(), &2.into()), "{seen}");
    let of = |key: u64| {
        let all = seen["regctlext"].as_array().expect("a list").iter();
        all.filter(|one| one["rkey"] == key).map(|one| one["rcsts"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((of(0xa), of(0xb)), (vec![1.into()], vec![0.into()]), "{seen}");
    let kernel = KernelInitiator::connect();
    let device = kernel.device(1);
    let mut nvme = Command::new("nvme");
    let theirs = run(nvme.args(["resv-report", "--eds", "-o", "json"]).arg(&device), &[]);
    let theirs: Value =
        serde_json::from_slice(&theirs.stdout).unwrap_or_else(|_| panic!("{theirs:?}"));
    assert_eq!(seen, theirs, "as Linux's initiator sees it");
    drop(kernel);

    on(format!("resv-acquire {b} --crkey 0xb --prkey 0xa --rtype 1 --racqa preempt-and-abort"));
    conflict(&write(&a), &data);
    done(&target, &write(&b), &data);
    on(format!("resv-release {b} --crkey 0xb --rtype 1"));
    done(&target, &write(&a), &data);
    on(format!("resv-register {b} --crkey 0xb --rrega unregister"));
    on(format!("resv-register {a} --nrkey 3"));
    on(format!("resv-release {a} --crkey 3 --rtype 1 --rrela clear"));
    let seen = reported(&a);
    assert_eq!((&seen["rtype"], &seen["regctl"]), (&0.into(), &0.into()), "{seen}");
}

/// A host is told what another one does to its reservation.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_preempted_host_is_notified() {
    if !enable_reservations(1) {
        println!("SKIPPED: this kernel's target has no reservations");
        return;
    }
    let register = |key| ReservationCommand::Register {
        action: RegisterAction::Register,
        current_key: 0,
        new_key: key,
        persist: None,
    };
    let acquire = |action, key, preempted| ReservationCommand::Acquire {
        action,
        current_key: key,
        preempt_key: preempted,
        reservation: ReservationType::WRITE_EXCLUSIVE_REGISTRANTS,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut hosts = Vec::new();
        for id in [0xa, 0xb] {
            let mut options = tests::options();
            options.host = HostIdentity::from_id(uuid::Uuid::from_u128(id));
            let controller = Controller::connect(&options).await.expect("the target is there");
            let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
            hosts.push((controller, namespace));
        }
        let reserve = async |host: usize, command: ReservationCommand| {
            let (controller, namespace) = &hosts[host];
            let keys = controller.allocate(ReservationCommand::DATA_MAX).expect("memory");
            namespace.reserve(&command, false, keys).await.expect("it is accepted");
        };
        let mut events = hosts[0].0.events();
        reserve(0, register(0xa)).await;
        reserve(1, register(0xb)).await;
        reserve(0, acquire(AcquireAction::Acquire, 0xa, 0)).await;
        reserve(1, acquire(AcquireAction::Preempt, 0xb, 0xa)).await;
        let notified = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let event = notified.expect("the target reports it").expect("the controller lives");
        assert_eq!(event.event.kind(), AsyncEventKind::ReservationLogAvailable, "{event}");
        let EventDetail::Reservation(notification) = &event.detail else { panic!("{event}") };
        assert_eq!(notification.kind, ReservationNotificationKind::REGISTRATION_PREEMPTED);
        assert_eq!((notification.namespace, notification.count), (NamespaceId(1), 1));
        let none = hosts[1].0.reservation_notification().await.expect("it has the page");
        assert_eq!(none.kind, ReservationNotificationKind::NONE);
        let clear = ReservationCommand::Release {
            action: ReleaseAction::Clear,
            current_key: 0xb,
            reservation: ReservationType::WRITE_EXCLUSIVE_REGISTRANTS,
        };
        reserve(1, clear).await;
        for (controller, _) in hosts {
            controller.shutdown().await;
        }
    });
}
