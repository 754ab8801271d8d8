//! Measurement of a load: commands, latencies and processor time.

use std::{fmt, time::Duration};

use cpu_time::ProcessTime;
use hdrhistogram::Histogram;
use quanta::Clock;

/// Measures one load: after half a second of warming up or, if a number of commands is given, from
/// the first one on until they are done.
pub struct Meter {
    clock: Clock,
    /// Nanoseconds to warm up, and then to measure.
    times: [u64; 2],
    count: Option<u64>,
    phase: Phase,
    since: u64,
    cpu: ProcessTime,
    elapsed: Duration,
    cpu_used: Duration,
    user: f64,
    user_used: f64,
    latency: Histogram<u64>,
    /// Number of times that work was handed to the device, if the caller counts it.
    pub doorbells: u64,
    completions: u64,
    empty_polls: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warming,
    Measuring,
    Over,
}

/// Figures of one load. As text they are what `versus` reads: `iops=… mean_us=… …`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Commands completed in a second.
    pub iops: f64,
    /// Mean of the latencies, in microseconds.
    pub mean_us: f64,
    /// Median of the latencies, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latencies, in microseconds.
    pub p99_us: f64,
    /// Processor time of this process for a command, in microseconds.
    pub cpu_us: f64,
    /// User time of that, in microseconds.
    pub user_us: f64,
    /// Doorbells for a command.
    pub doorbells: f64,
    /// Completions for a command.
    pub completions: f64,
    /// Polls without a completion for a command.
    pub empty_polls: f64,
}

impl Meter {
    /// Starts to measure, for `seconds` or, if it is given, for `count` commands.
    #[must_use]
    pub fn new(seconds: f64, count: Option<u64>) -> Self {
        let clock = Clock::new();
        let measure = Duration::from_secs_f64(seconds.clamp(0.01, 3600.0)).as_nanos();
        Self {
            times: [WARM_UP_NS, u64::try_from(measure).unwrap_or(u64::MAX)],
            count,
            phase: if count.is_some() { Phase::Measuring } else { Phase::Warming },
            since: clock.raw(),
            cpu: ProcessTime::now(),
            elapsed: Duration::ZERO,
            cpu_used: Duration::ZERO,
            user: user_seconds(),
            user_used: 0.0,
            latency: Histogram::new_with_max(MAX_NS, 3).expect("these bounds are valid"),
            doorbells: 0,
            completions: 0,
            empty_polls: 0,
            clock,
        }
    }

    /// Raw time of the clock, for [`Self::record`] and [`Self::note_poll`].
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.raw()
    }

    /// Records that a poll took `count` completions.
    #[inline]
    pub fn note_poll(&mut self, count: usize, now: u64) {
        self.completions += count as u64;
        self.empty_polls += u64::from(count == 0);
        if self.count.is_none() && self.clock.delta_as_nanos(self.since, now) >= self.time() {
            self.turn(now);
        }
    }

    /// Records that a command is done that was submitted at the raw time `started`.
    #[inline]
    pub fn record(&mut self, started: u64, now: u64) {
        self.latency.saturating_record(self.clock.delta_as_nanos(started, now));
        if self.count.is_some_and(|count| self.latency.len() >= count) {
            self.turn(now);
        }
    }

    /// Tells if enough is measured.
    #[inline]
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Figures of what was measured.
    #[must_use]
    pub fn report(&self) -> Report {
        let done = self.latency.len().max(1) as f64;
        let micro = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        Report {
            iops: self.latency.len() as f64 / self.elapsed.as_secs_f64().max(1e-9),
            mean_us: self.latency.mean() / 1e3,
            p50_us: micro(self.latency.value_at_quantile(0.5)),
            p99_us: micro(self.latency.value_at_quantile(0.99)),
            cpu_us: self.cpu_used.as_secs_f64() * 1e6 / done,
            user_us: self.user_used * 1e6 / done,
            doorbells: self.doorbells as f64 / done,
            completions: self.completions as f64 / done,
            empty_polls: self.empty_polls as f64 / done,
        }
    }

    fn time(&self) -> u64 {
        self.times[usize::from(self.phase == Phase::Measuring)]
    }

    #[cold]
    fn turn(&mut self, now: u64) {
        if self.phase == Phase::Warming {
            self.phase = Phase::Measuring;
            self.latency.reset();
            (self.doorbells, self.completions, self.empty_polls) = (0, 0, 0);
            self.since = now;
            self.cpu = ProcessTime::now();
            self.user = user_seconds();
        } else if self.phase == Phase::Measuring {
            self.phase = Phase::Over;
            self.elapsed = self.clock.delta(self.since, now);
            self.cpu_used = self.cpu.elapsed();
            self.user_used = user_seconds() - self.user;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iops, mean_us, p50_us, p99_us, .. } = self;
        write!(f, "iops={iops:.0} mean_us={mean_us:.2} p50_us={p50_us:.2} p99_us={p99_us:.2}")?;
        let Self { cpu_us, user_us, doorbells, completions, empty_polls, .. } = self;
        write!(f, " cpu_us={cpu_us:.2} user_us={user_us:.2} doorbells={doorbells:.3}")?;
        write!(f, " completions={completions:.3} empty_polls={empty_polls:.3}")
    }
}

/// User time of this process, in seconds; 0 where there is no `/proc`.
fn user_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<f64>().ok());
    ticks.unwrap_or_default() / TICKS_PER_SECOND
}

/// USER_HZ, which is the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

const WARM_UP_NS: u64 = 500_000_000;

/// Longest latency that the histogram holds; longer ones are recorded as this.
const MAX_NS: u64 = 60_000_000_000;
