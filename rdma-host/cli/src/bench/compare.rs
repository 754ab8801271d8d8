//! `nvmf bench --compare A B`: difference of two reports, and its confidence.
//!
//! Points of the same shape are compared by the intervals of their series, by Welch's method: the
//! confidence interval holds the true difference of the means with 95 % confidence, if the samples
//! were independent. Samples that follow each other are alike, so they are only roughly
//! independent: an interval that just misses zero wants another pair of runs.

use std::{fmt::Write, path::PathBuf};

use serde::Serialize;
use serde_json::json;

use super::{
    report::{Configuration, Interval, PointReport, read},
    text::title,
};
use crate::{Format, failure::Failure, output};

/// Measured quantity that is compared.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// Divisor from the value of an interval to `unit`.
    scale: f64,
    value: fn(&Interval) -> Option<f64>,
    more_is_better: bool,
}

const MEASURES: [Measure; 4] = [
    Measure { name: "IOPS", unit: "", scale: 1.0, value: |at| Some(at.iops), more_is_better: true },
    Measure::latency("mean latency", |at| at.mean_ns),
    Measure::latency("p50 latency", |at| at.p50_ns.map(|ns| ns as f64)),
    Measure::latency("p99 latency", |at| at.p99_ns.map(|ns| ns as f64)),
];

/// Differences of two points of the same shape.
#[derive(Serialize)]
struct PointComparison {
    point: String,
    measures: Vec<Comparison>,
}

#[derive(Serialize)]
struct Comparison {
    measure: &'static str,
    before: f64,
    after: f64,
    percent: f64,
    confidence_95_percent: Option<[f64; 2]>,
    verdict: &'static str,
}

/// Difference of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
struct MeanDifference {
    before: f64,
    after: f64,
    /// 95 % confidence interval of `after - before`; none with too few samples.
    interval: Option<(f64, f64)>,
}

pub(super) fn run(files: &[PathBuf], format: Format) -> Result<(), Failure> {
    let [before, after] = files else {
        return Err(Failure::usage("--compare takes two reports"));
    };
    let compared = compare(&read(before)?, &read(after)?);
    if compared.is_empty() {
        return Err(Failure::failed("the reports have no point of the same shape"));
    }
    match format {
        Format::Json => output::print_json(&json!({ "points": compared })),
        Format::Normal => output::print_text(&to_text(&compared)),
    }
}

/// Compares each point of `before` with the first one of the same shape in `after`.
fn compare(before: &[PointReport], after: &[PointReport]) -> Vec<PointComparison> {
    let pairs = before.iter().filter_map(|before| {
        let same_shape =
            |after: &&PointReport| shape(&before.configuration) == shape(&after.configuration);
        Some(PointComparison::new(before, after.iter().find(same_shape)?))
    });
    pairs.collect()
}

/// Settings that two points must have in common.
fn shape(of: &Configuration) -> impl PartialEq {
    let load = (&of.rw, of.read_percent, &of.bs, of.rate, &of.arrival);
    (load, of.iodepth, of.queues, of.threads, of.targets)
}

impl PointComparison {
    fn new(before: &PointReport, after: &PointReport) -> Self {
        let measures = MEASURES.iter().map(|measure| {
            let samples = |point| samples(point, measure.value);
            let difference = MeanDifference::new(&samples(before), &samples(after));
            Comparison {
                measure: measure.name,
                before: difference.before,
                after: difference.after,
                percent: difference.percent(difference.after - difference.before),
                confidence_95_percent: difference
                    .interval
                    .map(|(low, high)| [difference.percent(low), difference.percent(high)]),
                verdict: difference.verdict(measure.more_is_better),
            }
        });
        Self { point: title(before), measures: measures.collect() }
    }
}

impl Measure {
    const fn latency(name: &'static str, value: fn(&Interval) -> Option<f64>) -> Self {
        Self { name, unit: " µs", scale: 1000.0, value, more_is_better: false }
    }
}

/// Values of a series, without the intervals that lasted less than half of the longest one.
fn samples(point: &PointReport, value: fn(&Interval) -> Option<f64>) -> Vec<f64> {
    let longest = point.series.iter().map(|at| at.seconds).fold(0.0, f64::max);
    point.series.iter().filter(|at| at.seconds * 2.0 >= longest).filter_map(value).collect()
}

impl MeanDifference {
    /// Difference by Welch's method: variances and numbers of samples may differ.
    fn new(before: &[f64], after: &[f64]) -> Self {
        let (mean_before, error_before) = mean_and_error(before);
        let (mean_after, error_after) = mean_and_error(after);
        let error = error_before + error_after;
        let part = |error: f64, count: usize| error * error / (count as f64 - 1.0);
        let interval = (before.len() > 1 && after.len() > 1).then(|| {
            let parts = part(error_before, before.len()) + part(error_after, after.len());
            let freedom = if parts > 0.0 { error * error / parts } else { f64::INFINITY };
            let half = student_quantile(freedom) * error.sqrt();
            let difference = mean_after - mean_before;
            (difference - half, difference + half)
        });
        Self { before: mean_before, after: mean_after, interval }
    }

