//! A poller: the one owner of some queues and of the completion queue they share.

mod directory;
mod failed_work;
mod internal_command;
mod offline;
mod tick;

use std::{collections::VecDeque, os::fd::AsFd, sync::Arc, time::Duration};

use quanta::Clock;
use verbs::{Buffer, Completion, CompletionQueue, Provider, RdmaCore};

use self::{
    directory::Directory,
    failed_work::{FailedWork, handle_other},
    internal_command::is_errand,
    tick::Tick,
};
use crate::{
    config::{ConnectOptions, POLL_BATCH, TICK},
    driver::{
        async_fd::AsyncDescriptor,
        buffers::verbs_error,
        data_path::{
            command::{Command, CommandCompletion, SubmitError},
            connection::{Connection, PollerMailbox, QueueSet, TimedOutCommand},
            connection_state::{ConnectionWatch, LiveSummary},
            device_events::DeviceWatch,
            namespace_registry::NamespaceRegistry,
            pending::PendingCommands,
            queue::{Queue, ResponseHandling},
            statistics::{PollerMeter, Statistics},
        },
    },
    error::{Error, Misuse, Rejected},
    wire::{Cqe, NamespaceId, QueueId, SglDescriptor},
};

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
    directory: Directory,
    /// The queues that may have something to hand to the device.
    dirty: Vec<usize>,
    /// Of all queues together.
    depth: usize,
    /// On all queues together.
    in_flight: usize,
    /// The queue to look at first for room.
    next: usize,
    /// Nothing while there is no connection.
    completion_queue: Option<CompletionQueue<P>>,
    events: Option<Events>,
    done: VecDeque<CommandCompletion>,
    held: PendingCommands,
    batch: Box<[Completion; POLL_BATCH]>,
    meter: PollerMeter,
    clock: Clock,
    /// When the first command was submitted since the last flush or poll.
    burst: Option<u64>,
    /// When the command was submitted that completed last, or 0.
    traffic: u64,
    tick: Tick,
    timeout: Duration,
    aborting: Option<Aborting>,
    /// Work that failed, while its cause is awaited.
    failed_work: Option<Box<FailedWork>>,
    link: Option<Link<P>>,
    /// A command of the controller's, on its way.
    errand: Option<internal_command::State>,
    failure: Option<Error>,
}

/// Link of a poller to its controller, which supplies the queues of each connection.
struct Link<P: Provider> {
    /// Number of the poller among those of the controller, from 0.
    index: usize,
    watch: ConnectionWatch<P>,
    summary: Arc<LiveSummary>,
    registry: Arc<NamespaceRegistry>,
    /// Connection that the queues belong to; the previous one while there are none.
    connection: Option<Arc<Connection<P>>>,
    /// Generation for which a command needs no check: that of the connection while `replaced` is
    /// empty, else [`u64::MAX`]. The loss of the connection and a replaced namespace are thus one
    /// comparison on the path of each command.
    unguarded: u64,
    /// Namespaces whose commands are refused until they have been identified again.
    replaced: Vec<NamespaceId>,
    /// True if new queues may follow a loss.
    reconnects: bool,
    /// True if commands in flight are sent again after a loss.
    resend: bool,
    /// True if the commands of a poller without queues stay pending until they are
    /// [taken](Poller::surrender).
    keeps_stranded: bool,
}

impl<P: Provider> Link<P> {
    /// Generation of the connection; 0 before the first.
    fn generation(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.generation)
    }

    /// Returns true if the connection of the queues is live.
    fn is_live(&self) -> bool {
        self.summary.is_live(self.generation())
    }

    /// Mailbox of the poller; `None` if the connection has no queue for it.
    fn mailbox(&self) -> Option<&PollerMailbox<P>> {
        self.connection.as_ref()?.mailboxes.get(self.index)
    }

    /// To be called after a change of `connection` or `replaced`.
    fn update_guard(&mut self) {
        self.unguarded = if self.replaced.is_empty() { self.generation() } else { u64::MAX };
    }
}

