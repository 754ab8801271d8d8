//! Commands on their way in and out of a poller.

use verbs::Buffer;

use crate::{
    error::Error,
    wire::{BlockRange, Cqe, NamespaceId, Sqe},
};

/// A command to submit.
#[derive(Debug)]
pub struct Command {
    /// The command, but for its id and data pointer, which the queue fills in.
    pub sqe: Sqe,
    /// Its data.
    pub data: Data,
    /// Comes back in [`CommandCompletion::user`]; means nothing to the queue.
    pub user: u64,
}

/// The data of a command. The whole buffer is moved; it belongs to the queue until the command
/// is done.
#[derive(Debug)]
pub enum Data {
    /// The controller writes it.
    FromController(Buffer),
    /// There is none.
    None,
    /// The controller reads it.
    ToController(Buffer),
}

/// A command that is done: each submitted one comes back exactly once.
#[derive(Debug)]
pub struct CommandCompletion {
    /// From the command.
    pub user: u64,
    /// The response, or why there is none.
    pub outcome: Result<Cqe, Error>,
    /// The buffer, if it had one.
    pub data: Option<Buffer>,
    /// What is known of its execution.
    pub execution: ExecutionStatus,
}

/// Whether the controller has executed a command that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// The controller said what became of it.
    Answered,
    /// It was never sent.
    NotSent,
    /// It was sent and not answered: it may have been executed, or still be.
    Unknown,
}

/// A command that was not taken, with its buffer.
#[derive(Debug)]
pub struct SubmitError {
    /// Why.
    pub error: Error,
    /// From the command.
    pub user: u64,
    /// The buffer, if it had one.
    pub data: Option<Buffer>,
}

impl Command {
    /// Reads `blocks` blocks from `lba` on; `buffer` holds exactly as many.
    #[inline]
    #[must_use]
    pub fn read(namespace: NamespaceId, lba: u64, blocks: u32, buffer: Buffer) -> Self {
        let sqe = Sqe::read(namespace, lba, blocks);
        Self { sqe, data: Data::FromController(buffer), user: 0 }
    }

    /// Writes `blocks` blocks from `lba` on; `buffer` holds exactly as many.
    #[inline]
    #[must_use]
    pub fn write(namespace: NamespaceId, lba: u64, blocks: u32, buffer: Buffer) -> Self {
        let sqe = Sqe::write(namespace, lba, blocks);
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// Makes completed writes permanent.
    #[must_use]
    pub fn flush(namespace: NamespaceId) -> Self {
        Self { sqe: Sqe::flush(namespace), data: Data::None, user: 0 }
    }

    /// Makes `blocks` blocks from `lba` on read as zeros; with `deallocate` the controller may give
    /// their space back.
    #[must_use]
    pub fn write_zeroes(namespace: NamespaceId, lba: u64, blocks: u32, deallocate: bool) -> Self {
        let sqe = Sqe::write_zeroes(namespace, lba, blocks, deallocate);
        Self { sqe, data: Data::None, user: 0 }
    }

    /// Lets the controller forget these blocks. `buffer` holds 16 bytes for each range, and is
    /// filled here.
    ///
    /// # Panics
    ///
    /// If there are no ranges or more than 256, or the buffer has another size.
    #[must_use]
    pub fn deallocate(namespace: NamespaceId, ranges: &[BlockRange], mut buffer: Buffer) -> Self {
        assert_eq!(buffer.len(), ranges.len() * BlockRange::SIZE, "16 bytes a range");
        buffer.copy_in(0, &BlockRange::to_bytes(ranges));
        let sqe = Sqe::deallocate(namespace, ranges.len());
        Self { sqe, data: Data::ToController(buffer), user: 0 }
    }

    /// The same command, to be known by `user` when it is done.
    #[inline]
    #[must_use]
    pub fn with_user(mut self, user: u64) -> Self {
        self.user = user;
        self
    }
}

impl Command {
    /// Takes the whole of a command out of the hands of who only borrows it.
    pub(crate) fn take(&mut self) -> Self {
        let data = std::mem::replace(&mut self.data, Data::None);
        Self { sqe: self.sqe, data, user: self.user }
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

    /// A buffer in the direction that the command moves it.
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
    /// A command that was never sent.
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
