//! The commands of `nvmf`, on the kernel's target and on the scripted one.

use std::{
    net::SocketAddr,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tests::{SUBSYSTEM, nvmf, run, target::Target, uri};
use verbs::RdmaCore;

use super::{BLOCK, ONCS, zones_bed::ZONED};

/// Scripted target at a second port of the bed's address.
pub(crate) struct ScriptedTarget {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) uri: String,
}

impl ScriptedTarget {
    pub(crate) fn start(oncs: u16, fuses: u16) -> Self {
        Self::start_with(|target| target.supporting(oncs, fuses))
    }

    /// Starts the target that `set` makes of one that keeps to the protocol.
    pub(crate) fn start_with(set: impl FnOnce(Target<RdmaCore>) -> Target<RdmaCore>) -> Self {
        Self::start_at(scripted_address(), set)
    }

    /// Starts a target beside another one, whose namespace is a zoned one, with a zone that is read
    /// only.
    fn start_zoned() -> Self {
        let mut address = scripted_address();
        address.set_port(address.port() + 1);
        Self::start_at(address, |target| target.zoned(&[7]))
    }

    fn start_at(
        address: SocketAddr,
        set: impl FnOnce(Target<RdmaCore>) -> Target<RdmaCore>,
    ) -> Self {
        let target = Target::over(Arc::new(RdmaCore::new()), address, Box::new(|_, _| {}));
        let target = set(target);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || target.serve(&stopped));
        let uri = format!("nvmf-rdma://{address}/{SUBSYSTEM}");
        Self { stop, thread: Some(thread), uri }
    }
}

/// Address of the scripted target.
pub(crate) fn scripted_address() -> SocketAddr {
    const PORT: u16 = 4422;
    SocketAddr::new(tests::options().address.ip(), PORT)
}

impl Drop for ScriptedTarget {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// Runs a command line with the target after the words of the command; returns exit code and
/// messages.
pub(crate) fn nvmf_on(target: &str, line: &str, input: &[u8]) -> (Option<i32>, String, Output) {
    let words: Vec<_> = line.split(' ').collect();
    let is_option = |word: &&str| word.starts_with('-');
    let first_option = words.iter().position(is_option).unwrap_or(words.len());
    let (command, options) = words.split_at(first_option);
    let output = run(nvmf().args(command).arg(target).args(options), input);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output)
}

pub(crate) fn done(target: &str, line: &str, input: &[u8]) -> Vec<u8> {
    let (code, message, output) = nvmf_on(target, line, input);
    assert_eq!(code, Some(0), "{line}: {message}");
    output.stdout
}

