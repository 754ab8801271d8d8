//! `nvmf` over the three ports of Linux's target.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread::sleep,
};

use serde_json::Value;
use tests::{SUBSYSTEM, address, controllers, load::HANG_TIMEOUT, nvmf, nvmf_ok, wait_for};

use super::{bed::*, *};

/// Target with two of the ports; the third one is an option.
fn two_ports() -> String {
    format!("nvmf-rdma://{0},{0}:4421/{SUBSYSTEM}", address())
}

fn third_port() -> String {
    format!("--path={}:4422", address())
}

/// Standard output of `nvmf`, which succeeds.
fn nvmf_text(arguments: &[&str], input: &[u8]) -> String {
    let text = String::from_utf8(nvmf_ok(arguments, input)).expect("text");
    println!("{text}");
    text
}

/// Message of `nvmf`, which fails with this exit code; one line.
fn failure(arguments: &[&str], code: i32) -> String {
    let output = tests::run(nvmf().args(arguments), &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{text}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(bytes)))
}

/// Starts `nvmf` over three paths.
fn start(command: &str, options: &[&str]) -> Child {
    let mut nvmf = nvmf();
    nvmf.args([command, &two_ports(), &third_port(), "-c", "200ms"]).args(options);
    let child = nvmf.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("NVMF runs");
    wait_for("three paths", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 3);
    child
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn nvmf_bench_goes_on_while_a_port_is_taken_away() {
    run_in_bed(async {
        let load = ["--rw", "randrw", "--overwrite", "--bs", "4K", "--queues", "2"];
        let rest = ["--iodepth", "8", "--runtime", "4s", "-o", "json", "--iopolicy", "queue-depth"];
        let bench = start("bench", &[&load[..], &rest].concat());
        sleep(Duration::from_millis(1000));
        unlink(1).await;
        sleep(Duration::from_millis(1000));
        relink(1).await;
        let output = bench.wait_with_output().expect("it ends");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        let report = json(&output.stdout);
        assert_eq!((&report["errors"], &report["interrupted"]), (&0.into(), &false.into()));
        let configuration = &report["configuration"];
        println!("{:.0} IOPS, {configuration}", report["iops"].as_f64().expect("a number"));
        assert_eq!(configuration["iopolicy"], "queue-depth");
        assert_eq!(configuration["fence"], "proof");
        let paths = report["targets"][0]["paths"].as_array().expect("three");
        for path in paths {
            println!("{path}");
            assert!(path["commands"].as_u64() > Some(10), "{path}");
        }
        assert!(paths[0]["switches"].as_u64() >= Some(1), "away from it: {}", paths[0]);
        assert!(paths[0]["switched_at"].is_string(), "{}", paths[0]);
        assert_eq!((&paths[1]["failures"], &paths[1]["switches"]), (&0.into(), &0.into()));
    });
}

/// IOPS of random reads.
fn iops(target: &str) -> f64 {
    let load = ["--bs", "4K", "--iodepth", "32", "--queues", "1", "--threads", "1"];
    let rest = ["--ramp", "200ms", "--runtime", "1s", "-o", "json"];
    let report = json(&nvmf_ok(&[&["bench", target][..], &load, &rest].concat(), &[]));
    assert_eq!(report["errors"], 0, "{report}");
    report["iops"].as_f64().expect("a number")
}

/// No limit is asserted: the machine may do other things meanwhile.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn two_paths_beside_one() {
    let (one, two) = (iops(&tests::uri(SUBSYSTEM)), iops(&two_ports()));
    println!("one path {one:.0} IOPS, two by round-robin {two:.0}: {:.3}", two / one);
}

/// Identify and monitor: the paths, their access, and what changes.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn nvmf_shows_the_paths_and_what_changes() {
    run_in_bed(async {
        let text = nvmf_text(&["identify", &two_ports(), &third_port()], &[]);
        assert!(text.contains("I/O policy        round-robin"), "{text}");
        assert_eq!(text.matches(" live, namespace 1 optimized\n").count(), 3, "{text}");
        let report = json(&nvmf_ok(&["identify", &two_ports(), "-o", "json"], &[]));
        assert_eq!(report["paths"].as_array().map(Vec::len), Some(2), "{report}");
        let mut monitor = start("monitor", &["--runtime", "100"]);
        let mut lines = BufReader::new(monitor.stdout.take().expect("it is piped")).lines();
        let mut until_shown = |words: &str| {
            let mut shown = lines.by_ref().map(|line| line.expect("text"));
            let line = shown.find(|line| line.contains(words));
            println!("{}", line.unwrap_or_else(|| panic!("no line with {words:?}")));
        };
        until_shown(":4421 live, namespace 1 optimized");
        set_access(2, "inaccessible").await;
        until_shown(":4421 live, namespace 1 inaccessible (not in use)");
        set_access(2, "optimized").await;
        until_shown(":4421 live, namespace 1 optimized");
        unlink(3).await;
        until_shown(":4422 connecting, namespace 1");
        relink(3).await;
        until_shown(":4422: live");
        until_shown(":4422 live, namespace 1 optimized");
        monitor.kill().expect("it runs");
        monitor.wait().expect("it ends");
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_of_nvmf_use_all_paths() {
    let (target, third) = (two_ports(), third_port());
    let blocks = tests::noise(64 * 4096, 7);
    let file = ["--ns", "1", "--lba", "8"];
    nvmf_text(
        &[&["write", &target, &third, "--overwrite", "--force"][..], &file].concat(),
        &blocks,
    );
    let compared = ["compare", &target, &third, "--ns", "1", "--lba", "8"];
    let refused = tests::run(nvmf().args(compared), &blocks);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("Compare"), "Linux's target has no Compare: {message}");
    let read = [&["read", &target, &third, "--blocks", "64"][..], &file].concat();
    assert_eq!(nvmf_ok(&read, &[]), blocks);
    nvmf_text(&["flush", &target, "--ns", "1"], &[]);
    let range = ["--ns", "1", "--lba", "8", "--blocks", "4", "--overwrite", "--force"];
    nvmf_text(&[&["write-zeroes", &target][..], &range].concat(), &[]);
    let zeroed = nvmf_ok(&read, &[]);
    assert!(
        zeroed[..4 * 4096].iter().all(|byte| *byte == 0)
            && zeroed[4 * 4096..] == blocks[4 * 4096..]
    );
    let verified = ["write-verify", &target, &third, "--size", "4M", "--overwrite", "--force"];
    let text = nvmf_text(&verified, &[]);
    assert!(text.contains("read back without a difference"), "{text}");
    assert_eq!(text.matches("  path ").count(), 3, "{text}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn paths_that_do_not_belong_together_are_refused() {
    let (target, address) = (two_ports(), address());
    let twice = format!("--path={address}:4421");
    assert!(failure(&["identify", &target, &twice], 2).contains("4421 is given twice"));
    let several = failure(&["id-ctrl", &target], 2);
    assert!(several.contains("several paths are for"), "{several}");
    let one = tests::uri(SUBSYSTEM);
    let policy = failure(&["read", &one, "--iopolicy", "latency", "--file", "/dev/null"], 2);
    assert!(policy.contains("give further ones"), "{policy}");
    // A path at which nothing listens is tried further, and the others used meanwhile.
    let absent = format!("--path={address}:4423");
    assert_eq!(nvmf_ok(&["read", &target, &absent, "--blocks", "1"], &[]).len(), 4096);
}
