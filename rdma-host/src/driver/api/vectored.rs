//! Reads and writes of one range through several buffers.

use verbs::Buffer;

use crate::{
    driver::{
        api::{
            namespace::{Direction, Namespace, TransferError},
            request_channel::RequestCompletion,
        },
        data_path::command::ExecutionStatus,
    },
    error::{Error, Misuse},
};

/// Failed vectored operation, with its buffers.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct VectoredTransferError {
    /// Error of the first part that failed.
    pub error: Error,
    /// Buffers of the operation in their order, `None` for one that is lost; the content is
    /// undefined after a read.
    pub buffers: Vec<Option<Buffer>>,
    /// Execution status: the controller may have executed the operation, or parts of it.
    pub execution: ExecutionStatus,
}

/// Buffers that are adjacent in memory, joined.
struct Run {
    whole: Buffer,
    /// Length of each buffer in bytes.
    lengths: Vec<usize>,
}

/// Commands of a run in flight.
struct InFlightRun<'namespace> {
    /// First block and completion of each command.
    parts: Vec<(u64, RequestCompletion<'namespace>)>,
    lengths: Vec<usize>,
}

impl Namespace {
    /// Reads from `lba` on into several buffers in turn; each length is a multiple of the block
    /// size. All commands are in flight together: one per buffer, more for a buffer that exceeds
    /// [the maximum transfer](Self::transfer_bytes_max), one for buffers adjacent in memory.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn read_vectored(
        &self,
        lba: u64,
        buffers: Vec<Buffer>,
    ) -> Result<Vec<Buffer>, VectoredTransferError> {
        self.transfer_vectored(Direction::Read, lba, buffers).await
    }

    /// Writes several buffers in turn from `lba` on, as [`read_vectored`](Self::read_vectored)
    /// reads; in a zoned namespace one command after another.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write). Some buffers, and parts of them, may have been written.
    pub async fn write_vectored(
        &self,
        lba: u64,
        buffers: Vec<Buffer>,
    ) -> Result<Vec<Buffer>, VectoredTransferError> {
        self.transfer_vectored(Direction::Write, lba, buffers).await
    }

    async fn transfer_vectored(
        &self,
        direction: Direction,
        lba: u64,
        buffers: Vec<Buffer>,
    ) -> Result<Vec<Buffer>, VectoredTransferError> {
        if let Err(error) = self.check_vectored(lba, &buffers) {
            let buffers = buffers.into_iter().map(Some).collect();
            let execution = ExecutionStatus::NotSent;
            return Err(VectoredTransferError { error: error.into(), buffers, execution });
        }
        if self.info().is_zoned() && direction.is_write() {
            return self.write_in_order_vectored(lba, runs(buffers)).await;
        }
        let mut in_flight = Vec::new();
        let mut at = lba;
        for Run { whole, lengths } in runs(buffers) {
            let blocks = whole.len() as u64 / u64::from(self.info().block_size);
            let parts = self.start(direction, at, whole).await;
            in_flight.push(InFlightRun { parts, lengths });
            at += blocks;
        }
        self.gather_vectored(direction, in_flight).await
    }

    /// Writes runs one after another: a zone takes its blocks in their order alone.
    async fn write_in_order_vectored(
        &self,
        lba: u64,
        runs: Vec<Run>,
    ) -> Result<Vec<Buffer>, VectoredTransferError> {
        let (mut buffers, mut failure, mut at) = (Vec::new(), None, lba);
        for Run { whole, lengths } in runs {
            if failure.is_some() {
                split(whole, &lengths, &mut buffers);
                continue;
            }
            let blocks = whole.len() as u64 / u64::from(self.info().block_size);
            match self.write(at, whole).await {
                Ok(whole) => split(whole, &lengths, &mut buffers),
                Err(TransferError { error, buffer, execution }) => {
                    split_if_whole(buffer, &lengths, &mut buffers);
                    // Of several runs, some have been written.
                    let execution = if at == lba { execution } else { ExecutionStatus::Unknown };
                    failure = Some((error, execution));
                }
            }
            at += blocks;
        }
        match failure {
            None => Ok(buffers.into_iter().flatten().collect()),
            Some((error, execution)) => Err(VectoredTransferError { error, buffers, execution }),
        }
    }

    async fn gather_vectored(
        &self,
        direction: Direction,
        in_flight: Vec<InFlightRun<'_>>,
    ) -> Result<Vec<Buffer>, VectoredTransferError> {
        let mut buffers = Vec::new();
        let mut failure: Option<(Error, ExecutionStatus)> = None;
        let mut succeeded = false;
        for InFlightRun { parts, lengths } in in_flight {
            match self.gather(direction, parts).await {
                Ok(whole) => {
                    succeeded = true;
                    split(whole, &lengths, &mut buffers);
                }
                Err(TransferError { error, buffer, execution }) => {
                    split_if_whole(buffer, &lengths, &mut buffers);
                    failure = Some(match failure {
                        None => (error, execution),
                        Some((first, before)) if before == execution => (first, before),
                        Some((first, _)) => (first, ExecutionStatus::Unknown),
                    });
                }
            }
        }
        match failure {
            // Without a failure no buffer is lost.
            None => Ok(buffers.into_iter().flatten().collect()),
            Some((error, execution)) => {
                let execution = if succeeded { ExecutionStatus::Unknown } else { execution };
                Err(VectoredTransferError { error, buffers, execution })
            }
        }
    }

    fn check_vectored(&self, lba: u64, buffers: &[Buffer]) -> Result<(), Misuse> {
        let block_size = self.info().block_size;
        for buffer in buffers {
            let bytes = buffer.len() as u64;
            if bytes == 0 || !bytes.is_multiple_of(block_size.into()) {
                return Err(Misuse::BlockMultiple { bytes, block_size });
            }
        }
        self.check_transfer(lba, buffers.iter().map(|buffer| buffer.len() as u64).sum())
    }
}

/// Joins buffers that are adjacent in memory, to send fewer commands.
fn runs(buffers: Vec<Buffer>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let length = buffer.len();
        let apart = match runs.last_mut() {
            Some(run) => match run.whole.unsplit(buffer) {
                Ok(()) => {
                    run.lengths.push(length);
                    continue;
                }
                Err(apart) => apart,
            },
            None => buffer,
        };
        runs.push(Run { whole: apart, lengths: vec![length] });
    }
    runs
}

/// Splits a run into its buffers.
fn split(whole: Buffer, lengths: &[usize], buffers: &mut Vec<Option<Buffer>>) {
    let mut rest = whole;
    for &length in lengths.iter().take(lengths.len() - 1) {
        let tail = rest.split_off(length);
        buffers.push(Some(std::mem::replace(&mut rest, tail)));
    }
    buffers.push(Some(rest));
}

/// Splits the buffer of a failed run, or notes that its buffers are lost: parts of it that can't be
/// joined.
fn split_if_whole(buffer: Option<Buffer>, lengths: &[usize], buffers: &mut Vec<Option<Buffer>>) {
    match buffer {
        Some(whole) if whole.len() == lengths.iter().sum() => split(whole, lengths, buffers),
        _ => buffers.extend(lengths.iter().map(|_| None)),
    }
}
