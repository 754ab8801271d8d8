//! The built program, run as a user would: what goes in comes out, and nothing stays behind.
//!
//! The kernel is the one that `SOFT_ROCE_KERNEL` names.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use soft_roce::machine::{Ending, Guest, Input, Kernel, Output as Stream};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_soft-roce");
const TARGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets");
const BASIC: &str = "nqn.2026-11.org.soft-roce:basic";

/// A scratch folder that takes the run's files; the test fails when one stays there.
struct Bed {
    folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// `soft-roce run`, with these options and whatever follows.
    fn run(&self, options: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("run").args(options).stdin(Stdio::null());
        command
    }

    fn program(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        let path = std::env::var("PATH").unwrap();
        let own = Path::new(PROGRAM).parent().unwrap().display();
        command.env("TMPDIR", self.folder.path()).env("PATH", format!("{own}:{path}"));
        command.env_remove("SOFT_ROCE_TARGET");
        command
    }

    fn shell(&self, options: &[&str], script: &str) -> Output {
        let output = self.run(options).args(["--", "sh", "-c", script]).output().unwrap();
        self.expect_nothing_left();
        output
    }

    fn with_target(&self, name: &str, script: &str) -> Output {
        self.shell(&["--timeout", "60", "--target", &format!("{TARGETS}/{name}.toml")], script)
    }

    /// Starts a program that says when it runs, and waits for that.
    fn start(&self, options: &[&str], script: &str) -> (Child, Watched) {
        let marker = TempDir::new().unwrap();
        let running = marker.path().join("running");
        let script = format!("touch {}; {script}", running.display());
        let mut command = self.run(options);
        command.args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_until("the program runs", || running.exists());
        (child, Watched::find(self.folder.path()))
    }

    fn expect_nothing_left(&self) {
        wait_until("no process is left", || processes_with(self.folder.path()).is_empty());
        wait_until("no file is left", || {
            fs::read_dir(self.folder.path()).unwrap().next().is_none()
        });
    }
}

/// The processes of a guest that runs.
struct Watched {
    guard: Pid,
    kernel: Pid,
}

impl Watched {
    fn find(folder: &Path) -> Self {
        let all = processes_with(folder);
        let find = |word: &str| {
            let found = all.iter().find(|(_, words)| words.iter().any(|one| one.starts_with(word)));
            Pid::from_raw(found.unwrap().0).unwrap()
        };
        // The kernel's helpers share its command line; it came first.
        Self { guard: find("guard"), kernel: find("mem=") }
    }

