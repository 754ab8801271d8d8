//! Reading and writing a namespace from any task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};
use verbs::Buffer;

use super::command::{Command, Done};
use super::io_task::IoRequest;
use super::liveness::Liveness;
use crate::error::{Error, Misuse};
use crate::wire::NamespaceInfo;

/// A namespace of a live controller. Cheap to clone; clones share the queues.
///
/// Buffers are moved in and come back with the result. Dropping a future does not stop the
/// command: its buffer stays with the queue until the controller is done with it.
#[derive(Clone)]
pub struct Namespace {
    info: NamespaceInfo,
    transfer_bytes_max: u64,
    pollers: Vec<mpsc::Sender<IoRequest>>,
    next: Arc<AtomicUsize>,
    liveness: Liveness,
}

/// An operation that failed, with its buffer where that still exists.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// What was moved in; its content is undefined after a read.
    pub buffer: Option<Buffer>,
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl Namespace {
    pub(super) fn new(
        info: NamespaceInfo,
        transfer_bytes_max: u64,
        pollers: Vec<mpsc::Sender<IoRequest>>,
        liveness: Liveness,
    ) -> Self {
        // Whole blocks, and at least one: a controller can't have blocks it can't transfer.
        let block_size = u64::from(info.block_size);
        let whole = (transfer_bytes_max - transfer_bytes_max % block_size).max(block_size);
        let blocks = whole.min(block_size << 16);
        let next = Arc::new(AtomicUsize::new(0));
        Self { info, transfer_bytes_max: blocks, pollers, next, liveness }
    }

    /// What the namespace is.
    #[must_use]
    pub fn info(&self) -> &NamespaceInfo {
        &self.info
    }

    /// The largest transfer of one command in bytes; larger ones are split.
    #[must_use]
    pub fn transfer_bytes_max(&self) -> u64 {
        self.transfer_bytes_max
    }

    /// Reads as many blocks as `buffer` holds, from `lba` on.
    ///
    /// # Errors
    ///
    /// When the range or the buffer does not fit the namespace, the controller refuses, or the
    /// connection is lost.
    pub async fn read(&self, lba: u64, buffer: Buffer) -> Result<Buffer, Failed> {
        self.transfer(Direction::Read, lba, buffer).await
    }

    /// Writes as many blocks as `buffer` holds, from `lba` on.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). Parts of a failed write may have been written.
    pub async fn write(&self, lba: u64, buffer: Buffer) -> Result<Buffer, Failed> {
        self.transfer(Direction::Write, lba, buffer).await
    }

    /// Makes completed writes survive a loss of power.
    ///
    /// # Errors
    ///
    /// When the controller refuses, or the connection is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let done = self.begin(Command::flush(self.info.id)).await;
        let (outcome, _) = self.finish(done).await.into_result("Flush");
        outcome.map(drop)
    }

    /// Checks that a range lies in the namespace and its length is whole blocks; returns how many.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn check_range(&self, lba: u64, bytes: u64) -> Result<u64, Misuse> {
        let block_size = self.info.block_size;
        let blocks = bytes / u64::from(block_size);
        if bytes == 0 || !bytes.is_multiple_of(u64::from(block_size)) {
            return Err(Misuse::BlockMultiple { bytes, block_size });
        }
        let size = self.info.blocks;
        match lba.checked_add(blocks) {
            Some(end) if end <= size => Ok(blocks),
            _ => Err(Misuse::PastEnd { namespace: self.info.id, lba, blocks, size }),
        }
    }

    async fn transfer(
        &self,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, Failed> {
        if let Err(error) = self.check_range(lba, buffer.len() as u64) {
            return Err(Failed { error: error.into(), buffer: Some(buffer) });
        }
        let step = usize::try_from(self.transfer_bytes_max).unwrap_or(usize::MAX);
        let mut rest = Some(buffer);
        let mut pending = Vec::new();
        let mut at = lba;
        while let Some(mut part) = rest.take() {
            if part.len() > step {
                rest = Some(part.split_off(step));
            }
            let blocks = part.len() as u64 / u64::from(self.info.block_size);
            let count = u32::try_from(blocks).expect("a part has at most 65,536 blocks");
            let command = match direction {
                Direction::Read => Command::read(self.info.id, at, count, part),
                Direction::Write => Command::write(self.info.id, at, count, part),
            };
            at += blocks;
            pending.push(self.begin(command).await);
        }
        self.gather(direction, pending).await
    }

    /// Waits for all parts and puts their buffers together again; the first error counts.
    async fn gather(
        &self,
        direction: Direction,
        pending: Vec<oneshot::Receiver<Done>>,
    ) -> Result<Buffer, Failed> {
        let name = match direction {
            Direction::Read => "Read",
            Direction::Write => "Write",
        };
        let mut whole: Option<Buffer> = None;
        let mut failure = None;
        for part in pending {
            let (outcome, buffer) = self.finish(part).await.into_result(name);
            failure = failure.or(outcome.err());
            whole = match (whole.take(), buffer) {
                (Some(mut front), Some(back)) => {
                    // Neighbours were cut from one buffer; they rejoin.
                    front.unsplit(back).ok().map(|()| front)
                }
                (front, back) => front.or(back),
            };
        }
        match (failure, whole) {
            (None, Some(buffer)) => Ok(buffer),
            (error, buffer) => Err(Failed { error: error.unwrap_or(Error::Closed), buffer }),
        }
    }

    /// Hands a command to the next poller; waits while its backlog is full.
    async fn begin(&self, command: Command) -> oneshot::Receiver<Done> {
        let (reply, done) = oneshot::channel();
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.pollers.len().max(1);
        let request = IoRequest { command, reply };
        let refused = match self.pollers.get(index) {
            Some(poller) => poller.send(request).await.err().map(|refused| refused.0),
            None => Some(request),
        };
        if let Some(IoRequest { command, reply }) = refused {
            let outcome = Err(self.cause());
            let _ = reply.send(Done { user: 0, outcome, data: command.data.into_buffer() });
        }
        done
    }

    async fn finish(&self, done: oneshot::Receiver<Done>) -> Done {
        let lost = |_| Done { user: 0, outcome: Err(self.cause()), data: None };
        done.await.unwrap_or_else(lost)
    }

    fn cause(&self) -> Error {
        self.liveness.cause().unwrap_or(Error::Closed)
    }
}
