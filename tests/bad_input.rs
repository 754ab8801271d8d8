//! Error texts for bad input: one line with the fault and the remedy, and the right exit code.

// bed: waits --target tests/targets/closed.toml

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use tests::{SUBSYSTEM, address, nvmf, run, target, uri};

const CLOSED: &str = "nqn.2026-11.org.soft-roce:closed";

/// Runs `nvmf`, and checks that it fails as it should: exit code, words, one line.
fn refused(arguments: &[&str], input: &[u8], code: i32, words: &[&str]) {
    let output = run(nvmf().args(arguments), input);
    check(&format!("nvmf {arguments:?}"), &output, code, words);
}

fn check(what: &str, output: &Output, code: i32, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.trim_end();
    assert_eq!(output.status.code(), Some(code), "{what}: {message}");
    assert!(output.stdout.is_empty(), "{what} wrote to standard output");
    assert_eq!(message.lines().count(), 1, "{what}: not one line: {message}");
    for word in words {
        assert!(message.contains(word), "{what}: {message:?} lacks {word:?}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_places() {
    let on = |place: &str| format!("nvmf-rdma://{place}/{SUBSYSTEM}");
    let silent = address().rsplit_once('.').map(|(net, _)| format!("{net}.77")).unwrap();
    refused(&["identify", &on(&silent)], &[], 4, &["does not answer", &silent]);
    refused(&["identify", &on("192.0.2.1")], &[], 4, &["no RDMA path to 192.0.2.1"]);
    let closed = format!("{}:4999", address());
    refused(&["identify", &on(&closed)], &[], 4, &["nothing listens"]);
    refused(&["identify", &on("nowhere.invalid")], &[], 2, &["nowhere.invalid"]);
    refused(&["identify", &uri("nqn.test:none")], &[], 3, &["subsystem NQN", "0x182"]);
    refused(&["identify", &uri("nqn.x ")], &[], 2, &["holds a blank"]);
    refused(&["identify", &uri("nqn.x?hostnqn=nqn.y")], &[], 2, &["--hostnqn"]);
    let discovery = uri("nqn.2014-08.org.nvmexpress.discovery");
    refused(&["identify", &discovery], &[], 2, &["discovery subsystem"]);
    refused(&["identify", &address()], &[], 2, &["is no target"]);
    refused(&["identify"], &[], 2, &["no target address"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_hosts() {
    refused(&["identify", &uri(CLOSED)], &[], 3, &["does not allow this host", "allowed hosts"]);
    let secret = ["-q", "nqn.2026-11.org.soft-roce:secret"];
    let arguments = ["identify", &uri(CLOSED), secret[0], secret[1]];
    refused(&arguments, &[], 3, &["demands authentication"]);
    let other = ["-q", "nqn.2026-11.org.soft-roce:other"];
    let output = run(nvmf().args(["identify", &uri(CLOSED), other[0], other[1]]), &[]);
    assert!(output.status.success(), "the host that is allowed gets in");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_blocks() {
    let target = uri(SUBSYSTEM);
    let read = |more: &[&'static str], code, words: &[&str]| {
        refused(&[&["read", &target], more].concat(), &[], code, words);
    };
    read(&["--ns", "9"], 2, &["namespace 9 is not there"]);
    read(&["--ns", "1", "--lba", "32760", "--blocks", "9"], 2, &["32760 to 32768", "past the end"]);
    read(&["--ns", "1", "--lba", "32768"], 2, &["past the end"]);
    read(&["--ns", "1", "--lba", "18446744073709551615", "--blocks", "1"], 2, &["past the end"]);
    read(&["--ns", "1", "--blocks", "18446744073709551615"], 2, &["too many"]);
    read(&["--blocks", "1"], 2, &["namespaces 1, 2", "--ns"]);
    read(&["--ns", "1", "--blocks", "1", "--file", "/nowhere/x"], 1, &["/nowhere/x"]);

    let odd = [1; 5000];
    let write = |more: &[&'static str], input: &[u8], code, words: &[&str]| {
        let start = ["write", &target, "--overwrite", "--ns", "1"];
        refused(&[&start[..], more].concat(), input, code, words);
    };
    write(&[], &odd, 2, &["5000 bytes is not a multiple", "512", "nothing was written"]);
    write(&["--blocks", "10"], &odd[..4096], 1, &["ended after 4096 of 5120 bytes", "8 blocks"]);
    write(&["--lba", "32768"], &odd[..512], 2, &["past the end", "nothing was written"]);
    write(&["--file", "/nowhere"], &[], 2, &["/nowhere"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    std::fs::write(&path, [1; 4096]).unwrap();
    let file = path.to_str().unwrap();
    let target = uri(SUBSYSTEM);
    let write = ["write", &target, "--overwrite", "--ns", "1", "--file", file, "--blocks", "9"];
    refused(&write, &[], 2, &["4096 bytes", "9 blocks need 4608", "nothing was written"]);
    std::fs::write(&path, []).unwrap();
    refused(&write[..7], &[], 2, &["has no data"]);
}

/// An empty pipe is what a failed command before it leaves.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn no_data() {
    let target = uri(SUBSYSTEM);
    let write = ["write", &target, "--ns", "2", "--overwrite"];
    refused(&write, &[], 2, &["standard input has no data"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_loads() {
    let target = uri(SUBSYSTEM);
    let bench = |more: &[&'static str], words: &[&str]| {
        let arguments = [&["bench", &target, "--ns", "1", "--runtime", "1"], more].concat();
        refused(&arguments, &[], 2, words);
    };
    bench(&["--bs", "1000"], &["not a multiple", "512"]);
    bench(&["--bs", "2M"], &["more than the controller takes"]);
    bench(&["--iodepth", "1000"], &["more than the target grants"]);
    bench(&["--size", "100"], &["at least one --bs"]);
    bench(&["--size", "100G"], &["--size"]);
    bench(&["--queue-size", "16", "--iodepth", "64"], &["--iodepth 64"]);
    for threads in ["0", "500"] {
        bench(&["--threads", threads], &["--threads"]);
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_disabled_namespace_fails_the_read() {
    let target_uri = uri(SUBSYSTEM);
    target(&["set", "namespace", SUBSYSTEM, "2", "enable", "0"]);
    refused(&["read", &target_uri, "--ns", "2", "--blocks", "1"], &[], 2, &["not there"]);
    target(&["set", "namespace", SUBSYSTEM, "2", "enable", "1"]);
    let output = run(nvmf().args(["read", &target_uri, "--ns", "2", "--blocks", "1"]), &[]);
    assert!(output.status.success());
}

/// `nvmf` as a user without rights of its own, whose copy that user may read.
fn unprivileged(limits: &str) -> Command {
    let program = std::path::Path::new("/run/nvmf");
    if !program.exists() {
        let ours = std::env::var("NVMF").expect("run by ./tests/run");
        std::fs::copy(ours, program).expect("/run has room");
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755))
            .expect("the copy is ours");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c"]);
    command.arg(format!("{limits} exec /run/nvmf \"$@\"")).arg("nvmf");
    command.args(["read", &uri(SUBSYSTEM), "--ns", "1", "--blocks", "1"]);
    command
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn users_without_rights() {
    let limited = run(&mut unprivileged("ulimit -l 64;"), &[]);
    check("64 KiB of locked memory", &limited, 4, &["RLIMIT_MEMLOCK is 65536", "ulimit -l"]);

    for device in ["/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"] {
        let mode = std::fs::metadata(device).unwrap().permissions();
        std::fs::set_permissions(device, PermissionsExt::from_mode(0o600)).unwrap();
        let refused = run(&mut unprivileged(""), &[]);
        std::fs::set_permissions(device, mode).unwrap();
        check(device, &refused, 4, &["no permission", device]);
    }
    let allowed = run(&mut unprivileged(""), &[]);
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
}

/// Runs last of its file, by its name: it takes the device away.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn z_no_device() {
    target(&["down"]);
    let deleted = run(Command::new("rdma").args(["link", "delete", tests::device()]), &[]);
    assert!(deleted.status.success());
    refused(&["identify", &uri(SUBSYSTEM)], &[], 4, &["no RDMA device"]);
}
