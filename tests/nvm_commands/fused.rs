//! Fused Compare and Write against the scripted target, which demands that the two commands come
//! one right after the other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rdma_fabric::Host;
use rdma_host::{
    Buffer, Command, CommandCompletion, Controller, Data, ExecutionStatus, MemoryMode,
    RangeCommands, TransferError,
    error::{Misuse, TargetMisbehaved},
    wire::{Sqe, Status},
};

use super::*;

/// FUSES of a controller with Compare and Write.
const FUSES: u16 = 1;

/// Buffer with the expected content of blocks, and the new one.
fn halves(controller: &Controller<Host>, expected: &[u8], new: &[u8]) -> Buffer {
    filled(controller, &[expected, new].concat())
}

#[test]
fn blocks_are_written_if_they_are_as_expected() {
    for memory in [MemoryMode::Pool, MemoryMode::Window] {
        written_if_as_expected(memory);
    }
}

fn written_if_as_expected(memory: MemoryMode) {
    let arrived = Arrived::default();
    let noted = Arc::clone(&arrived);
    let hook = move |seen: ReceivedCommand, _: &mut Answer| {
        if seen.is_io() {
            noted.lock().expect("no test panics").push(seen.sqe[0]);
        }
    };
    with_options(
        (ONCS, FUSES),
        hook,
        |options| options.memory = memory,
        async |host, options| {
            let controller = Controller::connect_over(host, options).await.expect("it succeeds");
            let namespace = controller.namespace(NamespaceId(1)).await.expect("it succeeds");
            // In-capsule data, and data that the controller reads.
            for blocks in [1, 8, 100] {
                let [old, new] = [1, 2].map(|seed| noise(blocks * BLOCK, seed));
                namespace.write(5, filled(&controller, &old)).await.expect("it succeeds");
                arrived.lock().expect("no test panics").clear();
                let buffer = halves(&controller, &old, &new);
                let buffer = namespace.compare_and_write(5, buffer).await.expect("it succeeds");
                assert_eq!(buffer.len(), 2 * blocks * BLOCK);
                assert_eq!(*arrived.lock().expect("no test panics"), [0x05, 0x01]);
                let last = 4 + blocks as u64;
                assert!(read(&controller, &namespace, last).await == new[(blocks - 1) * BLOCK..]);
                // The blocks have changed, and stay as they are.
                let buffer = halves(&controller, &old, &vec![0; blocks * BLOCK]);
                let failed = namespace.compare_and_write(5, buffer).await.expect_err("it fails");
                assert_eq!(status(&failed.error), Status::COMPARE_FAILURE);
                assert_eq!(failed.execution, ExecutionStatus::Responded);
                assert!(failed.buffer.is_some_and(|buffer| buffer.len() == 2 * blocks * BLOCK));
                assert!(read(&controller, &namespace, 5).await == new[..BLOCK]);
            }
            controller.shutdown().await;
        },
    );
}

