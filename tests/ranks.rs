//! `nvmf bench` under launchers that speak PMIx: Open MPI's `mpirun`, and Slurm's `srun`.

// bed: --target tests/targets/commands.toml

#[path = "ranks/launcher.rs"]
mod launcher;
#[path = "ranks/slurm.rs"]
mod slurm;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use base64ct::{Base64, Encoding};
use hdrhistogram::{Histogram, serialization::Deserializer};
use serde_json::Value;
use tests::{SUBSYSTEM, command as run_command, controllers, nvmf, run, uri, wait_for};

use crate::{
    launcher::{launch, mpirun, on_two_hosts, output_of, processes_of_ranks, ranks, text},
    slurm::Slurm,
};

/// Options of a short measurement. Threads that sleep leave the guest's only processor to others.
const SHORT: [&str; 13] = [
    "--ns",
    "1",
    "--iodepth",
    "4",
    "--queues",
    "1",
    "--runtime",
    "2s",
    "--ramp",
    "100ms",
    "--wait",
    "event",
    "--rank-timeout=20s",
];

/// Messages of nvmf, without those of the launcher and warnings that the machine was busy.
fn messages(output: &Output) -> Vec<String> {
    let all = text(&output.stderr);
    let ours = all.lines().filter(|line| line.starts_with("nvmf: "));
    ours.filter(|line| !line.contains("warning: ")).map(str::to_owned).collect()
}

