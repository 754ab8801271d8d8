//! Reads and writes of a few blocks, whose history is checked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rdma_host::{
    Buffer, Controller, Error, ExecutionStatus, Namespace, TransferError, wire::NamespaceId,
};
use simulation::{
    history::{History, Outcome, fill},
    random::Random,
    target::BLOCK,
};
use tests::load::HANG_TIMEOUT;
use tokio::task::JoinSet;

/// Tasks, each with one command at a time.
const TASKS: u64 = 16;
/// Blocks that the tasks share.
const BLOCKS: usize = 24;
/// Most blocks of one command.
const BLOCKS_MAX: usize = 8;
/// Pause between two commands of a task: the check of a read takes longer with each write.
const PAUSE: Duration = Duration::from_millis(10);

/// Result of a load.
#[derive(Debug, Default)]
pub(crate) struct LoadResult {
    /// Commands that succeeded.
    pub(crate) done: u64,
    /// Commands that the controller answered with a failure, and the last such error.
    pub(crate) refused: (u64, Option<Error>),
    /// Commands of unknown execution.
    pub(crate) unknown: u64,
    /// Number of contents that a block could not have had, and the first of them.
    pub(crate) mismatches: (u64, Option<String>),
}

#[derive(Default)]
struct Shared {
    history: History,
    result: LoadResult,
}

/// Reads and writes blocks of namespace 1 for a time, after zeros were written to all.
pub(crate) async fn run(controller: &Controller, time: Duration, seed: u64) -> LoadResult {
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    assert_eq!(namespace.info().block_size as usize, BLOCK, "blocks of the history");
    write_zeros(&namespace, controller.allocate(BLOCKS * BLOCK).expect("memory")).await;
    let shared = Arc::new(Mutex::new(Shared::default()));
    let mut tasks = JoinSet::new();
    let end = tokio::time::Instant::now() + time;
    for task in 0..TASKS {
        let (namespace, shared) = (namespace.clone(), Arc::clone(&shared));
        let mut random = Random::new(seed * TASKS + task);
        let mut buffer = controller.allocate(BLOCKS_MAX * BLOCK).expect("memory");
        tasks.spawn(async move {
            while tokio::time::Instant::now() < end {
                let blocks = 1 + random.index(BLOCKS_MAX);
                let rest = (blocks < BLOCKS_MAX).then(|| buffer.split_off(blocks * BLOCK));
                buffer = command(&namespace, &shared, &mut random, buffer).await;
                if let Some(rest) = rest {
                    buffer.unsplit(rest).expect("its other part");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    let ended = async { while tasks.join_next().await.transpose().expect("no panic").is_some() {} };
    tokio::time::timeout(time + HANG_TIMEOUT, ended).await.expect("every command ends");
    std::mem::take(&mut shared.lock().expect("no panic").result)
}

/// Writes zeros to all blocks; a medium that fails for a while gets them after that.
async fn write_zeros(namespace: &Namespace, mut buffer: Buffer) {
    let end = tokio::time::Instant::now() + HANG_TIMEOUT;
    buffer.fill(0);
    while let Err(failed) = namespace.write(0, buffer).await {
        assert!(tokio::time::Instant::now() < end, "the medium never takes zeros: {failed}");
        buffer = failed.buffer.expect("the buffer comes back");
        tokio::time::sleep(PAUSE).await;
    }
}

/// One read or write of as many blocks as the buffer holds; returns the buffer.
async fn command(
    namespace: &Namespace,
    shared: &Mutex<Shared>,
    random: &mut Random,
    mut buffer: Buffer,
) -> Buffer {
    let lock = || shared.lock().expect("no panic");
    let count = buffer.len() / BLOCK;
    let first = random.index(BLOCKS - count + 1) as u64;
    if random.once_in(2) {
        let stamp = lock().history.begin_write(first..first + count as u64);
        let mut content = vec![0; buffer.len()];
        fill(first, stamp, &mut content);
        buffer.copy_in(0, &content);
        let done = namespace.write(first, buffer).await;
        let mut shared = lock();
        let (outcome, buffer) = shared.result.end(done);
        shared.history.end_write(stamp, outcome);
        buffer
    } else {
        buffer.fill(0xa5);
        let began = lock().history.begin_read();
        let done = namespace.read(first, buffer).await;
        let mut shared = lock();
        let (outcome, buffer) = shared.result.end(done);
        if outcome == Outcome::Done {
            let mut content = vec![0; buffer.len()];
            buffer.copy_out(0, &mut content);
            for (block, content) in (first..).zip(content.chunks_exact(BLOCK)) {
                if let Err(mismatch) = shared.history.end_read(began, block, content) {
                    let (count, first) = &mut shared.result.mismatches;
                    *count += 1;
                    first.get_or_insert(mismatch.reason);
                }
            }
        }
        buffer
    }
}

impl LoadResult {
    /// Counts the end of a command; returns its outcome and its buffer.
    fn end(&mut self, done: Result<Buffer, TransferError>) -> (Outcome, Buffer) {
        let failed = match done {
            Ok(buffer) => {
                self.done += 1;
                return (Outcome::Done, buffer);
            }
            Err(failed) => failed,
        };
        let outcome = match failed.execution {
            ExecutionStatus::NotSent => Outcome::NotSent,
            // A medium that fails may have part of it.
            ExecutionStatus::Responded => {
                self.refused.0 += 1;
                self.refused.1 = Some(failed.error);
                Outcome::Unknown
            }
            ExecutionStatus::Unknown => {
                self.unknown += 1;
                Outcome::Unknown
            }
        };
        (outcome, failed.buffer.expect("the buffer comes back"))
    }
}
