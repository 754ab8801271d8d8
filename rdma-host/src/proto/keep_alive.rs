//! The keep-alive timer (Base 3.9).

use std::time::{Duration, Instant};

/// Says when a Keep Alive command is due, and when the controller has been silent too long.
///
/// A command goes out every half keep-alive time (the controller forgets us after a whole one);
/// the answer must come within the keep-alive time, or the controller has forgotten us.
#[derive(Debug)]
pub struct KeepAlive {
    timeout: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    Idle { due: Instant },
    Awaiting { sent: Instant },
}

/// What the timer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveAction {
    /// The controller has not answered for this long.
    Expired(Duration),
    /// Send a Keep Alive now.
    Send,
    /// Ask again at this time; never when there is none.
    Wait(Option<Instant>),
}

impl KeepAlive {
    /// A timer for a keep-alive time of `timeout`, which runs from `now`; zero turns it off.
    #[must_use]
    pub fn new(timeout: Duration, now: Instant) -> Self {
        let state =
            if timeout.is_zero() { State::Off } else { State::Idle { due: now + timeout / 2 } };
        Self { timeout, state }
    }

    /// What is to be done at `now`. After [`Send`](KeepAliveAction::Send) the command counts as
    /// sent.
    pub fn poll_action(&mut self, now: Instant) -> KeepAliveAction {
        match self.state {
            State::Off => KeepAliveAction::Wait(None),
            State::Idle { due } if now < due => KeepAliveAction::Wait(Some(due)),
            State::Idle { .. } => {
                self.state = State::Awaiting { sent: now };
                KeepAliveAction::Send
            }
            State::Awaiting { sent } if now < sent + self.timeout => {
                KeepAliveAction::Wait(Some(sent + self.timeout))
            }
            State::Awaiting { .. } => KeepAliveAction::Expired(self.timeout),
        }
    }

    /// The answer came. The next command counts from when this one was sent: the time of the
    /// round trip is the controller's too.
    pub fn handle_response(&mut self) {
        if let State::Awaiting { sent } = self.state {
            self.state = State::Idle { due: sent + self.timeout / 2 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KATO: Duration = Duration::from_secs(4);

    #[test]
    fn sends_every_half_time_and_expires_after_a_whole_one() {
        let start = Instant::now();
        let mut timer = KeepAlive::new(KATO, start);
        let half = start + KATO / 2;
        assert_eq!(timer.poll_action(start), KeepAliveAction::Wait(Some(half)));
        assert_eq!(timer.poll_action(half), KeepAliveAction::Send);
        assert_eq!(timer.poll_action(half), KeepAliveAction::Wait(Some(half + KATO)));
        timer.handle_response();
        assert_eq!(timer.poll_action(half), KeepAliveAction::Wait(Some(start + KATO)));
        assert_eq!(timer.poll_action(start + KATO), KeepAliveAction::Send);
        assert_eq!(timer.poll_action(start + 2 * KATO), KeepAliveAction::Expired(KATO));
    }

    #[test]
    fn zero_is_off() {
        let now = Instant::now();
        let mut timer = KeepAlive::new(Duration::ZERO, now);
        timer.handle_response();
        assert_eq!(timer.poll_action(now + KATO * 1000), KeepAliveAction::Wait(None));
    }
}
