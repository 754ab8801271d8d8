//! Tests that call cargo again, as trybuild does, under cargo's runner variable.

use std::{fs, path::Path, process::Stdio};

use tempfile::TempDir;

use crate::support::{Bed, PROGRAM, expect_success, text};

/// A package whose test builds and runs another package by cargo.
const FILES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        "[package]\nname = \"outer\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
    ),
    ("src/lib.rs", "//! Nothing but tests.\n"),
    (
        "tests/nested.rs",
        r#"use std::process::Command;

#[test]
fn cargo_runs_the_inner_package_in_this_guest() {
    assert_eq!(std::env::var("SOFT_ROCE").as_deref(), Ok("1"));
    for command in ["check", "build", "run"] {
        let output = Command::new(env!("CARGO"))
            .args([command, "--offline", "--quiet", "--manifest-path", "inner/Cargo.toml"])
            .env("CARGO_TARGET_DIR", "inner-target")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {}: {error}", output.status);
        let expected = if command == "run" { "inner runs on soft-roce\n" } else { "" };
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{error}");
    }
}
"#,
    ),
    (
        "inner/Cargo.toml",
        "[package]\nname = \"inner\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
    ),
    (
        "inner/src/main.rs",
        r#"fn main() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    println!("inner runs on {}", name.trim());
}
"#,
    ),
];

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_test_that_calls_cargo_ends() {
    let bed = Bed::new();
    let package = TempDir::new().unwrap();
    for (name, contents) in FILES {
        let path = package.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let triple = std::env::consts::ARCH.to_uppercase() + "_UNKNOWN_LINUX_GNU";
    let mut command = bed.environment(env!("CARGO"));
    command.args(["test", "--offline"]).current_dir(package.path()).stdin(Stdio::null());
    command.env("CARGO_TARGET_DIR", Path::new("outer-target"));
    let runner = format!("{PROGRAM} run --timeout 300 --");
    command.env(format!("CARGO_TARGET_{triple}_RUNNER"), runner);
    let output = command.output().unwrap();
    println!("{}", text(&output.stdout));
    expect_success(&output);
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn run_in_a_guest_executes_in_that_guest() {
    let bed = Bed::new();
    let script = format!(
        "{PROGRAM} run --timeout 9 --mem 2G -- sh -c 'uname -n; exit 3'; echo $?
         {PROGRAM} run -- /nonexistent; echo $?
         env -u SOFT_ROCE {PROGRAM} run -- uname -n
         {PROGRAM} run --target /etc/passwd -- true; echo $?
         {PROGRAM} run --shell; echo $?"
    );
    let output = bed.shell(&["--timeout", "60"], &script);
    expect_success(&output);
    assert_eq!(text(&output.stdout), "soft-roce\n3\n127\nsoft-roce\n2\n2\n");
    let error = text(&output.stderr);
    assert!(error.contains("its target is another") && error.contains("/nonexistent"), "{error}");
    let same = bed.with_target("basic", "soft-roce run --target $SOFT_ROCE_TARGET -- echo same");
    assert_eq!(text(&same.stdout), "same\n", "{}", text(&same.stderr));
}
