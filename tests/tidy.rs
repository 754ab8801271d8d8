//! House rules that no linter can state, checked by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// What stands at the top of the checkout, dot-files and build output aside.
const TOP: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "auth",
    "benches",
    "rdma-host",
    "soft-roce",
    "tests",
    "verbs",
];

/// Lines of a source file, tests and all; the house limit for code.
const LINES_MAX: usize = 800;

/// The only places where unsafe code may stand.
const UNSAFE: [&str; 4] =
    ["benches/baseline/theirs.rs", "verbs/rdma-core-sys/", "verbs/src/memory.rs", "verbs/src/sys/"];

/// What sans-IO code does not name: clocks, randomness, threads, locks, logs, devices, I/O.
const IMPURE: [&str; 14] = [
    "Instant::now",
    "SystemTime",
    "thread::",
    "tokio",
    "tracing",
    "parking_lot",
    "Mutex",
    "quanta",
    "getrandom",
    "std::fs",
    "std::net::Tcp",
    "std::io",
    "verbs",
    "println!",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests has a parent").to_owned()
}

/// Every Rust file of ours, by its path from the top.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![top()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(top()).expect("below the top");
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((relative.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The lines of code of a file: no comments, and nothing from its unit tests on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

#[test]
fn the_top_level_is_the_architecture() {
    let mut names: Vec<_> = fs::read_dir(top())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    names.sort();
    assert_eq!(names, TOP);
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; {LINES_MAX} is the limit");
        for (number, line) in text.lines().enumerate() {
            let width = line.chars().count();
            assert!(width <= 100, "{path}:{}: {width} columns; 100 is the limit", number + 1);
        }
    }
}

#[test]
fn unsafe_code_stands_where_it_is_looked_for() {
    for (path, text) in sources() {
        let allowed = UNSAFE.iter().any(|place| path.starts_with(place));
        for (number, line) in code(&text) {
            let found = line.contains("unsafe {")
                || line.contains("unsafe fn")
                || line.contains("unsafe impl")
                || line.contains("allow(unsafe_code");
            assert!(allowed || !found || path == "tests/tidy.rs", "{path}:{number}: {line}");
        }
    }
}

/// Posting, registering and all else is safe to call, whoever calls it.
#[test]
fn the_engine_offers_nothing_unsafe() {
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("verbs/src/")) {
        for (number, line) in code(text) {
            let found = line.trim_start().starts_with("pub unsafe ");
            assert!(!found, "{path}:{number}: agreed on by whom? {line}");
        }
    }
}

#[test]
fn safety_comments_say_why() {
    for (path, text) in sources() {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(first) = line.strip_prefix("// SAFETY:") else { continue };
            let rest = lines[number + 1..].iter().map_while(|line| line.strip_prefix("//"));
            let words: usize = std::iter::once(first)
                .chain(rest)
                .map(|part| part.split_whitespace().count())
                .sum();
            assert!(words >= 6, "{path}:{}: too short to be an argument", number + 1);
        }
    }
}

#[test]
fn the_protocol_touches_nothing() {
    let pure = ["rdma-host/src/proto/", "rdma-host/src/wire/", "auth/src/"];
    for (path, text) in sources() {
        // Tests of it may read and write what they compare with.
        if path.ends_with("/tests.rs") || !pure.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&text) {
            for word in IMPURE {
                assert!(!line.contains(word), "{path}:{number}: {word} in sans-IO code: {line}");
            }
        }
    }
}

#[test]
fn layers_know_only_what_is_below() {
    let forbidden: [(&str, &[&str]); 4] = [
        (
            "rdma-host/src/wire/",
            &["crate::proto", "crate::driver", "crate::config", "crate::error"],
        ),
        ("rdma-host/src/proto/", &["crate::driver"]),
        ("verbs/src/", &["rdma_host", "auth::"]),
        ("auth/src/", &["rdma_host", "verbs::"]),
    ];
    for (path, text) in sources() {
        for (place, words) in forbidden {
            if !path.starts_with(place) {
                continue;
            }
            for (number, line) in code(&text) {
                let found = words.iter().find(|word| line.contains(*word));
                assert_eq!(found, None, "{path}:{number}: {line}");
            }
        }
    }
}

#[test]
fn the_seam_stays_narrow() {
    let provider = fs::read_to_string(top().join("verbs/src/provider.rs")).unwrap();
    let body = provider.split("pub trait Provider").nth(1).expect("the trait");
    let body = body.split("\n}").next().expect("its end");
    let methods = body.lines().filter(|line| line.trim_start().starts_with("fn ")).count();
    assert!((1..=12).contains(&methods), "Provider has {methods} methods; 12 is the limit");
}
