//! Namespace: reads and writes from any task.

mod transfer;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use verbs::Buffer;

use self::transfer::NamespaceTransfer;
use crate::{
    driver::{
        api::{
            protect::protect_command,
            request_channel::{RequestCompletion, RequestSender},
        },
        data_path::{
            command::{Command, CommandCompletion, ExecutionStatus},
            live_summary::LiveSummary,
            namespace_registry::{NamespaceEntry, NamespaceRegistry},
        },
    },
    error::{Error, Incompatible, Misuse},
    wire::{Cqe, NamespaceId, NamespaceInfo, OptionalCommand},
};

/// Namespace of a controller. Cheap to clone; clones share the queues.
///
/// Reads and writes wait while the controller reconnects, as long as its options say. They are
/// refused if the namespace has been replaced by another one.
///
/// Buffers are moved in and returned with the result. Dropping a future does not stop the command:
/// the queue keeps the buffer until the command has completed.
#[derive(Clone)]
pub struct Namespace {
    info: NamespaceInfo,
    entry: Arc<NamespaceEntry>,
    pollers: Arc<[RequestSender]>,
    next: Arc<AtomicUsize>,
    live: Arc<LiveSummary>,
}

/// Failed operation, with its buffer if that still exists.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct TransferError {
    /// Cause.
    pub error: Error,
    /// Buffer of the operation; the content is undefined after a read.
    pub buffer: Option<Buffer>,
    /// Execution status: the controller may have executed the operation, or parts of it.
    pub execution: ExecutionStatus,
}

impl TransferError {
    /// Error of an operation that was not begun.
    pub(crate) fn unsent(error: impl Into<Error>, buffer: Buffer) -> Self {
        let execution = ExecutionStatus::NotSent;
        Self { error: error.into(), buffer: Some(buffer), execution }
    }

    /// Response to a command with data that has succeeded, and its buffer.
    ///
    /// # Errors
    ///
    /// When there was no response, or its status says that the command `name` failed.
    pub(crate) fn check(
        done: CommandCompletion,
        name: &'static str,
    ) -> Result<(Cqe, Buffer), Self> {
        let execution = done.execution;
        match done.into_result(name) {
            (Ok(response), buffer) => {
                Ok((response, buffer.expect("a command with data returns its buffer")))
            }
            (Err(error), buffer) => Err(Self { error, buffer, execution }),
        }
    }

    /// Error of an operation that was sent again, after this outcome of the first time.
    pub(super) fn after(self, first: ExecutionStatus) -> Self {
        match first {
            ExecutionStatus::NotSent => self,
            // The first may have been executed, on an earlier connection.
            _ => Self { execution: ExecutionStatus::Unknown, ..self },
        }
    }

    /// Error in the response or data of an operation.
    pub(crate) fn answered(error: impl Into<Error>, buffer: Buffer) -> Self {
        let execution = ExecutionStatus::Responded;
        Self { error: error.into(), buffer: Some(buffer), execution }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Compare,
    /// Write with Force Unit Access.
    ForcedWrite,
    Read,
    Write,
}

/// Outcome of one part of a transfer.
pub(super) enum PartOutcome {
    Ended(Result<Buffer, TransferError>),
    /// Part that exceeds the maximum transfer of a new connection.
    TooLong {
        buffer: Buffer,
        execution: ExecutionStatus,
    },
}

/// Results of the parts of a transfer.
#[derive(Default)]
pub(super) struct JoinedParts {
    /// Buffer of the parts so far.
    whole: Option<Buffer>,
    failure: Option<(Error, ExecutionStatus)>,
}

impl JoinedParts {
    /// Adds the result of the next part.
    pub(super) fn add(&mut self, ended: Result<Buffer, TransferError>) {
        let (error, execution, buffer) = match ended {
            Ok(buffer) => (None, ExecutionStatus::Responded, Some(buffer)),
            Err(TransferError { error, buffer, execution }) => (Some(error), execution, buffer),
        };
        // Of several parts, some of which failed, some may have been executed.
        self.failure = match (self.failure.take(), error) {
            (None, Some(error)) if self.whole.is_none() => Some((error, execution)),
            (None, Some(error)) => Some((error, ExecutionStatus::Unknown)),
            (Some((first, before)), _) if before == execution => Some((first, before)),
            (Some((first, _)), _) => Some((first, ExecutionStatus::Unknown)),
            (None, None) => None,
        };
        self.add_buffer(buffer);
    }

