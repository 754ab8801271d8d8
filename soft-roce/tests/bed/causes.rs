//! Machines on which a guest cannot run, or does not survive: the message names the cause.

use std::process::{Command, Output, Stdio};

use crate::support::{Bed, OPTIONS, PROGRAM, in_mounts, text};

/// Executes a program under a seccomp filter that refuses ptrace, as container engines do.
const WITHOUT_PTRACE: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ALLOW, REFUSE, PTRACE = 0x7fff0000, 0x00050001, 101
code = b''.join(struct.pack('HBBI', *one) for one in [
    (0x20, 0, 0, 0), (0x15, 0, 1, PTRACE), (0x06, 0, 0, REFUSE), (0x06, 0, 0, ALLOW)])
buffer = ctypes.create_string_buffer(code)
program = struct.pack('HxxxxxxQ', len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn ptrace_is_forbidden() {
    let has_python = Command::new("python3").arg("--version").output().is_ok();
    if !has_python || !cfg!(target_arch = "x86_64") {
        return println!("SKIPPED: python3, which sets the seccomp filter, is not installed");
    }
    let bed = Bed::new();
    let mut command = bed.environment("python3");
    command.args(["-c", WITHOUT_PTRACE, PROGRAM, "run"]).args(OPTIONS.split(' '));
    let output = command.args(["--", "true"]).stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        return println!("SKIPPED: this kernel needs no ptrace");
    }
    expect_cause(&output, "this machine forbids ptrace");
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn no_folder_for_memory_may_be_executed() {
    let script = "for place in /dev/shm /tmp /var/tmp; do
            mount -t tmpfs -o noexec,size=2g,mode=1777 none $place
        done
        unset TMPDIR HOME XDG_CACHE_HOME; run -- true";
    let Some((output, _bed)) = in_mounts(script) else { return };
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("/dev/shm: mounted noexec") && error.lines().count() == 1, "{error}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_kernel_program_may_not_be_executed() {
    let script = "mount -t tmpfs -o size=64m none /mnt; cp $KERNEL /mnt/linux
        mount -o remount,noexec /mnt; KERNEL=/mnt/linux run -- true";
    let Some((output, _bed)) = in_mounts(script) else { return };
    expect_cause(&output, "the kernel program cannot be executed");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_kernel_does_not_find_its_root() {
    let bed = Bed::new();
    let mut command = bed.run(&OPTIONS.split(' ').collect::<Vec<_>>());
    command.args(["--kernel-arg", "rootfstype=ext4", "--kernel-arg", "root=/dev/none"]);
    let output = command.args(["--", "true"]).output().unwrap();
    expect_cause(&output, "cannot use the host's files as its root");
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn other_files_take_the_guests_memory() {
    let script = "mount -t tmpfs -o size=160m,mode=1777 none /dev/shm
        run --mem 128M -- sh -c \"touch $TMPDIR/on
            until test -e $TMPDIR/full; do sleep 0.05; done
            mkdir /run/big; mount -t tmpfs -o size=100m none /run/big
            head -c 90000000 /dev/zero >/run/big/x\" &
        appears $TMPDIR/on
        head -c 200000000 /dev/zero >/dev/shm/other 2>/dev/null; touch $TMPDIR/full
        wait $!; status=$?; rm $TMPDIR/on $TMPDIR/full; exit $status";
    let Some((output, _bed)) = in_mounts(script) else { return };
    expect_cause(&output, "the file system of the guest's memory is full");
}

fn expect_cause(output: &Output, cause: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{error}");
    let told = error.lines().find(|line| line.starts_with("soft-roce: cause: "));
    assert!(told.is_some_and(|line| line.contains(cause)), "{error}");
    assert!(error.contains("soft-roce doctor") && error.contains("--log"), "{error}");
    println!("{}", told.unwrap());
}
