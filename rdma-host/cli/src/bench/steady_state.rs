//! End of a measurement in a steady state, as of fio's `steadystate=iops:LIMIT%`: the IOPS of all
//! intervals of a window are within a limit of their mean.

use std::{collections::VecDeque, time::Duration};

use super::report::SteadyState;

pub(super) struct SteadyStateDetector {
    /// Least duration of the intervals of a window: half of one may be missing.
    seconds_min: f64,
    /// Seconds and IOPS of the last intervals.
    last: VecDeque<(f64, f64)>,
    state: SteadyState,
}

impl SteadyStateDetector {
    /// Detector for a window of whole intervals, at least two.
    pub(super) fn new(limit_percent: f64, window: Duration, interval: Duration) -> Self {
        let intervals = window.as_nanos().div_ceil(interval.as_nanos().max(1)).max(2);
        let interval = interval.as_secs_f64();
        let window_s = interval * intervals as f64;
        let seconds_min = window_s - interval / 2.0;
        let state = SteadyState { limit_percent, window_s, ..SteadyState::default() };
        Self { seconds_min, last: VecDeque::new(), state }
    }

    /// Takes the duration and the IOPS of the next interval; returns true once the state is steady.
    pub(super) fn add(&mut self, seconds: f64, iops: f64) -> bool {
        if self.state.attained {
            return true;
        }
        self.last.push_back((seconds, iops));
        let seconds = |last: &VecDeque<(f64, f64)>| last.iter().map(|(it, _)| it).sum::<f64>();
        while self.last.len() > 2 && seconds(&self.last) - self.last[0].0 >= self.seconds_min {
            self.last.pop_front();
        }
        let window_s = seconds(&self.last);
        if self.last.len() > 1 && window_s >= self.seconds_min {
            let mean =
                self.last.iter().map(|(seconds, iops)| seconds * iops).sum::<f64>() / window_s;
            let deviations = self.last.iter().map(|(_, iops)| (iops - mean).abs());
            let deviation = deviations.fold(0.0, f64::max) / mean * 100.0;
            // Without any command there is no mean to deviate from.
            let deviation = Some(deviation).filter(|deviation| deviation.is_finite());
            // Intervals may be longer than they were to be.
            self.state.window_s = window_s;
            self.state.mean_iops = Some(mean);
            self.state.deviation_percent = deviation;
            self.state.attained = deviation.is_some_and(|it| it <= self.state.limit_percent);
        }
        self.state.attained
    }

    pub(super) fn into_state(self) -> SteadyState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_of_equal_intervals_is_steady() {
        let mut detector = SteadyStateDetector::new(2.0, 3 * SECOND, SECOND);
        let found: Vec<_> =
            [50.0, 90.0, 97.0, 100.0, 101.0, 99.0].map(|iops| detector.add(1.0, iops)).to_vec();
        // The mean of 97, 100 and 101 is 99.33: 97 is 2.3 % from it.
        assert_eq!(found, [false, false, false, false, false, true]);
        let state = detector.into_state();
        assert!(state.attained && (state.mean_iops.unwrap() - 100.0).abs() < 1e-9);
        assert!((state.deviation_percent.unwrap() - 1.0).abs() < 1e-9, "{state:?}");
        assert!((state.window_s - 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_never_is_equal_or_too_short_or_nothing_is_not_steady() {
        let mut detector = SteadyStateDetector::new(2.0, 2 * SECOND, SECOND);
        assert!((0..20).all(|index| !detector.add(1.0, f64::from(100 + index % 2 * 10))));
        assert!(detector.into_state().deviation_percent.is_some_and(|it| it > 4.0));
        let mut detector = SteadyStateDetector::new(2.0, 3 * SECOND, SECOND);
        assert!(!detector.add(1.0, 1.0) && !detector.add(1.0, 1.0));
        assert_eq!(detector.into_state().deviation_percent, None);
        let mut detector = SteadyStateDetector::new(2.0, SECOND, SECOND);
        assert!(!detector.add(1.0, 0.0) && !detector.add(1.0, 0.0));
        assert_eq!(detector.into_state().deviation_percent, None);
    }

    #[test]
    fn a_window_has_whole_intervals() {
        let window_s = |window, interval| {
            SteadyStateDetector::new(1.0, window, interval).into_state().window_s
        };
        assert!((window_s(SECOND, SECOND) - 2.0).abs() < 1e-9);
        assert!((window_s(5 * SECOND, Duration::from_secs(2)) - 6.0).abs() < 1e-9);
        let mut detector = SteadyStateDetector::new(1.0, SECOND, SECOND);
        assert!(!detector.add(2.5, 7.0) && detector.add(1.0, 7.0));
        assert!((detector.into_state().window_s - 3.5).abs() < 1e-9, "they were longer");
        // Of five intervals, some of which were joined, as many as last five seconds are enough.
        let mut detector = SteadyStateDetector::new(1.0, 5 * SECOND, SECOND);
        assert!(!detector.add(2.0, 90.0) && !detector.add(1.0, 7.0) && !detector.add(2.0, 7.0));
        assert!(detector.add(2.0, 7.0));
        let state = detector.into_state();
        assert!((state.window_s - 5.0).abs() < 1e-9, "{state:?}");
        assert!((state.mean_iops.unwrap() - 7.0).abs() < 1e-9, "{state:?}");
    }
}
