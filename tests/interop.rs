//! Data written by our initiator and read by the kernel's, and the other way round.

// bed: --target tests/targets/deep.toml --deny non-flush.error
// bed (siw): --device siw --target tests/targets/deep.toml
// bed (little granted): --kernel 6.12 --target tests/targets/shallow.toml --deny non-flush.error

use std::{path::Path, process::Command};

use rdma_host::{Controller, wire::NamespaceId};
use tests::{KernelInitiator, SUBSYSTEM, noise, nvmf_ok, options, run, uri};

/// The block counts at which something changes: one block, odd ones, in-capsule and keyed data
/// (16 KiB), one command and more (1 MiB), each from an odd block on.
const COUNTS: [u64; 8] = [1, 2, 7, 8, 255, 256, 257, 2048];
const FORMATS: [(u32, u64); 2] = [(1, 512), (2, 4096)];

fn start(index: usize) -> u64 {
    2 * (index as u64 * 2999) + 1
}

/// `dd` past the page cache.
fn dd(arguments: &[String]) {
    let output = run(Command::new("dd").args(arguments).arg("conv=notrunc"), &[]);
    assert!(output.status.success(), "dd: {}", String::from_utf8_lossy(&output.stderr));
}

/// `name=path` for `dd`.
fn file(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// Number of I/O queues of four that this target grants; the target file decides.
fn granted_queues() -> u16 {
    let shallow = std::env::var("SOFT_ROCE_TARGET").is_ok_and(|path| path.contains("shallow"));
    if shallow { 2 } else { 4 }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_kernel_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for (namespace, block_size) in FORMATS {
        for (index, count) in COUNTS.into_iter().enumerate() {
            let lba = start(index);
            let data = noise(usize::try_from(count * block_size).unwrap(), lba);
            std::fs::write(&ours, &data).unwrap();
            let (ns, at) = (namespace.to_string(), lba.to_string());
            let name = ours.to_str().unwrap();
            let _ = nvmf_ok(
                &[
                    "write",
                    &uri(SUBSYSTEM),
                    "--overwrite",
                    "--ns",
                    &ns,
                    "--lba",
                    &at,
                    "--file",
                    name,
                ],
                &[],
            );
            let kernel = KernelInitiator::connect();
            let device = kernel.device(namespace);
            dd(&[
                file("if", &device),
                file("of", &theirs),
                format!("bs={block_size}"),
                format!("skip={lba}"),
                format!("count={count}"),
                "iflag=direct".to_owned(),
            ]);
            let same = std::fs::read(&theirs).unwrap() == data;
            assert!(same, "{count} blocks of {block_size} bytes from {lba} on differ");
            std::fs::remove_file(&theirs).unwrap();
        }
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn we_read_what_the_kernel_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    for (namespace, block_size) in FORMATS {
        for (index, count) in COUNTS.into_iter().enumerate() {
            let lba = start(index) + 15_000;
            let data = noise(usize::try_from(count * block_size).unwrap(), lba + 7);
            std::fs::write(&path, &data).unwrap();
            let kernel = KernelInitiator::connect();
            let device = kernel.device(namespace);
            dd(&[
                file("if", &path),
                file("of", &device),
                format!("bs={block_size}"),
                format!("seek={lba}"),
                format!("count={count}"),
                "oflag=direct".to_owned(),
            ]);
            drop(kernel);
            let (ns, at) = (namespace.to_string(), lba.to_string());
            let blocks = count.to_string();
            let read = nvmf_ok(
                &["read", &uri(SUBSYSTEM), "--ns", &ns, "--lba", &at, "--blocks", &blocks],
                &[],
            );
            assert!(read == data, "{count} blocks of {block_size} bytes from {lba} on differ");
        }
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn pipes_carry_what_files_carry() {
    let data = noise(3 * 4096 * 257, 3);
    let place = ["--ns", "2", "--lba", "11"];
    let _ = nvmf_ok(&[&["write", &uri(SUBSYSTEM), "--overwrite"], &place[..]].concat(), &data);
    let blocks = (data.len() / 4096).to_string();
    let read =
        nvmf_ok(&["read", &uri(SUBSYSTEM), "--ns", "2", "--lba", "11", "--blocks", &blocks], &[]);
    assert!(read == data);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn large_transfers_are_split_and_put_together() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut options = options();
        options.io_queues = 4;
        let controller = Controller::connect(&options).await.unwrap();
        assert_eq!(controller.negotiated().io_queues, granted_queues());
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        // Not a multiple of the largest transfer, and more than all queue entries hold at once.
        let length = 5 * (1 << 20) + 512 * 3;
        let data = noise(length, 99);
        let mut buffer = controller.allocate(length).unwrap();
        buffer.copy_in(0, &data);
        let mut buffer = namespace.write(77, buffer).await.unwrap();
        namespace.flush().await.unwrap();
        buffer.fill(0);
        let buffer = namespace.read(77, buffer).await.unwrap();
        assert_eq!(buffer.len(), length, "the parts are one buffer again");
        let mut read = vec![0; length];
        buffer.copy_out(0, &mut read);
        assert!(read == data);
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn dropped_futures_and_outliving_namespaces_do_no_harm() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let controller = Controller::connect(&options()).await.unwrap();
        let namespace = controller.namespace(NamespaceId(2)).await.unwrap();
        for lba in 0..200 {
            let buffer = controller.allocate(4096).unwrap();
            let pending = namespace.read(lba, buffer);
            // Submitted, then forgotten: the queue keeps the buffer until the target is done.
            let _ = tokio::time::timeout(std::time::Duration::from_micros(1), pending).await;
        }
        let buffer = controller.allocate(4096).unwrap();
        let buffer = namespace.read(0, buffer).await.unwrap();
        controller.shutdown().await;
        let failed = namespace.read(0, buffer).await.unwrap_err();
        assert!(matches!(failed.error, rdma_host::Error::Closed), "{failed}");
        assert!(failed.buffer.is_some(), "the buffer comes back");
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_examples_run() {
    let discovery = rdma_host::wire::Nqn::DISCOVERY;
    for (arguments, expected) in [
        (&["identify", SUBSYSTEM][..], "1: 524288 blocks of 512 bytes"),
        (&["read_write", SUBSYSTEM, "2"], "16 blocks written and read back"),
        (&["polled", SUBSYSTEM, "2"], "10000 blocks read, "),
        (&["local_futures", SUBSYSTEM, "2"], "10000 blocks read by 32 tasks"),
        (&["vectored", SUBSYSTEM, "2"], "header, and 65536 bytes"),
        (&["registered_memory", SUBSYSTEM, "1"], "32768 bytes written from a vector"),
        (&["events", SUBSYSTEM], "resetting"),
        (&["discover", discovery], SUBSYSTEM),
    ] {
        let printed = tests::run_example(arguments[0], &arguments[1..]);
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_examples_of_verbs_run() {
    let printed = tests::run_example_with("devices", &[]);
    assert!(printed.contains("port 1: active"), "{printed}");
    let address = format!("{}:4791", tests::address());
    let printed = tests::run_example_with("loopback", &[&address]);
    assert!(printed.contains(" messages went and came back"), "{printed}");
}
