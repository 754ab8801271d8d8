//! Classification of connection failures for the decision on a retry.

use std::fmt;

use auth::FailureClass;

use crate::{
    error::{AuthenticationFailure, Error, Rejected, Transport},
    wire::{CmReject, Status},
};

/// Kind of a failure: an [`Error`] reduced to what matters for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// Address or route resolution failed.
    Address,
    /// A command timed out.
    CommandTimeout,
    /// The controller reported a fatal status (CSTS.CFS).
    ControllerFatal,
    /// The owner closed the controller.
    Deleted,
    /// The target offers less security than configured.
    Downgraded,
    /// The local device or its library failed.
    Device,
    /// The connection was closed.
    Disconnected,
    /// The target is incompatible.
    Incompatible,
    /// The keep-alive timeout expired.
    KeepAlive,
    /// Authentication is required, and there is no secret.
    KeyMissing,
    /// Authentication failed.
    KeyRejected,
    /// The caller passed invalid arguments.
    Misuse,
    /// The port of the local device is down.
    PortDown,
    /// A work request failed.
    QueuePair,
    /// The connection was rejected by the CM or the target.
    Rejected(CmReject),
    /// The controller failed a command with this status.
    Status(Status),
    /// The target violated the protocol.
    TargetMisbehaved,
    /// A step of the bring-up timed out.
    Timeout,
    /// The target does not respond.
    Unreachable,
}

/// Prospect of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryability {
    /// A retry cannot succeed; Linux gives up at once too.
    Never,
    /// A retry can succeed once the target has been fixed or reconfigured. Linux retries.
    AfterFix,
    /// A retry may succeed at any time.
    Retry,
}

impl FailureKind {
    /// Returns the retryability of this kind, by the rules of Linux 6.19's `nvmf_should_reconnect`
    /// and of [`ReconnectOptions::strict`](crate::ReconnectOptions::strict).
    #[must_use]
    pub fn retryability(self) -> Retryability {
        match self {
            Self::Status(status) if status.do_not_retry() => Retryability::Never,
            Self::Deleted
            | Self::Downgraded
            | Self::KeyMissing
            | Self::KeyRejected
            | Self::Misuse => Retryability::Never,
            Self::Incompatible | Self::TargetMisbehaved => Retryability::AfterFix,
            Self::Status(status) if status.is_connect_refusal() => Retryability::AfterFix,
            Self::Rejected(reject) if reject.is_invalid_parameter() => Retryability::AfterFix,
            _ => Retryability::Retry,
        }
    }
}

impl From<&Error> for FailureKind {
    fn from(error: &Error) -> Self {
        match error {
            Error::Authentication { failure, .. } => Self::from(failure),
            Error::NotConnected(lost) => Self::from(&*lost.cause),
            Error::Closed => Self::Deleted,
            Error::CommandTimeout { .. } => Self::CommandTimeout,
            Error::ControllerFatal => Self::ControllerFatal,
            Error::GaveUp(end) => Self::from(&*end.cause),
            Error::Incompatible(_) => Self::Incompatible,
            Error::KeepAlive(_) => Self::KeepAlive,
            // The failure of a command, not of a connection.
            Error::Fenced(_) => Self::Timeout,
            Error::Malformed(_) | Error::TargetMisbehaved(_) => Self::TargetMisbehaved,
            Error::Misuse(_) | Error::Path(_) | Error::Protection(_) => Self::Misuse,
            Error::Rejected(rejected) if rejected.is_lost_controller() => Self::Disconnected,
            Error::Rejected(
                Rejected::Command { status, .. } | Rejected::Connect { status, .. },
            ) => Self::Status(*status),
            Error::Rejected(Rejected::Connection { reject, .. }) => Self::Rejected(*reject),
            Error::Reset => Self::Disconnected,
            Error::ReauthenticationFailed(cause) => Self::from(&**cause),
            Error::Timeout { .. } => Self::Timeout,
            Error::Transport(transport) => Self::from(transport),
        }
    }
}

impl From<&AuthenticationFailure> for FailureKind {
    fn from(failure: &AuthenticationFailure) -> Self {
        match failure {
            // Linux treats these as a rejected key, whatever the target's explanation.
            AuthenticationFailure::Exchange(failure) if failure.is_final() => Self::KeyRejected,
            failure => match failure.class() {
                Some(FailureClass::Downgraded) => Self::Downgraded,
                Some(FailureClass::Incompatible) => Self::Incompatible,
                Some(FailureClass::KeyMissing) => Self::KeyMissing,
                Some(FailureClass::KeyRejected) => Self::KeyRejected,
                Some(_) => Self::TargetMisbehaved,
                None => Self::Device,
            },
        }
    }
}

impl From<&Transport> for FailureKind {
    fn from(transport: &Transport) -> Self {
        match transport {
            Transport::Address { .. } => Self::Address,
            Transport::Device(_) | Transport::DeviceChanged | Transport::Verbs(_) => Self::Device,
            Transport::Disconnected(_) | Transport::NoQueue => Self::Disconnected,
            Transport::PortDown => Self::PortDown,
            Transport::QueuePair { .. } => Self::QueuePair,
            Transport::Unreachable { .. } => Self::Unreachable,
        }
    }
}

impl fmt::Display for FailureKind {
    /// Short description without details.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address error",
            Self::CommandTimeout => "command timeout",
            Self::ControllerFatal => "controller fatal",
            Self::Deleted => "deleted",
            Self::Device => "device error",
            Self::Downgraded => "downgraded",
            Self::Disconnected => "disconnected",
            Self::Incompatible => "incompatible",
            Self::KeepAlive => "keep-alive expired",
            Self::KeyMissing => "key missing",
            Self::KeyRejected => "key rejected",
            Self::Misuse => "misuse",
            Self::PortDown => "port down",
            Self::QueuePair => "queue pair error",
            Self::Rejected(_) => "connection rejected",
            Self::Status(status) if status.do_not_retry() => "refused for good",
            Self::Status(_) => "refused",
            Self::TargetMisbehaved => "target misbehaved",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        })
    }
}
