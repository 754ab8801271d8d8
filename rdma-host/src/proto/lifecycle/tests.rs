//! Committed transition table, paths through it, and arbitrary sequences of events.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{config::ReconnectOptions, wire::Status};

const STATES: [LifecycleState; 7] = [
    LifecycleState::New,
    LifecycleState::Connecting,
    LifecycleState::Live,
    LifecycleState::Resetting,
    LifecycleState::Waiting,
    LifecycleState::Deleting,
    LifecycleState::Dead,
];

const DELAY: Duration = Duration::from_secs(10);

const EVENTS: [(&str, LifecycleEvent); 9] = [
    ("Start", LifecycleEvent::Start),
    ("Established", LifecycleEvent::Established),
    ("Failed, retry", LifecycleEvent::Failed(ReconnectDecision::Retry(DELAY))),
    ("Failed, give up", LifecycleEvent::Failed(ReconnectDecision::GiveUp(GiveUpReason::Exhausted))),
    ("Reset", LifecycleEvent::Reset),
    ("TornDown", LifecycleEvent::TornDown),
    ("Due", LifecycleEvent::Due),
    ("PortActive", LifecycleEvent::PortActive),
    ("Delete", LifecycleEvent::Delete),
];

const LEGEND: &str = "\
The life of a controller: rows are events, columns are states. A test compares this with the code;
UPDATE_MATRIX=1 cargo test -p nvme-rdma matrix writes it again.

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

fn word(transition: Transition) -> String {
    match transition {
        Transition::Ignore => "-".to_owned(),
        Transition::Enter(state) => format!("{state:?}"),
        Transition::Renew => "renew".to_owned(),
        Transition::Retry(_) => "retry".to_owned(),
        Transition::Wait(_) => "wait".to_owned(),
        Transition::GiveUp(_) => "give up".to_owned(),
        Transition::End(_) => "end".to_owned(),
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
        line(name, STATES.map(|state| word(transition(state, event))));
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
    life.handle(LifecycleEvent::Start, now);
    assert_eq!(life.task(now), LifecycleTask::Connect);
    life.handle(LifecycleEvent::Established, now);
    assert_eq!(life.task(now), LifecycleTask::Serve);
    life
}

#[test]
fn the_attempts_after_a_loss_fit_the_loss_timeout() {
    let mut now = Instant::now();
    let mut life = live(options(), now);
    life.fail(FailureKind::Disconnected, now, 0);
    assert_eq!(life.task(now), LifecycleTask::TearDown { announce: false });
    life.handle(LifecycleEvent::TornDown, now);
    for attempt in 1..=3 {
        now += DELAY;
        assert_eq!(life.task(now), LifecycleTask::Wait(now));
        life.handle(LifecycleEvent::Due, now);
        assert_eq!((life.attempts(), life.attempts_max()), (attempt, Some(3)));
        life.fail(FailureKind::Unreachable, now, 0);
    }
    assert_eq!(
        (life.state(), life.reason()),
        (LifecycleState::Dead, Some(GiveUpReason::Exhausted))
    );
}

#[test]
fn a_success_resets_the_attempts() {
    let now = Instant::now();
    let mut life = live(options(), now);
    for _ in 0..10 {
        life.fail(FailureKind::Disconnected, now, 0);
        life.handle(LifecycleEvent::TornDown, now);
        life.handle(LifecycleEvent::Due, now);
        assert_eq!(life.attempts(), 1);
        life.handle(LifecycleEvent::Established, now);
        assert_eq!(life.commands_fail_at(), None);
    }
}

#[test]
fn a_failure_that_is_not_retryable_ends_it_at_once() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.fail(FailureKind::Disconnected, now, 0);
    life.handle(LifecycleEvent::TornDown, now);
    life.handle(LifecycleEvent::Due, now);
    life.fail(FailureKind::Status(Status::CONNECT_INVALID_HOST.with_do_not_retry()), now, 0);
    assert_eq!(
        (life.state(), life.reason()),
        (LifecycleState::Dead, Some(GiveUpReason::NotRetryable))
    );
}

