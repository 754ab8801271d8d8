//! House rules that no linter can state, checked by reading the sources.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source_text.rs"]
mod source_text;
#[path = "tidy/structure.rs"]
mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Entries at the top of the checkout, dot-files and build output aside.
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

/// The only places where unsafe code may stand. That of the C library is there because C passes
/// texts, structures and arrays by address, that of PMIx because its library is opened at run time,
/// that of ublk because io_uring takes addresses.
const UNSAFE: [&str; 7] = [
    "benches/ibverbs_crate/with_ibverbs.rs",
    "rdma-host/capi/src/ffi",
    "rdma-host/pmix/src/sys.rs",
    "rdma-host/ublk/src/sys.rs",
    "verbs/rdma-core-sys/",
    "verbs/src/memory",
    "verbs/src/sys/",
];

/// Names that sans-IO code does not use: clocks, randomness, threads, locks, logs, devices, I/O.
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
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // By this file a folder of cargo's output is known.
            if path.is_dir() && !hidden && !path.join("CACHEDIR.TAG").exists() {
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
    let mut wide = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; {LINES_MAX} is the limit");
        for (number, line) in text.lines().enumerate() {
            let width = line.chars().count();
            // A declaration for `tests/run` is one line, however long.
            if width > 100 && !line.starts_with("// bed") {
                wide.push(format!("{path}:{}: {width} columns; 100 is the limit", number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
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

/// No function of the engine is unsafe to call. An unsafe trait is a promise of who implements it,
/// in a file that `UNSAFE` names.
#[test]
fn the_engine_offers_nothing_unsafe() {
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("verbs/src/")) {
        for (number, line) in code(text) {
            let line = line.trim_start();
            let found = line.starts_with("pub unsafe ") && !line.starts_with("pub unsafe trait ");
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

/// The layers of the driver, each of which knows only those before it.
const DRIVER_LAYERS: [&str; 4] = ["data_path", "connect", "control", "api"];

#[test]
fn the_layers_of_the_driver_know_only_what_is_below() {
    for (index, layer) in DRIVER_LAYERS.iter().enumerate() {
        let folder = format!("rdma-host/src/driver/{layer}/");
        let sources = sources();
        let files: Vec<_> = sources.iter().filter(|(path, _)| path.starts_with(&folder)).collect();
        assert!(!files.is_empty(), "{folder} is there");
        for (path, text) in files {
            let lines = code(text).flat_map(|(_, line)| line.chars());
            let code: String = lines.filter(|letter| !letter.is_whitespace()).collect();
            for above in &DRIVER_LAYERS[index + 1..] {
                let named = ["{", ",", "driver::"].map(|before| format!("{before}{above}::"));
                let found = named.iter().find(|name| code.contains(*name));
                assert_eq!(found, None, "{path} knows {above}, which is above {layer}");
            }
        }
    }
}

/// Sources of time, tasks, threads, readiness and randomness, which the driver has in one folder.
const AMBIENT: [&str; 16] = [
    ".elapsed()",
    "AsyncFd",
    "Clock::new",
    "Instant::now",
    "SystemTime::now",
    "available_parallelism",
    "fastrand",
    "getrandom::fill",
    "getrandom::u",
    "hint::spin_loop",
    "new_v4",
    "spawn_blocking",
    "std::thread",
    "tokio::runtime",
    "tokio::spawn",
    "tokio::time",
];

/// A simulation takes the place of these sources; the order of a `select!` would be random. Unit
/// tests may use them.
#[test]
fn the_driver_has_one_source_of_time_and_chance() {
    let (driver, runtime) = ("rdma-host/src/driver/", "rdma-host/src/driver/runtime/");
    let (mut found, mut selects) = (BTreeSet::<&str>::new(), 0);
    let is_product = |path: &str| path.starts_with(driver) && !path.ends_with("/tests.rs");
    for (path, text) in sources().iter().filter(|(path, _)| is_product(path)) {
        let lines: Vec<_> = code(text).collect();
        for (index, (number, line)) in lines.iter().enumerate() {
            let ambient = AMBIENT.iter().filter(|word| line.contains(*word));
            if path.starts_with(runtime) {
                found.extend(ambient.copied());
                continue;
            }
            assert_eq!(ambient.count(), 0, "{path}:{number}: only `runtime` may: {line}");
            if line.contains("select!") {
                selects += 1;
                let next = lines.get(index + 1).map(|(_, line)| line.trim());
                assert_eq!(next, Some("biased;"), "{path}:{number}: a random order");
            }
        }
    }
    assert!(found.len() > 5 && selects > 5, "{found:?} in {runtime}, {selects} `select!`");
}

#[test]
fn the_provider_trait_stays_small() {
    let provider = fs::read_to_string(top().join("verbs/src/provider.rs")).unwrap();
    let body = provider.split("pub trait Provider").nth(1).expect("the trait");
    let body = body.split("\n}").next().expect("its end");
    let methods = body.lines().filter(|line| line.trim_start().starts_with("fn ")).count();
    assert!((1..=13).contains(&methods), "Provider has {methods} methods; 13 is the limit");
}

/// Sources of each program of tests, by its name to cargo: the main one, which is `NAME.rs` or
/// `NAME/main.rs` in a folder named `tests`, and what is in the folder `NAME`.
fn test_programs() -> BTreeMap<String, (String, Vec<(String, String)>)> {
    let mut files = BTreeMap::<String, Vec<_>>::new();
    for (path, text) in sources() {
        let slashed = format!("/{path}");
        let Some((_, below)) = slashed.rsplit_once("/tests/") else { continue };
        let name = below.split(['/', '.']).next().expect("a first part").to_owned();
        files.entry(name).or_default().push((path, text));
    }
    let mut programs = BTreeMap::new();
    for (name, sources) in files {
        let ends = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
        let is_main = |path: &&String| ends.iter().any(|end| path.ends_with(end));
        let mains: Vec<_> = sources.iter().map(|(path, _)| path).filter(is_main).collect();
        assert!(mains.len() < 2, "one name for two programs of tests: {mains:?}");
        if let [main] = mains[..] {
            programs.insert(name, (main.clone(), sources));
        }
    }
    programs
}

/// A handler that is made where a signal is awaited loses those that arrive between two waits.
#[test]
fn signals_are_caught_in_one_place() {
    for (path, text) in sources().iter().filter(|(path, _)| path != "tests/tidy.rs") {
        let found = text.contains("signal::ctrl_c") || text.contains("signal::unix");
        let place = path == "rdma-host/cli/src/shutdown.rs";
        assert_eq!(found, place, "{path}: only `ShutdownSignal` is to catch signals");
    }
}

/// `print!` and its kin panic when a reader has closed the pipe, and on a full disk.
#[test]
fn front_ends_print_without_a_panic() {
    let front_ends = ["rdma-host/cli/src/", "soft-roce/src/main.rs", "soft-roce/src/cli"];
    for (path, text) in sources() {
        if !front_ends.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&text) {
            let found = line.contains("print!(") || line.contains("println!(");
            assert!(!found, "{path}:{number}: print by its `output.rs` or `print`: {line}");
        }
    }
}

/// `tests/run` finds the bed's tests by lines that say how each is run.
#[test]
fn tests_that_are_ignored_say_how_the_bed_runs_them() {
    let programs = test_programs();
    assert!(programs.contains_key("interop"), "the programs were found");
    let mut declared_by = BTreeSet::new();
    for (main, files) in programs.values() {
        let ignored = files.iter().any(|(_, text)| text.lines().any(is_ignored));
        let text = &files.iter().find(|(path, _)| path == main).expect("it is one of them").1;
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("// bed")).collect();
        assert_eq!(ignored, !lines.is_empty(), "{main}: ignored tests, and no line `// bed: …`?");
        lines.iter().for_each(|line| check_declaration(main, line));
        if ignored {
            declared_by.extend(files.iter().map(|(path, _)| path.clone()));
        }
    }
    for (path, text) in sources().iter().filter(|(path, _)| !declared_by.contains(path)) {
        let stray = text.lines().find(|line| line.starts_with("// bed") || is_ignored(line));
        assert_eq!(stray, None, "{path}: `tests/run` does not look for it here");
    }
}

/// Checks a declaration by the rules in the head of `tests/run`.
fn check_declaration(path: &str, line: &str) {
    let rest = line.strip_prefix("// bed").expect("it was looked for");
    let rest = match rest.strip_prefix(" (") {
        Some(labelled) => labelled.split_once(')').expect("the end of a label").1,
        None => rest,
    };
    let rest = rest.strip_prefix(':').unwrap_or_else(|| panic!("{path}: no colon: {line}"));
    let options = rest.split_once(" -- ").map_or(rest, |(options, _)| options);
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        if word.starts_with("--") {
            let value = words.next().unwrap_or_else(|| panic!("{path}: {word} of what? {line}"));
            let missing = word == "--target" && !top().join(value).exists();
            assert!(!missing, "{path}: no file {value}");
        } else {
            let known = ["waits", "long", "host"].contains(&word) || word.contains('=');
            assert!(known, "{path}: {word} is no word that `tests/run` knows: {line}");
        }
    }
}

#[test]
fn cargo_knows_every_file_of_tests() {
    let programs = test_programs();
    let found: BTreeSet<_> =
        programs.values().filter_map(|(main, _)| main.strip_prefix("tests/")).collect();
    let read = |path| fs::read_to_string(top().join(path)).expect("the manifest");
    let manifests = read("tests/Cargo.toml") + &read("tests/support/simulation/Cargo.toml");
    let manifests = manifests.replace("../../", "");
    let tables = manifests.split("[[test]]").skip(1);
    let known: BTreeSet<_> =
        tables.filter_map(|table| table.split("path = \"").nth(1)?.split('"').next()).collect();
    assert_eq!(found, known, "files of tests, and those that tests/Cargo.toml names");
}

fn is_ignored(line: &str) -> bool {
    line.trim_start().starts_with("#[ignore")
}

/// `tests/mutants/run` sees if the tests notice these bugs; that takes long.
#[test]
fn each_bug_to_be_noticed_can_be_made_and_names_its_test() {
    let folder = top().join("tests/mutants");
    let sources = sources();
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let name = path.display();
        let mut git = Command::new("git");
        let applied = git.args(["apply", "--check"]).arg(&path).current_dir(top()).output();
        let applied = applied.expect("git starts");
        let message = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success(), "{name}: make the same bug in today's code: {message}");
        let text = fs::read_to_string(&path).expect("UTF-8");
        let test = text.lines().find_map(|line| line.strip_prefix("Test: ")).expect("its test");
        let test = test.rsplit([' ', ':']).next().expect("the last part");
        let is_there = sources.iter().any(|(_, text)| text.contains(&format!("fn {test}(")));
        assert!(is_there, "{name}: no test {test}");
        count += 1;
    }
    assert!(count >= 20, "{count} bugs");
}

/// Limits of one folder: doc comments that open without a noun, comment lines with a word of
/// [`OLD_WORDS`], and imports that another one of their group could hold.
struct Language {
    folder: &'static str,
    nounless: usize,
    old_words: usize,
    flat_imports: usize,
}

const fn language(folder: &'static str, counts: [usize; 3]) -> Language {
    let [nounless, old_words, flat_imports] = counts;
    Language { folder, nounless, old_words, flat_imports }
}

/// Counts of today, which only go down; a file belongs to the first folder that holds it. The goal
/// is 6 % of all doc comments, and 0 of both others.
const LANGUAGE: [Language; 9] = [
    language("auth/", [0, 0, 0]),
    language("benches/", [0, 0, 0]),
    language("rdma-host/cli/", [0, 0, 0]),
    language("rdma-host/src/driver/", [0, 0, 0]),
    language("rdma-host/", [0, 0, 0]),
    language("soft-roce/fabric/", [0, 0, 0]),
    language("soft-roce/", [0, 0, 0]),
    language("tests/", [0, 0, 0]),
    language("verbs/", [0, 0, 0]),
];

/// Percentage of all doc comments that may open without a noun.
const NOUNLESS_PERCENT_MAX: usize = 6;

/// Difference from a limit at which it has to be lowered. Smaller ones are tolerated, so that
/// changes made at the same time do not conflict.
const LANGUAGE_SLACK: usize = 40;

/// First words of a doc comment that say something about the item before they say what it is.
const NOUNLESS: [&str; 21] = [
    "Apart", "By", "How", "It", "Its", "Of", "That", "The same", "They", "Those", "What",
    "Whatever", "When", "Where", "Whether", "Which", "While", "Who", "Whoever", "Whose", "Why",
];

/// Words that leave open what is meant, or are not technical English.
const OLD_WORDS: [&str; 6] = ["anew", "lest", "nobody", "so many", "somebody", "whoever"];

/// Documentation opens with the noun, comments are technical English, imports are nested.
#[test]
fn language_and_imports_only_get_better() {
    let mut documented = 0;
    let mut found = LANGUAGE.map(|limit| language(limit.folder, [0; 3]));
    for (path, text) in sources() {
        let count = found.iter_mut().find(|count| path.starts_with(count.folder));
        let count = count.unwrap_or_else(|| panic!("{path}: its folder is not in LANGUAGE"));
        let openings = doc_openings(&text);
        documented += openings.len();
        count.nounless += openings.iter().filter(|opening| is_nounless(opening)).count();
        count.old_words += text.lines().filter(|line| has_old_word(line)).count();
        count.flat_imports += flat_imports(&text);
    }
    let nounless: usize = found.iter().map(|count| count.nounless).sum();
    let share = format!("{nounless} of {documented} doc comments open without a noun");
    assert!(nounless * 100 <= documented * NOUNLESS_PERCENT_MAX, "{share}");
    println!("{share}");
    for (count, limit) in found.iter().zip(&LANGUAGE) {
        let counts = [
            ("doc comments that open without a noun", count.nounless, limit.nounless),
            ("comment lines with a word of OLD_WORDS", count.old_words, limit.old_words),
            ("imports that are not nested", count.flat_imports, limit.flat_imports),
        ];
        for (what, count, limit_now) in counts {
            let folder = limit.folder;
            assert!(count <= limit_now, "{folder}: {count} {what}; the limit is {limit_now}");
            let lower = format!("{folder}: {count} {what}, lower the limit of {limit_now} to that");
            assert!(count + LANGUAGE_SLACK > limit_now, "{lower}");
            if count < limit_now {
                println!("{lower}");
            }
        }
    }
}

/// First line of each doc comment.
fn doc_openings(text: &str) -> Vec<&str> {
    let marker = |line: &str| ["///", "//!"].into_iter().find(|marker| line.starts_with(marker));
    let (mut openings, mut previous) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        let found = marker(line).filter(|_| !line.starts_with("////"));
        if let Some(marker) = found.filter(|_| found != previous) {
            openings.push(line.trim_start_matches(marker).trim_start());
        }
        previous = found;
    }
    openings
}

fn is_nounless(opening: &str) -> bool {
    NOUNLESS.iter().any(|word| {
        let rest = opening.strip_prefix(word);
        rest.is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_alphanumeric()))
    })
}

