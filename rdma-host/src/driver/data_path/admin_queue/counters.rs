//! Numbers of a controller's admin queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::driver::runtime;

/// Numbers of a controller's admin queue while it is live, over all its connections. Clones have
/// the same numbers.
#[derive(Clone, Debug)]
pub struct AdminCounters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: AtomicU64,
    keep_alives: AtomicU64,
    epoch: Instant,
    /// Time of the latest sign of life in nanoseconds since `epoch`; 0 before the first.
    alive: AtomicU64,
}

impl AdminCounters {
    pub(crate) fn new() -> Self {
        let (commands, keep_alives, alive) = Default::default();
        Self { shared: Arc::new(Shared { commands, keep_alives, epoch: runtime::now(), alive }) }
    }

    /// Number of admin commands sent, Keep Alive, Abort and Asynchronous Event Request included.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Number of Keep Alive commands sent.
    #[must_use]
    pub fn keep_alives(&self) -> u64 {
        self.shared.keep_alives.load(Ordering::Relaxed)
    }

    /// Time since the controller last answered an admin command, or, as its keep-alive timer sees
    /// it, since the submission of the latest I/O command that it has answered; `None` before the
    /// first. Known to a fraction of a second.
    #[must_use]
    pub fn since_answer(&self) -> Option<Duration> {
        let nanoseconds = Some(self.shared.alive.load(Ordering::Relaxed)).filter(|&at| at != 0)?;
        let at = self.shared.epoch + Duration::from_nanos(nanoseconds);
        Some(runtime::now().saturating_duration_since(at))
    }

    pub(crate) fn count(&self, is_keep_alive: bool) {
        self.shared.commands.fetch_add(1, Ordering::Relaxed);
        self.shared.keep_alives.fetch_add(is_keep_alive.into(), Ordering::Relaxed);
    }

    /// Notes that the controller was alive at this time.
    pub(crate) fn note_alive(&self, at: Instant) {
        let since = at.saturating_duration_since(self.shared.epoch);
        let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.shared.alive.fetch_max(nanoseconds, Ordering::Relaxed);
    }
}
