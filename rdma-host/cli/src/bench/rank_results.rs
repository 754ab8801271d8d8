//! Results of a point that the ranks of a launcher measured together.

use std::time::{Duration, SystemTime};

use quanta::Instant;
use rdma_host::Provider;
use serde::{Deserialize, Serialize};

use super::{
    arguments::Arguments,
    histogram_text::HistogramText,
    hlog::{self, IntervalHistogram},
    measure,
    merge::{self, RankPoint, Start},
    point_report,
    rank_group::RankGroup,
    rank_position::RankPosition,
    rank_totals::FailedRank,
    recorder::Outcome,
    report::PointReport,
    sweep_points::Point,
};
use crate::{failure::Failure, load::Load, shutdown::ShutdownSignal};

/// Results of a point, to be written.
pub(super) struct Measured {
    pub(super) report: PointReport,
    /// Begin of the measurement.
    pub(super) began: SystemTime,
    /// Latencies of each interval, if a log was asked for.
    pub(super) histograms: Vec<IntervalHistogram>,
    /// Failure or signal that ended it early, or that of a rank.
    pub(super) failure: Option<Failure>,
    /// Reports of the ranks that have one, by rank; empty for a process alone.
    pub(super) of_ranks: Vec<(u32, PointReport)>,
}

/// Results that a rank sends to the first one.
#[derive(Deserialize, Serialize)]
struct RankResult {
    host: String,
    /// Time for which it was in the fence before the start.
    fence_s: f64,
    result: Result<PointReport, String>,
    intervals: Vec<IntervalText>,
}

/// [`IntervalHistogram`] as text.
#[derive(Deserialize, Serialize)]
struct IntervalText {
    write: bool,
    start: Duration,
    duration: Duration,
    latency_ns: HistogramText,
}

/// Point of a job, and its number among all.
#[derive(Clone, Copy)]
pub(super) struct NumberedPoint<'a> {
    pub(super) index: usize,
    pub(super) arguments: &'a Arguments,
    pub(super) point: &'a Point,
    pub(super) name: Option<&'a str>,
}

impl Measured {
    /// Results of a process alone, or of one rank.
    fn new(report: PointReport, outcome: Outcome) -> Self {
        Self {
            report,
            began: outcome.began,
            histograms: outcome.histograms,
            failure: outcome.failure,
            of_ranks: Vec::new(),
        }
    }
}

impl NumberedPoint<'_> {
    /// Measures the point from the time that `start` returns.
    pub(super) fn measure<P: Provider>(
        self,
        loads: &mut [Load<P>],
        rank: RankPosition,
        start: impl FnOnce() -> Result<Instant, Failure>,
    ) -> Result<Measured, Failure> {
        let outcome = measure::measure(loads, self.arguments, self.point, rank, start)?;
        let mut report = point_report::new(loads, self.arguments, self.point, rank, &outcome);
        report.configuration.name = self.name.map(str::to_owned);
        Ok(Measured::new(report, outcome))
    }

    /// Measures the point together with all other ranks, and sends the results to the first one.
    /// Fails, on all ranks, if one is not `connected`: then nothing is sent.
    pub(super) fn measure_as_rank<P: Provider>(
        self,
        group: &RankGroup,
        loads: &mut [Load<P>],
        connected: Result<(), Failure>,
        shutdown: &ShutdownSignal,
    ) -> Result<Result<Measured, Failure>, Failure> {
        let ready = group.wait_ready(self.index, connected.as_ref().err(), shutdown);
        if group.is_first() {
            ready.and(connected)?
        } else {
            connected.and(ready)?
        }
        let mut fence_s = 0.0;
        let start = || {
            let fence = group.start(shutdown)?;
            fence_s = (fence.left - fence.arrived).as_secs_f64();
            Ok(Instant::now() - fence.left.elapsed())
        };
        let measured = self.measure(loads, group.position(self.arguments.ranks()), start);
        let result = match &measured {
            Ok(measured) => Ok(measured.report.clone()),
            Err(failure) => Err(failure.to_string()),
        };
        let intervals = measured.as_ref().map(|it| it.histograms.iter().map(IntervalText::new));
        let intervals = intervals.map(Iterator::collect).unwrap_or_default();
        let host = group.host();
        let sent = group.send(self.index, &RankResult { host, fence_s, result, intervals });
        let Err(failure) = sent else { return Ok(measured) };
        let (host, result) = (group.host(), Err(failure.to_string()));
        let short = RankResult { host, fence_s, result, intervals: Vec::new() };
        group.send(self.index, &short).and(Ok(Err(failure)))
    }

    /// Waits for the results of all ranks, of which `own` are those of this one. The first rank
    /// merges them, and the others return their own.
    pub(super) fn gather(
        self,
        group: &RankGroup,
        own: Result<Measured, Failure>,
        shutdown: &ShutdownSignal,
    ) -> Result<Measured, Failure> {
        // Others may run to the end of the schedule where a condition has ended this one.
        let arguments = self.arguments;
        let left = match &own {
            Ok(own) => {
                let end = own.began + arguments.runtime;
                end.duration_since(SystemTime::now()).unwrap_or_default()
            }
            Err(_) => arguments.ramp + arguments.runtime,
        };
        group.exchange_results(left, shutdown);
        if !group.is_first() {
            return own;
        }
        let (mut ranks, mut failed, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        let mut spread_s: f64 = 0.0;
        let answers = group.results::<RankResult>(self.index, shutdown);
        for (rank, answer) in (0..).zip(answers) {
            let RankResult { host, fence_s, result, intervals } = match answer {
                Ok(answer) => answer,
                Err(missing) => {
                    failed.push(missing);
                    continue;
                }
            };
            spread_s = spread_s.max(fence_s);
            histograms.extend(intervals.iter().filter_map(IntervalText::decode));
            match result {
                Ok(point) => {
                    let begin = arguments.ramp.as_secs_f64();
                    ranks.push(RankPoint { rank, file: None, begin, point });
                }
                Err(error) => failed.push(FailedRank { rank, file: None, host: Some(host), error }),
            }
        }
        let start = Start { together: true, spread_s };
        let report = merge::merge(&ranks, failed.clone(), start).map_err(|reason| match own {
            Err(failure) => failure,
            Ok(_) => Failure::failed(reason),
        })?;
        Ok(Measured {
            began: began(&report),
            histograms: hlog::merge(histograms, arguments.interval()),
            failure: failure(&report, shutdown),
            of_ranks: ranks.into_iter().map(|rank| (rank.rank, rank.point)).collect(),
            report,
        })
    }
}

/// Failure of a rank by its name, or the signal that ended all.
fn failure(report: &PointReport, shutdown: &ShutdownSignal) -> Option<Failure> {
    let named = report.ranks.as_ref().and_then(|ranks| ranks.failure()).map(Failure::failed);
    let signal = || shutdown.get().map(Failure::interrupted);
    let ended = || report.ended_by.as_ref().map(Failure::failed);
    named.or_else(signal).or_else(ended)
}

fn began(report: &PointReport) -> SystemTime {
    humantime::parse_rfc3339(&report.configuration.began).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl IntervalText {
    fn new(interval: &IntervalHistogram) -> Self {
        Self {
            write: interval.tag == "write",
            start: interval.start,
            duration: interval.duration,
            latency_ns: HistogramText::new(&interval.latency_ns),
        }
    }

    fn decode(&self) -> Option<IntervalHistogram> {
        Some(IntervalHistogram {
            tag: if self.write { "write" } else { "read" },
            start: self.start,
            duration: self.duration,
            latency_ns: self.latency_ns.decode()?,
        })
    }
}
