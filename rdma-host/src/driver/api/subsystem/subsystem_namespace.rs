//! Namespace of a subsystem: reads and writes over any of its paths.

use std::sync::Arc;

use verbs::Buffer;

use super::{
    path_table::{Attempt, Begun, PathTable},
    progress::{FailedAttempt, Progress},
};
use crate::{
    config::PATH_RETRY_INTERVAL,
    driver::{
        api::{
            namespace::{Namespace, TransferError, check_range},
            ranges::RangeCommands,
        },
        data_path::command::{Command, CommandCompletion, Data, ExecutionStatus},
        runtime,
    },
    error::{Error, Incompatible, Misuse},
    proto::CommandClass,
    wire::{Cqe, NamespaceId, NamespaceInfo, Opcode, OptionalCommand, Sqe},
};

/// Namespace of a subsystem, over all of its paths. Cheap to clone.
///
/// A command whose path fails goes to another path: at once if it changes nothing or is known not
/// to have been executed, behind the write fence if it is a write that may be executed yet. One
/// that must not be executed twice fails with an unknown outcome. While no path is usable, commands
/// are held for [`fast_io_fail`](crate::ReconnectOptions::fast_io_fail).
///
/// Buffers are moved in and returned with the result. Dropping a future does not stop the command.
#[derive(Clone)]
pub struct SubsystemNamespace {
    table: Arc<PathTable>,
    id: NamespaceId,
    /// Number of the namespace in the table.
    instance: u64,
    /// Identify Namespace data at the time of its identification.
    identified: NamespaceInfo,
}

/// Operation that may be repeated on another path.
#[derive(Clone, Copy)]
enum Operation {
    /// Read of a whole buffer from this block on, split as the controller's limit needs it.
    Read(u64),
    /// Write, the same.
    Write(u64),
    /// Write with Force Unit Access, the same.
    ForcedWrite(u64),
    /// One command.
    Command(Sqe),
}

/// Outcome of an operation on a path.
struct Outcome {
    result: Result<Cqe, Error>,
    buffer: Option<Buffer>,
    execution: ExecutionStatus,
}

impl Operation {
    fn class(self) -> CommandClass {
        match self {
            Self::Read(_) => CommandClass::WithoutEffect,
            Self::Write(_) | Self::ForcedWrite(_) => CommandClass::IdempotentWrite,
            Self::Command(sqe) => CommandClass::of(&sqe),
        }
    }

    fn opcode(self) -> Opcode {
        match self {
            Self::Read(_) => Opcode::READ,
            Self::Write(_) | Self::ForcedWrite(_) => Opcode::WRITE,
            Self::Command(sqe) => sqe.opcode(),
        }
    }

    async fn run(self, namespace: &Namespace, buffer: Option<Buffer>) -> Outcome {
        const HAS_BUFFER: &str = "reads and writes have a buffer";
        let transferred = match self {
            Self::Read(lba) => namespace.read(lba, buffer.expect(HAS_BUFFER)).await,
            Self::Write(lba) => namespace.write(lba, buffer.expect(HAS_BUFFER)).await,
            Self::ForcedWrite(lba) => {
                namespace.write_with_force_unit_access(lba, buffer.expect(HAS_BUFFER)).await
            }
            Self::Command(sqe) => {
                let data = Data::of(&sqe, buffer);
                let done = namespace.run(Command { sqe, data, user: 0 }).await;
                let CommandCompletion { outcome, data, execution, .. } = done;
                return Outcome { result: outcome, buffer: data, execution };
            }
        };
        match transferred {
            Ok(buffer) => Outcome {
                result: Ok(Cqe::default()),
                buffer: Some(buffer),
                execution: ExecutionStatus::Responded,
            },
            Err(TransferError { error, buffer, execution }) => {
                Outcome { result: Err(error), buffer, execution }
            }
        }
    }
}

impl Outcome {
    fn is_success(&self) -> bool {
        self.result.as_ref().is_ok_and(|response| response.status().is_success())
    }

