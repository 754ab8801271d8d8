//! Several points: charts and a table of all of them.

use askama::{Template, filters::HtmlSafe};

use super::{
    super::report::{FailedPoint, PointReport, StageMeans},
    axis::Axis,
    chart::{Chart, Line, Point},
    colour::{PALETTE, Palette},
    facts::{self, Group},
    number::{NO_VALUE, group_digits, micros},
    picture::{Figure, Picture},
    point::{PointView, flaw, stages},
    settings::{Variable, line_names},
    stages::{Stages, Strip},
};

#[derive(Template)]
#[template(path = "sweep.html")]
pub(super) struct SweepView<'a> {
    palette: &'static Palette,
    figures: Vec<Figure>,
    rows: Vec<Row>,
    stages: Stages,
    failed: Vec<&'a FailedPoint>,
    common: Vec<Group>,
    points: Vec<PointView<'a>>,
}

impl HtmlSafe for SweepView<'_> {}

/// Row of the table of all points.
struct Row {
    cells: Vec<(&'static str, String)>,
    strip: Strip,
    flaw: &'static str,
}

impl<'a> SweepView<'a> {
    pub(super) fn new(points: &[&'a PointReport], failed: Vec<&'a FailedPoint>) -> Self {
        let (common, own) = facts::split(points);
        let views = points.iter().zip(own).map(|(point, groups)| PointView::new(point, groups));
        Self {
            palette: &PALETTE,
            figures: charts(points).iter().map(Picture::figure).collect(),
            rows: rows(points),
            stages: Stages::new(&StageMeans::default(), None),
            failed,
            common,
            points: views.collect(),
        }
    }
}

/// Charts of all points.
pub(super) fn charts(points: &[&PointReport]) -> Vec<Chart> {
    let variable = Variable::of(points);
    let names = line_names(points, variable);
    let labels = variable.map_or("", |variable| variable.axis.name);
    let mut charts = Vec::new();
    if let Some(variable) = variable {
        charts.push(Chart {
            name: variable.chart_name,
            title: format!("IOPS by {}", variable.axis.name),
            x: variable.axis.clone(),
            y: Axis::iops(),
            lines: lines(points, &names, |point| {
                Some(Point::new(variable.number(point)?, point.totals.iops))
            }),
            labels: "",
        });
    }
    charts.push(Chart {
        name: "p99-by-iops",
        title: "99th percentile of the latency by IOPS".to_owned(),
        x: Axis::iops(),
        y: Axis::time("p99"),
        lines: lines(points, &names, |point| {
            let label = variable.map_or_else(String::new, |variable| variable.label(point));
            let p99 = point.totals.latency_ns.p99? as f64;
            Some(Point { label, ..Point::new(point.totals.iops, p99) })
        }),
        labels,
    });
    charts
}

/// One line for each name, of the points that have a position.
fn lines(
    points: &[&PointReport],
    names: &[String],
    position: impl Fn(&PointReport) -> Option<Point>,
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (point, name) in points.iter().zip(names) {
        let Some(position) = position(point) else { continue };
        let position = Point { flaw: flaw(point), ..position };
        match lines.iter_mut().find(|line| line.name == *name) {
            Some(line) => line.points.push(position),
            None => lines.push(Line::new(name, lines.len(), vec![position])),
        }
    }
    lines
}

fn rows(points: &[&PointReport]) -> Vec<Row> {
    let all = points.iter().map(|point| Row {
        cells: cells(point),
        strip: stages(point).strip(),
        flaw: flaw(point),
    });
    let mut rows: Vec<_> = all.collect();
    // Settings that are the same in all rows are told with what all points have in common.
    for setting in SETTING_COLUMNS {
        let value = |row: &Row| row.cells.iter().find(|cell| cell.0 == setting).cloned();
        if rows.windows(2).all(|pair| value(&pair[0]) == value(&pair[1])) {
            rows.iter_mut().for_each(|row| row.cells.retain(|cell| cell.0 != setting));
        }
    }
    rows
}

const SETTING_COLUMNS: [&str; 6] = ["pattern", "block size", "queues", "threads", "depth", "rate"];

fn cells(point: &PointReport) -> Vec<(&'static str, String)> {
    let (of, totals) = (&point.configuration, &point.totals);
    let [pattern, bs, queues, threads, depth, rate] = SETTING_COLUMNS;
    let float = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds as f64);
    vec![
        (pattern, of.rw.clone()),
        (bs, of.bs_in_words.clone()),
        (queues, of.queues.to_string()),
        (threads, of.threads.to_string()),
        (depth, of.iodepth.to_string()),
        (rate, of.rate.map_or(NO_VALUE.to_owned(), |rate| group_digits(rate as f64))),
        ("IOPS", group_digits(totals.iops)),
        ("MiB/s", format!("{:.1}", totals.bandwidth_bytes_per_s / f64::from(1 << 20))),
        ("p50 µs", micros(float(totals.latency_ns.p50))),
        ("p99 µs", micros(float(totals.latency_ns.p99))),
        ("p99.9 µs", micros(float(totals.latency_ns.p99_9))),
        ("CPU µs", micros(Some(point.per_io.cpu_ns))),
    ]
}
