//! Text of the metrics, held against the parsers of Prometheus, and the dashboard against the text.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Output, Stdio},
};

use rdma_host::{Statistics, wire::ControllerId};

use super::*;
use crate::{
    metrics::{RequestNumbers, controller_numbers::FencedWrites},
    output,
};

/// A label value in which everything needs an escape.
const DEVICE: &str = "/dev/\"ublkb\\0\"\n";

fn snapshot() -> Snapshot {
    let mut statistics = Statistics::default();
    statistics.read.completed = 3;
    statistics.read.bytes = 12_288;
    for latency in [7_000, 8_000, 90_000_000_000] {
        statistics.read.latency_ns.record(latency).unwrap();
    }
    statistics.write.failed = 1;
    statistics.device.doorbells = 2;
    let mut controller = ControllerNumbers::new();
    controller.state = LifecycleState::Live;
    controller.changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
    controller.id = Some(ControllerId(5));
    controller.connections = 3;
    controller.fenced.insert(4, FencedWrites { writes: 2, blocks: 8 });
    controller.ana_groups = vec![(1, AnaState::INACCESSIBLE)];
    let requests = RequestNumbers { waiting: 0, copied: 7, shared: 8 };
    let queue = QueueNumbers { in_flight: 4, held: 1, requests, ..QueueNumbers::from(&statistics) };
    let labels = vec![("subsystem", "nqn".to_owned()), ("device", DEVICE.to_owned())];
    Snapshot { labels, controller, queues: vec![queue.clone(), queue] }
}

#[test]
fn the_text_is_openmetrics() {
    let text = snapshot().openmetrics();
    let common = r#"subsystem="nqn",device="/dev/\"ublkb\\0\"\n""#;
    let bucket = "nvmf_command_latency_seconds_bucket";
    for line in [
        "# TYPE nvmf_transferred_bytes counter".to_owned(),
        "# UNIT nvmf_transferred_bytes bytes".to_owned(),
        format!(r#"nvmf_transferred_bytes_total{{{common},queue="1",operation="read"}} 12288"#),
        format!(r#"nvmf_command_errors_total{{{common},queue="0",operation="write"}} 1"#),
        format!(r#"nvmf_controller_info{{{common},controller="5"}} 1"#),
        format!(r#"nvmf_controller_state{{{common},state="live"}} 1"#),
        format!(r#"nvmf_controller_state{{{common},state="waiting"}} 0"#),
        format!("nvmf_controller_state_change_timestamp_seconds{{{common}}} 1.5"),
        format!("nvmf_reconnects_total{{{common}}} 2"),
        format!("nvmf_write_fence_outstanding_writes{{{common}}} 2"),
        format!(r#"nvmf_ana_group_state{{{common},group="1",state="inaccessible"}} 1"#),
        format!(r#"nvmf_commands_in_flight{{{common},queue="0"}} 4"#),
        format!(r#"nvmf_requests_total{{{common},queue="0",data="copied"}} 7"#),
        format!(r#"nvmf_requests_total{{{common},queue="1",data="shared"}} 8"#),
        "# UNIT nvmf_command_latency_seconds seconds".to_owned(),
        format!(r#"nvmf_command_latency_seconds_count{{{common},operation="read"}} 6"#),
        format!(r#"{bucket}{{{common},le="0.00001",operation="read"}} 4"#),
        format!(r#"{bucket}{{{common},le="+Inf",operation="read"}} 6"#),
        "# EOF".to_owned(),
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

/// A command without queues, as `nvmf monitor`, has no family without a sample.
#[test]
fn nothing_is_told_of_queues_that_are_not_there() {
    let text = Snapshot { queues: Vec::new(), ..snapshot() }.openmetrics();
    assert!(!text.contains("queue") && !text.contains("command"), "{text}");
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        let has_sample = text.lines().any(|line| line.starts_with(name));
        assert!(has_sample, "{name}: {text}");
    }
}

/// Runs a program with this input; none if it is not installed.
fn checked(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    // One that fails at once does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

/// Text that node_exporter reads, by Prometheus' own parser and its rules for names.
#[test]
fn promtool_has_no_complaint() {
    let text = snapshot().prometheus();
    let Some(output) = checked("promtool", &["check", "metrics"], &text) else {
        let why = "SKIPPED: no promtool; run: apt-get install prometheus\n";
        return output::print_text(why).unwrap();
    };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{text}");
}

/// The parser of OpenMetrics in Prometheus' library for Python is a strict one.
#[test]
fn a_strict_parser_takes_the_text() {
    const PROGRAM: &str = "import sys
try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
except ImportError:
    sys.exit(77)
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        print(sample.name, sample.labels['device'] == sys.argv[1])";
    let text = snapshot().openmetrics();
    let parsed = checked("/usr/bin/python3", &["-c", PROGRAM, DEVICE], &text);
    let Some(output) = parsed.filter(|output| output.status.code() != Some(77)) else {
        let why = "SKIPPED: no parser; run: apt-get install python3-prometheus-client\n";
        return output::print_text(why).unwrap();
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}\n{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(printed.lines().count(), samples, "{printed}\n{text}");
    assert!(printed.lines().all(|line| line.ends_with(" True")), "{printed}\n{text}");
}

/// Every name with our prefix in the dashboard is one that is written.
#[test]
fn the_dashboard_names_metrics_that_are_written() {
    let dashboard = include_str!("../../../packaging/nvmf.dashboard.json");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("JSON");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: BTreeSet<_> = dashboard
        .split(|c: char| !is_of_name(c))
        .filter(|word| word.starts_with("nvmf_"))
        .collect();
    let text = snapshot().prometheus();
    let written: BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(|c: char| !is_of_name(c)).next().unwrap())
        .collect();
    let unknown: Vec<_> = named.difference(&written).collect();
    assert!(unknown.is_empty() && named.len() > 8, "{unknown:?} of {named:?}");
}
