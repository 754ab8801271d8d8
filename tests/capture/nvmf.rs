//! `nvmf --capture` in the bed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tests::{SUBSYSTEM, address, controllers, noise, nvmf, run, uri, wait_for};

use super::{dissect, has_tshark};

const SECRET: &str = "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:";
const KEYED: &str = "nqn.2026-11.org.soft-roce:keyed";
const KEYED_HOST: &str = "nqn.2026-11.org.soft-roce:secret";

/// Runs `nvmf` with a capture, and checks its exit code; returns the path of the capture.
fn captured(folder: &Path, code: i32, arguments: &[&str], input: &[u8]) -> PathBuf {
    let path = folder.join("capture");
    let output = run(nvmf().args(arguments).arg("--capture").arg(&path), input);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(!message.contains("capture"), "{message}");
    path
}

fn holds(path: &Path, part: &[u8]) -> bool {
    fs::read(path).expect("a capture").windows(part.len()).any(|window| window == part)
}

/// Texts that Wireshark shows of the frames that match a filter.
fn summaries(path: &Path, filter: &str) -> Vec<String> {
    let rows = dissect(path, filter, &["_ws.col.Info"]);
    rows.into_iter().map(|row| row.concat()).collect()
}

fn count(path: &Path, filter: &str) -> usize {
    dissect(path, filter, &["frame.number"]).len()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wireshark_names_what_identify_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = captured(folder.path(), 0, &["identify", &uri(SUBSYSTEM), "--queues", "1"], &[]);
    assert!(!holds(&path, b"nqn."), "the data of Connect");
    if !has_tshark() {
        return;
    }
    assert_eq!(count(&path, "_ws.malformed"), 0);
    let connects = summaries(&path, "nvme.fabrics.cmd.connect.qid");
    assert!(
        connects.len() == 2 && connects.iter().all(|one| one.contains("Connect")),
        "{connects:?}"
    );
    let identifies = summaries(&path, "nvme.cmd.opc == 0x06");
    assert!(!identifies.is_empty());
    assert!(identifies.iter().all(|one| one.contains("Identify")), "{identifies:?}");
    // Each command has its response.
    let unanswered = "nvme.cmd.opc && nvme.cmd.opc != 0x7f && !nvme.cqe_pkt";
    let unanswered = dissect(&path, unanswered, &["nvme.cmd.opc"]);
    // Asynchronous Event Request, and the last Keep Alive maybe.
    let is_long = |row: &Vec<String>| row[0] == "0x0c" || row[0] == "0x18";
    assert!(unanswered.iter().all(is_long), "{unanswered:?}");
    assert!(count(&path, "infiniband.cm.dreq.localcommid") > 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_capture_of_an_authentication_has_nothing_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, SECRET).expect("it is written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&secret, mode).expect("it is ours");
    let target = uri(KEYED);
    let secret = secret.to_str().expect("UTF-8");
    let arguments = ["identify", &target, "--hostnqn", KEYED_HOST, "--dhchap-secret-file", secret];
    for options in [&[][..], &["--capture-data"]] {
        let path = captured(folder.path(), 0, &[&arguments, options].concat(), &[]);
        assert!(!holds(&path, b"DHHC-1") && !holds(&path, &SECRET.as_bytes()[10..40]));
        if has_tshark() {
            let sends = "nvme.fabrics.cmd.fctype == 0x05";
            assert!(count(&path, sends) > 0, "Authentication Send");
            // Nothing but zeros behind the command.
            let behind = dissect(&path, sends, &["udp.payload"]);
            let is_empty = |row: &Vec<String>| {
                // The base transport header, the command, whatever, and the CRC.
                let bytes = row[0].replace(':', "");
                bytes[2 * (12 + 64)..bytes.len() - 8].bytes().all(|digit| digit == b'0')
            };
            assert!(behind.iter().all(is_empty), "{behind:?}");
        }
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn blocks_are_in_a_capture_only_if_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = uri(SUBSYSTEM);
    let data = noise(4096, 17);
    let write = ["write", &target, "--ns", "1", "--lba", "8", "--overwrite"];
    let path = captured(folder.path(), 0, &write, &data);
    assert!(!holds(&path, &data[..16]));
    if has_tshark() {
        let writes = summaries(&path, "nvme.cmd.opc == 0x01 && nvme.cmd.slba == 8");
        assert!(writes.len() == 1 && writes[0].contains("Write"), "{writes:?}");
    }
    let read = ["read", &target, "--ns", "1", "--lba", "8", "--blocks", "8"];
    let path = captured(folder.path(), 0, &read, &[]);
    assert!(!holds(&path, &data[..16]));
    if has_tshark() {
        let reads = summaries(&path, "nvme.cmd.opc == 0x02 && nvme.cmd.slba == 8");
        assert!(reads.len() == 1 && reads[0].contains("Read"), "{reads:?}");
        assert_eq!(count(&path, "nvme.cqe.status.sc != 0"), 0);
    }
    let path = captured(folder.path(), 0, &[&write[..], &["--capture-data"]].concat(), &data);
    assert!(holds(&path, &data), "it fits a capsule");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn discovery_is_captured() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = captured(folder.path(), 0, &["discover", "-a", &address()], &[]);
    if has_tshark() {
        let reads = "nvme.cmd.opc == 0x02 && nvme.cmd.get_logpage.dword10.id";
        assert!(count(&path, &format!("{reads} == 0x70")) > 0);
        assert_eq!(count(&path, &format!("{reads} != 0x70")), 0);
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_refused_connect_is_captured() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["identify", &uri("nqn.2026-11.org.soft-roce:nothing")];
    let path = captured(folder.path(), 3, &arguments, &[]);
    if has_tshark() {
        let connects = summaries(&path, "nvme.fabrics.cmd.connect.qid");
        assert_eq!(connects.len(), 1, "{connects:?}");
        // Connect Invalid Parameters.
        assert_eq!(count(&path, "nvme.cqe.status.sct == 1 && nvme.cqe.status.sc == 0x82"), 1);
        assert_eq!(count(&path, "nvme.cqe.status"), 1);
    }
    let nothing_listens = format!("nvmf-rdma://{}:4999/{SUBSYSTEM}", address());
    let path = captured(folder.path(), 4, &["identify", &nothing_listens], &[]);
    if has_tshark() {
        assert_eq!(count(&path, "infiniband.cm.req"), 1);
        assert_eq!(count(&path, "infiniband.cm.rej.reason"), 1);
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_capture_of_an_ended_bench_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("capture");
    let target = uri(SUBSYSTEM);
    // Without a fence queue ids begin with 1.
    let arguments = ["bench", &target, "--ns", "1", "--queues", "2", "--fence", "off"];
    let mut command = nvmf();
    command
        .args(arguments)
        .args(["--ramp", "0", "--runtime", "1m"])
        .arg("--capture")
        .arg(&path)
        .args(["--capture-size", "1M"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut bytes = 0;
    wait_for("the capture is full", Duration::from_secs(60), || {
        let now = fs::metadata(&path).map_or(0, |found| found.len());
        let is_full = now > 900 << 10 && now == bytes;
        bytes = now;
        is_full
    });
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("--capture-size"), "{message}");
    assert!(fs::metadata(&path).expect("a capture").len() <= 1 << 20);
    if has_tshark() {
        assert_eq!(count(&path, "_ws.malformed"), 0);
        assert!(count(&path, "nvme.cmd.opc == 0x02 && nvme-rdma.cmd.qid == 2") > 100);
    }
    wait_for("the target forgets", Duration::from_secs(1), || controllers(SUBSYSTEM) == 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_file_is_opened_before_anything_is_connected() {
    let target = uri(SUBSYSTEM);
    let output = run(nvmf().args(["identify", &target, "--capture", "/nowhere/at/all"]), &[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("nvmf: /nowhere/at/all: "), "{message}");
}
