//! Keeps one poller busy, and times what becomes of each command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use cpu_time::ThreadTime;
use quanta::Instant;
use rdma_host::{Buffer, Poller, WaitMode, Waiter};

use super::arrivals::Arrivals;
use super::command_generator::{Stream, Wanted};
use super::counters::Tally;
use crate::cpus;
use crate::failure::Failure;

/// A worker looks around at least this often.
const LIMIT: Duration = Duration::from_millis(100);
/// Timers wake up to this late; a worker that must be on time spins for as long.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// When what happens; the same for all workers.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    /// Of the measurement.
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) interval: Duration,
}

/// What the workers of one target share.
pub(super) struct Shared {
    /// Somebody failed.
    pub(super) stop: Arc<AtomicBool>,
    /// Bytes asked for since the measurement began.
    pub(super) asked: AtomicU64,
    /// Bytes to ask for.
    pub(super) limit: u64,
}

/// One worker's counters of one interval.
pub(super) struct Chapter {
    /// Which target.
    pub(super) target: usize,
    /// Which interval since the measurement began.
    pub(super) interval: u64,
    /// When the worker ended it, since the measurement began.
    pub(super) ended: Duration,
    pub(super) tally: Tally,
}

pub(super) struct Worker<'a> {
    pub(super) target: usize,
    /// Where to run.
    pub(super) cpu: Option<usize>,
    pub(super) poller: &'a mut Poller,
    pub(super) wait: WaitMode,
    /// How many workers there are.
    pub(super) pollers: usize,
    pub(super) stream: Stream,
    /// Of an open loop.
    pub(super) arrivals: Option<Arrivals>,
    /// For each size of command.
    pub(super) buffers: Vec<Vec<Buffer>>,
    pub(super) schedule: Schedule,
    pub(super) shared: &'a Shared,
    pub(super) chapters: Sender<Chapter>,
}

/// A command in flight.
#[derive(Clone, Copy)]
struct Flight {
    wanted: Wanted,
    due: Instant,
    submitted: Instant,
    rung: Instant,
}

struct Running<'a> {
    worker: Worker<'a>,
    waiter: Waiter,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Submitted since the doorbell last rang.
    fresh: Vec<usize>,
    tally: Tally,
    measuring: bool,
    interval: u64,
    over: bool,
    cpu: ThreadTime,
}

