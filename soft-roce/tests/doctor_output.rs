//! Standard output of commands that start no guest: a closed pipe is no failure, a full disk is one
//! in one line.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

const COMMANDS: [&[&str]; 4] =
    [&["--help"], &["doctor"], &["doctor", "--json"], &["native", "status"]];

/// Exit code and messages.
fn soft_roce(arguments: &[&str], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soft-roce"));
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let output = command.spawn().and_then(Child::wait_with_output).expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    for arguments in COMMANDS {
        let (_, writer) = std::io::pipe().expect("a pipe");
        let (code, messages) = soft_roce(arguments, writer);
        // `doctor` fails if something is missing here.
        assert!(code == Some(0) || arguments[0] == "doctor", "{arguments:?}: {messages}");
        assert_eq!(messages, "", "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure_in_one_line() {
    for arguments in COMMANDS {
        let disk = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let (code, messages) = soft_roce(arguments, disk);
        assert_eq!((code, messages.lines().count()), (Some(1), 1), "{arguments:?}: {messages}");
        assert!(messages.contains("No space left"), "{arguments:?}: {messages}");
    }
}

#[test]
fn help_has_a_width_that_can_be_read() {
    for (columns, most) in [("1", 60), ("300", 100)] {
        for arguments in [&["--help"][..], &["run", "--help"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_soft-roce"));
            let command = command.args(arguments).env("COLUMNS", columns).stdin(Stdio::null());
            let output = command.output().expect("it runs");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            // Long words are not broken.
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(most), "{arguments:?}: {widest:?}");
            // Nor is there a word in each line.
            let lines = || text.lines().filter(|line| !line.is_empty());
            let long = lines().filter(|line| line.split_whitespace().count() > 2);
            assert!(long.count() * 3 > lines().count(), "{text}");
        }
    }
}
