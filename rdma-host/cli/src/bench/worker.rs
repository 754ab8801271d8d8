//! Keeps one queue busy and times each command.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use cpu_time::ThreadTime;
use quanta::{Clock, Instant};
use rdma_host::{Buffer, CommandCompletion, WaitMode, Waiter};

use super::{
    arrivals::Arrivals,
    command_generator::{CommandGenerator, IoRequest},
    counters::Counters,
    disturbance::ThreadScheduling,
};
use crate::{
    command_queue::CommandQueue,
    failure::Failure,
    load::{self, DRAIN_TIMEOUT, block_on_cpu, completed_buffer},
    shutdown::ShutdownSignal,
};

/// Longest sleep of a worker.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Lateness of timers; a worker that must submit in time spins for as long.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Least time of an interval, in units of the processor time that its report takes.
const LOAD_SHARE: u32 = 4;

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

/// Counters of one worker for one interval, or for several of which the earlier ones were over
/// before it could report them.
pub(super) struct IntervalReport {
    /// Index of the target.
    pub(super) target: usize,
    /// Numbers of the intervals since the measurement began.
    pub(super) intervals: Range<u64>,
    /// Time at which the worker ended them, since the measurement began.
    pub(super) ended: Duration,
    pub(super) counters: Counters,
}

pub(super) struct Worker<'a> {
    pub(super) target: usize,
    /// Processor to run on.
    pub(super) cpu: Option<usize>,
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
    /// Processor time, in nanoseconds, in which the reports of the last interval were added up.
    pub(super) recording_ns: Arc<AtomicU64>,
}

/// Command in flight. Times are in units of the clock, which cost less than an [`Instant`].
struct PendingIo {
    /// Buffer, while the command is not in flight.
    buffer: Option<Buffer>,
    /// Index of the buffer's size among the block sizes.
    size: usize,
    /// Bytes from the start of the namespace.
    offset: u64,
    write: bool,
    /// Time from the due time to the submission, in nanoseconds.
    queue_ns: u64,
    submitted: u64,
    /// Time from the submission to the call that rang the doorbell.
    submit: u64,
    /// Time in that call.
    doorbell: u64,
    /// Time after it.
    rung: u64,
    /// Next slot of the list that this one is in.
    next: usize,
}

/// List of slots, linked by the slots themselves.
struct SlotList {
    /// The slot that was added last; [`NO_SLOT`] if there is none.
    first: usize,
}

/// Number of no slot.
const NO_SLOT: usize = usize::MAX;

struct WorkerLoop<'a, Q> {
    worker: Worker<'a>,
    queue: &'a mut Q,
    waiter: Waiter,
    /// Maximum number of commands in flight.
    depth: usize,
    in_flight: usize,
    /// Commands in flight, with a slot for each buffer.
    pending: Vec<PendingIo>,
    /// Free slots for each size of command.
    free: Vec<SlotList>,
    /// Slots submitted since the doorbell last rang.
    awaiting_doorbell: SlotList,
    /// Counters of the interval. The stages are in units of the clock until it ends.
    counters: Counters,
    clock: Clock,
    measuring: bool,
    /// Number of the present interval.
    interval: u64,
    /// Time at which it is reported, with those that are over by then.
    report_due: Instant,
    /// True once no more commands are to be submitted.
    stopping: bool,
    /// End of the wait for commands in flight, once a signal or a failure has ended the load.
    drain_end: Option<Instant>,
    cpu: ThreadTime,
    scheduling: ThreadScheduling,
    /// Time at which the next turn of the loop is due.
    turn_due: Instant,
}

