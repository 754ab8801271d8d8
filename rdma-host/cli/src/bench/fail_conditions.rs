//! Conditions under which a result is a failure: `--fail-if` and `--fail-if-worse`, for CI.

use std::{fmt, str::FromStr};

use super::{
    compare::{Comparison, MeasureComparison},
    latency::Latency,
    report::{PointReport, Totals},
    text::title,
};
use crate::{failure::Failure, size};

/// Condition such as `p99>200us`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FailCondition {
    /// Text of the command line.
    text: String,
    operation: Option<Direction>,
    metric: Metric,
    comparison: Operator,
    /// In the unit of the report: nanoseconds, commands or bytes a second, commands.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Value of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// Column of [`Latency::columns`].
    Latency(&'static str),
    Iops,
    Bandwidth,
    Errors,
    Retried,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// Operators as written; the longer ones first.
const OPERATORS: [(&str, Operator); 4] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl FromStr for FailCondition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = OPERATORS.iter().find_map(|&(sign, operator)| {
            let (name, limit) = text.split_once(sign)?;
            Some((name.trim(), operator, limit.trim()))
        });
        let (name, comparison, limit) =
            found.ok_or("write VALUE>LIMIT or VALUE<LIMIT, as in p99>200us")?;
        let (operation, name) = match name.split_once('.') {
            Some(("read", name)) => (Some(Direction::Read), name),
            Some(("write", name)) => (Some(Direction::Write), name),
            _ => (None, name),
        };
        let metric: Metric = name.parse()?;
        let limit = metric.parse_limit(limit)?;
        Ok(Self { text: text.to_owned(), operation, metric, comparison, limit })
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let columns = Latency::default().columns().map(|(name, _)| name);
        // The keys of a report in JSON have no dots.
        let column = columns.into_iter().find(|column| *column == name.replace('_', "."));
        match (name, column) {
            (_, Some(column)) => Ok(Self::Latency(column)),
            ("iops", _) => Ok(Self::Iops),
            ("bandwidth" | "bw", _) => Ok(Self::Bandwidth),
            ("errors", _) => Ok(Self::Errors),
            ("retried", _) => Ok(Self::Retried),
            _ => Err(format!(
                "no such value; use iops, bandwidth, errors, retried, or a latency: {}; with read. \
                 or write. before it for one direction",
                columns.join(", ")
            )),
        }
    }
}

impl Metric {
    fn of(self, totals: &Totals) -> Option<f64> {
        match self {
            Self::Latency(column) => {
                let columns = totals.latency_ns.columns();
                columns.into_iter().find(|(name, _)| *name == column)?.1
            }
            Self::Iops => Some(totals.iops),
            Self::Bandwidth => Some(totals.bandwidth_bytes_per_s),
            Self::Errors => Some(totals.errors as f64),
            Self::Retried => totals.retried.map(|retried| retried as f64),
        }
    }

    fn parse_limit(self, text: &str) -> Result<f64, String> {
        match self {
            Self::Latency(_) => size::nanoseconds(text),
            Self::Bandwidth => {
                size::bytes(text.strip_suffix("/s").unwrap_or(text)).map(|bytes| bytes as f64)
            }
            Self::Iops | Self::Errors | Self::Retried => size::thousands(text),
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Latency(_) => format!("{:.1} µs", value / 1000.0),
            Self::Bandwidth => format!("{:.1} MiB/s", value / f64::from(1 << 20)),
            Self::Iops => format!("{value:.1}"),
            Self::Errors | Self::Retried => format!("{value:.0}"),
        }
    }
}

impl FailCondition {
    /// Words for a point that meets the condition, or for which it can't be judged.
    fn failure_of(&self, point: &PointReport) -> Option<String> {
        let totals = match self.operation {
            None => &point.totals,
            Some(Direction::Read) => &point.operations.read.totals,
            Some(Direction::Write) => &point.operations.write.totals,
        };
        let Some(value) = self.metric.of(totals) else {
            let cause = match self.metric {
                Metric::Retried => "this report is of a version that did not count it",
                _ => "too few commands completed",
            };
            return Some(format!("is not known, since {cause}"));
        };
        let is_met = match self.comparison {
            Operator::Above => value > self.limit,
            Operator::AtLeast => value >= self.limit,
            Operator::Below => value < self.limit,
            Operator::AtMost => value <= self.limit,
        };
        is_met.then(|| format!("is {}", self.metric.shown(value)))
    }
}

