//! Histogram of latencies that is cheap to record.

use hdrhistogram::Histogram;

use crate::driver::data_path::ticks::Ticks;

/// Histogram exact to three digits, in which recording is a shift and an addition. Its values are
/// differences of clock readings; its counts are added to a [`Histogram`] of nanoseconds when that
/// is read.
///
/// The values of one magnitude, from one power of two to the next, share 1,024 buckets, so that
/// values which differ by a thousandth are in different ones; a value below 2,048 has its own.
///
/// ```text
///   bucket = magnitude × 1024 + (value >> magnitude)   magnitude: 0 for 1..2047, then one per bit
/// ```
#[derive(Clone, Debug)]
pub(crate) struct LatencyHistogram {
    /// Empty if nothing is recorded.
    buckets: Box<[u64]>,
}

const BUCKETS: usize = bucket(TICKS_MAX) + 1;

/// Largest difference of clock readings that has a bucket: three minutes at 6 GHz.
const TICKS_MAX: u64 = (1 << 40) - 1;

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^16 buckets")]
const fn bucket(value: u64) -> usize {
    let magnitude = ((value >> 10) | 1).ilog2();
    ((magnitude as u64) << 10) as usize + (value >> magnitude) as usize
}

impl LatencyHistogram {
    /// Largest value in nanoseconds, for which larger ones count: about 69 s.
    pub(crate) const NANOSECONDS_MAX: u64 = (1 << 36) - 1;

    /// Creates a histogram in which recording allocates nothing.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice() }
    }

    /// Creates a histogram that records nothing, and takes no memory.
    pub(crate) fn disabled() -> Self {
        Self { buckets: Box::default() }
    }

    /// Records the time from one clock reading to another.
    #[inline(always)]
    pub(crate) fn record(&mut self, from: u64, to: u64) {
        match self.buckets.get_mut(bucket(to.wrapping_sub(from))) {
            Some(count) => *count += 1,
            None => self.record_unusual(from, to),
        }
    }

    /// Records a time that has no bucket: 0 if the second reading was taken before the first, on a
    /// processor whose clock is behind, else the longest.
    #[cold]
    #[inline(never)]
    fn record_unusual(&mut self, from: u64, to: u64) {
        let bucket = if to < from { self.buckets.first_mut() } else { self.buckets.last_mut() };
        if let Some(count) = bucket {
            *count += 1;
        }
    }

    /// Moves all counts, `sum` in all, to a histogram of nanoseconds.
    pub(crate) fn flush_into(&mut self, histogram: &mut Histogram<u64>, sum: u64, ticks: Ticks) {
        let mut left = sum;
        for (bucket, count) in self.buckets.iter_mut().enumerate() {
            if left == 0 {
                return;
            }
            if *count > 0 {
                left -= *count;
                let nanoseconds = ticks.nanoseconds(0, value_of(bucket));
                let value = nanoseconds.min(Self::NANOSECONDS_MAX);
                let recorded = histogram.record_n(value, std::mem::take(count));
                recorded.expect("the histogram takes all that is counted here");
            }
        }
    }
}

/// Least value of a bucket.
fn value_of(bucket: usize) -> u64 {
    let magnitude = (bucket >> 10).saturating_sub(1);
    ((bucket - (magnitude << 10)) as u64) << magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous() {
        assert_eq!(bucket(0), 0);
        for at in 0..BUCKETS {
            assert_eq!(bucket(value_of(at)), at);
        }
        assert_eq!(bucket(TICKS_MAX), BUCKETS - 1);
    }

    #[test]
    fn a_histogram_that_was_recorded_directly_says_the_same() {
        let (mut recent, mut directly) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        let values = (0..10_000).map(|index: u64| index.pow(2) * 7 + index % 13);
        for value in values.chain([0, 1, 2047, 2048, 2049, LatencyHistogram::NANOSECONDS_MAX]) {
            recent.record(value, 2 * value);
            directly.record(value).unwrap();
        }
        let mut settled = Histogram::<u64>::new(3).unwrap();
        recent.flush_into(&mut settled, directly.len(), Ticks::of_nanoseconds());
        assert_eq!(settled.len(), directly.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (settled, directly) =
                (settled.value_at_quantile(quantile), directly.value_at_quantile(quantile));
            assert_eq!(settled, directly, "{quantile}");
        }
        recent.flush_into(&mut settled, 0, Ticks::of_nanoseconds());
        assert_eq!(settled.len(), directly.len(), "what was moved is not moved again");
    }

    #[test]
    fn what_takes_longer_counts_as_the_longest() {
        let (mut recent, mut settled) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        recent.record(7, 7 + TICKS_MAX + 1);
        recent.record(7, u64::MAX);
        recent.flush_into(&mut settled, 2, Ticks::of_nanoseconds());
        let longest = settled.highest_equivalent(LatencyHistogram::NANOSECONDS_MAX);
        assert_eq!((settled.max(), settled.len()), (longest, 2));
        assert_eq!(settled.count_at(longest), 2);
    }

    #[test]
    fn what_ends_before_it_begins_took_no_time() {
        let (mut recent, mut settled) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        recent.record(8, 7);
        recent.record(1 << 50, 7);
        recent.flush_into(&mut settled, 2, Ticks::of_nanoseconds());
        assert_eq!((settled.max(), settled.len()), (0, 2));
    }

    #[test]
    fn a_disabled_histogram_records_nothing() {
        let (mut recent, mut settled) =
            (LatencyHistogram::disabled(), Histogram::<u64>::new(3).unwrap());
        recent.record(7, 8);
        recent.record(7, u64::MAX);
        recent.flush_into(&mut settled, 2, Ticks::of_nanoseconds());
        assert_eq!(settled.len(), 0);
    }
}
