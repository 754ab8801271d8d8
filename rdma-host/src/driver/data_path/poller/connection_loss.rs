//! Loss of the connection, and the next one.

use std::{sync::Arc, time::Duration};

use verbs::Provider;

use super::{Link, Poller, PollerMailbox, tick::Tick};
use crate::{
    config::{DRAIN_TIMEOUT, RESENDS_MAX},
    driver::{
        data_path::{
            command::{Command, CommandCompletion},
            connection::Connection,
            connection_state::{ConnectionState, Disconnection},
            queue::{Cancelled, Queue, Unhandled, UnseenKind},
        },
        runtime,
    },
    error::{Error, Misuse, Transport},
    proto::{CommandClass, CommandRetry},
    wire::{Cqe, QueueId},
};

impl<P: Provider> Poller<P> {
    /// Handles the failure of a queue: closes all queues. Their commands become pending if the
    /// controller reconnects; otherwise they fail, and so does the poller.
    pub(super) fn lose(&mut self, error: Error) -> Result<(), Error> {
        let Some(link) = self.link.as_ref().filter(|link| link.reconnects) else {
            return Err(self.fail(error));
        };
        let cause = link.watch.lost(link.generation(), error);
        self.close(&cause);
        self.reconnect()
    }

    /// Closes the queues. Their commands become pending, or fail.
    pub(super) fn close(&mut self, cause: &Error) {
        let (queues, commands) = (self.queues.len(), self.in_flight);
        tracing::debug!(parent: &self.span(), %cause, queues, commands, "the queues are closed");
        self.drain(cause);
        self.trace_failed_commands();
        self.count_work();
        for queue in std::mem::take(&mut self.queues) {
            let id = queue.id();
            for cancelled in queue.close() {
                self.requeue_cancelled(id, cancelled, cause);
            }
        }
        self.close_fence();
        self.dirty.clear();
        (self.depth, self.in_flight, self.submitted_at) = (0, 0, 0);
        self.events = None;
        self.forget_descriptors();
        self.completion_queue = None;
        // Drops the reply sender, which is an error to the receiver.
        self.internal = None;
        self.aborting = None;
        self.failed_work = None;
        if let Some(mailbox) = self.link.as_ref().and_then(Link::mailbox) {
            mailbox.release();
        }
    }

    /// Disconnects all queues and handles the completions that follow. Commands whose responses
    /// arrived in time complete, unless the target violated the protocol. Buffers that do not
    /// come back in time are returned when the queues are closed.
    fn drain(&mut self, cause: &Error) {
        let trusted = !matches!(cause, Error::TargetMisbehaved(_) | Error::Malformed(_));
        self.queues.iter_mut().for_each(Queue::disconnect);
        let began = self.clock.raw();
        while let Some(completion_queue) = &mut self.completion_queue
            && let Ok(count) = completion_queue.poll(self.batch.as_mut_slice())
        {
            for at in 0..count {
                self.drain_one(at, trusted, cause);
            }
            let waited = self.clock.delta(began, self.clock.raw());
            let drained = self.queues.iter().all(Queue::is_drained);
            if count == 0 && (drained || waited >= DRAIN_TIMEOUT) {
                return;
            }
            if count == 0 {
                runtime::spin();
            }
        }
    }

    /// Handles one completion of the batch.
    fn drain_one(&mut self, at: usize, trusted: bool, cause: &Error) {
        let completion = self.batch[at];
        let Some(index) = self.queue_map.find(completion.queue_pair()) else { return };
        let mut response = Cqe::default();
        let queue = &mut self.queues[index];
        let unhandled = Unhandled { response_length: None };
        // Most are flushed, which is an error without news.
        let Ok(Some(slot)) = queue.complete_slowly(&completion, &mut response, unhandled) else {
            return;
        };
        if trusted && !response.status().is_success() {
            self.complete_failed(index, slot, completion.queue_pair(), response);
        } else if trusted {
            let completed = queue.completed(slot);
            let now = self.clock.raw();
            completed.record_success(now, &mut self.meter);
            let unseen = completed.unseen();
            let completion = completed.into_completion(response);
            match unseen {
                Some(kind) => self.complete_unseen(kind, completion),
                None => self.done.push_back(completion),
            }
        } else {
            let (id, cancelled) = (queue.id(), queue.cancel(slot));
            self.requeue_cancelled(id, cancelled, cause);
        }
    }

