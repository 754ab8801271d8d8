//! Standard output of commands that use a target: a closed pipe ends them quietly, a full disk is a
//! failure in one line.

// bed: waits --target tests/targets/closed.toml

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::{SUBSYSTEM, address, note, nvmf, uri};

/// Runs each command that prints, in each format, with standard output as `stdout` makes it, and
/// passes the end of it to `check`. Commands that stay connected would run for a minute.
fn for_each_command(stdout: impl Fn() -> Stdio, check: impl Fn(&str, i32, &str)) {
    let (target, address) = (&*uri(SUBSYSTEM), &*address());
    let short = ["--ns", "1", "--runtime", "200ms", "--ramp", "0"];
    for arguments in [
        &[&["bench", target][..], &short].concat()[..],
        &[&["bench", target, "-o", "json"][..], &short].concat(),
        &["discover", "-a", address],
        &["discover", "-a", address, "-o", "json"],
        &["discover", "-a", address, "--persistent"],
        &["discover", "-a", address, "--recursive", "-o", "json"],
        &["identify", target],
        &["identify", target, "-o", "json"],
        &["identify", target, "--raw"],
        &["id-ctrl", target],
        &["id-ns", target, "--ns", "1", "-o", "json"],
        &["log", "health", target],
        &["log", "health", target, "-o", "json"],
        &["monitor", target, "--runtime", "60"],
        &["monitor", target, "--runtime", "60", "-o", "json"],
        &["read", target, "--ns", "1", "--blocks", "8192"],
        &["write-verify", target, "--ns", "1", "--size", "1M", "--overwrite"],
        &["write-verify", target, "--ns", "1", "--size", "1M", "--overwrite", "-o", "json"],
    ] {
        let mut command = nvmf();
        run_and_check(command.args(arguments).stdout(stdout()), &check);
    }
    let soft_roce = std::env::var("SOFT_ROCE_PROGRAM").expect("run by ./tests/run");
    for arguments in [&["target", "show"][..], &["target", "show", "--json"]] {
        let mut command = Command::new(&soft_roce);
        run_and_check(command.args(arguments).stdout(stdout()), &check);
    }
}

fn run_and_check(command: &mut Command, check: &impl Fn(&str, i32, &str)) {
    let name = format!("{command:?}");
    note(&format!("the end of {name}"));
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(Child::wait_with_output).expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(30), "{name}: it went on");
    let code = output.status.code().expect("no signal");
    check(&name, code, &String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_closed_pipe_ends_a_command_quietly() {
    let closed_pipe = || std::io::pipe().expect("a pipe").1.into();
    for_each_command(closed_pipe, |command, code, messages| {
        assert_eq!((code, messages), (0, ""), "{command}");
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_full_disk_is_a_failure_in_one_line() {
    let full_disk =
        || File::options().write(true).open("/dev/full").expect("every Linux has it").into();
    for_each_command(full_disk, |command, code, messages| {
        assert_eq!((code, messages.lines().count()), (1, 1), "{command}: {messages}");
        assert!(messages.contains("No space left"), "{command}: {messages}");
    });
}
