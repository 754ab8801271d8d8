//! Points of several ranks as one: histograms are added, which is exact, and rates are summed over
//! the time in which all ranks measured.

pub(super) mod command;
mod costs;
mod series;

use std::ops::Range;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use self::series::{Rates, Timed};
use super::{
    counters,
    histogram_text::HistogramText,
    latency::{Latency, distribution},
    rank_totals::{FailedRank, HostTotals, RankTotals, Ranks, name},
    report::{OperationTotals, Operations, PointReport, TargetTotals, Totals},
};

/// Settings that a job has once: reports that differ in one are of different jobs.
const JOB: [&str; 21] = [
    "name",
    "rw",
    "read_percent",
    "bs",
    "random_distribution",
    "iodepth",
    "queues",
    "targets",
    "ramp_s",
    "runtime_s",
    "interval_s",
    "until_percent",
    "until_window_s",
    "io_size",
    "loop",
    "rate",
    "read_rate",
    "write_rate",
    "arrival",
    "verify",
    "rank_regions",
];

/// Settings in which ranks differ whatever they do, or that are told for each.
const DIFFER_ALWAYS: [&str; 6] =
    ["began", "command_line", "device", "host", "region_start", "seed"];

/// Share of the longest measurement that has to be common to all ranks for there to be no warning.
const COMMON_SHARE_MIN: f64 = 0.9;

/// Warnings of ranks that are repeated.
const WARNINGS_MAX: usize = 8;

/// Results of a rank.
#[derive(Clone, Debug)]
pub(super) struct RankPoint {
    pub(super) rank: u32,
    /// Report that it was read from.
    pub(super) file: Option<String>,
    /// Begin of its measurement on a clock that is common to all ranks, in seconds.
    pub(super) begin: f64,
    pub(super) point: PointReport,
}

/// Start of the ranks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    pub(super) together: bool,
    pub(super) spread_s: f64,
}

/// Latencies of a rank: of reads and of writes, and those from submission in an open loop.
struct Latencies {
    all: [Histogram<u64>; 2],
    service: Option<[Histogram<u64>; 2]>,
}

/// Rank with what its report encodes.
struct Decoded<'a> {
    timed: Timed<'a>,
    latencies: Latencies,
}

impl RankPoint {
    fn name(&self) -> String {
        name(self.rank, self.file.as_deref(), self.point.configuration.host.as_deref())
    }

    fn timed(&self) -> Timed<'_> {
        Timed { point: &self.point, begin: self.begin }
    }
}

/// Merges the results of some ranks. Where some were measured to their end, those that ended early
/// have failed. Fails with the reason if they cannot be merged.
pub(super) fn merge(
    ranks: &[RankPoint],
    mut failed: Vec<FailedRank>,
    start: Start,
) -> Result<PointReport, String> {
    let all = ranks.len() + failed.len();
    let has_whole = ranks.iter().any(|rank| !rank.point.interrupted);
    let (counted, ended): (Vec<_>, Vec<_>) =
        ranks.iter().partition(|rank| !(has_whole && rank.point.interrupted));
    failed.extend(ended.iter().map(|rank| ended_early(rank)));
    failed.sort_by_key(|rank| rank.rank);
    let Some(first) = counted.first() else {
        return Err("no rank has results".to_owned());
    };
    counted.iter().try_for_each(|rank| refuse_other_job(first, rank))?;
    let span = common_span(&counted)?;
    let decoded: Vec<_> =
        counted.iter().map(|rank| Decoded::new(rank)).collect::<Result<_, _>>()?;
    let timed: Vec<_> = counted.iter().map(|rank| rank.timed()).collect();
    let interval_s = first.point.configuration.interval_s.filter(|it| *it > 0.0).unwrap_or(1.0);
    let mut merged = costs::merge(&counted.iter().map(|it| &it.point).collect::<Vec<_>>());
    let operation = |write: bool| operation(&decoded, &span, write);
    merged.operations = Operations { read: operation(false)?, write: operation(true)? };
    merged.totals = totals(decoded.iter(), &span)?;
    merged.seconds = span.end - span.start;
    merged.series = series::merge(&timed, &span, interval_s);
    merged.targets = targets(&decoded, &span)?;
    merged.warnings = warnings(&counted, &span);
    merged.configuration = first.point.configuration.clone();
    merged.configuration.ranks = Some(all);
    merged.ranks = Some(Ranks {
        count: all,
        started_together: start.together,
        start_spread_s: start.spread_s,
        common_span_s: merged.seconds,
        differing_settings: differing_settings(&counted),
        by_rank: counted.iter().map(|rank| rank_totals(rank, &span)).collect(),
        by_host: by_host(&decoded, &span)?,
        failed,
    });
    Ok(merged)
}

fn ended_early(rank: &RankPoint) -> FailedRank {
    let RankPoint { rank, file, point, .. } = rank;
    let cause = point.ended_by.as_deref().unwrap_or("a cause that its report does not name");
    let (seconds, asked) = (point.seconds, point.configuration.runtime_s);
    FailedRank {
        rank: *rank,
        file: file.clone(),
        host: point.configuration.host.clone(),
        error: format!("ended after {seconds:.1} of {asked:.1} s, by {cause}"),
    }
}

