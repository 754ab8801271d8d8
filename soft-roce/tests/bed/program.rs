//! Environment of a program in the bed: its arguments, its surroundings, and the way of its status.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use soft_roce::{Guest, Input, Kernel, Output as Stream, RunStatus};
use tempfile::TempDir;

use crate::support::{Bed, PROGRAM, TARGETS, expect_success, kernel_program, text};

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
fn devices_are_those_asked_for() {
    let bed = Bed::new();
    let siw = "set -e
         test $SOFT_ROCE_DEVICE = siw -a $SOFT_ROCE_ADDRESS = 10.10.10.1
         test -z \"$SOFT_ROCE_SIW_ADDRESS\"
         rdma link show | grep 'siw0/1 state ACTIVE.* netdev dum0'
         ! rdma link show | grep rxe";
    expect_success(&bed.shell(&["--device", "siw"], siw));
    let both = "set -e
         test $SOFT_ROCE_DEVICE = both -a $SOFT_ROCE_ADDRESS = 10.10.10.1
         rdma link show | grep 'rxe0/1 state ACTIVE.* netdev dum0'
         rdma link show | grep 'siw0/1 state ACTIVE.* netdev dum1'
         ip addr show dum1 | grep $SOFT_ROCE_SIW_ADDRESS/24
         ip addr show dum1 | grep fd10:10:11::1/64";
    expect_success(&bed.shell(&["--device", "both"], both));
    let unknown = bed.run(&["--device", "mlx5"]).args(["--", "true"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    let words = text(&unknown.stderr);
    assert!(words.contains("no device \"mlx5\"; known are rxe, siw, both"), "{words}");
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
fn an_ordinary_user_can_run() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here is already run by one.
        return;
    }
    let folder = TempDir::new().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tmp = folder.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    // Without the sticky bit, another user could replace the run's folder: it is not used then.
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).unwrap();
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
    assert_eq!(outcome.ending, RunStatus::Exited(3));
    assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"hello"[..], &b"oops\n"[..]));
    let limit = Duration::from_secs(2);
    let guest = Guest::new("sleep").args(["100"]).kernel(kernel).timeout(limit);
    assert_eq!(guest.stdin(Input::Null).run().unwrap().ending, RunStatus::TimedOut(limit));
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

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--kernel", "/no/linux", "--", "true"]);
    command.env("SOFT_ROCE_TARGET", "").env("SOFT_ROCE_ARTIFACTS", "");
    let error = text(&command.output().unwrap().stderr);
    assert!(error.contains("/no/linux"), "{error}");
    let mut command = Command::new(PROGRAM);
    command.args(["build", "--kernel", "/no/linux"]).env("SOFT_ROCE_KERNEL_SOURCE", "");
    let error = text(&command.output().unwrap().stderr);
    assert!(error.contains("/no/linux"), "{error}");
}