    /// Adds the buffer of the next part.
    pub(super) fn add_buffer(&mut self, buffer: Option<Buffer>) {
        self.whole = match (self.whole.take(), buffer) {
            (Some(mut front), Some(back)) => {
                // Not if the buffer of a part in between is lost.
                front.unsplit(back).ok().map(|()| front)
            }
            (front, back) => front.or(back),
        };
    }

    /// Buffer of all parts, or the first error.
    pub(super) fn into_result(self) -> Result<Buffer, TransferError> {
        match self.failure {
            None => Ok(self.whole.expect("each part has returned its buffer")),
            Some((error, execution)) => Err(TransferError { error, buffer: self.whole, execution }),
        }
    }
}

impl Direction {
    /// Name of the command.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Compare => "Compare",
            Self::Read => "Read",
            Self::ForcedWrite | Self::Write => "Write",
        }
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::ForcedWrite | Self::Write)
    }
}

impl Namespace {
    pub(crate) fn new(
        info: NamespaceInfo,
        pollers: Arc<[RequestSender]>,
        live: Arc<LiveSummary>,
        registry: &NamespaceRegistry,
    ) -> Self {
        let entry = registry.insert(info);
        Self { info, entry, pollers, next: Arc::new(AtomicUsize::new(0)), live }
    }

    /// Latest Identify Namespace data; the size may change.
    #[must_use]
    pub fn info(&self) -> NamespaceInfo {
        NamespaceInfo { blocks: self.entry.blocks(), ..self.info }
    }

    /// Maximum data transfer of one command in bytes; larger transfers are split. A reconnect may
    /// change it.
    #[inline]
    #[must_use]
    pub fn transfer_bytes_max(&self) -> u64 {
        // Whole blocks, and at least one: a controller can transfer each of its blocks.
        let block_size = u64::from(self.info.block_size);
        let bytes = self.command_bytes_max();
        (bytes - bytes % block_size).max(block_size).min(block_size << 16)
    }

    /// Maximum bytes of one command, metadata included.
    #[inline]
    pub(super) fn command_bytes_max(&self) -> u64 {
        self.live.transfer_bytes_max()
    }

    /// Reads from `lba` on into the whole buffer. If the metadata of the namespace is nothing but
    /// protection information, the controller checks and strips it (PRACT), and makes that of
    /// writes; see [`read_extended`](Self::read_extended) for other metadata.
    ///
    /// # Errors
    ///
    /// When the range or the buffer does not fit the namespace, the controller refuses, or the
    /// connection is lost; [`Misuse::Metadata`] if the namespace has metadata of another kind.
    pub fn read(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        NamespaceTransfer::new(self, Direction::Read, lba, buffer)
    }

    /// Writes the whole buffer from `lba` on. In a zoned namespace the parts of a larger one than a
    /// command are written one after another.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). Parts of a failed write may have been written.
    pub fn write(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        NamespaceTransfer::new(self, Direction::Write, lba, buffer)
    }

