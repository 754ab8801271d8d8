//! `nvmf zns`, on the kernel's target.

use std::process::Command;

use serde_json::Value;
use tests::{KernelInitiator, noise, run, uri};

use super::bed::{done, nvmf_on, refused};

/// Subsystem with a zoned namespace, 1, and one that is not, 2.
pub(super) const ZONED: &str = "nqn.2026-11.org.soft-roce:zoned";

/// Size of a block of the zoned namespace in bytes.
const BLOCK: usize = 4096;
/// Blocks from one zone to the next.
const ZONE: u64 = 1024;

/// Makes all zones empty.
fn reset() {
    done(&uri(ZONED), "zns reset-zone --ns 1 --select-all --overwrite --force", &[]);
}

fn json(line: &str) -> Value {
    let shown = done(&uri(ZONED), &format!("{line} --ns 1 -o json"), &[]);
    serde_json::from_slice(&shown).expect("JSON")
}

/// States of the first zones.
fn states(count: usize) -> Vec<String> {
    let report = json(&format!("zns report-zones --descs {count}"));
    let zones = report["zone_list"].as_array().expect("a list").iter();
    zones.map(|zone| zone["state"].as_str().expect("a word").to_owned()).collect()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn zones_are_appended_to_and_managed() {
    let target = uri(ZONED);
    reset();
    let data = noise(16 * BLOCK, 1);
    for (part, first) in [(0..2, 1024), (2..16, 1026)] {
        let line = "zns zone-append --ns 1 --zslba 1024";
        let bytes = &data[part.start * BLOCK..part.end * BLOCK];
        let (code, message, _) = nvmf_on(&target, line, bytes);
        let expected = format!("{} blocks appended, from block {first} on\n", part.len());
        assert_eq!((code, message), (Some(0), expected));
    }
    assert!(done(&target, "read --ns 1 --lba 1024 --blocks 16", &[]) == data);
    let zone = &json("zns report-zones --start-lba 1030 --descs 1")["zone_list"][0];
    assert_eq!((&zone["slba"], &zone["wp"]), (&1024.into(), &1040.into()), "{zone}");

    let zns = |line: &str| drop(done(&target, &format!("zns {line} --ns 1"), &[]));
    zns("open-zone --start-lba 0");
    assert_eq!(states(3), ["EXP_OPENED", "IMP_OPENED", "EMPTY"]);
    zns("close-zone --start-lba 1024");
    zns("finish-zone --start-lba 2048");
    assert_eq!(states(4), ["EXP_OPENED", "CLOSED", "FULL", "EMPTY"]);
    zns("open-zone --select-all");
    zns("reset-zone --start-lba 2048 --overwrite");
    assert_eq!(states(3), ["EXP_OPENED", "EXP_OPENED", "EMPTY"]);
    let open = json("zns report-zones --state explicitly-open --descs 1");
    assert_eq!((&open["nr_zones"], open["zone_list"].as_array().unwrap().len()), (&2.into(), 1));
    let partial = json("zns report-zones --state 3 --descs 1 --partial");
    assert_eq!(partial["nr_zones"], 1);
    zns("finish-zone --select-all");
    assert_eq!(states(3), ["FULL", "FULL", "EMPTY"]);
    reset();
    assert!(states(8).iter().all(|state| state == "EMPTY"));
}

/// Larger than a command, from a file and from a pipe.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn blocks_are_written_in_the_order_of_a_zone() {
    let target = uri(ZONED);
    reset();
    let data = noise(768 * BLOCK, 2);
    done(&target, "write --ns 1 --lba 1024 --overwrite --force", &data);
    assert_eq!(states(2), ["EMPTY", "FULL"]);
    assert!(done(&target, "read --ns 1 --lba 1024 --blocks 768", &[]) == data);
    for (line, command) in [
        ("write-verify --ns 1 --size 1M --overwrite --force", "write-verify"),
        ("bench --ns 1 --rw randwrite --runtime 1s --overwrite --force", "bench"),
    ] {
        let words = format!("namespace 1 is zoned, and {command} writes blocks in no order");
        refused(&target, line, &[], 2, &words);
    }
    done(&target, "bench --ns 1 --rw randread --bs 4K --runtime 1s --wait event", &[]);
}

