//! Files that are kept of a run that failed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{Bed, expect_success, text};

/// The folders in `base`, one of each failed run.
fn folders(base: &Path) -> Vec<PathBuf> {
    fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn expect_state(folder: &Path) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let log = read("kernel.log");
    assert!(log.contains("Linux version") && log.contains("rdma_rxe: loaded"), "{log}");
    let link = read("rdma-link.txt");
    assert!(link.starts_with("$ rdma -d link show\n") && link.contains("rxe0/1"), "{link}");
    let resource = read("rdma-resource.txt");
    assert!(resource.contains("rxe0: ") && resource.contains("$ rdma resource show qp"));
    assert!(read("rdma-statistic.txt").contains("sent_pkts"));
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_failed_run_leaves_its_artifacts() {
    let (bed, base) = (Bed::new(), TempDir::new().unwrap());
    let place = base.path().join("new/folder");
    let options = ["--artifacts", place.to_str().unwrap()];
    let output = bed.shell(&options, "echo seen > /dev/kmsg; exit 3");
    assert_eq!(output.status.code(), Some(3));
    let kept = folders(&place);
    assert_eq!(kept.len(), 1);
    expect_state(&kept[0]);
    assert!(kept[0].file_name().unwrap().to_str().unwrap().starts_with("sh-"), "{kept:?}");
    assert!(fs::read_to_string(kept[0].join("kernel.log")).unwrap().contains("seen"));
    assert!(text(&output.stderr).contains(kept[0].to_str().unwrap()));
    assert_eq!(bed.shell(&options, "kill -SEGV $$").status.code(), Some(139));
    assert_eq!(folders(&place).len(), 2);
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_run_that_is_killed_leaves_its_artifacts() {
    let (bed, base) = (Bed::new(), TempDir::new().unwrap());
    let options = ["--timeout", "8", "--artifacts", base.path().to_str().unwrap()];
    assert_eq!(bed.shell(&options, "sleep 1000").status.code(), Some(124));
    let kept = folders(base.path());
    assert_eq!(kept.len(), 1);
    expect_state(&kept[0]);
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_panic_leaves_the_kernels_log() {
    let (bed, base) = (Bed::new(), TempDir::new().unwrap());
    let options = ["--artifacts", base.path().to_str().unwrap()];
    let output = bed.shell(&options, "echo c > /proc/sysrq-trigger; sleep 100");
    assert_eq!(output.status.code(), Some(101));
    let log = fs::read_to_string(folders(base.path())[0].join("kernel.log")).unwrap();
    assert!(log.contains("sysrq triggered crash"), "{log}");
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_run_that_succeeds_leaves_no_artifacts() {
    let (bed, base) = (Bed::new(), TempDir::new().unwrap());
    let place = base.path().to_str().unwrap();
    expect_success(&bed.shell(&["--artifacts", place], "true"));
    assert!(folders(base.path()).is_empty());
}
