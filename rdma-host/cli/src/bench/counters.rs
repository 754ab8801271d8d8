//! Counters and latencies of a period.

use std::time::Duration;

use hdrhistogram::Histogram;
use quanta::Clock;
use rdma_host::{OperationStatistics, Statistics};

use super::disturbance::SchedulingCounters;

/// Largest latency from the due time, one hour; longer ones count as this.
const DUE_NS_MAX: u64 = 3_600_000_000_000;

/// Counters of one worker, or of several together.
#[derive(Clone)]
pub(super) struct Counters {
    /// Counters of the pollers.
    pub(super) statistics: Statistics,
    /// Latencies of reads and of writes from their due time; in an open loop only.
    pub(super) latency_from_due: Option<[Histogram<u64>; 2]>,
    pub(super) stages: Stages,
    /// Processor time of the workers.
    pub(super) cpu: Duration,
    pub(super) scheduling: SchedulingCounters,
    /// Commands that were due and not sent before the end.
    pub(super) missed: u64,
    /// Commands that were in flight at an early end, and whose completion was not waited for.
    pub(super) unfinished: u64,
}

/// Time in each stage, in nanoseconds, summed over all commands. The stages of one command add up
/// to the time from its due time, or its submission, until its data could be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stages {
    /// Number of commands.
    pub(super) count: u64,
    /// Waiting to be submitted, in an open loop.
    pub(super) queue: u64,
    /// Time from submission until the call that rings the doorbell.
    pub(super) submit: u64,
    /// Time in that call; a software device sends, and may even receive, within it.
    pub(super) doorbell: u64,
    /// From there until the poll that found the completion: the network and the target, and the
    /// wake-up if the worker sleeps.
    pub(super) wire_and_target: u64,
    /// From there until the results of that poll were handed over.
    pub(super) completion: u64,
}

impl Counters {
    pub(super) fn new(open_loop: bool) -> Self {
        Self {
            statistics: Statistics::default(),
            latency_from_due: open_loop.then(|| [histogram(), histogram()]),
            stages: Stages::default(),
            cpu: Duration::ZERO,
            scheduling: SchedulingCounters::default(),
            missed: 0,
            unfinished: 0,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.statistics.add(&other.statistics);
        if let (Some(ours), Some(theirs)) = (&mut self.latency_from_due, &other.latency_from_due) {
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                ours.add(theirs).expect("all have the same bounds");
            }
        }
        self.stages.add(other.stages);
        self.cpu += other.cpu;
        self.scheduling.add(other.scheduling);
        self.missed += other.missed;
        self.unfinished += other.unfinished;
    }

    /// Share of the time in which the workers could run that they waited for a processor, if the
    /// kernel counts that.
    pub(super) fn run_queue_wait_share(&self) -> Option<f64> {
        let waited = self.scheduling.run_queue_wait?.as_secs_f64();
        Some(waited / (waited + self.cpu.as_secs_f64()).max(1e-9))
    }

    /// Counts the latency of a command from its due time, in nanoseconds; in an open loop only.
    pub(super) fn record_due(&mut self, write: bool, latency_ns: u64) {
        if let Some(histograms) = &mut self.latency_from_due {
            histograms[usize::from(write)].saturating_record(latency_ns);
        }
    }

    /// Latencies to report of reads or writes: from the due time in an open loop.
    pub(super) fn latency(&self, write: bool) -> &Histogram<u64> {
        match &self.latency_from_due {
            Some(histograms) => &histograms[usize::from(write)],
            None => &self.operation(write).latency_ns,
        }
    }

    /// Counters of the pollers for reads or writes.
    pub(super) fn operation(&self, write: bool) -> &OperationStatistics {
        if write { &self.statistics.write } else { &self.statistics.read }
    }

    /// Sum of reads and writes, with the latencies to report.
    pub(super) fn total(&self) -> OperationStatistics {
        let Statistics { read, write, .. } = &self.statistics;
        let mut latency_ns = self.latency(false).clone();
        latency_ns.add(self.latency(true)).expect("both have the same bounds");
        OperationStatistics {
            completed: read.completed + write.completed,
            failed: read.failed + write.failed,
            retried: read.retried + write.retried,
            bytes: read.bytes + write.bytes,
            latency_ns,
        }
    }
}

impl Stages {
    /// Converts all but the time in the queue, which is in nanoseconds, from the clock's units.
    pub(super) fn scaled(self, clock: &Clock) -> Self {
        let nanoseconds =
            |ticks: u64| clock.delta_as_nanos(0, ticks.cast_signed().max(0).cast_unsigned());
        Self {
            count: self.count,
            queue: self.queue,
            submit: nanoseconds(self.submit),
            doorbell: nanoseconds(self.doorbell),
            wire_and_target: nanoseconds(self.wire_and_target),
            completion: nanoseconds(self.completion),
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.queue += other.queue;
        self.submit += other.submit;
        self.doorbell += other.doorbell;
        self.wire_and_target += other.wire_and_target;
        self.completion += other.completion;
    }
}

/// Empty histogram of latencies from the due time.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DUE_NS_MAX, 3).expect("an hour at three digits is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up() {
        let mut one = Counters::new(true);
        one.record_due(false, 10_000);
        one.record_due(true, 20_000);
        one.stages = Stages {
            count: 1,
            queue: 2,
            submit: 3,
            doorbell: 6,
            wire_and_target: 4,
            completion: 5,
        };
        one.missed = 7;
        one.unfinished = 1;
        let mut two = Counters::new(true);
        two.add(&one);
        two.add(&one);
        assert_eq!(two.latency(false).len(), 2);
        assert_eq!(two.total().latency_ns.len(), 4);
        assert_eq!((two.missed, two.unfinished), (14, 2));
        let twice = Stages {
            count: 2,
            queue: 4,
            submit: 6,
            doorbell: 12,
            wire_and_target: 8,
            completion: 10,
        };
        assert_eq!(two.stages, twice);
    }
}