/// Refuses a report of another job than that of the first.
fn refuse_other_job(first: &RankPoint, other: &RankPoint) -> Result<(), String> {
    let (ours, theirs) = (settings(first), settings(other));
    let differs = JOB.iter().find(|key| ours.get(**key) != theirs.get(**key));
    let shown = |settings: &Map<String, Value>, key: &str| match settings.get(key) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let Some(key) = differs else { return Ok(()) };
    Err(format!(
        "{} was measured with {key} {}, and {} with {key} {}: only reports of the same load can be \
         merged",
        other.name(),
        shown(&theirs, key),
        first.name(),
        shown(&ours, key),
    ))
}

/// Keys of the settings in which some rank differs from the first.
fn differing_settings(ranks: &[&RankPoint]) -> Vec<String> {
    let all: Vec<_> = ranks.iter().map(|rank| settings(rank)).collect();
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let differs = |key: &&String| others.iter().any(|other| other.get(*key) != first.get(*key));
    let keys = first.keys().filter(|key| !DIFFER_ALWAYS.contains(&key.as_str()));
    keys.filter(differs).cloned().collect()
}

fn settings(rank: &RankPoint) -> Map<String, Value> {
    match json!(rank.point.configuration) {
        Value::Object(settings) => settings,
        _ => unreachable!("a configuration has fields"),
    }
}

/// Span in which all ranks measured.
fn common_span(ranks: &[&RankPoint]) -> Result<Range<f64>, String> {
    let spans = || ranks.iter().map(|rank| (rank, rank.timed().span()));
    let last = spans().max_by(|(_, a), (_, b)| a.start.total_cmp(&b.start));
    let first = spans().min_by(|(_, a), (_, b)| a.end.total_cmp(&b.end));
    let (Some((last, begun)), Some((first, ended))) = (last, first) else {
        return Err("no rank has results".to_owned());
    };
    let (start, end) = (begun.start, ended.end);
    if start < end {
        return Ok(start..end);
    }
    Err(format!(
        "{} ended before {} began, by the clocks of their hosts: rates can only be summed over a \
         time in which all measured",
        first.name(),
        last.name()
    ))
}

impl<'a> Decoded<'a> {
    fn new(rank: &'a RankPoint) -> Result<Self, String> {
        let Operations { read, write } = &rank.point.operations;
        let damaged =
            || format!("{}: its histogram of latencies is missing or damaged", rank.name());
        let both = |read: Option<&HistogramText>, write: Option<&HistogramText>| {
            let decode = |text: Option<&HistogramText>, operation: &OperationTotals| match text {
                None if operation.totals.completed == 0 => Some(counters::histogram()),
                text => text?.decode(),
            };
            let operations = &rank.point.operations;
            Some([decode(read, &operations.read)?, decode(write, &operations.write)?])
        };
        let all = both(read.histogram.as_ref(), write.histogram.as_ref()).ok_or_else(damaged)?;
        let is_open = read.service_histogram.is_some() || write.service_histogram.is_some();
        let service = match is_open {
            true => Some(
                both(read.service_histogram.as_ref(), write.service_histogram.as_ref())
                    .ok_or_else(damaged)?,
            ),
            false => None,
        };
        Ok(Self { timed: rank.timed(), latencies: Latencies { all, service } })
    }

    fn latency(&self, write: bool) -> &Histogram<u64> {
        &self.latencies.all[usize::from(write)]
    }
}

/// Sum of histograms, which have the same digits; their bounds may differ.
fn sum<'a>(
    mut histograms: impl Iterator<Item = &'a Histogram<u64>>,
) -> Result<Histogram<u64>, String> {
    let mut sum = histograms.next().cloned().unwrap_or_else(counters::histogram);
    sum.auto(true);
    let added = histograms.try_for_each(|other| sum.add(other));
    added.map(|()| sum).map_err(|error| format!("histograms of latencies: {error:?}"))
}

/// Commands of ranks in both directions.
fn totals<'a>(
    ranks: impl Iterator<Item = &'a Decoded<'a>> + Clone,
    span: &Range<f64>,
) -> Result<Totals, String> {
    let latency = sum(ranks.clone().flat_map(|rank| &rank.latencies.all))?;
    let timed = ranks.map(|rank| (rank.timed, &rank.timed.point.totals));
    Ok(Totals { latency_ns: Latency::new(&latency), ..added(timed, span, None) })
}

/// Sums of what is counted, and the rates in a span; the latency is not among them.
fn added<'a>(
    ranks: impl Iterator<Item = (Timed<'a>, &'a Totals)>,
    span: &Range<f64>,
    write: Option<bool>,
) -> Totals {
    let mut sum = Totals { retried: Some(0), ..Totals::default() };
    for (timed, totals) in ranks {
        count(&mut sum, totals);
        let Rates { iops, bandwidth } = timed.rates(span, write);
        sum.iops += iops;
        sum.bandwidth_bytes_per_s += bandwidth;
    }
    sum
}

