//! Reconnect policy: the rules of Linux, and the additional options.
//!
//! Linux decides in `nvmf_should_reconnect`: it gives up after a status with DNR, a rejected key
//! (both since 6.10) or a missing key (since 6.19); otherwise it retries while attempts are left.
//! Attempts are counted from the time the controller was last live.

use std::time::Duration;

use super::{FailureKind, Retryability};
use crate::{config::ReconnectOptions, error::GiveUpReason};

/// Decision after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconnectDecision {
    /// No more attempts.
    GiveUp(GiveUpReason),
    /// Make another attempt after this time.
    Retry(Duration),
}

/// Failure of a connect attempt or of a live connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFailure {
    /// Kind of the failure.
    pub kind: FailureKind,
    /// Number of attempts made since the loss; 0 for the loss itself.
    pub attempts: u32,
    /// Time since the loss.
    pub elapsed: Duration,
    /// Random number for the jitter.
    pub jitter_seed: u16,
}

impl ReconnectOptions {
    /// Decides whether and when to retry after a failure.
    #[must_use]
    pub fn decide(&self, failure: &ConnectionFailure) -> ReconnectDecision {
        match failure.kind.retryability() {
            Retryability::Never => return ReconnectDecision::GiveUp(GiveUpReason::NotRetryable),
            Retryability::AfterFix if self.strict => {
                return ReconnectDecision::GiveUp(GiveUpReason::NeedsFix);
            }
            Retryability::AfterFix | Retryability::Retry => {}
        }
        if self.attempts_max().is_some_and(|max| failure.attempts >= max) {
            return ReconnectDecision::GiveUp(GiveUpReason::Exhausted);
        }
        let delay = self.delay_after(failure.attempts, failure.jitter_seed);
        if self.time_limit.is_some_and(|limit| failure.elapsed + delay > limit) {
            return ReconnectDecision::GiveUp(GiveUpReason::TimeLimit);
        }
        ReconnectDecision::Retry(delay)
    }

    /// Delay before the next attempt, after `attempts` failed ones.
    fn delay_after(&self, attempts: u32, jitter_seed: u16) -> Duration {
        let doublings = attempts.min(u32::BITS - 1);
        let delay = match self.delay_max {
            Some(max) => self.delay.saturating_mul(1 << doublings).min(max.max(self.delay)),
            None => self.delay,
        };
        // The jitter only shortens the delay, so that the total stays within `loss_timeout`.
        let part = u32::from(self.jitter_percent.min(100)) * u32::from(jitter_seed);
        delay - delay.mul_f64(f64::from(part) / (100.0 * f64::from(u16::MAX)))
    }
}

#[cfg(test)]
mod tests;
