//! Commands to submit, and their completions.

use verbs::Buffer;

use crate::{
    error::{Error, Rejected},
    wire::{BlockRange, Cqe, NamespaceId, Sqe},
};

/// A command to submit.
#[derive(Debug)]
pub struct Command {
    /// Submission queue entry. The queue sets its command id and data pointer.
    pub sqe: Sqe,
    /// Data of the command.
    pub data: Data,
    /// Tag of the caller, returned in [`CommandCompletion::user`].
    pub user: u64,
}

/// Data of a command: a whole buffer, which the queue owns until the command has completed.
#[derive(Debug)]
pub enum Data {
    /// Buffer that the controller writes.
    FromController(Buffer),
    /// No data.
    None,
    /// Buffer that the controller reads.
    ToController(Buffer),
}

/// Completion of a command. Each submitted command completes exactly once.
#[derive(Debug)]
pub struct CommandCompletion {
    /// Tag of the command.
    pub user: u64,
    /// Response, or the reason why there is none.
    pub outcome: Result<Cqe, Error>,
    /// Buffer of the command; `None` if it had none.
    pub data: Option<Buffer>,
    /// Knowledge of whether the command was executed.
    pub execution: ExecutionStatus,
}

/// Submission of a command to a poller.
pub(crate) enum Submission {
    /// First submission, with the clock reading then.
    First { sqe: Sqe, started: u64 },
    /// Repetition by the owner of the poller, who keeps the command.
    Repeat,
}

/// Knowledge of whether the controller executed a completed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// The controller has responded: the response tells.
    Responded,
    /// The command was never sent, or the controller refused it for the state of its path.
    NotSent,
    /// The command was sent without a response: it may have been executed, or yet be. Also of a
    /// write that was sent again after that, and refused: a zone, for one, refuses the second of
    /// two equal writes.
    Unknown,
}

/// Failure to submit a command, with the buffer of the command.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct SubmitError {
    /// Reason.
    #[source]
    pub error: Error,
    /// Tag of the command.
    pub user: u64,
    /// Buffer of the command; `None` if it had none.
    pub data: Option<Buffer>,
}

impl Command {
    /// Creates a Read of `blocks` blocks from `lba` on, the size of `buffer`.
    #[inline]
    #[must_use]
    pub fn read(namespace: NamespaceId, lba: u64, blocks: u32, buffer: Buffer) -> Self {
        let sqe = Sqe::read(namespace, lba, blocks);
        Self { sqe, data: Data::FromController(buffer), user: 0 }
    }

