//! `nvmf bench` reads what is there: a delay that the target was given, as another program with
//! another initiator reads it; and in an open loop all that was due, whether it was sent or not.
//!
//! Where the delay is far above what either initiator needs, the two must agree.

// bed: --target tests/targets/slow.toml --deny non-flush.error

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use serde_json::Value;
use tests::{KernelInitiator, SUBSYSTEM, dmsetup, nvmf_ok, run, uri};

/// The namespaces of the target and their delays in nanoseconds.
const DELAYS: [(u32, f64); 2] = [(1, 2e6), (2, 10e6)];

/// Latencies of reads in nanoseconds.
#[derive(Debug)]
struct Measurement {
    p50: f64,
    mean: f64,
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn bench(arguments: &[&str]) -> Value {
    let target = uri(SUBSYSTEM);
    let arguments = [&["bench", &target, "-o", "json"], arguments].concat();
    serde_json::from_slice(&nvmf_ok(&arguments, &[])).expect("JSON")
}

fn of_bench(namespace: u32, depth: &str) -> (Measurement, f64) {
    let namespace = namespace.to_string();
    let shape = ["--ns", &namespace, "--iodepth", depth, "--queues", "1"];
    let report = bench(&[shape.as_slice(), &["--runtime", "1s", "--ramp", "200ms"]].concat());
    let latency = &report["latency_ns"];
    let reading = Measurement { p50: number(&latency["p50"]), mean: number(&latency["mean"]) };
    (reading, number(&report["mean_ns"]["wire_and_target"]))
}

fn of_fio(namespace: u32, depth: &str) -> Measurement {
    let kernel = KernelInitiator::connect();
    let device = kernel.device(namespace);
    let output = run(
        Command::new("fio").args([
            "--name=read",
            &format!("--filename={}", device.display()),
            &format!("--iodepth={depth}"),
            "--direct=1",
            "--rw=randread",
            "--bs=4k",
            "--ioengine=libaio",
            "--norandommap",
            "--ramp_time=200ms",
            "--runtime=1s",
            "--time_based",
            "--output-format=json",
        ]),
        &[],
    );
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fio: {message}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let latency = &report["jobs"][0]["read"]["clat_ns"];
    let p50 = number(&latency["percentile"]["50.000000"]);
    Measurement { p50, mean: number(&latency["mean"]) }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn fio_reads_the_same_delay() {
    if Command::new("fio").arg("--version").output().is_err() {
        println!("SKIPPED: readings: no fio to compare with; apt-get install fio");
        return;
    }
    for (namespace, delay) in DELAYS {
        for depth in ["1", "8"] {
            let ((ours, remote), theirs) = (of_bench(namespace, depth), of_fio(namespace, depth));
            println!(
                "delay {:.0} ms, depth {depth}: nvmf bench p50 {:.2}, mean {:.2} (wire + target \
                 {:.2}); fio p50 {:.2}, mean {:.2} ms",
                delay / 1e6,
                ours.p50 / 1e6,
                ours.mean / 1e6,
                remote / 1e6,
                theirs.p50 / 1e6,
                theirs.mean / 1e6
            );
            for (name, reading) in [("nvmf bench", &ours), ("fio", &theirs)] {
                // A histogram's steps are below 2 %.
                assert!(
                    reading.p50 >= 0.98 * delay,
                    "{name} reads less than there is: {reading:?}"
                );
            }
            // Nothing is asked of the machine's speed, but that both programs see the same of it.
            for (ours, theirs) in [(ours.p50, theirs.p50), (ours.mean, theirs.mean)] {
                let ratio = ours / theirs;
                assert!((0.67..1.5).contains(&ratio), "{ratio:.2}: {ours} and {theirs} ns");
            }
            assert!(
                remote >= 0.9 * delay,
                "the delay is the target's, and shown as such: {remote}"
            );
        }
    }
}

/// A target that takes 10 ms for each command is asked for 200 a second, one at a time. Counted
/// from the submission a command takes 10 ms, counted from its due time it takes seconds.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn an_open_loop_leaves_nothing_out() {
    const RATE: f64 = 200.0;
    const SECONDS: f64 = 3.0;
    let (namespace, delay) = DELAYS[1];
    let report = bench(&[
        "--ns",
        &namespace.to_string(),
        "--iodepth",
        "1",
        "--queues",
        "1",
        "--rate",
        "200",
        "--runtime",
        "3s",
        "--ramp",
        "0",
    ]);
    let operation = &report["operations"]["read"];
    let (due, sent) = (&operation["latency_ns"], &operation["service_latency_ns"]);
    let (completed, missed) = (number(&report["completed"]), number(&report["missed"]));
    println!(
        "{RATE} a second for {SECONDS} s: {completed} done, {missed} never sent; from sending p50 \
         {:.1} ms; from the due time p50 {:.1} ms, max {:.1} ms",
        number(&sent["p50"]) / 1e6,
        number(&due["p50"]) / 1e6,
        number(&due["max"]) / 1e6
    );
    // Everything that was due is there.
    assert!((completed + missed - RATE * SECONDS).abs() <= 1.0, "{completed} + {missed}");
    assert_eq!(report["kept_up"], false);
    // It takes 10 ms at least and 5 ms are allowed: the last one sent waited half of the time.
    let waited = SECONDS * 1e9 * (1.0 - 1e9 / delay / RATE);
    assert!(number(&due["max"]) >= 0.95 * waited, "{due}");
    assert!(number(&due["p50"]) >= 0.95 * waited / 2.0, "{due}");
    assert!(number(&sent["p50"]) >= 0.98 * delay, "{sent}");
    assert!(number(&sent["p50"]) * 4.0 < number(&due["p50"]), "{sent} {due}");
    let queued = number(&report["mean_ns"]["queue"]);
    assert!(queued >= 0.9 * waited / 2.0, "it waited here: {queued}");
}

/// A target that does nothing for half a second is asked for 500 a second, before and behind. Those
/// few that were sent then see it, and so does every one that was due.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_stall_is_seen_by_all_that_were_due() {
    const STALL: Duration = Duration::from_millis(500);
    let namespace = Stallable::new(3);
    let stall = thread::spawn(move || {
        thread::sleep(Duration::from_secs(2));
        namespace.stall(STALL);
        namespace
    });
    let rate = ["--ns", "3", "--iodepth", "4", "--queues", "1", "--rate", "500"];
    let report = bench(&[rate.as_slice(), &["--runtime", "4s", "--ramp", "0"]].concat());
    drop(stall.join().expect("the device stalls and goes on"));
    let operation = &report["operations"]["read"];
    let (due, sent) = (&operation["latency_ns"], &operation["service_latency_ns"]);
    let (completed, missed) = (number(&report["completed"]), number(&report["missed"]));
    let milliseconds = |latency: &Value, name: &str| number(&latency[name]) / 1e6;
    println!(
        "{completed} reads, {missed} never sent; a stall of {STALL:?} holds up an eighth: from \
         sending p95 {:.1}, p99 {:.1}, max {:.1} ms; from the due time p95 {:.1}, p99 {:.1}, \
         max {:.1} ms",
        milliseconds(sent, "p95"),
        milliseconds(sent, "p99"),
        milliseconds(sent, "max"),
        milliseconds(due, "p95"),
        milliseconds(due, "p99"),
        milliseconds(due, "max"),
    );
    // Everything that was due is there; a busy machine may leave the last of it unsent.
    assert!((completed + missed - 2000.0).abs() <= 1.0, "{completed} + {missed}");
    let stall = STALL.as_secs_f64() * 1e3;
    for latency in [due, sent] {
        assert!(milliseconds(latency, "max") >= 0.95 * stall, "{latency}");
    }
    // A twentieth of all is what was due in 200 ms: it waited for the other 300 at least. What
    // takes long after the stall, because much has piled up, only adds to that.
    assert!(milliseconds(due, "p95") >= 0.95 * (stall - 200.0), "{due}");
    assert!(milliseconds(sent, "p99") * 2.0 < milliseconds(due, "p95"), "{sent} {due}");
}

