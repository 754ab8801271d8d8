//! Paths of a subsystem as reports have them.

use rdma_host::{PathStatus, SubsystemStatus};
use serde::{Deserialize, Serialize};

use crate::size;

/// Path, and what it carried.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct PathReport {
    pub(crate) address: String,
    /// State of the connection: live, connecting or ended.
    pub(crate) state: String,
    /// Error that ended the last connection, until there is a new one.
    pub(crate) cause: Option<String>,
    pub(crate) namespaces: Vec<PathAccess>,
    /// Commands that were sent on it; one that went to another path counts on each.
    pub(crate) commands: u64,
    /// Commands that failed there.
    pub(crate) failures: u64,
    /// Mean latency of the last commands on this connection.
    pub(crate) mean_ns: Option<u64>,
    /// Times that commands to a namespace were led away from this path or back to it.
    pub(crate) switches: u64,
    /// Time of the last of these (RFC 3339).
    pub(crate) switched_at: Option<String>,
}

/// Access to a namespace by a path.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct PathAccess {
    pub(crate) nsid: u32,
    /// False if the namespace is not known to be there.
    pub(crate) present: bool,
    /// State of the access (ANA); null if the controller reports none.
    pub(crate) ana_state: Option<String>,
    /// True if the policy chooses among this path and others.
    pub(crate) in_use: bool,
}

impl PathReport {
    /// Reports of all paths.
    pub(crate) fn all(status: &SubsystemStatus) -> Vec<Self> {
        status.paths.iter().map(Self::new).collect()
    }

    fn new(path: &PathStatus) -> Self {
        let namespaces = path.namespaces.iter().map(|on| PathAccess {
            nsid: on.namespace.0,
            present: on.is_there,
            ana_state: on.access.map(|access| access.to_string()),
            in_use: on.is_active,
        });
        Self {
            address: path.address.to_string(),
            state: path.state.to_string(),
            cause: path.cause.as_ref().map(ToString::to_string),
            namespaces: namespaces.collect(),
            commands: path.commands,
            failures: path.failures,
            mean_ns: path.latency.and_then(|mean| u64::try_from(mean.as_nanos()).ok()),
            switches: path.switches,
            switched_at: path
                .switched_at
                .map(|at| humantime::format_rfc3339_millis(at).to_string()),
        }
    }

    /// Path and its state in one line.
    pub(crate) fn describe_state(&self) -> String {
        let namespaces = self.namespaces.iter().map(PathAccess::describe).collect::<String>();
        let cause = self.cause.as_ref().map(|cause| format!("; {cause}")).unwrap_or_default();
        format!("path {} {}{namespaces}{cause}", self.address, self.state)
    }

    /// Path, its state and what it carried, in one line.
    pub(crate) fn describe(&self) -> String {
        let switched = match (&self.switched_at, self.switches) {
            (None, _) => String::new(),
            (Some(at), 1) => format!(", 1 switch at {at}"),
            (Some(at), several) => format!(", {several} switches, the last at {at}"),
        };
        let commands = size::format_count(self.commands, "command");
        let (state, failures) = (self.describe_state(), self.failures);
        format!("{state}: {commands}, {failures} failed{switched}")
    }
}

impl PathAccess {
    fn describe(&self) -> String {
        let state = match (&self.ana_state, self.present) {
            (_, false) => " not seen".to_owned(),
            (Some(state), true) => format!(" {state}"),
            (None, true) => String::new(),
        };
        let in_use = if self.in_use { "" } else { " (not in use)" };
        format!(", namespace {}{state}{in_use}", self.nsid)
    }
}
