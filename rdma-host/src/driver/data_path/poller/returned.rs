//! Commands that a poller returns to an owner that may send them again elsewhere.

use verbs::Provider;

use super::Poller;
use crate::driver::data_path::{
    command::{Command, CommandCompletion, Submission, SubmitError},
    pending_command::PendingCommand,
};

/// Command that failed, or that the owner had sent again.
pub(crate) struct ReturnedCommand {
    pub(crate) submission: Submission,
    /// Generation of the connection that it failed on.
    pub(crate) generation: u64,
    pub(crate) completion: CommandCompletion,
}

impl<P: Provider> Poller<P> {
    /// Returns commands that fail, and those that were [sent again](Self::submit_again), by
    /// [`take_returned`](Self::take_returned) from now on; the completions of the poller are those
    /// of all others.
    pub(crate) fn return_commands(&mut self) {
        self.returned = Some(Vec::new());
    }

    /// Returns true if [`take_returned`](Self::take_returned) returns something.
    #[inline]
    pub(crate) fn has_returned(&self) -> bool {
        self.returned.as_ref().is_some_and(|returned| !returned.is_empty())
    }

    /// Takes the commands that were returned.
    pub(crate) fn take_returned(&mut self) -> Vec<ReturnedCommand> {
        self.returned.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Queues a command that failed before, here or elsewhere, and was first submitted at the clock
    /// reading `started`. The next poll sends it.
    pub(crate) fn submit_again(
        &mut self,
        command: Command,
        started: u64,
    ) -> Result<(), SubmitError> {
        let pending = PendingCommand::new(command, started, 0);
        self.submit_when_possible(PendingCommand { is_repeat: true, ..pending })
    }

    /// Generation of the connection; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.link.as_ref().map_or(0, super::Link::generation)
    }

    /// Clock reading of the submission of the most recently completed command; `None` if that is
    /// not known any more.
    #[inline]
    pub(crate) fn last_started(&self) -> Option<u64> {
        Some(self.last_traffic).filter(|&started| started != 0)
    }

    /// Stores the completion of a command for the next poll, or returns it.
    pub(super) fn store(&mut self, submission: Submission, completion: CommandCompletion) {
        let is_repeat = matches!(submission, Submission::Repeat);
        let generation = self.generation();
        match &mut self.returned {
            Some(returned) if is_repeat || !completion.is_success() => {
                returned.push(ReturnedCommand { submission, generation, completion });
            }
            _ => self.done.push_back(completion),
        }
    }
}
