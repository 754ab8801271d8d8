//! Bytes of namespaces (`nvmf_client`): over the fabric against the scripted target, and its
//! examples in the bed against the kernel's.

// bed: waits --target tests/targets/multipath.toml

use std::{
    io::{self, SeekFrom},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nvmf_client::{ByteNamespace, ByteOptions, ByteTransferError, Client};
use proptest::prelude::*;
use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, ExecutionStatus, HostIdentity, ReconnectOptions, Subsystem, SubsystemOptions,
};
use tests::{
    SUBSYSTEM, noise,
    target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target},
};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

const BLOCK: usize = 512;
const WRITE: u8 = 0x01;
const FLUSH: u8 = 0x00;

/// Small buffers, so that most transfers are several commands.
const OPTIONS: fn() -> ByteOptions = || ByteOptions::default().buffers(3).buffer_bytes(4 * BLOCK);

/// Runs a test on a namespace, whose target asks `hook` how to answer I/O.
fn on_namespace<F: Future<Output = ()>>(
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(ByteNamespace) -> F,
) {
    on_client(hook, |client, namespace| {
        let test = test(namespace);
        async move {
            test.await;
            client.shutdown().await;
        }
    });
}

/// Runs a test as [`on_namespace`] does, with the client.
fn on_client<F: Future<Output = ()>>(
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Client<Host>, ByteNamespace) -> F,
) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if (seen.queue, seen.sqe[0], seen.sqe[40]) == (0, 0x06, 0x03) {
            (answer.data[0], answer.data[1]) = (3, 16);
            answer.data[4..20].fill(7);
        }
        if seen.is_io() {
            hook(seen, answer);
        }
    };
    let target = Target::new(&fabric, Box::new(hook));
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let reconnect = ReconnectOptions::default().delay(Duration::from_millis(10));
    let options = ConnectOptions::new(address, nqn, identity).reconnect(reconnect);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(target.run());
        let subsystem = Subsystem::connect_over(&host, &SubsystemOptions::new(options)).await;
        let client = Client::of(subsystem.expect("an honest target"));
        let namespace = client.namespace_with(1, OPTIONS()).await.expect("it is there");
        let test = tokio::time::timeout(Duration::from_secs(60), test(client, namespace));
        test.await.expect("the test ends");
    });
}

#[test]
fn bytes_are_written_and_read_at_any_offset() {
    on_namespace(
        |_, _| {},
        |namespace| async move {
            let size = usize::try_from(namespace.size()).expect("small");
            let mut model = noise(size, 1);
            namespace.write_all_at(&model, 0).await.expect("the whole namespace");
            assert_eq!(namespace.counters().partial_blocks, 0, "whole blocks are not read first");
            for (seed, (offset, length)) in [
                (0, 1),
                (1, 1),
                (511, 2),
                (100, 300),
                (BLOCK, BLOCK),
                (BLOCK - 1, BLOCK + 2),
                (1000, 5000),
                (4 * BLOCK - 1, 4 * BLOCK + 2),
                (size - 1, 1),
                (size - 700, 700),
                (7, 0),
            ]
            .into_iter()
            .enumerate()
            {
                let data = noise(length, seed as u64 + 2);
                namespace.write_all_at(&data, offset as u64).await.expect("within the namespace");
                model[offset..offset + length].copy_from_slice(&data);
                let read = namespace.read_bytes(offset as u64, length).await.expect("within it");
                assert_eq!(read, data, "{length} bytes from {offset} on");
            }
            let read = namespace.read_bytes(0, size).await.expect("the whole namespace");
            assert!(read == model, "a write has changed bytes beside it");
        },
    );
}

#[test]
fn only_the_blocks_at_the_ends_of_a_write_are_read_first() {
    on_namespace(
        |_, _| {},
        |namespace| async move {
            let mut before = 0;
            for (offset, length, partial) in [
                (0, 3 * BLOCK, 0),
                (1, 10, 1),
                (0, 10, 1),
                (10, BLOCK - 10, 1),
                (10, BLOCK, 2),
                (10, 3 * BLOCK - 10, 1),
                (BLOCK, 2 * BLOCK + 1, 1),
                (10, 10 * BLOCK, 2),
            ] {
                namespace.write_all_at(&vec![1; length], offset as u64).await.expect("it is small");
                let now = namespace.counters().partial_blocks;
                assert_eq!(now - before, partial, "{length} bytes from {offset} on");
                before = now;
            }
        },
    );
}

