//! Load of the machine beside the measurement: what other programs and other guests took.

use std::{fs, os::unix::fs::FileExt, time::Duration};

use rustix::param::clock_ticks_per_second;

/// Processor time since the machine was started, in seconds over all processors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessorTimes {
    /// All time, idle or not.
    total: f64,
    /// Time in the user space of programs other than this one.
    others: f64,
    /// Time that the hypervisor gave to other guests.
    steal: f64,
}

/// Shares of the processors' time that others took in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessorShares {
    pub(super) others: f64,
    pub(super) steal: f64,
}

impl ProcessorTimes {
    /// Present times; zero where the system does not say.
    pub(super) fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/stat"), &read("/proc/self/stat"), clock_ticks_per_second() as f64)
    }

    /// Times in the first line of `/proc/stat`, less those of this process in its own.
    fn parse(machine: &str, process: &str, ticks_per_second: f64) -> Self {
        let numbers = machine.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let numbers: Vec<f64> = numbers.map_while(|number| number.parse().ok()).collect();
        // User, nice, system, idle, iowait, irq, softirq, steal; guest times are among the first.
        let [user, nice, .., steal] = numbers.get(..8).unwrap_or(&[0.0; 8]) else {
            return Self::default();
        };
        let own = field(process, USER_TIME_FIELD).and_then(|field| field.parse().ok());
        let own: f64 = own.unwrap_or(0.0);
        Self {
            total: numbers.iter().take(8).sum::<f64>() / ticks_per_second,
            others: (user + nice - own).max(0.0) / ticks_per_second,
            steal: steal / ticks_per_second,
        }
    }

    /// Shares since `before`.
    pub(super) fn since(&self, before: &Self) -> ProcessorShares {
        let total = self.total - before.total;
        let share = |now: f64, before: f64| ((now - before) / total).clamp(0.0, 1.0);
        if total <= 0.0 {
            return ProcessorShares::default();
        }
        ProcessorShares {
            others: share(self.others, before.others),
            steal: share(self.steal, before.steal),
        }
    }
}

/// Scheduling of one thread, by its files in `/proc`.
pub(super) struct ThreadScheduling {
    status: Option<fs::File>,
    schedstat: Option<fs::File>,
    idle_class: bool,
    /// Time for which the thread did not run since the last [`take`](Self::take).
    starved: Duration,
    latest: SchedulingCounters,
}

/// Counters of the scheduler for some threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SchedulingCounters {
    /// Number of times that a thread lost its processor while it could run.
    pub(super) involuntary_switches: u64,
    /// Time for which a thread could run and had no processor; none if the kernel does not count.
    pub(super) run_queue_wait: Option<Duration>,
    /// Time for which a thread did not run though it had to, as it saw itself; short times that a
    /// busy machine needs anyhow are not counted.
    pub(super) starved: Duration,
    /// True if a thread began in the class `SCHED_IDLE`: all other programs come first.
    pub(super) idle_class: bool,
}

impl ThreadScheduling {
    /// Counters of the calling thread, which stays in its present class.
    pub(super) fn of_this_thread() -> Self {
        /// `SCHED_IDLE` in `linux/sched.h`.
        const IDLE: &str = "5";
        let open = |name| fs::File::open(format!("/proc/thread-self/{name}")).ok();
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
        let mut this = Self {
            status: open("status"),
            schedstat: open("schedstat"),
            idle_class: field(&stat, POLICY_FIELD) == Some(IDLE),
            starved: Duration::ZERO,
            latest: SchedulingCounters::default(),
        };
        this.take();
        this
    }

    /// Notes that the thread ran so much later than it had to.
    #[inline]
    pub(super) fn note_overdue(&mut self, overdue: Duration) {
        /// Longest time that is no starvation: some turns of other threads.
        const OVERDUE_MAX: Duration = Duration::from_millis(100);
        if overdue > OVERDUE_MAX {
            self.starved += overdue;
        }
    }

    /// Counters since the last call.
    pub(super) fn take(&mut self) -> SchedulingCounters {
        let now = self.read();
        let before = std::mem::replace(&mut self.latest, now);
        let waited = now.run_queue_wait.zip(before.run_queue_wait);
        SchedulingCounters {
            idle_class: self.idle_class,
            starved: std::mem::take(&mut self.starved),
            involuntary_switches: now
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            run_queue_wait: waited.map(|(now, before)| now.saturating_sub(before)),
        }
    }

    fn read(&self) -> SchedulingCounters {
        let mut buffer = [0; 4096];
        let status = text(self.status.as_ref(), &mut buffer);
        let switches =
            status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
        let involuntary_switches = switches.and_then(|text| text.trim().parse().ok());
        let wait = text(self.schedstat.as_ref(), &mut buffer).split_whitespace().nth(1);
        SchedulingCounters {
            involuntary_switches: involuntary_switches.unwrap_or(0),
            run_queue_wait: wait.and_then(|text| text.parse().ok()).map(Duration::from_nanos),
            ..SchedulingCounters::default()
        }
    }
}

impl SchedulingCounters {
    pub(super) fn add(&mut self, other: Self) {
        self.idle_class |= other.idle_class;
        self.starved += other.starved;
        self.involuntary_switches += other.involuntary_switches;
        if let Some(wait) = other.run_queue_wait {
            *self.run_queue_wait.get_or_insert_default() += wait;
        }
    }
}

/// Fields of `/proc/PID/stat` behind the name, which may contain spaces, counted from 0.
const USER_TIME_FIELD: usize = 11;
const POLICY_FIELD: usize = 38;

fn field(stat: &str, index: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(index)
}

/// Present text of a file of the kernel.
fn text<'a>(file: Option<&fs::File>, buffer: &'a mut [u8]) -> &'a str {
    let count = file.and_then(|file| file.read_at(buffer, 0).ok()).unwrap_or(0);
    std::str::from_utf8(&buffer[..count]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_that_passed() {
        let process = |user| format!("1 (a) b) R 1 1 1 0 -1 0 0 0 0 0 {user} 7 0 0");
        let times = |machine: &str, user| ProcessorTimes::parse(machine, &process(user), 100.0);
        let before = times("cpu  100 0 50 800 0 0 0 50 0 0\ncpu0 1", 40);
        let after = times("cpu  200 0 100 1550 0 0 0 150 0 0\ncpu0 1", 90);
        let ProcessorShares { others, steal } = after.since(&before);
        assert!((others - 0.05).abs() < 1e-9 && (steal - 0.1).abs() < 1e-9, "{others} {steal}");
        assert_eq!(before.since(&before), ProcessorShares::default());
        assert_eq!(times("", 0), ProcessorTimes::default());
    }

    #[test]
    fn a_thread_that_does_not_run_for_long_is_starved() {
        let mut scheduling = ThreadScheduling::of_this_thread();
        for overdue in [99, 400, 150] {
            scheduling.note_overdue(Duration::from_millis(overdue));
        }
        assert_eq!(scheduling.take().starved, Duration::from_millis(550));
        assert_eq!(scheduling.take().starved, Duration::ZERO);
    }

    #[test]
    fn a_thread_that_gives_way_is_seen() {
        let mut scheduling = ThreadScheduling::of_this_thread();
        assert!(scheduling.status.is_some());
        let first = scheduling.read();
        std::thread::sleep(Duration::from_millis(1));
        assert!(scheduling.read().involuntary_switches >= first.involuntary_switches);
        assert!(scheduling.take().involuntary_switches <= scheduling.latest.involuntary_switches);
    }
}
