//! Replays what fuzzers have found interesting, in the ordinary tests.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// Runs one target over its part of the corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in folder.read_dir().expect("the corpus is committed") {
        let path = entry.expect("a file").path();
        target(&std::fs::read(&path).expect("a file that can be read"));
        count += 1;
    }
    assert!(count >= 5, "{name} has {count} inputs");
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name);
            }
        )*
    };
}

replays!(
    secret,
    negotiate,
    challenge,
    reply,
    success1,
    success2,
    failure,
    await_challenge,
    await_success1
);
