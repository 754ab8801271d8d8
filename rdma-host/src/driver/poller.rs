//! A poller: the one owner of some queues and of the completion queue they share.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use quanta::Clock;
use verbs::{Buffer, Completion, CompletionQueue, Provider, RdmaCore};

use super::command::{Command, Done, Rejection};
use super::liveness::Liveness;
use super::queue::{Ended, Queue};
use super::readable::Readable;
use super::statistics::{Outcome, Statistics};
use super::verbs_error;
use crate::config::{POLL_BATCH, TICK};
use crate::error::{Error, Misuse, Rejected};
use crate::wire::{QueueId, Sgl};

/// Owns queues, submits to them and completes them. Not shared: whoever holds it drives it.
///
/// ```text
///  submit… → flush → poll → take…     and when nothing came: ready().await, then poll again
/// ```
///
/// An error on one queue ends them all: a controller is live with all its queues or not at all.
/// Every command in flight then comes back with that error, and nothing more is taken.
pub struct Poller<P: Provider = RdmaCore> {
    /// Before the completion queue, so that queue pairs go first.
    queues: Vec<Queue<P>>,
    completion_queue: CompletionQueue<P>,
    events: Option<Events>,
    done: VecDeque<Done>,
    batch: Box<[Completion; POLL_BATCH]>,
    statistics: Statistics,
    clock: Clock,
    timeout: Duration,
    checked: u64,
    next: usize,
    /// The controller this poller lives and dies with.
    liveness: Option<Liveness>,
    failure: Option<Error>,
}

/// The file descriptors to sleep on, registered with the runtime that sleeps: a poller may be
/// handed from one to another.
struct Events {
    runtime: tokio::runtime::Id,
    completions: Readable,
    connections: Vec<Readable>,
}

impl<P: Provider> Poller<P> {
    pub(super) fn new(completion_queue: CompletionQueue<P>, timeout: Duration) -> Self {
        let clock = Clock::new();
        Self {
            queues: Vec::new(),
            completion_queue,
            events: None,
            done: VecDeque::new(),
            batch: Box::new([Completion::default(); POLL_BATCH]),
            statistics: Statistics::default(),
            checked: clock.raw(),
            clock,
            timeout,
            next: 0,
            liveness: None,
            failure: None,
        }
    }

