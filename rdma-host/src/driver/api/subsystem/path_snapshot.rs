//! Copy of what the table of paths knows, for a thread that chooses a path for each command without
//! its lock, and the counters that the thread adds to the table's.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    proto::{CommandRetry, PathId, PathPolicy, PathSelector},
    wire::NamespaceId,
};

/// Paths as they were at one version of the table.
pub(super) struct PathSnapshot {
    pub(super) version: u64,
    /// Generation of the connection of each path, and the controller's rules for commands that
    /// fail.
    pub(super) connections: Vec<(u64, CommandRetry)>,
    /// Paths among which the policy chooses, by namespace.
    pub(super) active: Vec<ActivePaths>,
    /// Index of the namespace of the latest command; may be out of range.
    pub(super) latest: usize,
}

/// Paths of a namespace among which the policy chooses.
pub(super) struct ActivePaths {
    namespace: NamespaceId,
    /// True for those that are chosen, by path.
    is_active: Vec<bool>,
    /// Paths that are chosen in turn, whatever their load is; none if the policy looks at it.
    turns: Vec<PathId>,
    /// Index of the next turn.
    next: usize,
}

impl ActivePaths {
    /// Creates the choice among `active` of `count` paths.
    pub(super) fn new(
        namespace: NamespaceId,
        active: &[PathId],
        count: usize,
        policy: PathPolicy,
    ) -> Self {
        let turns = match policy {
            PathPolicy::Preferred(path) if active.contains(&path) => vec![path],
            PathPolicy::RoundRobin | PathPolicy::Preferred(_) => active.to_vec(),
            PathPolicy::QueueDepth | PathPolicy::Latency => Vec::new(),
        };
        let is_active = (0..count).map(|path| active.contains(&PathId(path))).collect();
        Self { namespace, is_active, turns, next: 0 }
    }
}

impl PathSnapshot {
    /// Paths among which the policy chooses for a namespace; `None` if it is not in use.
    #[inline]
    pub(super) fn active(&self, namespace: NamespaceId) -> Option<&[bool]> {
        let active = self.active.iter().find(|active| active.namespace == namespace);
        active.map(|active| &active.is_active[..])
    }

    /// Path of the next turn for a namespace; `None` if it is not that of the latest command, or
    /// has no turns.
    #[inline]
    pub(super) fn next_turn(&mut self, namespace: NamespaceId) -> Option<PathId> {
        let active = self.active.get_mut(self.latest)?;
        let path = *active.turns.get(active.next)?;
        if active.namespace != namespace {
            return None;
        }
        active.next += 1;
        if active.next == active.turns.len() {
            active.next = 0;
        }
        Some(path)
    }

    /// Continues the turns of an earlier snapshot.
    pub(super) fn continue_turns(&mut self, before: &Self) {
        for active in &mut self.active {
            let same = before.active.iter().find(|one| one.namespace == active.namespace);
            let due = same.and_then(|before| before.turns.get(before.next));
            let next = due.and_then(|due| active.turns.iter().position(|path| path >= due));
            active.next = next.unwrap_or(0);
        }
    }

    /// Notes the namespace of the latest command. Returns true if it is another one.
    pub(super) fn set_latest(&mut self, namespace: NamespaceId) -> bool {
        let index = self.active.iter().position(|active| active.namespace == namespace);
        index.is_some_and(|index| std::mem::replace(&mut self.latest, index) != index)
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
