//! Promises of the bed on QEMU with a stock kernel, by emulation where KVM does not work.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Bed, PROGRAM, TARGETS, expect_success, text};

const BASIC: &str = "nqn.2026-11.org.soft-roce:basic";

/// Options for the machine under test.
const QEMU: [&str; 4] = ["--machine", "qemu", "--kernel", "6.12"];

/// Seconds that a boot may take on a machine that has much else to do.
const BOOT_SECONDS: &str = "60";

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_program_on_qemu_finds_what_it_finds_on_uml() {
    let Some(bed) = bed() else { return };
    let folder = TempDir::new().unwrap();
    let odd = ["two words", "", "new\nline", "größe →", "--help"];
    let script = r#"printf '%s|' "$@"; pwd; printf '%s|' "$ODD"; umask; cat; echo apart >&2
        test $(id -u) = 0 -a $(uname -n) = soft-roce -a $(ulimit -l) = unlimited || exit 3
        test -c /dev/infiniband/uverbs0 -a -c /dev/infiniband/rdma_cm -a -c /dev/nvme-fabrics ||
            exit 4
        rdma link show | grep -q 'rxe0/1 state ACTIVE' || exit 5
        echo written > file; exit 7"#;
    let mut child = bed
        .run(&QEMU)
        .args(["--", "sh", "-c", script, "sh"])
        .args(odd)
        .env("ODD", "a b\nü")
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_001).collect();
    let mut input = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{error}");
    let mask = Command::new("sh").args(["-c", "umask"]).output().unwrap();
    let here = folder.path().canonicalize().unwrap();
    let first =
        format!("{}|{}\na b\nü|{}", odd.join("|"), here.display(), text(&mask.stdout)).into_bytes();
    assert!(output.stdout.starts_with(&first), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout[first.len()..] == bytes, "{} bytes came", output.stdout.len());
    assert!(error.contains("\napart\n") || error == "apart\n", "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "written\n");
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_target_serves_the_kernels_initiator_on_qemu() {
    let Some(bed) = bed() else { return };
    let log = bed.folder.path().join("kernel.log");
    let target = format!("{TARGETS}/basic.toml");
    let script = format!(
        "set -e
         test $(nproc) = 2
         modprobe -q veth && ip link add v0 type veth peer name v1
         if modprobe no-such-module 2> /run/said; then exit 3; fi
         grep -q no-such-module /run/said
         echo transport=rdma,traddr=10.10.10.1,trsvcid=4420,nqn={BASIC},\
hostnqn=nqn.2026-11.org.soft-roce:host,hostid=6a1d8e0c-5d6b-4c0f-8a33-2b1f0f6f4c01 \
             > /dev/nvme-fabrics
         for try in $(seq 100); do test -b /dev/nvme0n1 && break; sleep 0.1; done
         head -c 1048576 /dev/urandom > /run/data
         dd if=/run/data of=/dev/nvme0n1 bs=64k oflag=direct status=none
         dd if=/dev/nvme0n1 of=/run/back bs=64k count=16 iflag=direct status=none
         cmp /run/data /run/back
         grep -qx live /sys/class/nvme/nvme0/state
         soft-roce target show"
    );
    let log_option = log.to_str().unwrap();
    let options = ["--target", &target, "--log", log_option, "--cpus", "2"];
    let output = bed.run(&QEMU).args(options).args(["--", "sh", "-c", &script]).output().unwrap();
    expect_success(&output);
    assert!(text(&output.stdout).contains("controllers: unknown"), "{}", text(&output.stdout));
    let kept = fs::read_to_string(&log).unwrap();
    assert!(kept.contains("Linux version 6.12") && kept.contains("rdma_rxe: loaded"), "{kept}");
    fs::remove_file(log).unwrap();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_time_limit_ends_a_guest_of_qemu() {
    let Some(bed) = bed() else { return };
    let options = [&QEMU[..], &["--timeout", BOOT_SECONDS]].concat();
    let (child, watched) = bed.start(&options, "echo so far; sleep 1000 & sleep 1000");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "so far\n");
    watched.expect_gone();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_killed_caller_or_qemu_leaves_nothing() {
    for kernel in [false, true] {
        let Some(bed) = bed() else { return };
        let (mut child, watched) = bed.start(&QEMU, "sleep 1000 & sleep 1000");
        let victim = if kernel { watched.kernel } else { Pid::from_child(&child) };
        kill_process(victim, Signal::KILL).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), kernel.then_some(101));
        watched.expect_gone();
        bed.expect_nothing_left();
    }
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn denied_lines_and_panics_fail_a_run_on_qemu() {
    let Some(bed) = bed() else { return };
    let deny = [&QEMU[..], &["--deny", "unusual l"]].concat();
    let denied = bed.shell(&deny, "echo 'my unusual line' > /dev/kmsg; echo ok");
    let seen = (denied.status.code(), text(&denied.stdout));
    assert_eq!(seen, (Some(101), "ok\n".into()), "{}", text(&denied.stderr));
    assert!(text(&denied.stderr).contains("my unusual line"));
    let panic = bed.shell(&QEMU, "echo c > /proc/sysrq-trigger; sleep 100");
    assert_eq!(panic.status.code(), Some(101));
    let error = text(&panic.stderr);
    assert!(error.contains("Kernel panic - not syncing: sysrq triggered crash"), "{error}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn where_uml_is_forbidden_qemu_takes_over() {
    let Some(bed) = bed() else { return };
    let folder = TempDir::new().unwrap();
    let kernel = folder.path().join("linux");
    // What a kernel says on a host that forbids ptrace.
    fs::write(&kernel, "#!/bin/sh\necho 'ptrace: Operation not permitted'\nexit 1\n").unwrap();
    fs::set_permissions(&kernel, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |machine: &str| -> Output {
        let options = ["--machine", machine, "--kernel", kernel.to_str().unwrap()];
        bed.shell(&options, "uname -r")
    };
    let fallen_back = run("auto");
    expect_success(&fallen_back);
    assert!(text(&fallen_back.stdout).starts_with("6.12"), "{}", text(&fallen_back.stdout));
    let error = text(&fallen_back.stderr);
    assert!(error.lines().next().unwrap().contains("ptrace: Operation not permitted"), "{error}");
    assert_eq!(run("uml").status.code(), Some(101));
}

#[test]
fn machines_that_cannot_be_had_are_explained() {
    let program = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(words).env_remove("SOFT_ROCE_KERNEL").env_remove("SOFT_ROCE_MACHINE");
        let started = Instant::now();
        let output = command.output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let error = text(&output.stderr);
        assert_eq!(error.trim_end().lines().count(), if error.contains("--help") { 3 } else { 1 });
        error
    };
    assert!(program(&["run", "--machine", "vm", "--", "true"]).contains("auto, uml and qemu"));
    let two = program(&["run", "--machine", "uml", "--cpus", "2", "--", "true"]);
    assert!(two.contains("one processor"), "{two}");
    let none = program(&["run", "--machine", "qemu", "--kernel", "/etc/passwd", "--", "true"]);
    assert!(none.contains("no kernel that QEMU boots") || none.contains("apt-get"), "{none}");
}

/// A bed, if this machine has QEMU and a stock kernel or can get one.
fn bed() -> Option<Bed> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let refusal = REFUSAL.get_or_init(|| {
        let words = ["build", "--machine", "qemu", "--kernel", "6.12"];
        let output = Command::new(PROGRAM).args(words).output().unwrap();
        (!output.status.success()).then(|| text(&output.stderr))
    });
    match refusal {
        None => Some(Bed::new()),
        Some(reason) => {
            println!("SKIPPED: QEMU: {}", reason.trim().lines().last().unwrap_or_default());
            None
        }
    }
}
