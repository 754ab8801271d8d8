//! What a sweep shows, on the page for a browser: rates, latencies and times of all points.

use std::fmt::Write;

use serde_json::Value;

use super::super::text::{kept_up, number};
use super::chart::{Axis, Chart, Line, Scale, Unit, escape};
use super::{STAGES, bar, grouped, micros, section, time_axis};
use crate::size;

/// All points together.
pub(super) fn overview(points: &[Value]) -> String {
    let mut text = String::new();
    let depth = Axis { label: "queue depth", scale: Scale::Log(2), unit: Unit::Count };
    let rate = |label| Axis { label, scale: Scale::Linear, unit: Unit::Count };
    if values(points, "iodepth") > 1 {
        let by_depth = chart(points, "IOPS by depth", (depth, rate("I/O a second")), |point| {
            (number(&point["configuration"]["iodepth"]), number(&point["iops"]))
        });
        section(&mut text, &by_depth);
    }
    let axes = (rate("I/O a second"), time_axis("log scale"));
    let by_rate = chart(points, "99th percentile by IOPS", axes, |point| {
        (number(&point["iops"]), number(&point["latency_ns"]["p99"]))
    });
    section(&mut text, &by_rate);
    section(&mut text, &table(points));
    text
}

/// How many values there are of a setting.
fn values(points: &[Value], setting: &str) -> usize {
    let mut all: Vec<_> =
        points.iter().map(|point| point["configuration"][setting].to_string()).collect();
    all.sort();
    all.dedup();
    all.len()
}

/// A line for each block size and number of queues.
fn chart(
    points: &[Value],
    title: &'static str,
    (x, y): (Axis, Axis),
    place: impl Fn(&Value) -> (f64, f64),
) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for point in points {
        let configuration = &point["configuration"];
        let words = configuration["bs_in_words"].as_str().unwrap_or_default();
        let queues = size::count(configuration["queues"].as_u64().unwrap_or_default(), "queue");
        let name = format!("{words}, {queues}");
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(place(point)),
            None => lines.push(Line { name, dashed: false, points: vec![place(point)] }),
        }
    }
    Chart { title, x, y, lines }.svg()
}

fn table(points: &[Value]) -> String {
    let mut table = "<table><tr><th>bs</th><th>queues</th><th>depth</th><th>rate</th>\
                     <th>IOPS</th><th>MiB/s</th><th>p50 µs</th><th>p99 µs</th><th>p99.9 µs</th>\
                     <th>CPU µs</th><th>where the time went</th></tr>\n"
        .to_owned();
    for point in points {
        let (configuration, latency) = (&point["configuration"], &point["latency_ns"]);
        let rate = configuration["rate"].as_f64().map_or_else(|| "–".to_owned(), grouped);
        let warning = if kept_up(point) { "" } else { " class=\"warning\"" };
        let _ = writeln!(
            table,
            "<tr{warning}><td>{}</td><td>{}</td><td>{}</td><td>{rate}</td><td>{}</td><td>{:.1}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"wide\">{}</td></tr>",
            escape(configuration["bs_in_words"].as_str().unwrap_or_default()),
            configuration["queues"],
            configuration["iodepth"],
            grouped(number(&point["iops"])),
            number(&point["bandwidth_bytes_per_s"]) / f64::from(1 << 20),
            micros(&latency["p50"]),
            micros(&latency["p99"]),
            micros(&latency["p99_9"]),
            micros(&point["per_io"]["cpu_ns"]),
            bar(point),
        );
    }
    table.push_str("</table>\n<p class=\"key\">");
    for (index, (_, short, words)) in STAGES.into_iter().enumerate() {
        let _ = write!(
            table,
            "<span title=\"{words}\"><span class=\"swatch s{index}\"></span>{short}</span>"
        );
    }
    if !points.iter().all(kept_up) {
        table.push_str("<span><span class=\"swatch warning\"></span>not kept up</span>");
    }
    table.push_str("</p>\n");
    table
}
