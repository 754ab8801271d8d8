//! Report for a browser: one file that loads nothing from elsewhere.

mod chart;
mod details;
mod overview;
mod parts;

use std::{fmt::Write, time::Duration};

use self::{
    chart::{Axis, Chart, Line, Scale, Unit, escape},
    parts::{NO_VALUE, group_digits, micros, section, stage_bar, stages, time_axis},
};
use super::{
    latency::Latency,
    report::{Interval, PointReport},
    text::title,
};
use crate::size;

const STYLE: &str = include_str!("page.css");

/// Page of a report.
pub(super) fn page(points: &[PointReport]) -> String {
    let mut body = String::new();
    match points {
        [only] => {
            let _ = writeln!(body, "<h1>{}</h1>", escape(&title(only)));
            one(&mut body, only);
        }
        several => {
            let _ = writeln!(body, "<h1>Sweep of {} points</h1>", several.len());
            if let [first, ..] = several {
                body.push_str(&heading(first));
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

fn one(body: &mut String, point: &PointReport) {
    body.push_str(&heading(point));
    tiles(body, point);
    if !point.kept_up {
        let missed = group_digits(point.missed as f64);
        let _ = writeln!(
            body,
            "<section class=\"warning\"><b>Not kept up.</b> {missed} commands were due and never \
             sent. Latencies grow with the time of the run: read them as lower bounds.</section>"
        );
    }
    for warning in &point.warnings {
        let warning = escape(warning);
        let _ = writeln!(body, "<section class=\"warning\"><b>Warning:</b> {warning}.</section>");
    }
    if let Some(cause) = &point.ended_by {
        let (cause, unfinished) = (escape(cause), point.unfinished);
        let _ = writeln!(
            body,
            "<section class=\"warning\"><b>Ended early</b> by {cause}, with {unfinished} commands \
             in flight.</section>"
        );
    }
    if point.totals.errors > 0 {
        let errors = group_digits(point.totals.errors as f64);
        let _ =
            writeln!(body, "<section class=\"warning\"><b>{errors} commands failed.</b></section>");
    }
    section(body, &percentiles(point));
    section(body, &distribution(point).svg());
    // One interval makes no line.
    if point.series.len() > 1 {
        section(body, &iops_over_time(&point.series).svg());
        section(body, &latency_over_time(&point.series).svg());
    }
    section(body, &stage_table(point));
    section(body, &details::table(point));
}

/// Three lines that say what was measured, where and when.
fn heading(point: &PointReport) -> String {
    let configuration = &point.configuration;
    format!(
        "<p class=\"what\">{} loop, latency from {}; {:.1} s after {:.1} s of warm-up<br/>\
         {} at {}, over {}; {} waiting, memory mode {}<br/>\
         {}, {}; {}</p>\n",
        escape(&configuration.loop_kind),
        escape(&configuration.latency_from),
        point.seconds,
        configuration.ramp_s,
        escape(&configuration.nqn),
        escape(&configuration.target),
        escape(&configuration.device),
        escape(&configuration.wait),
        escape(&configuration.memory_mode),
        escape(&configuration.kernel),
        size::format_count(configuration.processors as u64, "processor"),
        escape(&configuration.began).replace('T', " ").replace('Z', " UTC"),
    )
}

fn tiles(body: &mut String, point: &PointReport) {
    let (totals, latency) = (&point.totals, &point.totals.latency_ns);
    let time = |nanoseconds: Option<u64>| {
        nanoseconds.map_or_else(|| NO_VALUE.to_owned(), |ns| Unit::Time.format(ns as f64))
    };
    let seconds = Duration::try_from_secs_f64(point.seconds).unwrap_or_default();
    let tiles = [
        ("I/O a second", group_digits(totals.iops)),
        ("bandwidth", size::format_rate(totals.bytes, seconds)),
        ("median latency", time(latency.p50)),
        ("99th percentile", time(latency.p99)),
        ("99.9th percentile", time(latency.p99_9)),
        ("CPU per I/O, ours", Unit::Time.format(point.per_io.cpu_ns)),
    ];
    body.push_str("<div class=\"tiles\">\n");
    for (name, value) in tiles {
        let _ = writeln!(body, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    body.push_str("</div>\n");
}

fn percentiles(point: &PointReport) -> String {
    let mut table =
        "<table><caption>Latency in µs</caption>\n<tr><th></th><th>a second</th>".to_owned();
    for (name, _) in point.totals.latency_ns.columns() {
        let _ = write!(table, "<th>{name}</th>");
    }
    table.push_str("</tr>\n");
    let mut row = |name: &str, rate: &str, latency: &Latency| {
        let _ = write!(table, "<tr><td>{name}</td><td>{rate}</td>");
        for (_, nanoseconds) in latency.columns() {
            let _ = write!(table, "<td>{}</td>", micros(nanoseconds));
        }
        table.push_str("</tr>\n");
    };
    for (name, operation) in point.operations.completed() {
        row(name, &group_digits(operation.totals.iops), &operation.totals.latency_ns);
        if let Some(latency) = &operation.service_latency_ns {
            row(&format!("{name}, from sending"), "", latency);
        }
    }
    table.push_str("</table>\n");
    table
}

fn distribution(point: &PointReport) -> Chart {
    let mut lines = Vec::new();
    for (name, operation) in point.operations.completed() {
        let service = operation.service_distribution.as_ref();
        for (name, dashed, distribution) in [
            (name.to_owned(), false, Some(&operation.distribution)),
            (format!("{name}, from sending"), true, service),
        ] {
            let Some(pairs) = distribution.filter(|pairs| !pairs.is_empty()) else { continue };
            let points = pairs.iter().map(|&(percentile, ns)| (percentile, ns as f64));
            lines.push(Line { name, dashed, points: points.collect() });
        }
    }
    Chart {
        title: "Latency by percentile",
        x: Axis { label: "of all commands", scale: Scale::Nines, unit: Unit::Percent },
        y: time_axis("took at most; log scale"),
        lines,
    }
}

fn iops_over_time(series: &[Interval]) -> Chart {
    let y = Axis { label: "I/O a second", scale: Scale::Linear, unit: Unit::Count };
    Chart {
        title: "IOPS over time",
        x: END_OF_INTERVAL,
        y,
        lines: vec![line_over_time("", series, |at| Some(at.iops))],
    }
}

fn latency_over_time(series: &[Interval]) -> Chart {
    let lines = vec![
        line_over_time("p50", series, |at| Some(at.p50_ns? as f64)),
        line_over_time("p99", series, |at| Some(at.p99_ns? as f64)),
        line_over_time("max", series, |at| Some(at.max_ns? as f64)),
    ];
    Chart { title: "Latency over time", x: END_OF_INTERVAL, y: time_axis("log scale"), lines }
}

const END_OF_INTERVAL: Axis =
    Axis { label: "end of the interval", scale: Scale::Linear, unit: Unit::Seconds };

/// Line of the intervals that have the value.
fn line_over_time(name: &str, series: &[Interval], value: fn(&Interval) -> Option<f64>) -> Line {
    let points = series.iter().filter_map(|at| Some((at.start_s + at.seconds, value(at)?)));
    Line { name: name.to_owned(), dashed: false, points: points.collect() }
}

fn stage_table(point: &PointReport) -> String {
    let bar = stage_bar(&point.mean_ns);
    let mut text = format!("<b class=\"caption\">Where the time went</b>\n{bar}");
    text.push_str("<table><tr><th>mean of a command</th><th>µs</th><th>%</th></tr>\n");
    for (index, stage) in stages(&point.mean_ns).into_iter().enumerate() {
        let _ = writeln!(
            text,
            "<tr><td><span class=\"swatch s{index}\"></span>{}: {}</td>\
             <td>{:.2}</td><td>{:.1}</td></tr>",
            stage.name,
            stage.description,
            stage.nanoseconds / 1000.0,
            stage.percent
        );
    }
    text.push_str("</table>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{BlockSize, Configuration, OperationTotals, Operations, Totals},
        *,
    };

    #[test]
    fn names_from_elsewhere_are_escaped_and_nothing_is_loaded() {
        let read = OperationTotals {
            totals: Totals { completed: 1, ..Totals::default() },
            distribution: vec![(0.0, 10), (100.0, 20)],
            ..OperationTotals::default()
        };
        let report = PointReport {
            totals: Totals { errors: 3, ..Totals::default() },
            configuration: Configuration {
                nqn: "nqn.<script>&".to_owned(),
                processors: 2,
                bs: BlockSize::Bytes(4096),
                ..Configuration::default()
            },
            operations: Operations { read, ..Operations::default() },
            ..PointReport::default()
        };
        for points in [vec![report.clone()], vec![report, PointReport::default()]] {
            let page = page(&points);
            assert!(page.contains("nqn.&lt;script&gt;&amp;"));
            assert!(page.contains("3 commands failed"));
            for loads in ["<script", "src=", "href=", "url(", "@import"] {
                assert!(!page.contains(loads), "{loads}");
            }
        }
    }
}
