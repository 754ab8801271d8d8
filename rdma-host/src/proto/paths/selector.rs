//! Choice among paths that are equally good, by policy.

use std::time::{Duration, Instant};

use super::{PathId, PathPolicy};
use crate::config::PATH_MEASURE_INTERVAL;

/// Choice among equal paths, and what the policies count of each path: the commands in flight and
/// their latency.
#[derive(Clone, Debug)]
pub struct PathSelector {
    policy: PathPolicy,
    /// Path of the last choice, after which the next in turn is looked for.
    last: usize,
    loads: Vec<PathLoad>,
}

/// Load of a path.
#[derive(Clone, Copy, Debug, Default)]
struct PathLoad {
    in_flight: u32,
    /// Mean latency; `None` before the first completion on this connection.
    latency: Option<Duration>,
    /// Time of the last choice of this path, which only the policy by latency keeps.
    chosen_at: Option<Instant>,
}

impl PathSelector {
    /// Creates a selector among this number of paths, of which none has a load.
    #[must_use]
    pub fn new(count: usize, policy: PathPolicy) -> Self {
        let last = count.saturating_sub(1);
        Self { policy, last, loads: vec![PathLoad::default(); count] }
    }

    /// Chooses among the paths for whose index `is_equal` is true; `None` if there are none.
    #[inline]
    pub fn choose(
        &mut self,
        is_equal: impl Fn(usize) -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Option<PathId> {
        // In turn, from the one after the last choice on.
        let (first, count) = (self.last + 1, self.loads.len());
        let mut equal = (first..count).chain(0..first.min(count)).filter(|&index| is_equal(index));
        let in_flight = |&index: &usize| self.loads[index].in_flight;
        let chosen = match self.policy {
            PathPolicy::RoundRobin => equal.next(),
            PathPolicy::QueueDepth => equal.min_by_key(in_flight),
            PathPolicy::Latency => {
                let equal: Vec<_> = equal.collect();
                return self.choose_by_latency(&equal, now());
            }
            PathPolicy::Preferred(PathId(id)) if id < count && is_equal(id) => Some(id),
            PathPolicy::Preferred(_) => equal.next(),
        };
        self.last = chosen?;
        chosen.map(PathId)
    }

    fn choose_by_latency(&mut self, equal: &[usize], now: Instant) -> Option<PathId> {
        let is_due = |index: &usize| {
            let since = self.loads[*index].chosen_at;
            let since = since.map(|at| now.saturating_duration_since(at));
            since.is_none_or(|since| since >= PATH_MEASURE_INTERVAL)
        };
        let latency = |index: &usize| self.loads[*index].latency;
        let limit = equal.iter().filter_map(latency).min().map(|least| 2 * least);
        let mut fast = equal.iter().filter(|index| latency(index) <= limit);
        let fewest = |index: &&usize| self.loads[**index].in_flight;
        let due = equal.iter().find(|index| is_due(index));
        let chosen = *due.or_else(|| fast.by_ref().min_by_key(fewest))?;
        self.last = chosen;
        self.loads[chosen].chosen_at = Some(now);
        Some(PathId(chosen))
    }

    /// Reports a command that is sent.
    #[inline]
    pub fn begin(&mut self, id: PathId) {
        self.loads[id.0].in_flight += 1;
    }

    /// Reports the end of a command, and its latency if it was executed.
    ///
    /// # Panics
    ///
    /// If none was in flight.
    #[inline]
    pub fn end(&mut self, id: PathId, latency: Option<Duration>) {
        /// Weight of a latency in the mean of the last ones.
        const WEIGHT: u32 = 8;
        let load = &mut self.loads[id.0];
        load.in_flight = load.in_flight.checked_sub(1).expect("a command was in flight");
        if let Some(latency) = latency {
            load.latency = Some(match load.latency {
                Some(mean) => mean - mean / WEIGHT + latency / WEIGHT,
                None => latency,
            });
        }
    }

    /// Forgets the latency of a path, whose connection is another one.
    pub fn forget_latency(&mut self, id: PathId) {
        self.loads[id.0].latency = None;
    }

    /// Number of commands in flight on a path.
    #[must_use]
    pub fn in_flight(&self, id: PathId) -> u32 {
        self.loads[id.0].in_flight
    }

    /// Mean latency on a path; `None` before the first completion on a connection.
    #[must_use]
    pub fn latency(&self, id: PathId) -> Option<Duration> {
        self.loads[id.0].latency
    }
}
