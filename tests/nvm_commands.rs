//! Optional commands of the NVM command set: the library over the fabric against the scripted
//! target, and `nvmf` in the bed against the kernel's target and, over the bed's device, the
//! scripted one.

// bed: waits --target tests/targets/commands.toml

#[path = "nvm_commands/bed.rs"]
mod bed;
#[path = "nvm_commands/fused.rs"]
mod fused;
#[path = "nvm_commands/metadata.rs"]
mod metadata;
#[path = "nvm_commands/passthrough.rs"]
mod passthrough;
#[path = "nvm_commands/reservations.rs"]
mod reservations;
#[path = "nvm_commands/zones.rs"]
mod zones;
#[path = "nvm_commands/zones_bed.rs"]
mod zones_bed;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Buffer, ConnectOptions, Controller, Error, ExecutionStatus, HostIdentity, Namespace,
    RangeCommands, ReconnectOptions, TransferError,
    error::{Incompatible, Misuse, Rejected},
    wire::{BlockRange, NamespaceId, NvmLimits, OptionalCommand, Status},
};
use tests::{
    noise,
    target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target},
};

const BLOCK: usize = 512;

/// ONCS of a controller with Compare, Write Uncorrectable, Dataset Management, Write Zeroes, Verify
/// and Copy.
const ONCS: u16 = 0x018f;

/// Opcodes of the I/O commands that arrived.
type Arrived = Arc<Mutex<Vec<u8>>>;

/// Runs a test on a controller whose target supports these commands, and is asked by `hook` how to
/// answer I/O.
fn on_controller<F: Future<Output = ()>>(
    supported: (u16, u16),
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Controller<Host>, Namespace, Arrived) -> F,
) {
    let arrived = Arrived::default();
    let noted = Arc::clone(&arrived);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() {
            noted.lock().expect("no test panics").push(seen.sqe[0]);
            hook(seen, answer);
        }
    };
    on_target(supported, hook, |controller, namespace| test(controller, namespace, arrived));
}

/// Runs a test as [`on_controller`] does; `hook` is asked about every command.
fn on_target<F: Future<Output = ()>>(
    supported: (u16, u16),
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Controller<Host>, Namespace) -> F,
) {
    let supporting = |target: Target| target.supporting(supported.0, supported.1);
    on_target_of(supporting, hook, test);
}

/// Runs a test as [`on_target`] does; `prepare` determines what the target has.
fn on_target_of<F: Future<Output = ()>>(
    prepare: impl FnOnce(Target) -> Target,
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Controller<Host>, Namespace) -> F,
) {
    with_target(
        prepare,
        hook,
        |_| {},
        async |host, options| {
            let controller = Controller::connect_over(host, options).await.expect("it succeeds");
            let namespace = controller.namespace(NamespaceId(1)).await.expect("it succeeds");
            test(controller, namespace).await;
        },
    );
}

/// Runs a test with the options to connect to a target as [`on_target`]'s, changed by `change`.
fn with_options(
    (oncs, fuses): (u16, u16),
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    change: impl FnOnce(&mut ConnectOptions),
    test: impl AsyncFnOnce(&Arc<Host>, &ConnectOptions),
) {
    with_target(|target| target.supporting(oncs, fuses), hook, change, test);
}

/// Runs a test as [`with_options`] does; `prepare` determines what the target has.
fn with_target(
    prepare: impl FnOnce(Target) -> Target,
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    change: impl FnOnce(&mut ConnectOptions),
    test: impl AsyncFnOnce(&Arc<Host>, &ConnectOptions),
) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let target = prepare(Target::new(&fabric, Box::new(hook)));
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let mut options = ConnectOptions::new(address, nqn, identity);
    options.reconnect = ReconnectOptions::default().delay(Duration::from_millis(10));
    change(&mut options);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(target.run());
        test(&host, &options).await;
    });
}

fn filled(controller: &Controller<Host>, data: &[u8]) -> Buffer {
    let mut buffer = controller.allocate(data.len()).expect("memory");
    buffer.copy_in(0, data);
    buffer
}

async fn read(controller: &Controller<Host>, namespace: &Namespace, lba: u64) -> Vec<u8> {
    let buffer = controller.allocate(BLOCK).expect("memory");
    let buffer = namespace.read(lba, buffer).await.expect("it succeeds");
    let mut bytes = vec![0; BLOCK];
    buffer.copy_out(0, &mut bytes);
    bytes
}

