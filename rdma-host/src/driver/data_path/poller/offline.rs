//! What a poller does without a connection: it holds commands, and takes up new queues.

use std::{sync::Arc, time::Duration};

use verbs::Provider;

use super::{Link, Poller, PollerMailbox, internal_command::is_errand, tick::Tick};
use crate::{
    config::{DRAIN_TIMEOUT, RESENDS_MAX},
    driver::data_path::{
        command::{Command, CommandCompletion, Data, ExecutionStatus, SubmitError},
        connection::Connection,
        connection_state::{ConnectionState, Disconnection},
        pending::PendingCommand,
        queue::{AbortedCommand, Queue},
    },
    error::{Error, Misuse, Transport},
    proto::CompletedCommand,
};

impl<P: Provider> Poller<P> {
    /// A queue has failed: gives all of them up and holds their commands, if others may come.
    pub(super) fn lose(&mut self, error: Error) -> Result<(), Error> {
        let Some(link) = self.link.as_ref().filter(|link| link.reconnects) else {
            return Err(self.fail(error));
        };
        let cause = link.watch.lost(link.generation(), error);
        self.close(&cause);
        self.reconnect()
    }

    /// Ends the queues, and holds the commands that were in flight or hands them back.
    pub(super) fn close(&mut self, cause: &Error) {
        tracing::debug!(%cause, "the poller's queues are closed");
        self.drain(cause);
        self.count_doorbells();
        for queue in std::mem::take(&mut self.queues) {
            for ended in queue.close() {
                self.keep(ended, cause);
            }
        }
        self.dirty.clear();
        (self.depth, self.in_flight, self.burst) = (0, 0, None);
        self.events = None;
        self.completion_queue = None;
        // Whoever waits for it learns of the end by that.
        self.errand = None;
        self.aborting = None;
        self.failed_work = None;
        if let Some(mailbox) = self.link.as_ref().and_then(Link::mailbox) {
            mailbox.release();
        }
    }

    /// Disconnects all queues and takes what comes back: commands that were done in time are done,
    /// unless the target misbehaved, and buffers come home by completions. What is missing then,
    /// closing the queues gives back.
    fn drain(&mut self, cause: &Error) {
        let trusted = !matches!(cause, Error::TargetMisbehaved(_) | Error::Malformed(_));
        self.queues.iter_mut().for_each(Queue::disconnect);
        let began = self.clock.raw();
        while let Some(completion_queue) = &mut self.completion_queue
            && let Ok(count) = completion_queue.poll(self.batch.as_mut_slice())
        {
            for index in 0..count {
                let completion = self.batch[index];
                let Some(index) = self.directory.find(completion.queue_pair()) else { continue };
                // Most are flushed, which is no news.
                let Ok(Some(finished)) = self.queues[index].handle_other(&completion) else {
                    continue;
                };
                match trusted {
                    true => self.finish(index, &finished),
                    false => {
                        let ended = self.queues[index].disown(finished.slot);
                        self.keep(ended, cause);
                    }
                }
            }
            let waited = self.clock.delta(began, self.clock.raw());
            let drained = self.queues.iter().all(Queue::is_drained);
            if count == 0 && (drained || waited >= DRAIN_TIMEOUT) {
                return;
            }
        }
    }

    /// Hands out a command that is done, while its queue ends.
    fn finish(&mut self, index: usize, finished: &CompletedCommand) {
        let queue = &mut self.queues[index];
        let revoked = queue.take_revoked(finished.slot);
        let entry = queue.command(finished.slot);
        let latency_ns = self.clock.delta_as_nanos(entry.started, self.clock.raw());
        self.meter.record(entry.opcode(), &entry.outcome(finished.response, latency_ns, revoked));
        let done = entry.complete(finished.response);
        match self.errand.is_some() && is_errand(done.user, entry.opcode()) {
            true => self.end_errand(done),
            false => self.done.push_back(done),
        }
    }

    /// Holds a command that got no answer, or hands it back if it is not to be sent again.
    fn keep(&mut self, ended: AbortedCommand, cause: &Error) {
        if self.errand.is_some() && is_errand(ended.user, ended.sqe.opcode()) {
            self.errand = None; // which tells whoever waits
            return;
        }
        let held = ended.into_held();
        // One that the connection is lost with each time may be the reason for that.
        let again = held.sends <= RESENDS_MAX && self.link.as_ref().is_some_and(|link| link.resend);
        match again {
            true => self.held.push(held),
            false => self.hand_back(held, cause.clone()),
        }
    }

