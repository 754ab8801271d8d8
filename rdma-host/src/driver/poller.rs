//! A poller: the one owner of some queues and of the completion queue they share.

mod away;
mod errand;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use quanta::Clock;
use verbs::{Buffer, Completion, CompletionQueue, Provider, RdmaCore};

use self::errand::is_errand;
use super::berth::{Assembly, Berth, Late};
use super::command::{Command, Done, Execution, Rejection};
use super::device::DeviceWatch;
use super::held::Held;
use super::queue::{Ended, Queue};
use super::readable::Readable;
use super::statistics::{Outcome, Statistics};
use super::verbs_error;
use crate::config::{ABORT_TIMEOUT, ConnectOptions, POLL_BATCH, TICK};
use crate::error::{Error, Misuse, Rejected};
use crate::wire::{NamespaceId, QueueId, Sgl};

/// Owns queues, submits to them and completes them. Not shared: whoever holds it drives it.
///
/// ```text
///  submit… → flush → poll → take…     and when nothing came: ready().await, then poll again
/// ```
///
/// An error on one queue takes them all: a controller is live with all its queues or not at all.
/// The poller then waits for new ones, and so do its commands: those in flight, which are sent
/// again, and those submitted meanwhile, as far as there was room for them before. They fail
/// where [`ReconnectOptions`](crate::config::ReconnectOptions) say so, and when the controller
/// ends; the poller has failed then, and takes nothing any more. New queues are made by a task of
/// the runtime that the controller was connected on, which must get to run meanwhile.
pub struct Poller<P: Provider = RdmaCore> {
    /// Before the completion queue, so that queue pairs go first.
    queues: Vec<Queue<P>>,
    /// Nothing while there is no connection.
    completion_queue: Option<CompletionQueue<P>>,
    events: Option<Events>,
    done: VecDeque<Done>,
    held: Held,
    batch: Box<[Completion; POLL_BATCH]>,
    statistics: Statistics,
    clock: Clock,
    timeout: Duration,
    checked: u64,
    /// Since when the queues are ours.
    since: u64,
    /// When the command was submitted that completed last, or 0.
    traffic: u64,
    next: usize,
    aborting: Option<Aborting>,
    link: Option<Link<P>>,
    /// A command of the controller's, on its way.
    errand: Option<errand::State>,
    failure: Option<Error>,
}

/// The tie to a controller that may come with other queues when these are lost.
struct Link<P: Provider> {
    berth: Arc<Berth<P>>,
    /// Which connection the queues are of, or were.
    generation: u64,
    /// Namespaces that commands must not reach, for now.
    replaced: Vec<NamespaceId>,
    /// Whether there may be other queues once these are lost.
    reconnects: bool,
    /// Whether commands that were in flight are sent again.
    resend: bool,
    /// Whether the commands of a poller that gets no queues wait for somebody to take them.
    keeps_stranded: bool,
}

/// A late command whose Abort was asked for.
struct Aborting {
    late: Late,
    since: u64,
}

/// The file descriptors to sleep on, registered with the runtime that sleeps: a poller may be
/// handed from one to another.
struct Events {
    runtime: tokio::runtime::Id,
    completions: Readable,
    connections: Vec<Readable>,
}

/// What to do once there are no completions.
#[derive(Clone, Copy)]
enum Idle {
    /// Have the next one make an event, so that it is safe to sleep if no command is done.
    Arm,
    Return,
}

impl<P: Provider> Poller<P> {
    pub(super) fn new(completion_queue: CompletionQueue<P>, timeout: Duration) -> Self {
        let mut this = Self::empty(timeout);
        this.completion_queue = Some(completion_queue);
        this
    }

    /// A poller without queues, which gets them through its berth.
    pub(super) fn at(berth: Arc<Berth<P>>, options: &ConnectOptions) -> Self {
        let mut this = Self::empty(options.io_timeout);
        this.link = Some(Link {
            berth,
            generation: 0,
            replaced: Vec::new(),
            reconnects: options.reconnect.attempts_max() != Some(0),
            resend: options.reconnect.resend,
            keeps_stranded: false,
        });
        this.reconnect().unwrap_or_default();
        this
    }