impl Worker<'_> {
    /// Runs until time is over, or the bytes are asked for, and nothing is in flight.
    pub(super) fn run(self) -> Result<(), Failure> {
        cpus::pin(self.cpu)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let shared = self.shared;
        let depth = self.poller.depth().min(self.buffers[0].len());
        let open = self.arrivals.is_some();
        let running = Running {
            waiter: Waiter::on_own_thread(self.wait, self.pollers),
            worker: self,
            flights: vec![None; depth],
            free: (0..depth).rev().collect(),
            fresh: Vec::with_capacity(depth),
            tally: Tally::new(open),
            measuring: false,
            interval: 0,
            over: false,
            cpu: ThreadTime::now(),
        };
        let outcome = runtime.map_err(Failure::failed)?.block_on(running.run());
        if outcome.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Running<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        loop {
            self.turn(Instant::now());
            self.submit()?;
            self.worker.poller.flush()?;
            let rung = Instant::now();
            for slot in self.fresh.drain(..) {
                self.flights[slot].as_mut().expect("it is in flight").rung = rung;
            }
            self.worker.poller.poll()?;
            if self.complete(rung)? {
                self.waiter.busy();
            } else if self.over && self.worker.poller.in_flight() == 0 {
                self.end();
                return Ok(());
            } else {
                self.wait().await?;
            }
        }
    }

    /// Notes what the time says: that the measurement begins, an interval ends, or all is over.
    fn turn(&mut self, now: Instant) {
        let schedule = self.worker.schedule;
        if !self.measuring && now >= schedule.begin {
            self.measuring = true;
            self.take_tally();
        }
        self.over |= now >= schedule.end || self.worker.shared.stop.load(Ordering::Relaxed);
        while !self.over && self.measuring && now >= self.boundary() {
            self.report(now);
            self.interval += 1;
        }
    }

    /// When the interval ends.
    fn boundary(&self) -> Instant {
        let interval = self.worker.schedule.interval.as_nanos();
        let nanoseconds = interval.saturating_mul(u128::from(self.interval) + 1);
        self.worker.schedule.begin + Duration::from_nanos_u128(nanoseconds)
    }

    fn take_tally(&mut self) -> Tally {
        let cpu = ThreadTime::now();
        let fresh = Tally::new(self.worker.arrivals.is_some());
        let mut tally = std::mem::replace(&mut self.tally, fresh);
        tally.statistics = self.worker.poller.statistics().take();
        tally.cpu = cpu.duration_since(std::mem::replace(&mut self.cpu, cpu));
        tally
    }

    fn report(&mut self, now: Instant) {
        let tally = self.take_tally();
        let ended = now.saturating_duration_since(self.worker.schedule.begin);
        let (target, interval) = (self.worker.target, self.interval);
        // Who no longer listens has failed, and says so.
        let _ = self.worker.chapters.send(Chapter { target, interval, ended, tally });
    }

    fn end(&mut self) {
        let schedule = self.worker.schedule;
        if let Some(arrivals) = &self.worker.arrivals
            && Instant::now() >= schedule.end
        {
            self.tally.missed = arrivals.left_before(schedule.end - schedule.start);
        }
        self.report(Instant::now());
    }

    /// When the next command is due, where nothing but time keeps it.
    fn due(&self) -> Option<Instant> {
        let arrivals = self.worker.arrivals.as_ref()?;
        (!self.over && !self.free.is_empty()).then(|| self.worker.schedule.start + arrivals.due())
    }

    fn submit(&mut self) -> Result<(), Failure> {
        while !self.over && self.worker.poller.room() > 0 && !self.free.is_empty() {
            let now = Instant::now();
            let due = self.due().unwrap_or(now);
            if due > now {
                return Ok(());
            }
            let wanted = self.worker.stream.next();
            let shared = self.worker.shared;
            if self.measuring
                && shared.asked.fetch_add(wanted.bytes, Ordering::Relaxed) >= shared.limit
            {
                self.over = true;
                return Ok(());
            }
            if let Some(arrivals) = &mut self.worker.arrivals {
                arrivals.advance();
            }
            let slot = self.free.pop().expect("one is free");
            let buffer = self.worker.buffers[wanted.size].pop().expect("as many as slots");
            let mut command = self.worker.stream.command(wanted, buffer);
            command.user = slot as u64;
            self.flights[slot] = Some(Flight { wanted, due, submitted: now, rung: now });
            self.fresh.push(slot);
            self.worker.poller.submit(command)?;
        }
        Ok(())
    }

    /// Takes what is done; says whether anything was.
    fn complete(&mut self, polled: Instant) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(done) = self.worker.poller.take() {
            any = true;
            let slot = usize::try_from(done.user).expect("a slot's number");
            let flight = self.flights[slot].take().expect("it was in flight");
            let wanted = flight.wanted;
            let (outcome, buffer) = done.into_result(if wanted.write { "Write" } else { "Read" });
            outcome.map_err(|error| {
                Failure::from(error).context(format!("at byte {} of the namespace", wanted.offset))
            })?;
            let buffer = buffer.ok_or_else(|| Failure::failed("a command came without data"))?;
            self.worker.stream.check(wanted, &buffer)?;
            self.worker.buffers[wanted.size].push(buffer);
            self.free.push(slot);
            self.time(flight, polled);
        }
        Ok(any)
    }

    fn time(&mut self, flight: Flight, polled: Instant) {
        let now = Instant::now();
        let between = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        let stages = &mut self.tally.stages;
        stages.count += 1;
        stages.queue += between(flight.due, flight.submitted);
        stages.submit += between(flight.submitted, flight.rung);
        stages.wire_and_target += between(flight.rung, polled);
        stages.completion += between(polled, now);
        self.tally.record_due(flight.wanted.write, now.saturating_duration_since(flight.due));
    }

    /// Spins or sleeps until something may be there to do.
    async fn wait(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let until_due = self.due().map(|due| due.saturating_duration_since(now));
        if until_due.is_some_and(|left| left <= TIMER_SLACK) {
            std::thread::yield_now();
        } else if !self.waiter.spins() {
            let schedule = self.worker.schedule;
            let turn = match (self.measuring, self.over) {
                (_, true) => now + LIMIT,
                (true, false) => self.boundary().min(schedule.end),
                (false, false) => schedule.begin,
            };
            let turn = turn.saturating_duration_since(now).max(Duration::from_millis(1));
            let due = until_due.map_or(LIMIT, |left| left.saturating_sub(TIMER_SLACK));
            self.worker.poller.ready(LIMIT.min(turn).min(due)).await?;
        }
        Ok(())
    }
}
