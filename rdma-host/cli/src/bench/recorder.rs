//! Adds up what the workers report, interval by interval.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, SystemTime},
};

use cpu_time::ThreadTime;

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
    /// Number of intervals that were over before they could be reported, and were joined to the
    /// next.
    pub(super) joined: u64,
    /// Latencies of each interval; empty unless a log was asked for.
    pub(super) histograms: Vec<IntervalHistogram>,
    /// Steady state that was to end the measurement, if one was asked for.
    pub(super) steady_state: Option<SteadyState>,
    /// Failure or signal that ended the measurement early.
    pub(super) failure: Option<Failure>,
}

pub(super) struct Recorder {
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
    /// Intervals that some workers have not ended, in their order.
    pending: Vec<PendingInterval>,
    /// Time at which the last interval ended, since the measurement began.
    ended: Duration,
    /// Processor time, in nanoseconds, in which the reports of the last interval were added up.
    recording_ns: Arc<AtomicU64>,
}

/// Sum of the reports that have arrived for an interval, or for some that a worker has joined.
struct PendingInterval {
    intervals: Range<u64>,
    /// Number of intervals in these reports, over all workers.
    reported: u64,
    /// Time of the latest, since the measurement began.
    ended: Duration,
    counters: Counters,
    /// Processor time in which they were added up.
    recording: Duration,
}

impl PendingInterval {
    fn new(report: IntervalReport) -> Self {
        let IntervalReport { intervals, ended, counters, .. } = report;
        let reported = intervals.end - intervals.start;
        Self { intervals, reported, ended, counters, recording: Duration::ZERO }
    }

    fn join(&mut self, other: &Self) {
        let Self { intervals, .. } = &self;
        self.intervals =
            intervals.start.min(other.intervals.start)..intervals.end.max(other.intervals.end);
        self.reported += other.reported;
        self.ended = self.ended.max(other.ended);
        self.counters.add(&other.counters);
        self.recording += other.recording;
    }

