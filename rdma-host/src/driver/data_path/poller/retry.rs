//! Commands that failed, and are sent again.

use std::time::Duration;

use verbs::Provider;

use super::Poller;
use crate::{
    driver::data_path::{
        command::{CommandCompletion, Submission},
        pending_command::PendingCommand,
    },
    proto::{Disposition, FailedResponse},
    wire::Cqe,
};

impl<P: Provider> Poller<P> {
    /// Completes the command in a slot, whose response says that it failed, unless it is to be sent
    /// again. Completions of failed commands are always stored, for the next poll.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_failed(
        &mut self,
        index: usize,
        slot: u16,
        queue_pair: u32,
        response: Cqe,
    ) {
        self.in_flight -= 1;
        let disposition = self.decide(index, slot, &response);
        let queue = &mut self.queues[index];
        let sqe = queue.sqe(slot);
        let completed = queue.completed(slot);
        self.last_traffic = completed.started();
        let (delay, is_counted) = match disposition {
            Disposition::Retry(delay) => (delay, true),
            Disposition::RetryPath(delay) => (delay, false),
            Disposition::Complete => {
                let failed = completed.record_failure(queue_pair, &response, &mut self.meter);
                self.failed_commands.push(failed);
                let submission = Submission::First { sqe, started: completed.started() };
                let (unseen, execution) = (completed.unseen(), completed.failed_execution());
                let completion =
                    CommandCompletion { execution, ..completed.into_completion(response) };
                return match unseen {
                    Some(kind) => self.complete_unseen(kind, completion),
                    None => self.store(submission, completion),
                };
            }
        };
        let span = queue.span().clone();
        let mut command = queue.cancel(slot).pending;
        if !is_counted {
            command.sends -= 1;
        }
        let (opcode, user) = (command.command.sqe.opcode(), command.command.user);
        let (status, sends) = (response.status(), command.sends);
        tracing::debug!(
            parent: &span, ?opcode, user, %status, sends, ?delay, "a command will be retried"
        );
        self.meter.record_retry(opcode);
        self.hold(command, delay);
    }

    /// Makes a command pending for this time. Meanwhile [`room`](Self::room) limits new commands,
    /// which the queues' own room does not.
    fn hold(&mut self, command: PendingCommand, delay: Duration) {
        if delay.is_zero() {
            self.pending.push(command);
        } else {
            self.pending.push_delayed(command, delay);
        }
        self.set_holding(true);
    }

    /// Returns true if commands to be retried, or behind the write fence, are pending.
    pub(super) fn is_holding(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_holding)
    }

    pub(super) fn set_holding(&mut self, is_holding: bool) {
        if let Some(link) = &mut self.link {
            link.is_holding = is_holding;
            self.unguarded = link.unguarded();
        }
    }

    /// Decides about the failed command in a slot.
    fn decide(&self, index: usize, slot: u16, response: &Cqe) -> Disposition {
        let Some(link) = self.link.as_ref().filter(|_| self.pending.room() > 0) else {
            return Disposition::Complete;
        };
        let Some(failed) = self.queues[index].failed(slot) else { return Disposition::Complete };
        link.retry.decide(&FailedResponse {
            opcode: failed.opcode,
            status: response.status(),
            retries: failed.sends,
            // The time without a connection does not count.
            age: self.clock.delta(failed.started.max(self.tick.since), self.clock.raw()),
        })
    }
}
