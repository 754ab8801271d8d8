//! Commands of `nvmf` as their users type them: what overwrites, and the examples of the help.

// bed: waits --target tests/targets/closed.toml

use std::process::{Command, Output};

use tests::{SUBSYSTEM, noise, nvmf, nvmf_ok, run, uri};

fn refused(arguments: &[&str], input: &[u8], words: &[&str]) {
    let output = run(nvmf().args(arguments), input);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: {message:?} lacks {word:?}");
    }
}

/// Blocks of 512 bytes from the start of namespace 1.
fn first_blocks(count: &str) -> Vec<u8> {
    nvmf_ok(&["read", &uri(SUBSYSTEM), "--ns", "1", "--blocks", count], &[])
}

fn write_at_start(data: &[u8]) {
    let _ = nvmf_ok(&["write", &uri(SUBSYSTEM), "--ns", "1", "--overwrite", "--force"], data);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn nothing_is_overwritten_unasked() {
    let target = uri(SUBSYSTEM);
    let data = noise(16 * 512, 5);
    write_at_start(&data);
    let place = ["--ns", "1", "--runtime", "100ms", "--ramp", "0"];
    refused(&["write", &target, "--ns", "1"], &data, &["--overwrite"]);
    refused(&["write-verify", &target, "--ns", "1"], &[], &["--overwrite"]);
    for more in [&["--rw", "write"][..], &["--rw", "randwrite"], &["--rw", "rw"], &["--verify"]] {
        refused(&[&["bench", &target][..], &place, more].concat(), &[], &["--overwrite"]);
    }
    assert!(first_blocks("16") == data);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_partition_table_stays_without_force() {
    let target = uri(SUBSYSTEM);
    let mut data = vec![0; 8 * 512];
    data[512..520].copy_from_slice(b"EFI PART");
    write_at_start(&data);
    let words = ["GUID partition table", "nothing was written", "--force"];
    let place = ["--ns", "1", "--overwrite"];
    // Also blocks beyond the table: they belong to its partitions.
    let write = [&["write", &target][..], &place, &["--lba", "100"]].concat();
    refused(&write, &data, &words);
    refused(&[&["write-verify", &target][..], &place, &["--size", "4K"]].concat(), &[], &words);
    let bench = ["--runtime", "100ms", "--ramp", "0", "--rw", "randrw"];
    refused(&[&["bench", &target][..], &place, &bench].concat(), &[], &words);
    assert!(first_blocks("8") == data);
    // Reads need no consent.
    let read = ["bench", &target, "--ns", "1", "--runtime", "100ms", "--ramp", "0"];
    let _ = nvmf_ok(&read, &[]);
    let _ = nvmf_ok(&[&["bench", &target][..], &place, &bench, &["--force"]].concat(), &[]);
    write_at_start(&vec![0; 8 * 512]);
    let _ = nvmf_ok(&[&["bench", &target][..], &place, &bench].concat(), &[]);
}

/// Images that the tools of Debian's required packages make.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_file_system_stays_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let name = image.to_str().unwrap();
    let make = |program: &str, arguments: &[&str]| {
        std::fs::write(&image, vec![0; 2 << 20]).unwrap();
        let output = run(Command::new(program).args(arguments).arg(name), &[]);
        assert!(output.status.success(), "{program}: {output:?}");
        let target = uri(SUBSYSTEM);
        let write = ["write", &target, "--ns", "1", "--file", name, "--overwrite"];
        let _ = nvmf_ok(&[&write[..], &["--force"]].concat(), &[]);
        refused(&write, &[], &[if program == "mkswap" { "swap space" } else { "ext4" }]);
    };
    make("mkfs.ext4", &["-q", "-F"]);
    make("mkswap", &["-q"]);
    write_at_start(&vec![0; 2 << 20]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn write_verify_touches_no_block_beyond_its_size() {
    let target = uri(SUBSYSTEM);
    let data = noise(512 * 512, 7);
    let run_with = |size: &str| -> Output {
        let place = ["--ns", "1", "--overwrite", "--force", "--size", size];
        run(nvmf().args([&["write-verify", &target][..], &place].concat()), &[])
    };
    write_at_start(&data);
    for wrong in ["1", "1000", "0"] {
        let output = run_with(wrong);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("nothing was written"), "{message}");
        assert!(first_blocks("512") == data, "--size {wrong} wrote");
    }
    // One block; one command and three blocks of 512 bytes.
    for blocks in [1, 128 + 3] {
        write_at_start(&data);
        assert!(run_with(&(blocks * 512).to_string()).status.success());
        let found = first_blocks("512");
        assert!(found[..blocks * 512] != data[..blocks * 512], "{blocks} blocks are written");
        assert!(found[blocks * 512..] == data[blocks * 512..], "{blocks} blocks and no more");
    }
}
