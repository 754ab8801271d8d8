//! The kernel: what our patches do, and that a kernel is tried before it is used.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{Bed, PROGRAM, expect_success, kernel_program, text};

/// The extended state of a processor with AMX, in bytes; none has more today.
const AMX_BYTES: usize = 11_008;

/// A script in `folder` that starts the kernel with an extended state that looks that large.
fn with_extended_state(folder: &Path, bytes: usize) -> Option<PathBuf> {
    let library = folder.join("xstate.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/xstate.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    if !compiler.status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: a larger extended state cannot be pretended without gcc");
        return None;
    }
    let script = folder.join(format!("linux-{bytes}"));
    let words = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} XSTATE_BYTES={bytes}\nexec {} \"$@\"\n",
        library.display(),
        kernel_program().display()
    );
    fs::write(&script, words).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Some(script)
}

fn run_with(kernel: &Path, words: &[&str]) -> Output {
    let bed = Bed::new();
    // The other way, which 7.x has, takes the state from signal frames.
    let options = ["--kernel", kernel.to_str().unwrap(), "--kernel-arg", "seccomp=off", "--"];
    let output = bed.run(&options).args(words).output().unwrap();
    bed.expect_nothing_left();
    output
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn an_extended_state_as_large_as_any_processors_works() {
    let folder = TempDir::new().unwrap();
    let Some(kernel) = with_extended_state(folder.path(), AMX_BYTES) else { return };
    let script = "for n in 1 2 3 4 5 6 7 8; do (sleep 0.01; exit 1) & done; wait; exit 7";
    let output = run_with(&kernel, &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_larger_extended_state_works_or_is_told_in_words() {
    let folder = TempDir::new().unwrap();
    let Some(kernel) = with_extended_state(folder.path(), 20_000) else { return };
    let output = run_with(&kernel, &["sh", "-c", "exit 7"]);
    let error = text(&output.stderr);
    // 7.x asks the host for the size; the others have a fixed one.
    let told = output.status.code() == Some(101) && error.contains("has 20000 bytes");
    assert!(told || output.status.code() == Some(7), "{:?}: {error}", output.status);
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn checksums_are_fast_where_the_processor_can() {
    let bed = Bed::new();
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let can = flags.contains("pclmulqdq") && flags.contains("sse4_1");
    let says = |options: &[&str]| {
        let output = bed.shell(options, "dmesg | grep -c 'crc32: carry-less multiplication$'");
        text(&output.stdout).trim() == "1"
    };
    assert_eq!(says(&[]), can);
    assert!(!says(&["--kernel-arg", "crc32_pclmul=0"]));
    let output = bed.shell(&[], "dmesg | grep -c 'differs from the table'");
    assert_eq!(text(&output.stdout).trim(), "0");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_configuration_can_be_read_inside() {
    let bed = Bed::new();
    let output = bed.shell(&[], "zcat /proc/config.gz | grep -c '^CONFIG_RDMA_RXE=y$'");
    assert_eq!(text(&output.stdout), "1\n");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn doctor_boots_each_kernel_and_says_so() {
    let mut doctor = Command::new(PROGRAM);
    let output = doctor.args(["doctor", "--json"]).env("SOFT_ROCE_KERNEL", kernel_program());
    let output = output.output().unwrap();
    expect_success(&output);
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = checks.as_array().unwrap().iter().find(|check| {
        check["subject"] == "kernel of SOFT_ROCE_KERNEL" && check["verdict"] == "good"
    });
    let text_of = found.expect("the kernel was tried")["text"].as_str().unwrap().to_owned();
    assert!(text_of.starts_with("boots in "), "{text_of}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn an_exported_kernel_is_imported_and_boots() {
    let name = std::env::var("SOFT_ROCE_KERNEL").unwrap_or_else(|_| "6.12".into());
    if name.contains('/') {
        println!("SKIPPED: a kernel that is not in the cache cannot be exported");
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("kernels");
    let program = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(words).env("SOFT_ROCE_KERNEL", &name);
        command
    };
    let file = file.to_str().unwrap();
    expect_success(&program(&["export", file, "--kernel", &name]).output().unwrap());
    let other = folder.path().join("cache");
    let imported = program(&["import", file]).env("XDG_CACHE_HOME", &other).output().unwrap();
    expect_success(&imported);
    assert_eq!(text(&imported.stdout), format!("imported: {name}\n"));
    let ran = program(&["run", "--", "sh", "-c", "exit 7"]).env("XDG_CACHE_HOME", &other).output();
    assert_eq!(ran.unwrap().status.code(), Some(7));
}
