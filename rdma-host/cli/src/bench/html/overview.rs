//! Overview of a sweep: rates, latencies and times of all points.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    super::report::{PointReport, StageMeans},
    chart::{Axis, Chart, Line, Scale, Unit, escape},
    parts::{group_digits, micros, section, stage_bar, stages, time_axis},
};
use crate::size;

pub(super) fn overview(points: &[PointReport]) -> String {
    let mut text = String::new();
    let depths: BTreeSet<_> = points.iter().map(|point| point.configuration.iodepth).collect();
    if depths.len() > 1 {
        let chart = Chart {
            title: "IOPS by depth",
            x: Axis { label: "queue depth", scale: Scale::Log(2), unit: Unit::Count },
            y: rate_axis(),
            lines: lines(points, |point| {
                Some((f64::from(point.configuration.iodepth), point.totals.iops))
            }),
        };
        section(&mut text, &chart.svg());
    }
    let chart = Chart {
        title: "99th percentile by IOPS",
        x: rate_axis(),
        y: time_axis("log scale"),
        lines: lines(points, |point| {
            Some((point.totals.iops, point.totals.latency_ns.p99? as f64))
        }),
    };
    section(&mut text, &chart.svg());
    section(&mut text, &table(points));
    text
}

fn rate_axis() -> Axis {
    Axis { label: "I/O a second", scale: Scale::Linear, unit: Unit::Count }
}

/// One line for each combination of block size and number of queues, of the points that have a
/// position.
fn lines(
    points: &[PointReport],
    position: impl Fn(&PointReport) -> Option<(f64, f64)>,
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for point in points {
        let configuration = &point.configuration;
        let Some(position) = position(point) else { continue };
        let queues = size::format_count(configuration.queues as u64, "queue");
        let name = format!("{}, {queues}", configuration.bs_in_words);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(position),
            None => lines.push(Line { name, dashed: false, points: vec![position] }),
        }
    }
    lines
}

fn table(points: &[PointReport]) -> String {
    let mut table = "<table><tr><th>bs</th><th>queues</th><th>depth</th><th>rate</th>\
                     <th>IOPS</th><th>MiB/s</th><th>p50 µs</th><th>p99 µs</th><th>p99.9 µs</th>\
                     <th>CPU µs</th><th>where the time went</th></tr>\n"
        .to_owned();
    points.iter().for_each(|point| row(&mut table, point));
    table.push_str("</table>\n<p class=\"key\">");
    for (index, stage) in stages(&StageMeans::default()).into_iter().enumerate() {
        let _ = write!(
            table,
            "<span title=\"{}\"><span class=\"swatch s{index}\"></span>{}</span>",
            stage.description, stage.name
        );
    }
    if !points.iter().all(|point| point.kept_up) {
        table.push_str("<span><span class=\"swatch warning\"></span>not kept up</span>");
    }
    table.push_str("</p>\n");
    table
}

fn row(table: &mut String, point: &PointReport) {
    let (configuration, totals) = (&point.configuration, &point.totals);
    let rate = configuration.rate.map_or("–".to_owned(), |rate| group_digits(rate as f64));
    let float = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds as f64);
    let warning = if point.kept_up { "" } else { " class=\"warning\"" };
    let _ = writeln!(
        table,
        "<tr{warning}><td>{}</td><td>{}</td><td>{}</td><td>{rate}</td><td>{}</td><td>{:.1}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"wide\">{}</td></tr>",
        escape(&configuration.bs_in_words),
        configuration.queues,
        configuration.iodepth,
        group_digits(totals.iops),
        totals.bandwidth_bytes_per_s / f64::from(1 << 20),
        micros(float(totals.latency_ns.p50)),
        micros(float(totals.latency_ns.p99)),
        micros(float(totals.latency_ns.p99_9)),
        micros(Some(point.per_io.cpu_ns)),
        stage_bar(&point.mean_ns),
    );
}
