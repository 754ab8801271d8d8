//! Commands on ranges of blocks without a transfer of the blocks: Copy, Dataset Management, Verify,
//! Write Uncorrectable and Write Zeroes.

use std::ops::Range;

use verbs::Buffer;

use crate::{
    driver::{
        api::namespace::{Namespace, TransferError},
        data_path::command::Command,
    },
    error::{Error, Misuse},
    wire::{BlockRange, OptionalCommand},
};

/// Maximum number of blocks of one command.
const BLOCKS_MAX: u64 = 1 << 16;

impl Namespace {
    /// Deallocates up to 256 ranges of blocks (Dataset Management). The controller determines what
    /// is read there afterwards: zeros on most.
    ///
    /// `buffer` takes the list of ranges, 16 bytes each; 4,096 bytes are enough for all. The
    /// content is undefined afterwards.
    ///
    /// # Errors
    ///
    /// When the controller does not support it, there are no ranges or too many, one does not fit
    /// the namespace, or all do not fit the buffer; when the controller refuses, or the connection
    /// is lost.
    pub async fn deallocate(
        &self,
        ranges: &[BlockRange],
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let checked = self
            .require(OptionalCommand::DatasetManagement)
            .and_then(|()| self.check_ranges(ranges, buffer.len(), BlockRange::SIZE));
        if let Err(error) = checked {
            return Err(TransferError::unsent(error, buffer));
        }
        let bytes = ranges.len() * BlockRange::SIZE;
        let command = |list| Command::deallocate(self.id(), ranges, list);
        self.run_with_list("Dataset Management", bytes, buffer, command).await
    }

    /// Copies the blocks of up to 256 ranges, one after the other, to the blocks from `lba` on, by
    /// one command (Copy). Of two such commands, or after a failure, nothing is known of the order
    /// in which blocks are copied; it is never sent again by itself.
    ///
    /// `buffer` takes the list of ranges, 32 bytes each; 8,192 bytes are enough for all. The
    /// content is undefined afterwards. The controller's limits are
    /// [`CopyLimits`](crate::wire::CopyLimits).
    ///
    /// # Errors
    ///
    /// When the controller does not support it, there are no ranges or too many, one has more than
    /// 65,536 blocks, one or the destination does not fit the namespace, or all do not fit the
    /// buffer; when the controller refuses, or the connection is lost.
    pub async fn copy(
        &self,
        sources: &[BlockRange],
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        if let Err(error) = self.check_copy(sources, lba, buffer.len()) {
            return Err(TransferError::unsent(error, buffer));
        }
        let bytes = sources.len() * BlockRange::COPY_SIZE;
        let command = |list| Command::copy(self.id(), sources, lba, list);
        self.run_with_list("Copy", bytes, buffer, command).await
    }

    /// Sets the blocks of `range` to zeros without a data transfer (Write Zeroes), by commands of
    /// at most `bytes_max` bytes, one after another. The controller's limit is
    /// [`NvmLimits::write_zeroes_bytes_max`](crate::wire::NvmLimits::write_zeroes_bytes_max).
    /// `deallocate` permits the controller to deallocate the blocks.
    ///
    /// # Errors
    ///
    /// When the controller does not support it, the range does not fit the namespace, the
    /// controller refuses, or the connection is lost; some blocks may be zeros then.
    pub async fn write_zeroes(
        &self,
        range: Range<u64>,
        deallocate: bool,
        bytes_max: Option<u64>,
    ) -> Result<(), Error> {
        self.require(OptionalCommand::WriteZeroes)?;
        let command = |lba, blocks| Command::write_zeroes(self.id(), lba, blocks, deallocate);
        self.run_by_parts("Write Zeroes", range, bytes_max, command).await
    }

    /// Makes reads of the blocks of `range` fail until they are written (Write Uncorrectable), by
    /// commands of at most `bytes_max` bytes, one after another. The controller's limit is that of
    /// [`NvmLimits`](crate::wire::NvmLimits).
    ///
    /// # Errors
    ///
    /// As [`write_zeroes`](Self::write_zeroes); some blocks may be marked then.
    pub async fn write_uncorrectable(
        &self,
        range: Range<u64>,
        bytes_max: Option<u64>,
    ) -> Result<(), Error> {
        self.require(OptionalCommand::WriteUncorrectable)?;
        let command = |lba, blocks| Command::write_uncorrectable(self.id(), lba, blocks);
        self.run_by_parts("Write Uncorrectable", range, bytes_max, command).await
    }

