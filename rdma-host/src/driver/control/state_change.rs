//! State changes of a controller.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{error::Error, proto::LifecycleState};

/// One change of state.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// When.
    pub at: SystemTime,
    /// To which state.
    pub state: LifecycleState,
    /// Why, where something failed.
    pub cause: Option<Error>,
    /// Attempts to reconnect begun since the controller was last live.
    pub attempt: u32,
    /// How many there may be; nothing for no end of them.
    pub attempts_max: Option<u32>,
    /// Until the next attempt.
    pub next: Option<Duration>,
}

impl fmt::Display for StateChange {
    /// `waiting: connection rejected (…), attempt 3 of 60, next in 10 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if self.attempt > 0 {
            write!(f, "; attempt {}", self.attempt)?;
            if let Some(max) = self.attempts_max {
                write!(f, " of {max}")?;
            }
        }
        if let Some(next) = self.next {
            write!(f, "; next in {:.1} s", next.as_secs_f64())?;
        }
        Ok(())
    }
}
