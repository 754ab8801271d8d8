//! Keep-alive timer (Base 3.9).

use std::time::{Duration, Instant};

/// Keep-alive timer of a host: when to send a Keep Alive command, and when the controller counts as
/// lost.
///
/// A Keep Alive is sent every half keep-alive time (KATO). The controller drops the association
/// after a whole one, and the host treats a controller as lost that has responded to nothing for
/// as long. With traffic-based keep-alive (TBKAS) the controller counts every command; then the
/// timer fires every quarter, and no Keep Alive is sent after a quarter in which a command was
/// submitted and completed.
#[derive(Debug)]
pub struct KeepAlive {
    timeout: Duration,
    traffic_based: bool,
    /// Submission time of the latest command that has completed.
    last_activity: Instant,
    /// Time of the last check for traffic.
    last_check: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    Idle { due: Instant },
    Awaiting { sent: Instant },
}

/// Next action of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveAction {
    /// The controller has responded to nothing for this time.
    Expired(Duration),
    /// Send a Keep Alive now.
    Send,
    /// Call again at this time; `None` if the timer is off.
    Wait(Option<Instant>),
}

impl KeepAlive {
    /// Creates a timer with the keep-alive time `timeout`, started at `now`; zero turns it off.
    #[must_use]
    pub fn new(timeout: Duration, traffic_based: bool, now: Instant) -> Self {
        let mut this =
            Self { timeout, traffic_based, last_activity: now, last_check: now, state: State::Off };
        if !timeout.is_zero() {
            this.state = State::Idle { due: now + this.period() };
        }
        this
    }

    /// Returns the action at `now`. `traffic` is the submission time of the latest completed I/O
    /// command. After [`Send`](KeepAliveAction::Send) the command counts as sent.
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
            // Without TBKAS, completed I/O does not count while the admin queue is stuck: the
            // controller's timer expires all the same.
            State::Awaiting { sent } => {
                let last = self.last_activity;
                let counted = if self.traffic_based { last } else { last.min(sent) };
                let expiry = counted + self.timeout;
                if now < expiry {
                    KeepAliveAction::Wait(Some(expiry))
                } else {
                    KeepAliveAction::Expired(self.timeout)
                }
            }
        }
    }

    /// Notes the completion of the Keep Alive. The next one is timed from when this one was sent,
    /// because the controller's timer includes the round trip.
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
    fn sends_every_half_kato_and_expires_after_a_whole_one() {
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
    fn traffic_replaces_keep_alives_with_tbkas() {
        let start = Instant::now();
        let quarter = |n| start + KATO / 4 * n;
        let mut timer = KeepAlive::new(KATO, true, start);
        let busy = Some(start + KATO / 8);
        assert_eq!(timer.poll_action(busy, quarter(1)), KeepAliveAction::Wait(Some(quarter(2))));
        // The same command does not count twice.
        assert_eq!(timer.poll_action(busy, quarter(2)), KeepAliveAction::Send);
        let end = start + KATO / 8 + KATO;
        assert_eq!(timer.poll_action(busy, quarter(2)), KeepAliveAction::Wait(Some(end)));
        assert_eq!(timer.poll_action(busy, end), KeepAliveAction::Expired(KATO));
    }

    #[test]
    fn traffic_does_not_count_without_tbkas() {
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
