//! Programs in C and C++ against the kernel's target: the examples, wrong arguments to a controller
//! that is connected, a loss of the connection.

// bed: --target tests/targets/commands.toml --deny non-flush.error

mod compile;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use compile::{has_compilers, program};
use rdma_host::RdmaCore;
use tests::{
    SUBSYSTEM,
    target::{Format, Target},
    uri,
};

/// Output of a program that succeeds.
fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {message}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_example_in_c_reads_what_it_wrote() {
    if !has_compilers() {
        return;
    }
    let (_folder, mut program) = program("examples/read_write.c");
    program.args([&uri(SUBSYSTEM), "1", "nr-io-queues=1", "reconnect-strict"]);
    let printed = succeed(&mut program);
    // The two segments count apart.
    assert_eq!(printed, "9 reads, 8 writes, 3 other commands\n");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_example_in_cpp_sleeps_between_completions() {
    if !has_compilers() {
        return;
    }
    let (_folder, mut program) = program("examples/event_loop.cpp");
    let printed = succeed(program.args([&uri(SUBSYSTEM), "2", "2000"]));
    assert!(printed.contains("live\n"), "{printed}");
    assert!(printed.contains("2000 reads, asleep"), "{printed}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_arguments_are_errors_of_the_call() {
    if !has_compilers() {
        return;
    }
    let (_folder, mut program) = program("tests/live_handles.c");
    succeed(program.args([&uri(SUBSYSTEM), "1"]));
}

/// The library transfers no metadata. The kernel's target has none over this device, the scripted
/// one at another port has.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_namespace_with_metadata_is_refused() {
    if !has_compilers() {
        return;
    }
    let address = SocketAddr::new(tests::options().address.ip(), 4422);
    let target = Target::over(Arc::new(RdmaCore::new()), address, Box::new(|_, _| {}));
    let target = target.formatted(Format { metadata: 8, ..Format::default() });
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let serving = thread::spawn(move || target.serve(&stopped));
    let (_folder, mut program) = program("examples/read_write.c");
    let uri = format!("nvmf-rdma://{address}/{SUBSYSTEM}");
    let refused = program.args([&uri, "1", "nr-io-queues=1"]).output().expect("it runs");
    stop.store(true, Ordering::Relaxed);
    serving.join().expect("the target does not fail");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("8 bytes of metadata a block"), "{message}");
    assert_eq!(refused.status.code(), Some(2), "{message}");
}

/// Secrets come from a file that is named as an option.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_target_that_demands_authentication_gets_it() {
    if !has_compilers() {
        return;
    }
    let (folder, mut program) = program("examples/read_write.c");
    let uri = uri("nqn.2026-11.org.soft-roce:keyed");
    let hostnqn = "hostnqn=nqn.2026-11.org.soft-roce:secret";
    let refused = program.args([&uri, "1", hostnqn]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(3), "access is refused for good: {refused:?}");
    let key = folder.path().join("key");
    std::fs::write(&key, "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:\n").unwrap();
    tests::command("chmod", &format!("600 {}", key.display()));
    succeed(program.arg(format!("dhchap-secret-file={}", key.display())));
}

/// Reads go on after the target was away.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_wait_for_the_target_to_come_back() {
    if !has_compilers() {
        return;
    }
    let (_folder, mut program) = program("examples/event_loop.cpp");
    program.args([&uri(SUBSYSTEM), "1", "100000", "reconnect-delay=1"]).stdout(Stdio::piped());
    let mut child = program.spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut until = |text: &str| {
        let found = lines.by_ref().map(|line| line.expect("text")).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text}"))
    };
    until("live");
    tests::break_connections(SUBSYSTEM);
    until("resetting");
    until("live");
    until("100000 reads");
    assert!(child.wait().expect("it ends").success());
}