/// Each task adds to a counter in a block by comparing and writing, on several queues that are full
/// of reads: no addition is lost, and no other command comes between the two.
#[test]
fn a_counter_is_shared_by_many() {
    const TASKS: u64 = 12;
    const ADDITIONS: u64 = 20;
    on_controller(
        (ONCS, FUSES),
        |_, _| {},
        |controller, namespace, _| async move {
            let controller = Arc::new(controller);
            let block = |count: u64| {
                let mut block = vec![0; BLOCK];
                block[..8].copy_from_slice(&count.to_le_bytes());
                block
            };
            let tasks = (0..TASKS).map(|_| {
                let (controller, namespace) = (Arc::clone(&controller), namespace.clone());
                tokio::spawn(async move {
                    let (mut count, mut added) = (0, 0);
                    while added < ADDITIONS {
                        let buffer = halves(&controller, &block(count), &block(count + 1));
                        match namespace.compare_and_write(7, buffer).await {
                            Ok(_) => (count, added) = (count + 1, added + 1),
                            Err(TransferError { error, .. }) => {
                                assert_eq!(status(&error), Status::COMPARE_FAILURE);
                                let now = read(&controller, &namespace, 7).await;
                                count = u64::from_le_bytes(now[..8].try_into().unwrap());
                            }
                        }
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            assert!(read(&controller, &namespace, 7).await == block(TASKS * ADDITIONS));
        },
    );
}

/// A poller whose queue has room for one more command sends a pair once there is room for two.
#[test]
fn a_pair_waits_for_room_for_both() {
    let gate = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&gate);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() && seen.sqe[0] == 0x02 {
            answer.gate = Some(Arc::clone(&held));
        }
    };
    with_options(
        (ONCS, FUSES),
        hook,
        |options| {
            options.io_queues = 1;
            options.queue_entries = 5; // four commands in flight
        },
        async |host, options| {
            let connecting = Controller::connect_over(host, options);
            let (controller, mut pollers) = connecting.polled(1).await.unwrap();
            let poller = &mut pollers[0];
            let buffer = |bytes| controller.allocate(bytes).unwrap();
            let id = NamespaceId(1);
            for lba in 0..3 {
                poller.submit(Command::read(id, lba, 1, buffer(BLOCK)).with_user(lba)).unwrap();
            }
            let pair = Command::compare_and_write(id, 9, 1, buffer(2 * BLOCK)).with_user(9);
            poller.submit(pair).unwrap();
            poller.ring_doorbells().unwrap();
            assert_eq!((poller.room(), poller.held()), (0, 1));
            // Nothing takes the room that it waits for.
            assert!(poller.submit(Command::flush(id)).is_err());
            gate.store(true, Ordering::Release);
            let mut users = Vec::new();
            while users.len() < 4 {
                poller.poll().unwrap();
                while let Some(CommandCompletion { user, outcome, data, .. }) = poller.take() {
                    assert!(outcome.unwrap().status().is_success());
                    let bytes = if user == 9 { 2 * BLOCK } else { BLOCK };
                    assert_eq!(data.unwrap().len(), bytes);
                    users.push(user);
                }
                tokio::task::yield_now().await;
            }
            assert_eq!((users[3], poller.room()), (9, 4));
            poller.submit(Command::flush(id)).unwrap();
        },
    );
}

#[test]
fn a_command_of_a_pair_is_not_submitted_alone() {
    with_options(
        (ONCS, FUSES),
        |_, _| {},
        |_| {},
        async |host, options| {
            let connecting = Controller::connect_over(host, options);
            let (controller, mut pollers) = connecting.polled(1).await.unwrap();
            let buffer = || controller.allocate(2 * BLOCK).unwrap();
            let first = Sqe::fused_compare(NamespaceId(1), 0, 1);
            let sqe = first.fused_write();
            let command = Command { sqe, data: Data::ToController(buffer()), user: 3 };
            let refused = pollers[0].submit(command).unwrap_err();
            assert!(refused.to_string().contains("the first command"), "{refused}");
            assert_eq!((refused.user, refused.data.map(|data| data.len())), (3, Some(2 * BLOCK)));
            controller.shutdown().await;
        },
    );
}

#[test]
fn a_pair_needs_two_entries_of_a_queue() {
    with_options(
        (ONCS, FUSES),
        |_, _| {},
        |options| (options.io_queues, options.queue_entries) = (1, 2),
        async |host, options| {
            let controller = Controller::connect_over(host, options).await.unwrap();
            let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
            let buffer = controller.allocate(2 * BLOCK).unwrap();
            let failed = namespace.compare_and_write(0, buffer).await.unwrap_err();
            assert!(failed.to_string().contains("two entries of a queue"), "{failed}");
            assert!(failed.buffer.is_some_and(|buffer| buffer.len() == 2 * BLOCK));
            controller.shutdown().await;
        },
    );
}

#[test]
fn what_cannot_be_a_pair_is_not_sent() {
    on_controller(
        (ONCS, FUSES),
        |_, _| {},
        |controller, namespace, arrived| async move {
            for (lba, bytes) in [(0, BLOCK), (0, 3 * BLOCK), (1023, 4 * BLOCK), (1024, 2 * BLOCK)] {
                let buffer = controller.allocate(bytes).unwrap();
                let failed = namespace.compare_and_write(lba, buffer).await.unwrap_err();
                let Error::Misuse(Misuse::BlockMultiple { .. } | Misuse::PastEnd { .. }) =
                    failed.error
                else {
                    panic!("{failed}");
                };
                assert_eq!(failed.execution, ExecutionStatus::NotSent);
                assert!(failed.buffer.is_some_and(|buffer| buffer.len() == bytes));
            }
            assert!(arrived.lock().unwrap().is_empty());
            controller.shutdown().await;
        },
    );
}

/// Without a response a pair is never sent again, and its blocks are closed to other writes until
/// the controller of the lost connection is gone.
#[test]
fn a_pair_without_a_response_has_an_unknown_outcome() {
    let mut is_lost = false;
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        // Both are executed, and the response to the second does not come.
        if seen.fuse() == 2 && !std::mem::replace(&mut is_lost, true) {
            answer.messages.clear();
            answer.disconnect = true;
        }
    };
    on_controller((ONCS, FUSES), hook, |controller, namespace, arrived| async move {
        let buffer = halves(&controller, &[0; BLOCK], &[1; BLOCK]);
        let failed = namespace.compare_and_write(3, buffer).await.unwrap_err();
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        assert!(failed.buffer.is_some_and(|buffer| buffer.len() == 2 * BLOCK));
        // Of this loss the poller knows that the comparison succeeded, but not that the blocks were
        // written.
        let buffer = halves(&controller, &[1; BLOCK], &[2; BLOCK]);
        namespace.compare_and_write(3, buffer).await.unwrap();
        assert!(read(&controller, &namespace, 3).await == [2; BLOCK]);
        assert_eq!(*arrived.lock().unwrap(), [0x05, 0x01, 0x05, 0x01, 0x02]);
        controller.shutdown().await;
    });
}

/// A pair that is submitted while there is no connection is sent on the next one.
#[test]
fn a_pair_waits_for_a_connection() {
    let mut is_lost = false;
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() && seen.sqe[0] == 0 && !std::mem::replace(&mut is_lost, true) {
            answer.messages.clear();
            answer.disconnect = true;
        }
    };
    on_controller((ONCS, FUSES), hook, |controller, namespace, _| async move {
        let mut changes = controller.changes();
        let flush = tokio::spawn({
            let namespace = namespace.clone();
            async move { namespace.flush().await }
        });
        // The first change is the loss.
        changes.next().await.expect("a change of state");
        let buffer = halves(&controller, &[0; BLOCK], &[1; BLOCK]);
        namespace.compare_and_write(3, buffer).await.unwrap();
        flush.await.unwrap().unwrap();
        assert!(read(&controller, &namespace, 3).await == [1; BLOCK]);
        controller.shutdown().await;
    });
}

/// A controller that writes although the comparison failed is told so.
#[test]
fn a_write_in_spite_of_the_comparison_is_an_error_of_the_target() {
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.fuse() == 2 {
            answer.messages = vec![seen.response(0, 0)];
        }
    };
    on_controller((ONCS, FUSES), hook, |controller, namespace, _| async move {
        let buffer = halves(&controller, &[9; BLOCK], &[1; BLOCK]);
        let failed = namespace.compare_and_write(3, buffer).await.unwrap_err();
        let Error::TargetMisbehaved(TargetMisbehaved::FusedWrite(status)) = failed.error else {
            panic!("{failed}");
        };
        assert_eq!(status.code(), Status::COMPARE_FAILURE);
        assert_eq!(failed.execution, ExecutionStatus::Unknown);
        controller.shutdown().await;
    });
}

