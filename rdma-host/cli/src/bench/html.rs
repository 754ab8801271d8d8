//! The report for a browser: one file that loads nothing from elsewhere.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::chart::{Axis, Chart, Line, Scale, Unit, escape};
use super::points;
use super::report::PERCENTILES;
use super::text::{number, title};
use crate::size;

const STYLE: &str = include_str!("page.css");
/// The parts of a command's time, and their colours.
const STAGES: [(&str, &str, &str); 4] = [
    ("queue", "queue: due, not yet submitted", "#b3261e"),
    ("submit", "submit: until the doorbell rang", "#d9a30c"),
    ("wire_and_target", "wire + target: until a poll found it done", "#2563c9"),
    ("completion", "completion: until its result was handed over", "#14866d"),
];

/// The page of a report.
pub(super) fn page(report: &Value) -> String {
    let points = points(report);
    let mut body = String::new();
    if let [_, _, ..] = points {
        let _ = write!(body, "<h1>Sweep of {} points</h1>\n{}", points.len(), sweep(points));
    }
    for point in points {
        let level = if points.len() > 1 { "h2" } else { "h1" };
        let _ = writeln!(body, "<{level}>{}</{level}>", escape(&title(point)));
        one(&mut body, point);
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>nvmf bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         </main>\n</body>\n</html>\n"
    )
}

fn one(body: &mut String, point: &Value) {
    let configuration = &point["configuration"];
    let text = |name: &str| escape(configuration[name].as_str().unwrap_or_default());
    let _ = writeln!(
        body,
        "<p class=\"what\">{} loop, latency from {}; {:.1} s after {:.1} s of warm-up</p>",
        text("loop"),
        text("latency_from"),
        number(&point["seconds"]),
        number(&configuration["ramp_s"]),
    );
    tiles(body, point);
    if number(&point["missed"]) > 0.0 {
        let _ = writeln!(
            body,
            "<section class=\"warning\">Not kept up: {} commands were due and never sent. \
             Latencies grow with the time of the run.</section>",
            point["missed"]
        );
    }
    section(body, &percentiles(point));
    section(body, &distribution(point).svg());
    section(body, &series(point, "IOPS over time", "I/O a second", &[("", "iops")]).svg());
    let latencies = [("p50", "p50_ns"), ("p99", "p99_ns"), ("max", "max_ns")];
    section(body, &series(point, "Latency over time", "log scale", &latencies).svg());
    section(body, &stages(point));
    section(body, &facts(point));
}

fn section(body: &mut String, content: &str) {
    let _ = writeln!(body, "<section>\n{content}</section>");
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
fn grouped(value: f64) -> String {
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
    let mut table = "<table><caption>Latency in µs</caption>\n<tr><th></th>".to_owned();
    let columns: Vec<_> = ["min", "mean"]
        .into_iter()
        .chain(PERCENTILES.into_iter().map(|(name, _)| name))
        .chain(["max"])
        .collect();
    for column in &columns {
        let _ = write!(table, "<th>{}</th>", column.replace('_', "."));
    }
    table.push_str("</tr>\n");
    let mut row = |name: &str, latency: &Value| {
        let _ = write!(table, "<tr><td>{name}</td>");
        for column in &columns {
            let _ = write!(table, "<td>{:.1}</td>", number(&latency[column]) / 1000.0);
        }
        table.push_str("</tr>\n");
    };
    for (name, operation) in operations(point) {
        row(name, &operation["latency_ns"]);
        if operation["service_latency_ns"].is_object() {
            row(&format!("{name}, from sending"), &operation["service_latency_ns"]);
        }
    }
    table.push_str("</table>\n");
    table
}

fn time_axis(label: &'static str) -> Axis {
    Axis { label, scale: Scale::Log(10), unit: Unit::Time }
}

fn distribution(point: &Value) -> Chart {
    let lines = operations(point).map(|(name, operation)| Line {
        name: name.to_owned(),
        points: pairs(&operation["distribution"]),
    });
    Chart {
        title: "Latency by percentile",
        x: Axis { label: "percentile", scale: Scale::Nines, unit: Unit::Percent },
        y: time_axis("log scale"),
        lines: lines.collect(),
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
    let middle = |at: &Value| number(&at["start_s"]) + number(&at["seconds"]) / 2.0;
    let lines = names.iter().map(|&(name, field)| Line {
        name: name.to_owned(),
        points: series.iter().map(|at| (middle(at), number(&at[field]))).collect(),
    });
    let y = match names {
        [(_, "iops")] => Axis { label, scale: Scale::Linear, unit: Unit::Count },
        _ => time_axis(label),
    };
    let x = Axis { label: "time", scale: Scale::Linear, unit: Unit::Seconds };
    Chart { title, x, y, lines: lines.collect() }
}

fn stages(point: &Value) -> String {
    let mean = |name: &str| number(&point["mean_ns"][name]);
    let total: f64 = STAGES.iter().map(|(name, ..)| mean(name)).sum();
    let share = |name: &str| mean(name) / total.max(1.0) * 100.0;
    let mut text = "<div class=\"bar\">".to_owned();
    for (name, _, colour) in STAGES {
        let _ = write!(
            text,
            "<i style=\"width:{:.2}%;background:{colour}\" title=\"{name}\"></i>",
            share(name)
        );
    }
    text.push_str("</div>\n<table><tr><th>mean of a command</th><th>µs</th><th>%</th></tr>\n");
    for (name, words, colour) in STAGES {
        let _ = writeln!(
            text,
            "<tr><td><span class=\"swatch\" style=\"background:{colour}\"></span>{words}</td>\
             <td>{:.2}</td><td>{:.1}</td></tr>",
            mean(name) / 1000.0,
            share(name)
        );
    }
    text.push_str("</table>\n");
    format!("<b>Where the time went</b>\n{text}")
}

fn facts(point: &Value) -> String {
    let cost = &point["per_io"];
    let mut table = "<table class=\"facts\"><caption>Particulars</caption>\n".to_owned();
    for (name, value) in [
        ("doorbells per I/O", &cost["doorbells"]),
        ("completions per I/O", &cost["completions"]),
        ("empty polls per I/O", &cost["empty_polls"]),
    ] {
        let _ = writeln!(table, "<tr><td>{name}</td><td>{:.3}</td></tr>", number(value));
    }
    let _ = writeln!(table, "<tr><td>errors</td><td>{}</td></tr>", point["errors"]);
    if let Some(targets) = point["targets"].as_array().filter(|targets| targets.len() > 1) {
        for target in targets {
            let words = |name: &str| escape(target[name].as_str().unwrap_or_default());
            let _ = writeln!(
                table,
                "<tr><td>{}</td><td>{} I/O a second</td></tr>",
                words("nqn"),
                grouped(number(&target["iops"]))
            );
        }
    }
    for (name, value) in point["configuration"].as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(&name.replace('_', " ")),
            escape(&text)
        );
    }
    table.push_str("</table>\n");
    table
}