#[test]
fn the_first_connect_is_retried_only_if_asked() {
    let now = Instant::now();
    let mut life = Lifecycle::new(options());
    life.handle(LifecycleEvent::Start, now);
    life.fail(FailureKind::Unreachable, now, 0);
    assert_eq!(life.state(), LifecycleState::Dead);

    let mut life = Lifecycle::new(ReconnectOptions { first_connect: true, ..options() });
    life.handle(LifecycleEvent::Start, now);
    life.fail(FailureKind::Unreachable, now, 0);
    assert_eq!(life.task(now), LifecycleTask::Wait(now + DELAY));
    assert!(!life.was_live());
}

#[test]
fn commands_wait_from_the_loss_on() {
    let hold = Duration::from_secs(5);
    let now = Instant::now();
    let mut life = live(ReconnectOptions { fast_io_fail: Some(hold), ..options() }, now);
    assert_eq!(life.commands_fail_at(), None);
    life.fail(FailureKind::KeepAlive, now, 0);
    life.handle(LifecycleEvent::TornDown, now + DELAY);
    life.handle(LifecycleEvent::Due, now + DELAY);
    assert_eq!(life.commands_fail_at(), Some(now + hold));
}

#[test]
fn only_a_live_controller_is_sent_the_shutdown() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.handle(LifecycleEvent::Delete, now);
    assert_eq!(life.task(now), LifecycleTask::TearDown { announce: true });
    life.handle(LifecycleEvent::TornDown, now);
    assert_eq!(life.task(now), LifecycleTask::End);

    let mut life = live(options(), now);
    life.fail(FailureKind::QueuePair, now, 0);
    life.handle(LifecycleEvent::Delete, now);
    assert_eq!(life.task(now), LifecycleTask::TearDown { announce: false });
}

#[test]
fn retries_are_early_for_a_while_after_the_port_comes_up() {
    let mut now = Instant::now();
    let mut life = live(ReconnectOptions::default(), now);
    life.fail(FailureKind::QueuePair, now, 0);
    life.handle(LifecycleEvent::TornDown, now);
    assert_eq!(life.task(now), LifecycleTask::Wait(now + DELAY));
    life.handle(LifecycleEvent::PortActive, now);
    assert_eq!(life.task(now), LifecycleTask::Connect);
    now += Duration::from_secs(3);
    life.fail(FailureKind::Address, now, 0);
    assert_eq!(life.task(now), LifecycleTask::Wait(now + PORT_RETRY_DELAY));
    life.handle(LifecycleEvent::Due, now);
    now += PORT_SETTLE_TIME;
    life.fail(FailureKind::Address, now, 0);
    assert_eq!(life.task(now), LifecycleTask::Wait(now + DELAY));
}

#[test]
fn a_reset_connects_without_delay() {
    let now = Instant::now();
    let mut life = live(options(), now);
    life.handle(LifecycleEvent::Reset, now);
    assert_eq!(life.task(now), LifecycleTask::TearDown { announce: true });
    life.handle(LifecycleEvent::TornDown, now);
    assert_eq!(life.task(now), LifecycleTask::Wait(now));
}

proptest! {
    /// For any sequence of events the final state is never left, and the task fits the state.
    #[test]
    fn any_sequence_of_events_keeps_the_invariants(
        events in proptest::collection::vec((0..EVENTS.len() + 1, 0u64..20), 0..100),
    ) {
        let mut now = Instant::now();
        let mut life = Lifecycle::new(options());
        for (index, seconds) in events {
            now += Duration::from_secs(seconds);
            let dead = life.state() == LifecycleState::Dead;
            match EVENTS.get(index) {
                // The decision comes from the options, as in the driver.
                Some((_, LifecycleEvent::Failed(_))) | None => {
                    life.fail(FailureKind::Unreachable, now, 0);
                }
                Some(&(_, event)) => life.handle(event, now),
            }
            prop_assert!(!dead || life.state() == LifecycleState::Dead);
                        let serves = life.task(now) == LifecycleTask::Serve;
            prop_assert_eq!(life.state() == LifecycleState::Live, serves);
            let waits = matches!(life.task(now), LifecycleTask::Wait(_));
            prop_assert_eq!(life.state() == LifecycleState::Waiting, waits);
        }
    }
}