/// Commands of all ranks in one direction.
fn operation(
    ranks: &[Decoded<'_>],
    span: &Range<f64>,
    write: bool,
) -> Result<OperationTotals, String> {
    let latency = sum(ranks.iter().map(|rank| rank.latency(write)))?;
    let is_open = ranks.iter().all(|rank| rank.latencies.service.is_some());
    let services = ranks.iter().filter_map(|rank| rank.latencies.service.as_ref());
    let service = sum(services.map(|both| &both[usize::from(write)]))?;
    let service = is_open.then_some(&service);
    let timed = ranks.iter().map(|rank| {
        let Operations { read, write: written } = &rank.timed.point.operations;
        (rank.timed, if write { &written.totals } else { &read.totals })
    });
    Ok(OperationTotals {
        totals: Totals { latency_ns: Latency::new(&latency), ..added(timed, span, Some(write)) },
        distribution: distribution(&latency),
        service_latency_ns: service.map(Latency::new),
        service_distribution: service.map(distribution),
        histogram: Some(HistogramText::new(&latency)),
        service_histogram: service.map(HistogramText::new),
    })
}

fn rank_totals(rank: &RankPoint, span: &Range<f64>) -> RankTotals {
    let RankPoint { rank: number, file, point, .. } = rank;
    let rates = rank.timed().rates(span, None);
    RankTotals {
        totals: Totals {
            iops: rates.iops,
            bandwidth_bytes_per_s: rates.bandwidth,
            ..point.totals.clone()
        },
        rank: *number,
        file: file.clone(),
        host: host(point).to_owned(),
        device: point.configuration.device.clone(),
        began: point.configuration.began.clone(),
        seconds: point.seconds,
    }
}

fn host(point: &PointReport) -> &str {
    point.configuration.host.as_deref().unwrap_or("unknown host")
}

/// Results of each host, in the order of the first rank of each.
fn by_host(ranks: &[Decoded<'_>], span: &Range<f64>) -> Result<Vec<HostTotals>, String> {
    let mut hosts: Vec<&str> = Vec::new();
    for name in ranks.iter().map(|rank| host(rank.timed.point)) {
        if !hosts.contains(&name) {
            hosts.push(name);
        }
    }
    let of_host = |name: &str| {
        let own = ranks.iter().filter(|rank| host(rank.timed.point) == name);
        let count = own.clone().count();
        Ok(HostTotals { totals: totals(own, span)?, host: name.to_owned(), ranks: count })
    };
    hosts.into_iter().map(of_host).collect()
}

/// Results of each target of the ranks. Of several targets of a rank, the latencies and the rates
/// in a span are not known.
fn targets(ranks: &[Decoded<'_>], span: &Range<f64>) -> Result<Vec<TargetTotals>, String> {
    let key = |it: &TargetTotals| (it.target.clone(), it.nqn.clone(), it.nsid);
    let all =
        ranks.iter().flat_map(|rank| rank.timed.point.targets.iter().map(move |it| (rank, it)));
    let is_only = ranks.iter().all(|rank| rank.timed.point.targets.len() == 1);
    let mut merged: Vec<TargetTotals> = Vec::new();
    for (_, target) in all.clone() {
        if merged.iter().any(|other| key(other) == key(target)) {
            continue;
        }
        let own = all.clone().filter(|(_, other)| key(other) == key(target));
        let totals = if is_only {
            totals(own.map(|(rank, _)| rank), span)?
        } else {
            let mut sum = Totals::default();
            own.for_each(|(_, part)| {
                count(&mut sum, &part.totals);
                sum.iops += part.totals.iops;
                sum.bandwidth_bytes_per_s += part.totals.bandwidth_bytes_per_s;
            });
            sum
        };
        merged.push(TargetTotals { totals, paths: Vec::new(), ..target.clone() });
    }
    Ok(merged)
}

fn count(sum: &mut Totals, part: &Totals) {
    sum.completed = sum.completed.saturating_add(part.completed);
    sum.bytes = sum.bytes.saturating_add(part.bytes);
    sum.errors = sum.errors.saturating_add(part.errors);
    sum.retried = sum.retried.zip(part.retried).map(|(a, b)| a.saturating_add(b));
}

/// Warnings of the ranks, by their names, and that of a short common span.
fn warnings(ranks: &[&RankPoint], span: &Range<f64>) -> Vec<String> {
    let own = ranks.iter().flat_map(|rank| {
        rank.point.warnings.iter().map(|warning| format!("{}: {warning}", rank.name()))
    });
    let mut warnings: Vec<_> = own.collect();
    if warnings.len() > WARNINGS_MAX {
        let more = warnings.len() - WARNINGS_MAX;
        warnings.truncate(WARNINGS_MAX);
        warnings.push(format!("{more} more warnings of ranks are left out"));
    }
    let (common, longest) =
        (span.end - span.start, ranks.iter().map(|rank| rank.point.seconds).fold(0.0, f64::max));
    if common < longest * COMMON_SHARE_MIN {
        warnings.push(format!(
            "all ranks measured at the same time for {common:.1} of {longest:.1} s only"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
