//! The life of a controller, from the first connect to the last (Linux: `nvme_change_ctrl_state`).

use std::fmt;
use std::time::{Duration, Instant};

use super::{Cause, Failure, Verdict};
use crate::config::{PORT_RETRY_DELAY, PORT_SETTLE_TIME, ReconnectOptions};
use crate::error::GiveUpReason;

/// Where a controller is in its life. Linux's names, but for two: its CONNECTING is
/// [`Waiting`](Self::Waiting) between attempts and [`Connecting`](Self::Connecting) in one, and
/// DELETING is one state here, since no command survives a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
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

impl fmt::Display for State {
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
pub enum Event {
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
    Enter(State),
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
fn decide(state: State, event: Event) -> Decision {
    use State::{Connecting, Dead, Deleting, Live, New, Resetting, Waiting};
    match (state, event) {
        (New, Event::Start) => Decision::Enter(Connecting),
        (Connecting, Event::Established) => Decision::Enter(Live),
        (Connecting, Event::Failed(Verdict::Retry(after))) => Decision::Wait(after),
        (Connecting, Event::Failed(Verdict::GiveUp(reason))) => Decision::End(reason),
        (Live, Event::Failed(Verdict::Retry(after))) => Decision::Retry(after),
        (Live, Event::Failed(Verdict::GiveUp(reason))) => Decision::GiveUp(reason),
        (Live, Event::Reset) => Decision::Renew,
        (Resetting, Event::TornDown) => Decision::Enter(Waiting),
        (Waiting, Event::Due | Event::Reset | Event::PortActive) => Decision::Enter(Connecting),
        (Deleting, Event::TornDown) => Decision::Enter(Dead),
        (New | Connecting | Live | Resetting | Waiting, Event::Delete) => Decision::Enter(Deleting),
        // A controller connects or comes back by itself; one that ends is not brought back; what
        // is reported of an earlier connection no longer matters.
        _ => Decision::Ignore,
    }
}

/// What the driver is to do in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make one attempt, and report how it went.
    Connect,
    /// Nothing, for ever.
    End,
    /// Serve the connection until something happens.
    Serve,
    /// Take apart what there is, in order if the other side may still listen, and report
    /// [`Event::TornDown`].
    TearDown {
        /// Whether to tell the controller first.
        announce: bool,
    },
    /// Report [`Event::Due`] at this time.
    Wait(Instant),
}

/// The life of one controller. Feed it events, do the [`task`](Self::task).
#[derive(Debug)]
pub struct Lifecycle {
    options: ReconnectOptions,
    state: State,
    /// Attempts begun since the controller was last live.
    attempts: u32,
    /// Whether it was ever live.
    was_live: bool,
    /// Since when it has not been live.
    away_since: Option<Instant>,
    /// When the next attempt is due.
    due: Option<Instant>,
    /// When the port of our device came back, and with it the hope of a connection.
    port_back: Option<Instant>,
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
            state: State::New,
            attempts: 0,
            was_live: false,
            away_since: None,
            due: None,
            port_back: None,
            announce: false,
            reason: None,
        }
    }

    /// The attempt, or the live connection, has failed. `chance` is a random number.
    pub fn fail(&mut self, cause: Cause, now: Instant, chance: u16) {
        let verdict = if self.was_live || self.options.first_connect {
            let elapsed = self.away_since.map_or(Duration::ZERO, |since| now - since);
            let attempts = self.attempts;
            self.sooner(self.options.verdict(&Failure { cause, attempts, elapsed, chance }), now)
        } else {
            Verdict::GiveUp(GiveUpReason::NotRetryable)
        };
        self.handle(Event::Failed(verdict), now);
    }

    /// A link that has just come back may not carry the first packets: what fails then is tried
    /// again soon.
    fn sooner(&self, verdict: Verdict, now: Instant) -> Verdict {
        let just_back = self.port_back.is_some_and(|back| now < back + PORT_SETTLE_TIME);
        match verdict {
            Verdict::Retry(after) if just_back => Verdict::Retry(after.min(PORT_RETRY_DELAY)),
            verdict => verdict,
        }
    }

    /// Something else happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        if event == Event::PortActive {
            self.port_back = Some(now);
        }
        let announce = self.state == State::Live && !matches!(event, Event::Failed(_));
        match decide(self.state, event) {
            Decision::Ignore => return,
            Decision::Enter(state) => self.enter(state, now),
            Decision::Renew => self.retry_after(Duration::ZERO, State::Resetting, now),
            Decision::Retry(after) => self.retry_after(after, State::Resetting, now),
            Decision::Wait(after) => self.retry_after(after, State::Waiting, now),
            Decision::GiveUp(reason) => self.end(reason, State::Deleting, now),
            Decision::End(reason) => self.end(reason, State::Dead, now),
        }
        self.announce = announce;
    }

    fn enter(&mut self, state: State, now: Instant) {
        match state {
            State::Connecting if self.state != State::New => self.attempts += 1,
            State::Live => {
                self.attempts = 0;
                self.was_live = true;
                self.away_since = None;
            }
            _ => {}
        }
        if state != State::Live && self.away_since.is_none() {
            self.away_since = Some(now);
        }
        self.state = state;
    }

    fn retry_after(&mut self, after: Duration, state: State, now: Instant) {
        self.due = Some(now + after);
        self.enter(state, now);
    }

    fn end(&mut self, reason: GiveUpReason, state: State, now: Instant) {
        self.reason = Some(reason);
        self.enter(state, now);
    }

    /// What to do now.
    #[must_use]
    pub fn task(&self, now: Instant) -> Task {
        match self.state {
            State::New | State::Dead => Task::End,
            State::Connecting => Task::Connect,
            State::Live => Task::Serve,
            State::Resetting | State::Deleting => Task::TearDown { announce: self.announce },
            State::Waiting => Task::Wait(self.due.unwrap_or(now)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
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
        Some(self.away_since? + self.options.fast_io_fail?)
    }
}

#[cfg(test)]
mod tests;
