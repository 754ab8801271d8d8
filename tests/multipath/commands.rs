//! Queues of commands over several paths, and commands on ranges of blocks.

use std::time::Instant;

use rdma_host::{
    RangeCommands, SubsystemQueue,
    error::Rejected,
    wire::{BlockRange, OptionalCommand, Status},
};
use tests::load::HANG_TIMEOUT;

use super::*;

/// Completes all commands of a queue; returns their buffers.
async fn complete(queue: &mut SubsystemQueue) -> Vec<Buffer> {
    let mut buffers = Vec::new();
    queue.ring_doorbells();
    while queue.in_flight() > 0 {
        queue.poll_with(|done| {
            let succeeded =
                done.outcome.as_ref().is_ok_and(|response| response.status().is_success());
            assert!(succeeded, "{:?}", done.outcome);
            buffers.push(done.data.expect("it is back"));
        });
        queue.ready(Duration::from_millis(100)).await;
    }
    buffers
}

#[test]
fn a_queue_sends_its_commands_over_all_paths() {
    run(async {
        let all = Ports::new();
        let (subsystem, _) = all.connect(&both(connect_options())).await;
        let mut queue = subsystem.queue(NamespaceId(1), 16).await.expect("it is there");
        let mut buffers = subsystem.allocate_many(16, 512).expect("memory");
        for round in 0..20 {
            assert_eq!((queue.room(), queue.depth()), (16, 16));
            for (lba, buffer) in (0..).zip(buffers.drain(..)) {
                queue.submit(match round % 2 {
                    0 => Command::write(NamespaceId(1), lba, 1, buffer),
                    _ => Command::read(NamespaceId(1), lba, 1, buffer),
                });
            }
            assert_eq!((queue.room(), queue.in_flight()), (0, 16));
            buffers = complete(&mut queue).await;
            assert_eq!(buffers.len(), 16);
        }
        let statistics = queue.statistics().take();
        for operation in [&statistics.read, &statistics.write] {
            assert_eq!((operation.completed, operation.failed, operation.retried), (160, 0, 0));
            assert_eq!((operation.bytes, operation.latency_ns.len()), (160 * 512, 160));
        }
        assert_eq!(counts(&subsystem), [(160, 0, 0); 2]);
        subsystem.shutdown().await;
    });
}

/// An owner that spins, and lets no other task of its thread run, gets all completions, too.
#[test]
fn a_queue_is_polled_without_waiting() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let all = Ports::new();
        let (subsystem, _) = all.connect(&both(connect_options())).await;
        let mut queue = subsystem.queue(NamespaceId(1), 4).await.expect("it is there");
        let mut buffers = subsystem.allocate_many(4, 512).expect("memory");
        let (mut completed, began) = (0, Instant::now());
        while completed < 300 {
            assert!(began.elapsed() < HANG_TIMEOUT, "{completed} have completed");
            buffers.drain(..).for_each(|buffer| {
                queue.submit(Command::read(NamespaceId(1), 0, 1, buffer));
            });
            queue.ring_doorbells();
            completed += queue.poll_with(|done| buffers.push(done.data.expect("it is back")));
            std::thread::yield_now();
        }
        subsystem.shutdown().await;
    });
}

/// Commands in flight on a path that is lost complete on the other one; a status that allows it is
/// counted as a retry, one that does not as a failure.
#[test]
fn commands_of_a_queue_outlive_a_path() {
    run(async {
        let all = Ports::new();
        let (subsystem, _) = preferring_first(&all).await;
        let mut queue = subsystem.queue(NamespaceId(1), 8).await.expect("it is there");
        let silence = Silence::on(&all.ports[0]);
        for buffer in subsystem.allocate_many(8, 512).expect("memory") {
            queue.submit(Command::write(NamespaceId(1), 3, 1, buffer));
        }
        queue.ring_doorbells();
        silence.until_received(8).await;
        all.ports[0].close();
        let mut buffers = complete(&mut queue).await;
        assert_eq!(counts(&subsystem), [(8, 8, 1), (8, 0, 0)]);
        for (status, failures) in [(0x006, 1), (0x4281, 1)] {
            let mut left = failures;
            all.ports[1].answer(move |seen, answer| {
                if seen.is_io() && left > 0 {
                    left -= 1;
                    let messages = vec![seen.response(status, 0)];
                    *answer = Answer { messages, ..Answer::default() };
                }
            });
            let buffer = buffers.pop().expect("eight came back");
            queue.submit(Command::read(NamespaceId(1), 3, 1, buffer));
            queue.ring_doorbells();
            while queue.poll_with(drop) == 0 {
                queue.ready(Duration::from_millis(100)).await;
            }
        }
        let statistics = queue.statistics().take();
        assert_eq!((statistics.write.completed, statistics.write.failed), (8, 0));
        let read = &statistics.read;
        assert_eq!((read.completed, read.failed, read.retried), (1, 1, 1));
        subsystem.shutdown().await;
    });
}

#[test]
fn commands_on_ranges_go_over_any_path() {
    run(async {
        let all = Ports::new();
        let (subsystem, namespace) = all.connect(&both(connect_options())).await;
        for command in [OptionalCommand::Compare, OptionalCommand::WriteZeroes] {
            namespace.require(command).expect("both ports have it");
        }
        assert!(namespace.transfer_bytes_max() >= 4096);
        assert_eq!(namespace.check_range(1020, 4 * 512).expect("it fits"), 4);
        assert!(namespace.check_range(1021, 4 * 512).is_err());
        let mut buffer = subsystem.allocate(512).expect("memory");
        buffer.fill(b'A');
        let buffer = namespace.write(7, buffer).await.expect("two paths live");
        let buffer = namespace.compare(7, buffer).await.expect("they are the same");
        // Four commands of one block, on each path in turn.
        namespace.write_zeroes(6..10, false, Some(512)).await.expect("two paths live");
        assert_eq!(all.ports.each_ref().map(|port| port.count(0x08)), [2, 2]);
        let failed = namespace.compare(7, buffer).await.expect_err("they differ");
        let Error::Rejected(Rejected::Command { status, .. }) = failed.error else {
            panic!("{failed}");
        };
        assert_eq!(status.code(), Status::COMPARE_FAILURE);
        let list = subsystem.allocate(4096).expect("memory");
        let list = namespace.deallocate(&[BlockRange { lba: 0, blocks: 8 }], list).await;
        assert_eq!(list.expect("two paths live").len(), 4096);
        let error = namespace.verify(1020..1030, None).await.expect_err("beyond the end");
        assert!(matches!(error, Error::Misuse(_)), "{error}");
        subsystem.shutdown().await;
    });
}
