//! The kernel's own initiator and ours, against the same target, through the same faults: the same
//! verdict, or a reason why ours is better.
//!
//! A case makes a target of its own, connects both initiators to it, injects a fault, perhaps
//! removes it, and observes both. The outcome must be the one that the case expects, and the table
//! of all is `differential-6.12.md` and `differential-7.md`.

// An allowed line is a warning that the kernel of this series prints in any case.
// bed: waits long --kernel 6.12 --target tests/targets/differential.toml --allow nvmet_subsys_free
// bed: waits long --kernel 7 --target tests/targets/differential.toml --allow check_flush_dep

mod differential {
    pub(crate) mod authentication;
    pub(crate) mod case;
    pub(crate) mod case_target;
    pub(crate) mod connection_loss;
    pub(crate) mod coverage;
    pub(crate) mod fake_target;
    pub(crate) mod fake_target_cases;
    pub(crate) mod first_connect;
    pub(crate) mod kernel_initiator;
    pub(crate) mod namespaces;
    pub(crate) mod network;
    pub(crate) mod observe;
    pub(crate) mod our_initiator;
    pub(crate) mod rejected_reconnect;
    pub(crate) mod run_case;
}

use std::{
    fmt::Write as _,
    fs,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use differential::{
    authentication,
    case::{Case, Schedule},
    connection_loss, coverage, fake_target, fake_target_cases, first_connect, namespaces, network,
    rejected_reconnect,
    run_case::{CaseResult, Side, expected, run_case},
};
use rdma_host::Controller;
use tests::options;
use tokio::runtime::Handle;

/// Number of cases that run at once: they mostly wait.
const CONCURRENT_CASES: usize = 12;

/// Number of times that a case whose outcome is not the expected one is run again, alone: a case
/// may take the machine's time from those beside it; a difference between the initiators is there
/// each time.
const REPETITIONS: u16 = 2;

/// Distance between the numbers of a case's runs, since each has a target of its own.
const RUN_NUMBERS: u16 = 500;

/// Both initiators.
const BOTH: [Side; 2] = [Side::KernelInitiator, Side::OurInitiator];

/// Tables of the outcomes on either kernel.
const TABLE_6_12: &str = include_str!("differential-6.12.md");
const TABLE_7: &str = include_str!("differential-7.md");

/// Every cause that Linux decides on, and every attribute of nvmet that makes it fail, has a test.
#[test]
fn every_rule_and_every_attribute_has_a_case() {
    let missing = coverage::missing(&all());
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A controller of the kernel's that is left behind goes on to send requests, which would reach
/// into the cases of ours.
#[test]
fn what_is_left_behind_comes_last() {
    let left = all().into_iter().filter(|case| case.abandoned);
    let early: Vec<_> = left.filter(|case| case.schedule != Schedule::OneByOne).collect();
    assert!(early.is_empty(), "{early:#?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn both_initiators_through_the_same_faults() {
    fake_target::serve_if_remote();
    // The kernel's initiator waits 60 s for an admin command that is not answered, and at once for
    // all the commands of an authentication; the kernel complains of a task that waits longer.
    fs::write("/proc/sys/kernel/hung_task_timeout_secs", "600").expect("we are root");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let old = release.starts_with("6.12");
    let cases: Vec<_> =
        chosen().into_iter().filter(|case| case.needs.is_none_or(|_| !old)).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // It has the one controller id of its subsystem, for cases that need one to be taken.
    let holder = runtime
        .block_on(Controller::connect(&options()).into_future())
        .expect("the target is well");
    let results = run_all(&cases, runtime.handle());

    runtime.block_on(holder.shutdown());

    let mut table = String::from("| case | Linux | ours | why ours differs |\n|---|---|---|---|\n");
    let mut wrong = String::new();
    for (case, results) in cases.iter().zip(&results) {
        let expected = case.expected;
        let [kernel, ours] = BOTH.map(|side| {
            results.of(side).map_or("stopped short".into(), |result| result.seen.to_string())
        });
        writeln!(table, "| {} | {kernel} | {ours} | {} |", case.name, expected.reason).unwrap();
        if !as_expected(case, results, &BOTH) {
            wrong += &describe(case, results);
            writeln!(wrong, "  expected: {}; {}", expected.kernel, expected.ours).unwrap();
        }
        if kernel != ours && expected.reason.is_empty() {
            writeln!(wrong, "{}: they differ, and nothing says why", case.name).unwrap();
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "not as expected on {}:\n{wrong}", release.trim());
    if std::env::var_os("DIFFERENTIAL").is_none() {
        assert!(table == if old { TABLE_6_12 } else { TABLE_7 }, "the table is another one");
    }
}

fn all() -> Vec<Case> {
    let all = [
        first_connect::cases(),
        rejected_reconnect::cases(),
        connection_loss::cases(),
        namespaces::cases(),
        authentication::cases(),
        fake_target_cases::cases(),
        network::cases(),
    ];
    all.concat()
}

/// All cases, or those whose names contain what `DIFFERENTIAL` says.
fn chosen() -> Vec<Case> {
    let wanted = std::env::var("DIFFERENTIAL").unwrap_or_default();
    all().into_iter().filter(|case| case.name.contains(&wanted)).collect()
}

/// Runs all cases: first those that can run side by side, at last the kernel's initiator through
/// those that leave its connects hanging. The cases of a round whose outcome is not the expected
/// one run again before the next round.
fn run_all(cases: &[Case], runtime: &Handle) -> Vec<CaseResult> {
    let results: Vec<_> = cases.iter().map(|_| Mutex::new(CaseResult::default())).collect();
    let one = |index: usize, sides: &[Side], repetition: u16| {
        let case = &cases[index];
        let number = u16::try_from(index).expect("few cases") + repetition * RUN_NUMBERS;
        let start = Instant::now();
        // A case that stops short has no outcomes, which is none of those expected.
        let run = AssertUnwindSafe(|| run_case(number, case, sides, runtime));
        let outcomes = panic::catch_unwind(run).unwrap_or_default();
        let mut result = results[index].lock().expect("no thread panics while it sets one");
        for (position, &side) in sides.iter().enumerate() {
            result.set(side, outcomes.get(position).cloned());
        }
        eprint!("{:.1} s: {}", start.elapsed().as_secs_f64(), describe(case, &result));
    };
    let rounds = [
        (Schedule::Together, &BOTH[..], CONCURRENT_CASES),
        (Schedule::Alone, &BOTH, 1),
        (Schedule::OneByOne, &[Side::OurInitiator], 1),
        (Schedule::OneByOne, &[Side::KernelInitiator], 1),
    ];
    for (schedule, sides, concurrent) in rounds {
        let round: Vec<_> =
            (0..cases.len()).filter(|&index| cases[index].schedule == schedule).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..concurrent {
                scope.spawn(|| {
                    while let Some(&index) = round.get(next.fetch_add(1, Ordering::Relaxed)) {
                        one(index, sides, 0);
                    }
                });
            }
        });
        for repetition in 1..=REPETITIONS {
            for &index in &round {
                let result = results[index].lock().expect("set once a run").clone();
                if !as_expected(&cases[index], &result, sides) {
                    let before = describe(&cases[index], &result);
                    println!("REPEATED: {}", before.trim().replace('\n', ";"));
                    one(index, sides, repetition);
                }
            }
        }
    }
    results.into_iter().map(|result| result.into_inner().expect("set once a run")).collect()
}

fn as_expected(case: &Case, result: &CaseResult, sides: &[Side]) -> bool {
    sides.iter().all(|&side| result.of(side).map(|one| one.seen) == Some(expected(case, side)))
}

/// Outcomes of a case, with the history of either initiator.
fn describe(case: &Case, results: &CaseResult) -> String {
    let mut text = format!("{}\n", case.name);
    for (who, result) in [("Linux", &results.kernel), ("ours", &results.ours)] {
        match result {
            Some(told) => writeln!(text, "  {who}: {}: {}", told.seen, told.history)
                .expect("a string takes all"),
            None => writeln!(text, "  {who}: nothing").expect("a string takes all"),
        }
    }
    text
}
