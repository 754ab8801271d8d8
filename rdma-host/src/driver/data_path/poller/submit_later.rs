//! Pending commands: those that no queue can take now.

use verbs::Provider;

use super::Poller;
use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion, SubmitError},
        connection_state::{ConnectionState, Disconnection},
        pending_command::PendingCommand,
    },
    error::{Error, Misuse, Transport},
    proto::CommandClass,
};

impl<P: Provider> Poller<P> {
    /// Makes a command pending that was not sent on this connection: until a queue has room, or
    /// until there is a connection. The next poll sends it.
    #[cold]
    #[inline(never)]
    pub(crate) fn submit_later(
        &mut self,
        command: Command,
        started: u64,
    ) -> Result<(), SubmitError> {
        self.submit_when_possible(PendingCommand::new(command, started, 0))
    }

    /// Makes a command pending that was not sent on this connection.
    pub(super) fn submit_when_possible(
        &mut self,
        pending: PendingCommand,
    ) -> Result<(), SubmitError> {
        let refused = match &self.failure {
            Some(error) => Some(error.clone()),
            None if self.pending.room() == 0 => Some(Misuse::QueuesFull.into()),
            None if self.is_connected() => self.refuse_to_wait_for_room(&pending.command),
            None => self.refuse_to_wait_for_connection(),
        };
        match refused {
            Some(error) => Err(SubmitError::new(error, pending.command)),
            None => {
                self.pending.push(pending);
                Ok(())
            }
        }
    }

    /// Error of a command that may not wait for room in the queues. It may where the owner's
    /// commands do not fill them: the room is taken by an internal command, or by sends whose
    /// completions are outstanding.
    fn refuse_to_wait_for_room(&self, command: &Command) -> Option<Error> {
        if self.internal.is_none() && self.room() == 0 {
            return Some(Misuse::QueuesFull.into());
        }
        self.reject_if_replaced(command)
    }

    /// Error of a command that may not wait for a connection.
    fn refuse_to_wait_for_connection(&self) -> Option<Error> {
        let Some(link) = &self.link else { return Some(Misuse::QueuesFull.into()) };
        match link.watch.state() {
            ConnectionState::Disconnected(Disconnection { error, commands_fail: true }) => {
                Some(Error::NotConnected(error))
            }
            ConnectionState::Ended(error) => Some(error),
            ConnectionState::Live(connection)
                if connection.generation == link.generation() && !link.is_forwarding =>
            {
                Some(Transport::NoQueue.into())
            }
            ConnectionState::Disconnected(_) | ConnectionState::Live(_) => None,
        }
    }

    /// Closes queues whose connection was reported lost, and makes a command pending for the next.
    #[cold]
    #[inline(never)]
    pub(super) fn lose_and_submit_later(
        &mut self,
        command: Command,
        started: u64,
    ) -> Result<(), SubmitError> {
        match self.lose(Error::Closed) {
            Ok(()) => self.submit_later(command, started),
            Err(error) => Err(SubmitError::new(error, command)),
        }
    }

    /// Submits pending commands as far as there is room.
    #[inline(never)] // off the path of pollers without pending commands
    pub(super) fn submit_pending(&mut self) -> Result<(), Error> {
        if self.is_lost() {
            return self.lose(Error::Closed);
        }
        self.pending.release_due();
        self.release_fenced();
        while let Some(index) = self.pick() {
            let Some(pending) = self.pending.pop_ready() else { break };
            let Some(pending) = self.admit(pending) else { continue };
            if self.lacks_room_for(&pending.command, index) {
                self.pending.push_front(pending);
                break;
            }
            let (execution, submission) = (pending.execution(), pending.submission());
            if let Err(SubmitError { error, user, data }) = self.submit_one_pending(index, pending)
            {
                let outcome = Err(error);
                let completion = CommandCompletion { user, outcome, data, execution };
                self.store(submission, completion);
            }
        }
        if self.pending.is_empty() {
            self.set_holding(false);
        }
        self.ring_doorbells()
    }

    /// Queues a pending command on a queue with room for it.
    fn submit_one_pending(
        &mut self,
        index: usize,
        mut pending: PendingCommand,
    ) -> Result<(), SubmitError> {
        if let Some(error) = self.reject_if_replaced(&pending.command) {
            return Err(SubmitError::new(error, pending.command));
        }
        if pending.command.sqe.is_fused() {
            let (submission, started) = (pending.submission(), pending.started);
            let submitted = self.submit_fused(index, &mut pending.command, submission, started);
            return submitted.map_err(|error| SubmitError::new(error, pending.command));
        }
        let now = self.clock.raw();
        self.queues[index].submit_pending(pending, now)?;
        self.note_submitted(index);
        Ok(())
    }

    /// Completes all pending commands with an error.
    pub(super) fn fail_pending(&mut self, error: &Error) {
        while let Some(pending) = self.pending.pop() {
            self.fail_command(pending, error.clone());
        }
    }

    /// Completes a pending command with an error.
    pub(super) fn fail_command(&mut self, pending: PendingCommand, error: Error) {
        let (execution, submission) = (pending.execution(), pending.submission());
        let command = pending.command;
        let (opcode, user) = (command.sqe.opcode(), command.user);
        let span = self.span();
        tracing::debug!(parent: &span, ?opcode, user, ?execution, %error, "a command failed");
        self.meter.record_failure(command.sqe.opcode());
        let unsent = CommandCompletion::unsent(error, command);
        self.store(submission, CommandCompletion { execution, ..unsent });
    }

    /// Lets commands stay pending while the connection has no queue for this poller, until they
    /// are [taken](Self::take_pending) to be forwarded.
    pub(crate) fn set_forwarding(&mut self) {
        if let Some(link) = &mut self.link {
            link.is_forwarding = true;
        }
    }

    /// Takes the oldest pending command, to forward it to another poller.
    pub(crate) fn take_pending(&mut self) -> Option<PendingCommand> {
        self.pending.pop()
    }

    /// Adds a command that another poller forwarded, and that was sent `sends` times.
    pub(crate) fn add_pending(&mut self, command: Command, sends: u8) {
        let class = CommandClass::of(&command.sqe);
        let mut pending = PendingCommand::new(command, self.clock.raw(), sends);
        pending.is_without_response = sends > 0 && class == CommandClass::IdempotentWrite;
        self.pending.push(pending);
    }
}
