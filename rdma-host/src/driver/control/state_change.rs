//! What happens to a controller, as a stream.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokio::sync::broadcast;

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

/// The changes of one controller from when this was made, in order. A watcher that falls more than
/// [`STATE_CHANGE_BACKLOG`](crate::config::STATE_CHANGE_BACKLOG) behind misses the oldest.
#[derive(Debug)]
pub struct StateChanges(broadcast::Receiver<StateChange>);

impl StateChanges {
    /// Those that whoever lives the controller's life tells; none if that is over.
    pub(crate) fn of(sender: &broadcast::WeakSender<StateChange>) -> Self {
        let receiver = sender.upgrade().map(|sender| sender.subscribe());
        Self(receiver.unwrap_or_else(|| broadcast::channel(1).1))
    }

    /// The next change; none after the last, which is to [`LifecycleState::Dead`].
    pub async fn next(&mut self) -> Option<StateChange> {
        loop {
            match self.0.recv().await {
                Ok(change) => return Some(change),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "changes of the controller went unread");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
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
