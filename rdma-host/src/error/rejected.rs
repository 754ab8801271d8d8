//! Rejections by the target.

use super::ErrorClass;
use crate::wire::{CmReject, QueueId, Status, connect_invalid_parameter, is_invalid_controller_id};

/// Rejection by the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A command completed with an error status.
    #[error("{command} failed: {}", status.command_text())]
    Command {
        /// Name of the command.
        command: &'static str,
        /// Status.
        status: Status,
    },
    /// The Fabrics Connect command failed.
    #[error("{}", connect_refusal(*queue, *status, *result))]
    Connect {
        /// Queue.
        queue: QueueId,
        /// Status.
        status: Status,
        /// Result, which locates an invalid parameter.
        result: u32,
    },
    /// RDMA CM or the target rejected the connection.
    #[error("queue {queue} was rejected: {reject}")]
    Connection {
        /// Queue.
        queue: QueueId,
        /// Reject reason and status.
        reject: CmReject,
    },
}

impl Rejected {
    /// Returns true if the target no longer has the controller that it granted in the admin queue's
    /// Connect.
    pub(crate) fn is_lost_controller(&self) -> bool {
        matches!(self, Self::Connect { queue, status, result }
            if !queue.is_admin()
                && status.code() == Status::CONNECT_INVALID_PARAMETERS
                && is_invalid_controller_id(*result))
    }

    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::Connection { .. } => ErrorClass::Transport,
            Self::Connect { .. } if self.is_lost_controller() => ErrorClass::Transport,
            Self::Connect { status, .. } if status.code() == Status::CONNECT_CONTROLLER_BUSY => {
                ErrorClass::Failed
            }
            Self::Connect { status, .. }
                if status.do_not_retry() || status.is_connect_refusal() =>
            {
                ErrorClass::Access
            }
            Self::Command { status, .. } if status.code() == Status::AUTHENTICATION_REQUIRED => {
                ErrorClass::Access
            }
            Self::Command { .. } | Self::Connect { .. } => ErrorClass::Failed,
        }
    }
}

fn connect_refusal(queue: QueueId, status: Status, result: u32) -> String {
    match status.code() {
        Status::CONNECT_INVALID_PARAMETERS => format!(
            "the target refused Connect on queue {queue}: {status}; it does not accept {}",
            connect_invalid_parameter(result)
        ),
        Status::CONNECT_INVALID_HOST => format!(
            "the target does not allow this host: {status}; add our host NQN to the subsystem's \
             allowed hosts, or this address to its listeners"
        ),
        _ => format!("the target refused Connect on queue {queue}: {status}"),
    }
}