    /// Ties the poller to its controller: the end of either ends both.
    pub(super) fn with_liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = Some(liveness);
        self
    }

    pub(super) fn add(&mut self, queue: Queue<P>) {
        // Room for every command of every queue, so that completing never allocates.
        self.done.reserve(queue.depth() + self.depth());
        self.events = None;
        self.queues.push(queue);
    }

    pub(super) fn completion_queue(&self) -> &CompletionQueue<P> {
        &self.completion_queue
    }

    /// Queues a command on the queue with the most room. Nothing is sent before
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// When all queues are full, or the poller has failed; the buffer comes back in the error.
    pub fn submit(&mut self, command: Command) -> Result<(), Rejection> {
        let index = self.pick();
        self.submit_at(index, command)
    }

    pub(super) fn submit_to(&mut self, queue: QueueId, command: Command) -> Result<(), Rejection> {
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        self.submit_at(index, command)
    }

    fn submit_at(&mut self, index: Option<usize>, command: Command) -> Result<(), Rejection> {
        if let Some(error) = &self.failure {
            return Err(Rejection::new(error.clone(), command));
        }
        let bytes = command.data.len() as u64;
        let max = u64::from(Sgl::KEYED_LENGTH_MAX);
        match index {
            _ if bytes > max => {
                Err(Rejection::new(Misuse::CommandBytes { bytes, max }.into(), command))
            }
            Some(index) => self.queues[index].submit(command, self.clock.raw()),
            None => Err(Rejection::new(Misuse::Full.into(), command)),
        }
    }

    /// Hands all queued commands to the device, with one doorbell a queue.
    ///
    /// # Errors
    ///
    /// When the device refuses; the poller has then failed.
    pub fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.queues.iter_mut().try_for_each(Queue::flush);
        flushed.map_err(|error| self.fail(error))
    }

    /// Takes what has completed, without blocking; [`take`](Self::take) returns it. Now and then
    /// also looks for dead connections and commands out of time.
    ///
    /// # Errors
    ///
    /// When a queue fails. Everything in flight is then done, with that error.
    pub fn poll(&mut self) -> Result<usize, Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let polled = self.completions().and_then(|count| {
            let now = self.clock.raw();
            if self.clock.delta(self.checked, now) >= TICK {
                self.checked = now;
                self.check(now)?;
            }
            Ok(count)
        });
        polled.map_err(|error| self.fail(error))
    }

    /// The next command that is done.
    pub fn take(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Sleeps until something completes, a connection changes, or `limit` has passed.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let slept = self.arm_and_sleep(limit).await;
        slept.map_err(|error| self.fail(error))
    }

    /// Ends all queues: every command in flight comes back with `error`, through
    /// [`take`](Self::take).
    pub fn fail(&mut self, error: Error) -> Error {
        if let Some(first) = &self.failure {
            return first.clone();
        }
        let error = match &self.liveness {
            Some(liveness) => liveness.end(error),
            None => error,
        };
        tracing::debug!(%error, "the poller's queues are closed");
        for queue in std::mem::take(&mut self.queues) {
            for ended in queue.close() {
                self.finish(ended, Some(&error));
            }
        }
        self.events = None;
        self.failure = Some(error.clone());
        error
    }

    /// How many more commands fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.queues.iter().map(Queue::room).sum()
    }

    /// How many commands are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queues.iter().map(Queue::in_flight).sum()
    }

    /// How many commands may be in flight on all its queues.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queues.iter().map(Queue::depth).sum()
    }

    /// How many queues it owns.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// What it has counted.
    pub fn statistics(&mut self) -> &mut Statistics {
        &mut self.statistics
    }

    /// The next queue in turn that has room.
    fn pick(&mut self) -> Option<usize> {
        let count = self.queues.len();
        let index = (0..count)
            .map(|offset| (self.next + offset) % count)
            .find(|&index| self.queues[index].room() > 0)?;
        self.next = index + 1;
        Some(index)
    }

    fn completions(&mut self) -> Result<usize, Error> {
        let before = self.done.len();
        loop {
            let count =
                self.completion_queue.poll(self.batch.as_mut_slice()).map_err(verbs_error)?;
            for index in 0..count {
                let completion = self.batch[index];
                // A queue that is gone leaves completions behind.
                let Some(queue) =
                    self.queues.iter_mut().find(|queue| queue.number() == completion.queue_pair())
                else {
                    continue;
                };
                if let Some(ended) = queue.handle(&completion)? {
                    self.finish(ended, None);
                }
            }
            if count < POLL_BATCH {
                break;
            }
        }
        // Receives go back before anything new is sent.
        self.queues.iter_mut().try_for_each(Queue::flush)?;
        Ok(self.done.len() - before)
    }

    fn finish(&mut self, ended: Ended, error: Option<&Error>) {
        let latency_ns = self.clock.delta_as_nanos(ended.started, self.clock.raw());
        let outcome = match (ended.response, error) {
            (Some(response), _) => Ok(response),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(Error::Closed),
        };
        self.statistics.record(
            ended.sqe.opcode(),
            Outcome {
                success: outcome.as_ref().is_ok_and(|response| response.status().is_success()),
                bytes: ended.data.as_ref().map_or(0, |buffer| buffer.len() as u64),
                latency_ns,
                revoked: ended.revoked,
            },
        );
        self.done.push_back(Done { user: ended.user, outcome, data: ended.data });
    }

    fn check(&mut self, now: u64) -> Result<(), Error> {
        if let Some(cause) = self.liveness.as_ref().and_then(Liveness::cause) {
            return Err(cause);
        }
        for queue in &mut self.queues {
            queue.check_connection()?;
            let age = queue.oldest().map(|started| self.clock.delta(started, now));
            if age.is_some_and(|age| age > self.timeout) {
                return Err(Error::Timeout { step: "a command", after: self.timeout });
            }
        }
        Ok(())
    }

    async fn arm_and_sleep(&mut self, limit: Duration) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current().id();
        if self.events.as_ref().is_none_or(|events| events.runtime != runtime) {
            self.events = Some(self.register(runtime)?);
        }
        self.completion_queue.arm().map_err(verbs_error)?;
        // What completed before the arming raises no event.
        if self.completions()? > 0 || !self.done.is_empty() {
            return Ok(());
        }
        let Some(events) = &self.events else { return Ok(()) };
        let connection_changed = tokio::select! {
            ready = events.completions.wait() => { ready?; false }
            changed = Readable::any(&events.connections) => { changed?; true }
            cause = ended(self.liveness.as_ref()) => return Err(cause),
            () = tokio::time::sleep(limit) => true,
        };
        self.completion_queue.acknowledge().map_err(verbs_error)?;
        self.completions()?;
        match connection_changed {
            true => self.check(self.clock.raw()),
            false => Ok(()),
        }
    }

    fn register(&self, runtime: tokio::runtime::Id) -> Result<Events, Error> {
        let connections = self.queues.iter().map(|queue| Readable::new(queue.endpoint().as_fd()));
        Ok(Events {
            runtime,
            completions: Readable::new(self.completion_queue.as_fd())?,
            connections: connections.collect::<Result<_, _>>()?,
        })
    }
}

async fn ended(liveness: Option<&Liveness>) -> Error {
    match liveness {
        Some(liveness) => liveness.ended().await,
        None => std::future::pending().await,
    }
}

impl Done {
    /// The response of a command that succeeded, and its buffer.
    ///
    /// # Errors
    ///
    /// When there was no response, or one that says the command `name` failed.
    pub fn into_result(
        self,
        name: &'static str,
    ) -> (Result<crate::wire::Cqe, Error>, Option<Buffer>) {
        let outcome = self.outcome.and_then(|response| match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(Rejected::Command { command: name, status }.into()),
        });
        (outcome, self.data)
    }
}