/// A namespace of the target that can be made to wait.
struct Stallable {
    folder: PathBuf,
}

impl Stallable {
    const DEVICE: &str = "stallable";

    fn new(nsid: u32) -> Self {
        dmsetup(&["create", Self::DEVICE, "--table", "0 2048 linear /dev/ram0 0"]);
        let minor = dmsetup(&["info", "-c", "--noheadings", "-o", "minor", Self::DEVICE]);
        let subsystem = format!("/sys/kernel/config/nvmet/subsystems/{SUBSYSTEM}");
        let folder = PathBuf::from(format!("{subsystem}/namespaces/{nsid}"));
        fs::create_dir(&folder).expect("the namespace is new");
        fs::write(folder.join("device_path"), format!("/dev/dm-{}", minor.trim())).expect("a path");
        fs::write(folder.join("enable"), "1").expect("the device is there");
        Self { folder }
    }

    fn stall(&self, time: Duration) {
        dmsetup(&["suspend", "--noflush", "--nolockfs", Self::DEVICE]);
        thread::sleep(time);
        dmsetup(&["resume", Self::DEVICE]);
    }
}

impl Drop for Stallable {
    fn drop(&mut self) {
        fs::remove_dir(&self.folder).expect("nobody uses the namespace");
        dmsetup(&["remove", Self::DEVICE]);
    }
}
