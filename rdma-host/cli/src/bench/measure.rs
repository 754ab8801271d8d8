//! Runs one point on all targets, and puts together what the workers report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use quanta::Instant;
use rdma_host::Buffer;

use super::arguments::Arguments;
use super::arrivals::Arrivals;
use super::command_generator::{Shape, Stream};
use super::counters::Tally;
use super::hlog::Line;
use super::progress::Progress;
use super::sweep_points::Point;
use super::worker::{Chapter, Schedule, Shared, Worker};
use crate::failure::Failure;
use crate::load::Load;

/// What one point came to.
pub(super) struct Outcome {
    /// When the measurement began.
    pub(super) began: SystemTime,
    pub(super) elapsed: Duration,
    /// Memory of this process that was resident before it began.
    pub(super) resident_bytes: u64,
    pub(super) total: Tally,
    /// Of each target.
    pub(super) targets: Vec<Tally>,
    pub(super) series: Vec<Interval>,
    /// For a log, if that is asked for.
    pub(super) lines: Vec<Line>,
}

/// One point of the series, of all targets together.
pub(super) struct Interval {
    /// Since the measurement began.
    pub(super) start: Duration,
    pub(super) duration: Duration,
    pub(super) completed: u64,
    pub(super) bytes: u64,
    pub(super) mean_ns: f64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
    /// Memory of this process that was resident when it ended.
    pub(super) resident_bytes: u64,
}

/// What is put together while the workers run.
struct Book {
    open: bool,
    interval: Duration,
    hlog: bool,
    workers: usize,
    outcome: Outcome,
    /// Intervals that some workers have not ended, by number: who has, when, and the sum.
    pending: BTreeMap<u64, (usize, Duration, Tally)>,
}

pub(super) fn measure(
    loads: &mut [Load],
    arguments: &Arguments,
    point: &Point,
) -> Result<Outcome, Failure> {
    let mut jobs = Vec::new();
    for load in loads.iter() {
        jobs.push(buffers(load, point)?);
    }
    let workers = loads.iter().map(Load::threads).sum();
    let mut book = Book::new(arguments, point, (loads.len(), workers));
    let (chapters, reports) = mpsc::channel();
    let schedule = schedule(arguments);
    book.outcome.began = SystemTime::now() + arguments.ramp;
    let stop = Arc::new(AtomicBool::new(false));
    let shared: Vec<_> = loads.iter().map(|_| shared(&stop, arguments)).collect();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let cpus = arguments.load.cpus.as_ref();
        for (target, (load, buffers)) in loads.iter_mut().zip(jobs).enumerate() {
            let (shape, wait) = (shape(load, arguments, point), load.options.wait);
            let count = load.threads();
            for (index, (poller, buffers)) in load.pollers().iter_mut().zip(buffers).enumerate() {
                let place = (index, count);
                let worker = Worker {
                    target,
                    cpu: cpus.map(|cpus| cpus.of(threads.len())),
                    poller,
                    wait,
                    pollers: workers,
                    stream: Stream::new(shape, place),
                    arrivals: point.rate.map(|rate| Arrivals::new(rate, arguments.arrival, place)),
                    buffers,
                    schedule,
                    shared: &shared[target],
                    chapters: chapters.clone(),
                };
                threads.push(scope.spawn(move || worker.run()));
            }
        }
        drop(chapters);
        book.read(&reports, &Progress::new(arguments));
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failure::failed("a worker thread panicked")))
        });
        // Collected first: a failure must not leave threads unjoined.
        let outcomes: Vec<_> = joined.collect();
        outcomes.into_iter().collect::<Result<(), _>>()
    })?;
    Ok(book.close())
}

fn schedule(arguments: &Arguments) -> Schedule {
    let start = Instant::now();
    let begin = start + arguments.ramp;
    Schedule { start, begin, end: begin + arguments.runtime, interval: arguments.interval }
}

fn shared(stop: &Arc<AtomicBool>, arguments: &Arguments) -> Shared {
    Shared {
        stop: Arc::clone(stop),
        asked: AtomicU64::new(0),
        limit: arguments.io_size.unwrap_or(u64::MAX),
    }
}