pub(crate) fn refused(target: &str, line: &str, input: &[u8], expected: i32, words: &str) {
    let (code, message, _) = nvmf_on(target, line, input);
    assert!(message.lines().count() == 1 && message.contains(words), "{line}: {message}");
    assert_eq!(code, Some(expected), "{line}: {message}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_of_blocks_reach_a_target_that_has_them() {
    let scripted = ScriptedTarget::start(ONCS, 0);
    let target = &*scripted.uri;
    let mut data = tests::noise(24 * BLOCK, 4);
    done(target, "write --lba 0 --overwrite --force --force-unit-access", &data);
    done(target, "compare --lba 0", &data);
    refused(target, "compare --lba 0", &[], 2, "standard input has no data");
    done(target, "compare --lba 4 --blocks 8", &data[4 * BLOCK..12 * BLOCK]);
    data[9 * BLOCK + 100] ^= 1;
    refused(target, "compare --lba 0", &data, 5, "block 9 differs from standard input");
    data[9 * BLOCK + 100] ^= 1;

    refused(target, "copy --sdlba 64 --lba 0 --blocks 8", &[], 2, "--overwrite");
    // 12 of the 16 ranges that a command has, and as many as two commands.
    let ranges = |count: u32| -> String {
        let lba: Vec<_> = (0..count).map(|index| (index % 24).to_string()).collect();
        format!("--lba {} --blocks {}", lba.join(","), vec!["1"; lba.len()].join(","))
    };
    for count in [12, 20] {
        let ranges = ranges(count);
        done(target, &format!("copy --sdlba 100 {ranges} --overwrite --force"), &[]);
        done(target, "compare --lba 100", &data[..count as usize * BLOCK]);
    }
    refused(target, "copy --sdlba 1020 --lba 0 --blocks 8 --overwrite", &[], 2, "past the end");

    done(target, "verify", &[]);
    refused(target, "write-uncor --lba 7 --blocks 2", &[], 2, "--overwrite");
    done(target, "write-uncor --lba 7 --blocks 2 --overwrite --force", &[]);
    refused(target, "verify --lba 0 --blocks 8", &[], 1, "unrecovered read error");
    done(target, "verify --lba 9 --blocks 8", &[]);
    done(target, "write --lba 7 --overwrite --force", &data[..2 * BLOCK]);
    done(target, "verify", &[]);

    let all: Vec<_> = (0..256).map(|index: u32| (index * 4).to_string()).collect();
    let blocks = vec!["2"; 256].join(",");
    let dsm = format!("dsm --lba {} --blocks {blocks} --overwrite --force", all.join(","));
    done(target, &dsm, &[]);
    let read = done(target, "read --lba 0 --blocks 8", &[]);
    let is_zero = |block: usize| read[block * BLOCK..][..BLOCK].iter().all(|&byte| byte == 0);
    let expected = [true, true, false, false].repeat(2);
    assert_eq!((0..8).map(is_zero).collect::<Vec<_>>(), expected);
}

/// Command lines of the table: a name, the line, and standard input in blocks.
const TABLE: [(&str, &str, usize); 27] = [
    ("write", "write --ns 1 --lba 0 --overwrite --force", 8),
    ("flush", "flush --ns 1", 0),
    ("dsm", "dsm --ns 1 --lba 64,80 --blocks 8,8 --overwrite --force", 0),
    ("write-zeroes", "write-zeroes --ns 1 --lba 64 --blocks 8 --overwrite --force", 0),
    ("write-zeroes, deallocate", "write-zeroes --ns 1 --lba 64 --blocks 8 --deac --overwrite", 0),
    ("compare", "compare --ns 1 --lba 0", 8),
    ("copy", "copy --ns 1 --sdlba 64 --lba 0 --blocks 8 --overwrite", 0),
    ("verify", "verify --ns 1", 0),
    ("write-uncor", "write-uncor --ns 1 --lba 9 --blocks 1 --overwrite", 0),
    ("resv-register", "resv-register --ns 1 --nrkey 1 --iekey", 0),
    ("resv-acquire", "resv-acquire --ns 1 --crkey 1 --rtype 1", 0),
    ("resv-report", "resv-report --ns 1", 0),
    ("resv-release", "resv-release --ns 1 --crkey 1 --rtype 1 --rrela clear", 0),
    ("get-feature", "get-feature --feature-id 7", 0),
    ("set-feature", "set-feature --feature-id 11 --value 0x100", 0),
    ("get-log", "get-log --log-id 1 --log-len 64", 0),
    ("admin-passthru", "admin-passthru --opcode 6 --cdw10 1 --data-len 4096 --read", 0),
    ("io-passthru", "io-passthru --ns 1 --opcode 2 --data-len 512 --read", 0),
    ("zns id-ctrl", "zns id-ctrl", 0),
    ("zns id-ns", "zns id-ns --ns 1", 0),
    ("zns open-zone", "zns open-zone --ns 1 --start-lba 0", 0),
    ("zns zone-append", "zns zone-append --ns 1 --zslba 0", 8),
    ("zns report-zones", "zns report-zones --ns 1", 0),
    ("zns close-zone", "zns close-zone --ns 1 --start-lba 0", 0),
    ("zns finish-zone", "zns finish-zone --ns 1 --start-lba 0", 0),
    ("zns reset-zone", "zns reset-zone --ns 1 --start-lba 0 --overwrite --force", 0),
    ("zns offline-zone", "zns offline-zone --ns 1 --select-all --overwrite --force", 0),
];

/// Each command is done by one target or the other: by the scripted one what no kernel's target
/// has.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_table_of_the_commands_and_the_targets_that_have_them() {
    let scripted = ScriptedTarget::start(ONCS, 1);
    let scripted_zoned = ScriptedTarget::start_zoned();
    done(&uri(ZONED), "zns reset-zone --ns 1 --select-all --overwrite --force", &[]);
    let reserves = tests::enable_reservations(1);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    println!(
        "| command | nvmet of Linux {} | scripted target |\n| --- | --- | --- |",
        release.trim()
    );
    for (name, line, blocks) in TABLE {
        let outcome = |target: &str| match nvmf_on(target, line, &vec![0; blocks * BLOCK]) {
            (Some(0), ..) => "done".to_owned(),
            (Some(1), message, _) if message.contains("does not support") => {
                let (_, lacking) = message.trim().rsplit_once('(').expect("where it says so");
                format!("lacks it ({lacking}")
            }
            (Some(1), message, _) if message.contains("invalid zone state transition") => {
                "refuses it (no zone is read only)".to_owned()
            }
            (code, message, _) => panic!("{name}: {code:?}: {message}"),
        };
        let is_of_zones = name.starts_with("zns");
        let kernel = outcome(&uri(if is_of_zones { ZONED } else { SUBSYSTEM }));
        if kernel == "done" {
            println!("| {name} | done | not asked |");
            continue;
        }
        let other = outcome(if is_of_zones { &scripted_zoned.uri } else { &scripted.uri });
        println!("| {name} | {kernel} | {other} |");
        let only_newer = name.starts_with("resv-") && !reserves;
        assert!(only_newer || other == "done", "{name}: {other}");
    }
    let outcome = |port| super::fused::over_rxe(port).map_err(|error| error.to_string());
    let refused = outcome(tests::options().address).expect_err("no kernel's target has it");
    let (_, lacking) = refused.rsplit_once('(').expect(&refused);
    outcome(scripted_address()).expect("the scripted target has it");
    println!("| compare and write, by the library | lacks it ({lacking} | done |");
}
