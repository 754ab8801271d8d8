//! The life of a controller, from the first connect to the last (Linux: `nvme_change_ctrl_state`).

use std::fmt;
use std::time::{Duration, Instant};

use super::{ConnectionFailure, FailureKind, Verdict};
use crate::config::{PORT_RETRY_DELAY, PORT_SETTLE_TIME, ReconnectOptions};
use crate::error::GiveUpReason;

/// Where a controller is in its life. Linux's names, but for two: its CONNECTING is
/// [`Waiting`](Self::Waiting) between attempts and [`Connecting`](Self::Connecting) in one, and
/// DELETING is one state here, since no command survives a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifecycleState {
    /// Nothing was done yet.
    New,
    /// An attempt to connect is under way.
    Connecting,
    /// Commands flow.
    Live,
    /// The connection is lost or given up, and taken apart.
    Resetting,
    /// Until the next attempt.
    Waiting,
    /// The end was asked for, or has come; the connection is taken apart.
    Deleting,
    /// The end.
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

/// What happens to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleEvent {
    /// Its owner wants it to live.
    Start,
    /// The attempt succeeded.
    Established,
    /// The attempt failed, or the live connection did; the verdict is that of the options.
    Failed(Verdict),
    /// Its owner wants it made anew, at once.
    Reset,
    /// The connection is taken apart.
    TornDown,
    /// The time for the next attempt has come.
    Due,
    /// The port of our device is back.
    PortActive,
    /// Its owner wants it gone.
    Delete,
}

/// What an event means in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing.
    Ignore,
    /// Another state.
    Enter(LifecycleState),
    /// Take it apart, and connect at once afterwards.
    Renew,
    /// Take it apart, and wait this long afterwards.
    Retry(Duration),
    /// Wait this long.
    Wait(Duration),
    /// Take it apart for good.
    GiveUp(GiveUpReason),
    /// There is nothing to take apart.
    End(GiveUpReason),
}

/// Every event in every state.
fn decide(state: LifecycleState, event: LifecycleEvent) -> Decision {
    use LifecycleState::{Connecting, Dead, Deleting, Live, New, Resetting, Waiting};
    match (state, event) {
        (New, LifecycleEvent::Start) => Decision::Enter(Connecting),
        (Connecting, LifecycleEvent::Established) => Decision::Enter(Live),
        (Connecting, LifecycleEvent::Failed(Verdict::Retry(after))) => Decision::Wait(after),
        (Connecting, LifecycleEvent::Failed(Verdict::GiveUp(reason))) => Decision::End(reason),
        (Live, LifecycleEvent::Failed(Verdict::Retry(after))) => Decision::Retry(after),
        (Live, LifecycleEvent::Failed(Verdict::GiveUp(reason))) => Decision::GiveUp(reason),
        (Live, LifecycleEvent::Reset) => Decision::Renew,
        (Resetting, LifecycleEvent::TornDown) => Decision::Enter(Waiting),
        (Waiting, LifecycleEvent::Due | LifecycleEvent::Reset | LifecycleEvent::PortActive) => {
            Decision::Enter(Connecting)
        }
        (Deleting, LifecycleEvent::TornDown) => Decision::Enter(Dead),
        (New | Connecting | Live | Resetting | Waiting, LifecycleEvent::Delete) => {
            Decision::Enter(Deleting)
        }
        // A controller connects or comes back by itself; one that ends is not brought back; what
        // is reported of an earlier connection no longer matters.
        _ => Decision::Ignore,
    }
}

/// What the driver is to do in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleTask {
    /// Make one attempt, and report how it went.
    Connect,
    /// Nothing, for ever.
    End,
    /// Serve the connection until something happens.
    Serve,
    /// Take apart what there is, in order if the other side may still listen, and report
    /// [`LifecycleEvent::TornDown`].
    TearDown {
        /// Whether to tell the controller first.
        announce: bool,
    },
    /// Report [`LifecycleEvent::Due`] at this time.
    Wait(Instant),
}

/// The life of one controller. Feed it events, do the [`task`](Self::task).
#[derive(Debug)]
pub struct Lifecycle {
    options: ReconnectOptions,
    state: LifecycleState,
    /// Attempts begun since the controller was last live.
    attempts: u32,
    /// Whether it was ever live.
    was_live: bool,
    /// Since when it has not been live.
    disconnected_since: Option<Instant>,
    /// When the next attempt is due.
    due: Option<Instant>,
    /// When the port of our device came back, and with it the hope of a connection.
    port_up_at: Option<Instant>,
    /// Whether the other side is to be told of the end.
    announce: bool,
    reason: Option<GiveUpReason>,
}

impl Lifecycle {
    /// A controller that is not connected.
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

    /// The attempt, or the live connection, has failed. `jitter_seed` is a random number.
    pub fn fail(&mut self, kind: FailureKind, now: Instant, jitter_seed: u16) {
        let verdict = if self.was_live || self.options.first_connect {
            let elapsed = self.disconnected_since.map_or(Duration::ZERO, |since| now - since);
            let attempts = self.attempts;
            self.shorten_after_port_up(
                self.options.verdict(&ConnectionFailure { kind, attempts, elapsed, jitter_seed }),
                now,
            )
        } else {
            Verdict::GiveUp(GiveUpReason::NotRetryable)
        };
        self.handle(LifecycleEvent::Failed(verdict), now);
    }

    /// A link that has just come back may not carry the first packets: what fails then is tried
    /// again soon.
    fn shorten_after_port_up(&self, verdict: Verdict, now: Instant) -> Verdict {
        let just_up = self.port_up_at.is_some_and(|up_at| now < up_at + PORT_SETTLE_TIME);
        match verdict {
            Verdict::Retry(after) if just_up => Verdict::Retry(after.min(PORT_RETRY_DELAY)),
            verdict => verdict,
        }
    }

    /// Something else happened.
    pub fn handle(&mut self, event: LifecycleEvent, now: Instant) {
        if event == LifecycleEvent::PortActive {
            self.port_up_at = Some(now);
        }
        let announce =
            self.state == LifecycleState::Live && !matches!(event, LifecycleEvent::Failed(_));
        match decide(self.state, event) {
            Decision::Ignore => return,
            Decision::Enter(state) => self.enter(state, now),
            Decision::Renew => self.retry_after(Duration::ZERO, LifecycleState::Resetting, now),
            Decision::Retry(after) => self.retry_after(after, LifecycleState::Resetting, now),
            Decision::Wait(after) => self.retry_after(after, LifecycleState::Waiting, now),
            Decision::GiveUp(reason) => self.end(reason, LifecycleState::Deleting, now),
            Decision::End(reason) => self.end(reason, LifecycleState::Dead, now),
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

    /// What to do now.
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

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> LifecycleState {
        self.state
    }

    /// Attempts begun since the controller was last live; the first connect is none.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many attempts there may be; nothing for no end of them.
    #[must_use]
    pub fn attempts_max(&self) -> Option<u32> {
        self.options.attempts_max()
    }

    /// Whether it was ever live.
    #[must_use]
    pub fn was_live(&self) -> bool {
        self.was_live
    }

    /// Why it ended without being asked to.
    #[must_use]
    pub fn reason(&self) -> Option<GiveUpReason> {
        self.reason
    }

    /// From when on commands are not held any longer, while there is no connection.
    #[must_use]
    pub fn commands_fail_at(&self) -> Option<Instant> {
        Some(self.disconnected_since? + self.options.fast_io_fail?)
    }
}

#[cfg(test)]
mod tests;
