//! Poller: the owner of some queues and of the completion queue that they share.

mod connection_loss;
mod descriptor;
mod failed_work;
mod fence;
mod fused;
mod internal_command;
mod link;
mod queue_map;
mod retry;
mod returned;
mod sleep;
mod submit;
mod submit_later;
mod tick;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use quanta::Clock;
use verbs::{Completion, CompletionQueue, Provider, RdmaCore};

pub(crate) use self::returned::ReturnedCommand;
use self::{
    descriptor::EventDescriptor, failed_work::FailedWork, fused::FusedPairs, link::Link,
    queue_map::QueueMap, sleep::Events, tick::Tick,
};
use crate::{
    config::{ConnectOptions, POLL_BATCH},
    driver::{
        buffers::verbs_error,
        data_path::{
            command::{Command, CommandCompletion, SubmitError},
            connection::{PollerMailbox, TimedOutCommand},
            connection_state::ConnectionWatch,
            device_events::DeviceWatch,
            live_summary::LiveSummary,
            namespace_registry::NamespaceRegistry,
            pending_command::PendingCommands,
            queue::{Completed, FailedCommand, Queue},
            statistics::{PollerMeter, Statistics},
            ticks::Ticks,
        },
        runtime,
    },
    error::Error,
    wire::Cqe,
};

/// Owner of some queues, which submits commands to them and polls their completions. A poller has
/// one owner, whose thread drives it.
///
/// ```text
///  submit… → ring_doorbells → poll → take…
///  and when nothing completed: ready().await, then poll again
/// ```
///
/// The failure of one queue closes all: a controller is live with all its queues or not at all. The
/// poller then waits for the queues of the next connection, and so do its commands: those that were
/// in flight, which are sent again, and new ones, as far as the poller had room for them before.
/// Commands fail instead when [`ReconnectOptions`](crate::config::ReconnectOptions) say so, and
/// when the controller has ended: the poller has then failed, and accepts no more. The next
/// connection is made by a task of the runtime on which the controller was connected, which must
/// get to run.
pub struct Poller<P: Provider = RdmaCore> {
    /// Declared before the completion queue, so that the queue pairs are destroyed first.
    queues: Vec<Queue<P>>,
    queue_map: QueueMap,
    /// Indices of the queues that may need a doorbell.
    dirty: Vec<usize>,
    /// Sum of the depths of all queues.
    depth: usize,
    /// Number of commands in flight on all queues.
    in_flight: usize,
    /// Index of the queue to submit to next; may be out of range.
    next: usize,
    /// Index of the queue of the latest completion, where the next is likely to be of; may be out
    /// of range.
    latest: usize,
    /// `None` while there is no connection.
    completion_queue: Option<CompletionQueue<P>>,
    events: Option<Events>,
    descriptor: Option<EventDescriptor>,
    /// True if the next completion makes the descriptor readable: the poller was prepared for
    /// sleep, and has seen none since.
    is_armed: bool,
    done: VecDeque<CommandCompletion>,
    /// Commands that are returned to the owner; `None` if it sends none again.
    returned: Option<Vec<ReturnedCommand>>,
    pending: PendingCommands,
    batch: Box<[Completion; POLL_BATCH]>,
    /// Commands that failed since the last [`tick`](Self::tick).
    failed_commands: Vec<FailedCommand>,
    meter: PollerMeter,
    clock: Clock,
    /// Conversion of differences of clock readings.
    ticks: Ticks,
    /// Clock reading of the first submission since the last doorbell or poll; 0 for none.
    submitted_at: u64,
    /// Clock reading of the submission of the most recently completed command; 0 for none.
    last_traffic: u64,
    tick: Tick,
    timeout: Duration,
    aborting: Option<Aborting>,
    /// First failure of work whose cause is awaited.
    failed_work: Option<Box<FailedWork>>,
    link: Option<Link<P>>,
    /// Summary of the controller's connection; one of its own without a link.
    summary: Arc<LiveSummary>,
    /// [Generation](Link::unguarded) for which a command needs no check.
    unguarded: u64,
    internal: Option<internal_command::State>,
    /// Fused operations in flight.
    fused: FusedPairs,
    failure: Option<Error>,
}

/// Timed-out command whose abort was requested.
struct Aborting {
    command: TimedOutCommand,
    since: u64,
}