    /// Has the controller read the blocks of `range` without a data transfer (Verify), by commands
    /// of at most `bytes_max` bytes, one after another. The controller's limit is
    /// [`NvmLimits::verify_bytes_max`](crate::wire::NvmLimits::verify_bytes_max).
    ///
    /// # Errors
    ///
    /// When the controller does not support it, or can't read a block; otherwise as
    /// [`write_zeroes`](Self::write_zeroes).
    pub async fn verify(&self, range: Range<u64>, bytes_max: Option<u64>) -> Result<(), Error> {
        self.require(OptionalCommand::Verify)?;
        let command = |lba, blocks| Command::verify(self.id(), lba, blocks);
        self.run_by_parts("Verify", range, bytes_max, command).await
    }

    /// Executes commands for a range of blocks, one after another.
    async fn run_by_parts(
        &self,
        name: &'static str,
        range: Range<u64>,
        bytes_max: Option<u64>,
        command: impl Fn(u64, u32) -> Command,
    ) -> Result<(), Error> {
        let block_size = u64::from(self.info().block_size);
        let bytes = range.end.saturating_sub(range.start).saturating_mul(block_size);
        self.check(range.start, bytes)?;
        let limit = bytes_max.unwrap_or(u64::MAX) / block_size;
        let step = limit.clamp(1, BLOCKS_MAX);
        let mut lba = range.start;
        while lba < range.end {
            let blocks = step.min(range.end - lba);
            let count = u32::try_from(blocks).expect("a command takes 65,536 blocks at most");
            self.run(command(lba, count)).await.into_result(name).0?;
            lba += blocks;
        }
        Ok(())
    }

    /// Executes a command whose data is the first `bytes` bytes of a buffer; returns the buffer.
    pub(super) async fn run_with_list(
        &self,
        name: &'static str,
        bytes: usize,
        mut buffer: Buffer,
        command: impl FnOnce(Buffer) -> Command,
    ) -> Result<Buffer, TransferError> {
        let rest = (buffer.len() > bytes).then(|| buffer.split_off(bytes));
        let done = self.run(command(buffer)).await;
        let execution = done.execution;
        let (outcome, buffer) = done.into_result(name);
        let buffer = buffer.map(|mut front| {
            if let Some(rest) = rest {
                front.unsplit(rest).expect("the rest is of the same buffer");
            }
            front
        });
        match outcome {
            Ok(_) => Ok(buffer.expect("a command with data returns its buffer")),
            Err(error) => Err(TransferError { error, buffer, execution }),
        }
    }

    fn check_copy(&self, sources: &[BlockRange], lba: u64, room: usize) -> Result<(), Error> {
        self.require(OptionalCommand::Copy)?;
        self.check_ranges(sources, room, BlockRange::COPY_SIZE)?;
        let max = BlockRange::COPY_BLOCKS_MAX;
        if let Some(range) = sources.iter().find(|range| range.blocks > max) {
            let (option, value) = ("blocks of a source range", range.blocks.into());
            return Err(Misuse::Option { option, value, range: "1 to 65,536" }.into());
        }
        let blocks: u64 = sources.iter().map(|range| u64::from(range.blocks)).sum();
        Ok(self.check(lba, blocks * u64::from(self.info().block_size))?)
    }

    /// Checks ranges that take `size` bytes each in a buffer of `room` bytes.
    fn check_ranges(&self, ranges: &[BlockRange], room: usize, size: usize) -> Result<(), Error> {
        let bytes = ranges.len() * size;
        if ranges.is_empty() || ranges.len() > BlockRange::COUNT_MAX || bytes > room {
            let value = ranges.len() as u64;
            let range = match size {
                BlockRange::SIZE => "1 to 256, with 16 bytes of buffer for each",
                _ => "1 to 256, with 32 bytes of buffer for each",
            };
            return Err(Misuse::Option { option: "number of ranges", value, range }.into());
        }
        let block_size = u64::from(self.info().block_size);
        let mut all = ranges.iter();
        let check =
            |range: &BlockRange| self.check(range.lba, u64::from(range.blocks) * block_size);
        Ok(all.try_for_each(check)?)
    }
}
