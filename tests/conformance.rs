//! The conduct required of a provider, asked of each: the fabric, rxe and siw on both kernels.
//!
//! A case does something and says in a few words what came of it. The fabric must answer every
//! case as it is written here. Where a device answers otherwise, `conformance-rxe.txt` or
//! `conformance-siw.txt` says so for the kernel, and must go on saying so.

// bed:
// bed (extended calls): RDMA_TEST_API=extended
// bed (siw): --device siw

mod conformance {
    pub(crate) mod connecting;
    pub(crate) mod device_events;
    pub(crate) mod fixture;
    pub(crate) mod one_sided;
    pub(crate) mod sending;
}

use std::{any::Any, collections::BTreeMap, fs, panic, time::Duration};

use conformance::{
    connecting, device_events,
    fixture::{Bench, Case, OnDevice, OnFabric},
    one_sided, sending,
};

#[test]
fn the_fabric_does_what_a_provider_must() {
    let answers = ask(&OnFabric::new());
    assert!(answers.is_empty(), "the fabric differs:\n{}", table(&answers));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_device_differs_only_where_it_is_known_to() {
    // On siw many cases wait for what never comes.
    let (file, wait) = match tests::device() {
        "siw0" => (include_str!("conformance-siw.txt"), Duration::from_secs(2)),
        _ => (include_str!("conformance-rxe.txt"), Duration::from_secs(5)),
    };
    let answers = ask(&OnDevice { wait });
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let kernel = if release.starts_with("6.12") { "6.12" } else { "7" };
    let known = known(file, kernel);
    let differs = |(name, answer): &(&&str, &String)| match known.get(**name) {
        Some(answers) => !answers.contains(&answer.as_str()),
        None => true,
    };
    let found: Vec<_> =
        answers.iter().filter(differs).map(|(name, answer)| format!("{name}: {answer}")).collect();
    let gone: Vec<_> = known.keys().filter(|name| !answers.contains_key(**name)).collect();
    let release = release.trim();
    assert!(found.is_empty() && gone.is_empty(), "on {release} also {found:#?}, but not {gone:?}");
}

/// The known answers of each case on a kernel, from lines `KERNEL: CASE: ANSWER | ANSWER`.
fn known(file: &'static str, kernel: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let own = file.lines().filter_map(|line| line.strip_prefix(kernel)?.strip_prefix(": "));
    let parse = |line: &'static str| {
        let mut names = cases::<OnDevice>().map(|case| case.name);
        let name = names.find(|name| line.starts_with(&format!("{name}: ")));
        let name = name.unwrap_or_else(|| panic!("no case: {line}"));
        (name, line[name.len() + 2..].split(" | ").collect())
    };
    own.map(parse).collect()
}

/// Runs all cases; returns the answers that are not as they must be.
fn ask<B: Bench>(bench: &B) -> BTreeMap<&'static str, String> {
    let mut differing = BTreeMap::new();
    for Case { name, must, ask } in cases() {
        let answer = panic::catch_unwind(panic::AssertUnwindSafe(|| ask(bench)));
        let answer = answer.unwrap_or_else(|payload| format!("stopped: {}", message(&*payload)));
        if answer != must {
            eprintln!("{name}: {answer}, and not: {must}");
            differing.insert(name, answer);
        }
        bench.quiet(Duration::from_millis(1));
    }
    differing
}

fn cases<B: Bench>() -> impl Iterator<Item = Case<B>> {
    [connecting::cases(), sending::cases(), one_sided::cases(), device_events::cases()]
        .into_iter()
        .flatten()
}

/// The message of a panic, in one line.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn table(answers: &BTreeMap<&'static str, String>) -> String {
    answers.iter().map(|(name, answer)| format!("{name}: {answer}\n")).collect()
}