    /// Creates a Write of `blocks` blocks from `lba` on, the size of `buffer`.
    #[inline]
    #[must_use]
    pub fn write(namespace: NamespaceId, lba: u64, blocks: u32, buffer: Buffer) -> Self {
        let sqe = Sqe::write(namespace, lba, blocks);
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Creates a Compare of `blocks` blocks from `lba` on with `buffer`, which has their size.
    /// Where they differ, the status is
    /// [`Status::COMPARE_FAILURE`](crate::wire::Status::COMPARE_FAILURE).
    #[must_use]
    pub fn compare(namespace: NamespaceId, lba: u64, blocks: u32, buffer: Buffer) -> Self {
        let sqe = Sqe::compare(namespace, lba, blocks);
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Creates a fused Compare and Write of `blocks` blocks from `lba` on: two commands that a
    /// queue gets one right after the other. The first half of `buffer` is compared with the
    /// blocks, and if they are equal the second half is written to them. The completion is one,
    /// with the response to the Compare if that failed, otherwise that to the Write.
    ///
    /// # Panics
    ///
    /// If the buffer does not consist of two halves of whole blocks, or `blocks` is 0 or above
    /// 65,536.
    #[must_use]
    pub fn compare_and_write(
        namespace: NamespaceId,
        lba: u64,
        blocks: u32,
        buffer: Buffer,
    ) -> Self {
        let halves = buffer.len().is_multiple_of(2 * blocks.max(1) as usize);
        assert!(halves, "a buffer of two halves with {blocks} blocks each");
        let sqe = Sqe::fused_compare(namespace, lba, blocks);
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Creates a Verify of `blocks` blocks from `lba` on, which reads them without a transfer.
    #[must_use]
    pub fn verify(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self { sqe: Sqe::verify(namespace, lba, blocks), data: Data::None, user: 0 }
    }

    /// Creates a Write Uncorrectable of `blocks` blocks from `lba` on: reads of them fail until
    /// they are written.
    #[must_use]
    pub fn write_uncorrectable(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self { sqe: Sqe::write_uncorrectable(namespace, lba, blocks), data: Data::None, user: 0 }
    }

    /// Creates a Copy of the blocks of `sources`, one range after the other, to those from `lba`
    /// on; the ranges are written to `buffer`.
    ///
    /// # Panics
    ///
    /// If there are no ranges or more than 256, one has no blocks or more than 65,536, or the
    /// buffer does not have 32 bytes for each.
    #[must_use]
    pub fn copy(
        namespace: NamespaceId,
        sources: &[BlockRange],
        lba: u64,
        mut buffer: Buffer,
    ) -> Self {
        assert_eq!(buffer.len(), sources.len() * BlockRange::COPY_SIZE, "32 bytes a range");
        buffer.copy_in(0, &BlockRange::to_copy_bytes(sources));
        let sqe = Sqe::copy(namespace, lba, sources.len());
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Creates a Flush, which makes completed writes non-volatile.
    #[must_use]
    pub fn flush(namespace: NamespaceId) -> Self {
        Self { sqe: Sqe::flush(namespace), data: Data::None, user: 0 }
    }

    /// Creates a Write Zeroes of `blocks` blocks from `lba` on. If `deallocate` is set, the
    /// controller may deallocate them.
    #[must_use]
    pub fn write_zeroes(namespace: NamespaceId, lba: u64, blocks: u32, deallocate: bool) -> Self {
        let sqe = Sqe::write_zeroes(namespace, lba, blocks, deallocate);
        Self { sqe, data: Data::None, user: 0 }
    }

    /// Creates a Dataset Management command that deallocates `ranges`; they are written to
    /// `buffer`.
    ///
    /// # Panics
    ///
    /// If there are no ranges or more than 256, or the buffer does not have 16 bytes for each.
    #[must_use]
    pub fn deallocate(namespace: NamespaceId, ranges: &[BlockRange], mut buffer: Buffer) -> Self {
        assert_eq!(buffer.len(), ranges.len() * BlockRange::SIZE, "16 bytes a range");
        for (index, range) in ranges.iter().enumerate() {
            buffer.copy_in(index * BlockRange::SIZE, &range.to_bytes());
        }
        let sqe = Sqe::deallocate(namespace, ranges.len());
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Sets Force Unit Access of a Read, Write or Write Zeroes: it completes once its blocks are on
    /// non-volatile media, also where the controller has a volatile write cache.
    #[must_use]
    pub fn with_force_unit_access(mut self) -> Self {
        self.sqe = self.sqe.with_force_unit_access();
        self
    }

    /// Sets the tag of the command.
    #[inline]
    #[must_use]
    pub fn with_user(mut self, user: u64) -> Self {
        self.user = user;
        self
    }
}

impl Command {
    /// Number of bytes that the command transfers; of a fused operation, each of its commands.
    pub(crate) fn transfer_bytes(&self) -> u64 {
        let bytes = self.data.len() as u64;
        if self.sqe.is_fused() { bytes / 2 } else { bytes }
    }

    /// Moves the command out of a reference, leaving [`Data::None`].
    pub(crate) fn take(&mut self) -> Self {
        let data = std::mem::replace(&mut self.data, Data::None);
        Self { sqe: self.sqe, data, user: self.user }
    }
}

impl ExecutionStatus {
    /// Status of a command without a response that was sent `sends` times.
    pub(crate) fn without_response(sends: u8) -> Self {
        if sends == 0 { Self::NotSent } else { Self::Unknown }
    }
}

impl Data {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::FromController(buffer) | Self::ToController(buffer) => buffer.len(),
            Self::None => 0,
        }
    }

    #[inline]
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match self {
            Self::FromController(buffer) | Self::ToController(buffer) => Some(buffer),
            Self::None => None,
        }
    }

    /// Data of a command with this buffer, in the direction of its transfer.
    pub(crate) fn of(sqe: &Sqe, buffer: Option<Buffer>) -> Self {
        match buffer {
            Some(buffer) if sqe.opcode().sends_data() => Self::ToController(buffer),
            Some(buffer) => Self::FromController(buffer),
            None => Self::None,
        }
    }

    #[inline]
    pub(crate) fn into_buffer(self) -> Option<Buffer> {
        match self {
            Self::FromController(buffer) | Self::ToController(buffer) => Some(buffer),
            Self::None => None,
        }
    }
}

impl CommandCompletion {
    /// Returns true if the response says that the command succeeded.
    pub(crate) fn is_success(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|response| response.status().is_success())
    }

    /// Returns the response of a command that succeeded, and the buffer.
    ///
    /// # Errors
    ///
    /// When there was no response, or its status says that the command `name` failed.
    pub fn into_result(self, name: &'static str) -> (Result<Cqe, Error>, Option<Buffer>) {
        let outcome = self.outcome.and_then(|response| match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(Rejected::Command { command: name, status }.into()),
        });
        (outcome, self.data)
    }

    /// Completion of a command that was never sent.
    pub(crate) fn unsent(error: Error, command: Command) -> Self {
        Self {
            user: command.user,
            outcome: Err(error),
            data: command.data.into_buffer(),
            execution: ExecutionStatus::NotSent,
        }
    }
}

impl From<SubmitError> for CommandCompletion {
    fn from(SubmitError { error, user, data }: SubmitError) -> Self {
        Self { user, outcome: Err(error), data, execution: ExecutionStatus::NotSent }
    }
}

impl SubmitError {
    pub(crate) fn new(error: Error, command: Command) -> Self {
        Self { error, user: command.user, data: command.data.into_buffer() }
    }
}
