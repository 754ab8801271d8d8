//! What a poller counts; every front end reads these and keeps none of its own.

use hdrhistogram::Histogram;

use crate::{driver::data_path::latency_histogram::LatencyHistogram, wire::Opcode};

/// What a poller counts with: latencies reach the statistics when those are read.
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
    pub read: Operation,
    /// Writes.
    pub write: Operation,
    /// Flushes and everything else.
    pub other: Operation,
    /// How keys of single commands went out of use; none do in memory mode `pool`.
    pub windows: WindowCounters,
    /// What the device was asked, and what it had to say.
    pub device: DeviceCounters,
}

/// Dealings with the device, whatever commands they served. What is left over when a connection
/// has failed is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Batches of work handed to the device, each with one doorbell.
    pub doorbells: u64,
    /// Completions taken, of receives and of sends.
    pub completions: u64,
    /// Looks into the completion queue that found nothing.
    pub empty_polls: u64,
}

/// Commands that lent their data by a window, by who took the key out of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounters {
    /// The target, with its response.
    pub by_target: u64,
    /// This side, since the target did not: one more work request and completion each.
    pub here: u64,
}

/// Who took a command's key out of use.
#[derive(Clone, Copy)]
pub(crate) enum Revoked {
    ByTarget,
    Here,
}

/// Counters of one kind of command.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Commands that succeeded.
    pub completed: u64,
    /// Commands that failed.
    pub failed: u64,
    /// Bytes moved by those that succeeded.
    pub bytes: u64,
    /// From submission to completion in nanoseconds, three digits exact. Above 69 seconds they
    /// count as that.
    pub latency_ns: Histogram<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            read: Operation::new(),
            write: Operation::new(),
            other: Operation::new(),
            windows: WindowCounters::default(),
            device: DeviceCounters::default(),
        }
    }
}

impl Statistics {
    /// Returns what was counted and starts from zero.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Adds what another poller counted.
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
    fn operation(&mut self, opcode: Opcode) -> &mut Operation {
        match opcode {
            Opcode::READ => &mut self.read,
            Opcode::WRITE => &mut self.write,
            _ => &mut self.other,
        }
    }
}

impl PollerMeter {
    pub(crate) fn new() -> Self {
        let statistics = Statistics::default();
        Self {
            statistics,
            read: LatencyHistogram::new(),
            write: LatencyHistogram::new(),
            other: LatencyHistogram::new(),
        }
    }

    /// All that was counted.
    pub(crate) fn statistics(&mut self) -> &mut Statistics {
        let Self { statistics, read, write, other } = self;
        read.settle(&mut statistics.read.latency_ns);
        write.settle(&mut statistics.write.latency_ns);
        other.settle(&mut statistics.other.latency_ns);
        statistics
    }

    #[inline]
    pub(crate) fn device(&mut self) -> &mut DeviceCounters {
        &mut self.statistics.device
    }

    /// Counts a command that got no answer.
    pub(crate) fn record_failure(&mut self, opcode: Opcode) {
        self.statistics.operation(opcode).failed += 1;
    }

    #[inline]
    pub(crate) fn record(&mut self, opcode: Opcode, outcome: &Outcome) {
        if let Some(revoked) = outcome.revoked {
            self.statistics.windows.record(revoked);
        }
        if !outcome.success {
            return self.record_failure(opcode);
        }
        let (operation, recent) = match opcode {
            Opcode::READ => (&mut self.statistics.read, &mut self.read),
            Opcode::WRITE => (&mut self.statistics.write, &mut self.write),
            _ => (&mut self.statistics.other, &mut self.other),
        };
        operation.completed += 1;
        operation.bytes += outcome.bytes;
        recent.record(outcome.latency_ns);
    }
}

impl WindowCounters {
    #[inline]
    fn record(&mut self, revoked: Revoked) {
        match revoked {
            Revoked::ByTarget => self.by_target += 1,
            Revoked::Here => self.here += 1,
        }
    }
}

impl DeviceCounters {
    /// Counts a look into the completion queue that found so many.
    #[inline]
    pub(crate) fn count_poll(&mut self, found: usize) {
        self.completions += found as u64;
        self.empty_polls += u64::from(found == 0);
    }
}

/// One command's end.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) bytes: u64,
    pub(crate) latency_ns: u64,
    pub(crate) revoked: Option<Revoked>,
}

impl Operation {
    fn new() -> Self {
        // As large as it may become: a run of days is not to take more memory than one of seconds.
        let latency_ns = Histogram::new_with_bounds(1, LatencyHistogram::VALUE_MAX, 3)
            .expect("a minute at three digits is a valid histogram");
        Self { completed: 0, failed: 0, bytes: 0, latency_ns }
    }

    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.latency_ns.add(&other.latency_ns).expect("all histograms have the same bounds");
    }
}