    /// Makes a command that got no response pending, or fails it if it may not be sent again.
    fn requeue_cancelled(&mut self, queue: QueueId, cancelled: Cancelled, cause: &Error) {
        let Cancelled { pending: mut cancelled, unseen } = cancelled;
        if unseen == Some(UnseenKind::Internal) {
            return; // its reply sender is dropped
        }
        self.note_outstanding(queue, &cancelled.command);
        // A command in flight at each of several losses may be their cause.
        let resend = cancelled.sends <= RESENDS_MAX && self.link.as_ref().is_some_and(|l| l.resend);
        let class = CommandClass::of(&cancelled.command.sqe);
        if unseen == Some(UnseenKind::Fused) {
            self.meter.record_failure(cancelled.command.sqe.opcode());
            let execution = cancelled.execution();
            let unsent = CommandCompletion::unsent(cause.clone(), cancelled.command);
            self.complete_fused(CommandCompletion { execution, ..unsent });
        } else if resend && class != CommandClass::NotRepeatable {
            let (opcode, user) = (cancelled.command.sqe.opcode(), cancelled.command.user);
            let sends = cancelled.sends;
            tracing::debug!(parent: &self.span(), ?opcode, user, sends, "a command will be resent");
            cancelled.is_without_response |= class == CommandClass::IdempotentWrite;
            self.pending.push(cancelled);
        } else {
            self.fail_command(cancelled, cause.clone());
        }
    }

    /// Takes the queues of a new connection if there is one, and fails the pending commands if
    /// they may not wait for it.
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
                self.fail_pending(&Error::NotConnected(error));
                Ok(())
            }
            ConnectionState::Ended(error) => {
                self.fail_pending(&error);
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
        let queues = set.as_ref().map_or(0, |set| set.queues.len());
        let (generation, pending) = (connection.generation, self.pending.len());
        tracing::debug!(parent: &connection.span, generation, queues, pending, "queues were taken");
        link.retry = CommandRetry::new(&connection.negotiated().info, link.resend);
        link.connection = Some(connection);
        link.is_holding = false;
        self.unguarded = link.unguarded();
        self.tick = Tick::new(self.clock.raw());
        match set {
            Some(set) => {
                self.completion_queue = Some(set.completion_queue);
                set.queues.into_iter().for_each(|queue| self.add(queue));
                self.pending.set_capacity(self.depth());
            }
            None if link.is_forwarding => {}
            None => self.fail_pending(&Transport::NoQueue.into()),
        }
        self.fail_incompatible(transfer_bytes_max);
    }

    /// Fails the pending commands that the new connection cannot execute.
    fn fail_incompatible(&mut self, max: u64) {
        for _ in 0..self.pending.len() {
            let Some(pending) = self.pending.pop() else { break };
            let bytes = pending.command.transfer_bytes();
            match self.reject_if_replaced(&pending.command) {
                Some(error) => self.fail_command(pending, error),
                None if bytes > max => {
                    self.fail_command(pending, Misuse::CommandBytes { bytes, max }.into());
                }
                None => self.pending.push(pending),
            }
        }
    }

    /// Returns true if a command needs a check before it is submitted: the connection may be lost,
    /// a namespace replaced, or the write fence closed.
    #[inline]
    pub(super) fn is_guarded(&self) -> bool {
        !self.summary.is_unguarded(self.unguarded)
    }

    /// Returns true if another poller or the admin queue reported the loss of the connection. The
    /// next [`tick`](Self::tick) closes the queues. A command submitted before must not reach them:
    /// it would be unknown whether it was executed.
    pub(super) fn is_lost(&self) -> bool {
        self.is_connected() && self.link.as_ref().is_some_and(|link| !link.is_live())
    }

    /// Error of a command to a replaced namespace; `None` for any other command.
    pub(super) fn reject_if_replaced(&self, command: &Command) -> Option<Error> {
        let link = self.link.as_ref().filter(|link| link.summary.has_replaced())?;
        let namespace = command.sqe.namespace();
        let is_replaced = link.registry.is_replaced(namespace);
        is_replaced.then(|| Misuse::NamespaceReplaced(namespace).into())
    }

    /// Returns true if the live connection has no queue for this poller.
    pub(crate) fn is_without_queues(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !self.is_connected() && link.is_live())
    }

    /// Number of pollers of the controller that have queues.
    pub(crate) fn connected_pollers(&self) -> usize {
        match self.link.as_ref().map(|link| link.watch.state()) {
            Some(ConnectionState::Live(connection)) => connection.mailboxes.len(),
            _ => 0,
        }
    }

    /// Sleeps until the state of the connection changes, for at most `limit`.
    pub(super) async fn sleep_disconnected(&mut self, limit: Duration) -> Result<(), Error> {
        let link = self.link.as_ref().expect("a poller that has lost its queues has a link");
        // Subscribed first, so that no change is missed.
        let mut changes = link.watch.subscribe();
        self.reconnect()?;
        if self.is_connected() || !self.done.is_empty() {
            return Ok(());
        }
        let _ = runtime::timeout(limit, changes.changed()).await;
        self.reconnect()
    }
}