fn status(error: &Error) -> Status {
    match error {
        Error::Rejected(Rejected::Command { status, .. }) => status.code(),
        error => panic!("{error}"),
    }
}

#[test]
fn blocks_are_compared_within_the_controller() {
    on_controller(
        (ONCS, 0),
        |_, _| {},
        |controller, namespace, arrived| async move {
            // More than one command transfers, and in-capsule data.
            for blocks in [700, 8] {
                let mut data = noise(blocks * BLOCK, 1);
                namespace.write(5, filled(&controller, &data)).await.unwrap();
                let buffer = namespace.compare(5, filled(&controller, &data)).await.unwrap();
                assert_eq!(buffer.len(), data.len());
                *data.last_mut().unwrap() ^= 1;
                let failed = namespace.compare(5, filled(&controller, &data)).await.unwrap_err();
                assert_eq!(status(&failed.error), Status::COMPARE_FAILURE);
                assert!(failed.buffer.is_some_and(|buffer| buffer.len() == data.len()));
            }
            assert!(arrived.lock().unwrap().contains(&0x05));
            controller.shutdown().await;
        },
    );
}

/// Force Unit Access is set in each part of a write.
#[test]
fn a_write_is_forced_to_the_media() {
    let forced = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&forced);
    let hook = move |seen: ReceivedCommand, _: &mut Answer| {
        noted.lock().expect("no test panics").push((seen.sqe[0], seen.u32_at(48) & (1 << 30) != 0));
    };
    on_controller((ONCS, 0), hook, |controller, namespace, _| async move {
        let data = noise(300 * BLOCK, 3);
        let buffer = filled(&controller, &data);
        let buffer = namespace.write_with_force_unit_access(5, buffer).await.unwrap();
        assert!(read(&controller, &namespace, 304).await == data[299 * BLOCK..]);
        namespace.write(5, buffer).await.unwrap();
        let forced = std::mem::take(&mut *forced.lock().unwrap());
        let (writes, reads): (Vec<_>, Vec<_>) = forced.into_iter().partition(|seen| seen.0 == 1);
        assert_eq!(reads, [(2, false)]);
        let writes: Vec<_> = writes.iter().map(|seen| seen.1).collect();
        assert_eq!(writes, [true, true, false, false], "two commands each");
        controller.shutdown().await;
    });
}

#[test]
fn unreadable_blocks_are_found_and_written_again() {
    on_controller(
        (ONCS, 0),
        |_, _| {},
        |controller, namespace, arrived| async move {
            namespace.verify(0..1024, None).await.unwrap();
            namespace.write_uncorrectable(10..13, Some(BLOCK as u64)).await.unwrap();
            for range in [0..11, 12..20] {
                let error = namespace.verify(range, None).await.unwrap_err();
                assert_eq!(status(&error), Status(0x281));
            }
            namespace.verify(13..20, None).await.unwrap();
            namespace.write(10, filled(&controller, &[1; 3 * BLOCK])).await.unwrap();
            namespace.verify(0..1024, Some(64 << 10)).await.unwrap();
            let arrived = std::mem::take(&mut *arrived.lock().unwrap());
            let count = |opcode| arrived.iter().filter(|&&one| one == opcode).count();
            // One a block of the limit, and 128 blocks a command.
            assert_eq!((count(0x04), count(0x0c)), (3, 1 + 2 + 1 + 8));
            assert!(matches!(
                namespace.verify(1000..1025, None).await,
                Err(Error::Misuse(Misuse::PastEnd { .. }))
            ));
            controller.shutdown().await;
        },
    );
}

