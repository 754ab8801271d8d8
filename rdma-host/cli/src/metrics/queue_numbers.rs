//! Numbers of one queue, from the statistics of its poller.

use rdma_host::{DeviceCounters, OperationStatistics, Poller, Statistics};

/// Upper bounds of the buckets of latencies in nanoseconds.
pub(crate) const LATENCY_BOUNDS_NS: [u64; 19] = [
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Numbers of one queue since its thread began.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueNumbers {
    pub(crate) read: OperationNumbers,
    pub(crate) write: OperationNumbers,
    pub(crate) other: OperationNumbers,
    pub(crate) device: DeviceCounters,
    /// Number of commands sent to the controller, without a response yet.
    pub(crate) in_flight: u64,
    /// Number of commands held back: without a connection, behind the write fence, before a retry.
    pub(crate) held: u64,
    pub(crate) requests: RequestNumbers,
}

/// Numbers of the requests of a block device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestNumbers {
    /// Number of requests for which the queue has no room yet.
    pub(crate) waiting: u64,
    /// Number of reads and writes whose data was copied between this process and the request.
    pub(crate) copied: u64,
    /// Number of reads and writes whose data was transferred from or to shared memory.
    pub(crate) shared: u64,
}

impl RequestNumbers {
    /// Counts a read or a write.
    #[inline]
    pub(crate) fn count(&mut self, is_shared: bool) {
        *if is_shared { &mut self.shared } else { &mut self.copied } += 1;
    }
}

/// Numbers of one kind of command.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperationNumbers {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) retried: u64,
    pub(crate) bytes: u64,
    pub(crate) latency: LatencyNumbers,
}

/// Histogram of latencies with few buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct LatencyNumbers {
    /// Number of commands in each bucket of [`LATENCY_BOUNDS_NS`], and above the last bound.
    pub(crate) counts: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// Sum of all latencies in nanoseconds, exact to three digits.
    pub(crate) sum_ns: u64,
}

impl QueueNumbers {
    /// Numbers of a poller now, and of the requests in front of it. Allocates nothing after the
    /// first time.
    pub(crate) fn of(poller: &mut Poller, requests: RequestNumbers) -> Self {
        let (in_flight, held) = (poller.in_flight() - poller.held(), poller.held());
        Self {
            in_flight: in_flight as u64,
            held: held as u64,
            requests,
            ..Self::from(&*poller.statistics())
        }
    }
}

impl From<&Statistics> for QueueNumbers {
    fn from(statistics: &Statistics) -> Self {
        Self {
            read: OperationNumbers::from(&statistics.read),
            write: OperationNumbers::from(&statistics.write),
            other: OperationNumbers::from(&statistics.other),
            device: statistics.device,
            ..Self::default()
        }
    }
}

impl From<&OperationStatistics> for OperationNumbers {
    fn from(statistics: &OperationStatistics) -> Self {
        let mut latency = LatencyNumbers::default();
        let histogram = &statistics.latency_ns;
        for entry in histogram.iter_recorded() {
            let (value, count) = (entry.value_iterated_to(), entry.count_at_value());
            let bucket = LATENCY_BOUNDS_NS.partition_point(|bound| *bound < value);
            latency.counts[bucket] += count;
            let typical = histogram.median_equivalent(value);
            latency.sum_ns = latency.sum_ns.saturating_add(typical.saturating_mul(count));
        }
        Self {
            completed: statistics.completed,
            failed: statistics.failed,
            retried: statistics.retried,
            bytes: statistics.bytes,
            latency,
        }
    }
}

impl LatencyNumbers {
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_in_the_bucket_of_their_bound() {
        let mut statistics = Statistics::default();
        for latency in [1, 4_999, 5_020, 90_000_000, 61_000_000_000] {
            statistics.write.latency_ns.record(latency).unwrap();
        }
        let latency = QueueNumbers::from(&statistics).write.latency;
        let bucket = |bound| LATENCY_BOUNDS_NS.iter().position(|&one| one == bound).unwrap();
        assert_eq!(latency.counts[0], 2, "{latency:?}");
        assert_eq!(latency.counts[bucket(10_000)], 1, "{latency:?}");
        assert_eq!(latency.counts[bucket(100_000_000)], 1, "{latency:?}");
        assert_eq!(latency.counts[LATENCY_BOUNDS_NS.len()], 1, "above the last bound: {latency:?}");
        let exact = 1 + 4_999 + 5_020 + 90_000_000 + 61_000_000_000_u64;
        assert!(latency.sum_ns.abs_diff(exact) < exact / 1_000, "{latency:?}");
    }
}