impl<'a> Worker<'a> {
    /// Runs until the end of the schedule or a stop condition, then until nothing is in flight; for
    /// [`DRAIN_TIMEOUT`] at most if a signal or a failure was the condition. Reports what it
    /// measured also if it fails.
    pub(super) fn run(self, queue: &'a mut impl CommandQueue) -> Result<(), Failure> {
        let (cpu, failed) = (self.cpu, &self.conditions.failed);
        let outcome = block_on_cpu(cpu, async {
            let mut worker = WorkerLoop::new(self, queue);
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

impl PendingIo {
    /// Slot that is free.
    fn new(size: usize, buffer: Buffer) -> Self {
        Self {
            buffer: Some(buffer),
            size,
            offset: 0,
            write: false,
            queue_ns: 0,
            submitted: 0,
            submit: 0,
            doorbell: 0,
            rung: 0,
            next: NO_SLOT,
        }
    }
}

impl SlotList {
    const fn new() -> Self {
        Self { first: NO_SLOT }
    }

    #[inline(always)]
    fn push(&mut self, slot: usize, io: &mut PendingIo) {
        io.next = std::mem::replace(&mut self.first, slot);
    }

    #[inline(always)]
    fn pop<'a>(&mut self, pending: &'a mut [PendingIo]) -> Option<(usize, &'a mut PendingIo)> {
        let slot = self.first;
        let io = pending.get_mut(slot)?;
        self.first = io.next;
        Some((slot, io))
    }
}

impl StopConditions {
    /// Counts the bytes of one more command; returns true if it is beyond the maximum.
    #[inline]
    fn is_exhausted(&self, bytes: u64) -> bool {
        // Without a maximum, the workers share no counter.
        self.bytes_max < u64::MAX
            && self.submitted_bytes.fetch_add(bytes, Ordering::Relaxed) >= self.bytes_max
    }

    fn is_ended_early(&self) -> bool {
        self.shutdown.get().is_some() || self.failed.load(Ordering::Relaxed)
    }
}

impl<'a, Q: CommandQueue> WorkerLoop<'a, Q> {
    /// Must be called on the worker's own thread.
    fn new(mut worker: Worker<'a>, queue: &'a mut Q) -> Self {
        let depth = queue.depth().min(worker.buffers[0].len());
        let buffers = std::mem::take(&mut worker.buffers);
        let mut free: Vec<_> = buffers.iter().map(|_| SlotList::new()).collect();
        let slots = (0..).zip(buffers).flat_map(|(size, buffers)| {
            buffers.into_iter().map(move |buffer| PendingIo::new(size, buffer))
        });
        let mut pending: Vec<_> = slots.collect();
        pending.iter_mut().enumerate().for_each(|(slot, io)| free[io.size].push(slot, io));
        // May change the scheduling class.
        let waiter = load::waiter(worker.wait, worker.workers, worker.machine_is_busy);
        Self {
            waiter,
            depth,
            in_flight: 0,
            pending,
            free,
            awaiting_doorbell: SlotList::new(),
            counters: Counters::new(worker.arrivals.is_some()),
            clock: Clock::new(),
            measuring: false,
            interval: 0,
            report_due: worker.schedule.begin + worker.schedule.interval,
            stopping: false,
            drain_end: None,
            cpu: ThreadTime::now(),
            scheduling: ThreadScheduling::of_this_thread(),
            turn_due: Instant::now(),
            worker,
            queue,
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
            self.turn_due = self.clock.scaled(polled);
            if self.complete(polled)? {
                self.waiter.busy();
            } else if self.is_over(self.turn_due) {
                return Ok(());
            } else {
                self.wait().await?;
            }
        }
    }

    /// Sends what was submitted, and returns the clock reading after that.
    fn ring_doorbell(&mut self) -> Result<u64, Failure> {
        let before = self.clock.raw();
        self.queue.ring_doorbells()?;
        if self.awaiting_doorbell.first == NO_SLOT {
            return Ok(before);
        }
        let after = self.clock.raw();
        while let Some((_, io)) = self.awaiting_doorbell.pop(&mut self.pending) {
            io.submit = before.wrapping_sub(io.submitted);
            (io.doorbell, io.rung) = (after.wrapping_sub(before), after);
        }
        Ok(after)
    }

    fn is_over(&self, now: Instant) -> bool {
        let in_flight = self.queue.in_flight();
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
        if !self.stopping && self.measuring && now >= self.report_due {
            self.end_intervals(now);
        }
    }

    /// Reports the intervals that are over. The next ones are reported once their commands have had
    /// [`LOAD_SHARE`] times as long as this report takes.
    fn end_intervals(&mut self, now: Instant) {
        let Schedule { begin, interval, .. } = self.worker.schedule;
        let over = now.saturating_duration_since(begin).as_nanos() / interval.as_nanos().max(1);
        let next = u64::try_from(over).unwrap_or(u64::MAX).max(self.interval + 1);
        let cpu = ThreadTime::now();
        self.report(now, next);
        let recording = Duration::from_nanos(self.worker.recording_ns.load(Ordering::Relaxed));
        let cost = cpu.elapsed() + recording;
        let end = interval.as_nanos().saturating_mul(u128::from(self.interval) + 1);
        let end = begin + Duration::from_nanos_u128(end);
        self.report_due = end.max(now + cost * LOAD_SHARE);
    }

    /// Counters since the last call.
    fn take_counters(&mut self) -> Counters {
        let cpu = ThreadTime::now();
        let empty = Counters::new(self.worker.arrivals.is_some());
        let mut counters = std::mem::replace(&mut self.counters, empty);
        counters.statistics = self.queue.statistics().take();
        counters.stages = counters.stages.scaled(&self.clock);
        counters.scheduling = self.scheduling.take();
        counters.cpu = cpu.duration_since(std::mem::replace(&mut self.cpu, cpu));
        counters
    }

    /// Reports what was counted since the last report, for the intervals before `next`.
    fn report(&mut self, now: Instant, next: u64) {
        let counters = self.take_counters();
        let ended = now.saturating_duration_since(self.worker.schedule.begin);
        let intervals = std::mem::replace(&mut self.interval, next)..next;
        let target = self.worker.target;
        // The receiver is gone only when the main thread panicked.
        let _ = self.worker.reports.send(IntervalReport { target, intervals, ended, counters });
    }

    /// Reports the last interval, if the measurement had begun.
    fn end(&mut self) {
        if !self.measuring {
            return;
        }
        self.counters.unfinished = self.in_flight as u64;
        let schedule = self.worker.schedule;
        if let Some(arrivals) = &self.worker.arrivals
            && Instant::now() >= schedule.end
        {
            self.counters.missed = arrivals.remaining_before(schedule.end - schedule.start);
        }
        self.report(Instant::now(), self.interval + 1);
    }

    /// Due time of the next command of an open loop, if it could be submitted now.
    fn next_due(&self) -> Option<Instant> {
        let arrivals = self.worker.arrivals.as_ref()?;
        let can_submit = !self.stopping && self.in_flight < self.depth;
        can_submit.then(|| self.worker.schedule.start + arrivals.due())
    }

    /// Submits as many commands as there is room for, or are due. In a closed loop the clock is
    /// read once for all of them.
    fn submit(&mut self) -> Result<(), Failure> {
        let room = if self.stopping { 0 } else { self.queue.room() };
        let mut submitted = self.clock.raw();
        for _ in 0..room.min(self.depth - self.in_flight) {
            let (mut queue_ns, mut write) = (0, None);
            if self.worker.arrivals.is_some() {
                submitted = self.clock.raw();
                let Some(late) = self.lateness(submitted) else { return Ok(()) };
                queue_ns = late;
                write = self.next_arrival();
            }
            let request = self.worker.generator.next(write);
            if self.measuring && self.worker.conditions.is_exhausted(request.bytes) {
                self.stopping = true;
                return Ok(());
            }
            let IoRequest { size, offset, write, .. } = request;
            let free = self.free[size].pop(&mut self.pending);
            let (slot, io) = free.expect("as many as may be in flight");
            let buffer = io.buffer.take().expect("a free slot has its buffer");
            (io.offset, io.write) = (offset, write);
            (io.submitted, io.queue_ns) = (submitted, queue_ns);
            self.in_flight += 1;
            self.awaiting_doorbell.push(slot, io);
            let generator = &mut self.worker.generator;
            self.queue.submit(generator.command(request, buffer, slot as u64))?;
        }
        Ok(())
    }

    /// Moves on to the due time after the next command of an open loop; returns true if that is to
    /// be a write, and false for a read, if the arrivals say so.
    fn next_arrival(&mut self) -> Option<bool> {
        let arrivals = self.worker.arrivals.as_mut()?;
        let write = arrivals.is_write();
        arrivals.advance();
        write
    }

    /// Time since the next command of an open loop was due, in nanoseconds; `None` before that.
    fn lateness(&self, now: u64) -> Option<u64> {
        let late = self.clock.scaled(now).checked_duration_since(self.next_due()?)?;
        Some(nanoseconds(late))
    }

    /// Polls and handles the commands that have completed; returns true if there were any.
    fn complete(&mut self, polled: u64) -> Result<bool, Failure> {
        let Self { worker, queue, pending, free, counters, clock, .. } = self;
        let generator = &mut worker.generator;
        let (mut completed, mut failure) = (0, None);
        let outcome = queue.poll_with(|completion| {
            completed += 1;
            let slot = usize::try_from(completion.user).expect("a slot's number");
            let io = &mut pending[slot];
            let outcome = completion.outcome.as_ref();
            if completion.data.is_none()
                || !outcome.is_ok_and(|response| response.status().is_success())
            {
                return note_failure(io, completion, &mut failure);
            }
            io.buffer = completion.data;
            if generator.verifies()
                && let Err(error) = generator.check(io.write, io.offset, io.buffer.as_ref())
            {
                failure.get_or_insert(error);
            }
            free[io.size].push(slot, io);
            record_stages(counters, clock, io, polled);
        });
        self.in_flight -= completed;
        let stages = &mut self.counters.stages;
        stages.count += completed as u64;
        stages.completion += self.clock.raw().saturating_sub(polled) * completed as u64;
        outcome?;
        failure.map_or(Ok(completed > 0), Err)
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
                self.report_due.min(schedule.end)
            } else {
                schedule.begin
            };
            let rotation = rotation.saturating_duration_since(now).max(Duration::from_millis(1));
            let due = until_due.map_or(WAIT_MAX, |left| left.saturating_sub(TIMER_SLACK));
            let limit = WAIT_MAX.min(rotation).min(due);
            self.turn_due = now + limit;
            self.queue.ready(limit).await?;
        }
        Ok(())
    }
}

/// Keeps the first failure of a command.
#[cold]
fn note_failure(io: &PendingIo, completion: CommandCompletion, first: &mut Option<Failure>) {
    let name = if io.write { "Write" } else { "Read" };
    let context = || format!("at byte {} of the namespace", io.offset);
    if let Err(error) = completed_buffer(completion, name, context) {
        first.get_or_insert(error);
    }
}

/// Adds the stages of a command that was found by the poll at `polled`. A stage that ended on a
/// processor whose clock is behind adds a negative time, which is right in the sum.
#[inline(always)]
fn record_stages(counters: &mut Counters, clock: &Clock, io: &PendingIo, polled: u64) {
    let stages = &mut counters.stages;
    stages.submit = stages.submit.wrapping_add(io.submit);
    stages.doorbell = stages.doorbell.wrapping_add(io.doorbell);
    let wire_and_target = polled.wrapping_sub(io.rung);
    stages.wire_and_target = stages.wire_and_target.wrapping_add(wire_and_target);
    if counters.latency_from_due.is_some() {
        counters.stages.queue += io.queue_ns;
        let latency_ns = io.queue_ns + clock.delta_as_nanos(io.submitted, clock.raw());
        counters.record_due(io.write, latency_ns);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