    fn into_transferred(self) -> Result<Buffer, TransferError> {
        let Self { result, buffer, execution } = self;
        match result {
            Ok(_) => Ok(buffer.expect("a read or write returns its buffer")),
            Err(error) => Err(TransferError { error, buffer, execution }),
        }
    }
}

impl SubsystemNamespace {
    /// Handle of a namespace in use.
    pub(super) fn new(table: Arc<PathTable>, info: NamespaceInfo) -> Self {
        let instance = table.instance(info.id).expect("it was just identified");
        Self { table, id: info.id, instance, identified: info }
    }

    fn is_replaced(&self) -> bool {
        self.table.instance(self.id) != Some(self.instance)
    }

    /// Error of a command for which there is no path.
    fn no_path(&self) -> Error {
        match self.is_replaced() {
            true => Misuse::NamespaceReplaced(self.id).into(),
            false => self.table.no_path(self.id),
        }
    }

    /// Latest Identify Namespace data; the size may change.
    ///
    /// # Panics
    ///
    /// Never: a namespace is handed out once it is identified.
    #[must_use]
    pub fn info(&self) -> NamespaceInfo {
        let latest = self.table.namespace(self.id).filter(|_| !self.is_replaced());
        latest.unwrap_or(self.identified)
    }

    /// Reads from `lba` on into the whole buffer.
    ///
    /// # Errors
    ///
    /// When the range or the buffer does not fit the namespace, a controller refuses, or no path is
    /// usable for too long ([`PathError::NoPath`](crate::error::PathError::NoPath)).
    pub async fn read(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        let mut progress = Progress::default();
        self.perform(Operation::Read(lba), Some(buffer), &mut progress).await.into_transferred()
    }

    /// Writes the whole buffer from `lba` on.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`Error::Fenced`] if nothing proves in time that a controller
    /// of a lost path does not write to these blocks any more. Parts of a failed write may have
    /// been written.
    pub async fn write(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        let mut progress = Progress::default();
        self.perform(Operation::Write(lba), Some(buffer), &mut progress).await.into_transferred()
    }

    /// Writes the whole buffer from `lba` on, with Force Unit Access, as
    /// [`Namespace::write_with_force_unit_access`].
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_with_force_unit_access(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let mut progress = Progress::default();
        let operation = Operation::ForcedWrite(lba);
        self.perform(operation, Some(buffer), &mut progress).await.into_transferred()
    }

