//! The table in words, the ways through it, and arbitrary sequences of events.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::config::ReconnectOptions;
use crate::wire::Status;

const STATES: [State; 7] = [
    State::New,
    State::Connecting,
    State::Live,
    State::Resetting,
    State::Waiting,
    State::Deleting,
    State::Dead,
];

const DELAY: Duration = Duration::from_secs(10);

const EVENTS: [(&str, Event); 9] = [
    ("Start", Event::Start),
    ("Established", Event::Established),
    ("Failed, retry", Event::Failed(Verdict::Retry(DELAY))),
    ("Failed, give up", Event::Failed(Verdict::GiveUp(GiveUpReason::Exhausted))),
    ("Reset", Event::Reset),
    ("TornDown", Event::TornDown),
    ("Due", Event::Due),
    ("PortActive", Event::PortActive),
    ("Delete", Event::Delete),
];

const LEGEND: &str = "\
The life of a controller: rows are events, columns are states. A test compares this with the code;
UPDATE_MATRIX=1 cargo test -p rdma-host matrix writes it anew.

  -           ignored
  Connecting  and the like: that state is entered
  renew       Resetting, then at once Connecting
  retry       Resetting, then Waiting for the delay
  wait        Waiting for the delay
  give up     Deleting, for a reason
  end         Dead, for a reason

Against Linux (nvme_change_ctrl_state): an attempt that fails for good ends at once, since nothing
of it is left to take apart. A connection that fails while one is sought is part of the attempt, and
ends it at once; Linux waits for the timeout of whatever command was under way. The return of our
own port, and a reset, cut the wait short. There is no way back from Deleting.

";

fn word(decision: Decision) -> String {
    match decision {
        Decision::Ignore => "-".to_owned(),
        Decision::Enter(state) => format!("{state:?}"),
        Decision::Renew => "renew".to_owned(),
        Decision::Retry(_) => "retry".to_owned(),
        Decision::Wait(_) => "wait".to_owned(),
        Decision::GiveUp(_) => "give up".to_owned(),
        Decision::End(_) => "end".to_owned(),
    }
}

fn matrix() -> String {
    let mut text = LEGEND.to_owned();
    let mut line = |event: &str, cells: [String; 7]| {
        write!(text, "{event:<17}").unwrap();
        for cell in &cells[..6] {
            write!(text, "{cell:<12}").unwrap();
        }
        writeln!(text, "{}", cells[6]).unwrap();
    };
    line("", STATES.map(|state| format!("{state:?}")));
    for (name, event) in EVENTS {
        line(name, STATES.map(|state| word(decide(state, event))));
    }
    text
}

#[test]
fn the_matrix_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/lifecycle/matrix.txt");
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(path, matrix()).unwrap();
    }
    assert_eq!(matrix(), std::fs::read_to_string(path).unwrap());
}

fn options() -> ReconnectOptions {
    ReconnectOptions { loss_timeout: Some(3 * DELAY), ..ReconnectOptions::default() }
}

fn live(options: ReconnectOptions, now: Instant) -> Lifecycle {
    let mut life = Lifecycle::new(options);
    life.handle(Event::Start, now);
    assert_eq!(life.task(now), Task::Connect);
    life.handle(Event::Established, now);
    assert_eq!(life.task(now), Task::Serve);
    life
}

#[test]
fn a_loss_is_followed_by_as_many_attempts_as_fit() {
    let mut now = Instant::now();
    let mut life = live(options(), now);
    life.fail(Cause::Disconnected, now, 0);
    assert_eq!(life.task(now), Task::TearDown { announce: false });
    life.handle(Event::TornDown, now);
    for attempt in 1..=3 {
        now += DELAY;
        assert_eq!(life.task(now), Task::Wait(now));
        life.handle(Event::Due, now);
        assert_eq!((life.attempts(), life.attempts_max()), (attempt, Some(3)));
        life.fail(Cause::Unreachable, now, 0);
    }
    assert_eq!((life.state(), life.reason()), (State::Dead, Some(GiveUpReason::Exhausted)));
}

#[test]
fn a_success_starts_the_count_anew() {
    let now = Instant::now();
    let mut life = live(options(), now);
    for _ in 0..10 {
        life.fail(Cause::Disconnected, now, 0);
        life.handle(Event::TornDown, now);
        life.handle(Event::Due, now);
        assert_eq!(life.attempts(), 1);
        life.handle(Event::Established, now);
        assert_eq!(life.commands_fail_at(), None);
    }
}

