//! Times, changes and events as lines of `nvmf monitor`.

use std::time::{Duration, SystemTime};

use rdma_host::{
    ControllerEvent, ControllerEvents, EventDetail, LifecycleState, NamespaceChange, StateChange,
    StateChanges, wire::NamespaceId,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{Format, failure::Failure, output};

/// Lines that wait to be printed.
const BACKLOG: usize = 64;

/// Line to print, as text and as JSON.
pub(super) struct Line {
    pub(super) at: SystemTime,
    pub(super) text: String,
    pub(super) json: Value,
}

/// Starts to print lines, until all senders are gone or the reader has closed the pipe.
pub(super) fn print_lines(format: Format) -> (mpsc::Sender<Line>, JoinHandle<Result<(), Failure>>) {
    let (sender, mut lines) = mpsc::channel::<Line>(BACKLOG);
    let printer = tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if !output::try_print(&line.format(format))? {
                break;
            }
        }
        Ok(())
    });
    (sender, printer)
}

/// Sends changes and events of a controller, with the address if it is one of several, until both
/// streams end, with the controller, or nothing more can be printed.
pub(super) async fn follow_controller(
    address: Option<String>,
    mut changes: StateChanges,
    mut events: ControllerEvents,
    lines: mpsc::Sender<Line>,
) {
    let path = address.as_ref().map(|address| format!("path {address}: ")).unwrap_or_default();
    loop {
        let (at, text, mut json) = tokio::select! {
            Some(change) = changes.next() => {
                (change.at, format!("{path}{change}"), change_to_json(&change))
            }
            Some(event) = events.next() => {
                (event.at, format!("{path}notice: {event}"), event_to_json(&event))
            }
            else => return,
        };
        if let Some(address) = &address {
            json["address"] = address.as_str().into();
        }
        if lines.send(Line { at, text, json }).await.is_err() {
            return;
        }
    }
}

impl Line {
    fn format(&self, format: Format) -> String {
        let since_epoch = since_epoch(self.at);
        match format {
            Format::Normal => format!("{} {}\n", clock(since_epoch), self.text),
            Format::Json => {
                let mut json = self.json.clone();
                json["time"] = since_epoch.as_secs_f64().into();
                format!("{json}\n")
            }
        }
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Time of day in UTC, to the millisecond.
fn clock(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs() % (24 * 60 * 60);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, since_epoch.subsec_millis())
}

fn change_to_json(change: &StateChange) -> Value {
    json!({
        "state": change.state.to_string(),
        "cause": change.cause.as_ref().map(ToString::to_string),
        "attempt": change.attempt,
        "attempts_max": change.attempts_max,
        "next_s": change.next.map(|next| next.as_secs_f64()),
        "final": change.state == LifecycleState::Dead,
    })
}

fn event_to_json(event: &ControllerEvent) -> Value {
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
