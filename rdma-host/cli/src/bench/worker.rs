//! Keeps one poller busy and times each command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use cpu_time::ThreadTime;
use quanta::Instant;
use rdma_host::{Buffer, Poller, Provider, WaitMode, Waiter};

use super::{
    arrivals::Arrivals,
    command_generator::{CommandGenerator, IoRequest},
    counters::Counters,
    disturbance::ThreadScheduling,
};
use crate::{
    failure::Failure,
    load::{self, DRAIN_TIMEOUT, block_on_cpu, completed_buffer},
    shutdown::ShutdownSignal,
};

/// Longest sleep of a worker.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Lateness of timers; a worker that must submit in time spins for as long.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// Times that hold for all workers.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    /// Begin of the measurement, after the ramp.
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) interval: Duration,
}

/// Conditions, besides the time, that end the workers of one target.
pub(super) struct StopConditions {
    /// Set when a worker of any target has failed.
    pub(super) failed: Arc<AtomicBool>,
    pub(super) shutdown: ShutdownSignal,
    /// Set when the state is steady and the measurement need not go on.
    pub(super) steady: Arc<AtomicBool>,
    /// Bytes of the commands submitted since the measurement began.
    pub(super) submitted_bytes: AtomicU64,
    pub(super) bytes_max: u64,
}

/// Counters of one worker for one interval.
pub(super) struct IntervalReport {
    /// Index of the target.
    pub(super) target: usize,
    /// Number of the interval since the measurement began.
    pub(super) interval: u64,
    /// Time at which the worker ended it, since the measurement began.
    pub(super) ended: Duration,
    pub(super) counters: Counters,
}

pub(super) struct Worker<'a, P: Provider> {
    pub(super) target: usize,
    /// Processor to run on.
    pub(super) cpu: Option<usize>,
    pub(super) poller: &'a mut Poller<P>,
    pub(super) wait: WaitMode,
    /// True if other programs want to run.
    pub(super) machine_is_busy: bool,
    /// Number of workers of all targets.
    pub(super) workers: usize,
    pub(super) generator: CommandGenerator,
    /// Due times of the commands of an open loop.
    pub(super) arrivals: Option<Arrivals>,
    /// Free buffers for each size of command.
    pub(super) buffers: Vec<Vec<Buffer>>,
    pub(super) schedule: Schedule,
    pub(super) conditions: &'a StopConditions,
    pub(super) reports: Sender<IntervalReport>,
}

/// Command in flight.
#[derive(Clone, Copy)]
struct PendingIo {
    request: IoRequest,
    due: Instant,
    submitted: Instant,
    /// Time before and after the call that rang the doorbell.
    doorbell: [Instant; 2],
}

struct WorkerLoop<'a, P: Provider> {
    worker: Worker<'a, P>,
    waiter: Waiter,
    pending: Vec<Option<PendingIo>>,
    free_slots: Vec<usize>,
    /// Slots submitted since the doorbell last rang.
    awaiting_doorbell: Vec<usize>,
    counters: Counters,
    measuring: bool,
    interval: u64,
    /// True once no more commands are to be submitted.
    stopping: bool,
    /// End of the wait for commands in flight, once a signal or a failure has ended the load.
    drain_end: Option<Instant>,
    cpu: ThreadTime,
    scheduling: ThreadScheduling,
    /// Time at which the next turn of the loop is due.
    turn_due: Instant,
}

impl<P: Provider> Worker<'_, P> {
    /// Runs until the end of the schedule or a stop condition, then until nothing is in flight; for
    /// [`DRAIN_TIMEOUT`] at most if a signal or a failure was the condition. Reports what it
    /// measured also if it fails.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (cpu, failed) = (self.cpu, &self.conditions.failed);
        let outcome = block_on_cpu(cpu, async {
            let mut worker = WorkerLoop::new(self);
            let outcome = worker.run().await;
            worker.end();
            outcome
        });
        if outcome.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl StopConditions {
    fn is_ended_early(&self) -> bool {
        self.shutdown.get().is_some() || self.failed.load(Ordering::Relaxed)
    }
}

