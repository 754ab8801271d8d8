//! State of a subsystem's paths, to be printed.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use crate::{
    driver::runtime,
    error::Error,
    proto::{PathId, PathPolicy, PathState},
    wire::{AnaState, NamespaceId, Nqn},
};

/// State of a subsystem and its paths at one time. Printed, it has a line for each path.
#[derive(Clone, Debug)]
pub struct SubsystemStatus {
    /// Subsystem NQN.
    pub subsystem: Nqn,
    /// Choice among paths of the same access.
    pub policy: PathPolicy,
    /// Paths, in the order of the options.
    pub paths: Vec<PathStatus>,
}

/// State of a path.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Index of the path.
    pub id: PathId,
    /// Address of the target.
    pub address: SocketAddr,
    /// State of the connection.
    pub state: PathState,
    /// Error that ended the last connection, until there is a new one.
    pub cause: Option<Error>,
    /// Namespaces in use.
    pub namespaces: Vec<NamespacePath>,
    /// Number of reads, writes and other commands that were sent on it; one that is split counts
    /// once.
    pub commands: u64,
    /// Number of those that failed there.
    pub failures: u64,
    /// Number of those that are in flight; of a [`SubsystemPoller`](crate::SubsystemPoller), at its
    /// last doorbell or poll that completed some.
    pub in_flight: u32,
    /// Mean latency of the last ones, or of the first of each batch that a poller completed; `None`
    /// before the first one on a connection.
    pub latency: Option<Duration>,
    /// Number of times that commands to a namespace were led away from this path or back to it.
    pub switches: u64,
    /// Time of the last of these.
    pub switched_at: Option<SystemTime>,
}

/// Access to a namespace by a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespacePath {
    /// Namespace.
    pub namespace: NamespaceId,
    /// True if the namespace is known to be there.
    pub is_there: bool,
    /// True if commands go to this path now, as the policy chooses among such paths.
    pub is_active: bool,
    /// State of the access (ANA); `None` if it is not known, or the controller reports none.
    pub access: Option<AnaState>,
}

impl fmt::Display for SubsystemStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} paths, {}", self.subsystem, self.paths.len(), self.policy)?;
        self.paths.iter().try_for_each(|path| write!(f, "\n  {path}"))
    }
}

impl fmt::Display for PathStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {} {} {}", self.id.0, self.address, self.state)?;
        self.namespaces.iter().try_for_each(|namespace| write!(f, ", {namespace}"))?;
        let Self { commands, failures, in_flight, switches, .. } = self;
        write!(f, "; {commands} commands, {failures} failed, {in_flight} in flight")?;
        if let Some(latency) = self.latency {
            write!(f, ", mean {} us", latency.as_micros())?;
        }
        write!(f, "; {switches} switches")?;
        let now = runtime::system_time();
        if let Some(ago) = self.switched_at.and_then(|at| now.duration_since(at).ok()) {
            write!(f, ", the last {:.1} s ago", ago.as_secs_f64())?;
        }
        match &self.cause {
            Some(cause) => write!(f, "; {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NamespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {}", self.namespace)?;
        match self.access {
            _ if !self.is_there => f.write_str(" not seen")?,
            Some(access) => write!(f, " {access}")?,
            None => {}
        }
        f.write_str(if self.is_active { " (in use)" } else { "" })
    }
}

impl PathStatus {
    /// Reason why commands to a namespace do not go here, in one line.
    pub(super) fn describe(&self, namespace: NamespaceId) -> String {
        let place = format!("{} is {}", self.address, self.state);
        let on = self.namespaces.iter().find(|one| one.namespace == namespace);
        match (&self.cause, on) {
            (Some(cause), _) => format!("{place} ({cause})"),
            (None, Some(NamespacePath { is_there: false, .. })) => {
                format!("{place}, without the namespace")
            }
            (None, Some(NamespacePath { access: Some(access), .. })) => {
                format!("{place}, access {access}")
            }
            (None, _) => place,
        }
    }
}

/// Mean of the latencies, in nanoseconds, that are not 0; `None` if all are.
pub(super) fn mean(latencies: impl Iterator<Item = u64>) -> Option<Duration> {
    let known = latencies.filter(|&latency| latency > 0);
    let (sum, count) = known.fold((0, 0), |(sum, count), latency| (sum + latency, count + 1));
    (count > 0).then(|| Duration::from_nanos(sum / count))
}

/// Numbers of paths as text: `0, 2`, or `none`.
pub(super) fn numbers(paths: &[PathId]) -> String {
    let numbers: Vec<_> = paths.iter().map(|path| path.0.to_string()).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}
