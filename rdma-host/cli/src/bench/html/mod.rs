//! The report for a browser: one file that loads nothing from elsewhere.

mod chart;
mod overview;

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use self::chart::{Axis, Chart, Line, Scale, Unit, escape};
use super::points;
use super::report::PERCENTILES;
use super::text::{kept_up, number, title};
use crate::size;

const STYLE: &str = include_str!("page.css");
/// The parts of a command's time, in the order in which they pass.
pub(super) const STAGES: [(&str, &str, &str); 4] = [
    ("queue", "queue", "due, not yet submitted"),
    ("submit", "submit", "until the doorbell rang"),
    ("wire_and_target", "wire + target", "until a poll found it done"),
    ("completion", "completion", "until its result was handed over"),
];

/// The page of a report.
pub(super) fn page(report: &Value) -> String {
    let points = points(report);
    let mut body = String::new();
    match points {
        [only] => {
            let _ = writeln!(body, "<h1>{}</h1>", escape(&title(only)));
            one(&mut body, only);
        }
        several => {
            let _ = writeln!(body, "<h1>Sweep of {} points</h1>", several.len());
            if let [first, ..] = several {
                body.push_str(&where_and_when(first));
            }
            body.push_str(&overview::overview(several));
            for point in several {
                let title = escape(&title(point));
                let _ = writeln!(body, "<details>\n<summary>{title}</summary>");
                one(&mut body, point);
                body.push_str("</details>\n");
            }
        }
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>nvmf bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>nvmf bench {}</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn one(body: &mut String, point: &Value) {
    body.push_str(&where_and_when(point));
    tiles(body, point);
    if !kept_up(point) {
        let missed = grouped(number(&point["missed"]));
        let _ = writeln!(
            body,
            "<section class=\"warning\"><b>Not kept up.</b> {missed} commands were due and never \
             sent. Latencies grow with the time of the run: read them as lower bounds.</section>"
        );
    }
    if number(&point["errors"]) > 0.0 {
        let errors = grouped(number(&point["errors"]));
        let _ =
            writeln!(body, "<section class=\"warning\"><b>{errors} commands failed.</b></section>");
    }
    section(body, &percentiles(point));
    section(body, &distribution(point).svg());
    // One interval makes no line.
    if point["series"].as_array().is_some_and(|series| series.len() > 1) {
        let rate = [("", "iops")];
        section(body, &series(point, "IOPS over time", "I/O a second", &rate).svg());
        let latencies = [("p50", "p50_ns"), ("p99", "p99_ns"), ("max", "max_ns")];
        section(body, &series(point, "Latency over time", "log scale", &latencies).svg());
    }
    section(body, &stages(point));
    section(body, &facts(point));
}

pub(super) fn section(body: &mut String, content: &str) {
    let _ = writeln!(body, "<section>\n{content}</section>");
}

/// What was measured on what, in three lines.
fn where_and_when(point: &Value) -> String {
    let configuration = &point["configuration"];
    let text = |name: &str| escape(configuration[name].as_str().unwrap_or_default());
    format!(
        "<p class=\"what\">{} loop, latency from {}; {:.1} s after {:.1} s of warm-up<br/>\
         {} at {}, over {}; {} waiting, memory mode {}<br/>\
         {}, {}; {}</p>\n",
        text("loop"),
        text("latency_from"),
        number(&point["seconds"]),
        number(&configuration["ramp_s"]),
        text("nqn"),
        text("target"),
        text("device"),
        text("wait"),
        text("memory_mode"),
        text("kernel"),
        size::count(configuration["processors"].as_u64().unwrap_or_default(), "processor"),
        text("began").replace('T', " ").replace('Z', " UTC"),
    )
}

fn tiles(body: &mut String, point: &Value) {
    let latency = &point["latency_ns"];
    let time = |value: &Value| Unit::Time.format(number(value));
    let seconds = Duration::try_from_secs_f64(number(&point["seconds"])).unwrap_or_default();
    let bytes = point["bytes"].as_u64().unwrap_or_default();
    let tiles = [
        ("I/O a second", grouped(number(&point["iops"]))),
        ("bandwidth", size::rate_in_words(bytes, seconds)),
        ("median latency", time(&latency["p50"])),
        ("99th percentile", time(&latency["p99"])),
        ("99.9th percentile", time(&latency["p99_9"])),
        ("CPU per I/O, ours", time(&point["per_io"]["cpu_ns"])),
    ];
    body.push_str("<div class=\"tiles\">\n");
    for (name, value) in tiles {
        let _ = writeln!(body, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    body.push_str("</div>\n");
}

/// A whole number with its thousands apart.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// Operations that there were.
fn operations(point: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    ["read", "write"]
        .into_iter()
        .map(|name| (name, &point["operations"][name]))
        .filter(|(_, operation)| number(&operation["completed"]) > 0.0)
}

fn percentiles(point: &Value) -> String {
    let mut table =
        "<table><caption>Latency in µs</caption>\n<tr><th></th><th>a second</th>".to_owned();
    let columns: Vec<_> = ["min", "mean"]
        .into_iter()
        .chain(PERCENTILES.into_iter().map(|(name, _)| name))
        .chain(["max"])
        .collect();
    for column in &columns {
        let _ = write!(table, "<th>{}</th>", column.replace('_', "."));
    }
    table.push_str("</tr>\n");
    let mut row = |name: &str, rate: &str, latency: &Value| {
        let _ = write!(table, "<tr><td>{name}</td><td>{rate}</td>");
        for column in &columns {
            let _ = write!(table, "<td>{}</td>", micros(&latency[column]));
        }
        table.push_str("</tr>\n");
    };
    for (name, operation) in operations(point) {
        row(name, &grouped(number(&operation["iops"])), &operation["latency_ns"]);
        if operation["service_latency_ns"].is_object() {
            row(&format!("{name}, from sending"), "", &operation["service_latency_ns"]);
        }
    }
    table.push_str("</table>\n");
    table
}

/// Nanoseconds as µs, with as many digits as one reads.
pub(super) fn micros(nanoseconds: &Value) -> String {
    match number(nanoseconds) / 1000.0 {
        large if large >= 999.5 => grouped(large),
        small => format!("{small:.1}"),
    }
}

pub(super) fn time_axis(label: &'static str) -> Axis {
    Axis { label, scale: Scale::Log(10), unit: Unit::Time }
}

fn distribution(point: &Value) -> Chart {
    let mut lines = Vec::new();
    for (name, operation) in operations(point) {
        let mut line = |name: String, field: &str, dashed| {
            let points = pairs(&operation[field]);
            if !points.is_empty() {
                lines.push(Line { name, dashed, points });
            }
        };
        line(name.to_owned(), "distribution", false);
        line(format!("{name}, from sending"), "service_distribution", true);
    }
    Chart {
        title: "Latency by percentile",
        x: Axis { label: "of all commands", scale: Scale::Nines, unit: Unit::Percent },
        y: time_axis("took at most; log scale"),
        lines,
    }
}

fn pairs(list: &Value) -> Vec<(f64, f64)> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|pair| (number(&pair[0]), number(&pair[1]))).collect()
}

fn series(
    point: &Value,
    title: &'static str,
    label: &'static str,
    names: &[(&str, &str)],
) -> Chart {
    let series = point["series"].as_array().map(Vec::as_slice).unwrap_or_default();
    let end = |at: &Value| number(&at["start_s"]) + number(&at["seconds"]);
    let lines = names.iter().map(|&(name, field)| Line {
        name: name.to_owned(),
        dashed: false,
        points: series.iter().map(|at| (end(at), number(&at[field]))).collect(),
    });
    let y = match names {
        [(_, "iops")] => Axis { label, scale: Scale::Linear, unit: Unit::Count },
        _ => time_axis(label),
    };
    let x = Axis { label: "end of the interval", scale: Scale::Linear, unit: Unit::Seconds };
    Chart { title, x, y, lines: lines.collect() }
}

/// The parts of a command's time as one bar.
pub(super) fn bar(point: &Value) -> String {
    let mean = |name: &str| number(&point["mean_ns"][name]);
    let total: f64 = STAGES.iter().map(|(name, ..)| mean(name)).sum();
    let mut text = "<div class=\"bar\">".to_owned();
    for (index, (name, short, _)) in STAGES.iter().enumerate() {
        let _ = write!(
            text,
            "<i class=\"s{index}\" style=\"width:{:.2}%\" title=\"{short}\"></i>",
            mean(name) / total.max(1.0) * 100.0
        );
    }
    text.push_str("</div>\n");
    text
}

fn stages(point: &Value) -> String {
    let mean = |name: &str| number(&point["mean_ns"][name]);
    let total: f64 = STAGES.iter().map(|(name, ..)| mean(name)).sum();
    let mut text = format!("<b class=\"caption\">Where the time went</b>\n{}", bar(point));
    text.push_str("<table><tr><th>mean of a command</th><th>µs</th><th>%</th></tr>\n");
    for (index, (name, short, words)) in STAGES.into_iter().enumerate() {
        let _ = writeln!(
            text,
            "<tr><td><span class=\"swatch s{index}\"></span>{short}: {words}</td>\
             <td>{:.2}</td><td>{:.1}</td></tr>",
            mean(name) / 1000.0,
            mean(name) / total.max(1.0) * 100.0
        );
    }
    text.push_str("</table>\n");
    text
}

fn facts(point: &Value) -> String {
    let mut table = "<table class=\"facts\"><caption>Particulars</caption>\n".to_owned();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(table, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    };
    for name in ["doorbells", "completions", "empty_polls"] {
        let value = format!("{:.3}", number(&point["per_io"][name]));
        row(&format!("{} per I/O", name.replace('_', " ")), &value);
    }
    row("errors", &point["errors"].to_string());
    let resident = |name: &str| size::in_words(point["resident_bytes"][name].as_u64().unwrap_or(0));
    row(
        "resident memory, before and after",
        &format!("{} and {}", resident("begin"), resident("end")),
    );
    if let Some(targets) = point["targets"].as_array().filter(|targets| targets.len() > 1) {
        for target in targets {
            let rate = format!("{} I/O a second", grouped(number(&target["iops"])));
            let name = target["nqn"].as_str().unwrap_or_default();
            row(&format!("{name}, namespace {}", target["nsid"]), &rate);
        }
    }
    for (name, value) in point["configuration"].as_object().into_iter().flatten() {
        // Of both forms of the block size, the words will do.
        if !value.is_null() && name != "bs" {
            row(&name.replace("_in_words", "").replace('_', " "), &in_words(name, value));
        }
    }
    table.push_str("</table>\n");
    table
}

fn in_words(name: &str, value: &Value) -> String {
    match (name, value) {
        (_, Value::String(text)) => text.clone(),
        ("authentication", Value::Array(queues)) if queues.iter().all(Value::is_null) => {
            "none".to_owned()
        }
        ("region_bytes" | "io_size", value) => size::in_words(value.as_u64().unwrap_or_default()),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_escaped_and_nothing_is_loaded() {
        let report = json!({
            "errors": 3,
            "configuration": { "nqn": "nqn.<script>&", "processors": 2, "bs": 4096 },
            "operations": { "read": { "completed": 1, "distribution": [[0.0, 10], [100.0, 20]] } },
        });
        for report in [report.clone(), json!({ "points": [report, {}] })] {
            let page = page(&report);
            assert!(page.contains("nqn.&lt;script&gt;&amp;"));
            assert!(page.contains("3 commands failed"));
            for loads in ["<script", "src=", "href=", "url(", "@import"] {
                assert!(!page.contains(loads), "{loads}");
            }
        }
    }

    #[test]
    fn times_have_the_digits_that_one_reads() {
        for (nanoseconds, text) in [(23_412, "23.4"), (999_600, "1\u{2009}000"), (0, "0.0")] {
            assert_eq!(micros(&json!(nanoseconds)), text);
        }
    }
}
