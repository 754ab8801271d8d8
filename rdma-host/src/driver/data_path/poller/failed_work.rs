//! Work requests that failed in the error state of a queue pair, until the cause is known.

use std::time::Instant;

use verbs::{Provider, Status};

use crate::{
    config::FLUSH_CAUSE_TIMEOUT,
    driver::{
        data_path::{
            poller::{Poller, note_dirty},
            queue::Unhandled,
        },
        runtime,
    },
    error::Error,
    wire::Cqe,
};

/// Failure of a work request that was flushed, or refused because the queue pair is in the error
/// state. The cause is in an event of the connection or of the device, which on iWARP comes later.
pub(super) struct FailedWork {
    error: Error,
    since: Instant,
}

impl FailedWork {
    /// Stores the first failure. Fails once the event with the cause is overdue.
    #[cold]
    pub(super) fn await_cause(first: &mut Option<Box<Self>>, error: Error) -> Result<(), Error> {
        first.get_or_insert_with(|| Self { error, since: runtime::now() }.into()).check()
    }

    /// Failure of the work request itself.
    pub(super) fn error(&self) -> Error {
        self.error.clone()
    }

    /// Fails once the event with the cause is overdue.
    pub(super) fn check(&self) -> Result<(), Error> {
        if runtime::elapsed(self.since) < FLUSH_CAUSE_TIMEOUT {
            Ok(())
        } else {
            Err(self.error.clone())
        }
    }
}

impl<P: Provider> Poller<P> {
    /// Handles a completion as `Queue::complete_slowly` does, but only stores the failure of work
    /// that was flushed. Takes its place in the batch: the hot loop need not keep a copy in memory.
    #[inline(never)] // so that the hot loop saves no registers for it
    pub(super) fn complete_slowly(
        &mut self,
        index: usize,
        at: usize,
        unhandled: Unhandled,
        response: &mut Cqe,
    ) -> Result<Option<u16>, Error> {
        let (completion, queue) = (self.batch[at], &mut self.queues[index]);
        note_dirty(queue, index, &mut self.dirty);
        match queue.complete_slowly(&completion, response, unhandled) {
            Err(error) if completion.status() == Status::FLUSHED => {
                FailedWork::await_cause(&mut self.failed_work, error).map(|()| None)
            }
            outcome => outcome,
        }
    }
}
