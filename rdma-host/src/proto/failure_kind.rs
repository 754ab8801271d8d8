//! Why a connection failed or was lost, as far as it matters for trying again.

use std::fmt;

use auth::FailureClass;

use crate::error::{AuthenticationFailure, Error, Rejected, Transport};
use crate::wire::{CmReject, QueueId, Status, is_invalid_controller_id};

/// An [`Error`] with everything left out that makes no difference to a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The address did not resolve to an RDMA path.
    Address,
    /// A command did not come back in time.
    CommandTimeout,
    /// CSTS.CFS.
    ControllerFatal,
    /// Our caller ended it.
    Deleted,
    /// The target offers less security than is configured.
    Downgraded,
    /// The local device or its library failed.
    Device,
    /// The connection was closed.
    Disconnected,
    /// Nothing in common with the target.
    Incompatible,
    /// The controller was silent for the keep-alive time.
    KeepAlive,
    /// Somebody wants authentication, and there is no key for it.
    KeyMissing,
    /// Authentication failed.
    KeyRejected,
    /// Our caller asked for what can't be.
    Misuse,
    /// The port of our device is down.
    PortDown,
    /// A work request failed.
    QueuePair,
    /// The connection manager or the target's CM code refused.
    Rejected(CmReject),
    /// The controller refused, with this status.
    Status(Status),
    /// The target broke the protocol.
    TargetMisbehaved,
    /// A step of the connect took too long.
    Timeout,
    /// Nobody answers.
    Unreachable,
}

/// What it takes for a cause to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryability {
    /// Nothing: Linux and we give up at once.
    Never,
    /// Somebody must change the target; it does not say so, and Linux retries.
    AfterFix,
    /// Time.
    Retry,
}

impl FailureKind {
    /// What it takes for this to pass (Linux 6.19's `nvmf_should_reconnect`, and what we know
    /// beyond it).
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
            Error::Malformed(_) | Error::TargetMisbehaved(_) => Self::TargetMisbehaved,
            Error::Misuse(_) => Self::Misuse,
            // The target granted the id a moment ago: it has dropped the controller since.
            Error::Rejected(Rejected::Connect { queue, status, result })
                if *queue != QueueId::ADMIN
                    && status.code() == Status::CONNECT_INVALID_PARAMETERS
                    && is_invalid_controller_id(*result) =>
            {
                Self::Disconnected
            }
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
            // Whatever the target explains, for Linux it has rejected the key.
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
    /// In a few words, without the particulars.
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
