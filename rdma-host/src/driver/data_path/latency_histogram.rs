//! Latencies of one kind of command since they were last read.

use hdrhistogram::Histogram;

/// Counts values as a histogram of three exact digits does, for much less: recording is a shift and
/// an addition. Reading adds them to a real one.
///
/// Values of one magnitude, from one power of two to the next, have 1,024 rows, so that one is told
/// from another a thousandth away; below 2,048 each has its own.
///
/// ```text
///   row = magnitude × 1024 + (value >> magnitude)      magnitude: how far 1..2047 is exceeded
/// ```
#[derive(Clone, Debug)]
pub(crate) struct LatencyHistogram {
    rows: Box<[u64; ROWS]>,
}

const ROWS: usize = row(LatencyHistogram::VALUE_MAX) + 1;

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the rows are few")]
const fn row(value: u64) -> usize {
    let magnitude = ((value >> 10) | 1).ilog2();
    ((magnitude as u64) << 10) as usize + (value >> magnitude) as usize
}

impl LatencyHistogram {
    /// Above this, values count as this: about 69 s in nanoseconds.
    pub(crate) const VALUE_MAX: u64 = (1 << 36) - 1;

    pub(crate) fn new() -> Self {
        let rows = vec![0; ROWS].into_boxed_slice();
        Self { rows: rows.try_into().expect("it is as long") }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        self.rows[row(value.min(Self::VALUE_MAX))] += 1;
    }

    /// Moves all that was counted to a histogram.
    pub(crate) fn settle(&mut self, histogram: &mut Histogram<u64>) {
        for (row, count) in self.rows.iter_mut().enumerate() {
            if *count > 0 {
                let recorded = histogram.record_n(value_of(row), std::mem::take(count));
                recorded.expect("the histogram takes all that is counted here");
            }
        }
    }
}

/// The least value of a row.
fn value_of(row: usize) -> u64 {
    let magnitude = (row >> 10).saturating_sub(1);
    ((row - (magnitude << 10)) as u64) << magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_each_other_without_a_gap() {
        assert_eq!(row(0), 0);
        for at in 0..ROWS {
            assert_eq!(row(value_of(at)), at);
        }
        assert_eq!(row(LatencyHistogram::VALUE_MAX), ROWS - 1);
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
        recent.settle(&mut settled);
        assert_eq!(settled.len(), directly.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (settled, directly) =
                (settled.value_at_quantile(quantile), directly.value_at_quantile(quantile));
            assert_eq!(settled, directly, "{quantile}");
        }
        recent.settle(&mut settled);
        assert_eq!(settled.len(), directly.len(), "what was moved is not moved again");
    }

    #[test]
    fn what_takes_longer_counts_as_the_longest() {
        let (mut recent, mut settled) =
            (LatencyHistogram::new(), Histogram::<u64>::new(3).unwrap());
        recent.record(u64::MAX);
        recent.settle(&mut settled);
        assert_eq!(settled.max(), settled.highest_equivalent(LatencyHistogram::VALUE_MAX));
    }
}