    /// Takes up new queues if there are any; fails what may not wait for them.
    pub(super) fn reconnect(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let link = self.link.as_ref().expect("a poller that has lost its queues has a link");
        match link.watch.state() {
            ConnectionState::Live(connection) if connection.generation != link.generation() => {
                self.adopt(connection);
                Ok(())
            }
            ConnectionState::Live(_) => Ok(()),
            ConnectionState::Disconnected(Disconnection { commands_fail: false, .. }) => Ok(()),
            ConnectionState::Disconnected(Disconnection { error, commands_fail: true }) => {
                self.fail_held(&Error::NotConnected(error));
                Ok(())
            }
            ConnectionState::Ended(error) => {
                self.fail_held(&error);
                self.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Takes the poller's queues of a new connection, if it has some.
    fn adopt(&mut self, connection: Arc<Connection<P>>) {
        let Some(link) = &mut self.link else { return };
        let set = match connection.mailboxes.get(link.index).map(PollerMailbox::take) {
            // The connection is lost already, and its queues are closed.
            Some(None) => return,
            Some(set) => set,
            None => None,
        };
        let transfer_bytes_max = connection.transfer_bytes_max();
        link.replaced.clone_from(&connection.replaced);
        link.connection = Some(connection);
        link.update_guard();
        self.tick = Tick::new(self.clock.raw());
        match set {
            Some(set) => {
                self.completion_queue = Some(set.completion_queue);
                set.queues.into_iter().for_each(|queue| self.add(queue));
                self.held.resize(self.depth());
            }
            None if link.keeps_stranded => {}
            None => self.fail_held(&Transport::NoQueue.into()),
        }
        self.discard_incompatible(transfer_bytes_max);
    }

    /// Hands back the commands that the new connection can't carry.
    fn discard_incompatible(&mut self, max: u64) {
        for _ in 0..self.held.len() {
            let Some(held) = self.held.pop() else { break };
            let bytes = held.command.data.len() as u64;
            match self.barred(&held.command) {
                Some(error) => self.hand_back(held, error),
                None if bytes > max => {
                    self.hand_back(held, Misuse::CommandBytes { bytes, max }.into());
                }
                None => self.held.push(held),
            }
        }
    }

    /// Whether there may be commands that must not be sent.
    #[inline]
    pub(super) fn is_guarded(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.summary.is_live(link.unguarded))
    }

    /// Returns true if the connection of the queues was reported lost, by another poller or by the
    /// admin queue. The next [`tick`](Self::tick) gives the queues up; a command that is submitted
    /// before must not reach them, or its fate would be unknown.
    pub(super) fn has_left(&self) -> bool {
        self.is_connected() && self.link.as_ref().is_some_and(|link| !link.is_live())
    }

    /// Gives up queues whose connection was reported lost, and holds a command for the next.
    #[cold]
    #[inline(never)]
    pub(super) fn leave_and_hold(
        &mut self,
        command: Command,
        started: u64,
    ) -> Result<(), SubmitError> {
        match self.lose(Error::Closed) {
            Ok(()) => self.hold(command, started),
            Err(error) => Err(SubmitError::new(error, command)),
        }
    }

    /// Why a command may not be sent, if it may not.
    pub(super) fn barred(&mut self, command: &Command) -> Option<Error> {
        let link = self.link.as_mut()?;
        if link.replaced.is_empty() {
            return None;
        }
        let namespace = command.sqe.namespace();
        let index = link.replaced.iter().position(|&replaced| replaced == namespace)?;
        if link.registry.is_replaced(namespace) {
            return Some(Misuse::NamespaceReplaced(namespace).into());
        }
        link.replaced.swap_remove(index); // its user has looked at it since
        link.update_guard();
        None
    }

    /// Sends held commands as far as there is room.
    #[inline(never)] // it would burden the path of those that hold nothing
    pub(super) fn resubmit(&mut self) -> Result<(), Error> {
        if self.has_left() {
            return self.lose(Error::Closed);
        }
        while let Some(index) = self.pick() {
            let Some(held) = self.held.pop() else { break };
            let PendingCommand { command, started, execution, sends } = held;
            match self.queues[index].submit_again(command, started, sends) {
                Ok(()) => self.note_submitted(index),
                Err(SubmitError { error, user, data }) => {
                    let outcome = Err(error);
                    self.done.push_back(CommandCompletion { user, outcome, data, execution });
                }
            }
        }
        self.flush()
    }

    /// Keeps a command that no queue can take now: for a connection, if there is none.
    pub(super) fn hold(&mut self, command: Command, started: u64) -> Result<(), SubmitError> {
        if let Some(error) = &self.failure {
            return Err(SubmitError::new(error.clone(), command));
        }
        if self.held.room() == 0 {
            return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
        }
        if self.is_connected() {
            if self.errand.is_none() && self.room() == 0 {
                return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
            }
            if let Some(error) = self.barred(&command) {
                return Err(SubmitError::new(error, command));
            }
            // The owner has room for it, but for a command that is not the owner's, or sends that
            // are done and not known to be.
            self.held.push(PendingCommand {
                command,
                started,
                execution: ExecutionStatus::NotSent,
                sends: 0,
            });
            return Ok(());
        }
        let Some(link) = &self.link else {
            return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
        };
        let error = match link.watch.state() {
            ConnectionState::Disconnected(Disconnection { error, commands_fail: true }) => {
                Error::NotConnected(error)
            }
            ConnectionState::Ended(error) => error,
            ConnectionState::Live(connection)
                if connection.generation == link.generation() && !link.keeps_stranded =>
            {
                Transport::NoQueue.into()
            }
            ConnectionState::Disconnected(_) | ConnectionState::Live(_) => {
                self.held.push(PendingCommand {
                    command,
                    started,
                    execution: ExecutionStatus::NotSent,
                    sends: 0,
                });
                return Ok(());
            }
        };
        Err(SubmitError::new(error, command))
    }

    /// Hands all held commands back.
    pub(super) fn fail_held(&mut self, error: &Error) {
        while let Some(held) = self.held.pop() {
            self.hand_back(held, error.clone());
        }
    }

    fn hand_back(&mut self, held: PendingCommand, error: Error) {
        let PendingCommand { command, execution, .. } = held;
        self.meter.record_failure(command.sqe.opcode());
        self.done.push_back(CommandCompletion {
            execution,
            ..CommandCompletion::unsent(error, command)
        });
    }

    /// Whether there is a connection, but no queue of it for this poller.
    pub(crate) fn is_stranded(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !self.is_connected() && link.is_live())
    }

    /// Gives the held commands away.
    pub(crate) fn surrender(&mut self) -> Option<PendingCommand> {
        self.held.pop()
    }

    /// Takes a command back that nobody else took.
    pub(crate) fn inherit(&mut self, command: Command, execution: ExecutionStatus) {
        let started = self.clock.raw();
        // Whoever passes it on forgets how often it was sent: few go this way.
        self.held.push(PendingCommand { command, started, execution, sends: 0 });
    }

    /// How many pollers of the controller have queues now.
    pub(crate) fn connected_pollers(&self) -> usize {
        match self.link.as_ref().map(|link| link.watch.state()) {
            Some(ConnectionState::Live(connection)) => connection.mailboxes.len(),
            _ => 0,
        }
    }

    /// Sleeps until the phase changes, or `limit` has passed.
    pub(super) async fn sleep_away(&mut self, limit: Duration) -> Result<(), Error> {
        let link = self.link.as_ref().expect("a poller that has lost its queues has a link");
        // Subscribed before the look: what changes after it is not missed.
        let mut changes = link.watch.subscribe();
        self.reconnect()?;
        if self.is_connected() || !self.done.is_empty() {
            return Ok(());
        }
        let _ = tokio::time::timeout(limit, changes.changed()).await;
        self.reconnect()
    }
}

impl AbortedCommand {
    /// The command, to be sent again.
    fn into_held(self) -> PendingCommand {
        let Self { user, started, resends, sqe, data, .. } = self;
        let command = Command { data: Data::of(&sqe, data), sqe, user };
        let sends = resends.saturating_add(1);
        PendingCommand { command, started, execution: ExecutionStatus::Unknown, sends }
    }
}