impl<'a, P: Provider> WorkerLoop<'a, P> {
    /// Must be called on the worker's own thread.
    fn new(worker: Worker<'a, P>) -> Self {
        let depth = worker.poller.depth().min(worker.buffers[0].len());
        // May change the scheduling class.
        let waiter = load::waiter(worker.wait, worker.workers, worker.machine_is_busy);
        Self {
            waiter,
            pending: vec![None; depth],
            free_slots: (0..depth).rev().collect(),
            awaiting_doorbell: Vec::with_capacity(depth),
            counters: Counters::new(worker.arrivals.is_some()),
            measuring: false,
            interval: 0,
            stopping: false,
            drain_end: None,
            cpu: ThreadTime::now(),
            scheduling: ThreadScheduling::of_this_thread(),
            turn_due: Instant::now(),
            worker,
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        self.turn_due = Instant::now();
        loop {
            let now = Instant::now();
            self.rotate_interval(now);
            self.scheduling.note_overdue(now.saturating_duration_since(self.turn_due));
            self.submit()?;
            let polled = self.ring_doorbell()?;
            self.turn_due = polled;
            self.worker.poller.poll()?;
            if self.complete(polled)? {
                self.waiter.busy();
            } else if self.is_over(polled) {
                return Ok(());
            } else {
                self.wait().await?;
            }
        }
    }

    /// Sends what was submitted, and returns the time after that.
    fn ring_doorbell(&mut self) -> Result<Instant, Failure> {
        let before = Instant::now();
        self.worker.poller.flush()?;
        if self.awaiting_doorbell.is_empty() {
            return Ok(before);
        }
        let after = Instant::now();
        for slot in self.awaiting_doorbell.drain(..) {
            self.pending[slot].as_mut().expect("it is in flight").doorbell = [before, after];
        }
        Ok(after)
    }

    fn is_over(&self, now: Instant) -> bool {
        let in_flight = self.worker.poller.in_flight();
        self.stopping && (in_flight == 0 || self.drain_end.is_some_and(|end| now >= end))
    }

    /// Begins the measurement, ends intervals and stops, as the time requires.
    fn rotate_interval(&mut self, now: Instant) {
        let schedule = self.worker.schedule;
        if self.drain_end.is_none() && self.worker.conditions.is_ended_early() {
            self.drain_end = Some(now + DRAIN_TIMEOUT);
            self.stopping = true;
        }
        if !self.measuring && !self.stopping && now >= schedule.begin {
            self.measuring = true;
            self.take_counters();
        }
        self.stopping |=
            now >= schedule.end || self.worker.conditions.steady.load(Ordering::Relaxed);
        while !self.stopping && self.measuring && now >= self.interval_end() {
            self.report(now);
            self.interval += 1;
        }
    }

    fn interval_end(&self) -> Instant {
        let interval = self.worker.schedule.interval.as_nanos();
        let nanoseconds = interval.saturating_mul(u128::from(self.interval) + 1);
        self.worker.schedule.begin + Duration::from_nanos_u128(nanoseconds)
    }

    /// Counters since the last call.
    fn take_counters(&mut self) -> Counters {
        let cpu = ThreadTime::now();
        let empty = Counters::new(self.worker.arrivals.is_some());
        let mut counters = std::mem::replace(&mut self.counters, empty);
        counters.statistics = self.worker.poller.statistics().take();
        counters.scheduling = self.scheduling.take();
        counters.cpu = cpu.duration_since(std::mem::replace(&mut self.cpu, cpu));
        counters
    }

    fn report(&mut self, now: Instant) {
        let counters = self.take_counters();
        let ended = now.saturating_duration_since(self.worker.schedule.begin);
        let (target, interval) = (self.worker.target, self.interval);
        // The receiver is gone only when the main thread panicked.
        let _ = self.worker.reports.send(IntervalReport { target, interval, ended, counters });
    }

    /// Reports the last interval, if the measurement had begun.
    fn end(&mut self) {
        if !self.measuring {
            return;
        }
        self.counters.unfinished = self.pending.iter().flatten().count() as u64;
        let schedule = self.worker.schedule;
        if let Some(arrivals) = &self.worker.arrivals
            && Instant::now() >= schedule.end
        {
            self.counters.missed = arrivals.remaining_before(schedule.end - schedule.start);
        }
        self.report(Instant::now());
    }

    /// Due time of the next command of an open loop, if it could be submitted now.
    fn next_due(&self) -> Option<Instant> {
        let arrivals = self.worker.arrivals.as_ref()?;
        let can_submit = !self.stopping && !self.free_slots.is_empty();
        can_submit.then(|| self.worker.schedule.start + arrivals.due())
    }

    fn submit(&mut self) -> Result<(), Failure> {
        while !self.stopping && self.worker.poller.room() > 0 && !self.free_slots.is_empty() {
            let now = Instant::now();
            let due = self.next_due().unwrap_or(now);
            if due > now {
                return Ok(());
            }
            let write = self.worker.arrivals.as_ref().and_then(Arrivals::is_write);
            let request = self.worker.generator.next(write);
            let StopConditions { submitted_bytes, bytes_max, .. } = self.worker.conditions;
            if self.measuring
                && submitted_bytes.fetch_add(request.bytes, Ordering::Relaxed) >= *bytes_max
            {
                self.stopping = true;
                return Ok(());
            }
            if let Some(arrivals) = &mut self.worker.arrivals {
                arrivals.advance();
            }
            let slot = self.free_slots.pop().expect("one is free");
            let buffer = self.worker.buffers[request.size].pop().expect("as many as slots");
            let mut command = self.worker.generator.command(request, buffer);
            command.user = slot as u64;
            self.pending[slot] =
                Some(PendingIo { request, due, submitted: now, doorbell: [now; 2] });
            self.awaiting_doorbell.push(slot);
            self.worker.poller.submit(command)?;
        }
        Ok(())
    }

    /// Takes the commands that have completed, and returns true if there were any.
    fn complete(&mut self, polled: Instant) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(completion) = self.worker.poller.take() {
            any = true;
            let slot = usize::try_from(completion.user).expect("a slot's number");
            let io = self.pending[slot].take().expect("it was in flight");
            let request = io.request;
            let name = if request.write { "Write" } else { "Read" };
            let context = || format!("at byte {} of the namespace", request.offset);
            let buffer = completed_buffer(completion, name, context)?;
            self.worker.generator.check(request, &buffer)?;
            self.worker.buffers[request.size].push(buffer);
            self.free_slots.push(slot);
            self.record_stages(io, polled);
        }
        Ok(any)
    }