    fn percent(&self, difference: f64) -> f64 {
        if self.before == 0.0 { 0.0 } else { difference / self.before * 100.0 }
    }

    fn verdict(&self, more_is_better: bool) -> &'static str {
        match self.interval {
            None => "too few samples",
            Some((low, high)) if low <= 0.0 && high >= 0.0 => "no difference seen",
            Some((low, _)) if (low > 0.0) == more_is_better => "better",
            Some(_) => "worse",
        }
    }
}

/// Mean, and the square of its standard error.
fn mean_and_error(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, squares / (count - 1.0).max(1.0) / count.max(1.0))
}

/// Two-sided 95 % quantile of Student's distribution: exact for 1 and 2 degrees of freedom, else
/// by its expansion in inverse powers of them, good to 0.2 % from 3 on.
fn student_quantile(freedom: f64) -> f64 {
    const NORMAL: f64 = 1.959_963_985;
    if freedom < 2.0 {
        return 12.706;
    }
    if freedom < 3.0 {
        return 4.303;
    }
    let z = |power: i32| NORMAL.powi(power);
    let terms = [
        (z(3) + z(1)) / 4.0,
        (5.0 * z(5) + 16.0 * z(3) + 3.0 * z(1)) / 96.0,
        (3.0 * z(7) + 19.0 * z(5) + 17.0 * z(3) - 15.0 * z(1)) / 384.0,
        (79.0 * z(9) + 776.0 * z(7) + 1482.0 * z(5) - 1920.0 * z(3) - 945.0 * z(1)) / 92_160.0,
    ];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom);
    NORMAL + sum
}

fn to_text(compared: &[PointComparison]) -> String {
    let mut text = String::new();
    for point in compared {
        let _ = writeln!(text, "{}", point.point);
        for (comparison, Measure { name, unit, scale, .. }) in point.measures.iter().zip(&MEASURES)
        {
            let _ = write!(
                text,
                "  {name:<13} {:>12.1}{unit} → {:>12.1}{unit}  {:+.1} %",
                comparison.before / scale,
                comparison.after / scale,
                comparison.percent
            );
            if let Some([low, high]) = comparison.confidence_95_percent {
                let _ = write!(text, " (95 %: {low:+.1} to {high:+.1} %)");
            }
            let _ = writeln!(text, "  {}", comparison.verdict);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, expected) in
            [(1.0, 12.706), (2.0, 4.303), (3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042)]
        {
            let found = student_quantile(freedom);
            assert!((found / expected - 1.0).abs() < 0.003, "{freedom}: {found}");
        }
        assert!((student_quantile(f64::INFINITY) - 1.96).abs() < 1e-4);
    }

    #[test]
    fn an_interval_is_that_of_the_book() {
        // Means 3 and 6, variances 2.5 and 2.5, five samples each: the error is 1, the freedom 8.
        let difference =
            MeanDifference::new(&[1.0, 2.0, 3.0, 4.0, 5.0], &[4.0, 5.0, 6.0, 7.0, 8.0]);
        let (low, high) = difference.interval.unwrap();
        assert!((low - 0.694).abs() < 0.002 && (high - 5.306).abs() < 0.002, "{low} {high}");
        assert_eq!(difference.verdict(true), "better");
        assert_eq!(difference.verdict(false), "worse");
    }

    #[test]
    fn noise_and_too_few_samples_are_no_difference() {
        let noise = MeanDifference::new(&[1.0, 3.0, 2.0, 4.0], &[2.0, 3.0, 1.0, 4.5]);
        assert_eq!(noise.verdict(true), "no difference seen");
        assert_eq!(MeanDifference::new(&[1.0], &[2.0]).verdict(true), "too few samples");
    }

    /// Point with a series of these IOPS.
    fn report(iodepth: u16, iops: &[f64]) -> PointReport {
        let at = |&iops: &f64| Interval { seconds: 1.0, iops, ..Interval::default() };
        PointReport {
            configuration: Configuration { iodepth, ..Configuration::default() },
            series: iops.iter().map(at).collect(),
            ..PointReport::default()
        }
    }

    #[test]
    fn points_of_the_same_shape_are_compared() {
        let before = [report(1, &[1.0, 1.1]), report(8, &[8.0, 8.1, 7.9])];
        let points = compare(&before, &[report(8, &[16.0, 16.1, 15.9])]);
        assert_eq!(points.len(), 1);
        let iops = &points[0].measures[0];
        assert_eq!(iops.verdict, "better");
        assert!((iops.percent - 100.0).abs() < 1e-9);
    }
}
