//! When a poller that found nothing spins on, and when it sleeps.

use std::time::Duration;

use quanta::Instant;

use crate::config::WaitMode;

/// Decides for one poller, in its wait mode. The clock is read only where the mode needs it.
#[derive(Debug)]
pub struct Waiter {
    mode: WaitMode,
    idle_since: Option<Instant>,
}

impl Waiter {
    /// A waiter in `mode`. With a single processor, spinning keeps the target (or whoever else
    /// completes our commands) from running, so adaptive waiting sleeps at once.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        let mode = match mode {
            WaitMode::Adaptive(_) if alone => WaitMode::Event,
            mode => mode,
        };
        Self { mode, idle_since: None }
    }

    /// Something completed.
    pub fn busy(&mut self) {
        self.idle_since = None;
    }

    /// Nothing completed: whether to look again at once rather than sleep. Gives way to other
    /// threads first.
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
        std::thread::yield_now();
        true
    }
}