fn shape<'a>(load: &Load, arguments: &Arguments, point: &'a Point) -> Shape<'a> {
    Shape {
        access: arguments.rw,
        rwmixread: arguments.rwmixread,
        blocks: &point.bs,
        namespace: load.namespace,
        region: region(load, arguments),
        seed: arguments.load.seed,
        verify: arguments.verify,
    }
}

/// Bytes of the namespace to use.
pub(super) fn region(load: &Load, arguments: &Arguments) -> u64 {
    arguments.size.unwrap_or(u64::MAX).min(load.namespace.bytes())
}

/// For each poller and each size of command, as many buffers as commands may be in flight.
fn buffers(load: &Load, point: &Point) -> Result<Vec<Vec<Vec<Buffer>>>, Failure> {
    let of_poller = |queues: usize| {
        let sizes = point.bs.sizes().map(|bytes| {
            let bytes = usize::try_from(bytes).map_err(Failure::usage)?;
            Ok(load.controller.allocate_many(queues * load.depth, bytes)?)
        });
        sizes.collect::<Result<_, Failure>>()
    };
    load.queues_of_pollers().map(of_poller).collect()
}

impl Book {
    fn new(arguments: &Arguments, point: &Point, (targets, workers): (usize, usize)) -> Self {
        let open = point.rate.is_some();
        let outcome = Outcome {
            began: SystemTime::now(),
            elapsed: Duration::ZERO,
            resident_bytes: resident_bytes(),
            total: Tally::new(open),
            targets: vec![Tally::new(open); targets],
            series: Vec::new(),
            lines: Vec::new(),
        };
        let (interval, hlog) = (arguments.interval, arguments.hlog.is_some());
        Self { open, interval, hlog, workers, outcome, pending: BTreeMap::new() }
    }

    /// Reads what the workers report, until they have ended.
    fn read(&mut self, reports: &Receiver<Chapter>, progress: &Progress) {
        for chapter in reports {
            self.outcome.elapsed = self.outcome.elapsed.max(chapter.ended);
            self.outcome.total.add(&chapter.tally);
            self.outcome.targets[chapter.target].add(&chapter.tally);
            let new = || (0, Duration::ZERO, Tally::new(self.open));
            let page = self.pending.entry(chapter.interval).or_insert_with(new);
            page.0 += 1;
            page.1 = page.1.max(chapter.ended);
            page.2.add(&chapter.tally);
            if page.0 == self.workers
                && let Some((_, ended, tally)) = self.pending.remove(&chapter.interval)
            {
                self.end(chapter.interval, ended, &tally);
                progress.show(self.outcome.series.last());
            }
        }
    }

    /// Ends an interval.
    fn end(&mut self, index: u64, ended: Duration, tally: &Tally) {
        let nanoseconds = self.interval.as_nanos().saturating_mul(index.into());
        let start = Duration::from_nanos_u128(nanoseconds);
        let duration = ended.saturating_sub(start);
        let latency = tally.latency_of_all();
        self.outcome.series.push(Interval {
            start,
            duration,
            completed: tally.completed(),
            bytes: tally.bytes(),
            mean_ns: latency.mean(),
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            resident_bytes: resident_bytes(),
        });
        for (write, tag) in [(false, "read"), (true, "write")] {
            let latency = tally.latency(write);
            if self.hlog && !latency.is_empty() {
                let (tag, latency_ns) = (tag.to_owned(), latency.clone());
                self.outcome.lines.push(Line { tag, start, duration, latency_ns });
            }
        }
    }

    fn close(mut self) -> Outcome {
        for (index, (_, ended, tally)) in std::mem::take(&mut self.pending) {
            self.end(index, ended, &tally);
        }
        self.outcome
    }
}

/// Memory of this process that is resident; 0 where the system does not say.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

impl Interval {
    pub(super) fn iops(&self) -> f64 {
        self.completed as f64 / self.duration.as_secs_f64().max(1e-9)
    }
}