    fn expect_gone(&self) {
        let session = self.kernel.as_raw_nonzero().get();
        wait_until("the guest's session is empty", || {
            processes().iter().all(|pid| session_of(*pid) != Some(session))
        });
        wait_until("the guard is gone", || rustix::process::test_kill_process(self.guard).is_err());
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_exit_status_is_the_programs() {
    let bed = Bed::new();
    let status = |words: &[&str]| {
        bed.run(&["--"]).args(words).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(status(&["true"]), Some(0));
    assert_eq!(status(&["false"]), Some(1));
    assert_eq!(status(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(status(&["sh", "-c", "kill -KILL $$"]), Some(137));
    assert_eq!(status(&["sh", "-c", "kill -SEGV $$"]), Some(139));
    assert_eq!(status(&["/nonexistent/program"]), Some(127));
    assert_eq!(status(&["/etc/passwd"]), Some(126));
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn arguments_folder_and_environment_arrive() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let odd = ["two words", "", "new\nline", "größe →", "--help", "\"'\\$x"];
    let output = bed
        .run(&["--"])
        .args(["sh", "-c", r#"printf '%s|' "$@"; pwd; printf %s "$ODD"; umask"#, "sh"])
        .args(odd)
        .env("ODD", "a b\nü")
        .current_dir(&folder)
        .output()
        .unwrap();
    let here = folder.path().canonicalize().unwrap();
    let mask = Command::new("sh").args(["-c", "umask"]).output().unwrap();
    let expected = format!("{}|{}\na b\nü{}", odd.join("|"), here.display(), text(&mask.stdout));
    assert_eq!(text(&output.stdout), expected);
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_bed_is_as_promised() {
    let bed = Bed::new();
    let output = bed.shell(
        &[],
        "set -e
         test $SOFT_ROCE = 1 -a $SOFT_ROCE_ADDRESS = 10.10.10.1 -a $RDMA_TEST_ADDRESS = 10.10.10.1
         test $(id -u) = 0 -a $(ulimit -l) = unlimited -a $(uname -n) = soft-roce
         test -c /dev/infiniband/uverbs0 -a -c /dev/infiniband/rdma_cm -a -c /dev/nvme-fabrics
         test $(cat /sys/class/net/dum0/mtu) -ge 4200
         rdma link show | grep -q 'rxe0/1 state ACTIVE'
         ip addr show dum0 | grep -q fd10:10:10::1
         for place in proc sys dev run dev/shm dev/pts sys/kernel/config sys/kernel/debug; do
             mountpoint -q /$place
         done",
    );
    expect_success(&output);
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn binary_streams_pass_unchanged() {
    let bed = Bed::new();
    let all: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    let mut child =
        bed.run(&["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = all.clone();
    let writer = thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == all, "{} bytes came back", output.stdout.len());
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn input_ends_where_it_ends() {
    let bed = Bed::new();
    assert_eq!(text(&bed.shell(&[], "wc -c").stdout).trim(), "0");
    let file = bed.folder.path().join("input");
    fs::write(&file, "line one\nline two").unwrap();
    let mut command = bed.run(&["--", "cat"]);
    let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(text(&output.stdout), "line one\nline two");
    // A program that never reads must not wait for what it is sent.
    let mut command = bed.run(&["--", "true"]);
    let zero = fs::File::open("/dev/zero").unwrap();
    expect_success(&command.stdin(zero).output().unwrap());
    fs::remove_file(&file).unwrap();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_dialogue_works_line_by_line() {
    use std::io::{BufRead, BufReader};
    let bed = Bed::new();
    let mut child = bed
        .run(&["--", "sh", "-c", "while read line; do echo got $line; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for word in ["one", "two", "three"] {
        writeln!(input, "{word}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), format!("got {word}"));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn output_and_error_stay_apart_or_in_order() {
    let bed = Bed::new();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done";
    let output = bed.shell(&[], script);
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with("out")).count(), 9);
    assert_eq!(text(&output.stdout).lines().count(), 9);
    assert_eq!(text(&output.stderr).lines().count(), 9);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bed.run(&["--", "sh", "-c", script]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    assert!(command.status().unwrap().success());
    drop(command);
    let joined = std::io::read_to_string(&mut reader).unwrap();
    let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(joined, expected);
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_reader_that_leaves_ends_the_run() {
    let bed = Bed::new();
    let mut child = bed.run(&["--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    bed.expect_nothing_left();
}

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
fn a_killed_guard_or_kernel_leaves_nothing() {
    for kernel in [false, true] {
        let bed = Bed::new();
        let (child, watched) = bed.start(&[], "sleep 1000 & sleep 1000");
        let victim = if kernel { watched.kernel } else { watched.guard };
        kill_process(victim, Signal::KILL).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(101), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("no result"));
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

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn two_guests_run_at_once() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let meet = |mine: &str, other: &str| {
        let place = folder.path().display();
        let script = format!(
            "touch {place}/{mine}; until test -e {place}/{other}; do sleep 0.1; done; echo met"
        );
        let mut command = bed.run(&["--timeout", "60", "--", "sh", "-c", &script]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let guests = [meet("a", "b"), meet("b", "a")];
    for guest in guests {
        assert_eq!(text(&guest.wait_with_output().unwrap().stdout), "met\n");
    }
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_shell_has_a_terminal() {
    let bed = Bed::new();
    let inner = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && read x && echo [$x]";
    let words = format!("stty rows 31 cols 97; {PROGRAM} run --shell -- sh -c '{inner}'");
    let mut script = Command::new("script");
    script.args(["-qec", &words, "/dev/null"]).env("TMPDIR", bed.folder.path());
    script.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let seen = text(&output.stdout);
    assert!(seen.contains("/dev/pts/") && seen.contains("31 97"), "{seen}");
    assert!(seen.contains("[typed]"), "{seen}");
    drop(input);
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_example_comes_up_and_goes_down() {
    let bed = Bed::new();
    for entry in fs::read_dir(TARGETS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let script = format!(
            "set -e
             test \"$SOFT_ROCE_TARGET\" = {0}
             soft-roce target show
             soft-roce target down
             soft-roce target show
             test -z \"$(ls /sys/kernel/config/nvmet/subsystems /sys/kernel/config/nullb | \
                 grep -E 'nqn|roce')\"
             soft-roce target up {0}
             if soft-roce target up {0}; then exit 3; fi
             soft-roce target show --json",
            path.display()
        );
        let output = bed.with_target(&name, &script);
        expect_success(&output);
        let seen = text(&output.stdout);
        assert!(seen.contains(&format!("org.soft-roce:{}", first_subsystem(&name))), "{seen}");
        assert!(seen.contains("no target is up\n") && seen.contains("\"subsystems\""), "{seen}");
        assert!(text(&output.stderr).contains("there already"), "{}", text(&output.stderr));
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_kernels_initiator_reads_what_it_wrote() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         {connect}
         head -c 3000000 /dev/urandom > /run/data; truncate -s %4096 /run/data
         for n in 1 2; do
             until test -b /dev/nvme0n$n; do sleep 0.05; done
             dd if=/run/data of=/dev/nvme0n$n bs=64k oflag=direct conv=notrunc status=none
             dd if=/dev/nvme0n$n of=/run/back bs=64k iflag=direct count=46 status=none
             cmp -n $(stat -c %s /run/data) /run/data /run/back
         done
         test $(blockdev --getss /dev/nvme0n1) = 512 -a $(blockdev --getss /dev/nvme0n2) = 4096
         soft-roce target show",
        connect = connect(BASIC, "")
    );
    let output = bed.with_target("basic", &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("controllers: 1"), "{}", text(&output.stdout));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn an_authenticated_target_wants_the_key() {
    let bed = Bed::new();
    let file = fs::read_to_string(format!("{TARGETS}/auth.toml")).unwrap();
    let key = |name: &str| {
        let line = file.lines().find(|line| line.starts_with(name)).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let nqn = "nqn.2026-11.org.soft-roce:auth";
    let keys = format!(
        ",dhchap_secret={},dhchap_ctrl_secret={}",
        key("dhchap_key"),
        key("dhchap_ctrl_key")
    );
    let script = format!(
        "if ({}) 2>/dev/null; then exit 9; fi
         set -e
         {}
         until test -b /dev/nvme0n1; do sleep 0.05; done
         soft-roce target show",
        connect(nqn, ""),
        connect(nqn, &keys)
    );
    let output = bed.with_target("auth", &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("controllers: 1"));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_lever_moves_something() {
    let bed = Bed::new();
    let script = format!(
        "set -e
         R=/sys/kernel/config/nvmet; S=$R/subsystems/{BASIC}; H=nqn.x:h
         {connect}
         soft-roce target set namespace {BASIC} 1 enable 0; grep -q 0 $S/namespaces/1/enable
         soft-roce target set namespace {BASIC} 1 enable 1; grep -q 1 $S/namespaces/1/enable
         soft-roce target set ana 1 2 inaccessible
         grep -q inaccessible $R/ports/1/ana_groups/2/ana_state
         soft-roce target set ana 1 2 non-optimized
         grep -q non-optimized $R/ports/1/ana_groups/2/ana_state
         soft-roce target fatal {BASIC}
         soft-roce target set subsystem {BASIC} qid_max 1; grep -q 1 $S/attr_qid_max
         soft-roce target unlink port 1 {BASIC}; test ! -e $R/ports/1/subsystems/{BASIC}
         soft-roce target set port 1 inline_data_size 8192
         soft-roce target link port 1 {BASIC}; test -e $R/ports/1/subsystems/{BASIC}
         soft-roce target set subsystem {BASIC} allow_any_host 0
         soft-roce target allow {BASIC} $H; test -e $S/allowed_hosts/$H
         soft-roce target set host $H dhchap_hash sha512; grep -q 512 $R/hosts/$H/dhchap_hash
         soft-roce target set host $H key {KEY}; grep -q DHHC $R/hosts/$H/dhchap_key
         soft-roce target disallow {BASIC} $H; test ! -e $S/allowed_hosts/$H
         soft-roce target set subsystems/{BASIC}/attr_allow_any_host 1
         soft-roce target set backing {BASIC} 1 badblocks +1-5
         grep -q '1 5' /sys/kernel/config/nullb/roce1/badblocks
         soft-roce target show",
        connect = connect(BASIC, "")
    );
    let output = bed.with_target("basic", &script);
    expect_success(&output);
    assert!(text(&output.stdout).contains("qid_max 1\n"), "{}", text(&output.stdout));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn refusals_name_attribute_and_reason() {
    let bed = Bed::new();
    let script = format!(
        "soft-roce target set subsystem {BASIC} qid_max 500
         soft-roce target set ana 1 2 bogus
         soft-roce target set port 1 max_queue_size 64
         soft-roce target set subsystem {BASIC} nonsense 1
         soft-roce target set subsystem nqn.none qid_max 1
         soft-roce target set namespace {BASIC} one enable 0
         soft-roce target set ../../x 1
         soft-roce target fatal {BASIC} 9
         soft-roce target set what"
    );
    let output = bed.with_target("basic", &script);
    let error = text(&output.stderr);
    let expected = [
        "attr_qid_max = \"500\": Invalid argument",
        "Invalid value 'bogus' for ana_state",
        "param_max_queue_size = \"64\": Permission denied",
        "has no nonsense",
        "nqn.none: not there",
        "NSID is a number",
        "not below",
        "no such controller",
        "set what?",
    ];
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.starts_with("soft-roce: ") && line.contains(part), "{line:?} lacks {part:?}");
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn bad_target_files_run_nothing() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let cases = [
        ("subsystems = 3", "line 1"),
        ("[[subsystems]]\nnqn = \"n\"\ncolour = 1", "colour"),
        ("[[subsystems]]\nnqn = \"n\"\n[[ports]]\naddress = \"10.99.0.1\"", "10.99.0.1"),
        ("[[subsystems]]\nnqn = \"n\"\nqid_max = 500", "attr_qid_max"),
        (
            "[[subsystems]]\nnqn = \"n\"\nnamespaces = [{ backing.file.path = \"none\" }]",
            "none: No such file",
        ),
    ];
    let file = folder.path().join("bad.toml");
    for (text_of_file, expected) in cases {
        fs::write(&file, text_of_file).unwrap();
        let output = bed.shell(&["--target", file.to_str().unwrap()], "echo ran");
        let error = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    let output = bed.shell(&["--target", "/nonexistent.toml"], "echo ran");
    assert!(text(&output.stderr).contains("/nonexistent.toml") && output.stdout.is_empty());
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn every_backing_holds_data() {
    let bed = Bed::new();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(
        &file,
        format!(
            "[[subsystems]]\nnqn = \"{BASIC}\"\nnamespaces = [\
             {{ backing = {{ ram = {{ size = \"8MiB\" }} }} }},\
             {{ backing = {{ file = {{ path = \"disk\", size = \"8MiB\", block_size = 512 }} }} }},\
             {{ backing = {{ null_blk = {{ size = \"8MiB\", completion_nsec = 2000000 }} }} }},\
             {{ backing = {{ file = {{ path = \"plain\", size = \"8MiB\" }} }} }}]\n"
        ),
    )
    .unwrap();
    let script = format!(
        "set -e
         {}
         head -c 1048576 /dev/urandom > /run/data
         for n in 1 2 3; do
             until test -b /dev/nvme0n$n; do sleep 0.05; done
             dd if=/run/data of=/dev/nvme0n$n bs=64k oflag=direct status=none
             dd if=/dev/nvme0n$n of=/run/back bs=64k count=16 iflag=direct status=none
             cmp /run/data /run/back
         done
         sync; cmp -n 1048576 /run/data {}/disk && echo on the host",
        connect(BASIC, ""),
        folder.path().display()
    );
    let output = bed.shell(&["--timeout", "60", "--target", file.to_str().unwrap()], &script);
    expect_success(&output);
    assert_eq!(text(&output.stdout), "on the host\n");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn native_sets_up_the_same_and_takes_it_down() {
    let bed = Bed::new();
    // The guest is a machine whose kernel has everything built in; only `modprobe` knows nothing.
    let folder = TempDir::new().unwrap();
    let modprobe = folder.path().join("modprobe");
    fs::write(&modprobe, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&modprobe, fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "set -e
         unset SOFT_ROCE; PATH={}:$PATH
         rdma link del rxe0; ip link del dum0
         soft-roce native up {TARGETS}/basic.toml
         soft-roce native status
         {}
         until test -b /dev/nvme0n1; do sleep 0.05; done
         echo 1 > /sys/class/nvme/nvme0/delete_controller
         soft-roce native down
         soft-roce native status
         test ! -e /sys/class/net/softroce0",
        folder.path().display(),
        connect(BASIC, "")
    );
    let output = bed.shell(&["--timeout", "60"], &script);
    expect_success(&output);
    let seen = text(&output.stdout);
    assert!(seen.contains("rxe_softroce0 is there") && seen.contains("is not there"), "{seen}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn an_ordinary_user_can_run() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here is already run by one.
        return;
    }
    let folder = TempDir::new().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open(folder.path());
    let tmp = folder.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    open(&tmp);
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(from, &to).unwrap();
        open(&to);
        to
    };
    let program = copy(Path::new(PROGRAM), "soft-roce");
    let kernel = copy(&kernel_program(), "linux");
    let target = copy(&Path::new(TARGETS).join("basic.toml"), "basic.toml");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["run", "--timeout", "60", "--kernel"]).arg(&kernel).arg("--target").arg(&target);
    command.args(["--", "sh", "-c"]);
    let secret = folder.path().join("secret");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    command.arg(format!(
        "id -u; {} target show | grep -c enabled; cat {} || echo refused",
        program.display(),
        secret.display()
    ));
    command.env("TMPDIR", &tmp).env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME");
    let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    expect_success(&output);
    assert_eq!(text(&output.stdout), "0\n2\nrefused\n");
    assert!(fs::read_dir(&tmp).unwrap().next().is_none());
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_library_does_the_same() {
    let kernel = Kernel::Program(kernel_program());
    let guest = Guest::new("sh")
        .args(["-c", "cat; echo oops >&2; exit 3"])
        .kernel(kernel.clone())
        .stdin(Input::Bytes(b"hello".into()))
        .stdout(Stream::Capture)
        .stderr(Stream::Capture);
    let outcome = guest.run().unwrap();
    assert_eq!(outcome.ending, Ending::Exited(3));
    assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"hello"[..], &b"oops\n"[..]));
    let limit = Duration::from_secs(2);
    let guest = Guest::new("sleep").args(["100"]).kernel(kernel).timeout(limit);
    assert_eq!(guest.stdin(Input::Null).run().unwrap().ending, Ending::TimedOut(limit));
}

#[test]
fn wrong_words_are_explained() {
    let program = |words: &[&str]| {
        let output =
            Command::new(PROGRAM).args(words).env_remove("SOFT_ROCE_KERNEL").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        text(&output.stderr)
    };
    assert!(program(&["run", "--kernel", "5.10", "--", "true"]).contains("known are 6.12, 7"));
    assert!(program(&["run", "--kernel", "/no/linux", "--", "true"]).contains("/no/linux"));
    assert!(program(&["run", "--timeout", "soon", "--", "true"]).contains("soon"));
    assert!(program(&["run", "--mem", "much", "--", "true"]).contains("not a size"));
    assert!(program(&["build", "--source", "/no/tree"]).contains("/no/tree"));
    assert!(program(&["run"]).contains("PROGRAM"));
}

/// Connects the kernel's initiator, as `nvme connect` does.
fn connect(nqn: &str, more: &str) -> String {
    format!(
        "echo transport=rdma,traddr=10.10.10.1,trsvcid=4420,nqn={nqn},\
         hostnqn=nqn.2026-11.org.soft-roce:host,\
         hostid=6a1d8e0c-5d6b-4c0f-8a33-2b1f0f6f4c01{more} > /dev/nvme-fabrics"
    )
}

const KEY: &str = "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:";

fn first_subsystem(example: &str) -> &str {
    if example == "multi" { "paths" } else { example }
}

/// The kernel under test, as a path.
fn kernel_program() -> PathBuf {
    let named = std::env::var("SOFT_ROCE_KERNEL").unwrap_or_default();
    if named.contains('/') {
        return named.into();
    }
    let output = Command::new(PROGRAM).arg("build").output().unwrap();
    expect_success(&output);
    text(&output.stdout).trim().into()
}

fn expect_success(output: &Output) {
    let (seen, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{seen}\n{error}", output.status);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.into()).unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes that name this folder on their command line, by age, but for the tests' own.
fn processes_with(folder: &Path) -> Vec<(i32, Vec<String>)> {
    let folder = folder.to_str().unwrap();
    let words = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(folder).then(|| (pid, line.split('\0').map(str::to_owned).collect()))
    };
    let mut all: Vec<_> = processes().into_iter().filter_map(words).collect();
    all.sort_by_key(|(pid, _)| *pid);
    all
}

fn session_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}
