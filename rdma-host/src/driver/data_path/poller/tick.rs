//! Periodic checks of a poller: lost connections, and commands that timed out.

use quanta::Clock;
use tracing::Span;
use verbs::Provider;

use super::{Aborting, Link, Poller, internal_command::State};
use crate::{
    config::{ABORT_TIMEOUT, CONNECTIONS_PER_TICK, POLLS_PER_CLOCK_READ, TICK},
    driver::data_path::{connection::TimedOutCommand, ticks::Ticks},
    error::{AbortOutcome, Error},
    wire::QueueId,
};

/// Clock readings of the checks.
pub(super) struct Tick {
    last: u64,
    /// Time of the last search for the oldest command in flight.
    last_age_check: u64,
    /// Time at which the poller got its queues.
    pub(super) since: u64,
    /// Number of empty polls until the clock is read.
    idle_polls: u32,
    /// Index of the queue whose connection is checked next.
    connection: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "a tick is far below 500 years")]
const TICK_NS: u64 = TICK.as_nanos() as u64;

impl Tick {
    pub(super) fn new(now: u64) -> Self {
        Self { last: now, last_age_check: now, since: now, idle_polls: 0, connection: 0 }
    }

    /// Returns true if the checks are due, after a poll. A poll with completions has read the
    /// clock, as `now`, which is 0 otherwise: after empty polls it is read every
    /// [`POLLS_PER_CLOCK_READ`] of them.
    #[inline(always)]
    pub(super) fn is_due(&mut self, now: u64, clock: &Clock, ticks: Ticks) -> bool {
        if now == 0 && self.idle_polls > 0 {
            self.idle_polls -= 1;
            return false;
        }
        let now = if now == 0 { clock.raw() } else { now };
        self.idle_polls = POLLS_PER_CLOCK_READ;
        ticks.nanoseconds(self.last, now) >= TICK_NS
    }

    /// Makes the next poll read the clock.
    pub(super) fn check_soon(&mut self) {
        self.idle_polls = 0;
    }
}

impl<P: Provider> Poller<P> {
    /// Span of events that concern no single queue: that of the controller.
    pub(super) fn span(&self) -> Span {
        let connection = self.link.as_ref().and_then(|link| link.connection.as_ref());
        connection.map_or_else(Span::current, |connection| connection.span.clone())
    }

    /// Records the commands that failed as events, in the spans of their queues.
    pub(super) fn trace_failed_commands(&mut self) {
        for failed in std::mem::take(&mut self.failed_commands) {
            if let Some(index) = self.queue_map.find(failed.queue_pair) {
                failed.trace(self.queues[index].span());
            }
        }
    }

    /// Performs the checks.
    #[cold]
    #[inline(never)]
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        let now = self.clock.raw();
        self.tick.last = now;
        self.trace_failed_commands();
        if let Some(link) = &self.link {
            if !link.is_live() {
                return Err(Error::Closed); // the first report of the loss has its cause
            }
            let mailbox = link.mailbox().expect("a poller that has queues has a mailbox");
            if self.last_traffic != 0 {
                mailbox.record_traffic(self.clock.delta(self.last_traffic, now));
                self.last_traffic = 0;
            }
            if self.internal.is_none() {
                self.internal = mailbox.take_internal_command().map(State::Pending);
            }
        }
        if self.pending.has_fenced() {
            self.fail_fenced();
        }
        self.check_connections()?;
        self.failed_work.as_ref().map_or(Ok(()), |work| work.check())?;
        // The search takes long where much is in flight, and need not be exact.
        let since = self.clock.delta(self.tick.last_age_check, now);
        if since >= TICK.max(self.timeout / 64) || self.aborting.is_some() {
            self.tick.last_age_check = now;
            return self.check_timeouts(now);
        }
        Ok(())
    }

    /// Checks some connections for events, round-robin: each check is a system call. Most events
    /// that end one connection of a controller end all.
    fn check_connections(&mut self) -> Result<(), Error> {
        let max = if self.failed_work.is_some() { usize::MAX } else { CONNECTIONS_PER_TICK };
        for _ in 0..self.queues.len().min(max) {
            let index = self.tick.connection % self.queues.len();
            self.tick.connection = index + 1;
            let queue = &mut self.queues[index];
            let before_live = self.link.is_none() && !queue.flushes_before_event();
            match (queue.check_connection(), &self.failed_work) {
                // A target that disconnects a connecting queue refuses it; one that broke the
                // connection by its messages does not.
                (Err(_), Some(work)) if before_live => return Err(work.error()),
                (outcome, _) => outcome?,
            }
        }
        Ok(())
    }

    /// Requests the abort of a command that timed out, and fails if it does not complete then.
    fn check_timeouts(&mut self, now: u64) -> Result<(), Error> {
        let ages = self.queues.iter().filter_map(|queue| {
            let (started, command) = queue.oldest()?;
            // The time without a connection does not count.
            let age = self.clock.delta(started.max(self.tick.since), now);
            Some((age, TimedOutCommand { queue: queue.id(), command }))
        });
        let Some((age, oldest)) = ages.max_by_key(|&(age, _)| age) else { return Ok(()) };
        if age <= self.timeout {
            self.aborting = None;
            return Ok(());
        }
        let (queue, after) = (oldest.queue, self.timeout);
        let timeout = |abort| Error::CommandTimeout { queue, after, abort };
        match &self.aborting {
            Some(aborting) if aborting.command == oldest => {
                let is_overdue = self.clock.delta(aborting.since, now) > ABORT_TIMEOUT;
                if is_overdue { Err(timeout(self.abort_outcome())) } else { Ok(()) }
            }
            _ if self.abort(oldest) => {
                let (span, cid) = (self.span_of(oldest.queue), oldest.command);
                tracing::debug!(parent: &span, %cid, "a command timed out: its abort is requested");
                self.aborting = Some(Aborting { command: oldest, since: now });
                Ok(())
            }
            _ => Err(timeout(AbortOutcome::NotSent)),
        }
    }

    /// Span of a queue.
    fn span_of(&self, queue: QueueId) -> Span {
        let queue = self.queues.iter().find(|candidate| candidate.id() == queue);
        queue.map_or_else(Span::none, |queue| queue.span().clone())
    }

    /// Outcome of the abort of a command that did not complete.
    fn abort_outcome(&self) -> AbortOutcome {
        match self.link.as_ref().and_then(Link::mailbox) {
            Some(mailbox) if mailbox.is_aborted() => AbortOutcome::Aborted,
            _ => AbortOutcome::NoAnswer,
        }
    }

    /// Requests the abort of a command; returns false where that is impossible.
    fn abort(&self, command: TimedOutCommand) -> bool {
        let connection = self.link.as_ref().and_then(|link| link.connection.as_ref());
        connection.is_some_and(|connection| connection.abort(command))
    }
}
