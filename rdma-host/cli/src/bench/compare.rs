//! `nvmf bench --compare A B`: what differs between two reports, and how sure that is.
//!
//! Points of the same shape are compared by the points of their series, by Welch's method: the
//! interval holds the true difference of the means with 95 % confidence, if the points of a
//! series were independent. They are so only roughly, as neighbours in time are alike: an
//! interval that just misses zero wants another pair of runs.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::points;
use super::text::{number, title};
use crate::failure::Failure;
use crate::{Format, print_json, print_text};

/// What is compared: its name, its field in a series, and whether more is better.
const MEASURES: [(&str, &str, bool); 4] = [
    ("IOPS", "iops", true),
    ("mean latency", "mean_ns", false),
    ("p50 latency", "p50_ns", false),
    ("p99 latency", "p99_ns", false),
];

/// What makes two points the same shape.
const SHAPE: [&str; 9] =
    ["rw", "read_percent", "bs", "iodepth", "queues", "threads", "targets", "rate", "arrival"];

/// A difference of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Difference {
    before: f64,
    after: f64,
    /// Of `after - before`, with 95 % confidence; nothing with too few samples.
    interval: Option<(f64, f64)>,
}

/// What may be said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// Zero is within the interval.
    Same,
    Unknown,
}

pub(super) fn run(files: &[PathBuf], format: Format) -> Result<(), Failure> {
    let [before, after] = files else {
        return Err(Failure::usage("--compare takes two reports"));
    };
    let compared = compare(&read(before)?, &read(after)?);
    if compared.as_array().is_none_or(Vec::is_empty) {
        return Err(Failure::failed("the reports have no point of the same shape"));
    }
    match format {
        Format::Json => print_json(&json!({ "points": compared })),
        Format::Normal => print_text(&to_text(&compared)),
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let failed = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// All points of `before` that have one of the same shape in `after`.
fn compare(before: &Value, after: &Value) -> Value {
    let alike = |a: &Value, b: &Value| {
        SHAPE.iter().all(|name| a["configuration"][name] == b["configuration"][name])
    };
    let pairs = points(before).iter().filter_map(|before| {
        let after = points(after).iter().find(|after| alike(before, after))?;
        Some(compare_point(before, after))
    });
    pairs.collect()
}

fn compare_point(before: &Value, after: &Value) -> Value {
    let measures = MEASURES.iter().map(|&(name, field, more_is_better)| {
        let difference = Difference::new(&samples(before, field), &samples(after, field));
        json!({
            "measure": name,
            "before": difference.before,
            "after": difference.after,
            "percent": difference.percent(difference.after - difference.before),
            "confidence_95_percent": difference
                .interval
                .map(|(low, high)| [difference.percent(low), difference.percent(high)]),
            "verdict": difference.verdict(more_is_better).name(),
        })
    });
    json!({ "point": title(before), "measures": measures.collect::<Vec<_>>() })
}

/// One field of a series; without what lasted less than half an interval.
fn samples(point: &Value, field: &str) -> Vec<f64> {
    let series = point["series"].as_array().map(Vec::as_slice).unwrap_or_default();
    let longest = series.iter().map(|at| number(&at["seconds"])).fold(0.0, f64::max);
    let whole = series.iter().filter(|at| number(&at["seconds"]) * 2.0 >= longest);
    whole.map(|at| number(&at[field])).collect()
}

impl Difference {
    /// By Welch's method: neither the variances nor the numbers of samples need be the same.
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

    fn verdict(&self, more_is_better: bool) -> Verdict {
        match self.interval {
            None => Verdict::Unknown,
            Some((low, high)) if low <= 0.0 && high >= 0.0 => Verdict::Same,
            Some((low, _)) if (low > 0.0) == more_is_better => Verdict::Better,
            Some(_) => Verdict::Worse,
        }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "no difference seen",
            Self::Unknown => "too few samples",
        }
    }
}

/// The mean, and the square of its standard error.
fn mean_and_error(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, squares / (count - 1.0).max(1.0) / count.max(1.0))
}

/// The quantile of Student's distribution for 95 % on both sides: exact for 1 and 2 degrees of
/// freedom, else by its expansion in inverse powers of them, good to 0.2 % from 3 on.
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

fn to_text(compared: &Value) -> String {
    let mut text = String::new();
    for point in compared.as_array().into_iter().flatten() {
        let _ = writeln!(text, "{}", point["point"].as_str().unwrap_or_default());
        for measure in point["measures"].as_array().into_iter().flatten() {
            let (before, after) = (number(&measure["before"]), number(&measure["after"]));
            let name = measure["measure"].as_str().unwrap_or_default();
            let (unit, scale) = if name == "IOPS" { ("", 1.0) } else { (" µs", 1000.0) };
            let _ = write!(
                text,
                "  {name:<13} {:>12.1}{unit} → {:>12.1}{unit}  {:+.1} %",
                before / scale,
                after / scale,
                number(&measure["percent"])
            );
            let interval = &measure["confidence_95_percent"];
            if interval.is_array() {
                let (low, high) = (number(&interval[0]), number(&interval[1]));
                let _ = write!(text, " (95 %: {low:+.1} to {high:+.1} %)");
            }
            let _ = writeln!(text, "  {}", measure["verdict"].as_str().unwrap_or_default());
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
        let difference = Difference::new(&[1.0, 2.0, 3.0, 4.0, 5.0], &[4.0, 5.0, 6.0, 7.0, 8.0]);
        let (low, high) = difference.interval.unwrap();
        assert!((low - 0.694).abs() < 0.002 && (high - 5.306).abs() < 0.002, "{low} {high}");
        assert_eq!(difference.verdict(true), Verdict::Better);
        assert_eq!(difference.verdict(false), Verdict::Worse);
    }

    #[test]
    fn noise_and_too_little_are_no_difference() {
        let noise = Difference::new(&[1.0, 3.0, 2.0, 4.0], &[2.0, 3.0, 1.0, 4.5]);
        assert_eq!(noise.verdict(true), Verdict::Same);
        assert_eq!(Difference::new(&[1.0], &[2.0]).verdict(true), Verdict::Unknown);
    }

    /// A report of one point with a series of these IOPS.
    fn report(iodepth: u64, iops: &[f64]) -> Value {
        let at = |iops: &f64| json!({ "seconds": 1.0, "iops": iops });
        json!({
            "configuration": { "iodepth": iodepth },
            "series": iops.iter().map(at).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn points_of_one_shape_meet() {
        let before = json!({ "points": [report(1, &[1.0, 1.1]), report(8, &[8.0, 8.1, 7.9])] });
        let compared = compare(&before, &report(8, &[16.0, 16.1, 15.9]));
        let points = compared.as_array().unwrap();
        assert_eq!(points.len(), 1);
        let iops = &points[0]["measures"][0];
        assert_eq!(iops["verdict"], "better");
        assert!((iops["percent"].as_f64().unwrap() - 100.0).abs() < 1e-9);
    }
}