/// Data structures and report, as nvme-cli gets them through the kernel's initiator.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn zones_are_those_that_nvme_cli_reports() {
    let target = uri(ZONED);
    reset();
    done(&target, "zns zone-append --ns 1 --zslba 0", &noise(3 * BLOCK, 3));
    done(&target, "zns finish-zone --ns 1 --start-lba 1024", &[]);
    done(&target, "zns open-zone --ns 1 --start-lba 2048", &[]);
    let kernel = KernelInitiator::connect_to(ZONED);
    let device = kernel.device(1);
    let theirs = |words: &str| {
        let mut nvme = Command::new("nvme");
        nvme.arg("zns").args(words.split(' ')).arg(&device).args(["-o", "json"]);
        let output = run(&mut nvme, &[]);
        let parsed: Result<Value, _> = serde_json::from_slice(&output.stdout);
        parsed.unwrap_or_else(|_| panic!("{output:?}"))
    };
    let report = "io-passthru --opcode 0x7a --cdw12 1023 --data-len 4096 --read --raw-binary";
    let mut nvme = Command::new("nvme");
    let raw = run(nvme.args(report.split(' ')).args(["--namespace-id", "1"]).arg(&device), &[]);
    assert!(done(&target, &format!("{report} --ns 1"), &[]) == raw.stdout, "{raw:?}");
    assert_eq!((raw.stdout.len(), raw.stdout[0]), (4096, 8));
    let mut same = vec![("zns id-ns", "id-ns")];
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    if release.starts_with("6.") {
        // nvme-cli counts all zones, also those before the first.
        let first = "report-zones --start-lba=2048";
        let ours = json("zns report-zones --start-lba 2048");
        assert_eq!(ours["zone_list"], theirs(first)["zone_list"]);
        same.extend([
            ("zns report-zones", "report-zones"),
            ("zns report-zones --state full", "report-zones --state=5"),
            ("zns report-zones --state offline", "report-zones --state=7"),
            ("zns report-zones --descs 2", "report-zones --descs=2"),
        ]);
    } else {
        println!("SKIPPED: the target of Linux 7 refuses the report that nvme-cli begins with");
    }
    for (ours, others) in same {
        assert_eq!(json(ours), theirs(others), "{ours}");
    }
    let shown = done(&target, "zns id-ctrl -o json", &[]);
    let shown: Value = serde_json::from_slice(&shown).expect("JSON");
    assert_eq!(shown, theirs("id-ctrl"));
    drop(kernel);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_that_a_zone_cannot_execute_are_told_in_a_line() {
    let target = uri(ZONED);
    reset();
    let append = |zone: u64, bytes: usize, code, words: &str| {
        let line = format!("zns zone-append --ns 1 --zslba {zone}");
        refused(&target, &line, &vec![1; bytes], code, words);
    };
    let unaligned = "block 5 is not the first of a zone: zones begin every 1024 blocks, this one \
                     at block 0";
    append(5, BLOCK, 2, unaligned);
    append(8 * ZONE, BLOCK, 2, "past the end");
    append(0, 17 * BLOCK, 2, "standard input has more than 65536 bytes");
    append(0, 100, 2, "100 bytes is not a multiple of the block size");
    let sized = "zns zone-append --ns 1 --zslba 0 --data-size 69632";
    refused(&target, sized, &[], 2, "the controller takes at most 65536 (ZASL)");
    let line = "zns reset-zone --ns 1 --start-lba 1 --overwrite --force";
    refused(&target, line, &[], 2, "block 1 is not the first of a zone");
    let line = "zns report-zones --ns 1 --start-lba 8192";
    refused(&target, line, &[], 2, "past the end");
    for line in ["zns reset-zone --ns 1 --select-all", "zns offline-zone --ns 1 --start-lba 0"] {
        refused(&target, line, &[], 2, "give --overwrite");
    }
    for line in [
        "report-zones",
        "id-ns",
        "open-zone --start-lba 0",
        "close-zone --start-lba 0",
        "finish-zone --select-all",
        "reset-zone --select-all --overwrite",
        "offline-zone --select-all --overwrite",
        "zone-append --zslba 0",
    ] {
        let line = format!("zns {line} --ns 2");
        refused(&target, &line, &[1; 512], 2, "namespace 2 is not zoned");
    }

    // The kernel's target gives no reason: the state of the zones is one.
    done(&target, "zns finish-zone --ns 1 --start-lba 0", &[]);
    append(0, BLOCK, 1, "the zone at block 0 is full, 0 of at most 2 zones are open");
    done(&target, "zns open-zone --ns 1 --start-lba 1024", &[]);
    done(&target, "zns open-zone --ns 1 --start-lba 2048", &[]);
    let open = "the zone at block 3072 is empty, 0 of its 768 blocks are written, 2 of at most 2 \
                zones are open, 2 of at most 3 zones are active";
    refused(&target, "zns open-zone --ns 1 --start-lba 3072", &[], 1, open);
    append(3 * ZONE, BLOCK, 1, open);
    let line = "zns offline-zone --ns 1 --start-lba 0 --overwrite --force";
    refused(&target, line, &[], 1, "invalid zone state transition");
    reset();
}