fn has_old_word(line: &str) -> bool {
    let Some((_, comment)) = line.split_once("//") else { return false };
    let letters = |letter: char| if letter.is_alphabetic() { letter } else { ' ' };
    let comment: String = comment.to_lowercase().chars().map(letters).collect();
    let comment = format!(" {comment} ");
    OLD_WORDS.iter().any(|word| comment.contains(&format!(" {word} ")))
}

/// Number of imports at the outermost level that could be part of one before them, in the same
/// group and with the same visibility, as `imports_granularity = "Crate"` of rustfmt would have it.
fn flat_imports(text: &str) -> usize {
    let (mut roots, mut count, mut attribute) = (BTreeSet::new(), 0, false);
    for line in text.lines() {
        let import = line.strip_prefix("pub use ").map(|path| (true, path));
        let import = import.or_else(|| line.strip_prefix("use ").map(|path| (false, path)));
        match import {
            Some((public, path)) if !attribute => {
                let root = path.split([':', ';', ' ']).next().expect("a first part");
                count += usize::from(!roots.insert((public, root)));
            }
            _ if line.is_empty() => roots.clear(),
            _ => {}
        }
        attribute = line.starts_with("#[");
    }
    count
}

#[test]
fn language_is_counted_as_described() {
    let text = "//! What.\n//! Of it.\nuse a::b;\nuse a::c;\nuse b::c;\n\nuse a::d;\n\
                #[cfg(test)]\nuse a::e;\npub use a::f;\n\n/// Number of these.\n    /// Whether\n\
                fn f() {} // A WORD, this\n/// Whatsoever is\n//// The same\n";
    let text = &text.replace("WORD", OLD_WORDS[0]);
    let openings = doc_openings(text);
    assert_eq!(openings, ["What.", "Number of these.", "Whatsoever is"]);
    assert_eq!(openings.iter().filter(|opening| is_nounless(opening)).count(), 1);
    assert_eq!(text.lines().filter(|line| has_old_word(line)).count(), 1);
    assert_eq!(flat_imports(text), 1);
}
