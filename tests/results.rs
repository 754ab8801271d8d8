//! Results survive: what `nvmf` had measured when a signal, a failure or a full disk ended it is on
//! standard output and in the files, with the cause; the exit code is that of the cause.

// bed: waits --target tests/targets/shallow.toml --deny non-flush.error

use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_send_buffer_size,
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use tests::{
    SUBSYSTEM, address, break_connections, controllers, deadline_factor, noise, note, nvmf,
    nvmf_ok, uri, wait_for,
};

/// Time for a command to end, after the signal or failure that ends it: two seconds, and as many as
/// a busy machine may take for that.
const END_TIMEOUT: Duration = Duration::from_secs(10);

fn start(arguments: &[&str]) -> Child {
    let mut command = nvmf();
    // Input for `write`, which the child's handle keeps from ending.
    let input = if arguments[0] == "write" { Stdio::piped() } else { Stdio::null() };
    command.args(arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

/// Bench of one namespace for this time after a ramp, with more options.
fn bench(ramp: &str, runtime: &str, arguments: &[&str]) -> Child {
    let target = uri(SUBSYSTEM);
    let all = ["bench", &target, "--ns", "1", "--ramp", ramp, "--runtime", runtime, "-o", "json"];
    start(&[&all, arguments].concat())
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it runs");
}

/// Output of a command that was told to end.
fn end(child: Child) -> Output {
    note("the end of a command");
    let began = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    let limit = END_TIMEOUT * deadline_factor();
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    wait_for("the target forgets", Duration::from_secs(1), || controllers(SUBSYSTEM) == 0);
    output
}

/// Waits until the target has a controller, and a little longer.
fn wait_until_it_runs(time: Duration) {
    wait_for("the command connects", Duration::from_secs(5), || controllers(SUBSYSTEM) > 0);
    thread::sleep(time);
}

/// Messages of a command, without the warning that the machine was busy, which it may be.
fn message(output: &Output) -> String {
    let all = String::from_utf8_lossy(&output.stderr);
    let is_other = |line: &&str| !line.starts_with("nvmf: warning: the machine was busy");
    all.split_inclusive('\n').filter(is_other).collect()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_ends_a_measurement_with_its_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (signal, name, code) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let files = [path("json"), path("html"), path("hlog")];
        let [json_path, html, hlog] = files.each_ref().map(|path| text(path));
        let child = bench("0", "1m", &["--json", json_path, "--html", html, "--hlog", hlog]);
        wait_until_it_runs(Duration::from_millis(1500));
        send(&child, signal);
        let output = end(child);
        assert_eq!(output.status.code(), Some(code), "{}", message(&output));
        assert_eq!(message(&output), format!("{DEPTH}nvmf: interrupted by {name}\n"));
        let report = json(&output);
        assert_eq!((&report["interrupted"], &report["ended_by"]), (&true.into(), &name.into()));
        assert!(report["completed"].as_u64() > Some(0), "{report}");
        assert!((1.0..30.0).contains(&report["seconds"].as_f64().expect("seconds")), "{report}");
        assert_eq!(json_file(&files[0]), report);
        assert!(fs::read_to_string(&files[1]).expect("a page").contains(name));
        assert!(fs::read_to_string(&files[2]).expect("a log").contains("Tag=read"));
    }
}

/// Message about the depth, which the target of these tests does not grant in full.
const DEPTH: &str = "nvmf: depth 15 instead of 32: the target grants a queue no more commands\n";

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_before_the_measurement_ends_the_command_in_one_line() {
    let child = bench("30s", "1m", &["--iodepth", "1"]);
    wait_until_it_runs(Duration::from_millis(300));
    send(&child, Signal::INT);
    let output = end(child);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    assert_eq!(message(&output), "nvmf: nothing was measured: interrupted by SIGINT\n");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_lost_connection_ends_a_measurement_with_its_result() {
    let child = bench("0", "1m", &["--iodepth", "4"]);
    wait_until_it_runs(Duration::from_secs(1));
    break_connections(SUBSYSTEM);
    let output = end(child);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    assert_eq!(message(&output).lines().count(), 1, "{}", message(&output));
    let report = json(&output);
    assert!(report["completed"].as_u64() > Some(0), "{report}");
    let ended_by = report["ended_by"].as_str().expect("a cause");
    assert_eq!(message(&output), format!("nvmf: {ended_by}\n"));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_failed_point_leaves_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report");
    let sweep = ["--sweep", "iodepth=2,200,4", "--json", text(&path)];
    let child = bench("0", "200ms", &sweep);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    let message = message(&output);
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "nvmf: randread 4 KiB, depth 200: --iodepth 200 is more than the target grants a \
             queue, 15",
            "nvmf: 1 of 3 points could not be measured to the end",
        ]
    );
    let report = json(&output);
    let depths: Vec<_> = report["points"].as_array().expect("points").iter().collect();
    let depths: Vec<_> = depths.iter().map(|point| &point["configuration"]["iodepth"]).collect();
    assert_eq!(depths, [2, 4]);
    assert_eq!(report["failed_points"].as_array().map(Vec::len), Some(1));
    assert_eq!(json_file(&path), report);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_sweep_writes_its_files_after_each_point() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report");
    let sweep = ["--sweep", "iodepth=1,2,4", "--json", text(&path)];
    let child = bench("0", "2s", &sweep);
    // Not a part of it, as it is while it is being written.
    wait_for("the first point is written", Duration::from_secs(10), || {
        fs::read(&path).is_ok_and(|text| serde_json::from_slice::<Value>(&text).is_ok())
    });
    assert_eq!(json_file(&path)["points"].as_array().map(Vec::len), Some(1));
    wait_until_it_runs(Duration::from_millis(700));
    send(&child, Signal::TERM);
    let output = end(child);
    assert_eq!(output.status.code(), Some(143), "{}", message(&output));
    let report = json(&output);
    assert_eq!((&report["interrupted"], &report["ended_by"]), (&true.into(), &"SIGTERM".into()));
    let points = report["points"].as_array().expect("points");
    assert_eq!((points.len(), &points[1]["interrupted"]), (2, &true.into()));
    assert_eq!(json_file(&path), report);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_full_disk_takes_no_other_result() {
    for option in ["--json", "--html", "--hlog"] {
        let output = bench("0", "100ms", &[option, "/dev/full", "--iodepth", "1"]);
        let output = output.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{}", message(&output));
        let message = message(&output);
        assert!(message.starts_with("nvmf: /dev/full: No space left"), "{option}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(json(&output)["completed"].as_u64() > Some(0));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report");
    let full_disk = fs::File::options().write(true).open("/dev/full").expect("every Linux has it");
    let target = uri(SUBSYSTEM);
    let arguments = ["bench", &target, "--ns", "1", "--runtime", "1s", "--json", text(&path)];
    let mut command = nvmf();
    let output = command.args(arguments).stdout(full_disk).stderr(Stdio::piped()).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    assert!(message(&output).contains("No space left"), "{}", message(&output));
    assert!(json_file(&path)["completed"].as_u64() > Some(0));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn nothing_completed_is_a_failure() {
    // The first command is a part of the ramp, and the second would be due after the end.
    let output = bench("500ms", "100ms", &["--rate", "1", "--iodepth", "1"]);
    let output = output.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", message(&output));
    assert!(message(&output).starts_with("nvmf: nothing completed in 0."), "{}", message(&output));
    assert_eq!(message(&output).lines().count(), 1);
}

/// The end of a load that reads back what it wrote.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_ends_a_verification_with_its_result() {
    let target = uri(SUBSYSTEM);
    let child =
        start(&["write-verify", &target, "--ns", "1", "--size", "1T", "--overwrite", "-o", "json"]);
    wait_until_it_runs(Duration::from_millis(1500));
    send(&child, Signal::INT);
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{}", message(&output));
    let report = json(&output);
    assert_eq!((&report["interrupted"], &report["ended_by"]), (&true.into(), &"SIGINT".into()));
    let bytes = |name: &str| report[name].as_u64().expect("a number");
    assert!(bytes("written_bytes") > 0 && bytes("written_bytes") >= bytes("verified_bytes"));
}

/// The blocks that a transfer says it ended at.
fn transferred(output: &Output, what: &str, signal: &str) -> usize {
    let message = message(output);
    let rest = message.strip_prefix("nvmf: ").and_then(|rest| rest.strip_suffix('\n'));
    let rest = rest.and_then(|rest| rest.strip_suffix(&format!(": interrupted by {signal}")));
    let words: Vec<_> = rest.unwrap_or_else(|| panic!("{message}")).split(' ').collect();
    assert_eq!((words[1], words[2]), ("blocks", what), "{message}");
    let blocks: usize = words[0].parse().expect("a number");
    assert_eq!(words[words.len() - 1], (blocks - 1).to_string(), "{message}");
    blocks
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_ends_a_write_with_what_was_written() {
    let target = uri(SUBSYSTEM);
    let mut child = start(&["write", &target, "--ns", "1", "--overwrite", "--force"]);
    let mut input = child.stdin.take().expect("a pipe");
    let data = noise((1 << 20) + 7, 23);
    input.write_all(&data).expect("it reads");
    let read = ["read", &target, "--ns", "1", "--lba", "2047", "--blocks", "1"];
    wait_for("the last whole chunk is written", Duration::from_secs(10), || {
        nvmf_ok(&read, &[]) == data[2047 * 512..][..512]
    });
    send(&child, Signal::TERM);
    let output = end(child);
    drop(input);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(143), 0));
    assert_eq!(transferred(&output, "written", "SIGTERM"), 2048);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_ends_a_read_with_what_was_read() {
    let target = uri(SUBSYSTEM);
    let child = start(&["read", &target, "--ns", "1"]);
    // Its output is larger than a pipe.
    wait_until_it_runs(Duration::from_millis(500));
    send(&child, Signal::INT);
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{}", message(&output));
    let blocks = transferred(&output, "read", "SIGINT");
    assert_eq!(output.stdout.len(), blocks * 512);
}

/// A command that can't get rid of its result: its reader sleeps.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_second_signal_ends_a_command_at_once() {
    // The report is larger than what the socket holds: the command is writing it as soon as there
    // is a part.
    let (output, written) = UnixStream::pair().expect("sockets");
    set_socket_send_buffer_size(&written, 4096).expect("an option of sockets");
    let target = uri(SUBSYSTEM);
    let mut command = nvmf();
    command.args(["bench", &target, "--ns", "1", "--runtime", "100ms", "--ramp", "0"]);
    // However few latencies differ, six points are larger than that.
    command.args(["--sweep", "iodepth=1,2,3,4,5,6"]);
    command.args(["-o", "json"]).stdout(OwnedFd::from(written)).stderr(Stdio::piped());
    let mut child = command.spawn().expect("NVMF runs");
    drop(command); // and the socket with it
    wait_for("the report", Duration::from_secs(60), || {
        let mut polled = [PollFd::new(&output, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("a pipe can be polled") > 0
    });
    send(&child, Signal::INT);
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("our child").is_none(), "it waits for its reader");
    send(&child, Signal::INT);
    wait_for("the end", Duration::from_secs(1), || child.try_wait().expect("ours").is_some());
    assert_eq!(child.wait().expect("it has ended").code(), Some(130));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_result_names_what_it_was_measured_on() {
    let facts = |memory: &str| {
        let more = ["--memory", memory, "--iodepth", "4", "--queues", "1", "--bs", "8K"];
        let output = bench("0", "200ms", &more).wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", message(&output));
        json(&output)
    };
    let report = facts("pool");
    assert_eq!(report["schema"], 2);
    let configuration = &report["configuration"];
    for name in ["host", "cpu_model", "kernel", "port_speed", "target_model", "target_firmware"] {
        assert!(configuration[name].is_string(), "{name}: {configuration}");
    }
    assert_eq!(configuration["device_is_software"], true);
    assert!(configuration["gid_type"].as_str().is_some_and(|kind| kind.contains("RoCE")));
    assert!(configuration["netdev_mtu"].as_u64() > Some(1000), "{configuration}");
    let line = configuration["command_line"].as_str().expect("a command line");
    assert!(line.ends_with("--memory pool --iodepth 4 --queues 1 --bs 8K"), "{line}");
    // On a software device the target works within the doorbell's call.
    let stages = &report["mean_ns"];
    assert!(stages["doorbell"].as_f64() > stages["submit"].as_f64(), "{stages}");

    let reachable = |report: &Value| {
        let bytes = |name: &str| report["configuration"][name].as_u64().expect("a number");
        [bytes("reachable_bytes_at_rest"), bytes("reachable_bytes_in_flight")]
    };
    assert_eq!(reachable(&report), [4 * 8192; 2]);
    assert_eq!(reachable(&facts("window")), [0, 4 * 8192]);
}

/// A program that only computes, until it is dropped.
struct BusyProgram(Child);

impl BusyProgram {
    fn start() -> Self {
        let mut shell = Command::new("sh");
        Self(shell.args(["-c", "while :; do :; done"]).spawn().expect("there is a shell"))
    }
}

impl Drop for BusyProgram {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

/// On the one processor of a guest.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_busy_machine_slows_a_load_down_and_is_told() {
    let busy = BusyProgram::start();
    let began = Instant::now();
    let output = bench("0", "1s", &["--iodepth", "4"]).wait_with_output().expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(5) * deadline_factor());
    drop(busy);
    assert!(output.status.success(), "{}", message(&output));
    let all = String::from_utf8_lossy(&output.stderr);
    assert!(all.contains("warning: the machine was busy"), "{all}");
    let report = json(&output);
    assert!(report["iops"].as_f64() > Some(100.0), "{report}");
    assert!(report["warnings"].as_array().is_some_and(|all| !all.is_empty()), "{report}");
}

/// Commands that go on until a signal ends them, and whether that is an early end.
fn endless_commands() -> [(Vec<String>, bool); 8] {
    let (target, address) = (uri(SUBSYSTEM), address());
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    let bench = format!("bench {target} --ns 1 --iodepth 4 --ramp 300ms --runtime 1m");
    [
        (words(bench.clone()), true),
        (words(format!("{bench} -o json --sweep bs=4K,64K")), true),
        (words(format!("write-verify {target} --ns 2 --size 1T --overwrite")), true),
        (words(format!("read {target} --ns 2")), true),
        (words(format!("write {target} --ns 2 --overwrite --force")), true),
        (words(format!("monitor {target}")), false),
        (words(format!("monitor {target} -o json")), false),
        (words(format!("discover -a {address} --persistent")), false),
    ]
}

/// Waits until a program has a handler for SIGINT: before that the signal ends it as any other.
fn wait_for_handlers(child: &Child) {
    let path = format!("/proc/{}/status", child.id());
    wait_for("the handlers", Duration::from_secs(5), || {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 1 << 1 != 0 && mask & 1 << 14 != 0)
    });
}

/// Ends each command at a moment that chance chooses: it ends in time, says what it had or that it
/// had nothing, and leaves no controller at the target. `SIGNALS` says how often; the full size is
/// 500: `tests/longer signals`.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_at_any_moment_ends_a_command_with_a_report() {
    let runs = std::env::var("SIGNALS").map_or(12, |runs| runs.parse().expect("a number"));
    let chance: Vec<_> = noise(runs * 2, 13).chunks(2).map(<[u8]>::to_vec).collect();
    let (mut without_report, mut controllers_left) = (0, 0);
    let mut longest = (Duration::ZERO, String::new());
    for (run, chance) in chance.iter().enumerate() {
        let commands = endless_commands();
        let (words, ends_early) = &commands[run % commands.len()];
        let mut child = start(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut input = child.stdin.take();
        wait_for_handlers(&child);
        if let Some(input) = &mut input {
            input.write_all(&[0; 1 << 15]).expect("it fits a pipe");
        }
        thread::sleep(Duration::from_micros(4000 * u64::from(chance[0])));
        let signal = [Signal::INT, Signal::TERM][usize::from(chance[1] & 1)];
        send(&child, signal);
        let began = Instant::now();
        let output = child.wait_with_output().expect("it ends");
        longest = longest.max((began.elapsed(), words.join(" ")));
        drop(input);
        let code = if *ends_early { 128 + signal.as_raw() } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", message(&output));
        let name = if signal == Signal::INT { "SIGINT" } else { "SIGTERM" };
        without_report += usize::from(!message(&output).contains(name));
        let deadline = Instant::now() + Duration::from_secs(1) * deadline_factor();
        while controllers(SUBSYSTEM) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        controllers_left += controllers(SUBSYSTEM);
    }
    let (longest, words) = longest;
    println!(
        "{runs} signals: {without_report} without a report, {controllers_left} controllers left, \
         the longest end {longest:.1?} ({words})"
    );
    assert_eq!((without_report, controllers_left), (0, 0));
    assert!(longest < END_TIMEOUT * deadline_factor(), "{longest:?}");
}
