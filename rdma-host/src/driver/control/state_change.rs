//! State changes of a controller.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{error::Error, proto::LifecycleState};

/// Change of a controller's state.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// Time of the change.
    pub at: SystemTime,
    /// New state.
    pub state: LifecycleState,
    /// Error that led to it, if any.
    pub cause: Option<Error>,
    /// Number of attempts to reconnect since the controller was last live.
    pub attempt: u32,
    /// Maximum number of attempts; `None` for unlimited.
    pub attempts_max: Option<u32>,
    /// Time until the next attempt.
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
