//! Commands of `nvmf` as their users type them: what overwrites, the words of nvme-cli, and the
//! examples of the help.

// bed: waits --target tests/targets/commands.toml

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tests::{
    KernelInitiator, SUBSYSTEM, address, enable_reservations, noise, nvmf, nvmf_ok, run, uri,
};

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
    let place = ["--ns", "1", "--runtime", "1s", "--ramp", "0"];
    refused(&["write", &target, "--ns", "1"], &data, &["--overwrite"]);
    refused(&["write-verify", &target, "--ns", "1"], &[], &["--overwrite"]);
    for more in [&["--rw", "write"][..], &["--rw", "randwrite"], &["--rw", "rw"], &["--verify"]] {
        refused(&[&["bench", &target][..], &place, more].concat(), &[], &["--overwrite"]);
    }
    assert!(first_blocks("16") == data);
}

/// `script` gives a command a terminal, and types what it reads.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn on_a_terminal_nvmf_asks() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let data = noise(4 * 512, 9);
    fs::write(&image, &data).unwrap();
    write_at_start(&[0; 4 * 512]);
    let answered = |answer: &str| {
        let (program, target) = (std::env::var("NVMF").unwrap(), uri(SUBSYSTEM));
        let command = format!("{program} write {target} --ns 1 --file {}", image.display());
        let output =
            run(Command::new("script").args(["-qec", &command, "/dev/null"]), answer.as_bytes());
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("overwrites blocks of namespace 1"), "{shown}");
        output.status.code()
    };
    assert_eq!(answered("no\n"), Some(1));
    assert!(first_blocks("4") == [0; 4 * 512]);
    assert_eq!(answered("yes\n"), Some(0));
    assert!(first_blocks("4") == data);
}

/// The line that is drawn again and again on a terminal.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_time_that_is_left_is_shown_on_a_terminal() {
    let (program, target) = (std::env::var("NVMF").unwrap(), uri(SUBSYSTEM));
    for (command, words) in [
        ("bench", "--runtime 1s --ramp 0 --interval 200ms --wait event"),
        ("write-verify", "--size 64M --overwrite --force"),
    ] {
        let command = format!("{program} {command} {target} --ns 1 {words}");
        let mut script = Command::new("script");
        // A dumb terminal gets no such line.
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm");
        let output = run(&mut script, &[]);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shown}");
        assert!(shown.contains(" left"), "{shown}");
    }
}

