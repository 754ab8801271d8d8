//! Difference of the means of two groups of samples, by Welch's method: variances and numbers of
//! samples may differ.
//!
//! The confidence interval holds the true difference with 95 % confidence, if the samples were
//! independent. Samples that follow each other are alike, so they are only roughly independent: an
//! interval that just misses zero wants another pair of runs.

/// Quantile of the normal distribution for a two-sided interval of 95 %.
const CONFIDENCE: Normal =
    Normal { quantile: 1.959_963_985, one_degree: 12.706, two_degrees: 4.303 };
/// Quantile of the normal distribution for 80 %.
const POWER: Normal = Normal { quantile: 0.841_621_234, one_degree: 1.376, two_degrees: 1.061 };

/// Quantile of the normal distribution, and the same ones of Student's for one and two degrees of
/// freedom.
struct Normal {
    quantile: f64,
    one_degree: f64,
    two_degrees: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MeanDifference {
    pub(super) before: f64,
    pub(super) after: f64,
    /// Bounds of the error; none with too few samples.
    pub(super) error: Option<DifferenceError>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DifferenceError {
    /// 95 % confidence interval of `after - before`.
    pub(super) interval: (f64, f64),
    /// Least difference whose interval would have left out zero in 80 % of such pairs of runs.
    pub(super) smallest_visible: f64,
}

impl MeanDifference {
    pub(super) fn new(before: &[f64], after: &[f64]) -> Self {
        let (mean_before, square_before) = mean_and_square_error(before);
        let (mean_after, square_after) = mean_and_square_error(after);
        let square = square_before + square_after;
        let part = |square: f64, count: usize| square * square / (count as f64 - 1.0);
        let error = (before.len() > 1 && after.len() > 1).then(|| {
            let parts = part(square_before, before.len()) + part(square_after, after.len());
            let freedom = if parts > 0.0 { square * square / parts } else { f64::INFINITY };
            let confidence = student_quantile(&CONFIDENCE, freedom);
            let (half, difference) = (confidence * square.sqrt(), mean_after - mean_before);
            DifferenceError {
                interval: (difference - half, difference + half),
                smallest_visible: half + student_quantile(&POWER, freedom) * square.sqrt(),
            }
        });
        Self { before: mean_before, after: mean_after, error }
    }

    /// A difference in percent of the mean before; none of nothing.
    pub(super) fn percent(&self, difference: f64) -> Option<f64> {
        (self.before != 0.0).then(|| difference / self.before * 100.0)
    }
}

/// Mean, and the square of its standard error.
fn mean_and_square_error(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, squares / (count - 1.0).max(1.0) / count.max(1.0))
}

/// Quantile of Student's distribution: exact for 1 and 2 degrees of freedom, else by its expansion
/// in inverse powers of them, good to 0.2 % from 3 on.
fn student_quantile(normal: &Normal, freedom: f64) -> f64 {
    if freedom < 2.0 {
        return normal.one_degree;
    }
    if freedom < 3.0 {
        return normal.two_degrees;
    }
    let z = |power: i32| normal.quantile.powi(power);
    let terms = [
        (z(3) + z(1)) / 4.0,
        (5.0 * z(5) + 16.0 * z(3) + 3.0 * z(1)) / 96.0,
        (3.0 * z(7) + 19.0 * z(5) + 17.0 * z(3) - 15.0 * z(1)) / 384.0,
        (79.0 * z(9) + 776.0 * z(7) + 1482.0 * z(5) - 1920.0 * z(3) - 945.0 * z(1)) / 92_160.0,
    ];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom);
    normal.quantile + sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, confidence, power) in [
            (1.0, 12.706, 1.376),
            (2.0, 4.303, 1.061),
            (3.0, 3.182, 0.978),
            (5.0, 2.571, 0.920),
            (10.0, 2.228, 0.879),
            (30.0, 2.042, 0.854),
            (f64::INFINITY, 1.960, 0.842),
        ] {
            for (normal, expected) in [(&CONFIDENCE, confidence), (&POWER, power)] {
                let found = student_quantile(normal, freedom);
                assert!((found / expected - 1.0).abs() < 0.003, "{freedom}: {found}");
            }
        }
    }

    #[test]
    fn an_interval_is_that_of_the_book() {
        // Means 3 and 6, variances 2.5 and 2.5, five samples each: the error is 1, the freedom 8.
        let difference =
            MeanDifference::new(&[1.0, 2.0, 3.0, 4.0, 5.0], &[4.0, 5.0, 6.0, 7.0, 8.0]);
        let error = difference.error.unwrap();
        let (low, high) = error.interval;
        assert!((low - 0.694).abs() < 0.002 && (high - 5.306).abs() < 0.002, "{low} {high}");
        // The quantiles for 8 degrees of freedom are 2.306 and 0.889.
        assert!((error.smallest_visible - 3.195).abs() < 0.004, "{error:?}");
        assert_eq!(MeanDifference::new(&[1.0], &[2.0, 3.0]).error, None);
    }

    /// Runs that differ by the smallest visible difference show it in four of five cases.
    #[test]
    fn the_smallest_visible_difference_is_seen_by_four_of_five() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = crate::data_pattern::mix(state);
            state as f64 / u64::MAX as f64
        };
        // Sums of twelve have a variance of one, and nearly the form of a bell.
        let mut run = |mean: f64| -> Vec<f64> {
            (0..10).map(|_| mean - 6.0 + (0..12).map(|_| uniform()).sum::<f64>()).collect()
        };
        // What is said of runs of ten samples whose deviation is the true one.
        let deviation = 0.9_f64.sqrt();
        let typical: Vec<f64> =
            (0..10).map(|index| [5.0 - deviation, 5.0 + deviation][index % 2]).collect();
        let difference = MeanDifference::new(&typical, &typical).error.unwrap().smallest_visible;
        let seen = (0..2000)
            .filter(|_| {
                let pair = MeanDifference::new(&run(5.0), &run(5.0 + difference));
                pair.error.is_some_and(|error| error.interval.0 > 0.0)
            })
            .count();
        assert!((1540..1660).contains(&seen), "{seen} of 2000");
    }
}
