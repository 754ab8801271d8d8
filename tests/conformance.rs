//! What a provider must do, asked of each: the fabric, and rxe on both kernels.
//!
//! A case does something and says in a few words what came of it. The fabric must answer every
//! case as it is written here. Where rxe answers otherwise, `conformance-rxe.txt` says so for the
//! kernel, and must go on saying so.

// bed:
// bed (extended calls): RDMA_TEST_INTERFACE=extended

mod conformance {
    pub(crate) mod bench;
    pub(crate) mod connecting;
    pub(crate) mod one_sided;
    pub(crate) mod sending;
    pub(crate) mod sharing;
}

use std::{collections::BTreeMap, fs, panic, time::Duration};

use conformance::{
    bench::{Bench, Case, OnFabric, OnRxe},
    connecting, one_sided, sending, sharing,
};

#[test]
fn the_fabric_does_what_a_provider_must() {
    let answers = ask(&OnFabric::new());
    assert!(answers.is_empty(), "the fabric differs:\n{}", table(&answers));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn rxe_differs_only_where_it_is_known_to() {
    let answers = ask(&OnRxe);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let kernel = if release.starts_with("6.12") { "6.12" } else { "7" };
    let mut found = table(&answers);
    found = found.lines().map(|line| format!("{kernel}: {line}\n")).collect();
    let own = |line: &&str| line.starts_with(&format!("{kernel}: "));
    let known: String = KNOWN.lines().filter(own).map(|line| format!("{line}\n")).collect();
    assert_eq!(found, known, "found on {}, and known:\n{found}\n{known}", release.trim());
}

/// Runs all cases; returns the answers that are not as they must be.
fn ask<B: Bench>(bench: &B) -> BTreeMap<&'static str, String> {
    let cases = [connecting::cases(), sending::cases(), one_sided::cases(), sharing::cases()];
    let mut differing = BTreeMap::new();
    for Case { name, must, ask } in cases.into_iter().flatten() {
        let answer = panic::catch_unwind(panic::AssertUnwindSafe(|| ask(bench)));
        let answer = answer.unwrap_or_else(|_| "stopped short".to_owned());
        if answer != must {
            eprintln!("{name}: {answer}, and not: {must}");
            differing.insert(name, answer);
        }
        bench.quiet(Duration::from_millis(1));
    }
    differing
}

fn table(answers: &BTreeMap<&'static str, String>) -> String {
    answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect()
}

const KNOWN: &str = include_str!("conformance-rxe.txt");
