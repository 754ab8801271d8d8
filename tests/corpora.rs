//! Replays what fuzzers have found interesting, in the ordinary tests.

#[path = "fuzz/targets.rs"]
mod targets;

use std::{fs, path::Path};

/// Runs one target over its part of the corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in folder.read_dir().expect("the corpus is committed") {
        let path = entry.expect("a file").path();
        target(&fs::read(&path).expect("a file that can be read"));
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
    ana_log,
    changed_namespaces_log,
    configuration_ini,
    configuration_json,
    discovery,
    discovery_conf,
    effects_log,
    error_log,
    firmware_log,
    health_log,
    identify,
    private_data,
    short_log_pages,
    simulation,
    target
);
