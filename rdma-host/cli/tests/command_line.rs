//! Command lines as users of nvme-cli and fio type them, without a target.

use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 11] = [
    "bench",
    "config",
    "discover",
    "identify",
    "key",
    "log",
    "monitor",
    "read",
    "write",
    "write-verify",
    "smart-log",
];

fn nvmf(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
    command.args(arguments).stdin(Stdio::null()).output().expect("nvmf runs")
}

/// Standard error of a command line that is refused: one line, exit code 2.
fn refused(arguments: &[&str]) -> String {
    let output = nvmf(arguments);
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(message.starts_with("nvmf: "), "{message}");
    message
}

fn help(command: &str) -> String {
    let output = nvmf(&[command, "--help"]);
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn verify_says_where_it_went() {
    let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
    for arguments in [&["verify"][..], &["verify", target, "--ns", "1", "--size", "1M"]] {
        let message = refused(arguments);
        assert!(
            message.contains("nvmf write-verify") && message.contains("overwrites"),
            "{message}"
        );
    }
}

#[test]
fn commands_of_nvme_cli_are_answered() {
    for (command, word) in [
        ("connect", "no block device"),
        ("connect-all", "no block device"),
        ("format", "nvme-cli"),
        ("resv-report", "reservations"),
        ("gen-tls-key", "TLS"),
        ("get-log", "nvmf log"),
        ("get-property", "nvmf identify"),
        ("compare", "nvmf read"),
    ] {
        let message = refused(&[command, "/dev/nvme0"]);
        assert!(message.contains(word) && message.contains(command), "{message}");
    }
    let message = refused(&["benhc"]);
    assert!(message.contains("benhc") && message.contains("'bench'"), "{message}");
}

#[test]
fn options_of_fio_are_answered() {
    for (option, word) in [
        ("--numjobs=4", "--threads"),
        ("--time_based", "--runtime"),
        ("--blocksize=4k", "--bs"),
        ("--ioengine=libaio", "engine"),
        ("--direct=1", "direct"),
        ("--filename=/dev/nvme0n1", "target"),
        ("--ramp_time=5", "--ramp"),
        ("--group_reporting", "always"),
    ] {
        let message = refused(&["bench", "nvmf-rdma://127.0.0.1:1/nqn.x", option]);
        assert!(message.contains(word), "{message}");
    }
    assert!(refused(&["write", "--start-block", "1"]).contains("--lba"));
}

#[test]
fn an_error_of_the_command_line_is_one_line() {
    for (arguments, word) in [
        (&["bench", "--bogus"][..], "nvmf bench --help"),
        (&["bench", "--rate", "10q"], "10q"),
        (&["bench", "--rw", "sideways"], "randread"),
        (&["log"], "PAGE"),
        (&["key"], "nvmf key --help"),
        (&["identify", "DHHC-1:00:c2VjcmV0:", "DHHC-1:00:c2VjcmV0:"], "DHHC-1:…"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(word) && !message.contains("c2VjcmV0"), "{message}");
    }
}

#[test]
fn help_says_which_commands_overwrite() {
    for command in ["write", "write-verify", "bench"] {
        let help = help(command);
        let first = help.lines().next().expect("a line").to_lowercase();
        assert!(first.contains("overwrite"), "{first}");
        assert!(help.contains("--overwrite") && help.contains("--force"), "{help}");
    }
    let help = help("read").lines().next().expect("a line").to_lowercase();
    assert!(!help.contains("write"), "{help}");
}

#[test]
fn help_has_an_example_and_fits_its_width() {
    for command in COMMANDS {
        let help = help(command);
        assert!(help.contains("Example:\n  nvmf "), "{command}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
    assert!(nvmf(&["--help"]).status.success());
}
