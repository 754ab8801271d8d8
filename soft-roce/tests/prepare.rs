//! `soft-roce/prepare`, as far as it changes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

fn prepare(option: &str, variable: &str, value: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/prepare");
    Command::new(script).arg(option).env(variable, value).output().unwrap()
}

#[test]
fn a_missing_cargo_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let done = prepare("--check", "PATH", &path);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(done.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("prepare: missing: ") && said.contains("rustup.rs"), "{said}");
}

#[test]
fn the_folder_of_cargos_output_is_found() {
    let done = prepare("--target-dir", "CARGO_TARGET_DIR", "/nonexistent/output");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "/nonexistent/output\n", "{said}");
}
