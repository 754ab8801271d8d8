//! Records of paths, and of the namespaces that they have.

use std::sync::Arc;

use crate::{
    driver::api::namespace::Namespace,
    error::Error,
    proto::{CommandRetry, PathId, PathState},
    wire::NamespaceInfo,
};

/// Connection and counters of a path.
pub(super) struct PathRecord {
    pub(super) state: PathState,
    /// Generation of the connection that commands are sent on.
    pub(super) generation: u64,
    pub(super) retry: CommandRetry,
    /// Error that ended the last connection.
    pub(super) cause: Option<Error>,
    pub(super) failures: u64,
    pub(super) switches: u64,
    pub(super) switched_at: Option<std::time::SystemTime>,
}

/// Namespace of the subsystem, on all its paths.
pub(super) struct NamespaceHead {
    pub(super) info: NamespaceInfo,
    /// Number of the namespace: another one of the same id has another.
    pub(super) instance: u64,
    /// Handles by path.
    pub(super) on: Vec<Presence>,
    /// Paths among which the policy chooses.
    pub(super) active: Vec<PathId>,
}

/// Knowledge of whether a path has a namespace.
#[derive(Clone)]
pub(super) enum Presence {
    /// Not identified there yet.
    Unknown,
    There(Arc<Namespace>),
    /// Not attached there, or another namespace has its id.
    Absent,
}

impl NamespaceHead {
    pub(super) fn has(&self, paths: &[PathRecord], path: PathId) -> bool {
        match self.on[path.0] {
            Presence::There(_) => true,
            Presence::Absent => false,
            // It is identified before the path is live.
            Presence::Unknown => paths[path.0].state != PathState::Live,
        }
    }
}
