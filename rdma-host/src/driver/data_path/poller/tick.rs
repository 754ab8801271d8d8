//! What a poller looks after by the clock, whatever its commands do: dead connections, and commands
//! that are late.

use quanta::Clock;
use verbs::Provider;

use super::{Aborting, Poller, internal_command};
use crate::{
    config::{ABORT_TIMEOUT, CONNECTIONS_PER_TICK, POLLS_PER_CLOCK_READ, TICK},
    driver::data_path::connection::TimedOutCommand,
    error::Error,
};

/// When a poller last looked after such things, and when it will again.
pub(super) struct Tick {
    last: u64,
    /// When the oldest command in flight was last looked for.
    ages: u64,
    /// Since when the queues are the poller's.
    pub(super) since: u64,
    /// Looks that find nothing before the clock is read.
    looks: u32,
    /// The queue whose connection is looked at next.
    connection: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "a tick is far below 500 years")]
const TICK_NS: u64 = TICK.as_nanos() as u64;

impl Tick {
    pub(super) fn new(now: u64) -> Self {
        Self { last: now, ages: now, since: now, looks: 0, connection: 0 }
    }

    /// Whether it is time, after a look. One that found something knows `now`; for others the
    /// clock is read only now and then.
    #[inline]
    pub(super) fn is_due(&mut self, now: Option<u64>, clock: &Clock) -> bool {
        if now.is_none() && self.looks > 0 {
            self.looks -= 1;
            return false;
        }
        self.looks = POLLS_PER_CLOCK_READ;
        let now = now.unwrap_or_else(|| clock.raw());
        clock.delta_as_nanos(self.last, now) >= TICK_NS
    }

    /// Has the clock read after the next look.
    pub(super) fn hasten(&mut self) {
        self.looks = 0;
    }
}

impl<P: Provider> Poller<P> {
    /// Looks after all of it.
    #[cold]
    #[inline(never)]
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        let now = self.clock.raw();
        self.tick.last = now;
        if let Some(link) = &self.link {
            if !link.is_live() {
                return Err(Error::Closed); // the first report of the loss has its cause
            }
            let mailbox = link.mailbox().expect("a poller that has queues has a mailbox");
            if self.traffic != 0 {
                mailbox.record_traffic(self.clock.delta(self.traffic, now));
                self.traffic = 0;
            }
            if self.errand.is_none() {
                let command = mailbox.take_internal_command();
                self.errand = command.map(internal_command::State::new);
            }
        }
        self.check_connections()?;
        self.failed_work.as_ref().map_or(Ok(()), |work| work.check())?;
        // Looking takes long where there is much in flight, and need not be exact.
        let since = self.clock.delta(self.tick.ages, now);
        if since >= TICK.max(self.timeout / 64) || self.aborting.is_some() {
            self.tick.ages = now;
            return self.check_ages(now);
        }
        Ok(())
    }

    /// Looks for events of some connections, in turn: each look is a system call. Whatever ends one
    /// connection of a controller mostly ends all.
    fn check_connections(&mut self) -> Result<(), Error> {
        let max = if self.failed_work.is_some() { usize::MAX } else { CONNECTIONS_PER_TICK };
        for _ in 0..self.queues.len().min(max) {
            let index = self.tick.connection % self.queues.len();
            self.tick.connection = index + 1;
            let queue = &mut self.queues[index];
            let before_live = self.link.is_none() && !queue.flushes_before_event();
            match (queue.check_connection(), &self.failed_work) {
                // A target that hangs up on a connecting queue refuses us; one that broke the
                // connection by what it sent does not.
                (Err(_), Some(work)) if before_live => return Err(work.error()),
                (outcome, _) => outcome?,
            }
        }
        Ok(())
    }

    /// Has a command aborted that is out of time, and gives up on it if that does not help.
    fn check_ages(&mut self, now: u64) -> Result<(), Error> {
        let ages = self.queues.iter().filter_map(|queue| {
            let (started, command) = queue.oldest()?;
            // The time without a connection is not the target's.
            let age = self.clock.delta(started.max(self.tick.since), now);
            Some((age, TimedOutCommand { queue: queue.id(), command }))
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
            _ if self.abort(late) => {
                self.aborting = Some(Aborting { late, since: now });
                Ok(())
            }
            _ => Err(timeout),
        }
    }

    /// Requests the abort of a command; returns false where that is impossible.
    fn abort(&self, command: TimedOutCommand) -> bool {
        let connection = self.link.as_ref().and_then(|link| link.connection.as_ref());
        connection.is_some_and(|connection| connection.abort(command))
    }
}