impl fmt::Display for FailCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Fails if a point meets a condition, or is too short for it to be judged.
pub(super) fn check(conditions: &[FailCondition], points: &[PointReport]) -> Result<(), Failure> {
    let met = points.iter().flat_map(|point| {
        conditions.iter().filter_map(move |condition| {
            let words = condition.failure_of(point)?;
            let metric = condition.text.split(['<', '>']).next().unwrap_or_default().trim();
            Some(format!("--fail-if {condition}: {metric} {words} in {}", title(point)))
        })
    });
    fail_with(met.collect())
}

/// Fails if a quantity is worse than before by more than `limit` percent and not by chance alone,
/// or if there is nothing to judge by. Where there are too few samples to exclude chance, the
/// difference counts as it is.
pub(super) fn check_worse(comparison: &Comparison<'_>, limit: f64) -> Result<(), Failure> {
    let mut worse = Vec::new();
    if comparison.points.is_empty() {
        worse.push("--fail-if-worse: the reports have no points of the same load".to_owned());
    }
    for point in &comparison.points {
        if !point.same_load {
            let settings = "the loads differ, so that nothing can be said";
            worse.push(format!("--fail-if-worse {limit}%: {settings}: {}", point.point));
            continue;
        }
        let is_worse = |measure: &&MeasureComparison| measure.is_worse_by(limit);
        worse.extend(point.measures.iter().filter(is_worse).map(|measure| {
            let (before, after) = (measure.shown(measure.before), measure.shown(measure.after));
            let name = measure.measure;
            let worse = match measure.worse_percent() {
                Some(percent) => format!("{percent:.1} % worse, {after} after {before}"),
                None => format!("worse, {after} where there was nothing before"),
            };
            format!("--fail-if-worse {limit}%: {name} is {worse}, in {}", point.point)
        }));
    }
    fail_with(worse)
}

