//! A subsystem of the kernel's target whose commands pass through to a controller of another one:
//! the cases of blktests for such, each named at its test, and commands of `nvmf`.

// bed: --target soft-roce/targets/passthru.toml

use std::{fs, time::Duration};

use rdma_host::{Controller, Namespace, wire::NamespaceId};
use tests::{command, noise, nvmf, nvmf_ok, options, run, target, uri};

/// Subsystem whose commands pass through to a controller of [`DISK`].
const PASSTHRU: &str = "nqn.2026-11.org.soft-roce:passthru";
const DISK: &str = "nqn.2026-11.org.soft-roce:disk";

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends")
    })
}

async fn connect(subsystem: &str) -> Controller {
    let mut options = options();
    options.subsystem = subsystem.parse().expect("an NQN");
    Controller::connect(&options).await.expect("the target is there")
}

async fn read(controller: &Controller, namespace: &Namespace, bytes: usize) -> Vec<u8> {
    let buffer = controller.allocate(bytes).expect("memory");
    let buffer = namespace.read(0, buffer).await.expect("the target reads");
    let mut data = vec![0; bytes];
    buffer.copy_out(0, &mut data);
    data
}

/// blktests nvme/033: controller and namespaces say the same of themselves on either way.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_controller_is_the_one_that_it_passes_through_to() {
    in_runtime(async {
        let (through, direct) = (connect(PASSTHRU).await, connect(DISK).await);
        let described = |controller: &Controller| {
            let negotiated = controller.negotiated();
            let info = &negotiated.info;
            (info.serial.clone(), info.model.clone(), info.firmware.clone(), negotiated.version)
        };
        assert_eq!(described(&through), described(&direct));
        let ids = through.namespaces().await.unwrap();
        assert_eq!(ids, [NamespaceId(1), NamespaceId(2)]);
        for id in ids {
            let sizes = async |controller: &Controller| {
                let info = controller.identify_namespace(id).await.unwrap();
                (info.blocks, info.block_size, info.command_set)
            };
            assert_eq!(sizes(&through).await, sizes(&direct).await);
        }
        through.shutdown().await;
        direct.shutdown().await;
    });
}

/// blktests nvme/034: blocks that were written are read on either way, also under load.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn blocks_are_those_of_the_other_subsystem() {
    let data = noise(1 << 20, 34);
    for (ns, blocks) in [("1", "2048"), ("2", "256")] {
        for (from, to) in [(PASSTHRU, DISK), (DISK, PASSTHRU)] {
            let write = ["write", &uri(from), "--ns", ns, "--overwrite", "--force"];
            let _ = nvmf_ok(&write, &data);
            assert!(nvmf_ok(&["read", &uri(to), "--ns", ns, "--blocks", blocks], &[]) == data);
        }
        let verify = ["write-verify", &uri(PASSTHRU), "--ns", ns, "--size", "2M", "--overwrite"];
        let _ = nvmf_ok(&[&verify[..], &["--force"]].concat(), &[]);
    }
}

/// blktests nvme/035: a file system on a namespace that passes through keeps its files.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_file_system_passes_through() {
    let attach = ["attach", &uri(PASSTHRU), "--ns", "1"];
    let device = String::from_utf8(nvmf_ok(&attach, &[])).unwrap().trim_end().to_owned();
    command("mkfs.ext4", &format!("-q {device}"));
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().display(), folder.path().join("file"));
    let data = noise(8 << 20, 35);
    for is_new in [true, false] {
        command("mount", &format!("{device} {path}"));
        if is_new {
            fs::write(&file, &data).unwrap();
        }
        assert!(fs::read(&file).unwrap() == data);
        command("umount", &path.to_string());
    }
    command("e2fsck", &format!("-fn {device}"));
    let _ = nvmf_ok(&["detach", &device], &[]);
    // The blocks are those of the other subsystem: the file system is there.
    let blocks = nvmf_ok(&["read", &uri(DISK), "--ns", "1", "--blocks", "4"], &[]);
    assert_eq!(blocks[1024 + 0x38..][..2], [0x53, 0xef], "the magic number of ext4");
}

/// blktests nvme/036: after a reset the controller does I/O again.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_controller_is_reset() {
    in_runtime(async {
        let controller = connect(PASSTHRU).await;
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        let before = read(&controller, &namespace, 4096).await;
        for _ in 0..3 {
            controller.reset().await;
            assert!(read(&controller, &namespace, 4096).await == before);
        }
        controller.shutdown().await;
    });
}

/// blktests nvme/037: the target takes the subsystem down as soon as a host has it, ten times.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_subsystem_goes_as_soon_as_it_is_there() {
    let enable = format!("subsystems/{PASSTHRU}/passthru/enable");
    for _ in 0..10 {
        in_runtime(async { connect(PASSTHRU).await.shutdown().await });
        target(&["unlink", "port", "1", PASSTHRU]);
        target(&["set", &enable, "0"]);
        target(&["set", &enable, "1"]);
        target(&["link", "port", "1", PASSTHRU]);
    }
    let identified = nvmf_ok(&["identify", &uri(PASSTHRU)], &[]);
    assert!(String::from_utf8_lossy(&identified).contains(PASSTHRU));
}

/// Commands of namespaces and of the user's own making; reservations do not pass.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_pass_through() {
    let target = uri(PASSTHRU);
    for line in [
        "flush --ns 1",
        "dsm --ns 1 --lba 8 --blocks 8 --overwrite --force",
        "write-zeroes --ns 2 --lba 8 --blocks 8 --overwrite --force",
        "id-ctrl",
        "id-ns --ns 1",
        "log health",
        "get-log --log-id 5 --log-len 4096",
        "admin-passthru --opcode 6 --cdw10 1 --data-len 4096 --read",
        "io-passthru --ns 1 --opcode 2 --data-len 512 --read",
    ] {
        let words: Vec<_> = line.split(' ').chain([&*target]).collect();
        let _ = nvmf_ok(&words, &[]);
    }
    let refused = run(nvmf().args(["resv-report", &target, "--ns", "1"]), &[]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("does not support reservations (ONCS bit 5)"), "{message}");
}
