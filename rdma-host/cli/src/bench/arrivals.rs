//! Due times of the commands of an open loop.

use std::time::Duration;

use super::arguments::Arrival;
use crate::data_pattern::mix;

/// Due times of one worker, since the start. They do not depend on when commands complete.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    arrival: Arrival,
    /// Mean distance, in nanoseconds.
    gap: f64,
    /// Next due time, in nanoseconds.
    next: f64,
    state: u64,
}

impl Arrivals {
    /// Due times of worker `index` of `workers` that share `rate` commands per second. At equal
    /// distances, the workers take turns.
    pub(super) fn new(rate: u64, arrival: Arrival, index: usize, workers: usize) -> Self {
        let gap = 1e9 * workers as f64 / rate as f64;
        let state = mix(index as u64 ^ mix(rate));
        let mut this = Self { arrival, gap, next: 0.0, state };
        match arrival {
            Arrival::Constant => this.next = gap * index as f64 / workers as f64,
            Arrival::Poisson => this.advance(),
        }
        this
    }

    /// Next due time.
    pub(super) fn due(&self) -> Duration {
        Duration::try_from_secs_f64(self.next / 1e9).unwrap_or(Duration::MAX)
    }

    /// Moves on to the due time after that.
    pub(super) fn advance(&mut self) {
        self.next += match self.arrival {
            Arrival::Constant => self.gap,
            Arrival::Poisson => {
                self.state = self.state.wrapping_add(1);
                // 53 bits, never 0: a number above 0 and up to 1.
                let uniform = ((mix(self.state) >> 11) + 1) as f64 / (1u64 << 53) as f64;
                -uniform.ln() * self.gap
            }
        };
    }

    /// Number of due times left before `end`: commands that were never sent.
    pub(super) fn remaining_before(&self, end: Duration) -> u64 {
        let mut rest = self.clone();
        let mut count = 0;
        while rest.due() < end {
            rest.advance();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut arrivals: Arrivals, count: usize) -> Vec<Duration> {
        let next = |_| {
            let due = arrivals.due();
            arrivals.advance();
            due
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn workers_take_turns_at_equal_distances() {
        let of = |index| times(Arrivals::new(1000, Arrival::Constant, index, 2), 3);
        let millis = |list: [u64; 3]| list.map(Duration::from_millis).to_vec();
        assert_eq!(of(0), millis([0, 2, 4]));
        assert_eq!(of(1), millis([1, 3, 5]));
    }

    #[test]
    fn distances_do_not_drift() {
        // 3 a second has no exact distance.
        let mut arrivals = Arrivals::new(3, Arrival::Constant, 0, 1);
        (0..3_000_000).for_each(|_| arrivals.advance());
        let drift = arrivals.due().as_secs_f64() - 1e6;
        assert!(drift.abs() < 1e-3, "{drift}");
    }

    #[test]
    fn random_times_have_the_mean_and_spread_of_a_poisson_process() {
        let times = times(Arrivals::new(1000, Arrival::Poisson, 0, 1), 100_000);
        let gaps: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1000.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((spread.sqrt() / mean - 1.0).abs() < 0.02, "{spread}");
        assert_ne!(times, self::times(Arrivals::new(1000, Arrival::Poisson, 1, 2), 100_000));
    }

    #[test]
    fn what_was_not_sent_is_counted() {
        let mut arrivals = Arrivals::new(1000, Arrival::Constant, 0, 1);
        (0..400).for_each(|_| arrivals.advance());
        assert_eq!(arrivals.remaining_before(Duration::from_secs(1)), 600);
        assert_eq!(arrivals.remaining_before(Duration::ZERO), 0);
    }
}
