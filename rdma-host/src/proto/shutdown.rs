//! An orderly shutdown (Base 3.6.1): announced, awaited, then the connections go.

use std::time::Duration;

use super::{Execute, Transfer};
use crate::config::STATUS_POLL_INTERVAL;
use crate::wire::{
    Configuration, ControllerStatus, Cqe, Property, PropertyGet, PropertySet, QueueId,
};

/// The shutdown of one controller. Whatever fails, the next step is to disconnect, so there are
/// no errors here.
#[derive(Debug)]
pub enum Shutdown {
    /// Say so.
    Announce,
    /// See whether the controller is done.
    CheckStatus,
    /// Leave it some time.
    Pause,
    /// Disconnect.
    Done,
}

/// What the driver must do next.
#[derive(Debug)]
pub enum ShutdownAction {
    /// Drop the connections.
    Disconnect,
    /// Send this and report the response.
    Execute(Execute),
    /// Let this time pass.
    Wait(Duration),
}

impl Shutdown {
    /// What the driver must do next.
    #[must_use]
    pub fn action(&self) -> ShutdownAction {
        let (sqe, name) = match self {
            Self::Announce => {
                let value = u64::from(Configuration::SHUTDOWN.0);
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

    /// The response to the command, or none when it failed to come.
    pub fn handle_response(&mut self, response: Option<Cqe>) {
        *self = match (&self, response) {
            (_, None) => Self::Done,
            (_, Some(cqe)) if !cqe.status().is_success() => Self::Done,
            (Self::CheckStatus, Some(cqe)) => {
                match ControllerStatus(cqe.result_dword()).is_shut_down() {
                    true => Self::Done,
                    false => Self::Pause,
                }
            }
            _ => Self::CheckStatus,
        };
    }

    /// The pause is over.
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
        let mut shutdown = Shutdown::Announce;
        assert!(matches!(shutdown.action(), ShutdownAction::Execute(_)));
        shutdown.handle_response(answer(0));
        shutdown.handle_response(answer(0b0101));
        assert!(matches!(shutdown.action(), ShutdownAction::Wait(_)));
        shutdown.handle_timer();
        shutdown.handle_response(answer(0b1001));
        assert!(matches!(shutdown.action(), ShutdownAction::Disconnect));
    }

    #[test]
    fn a_controller_that_does_not_answer_is_left() {
        let mut shutdown = Shutdown::Announce;
        shutdown.handle_response(None);
        assert!(matches!(shutdown.action(), ShutdownAction::Disconnect));
    }
}
