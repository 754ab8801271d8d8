//! Table of what is neither a rate nor a latency: costs, memory, targets, and all settings.

use std::fmt::Write;

use serde_json::Value;

use super::{super::report::PointReport, chart::escape, parts::group_digits};
use crate::size;

pub(super) fn table(point: &PointReport) -> String {
    let mut table = "<table class=\"facts\"><caption>Particulars</caption>\n".to_owned();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(table, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    };
    for (name, count) in [
        ("doorbells", point.per_io.doorbells),
        ("completions", point.per_io.completions),
        ("empty polls", point.per_io.empty_polls),
    ] {
        row(&format!("{name} per I/O"), &format!("{count:.3}"));
    }
    let disturbance = &point.disturbance;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    row("involuntary context switches", &disturbance.involuntary_switches.to_string());
    if let Some(share) = disturbance.run_queue_wait_share {
        row("time in which threads waited for a processor", &percent(share));
    }
    let starved = format!("{:.1} s", disturbance.starved_s);
    row("time in which threads did not get to run", &starved);
    row("processors' time of other programs", &percent(disturbance.other_programs_share));
    row("processors' time of other guests (steal)", &percent(disturbance.steal_share));
    row("errors", &point.totals.errors.to_string());
    let before = size::format_bytes(point.resident_bytes.begin);
    let after = size::format_bytes(point.resident_bytes.end.unwrap_or(0));
    row("resident memory, before and after", &format!("{before} and {after}"));
    if point.targets.len() > 1 {
        for target in &point.targets {
            let rate = format!("{} I/O a second", group_digits(target.totals.iops));
            row(&format!("{}, namespace {}", target.nqn, target.nsid), &rate);
        }
    }
    let settings = serde_json::to_value(&point.configuration).expect("plain data");
    for (name, value) in settings.as_object().into_iter().flatten() {
        // The block size is there in both forms; the readable one is enough.
        if !value.is_null() && name != "bs" {
            row(&name.replace("_in_words", "").replace('_', " "), &format_setting(name, value));
        }
    }
    table.push_str("</table>\n");
    table
}

fn format_setting(name: &str, value: &Value) -> String {
    match (name, value) {
        (_, Value::String(text)) => text.clone(),
        ("authentication", Value::Array(queues)) if queues.iter().all(Value::is_null) => {
            "none".to_owned()
        }
        (
            "region_bytes" | "io_size" | "reachable_bytes_at_rest" | "reachable_bytes_in_flight",
            value,
        ) => size::format_bytes(value.as_u64().unwrap_or_default()),
        (_, other) => other.to_string(),
    }
}
