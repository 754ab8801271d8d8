//! Command lines as users of nvme-cli and fio type them, without a target.

use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 35] = [
    "admin-passthru",
    "bench",
    "compare",
    "config",
    "copy",
    "discard",
    "discover",
    "dsm",
    "flush",
    "gen-hostnqn",
    "get-feature",
    "get-log",
    "id-ctrl",
    "id-ns",
    "identify",
    "io-passthru",
    "key",
    "log",
    "monitor",
    "read",
    "report",
    "resv-acquire",
    "resv-register",
    "resv-release",
    "resv-report",
    "set-feature",
    "show-hostnqn",
    "smart-log",
    "verify",
    "write",
    "write-uncor",
    "write-verify",
    "write-zeroes",
    "zns",
    "list-ns",
];

fn nvmf(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
    command.args(arguments).stdin(Stdio::null()).output().expect("nvmf runs")
}

/// Standard error of a command line that is refused: one line, exit code 2.
fn refused(arguments: &[&str]) -> String {
    let output = nvmf(arguments);
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(message.starts_with("nvmf: "), "{message}");
    message
}

fn help(command: &str) -> String {
    let output = nvmf(&[command, "--help"]);
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Before there was NVMe's Verify, the command was `write-verify`.
#[test]
fn verify_overwrites_nothing() {
    let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
    assert!(refused(&["verify", target, "--ns", "1", "--size", "1M"]).contains("--size"));
    assert!(help("verify").contains("nvmf write-verify"));
}

#[test]
fn commands_of_nvme_cli_are_answered() {
    for (command, word) in [
        ("connect", "nvmf attach"),
        ("connect-all", "nvmf attach"),
        ("format", "nvme-cli"),
        ("gen-tls-key", "TLS"),
        ("telemetry-log", "nvmf get-log"),
        ("get-property", "nvmf identify"),
        ("sanitize", "nvme-cli"),
    ] {
        let message = refused(&[command, "/dev/nvme0"]);
        assert!(message.contains(word) && message.contains(command), "{message}");
    }
    let message = refused(&["benhc"]);
    assert!(message.contains("benhc") && message.contains("'bench'"), "{message}");
}

#[test]
fn help_is_named_of_a_command_that_there_is() {
    for (words, message) in [
        (&[][..], "no command is given; see `nvmf --help`"),
        (&["-v"], "no command is given; see `nvmf --help`"),
        (&["config"], "no command is given; see `nvmf config --help`"),
        (&["nonsense"], "'nonsense'; see `nvmf --help`"),
        (&["key", "nonsense"], "'nonsense'; see `nvmf key --help`"),
        (&["zns", "reset-zone"], "<LBA>; see `nvmf zns reset-zone --help`"),
        (
            &["-v", "config", "show", "--nonsense"],
            "'--nonsense' found; see `nvmf config show --help`",
        ),
        (&["list", "extra"], "'extra' found; see `nvmf list --help`"),
    ] {
        assert!(refused(words).trim_end().ends_with(message), "{words:?}: {}", refused(words));
    }
}

#[test]
fn options_of_fio_are_answered() {
    for (option, word) in [
        ("--numjobs=4", "--threads"),
        ("--time_based", "--runtime"),
        ("--blocksize=4k", "--bs"),
        ("--ioengine=libaio", "engine"),
        ("--direct=1", "direct"),
        ("--filename=/dev/nvme0n1", "target"),
        ("--ramp_time=5", "--ramp"),
        ("--group_reporting", "always"),
        ("--random_distribution=zipf:1.2", "--random-distribution"),
        ("--steadystate=iops:2%", "--until"),
        ("--write_iops_log=x", "--fio-log"),
    ] {
        let message = refused(&["bench", "nvmf-rdma://127.0.0.1:1/nqn.x", option]);
        assert!(message.contains(word), "{message}");
    }
    assert!(refused(&["write", "--start-block", "1"]).contains("--lba"));
}

#[test]
fn options_of_nvme_cli_are_known() {
    // The port is closed: what is wrong is not the command line.
    let at = ["-a", "127.0.0.1", "-s", "1", "-q", "nqn.host", "-I"];
    let id = "00000000-0000-0000-0000-000000000001";
    let more = ["-k", "5", "-i", "2", "-Q", "1k", "-c", "1", "-l", "5"];
    for transport in ["rdma", "RDMA"] {
        let named = [&at[..], &[id, "-n", "nqn.x", "-t", transport], &more].concat();
        for command in ["identify", "discover", "read", "flush", "id-ctrl", "bench", "monitor"] {
            let output = nvmf(&[&[command][..], &named].concat());
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{command}: {message}");
        }
    }
    assert!(refused(&["identify", "-t", "tcp", "-a", "127.0.0.1"]).contains("rdma"));
    assert!(refused(&["discover", "-t", "tcp", "-a", "127.0.0.1"]).contains("rdma"));
}

#[test]
fn names_without_the_prefix_are_warned_of() {
    let target = "nvmf-rdma://127.0.0.1:1/nvmet-test";
    let output = nvmf(&["identify", target, "-q", "host"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains("warning: ") && message.contains("nvmet-test"), "{message}");
    for (target, word) in [
        ("nvmf-rdma://127.0.0.1:1/nqn.x ", "blank"),
        ("nvmf-rdma://127.0.0.1:1/nqn.x y", "blank"),
        ("nvmf-rdma://127.0.0.1:1/nqn.x?hostnqn=nqn.y", "--hostnqn"),
        ("nvmf-rdma://127.0.0.1:1/", "empty"),
    ] {
        let message = refused(&["identify", target]);
        assert!(message.contains(word), "{target:?}: {message}");
    }
}

#[test]
fn a_log_page_stands_before_or_after_the_target() {
    let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
    for arguments in [["log", "health", target], ["log", target, "health"]] {
        let output = nvmf(&arguments);
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(nvmf(&["smart-log", target]).status.code(), Some(4));
    for page in ["endurance", "rotational"] {
        assert_eq!(nvmf(&["log", page, target, "--group-id", "1"]).status.code(), Some(4));
        assert!(refused(&["log", page, target]).contains("--group-id"));
        assert!(refused(&["log", page, target, "--endg-id", "0"]).contains("--group-id"));
    }
    assert!(refused(&["log", "health", target, "-g", "1"]).contains("endurance and rotational"));
    assert_eq!(nvmf(&["supported-log-pages", target]).status.code(), Some(4));
    assert!(refused(&["log", target]).contains("health"));
    assert!(refused(&["log", target, "helth"]).contains("health"));
}

#[test]
fn the_host_has_a_name() {
    let shown = |command: &str| {
        let output = nvmf(&[command]);
        assert!(output.status.success(), "{command}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(shown("show-hostnqn"), shown("show-hostnqn"));
    let new = shown("gen-hostnqn");
    assert!(new.starts_with("nqn.2014-08.org.nvmexpress:uuid:") && new.ends_with('\n'), "{new}");
    assert_ne!(new, shown("gen-hostnqn"));
}

/// One entry that can't be used does not keep the others from being asked.
#[test]
fn a_bad_entry_of_a_configuration_does_not_hide_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("discovery.conf");
    let entries = "-t rdma -a fe80::1%nowhere0 -s 1\n-t rdma -a 127.0.0.1 -s 1\n";
    std::fs::write(&path, entries).expect("the file is written");
    let output = nvmf(&["discover", "-J", path.to_str().expect("UTF-8"), "-o", "json"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("discovery.conf:1") && message.contains("nowhere0"), "{message}");
    assert!(message.contains("127.0.0.1:1"), "the other one was asked: {message}");
    assert!(!output.stdout.is_empty(), "and is reported");
}

/// Configured subsystems are found by their NQNs and by the ends of them.
#[test]
fn a_configured_subsystem_is_a_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nvme-fabrics.conf");
    let subsystem = |nqn: &str, port: u16| {
        let controller = format!("transport=rdma;traddr=127.0.0.1;trsvcid={port}");
        format!("[Subsystem]\nnqn = {nqn}\ncontroller = {controller}\n")
    };
    let text = [
        subsystem("nqn.2014-08.org.example:disk", 1),
        subsystem("nqn.2014-08.org.example:two", 2),
        subsystem("nqn.2014-08.org.other:two", 3),
    ];
    std::fs::write(&path, text.concat()).expect("the file is written");
    let config = ["-J", path.to_str().expect("UTF-8")];
    for (name, place) in [
        ("@disk", "127.0.0.1:1"),
        ("@nqn.2014-08.org.example:disk", "127.0.0.1:1"),
        ("@nqn.2014-08.org.other:two", "127.0.0.1:3"),
    ] {
        for command in ["identify", "bench", "monitor", "flush"] {
            let output = nvmf(&[&[command, name][..], &config].concat());
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{command} {name}: {message}");
        }
        let output = nvmf(&[&["-vv", "identify", name][..], &config].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("no RDMA device") || log.contains(place), "{log}");
    }
    let message = refused(&[&["identify", "@two"][..], &config].concat());
    assert!(message.contains("org.example:two and nqn.2014-08.org.other:two"), "{message}");
    assert!(refused(&[&["identify", "@disc"][..], &config].concat()).contains("config show"));
    assert!(refused(&["identify", "@disk", "-J", "/nowhere"]).contains("/nowhere"));
}

#[test]
fn an_error_of_the_command_line_is_one_line() {
    for (arguments, word) in [
        (&["bench", "--bogus"][..], "nvmf bench --help"),
        (&["bench", "--rate", "10q"], "10q"),
        (&["bench", "--rw", "sideways"], "randread"),
        (&["log"], "PAGE"),
        (&["key"], "nvmf key --help"),
        (&["identify", "DHHC-1:00:c2VjcmV0:", "DHHC-1:00:c2VjcmV0:"], "argument '…'"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(word) && !message.contains("c2VjcmV0"), "{message}");
    }
}

/// The exit code of a file that cannot be read is the same for all commands.
#[test]
fn a_file_that_cannot_be_read_is_a_usage_error() {
    let (target, file) = ("nvmf-rdma://127.0.0.1:1/nqn.x", "/nowhere/file");
    for arguments in [
        &["write", target, "--overwrite", "--file", file][..],
        &["compare", target, "--file", file],
        &["key", "check", file],
        &["config", "show", file],
        &["config", "convert", file, "-o", "-"],
        &["discover", "-J", file],
        &["identify", "@x", "-J", file],
        &["identify", target, "--dhchap-secret-file", file],
        &["bench", target, "--job", file],
        &["bench", target, "--baseline", file],
        &["bench", "--compare", file, file],
        &["report-bug", "--capture", file],
    ] {
        let output = nvmf(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        // The machine's own identity may be worth a warning.
        let lines = message.lines().filter(|line| !line.contains("warning: host identifier"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(lines.count() == 1 && message.contains(file), "{arguments:?}: {message}");
    }
}

/// Files for results are opened before anything is connected: nothing is measured in vain.
#[test]
fn a_file_for_results_is_opened_first() {
    let file = "/nowhere/file";
    for option in ["--json", "--html", "--hlog", "--capture"] {
        let output = nvmf(&["bench", "nvmf-rdma://127.0.0.1:1/nqn.x", option, file]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{option}: {message}");
        assert!(message.lines().count() == 1 && message.contains(file), "{option}: {message}");
        assert!(output.stdout.is_empty(), "{option}");
    }
}

/// Loads that no target takes: the exit code, the command line, and words of the message.
const WRONG_LOADS: [(i32, &str, &str); 26] = [
    (2, "bench TARGET --cpus 999", "processor 999 of --cpus"),
    (2, "bench TARGET --sweep iodepth=1,2 --cpus 0,999", "processor 999 of --cpus"),
    (2, "write-verify TARGET --cpus 999 --overwrite", "processor 999 of --cpus"),
    (2, "bench TARGET --queues 2 --threads 3", "--threads 3 is more than"),
    (2, "bench TARGET --sweep queues=1,2 --threads 3", "--threads 3 is more than"),
    (2, "bench TARGET --iodepth 64 --queue-size 32", "--queue-size 65"),
    (2, "bench TARGET --sweep iodepth=8,64 --queue-size 32", "--queue-size 65"),
    (2, "bench TARGET --bs 4097", "--bs 4097 is not a multiple of 512"),
    (2, "bench TARGET --sweep bs=4K,700", "--bs 700 is not a multiple of 512"),
    (2, "bench TARGET --bs 4K:70,700:30", "--bs 700 is not a multiple of 512"),
    (2, "bench TARGET --bs 64K --size 4K", "must hold at least one --bs"),
    (2, "bench TARGET --also nonsense", "nonsense"),
    (2, "write-verify TARGET --bs 700 --overwrite", "--bs 700 is not a multiple of 512"),
    (2, "write-verify TARGET --size 700 --overwrite", "--size 700 is not a multiple of 512"),
    (2, "write-verify TARGET --size 0 --overwrite", "must be at least 1"),
    (2, "bench TARGET --ns 0", "no namespace has the id 0"),
    (2, "bench TARGET --runtime 0", "must be more than nothing"),
    (2, "bench TARGET --interval 0ms", "must be more than nothing"),
    (2, "bench TARGET --until 2% --until-window 0", "must be more than nothing"),
    (2, "bench TARGET --io-size 0", "must be at least 1"),
    (2, "bench TARGET --size 0K", "must be at least 1"),
    (2, "bench TARGET --capture file --capture-size 0", "must be at least 1"),
    (2, "monitor TARGET --runtime 0", "must be more than nothing"),
    (2, "set-feature TARGET --feature-id 11", "--value"),
    (2, "report-bug -- nonsense", "no command of nvmf"),
    (2, "report-bug -- nvmf nonsense --help", "no command of nvmf"),
];

/// Files that cannot be used, as `WRONG_LOADS`.
const WRONG_FILES: [(i32, &str, &str); 25] = [
    (2, "bench TARGET --sweep iodepth=1,2 --config missing", "missing"),
    (2, "bench TARGET --baseline folder", "folder: is a directory"),
    (2, "bench TARGET --baseline missing", "missing"),
    (2, "bench TARGET --job folder", "folder"),
    (1, "bench TARGET --json folder", "folder"),
    (1, "bench TARGET --html missing/file", "missing/file"),
    (1, "bench TARGET --hlog missing/file", "missing/file"),
    (1, "identify TARGET --capture folder", "folder"),
    (2, "write TARGET --file folder --overwrite", "cannot read folder: is a directory"),
    (2, "write TARGET --file missing --overwrite", "cannot read missing"),
    (2, "write TARGET --file two-bytes --overwrite", "two-bytes: 2 is not a multiple of 512"),
    (2, "write TARGET --file empty --overwrite", "empty has no data"),
    (2, "compare TARGET --file folder", "cannot read folder: is a directory"),
    (2, "compare TARGET --file empty", "empty has no data"),
    (2, "compare TARGET --file two-bytes", "two-bytes: 2 is not a multiple of 512"),
    (1, "read TARGET --file folder", "folder"),
    (1, "read TARGET --file missing/file", "missing/file"),
    (1, "discover -a 192.0.2.1 --raw folder", "folder"),
    (1, "monitor TARGET --metrics-file folder", "folder"),
    (1, "monitor TARGET --metrics-socket missing/file", "missing/file"),
    (2, "set-feature TARGET --feature-id 11 --value 1 --file folder", "cannot read folder"),
    (2, "io-passthru TARGET --ns 1 --opcode 1 --input-file missing --write", "missing"),
    (2, "read TARGET --ns 0 --file file", "no namespace has the id 0"),
    (2, "identify TARGET --dhchap-secret-file folder", "folder"),
    (2, "identify @missing", "@missing"),
];

/// Namespaces, blocks and hosts that there are not, as `WRONG_LOADS`.
const WRONG_PLACES: [(i32, &str, &str); 16] = [
    (2, "read TARGET --ns 1 --file file LAST", "are past the end"),
    (2, "verify TARGET --ns 1 LAST", "are past the end"),
    (2, "dsm TARGET LAST --overwrite", "are past the end"),
    (2, "write-zeroes TARGET LAST --overwrite", "are past the end"),
    (2, "write-uncor TARGET LAST --overwrite", "are past the end"),
    (2, "copy TARGET --sdlba 0 LAST --overwrite", "are past the end"),
    (2, "get-log TARGET --log-id 2 --log-len 3", "in steps of 4"),
    (2, "get-log TARGET --log-id 2 --log-len 0", "in steps of 4"),
    (2, "attach TARGET --ns 0", "no namespace has the id 0"),
    (2, "flush TARGET --ns 0", "no namespace has the id 0"),
    (2, "resv-report TARGET --ns 0", "no namespace has the id 0"),
    (2, "id-ns TARGET -n 0", "no namespace has the id 0"),
    (2, "id-ns TARGET -n 0x100000000", "at most 32 bits"),
    (2, "id-ns TARGET --namespace-id 0", "no namespace has the id 0"),
    (2, "identify TARGET --hostid 7", "--hostid"),
    (2, "identify -a 192.0.2.1 -n nqn.x -s 99999", "no port"),
];

/// Faults that need no target to be seen are told before one is looked for: here there is none.
#[test]
fn what_is_wrong_whatever_the_target_has_is_told_first() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("folder")).expect("a folder");
    std::fs::write(folder.path().join("two-bytes"), "x\n").expect("the file is written");
    std::fs::write(folder.path().join("empty"), "").expect("the file is written");
    for (code, line, expected) in WRONG_LOADS.iter().chain(&WRONG_FILES).chain(&WRONG_PLACES) {
        let target = line.replace("TARGET", "nvmf-rdma://192.0.2.1/nqn.2014-08.org.example:x");
        let words = target.replace("LAST", "--lba 18446744073709551615 --blocks 2");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
        command.args(words.split(' ')).current_dir(&folder).stdin(Stdio::null());
        let output = command.output().expect("nvmf runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{line}: {message}");
        assert!(message.starts_with("nvmf: ") && message.contains(expected), "{line}: {message}");
        assert_eq!((message.lines().count(), output.stdout.len()), (1, 0), "{line}: {message}");
    }
}

#[test]
fn namespaces_and_bytes_are_asked_for_as_of_nvme_cli() {
    for line in [
        "id-ns -n 1 -o binary",
        "id-ns --namespace-id=1 --output-format binary",
        "id-ctrl -o binary",
        "identify --output-format=binary",
        "get-log --log-id 2 --log-len 512 -n 1 -o binary",
        "read -n 1 --file file",
        "flush -n0x1",
    ] {
        let words = line.split(' ').chain(["nvmf-rdma://192.0.2.1/nqn.x"]);
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
        command.args(words).current_dir(&folder).stdin(Stdio::null());
        let output = command.output().expect("nvmf runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "the command line is right: {line}: {message}");
    }
}

#[test]
fn help_is_readable_on_the_narrowest_terminal() {
    for columns in ["1", "0", "-1", "40", "99999999999"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
        command.args(["bench", "--help"]).env("COLUMNS", columns).stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output().expect("nvmf runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let most = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!((40..=100).contains(&most), "COLUMNS={columns}: {most}");
        assert!(text.lines().count() < 700, "COLUMNS={columns}: one word a line");
    }
}

/// The files of a comparison are those of a measurement.
#[test]
fn a_comparison_is_written_as_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (before, after, page) = (path("before.json"), path("after.json"), path("page.html"));
    for (file, iops, kernel) in [(&before, 1.0, "Linux 6"), (&after, 2.0, "Linux 7")] {
        let text = format!(
            r#"{{ "schema": 2, "series": [{{ "iops": {iops:?} }}],
                "latency_ns": {{ "p99_9": 7000 }},
                "configuration": {{ "rw": "randread", "kernel": "{kernel}" }} }}"#
        );
        std::fs::write(file, text).expect("the file is written");
    }
    let output = nvmf(&["bench", "--compare", &before, &after, "--html", &page]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(page).expect("a page");
    for shown in [&*text, &page] {
        for words in ["Linux 6", "Linux 7", "p99.9"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
}

/// Direction and length of the data of a command are checked before anything connects.
#[test]
fn a_command_of_the_users_own_making_is_checked() {
    let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
    for (line, word) in [
        ("admin-passthru --opcode 6 --data-len 4096", "--read or --write"),
        ("admin-passthru --opcode 6 --data-len 4096 --write", "takes --read"),
        ("admin-passthru --opcode 6 --read", "--data-len"),
        ("admin-passthru --opcode 0x80", "--overwrite"),
        ("admin-passthru --opcode 256", "too large"),
        ("io-passthru --opcode 0 --data-len 8 --read", "transfers no data"),
        ("io-passthru --opcode 3 --data-len 8 --read", "both ways"),
        ("io-passthru --opcode 1 --data-len 512 --write", "--overwrite"),
        ("io-passthru --opcode 2 --data-len 512 --read --write", "--write"),
    ] {
        let mut words: Vec<_> = line.split(' ').collect();
        words.insert(1, target);
        let message = refused(&words);
        assert!(message.contains(word), "{line}: {message}");
    }
}

#[test]
fn options_of_metadata_are_checked() {
    for command in ["read", "write", "compare"] {
        for (option, word) in [
            ("--prinfo=16", "0 to 15"),
            ("--app-tag=0x10000", "too large"),
            ("--ref-tag=x", "--ref-tag"),
            ("--storage-tag-check", "--prinfo"),
        ] {
            let message = refused(&[command, "nvmf-rdma://127.0.0.1:1/nqn.x", option]);
            assert!(message.contains(word), "{command}: {message}");
        }
        let help = help(command);
        for option in ["--metadata", "--prinfo", "--ref-tag", "--app-tag-mask", "--storage-tag"] {
            assert!(help.contains(option), "{command}: {option}");
        }
    }
}

#[test]
fn help_says_which_commands_overwrite() {
    for command in ["write", "write-verify", "write-uncor", "write-zeroes", "dsm", "bench", "copy"]
    {
        let help = help(command);
        let first = help.lines().next().expect("a line").to_lowercase();
        assert!(first.contains("overwrite"), "{first}");
        assert!(help.contains("--overwrite") && help.contains("--force"), "{help}");
    }
    let help = help("read").lines().next().expect("a line").to_lowercase();
    assert!(!help.contains("write"), "{help}");
}

#[test]
fn help_has_an_example_and_fits_its_width() {
    for command in COMMANDS {
        let help = help(command);
        assert!(help.contains("Example:\n  nvmf "), "{command}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
    assert!(nvmf(&["--help"]).status.success());
}
