//! Errors of the paths of a subsystem.

use std::net::SocketAddr;

use uuid::Uuid;

use super::ErrorClass;
use crate::wire::NamespaceId;

/// The paths of a subsystem do not belong together, or none of them can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No path can be used for a namespace, and the command is not held any longer.
    #[error("no path to namespace {namespace}: {}", .states.join("; "))]
    NoPath {
        /// Namespace.
        namespace: NamespaceId,
        /// State of each path, in one line each.
        states: Vec<String>,
    },
    /// The targets of two paths report different subsystems.
    #[error(
        "{address} and {other} are no paths of one subsystem: {difference}; give addresses of the \
         same one"
    )]
    AnotherSubsystem {
        /// Address of the first path.
        address: SocketAddr,
        /// Address of the other path.
        other: SocketAddr,
        /// Property that differs, with its values.
        difference: PathDifference,
    },
    /// The namespaces of one id on two paths are not the same.
    #[error(
        "namespace {namespace} of {address} and that of {other} are not the same: {difference}; \
         see the target"
    )]
    AnotherNamespace {
        /// Namespace.
        namespace: NamespaceId,
        /// Address of the first path.
        address: SocketAddr,
        /// Address of the other path.
        other: SocketAddr,
        /// Property that differs, with its values.
        difference: PathDifference,
    },
    /// A namespace has no identifier by which it is known on each path.
    #[error(
        "namespace {0} has neither UUID, NGUID nor EUI64: it can't be told whether it is the same \
         on each path; see the target, or use one path"
    )]
    NoIdentifier(NamespaceId),
    /// The options have several paths of the same address and source.
    #[error("{0} is given twice as a path")]
    Twice(SocketAddr),
    /// The number of host identifiers is not that of the paths.
    #[error("{ids} host identifiers are given for {paths} paths; give one for each")]
    HostIdCount {
        /// Number of host identifiers.
        ids: usize,
        /// Number of paths.
        paths: usize,
    },
    /// Two paths have one host identifier.
    #[error(
        "two paths have the host identifier {0}: reservations can't tell them apart; give each \
         path its own"
    )]
    SameHostId(Uuid),
    /// The commands of a path's host identifier were not preempted from a namespace.
    #[error("the commands of {host_id} on namespace {namespace} are not preempted: {reason}")]
    Preemption {
        /// Namespace.
        namespace: NamespaceId,
        /// Host identifier of the path.
        host_id: Uuid,
        /// Reason.
        reason: &'static str,
    },
}

/// Property that differs by path, with its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property} {first} and {other}")]
pub struct PathDifference {
    /// Name of the property.
    pub property: &'static str,
    /// Value on the first path.
    pub first: String,
    /// Value on the other path.
    pub other: String,
}

impl PathError {
    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::NoPath { .. } => ErrorClass::Transport,
            Self::Twice(_) | Self::HostIdCount { .. } | Self::SameHostId(_) => ErrorClass::Caller,
            _ => ErrorClass::Failed,
        }
    }
}