/// A late command whose Abort was asked for.
struct Aborting {
    late: TimedOutCommand,
    since: u64,
}

/// The file descriptors to sleep on, registered with the runtime that sleeps: a poller may be
/// handed from one to another.
struct Events {
    runtime: tokio::runtime::Id,
    completions: AsyncDescriptor,
    connections: Vec<AsyncDescriptor>,
}

/// What to do once there are no completions.
#[derive(Clone, Copy)]
enum Idle {
    /// Have the next one make an event, so that it is safe to sleep if no command is done.
    Arm,
    Return,
}

impl<P: Provider> Poller<P> {
    pub(crate) fn new(completion_queue: CompletionQueue<P>, timeout: Duration) -> Self {
        let mut this = Self::empty(timeout);
        this.completion_queue = Some(completion_queue);
        this
    }

    /// Creates the poller of this number, with its queues of the live connection and of those that
    /// follow.
    pub(crate) fn linked(
        index: usize,
        watch: ConnectionWatch<P>,
        registry: Arc<NamespaceRegistry>,
        options: &ConnectOptions,
    ) -> Self {
        let mut this = Self::empty(options.io_timeout);
        this.link = Some(Link {
            index,
            summary: watch.summary(),
            watch,
            registry,
            connection: None,
            unguarded: 0,
            replaced: Vec::new(),
            reconnects: options.reconnect.attempts_max() != Some(0),
            resend: options.reconnect.resend,
            keeps_stranded: false,
        });
        // An error is kept, and returned by every later call.
        let _ = this.reconnect();
        this
    }

    fn empty(timeout: Duration) -> Self {
        let clock = Clock::new();
        Self {
            queues: Vec::new(),
            directory: Directory::of(std::iter::empty()),
            dirty: Vec::new(),
            depth: 0,
            in_flight: 0,
            next: 0,
            completion_queue: None,
            events: None,
            // Who takes what is done before looking again never has it grow.
            done: VecDeque::with_capacity(2 * POLL_BATCH),
            held: PendingCommands::default(),
            batch: Box::new([Completion::default(); POLL_BATCH]),
            meter: PollerMeter::new(),
            burst: None,
            traffic: 0,
            tick: Tick::new(clock.raw()),
            clock,
            timeout,
            aborting: None,
            failed_work: None,
            link: None,
            errand: None,
            failure: None,
        }
    }

    /// Lets commands wait, if there are no queues for this poller, until they are
    /// [taken](Self::surrender).
    pub(crate) fn keep_stranded(&mut self) {
        if let Some(link) = &mut self.link {
            link.keeps_stranded = true;
        }
    }

    pub(crate) fn add(&mut self, queue: Queue<P>) {
        // With many queues it takes long to register all their descriptors again.
        if let Some(events) = &mut self.events {
            match AsyncDescriptor::new(queue.endpoint().as_fd()) {
                Ok(descriptor) => events.connections.push(descriptor),
                Err(_) => self.events = None,
            }
        }
        self.depth += queue.depth();
        self.queues.push(queue);
        self.directory = Directory::of(self.queues.iter().map(Queue::number));
        self.dirty.reserve(self.queues.len());
    }

    pub(crate) fn completion_queue(&mut self) -> Option<&mut CompletionQueue<P>> {
        self.completion_queue.as_mut()
    }

    /// Has a watch listen for what the device reports of the queues.
    pub(crate) fn report_to(&self, watch: &mut DeviceWatch<P>) {
        if let Some(completion_queue) = &self.completion_queue {
            watch.add(&self.queues, completion_queue);
        }
    }

    /// The queues, for another poller.
    pub(crate) fn into_assembly(mut self) -> Option<QueueSet<P>> {
        let queues = std::mem::take(&mut self.queues);
        Some(QueueSet { queues, completion_queue: self.completion_queue.take()? })
    }

