//! Difference of the means of two groups of samples of a quantity that is never negative.
//!
//! The interval is that of the logarithm of the ratio of the means, whose standard error follows
//! from those of both means relative to them, with the degrees of freedom of Welch's method:
//! variances and numbers of samples may differ. So no bound is a fall by more than 100 %, and
//! swapping the groups inverts the ratio and its bounds. Where a mean is 0 it is Welch's interval
//! of the difference.
//!
//! The interval holds the true difference with 95 % confidence, if the samples were independent.
//! Samples that follow each other are alike, so they are only roughly independent: an interval that
//! just misses zero wants another pair of runs.

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
    /// 95 % confidence interval of `after - before`, from `-before` up.
    pub(super) interval: (f64, f64),
    /// Least rise whose interval would have left out zero in 80 % of such pairs of runs; a fall of
    /// this size is seen at least as often.
    pub(super) smallest_visible: f64,
}

impl MeanDifference {
    pub(super) fn new(before: &[f64], after: &[f64]) -> Self {
        let (mean_before, square_before) = mean_and_square_error(before);
        let (mean_after, square_after) = mean_and_square_error(after);
        let counts = [before.len(), after.len()];
        let error = counts.iter().all(|&count| count > 1).then(|| {
            if mean_before > 0.0 && mean_after > 0.0 {
                let squares =
                    [square_before / mean_before.powi(2), square_after / mean_after.powi(2)];
                let (half, visible) = half_and_visible(squares, counts);
                let bound = |deviation: f64| mean_after * deviation.exp() - mean_before;
                DifferenceError {
                    interval: (bound(-half), bound(half)),
                    smallest_visible: mean_before * visible.exp_m1(),
                }
            } else {
                let (half, visible) = half_and_visible([square_before, square_after], counts);
                let difference = mean_after - mean_before;
                DifferenceError {
                    interval: ((difference - half).max(-mean_before), difference + half),
                    smallest_visible: visible,
                }
            }
        });
        Self { before: mean_before, after: mean_after, error }
    }

    /// A difference in percent of the mean before; none of nothing.
    pub(super) fn percent(&self, difference: f64) -> Option<f64> {
        (self.before != 0.0).then(|| difference / self.before * 100.0)
    }
}

/// Half of the width of an interval, and the least difference that is seen in 80 % of all cases,
/// from the squares of the standard errors of both means and the numbers of samples, each at least
/// 2.
fn half_and_visible(squares: [f64; 2], counts: [usize; 2]) -> (f64, f64) {
    let square: f64 = squares.iter().sum();
    let parts = squares.iter().zip(counts).map(|(part, count)| part * part / (count as f64 - 1.0));
    let parts: f64 = parts.sum();
    let freedom = if parts > 0.0 { square * square / parts } else { f64::INFINITY };
    let half = student_quantile(&CONFIDENCE, freedom) * square.sqrt();
    (half, half + student_quantile(&POWER, freedom) * square.sqrt())
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
    fn half_an_interval_is_that_of_the_book() {
        // Variances 2.5 and 2.5, five samples each: the error is 1, the freedom 8, whose quantiles
        // are 2.306 and 0.889.
        let (half, visible) = half_and_visible([0.5, 0.5], [5, 5]);
        assert!((half - 2.306).abs() < 0.002 && (visible - 3.195).abs() < 0.004, "{half}");
        assert_eq!(MeanDifference::new(&[1.0], &[2.0, 3.0]).error, None);
    }

    /// A rate or a time cannot fall by more than all of it, however its samples are spread.
    #[test]
    fn no_interval_reaches_below_a_fall_to_nothing() {
        for (before, after) in [
            (&[1.0, 9.0][..], &[0.1, 5.0][..]),
            (&[1.0, 1000.0, 2.0], &[0.5, 3.0]),
            (&[0.0, 0.0, 0.0, 4.0], &[0.0, 0.0]),
        ] {
            let difference = MeanDifference::new(before, after);
            let (low, high) = difference.error.expect("enough samples").interval;
            let percent = |value| difference.percent(value).expect("something was before");
            assert!(percent(low) >= -100.0 && high > 0.0, "{low} {high}: {before:?} {after:?}");
            assert!(low < difference.after - difference.before || low == -difference.before);
        }
    }

    /// Swapped groups have the inverse ratios.
    #[test]
    fn the_order_of_the_groups_changes_no_verdict() {
        let (one, other) = ([3.0, 4.0, 5.0, 4.5], [6.0, 7.0, 5.5]);
        let ratios = |before: &[f64], after: &[f64]| {
            let it = MeanDifference::new(before, after);
            let (low, high) = it.error.expect("enough samples").interval;
            [low, high].map(|bound| (bound + it.before) / it.before)
        };
        let ([low, high], [inverse_low, inverse_high]) =
            (ratios(&one, &other), ratios(&other, &one));
        assert!((low * inverse_high - 1.0).abs() < 1e-9 && (high * inverse_low - 1.0).abs() < 1e-9);
    }

    /// Values in [0, 1), the same in each run of a test.
    fn uniform_values() -> impl FnMut() -> f64 {
        let mut state = 1_u64;
        move || {
            state = crate::data_pattern::mix(state);
            state as f64 / u64::MAX as f64
        }
    }

    /// Run of ten samples whose deviation is a fifth of their mean.
    fn run(mean: f64, uniform: &mut impl FnMut() -> f64) -> Vec<f64> {
        // Sums of twelve have a variance of one, and nearly the form of a bell.
        let mut sample = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        (0..10).map(|_| mean * (1.0 + sample() / 5.0)).collect()
    }

    /// Intervals of 95 % of all pairs of runs have the true difference.
    #[test]
    fn an_interval_holds_the_true_difference_in_95_percent() {
        let mut uniform = uniform_values();
        let held = (0..4000)
            .filter(|_| {
                let pair = MeanDifference::new(&run(5.0, &mut uniform), &run(2.0, &mut uniform));
                let (low, high) = pair.error.expect("enough samples").interval;
                (low..high).contains(&(-0.6 * pair.before))
            })
            .count();
        assert!((3760..3840).contains(&held), "{held} of 4000");
    }

    /// Runs that differ by the smallest visible difference show it in four of five cases.
    #[test]
    fn the_smallest_visible_difference_is_seen_by_four_of_five() {
        let mut uniform = uniform_values();
        // What is said of runs of ten samples whose deviation is the true one.
        let deviation = 0.9_f64.sqrt();
        let typical: Vec<f64> =
            (0..10).map(|index| [5.0 - deviation, 5.0 + deviation][index % 2]).collect();
        let difference = MeanDifference::new(&typical, &typical).error.unwrap().smallest_visible;
        let seen = (0..2000)
            .filter(|_| {
                let higher = run(5.0 + difference, &mut uniform);
                let pair = MeanDifference::new(&run(5.0, &mut uniform), &higher);
                pair.error.is_some_and(|error| error.interval.0 > 0.0)
            })
            .count();
        assert!((1540..1660).contains(&seen), "{seen} of 2000");
    }
}
