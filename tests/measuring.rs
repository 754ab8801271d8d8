//! Measurements as their users make them: conditions for CI, a baseline, a job file, rates of reads
//! and writes, a steady state, and results that fio's own tools read.

// bed: --target tests/targets/commands.toml --deny non-flush.error

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::{SUBSYSTEM, controllers, nvmf, nvmf_ok, run, uri, wait_for};

/// Words of a short measurement of a namespace, before more options. Threads that sleep are not in
/// the idle class, where a busy machine leaves them no time.
const SHORT: [&str; 10] =
    ["--ns", "1", "--iodepth", "4", "--runtime", "1s", "--ramp", "0", "--wait", "event"];

fn bench_in(folder: &Path, arguments: &[&str]) -> Output {
    let target = uri(SUBSYSTEM);
    let words = [&["bench", &target][..], &SHORT, arguments].concat();
    run(nvmf().args(words).current_dir(folder), &[])
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("JSON")
}

/// Messages of a command, without warnings that the machine was busy, which it may be.
fn message(output: &Output) -> String {
    let all = String::from_utf8_lossy(&output.stderr);
    let is_other = |line: &&str| {
        let warning = line.strip_prefix("nvmf: warning: ");
        !warning.is_some_and(|it| it.starts_with("the machine was busy") || it.contains("joined"))
    };
    all.split_inclusive('\n').filter(is_other).collect()
}

