//! The times without a connection that a load went through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rdma_host::proto::LifecycleState;
use rdma_host::{StateChange, StateChanges};
use serde_json::{Value, json};

use crate::size;

/// Outages that are kept one by one: a report names the latest of those.
const KEPT: usize = 1024;

/// One time without a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outage {
    lost: SystemTime,
    back: SystemTime,
}

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    count: u64,
    longest: Duration,
    latest: VecDeque<Outage>,
    /// When the connection was lost that is not back.
    lost: Option<SystemTime>,
}

impl Outages {
    /// Counts those of one controller, in a task of the runtime.
    pub(crate) fn watch(
        runtime: &tokio::runtime::Runtime,
        mut changes: StateChanges,
    ) -> Arc<Mutex<Self>> {
        let shared = Arc::new(Mutex::new(Self::default()));
        let outages = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Some(change) = changes.next().await {
                outages.lock().unwrap_or_else(PoisonError::into_inner).add(&change);
            }
        });
        shared
    }

    fn add(&mut self, change: &StateChange) {
        if change.state != LifecycleState::Live {
            self.lost.get_or_insert(change.at);
            return;
        }
        // The clock of the day may be set back meanwhile.
        let Some(lost) = self.lost.take() else { return };
        let back = change.at.max(lost);
        self.count += 1;
        self.longest = self.longest.max(back.duration_since(lost).unwrap_or_default());
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(Outage { lost, back });
    }

    /// How often the connection was made again.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// For people: nothing if there were none.
    pub(crate) fn in_words(&self) -> String {
        match self.count {
            0 => String::new(),
            count => format!(
                ", through {}, the longest outage {:.1} s",
                size::count(count, "reconnect"),
                self.longest.as_secs_f64()
            ),
        }
    }

    /// The latest, in seconds since 1970.
    pub(crate) fn to_json(&self) -> Value {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
        };
        let one =
            |outage: &Outage| json!({ "lost": seconds(outage.lost), "back": seconds(outage.back) });
        self.latest.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(state: LifecycleState, second: u64) -> StateChange {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        StateChange { at, state, cause: None, attempt: 0, attempts_max: None, next: None }
    }

    #[test]
    fn an_outage_lasts_from_the_first_change_to_the_next_live() {
        let mut outages = Outages::default();
        for (state, second) in [
            (LifecycleState::Live, 1),
            (LifecycleState::Resetting, 5),
            (LifecycleState::Waiting, 6),
            (LifecycleState::Connecting, 7),
            (LifecycleState::Live, 8),
            (LifecycleState::Resetting, 9),
            (LifecycleState::Live, 10),
            (LifecycleState::Deleting, 11),
        ] {
            outages.add(&change(state, second));
        }
        assert_eq!(outages.in_words(), ", through 2 reconnects, the longest outage 3.0 s");
        let json = outages.to_json();
        assert_eq!(json, json!([{ "lost": 5.0, "back": 8.0 }, { "lost": 9.0, "back": 10.0 }]));
    }

    #[test]
    fn only_the_latest_are_kept() {
        let mut outages = Outages::default();
        for second in 0..2 * KEPT as u64 {
            outages.add(&change(LifecycleState::Resetting, 2 * second));
            outages.add(&change(LifecycleState::Live, 2 * second + 1));
        }
        assert_eq!((outages.count(), outages.latest.len()), (2 * KEPT as u64, KEPT));
    }
}
