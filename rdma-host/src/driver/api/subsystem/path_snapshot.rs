//! Copy of what the table of paths knows, for a thread that chooses a path for each command without
//! its lock, and the counters that the thread adds to the table's.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    proto::{CommandRetry, PathId, PathSelector},
    wire::NamespaceId,
};

/// Paths as they were at one version of the table.
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

    /// Publishes the load of each path.
    #[inline]
    pub(super) fn publish(&self, selector: &PathSelector) {
        for (index, counters) in self.paths.iter().enumerate() {
            let path = PathId(index);
            counters.commands.store(selector.commands(path), Ordering::Relaxed);
            counters.in_flight.store(selector.in_flight(path), Ordering::Relaxed);
            counters.latency.store(selector.latency(path), Ordering::Relaxed);
        }
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

    /// Mean latency on a path in nanoseconds; 0 before the first completion.
    pub(super) fn latency(&self, path: PathId) -> u64 {
        self.paths[path.0].latency.load(Ordering::Relaxed)
    }
}
