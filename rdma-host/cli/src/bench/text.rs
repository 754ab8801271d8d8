//! The report for a terminal.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::report::PERCENTILES;
use crate::size;

/// A number of the report, or 0.
pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// A whole number of the report, or 0.
fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One line that says what was measured.
pub(super) fn title(report: &Value) -> String {
    let configuration = &report["configuration"];
    let pace = match configuration["rate"].as_u64() {
        Some(rate) => format!(", {rate} a second ({})", words(&configuration["arrival"])),
        None => String::new(),
    };
    let targets = match whole(&configuration["targets"]) {
        0 | 1 => String::new(),
        several => format!(", each of {several} targets"),
    };
    format!(
        "{} {}, depth {} on {}, {}{pace}{targets}",
        words(&configuration["rw"]),
        words(&configuration["bs_in_words"]),
        configuration["iodepth"],
        size::count(whole(&configuration["queues"]), "queue"),
        size::count(whole(&configuration["threads"]), "thread"),
    )
}

/// One point.
pub(super) fn point(report: &Value) -> String {
    let configuration = &report["configuration"];
    let seconds = number(&report["seconds"]);
    let mut text = format!(
        "{}, {} waiting, {seconds:.1} s, device {}, memory mode {}\n",
        title(report),
        words(&configuration["wait"]),
        words(&configuration["device"]),
        words(&configuration["memory_mode"]),
    );
    let elapsed = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "  {:.0} IOPS, {}, {} errors",
        number(&report["iops"]),
        size::rate_in_words(whole(&report["bytes"]), elapsed),
        report["errors"],
    );
    let _ = writeln!(text, "  latency µs: {}", latency(&report["latency_ns"]));
    let operations = ["read", "write"].map(|name| (name, &report["operations"][name]));
    if operations.iter().all(|(_, operation)| whole(&operation["completed"]) > 0) {
        for (name, operation) in operations {
            let (iops, latency) = (number(&operation["iops"]), latency(&operation["latency_ns"]));
            let _ = writeln!(text, "    {name}: {iops:.0} IOPS, µs: {latency}");
        }
    }
    costs(&mut text, report);
    if words(&configuration["memory_mode"]) == "window" {
        let windows = &report["windows"];
        let (by_target, here) = (&windows["by_target"], &windows["here"]);
        let _ = writeln!(text, "  windows: {by_target} closed by the target, {here} by us");
    }
    if !kept_up(report) {
        let missed = whole(&report["missed"]);
        let _ = writeln!(
            text,
            "  NOT KEPT UP: {missed} commands were due and never sent; latencies are lower bounds"
        );
    }
    text
}

/// Whether an open loop sent all that was due, but for a few at the end.
pub(super) fn kept_up(report: &Value) -> bool {
    report["kept_up"].as_bool().unwrap_or(true)
}

fn costs(text: &mut String, report: &Value) {
    let (mean, cost) = (&report["mean_ns"], &report["per_io"]);
    let _ = writeln!(
        text,
        "  of that, mean µs: queue {:.1}, submit {:.1}, wire + target {:.1}, completion {:.1}",
        number(&mean["queue"]) / 1000.0,
        number(&mean["submit"]) / 1000.0,
        number(&mean["wire_and_target"]) / 1000.0,
        number(&mean["completion"]) / 1000.0,
    );
    let _ = writeln!(
        text,
        "  per I/O: CPU {:.1} µs, {:.2} doorbells, {:.2} completions, {:.2} empty polls",
        number(&cost["cpu_ns"]) / 1000.0,
        number(&cost["doorbells"]),
        number(&cost["completions"]),
        number(&cost["empty_polls"]),
    );
}

fn latency(latency: &Value) -> String {
    let micros = |name: &str| number(&latency[name]) / 1000.0;
    let mut text = format!("min {:.1}, mean {:.1}", micros("min"), micros("mean"));
    for (name, _) in PERCENTILES {
        let _ = write!(text, ", {} {:.1}", name.replace('_', "."), micros(name));
    }
    let _ = write!(text, ", max {:.1}", micros("max"));
    text
}
