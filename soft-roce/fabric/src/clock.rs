//! Virtual time and the queue of scheduled events.

use std::{collections::BTreeMap, time::Duration};

/// Clock that advances only from one scheduled event to the next.
///
/// There are two kinds of events. A *delivery* is something in transit: a message, a response, a
/// notification. A *timer* is a timeout, which expires only if time is advanced.
pub(super) struct Clock<E> {
    now: Duration,
    planned: u64,
    deliveries: BTreeMap<(Duration, u64), E>,
    timers: BTreeMap<(Duration, u64), E>,
}

impl<E> Clock<E> {
    pub(super) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            planned: 0,
            deliveries: BTreeMap::new(),
            timers: BTreeMap::new(),
        }
    }

    pub(super) fn deliver(&mut self, at: Duration, event: E) {
        let key = self.key(at);
        self.deliveries.insert(key, event);
    }

    pub(super) fn set_timer(&mut self, after: Duration, event: E) {
        let key = self.key(self.now.saturating_add(after));
        self.timers.insert(key, event);
    }

    /// Returns the next event of either kind up to `limit`, and advances time to it.
    pub(super) fn next(&mut self, limit: Duration) -> Option<E> {
        let delivery = self.deliveries.first_key_value().map(|(&key, _)| key);
        let timer = self.timers.first_key_value().map(|(&key, _)| key);
        let first = delivery.into_iter().chain(timer).min().filter(|&(at, _)| at <= limit)?;
        self.now = self.now.max(first.0);
        self.deliveries.remove(&first).or_else(|| self.timers.remove(&first))
    }

    /// Advances time without executing events.
    pub(super) fn set(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Time of the next delivery, if one is in transit.
    pub(super) fn next_delivery(&self) -> Option<Duration> {
        self.deliveries.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Time of the next event, of either kind.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let timer = self.timers.first_key_value().map(|(&(at, _), _)| at);
        self.next_delivery().into_iter().chain(timer).min()
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    fn key(&mut self, at: Duration) -> (Duration, u64) {
        self.planned += 1;
        (at.max(self.now), self.planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_at_the_same_time_run_in_the_order_of_scheduling() {
        let mut clock = Clock::new();
        let at = Duration::from_micros(5);
        clock.deliver(at, "first");
        clock.set_timer(at, "second");
        clock.deliver(Duration::ZERO, "zeroth");
        clock.deliver(at, "third");
        let order: Vec<_> = std::iter::from_fn(|| clock.next(Duration::MAX)).collect();
        assert_eq!(order, ["zeroth", "first", "second", "third"]);
        assert_eq!(clock.now(), at);
    }

    #[test]
    fn nothing_happens_beyond_the_limit() {
        let mut clock = Clock::new();
        clock.set_timer(Duration::from_secs(1), ());
        assert_eq!(clock.next(Duration::from_millis(999)), None);
        assert_eq!(clock.now(), Duration::ZERO);
        assert_eq!(clock.next(Duration::from_secs(1)), Some(()));
    }
}
