//! Adds up what the workers report, interval by interval.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, SystemTime},
};

use super::{
    arguments::Arguments,
    counters::Counters,
    disturbance::{ProcessorShares, ProcessorTimes},
    hlog::IntervalHistogram,
    progress::Progress,
    report::{Interval, SteadyState},
    steady_state::SteadyStateDetector,
    worker::IntervalReport,
};
use crate::failure::Failure;

/// Results of one point.
pub(super) struct Outcome {
    /// Begin of the measurement.
    pub(super) began: SystemTime,
    pub(super) elapsed: Duration,
    /// Resident memory of this process before the measurement.
    pub(super) resident_bytes: u64,
    pub(super) total: Counters,
    /// Counters of each target.
    pub(super) targets: Vec<Counters>,
    /// True if other programs wanted to run when the load began.
    pub(super) machine_was_busy: bool,
    /// Shares of the processors' time that others took during the measurement.
    pub(super) processors: ProcessorShares,
    pub(super) series: Vec<Interval>,
    /// Latencies of each interval; empty unless a log was asked for.
    pub(super) histograms: Vec<IntervalHistogram>,
    /// Steady state that was to end the measurement, if one was asked for.
    pub(super) steady_state: Option<SteadyState>,
    /// Failure or signal that ended the measurement early.
    pub(super) failure: Option<Failure>,
}

pub(super) struct Recorder {
    open_loop: bool,
    interval: Duration,
    hlog: bool,
    ramp: Duration,
    workers: usize,
    steady_state: Option<SteadyStateDetector>,
    /// Set once the state is steady.
    steady: Arc<AtomicBool>,
    outcome: Outcome,
    /// Times of the processors when the measurement began, and when the latest interval ended.
    processors: [ProcessorTimes; 2],
    /// Intervals that some workers have not ended, by number.
    pending: BTreeMap<u64, PendingInterval>,
}

/// Sum of the reports that have arrived for an interval.
struct PendingInterval {
    /// Number of these reports.
    workers: usize,
    /// Time of the latest, since the measurement began.
    ended: Duration,
    counters: Counters,
}

impl Recorder {
    pub(super) fn new(
        arguments: &Arguments,
        open_loop: bool,
        targets: usize,
        workers: usize,
        steady: Arc<AtomicBool>,
    ) -> Self {
        Self {
            open_loop,
            interval: arguments.interval(),
            hlog: arguments.hlog.is_some(),
            ramp: arguments.ramp,
            workers,
            steady_state: arguments.steady_state(),
            steady,
            processors: [ProcessorTimes::now(); 2],
            outcome: Outcome {
                began: SystemTime::now() + arguments.ramp,
                elapsed: Duration::ZERO,
                resident_bytes: resident_bytes(),
                total: Counters::new(open_loop),
                targets: vec![Counters::new(open_loop); targets],
                machine_was_busy: false,
                processors: ProcessorShares::default(),
                series: Vec::new(),
                histograms: Vec::new(),
                steady_state: None,
                failure: None,
            },
            pending: BTreeMap::new(),
        }
    }

    /// Adds up reports until all workers have ended.
    pub(super) fn record(&mut self, reports: &Receiver<IntervalReport>, progress: &Progress) {
        // There are none before the measurement begins, unless it never does.
        let early = reports.recv_timeout(self.ramp);
        self.processors = [ProcessorTimes::now(); 2];
        for report in early.into_iter().chain(reports) {
            self.add(&report, progress);
        }
        let [begin, _] = &self.processors;
        self.outcome.processors = ProcessorTimes::now().since(begin);
    }

    fn add(&mut self, report: &IntervalReport, progress: &Progress) {
        self.outcome.elapsed = self.outcome.elapsed.max(report.ended);
        self.outcome.total.add(&report.counters);
        self.outcome.targets[report.target].add(&report.counters);
        let pending = self.pending.entry(report.interval).or_insert_with(|| PendingInterval {
            workers: 0,
            ended: Duration::ZERO,
            counters: Counters::new(self.open_loop),
        });
        pending.workers += 1;
        pending.ended = pending.ended.max(report.ended);
        pending.counters.add(&report.counters);
        if pending.workers == self.workers
            && let Some(complete) = self.pending.remove(&report.interval)
        {
            self.end_interval(report.interval, &complete);
            self.detect_steady_state();
            progress.show(self.outcome.series.last());
        }
    }

    /// Ends the measurement if the last interval makes the state steady. That of an early end is
    /// shorter than the others.
    fn detect_steady_state(&mut self) {
        let (Some(detector), Some(last)) = (&mut self.steady_state, self.outcome.series.last())
        else {
            return;
        };
        let is_whole = last.seconds * 2.0 >= self.interval.as_secs_f64();
        if is_whole && detector.add(last.iops) {
            self.steady.store(true, Ordering::Relaxed);
        }
    }

    fn end_interval(&mut self, index: u64, sum: &PendingInterval) {
        let nanoseconds = self.interval.as_nanos().saturating_mul(index.into());
        let start = Duration::from_nanos_u128(nanoseconds);
        let duration = sum.ended.saturating_sub(start);
        let now = ProcessorTimes::now();
        let shares = now.since(&std::mem::replace(&mut self.processors[1], now));
        let interval = Interval::new(start, duration, &sum.counters);
        self.outcome.series.push(Interval {
            other_programs_share: Some(shares.others),
            steal_share: Some(shares.steal),
            resident_bytes: resident_bytes(),
            ..interval
        });
        for (write, tag) in [(false, "read"), (true, "write")] {
            let latency = sum.counters.latency(write);
            if self.hlog && !latency.is_empty() {
                let latency_ns = latency.clone();
                self.outcome.histograms.push(IntervalHistogram {
                    tag,
                    start,
                    duration,
                    latency_ns,
                });
            }
        }
    }

    /// Ends the intervals that not all workers have ended, and returns the results.
    pub(super) fn finish(mut self) -> Outcome {
        for (index, sum) in std::mem::take(&mut self.pending) {
            self.end_interval(index, &sum);
        }
        self.outcome.steady_state = self.steady_state.take().map(SteadyStateDetector::into_state);
        self.outcome
    }
}

/// Resident memory of this process; 0 if the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
