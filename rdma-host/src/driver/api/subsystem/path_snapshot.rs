//! Copy of what the table of paths knows, for a thread that chooses a path for each command without
//! its lock, and the counters that the thread adds to the table's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    proto::{CommandRetry, PathId, PathSelector},
    wire::NamespaceId,
};

/// Paths as they were at one version of the table.
#[derive(Default)]
pub(super) struct PathSnapshot {
    pub(super) version: u64,
    /// Generation of the connection of each path, and the controller's rules for commands that
    /// fail.
    pub(super) connections: Vec<(u64, CommandRetry)>,
    /// Paths among which the policy chooses, by namespace: true for those of each.
    pub(super) active: Vec<(NamespaceId, Vec<bool>)>,
}

impl PathSnapshot {
    /// Paths among which the policy chooses for a namespace; `None` if it is not in use.
    #[inline]
    pub(super) fn active(&self, namespace: NamespaceId) -> Option<&[bool]> {
        let active = self.active.iter().find(|(id, _)| *id == namespace);
        active.map(|(_, active)| &active[..])
    }
}

/// Counters of one thread for each path. It writes them, and others read them.
pub(super) struct PathCounters {
    paths: Vec<Counters>,
}

#[derive(Default)]
struct Counters {
    commands: AtomicU64,
    in_flight: AtomicU32,
    /// Mean latency in nanoseconds; 0 for none.
    latency: AtomicU64,
}

impl PathCounters {
    pub(super) fn new(paths: usize) -> Arc<Self> {
        let paths = std::iter::repeat_with(Counters::default).take(paths).collect();
        Arc::new(Self { paths })
    }

    /// Counts a command that is sent.
    #[inline]
    pub(super) fn begin(&self, path: PathId, selector: &PathSelector) {
        let counters = &self.paths[path.0];
        // There is one writer: no read-modify-write is needed.
        let commands = counters.commands.load(Ordering::Relaxed) + 1;
        counters.commands.store(commands, Ordering::Relaxed);
        counters.in_flight.store(selector.in_flight(path), Ordering::Relaxed);
    }

    /// Notes that a command has ended.
    #[inline]
    pub(super) fn end(&self, path: PathId, selector: &PathSelector) {
        let counters = &self.paths[path.0];
        counters.in_flight.store(selector.in_flight(path), Ordering::Relaxed);
        let latency = selector.latency(path).unwrap_or_default().as_nanos();
        counters.latency.store(u64::try_from(latency).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes that the thread has no commands any more.
    pub(super) fn close(&self) {
        for counters in &self.paths {
            counters.in_flight.store(0, Ordering::Relaxed);
            counters.latency.store(0, Ordering::Relaxed);
        }
    }

    /// Number of commands that were sent on a path.
    pub(super) fn commands(&self, path: PathId) -> u64 {
        self.paths[path.0].commands.load(Ordering::Relaxed)
    }

    /// Number of commands that are in flight on a path.
    pub(super) fn in_flight(&self, path: PathId) -> u32 {
        self.paths[path.0].in_flight.load(Ordering::Relaxed)
    }

    /// Mean latency on a path; `None` before the first completion.
    pub(super) fn latency(&self, path: PathId) -> Option<Duration> {
        let latency = self.paths[path.0].latency.load(Ordering::Relaxed);
        (latency > 0).then(|| Duration::from_nanos(latency))
    }
}