#[test]
fn what_cannot_be_cured_ends_it_at_once() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.fail(Cause::Disconnected, now, 0);
    life.handle(Event::TornDown, now);
    life.handle(Event::Due, now);
    life.fail(Cause::Status(Status::CONNECT_INVALID_HOST.with_do_not_retry()), now, 0);
    assert_eq!((life.state(), life.reason()), (State::Dead, Some(GiveUpReason::NotRetryable)));
}

#[test]
fn the_first_connect_is_retried_only_if_asked() {
    let now = Instant::now();
    let mut life = Lifecycle::new(options());
    life.handle(Event::Start, now);
    life.fail(Cause::Unreachable, now, 0);
    assert_eq!(life.state(), State::Dead);

    let mut life = Lifecycle::new(ReconnectOptions { first_connect: true, ..options() });
    life.handle(Event::Start, now);
    life.fail(Cause::Unreachable, now, 0);
    assert_eq!(life.task(now), Task::Wait(now + DELAY));
    assert!(!life.was_live());
}

#[test]
fn commands_are_held_from_the_loss_on() {
    let hold = Duration::from_secs(5);
    let now = Instant::now();
    let mut life = live(ReconnectOptions { fast_io_fail: Some(hold), ..options() }, now);
    assert_eq!(life.commands_fail_at(), None);
    life.fail(Cause::KeepAlive, now, 0);
    life.handle(Event::TornDown, now + DELAY);
    life.handle(Event::Due, now + DELAY);
    assert_eq!(life.commands_fail_at(), Some(now + hold));
}

#[test]
fn only_a_living_controller_is_told_of_the_end() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.handle(Event::Delete, now);
    assert_eq!(life.task(now), Task::TearDown { announce: true });
    life.handle(Event::TornDown, now);
    assert_eq!(life.task(now), Task::End);

    let mut life = live(options(), now);
    life.fail(Cause::QueuePair, now, 0);
    life.handle(Event::Delete, now);
    assert_eq!(life.task(now), Task::TearDown { announce: false });
}

#[test]
fn a_port_that_is_back_is_tried_again_soon_for_a_while() {
    let mut now = Instant::now();
    let mut life = live(ReconnectOptions::default(), now);
    life.fail(Cause::QueuePair, now, 0);
    life.handle(Event::TornDown, now);
    assert_eq!(life.task(now), Task::Wait(now + DELAY));
    life.handle(Event::PortActive, now);
    assert_eq!(life.task(now), Task::Connect);
    now += Duration::from_secs(3);
    life.fail(Cause::Address, now, 0);
    assert_eq!(life.task(now), Task::Wait(now + PORT_RETRY_DELAY));
    life.handle(Event::Due, now);
    now += PORT_SETTLE_TIME;
    life.fail(Cause::Address, now, 0);
    assert_eq!(life.task(now), Task::Wait(now + DELAY));
}

#[test]
fn a_reset_connects_without_delay() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.handle(Event::Reset, now);
    assert_eq!(life.task(now), Task::TearDown { announce: true });
    life.handle(Event::TornDown, now);
    assert_eq!(life.task(now), Task::Wait(now));
}

proptest! {
    /// Whatever happens: the end is final, and the task fits the state.
    #[test]
    fn no_sequence_of_events_breaks_the_rules(
        events in proptest::collection::vec((0..EVENTS.len() + 1, 0u64..20), 0..100),
    ) {
        let mut now = Instant::now();
        let mut life = Lifecycle::new(options());
        for (index, seconds) in events {
            now += Duration::from_secs(seconds);
            let dead = life.state() == State::Dead;
            match EVENTS.get(index) {
                // The verdict is the policy's, as in the driver.
                Some((_, Event::Failed(_))) | None => life.fail(Cause::Unreachable, now, 0),
                Some(&(_, event)) => life.handle(event, now),
            }
            prop_assert!(!dead || life.state() == State::Dead);
                        prop_assert_eq!(life.state() == State::Live, life.task(now) == Task::Serve);
            let waits = matches!(life.task(now), Task::Wait(_));
            prop_assert_eq!(life.state() == State::Waiting, waits);
        }
    }
}
