//! Commands on ranges of blocks without a transfer of the blocks: Copy, Dataset Management, Verify,
//! Write Uncorrectable and Write Zeroes; and the fused Compare and Write.

use std::ops::Range;

use verbs::Buffer;

use crate::{
    driver::{
        api::{
            namespace::{Namespace, TransferError},
            protect::protect_command,
        },
        data_path::command::{Command, CommandCompletion},
    },
    error::{Error, Misuse},
    wire::{BlockRange, NamespaceInfo, OptionalCommand},
};

/// Maximum number of blocks of one command.
const BLOCKS_MAX: u64 = 1 << 16;

/// Commands on ranges of blocks without a transfer of the blocks, and the fused Compare and Write,
/// of a namespace of one controller or of a subsystem with several paths.
pub trait RangeCommands: Sync {
    /// Latest Identify Namespace data; the size may change.
    fn info(&self) -> NamespaceInfo;

    /// Checks that the controller supports an optional command.
    ///
    /// # Errors
    ///
    /// [`Incompatible::NoCommand`](crate::error::Incompatible::NoCommand) if not.
    fn require(&self, command: OptionalCommand) -> Result<(), Error>;

    /// Checks that a range is within the namespace and a multiple of the block size.
    ///
    /// # Errors
    ///
    /// When it is not, or the namespace was replaced.
    fn check_blocks(&self, lba: u64, bytes: u64) -> Result<(), Misuse>;

    /// Maximum data transfer of one command in bytes.
    fn transfer_bytes_max(&self) -> u64;

    /// Executes a command of this namespace without splitting it.
    fn run(&self, command: Command) -> impl Future<Output = CommandCompletion> + Send;