/// Failure with the first of these causes, if there are any.
fn fail_with(causes: Vec<String>) -> Result<(), Failure> {
    let Some((first, others)) = causes.split_first() else { return Ok(()) };
    Err(match others.len() {
        0 => Failure::failed(first),
        count => Failure::failed(format!("{first}; and {count} more")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> PointReport {
        let mut point = PointReport::default();
        let totals = &mut point.totals;
        (totals.iops, totals.bandwidth_bytes_per_s, totals.retried) =
            (1000.0, 4_096_000.0, Some(3));
        totals.latency_ns.p99 = Some(200_000);
        totals.latency_ns.mean = Some(100_500.0);
        point.operations.write.totals.iops = 7.0;
        point
    }

    fn outcome(condition: &str) -> Result<(), String> {
        let condition = condition.parse().unwrap_or_else(|error| panic!("{condition}: {error}"));
        check(&[condition], &[point()]).map_err(|failure| failure.to_string())
    }

    #[test]
    fn conditions_hold_in_all_units() {
        for (holds, condition) in [
            (false, "p99>200us"),
            (true, "p99>=200us"),
            (true, "p99>199.9us"),
            (true, "p99 > 0.1ms"),
            (false, "p99<200000ns"),
            (true, "p99<=200µs"),
            (false, "p99>1s"),
            (true, "mean>100us"),
            (true, "iops<1001"),
            (true, "iops<1.1k"),
            (false, "iops<1k"),
            (true, "iops<1M"),
            (false, "bandwidth<3M"),
            (true, "bw<4MiB/s"),
            (false, "errors>0"),
            (true, "retried>2"),
            (true, "write.iops<8"),
            (false, "write.iops<7"),
            (true, "read.iops<1"),
        ] {
            assert_eq!(outcome(condition).is_err(), holds, "{condition}");
        }
    }

    #[test]
    fn a_message_has_the_condition_the_limit_and_the_value() {
        let message = outcome("p99>150us").unwrap_err();
        assert!(message.starts_with("--fail-if p99>150us: p99 is 200.0 µs in "), "{message}");
        let message = outcome("bw<4M").unwrap_err();
        assert!(message.starts_with("--fail-if bw<4M: bw is 3.9 MiB/s in "), "{message}");
        // A percentile that too few samples support.
        let message = outcome("p99_9>1s").unwrap_err();
        assert!(message.contains("p99_9 is not known, since too few commands"), "{message}");
        let conditions = ["p99>1us", "iops<1M"].map(|text| text.parse().unwrap());
        let failure = check(&conditions, &[point(), point()]).unwrap_err();
        assert!(failure.to_string().ends_with("; and 3 more"), "{failure}");
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (wrong, word) in [
            ("", "as in p99>200us"),
            ("p99", "as in p99>200us"),
            ("p99=1us", "as in p99>200us"),
            ("p98>1us", "p99.999"),
            ("trim.iops<1", "iops, bandwidth"),
            ("p99>200", "unit"),
            ("p99>us", "200us"),
            ("p99>-1us", "200us"),
            ("p99>infs", "200us"),
            ("iops<1us", "suffix"),
            ("bw<x", "suffix"),
            ("bw<M", "whole number"),
            ("errors>", "number"),
        ] {
            let error = wrong.parse::<FailCondition>().expect_err(wrong);
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }

    /// Report whose intervals have these IOPS.
    fn series(iops: &[f64]) -> Vec<PointReport> {
        use super::super::report::Interval;
        let at = |&iops: &f64| Interval { seconds: 1.0, iops, ..Interval::default() };
        vec![PointReport { series: iops.iter().map(at).collect(), ..PointReport::default() }]
    }

    #[test]
    fn worse_by_more_than_the_limit_and_not_by_chance_is_a_failure() {
        let before = series(&[100.0, 101.0, 99.0]);
        for (after, limit, fails) in [
            (&[100.0, 101.0, 99.0][..], 5.0, false),
            (&[90.0, 91.0, 89.0], 5.0, true),
            (&[90.0, 91.0, 89.0], 11.0, false),
            (&[110.0, 111.0, 109.0], 5.0, false),
            // Ten percent worse, but so scattered that it may be chance.
            (&[50.0, 130.0, 90.0], 5.0, false),
            (&[90.0], 5.0, true),
        ] {
            let after = series(after);
            let outcome = check_worse(&Comparison::new(&before, &after), limit);
            assert_eq!(outcome.is_err(), fails, "{after:?} {outcome:?}");
        }
        let after = series(&[90.0, 91.0, 89.0]);
        let failure = check_worse(&Comparison::new(&before, &after), 5.0).unwrap_err().to_string();
        let expected = "--fail-if-worse 5%: IOPS is 10.0 % worse, 90.0 after 100.0, in ";
        assert!(failure.starts_with(expected), "{failure}");
    }

    /// There is no percentage of nothing: whatever is there now is more.
    #[test]
    fn what_comes_from_nothing_is_worse() {
        let (before, mut after) = (series(&[100.0; 3]), series(&[100.0; 3]));
        let mut nothing = before.clone();
        let latencies = |points: &mut [PointReport], mean_ns: [f64; 3]| {
            for (at, mean_ns) in points[0].series.iter_mut().zip(mean_ns) {
                at.mean_ns = Some(mean_ns);
            }
        };
        latencies(&mut nothing, [0.0; 3]);
        latencies(&mut after, [500.0, 510.0, 490.0]);
        let failure = check_worse(&Comparison::new(&nothing, &after), 5.0).unwrap_err();
        let expected = "--fail-if-worse 5%: mean latency is worse, 0.5 µs where there was nothing \
                        before, in ";
        assert!(failure.to_string().starts_with(expected), "{failure}");
        // More commands than none are better, and nothing after nothing is the same.
        let idle = series(&[0.0; 3]);
        assert!(check_worse(&Comparison::new(&idle, &before), 5.0).is_ok());
        assert!(check_worse(&Comparison::new(&nothing, &nothing), 5.0).is_ok());
    }

    #[test]
    fn without_the_same_load_nothing_passes() {
        let before = series(&[1.0, 1.0]);
        let failure = check_worse(&Comparison::new(&before, &[]), 5.0).unwrap_err();
        assert!(failure.to_string().contains("no points of the same load"), "{failure}");
        let mut after = series(&[1.0, 1.0]);
        after[0].configuration.iodepth = 2;
        let failure = check_worse(&Comparison::new(&before, &after), 5.0).unwrap_err();
        assert!(failure.to_string().contains("loads differ"), "{failure}");
    }
}
