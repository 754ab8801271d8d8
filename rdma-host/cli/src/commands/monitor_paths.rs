//! `nvmf monitor` over several paths: a line for each change of a path and of its controller.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rdma_host::{
    Controller, PathId, PathState, Provider, Subsystem, SubsystemOptions, SubsystemStatus,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::monitor_line::{change_to_json, clock, event_to_json, since_epoch, sleep};
use crate::{
    Format, connect,
    failure::Failure,
    output,
    path_report::PathReport,
    shutdown::{self, ShutdownSignal},
};

/// Lines that wait to be printed.
const BACKLOG: usize = 64;

/// Line to print, as text and as JSON.
type Line = (SystemTime, String, Value);

/// Connects all paths, and prints what changes until all have ended, the time is over, a signal
/// arrives or nothing more can be printed.
pub(super) fn run<P: Provider>(
    provider: &Arc<P>,
    options: &SubsystemOptions,
    runtime: Option<Duration>,
    format: Format,
) -> Result<(), Failure> {
    shutdown::runtime()?.block_on(async {
        let shutdown = ShutdownSignal::catch()?;
        let stopped = async {
            tokio::select! {
                () = sleep(runtime) => {}
                signal = shutdown.received() => shutdown::print_end(signal),
            }
        };
        tokio::pin!(stopped);
        let paths = tokio::select! {
            connected = Subsystem::connect_over(provider, options) => connected?,
            () = &mut stopped => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = follow(&paths, format) => outcome,
            () = stopped => Ok(()),
        };
        paths.shutdown().await;
        outcome
    })
}

/// Prints changes until all paths have ended, which is a failure, or the reader has closed the
/// pipe.
async fn follow<P: Provider>(paths: &Subsystem<P>, format: Format) -> Result<(), Failure> {
    let controller = paths.any_controller();
    for id in controller.namespaces().await? {
        paths.namespace(id).await?;
    }
    drop(controller);
    let (sender, mut lines) = mpsc::channel(BACKLOG);
    let mut changes = paths.changes();
    let (mut shown, mut followed) = (Vec::new(), Vec::new());
    loop {
        let new = tokio::select! {
            Some(status) = changes.next() => {
                follow_controllers(paths, &mut followed, &sender);
                if let Some(failure) = end_of(&status) {
                    return Err(failure);
                }
                path_lines(&status, &mut shown)
            }
            Some(line) = lines.recv() => vec![line],
            else => return Ok(()),
        };
        for line in &new {
            if !output::try_print(&print(line, format))? {
                return Ok(());
            }
        }
    }
}

/// Failure of a subsystem whose paths have all ended.
fn end_of(status: &SubsystemStatus) -> Option<Failure> {
    let has_ended = status.paths.iter().all(|path| path.state == PathState::Ended);
    let cause = status.paths.iter().find_map(|path| path.cause.clone());
    has_ended.then(|| cause.unwrap_or(rdma_host::Error::Closed).into())
}

/// Lines of the paths that have changed; `shown` are the latest of each.
fn path_lines(status: &SubsystemStatus, shown: &mut Vec<String>) -> Vec<Line> {
    let now = SystemTime::now();
    let mut new = Vec::new();
    shown.resize(status.paths.len(), String::new());
    for (path, shown) in PathReport::all(status).iter().zip(shown) {
        let text = path.describe_state();
        if *shown != text {
            shown.clone_from(&text);
            let json = json!({ "path": path, "iopolicy": status.policy.to_string() });
            new.push((now, text, json));
        }
    }
    new
}

/// Follows the controllers of paths that have been connected since.
fn follow_controllers<P: Provider>(
    paths: &Subsystem<P>,
    followed: &mut Vec<PathId>,
    lines: &mpsc::Sender<Line>,
) {
    for path in paths.status().paths {
        if let Some(controller) = paths.controller(path.id).filter(|_| !followed.contains(&path.id))
        {
            followed.push(path.id);
            connect::print_warnings(&controller.negotiated());
            let (address, lines) = (path.address.to_string(), lines.clone());
            tokio::spawn(follow_controller(address, controller, lines));
        }
    }
}

/// Reports changes and events of a path's controller, until it or the receiver is gone.
async fn follow_controller<P: Provider>(
    address: String,
    controller: Arc<Controller<P>>,
    lines: mpsc::Sender<Line>,
) {
    let (mut changes, mut events) = (controller.changes(), controller.events());
    // The handle would keep it from ending.
    drop(controller);
    loop {
        let (at, text, mut json) = tokio::select! {
            Some(change) = changes.next() => {
                let json = change_to_json(&change, since_epoch(change.at));
                (change.at, format!("path {address}: {change}"), json)
            }
            Some(event) = events.next() => {
                let json = event_to_json(&event, since_epoch(event.at));
                (event.at, format!("path {address}: notice: {event}"), json)
            }
            else => return,
        };
        json["address"] = address.clone().into();
        if lines.send((at, text, json)).await.is_err() {
            return;
        }
    }
}

fn print((at, text, json): &Line, format: Format) -> String {
    let since_epoch = since_epoch(*at);
    match format {
        Format::Normal => format!("{} {text}\n", clock(since_epoch)),
        Format::Json => {
            let mut json = json.clone();
            json["time"] = since_epoch.as_secs_f64().into();
            format!("{json}\n")
        }
    }
}