    /// Queues a command on the next queue in turn that has room. Nothing is sent before
    /// [`flush`](Self::flush).
    ///
    /// Latency counts from the first command since the last [`flush`](Self::flush) or
    /// [`poll`](Self::poll): the clock is read once for all of them.
    ///
    /// # Errors
    ///
    /// When all queues are full, or the poller has failed; the buffer comes back in the error.
    #[inline(never)] // within its caller a command would be copied from place to place
    pub fn submit(&mut self, mut command: Command) -> Result<(), SubmitError> {
        let index = self.pick();
        self.submit_at(index, &mut command)
    }

    pub(crate) fn submit_to(
        &mut self,
        queue: QueueId,
        mut command: Command,
    ) -> Result<(), SubmitError> {
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        self.submit_at(index, &mut command)
    }

    /// Takes the command only where it is needed: moving one costs as much as submitting it.
    #[inline(always)]
    fn submit_at(
        &mut self,
        index: Option<usize>,
        command: &mut Command,
    ) -> Result<(), SubmitError> {
        let started = *self.burst.get_or_insert_with(|| self.clock.raw());
        let Some(index) = index else { return self.hold(command.take(), started) };
        let guarded = self.is_guarded();
        let queue = &mut self.queues[index];
        if !guarded && let Some(sgl) = queue.inline_sgl(&command.data) {
            if let Err(error) = queue.submit_inline(command, sgl, started) {
                return Err(SubmitError::new(error, command.take()));
            }
            self.in_flight += 1;
            note_dirty(queue, index, &mut self.dirty);
            return Ok(());
        }
        if guarded && self.has_left() {
            return self.leave_and_hold(command.take(), started);
        }
        if let Err(error) = self.submit_slowly(index, command, started) {
            return Err(SubmitError::new(error, command.take()));
        }
        self.note_submitted(index);
        Ok(())
    }

    /// Whatever needs more than a copy of the command.
    #[inline(never)]
    fn submit_slowly(
        &mut self,
        index: usize,
        command: &mut Command,
        started: u64,
    ) -> Result<(), Error> {
        let (bytes, max) = (command.data.len() as u64, u64::from(SglDescriptor::KEYED_LENGTH_MAX));
        if bytes > max {
            return Err(Misuse::CommandBytes { bytes, max }.into());
        }
        if let Some(error) = self.barred(command) {
            return Err(error);
        }
        self.queues[index].submit(command, started)
    }

    /// A queue has one more command, and something to hand to the device.
    #[inline]
    fn note_submitted(&mut self, index: usize) {
        self.in_flight += 1;
        note_dirty(&mut self.queues[index], index, &mut self.dirty);
    }

    /// Hands all queued commands to the device, with one doorbell a queue.
    ///
    /// # Errors
    ///
    /// When the device refuses, no event says within a moment that the connection has ended, and
    /// there will be no other queues; the poller has then failed.
    #[inline]
    pub fn flush(&mut self) -> Result<(), Error> {
        self.burst = None;
        match self.flush_dirty() {
            Ok(()) => Ok(()),
            Err(error) => self.lose(error),
        }
    }

    /// Rings the doorbells of the queues that have something, if there are any.
    #[inline(always)]
    fn flush_dirty(&mut self) -> Result<(), Error> {
        match self.dirty.is_empty() {
            true => Ok(()),
            false => self.ring_doorbells(),
        }
    }

    #[inline(never)]
    fn ring_doorbells(&mut self) -> Result<(), Error> {
        while let Some(index) = self.dirty.pop() {
            let queue = &mut self.queues[index];
            queue.is_dirty = false;
            if let Err(error) = queue.flush() {
                FailedWork::await_cause(&mut self.failed_work, error)?;
            }
        }
        Ok(())
    }

