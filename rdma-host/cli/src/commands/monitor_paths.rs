//! `nvmf monitor` over several paths: a line for each change of a path and of its controller.

use std::{sync::Arc, time::SystemTime};

use rdma_host::{PathId, PathState, Provider, Subsystem, SubsystemOptions, SubsystemStatus};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use super::monitor_line::{Line, follow_controller};
use crate::{connect, failure::Failure, path_report::PathReport};

/// Connects all paths, and reports what changes until all have ended or it is `stopped`.
pub(super) async fn watch<P: Provider>(
    provider: &Arc<P>,
    options: &SubsystemOptions,
    lines: mpsc::Sender<Line>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Failure> {
    tokio::pin!(stopped);
    let paths = tokio::select! {
        connected = Subsystem::connect_over(provider, options) => connected?,
        () = &mut stopped => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = follow(&paths, &lines) => outcome,
        () = stopped => Ok(()),
    };
    paths.shutdown().await;
    outcome
}

/// Reports changes until all paths have ended, which is a failure, or nothing more can be printed.
async fn follow<P: Provider>(
    paths: &Subsystem<P>,
    lines: &mpsc::Sender<Line>,
) -> Result<(), Failure> {
    let controller = paths.any_controller();
    for id in controller.namespaces().await? {
        paths.namespace(id).await?;
    }
    drop(controller);
    let mut changes = paths.changes();
    let (mut shown, mut followed) = (Vec::new(), Vec::new());
    let mut followers = JoinSet::new();
    while let Some(status) = changes.next().await {
        follow_controllers(paths, &mut followed, &mut followers, lines);
        if let Some(failure) = end_of(&status) {
            return Err(failure);
        }
        for line in path_lines(&status, &mut shown) {
            if lines.send(line).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
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
            new.push(Line { at: now, text, json });
        }
    }
    new
}

/// Follows the controllers of paths that have been connected since.
fn follow_controllers<P: Provider>(
    paths: &Subsystem<P>,
    followed: &mut Vec<PathId>,
    followers: &mut JoinSet<()>,
    lines: &mpsc::Sender<Line>,
) {
    for path in paths.status().paths {
        if let Some(controller) = paths.controller(path.id).filter(|_| !followed.contains(&path.id))
        {
            followed.push(path.id);
            connect::print_warnings(&controller.negotiated());
            // The handle would keep the controller from ending.
            let (changes, events) = (controller.changes(), controller.events());
            let address = Some(path.address.to_string());
            followers.spawn(follow_controller(address, changes, events, lines.clone()));
        }
    }
}
