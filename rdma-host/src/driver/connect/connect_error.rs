//! Errors of a failed connection attempt.

use std::io::ErrorKind;

use verbs::{
    active_side::{Cause, Event, State},
    provider::CmEventKind,
};

use crate::{
    config::{CONNECT_TIMEOUT, ConnectOptions, RESOLVE_TIMEOUT},
    driver::buffers::verbs_error,
    error::{Error, Rejected, TargetMisbehaved, Transport},
    wire::{CmReject, QueueId},
};

/// Subject of a connection's errors.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) options: &'a ConnectOptions,
    pub(crate) queue: QueueId,
}

impl Target<'_> {
    /// Error of an attempt that failed, with the private data of a rejection.
    pub(crate) fn failed(self, cause: Cause, private_data: &[u8]) -> Error {
        let step = step(cause.state);
        let (kind, status) = match (cause.event, cause.state) {
            (Event::Cm { kind, status }, _) => (kind, status),
            (Event::PortDown, _) | (Event::Deadline, State::AwaitingPort) => {
                return Transport::PortDown.into();
            }
            (Event::Deadline, State::Connecting) => {
                return self.unreachable(format!("nothing came back within {CONNECT_TIMEOUT:?}"));
            }
            (Event::Deadline, _) => return Error::Timeout { step, after: RESOLVE_TIMEOUT },
            (event, state) => unreachable!("{event:?} does not fail a connection in {state:?}"),
        };
        match kind {
            CmEventKind::ADDRESS_ERROR | CmEventKind::ROUTE_ERROR => {
                self.no_path(step, errno(status))
            }
            CmEventKind::UNREACHABLE | CmEventKind::CONNECT_ERROR => {
                self.unreachable(errno(status))
            }
            CmEventKind::REJECTED => {
                let reject = CmReject::parse(reject_reason(status), private_data);
                Rejected::Connection { queue: self.queue, reject }.into()
            }
            CmEventKind::DISCONNECTED
            | CmEventKind::DEVICE_REMOVAL
            | CmEventKind::ADDRESS_CHANGE
            | CmEventKind::TIMEWAIT_EXIT => Transport::Disconnected(self.queue).into(),
            _ => TargetMisbehaved::UnexpectedEvent(step).into(),
        }
    }

    /// Error of a resolution that the CM did not start.
    pub(crate) fn unresolved(self, state: State, error: verbs::Error) -> Error {
        match error {
            verbs::Error::ResolveAddress(source) | verbs::Error::ResolveRoute(source) => {
                self.no_path(step(state), source.to_string())
            }
            other => verbs_error(other),
        }
    }

    fn no_path(self, step: &'static str, reason: String) -> Error {
        Transport::Address { address: self.options.address, step, reason }.into()
    }

    pub(crate) fn unreachable(self, reason: String) -> Error {
        Transport::Unreachable { address: self.options.address, reason }.into()
    }
}

/// Name of a waiting state in errors.
fn step(state: State) -> &'static str {
    match state {
        State::Idle | State::ResolvingAddress => "address resolution",
        State::Preparing | State::ResolvingRoute => "route resolution",
        _ => "the connection request",
    }
}

/// CM reason of a rejection. iWARP reports an errno instead: TCP's refusal where nothing listens, a
/// reset where the peer's program rejected the request.
fn reject_reason(status: i32) -> i32 {
    match os_error(status).kind() {
        _ if status >= 0 => status,
        ErrorKind::ConnectionRefused => CmReject::INVALID_SERVICE,
        ErrorKind::ConnectionReset => CmReject::CONSUMER,
        _ => status,
    }
}

/// Description of a CM status by the operating system.
fn errno(status: i32) -> String {
    os_error(status).to_string()
}

/// Error of a CM status, which is a negative errno.
pub(crate) fn os_error(status: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(status.saturating_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostIdentity;

    fn options(address: &str) -> ConnectOptions {
        let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
        ConnectOptions::new(address.parse().unwrap(), "nqn.test:s".parse().unwrap(), host)
    }

    /// Error message of a failed attempt, with the private data of a rejection by the target.
    fn message(state: State, event: Event) -> String {
        let options = options("10.0.0.1:4420");
        let target = Target { options: &options, queue: QueueId(3) };
        target.failed(Cause { state, event }, &[0, 0, 6, 0]).to_string()
    }

    #[test]
    fn each_cause_has_its_own_message() {
        let cm = |kind, status| Event::Cm { kind, status };
        let timed_out = -110; // ETIMEDOUT
        for (state, event, expected) in [
            (State::ResolvingAddress, Event::Deadline, "no answer to address resolution within 3s"),
            (State::ResolvingRoute, Event::Deadline, "no answer to route resolution within 3s"),
            (State::Connecting, Event::Deadline, "nothing came back within 5s"),
            (State::AwaitingPort, Event::Deadline, "the port of our RDMA device is down"),
            (State::Connecting, Event::PortDown, "the port of our RDMA device is down"),
        ] {
            let message = message(state, event);
            assert!(message.contains(expected), "{message}");
        }
        for (kind, status, expected) in [
            (CmEventKind::ADDRESS_ERROR, timed_out, "no RDMA path to 10.0.0.1:4420"),
            (CmEventKind::UNREACHABLE, timed_out, "10.0.0.1:4420 does not answer (Connection"),
            (CmEventKind::REJECTED, 8, "nothing listens"),
            (CmEventKind::REJECTED, 10, "an older connection"),
            (CmEventKind::REJECTED, 28, "no resources left"),
            (CmEventKind::REJECTED, -111, "nothing listens"), // ECONNREFUSED
            (CmEventKind::REJECTED, -104, "no resources left"), // ECONNRESET
            (CmEventKind::CONNECT_ERROR, -113, "does not answer (No route to host"),
            (CmEventKind::DEVICE_REMOVAL, 0, "closed the connection of queue 3"),
            (CmEventKind::ROUTE_RESOLVED, 0, "the connection request came out of order"),
        ] {
            let message = message(State::Connecting, cm(kind, status));
            assert!(message.contains(expected), "{message}");
        }
    }
}
