//! Orderly controller shutdown (Base 3.6.1): notification, wait for completion, disconnect.

use std::time::Duration;

use super::{Execute, Transfer};
use crate::{
    config::STATUS_POLL_INTERVAL,
    wire::{
        Configuration, ControllerCapabilities, ControllerStatus, Cqe, Property, PropertyGet,
        PropertySet, QueueId,
    },
};

/// Shutdown of one controller. After any error the next step is to disconnect, so no errors are
/// returned.
#[derive(Debug)]
pub enum Shutdown {
    /// Send the shutdown notification (CC.SHN) to a controller that was enabled with these
    /// capabilities: other fields of CC may not change.
    Announce(ControllerCapabilities),
    /// Read the shutdown status (CSTS.SHST).
    CheckStatus,
    /// Wait before the next read.
    Pause,
    /// Disconnect.
    Done,
}

/// Next action of the driver.
#[derive(Debug)]
pub enum ShutdownAction {
    /// Disconnect all queues.
    Disconnect,
    /// Send this command and report the response.
    Execute(Execute),
    /// Wait for this time.
    Wait(Duration),
}

impl Shutdown {
    /// Next action of the driver.
    #[must_use]
    pub fn action(&self) -> ShutdownAction {
        let (sqe, name) = match self {
            Self::Announce(capabilities) => {
                let value = Configuration::enabled(*capabilities).with_shutdown().0.into();
                (PropertySet::new(Property::CONFIGURATION, value).to_sqe(), "announcing shutdown")
            }
            Self::CheckStatus => (PropertyGet::new(Property::STATUS).to_sqe(), "reading CSTS"),
            Self::Pause => return ShutdownAction::Wait(STATUS_POLL_INTERVAL),
            Self::Done => return ShutdownAction::Disconnect,
        };
        ShutdownAction::Execute(Execute {
            queue: QueueId::ADMIN,
            sqe,
            transfer: Transfer::None,
            name,
        })
    }

    /// Passes the response to the command; `None` if there was none.
    pub fn handle_response(&mut self, response: Option<Cqe>) {
        *self = match (&self, response) {
            (_, None) => Self::Done,
            (_, Some(cqe)) if !cqe.status().is_success() => Self::Done,
            (Self::CheckStatus, Some(cqe)) => {
                let is_shut_down = ControllerStatus(cqe.result_dword()).is_shut_down();
                if is_shut_down { Self::Done } else { Self::Pause }
            }
            _ => Self::CheckStatus,
        };
    }

    /// Reports that the wait is over.
    pub fn handle_timer(&mut self) {
        if matches!(self, Self::Pause) {
            *self = Self::CheckStatus;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CommandId, Status};

    #[test]
    fn waits_until_the_controller_is_done() {
        let answer = |result| Some(Cqe::new(CommandId(0), Status::SUCCESS, result));
        let mut shutdown = Shutdown::Announce(ControllerCapabilities(0));
        assert!(matches!(shutdown.action(), ShutdownAction::Execute(_)));
        shutdown.handle_response(answer(0));
        shutdown.handle_response(answer(0b0101));
        assert!(matches!(shutdown.action(), ShutdownAction::Wait(_)));
        shutdown.handle_timer();
        shutdown.handle_response(answer(0b1001));
        assert!(matches!(shutdown.action(), ShutdownAction::Disconnect));
    }

    #[test]
    fn a_controller_that_does_not_respond_is_disconnected() {
        let mut shutdown = Shutdown::Announce(ControllerCapabilities(0));
        shutdown.handle_response(None);
        assert!(matches!(shutdown.action(), ShutdownAction::Disconnect));
    }
}
