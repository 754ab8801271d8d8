//! Statistics of a poller, for every front end.

use hdrhistogram::Histogram;

use crate::{
    driver::data_path::{latency_histogram::LatencyHistogram, ticks::Ticks},
    wire::Opcode,
};

/// Statistics of a poller, with those of each command in a form that is cheap to record.
pub(crate) struct PollerMeter {
    statistics: Statistics,
    /// Commands that succeeded, by [`OperationKind`].
    recent: [RecentOperations; 3],
}

/// Kind of command, as statistics tell them apart.
#[derive(Clone, Copy)]
enum OperationKind {
    Read = 0,
    Write = 1,
    Other = 2,
}

/// Commands of one kind that succeeded since the statistics were read.
struct RecentOperations {
    latencies: LatencyHistogram,
    completed: u64,
    bytes: u64,
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
        self.windows.add(other.windows);
        self.device.doorbells += other.device.doorbells;
        self.device.completions += other.device.completions;
        self.device.empty_polls += other.device.empty_polls;
    }

    /// Adds those of a poller whose failed commands and retries are counted by its owner.
    pub(crate) fn add_successes(&mut self, mut other: Self) {
        for operation in [&mut other.read, &mut other.write, &mut other.other] {
            (operation.failed, operation.retried) = (0, 0);
        }
        self.add(&other);
    }

    /// Counts a command that failed.
    pub(crate) fn count_failure(&mut self, opcode: Opcode) {
        self.operation(opcode).failed += 1;
    }

    /// Counts the times that a command was sent again after it failed.
    pub(crate) fn count_retries(&mut self, opcode: Opcode, retries: u8) {
        self.operation(opcode).retried += u64::from(retries);
    }

    #[inline]
    fn operation(&mut self, opcode: Opcode) -> &mut OperationStatistics {
        match OperationKind::of(opcode) {
            OperationKind::Read => &mut self.read,
            OperationKind::Write => &mut self.write,
            OperationKind::Other => &mut self.other,
        }
    }
}

impl OperationKind {
    #[inline]
    fn of(opcode: Opcode) -> Self {
        match opcode {
            Opcode::READ => Self::Read,
            Opcode::WRITE => Self::Write,
            _ => Self::Other,
        }
    }
}

impl RecentOperations {
    fn new(latencies: LatencyHistogram) -> Self {
        Self { latencies, completed: 0, bytes: 0 }
    }
}

impl PollerMeter {
    /// Creates the statistics of a poller with I/O queues: recording allocates nothing.
    pub(crate) fn new() -> Self {
        let recent = [(); 3].map(|()| RecentOperations::new(LatencyHistogram::new()));
        Self { recent, ..Self::unread() }
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
        let recent = [(); 3].map(|()| RecentOperations::new(LatencyHistogram::disabled()));
        Self { statistics, recent }
    }

    /// Statistics up to now; the times are of this clock.
    pub(crate) fn statistics(&mut self, ticks: Ticks) -> &mut Statistics {
        let Self { statistics, recent: [read, write, other] } = self;
        statistics.read.add_recent(read, ticks);
        statistics.write.add_recent(write, ticks);
        statistics.other.add_recent(other, ticks);
        statistics
    }

    #[inline]
    pub(crate) fn device(&mut self) -> &mut DeviceCounters {
        &mut self.statistics.device
    }

    /// Counts a command that failed.
    pub(crate) fn record_failure(&mut self, opcode: Opcode) {
        self.statistics.count_failure(opcode);
    }

    /// Counts a command that is sent again after it failed.
    pub(crate) fn record_retry(&mut self, opcode: Opcode) {
        self.statistics.count_retries(opcode, 1);
    }

    /// Counts a command that succeeded, from one clock reading to another.
    #[inline(always)]
    pub(crate) fn record_success(&mut self, opcode: Opcode, bytes: u64, (from, to): (u64, u64)) {
        let recent = &mut self.recent[OperationKind::of(opcode) as usize];
        recent.completed += 1;
        recent.bytes += bytes;
        recent.latencies.record(from, to);
    }

    /// Adds invalidations of the remote keys of commands.
    pub(crate) fn add_windows(&mut self, more: WindowCounters) {
        self.statistics.windows.add(more);
    }
}

impl WindowCounters {
    /// Counts one more.
    #[inline]
    pub(crate) fn count(&mut self, by: InvalidatedBy) {
        match by {
            InvalidatedBy::Target => self.by_target += 1,
            InvalidatedBy::Host => self.here += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.by_target += other.by_target;
        self.here += other.here;
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
        // It grows with the longest latency, by 8 KiB for each power of two, up to 216 KiB.
        let latency_ns = Histogram::new(3).expect("three digits are valid");
        Self { latency_ns, ..Self::unread() }
    }

    /// Counters whose histogram has no size yet.
    fn unread() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, 2, 0).expect("the least bounds");
        Self { completed: 0, failed: 0, retried: 0, bytes: 0, latency_ns }
    }

    /// Adds what is recent; the histogram gets its digits the first time.
    fn add_recent(&mut self, recent: &mut RecentOperations, ticks: Ticks) {
        if self.latency_ns.sigfig() < 3 {
            self.latency_ns = Self::new().latency_ns;
        }
        let completed = std::mem::take(&mut recent.completed);
        self.completed += completed;
        self.bytes += std::mem::take(&mut recent.bytes);
        recent.latencies.flush_into(&mut self.latency_ns, completed, ticks);
    }

    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.bytes += other.bytes;
        self.latency_ns.add(&other.latency_ns).expect("all histograms have the same bounds");
    }
}
