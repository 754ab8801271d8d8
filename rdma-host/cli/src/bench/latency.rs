//! Latencies of a report: percentiles, as far as there are enough samples for them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Samples that must be above a percentile for it to be reported.
const SAMPLES_ABOVE: f64 = 10.0;

/// Pairs of a percentile and the nanoseconds within which that share of the commands completed;
/// at smaller distances towards 100.
pub(super) type Distribution = Vec<(f64, u64)>;

/// Latency in nanoseconds; null for a percentile with fewer than ten samples above it, and for
/// everything if nothing completed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Latency {
    pub(super) min: Option<u64>,
    pub(super) mean: Option<f64>,
    pub(super) stdev: Option<f64>,
    pub(super) max: Option<u64>,
    pub(super) p50: Option<u64>,
    pub(super) p75: Option<u64>,
    pub(super) p90: Option<u64>,
    pub(super) p95: Option<u64>,
    pub(super) p99: Option<u64>,
    pub(super) p99_9: Option<u64>,
    pub(super) p99_99: Option<u64>,
    pub(super) p99_999: Option<u64>,
}

/// Percentiles of a histogram, up to the last one with enough samples above it.
pub(super) fn distribution(histogram: &Histogram<u64>) -> Distribution {
    if histogram.is_empty() {
        return Vec::new();
    }
    let steps = histogram.iter_quantiles(8);
    steps
        .take_while(|step| is_supported(histogram.len(), step.quantile_iterated_to()))
        .map(|step| (step.quantile_iterated_to() * 100.0, step.value_iterated_to()))
        .collect()
}

/// True if this number of samples is enough for a quantile.
pub(super) fn is_supported(samples: u64, quantile: f64) -> bool {
    // 0.1 % of 10,000 samples are ten, in floating point a little less.
    samples as f64 * (1.0 - quantile) > SAMPLES_ABOVE - 1e-6
}

/// Value of a quantile; none if there are too few samples for it.
pub(super) fn value_at(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    is_supported(histogram.len(), quantile).then(|| histogram.value_at_quantile(quantile))
}

/// Mean; none without samples.
pub(super) fn mean(histogram: &Histogram<u64>) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.mean())
}

impl Latency {
    pub(super) fn new(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| value_at(histogram, quantile);
        Self {
            min: Some(histogram.min()),
            mean: mean(histogram),
            stdev: Some(histogram.stdev()),
            max: Some(histogram.max()),
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            p99_999: at(0.99999),
        }
    }

    /// Removes what this number of samples does not support.
    pub(super) fn remove_unsupported(&mut self, samples: u64) {
        if samples == 0 {
            *self = Self::default();
        }
        for (percentile, quantile) in [
            (&mut self.p50, 0.5),
            (&mut self.p75, 0.75),
            (&mut self.p90, 0.9),
            (&mut self.p95, 0.95),
            (&mut self.p99, 0.99),
            (&mut self.p99_9, 0.999),
            (&mut self.p99_99, 0.9999),
            (&mut self.p99_999, 0.99999),
        ] {
            *percentile = percentile.filter(|_| is_supported(samples, quantile));
        }
    }

    /// Columns of a table, in nanoseconds: least, mean, the percentiles, and most.
    pub(super) fn columns(&self) -> [(&'static str, Option<f64>); 11] {
        let float = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds as f64);
        [
            ("min", float(self.min)),
            ("mean", self.mean),
            ("p50", float(self.p50)),
            ("p75", float(self.p75)),
            ("p90", float(self.p90)),
            ("p95", float(self.p95)),
            ("p99", float(self.p99)),
            ("p99.9", float(self.p99_9)),
            ("p99.99", float(self.p99_99)),
            ("p99.999", float(self.p99_999)),
            ("max", float(self.max)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(samples: u64) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=samples).for_each(|sample| histogram.record(sample * 1000).unwrap());
        histogram
    }

    #[test]
    fn a_percentile_has_ten_samples_above_it() {
        let supported = [
            (0, 0),
            (19, 0),
            (20, 1),
            (40, 2),
            (99, 2),
            (100, 3),
            (200, 4),
            (999, 4),
            (1_000, 5),
            (9_999, 5),
            (10_000, 6),
            (17_600, 6),
            (100_000, 7),
            (1_000_000, 8),
        ];
        for (samples, supported) in supported {
            let latency = Latency::new(&histogram(samples));
            let Latency { p50, p75, p90, p95, p99, p99_9, p99_99, p99_999, .. } = latency;
            let percentiles = [p50, p75, p90, p95, p99, p99_9, p99_99, p99_999];
            let found = percentiles.iter().take_while(|value| value.is_some()).count();
            assert_eq!(found, supported, "{samples}: {percentiles:?}");
            assert!(percentiles[found..].iter().all(Option::is_none), "{percentiles:?}");
            assert_eq!(latency.max.is_some() && latency.mean.is_some(), samples > 0);
        }
    }

    #[test]
    fn the_curve_ends_at_the_data() {
        for samples in [0, 9, 20, 17_600] {
            let curve = distribution(&histogram(samples));
            let above = |percentile: f64| samples as f64 * (1.0 - percentile / 100.0);
            assert!(curve.iter().all(|(percentile, _)| above(*percentile) >= 9.999), "{curve:?}");
            assert_eq!(curve.is_empty(), samples < 10, "{samples}");
        }
    }
}
