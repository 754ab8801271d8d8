//! Statistics of a poller, for every front end.

use hdrhistogram::Histogram;

use crate::{driver::data_path::latency_histogram::LatencyHistogram, wire::Opcode};

/// Statistics of a poller, with latencies in a form that is cheap to record.
pub(crate) struct PollerMeter {
    statistics: Statistics,
    read: LatencyHistogram,
    write: LatencyHistogram,
    other: LatencyHistogram,
}

/// Counters of one poller since it began or was last [taken](Self::take).
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Reads.
    pub read: OperationStatistics,
    /// Writes.
    pub write: OperationStatistics,
    /// Flushes and everything else.
    pub other: OperationStatistics,
    /// Invalidations of the remote keys of single commands; none in memory mode `pool`.
    pub windows: WindowCounters,
    /// Doorbells and completions.
    pub device: DeviceCounters,
}

/// Doorbells and completions of all commands. Completions that a lost connection leaves behind are
/// not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Number of doorbells.
    pub doorbells: u64,
    /// Number of completions polled, of receives and of sends.
    pub completions: u64,
    /// Number of polls that found nothing.
    pub empty_polls: u64,
}

/// Commands with a memory window, by the side that invalidated its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounters {
    /// Invalidated by the target, with its response.
    pub by_target: u64,
    /// Invalidated by this host, since the target did not: one more work request and completion.
    pub here: u64,
}

/// Side that invalidated the remote key of a command.
#[derive(Clone, Copy)]
pub(crate) enum InvalidatedBy {
    Target,
    Host,
}

/// Statistics of one kind of command.
#[derive(Clone, Debug)]
pub struct OperationStatistics {
    /// Number of commands that succeeded.
    pub completed: u64,
    /// Number of commands that failed.
    pub failed: u64,
    /// Number of times that a command was sent again after a status that allows it.
    pub retried: u64,
    /// Bytes transferred by the commands that succeeded.
    pub bytes: u64,
    /// Time from submission to completion in nanoseconds, exact to three digits. Longer times than
    /// 69 seconds count as 69 seconds.
    pub latency_ns: Histogram<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            read: OperationStatistics::new(),
            write: OperationStatistics::new(),
            other: OperationStatistics::new(),
            windows: WindowCounters::default(),
            device: DeviceCounters::default(),
        }
    }
}

impl Statistics {
    /// Returns the statistics and starts again from zero.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Adds the statistics of another poller.
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.write.add(&other.write);
        self.other.add(&other.other);
        self.windows.by_target += other.windows.by_target;
        self.windows.here += other.windows.here;
        self.device.doorbells += other.device.doorbells;
        self.device.completions += other.device.completions;
        self.device.empty_polls += other.device.empty_polls;
    }

    #[inline]
    fn operation(&mut self, opcode: Opcode) -> &mut OperationStatistics {
        match opcode {
            Opcode::READ => &mut self.read,
            Opcode::WRITE => &mut self.write,
            _ => &mut self.other,
        }
    }
}

impl PollerMeter {
    /// Creates the statistics of a poller with I/O queues: recording allocates nothing.
    pub(crate) fn new() -> Self {
        Self {
            read: LatencyHistogram::new(),
            write: LatencyHistogram::new(),
            other: LatencyHistogram::new(),
            ..Self::unread()
        }
    }

    /// Creates the statistics of a poller that connects queues or has an admin queue. They are not
    /// read, and have no latencies.
    pub(crate) fn unread() -> Self {
        let statistics = Statistics {
            read: OperationStatistics::unread(),
            write: OperationStatistics::unread(),
            other: OperationStatistics::unread(),
            windows: WindowCounters::default(),
            device: DeviceCounters::default(),
        };
        Self {
            statistics,
            read: LatencyHistogram::disabled(),
            write: LatencyHistogram::disabled(),
            other: LatencyHistogram::disabled(),
        }
    }

    /// Statistics up to now.
    pub(crate) fn statistics(&mut self) -> &mut Statistics {
        let Self { statistics, read, write, other } = self;
        statistics.read.add_latencies(read);
        statistics.write.add_latencies(write);
        statistics.other.add_latencies(other);
        statistics
    }

    #[inline]
    pub(crate) fn device(&mut self) -> &mut DeviceCounters {
        &mut self.statistics.device
    }

    /// Counts a command that failed.
    pub(crate) fn record_failure(&mut self, opcode: Opcode) {
        self.statistics.operation(opcode).failed += 1;
    }

    /// Counts a command that is sent again after it failed.
    pub(crate) fn record_retry(&mut self, opcode: Opcode) {
        self.statistics.operation(opcode).retried += 1;
    }

    /// Counts a command that succeeded.
    #[inline]
    pub(crate) fn record_success(&mut self, opcode: Opcode, bytes: u64, latency_ns: u64) {
        let (operation, recent) = match opcode {
            Opcode::READ => (&mut self.statistics.read, &mut self.read),
            Opcode::WRITE => (&mut self.statistics.write, &mut self.write),
            _ => (&mut self.statistics.other, &mut self.other),
        };
        operation.completed += 1;
        operation.bytes += bytes;
        recent.record(latency_ns);
    }

    /// Counts the invalidation of a command's remote key.
    #[inline]
    pub(crate) fn record_invalidation(&mut self, by: InvalidatedBy) {
        match by {
            InvalidatedBy::Target => self.statistics.windows.by_target += 1,
            InvalidatedBy::Host => self.statistics.windows.here += 1,
        }
    }
}

impl DeviceCounters {
    /// Counts a poll that found this number of completions.
    #[inline]
    pub(crate) fn count_poll(&mut self, found: usize) {
        if found == 0 {
            self.empty_polls += 1;
        } else {
            self.completions += found as u64;
        }
    }
}

impl OperationStatistics {
    fn new() -> Self {
        // Full size from the start: a run of days takes no more memory than one of seconds.
        let latency_ns = Histogram::new_with_bounds(1, LatencyHistogram::VALUE_MAX, 3)
            .expect("a minute at three digits is a valid histogram");
        Self { latency_ns, ..Self::unread() }
    }

    /// Counters whose histogram has no size yet.
    fn unread() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, 2, 0).expect("the least bounds");
        Self { completed: 0, failed: 0, retried: 0, bytes: 0, latency_ns }
    }

    /// Moves latencies to the histogram, which gets its size the first time.
    fn add_latencies(&mut self, recent: &mut LatencyHistogram) {
        if self.latency_ns.high() < LatencyHistogram::VALUE_MAX {
            self.latency_ns = Self::new().latency_ns;
        }
        recent.flush_into(&mut self.latency_ns);
    }

    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.bytes += other.bytes;
        self.latency_ns.add(&other.latency_ns).expect("all histograms have the same bounds");
    }
}
