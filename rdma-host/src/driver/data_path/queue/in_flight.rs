//! Commands in flight, and completed ones.

use tracing::Span;
use verbs::{Buffer, SgList};

use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion, Data, ExecutionStatus},
        pending_command::PendingCommand,
        statistics::PollerMeter,
    },
    wire::{Cqe, Opcode, Sqe},
};

/// Command in a slot, without its capsule.
#[derive(Default)]
pub(crate) struct InFlight {
    /// Buffer of the command, unless the device holds it.
    data: Option<Buffer>,
    user: u64,
    /// Clock reading of the first submission.
    pub(super) started: u64,
    pub(super) opcode: Opcode,
    origin: Origin,
    /// Time from the first submission to the latest, in units of 65,536 of the clock; only of a
    /// command that was pending.
    pending_time: u32,
}

/// Origin of a command. A new command of the poller's owner has the default, to which the slot is
/// reset at the end of each command.
#[derive(Clone, Copy, Default)]
pub(super) struct Origin {
    /// Number of times that it was sent before, as in [`PendingCommand`].
    pub(super) resends: u8,
    pub(super) kind: OriginKind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OriginKind {
    /// Command that the owner of the poller does not see.
    Unseen(UnseenKind),
    #[default]
    New,
    /// Command that was pending before.
    Pending,
    /// Command that was sent before without a response, and may have been executed.
    WithoutResponse,
}

/// Command that the owner of a poller does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnseenKind {
    /// One of the two commands of a fused operation.
    Fused,
    /// Command of the controller itself.
    Internal,
    /// Command that the owner sends again, and to which it is
    /// [returned](crate::driver::data_path::poller::ReturnedCommand).
    Repeat,
}

/// Command that ended without a response.
pub(crate) struct Cancelled {
    pub(crate) pending: PendingCommand,
    /// Kind of a command that the owner of the poller does not see, and that is not sent again.
    pub(crate) unseen: Option<UnseenKind>,
}

/// Command that failed, for the decision on a retry.
pub(crate) struct FailedInFlight {
    pub(crate) opcode: Opcode,
    /// Number of times that it was sent before, as in [`PendingCommand`].
    pub(crate) sends: u8,
    /// Clock reading of the first submission.
    pub(crate) started: u64,
}

impl InFlight {
    /// Stores a command that was queued, and takes its buffer.
    #[inline(always)]
    pub(super) fn begin(&mut self, command: &mut Command, started: u64) {
        debug_assert!(self.data.is_none(), "the buffer of the last command was returned");
        (self.user, self.started, self.opcode) = (command.user, started, command.sqe.opcode());
        self.data = std::mem::replace(&mut command.data, Data::None).into_buffer();
    }

    /// Clock reading of the latest submission.
    pub(super) fn sent(&self) -> u64 {
        match self.origin.kind {
            OriginKind::New => self.started,
            _ => self.started + (u64::from(self.pending_time) << 16),
        }
    }

    /// Returns what the decision on a retry needs; `None` for a command that is not sent again.
    pub(super) fn failed(&self) -> Option<FailedInFlight> {
        let Self { opcode, started, origin, .. } = *self;
        let failed = FailedInFlight { opcode, sends: origin.resends, started };
        (!matches!(origin.kind, OriginKind::Unseen(_))).then_some(failed)
    }

    /// Sets the origin of a command that was submitted at the clock reading `now`.
    pub(super) fn set_origin(&mut self, origin: Origin, now: u64) {
        self.origin = origin;
        let pending_time = now.saturating_sub(self.started) >> 16;
        self.pending_time = u32::try_from(pending_time).unwrap_or(u32::MAX);
    }

    /// Takes the buffer, if there is one, back from the device.
    pub(super) fn take_back(&mut self, buffers: SgList) {
        if let Some(data) = buffers.into_iter().next() {
            self.data = Some(data);
        }
    }

    /// Takes back a buffer that was sent in the capsule.
    pub(super) fn set_data(&mut self, data: Buffer) {
        self.data = Some(data);
    }

    /// Ends a command without a response; `sqe` is its capsule.
    pub(super) fn cancel(&mut self, sqe: Sqe) -> Cancelled {
        let command = Command { data: Data::of(&sqe, self.data.take()), sqe, user: self.user };
        let Origin { resends, kind } = std::mem::take(&mut self.origin);
        let sends = resends.saturating_add(1);
        let mut pending = PendingCommand::new(command, self.started, sends);
        pending.is_without_response = kind == OriginKind::WithoutResponse;
        pending.is_repeat = kind == OriginKind::Unseen(UnseenKind::Repeat);
        Cancelled { pending, unseen: unseen(kind) }
    }
}

#[inline]
fn unseen(kind: OriginKind) -> Option<UnseenKind> {
    match kind {
        OriginKind::Unseen(kind) => Some(kind),
        OriginKind::New | OriginKind::Pending | OriginKind::WithoutResponse => None,
    }
}

/// Completed command. Its slot is free, but keeps it until the next submission.
pub(crate) struct Completed<'a> {
    pub(crate) slot: u16,
    pub(super) command: &'a mut InFlight,
}

impl Completed<'_> {
    /// Clock reading of the first submission.
    #[inline]
    pub(crate) fn started(&self) -> u64 {
        self.command.started
    }

    /// Kind of a command that the owner of the poller does not see.
    #[inline]
    pub(crate) fn unseen(&self) -> Option<UnseenKind> {
        unseen(self.command.origin.kind)
    }

    /// Execution status of the command, whose response says that it failed: the response tells
    /// nothing of an earlier execution.
    pub(crate) fn failed_execution(&self) -> ExecutionStatus {
        match self.command.origin.kind {
            OriginKind::WithoutResponse => ExecutionStatus::Unknown,
            _ => ExecutionStatus::Responded,
        }
    }

    /// Counts the command, which succeeded at the clock reading `now`, in the statistics.
    #[inline(always)]
    pub(crate) fn record_success(&self, now: u64, meter: &mut PollerMeter) {
        let bytes = self.command.data.as_ref().map_or(0, |buffer| buffer.len() as u64);
        meter.record_success(self.command.opcode, bytes, (self.command.started, now));
    }

    /// Counts the command, whose response says that it failed, in the statistics. Returns it for
    /// the record.
    pub(crate) fn record_failure(
        &self,
        queue_pair: u32,
        response: &Cqe,
        meter: &mut PollerMeter,
    ) -> FailedCommand {
        let InFlight { opcode, user, .. } = *self.command;
        meter.record_failure(opcode);
        FailedCommand { queue_pair, opcode, user, response: *response }
    }

    #[inline(always)]
    pub(crate) fn into_completion(self, response: Cqe) -> CommandCompletion {
        self.command.origin = Origin::default();
        CommandCompletion {
            user: self.command.user,
            outcome: Ok(response),
            data: self.command.data.take(),
            execution: ExecutionStatus::Responded,
        }
    }
}

/// Command whose response says that it failed, kept until the next tick records it as an event.
pub(crate) struct FailedCommand {
    /// Number of the queue pair.
    pub(crate) queue_pair: u32,
    opcode: Opcode,
    user: u64,
    response: Cqe,
}

impl FailedCommand {
    /// Records the failure as an event in the span of the queue.
    pub(crate) fn trace(&self, span: &Span) {
        let Self { opcode, user, response, .. } = self;
        let (cid, status) = (response.command_id(), response.status());
        tracing::debug!(parent: span, ?opcode, %cid, user, %status, "a command failed");
    }
}
