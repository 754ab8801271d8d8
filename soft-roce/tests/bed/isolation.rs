//! Isolation of runs: other users cannot read or change a run's files, and a killed run's remains
//! are removed by the next one.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::sched_getaffinity,
};

use crate::support::{Bed, PROGRAM, in_mounts, text, wait_until};

/// Permissions for other users than the owner.
const OTHERS: u32 = 0o077;

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn no_other_user_can_read_a_run() {
    for umask in ["000", "022", "077"] {
        let bed = Bed::new();
        let log = bed.folder.path().join("kernel.log");
        let script = format!(
            "umask {umask}; exec {PROGRAM} run --log {} -- sh -c 'echo runs; sleep 1000'",
            log.display()
        );
        let mut command = bed.environment("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // More than the program's pipe holds, so that files with input stay in the run's folder.
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || drop(input.write_all(&vec![b'x'; 4 << 20])));
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "runs\n");
        let run = only_run(bed.folder.path());
        wait_until("input waits in files", || run.join("in.3").exists());
        for name in ["guest.json", "launch.json", "session", "lock", "in", "out", "in.3"] {
            let mode = run.join(name).symlink_metadata().unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name} under umask {umask}");
        }
        expect_private(&run, umask);
        expect_private(&bed.memory_folders().pop().unwrap(), umask);
        assert_eq!(log.metadata().unwrap().mode() & 0o777, 0o600, "the log, umask {umask}");
        expect_closed_to_another_user(&run);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        writer.join().unwrap();
        fs::remove_file(&log).unwrap();
        bed.expect_nothing_left();
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_next_run_removes_what_a_killed_run_left() {
    let bed = Bed::new();
    let (mut child, watched) = bed.start(&[], "sleep 1000 & while :; do :; done");
    let run = only_run(bed.folder.path());
    // Both are killed at once: neither can do anything for the other.
    kill_process(watched.reaper, Signal::STOP).unwrap();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    kill_process(watched.reaper, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(run.join("guest.json").exists() && bed.memory_folders().len() == 1);
    println!("processes that the killed run left: {:?}", watched.session());
    // A live run beside it is left alone.
    let live = Bed::sharing(&bed);
    let (live_child, live_watched) = live.start(&[], "sleep 1000");
    assert!(!run.exists(), "{}", run.display());
    watched.expect_gone();
    assert_eq!(bed.memory_folders().len(), 1, "only the live run's is left");
    let output = bed.run(&["--", "echo", "fine"]).output().unwrap();
    assert_eq!(text(&output.stdout), "fine\n");
    kill_process(Pid::from_child(&live_child), Signal::KILL).unwrap();
    drop(live_child);
    live_watched.expect_gone();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn memory_is_reserved_or_refused() {
    // All folders that could take guest memory are the one small file system.
    let script = "mount -t tmpfs -o size=1536m,mode=1777 none /dev/shm
         for place in /tmp /var/tmp; do mount -t tmpfs -o size=64m,mode=1777 none $place; done
         mkdir -p $TMPDIR; unset HOME XDG_CACHE_HOME
         run -- sh -c \"touch $TMPDIR/started
            mkdir /run/big; mount -t tmpfs -o size=700m none /run/big
            head -c 600000000 /dev/zero >/run/big/x; touch $TMPDIR/used
            until test -e $TMPDIR/enough; do sleep 0.1; done; echo first ended\" &
         appears $TMPDIR/started
         run -- echo second; echo status $?
         appears $TMPDIR/used
         run --mem 400M -- echo third; echo status $?
         touch $TMPDIR/enough; wait $!; echo status $?";
    let Some((output, _bed)) = in_mounts(script) else { return };
    let (seen, error) = (text(&output.stdout), text(&output.stderr));
    let expected = "status 2\nthird\nstatus 0\nfirst ended\nstatus 0\n";
    assert_eq!(seen, expected, "{error}");
    assert!(error.contains("no space for 1024 MiB") && error.contains("/dev/shm: "), "{error}");
    assert!(error.contains("not reserved by other guests"), "{error}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_guest_stays_on_the_processors_that_it_was_given() {
    let ours = sched_getaffinity(None).unwrap();
    let bed = Bed::new();
    for (options, count) in [(&[][..], 1), (&["--cpu", "all"], ours.count())] {
        let (mut child, watched) = bed.start(options, "sleep 1000 & sleep 1000");
        for pid in watched.session() {
            // A process may have ended meanwhile.
            let Ok(set) = sched_getaffinity(Pid::from_raw(pid)) else { continue };
            assert_eq!(set.count(), count, "{options:?}");
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        bed.expect_nothing_left();
    }
}

#[test]
fn what_no_guest_can_be_made_of_is_a_usage_error() {
    let refused = |words: &[&str]| {
        let output = Command::new(PROGRAM).arg("run").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let error = text(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    assert!(refused(&["--mem", "10M", "--", "true"]).contains("at least"));
    let error = refused(&["--cpu", "4000", "--", "true"]);
    assert!(error.contains("processor 4000; it has ") && error.contains('0'), "{error}");
}

/// The folder of the only run in `base`.
fn only_run(base: &Path) -> PathBuf {
    let all: Vec<_> = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut runs = all.iter().filter(|path| path.join("launch.json").exists());
    let run = runs.next().unwrap_or_else(|| panic!("no run in {all:?}"));
    assert!(runs.next().is_none(), "{all:?}");
    run.clone()
}

/// Checks the modes of a folder and of everything that the program made in it.
fn expect_private(folder: &Path, umask: &str) {
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700, "{}", folder.display());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The guest takes files with input away meanwhile.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let is_open = !metadata.is_symlink() && metadata.mode() & OTHERS != 0;
        assert!(!is_open, "{} is {:o}, umask {umask}", path.display(), metadata.mode());
    }
}

/// Tries as another user to read, list and replace.
fn expect_closed_to_another_user(run: &Path) {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can act as another user");
        return;
    }
    // The folder above is the test's, and closed; another user's usual one is not.
    let above = run.parent().unwrap();
    fs::set_permissions(above, fs::Permissions::from_mode(0o1777)).unwrap();
    let script = "ls $0 || cat $0/guest.json || cat $0/in.3 || mv $0 $0.x || rm -f $0/init";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
    let output = command.arg(run).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr).matches("ermi").count(), 5, "{}", text(&output.stderr));
}