    fn record_stages(&mut self, io: PendingIo, polled: Instant) {
        let now = Instant::now();
        let between = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        let stages = &mut self.counters.stages;
        stages.count += 1;
        stages.queue += between(io.due, io.submitted);
        stages.submit += between(io.submitted, io.doorbell[0]);
        stages.doorbell += between(io.doorbell[0], io.doorbell[1]);
        stages.wire_and_target += between(io.doorbell[1], polled);
        stages.completion += between(polled, now);
        self.counters.record_due(io.request.write, now.saturating_duration_since(io.due));
    }

    /// Spins or sleeps until a completion, a due time or the end of an interval.
    async fn wait(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let until_due = self.next_due().map(|due| due.saturating_duration_since(now));
        if until_due.is_some_and(|left| left <= TIMER_SLACK) {
            std::thread::yield_now();
        } else if !self.waiter.spins() {
            let schedule = self.worker.schedule;
            let rotation = if self.stopping {
                now + WAIT_MAX
            } else if self.measuring {
                self.interval_end().min(schedule.end)
            } else {
                schedule.begin
            };
            let rotation = rotation.saturating_duration_since(now).max(Duration::from_millis(1));
            let due = until_due.map_or(WAIT_MAX, |left| left.saturating_sub(TIMER_SLACK));
            let limit = WAIT_MAX.min(rotation).min(due);
            self.turn_due = now + limit;
            self.worker.poller.ready(limit).await?;
        }
        Ok(())
    }
}
