//! Dataset Management (deallocate) and Write Zeroes.

use verbs::Buffer;

use crate::{
    driver::{
        api::namespace::{Namespace, TransferError},
        data_path::command::{Command, ExecutionStatus},
    },
    error::{Error, Misuse},
    wire::BlockRange,
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
    /// When there are no ranges or too many, one does not fit the namespace, or all do not fit the
    /// buffer; when the controller refuses, or the connection is lost.
    pub async fn deallocate(
        &self,
        ranges: &[BlockRange],
        mut buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let bytes = ranges.len() * BlockRange::SIZE;
        if let Err(error) = self.check_ranges(ranges, buffer.len()) {
            let execution = ExecutionStatus::NotSent;
            return Err(TransferError { error: error.into(), buffer: Some(buffer), execution });
        }
        let rest = (buffer.len() > bytes).then(|| buffer.split_off(bytes));
        let done = self.run(Command::deallocate(self.id(), ranges, buffer)).await;
        let execution = done.execution;
        let (outcome, buffer) = done.into_result("Dataset Management");
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

    /// Sets the blocks of `range` to zeros without a data transfer (Write Zeroes), by commands of
    /// at most `bytes_max` bytes, one after another. The controller's limit is
    /// [`NvmLimits::write_zeroes_bytes_max`](crate::wire::NvmLimits::write_zeroes_bytes_max).
    /// `deallocate` permits the controller to deallocate the blocks.
    ///
    /// # Errors
    ///
    /// When the range does not fit the namespace, the controller refuses, or the connection is
    /// lost; some blocks may be zeros then.
    pub async fn write_zeroes(
        &self,
        range: std::ops::Range<u64>,
        deallocate: bool,
        bytes_max: Option<u64>,
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
            let done = self.run(Command::write_zeroes(self.id(), lba, count, deallocate)).await;
            done.into_result("Write Zeroes").0?;
            lba += blocks;
        }
        Ok(())
    }

    fn check_ranges(&self, ranges: &[BlockRange], room: usize) -> Result<(), Misuse> {
        let bytes = ranges.len() * BlockRange::SIZE;
        if ranges.is_empty() || ranges.len() > BlockRange::COUNT_MAX || bytes > room {
            let value = ranges.len() as u64;
            let range = "1 to 256, with 16 bytes of buffer for each";
            return Err(Misuse::Option { option: "number of ranges", value, range });
        }
        let block_size = u64::from(self.info().block_size);
        let mut all = ranges.iter();
        all.try_for_each(|range| self.check(range.lba, u64::from(range.blocks) * block_size))
    }
}
