//! Disconnects that a load went through, and their duration.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rdma_host::{LifecycleState, StateChange, StateChanges};
use serde_json::{Value, json};

use crate::size;

/// Disconnects that are kept one by one for the report: the latest ones.
const HISTORY_MAX: usize = 1024;

/// Time without a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Disconnect {
    lost: SystemTime,
    back: SystemTime,
}

/// Disconnects of one controller, or of all that are paths.
#[derive(Debug, Default)]
pub(crate) struct Disconnects {
    count: u64,
    longest: Duration,
    latest: VecDeque<Disconnect>,
}

impl Disconnects {
    /// Counts the disconnects of controllers, each in a task of the runtime.
    pub(crate) fn watch(
        runtime: &tokio::runtime::Runtime,
        controllers: Vec<StateChanges>,
    ) -> Arc<Mutex<Self>> {
        let shared = Arc::new(Mutex::new(Self::default()));
        for mut changes in controllers {
            let disconnects = Arc::clone(&shared);
            runtime.spawn(async move {
                let mut lost = None;
                while let Some(change) = changes.next().await {
                    let mut disconnects =
                        disconnects.lock().unwrap_or_else(PoisonError::into_inner);
                    disconnects.add(&change, &mut lost);
                }
            });
        }
        shared
    }

    /// Adds a change of a controller. `lost` is the time of the loss, while it has no connection.
    fn add(&mut self, change: &StateChange, lost: &mut Option<SystemTime>) {
        if change.state != LifecycleState::Live {
            lost.get_or_insert(change.at);
            return;
        }
        // The system clock may have been set back meanwhile.
        let Some(lost) = lost.take() else { return };
        let back = change.at.max(lost);
        self.count += 1;
        self.longest = self.longest.max(back.duration_since(lost).unwrap_or_default());
        if self.latest.len() == HISTORY_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(Disconnect { lost, back });
    }

    /// Number of disconnects after which the connection came back.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Clause for a message; empty if there were none.
    pub(crate) fn summary(&self) -> String {
        match self.count {
            0 => String::new(),
            count => format!(
                ", through {}, the longest outage {:.1} s",
                size::format_count(count, "reconnect"),
                self.longest.as_secs_f64()
            ),
        }
    }

    /// Latest disconnects, in seconds since 1970.
    pub(crate) fn to_json(&self) -> Value {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
        };
        let latest = self.latest.iter();
        let to_json =
            |one: &Disconnect| json!({ "lost": seconds(one.lost), "back": seconds(one.back) });
        latest.map(to_json).collect()
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
    fn a_disconnect_lasts_from_the_first_change_to_the_next_live() {
        let (mut disconnects, mut lost) = (Disconnects::default(), None);
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
            disconnects.add(&change(state, second), &mut lost);
        }
        assert_eq!(disconnects.summary(), ", through 2 reconnects, the longest outage 3.0 s");
        let json = disconnects.to_json();
        assert_eq!(json, json!([{ "lost": 5.0, "back": 8.0 }, { "lost": 9.0, "back": 10.0 }]));
    }

    #[test]
    fn only_the_latest_are_kept() {
        let (mut disconnects, mut lost) = (Disconnects::default(), None);
        for second in 0..2 * HISTORY_MAX as u64 {
            disconnects.add(&change(LifecycleState::Resetting, 2 * second), &mut lost);
            disconnects.add(&change(LifecycleState::Live, 2 * second + 1), &mut lost);
        }
        assert_eq!(
            (disconnects.count(), disconnects.latest.len()),
            (2 * HISTORY_MAX as u64, HISTORY_MAX)
        );
    }
}
