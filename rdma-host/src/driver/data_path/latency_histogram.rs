//! Histogram of latencies that is cheap to record.

use hdrhistogram::Histogram;

/// Histogram exact to three digits, in which recording is a shift and an addition. Its counts are
/// added to a [`Histogram`] when that is read.
///
/// The values of one magnitude, from one power of two to the next, share 1,024 buckets, so that
/// values which differ by a thousandth are in different ones; a value below 2,048 has its own.
///
/// ```text
///   bucket = magnitude × 1024 + (value >> magnitude)   magnitude: 0 for 1..2047, then one per bit
/// ```
#[derive(Clone, Debug)]
pub(crate) struct LatencyHistogram {
    /// `None` if nothing is recorded.
    buckets: Option<Box<[u64; BUCKETS]>>,
}

const BUCKETS: usize = bucket(LatencyHistogram::VALUE_MAX) + 1;

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^16 buckets")]
const fn bucket(value: u64) -> usize {
    let magnitude = ((value >> 10) | 1).ilog2();
    ((magnitude as u64) << 10) as usize + (value >> magnitude) as usize
}

impl LatencyHistogram {
    /// Largest value, for which larger ones count: about 69 s in nanoseconds.
    pub(crate) const VALUE_MAX: u64 = (1 << 36) - 1;

    /// Creates a histogram in which recording allocates nothing.
    pub(crate) fn new() -> Self {
        let buckets = vec![0; BUCKETS].into_boxed_slice();
        Self { buckets: Some(buckets.try_into().expect("the length is the same")) }
    }

    /// Creates a histogram that records nothing, and takes no memory.
    pub(crate) const fn disabled() -> Self {
        Self { buckets: None }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        if let Some(buckets) = &mut self.buckets {
            buckets[bucket(value.min(Self::VALUE_MAX))] += 1;
        }
    }

    /// Moves all counts to a histogram.
    pub(crate) fn flush_into(&mut self, histogram: &mut Histogram<u64>) {
        for (bucket, count) in self.buckets.iter_mut().flat_map(|all| all.iter_mut()).enumerate() {
            if *count > 0 {
                let recorded = histogram.record_n(value_of(bucket), std::mem::take(count));
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
        assert_eq!(bucket(LatencyHistogram::VALUE_MAX), BUCKETS - 1);
    }

    #[test]
    fn a_histogram_that_was_recorded_directly_says_the_same() {
        let (mut recent, mut directly) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        let values = (0..10_000).map(|index: u64| index.pow(2) * 7 + index % 13);
        for value in values.chain([0, 1, 2047, 2048, 2049, LatencyHistogram::VALUE_MAX]) {
            recent.record(value);
            directly.record(value).unwrap();
        }
        let mut settled = Histogram::<u64>::new(3).unwrap();
        recent.flush_into(&mut settled);
        assert_eq!(settled.len(), directly.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (settled, directly) =
                (settled.value_at_quantile(quantile), directly.value_at_quantile(quantile));
            assert_eq!(settled, directly, "{quantile}");
        }
        recent.flush_into(&mut settled);
        assert_eq!(settled.len(), directly.len(), "what was moved is not moved again");
    }

    #[test]
    fn what_takes_longer_counts_as_the_longest() {
        let (mut recent, mut settled) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        recent.record(u64::MAX);
        recent.flush_into(&mut settled);
        assert_eq!(settled.max(), settled.highest_equivalent(LatencyHistogram::VALUE_MAX));
    }
}
