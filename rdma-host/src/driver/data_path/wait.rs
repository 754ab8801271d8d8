//! Decision between spinning and sleeping of a poller without completions.

use std::time::Duration;

use quanta::Instant;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::config::WaitMode;

/// Wait policy of one poller. The clock is read only where the mode needs it.
///
/// While there are fewer pollers than processors, a poller that spins delays no other thread. With
/// as many or more, it may keep the thread from running that it waits for: of a software device, of
/// a target on the same machine, or of another poller.
#[derive(Debug)]
pub struct Waiter {
    mode: WaitMode,
    pause: Pause,
    idle_since: Option<Instant>,
}

/// Action between two polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Spin hint to the processor.
    Spin,
    /// Yield to other threads, by a system call.
    Yield,
}

impl Waiter {
    /// Creates a waiter for a thread with other tasks. With a single processor adaptive waiting
    /// sleeps at once.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        let mode = match mode {
            WaitMode::Adaptive(_) if processors() == 1 => WaitMode::Event,
            mode => mode,
        };
        Self { mode, pause: Pause::Yield, idle_since: None }
    }

    /// Creates a waiter for a thread that only drives a poller, one of `pollers` such threads of
    /// this process.
    ///
    /// If these occupy all processors, the thread enters the scheduling class `SCHED_IDLE`, and
    /// stays in it: the threads that complete its commands then run first. Without privileges the
    /// class cannot be left. If it is refused, the thread yields at each poll.
    #[must_use]
    pub fn on_own_thread(mode: WaitMode, pollers: usize) -> Self {
        if pollers < processors() || run_when_idle() {
            return Self { mode, pause: Pause::Spin, idle_since: None };
        }
        Self::new(mode)
    }

    /// Notes that a command completed.
    #[inline]
    pub fn busy(&mut self) {
        self.idle_since = None;
    }

    /// Notes that nothing completed; returns true to poll again at once, and false to sleep.
    pub fn spins(&mut self) -> bool {
        let limit = match self.mode {
            WaitMode::Event => return false,
            WaitMode::Poll => Duration::MAX,
            WaitMode::Adaptive(limit) => limit,
        };
        if limit < Duration::MAX
            && self.idle_since.get_or_insert_with(Instant::now).elapsed() >= limit
        {
            self.idle_since = None;
            return false;
        }
        match self.pause {
            Pause::Spin => std::hint::spin_loop(),
            Pause::Yield => std::thread::yield_now(),
        }
        true
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn run_when_idle() -> bool {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .inspect_err(|error| tracing::debug!(?error, "no idle scheduling class"))
        .is_ok()
}