    fn empty(timeout: Duration) -> Self {
        let clock = Clock::new();
        Self {
            queues: Vec::new(),
            completion_queue: None,
            events: None,
            done: VecDeque::new(),
            held: Held::default(),
            batch: Box::new([Completion::default(); POLL_BATCH]),
            statistics: Statistics::default(),
            checked: clock.raw(),
            since: clock.raw(),
            traffic: 0,
            clock,
            timeout,
            next: 0,
            aborting: None,
            link: None,
            errand: None,
            failure: None,
        }
    }

    /// Lets commands wait, if there are no queues for this poller, until they are
    /// [taken](Self::surrender).
    pub(super) fn keep_stranded(&mut self) {
        if let Some(link) = &mut self.link {
            link.keeps_stranded = true;
        }
    }

    pub(super) fn add(&mut self, queue: Queue<P>) {
        self.events = None;
        self.queues.push(queue);
        // Room for every command of every queue, so that completing never allocates.
        self.done.reserve(2 * self.depth());
    }

    pub(super) fn completion_queue(&mut self) -> Option<&mut CompletionQueue<P>> {
        self.completion_queue.as_mut()
    }

    /// Has a watch listen for what the device reports of the queues.
    pub(super) fn report_to(&self, watch: &mut DeviceWatch<P>) {
        if let Some(completion_queue) = &self.completion_queue {
            watch.add(&self.queues, completion_queue);
        }
    }

    /// The queues, for another poller.
    pub(super) fn into_assembly(mut self) -> Option<Assembly<P>> {
        let queues = std::mem::take(&mut self.queues);
        Some(Assembly { queues, completion_queue: self.completion_queue.take()? })
    }

    /// Queues a command on the queue with the most room. Nothing is sent before
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// When all queues are full, or the poller has failed; the buffer comes back in the error.
    pub fn submit(&mut self, command: Command) -> Result<(), Rejection> {
        let now = self.clock.raw();
        let index = self.pick();
        self.submit_at(index, command, now)
    }

    pub(super) fn submit_to(&mut self, queue: QueueId, command: Command) -> Result<(), Rejection> {
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        let now = self.clock.raw();
        self.submit_at(index, command, now)
    }

    fn submit_at(
        &mut self,
        index: Option<usize>,
        command: Command,
        started: u64,
    ) -> Result<(), Rejection> {
        let bytes = command.data.len() as u64;
        let max = u64::from(Sgl::KEYED_LENGTH_MAX);
        if bytes > max {
            return Err(Rejection::new(Misuse::CommandBytes { bytes, max }.into(), command));
        }
        let Some(index) = index else { return self.hold(command, started) };
        if let Some(error) = self.barred(&command) {
            return Err(Rejection::new(error, command));
        }
        self.queues[index].submit(command, started)
    }

