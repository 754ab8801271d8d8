//! Metadata and protection information by the commands of `nvmf`, on the scripted target: the
//! kernel's has none over a device without integrity offload.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use tests::target::{Format, Guard, Protection};

use super::{
    BLOCK, ONCS,
    bed::{ScriptedTarget, done, nvmf_on, refused},
};

/// Scripted target with a namespace of this format, and its medium.
fn formatted(format: Format) -> (ScriptedTarget, Arc<Mutex<Vec<u8>>>) {
    let mut medium = None;
    let target = ScriptedTarget::start_with(|target| {
        let target = target.supporting(ONCS, 0).formatted(format);
        medium = Some(target.medium());
        target
    });
    (target, medium.expect("the target was made"))
}

fn protected(metadata: usize) -> Format {
    let guard = Guard::Short;
    let protection = Some(Protection { guard, kind: 1, first: false, storage_tag_bits: 0 });
    Format { block: BLOCK, metadata, protection }
}

/// File of this name in the folder of the test.
fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("UTF-8").to_owned()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn metadata_goes_with_its_blocks() {
    const SIZE: usize = BLOCK + 16;
    let (scripted, medium) = formatted(protected(16));
    let target = &*scripted.uri;
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (path(&folder, "ours"), path(&folder, "theirs"));
    let (data, metadata) = (tests::noise(24 * BLOCK, 5), tests::noise(24 * 16, 6));
    fs::write(&ours, &metadata).expect("a file");

    let identify = String::from_utf8(done(target, "identify", &[])).expect("UTF-8");
    assert!(identify.contains("metadata 16 B with PI type 1, 16-bit guard, last"), "{identify}");
    let format = String::from_utf8(done(target, "id-ns", &[])).expect("UTF-8");
    assert!(format.contains("ms 16, ds 9"), "{format}");

    let write = format!("write --lba 4 --overwrite --metadata {ours}");
    done(target, &format!("{write} --metadata-size 384 --blocks 24 --app-tag 0x1234"), &data);
    let read = format!("read --lba 4 --blocks 24 --metadata {theirs}");
    let tags = "--app-tag 0x1200 --app-tag-mask 0xff00";
    assert!(done(target, &format!("{read} {tags}"), &[]) == data);
    let came = fs::read(&theirs).expect("the file");
    let other = |bytes: &[u8]| -> Vec<u8> {
        bytes.chunks(16).flat_map(|block| block[..8].to_vec()).collect()
    };
    assert!(other(&came) == other(&metadata), "the rest is the protection information");
    let wrong = format!("{read} --app-tag 0x1300 --app-tag-mask 0xff00");
    let named = "the application tag of block 4 is 0x1200 where 0x1300 is expected";
    refused(target, &wrong, &[], 5, named);
    let compare = format!("compare --lba 4 --metadata {ours}");
    done(target, &format!("{compare} --app-tag 0x1234"), &data);
    refused(target, &compare, &data, 5, "block 4 differs from standard input");

    // A flipped bit is found by this host, which names the block, and by the controller.
    medium.lock().expect("no test panics")[9 * SIZE + 100] ^= 1;
    refused(target, "read --lba 4 --blocks 24", &[], 5, "the guard of block 9 is 0x");
    refused(target, "read --lba 4 --blocks 24 --prinfo 4", &[], 1, "guard check error");
    let flipped = done(target, "read --lba 4 --blocks 24 --prinfo 0", &[]);
    assert_eq!(flipped.iter().zip(&data).filter(|(one, other)| one != other).count(), 1);

    // The controller makes what this host finds right.
    done(target, &format!("{write} --prinfo 8"), &data);
    assert!(done(target, "read --lba 4 --blocks 24", &[]) == data);

    for (options, words) in [
        ("", "has 16 B of metadata a block; give them with --metadata"),
        (&*format!("--metadata {ours} --metadata-size 1"), "has 384 bytes"),
        (&format!("--metadata {ours} --ref-tag 1"), "low bits of the first block's LBA"),
        (&format!("--metadata {ours} --storage-tag 1"), "more bits than its format"),
        ("--metadata /nonexistent", "cannot read /nonexistent"),
    ] {
        let line = format!("write --lba 4 --blocks 24 --overwrite --force {options}");
        refused(target, line.trim_end(), &data, 2, words);
    }
    fs::write(&ours, &metadata[1..]).expect("a file");
    refused(target, &format!("{write} --blocks 24"), &data, 2, "has 383 bytes");
    for line in ["attach", "bench --rw randread --runtime 1s", "write-verify --size 1M --overwrite"]
    {
        refused(target, line, &[], 2, "has 16 bytes of metadata a block");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn protection_information_alone_needs_no_option() {
    let (scripted, medium) = formatted(protected(8));
    let target = &*scripted.uri;
    let data = tests::noise(700 * BLOCK, 7);
    done(target, "write --lba 4 --overwrite", &data);
    for options in ["", " --prinfo 8", " --prinfo 12", " --prinfo 15 --ref-tag 4"] {
        assert!(done(target, &format!("read --lba 4 --blocks 700{options}"), &[]) == data);
    }
    done(target, "write --lba 4 --prinfo 8 --overwrite --force", &data[BLOCK..]);
    done(target, "compare --lba 4", &data[BLOCK..]);
    done(target, "verify --lba 4", &[]);
    medium.lock().expect("no test panics")[300 * (BLOCK + 8) + 7] ^= 0x80;
    refused(target, "read --lba 4 --blocks 700", &[], 5, "the guard of block 300 is 0x");
    refused(target, "verify --lba 4", &[], 1, "guard check error");
    let stripped = "read --lba 4 --blocks 2 --prinfo 8 --metadata /dev/null";
    refused(target, stripped, &[], 2, "strips all metadata");
    drop(scripted);

    let plain = ScriptedTarget::start(ONCS, 0);
    let (code, message, _) = nvmf_on(&plain.uri, "read --blocks 1 --prinfo 4", &[]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("has no metadata; leave --prinfo away"), "{message}");
}