/// Compares and writes a block of the target at this address of the bed, in both modes of memory.
pub(super) fn over_rxe(address: std::net::SocketAddr) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for memory in [MemoryMode::Pool, MemoryMode::Window] {
            let mut options = tests::options();
            (options.address, options.memory) = (address, memory);
            let controller = Controller::connect(&options).await?;
            assert_eq!(controller.memory().mode, memory);
            let namespace = controller.namespace(NamespaceId(1)).await?;
            // In-capsule data, and data that the controller reads.
            for bytes in [BLOCK, 16 * BLOCK] {
                let mut buffer = controller.allocate(2 * bytes)?;
                buffer.fill(1);
                let zeros = controller.allocate(bytes)?;
                namespace.write(0, zeros).await.map_err(|failed| failed.error)?;
                buffer.copy_in(0, &vec![0; bytes]);
                let pair = namespace.compare_and_write(0, buffer).await;
                let buffer = pair.map_err(|failed| failed.error)?;
                let failed = namespace.compare_and_write(0, buffer).await.expect_err("it has ones");
                assert_eq!(status(&failed.error), Status::COMPARE_FAILURE);
                let buffer = failed.buffer.expect("it comes back");
                namespace.read(0, buffer).await.map_err(|failed| failed.error)?;
            }
            controller.shutdown().await;
        }
        Ok(())
    })
}
