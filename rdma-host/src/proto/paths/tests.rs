//! Committed tables of decisions, and what they rest on.

use std::fmt::Write as _;

use super::*;
use crate::{config::PATH_MEASURE_INTERVAL, wire::AnaGroup};

const LEGEND: &str = "\
Paths of a subsystem. A test compares this with the code; UPDATE_MATRIX=1 cargo test -p nvme-rdma
paths writes it again.

Two paths, A in the row and B in the column: where a command goes.

  A, B, either    on this path; on one of them, by policy
  hold            nowhere: a path may become usable
  fail            nowhere: none will

  stale           a command had a status of asymmetric access: until the log is read again
  unknown         the log does not have the group of the namespace: the same
  not there       the path is live, and does not have the namespace

";

const FAILURES: &str = "
A command that failed on a path, by its class (see fence/matrix.txt).

  complete        it ends with its failure
  elsewhere       a path is chosen again, at once
  fence           the same, once the old controller is proved to execute nothing more

Against Linux: it sends everything again at once. It holds commands while every path has lost the
access for good; here they fail.

";

const GROUP: u32 = 1;
const A: PathId = PathId(0);
const B: PathId = PathId(1);

#[derive(Clone, Copy)]
enum Condition {
    Access(AnaState),
    Stale,
    Unknown,
    NotThere,
    State(PathState),
}

const CONDITIONS: [(&str, Condition); 10] = [
    ("optimized", Condition::Access(AnaState::OPTIMIZED)),
    ("non-optimized", Condition::Access(AnaState::NON_OPTIMIZED)),
    ("change", Condition::Access(AnaState::CHANGE)),
    ("inaccessible", Condition::Access(AnaState::INACCESSIBLE)),
    ("persistent loss", Condition::Access(AnaState::PERSISTENT_LOSS)),
    ("stale", Condition::Stale),
    ("unknown", Condition::Unknown),
    ("not there", Condition::NotThere),
    ("reconnecting", Condition::State(PathState::Reconnecting)),
    ("ended", Condition::State(PathState::Ended)),
];

fn log(group: u32, state: AnaState) -> AnaLog {
    let groups = vec![AnaGroup { id: group, change_count: 1, state, namespaces: Vec::new() }];
    AnaLog { change_count: 1, groups }
}

const TRANSITION_TIME: Duration = Duration::from_secs(10);

fn set(paths: &mut Paths, id: PathId, condition: Condition, now: Instant) {
    let (group, access) = match condition {
        Condition::Access(access) => (GROUP, access),
        Condition::Unknown => (GROUP + 1, AnaState::OPTIMIZED),
        _ => (GROUP, AnaState::OPTIMIZED),
    };
    paths.set_state(id, PathState::Live);
    paths.set_access(id, &log(group, access), TRANSITION_TIME, now);
    match condition {
        Condition::Stale => assert!(paths.note_status(id, GROUP, Status::ANA_INACCESSIBLE)),
        Condition::State(state) => paths.set_state(id, state),
        _ => {}
    }
}

/// Two live paths without asymmetric access.
fn symmetric(policy: PathPolicy) -> Paths {
    let mut paths = Paths::new(2, policy);
    for id in [A, B] {
        paths.set_symmetric(id);
        paths.set_state(id, PathState::Live);
    }
    paths
}

/// Next choices among paths that all have the namespace.
fn choices<const N: usize>(paths: &mut Paths, now: Instant) -> [usize; N] {
    [(); N].map(|()| match paths.choose(GROUP, |_| true, now) {
        PathChoice::Send(id) => id.0,
        other => panic!("{other:?}"),
    })
}

fn choice_of(a: Condition, b: Condition) -> &'static str {
    let now = Instant::now();
    let mut paths = Paths::new(2, PathPolicy::RoundRobin);
    set(&mut paths, A, a, now);
    set(&mut paths, B, b, now);
    let has = |id: PathId| !matches!([a, b][id.0], Condition::NotThere);
    let [first, second] = [(); 2].map(|()| paths.choose(GROUP, has, now));
    match (first, second) {
        (PathChoice::Send(one), PathChoice::Send(two)) if one != two => "either",
        (PathChoice::Send(A), _) => "A",
        (PathChoice::Send(_), _) => "B",
        (PathChoice::Hold, _) => "hold",
        (PathChoice::Fail, _) => "fail",
    }
}