    /// True if all workers have reported all of the intervals.
    fn is_complete(&self, workers: usize) -> bool {
        self.reported == (self.intervals.end - self.intervals.start) * workers as u64
    }
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
                joined: 0,
                histograms: Vec::new(),
                steady_state: None,
                failure: None,
            },
            pending: Vec::new(),
            ended: Duration::ZERO,
            recording_ns: Arc::default(),
        }
    }

    /// Processor time, in nanoseconds, in which the reports of the last interval were added up.
    pub(super) fn recording_ns(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.recording_ns)
    }

    /// Adds up reports until all workers have ended.
    pub(super) fn record(&mut self, reports: &Receiver<IntervalReport>, progress: &Progress) {
        // There are none before the measurement begins, unless it never does.
        let early = reports.recv_timeout(self.ramp);
        self.processors = [ProcessorTimes::now(); 2];
        for report in early.into_iter().chain(reports) {
            self.add(report, progress);
        }
        let [begin, _] = &self.processors;
        self.outcome.processors = ProcessorTimes::now().since(begin);
    }

    fn add(&mut self, report: IntervalReport, progress: &Progress) {
        let cpu = ThreadTime::now();
        self.outcome.elapsed = self.outcome.elapsed.max(report.ended);
        self.outcome.targets[report.target].add(&report.counters);
        let workers = self.workers;
        let sum = self.pend(report);
        let is_complete = sum.is_complete(workers);
        sum.recording += cpu.elapsed();
        if is_complete {
            // Each worker reports in order: no earlier one is incomplete.
            let sum = self.pending.remove(0);
            let cpu = ThreadTime::now();
            self.end_interval(&sum);
            self.detect_steady_state();
            progress.show(self.outcome.series.last());
            let recording = (sum.recording + cpu.elapsed()).as_nanos();
            let recording_ns = u64::try_from(recording).unwrap_or(u64::MAX);
            self.recording_ns.store(recording_ns, Ordering::Relaxed);
        }
    }

    /// Adds a report to what is pending, and joins intervals that it joins.
    fn pend(&mut self, report: IntervalReport) -> &mut PendingInterval {
        let first = self.pending.partition_point(|it| it.intervals.end <= report.intervals.start);
        let last = self.pending.partition_point(|it| it.intervals.start < report.intervals.end);
        let mut sum = PendingInterval::new(report);
        for other in self.pending.drain(first..last) {
            sum.join(&other);
        }
        self.pending.insert(first, sum);
        &mut self.pending[first]
    }

    /// Ends the measurement if the last interval makes the state steady. That of an early end is
    /// shorter than the others.
    fn detect_steady_state(&mut self) {
        let (Some(detector), Some(last)) = (&mut self.steady_state, self.outcome.series.last())
        else {
            return;
        };
        let is_whole = last.seconds * 2.0 >= self.interval.as_secs_f64();
        if is_whole && detector.add(last.seconds, last.iops) {
            self.steady.store(true, Ordering::Relaxed);
        }
    }

    fn end_interval(&mut self, sum: &PendingInterval) {
        let start = std::mem::replace(&mut self.ended, sum.ended);
        let duration = sum.ended.saturating_sub(start);
        self.outcome.joined += sum.intervals.end - sum.intervals.start - 1;
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
        for sum in std::mem::take(&mut self.pending) {
            self.end_interval(&sum);
        }
        for target in &self.outcome.targets {
            self.outcome.total.add(target);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// Report of a worker that read `completed` blocks since its last report.
    fn report(
        target: usize,
        intervals: Range<u64>,
        ended_ms: u64,
        completed: u64,
    ) -> IntervalReport {
        let mut counters = Counters::new(false);
        counters.statistics.read.completed = completed;
        (0..completed).for_each(|_| counters.statistics.read.latency_ns.record(9000).unwrap());
        IntervalReport { target, intervals, ended: Duration::from_millis(ended_ms), counters }
    }

    #[test]
    fn intervals_that_a_worker_joined_are_one_of_their_length() {
        let words = ["bench", "nvmf-rdma://192.0.2.1/nqn.x", "--interval", "10ms", "--ramp", "0"];
        let arguments = Program::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).arguments;
        let mut recorder = Recorder::new(&arguments, false, 2, 2, Arc::default());
        let (sender, reports) = std::sync::mpsc::channel();
        for report in [
            report(0, 0..1, 10, 100),
            report(1, 0..1, 11, 100),
            // The first worker had no time for a report of its own for 1 and 2, the other for 3.
            report(1, 1..2, 20, 90),
            report(1, 2..3, 30, 100),
            report(0, 1..4, 45, 50),
            report(0, 4..5, 50, 60),
            report(1, 3..5, 51, 200),
            report(1, 5..6, 60, 1),
        ] {
            sender.send(report).unwrap();
        }
        drop(sender);
        recorder.record(&reports, &Progress::new(&arguments, true));
        assert!(recorder.recording_ns().load(Ordering::Relaxed) > 0);
        let outcome = recorder.finish();
        let series = outcome.series.iter().map(|it| (it.start_s, it.seconds, it.completed));
        let expected = [(0.0, 0.011, 200), (0.011, 0.040, 500), (0.051, 0.009, 1)];
        for ((start, seconds, completed), found) in expected.into_iter().zip(series) {
            let is_near = (found.0 - start).abs() < 1e-9 && (found.1 - seconds).abs() < 1e-9;
            assert!(is_near && found.2 == completed, "{found:?}");
        }
        assert_eq!((outcome.series.len(), outcome.joined), (3, 3));
        assert!((outcome.series[1].iops - 500.0 / 0.040).abs() < 1.0, "{:?}", outcome.series[1]);
        assert_eq!((outcome.total.total().completed, outcome.elapsed.as_millis()), (701, 60));
    }
}
