//! Decision about an I/O command that failed, by the rules of Linux's `nvme_decide_disposition`.

use std::time::Duration;

use crate::{
    config::{PATH_RETRY_INTERVAL, RESENDS_MAX, RETRY_DELAY_MAX},
    wire::{ControllerInfo, Opcode, Status},
};

/// Retry rules of one controller. Linux's, for a namespace with one path:
///
/// * A status with DNR is final, and so is the fifth retry (`nvme_max_retries`).
/// * Asymmetric access states that end by themselves, transition and inaccessible, are not counted:
///   the command is sent again until twice the ANA transition time (ANATT) has passed. Linux then
///   resets the controller; here the command fails.
/// * Persistent loss is final (Base 8.1.1.8). Linux holds such commands for another path to come.
/// * Any other status is counted, and its retry waits for the delay that it names (CRD).
/// * Only reads, writes and the other commands of Linux's block layer are sent again.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandRetry {
    /// True if commands may be sent again at all.
    enabled: bool,
    /// Command Retry Delay Times, CRDT1 to CRDT3.
    delays: [Duration; 3],
    /// Maximum time to wait for the path; zero if the controller reports no asymmetric access.
    path_timeout: Duration,
}

/// Response to a command that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedResponse {
    /// Opcode of the command.
    pub opcode: Opcode,
    /// Status of the response.
    pub status: Status,
    /// Number of retries made before, not counting those for the path's state.
    pub retries: u8,
    /// Time since the command was submitted, on this connection.
    pub age: Duration,
}

/// Decision about a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Complete it with its status.
    Complete,
    /// Send it again after this time, and count that.
    Retry(Duration),
    /// Send it again after this time: its path may have become accessible.
    RetryPath(Duration),
}

impl CommandRetry {
    /// Creates the rules of a controller. With `resend` unset, every failure is final.
    #[must_use]
    pub fn new(info: &ControllerInfo, resend: bool) -> Self {
        let path_timeout =
            if info.reports_ana { 2 * info.ana_transition_time } else { Duration::ZERO };
        Self { enabled: resend, delays: info.retry_delays, path_timeout }
    }

    /// Decides about a failed command.
    #[must_use]
    pub fn decide(&self, failed: &FailedResponse) -> Disposition {
        let FailedResponse { opcode, status, retries, age } = *failed;
        if !self.enabled || !opcode.is_block_io() || status.do_not_retry() {
            return Disposition::Complete;
        }
        match status.code() {
            Status::ANA_INACCESSIBLE | Status::ANA_TRANSITION if !self.path_timeout.is_zero() => {
                if age < self.path_timeout {
                    Disposition::RetryPath(PATH_RETRY_INTERVAL)
                } else {
                    Disposition::Complete
                }
            }
            // The host has to act: authenticate, use another path, or allow the command more time.
            Status::ABORTED_BY_REQUEST
            | Status::ANA_PERSISTENT_LOSS
            | Status::AUTHENTICATION_REQUIRED => Disposition::Complete,
            _ if retries < RESENDS_MAX => Disposition::Retry(self.delay(status)),
            _ => Disposition::Complete,
        }
    }

    /// Delay that a status names (CRD).
    fn delay(&self, status: Status) -> Duration {
        let delay = status.retry_delay_index().checked_sub(1).map(|index| self.delays[index]);
        delay.unwrap_or_default().min(RETRY_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests;