/// What a sweep shows: rates and latencies of all points.
fn sweep(points: &[Value]) -> String {
    let mut lines: Vec<(String, Vec<&Value>)> = Vec::new();
    for point in points {
        let configuration = &point["configuration"];
        let words = configuration["bs_in_words"].as_str().unwrap_or_default();
        let queues = size::count(configuration["queues"].as_u64().unwrap_or_default(), "queue");
        let name = format!("{words}, {queues}");
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    let chart = |title, x: Axis, y: Axis, of: &dyn Fn(&Value) -> (f64, f64)| {
        let lines = lines.iter().map(|(name, points)| Line {
            name: name.clone(),
            points: points.iter().map(|point| of(point)).collect(),
        });
        Chart { title, x, y, lines: lines.collect() }.svg()
    };
    let count = |label| Axis { label, scale: Scale::Linear, unit: Unit::Count };
    let depth = Axis { label: "queue depth", scale: Scale::Log(2), unit: Unit::Count };
    let mut text = String::new();
    section(
        &mut text,
        &chart("IOPS by depth", depth, count("I/O a second"), &|point| {
            (number(&point["configuration"]["iodepth"]), number(&point["iops"]))
        }),
    );
    section(
        &mut text,
        &chart(
            "99th percentile by IOPS",
            count("I/O a second"),
            time_axis("log scale"),
            &|point| (number(&point["iops"]), number(&point["latency_ns"]["p99"])),
        ),
    );
    section(&mut text, &sweep_table(points));
    text
}

fn sweep_table(points: &[Value]) -> String {
    let mut table = "<table><tr><th>bs</th><th>queues</th><th>depth</th><th>rate</th>\
                     <th>IOPS</th><th>p50 µs</th><th>p99 µs</th><th>p99.9 µs</th>\
                     <th>CPU µs</th></tr>\n"
        .to_owned();
    for point in points {
        let (configuration, latency) = (&point["configuration"], &point["latency_ns"]);
        let micros = |value: &Value| format!("{:.1}", number(value) / 1000.0);
        let rate = configuration["rate"].as_f64().map_or_else(|| "–".to_owned(), grouped);
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{rate}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(configuration["bs_in_words"].as_str().unwrap_or_default()),
            configuration["queues"],
            configuration["iodepth"],
            grouped(number(&point["iops"])),
            micros(&latency["p50"]),
            micros(&latency["p99"]),
            micros(&latency["p99_9"]),
            micros(&point["per_io"]["cpu_ns"]),
        );
    }
    table.push_str("</table>\n");
    table
}