    /// Writes the whole buffer from `lba` on, with Force Unit Access: its blocks are on
    /// non-volatile media when it completes, also where the controller has a volatile write cache.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_with_force_unit_access(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + Send {
        NamespaceTransfer::new(self, Direction::ForcedWrite, lba, buffer)
    }

    /// Compares the blocks from `lba` on with the whole buffer (Compare). It is never sent again by
    /// itself: its first execution may have seen blocks that were written since.
    ///
    /// # Errors
    ///
    /// When blocks differ, the status being
    /// [`Status::COMPARE_FAILURE`](crate::wire::Status::COMPARE_FAILURE); when the controller does
    /// not support it; [`Misuse::Metadata`] if the namespace has any metadata, with which
    /// [`compare_extended`](Self::compare_extended) compares; otherwise as [`read`](Self::read).
    pub async fn compare(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        let checked = self
            .require(OptionalCommand::Compare)
            .and_then(|()| Ok(Misuse::check_no_metadata(&self.info)?));
        match checked {
            Ok(()) => NamespaceTransfer::new(self, Direction::Compare, lba, buffer).await,
            Err(error) => Err(TransferError::unsent(error, buffer)),
        }
    }

    /// Flushes completed writes to non-volatile media.
    ///
    /// # Errors
    ///
    /// When the controller refuses, or the connection is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let (outcome, _) = self.run(Command::flush(self.info.id)).await.into_result("Flush");
        outcome.map(drop)
    }

    /// Checks that a range is within the namespace and a multiple of the block size; returns the
    /// number of blocks.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check_range(&self, lba: u64, bytes: u64) -> Result<u64, Misuse> {
        check_range(&self.info, self.entry.blocks(), lba, bytes)
    }

    /// Checks that the controller supports an optional command.
    ///
    /// # Errors
    ///
    /// [`Incompatible::NoCommand`] if not.
    pub fn require(&self, command: OptionalCommand) -> Result<(), Error> {
        match self.live.optional_commands().contains(command) {
            true => Ok(()),
            false => Err(Incompatible::NoCommand(command).into()),
        }
    }

    /// Transfers a range with any number of commands.
    pub(super) async fn transfer(
        &self,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        if let Err(error) = self.check_transfer(lba, buffer.len() as u64) {
            return Err(TransferError::unsent(error, buffer));
        }
        if self.info.is_zoned() && direction.is_write() {
            return self.write_in_order(direction, lba, buffer).await;
        }
        let parts = self.start(direction, lba, buffer).await;
        self.gather(direction, parts).await
    }

    /// Writes the parts of a buffer one after another: a zone takes its blocks in their order
    /// alone.
    async fn write_in_order(
        &self,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let mut joined = JoinedParts::default();
        let (mut at, mut rest) = (lba, Some(buffer));
        while let Some(mut part) = rest.take() {
            let step = usize::try_from(self.transfer_bytes_max()).unwrap_or(usize::MAX);
            if part.len() > step {
                rest = Some(part.split_off(step));
            }
            let blocks = u64::from(self.info.blocks_in(part.len()));
            let done = self.begin(self.command(direction, at, part)).await;
            let ended = self.finish_part(direction, at, done.await).await;
            let has_failed = ended.is_err();
            joined.add(ended);
            if has_failed {
                joined.add_buffer(rest);
                break;
            }
            at += blocks;
        }
        joined.into_result()
    }

    #[inline(always)]
    pub(super) fn command(&self, direction: Direction, lba: u64, buffer: Buffer) -> Command {
        let blocks = self.info.blocks_in(buffer.len());
        let command = self.plain_command(direction, lba, blocks, buffer);
        match self.info.metadata.bytes {
            0 => command,
            _ => protect_command(&self.info, command),
        }
    }

    /// Command without protection information.
    #[inline(always)]
    pub(super) fn plain_command(
        &self,
        direction: Direction,
        lba: u64,
        blocks: u32,
        buffer: Buffer,
    ) -> Command {
        match direction {
            Direction::Compare => Command::compare(self.info.id, lba, blocks, buffer),
            Direction::Read => Command::read(self.info.id, lba, blocks, buffer),
            Direction::ForcedWrite => {
                Command::write(self.info.id, lba, blocks, buffer).with_force_unit_access()
            }
            Direction::Write => Command::write(self.info.id, lba, blocks, buffer),
        }
    }

    /// Sends the commands for a range that has been checked; returns the first block and the
    /// receiver of each.
    pub(crate) async fn start(
        &self,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Vec<(u64, RequestCompletion<'_>)> {
        let step = usize::try_from(self.transfer_bytes_max()).unwrap_or(usize::MAX);
        let mut rest = Some(buffer);
        let mut pending = Vec::new();
        let mut at = lba;
        while let Some(mut part) = rest.take() {
            if part.len() > step {
                rest = Some(part.split_off(step));
            }
            let blocks = self.info.blocks_in(part.len());
            pending.push((at, self.begin(self.command(direction, at, part)).await));
            at += u64::from(blocks);
        }
        pending
    }

    /// Returns true if the connection of this generation is the live one.
    pub(crate) fn is_live(&self, generation: u64) -> bool {
        self.live.is_live(generation)
    }

    /// Namespace identifier (NSID).
    pub(crate) fn id(&self) -> NamespaceId {
        self.info.id
    }

    /// Executes a command without splitting it.
    pub(crate) async fn run(&self, command: Command) -> CommandCompletion {
        self.begin(command).await.await
    }

    #[inline(always)]
    pub(crate) fn check(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        self.check_replaced()?;
        self.check_range(lba, bytes).map(drop)
    }

    /// Checks a transfer without metadata.
    #[inline(always)]
    pub(super) fn check_transfer(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        if self.info.metadata.bytes != 0 && !self.info.metadata.is_protection_only() {
            Misuse::check_no_metadata(&self.info)?;
        }
        self.check(lba, bytes)
    }

    #[inline]
    pub(super) fn check_replaced(&self) -> Result<(), Misuse> {
        if self.entry.is_replaced() {
            return Err(Misuse::NamespaceReplaced(self.info.id));
        }
        Ok(())
    }

    /// Waits for all parts and joins their buffers; returns the first error.
    pub(crate) async fn gather(
        &self,
        direction: Direction,
        pending: Vec<(u64, RequestCompletion<'_>)>,
    ) -> Result<Buffer, TransferError> {
        let mut joined = JoinedParts::default();
        for (lba, part) in pending {
            joined.add(self.finish_part(direction, lba, part.await).await);
        }
        joined.into_result()
    }

    /// Result of one part. A part that exceeds the maximum transfer of a new connection is split
    /// again.
    pub(super) async fn finish_part(
        &self,
        direction: Direction,
        lba: u64,
        done: CommandCompletion,
    ) -> Result<Buffer, TransferError> {
        match self.part_outcome(direction, done) {
            PartOutcome::Ended(ended) => ended,
            PartOutcome::TooLong { buffer, execution } => {
                let again = Box::pin(self.transfer(direction, lba, buffer)).await;
                again.map_err(|failed| failed.after(execution))
            }
        }
    }

    /// Outcome of one part.
    pub(super) fn part_outcome(
        &self,
        direction: Direction,
        done: CommandCompletion,
    ) -> PartOutcome {
        let execution = done.execution;
        PartOutcome::Ended(match done.into_result(direction.name()) {
            (Ok(_), buffer) => Ok(buffer.expect("a command with data returns its buffer")),
            (Err(Error::Misuse(Misuse::CommandBytes { .. })), Some(buffer))
                if buffer.len() as u64 > self.transfer_bytes_max() =>
            {
                return PartOutcome::TooLong { buffer, execution };
            }
            (Err(error), buffer) => Err(TransferError { error, buffer, execution }),
        })
    }

    /// Passes a command to the next poller; waits while its backlog is full.
    pub(super) async fn begin(&self, command: Command) -> RequestCompletion<'_> {
        self.next_poller().send(command).await
    }

    /// Sender to the next poller, round-robin.
    #[inline]
    pub(super) fn next_poller(&self) -> &RequestSender {
        match &*self.pollers {
            [poller] => poller,
            pollers => &pollers[self.next.fetch_add(1, Ordering::Relaxed) % pollers.len()],
        }
    }
}

/// Checks that a range is within a namespace of `size` blocks and a multiple of the block size;
/// returns the number of blocks.
#[inline]
pub(super) fn check_range(
    namespace: &NamespaceInfo,
    size: u64,
    lba: u64,
    bytes: u64,
) -> Result<u64, Misuse> {
    let block_size = namespace.block_size;
    let blocks = bytes / u64::from(block_size);
    if bytes == 0 || !bytes.is_multiple_of(u64::from(block_size)) {
        return Err(Misuse::BlockMultiple { bytes, block_size });
    }
    match lba.checked_add(blocks) {
        Some(end) if end <= size => Ok(blocks),
        _ => Err(Misuse::PastEnd { namespace: namespace.id, lba, blocks, size }),
    }
}
