//! Commands of a polled subsystem that go further than one attempt, and those that no poller has.

use std::time::Instant;

use super::progress::Progress;
use crate::{driver::data_path::command::Data, wire::Sqe};

/// Command that was not sent at once, or failed on a path.
pub(super) struct Operation {
    pub(super) sqe: Sqe,
    pub(super) user: u64,
    /// Clock reading of the submission.
    pub(super) submitted: u64,
    pub(super) has_buffer: bool,
    /// Attempts before this one.
    pub(super) progress: Progress,
}

/// Command that no poller has.
pub(super) struct HeldOperation {
    pub(super) operation: Operation,
    pub(super) data: Data,
    pub(super) until: HeldUntil,
}

/// Condition under which a path is looked for again.
pub(super) enum HeldUntil {
    /// A poller has room.
    Room,
    At(Instant),
    /// The paths are no longer those of this version of the table; or this time has come.
    Changed(u64, Option<Instant>),
}

impl HeldUntil {
    /// Time at which the condition holds whatever happens.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match *self {
            Self::Room => None,
            Self::At(due) => Some(due),
            Self::Changed(_, due) => due,
        }
    }
}
