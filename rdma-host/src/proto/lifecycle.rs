//! Controller state machine, from the first connect to the end (Linux: `nvme_change_ctrl_state`).

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{ConnectionFailure, FailureKind, ReconnectDecision};
use crate::{
    config::{PORT_RETRY_DELAY, PORT_SETTLE_TIME, ReconnectOptions},
    error::GiveUpReason,
};

/// State of a controller. The names are Linux's, except that Linux's CONNECTING is split into
/// [`Waiting`](Self::Waiting) between attempts and [`Connecting`](Self::Connecting) during one, and
/// that DELETING is a single state, since no command survives a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifecycleState {
    /// Initial state.
    New,
    /// A connect attempt is in progress.
    Connecting,
    /// The controller is connected and accepts commands.
    Live,
    /// The connection was lost or reset, and is being torn down.
    Resetting,
    /// Waiting for the next connect attempt.
    Waiting,
    /// The controller is being closed, on request or after giving up; the connection is being torn
    /// down.
    Deleting,
    /// Final state.
    Dead,
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Resetting => "resetting",
            Self::Waiting => "waiting",
            Self::Deleting => "deleting",
            Self::Dead => "dead",
        })
    }
}

/// Event of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleEvent {
    /// The owner requested the first connect.
    Start,
    /// The connect attempt succeeded.
    Established,
    /// The connect attempt or the live connection failed; [`ReconnectOptions`] decided on this.
    Failed(ReconnectDecision),
    /// The owner requested a reset: tear down and connect at once.
    Reset,
    /// The connection has been torn down.
    TornDown,
    /// The delay before the next attempt is over.
    Due,
    /// The port of the local device is active again.
    PortActive,
    /// The owner closed the controller.
    Delete,
}

/// Transition for an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transition {
    /// No transition.
    Ignore,
    /// Enter another state.
    Enter(LifecycleState),
    /// Tear down, then connect at once.
    Renew,
    /// Tear down, then wait for this time.
    Retry(Duration),
    /// Wait for this time.
    Wait(Duration),
    /// Tear down and end.
    GiveUp(GiveUpReason),
    /// End without teardown.
    End(GiveUpReason),
}

/// Transition table.
fn transition(state: LifecycleState, event: LifecycleEvent) -> Transition {
    use LifecycleState::{Connecting, Dead, Deleting, Live, New, Resetting, Waiting};
    use ReconnectDecision::{GiveUp, Retry};
    match (state, event) {
        (New, LifecycleEvent::Start) => Transition::Enter(Connecting),
        (Connecting, LifecycleEvent::Established) => Transition::Enter(Live),
        (Connecting, LifecycleEvent::Failed(Retry(after))) => Transition::Wait(after),
        (Connecting, LifecycleEvent::Failed(GiveUp(reason))) => Transition::End(reason),
        (Live, LifecycleEvent::Failed(Retry(after))) => Transition::Retry(after),
        (Live, LifecycleEvent::Failed(GiveUp(reason))) => Transition::GiveUp(reason),
        (Live, LifecycleEvent::Reset) => Transition::Renew,
        (Resetting, LifecycleEvent::TornDown) => Transition::Enter(Waiting),
        (Waiting, LifecycleEvent::Due | LifecycleEvent::Reset | LifecycleEvent::PortActive) => {
            Transition::Enter(Connecting)
        }
        (Deleting, LifecycleEvent::TornDown) => Transition::Enter(Dead),
        (New | Connecting | Live | Resetting | Waiting, LifecycleEvent::Delete) => {
            Transition::Enter(Deleting)
        }
        // Other events are ignored: connecting is automatic, an ended controller does not come
        // back, and a report about an earlier connection is stale.
        _ => Transition::Ignore,
    }
}

/// Task of the driver in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleTask {
    /// Make one connect attempt and report the outcome.
    Connect,
    /// None: the controller has ended.
    End,
    /// Serve the connection until an event occurs.
    Serve,
    /// Tear the connection down, with an orderly shutdown if `announce` is set, and report
    /// [`LifecycleEvent::TornDown`].
    TearDown {
        /// True to send the shutdown notification first.
        announce: bool,
    },
    /// Report [`LifecycleEvent::Due`] at this time.
    Wait(Instant),
}

/// State machine of one controller. Pass events, perform the [`task`](Self::task).
#[derive(Debug)]
pub struct Lifecycle {
    options: ReconnectOptions,
    state: LifecycleState,
    /// Attempts begun since the controller was last live.
    attempts: u32,
    /// True if the controller was ever live.
    was_live: bool,
    /// Time since which the controller has not been live.
    disconnected_since: Option<Instant>,
    /// Time of the next attempt.
    due: Option<Instant>,
    /// Time at which the port of the local device became active again.
    port_up_at: Option<Instant>,
    /// True if the teardown includes the shutdown notification.
    announce: bool,
    reason: Option<GiveUpReason>,
}