/// Output of a tool of fio, or nothing, with a message, if it is not installed.
fn tool(name: &str, arguments: &[&str], folder: &Path) -> Option<String> {
    if Command::new(name).arg("--help").output().is_err() {
        println!("SKIPPED: {name}: not installed; apt-get install fio");
        return None;
    }
    let output = run(Command::new(name).args(arguments).current_dir(folder), &[]);
    assert!(output.status.success(), "{name}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_tools_of_fio_read_results() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let files = ["--json", "ours.json", "--format", "fio", "--interval", "200ms"];
    let mixed = ["--rw", "randrw", "--overwrite"];
    let fio = json(&bench_in(folder, &[&files[..], &mixed].concat()));
    fs::write(folder.join("fio.json"), fio.to_string()).expect("the file is written");
    let ours = json_file(&folder.join("ours.json"));
    for direction in ["read", "write"] {
        let (job, operation) = (&fio["jobs"][0][direction], &ours["operations"][direction]);
        assert_eq!(job["total_ios"], operation["completed"]);
        assert!((number(&job["iops"]) / number(&operation["iops"]) - 1.0).abs() < 1e-9);
        for (theirs, name) in [("50.000000", "p50"), ("90.000000", "p90"), ("99.000000", "p99")] {
            let (found, due) =
                (&job["clat_ns"]["percentile"][theirs], &operation["latency_ns"][name]);
            // On a slow machine, too few commands support it. The histogram has three digits.
            let Some(due) = due.as_f64() else { continue };
            let ratio = number(found) / due;
            assert!((ratio - 1.0).abs() <= 0.001, "{direction} {name}: {found} {due}");
        }
    }
    if let Some(said) = tool("fio_jsonplus_clat2csv", &["fio.json", "out.csv"], folder) {
        assert!(said.contains("out_job0.csv generated"), "{said}");
        let said = tool("fio_jsonplus_clat2csv", &["fio.json", "out.csv", "--validate"], folder);
        assert!(said.expect("it is there").contains("out_job0.csv validated"));
        let table = fs::read_to_string(folder.join("out_job0.csv")).expect("a table");
        let last = table.lines().rfind(|line| !line.trim().is_empty()).expect("a line");
        assert!(last.contains("1.0"), "the last bin is the 100th percentile: {last}");
    }
    let logs = ["report", "ours.json", "--fio-log", "run"];
    let output = run(nvmf().args(logs).current_dir(folder), &[]);
    assert!(output.status.success(), "{output:?}");
    let iops = fs::read_to_string(folder.join("run_iops.1.log")).expect("a log");
    assert!(iops.contains(", 0, 0, 0\n") && iops.contains(", 1, 0, 0\n"), "{iops}");
    for (pattern, log) in [("-i", "run_iops.1.log"), ("-b", "run_bw.1.log")] {
        if let Some(said) = tool("fio2gnuplot", &[pattern, "-d", ".", "-k"], folder) {
            assert!(said.contains(log), "{said}");
        }
    }
    if let Some(said) = tool("fiologparser.py", &["-s", "run_iops.1.log"], folder) {
        assert!(said.lines().count() > 0, "{said}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn conditions_decide_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let holds = ["--fail-if", "max>1000s,iops<0.1", "--fail-if", "errors>0,retried>0,bw<1"];
    let output = bench_in(folder.path(), &holds);
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" errors, 0 retried"), "{text}");
    for condition in ["min>1ns", "max>0.001us", "iops<1000M", "bandwidth<1T", "read.mean>1ns"] {
        let output = bench_in(folder.path(), &["--fail-if", condition]);
        let message = message(&output);
        assert_eq!(output.status.code(), Some(1), "{condition}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with(&format!("nvmf: --fail-if {condition}: ")), "{message}");
        assert!(!output.stdout.is_empty(), "what was measured is reported");
    }
}

/// Load that is not worse than before, and one that was better then by orders of magnitude.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_run_is_judged_by_a_baseline() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let interval = ["--interval", "100ms"];
    let output = bench_in(folder, &[&interval[..], &["--json", "before.json"]].concat());
    assert!(output.status.success(), "{}", message(&output));
    let judged = ["--baseline", "before.json", "--fail-if-worse", "1000%", "-o", "json"];
    let report = json(&bench_in(folder, &[&interval[..], &judged].concat()));
    let point = &report["comparison"]["points"][0];
    assert_eq!(point["same_load"], true, "{point}");
    assert_eq!(point["measures"][0]["measure"], "IOPS");
    assert!(point["measures"][0]["verdict"].is_string(), "{point}");

    let mut before = json_file(&folder.join("before.json"));
    for at in before["series"].as_array_mut().expect("a series") {
        at["iops"] = 1e9.into();
    }
    fs::write(folder.join("before.json"), before.to_string()).expect("the file is written");
    let judged = ["--baseline", "before.json", "--fail-if-worse", "5%", "--json", "after.json"];
    let judged = [&judged[..], &["--html", "after.html"]].concat();
    let output = bench_in(folder, &[&interval[..], &judged].concat());
    let expected = "nvmf: --fail-if-worse 5%: IOPS is ";
    assert!(message(&output).starts_with(expected), "{}", message(&output));
    assert_eq!((output.status.code(), message(&output).lines().count()), (Some(1), 1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\n  began: ") && text.contains("  IOPS "), "{text}");
    let page = fs::read_to_string(folder.join("after.html")).expect("a page");
    assert!(page.contains("Differences from the baseline"), "the page has the comparison");

    let compare = ["bench", "--compare", "before.json", "after.json", "--fail-if-worse", "5%"];
    let output = run(nvmf().args(compare).current_dir(folder), &[]);
    assert!(message(&output).starts_with(expected), "{}", message(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_job_file_is_run_section_by_section() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[global]\nrw = 'randread'\nruntime = '5s'\n[small]\nbs = '4K'\nrandom-distribution \
                = 'zipf:1.2'\n[large]\nbs = '64K'\nrw = 'read'\n";
    fs::write(folder.path().join("job.toml"), text).expect("the file is written");
    let report = json(&bench_in(folder.path(), &["--job", "job.toml", "-o", "json"]));
    let of =
        |index: usize, setting: &str| report["points"][index]["configuration"][setting].clone();
    for (index, name, rw, bytes) in [(0, "small", "randread", 4096), (1, "large", "read", 65536)] {
        assert_eq!((of(index, "name"), of(index, "rw")), (name.into(), rw.into()));
        assert_eq!(of(index, "bs"), bytes);
        assert_eq!(of(index, "runtime_s"), 1.0, "the command line takes precedence");
    }
    assert_eq!(of(0, "random_distribution"), "zipf:1.2");
    // A section that overwrites wants consent before anything runs.
    let text = format!("{text}[write]\nrw = 'write'\n");
    fs::write(folder.path().join("job.toml"), text).expect("the file is written");
    let output = bench_in(folder.path(), &["--job", "job.toml"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(message(&output).contains("--overwrite"), "{}", message(&output));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn reads_and_writes_come_at_their_own_rates() {
    let folder = tempfile::tempdir().expect("a folder");
    let equal = ["--rw", "randrw", "--rate", "300,300", "--queues", "1", "--overwrite"];
    let report = json(&bench_in(folder.path(), &[&equal[..], &["-o", "json"]].concat()));
    let completed = |direction: &str| number(&report["operations"][direction]["completed"]);
    let (reads, writes) = (completed("read"), completed("write"));
    let missed = number(&report["missed"]);
    assert!((reads + writes + missed - 600.0).abs() <= 2.0, "{reads} {writes} {missed}");
    // They are due in turn; a direction drawn by lot for each would differ by some twenty.
    assert!((reads - writes).abs() <= 1.0, "{reads} reads, {writes} writes");
    let of = &report["configuration"];
    assert_eq!((&of["rate"], &of["read_rate"]), (&600.into(), &300.into()));
}

/// Reports of intervals take time, of which the load gets the most.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn short_intervals_leave_time_for_the_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = json(&bench_in(folder.path(), &["--interval", "0.001ms", "-o", "json"]));
    let series = report["series"].as_array().expect("a series");
    let sum = |key: &str| series.iter().map(|it| number(&it[key])).sum::<f64>();
    let (all, seconds) = (number(&report["completed"]), number(&report["seconds"]));
    assert!((sum("completed") - all).abs() < 0.5, "{all} commands are each in one interval");
    assert!((sum("seconds") - seconds).abs() < 1e-6, "{seconds} s are each in one interval");
    let at = |index: usize, key: &str| number(&series[index][key]);
    let is_gapless =
        |index| (at(index - 1, "start_s") + at(index - 1, "seconds") - at(index, "start_s")).abs();
    assert!((1..series.len()).all(|index| is_gapless(index) < 1e-6));
    // Each of a million would be reported without the time for a single command.
    assert!(series.len() < 100_000, "{} intervals", series.len());
    let warnings = report["warnings"].as_array().expect("warnings");
    let told = warnings.iter().any(|it| it.as_str().is_some_and(|it| it.contains("are joined")));
    assert!(told, "{warnings:?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_measurement_ends_in_a_steady_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let steady = |limit: &str, runtime: &str| {
        let options = ["--until", limit, "--interval", "100ms", "-o", "json"];
        let target = uri(SUBSYSTEM);
        let place = ["bench", &target, "--ns", "1", "--iodepth", "4", "--ramp", "0"];
        let words = [&place[..], &options, &["--runtime", runtime]].concat();
        json(&run(nvmf().args(words).current_dir(&folder), &[]))
    };
    let report = steady("100000%", "5m");
    assert_eq!(report["steady_state"]["attained"], true, "{}", report["steady_state"]);
    assert_eq!(report["interrupted"], false);
    assert!(number(&report["seconds"]) < 200.0, "it ended before its time");
    let report = steady("0%", "1s");
    assert_eq!(report["steady_state"]["attained"], false, "{}", report["steady_state"]);
    assert!(report["steady_state"]["deviation_percent"].is_f64(), "{}", report["steady_state"]);
}

/// Commands are held while the path is in ANA change, and sent again.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn commands_that_were_sent_again_are_counted() {
    let group = Path::new("/sys/kernel/config/nvmet/ports");
    let port = fs::read_dir(group).expect("ports").next().expect("a port").expect("an entry");
    let state = port.path().join("ana_groups/1/ana_state");
    let target = uri(SUBSYSTEM);
    let bench = thread::spawn(move || {
        let words = ["bench", &target, "--ns", "1", "--iodepth", "1", "--runtime", "3s"];
        nvmf_ok(&[&words[..], &["--ramp", "0", "-o", "json"]].concat(), &[])
    });
    wait_for("it connects", Duration::from_secs(5), || controllers(SUBSYSTEM) > 0);
    thread::sleep(Duration::from_secs(1));
    fs::write(&state, "change").expect("the state is set");
    thread::sleep(Duration::from_millis(300));
    fs::write(&state, "optimized").expect("the state is set");
    let report: Value = serde_json::from_slice(&bench.join().expect("it ends")).expect("JSON");
    assert!(number(&report["retried"]) > 0.0, "{}", report["retried"]);
    assert_eq!(report["errors"], 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn damaged_files_do_not_hide_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let output = bench_in(folder, &["--json", "good.json"]);
    assert!(output.status.success(), "{}", message(&output));
    fs::write(folder.join("bad.json"), "{ \"points\": [").expect("the file is written");
    let words = ["report", "bad.json", "good.json", "--csv", "all.csv", "--html", "all.html"];
    let output = run(nvmf().args(words).current_dir(folder), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    let lines: Vec<_> = message(&output).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("nvmf: bad.json: EOF"), "{lines:?}");
    assert_eq!(lines[1], "nvmf: 1 of 2 files could not be reported");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("good: randread 4 KiB"), "{text}");
    let table = fs::read_to_string(folder.join("all.csv")).expect("a table");
    assert!(table.starts_with("name,began,nqn,") && table.contains("\ngood,"), "{table}");
    assert!(fs::read_to_string(folder.join("all.html")).expect("a page").contains("</html>"));
}