fn json_file(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

fn program() -> String {
    std::env::var("NVMF").expect("run by ./tests/run")
}

/// Latencies of reads, as HdrHistogram's own decoder reads them.
fn latencies(report: &Value) -> Histogram<u64> {
    let encoded = report["operations"]["read"]["histogram"].as_str().expect("a histogram");
    let bytes = Base64::decode_vec(encoded).expect("Base64");
    Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn four_ranks_are_one_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (program, target) = (program(), uri(SUBSYSTEM));
    let files = "--json all.json --html all.html --hlog all.hlog --rank-json rank";
    let files: Vec<_> = files.split(' ').collect();
    let own = ranks(4, &[&[&program, "bench", &target], &SHORT, &files]);
    let Some(command) = mpirun(&[], &[own], folder) else { return };
    let Some(output) = launch(command) else { return };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&output), [""; 0]);
    let shown = text(&output.stdout);
    assert_eq!(shown.matches(" IOPS, ").count(), 1 + 4, "all together and each rank: {shown}");
    assert!(shown.contains("4 ranks on 1 host, started within "), "{shown}");
    let page = fs::read_to_string(folder.join("all.html")).expect("a page");
    assert!(page.contains("IOPS by host"));
    let log = fs::read_to_string(folder.join("all.hlog")).expect("a log");
    assert!(log.lines().filter(|line| line.starts_with("Tag=read,")).count() >= 2, "{log}");

    let all = json_file(&folder.join("all.json"));
    let names = [0, 1, 2, 3].map(|rank| format!("rank.{rank}.json"));
    let single = names.each_ref().map(|name| json_file(&folder.join(name)));
    let mut together = latencies(&single[0]);
    together.auto(true);
    single[1..].iter().for_each(|one| together.add(latencies(one)).expect("the same bounds"));
    println!("{} commands, p99.9 {}", together.len(), all["latency_ns"]["p99_9"]);
    assert_eq!(latencies(&all), together);
    assert_eq!(all["completed"], together.len());
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999)] {
        let due = together.value_at_quantile(quantile);
        let enough = together.len() as f64 * (1.0 - quantile) >= 10.0;
        let due = if enough { due.into() } else { Value::Null };
        assert_eq!(all["latency_ns"][name], due, "{name}");
    }
    let of = &all["ranks"];
    assert_eq!((&of["count"], &of["started_together"]), (&4.into(), &true.into()));
    let iops = of["by_rank"].as_array().expect("ranks").iter().map(|rank| rank["iops"].as_f64());
    let sum: f64 = iops.map(|iops| iops.expect("a number")).sum();
    assert!((all["iops"].as_f64().expect("a number") / sum - 1.0).abs() < 1e-9, "{of}");
    let span = of["common_span_s"].as_f64().expect("a number");
    assert!((1.0..3.0).contains(&span), "{span}");

    // The same from the files, and the merged report is one like any other.
    let merge = [&["bench", "--merge"][..], &names.each_ref().map(String::as_str), &["-o", "json"]];
    let output = run(nvmf().args(merge.concat()).current_dir(folder), &[]);
    let merged: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(merged["latency_ns"], all["latency_ns"], "{output:?}");
    for command in [&["report", "all.json"][..], &["bench", "--compare", "all.json", "all.json"]] {
        let output = run(nvmf().args(command).current_dir(folder), &[]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// Checks that four ranks on these hosts are one report, `all.json`.
fn check_four_ranks(output: &Output, folder: &Path, hosts: [&str; 4]) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(output), [""; 0]);
    let shown = text(&output.stdout);
    let on = if hosts[0] == hosts[3] { "1 host" } else { "2 hosts" };
    assert!(shown.contains(&format!("4 ranks on {on}, started within ")), "{shown}");
    let all = json_file(&folder.join("all.json"));
    let of = &all["ranks"];
    assert_eq!((&of["count"], &of["started_together"]), (&4.into(), &true.into()));
    let named = of["by_rank"].as_array().expect("ranks").iter().map(|rank| &rank["host"]);
    assert_eq!(named.collect::<Vec<_>>(), hosts, "{of}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn ranks_of_two_hosts_are_one_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (program, target) = (program(), uri(SUBSYSTEM));
    let own = ranks(4, &[&[&program, "bench", &target], &SHORT, &["--json", "all.json"]]);
    let Some(command) = mpirun(&[], &[own], folder) else { return };
    let Some(output) = launch(on_two_hosts(command, folder)) else { return };
    check_four_ranks(&output, folder, ["node1", "node1", "node2", "node2"]);
}

/// Two nodes of Slurm, which have the same name of their host.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn ranks_of_srun_are_one_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let Some(slurm) = Slurm::start(folder) else { return };
    let mut command = slurm.command("srun");
    command.args(["-N", "2", "-n", "4", "--mpi=pmix", &program(), "bench", &uri(SUBSYSTEM)]);
    command.args(SHORT).args(["--json", "all.json"]).current_dir(folder);
    let Some(output) = launch(command) else { return };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    check_four_ranks(&output, folder, [host.trim(); 4]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn points_of_a_sweep_start_together_and_parts_are_disjoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (program, target) = (program(), uri(SUBSYSTEM));
    let words = "--ns 1 --queues 1 --runtime 500ms --ramp 0 --wait event --sweep iodepth=1,4 \
                 --rw randrw --verify --overwrite --ranks disjoint --size 3M --json all.json \
                 --rank-json rank";
    let words: Vec<_> = words.split_whitespace().collect();
    let own = ranks(3, &[&[&program, "bench", &target], &words]);
    let Some(command) = mpirun(&[], &[own], folder) else { return };
    let Some(output) = launch(command) else { return };
    assert!(output.status.success(), "{output:?}");
    let all = json_file(&folder.join("all.json"));
    for (point, depth) in [(0, 1), (1, 4)] {
        let point = &all["points"][point];
        assert_eq!(point["configuration"]["iodepth"], depth);
        assert_eq!(point["ranks"]["by_rank"].as_array().map(Vec::len), Some(3));
        assert_eq!(point["ranks"]["failed"], Value::Array(Vec::new()));
    }
    for rank in 0..3_u64 {
        let one = json_file(&folder.join(format!("rank.{rank}.json")));
        let settings = &one["points"][0]["configuration"];
        assert_eq!(settings["region_start"], rank << 20);
        assert_eq!(
            (&settings["region_bytes"], &settings["verify"]),
            (&(1 << 20).into(), &true.into())
        );
    }
}

/// Output of ranks of which the last of four is killed while all measure.
fn with_a_kill(options: &[&str], folder: &Path) -> Option<Output> {
    let target = uri(SUBSYSTEM);
    let bench = format!(
        "{} bench {target} --ns 1 --queues 1 --iodepth 4 --runtime 20s --ramp 0 --wait event \
         --rank-timeout 4s --json all.json; echo exit code $?",
        program()
    );
    let rest = ["sh", "-c", &bench];
    let mut command = mpirun(options, &[ranks(4, &[&rest])], folder)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("mpirun starts");
    wait_for("all ranks connected", Duration::from_secs(60), || controllers(SUBSYSTEM) == 4);
    thread::sleep(Duration::from_secs(5));
    let process = &processes_of_ranks()[&3];
    run_command("kill", &format!("-9 {process}"));
    let output = output_of(child)?;
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    Some(output)
}

/// A launcher that leaves the others alone, as srun does without --kill-on-bad-exit.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_rank_that_was_killed_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let recovery = ["--mca", "orte_enable_recovery", "1"];
    let Some(output) = with_a_kill(&recovery, folder.path()) else { return };
    let shown = text(&output.stdout);
    assert!(shown.contains("FAILED, in no figure: rank 3 on "), "{output:?}");
    assert_eq!(shown.matches("exit code 0").count(), 2, "ranks 1 and 2: {output:?}");
    assert_eq!(shown.matches("exit code 1\n").count(), 1, "rank 0: {output:?}");
    let named: Vec<_> = messages(&output);
    assert!(named.len() == 1 && named[0].starts_with("nvmf: rank 3 on "), "{named:?}");
    let all = json_file(&folder.path().join("all.json"));
    assert_eq!(all["ranks"]["failed"][0]["rank"], 3);
    assert_eq!(all["ranks"]["by_rank"].as_array().map(Vec::len), Some(3));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_rank_that_cannot_connect_is_named_and_nothing_is_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, keyed) = (program(), uri("nqn.2026-11.org.soft-roce:keyed"));
    let key = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the key is written");
        assert!(Command::new("chmod").arg("600").arg(&path).status().expect("chmod").success());
    };
    key("right", "DHHC-1:00:J0qR2WNHWlQcsHLbbnAJ90qQOCgwxh9SLRo7BIMIUsGJ8cUH:\n");
    let wrong = run(nvmf().args(["key", "gen"]), &[]);
    key("wrong", &text(&wrong.stdout));
    let host = ["-q", "nqn.2026-11.org.soft-roce:secret", "--dhchap-secret-file"];
    let bench = [&program, "bench", &keyed];
    let with = |count, key| ranks(count, &[&bench, &SHORT, &host, &[key, "--json", "all.json"]]);
    let all = [with(1, "right"), with(1, "wrong"), with(1, "right")];
    let Some(command) = mpirun(&[], &all, folder.path()) else { return };
    let Some(output) = launch(command) else { return };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let named = messages(&output);
    assert!(named.len() == 1 && named[0].starts_with("nvmf: rank 1 on "), "{output:?}");
    assert!(output.stdout.is_empty() && !folder.path().join("all.json").exists(), "{output:?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_several_ranks_cannot_do_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (program, target) = (program(), uri(SUBSYSTEM));
    for (words, code, message) in [
        (&["--rw", "randrw", "--verify", "--overwrite"][..], 2, "give --ranks disjoint"),
        (&["--capture", "x.pcapng"], 2, "--capture writes one file"),
        (&["--json", "/none/x.json"], 1, "/none/x.json: No such file"),
        (&["--size", "8K", "--ranks", "disjoint"], 1, "for each of the 3 ranks"),
    ] {
        let own = ranks(3, &[&[&program, "bench", &target], &SHORT, words]);
        let Some(command) = mpirun(&[], &[own], folder) else { return };
        let Some(output) = launch(command) else { return };
        let named = messages(&output);
        assert!(named.len() == 1 && named[0].contains(message), "{words:?}: {output:?}");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
}

/// An environment may name a launcher that is not there.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn without_its_launcher_a_rank_says_so() {
    let target = uri(SUBSYSTEM);
    let words = [&["bench", &target][..], &SHORT].concat();
    let output = run(nvmf().args(&words).env("PMIX_RANK", "0"), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let named = messages(&output);
    let expected = "nvmf: PMIX_RANK says that a launcher started this process";
    assert!(named.len() == 1 && named[0].starts_with(expected), "{output:?}");
    let output = run(nvmf().args(&words).args(["--rank-json", "x"]), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = run(nvmf().args(&words).args(["--ranks", "disjoint"]), &[]);
    assert!(output.status.success(), "alone, all is its part: {output:?}");
    assert!(!text(&output.stderr).contains("no PMIx"), "{output:?}");
    let output = run(nvmf().args(&words).env("SLURM_STEP_NUM_TASKS", "4"), &[]);
    assert!(output.status.success(), "{output:?}");
    let warning = "nvmf: warning: SLURM_STEP_NUM_TASKS is 4, but there is no PMIx";
    assert!(text(&output.stderr).contains(warning), "{output:?}");
}