impl Lifecycle {
    /// Creates the state machine of a controller that is not connected.
    #[must_use]
    pub fn new(options: ReconnectOptions) -> Self {
        Self {
            options,
            state: LifecycleState::New,
            attempts: 0,
            was_live: false,
            disconnected_since: None,
            due: None,
            port_up_at: None,
            announce: false,
            reason: None,
        }
    }

    /// Reports that the attempt or the live connection failed. `jitter_seed` is a random number.
    pub fn fail(&mut self, kind: FailureKind, now: Instant, jitter_seed: u16) {
        let mut decision = if self.was_live || self.options.first_connect {
            let elapsed = self.disconnected_since.map_or(Duration::ZERO, |since| now - since);
            let attempts = self.attempts;
            self.options.decide(&ConnectionFailure { kind, attempts, elapsed, jitter_seed })
        } else {
            ReconnectDecision::GiveUp(GiveUpReason::NotRetryable)
        };
        self.shorten_after_port_up(&mut decision, now);
        self.handle(LifecycleEvent::Failed(decision), now);
    }

    /// Shortens the retry delay for [`PORT_SETTLE_TIME`] after the port became active: the first
    /// packets on the link may be lost.
    fn shorten_after_port_up(&self, decision: &mut ReconnectDecision, now: Instant) {
        let just_up = self.port_up_at.is_some_and(|up_at| now < up_at + PORT_SETTLE_TIME);
        if let ReconnectDecision::Retry(after) = decision
            && just_up
        {
            *after = PORT_RETRY_DELAY.min(*after);
        }
    }

    /// Reports any other event.
    pub fn handle(&mut self, event: LifecycleEvent, now: Instant) {
        if event == LifecycleEvent::PortActive {
            self.port_up_at = Some(now);
        }
        let announce =
            self.state == LifecycleState::Live && !matches!(event, LifecycleEvent::Failed(_));
        match transition(self.state, event) {
            Transition::Ignore => return,
            Transition::Enter(state) => self.enter(state, now),
            Transition::Renew => self.retry_after(Duration::ZERO, LifecycleState::Resetting, now),
            Transition::Retry(after) => self.retry_after(after, LifecycleState::Resetting, now),
            Transition::Wait(after) => self.retry_after(after, LifecycleState::Waiting, now),
            Transition::GiveUp(reason) => self.end(reason, LifecycleState::Deleting, now),
            Transition::End(reason) => self.end(reason, LifecycleState::Dead, now),
        }
        self.announce = announce;
    }

    fn enter(&mut self, state: LifecycleState, now: Instant) {
        match state {
            LifecycleState::Connecting if self.state != LifecycleState::New => self.attempts += 1,
            LifecycleState::Live => {
                self.attempts = 0;
                self.was_live = true;
                self.disconnected_since = None;
            }
            _ => {}
        }
        if state != LifecycleState::Live && self.disconnected_since.is_none() {
            self.disconnected_since = Some(now);
        }
        self.state = state;
    }

    fn retry_after(&mut self, after: Duration, state: LifecycleState, now: Instant) {
        self.due = Some(now + after);
        self.enter(state, now);
    }

    fn end(&mut self, reason: GiveUpReason, state: LifecycleState, now: Instant) {
        self.reason = Some(reason);
        self.enter(state, now);
    }

    /// Returns the task of the driver.
    #[must_use]
    pub fn task(&self, now: Instant) -> LifecycleTask {
        match self.state {
            LifecycleState::New | LifecycleState::Dead => LifecycleTask::End,
            LifecycleState::Connecting => LifecycleTask::Connect,
            LifecycleState::Live => LifecycleTask::Serve,
            LifecycleState::Resetting | LifecycleState::Deleting => {
                LifecycleTask::TearDown { announce: self.announce }
            }
            LifecycleState::Waiting => LifecycleTask::Wait(self.due.unwrap_or(now)),
        }
    }

    /// State of the controller.
    #[must_use]
    pub fn state(&self) -> LifecycleState {
        self.state
    }

    /// Number of attempts started since the controller was last live, the first connect not
    /// included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Maximum number of attempts; `None` for unlimited.
    #[must_use]
    pub fn attempts_max(&self) -> Option<u32> {
        self.options.attempts_max()
    }

    /// True if the controller was ever live.
    #[must_use]
    pub fn was_live(&self) -> bool {
        self.was_live
    }

    /// Reason for giving up; `None` if the owner closed the controller.
    #[must_use]
    pub fn reason(&self) -> Option<GiveUpReason> {
        self.reason
    }

    /// Time from which on commands fail instead of waiting for a connection (`fast_io_fail`).
    #[must_use]
    pub fn commands_fail_at(&self) -> Option<Instant> {
        Some(self.disconnected_since? + self.options.fast_io_fail?)
    }
}

#[cfg(test)]
mod tests;
