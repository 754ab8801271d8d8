//! Decision between spinning and sleeping of a poller without completions.

use std::time::Duration;

use quanta::{Clock, Instant};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

use crate::{config::WaitMode, driver::runtime};

/// Wait policy of one poller. The clock is read only where the mode needs it.
///
/// While there are fewer pollers than processors, a poller that spins delays no other thread. With
/// as many or more, it may keep the thread from running that it waits for: of a software device, of
/// a target on the same machine, or of another poller.
#[derive(Debug)]
pub struct Waiter {
    mode: WaitMode,
    pause: Pause,
    clock: Clock,
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
            WaitMode::Adaptive(_) if runtime::processors() == 1 => WaitMode::Event,
            mode => mode,
        };
        Self { mode, pause: Pause::Yield, clock: runtime::clock(), idle_since: None }
    }

    /// Creates a waiter for a thread that only drives a poller, one of `pollers` such threads of
    /// this process.
    ///
    /// If these occupy all processors, and the mode spins, the thread enters the scheduling class
    /// `SCHED_IDLE`, and stays in it: the threads that complete its commands then run first. So do
    /// all other programs, beside which the thread may not run for many seconds: where there are
    /// any, [`new`](Self::new) is better. Without privileges the class cannot be left. If it is
    /// refused, the thread yields at each poll.
    #[must_use]
    pub fn on_own_thread(mode: WaitMode, pollers: usize) -> Self {
        // A thread that does not spin takes nothing from others.
        if pollers < runtime::processors() || (mode != WaitMode::Event && enter_idle_class()) {
            let clock = runtime::clock();
            return Self { mode, pause: Pause::Spin, clock, idle_since: None };
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
        if limit < Duration::MAX {
            let now = self.clock.now();
            if now.duration_since(*self.idle_since.get_or_insert(now)) >= limit {
                self.idle_since = None;
                return false;
            }
        }
        match self.pause {
            Pause::Spin => runtime::spin(),
            Pause::Yield => runtime::yield_thread(),
        }
        true
    }
}

/// Puts the calling thread into the class `SCHED_IDLE`; returns false if it may not be there.
fn enter_idle_class() -> bool {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // The nice value is set after the class: where it is refused, the class is in force.
    if let Err(error) =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
    {
        tracing::debug!(?error, "the idle scheduling class, or its nice value, is refused");
    }
    thread_schedule_policy().is_ok_and(|now| now == policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scheduling class of a thread while it waits in this way, alone or with too many others.
    fn class_of(mode: WaitMode, pollers: usize) -> ThreadSchedulePolicy {
        let thread = std::thread::spawn(move || {
            let _waiter = Waiter::on_own_thread(mode, pollers);
            thread_schedule_policy().unwrap()
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_a_thread_that_spins_on_the_last_processor_is_in_the_idle_class() {
        let normal = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(class_of(WaitMode::Poll, runtime::processors()), idle);
        assert_eq!(class_of(WaitMode::Event, runtime::processors()), normal);
        assert_eq!(class_of(WaitMode::Poll, 0), normal);
    }
}