/// Control-C in the place of an answer, also of a command that catches signals.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn control_c_is_an_answer() {
    let data = noise(4 * 512, 10);
    write_at_start(&data);
    for (command, code) in [("write-verify", 130), ("bench --rw randwrite", 130)] {
        let (program, target) = (std::env::var("NVMF").unwrap(), uri(SUBSYSTEM));
        let command = format!("{program} {command} {target} --ns 1");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let mut shown = Vec::new();
        let mut output = script.stdout.take().unwrap();
        while !String::from_utf8_lossy(&shown).contains("type yes") {
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "it ended without asking");
            shown.extend(byte);
        }
        let mut input = script.stdin.take().unwrap();
        input.write_all(b"\x03").unwrap();
        assert_eq!(script.wait().unwrap().code(), Some(code), "{command}");
        assert!(first_blocks("4") == data, "{command}");
    }
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
    let bench = ["--runtime", "1s", "--ramp", "0", "--rw", "randrw"];
    refused(&[&["bench", &target][..], &place, &bench].concat(), &[], &words);
    assert!(first_blocks("8") == data);
    // Reads need no consent.
    let read = ["bench", &target, "--ns", "1", "--runtime", "1s", "--ramp", "0"];
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
    for wrong in ["1", "1000"] {
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

/// Keys of a JSON value, with the type of each.
fn types(value: &Value) -> BTreeMap<String, &'static str> {
    let object = value.as_object().expect("an object");
    let name = |value: &Value| match value {
        Value::Array(_) => "array",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        _ => "other",
    };
    object.iter().map(|(key, value)| (key.clone(), name(value))).collect()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn fields_have_the_keys_types_and_values_of_nvme_cli() {
    let target = uri(SUBSYSTEM);
    let kernel = KernelInitiator::connect();
    let _ = kernel.device(1);
    let name = fs::read_dir("/sys/class/nvme").unwrap().next().expect("a controller").unwrap();
    let device = format!("/dev/{}", name.file_name().to_str().unwrap());
    let theirs = |command: &str, more: &[&str]| -> Value {
        let mut nvme = Command::new("nvme");
        let output = run(nvme.args([command, &device, "-o", "json"]).args(more), &[]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let ours = |command: &str, more: &[&str]| -> Value {
        let arguments = [&[command, &target, "-o", "json"][..], more].concat();
        serde_json::from_slice(&nvmf_ok(&arguments, &[])).expect("JSON")
    };
    for (command, their_options, our_options) in [
        ("id-ctrl", &[][..], &[][..]),
        ("id-ns", &["-n", "1"], &["--ns", "1"]),
        ("smart-log", &[], &[]),
    ] {
        let (theirs, ours) = (theirs(command, their_options), ours(command, our_options));
        assert_eq!(types(&ours), types(&theirs), "{command}");
        for list in ["psds", "lbafs"] {
            assert_eq!(ours[list], theirs[list], "{command}");
        }
        // A controller of its own, and counters that go on.
        let differs = |key: &str| key == "cntlid" || command == "smart-log";
        for (key, value) in ours.as_object().unwrap().iter().filter(|(key, _)| !differs(key)) {
            let theirs = &theirs[key];
            let padded = theirs.as_str().map(str::trim_end);
            assert!(
                theirs == value || padded == value.as_str(),
                "{command} {key}: {theirs} {value}"
            );
        }
    }
    let raw = nvmf_ok(&["identify", &target, "--raw"], &[]);
    assert_eq!(raw, nvmf_ok(&["id-ctrl", &target, "--raw-binary"], &[]));
    let mut nvme = Command::new("nvme");
    let theirs = run(nvme.args(["id-ctrl", &device, "-b"]), &[]).stdout;
    let without_id = |data: &[u8]| [&data[..78], &data[80..]].concat();
    assert!(raw.len() == 4096 && without_id(&raw) == without_id(&theirs));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn health_counts_what_was_done() {
    let counted = || -> u64 {
        let page = nvmf_ok(&["log", &uri(SUBSYSTEM), "health", "-o", "json"], &[]);
        let page: Value = serde_json::from_slice(&page).expect("JSON");
        page["host_read_commands"].as_str().expect("a string").parse().expect("a number")
    };
    let before = counted();
    let _ = first_blocks("8");
    assert!(counted() > before);
}

/// Pages that Linux's target has since 6.14.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn newer_log_pages_are_read_or_refused() {
    let target = uri(SUBSYSTEM);
    let read = |line: &str| {
        let words = line.split(' ').collect::<Vec<_>>();
        run(nvmf().args(&words[..1]).arg(&target).args(&words[1..]).args(["-o", "json"]), &[])
    };
    let json = |line: &str| -> Value {
        let output = read(line);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{line}: {output:?}"))
    };
    let pages = [
        "log supported",
        "log features",
        "log endurance --group-id 1",
        "log rotational --endg-id 1",
        "log reservation",
    ];
    let is_refused = |line: &str| {
        let output = read(line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {message}");
        assert!(message.lines().count() == 1 && message.contains("invalid field"), "{message}");
    };
    if fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("6.12.") {
        pages.into_iter().for_each(is_refused);
        return;
    }
    let supported = json("log supported");
    let ids = supported["pages"].as_array().expect("a list").iter().map(|page| &page["lid"]);
    let ids: Vec<_> = ids.filter_map(Value::as_u64).collect();
    assert!([0, 1, 2, 9, 0xc, 0x12, 0x16, 0x80].iter().all(|id| ids.contains(id)), "{ids:?}");
    let features = json("log features");
    let features = features["features"].as_array().expect("a list");
    // Asynchronous event configuration is of the controller.
    let events = features.iter().find(|one| one["fid"] == 0x0b).expect("it is supported");
    assert_eq!(events["scope"], serde_json::json!(["controller"]), "{events}");
    let written = |page: &Value| -> u64 {
        page["host_write_cmds"].as_str().expect("a string").parse().expect("a number")
    };
    let before = written(&json("log endurance --group-id 1"));
    let write = ["write", &target, "--ns", "1", "--lba", "0", "--overwrite", "--force"];
    let _ = nvmf_ok(&write, &[0; 4096]);
    assert!(written(&json("log endurance --group-id 1")) > before);
    is_refused("log rotational --endg-id 1"); // the medium does not rotate
    assert_eq!(json("log reservation")["rn_log_type"], 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_subsystem_is_reached_by_any_name() {
    let output = run(
        nvmf().args(["identify", "-t", "RDMA", "-a", &address(), "-n", "nvmet-test", "-q", "host"]),
        &[],
    );
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning: ") && message.contains("nvmet-test"), "{message}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn one_namespace_that_cannot_be_used_does_not_hide_the_others() {
    let target = uri(SUBSYSTEM);
    let file = File::options().write(true).open("/dev/shm/commands").unwrap();
    file.set_len(0).unwrap();
    let output = run(nvmf().args(["identify", &target, "-o", "json"]), &[]);
    let text = run(nvmf().args(["identify", &target]), &[]);
    file.set_len(4 << 20).unwrap();
    assert_eq!((output.status.code(), text.status.code()), (Some(1), Some(1)), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.lines().count() == 1 && message.contains(": 3"), "{message}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["namespaces"][0]["blocks"], 32768);
    assert_eq!(report["namespaces"][1]["block_size"], 4096);
    assert_eq!(report["namespaces"][2]["nsid"], 3);
    assert!(report["namespaces"][2]["error"].is_string(), "{report}");
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("16 MiB") && text.contains("3 "), "{text}");
    assert!(nvmf_ok(&["identify", &target], &[]).ends_with(b"\n"), "all can be used again");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_machine_is_checked() {
    let checked = |limit: &str| {
        let script = format!("ulimit -l {limit} && exec \"$NVMF\" doctor -o json");
        let output = run(Command::new("sh").args(["-c", &script]), &[]);
        let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
        let verdicts: BTreeMap<_, _> = checks
            .as_array()
            .unwrap()
            .iter()
            .map(|check| (text(check, "check"), text(check, "verdict")))
            .collect();
        (output.status.code(), verdicts)
    };
    let (code, all) = checked("unlimited");
    assert_eq!(code, Some(0), "{all:?}");
    for name in ["connection manager", "rxe0", "rxe0 port 1", "locked memory"] {
        assert_eq!(all[name], "ok", "{all:?}");
    }
    let (code, little) = checked("1024");
    assert_eq!((code, &*little["locked memory"]), (Some(0), "warning"));
    let file = "/dev/infiniband/rdma_cm";
    fs::rename(file, "/dev/infiniband/away").unwrap();
    let (code, without) = checked("unlimited");
    fs::rename("/dev/infiniband/away", file).unwrap();
    assert_eq!((code, &*without["connection manager"]), (Some(1), "error"));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn ranges_are_set_to_zeros_and_deallocated() {
    let target = uri(SUBSYSTEM);
    let mut data = noise(64 * 512, 11);
    write_at_start(&data);
    refused(&["dsm", &target, "--ns", "1", "--lba", "0", "--blocks", "8"], &[], &["--overwrite"]);
    let zeros = ["write-zeroes", &target, "--ns", "1", "--lba", "3", "--blocks", "5"];
    refused(&zeros, &[], &["--overwrite"]);
    let past = ["--ns", "1", "--lba", "0", "--blocks", "1G", "--overwrite"];
    for command in ["write-zeroes", "dsm"] {
        refused(&[&[command, &target][..], &past].concat(), &[], &["past the end"]);
    }
    assert!(first_blocks("64") == data);
    let _ = nvmf_ok(&[&zeros[..], &["--overwrite"]].concat(), &[]);
    data[3 * 512..8 * 512].fill(0);
    assert!(first_blocks("64") == data);
    // null_blk frees whole pages.
    let ranges = ["--ns", "1", "--lba", "16,40", "--blocks", "8,16", "--overwrite"];
    let _ = nvmf_ok(&[&["discard", &target][..], &ranges].concat(), &[]);
    data[16 * 512..24 * 512].fill(0);
    data[40 * 512..56 * 512].fill(0);
    assert!(first_blocks("64") == data);
    let _ = nvmf_ok(&["flush", &target, "--ns", "1"], &[]);
}

/// Secrets and addresses of a configuration are those of every command.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_configuration_has_addresses_and_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvme-fabrics.conf");
    let text = format!(
        "[Host]\nhostnqn = nqn.2026-11.org.soft-roce:secret\n\
         kxchap-secret = DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:\n\
         [Subsystem]\nnqn = nqn.2026-11.org.soft-roce:keyed\n\
         controller = transport=rdma;traddr={}\n",
        address()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let config = ["-J", path.to_str().unwrap()];
    let shown = nvmf_ok(&[&["identify", "@keyed"][..], &config].concat(), &[]);
    assert!(String::from_utf8_lossy(&shown).contains("DH-HMAC-CHAP"), "with the file's secret");
    let _ = nvmf_ok(&[&["read", "@keyed", "--blocks", "1"][..], &config].concat(), &[]);
    let keyed = uri("nqn.2026-11.org.soft-roce:keyed");
    let named = ["identify", &keyed, "-q", "nqn.2026-11.org.soft-roce:secret"];
    let _ = nvmf_ok(&[&named[..], &config].concat(), &[]);
    assert_eq!(run(nvmf().args(named), &[]).status.code(), Some(3), "there is no secret");
}

/// Commands that the kernel's target lacks, by their names in the message that says so.
const LACKING: [(&str, &str); 8] = [
    ("compare", "Compare"),
    ("copy", "Copy"),
    ("resv-acquire", "reservations"),
    ("resv-register", "reservations"),
    ("resv-release", "reservations"),
    ("resv-report", "reservations"),
    ("verify", "Verify"),
    ("write-uncor", "Write Uncorrectable"),
];

/// The example in the help of each command, with its placeholders replaced.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_examples_of_the_help_run() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), noise(8 * 512, 3)).unwrap();
    let run_here = |words: &[&str]| {
        let output = run(nvmf().args(words).current_dir(&folder), &[]);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let help = run_here(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    let (target, address) = (uri(SUBSYSTEM), address());
    let short = ["--ns", "1", "--runtime", "2s", "--wait", "event"];
    run_here(&[&["bench", &target, "--json", "result.json"][..], &short].concat());
    let has_reservations = enable_reservations(1);
    for command in commands.into_iter().filter(|command| *command != "zns") {
        let help = run_here(&[command, "--help"]);
        let (_, example) = help.split_once("Example:\n  nvmf ").unwrap_or_else(|| panic!("{help}"));
        let line = example.lines().next().expect("a line");
        let line = line.replace("TARGET", &target).replace("ADDRESS", &address);
        let words: Vec<_> = line.split(' ').collect();
        let lacking = LACKING.iter().find(|(lacking, _)| *lacking == command);
        match lacking.filter(|(_, name)| !has_reservations || *name != "reservations") {
            None => drop(run_here(&words)),
            Some((_, name)) => {
                let output = run(nvmf().args(&words).current_dir(&folder), &[]);
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(message.contains(&format!("does not support {name}")), "{message}");
            }
        }
    }
}

/// The example of each command of zones, in an order in which a zone can execute them. One that is
/// read only, which can be taken offline, the kernel's target does not have.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_examples_of_the_help_on_zones_run() {
    let target = uri("nqn.2026-11.org.soft-roce:zoned");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), noise(8 * 4096, 3)).unwrap();
    let run_here = |words: &[&str]| run(nvmf().args(words).current_dir(&folder), &[]);
    let example = |words: &[&str]| {
        let help = String::from_utf8(run_here(words).stdout).expect("UTF-8");
        let (_, example) = help.split_once("Example:\n  nvmf ").unwrap_or_else(|| panic!("{help}"));
        example.lines().next().expect("a line").replace("TARGET", &target)
    };
    let help = String::from_utf8(run_here(&["zns", "--help"]).stdout).expect("UTF-8");
    let (_, list) = help.split_once("Commands:\n").expect("commands");
    let order = [
        "reset-zone",
        "open-zone",
        "zone-append",
        "report-zones",
        "close-zone",
        "finish-zone",
        "id-ctrl",
        "id-ns",
        "offline-zone",
    ];
    let named = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let listed = list.lines().take_while(|line| !line.is_empty()).filter(named).count();
    assert_eq!(listed, order.len() + 1, "all, and help: {list}");
    let mut lines: Vec<_> = order.map(|command| example(&["zns", command, "--help"])).into();
    lines.push(example(&["zns", "--help"]));
    for line in lines {
        let output = run_here(&line.split(' ').collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&output.stderr);
        let is_refused = message.contains("invalid zone state transition");
        assert!(output.status.success() || line.contains("offline") && is_refused, "{message}");
    }
}
