//! Captures, read by Wireshark's dissectors: of a session over the fabric, and in the bed of what
//! `nvmf --capture` does.

// bed: --target tests/targets/commands.toml

#[path = "capture/nvmf.rs"]
mod nvmf;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
    process::Command,
    sync::Arc,
};

use rdma_capture::{Capture, CaptureFile};
use rdma_fabric::{Fabric, Host};
use rdma_host::{ConnectOptions, Controller, HostIdentity, ReconnectOptions, wire::NamespaceId};
use tests::target::{TARGET_ADDRESS, Target};

const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:scripted";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";

/// Bytes of the written block, which a capture without data must not have.
const PATTERN: [u8; 8] = *b"pattern!";

/// Number of bytes of a message that are captured.
type PayloadBytes = fn(&[u8]) -> usize;

/// A command without its data.
const COMMANDS: PayloadBytes = |_| 64;
const EVERYTHING: PayloadBytes = <[u8]>::len;

/// Writes and reads a block, some times, with the traffic captured.
fn captured_session(
    out: impl io::Write + Send + 'static,
    payload_bytes: PayloadBytes,
    times: u64,
) -> CaptureFile {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let target = Target::new(&fabric, Box::new(|_, _| {}));
    let file = CaptureFile::new(out, payload_bytes, CaptureFile::BYTES_MIN);
    let provider: Arc<Capture<Host>> = Capture::new(host, &file);

    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(
        TARGET_ADDRESS.parse().expect("an address"),
        SUBSYSTEM.parse().expect("an NQN"),
        identity,
    );
    options.io_queues = 2;
    options.reconnect = ReconnectOptions::never();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&provider, &options).await.expect("it connects");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut buffer = controller.allocate(512).expect("memory");
        (0..512).step_by(8).for_each(|offset| buffer.copy_in(offset, &PATTERN));
        for _ in 0..times {
            buffer = namespace.write(7, buffer).await.expect("the target answers");
            buffer = namespace.read(9, buffer).await.expect("the target answers");
        }
        drop(buffer);
        controller.shutdown().await;
    });
    file
}

fn capture_to(path: &Path, payload_bytes: PayloadBytes) {
    captured_session(File::create(path).expect("a file"), payload_bytes, 1)
        .finish()
        .expect("it is written");
}

/// Rows of a capture's packets that match a filter, in columns. In two passes: in the first, the
/// dissector of connection requests replaces their source address by a LID.
fn dissect(path: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-2").arg("-r").arg(path).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let done = command.output().expect("tshark is there");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    let rows = text.lines().map(|line| line.split('\t').map(str::to_owned).collect());
    rows.collect()
}

fn has_tshark() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED: no tshark to read captures with; run: apt-get install tshark");
    }
    found
}

#[test]
fn wireshark_reads_connections_commands_and_responses() {
    if !has_tshark() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.pcapng");
    capture_to(&path, EVERYTHING);

    assert_eq!(dissect(&path, "_ws.malformed", &["frame.number"]), [[""; 0]; 0]);
    let requests = dissect(
        &path,
        "infiniband.cm.req",
        &["ip.dst", "infiniband.cm.req.serviceid.dport", "nvme-rdma.cm.req.qid"],
    );
    assert!(requests.iter().all(|row| row[..2] == ["10.0.0.2", "0x1144"]), "{requests:?}");
    // The numbers of I/O queues follow from that of the process.
    let queues: BTreeSet<_> = requests.iter().map(|row| &row[2]).collect();
    assert!(queues.len() == 3 && queues.contains(&"0".to_owned()), "{requests:?}");
    assert_eq!(dissect(&path, "infiniband.cm.rep", &["frame.number"]).len(), 3);

    let connects = dissect(
        &path,
        "nvme.fabrics.cmd.connect.qid",
        &["nvme.fabrics.cmd.connect.qid", "nvme.fabrics.cqe_pkt"],
    );
    assert_eq!(connects.len(), 3, "{connects:?}");
    let connected: BTreeSet<_> = connects.iter().map(|row| &row[0]).collect();
    assert_eq!(connected, queues);
    assert!(connects.iter().all(|row| !row[1].is_empty()), "each has its response: {connects:?}");

    let reads_and_writes = dissect(
        &path,
        "nvme.cmd.opc == 1 || (nvme.cmd.opc == 2 && nvme-rdma.cmd.qid != 0)",
        &["nvme.cmd.opc", "nvme.cmd.slba", "nvme.cqe_pkt"],
    );
    let parts = reads_and_writes.iter().map(|row| (row[0].as_str(), row[1].as_str()));
    assert_eq!(
        parts.collect::<Vec<_>>(),
        [("0x01", "0x0000000000000007"), ("0x02", "0x0000000000000009")]
    );
    assert!(reads_and_writes.iter().all(|row| !row[2].is_empty()), "{reads_and_writes:?}");
}

#[test]
fn data_is_left_out_beyond_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.pcapng");
    let holds = |path: &Path, part: &[u8]| {
        fs::read(path).unwrap().windows(part.len()).any(|window| window == part)
    };
    capture_to(&path, EVERYTHING);
    assert!(holds(&path, &PATTERN) && holds(&path, HOST.as_bytes()));
    capture_to(&path, COMMANDS);
    assert!(!holds(&path, &PATTERN), "in-capsule data");
    assert!(!holds(&path, HOST.as_bytes()), "data of Connect");
    if has_tshark() {
        let writes = dissect(&path, "nvme.cmd.opc == 1", &["nvme.cmd.slba", "nvme.cqe_pkt"]);
        assert!(
            writes.len() == 1 && writes[0][0].ends_with("07") && !writes[0][1].is_empty(),
            "{writes:?}"
        );
    }
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_session() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = captured_session(Full(1024), COMMANDS, 1);
    assert_eq!(file.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_capture_ends_at_its_limit_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.pcapng");
    let file = captured_session(File::create(&path).unwrap(), EVERYTHING, 1000);
    assert_eq!(file.finish().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    let bytes = fs::metadata(&path).unwrap().len();
    let limit = CaptureFile::BYTES_MIN;
    assert!((limit / 2..=limit).contains(&bytes), "{bytes} of {limit}");
    if has_tshark() {
        let comments = dissect(&path, "frame.comment", &["frame.number", "frame.comment"]);
        let count = dissect(&path, "frame", &["frame.number"]).len();
        assert_eq!(comments.len(), 1, "{comments:?}");
        assert_eq!(comments[0][0], count.to_string(), "on the last frame");
        assert!(comments[0][1].contains("limit"), "{comments:?}");
    }
}
