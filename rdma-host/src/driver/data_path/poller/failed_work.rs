//! Work that failed because its queue pair is in the error state, until the reason is known.

use std::time::Instant;

use verbs::{Completion, Provider, Status};

use crate::{
    config::FLUSH_CAUSE_TIMEOUT, driver::data_path::queue::Queue, error::Error,
    proto::CompletedCommand,
};

/// Work that a queue pair flushed, or refused because it is in its error state. It says nothing of
/// the reason: an event of the connection or of the device does. On iWARP that comes later.
pub(super) struct FailedWork {
    error: Error,
    since: Instant,
}

impl FailedWork {
    /// Takes note of such work; the first is the one that is kept. Fails when the event that gives
    /// the reason has not come in time.
    #[cold]
    pub(super) fn await_cause(noted: &mut Option<Box<Self>>, error: Error) -> Result<(), Error> {
        noted.get_or_insert_with(|| Self { error, since: Instant::now() }.into()).check()
    }

    /// The failure of the work itself.
    pub(super) fn error(&self) -> Error {
        self.error.clone()
    }

    /// Fails when the event that gives the reason has not come in time.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.since.elapsed() < FLUSH_CAUSE_TIMEOUT { Ok(()) } else { Err(self.error.clone()) }
    }
}

/// Takes any completion of a queue, and only notes one that was flushed.
#[inline(never)] // apart from the hot loop, which is to save no registers for it
pub(super) fn handle_other<P: Provider>(
    queue: &mut Queue<P>,
    completion: &Completion,
    noted: &mut Option<Box<FailedWork>>,
) -> Result<Option<CompletedCommand>, Error> {
    match queue.handle_other(completion) {
        Err(error) if completion.status() == Status::FLUSHED => {
            FailedWork::await_cause(noted, error).map(|()| None)
        }
        outcome => outcome,
    }
}
