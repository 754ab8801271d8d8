//! When a poller that found nothing spins on, and when it sleeps.

use std::time::Duration;

use quanta::Instant;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::config::WaitMode;

/// Decides for one poller, in its wait mode. The clock is read only where the mode needs it.
///
/// Where pollers have a processor each and some are to spare, a poller that spins is in nobody's
/// way. Where there are as many pollers as processors, or more, one that spins may keep the target
/// from running, or our device where that is software, or another poller: whoever it waits for.
#[derive(Debug)]
pub struct Waiter {
    mode: WaitMode,
    pause: Pause,
    idle_since: Option<Instant>,
}

/// What a poller does between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing.
    Spin,
    /// Gives way to other threads: a system call.
    Yield,
}

impl Waiter {
    /// A waiter in `mode`, on a thread that others use too. With a single processor adaptive
    /// waiting sleeps at once.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        let mode = match mode {
            WaitMode::Adaptive(_) if processors() == 1 => WaitMode::Event,
            mode => mode,
        };
        Self { mode, pause: Pause::Yield, idle_since: None }
    }

    /// A waiter in `mode` on a thread that does nothing but drive a poller, one of `pollers` such
    /// threads of this process.
    ///
    /// Where these leave no processor to others, this thread gets the scheduling class for what is
    /// to run when nothing else will (`SCHED_IDLE`), and keeps it: whatever completes its commands
    /// then comes first, and a look finds all that it did. A user without privileges can't take the
    /// class back. Where even that is refused the thread gives way at each look.
    #[must_use]
    pub fn on_own_thread(mode: WaitMode, pollers: usize) -> Self {
        if pollers < processors() || run_when_idle() {
            return Self { mode, pause: Pause::Spin, idle_since: None };
        }
        Self::new(mode)
    }

    /// Something completed.
    #[inline]
    pub fn busy(&mut self) {
        self.idle_since = None;
    }

    /// Nothing completed: whether to look again at once rather than sleep.
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