    /// Takes what has completed, without blocking; [`take`](Self::take) returns it. Now and then
    /// also looks for dead connections and commands out of time.
    ///
    /// # Errors
    ///
    /// When the controller has ended. Everything in flight is then done, with that error.
    #[inline(always)] // with all that it calls: most polls of a loop find nothing
    pub fn poll(&mut self) -> Result<usize, Error> {
        self.poll_into(VecDeque::push_back)
    }

    /// The same, but hands each command that is done to `each` instead of keeping it; returns how
    /// many there were. It saves a command two moves.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll); what ended by that waits for [`take`](Self::take).
    pub fn poll_with(&mut self, mut each: impl FnMut(CommandCompletion)) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(done) = self.done.pop_front() {
            each(done);
            count += 1;
        }
        self.poll_into(|_, done| {
            each(done);
            count += 1;
        })?;
        Ok(count)
    }

    #[inline(always)]
    fn poll_into(
        &mut self,
        each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<usize, Error> {
        self.burst = None;
        let before = self.done.len();
        if self.completion_queue.is_none() {
            self.reconnect()?;
        } else if let Err(error) = self.look(each) {
            self.lose(error)?;
        }
        if !self.held.is_empty() {
            self.resubmit()?;
        }
        Ok(self.done.len() - before)
    }

    #[inline(always)]
    fn look(
        &mut self,
        each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<(), Error> {
        let now = self.completions(Idle::Return, each)?;
        if self.tick.is_due(now, &self.clock) {
            self.tick()?;
        }
        match self.errand.is_some() {
            true => self.send_errand(),
            false => Ok(()),
        }
    }

    /// The next command that is done.
    #[inline]
    pub fn take(&mut self) -> Option<CommandCompletion> {
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
        let limit = if self.failed_work.is_some() { limit.min(TICK) } else { limit };
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
            Some(link) => link.watch.lost(link.generation(), error),
            None => error,
        };
        self.close(&error);
        self.fail_held(&error);
        self.failure = Some(error.clone());
        error
    }

    /// How many more commands fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        if self.queues.is_empty() {
            return if self.failure.is_some() { 0 } else { self.held.room() };
        }
        self.depth.saturating_sub(self.in_flight + self.held.len())
    }

    /// How many commands are in flight, or wait for a connection.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.held.len()
    }

    /// How many commands may be in flight on all its queues.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
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
        self.meter.statistics()
    }

    /// The queues count them; what they counted since the last time is added.
    fn count_doorbells(&mut self) {
        let rung: u64 = self.queues.iter_mut().map(Queue::new_doorbells).sum();
        self.meter.device().doorbells += rung;
    }

    /// The next queue in turn that has room.
    #[inline]
    fn pick(&mut self) -> Option<usize> {
        let index = if self.next < self.queues.len() { self.next } else { 0 };
        if self.queues.get(index)?.has_room() {
            self.next = index + 1;
            return Some(index);
        }
        self.pick_another()
    }

    #[inline(never)]
    fn pick_another(&mut self) -> Option<usize> {
        for _ in 0..self.queues.len() {
            let index = if self.next < self.queues.len() { self.next } else { 0 };
            self.next = index + 1;
            if self.queues[index].has_room() {
                return Some(index);
            }
        }
        None
    }

    /// Takes all completions; says when, if there were any.
    #[inline(always)]
    fn completions(
        &mut self,
        idle: Idle,
        mut each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<Option<u64>, Error> {
        let (before, mut now) = (self.done.len(), None);
        while let Some(completion_queue) = &mut self.completion_queue {
            let batch = self.batch.as_mut_slice();
            let polled = match idle {
                Idle::Arm => completion_queue.poll_or_arm(batch),
                Idle::Return => completion_queue.poll(batch),
            };
            let count = polled.map_err(verbs_error)?;
            self.meter.device().count_poll(count);
            if count == 0 {
                break;
            }
            now = Some(self.handle_batch(count, &mut each)?);
            let enough = match idle {
                // Credits alone are no reason to stay awake, nor to sleep unarmed.
                Idle::Arm => self.done.len() > before,
                Idle::Return => count < POLL_BATCH,
            };
            if enough {
                break;
            }
        }
        self.flush_dirty()?;
        Ok(now)
    }

    /// Takes in the completions that were just polled. The clock is read once for all of them.
    #[inline(always)]
    fn handle_batch(
        &mut self,
        count: usize,
        each: &mut impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<u64, Error> {
        let now = self.clock.raw();
        let mut response = Cqe::default();
        for at in 0..count {
            let completion = self.batch[at];
            // A queue that is gone leaves completions behind.
            let Some(index) = self.directory.find(completion.queue_pair()) else { continue };
            let queue = &mut self.queues[index];
            let answer = queue.answer(&completion, &mut response);
            let slot = match answer {
                // The receive that this leaves to be posted again can wait for the next command:
                // there are as many as before for each that is in flight.
                ResponseHandling::Finished(slot) => slot,
                ResponseHandling::Nothing => continue,
                unusual => {
                    note_dirty(queue, index, &mut self.dirty);
                    let finished = match unusual {
                        ResponseHandling::Read(length) => {
                            queue.respond(&completion, response, length)?
                        }
                        _ => handle_other(queue, &completion, &mut self.failed_work)?,
                    };
                    let Some(finished) = finished else { continue };
                    response = finished.response;
                    finished.slot
                }
            };
            self.in_flight -= 1;
            let revoked = queue.take_revoked(slot);
            let entry = queue.command(slot);
            self.traffic = entry.started;
            let latency_ns = self.clock.delta_as_nanos(entry.started, now);
            self.meter.record(entry.opcode(), &entry.outcome(response, latency_ns, revoked));
            if self.errand.is_some() && is_errand(entry.user(), entry.opcode()) {
                let done = entry.complete(response);
                self.end_errand(done);
            } else {
                each(&mut self.done, entry.complete(response));
            }
        }
        Ok(now)
    }

    async fn arm_and_sleep(&mut self, limit: Duration) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current().id();
        if self.events.as_ref().is_none_or(|events| events.runtime != runtime) {
            self.events = self.register(runtime)?;
        }
        self.completions(Idle::Arm, VecDeque::push_back)?;
        if !self.done.is_empty() {
            return Ok(());
        }
        let Some(events) = &self.events else { return Ok(()) };
        let connection_changed = tokio::select! {
            ready = events.completions.wait() => { ready?; false }
            changed = AsyncDescriptor::any(&events.connections) => { changed?; true }
            () = until_lost(self.link.as_ref()) => true,
            () = internal_command::posted(self.link.as_ref()) => true,
            () = tokio::time::sleep(limit) => true,
        };
        if let Some(completion_queue) = &mut self.completion_queue {
            completion_queue.acknowledge().map_err(verbs_error)?;
        }
        self.completions(Idle::Return, VecDeque::push_back)?;
        match connection_changed {
            true => self.tick(),
            false => {
                self.tick.hasten();
                Ok(())
            }
        }
    }

    fn register(&self, runtime: tokio::runtime::Id) -> Result<Option<Events>, Error> {
        let Some(completion_queue) = &self.completion_queue else { return Ok(None) };
        let connections =
            self.queues.iter().map(|queue| AsyncDescriptor::new(queue.endpoint().as_fd()));
        Ok(Some(Events {
            runtime,
            completions: AsyncDescriptor::new(completion_queue.as_fd())?,
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

/// Notes that a queue may have something to hand to the device.
#[inline]
fn note_dirty<P: Provider>(queue: &mut Queue<P>, index: usize, dirty: &mut Vec<usize>) {
    if !std::mem::replace(&mut queue.is_dirty, true) {
        dirty.push(index);
    }
}

/// Waits until the poller's connection is no longer live.
async fn until_lost<P: Provider>(link: Option<&Link<P>>) {
    match link {
        Some(link) => link.watch.until_lost(link.generation()).await,
        None => std::future::pending().await,
    }
}

impl CommandCompletion {
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