    /// Flushes completed writes to non-volatile media.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn flush(&self) -> Result<(), Error> {
        let (outcome, _) = self.execute(Command::flush(self.id)).await.into_result("Flush");
        outcome.map(drop)
    }

    /// Compares the blocks from `lba` on with the whole buffer (Compare), by one command that is
    /// never sent again.
    ///
    /// # Errors
    ///
    /// As [`Namespace::compare`].
    pub async fn compare(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        let checked = self.require(OptionalCommand::Compare).and_then(|()| {
            Misuse::check_no_metadata(&self.info())?;
            let blocks = self.check_range(lba, buffer.len() as u64)?;
            Ok(u32::try_from(blocks).expect("a buffer is less than the largest namespace"))
        });
        let blocks = match checked {
            Ok(blocks) => blocks,
            Err(error) => return Err(TransferError::unsent(error, buffer)),
        };
        let done = self.execute(Command::compare(self.id, lba, blocks, buffer)).await;
        TransferError::check(done, "Compare").map(|(_, buffer)| buffer)
    }

    /// Maximum data transfer of one command in bytes, on each path that has the namespace; larger
    /// reads and writes are split. A reconnect may change it.
    #[must_use]
    pub fn transfer_bytes_max(&self) -> u64 {
        let on_paths = self.table.on_paths(self.id);
        let least = on_paths.iter().map(|namespace| namespace.transfer_bytes_max()).min();
        least.unwrap_or_else(|| self.info().block_size.into())
    }

    /// Checks that a range is within the namespace and a multiple of the block size; returns the
    /// number of blocks.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check_range(&self, lba: u64, bytes: u64) -> Result<u64, Misuse> {
        let info = self.info();
        check_range(&info, info.blocks, lba, bytes)
    }

    /// Checks that the controllers of all paths support an optional command.
    ///
    /// # Errors
    ///
    /// [`Incompatible::NoCommand`] if not.
    pub fn require(&self, command: OptionalCommand) -> Result<(), Error> {
        let on_paths = self.table.on_paths(self.id);
        if on_paths.is_empty() {
            return Err(Incompatible::NoCommand(command).into());
        }
        on_paths.iter().try_for_each(|namespace| namespace.require(command))
    }

    /// Executes an I/O command of this namespace, without splitting it. It is repeated on another
    /// path as its [class](CommandClass) allows.
    pub async fn execute(&self, command: Command) -> CommandCompletion {
        let Command { sqe, data, user } = command;
        let (data, mut progress) = (data.into_buffer(), Progress::default());
        if sqe.namespace() != self.id {
            let (outcome, execution) =
                (Err(Misuse::NoNamespace(sqe.namespace()).into()), ExecutionStatus::NotSent);
            return CommandCompletion { user, outcome, data, execution };
        }
        let Outcome { result: outcome, buffer: data, execution } =
            self.perform(Operation::Command(sqe), data, &mut progress).await;
        CommandCompletion { user, outcome, data, execution }
    }

    async fn perform(
        &self,
        operation: Operation,
        mut buffer: Option<Buffer>,
        progress: &mut Progress,
    ) -> Outcome {
        let has_buffer = buffer.is_some();
        loop {
            let attempt = match self.next_path(progress).await {
                Ok(attempt) => attempt,
                Err(error) => {
                    let execution = progress.execution(ExecutionStatus::NotSent);
                    return Outcome { result: Err(error), buffer, execution };
                }
            };
            let outcome = operation.run(&attempt.namespace, buffer).await;
            if outcome.is_success() {
                attempt.succeed();
                return outcome;
            }
            let failed = FailedAttempt {
                path: attempt.path,
                generation: attempt.generation,
                retry: attempt.retry,
                namespace: self.id,
                class: operation.class(),
                opcode: operation.opcode(),
                result: &outcome.result,
                execution: outcome.execution,
            };
            let next = progress.decide(&self.table, &failed);
            drop(attempt);
            match next.filter(|_| outcome.buffer.is_some() == has_buffer) {
                Some(delay) => {
                    buffer = outcome.buffer;
                    if !delay.is_zero() {
                        runtime::sleep(delay).await;
                    }
                }
                None => {
                    let execution = progress.execution(outcome.execution);
                    return Outcome { execution, ..outcome };
                }
            }
        }
    }

    /// Waits for a path that is usable.
    async fn next_path(&self, progress: &mut Progress) -> Result<Attempt, Error> {
        loop {
            match self.table.begin((self.id, self.instance), progress.failed_on) {
                Begun::Send(attempt) => return Ok(attempt),
                Begun::Same => {
                    runtime::sleep(PATH_RETRY_INTERVAL).await;
                    progress.failed_on = None;
                }
                Begun::Hold(version) => {
                    let deadline = progress.hold(&self.table);
                    if deadline.is_some_and(|deadline| runtime::now() >= deadline) {
                        return Err(self.no_path());
                    }
                    self.table.until_changed(version, deadline).await;
                    progress.failed_on = None;
                }
                Begun::Fail => return Err(self.no_path()),
            }
        }
    }
}

impl RangeCommands for SubsystemNamespace {
    fn info(&self) -> NamespaceInfo {
        self.info()
    }

    fn require(&self, command: OptionalCommand) -> Result<(), Error> {
        self.require(command)
    }

    fn check_blocks(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        self.check_range(lba, bytes).map(drop)
    }

    fn transfer_bytes_max(&self) -> u64 {
        self.transfer_bytes_max()
    }

    fn run(&self, command: Command) -> impl Future<Output = CommandCompletion> + Send {
        self.execute(command)
    }
}
