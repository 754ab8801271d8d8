//! Whether to connect again after a failure, and when: the rules of Linux, and what we add.
//!
//! Linux decides in `nvmf_should_reconnect`: never after a status with DNR, a rejected key (both
//! since 6.10) or a missing key (since 6.19); else while attempts are left. The attempts are
//! counted from the last time the controller was live.

use std::time::Duration;

use super::{FailureKind, Retryability};
use crate::config::ReconnectOptions;
use crate::error::GiveUpReason;

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No more attempts.
    GiveUp(GiveUpReason),
    /// Another attempt after this time.
    Retry(Duration),
}

/// What there is to know when one attempt failed, or a live connection was lost.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFailure {
    /// Why.
    pub kind: FailureKind,
    /// Attempts made since the loss; 0 for the loss itself.
    pub attempts: u32,
    /// Time since the loss.
    pub elapsed: Duration,
    /// A random number, for the jitter.
    pub jitter_seed: u16,
}

impl ReconnectOptions {
    /// Decides on one failure.
    #[must_use]
    pub fn verdict(&self, failure: &ConnectionFailure) -> Verdict {
        match failure.kind.retryability() {
            Retryability::Never => return Verdict::GiveUp(GiveUpReason::NotRetryable),
            Retryability::AfterFix if self.strict => {
                return Verdict::GiveUp(GiveUpReason::NeedsFix);
            }
            Retryability::AfterFix | Retryability::Retry => {}
        }
        if self.attempts_max().is_some_and(|max| failure.attempts >= max) {
            return Verdict::GiveUp(GiveUpReason::Exhausted);
        }
        let delay = self.delay_after(failure.attempts, failure.jitter_seed);
        if self.time_limit.is_some_and(|limit| failure.elapsed + delay > limit) {
            return Verdict::GiveUp(GiveUpReason::TimeLimit);
        }
        Verdict::Retry(delay)
    }

    /// The time from the last of so many failed attempts to the next.
    fn delay_after(&self, attempts: u32, jitter_seed: u16) -> Duration {
        let doublings = attempts.min(u32::BITS - 1);
        let delay = match self.delay_max {
            Some(max) => self.delay.saturating_mul(1 << doublings).min(max.max(self.delay)),
            None => self.delay,
        };
        // Some part of the delay is left out: never longer than asked, so that the budget holds.
        let part = u32::from(self.jitter_percent.min(100)) * u32::from(jitter_seed);
        delay - delay.mul_f64(f64::from(part) / (100.0 * f64::from(u16::MAX)))
    }
}

#[cfg(test)]
mod tests;
