//! Any sequence of operations on the verbs engine: see `tests::sequence` for what must hold.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{collection::vec, prelude::*};
use tests::{
    noise,
    sequence::{Counts, run},
};

/// Events that these seeds must reach between them, or the operations are not varied enough.
const REACHED: [&str; 32] = [
    "AddressChange",
    "DeviceRemoval",
    "Disconnected",
    "FLUSHED",
    "GENERAL",
    "LOCAL_LENGTH",
    "RECEIVER_NOT_READY",
    "REMOTE_ACCESS",
    "REMOTE_INVALID_REQUEST",
    "RETRY_EXCEEDED",
    "Rejected",
    "SUCCESS",
    "TimewaitExit",
    "Unreachable",
    "awaited",
    "bound",
    "closed",
    "disconnected",
    "drained",
    "dropped",
    "established",
    "fault 25",
    "fault 26",
    "invalidated",
    "message",
    "nothing to disconnect",
    "of a closed queue pair",
    "posted",
    "posted inline",
    "reclaimed",
    "refused",
    "stale",
];

#[test]
fn what_must_hold_holds_for_fixed_seeds() {
    let seeds = if cfg!(miri) { 3 } else { 400 };
    let operations = if cfg!(miri) { 120 } else { 600 };
    let mut all = Counts::new();
    for seed in 0..seeds {
        let counts = run(&noise(3 * operations, seed));
        counts.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
    }
    if cfg!(miri) {
        return; // too few to have reached everything
    }
    println!("{all:#?}");
    let reached: BTreeSet<_> = all.keys().map(String::as_str).collect();
    let missing: Vec<_> = REACHED.iter().filter(|what| !reached.contains(**what)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn the_same_bytes_do_the_same() {
    for seed in 0..5 {
        let bytes = noise(3 * 100, seed);
        assert_eq!(run(&bytes), run(&bytes), "seed {seed}");
    }
}

/// The sequences that led the fuzzer to new places, each to its own: `tests/longer`.
#[test]
fn what_must_hold_holds_for_what_the_fuzzer_has_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/sequence");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the corpus is part of the sources")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    assert!(files.len() >= 50, "only {} sequences", files.len());
    files.truncate(if cfg!(miri) { 5 } else { usize::MAX });
    for file in files {
        println!("{}", file.display()); // shown if it fails
        let _ = run(&fs::read(&file).expect("it can be read"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        max_shrink_iters: 100_000,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_must_hold_holds(operations in vec(any::<[u8; 3]>(), 0..400)) {
        let _ = run(operations.as_flattened());
    }
}
