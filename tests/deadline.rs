//! A test that hangs is ended by `tests/deadline`, which says what the test waited for.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tests::{note, run};

/// Set for a child of the test that is to hang.
const HANGS: &str = "TEST_HANGS";

fn hangs() -> bool {
    std::env::var_os(HANGS).is_some()
}

#[test]
fn a_thread_that_waits_for_ever() {
    if hangs() {
        note("a message that does not come");
        std::thread::sleep(Duration::from_secs(600));
    }
}

#[tokio::test]
async fn a_task_that_waits_for_ever() {
    if hangs() {
        println!("a test may print before it hangs");
        note("a task that does not end");
        std::future::pending::<()>().await;
    }
}

/// `tests/deadline` with a deadline of this many seconds.
fn deadline(seconds: u32) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deadline");
    let mut command = Command::new(script);
    command.env("TEST_DEADLINE", seconds.to_string()).env_remove("TEST_DEADLINE_ALL");
    command
}

/// Runs one test of this program, which hangs; returns what is said of it.
fn hang(test: &str, arguments: &[&str]) -> String {
    let program = std::env::current_exe().expect("this program");
    let mut command = deadline(2);
    command.arg(program).args(["--exact", test, "--test-threads=1"]).args(arguments);
    let output = run(command.env(HANGS, "1"), &[]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(128 + 6), "{said}");
    assert!(said.contains(&format!("deadline: {test} has taken")), "{said}");
    assert!(said.contains("thread"), "{said}");
    said
}

#[test]
fn a_test_that_hangs_is_ended_and_says_what_it_waited_for() {
    let said = hang("a_thread_that_waits_for_ever", &[]);
    assert!(said.contains("a_thread_that_waits_for_ever: a message that does not come"), "{said}");
    let said = hang("a_task_that_waits_for_ever", &["--nocapture"]);
    assert!(said.contains("a_task_that_waits_for_ever: a task that does not end"), "{said}");
}

/// The test runner names tests that take longer than a minute where several run at a time.
#[test]
fn of_tests_side_by_side_the_one_that_hangs_is_named() {
    let script = "echo 'test first ... ok'
        echo 'test second has been running for over 60 seconds'
        echo 'test third has been running for over 60 seconds'
        echo 'test third ... ok'
        exec sleep 600";
    let output = run(deadline(61).args(["sh", "-c", script]), &[]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(128 + 6), "{said}");
    assert!(said.contains("deadline: second has taken"), "{said}");
    assert!(!said.contains("deadline: third"), "{said}");
}

#[test]
fn output_and_status_of_a_program_that_ends_are_its_own() {
    let script =
        "echo 'test one ... ok'; echo to the error stream >&2; printf 'no newline'; exit 7";
    let output = run(deadline(60).args(["sh", "-c", script]), &[]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(said, "test one ... ok\nto the error stream\nno newline");
    assert_eq!(output.status.code(), Some(7));
    // All that it has printed is passed on, however late after its end that is: here the reader of
    // its output, its sibling, is stopped meanwhile.
    let script = "reader=$(sed -n \"s/ (deadline) . $PPID .*//p\" /proc/[0-9]*/stat 2>/dev/null)
        kill -STOP $reader
        head -c 60000 /dev/zero | tr '\\0' x; echo; echo 'test result: ok'
        (sleep 2; kill -CONT $reader) >/dev/null 2>&1 & exit 0";
    let output = run(deadline(60).args(["sh", "-c", script]), &[]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.ends_with("x\ntest result: ok\n") && said.len() > 60_000, "{}", said.len());
    // What it leaves running, with its output open, does not keep its caller.
    let begun = Instant::now();
    let output = run(deadline(60).args(["sh", "-c", "sleep 30 & exit 3"]), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}