fn matrix() -> String {
    let mut text = LEGEND.to_owned();
    let mut line = |name: &str, cells: Vec<&str>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<16}")).collect();
        writeln!(text, "{}", format!("{name:<16} {cells}").trim_end()).unwrap();
    };
    line("", CONDITIONS.map(|(name, _)| name).to_vec());
    for (name, a) in CONDITIONS {
        line(name, CONDITIONS.map(|(_, b)| choice_of(a, b)).to_vec());
    }
    text.push_str(FAILURES);
    let classes =
        [CommandClass::WithoutEffect, CommandClass::IdempotentWrite, CommandClass::NotRepeatable];
    let mut line = |name: &str, cells: [&str; 3]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<18}")).collect();
        writeln!(text, "{}", format!("{name:<30} {cells}").trim_end()).unwrap();
    };
    line("", ["without effect", "idempotent write", "not repeatable"]);
    for (name, failure, sends) in [
        ("not sent", PathFailure::NotSent, 0),
        ("no response", PathFailure::NoResponse, 1),
        ("the same, sent too often", PathFailure::NoResponse, RESENDS_MAX + 1),
        ("persistent loss", PathFailure::Response(Status::ANA_PERSISTENT_LOSS), 0),
        ("inaccessible", PathFailure::Response(Status::ANA_INACCESSIBLE), 0),
        ("transition", PathFailure::Response(Status::ANA_TRANSITION), 0),
        ("internal path error", PathFailure::Response(Status(0x300)), 0),
        ("controller path error", PathFailure::Response(Status(0x360)), 0),
        ("host path error", PathFailure::Response(Status(0x370)), 0),
        ("command aborted by host", PathFailure::Response(Status(0x371)), 0),
        ("inaccessible, do not retry", PathFailure::Response(Status(0x4302)), 0),
        ("any other status", PathFailure::Response(Status(0x281)), 0),
    ] {
        let decide = |class| match PathDecision::of(class, failure, sends) {
            PathDecision::Complete => "complete",
            PathDecision::Elsewhere => "elsewhere",
            PathDecision::BehindFence => "fence",
        };
        line(name, classes.map(decide));
    }
    text
}

#[test]
fn the_matrix_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/paths/matrix.txt");
    let matrix = matrix();
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(path, &matrix).unwrap();
    }
    assert_eq!(matrix, std::fs::read_to_string(path).unwrap());
}

#[test]
fn equal_paths_are_chosen_in_turn() {
    let mut paths = symmetric(PathPolicy::RoundRobin);
    assert_eq!(choices(&mut paths, Instant::now()), [0, 1, 0, 1]);
}

/// The fewest in flight, and in turn where they are equal.
#[test]
fn queue_depth_fills_up_the_emptier_path() {
    let (mut paths, now) = (symmetric(PathPolicy::QueueDepth), Instant::now());
    assert_eq!(choices(&mut paths, now), [0, 1]);
    paths.begin(A);
    paths.begin(A);
    paths.begin(B);
    assert_eq!(choices(&mut paths, now), [1, 1]);
    paths.end(A, None);
    paths.end(A, None);
    assert_eq!(choices(&mut paths, now), [0, 0]);
}

/// Completes commands on both paths, B being slower by this factor, and returns the next choices.
fn by_latency(factor: u32) -> [usize; 4] {
    let (mut paths, now) = (symmetric(PathPolicy::Latency), Instant::now());
    // Both have to be measured.
    assert_eq!(choices(&mut paths, now), [0, 1]);
    for (id, factor) in [(A, 1), (B, factor)] {
        paths.begin(id);
        paths.end(id, Some(factor * Duration::from_micros(100)));
    }
    let chosen = choices(&mut paths, now);
    let later = now + PATH_MEASURE_INTERVAL;
    let mut measured = choices::<2>(&mut paths, later);
    measured.sort_unstable();
    assert_eq!(measured, [0, 1], "each is measured now and then");
    chosen
}

#[test]
fn slow_paths_are_left_out_by_latency() {
    assert_eq!(by_latency(3), [0; 4]);
    assert_eq!(by_latency(2), [0, 1, 0, 1], "the difference is too small");
}

/// A path that has become fast again is used again.
#[test]
fn the_mean_latency_follows_the_last_commands() {
    let mut paths = symmetric(PathPolicy::Latency);
    for latency in [[Duration::from_millis(10); 20], [Duration::from_micros(100); 20]].concat() {
        paths.begin(A);
        paths.end(A, Some(latency));
    }
    let mean = paths.selector().latency(A);
    assert!((100_000..1_000_000).contains(&mean), "{mean} ns");
}

