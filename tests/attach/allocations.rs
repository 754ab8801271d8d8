//! Allocations of the threads that serve queues: none, once they serve.

use super::*;

/// Number of allocations so far, as the library that is loaded first has counted.
fn allocations(file: &Path) -> u64 {
    let bytes = fs::read(file).expect("a file of ours");
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_request_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (library, counted) = (folder.path().join("count.so"), folder.path().join("counted"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/attach/allocations.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    match compiler.output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => return println!("SKIPPED: no compiler of C; run: apt-get install gcc"),
    }
    File::create(&counted).unwrap();
    let mut attach = nvmf();
    attach.env("LD_PRELOAD", &library).env("ALLOCATIONS", &counted);
    let served = Foreground::start(attach, &["--ns", "1", "--queues", "1"]);
    let path = served.device.path.display().to_string();
    let transfer = |blocks: u32| {
        let options = format!("bs=4k count={blocks} status=none");
        command("dd", &format!("if=/dev/zero of={path} oflag=direct {options}"));
        command("dd", &format!("if={path} of=/dev/null iflag=direct {options}"));
        command("blkdiscard", &format!("-l 65536 {path}"));
        served.device.open().sync_all().unwrap();
    };
    transfer(300);
    let before = allocations(&counted);
    assert!(before > 0, "nothing was counted, not even the start");
    transfer(3_000);
    let more = allocations(&counted) - before;
    assert_eq!(more, 0, "allocations in 6000 requests, after {before} before");
    served.detach();
}