#[test]
fn source_ranges_are_copied_one_after_the_other() {
    on_controller(
        (ONCS, 0),
        |_, _| {},
        |controller, namespace, _| async move {
            let data = noise(20 * BLOCK, 2);
            namespace.write(0, filled(&controller, &data)).await.unwrap();
            let range = |lba, blocks| BlockRange { lba, blocks };
            let list = controller.allocate(8192).unwrap();
            let list = namespace.copy(&[range(16, 2), range(3, 1)], 100, list).await.unwrap();
            assert_eq!(list.len(), 8192);
            for (lba, source) in [(100, 16), (101, 17), (102, 3)] {
                let expected = &data[source * BLOCK..][..BLOCK];
                assert!(read(&controller, &namespace, lba).await == expected, "block {lba}");
            }
            // The most that a command has.
            let sources: Vec<_> = (0..256).map(|index| range(index % 20, 1)).collect();
            let list = namespace.copy(&sources, 500, list).await.unwrap();
            assert!(read(&controller, &namespace, 755).await == data[15 * BLOCK..][..BLOCK]);
            let mut list = Some(list);
            for (sources, lba) in [
                (&[][..], 0),
                (&vec![range(0, 1); 257], 0),
                (&[range(1020, 5)], 0),
                (&[range(0, 5)], 1020),
                (&[range(0, 65_537)], 0),
            ] {
                let failed = namespace.copy(sources, lba, list.take().unwrap()).await.unwrap_err();
                assert!(matches!(failed.error, Error::Misuse(_)), "{failed}");
                assert_eq!(failed.execution, ExecutionStatus::NotSent);
                list = failed.buffer;
            }
            let limits = controller.copy_limits(NamespaceId(1)).await.unwrap();
            assert_eq!((limits.range_blocks, limits.blocks, limits.ranges), (128, 256, 16));
            controller.shutdown().await;
        },
    );
}

#[test]
fn what_the_controller_lacks_is_not_sent() {
    on_controller(
        (0, 0),
        |_, _| {},
        |controller, namespace, arrived| async move {
            let lacks = |error: &Error, command: OptionalCommand| {
                let is_it = matches!(error, Error::Incompatible(Incompatible::NoCommand(one))
                if *one == command);
                assert!(is_it && error.to_string().contains(&command.to_string()), "{error}");
            };
            let range = [BlockRange { lba: 0, blocks: 1 }];
            let buffer = || controller.allocate(8192).unwrap();
            let failed = |result: Result<Buffer, TransferError>| {
                let failed = result.unwrap_err();
                assert!(failed.buffer.is_some() && failed.execution == ExecutionStatus::NotSent);
                failed.error
            };
            use OptionalCommand::{
                Compare, Copy, DatasetManagement, Verify, WriteUncorrectable, WriteZeroes,
            };
            lacks(&failed(namespace.compare(0, buffer()).await), Compare);
            lacks(&failed(namespace.copy(&range, 8, buffer()).await), Copy);
            lacks(&failed(namespace.deallocate(&range, buffer()).await), DatasetManagement);
            lacks(&namespace.verify(0..1, None).await.unwrap_err(), Verify);
            lacks(
                &namespace.write_uncorrectable(0..1, None).await.unwrap_err(),
                WriteUncorrectable,
            );
            lacks(&namespace.write_zeroes(0..1, false, None).await.unwrap_err(), WriteZeroes);
            assert!(arrived.lock().unwrap().is_empty());
            controller.shutdown().await;
        },
    );
}

/// A Compare, Copy or Write Uncorrectable without a response has an unknown outcome; a Verify is
/// asked again.
#[test]
fn a_lost_connection_repeats_only_what_changes_nothing() {
    let mut lost = std::collections::BTreeSet::new();
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        // The first of each is executed, and the connection closed in place of the response.
        if lost.insert(seen.sqe[0]) {
            answer.messages.clear();
            answer.disconnect = true;
        }
    };
    on_controller((ONCS, 0), hook, |controller, namespace, arrived| async move {
        let range = [BlockRange { lba: 0, blocks: 1 }];
        let failed = namespace.compare(0, controller.allocate(BLOCK).unwrap()).await.unwrap_err();
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let list = controller.allocate(32).unwrap();
        let failed = namespace.copy(&range, 8, list).await.unwrap_err();
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        namespace.write_uncorrectable(0..1, None).await.unwrap_err();
        namespace.verify(1..2, None).await.unwrap();
        assert_eq!(*arrived.lock().unwrap(), [0x05, 0x19, 0x04, 0x0c, 0x0c]);
        controller.shutdown().await;
    });
}

/// Linux's target refuses the opcode where commands pass through to another controller.
#[test]
fn a_controller_without_limits_has_none() {
    for status in [0x4001, 0x4002] {
        let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x06 {
                (answer.messages, answer.data) = (vec![seen.response(status, 0)], Vec::new());
            }
        };
        on_target((ONCS, 0), hook, |controller, _| async move {
            assert_eq!(controller.nvm_limits().await.unwrap(), NvmLimits::default());
            controller.shutdown().await;
        });
    }
}
