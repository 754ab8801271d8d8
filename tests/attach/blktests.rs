//! Cases of blktests for a block device of a target: nvme/010 to 013, of which the odd ones have a
//! file below the namespace.

use super::*;

/// blktests nvme/010 and 011: a job that verifies, on the device.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_job_verifies_on_the_device() {
    for namespace in ["2", "1"] {
        let device = Attached::new(&["--ns", namespace]);
        let Some(fio) = Fio::start(&device.path, 1) else { return };
        fio.succeed();
    }
}

/// blktests nvme/012 and 013: the same, on a file system.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_job_verifies_on_a_file_system() {
    let device = Attached::new(&["--ns", "1"]);
    command("mkfs.ext4", &format!("-q {}", device.path.display()));
    let mounted = Mounted::new(&device.path);
    let Some(fio) = Fio::start(&mounted.0.join("file"), 2) else { return };
    fio.succeed();
    drop(mounted);
    command("e2fsck", &format!("-fn {}", device.path.display()));
}
