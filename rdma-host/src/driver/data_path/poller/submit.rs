//! Submission of commands that are not on the fast path.

use verbs::Provider;

use super::Poller;
use crate::{
    driver::data_path::command::{Command, Submission, SubmitError},
    error::{Error, Misuse},
    wire::{QueueId, SglDescriptor},
};

impl<P: Provider> Poller<P> {
    /// Queues a command on a given queue.
    pub(crate) fn submit_to(
        &mut self,
        queue: QueueId,
        mut command: Command,
    ) -> Result<(), SubmitError> {
        let started = self.submission_time();
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        self.submit_at(index, &mut command, started)
    }

    /// Queues a command on a queue, with all checks. Takes the command by reference: moving one
    /// costs as much as submitting it.
    #[inline(never)]
    pub(super) fn submit_at(
        &mut self,
        index: Option<usize>,
        command: &mut Command,
        started: u64,
    ) -> Result<(), SubmitError> {
        let Some(index) = index else { return self.submit_later(command.take(), started) };
        if self.is_guarded() {
            if self.is_lost() {
                return self.lose_and_submit_later(command.take(), started);
            }
            if self.is_fenced(command) {
                return self.submit_later(command.take(), started);
            }
        }
        if self.lacks_room_for(command, index) {
            self.submit_later(command.take(), started)?;
            self.set_holding(true); // until there is: new commands take no more of the room
            return Ok(());
        }
        match self.submit_slowly(index, command, started) {
            Ok(()) => Ok(()),
            Err(error) => Err(SubmitError::new(error, command.take())),
        }
    }

    /// Queues a command that is not on the fast path.
    #[inline(always)]
    fn submit_slowly(
        &mut self,
        index: usize,
        command: &mut Command,
        started: u64,
    ) -> Result<(), Error> {
        let (bytes, max) = (command.transfer_bytes(), u64::from(SglDescriptor::KEYED_LENGTH_MAX));
        if bytes > max {
            return Err(Misuse::CommandBytes { bytes, max }.into());
        }
        if self.is_holding() && self.room() == 0 {
            return Err(Misuse::QueuesFull.into());
        }
        if let Some(error) = self.reject_if_replaced(command) {
            return Err(error);
        }
        if command.sqe.is_fused() {
            let submission = Submission::First { sqe: command.sqe, started };
            return self.submit_fused(index, command, submission, started);
        }
        self.queues[index].submit(command, started)?;
        self.note_submitted(index);
        Ok(())
    }
}