    /// Writes blocks if they have the expected content (Compare and Write, fused): no command of
    /// another host comes between the two. The first half of `buffer` is the content that is
    /// expected of the blocks from `lba` on, the second half the new one. It is never sent again by
    /// itself: its first execution may have seen, or changed, the blocks.
    ///
    /// The controller limits it to as many blocks as it compares and writes atomically (ACWU, or
    /// NACWU of the namespace): often one.
    ///
    /// # Errors
    ///
    /// When blocks differ, the status being
    /// [`Status::COMPARE_FAILURE`](crate::wire::Status::COMPARE_FAILURE): nothing is written then.
    /// When the controller does not support it, the namespace has metadata, the halves are not
    /// whole blocks within the namespace, a queue has one entry, the controller refuses, or the
    /// connection is lost.
    fn compare_and_write(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        async move {
            let info = self.info();
            let half = buffer.len() / 2;
            let checked = self.require(OptionalCommand::CompareAndWrite).and_then(|()| {
                Misuse::check_no_metadata(&info)?;
                let (bytes, block_size) = (buffer.len() as u64, 2 * info.block_size);
                if !bytes.is_multiple_of(block_size.into()) {
                    return Err(Misuse::BlockMultiple { bytes, block_size }.into());
                }
                self.check_blocks(lba, half as u64)?;
                let max = BLOCKS_MAX * u64::from(info.block_size);
                let is_one = half as u64 <= max;
                let too_many = Misuse::CommandBytes { bytes: half as u64, max };
                is_one.then_some(info.blocks_in(half)).ok_or(too_many.into())
            });
            let blocks = match checked {
                Ok(blocks) => blocks,
                Err(error) => return Err(TransferError::unsent(error, buffer)),
            };
            let command = |buffer| Command::compare_and_write(info.id, lba, blocks, buffer);
            run_with_list(self, "Compare and Write", 2 * half, buffer, command).await
        }
    }

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
    fn deallocate(
        &self,
        ranges: &[BlockRange],
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        async move {
            let checked = self
                .require(OptionalCommand::DatasetManagement)
                .and_then(|()| check_ranges(self, ranges, buffer.len(), BlockRange::SIZE));
            if let Err(error) = checked {
                return Err(TransferError::unsent(error, buffer));
            }
            let bytes = ranges.len() * BlockRange::SIZE;
            let command = |list| Command::deallocate(self.info().id, ranges, list);
            run_with_list(self, "Dataset Management", bytes, buffer, command).await
        }
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
    /// When the controller does not support it, the namespace has protection information, there are
    /// no ranges or too many, one has more than 65,536 blocks, one or the destination does not fit
    /// the namespace, or all do not fit the buffer; when the controller refuses, or the connection
    /// is lost.
    fn copy(
        &self,
        sources: &[BlockRange],
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        async move {
            if let Err(error) = check_copy(self, sources, lba, buffer.len()) {
                return Err(TransferError::unsent(error, buffer));
            }
            let bytes = sources.len() * BlockRange::COPY_SIZE;
            let command = |list| Command::copy(self.info().id, sources, lba, list);
            run_with_list(self, "Copy", bytes, buffer, command).await
        }
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
    fn write_zeroes(
        &self,
        range: Range<u64>,
        deallocate: bool,
        bytes_max: Option<u64>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async move {
            self.require(OptionalCommand::WriteZeroes)?;
            let info = self.info();
            let command = |lba, blocks| {
                let command = Command::write_zeroes(info.id, lba, blocks, deallocate);
                protect_command(&info, command)
            };
            run_by_parts(self, "Write Zeroes", range, bytes_max, command).await
        }
    }

    /// Makes reads of the blocks of `range` fail until they are written (Write Uncorrectable), by
    /// commands of at most `bytes_max` bytes, one after another. The controller's limit is that of
    /// [`NvmLimits`](crate::wire::NvmLimits).
    ///
    /// # Errors
    ///
    /// As [`write_zeroes`](Self::write_zeroes); some blocks may be marked then.
    fn write_uncorrectable(
        &self,
        range: Range<u64>,
        bytes_max: Option<u64>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async move {
            self.require(OptionalCommand::WriteUncorrectable)?;
            let id = self.info().id;
            let command = |lba, blocks| Command::write_uncorrectable(id, lba, blocks);
            run_by_parts(self, "Write Uncorrectable", range, bytes_max, command).await
        }
    }

    /// Has the controller read the blocks of `range` without a data transfer (Verify), and check
    /// the guards of their protection information, if they have any, by commands of at most
    /// `bytes_max` bytes, one after another. The controller's limit is
    /// [`NvmLimits::verify_bytes_max`](crate::wire::NvmLimits::verify_bytes_max).
    ///
    /// # Errors
    ///
    /// When the controller does not support it, or can't read a block; otherwise as
    /// [`write_zeroes`](Self::write_zeroes).
    fn verify(
        &self,
        range: Range<u64>,
        bytes_max: Option<u64>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async move {
            self.require(OptionalCommand::Verify)?;
            let info = self.info();
            let command =
                |lba, blocks| protect_command(&info, Command::verify(info.id, lba, blocks));
            run_by_parts(self, "Verify", range, bytes_max, command).await
        }
    }
}

impl RangeCommands for Namespace {
    fn info(&self) -> NamespaceInfo {
        self.info()
    }

    fn require(&self, command: OptionalCommand) -> Result<(), Error> {
        self.require(command)
    }

    fn check_blocks(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        self.check(lba, bytes)
    }

    fn transfer_bytes_max(&self) -> u64 {
        self.transfer_bytes_max()
    }

    fn run(&self, command: Command) -> impl Future<Output = CommandCompletion> + Send {
        self.run(command)
    }
}

/// Executes commands for a range of blocks, one after another.
async fn run_by_parts<N: RangeCommands + ?Sized>(
    namespace: &N,
    name: &'static str,
    range: Range<u64>,
    bytes_max: Option<u64>,
    command: impl Fn(u64, u32) -> Command,
) -> Result<(), Error> {
    let block_size = u64::from(namespace.info().block_size);
    let bytes = range.end.saturating_sub(range.start).saturating_mul(block_size);
    namespace.check_blocks(range.start, bytes)?;
    let limit = bytes_max.unwrap_or(u64::MAX) / block_size;
    let step = limit.clamp(1, BLOCKS_MAX);
    let mut lba = range.start;
    while lba < range.end {
        let blocks = step.min(range.end - lba);
        let count = u32::try_from(blocks).expect("a command takes 65,536 blocks at most");
        namespace.run(command(lba, count)).await.into_result(name).0?;
        lba += blocks;
    }
    Ok(())
}

/// Executes a command whose data is the first `bytes` bytes of a buffer; returns the buffer.
pub(super) async fn run_with_list<N: RangeCommands + ?Sized>(
    namespace: &N,
    name: &'static str,
    bytes: usize,
    mut buffer: Buffer,
    command: impl FnOnce(Buffer) -> Command,
) -> Result<Buffer, TransferError> {
    let rest = (buffer.len() > bytes).then(|| buffer.split_off(bytes));
    let done = namespace.run(command(buffer)).await;
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

fn check_copy<N: RangeCommands + ?Sized>(
    namespace: &N,
    sources: &[BlockRange],
    lba: u64,
    room: usize,
) -> Result<(), Error> {
    namespace.require(OptionalCommand::Copy)?;
    // The tags of the copies would be those of their sources.
    if namespace.info().metadata.protection.is_some() {
        Misuse::check_no_metadata(&namespace.info())?;
    }
    check_ranges(namespace, sources, room, BlockRange::COPY_SIZE)?;
    let max = BlockRange::COPY_BLOCKS_MAX;
    if let Some(range) = sources.iter().find(|range| range.blocks > max) {
        let (option, value) = ("blocks of a source range", range.blocks.into());
        return Err(Misuse::Option { option, value, range: "1 to 65,536" }.into());
    }
    let blocks: u64 = sources.iter().map(|range| u64::from(range.blocks)).sum();
    Ok(namespace.check_blocks(lba, blocks * u64::from(namespace.info().block_size))?)
}

/// Checks ranges that take `size` bytes each in a buffer of `room` bytes.
fn check_ranges<N: RangeCommands + ?Sized>(
    namespace: &N,
    ranges: &[BlockRange],
    room: usize,
    size: usize,
) -> Result<(), Error> {
    let bytes = ranges.len() * size;
    if ranges.is_empty() || ranges.len() > BlockRange::COUNT_MAX || bytes > room {
        let value = ranges.len() as u64;
        let range = match size {
            BlockRange::SIZE => "1 to 256, with 16 bytes of buffer for each",
            _ => "1 to 256, with 32 bytes of buffer for each",
        };
        return Err(Misuse::Option { option: "number of ranges", value, range }.into());
    }
    let block_size = u64::from(namespace.info().block_size);
    let mut all = ranges.iter();
    let check = |range: &BlockRange| {
        namespace.check_blocks(range.lba, u64::from(range.blocks) * block_size)
    };
    Ok(all.try_for_each(check)?)
}
