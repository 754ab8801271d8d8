//! The keep-alive timer (Base 3.9).

use std::time::{Duration, Instant};

/// Says when a Keep Alive command is due, and when the controller has been silent too long.
///
/// A command goes out every half keep-alive time; the controller forgets us after a whole one, and
/// so do we: a controller that has given no sign of life for that long is gone. With traffic based
/// keep-alive (TBKAS) the controller counts every command; then the look is every quarter, and a
/// quarter in which a command was submitted and completed needs none of its own.
#[derive(Debug)]
pub struct KeepAlive {
    timeout: Duration,
    traffic_based: bool,
    /// When the newest thing was sent that the controller has answered.
    last_activity: Instant,
    /// The last look at the traffic.
    last_check: Instant,
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
    /// The controller has been silent for this long.
    Expired(Duration),
    /// Send a Keep Alive now.
    Send,
    /// Ask again at this time; never when there is none.
    Wait(Option<Instant>),
}

impl KeepAlive {
    /// A timer for a keep-alive time of `timeout`, which runs from `now`; zero turns it off.
    #[must_use]
    pub fn new(timeout: Duration, traffic_based: bool, now: Instant) -> Self {
        let mut this =
            Self { timeout, traffic_based, last_activity: now, last_check: now, state: State::Off };
        if !timeout.is_zero() {
            this.state = State::Idle { due: now + this.period() };
        }
        this
    }

    /// What is to be done at `now`, when the newest completed I/O command was submitted at
    /// `traffic`. After [`Send`](KeepAliveAction::Send) the command counts as sent.
    pub fn poll_action(&mut self, traffic: Option<Instant>, now: Instant) -> KeepAliveAction {
        self.last_activity =
            traffic.map_or(self.last_activity, |traffic| self.last_activity.max(traffic));
        match self.state {
            State::Off => KeepAliveAction::Wait(None),
            State::Idle { due } if now < due => KeepAliveAction::Wait(Some(due)),
            State::Idle { .. } if self.traffic_based && self.last_activity > self.last_check => {
                self.last_check = now;
                let due = now + self.period();
                self.state = State::Idle { due };
                KeepAliveAction::Wait(Some(due))
            }
            State::Idle { .. } => {
                self.last_check = now;
                self.state = State::Awaiting { sent: now };
                KeepAliveAction::Send
            }
            // Reads and writes that are answered don't help where the admin queue is stuck: the
            // controller forgets us all the same, unless it counts them.
            State::Awaiting { sent } => {
                let alive = if self.traffic_based {
                    self.last_activity
                } else {
                    self.last_activity.min(sent)
                };
                let expiry = alive + self.timeout;
                match now < expiry {
                    true => KeepAliveAction::Wait(Some(expiry)),
                    false => KeepAliveAction::Expired(self.timeout),
                }
            }
        }
    }

    /// The answer came. The next command counts from when this one was sent: the time of the
    /// round trip is the controller's too.
    pub fn handle_response(&mut self) {
        if let State::Awaiting { sent } = self.state {
            self.last_activity = self.last_activity.max(sent);
            self.state = State::Idle { due: sent + self.period() };
        }
    }

    fn period(&self) -> Duration {
        if self.traffic_based { self.timeout / 4 } else { self.timeout / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KATO: Duration = Duration::from_secs(4);

    #[test]
    fn sends_every_half_time_and_expires_after_a_whole_one_of_silence() {
        let start = Instant::now();
        let mut timer = KeepAlive::new(KATO, false, start);
        let half = start + KATO / 2;
        assert_eq!(timer.poll_action(None, start), KeepAliveAction::Wait(Some(half)));
        assert_eq!(timer.poll_action(None, half), KeepAliveAction::Send);
        let end = start + KATO;
        assert_eq!(timer.poll_action(None, half), KeepAliveAction::Wait(Some(end)));
        timer.handle_response();
        assert_eq!(timer.poll_action(None, half), KeepAliveAction::Wait(Some(end)));
        assert_eq!(timer.poll_action(None, end), KeepAliveAction::Send);
        let end = half + KATO;
        assert_eq!(timer.poll_action(None, start + KATO), KeepAliveAction::Wait(Some(end)));
        assert_eq!(timer.poll_action(None, end), KeepAliveAction::Expired(KATO));
    }

    #[test]
    fn traffic_takes_the_place_of_commands_where_the_controller_counts_it() {
        let start = Instant::now();
        let quarter = |n| start + KATO / 4 * n;
        let mut timer = KeepAlive::new(KATO, true, start);
        let busy = Some(start + KATO / 8);
        assert_eq!(timer.poll_action(busy, quarter(1)), KeepAliveAction::Wait(Some(quarter(2))));
        // The same command again is no news.
        assert_eq!(timer.poll_action(busy, quarter(2)), KeepAliveAction::Send);
        let end = start + KATO / 8 + KATO;
        assert_eq!(timer.poll_action(busy, quarter(2)), KeepAliveAction::Wait(Some(end)));
        assert_eq!(timer.poll_action(busy, end), KeepAliveAction::Expired(KATO));
    }

    #[test]
    fn traffic_is_no_excuse_where_the_controller_does_not_count_it() {
        let start = Instant::now();
        let half = start + KATO / 2;
        let mut timer = KeepAlive::new(KATO, false, start);
        let busy = |at| Some(at);
        assert_eq!(timer.poll_action(busy(half), half), KeepAliveAction::Send);
        let end = half + KATO;
        assert_eq!(timer.poll_action(busy(end), end), KeepAliveAction::Expired(KATO));
    }

    #[test]
    fn zero_is_off() {
        let now = Instant::now();
        let mut timer = KeepAlive::new(Duration::ZERO, false, now);
        timer.handle_response();
        assert_eq!(timer.poll_action(None, now + KATO * 1000), KeepAliveAction::Wait(None));
    }
}
