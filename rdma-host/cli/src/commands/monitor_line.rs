//! Times, changes and events as lines of `nvmf monitor`.

use std::time::{Duration, SystemTime};

use rdma_host::{
    ControllerEvent, EventDetail, LifecycleState, NamespaceChange, StateChange, wire::NamespaceId,
};
use serde_json::{Value, json};

/// Sleeps; for ever without a time.
pub(super) async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Time of day in UTC, to the millisecond.
pub(super) fn clock(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs() % (24 * 60 * 60);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, since_epoch.subsec_millis())
}

pub(super) fn change_to_json(change: &StateChange, since_epoch: Duration) -> Value {
    json!({
        "time": since_epoch.as_secs_f64(),
        "state": change.state.to_string(),
        "cause": change.cause.as_ref().map(ToString::to_string),
        "attempt": change.attempt,
        "attempts_max": change.attempts_max,
        "next_s": change.next.map(|next| next.as_secs_f64()),
        "final": change.state == LifecycleState::Dead,
    })
}

pub(super) fn event_to_json(event: &ControllerEvent, since_epoch: Duration) -> Value {
    let namespaces = match &event.detail {
        EventDetail::Namespaces(all) => {
            let one = |(id, change): &(NamespaceId, NamespaceChange)| {
                let blocks = change.info().map(|info| info.blocks);
                json!({ "nsid": id.0, "fate": change.to_string(), "blocks": blocks })
            };
            Some(all.iter().map(one).collect::<Vec<_>>())
        }
        _ => None,
    };
    let groups = match &event.detail {
        EventDetail::Ana(log) => {
            let groups = log.groups.iter();
            let one =
                groups.map(|group| json!({ "group": group.id, "state": group.state.to_string() }));
            Some(one.collect::<Vec<_>>())
        }
        _ => None,
    };
    json!({
        "time": since_epoch.as_secs_f64(),
        "notice": event.to_string(),
        "event": event.event.0,
        "namespaces": namespaces,
        "ana_groups": groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_has_milliseconds() {
        assert_eq!(
            clock(Duration::from_millis(1_000 * 86_400 * 20_000 + 3_723_045)),
            "01:02:03.045"
        );
    }
}