#[test]
fn what_is_beyond_the_end_is_refused_whole() {
    on_namespace(
        |_, _| {},
        |namespace| async move {
            let size = namespace.size();
            for (offset, length) in [(size, 1), (size - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
                let data = vec![9; length];
                let write = namespace.write_all_at(&data, offset).await.expect_err("too far");
                assert_eq!(write.kind(), io::ErrorKind::StorageFull, "{write}");
                let read = namespace.read_bytes(offset, length).await.expect_err("too far");
                assert_eq!(read.kind(), io::ErrorKind::UnexpectedEof, "{read}");
                assert!(read.to_string().contains(&size.to_string()), "{read}");
            }
            assert_eq!(namespace.read_bytes(size - 1, 1).await.expect("the last").as_ref(), [0]);
        },
    );
}

/// Each of many tasks writes bytes of its own in blocks that it shares with others.
#[test]
fn writes_of_parts_of_one_block_keep_each_other() {
    on_namespace(
        |_, _| {},
        |namespace| async move {
            const WRITERS: usize = 16;
            const LENGTH: usize = 200;
            let tasks = (0..WRITERS).map(|writer| {
                let namespace = namespace.clone();
                tokio::spawn(async move {
                    for round in 0..20 {
                        let data = noise(LENGTH, (writer * 100 + round) as u64);
                        let offset = (writer * LENGTH) as u64;
                        namespace.write_all_at(&data, offset).await.expect("an honest target");
                        let read = namespace.read_bytes(offset, LENGTH).await;
                        assert_eq!(read.expect("an honest target"), data, "{writer}, {round}");
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.expect("it has read what it wrote");
            }
        },
    );
}

#[test]
fn a_write_that_is_dropped_goes_on_and_returns_its_buffer() {
    let gate = Arc::new(AtomicBool::new(false));
    let of_target = Arc::clone(&gate);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.sqe[0] == WRITE {
            answer.execute = Some(Arc::clone(&of_target));
        }
    };
    on_namespace(hook, |namespace| async move {
        for byte in 0..10 {
            let data = [byte; 100];
            let write = namespace.write_all_at(&data, 10);
            let dropped = tokio::time::timeout(Duration::from_millis(2), write).await;
            dropped.expect_err("the target waits");
        }
        let late = tokio::spawn({
            let namespace = namespace.clone();
            async move { namespace.write_all_at(&[77; 100], 50).await }
        });
        gate.store(true, Ordering::Relaxed);
        late.await.expect("no panic").expect("an honest target");
        let read = namespace.read_bytes(0, 160).await.expect("an honest target");
        // The first that was sent, and the last; those between were dropped before they were sent.
        assert_eq!(read[..10], [0; 10]);
        assert_eq!(read[10..50], [0; 40]);
        assert_eq!(read[50..150], [77; 100]);
        assert_eq!(read[150..], [0; 10]);
    });
}

#[test]
fn a_command_that_fails_is_told_with_its_cause() {
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.sqe[0] == WRITE {
            // Write fault, with DNR.
            *answer = Answer { messages: vec![seen.response(0x4280, 0)], ..Answer::default() };
        }
    };
    on_namespace(hook, |namespace| async move {
        for _ in 0..10 {
            let error = namespace.write_all_at(&[1; 5000], 0).await.expect_err("a write fault");
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ByteTransferError>());
            let inner = inner.expect("the cause");
            assert_eq!(inner.execution, ExecutionStatus::Responded);
            assert!(error.to_string().contains("Write"), "{error}");
        }
        // No buffer is lost by it.
        namespace.read_bytes(0, 5000).await.expect("reads do not fail");
    });
}

#[test]
fn a_client_that_is_shut_down_ends_reads_and_writes() {
    on_client(
        |_, _| {},
        |client, namespace| async move {
            client.shutdown().await;
            let read = namespace.read_bytes(0, 10).await.expect_err("it is closed");
            assert_eq!(read.kind(), io::ErrorKind::NotConnected, "{read}");
            let write = namespace.write_all_at(b"late", 0).await.expect_err("it is closed");
            assert_eq!(write.kind(), io::ErrorKind::NotConnected, "{write}");
        },
    );
}

#[test]
fn a_cursor_is_a_file() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let arrived = Arc::clone(&seen);
    let hook = move |seen: ReceivedCommand, _: &mut Answer| {
        arrived.lock().expect("no panic").push(seen.sqe[0]);
    };
    on_namespace(hook, |namespace| async move {
        let data = noise(10_000, 3);
        let mut cursor = namespace.cursor();
        cursor.seek(SeekFrom::Start(99)).await.expect("any position");
        for part in data.chunks(777) {
            cursor.write_all(part).await.expect("an honest target");
        }
        cursor.flush().await.expect("an honest target");
        cursor.flush().await.expect("an honest target");
        let flushes = seen.lock().expect("no panic").iter().filter(|&&o| o == FLUSH).count();
        assert_eq!(flushes, 1, "what is flushed needs no second one");
        assert_eq!(cursor.position(), 99 + 10_000);
        let mut read = vec![0; 10_000];
        cursor.seek(SeekFrom::Current(-10_000)).await.expect("it was there");
        // In pieces that are no multiple of anything.
        for part in read.chunks_mut(501) {
            cursor.read_exact(part).await.expect("an honest target");
        }
        assert!(read == data);
        assert!(cursor.seek(SeekFrom::Current(-20_000)).await.is_err());
        assert_eq!(cursor.position(), 99 + 10_000, "a seek that fails changes nothing");
    });
}

#[test]
fn a_cursor_ends_where_the_namespace_does() {
    on_namespace(
        |_, _| {},
        |namespace| async move {
            let mut cursor = namespace.cursor();
            let end = cursor.seek(SeekFrom::End(-3)).await.expect("it is large enough");
            assert_eq!(end, namespace.size() - 3);
            assert_eq!(cursor.write(b"abcdef").await.expect("three fit"), 3);
            let full = cursor.write(b"def").await.expect_err("none fits");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
            cursor.flush().await.expect("an honest target");
            cursor.seek(SeekFrom::Start(end)).await.expect("it was there");
            let mut read = Vec::new();
            cursor.read_to_end(&mut read).await.expect("it ends");
            assert_eq!(read, b"abc");
        },
    );
}

#[test]
fn an_error_of_a_write_is_returned_by_the_next_operation() {
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.sqe[0] == WRITE {
            *answer = Answer { messages: vec![seen.response(0x4280, 0)], ..Answer::default() };
        }
    };
    on_namespace(hook, |namespace| async move {
        let mut cursor = namespace.cursor();
        cursor.write_all(b"lost").await.expect("it is only copied");
        cursor.flush().await.expect_err("a write fault");
        cursor.write_all(b"lost").await.expect("it is only copied");
        cursor.write_all(b"more").await.expect_err("the fault of the one before");
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Reads and writes, side by side and in a row, against a vector.
    #[test]
    fn a_namespace_is_a_vector_of_bytes(
        operations in prop::collection::vec((0u64..20_000, 0usize..6_000, any::<bool>()), 1..40)
    ) {
        on_namespace(|_, _| {}, |namespace| async move {
            let mut model = vec![0; 32 << 10];
            for (seed, (offset, length, writes)) in operations.into_iter().enumerate() {
                let range = usize::try_from(offset).expect("small")..;
                let place = &mut model[range][..length];
                if writes {
                    place.copy_from_slice(&noise(length, seed as u64));
                    namespace.write_all_at(place, offset).await.expect("an honest target");
                } else {
                    let read = namespace.read_bytes(offset, length).await;
                    assert!(read.expect("an honest target") == *place);
                }
            }
        });
    }
}

/// Over two paths.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_examples_of_the_client_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state");
    std::fs::write(&file, noise(3 << 20, 5)).expect("space is left");
    let address = tests::address();
    let target = format!("nvmf-rdma://{address},{address}:4421/{SUBSYSTEM}");
    let file = file.to_str().expect("text");
    for (arguments, expected) in [
        (&["checkpoint", &target, "1", file][..], "3145728 bytes written, and read back the same"),
        (&["parallel_read", &target, "1"], "67108864 bytes read by 8 tasks"),
        (&["key_value_cache", &target, "1"], "200 values put, 199 found"),
        (&["blocking", &target, "1"], "hello"),
    ] {
        let printed = tests::run_example_with(arguments[0], &arguments[1..]);
        println!("{printed}");
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
    }
}