/// Action when there are no more completions.
#[derive(Clone, Copy)]
enum Idle {
    /// Request an event for the next completion, before sleeping.
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
        this.meter = PollerMeter::new();
        this.summary = watch.summary();
        this.link = Some(Link::new(index, watch, registry, &options.reconnect));
        // An error is kept, and returned by every later call.
        let _ = this.reconnect();
        this
    }

    fn empty(timeout: Duration) -> Self {
        let clock = runtime::clock();
        Self {
            queues: Vec::new(),
            queue_map: QueueMap::new(std::iter::empty()),
            dirty: Vec::new(),
            depth: 0,
            in_flight: 0,
            next: 0,
            latest: 0,
            completion_queue: None,
            events: None,
            descriptor: None,
            is_armed: false,
            // Never grows for an owner that takes all completions before the next poll.
            done: VecDeque::with_capacity(2 * POLL_BATCH),
            returned: None,
            pending: PendingCommands::default(),
            batch: Box::new([Completion::default(); POLL_BATCH]),
            failed_commands: Vec::new(),
            meter: PollerMeter::unread(),
            ticks: Ticks::new(&clock),
            submitted_at: 0,
            last_traffic: 0,
            tick: Tick::new(clock.raw()),
            clock,
            timeout,
            aborting: None,
            failed_work: None,
            link: None,
            summary: Arc::default(),
            unguarded: 0,
            internal: None,
            fused: FusedPairs::default(),
            failure: None,
        }
    }

    /// Adds a connected queue, whose completions go to the poller's completion queue.
    pub(crate) fn add(&mut self, queue: Queue<P>) {
        // With many queues it takes long to register all their descriptors again.
        self.events = self.events.take().and_then(|events| events.with(&queue));
        self.forget_descriptors();
        self.depth += queue.depth();
        self.queues.push(queue);
        self.queue_map = QueueMap::new(self.queues.iter().map(Queue::number));
        self.dirty.reserve(self.queues.len());
    }

    pub(crate) fn completion_queue(&mut self) -> Option<&mut CompletionQueue<P>> {
        self.completion_queue.as_mut()
    }

    /// Registers the queues with the watch of device events.
    pub(crate) fn report_to(&self, watch: &mut DeviceWatch<P>) {
        if let Some(completion_queue) = &self.completion_queue {
            watch.add(&self.queues, completion_queue);
        }
    }

    /// Queues a command on the next queue that has room, round-robin. Nothing is sent before
    /// [`ring_doorbells`](Self::ring_doorbells).
    ///
    /// Latency counts from the first submission since the last doorbell or [`poll`](Self::poll):
    /// the clock is read once for all of them.
    ///
    /// # Errors
    ///
    /// When all queues are full, or the poller has failed. The error returns the buffer.
    #[inline(never)] // inlined into the caller, it would copy the command several times
    pub fn submit(&mut self, mut command: Command) -> Result<(), SubmitError> {
        self.submit_from(&mut command)
    }

    /// Queues a command as [`submit`](Self::submit); its data is taken.
    #[inline(always)]
    pub(crate) fn submit_from(&mut self, command: &mut Command) -> Result<(), SubmitError> {
        let started = self.submission_time();
        if self.submit_fast(command, started) {
            return Ok(());
        }
        let index = self.pick();
        self.submit_at(index, command, started)
    }

    /// Queues a command, submitted at the clock reading `started`, on the next queue if it takes it
    /// on its fast path; returns false otherwise.
    #[inline(always)]
    pub(crate) fn submit_fast(&mut self, command: &mut Command, started: u64) -> bool {
        let index = self.next;
        if !self.is_guarded()
            && let Some(queue) = self.queues.get_mut(index)
            && queue.submit_fast(command, started)
        {
            self.in_flight += 1;
            note_dirty(queue, index, &mut self.dirty);
            self.next = self.after(index);
            return true;
        }
        false
    }

    /// Clock reading for the commands that are submitted until the next doorbell or poll.
    #[inline]
    pub(crate) fn submission_time(&mut self) -> u64 {
        if self.submitted_at == 0 {
            self.submitted_at = self.clock.raw();
        }
        self.submitted_at
    }

    /// Notes that a queue has one more command in flight, and needs a doorbell.
    #[inline]
    fn note_submitted(&mut self, index: usize) {
        self.in_flight += 1;
        note_dirty(&mut self.queues[index], index, &mut self.dirty);
    }

    /// Hands all queued commands to the device, with one doorbell per queue.
    ///
    /// # Errors
    ///
    /// When the device refuses, no event within [`FLUSH_CAUSE_TIMEOUT`] reports the loss of the
    /// connection, and the controller does not reconnect. The poller has then failed.
    ///
    /// [`FLUSH_CAUSE_TIMEOUT`]: crate::config::FLUSH_CAUSE_TIMEOUT
    #[inline]
    pub fn ring_doorbells(&mut self) -> Result<(), Error> {
        self.submitted_at = 0;
        match self.ring_doorbells_if_dirty() {
            Ok(()) => Ok(()),
            Err(error) => self.lose(error),
        }
    }

    /// Rings the doorbells of the queues that need it.
    #[inline(always)]
    fn ring_doorbells_if_dirty(&mut self) -> Result<(), Error> {
        if self.dirty.is_empty() { Ok(()) } else { self.ring_dirty_doorbells() }
    }

    /// Fails if another thread has reported the loss of the connection: a command that is still
    /// here is not sent on it.
    #[inline(never)]
    fn ring_dirty_doorbells(&mut self) -> Result<(), Error> {
        if self.is_guarded() && self.is_lost() {
            return Err(Error::Closed); // the first report of the loss has its cause
        }
        while let Some(index) = self.dirty.pop() {
            let queue = &mut self.queues[index];
            queue.is_dirty = false;
            if let Err(error) = queue.ring_doorbell() {
                FailedWork::await_cause(&mut self.failed_work, error)?;
            }
        }
        Ok(())
    }

    /// Polls for completions, without blocking; [`take`](Self::take) returns them. Returns their
    /// number. Every [`TICK`](crate::config::TICK) it also checks connections and timeouts.
    ///
    /// # Errors
    ///
    /// When the controller has ended. All commands have then completed, with that error.
    #[inline(always)] // with all that it calls: most polls of a loop find nothing
    pub fn poll(&mut self) -> Result<usize, Error> {
        self.poll_into(VecDeque::push_back)
    }

    /// As [`poll`](Self::poll), but passes each completion to `each` instead of storing it, which
    /// saves two moves.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll). Commands that fail with it are returned by [`take`](Self::take).
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

    /// As [`poll_with`](Self::poll_with), but completions that are stored are left, for
    /// [`take`](Self::take). Returns their number; the others are passed to `each` with those.
    #[inline(always)]
    pub(crate) fn poll_into(
        &mut self,
        each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<usize, Error> {
        self.submitted_at = 0;
        let before = self.done.len();
        if self.completion_queue.is_none() {
            self.reconnect()?;
        } else if let Err(error) = self.poll_connected(each) {
            self.lose(error)?;
        }
        if !self.pending.is_empty() {
            self.submit_pending()?;
        }
        Ok(self.done.len() - before)
    }

    #[inline(always)]
    fn poll_connected(
        &mut self,
        each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<(), Error> {
        let now = self.completions(Idle::Return, each)?;
        if self.tick.is_due(now, &self.clock, self.ticks) {
            self.tick()?;
        }
        if self.internal.is_some() {
            self.send_internal();
            self.ring_doorbells_if_dirty()?;
        }
        Ok(())
    }

    /// Returns the next completion.
    #[inline]
    pub fn take(&mut self) -> Option<CommandCompletion> {
        self.done.pop_front()
    }

    /// Closes all queues for good. Every command completes with `error`, and is returned by
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
        self.fail_pending(&error);
        self.failure = Some(error.clone());
        error
    }

    /// Number of commands that can be submitted now.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        if self.queues.is_empty() {
            return if self.failure.is_some() { 0 } else { self.pending.room() };
        }
        self.depth.saturating_sub(self.in_flight + self.pending.len())
    }

    /// Number of commands in flight or pending.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.pending.len()
    }

    /// Number of commands held back, of [`in_flight`](Self::in_flight): they wait for a connection,
    /// behind the write fence, for room in a queue, or for the time of their retry.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending.len()
    }

    /// Maximum number of commands in flight on all queues.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns true if the poller has queues now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Number of queues.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Statistics of the poller.
    pub fn statistics(&mut self) -> &mut Statistics {
        self.count_work();
        self.meter.statistics(self.ticks)
    }

    /// Adds what the queues have counted since the last call to the statistics.
    fn count_work(&mut self) {
        for queue in &mut self.queues {
            self.meter.device().doorbells += queue.new_doorbells();
            self.meter.add_windows(queue.new_invalidations());
        }
    }

    /// Index of the next queue that has room, round-robin.
    #[inline]
    fn pick(&mut self) -> Option<usize> {
        let index = if self.next < self.queues.len() { self.next } else { 0 };
        if self.queues.get(index)?.has_room() {
            self.next = self.after(index);
            return Some(index);
        }
        self.pick_another()
    }

    /// Index of the queue after this one. The fast path has no other way to the first one again.
    #[inline]
    fn after(&self, index: usize) -> usize {
        if index + 1 < self.queues.len() { index + 1 } else { 0 }
    }

    #[inline(never)]
    fn pick_another(&mut self) -> Option<usize> {
        for _ in 0..self.queues.len() {
            let index = if self.next < self.queues.len() { self.next } else { 0 };
            self.next = self.after(index);
            if self.queues[index].has_room() {
                return Some(index);
            }
        }
        None
    }

    /// Handles all completions; returns the clock reading, or 0 if there were none.
    #[inline(always)]
    fn completions(
        &mut self,
        idle: Idle,
        mut each: impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<u64, Error> {
        let (before, mut now) = (self.done.len(), 0);
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
            self.is_armed = false;
            now = self.handle_batch(count, &mut each)?;
            let enough = match idle {
                // Completions of sends alone are no reason to stay awake, nor to sleep unarmed.
                Idle::Arm => self.done.len() > before,
                Idle::Return => count < POLL_BATCH,
            };
            if enough {
                break;
            }
        }
        self.ring_doorbells_if_dirty()?;
        Ok(now)
    }

    /// Handles the completions of a batch. The clock is read once for all of them.
    #[inline(always)]
    fn handle_batch(
        &mut self,
        count: usize,
        each: &mut impl FnMut(&mut VecDeque<CommandCompletion>, CommandCompletion),
    ) -> Result<u64, Error> {
        let now = self.clock.raw();
        let mut response = Cqe::default();
        'completions: for at in 0..count.min(POLL_BATCH) {
            let completion = &self.batch[at];
            let queue_pair = completion.queue_pair();
            let queue = 'found: {
                if let Some(queue) = self.queues.get_mut(self.latest)
                    && queue.number() == queue_pair
                {
                    break 'found queue;
                }
                // A queue that was closed leaves completions behind.
                let Some(index) = self.queue_map.find(queue_pair) else { continue 'completions };
                self.latest = index;
                &mut self.queues[index]
            };
            let completed = match queue.complete(completion, &mut response) {
                // The receive that is queued again can wait for the next command: the device has
                // as many as before for each command in flight.
                Ok(Some(completed)) if response.status().is_success() => completed,
                Ok(Some(Completed { slot, .. })) => {
                    self.complete_failed(self.latest, slot, queue_pair, response);
                    continue;
                }
                Ok(None) => continue,
                Err(unhandled) => {
                    match self.complete_slowly(self.latest, at, unhandled, &mut response)? {
                        Some(slot) if response.status().is_success() => {
                            self.queues[self.latest].completed(slot)
                        }
                        Some(slot) => {
                            self.complete_failed(self.latest, slot, queue_pair, response);
                            continue;
                        }
                        None => continue,
                    }
                }
            };
            self.in_flight -= 1;
            self.last_traffic = completed.started();
            completed.record_success(now, &mut self.meter);
            if let Some(kind) = completed.unseen() {
                let completion = completed.into_completion(response);
                self.complete_unseen(kind, completion);
            } else {
                each(&mut self.done, completed.into_completion(response));
            }
        }
        debug_assert_eq!(
            self.in_flight,
            self.queues.iter().map(Queue::in_flight).sum::<usize>(),
            "the sum of the slots in flight"
        );
        Ok(now)
    }
}

impl<P: Provider> Drop for Poller<P> {
    /// Disconnects. The commands in flight and their buffers are dropped.
    fn drop(&mut self) {
        if self.is_connected() {
            self.close(&Error::Closed);
        }
    }
}

/// Notes that a queue may need a doorbell.
#[inline]
fn note_dirty<P: Provider>(queue: &mut Queue<P>, index: usize, dirty: &mut Vec<usize>) {
    if !std::mem::replace(&mut queue.is_dirty, true) {
        dirty.push(index);
    }
}