    /// Hands all queued commands to the device, with one doorbell a queue.
    ///
    /// # Errors
    ///
    /// When the device refuses and there will be no other queues; the poller has then failed.
    pub fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.queues.iter_mut().try_for_each(Queue::flush);
        flushed.or_else(|error| self.lose(error))
    }

    /// Takes what has completed, without blocking; [`take`](Self::take) returns it. Now and then
    /// also looks for dead connections and commands out of time.
    ///
    /// # Errors
    ///
    /// When the controller has ended. Everything in flight is then done, with that error.
    pub fn poll(&mut self) -> Result<usize, Error> {
        let before = self.done.len();
        if self.completion_queue.is_none() {
            self.reconnect()?;
        } else {
            let polled = self.completions(Idle::Return).and_then(|_| {
                let now = self.clock.raw();
                if self.clock.delta(self.checked, now) >= TICK {
                    self.checked = now;
                    self.check(now)?;
                }
                Ok(())
            });
            polled.or_else(|error| self.lose(error))?;
            if self.errand.is_some() {
                self.send_errand().or_else(|error| self.lose(error))?;
            }
        }
        if !self.held.is_empty() {
            self.resubmit()?;
        }
        Ok(self.done.len() - before)
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
        if self.completion_queue.is_none() {
            return self.sleep_away(limit).await;
        }
        let slept = self.arm_and_sleep(limit).await;
        slept.or_else(|error| self.lose(error))
    }

    /// Ends all queues for good: every command comes back with `error`, through
    /// [`take`](Self::take).
    pub fn fail(&mut self, error: Error) -> Error {
        if let Some(first) = &self.failure {
            return first.clone();
        }
        let error = match &self.link {
            Some(link) => link.berth.liveness.lost(link.generation, error),
            None => error,
        };
        self.close(&error);
        self.fail_held(&error);
        self.failure = Some(error.clone());
        error
    }

    /// How many more commands fit.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.queues.is_empty() {
            return if self.failure.is_some() { 0 } else { self.held.room() };
        }
        let room: usize = self.queues.iter().map(Queue::room).sum();
        room.saturating_sub(self.held.len())
    }

    /// How many commands are in flight, or wait for a connection.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queues.iter().map(Queue::in_flight).sum::<usize>() + self.held.len()
    }

    /// How many commands may be in flight on all its queues.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queues.iter().map(Queue::depth).sum()
    }

    /// Whether it has queues now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.queues.is_empty()
    }

    /// How many queues it owns.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// What it has counted.
    pub fn statistics(&mut self) -> &mut Statistics {
        self.count_doorbells();
        &mut self.statistics
    }

    /// The queues count them; what they counted since the last time is added.
    fn count_doorbells(&mut self) {
        let rung: u64 = self.queues.iter_mut().map(Queue::new_doorbells).sum();
        self.statistics.device.doorbells += rung;
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

    /// Takes all completions; says how many commands are done.
    fn completions(&mut self, idle: Idle) -> Result<usize, Error> {
        let before = self.done.len();
        while let Some(completion_queue) = &mut self.completion_queue {
            let batch = self.batch.as_mut_slice();
            let polled = match idle {
                Idle::Arm => completion_queue.poll_or_arm(batch),
                Idle::Return => completion_queue.poll(batch),
            };
            let count = polled.map_err(verbs_error)?;
            self.statistics.device.count_poll(count);
            for index in 0..count {
                let completion = self.batch[index];
                // A queue that is gone leaves completions behind.
                let Some(queue) =
                    self.queues.iter_mut().find(|queue| queue.number() == completion.queue_pair())
                else {
                    continue;
                };
                if let Some(ended) = queue.handle(&completion)? {
                    self.finish(ended);
                }
            }
            let enough = match idle {
                // Credits alone are no reason to stay awake, nor to sleep unarmed.
                Idle::Arm => count == 0 || self.done.len() > before,
                Idle::Return => count < POLL_BATCH,
            };
            if enough {
                break;
            }
        }
        // Receives go back before anything new is sent.
        self.queues.iter_mut().try_for_each(Queue::flush)?;
        Ok(self.done.len() - before)
    }

    fn finish(&mut self, ended: Ended) {
        if self.errand.is_some() && is_errand(&ended) {
            return self.end_errand(ended);
        }
        self.traffic = ended.started;
        let latency_ns = self.clock.delta_as_nanos(ended.started, self.clock.raw());
        self.done.push_back(ended.into_done(latency_ns, &mut self.statistics));
    }

    fn check(&mut self, now: u64) -> Result<(), Error> {
        if let Some(link) = &self.link {
            if !link.berth.liveness.is_live(link.generation) {
                return Err(Error::Closed); // what it was is known to the others
            }
            if self.traffic != 0 {
                link.berth.note_traffic(self.clock.delta(self.traffic, now));
                self.traffic = 0;
            }
            if self.errand.is_none()
                && let Some(errand) = link.berth.take_errand()
            {
                self.errand = errand::State::new(errand, link.generation);
            }
        }
        for queue in &mut self.queues {
            queue.check_connection()?;
        }
        self.check_time(now)
    }

    /// Has a command aborted that is out of time, and gives up on it if that does not help.
    fn check_time(&mut self, now: u64) -> Result<(), Error> {
        let ages = self.queues.iter().filter_map(|queue| {
            let (started, command) = queue.oldest()?;
            // The time without a connection is not the target's.
            let age = self.clock.delta(started.max(self.since), now);
            Some((age, Late { queue: queue.id(), command }))
        });
        let Some((age, late)) = ages.max_by_key(|&(age, _)| age) else { return Ok(()) };
        if age <= self.timeout {
            self.aborting = None;
            return Ok(());
        }
        let timeout = Error::CommandTimeout { queue: late.queue, after: self.timeout };
        match &self.aborting {
            Some(aborting) if aborting.late == late => {
                match self.clock.delta(aborting.since, now) > ABORT_TIMEOUT {
                    true => Err(timeout),
                    false => Ok(()),
                }
            }
            _ if self.link.as_ref().is_some_and(|link| link.berth.abort(late)) => {
                self.aborting = Some(Aborting { late, since: now });
                Ok(())
            }
            _ => Err(timeout),
        }
    }

    async fn arm_and_sleep(&mut self, limit: Duration) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current().id();
        if self.events.as_ref().is_none_or(|events| events.runtime != runtime) {
            self.events = self.register(runtime)?;
        }
        if self.completions(Idle::Arm)? > 0 || !self.done.is_empty() {
            return Ok(());
        }
        let Some(events) = &self.events else { return Ok(()) };
        let connection_changed = tokio::select! {
            ready = events.completions.wait() => { ready?; false }
            changed = Readable::any(&events.connections) => { changed?; true }
            () = left(self.link.as_ref()) => true,
            () = errand::posted(self.link.as_ref()) => true,
            () = tokio::time::sleep(limit) => true,
        };
        if let Some(completion_queue) = &mut self.completion_queue {
            completion_queue.acknowledge().map_err(verbs_error)?;
        }
        self.completions(Idle::Return)?;
        match connection_changed {
            true => self.check(self.clock.raw()),
            false => Ok(()),
        }
    }

    fn register(&self, runtime: tokio::runtime::Id) -> Result<Option<Events>, Error> {
        let Some(completion_queue) = &self.completion_queue else { return Ok(None) };
        let connections = self.queues.iter().map(|queue| Readable::new(queue.endpoint().as_fd()));
        Ok(Some(Events {
            runtime,
            completions: Readable::new(completion_queue.as_fd())?,
            connections: connections.collect::<Result<_, _>>()?,
        }))
    }
}

impl<P: Provider> Drop for Poller<P> {
    /// Disconnects in order; the commands in flight and their buffers are gone.
    fn drop(&mut self) {
        if self.is_connected() {
            self.close(&Error::Closed);
        }
    }
}

/// Waits until the poller's connection is not the live one.
async fn left<P: Provider>(link: Option<&Link<P>>) {
    match link {
        Some(link) => link.berth.liveness.left(link.generation).await,
        None => std::future::pending().await,
    }
}

impl Ended {
    fn into_done(self, latency_ns: u64, statistics: &mut Statistics) -> Done {
        let (outcome, execution) = match self.response {
            Some(response) => (Ok(response), Execution::Answered),
            None => (Err(Error::Closed), Execution::Unknown),
        };
        statistics.record(
            self.sqe.opcode(),
            Outcome {
                success: outcome.as_ref().is_ok_and(|response| response.status().is_success()),
                bytes: self.data.as_ref().map_or(0, |buffer| buffer.len() as u64),
                latency_ns,
                revoked: self.revoked,
            },
        );
        Done { user: self.user, outcome, data: self.data, execution }
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