#[test]
fn the_preferred_path_is_left_for_a_better_one_and_returned_to() {
    let (mut paths, now) = (Paths::new(2, PathPolicy::Preferred(B)), Instant::now());
    set(&mut paths, A, Condition::Access(AnaState::OPTIMIZED), now);
    for (access, expected) in
        [(AnaState::OPTIMIZED, 1), (AnaState::NON_OPTIMIZED, 0), (AnaState::OPTIMIZED, 1)]
    {
        set(&mut paths, B, Condition::Access(access), now);
        assert_eq!(choices(&mut paths, now), [expected; 2], "{access}");
    }
}

/// A lost connection's log is not used for the next one.
#[test]
fn access_is_read_again_after_a_reconnect() {
    let (mut paths, now) = (Paths::new(1, PathPolicy::RoundRobin), Instant::now());
    set(&mut paths, A, Condition::Access(AnaState::OPTIMIZED), now);
    paths.set_state(A, PathState::Reconnecting);
    paths.set_state(A, PathState::Live);
    assert!(paths.lacks_group(A, GROUP));
    assert_eq!(paths.choose(GROUP, |_| true, now), PathChoice::Hold);
    paths.set_access(A, &log(GROUP, AnaState::OPTIMIZED), TRANSITION_TIME, now);
    assert!(!paths.lacks_group(A, GROUP));
    assert_eq!(paths.choose(GROUP, |_| true, now), PathChoice::Send(A));
}

#[test]
fn a_status_that_contradicts_the_log_has_it_read_again() {
    let (mut paths, now) = (Paths::new(1, PathPolicy::RoundRobin), Instant::now());
    set(&mut paths, A, Condition::Access(AnaState::OPTIMIZED), now);
    assert!(!paths.note_status(A, GROUP, Status(0x281)));
    assert_eq!(paths.choose(GROUP, |_| true, now), PathChoice::Send(A));
    assert!(paths.note_status(A, GROUP, Status::ANA_TRANSITION));
    assert_eq!(paths.choose(GROUP, |_| true, now), PathChoice::Hold);
    let mut symmetric = symmetric(PathPolicy::RoundRobin);
    assert!(!symmetric.note_status(A, GROUP, Status::ANA_TRANSITION), "there is no log to read");
}

/// The time counts from the first log with the change on, and ends with any other state.
#[test]
fn a_change_that_does_not_end_is_overdue() {
    let (mut paths, at) = (Paths::new(2, PathPolicy::RoundRobin), Instant::now());
    set(&mut paths, A, Condition::Access(AnaState::OPTIMIZED), at);
    let changing = Condition::Access(AnaState::CHANGE);
    for step in 0..=4 {
        set(&mut paths, B, changing, at + step * TRANSITION_TIME / 2);
        assert_eq!(paths.overdue_at(B), Some(at + 2 * TRANSITION_TIME));
    }
    assert_eq!(paths.overdue_at(A), None);
    set(&mut paths, B, Condition::Access(AnaState::INACCESSIBLE), at);
    assert_eq!(paths.overdue_at(B), None);
    set(&mut paths, B, changing, at);
    paths.set_state(B, PathState::Reconnecting);
    assert_eq!(paths.overdue_at(B), None, "it is being reset");
}

#[test]
fn the_best_paths_are_active() {
    let (mut paths, now) = (Paths::new(2, PathPolicy::RoundRobin), Instant::now());
    for (a, b, active) in [
        (AnaState::OPTIMIZED, AnaState::OPTIMIZED, &[A, B][..]),
        (AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED, &[A]),
        (AnaState::INACCESSIBLE, AnaState::NON_OPTIMIZED, &[B]),
        (AnaState::INACCESSIBLE, AnaState::CHANGE, &[]),
        (AnaState::PERSISTENT_LOSS, AnaState::PERSISTENT_LOSS, &[]),
    ] {
        set(&mut paths, A, Condition::Access(a), now);
        set(&mut paths, B, Condition::Access(b), now);
        assert_eq!(paths.active(GROUP, |_| true), active, "{a} {b}");
        assert_eq!((paths.access(A, GROUP), paths.access(B, GROUP)), (Some(a), Some(b)));
    }
    assert_eq!(paths.active(GROUP, |_| false), []);
}
