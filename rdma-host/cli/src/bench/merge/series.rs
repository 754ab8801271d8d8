//! Series of several ranks as one, and their rates in a span that is common to all.

use std::ops::Range;

use super::super::{
    report::{Interval, IntervalOperation, PointReport},
    totals::integer,
};

/// Most intervals of a merged series.
const INTERVALS_MAX: usize = 100_000;

/// Rank, by its report and its place in time.
#[derive(Clone, Copy)]
pub(super) struct Timed<'a> {
    pub(super) point: &'a PointReport,
    /// Begin of its measurement on the common clock, in seconds.
    pub(super) begin: f64,
}

/// Mean rates in a span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) iops: f64,
    pub(super) bandwidth: f64,
}

/// Interval of the merged series while it is added up.
#[derive(Clone, Default)]
struct Sum {
    /// Commands of all, of reads and of writes; an interval that two of ours share counts by parts.
    commands: [f64; 3],
    bytes: [f64; 3],
    /// Sum of the latencies, by the means.
    latency: [f64; 3],
    max_ns: Option<u64>,
    involuntary_switches: f64,
    run_queue_wait_share: Option<f64>,
    starved_s: f64,
    other_programs_share: Option<f64>,
    steal_share: Option<f64>,
    resident_bytes: f64,
}

impl<'a> Timed<'a> {
    /// Span of its measurement.
    pub(super) fn span(&self) -> Range<f64> {
        self.begin..self.begin + self.point.seconds
    }

    /// Rates in a span of all commands, or of those of one direction. An interval that the span
    /// cuts counts by its share; without a series, the whole measurement stands for any part.
    pub(super) fn rates(&self, span: &Range<f64>, write: Option<bool>) -> Rates {
        let operations = &self.point.operations;
        let whole = match write {
            None => &self.point.totals,
            Some(false) => &operations.read.totals,
            Some(true) => &operations.write.totals,
        };
        let length = span.end - span.start;
        if self.point.series.is_empty() {
            return Rates { iops: whole.iops, bandwidth: whole.bandwidth_bytes_per_s };
        }
        let mut rates = Rates::default();
        for (at, seconds) in self.overlaps(span) {
            let of = rates_of(at, write);
            rates.iops += of.iops * seconds / length;
            rates.bandwidth += of.bandwidth * seconds / length;
        }
        rates
    }

    /// Intervals that are in a span, and for how long.
    fn overlaps(&self, span: &Range<f64>) -> impl Iterator<Item = (&'a Interval, f64)> {
        let (begin, span) = (self.begin, span.clone());
        self.point.series.iter().filter_map(move |at| {
            let start = begin + at.start_s;
            let seconds = (start + at.seconds).min(span.end) - start.max(span.start);
            (seconds > 0.0).then_some((at, seconds))
        })
    }
}

fn rates_of(at: &Interval, write: Option<bool>) -> Rates {
    let operation = match write {
        None => {
            return Rates { iops: at.iops, bandwidth: at.bandwidth_bytes_per_s };
        }
        Some(false) => at.read.as_ref(),
        Some(true) => at.write.as_ref(),
    };
    let of = |it: &IntervalOperation| Rates { iops: it.iops, bandwidth: it.bandwidth_bytes_per_s };
    operation.map(of).unwrap_or_default()
}

/// Series of all ranks in their common span, in intervals of about `interval_s`. Percentiles of
/// parts make none of the whole, and are left out.
pub(super) fn merge(ranks: &[Timed<'_>], span: &Range<f64>, interval_s: f64) -> Vec<Interval> {
    let length = span.end - span.start;
    if ranks.iter().any(|rank| rank.point.series.is_empty()) || length <= 0.0 {
        return Vec::new();
    }
    // A rest of less than half an interval is a part of the one before.
    let count = whole(length / interval_s + 0.5).clamp(1, INTERVALS_MAX);
    let seconds = length / count as f64;
    let mut sums = vec![Sum::default(); count];
    for rank in ranks {
        for (at, _) in rank.overlaps(span) {
            let start = rank.begin + at.start_s - span.start;
            let end = start + at.seconds;
            let first = whole(start / seconds).min(sums.len() - 1);
            for (index, sum) in sums.iter_mut().enumerate().skip(first) {
                let from = index as f64 * seconds;
                if from >= end {
                    break;
                }
                sum.add(at, end.min(from + seconds) - start.max(from), seconds);
            }
        }
    }
    let at = |(index, sum): (usize, Sum)| sum.into_interval(index as f64 * seconds, seconds);
    sums.into_iter().enumerate().map(at).collect()
}

/// Whole intervals in a number of them; 0 for less.
fn whole(intervals: f64) -> usize {
    usize::try_from(integer(intervals)).unwrap_or(usize::MAX)
}

/// The greater of two shares.
fn greater(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

impl Sum {
    /// Adds `seconds` of an interval to one of ours, which is `all` seconds long.
    fn add(&mut self, at: &Interval, seconds: f64, all: f64) {
        if seconds <= 0.0 {
            return;
        }
        let share = seconds / at.seconds;
        let means = [
            at.mean_ns,
            at.read.as_ref().and_then(|it| it.mean_ns),
            at.write.as_ref().and_then(|it| it.mean_ns),
        ];
        for (which, write) in [None, Some(false), Some(true)].into_iter().enumerate() {
            let Rates { iops, bandwidth } = rates_of(at, write);
            self.commands[which] += iops * seconds;
            self.bytes[which] += bandwidth * seconds;
            self.latency[which] += means[which].unwrap_or_default() * iops * seconds;
        }
        self.max_ns = self.max_ns.max(at.max_ns);
        self.involuntary_switches += at.involuntary_switches.unwrap_or_default() as f64 * share;
        self.run_queue_wait_share = greater(self.run_queue_wait_share, at.run_queue_wait_share);
        self.starved_s += at.starved_s.unwrap_or_default() * share;
        self.other_programs_share = greater(self.other_programs_share, at.other_programs_share);
        self.steal_share = greater(self.steal_share, at.steal_share);
        self.resident_bytes += at.resident_bytes as f64 * seconds / all;
    }

    fn into_interval(self, start_s: f64, seconds: f64) -> Interval {
        let mean = |which: usize| {
            (self.commands[which] > 0.0).then(|| self.latency[which] / self.commands[which])
        };
        let operation = |which: usize| IntervalOperation {
            iops: self.commands[which] / seconds,
            bandwidth_bytes_per_s: self.bytes[which] / seconds,
            mean_ns: mean(which),
        };
        let all = operation(0);
        Interval {
            start_s,
            seconds,
            completed: integer(self.commands[0]),
            iops: all.iops,
            bandwidth_bytes_per_s: all.bandwidth_bytes_per_s,
            mean_ns: all.mean_ns,
            max_ns: self.max_ns,
            read: Some(operation(1)),
            write: Some(operation(2)),
            involuntary_switches: Some(integer(self.involuntary_switches)),
            run_queue_wait_share: self.run_queue_wait_share,
            starved_s: Some(self.starved_s),
            other_programs_share: self.other_programs_share,
            steal_share: self.steal_share,
            resident_bytes: integer(self.resident_bytes),
            ..Interval::default()
        }
    }
}
