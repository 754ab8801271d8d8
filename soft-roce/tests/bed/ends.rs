//! Every way a run can end, and that nothing stays behind.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Bed, expect_success, text};

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn what_the_program_leaves_running_ends_with_it() {
    let bed = Bed::new();
    let started = Instant::now();
    let output = bed.shell(&[], "sleep 1000 & sleep 1000 >/dev/null 2>&1 & echo done");
    assert_eq!(text(&output.stdout), "done\n");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_time_limit_kills_everything() {
    let bed = Bed::new();
    let (child, watched) = bed.start(&["--timeout", "3"], "echo so far; sleep 1000 & sleep 1000");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(text(&output.stdout), "so far\n");
    assert!(text(&output.stderr).contains("--timeout"));
    watched.expect_gone();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn signals_leave_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        let bed = Bed::new();
        let (mut child, watched) = bed.start(&[], "sleep 1000 & sleep 1000");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        watched.expect_gone();
        bed.expect_nothing_left();
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_killed_reaper_or_kernel_leaves_nothing() {
    for kernel in [false, true] {
        let bed = Bed::new();
        let (child, watched) = bed.start(&[], "sleep 1000 & sleep 1000");
        let victim = if kernel { watched.kernel } else { watched.reaper };
        kill_process(victim, Signal::KILL).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(101), "{}", text(&output.stderr));
        let error = text(&output.stderr);
        assert!(error.contains("no result"), "{error}");
        let cause = if kernel { "was killed from outside" } else { "reaper was killed" };
        assert!(error.contains(cause), "{error}");
        watched.expect_gone();
        bed.expect_nothing_left();
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_panic_fails_the_run_and_is_shown() {
    let bed = Bed::new();
    let output = bed.shell(&[], "echo before; sync; echo c > /proc/sysrq-trigger; sleep 100");
    assert_eq!(output.status.code(), Some(101));
    let error = text(&output.stderr);
    assert!(error.contains("Kernel panic - not syncing: sysrq triggered crash"), "{error}");
    assert!(error.contains("no result from the guest"), "{error}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn denied_and_broken_lines_fail_the_run() {
    let bed = Bed::new();
    let say = "echo 'my unusual line' > /dev/kmsg";
    let denied = bed.shell(&["--deny", "another", "--deny", "unusual l"], say);
    assert_eq!(denied.status.code(), Some(101));
    assert!(text(&denied.stderr).contains("my unusual line"));
    expect_success(&bed.shell(&["--deny", "another"], say));
    let warned = bed.shell(&[], "echo 'WARNING: CPU: 0 PID: 1 at x' > /dev/kmsg; echo ok");
    assert_eq!((warned.status.code(), text(&warned.stdout).as_str()), (Some(101), "ok\n"));
    assert_eq!(bed.run(&["--deny", "(", "--", "true"]).output().unwrap().status.code(), Some(2));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_kernels_log_can_be_kept() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("kernel.log");
    expect_success(&bed.shell(&["--log", log.to_str().unwrap()], "true"));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("Linux version") && log.contains("rdma_rxe: loaded"), "{log}");
}
