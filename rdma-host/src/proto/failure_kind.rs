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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use auth::message::MessageId;

    use super::{
        Retryability::{AfterFix, Never, Retry},
        *,
    };
    use crate::{
        error::{
            AbortOutcome, Fenced, GaveUp, GiveUpReason, Incompatible, Misuse, NotConnected,
            TargetMisbehaved,
        },
        wire::{ControllerId, QueueId},
    };

    const QUEUE: QueueId = QueueId(1);
    const AFTER: Duration = Duration::from_secs(1);
    const DO_NOT_RETRY: u16 = 0x4000;

    /// Checks the kind of each error, in words, and whether another attempt can help.
    fn check(cases: impl IntoIterator<Item = (Error, &'static str, Retryability)>) {
        for (error, words, retryability) in cases {
            let kind = FailureKind::from(&error);
            assert_eq!(kind.to_string(), words, "{error}");
            assert_eq!(kind.retryability(), retryability, "{error}");
        }
    }

    #[test]
    fn errors_of_the_host_and_the_target() {
        let fenced = Fenced { controller: ControllerId(1), after: AFTER };
        let timeout =
            Error::CommandTimeout { queue: QUEUE, after: AFTER, abort: AbortOutcome::NoAnswer };
        check([
            (Error::Closed, "deleted", Never),
            (timeout, "command timeout", Retry),
            (Error::ControllerFatal, "controller fatal", Retry),
            (Error::Fenced(fenced), "timeout", Retry),
            (Incompatible::InCapsuleOffset(16).into(), "incompatible", AfterFix),
            (Error::KeepAlive(AFTER), "keep-alive expired", Retry),
            (TargetMisbehaved::NamespaceList.into(), "target misbehaved", AfterFix),
            (Misuse::Discovery.into(), "misuse", Never),
            (Error::Reset, "disconnected", Retry),
            (Error::Timeout { step: "a step", after: AFTER }, "timeout", Retry),
        ]);
    }

    #[test]
    fn an_error_that_has_a_cause_is_of_the_kind_of_that() {
        let lost = NotConnected { cause: Box::new(Error::Closed), attempt: 1, max: None };
        let (cause, reason) = (Box::new(Error::KeepAlive(AFTER)), GiveUpReason::Exhausted);
        let gave_up = GaveUp { cause, attempts: 2, reason };
        check([
            (Error::NotConnected(Arc::new(lost)), "deleted", Never),
            (Error::GaveUp(Arc::new(gave_up)), "keep-alive expired", Retry),
            (Error::ReauthenticationFailed(Box::new(Error::Closed)), "deleted", Never),
        ]);
    }

    #[test]
    fn failures_of_authentication() {
        let error = |failure| Error::Authentication { queue: QUEUE, failure };
        let hung_up = |expected| error(AuthenticationFailure::Disconnected(expected));
        check([
            (error(AuthenticationFailure::NoControllerSecret), "key missing", Never),
            (hung_up(MessageId::SUCCESS1), "key rejected", Never),
            (hung_up(MessageId::CHALLENGE), "incompatible", AfterFix),
        ]);
    }

    #[test]
    fn statuses() {
        let command = |code| Rejected::Command { command: "Read", status: Status(code) }.into();
        let connect = |queue, code, result| {
            Error::Rejected(Rejected::Connect { queue, status: Status(code), result })
        };
        check([
            (command(0x0006), "refused", Retry),
            (command(0x0006 | DO_NOT_RETRY), "refused for good", Never),
            (connect(QueueId::ADMIN, 0x0184, 0), "refused", AfterFix),
            (connect(QueueId::ADMIN, 0x0184 | DO_NOT_RETRY, 0), "refused for good", Never),
            (connect(QueueId::ADMIN, 0x0181, 0), "refused", Retry),
            // Octet 16 of the data, the controller's id, is invalid: the controller is gone.
            (connect(QUEUE, 0x0182 | DO_NOT_RETRY, 0x0001_0010), "disconnected", Retry),
        ]);
    }

    #[test]
    fn failures_of_the_transport() {
        let address = "10.0.0.2:4420".parse().unwrap();
        let (step, status) = ("a step", "words".to_owned());
        let resolution = Transport::Address { address, step, reason: status.clone() };
        let silent = Transport::Unreachable { address, reason: status.clone() };
        let cases = [
            (resolution, "address error"),
            (Transport::Device("words"), "device error"),
            (Transport::DeviceChanged, "device error"),
            (Transport::Disconnected(QUEUE), "disconnected"),
            (Transport::NoQueue, "disconnected"),
            (Transport::PortDown, "port down"),
            (Transport::QueuePair { queue: QUEUE, status }, "queue pair error"),
            (silent, "unreachable"),
        ];
        check(cases.map(|(transport, words)| (transport.into(), words, Retry)));
    }

    #[test]
    fn a_rejected_connection_can_be_tried_again_unless_its_parameters_are_refused() {
        for (private_data, retryability) in [
            (&[][..], Retry),
            // Insufficient resources; invalid host submission queue size.
            (&[0, 0, 6, 0][..], Retry),
            (&[0, 0, 4, 0][..], AfterFix),
        ] {
            let reject = CmReject::parse(28, private_data);
            let kind =
                FailureKind::from(&Error::from(Rejected::Connection { queue: QUEUE, reject }));
            assert_eq!(kind, FailureKind::Rejected(reject));
            assert_eq!(kind.to_string(), "connection rejected");
            assert_eq!(kind.retryability(), retryability, "{reject}");
        }
    }
}
