//! Choice among paths that are equally good, by policy.

use std::time::Instant;

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
    /// Number of commands that were sent.
    commands: u64,
    in_flight: u32,
    /// Mean latency in nanoseconds; 0 before the first completion on this connection.
    latency: u64,
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
        let chosen = match self.policy {
            PathPolicy::RoundRobin => self.next(is_equal),
            PathPolicy::Preferred(PathId(id)) if id < self.loads.len() && is_equal(id) => Some(id),
            PathPolicy::Preferred(_) => self.next(is_equal),
            PathPolicy::QueueDepth => {
                self.in_turn().filter(|&index| is_equal(index)).min_by_key(self.in_flight_of())
            }
            PathPolicy::Latency => {
                let now = now();
                let chosen = self.choose_by_latency(is_equal, now)?;
                self.loads[chosen].chosen_at = Some(now);
                Some(chosen)
            }
        };
        self.last = chosen?;
        chosen.map(PathId)
    }

    /// Next path in turn, after that of the last choice.
    #[inline]
    fn next(&self, is_equal: impl Fn(usize) -> bool) -> Option<usize> {
        let mut index = self.last;
        for _ in 0..self.loads.len() {
            index += 1;
            if index >= self.loads.len() {
                index = 0;
            }
            if is_equal(index) {
                return Some(index);
            }
        }
        None
    }

    /// All paths, from the one after the last choice on.
    fn in_turn(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let (first, count) = (self.last + 1, self.loads.len());
        (first..count).chain(0..first.min(count))
    }

    fn in_flight_of(&self) -> impl Fn(&usize) -> u32 {
        |&index| self.loads[index].in_flight
    }

    fn choose_by_latency(&self, is_equal: impl Fn(usize) -> bool, now: Instant) -> Option<usize> {
        let equal = self.in_turn().filter(|&index| is_equal(index));
        let is_due = |&index: &usize| {
            let since = self.loads[index].chosen_at;
            let since = since.map(|at| now.saturating_duration_since(at));
            since.is_none_or(|since| since >= PATH_MEASURE_INTERVAL)
        };
        let latency = |index: usize| self.loads[index].latency;
        let known = equal.clone().map(latency).filter(|&latency| latency > 0);
        let limit = known.min().map_or(u64::MAX, |least| 2 * least);
        let mut fast = equal.clone().filter(|&index| latency(index) <= limit);
        equal.clone().find(is_due).or_else(|| fast.by_ref().min_by_key(self.in_flight_of()))
    }

    /// Reports a command that is sent.
    #[inline]
    pub fn begin(&mut self, id: PathId) {
        let load = &mut self.loads[id.0];
        load.commands += 1;
        load.in_flight += 1;
    }

    /// Reports the end of commands, and the latency of one of them in nanoseconds if it was
    /// executed and measured.
    ///
    /// # Panics
    ///
    /// If fewer were in flight.
    #[inline]
    pub fn end(&mut self, id: PathId, count: u32, latency: Option<u64>) {
        /// Weight of a latency in the mean of the last ones.
        const WEIGHT: u64 = 8;
        let load = &mut self.loads[id.0];
        load.in_flight = load.in_flight.checked_sub(count).expect("they were in flight");
        if let Some(latency) = latency {
            load.latency = match load.latency {
                0 => latency,
                mean => mean - mean / WEIGHT + latency / WEIGHT,
            };
        }
    }

    /// Forgets the latency of a path, whose connection is another one.
    pub fn forget_latency(&mut self, id: PathId) {
        self.loads[id.0].latency = 0;
    }

    /// Number of commands that were sent on a path.
    #[must_use]
    pub fn commands(&self, id: PathId) -> u64 {
        self.loads[id.0].commands
    }

    /// Number of commands in flight on a path.
    #[must_use]
    pub fn in_flight(&self, id: PathId) -> u32 {
        self.loads[id.0].in_flight
    }

    /// Mean latency on a path in nanoseconds; 0 before the first completion on a connection.
    #[must_use]
    pub fn latency(&self, id: PathId) -> u64 {
        self.loads[id.0].latency
    }
}
