//! One point of a report: figures, charts and tables.

use askama::{Template, filters::HtmlSafe};

use super::{
    super::{
        report::{Interval, PointReport, TargetTotals},
        text::title,
    },
    axis::{Axis, Scale},
    chart::{Chart, Line, Point},
    facts::Group,
    number::{Unit, group_digits, micros},
    picture::{Figure, Picture},
    ranks::{HostBars, RankView},
    stages::Stages,
};

#[derive(Template)]
#[template(path = "point.html")]
pub(super) struct PointView<'a> {
    point: &'a PointReport,
    tiles: [Tile; 6],
    percentiles: Figure,
    latencies: LatencyTable,
    series: Vec<Figure>,
    stages: Stages,
    stage_figure: Figure,
    ranks: Option<RankView>,
    groups: Vec<Group>,
}

impl HtmlSafe for PointView<'_> {}

struct Tile {
    name: &'static str,
    value: String,
}

/// Latencies, a column for each direction; in an open loop, two.
struct LatencyTable {
    columns: Vec<(String, String)>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl<'a> PointView<'a> {
    /// View with these facts.
    pub(super) fn new(point: &'a PointReport, groups: Vec<Group>) -> Self {
        let stages = stages(point);
        Self {
            point,
            tiles: tiles(point),
            percentiles: distribution(point).figure(),
            latencies: LatencyTable::new(point),
            series: series(point).iter().map(Picture::figure).collect(),
            stage_figure: stages.figure(),
            ranks: point.ranks.as_ref().map(RankView::new),
            stages,
            groups,
        }
    }

    /// Title for a point among several.
    pub(super) fn title(&self) -> String {
        title(self.point)
    }

    pub(super) fn summary(&self) -> String {
        summary(self.point)
    }

    /// Causes for which the point is not as good as others.
    pub(super) fn flaw(&self) -> &'static str {
        flaw(self.point)
    }

    /// Kind of the measurement in one line.
    fn what(&self) -> String {
        let configuration = &self.point.configuration;
        format!(
            "{} loop, latency from {}; {:.1} s after {:.1} s of warm-up; {} waiting, memory mode \
             {}",
            configuration.loop_kind,
            configuration.latency_from,
            self.point.seconds,
            configuration.ramp_s,
            configuration.wait,
            configuration.memory_mode,
        )
    }

    /// Notices with their headings.
    fn notices(&self) -> Vec<(String, String)> {
        let point = self.point;
        let mut notices = Vec::new();
        let mut add = |heading: &str, text: String| notices.push((heading.to_owned(), text));
        if !point.kept_up {
            let missed = group_digits(point.missed as f64);
            add(
                "Not kept up.",
                format!(
                    "{missed} commands were due and never sent. Latencies grow with the time of \
                     the run: read them as lower bounds."
                ),
            );
        }
        point.warnings.iter().for_each(|warning| add("Warning:", format!("{warning}.")));
        if let Some(cause) = &point.ended_by {
            let (asked, unfinished) = (point.configuration.runtime_s, point.unfinished);
            let text = format!(
                "after {:.1} of {asked:.1} s, by {cause}; {unfinished} commands were in flight.",
                point.seconds
            );
            add("Ended early", text);
        }
        for failed in point.ranks.iter().flat_map(|ranks| &ranks.failed) {
            add("Failed, in no figure:", format!("{}: {}.", failed.name(), failed.error));
        }
        if point.totals.errors > 0 {
            add(
                &format!("{} commands failed.", group_digits(point.totals.errors as f64)),
                String::new(),
            );
        }
        notices
    }

    /// Rows of the table of targets, if there are several.
    fn targets(&self) -> Vec<(&TargetTotals, [(&'static str, String); 5])> {
        if self.point.targets.len() < 2 {
            return Vec::new();
        }
        self.point.targets.iter().map(|target| (target, target_cells(target))).collect()
    }
}

fn target_cells(target: &TargetTotals) -> [(&'static str, String); 5] {
    let (totals, latency) = (&target.totals, &target.totals.latency_ns);
    let float = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds as f64);
    [
        ("IOPS", group_digits(totals.iops)),
        ("MiB/s", format!("{:.1}", totals.bandwidth_bytes_per_s / f64::from(1 << 20))),
        ("p50 µs", micros(float(latency.p50))),
        ("p99 µs", micros(float(latency.p99))),
        ("errors", group_digits(totals.errors as f64)),
    ]
}

/// Charts of a point.
pub(super) fn pictures(point: &PointReport) -> Vec<Box<dyn Picture>> {
    let charts = [distribution(point)].into_iter().chain(series(point));
    let mut pictures: Vec<_> = charts.map(|chart| Box::new(chart) as Box<dyn Picture>).collect();
    pictures.push(Box::new(stages(point)));
    if let Some(ranks) = &point.ranks {
        pictures.push(Box::new(HostBars::new(ranks)));
    }
    pictures
}

pub(super) fn stages(point: &PointReport) -> Stages {
    Stages::new(&point.mean_ns, point.configuration.device_is_software)
}

/// Rate and latency in short.
pub(super) fn summary(point: &PointReport) -> String {
    let latency = point.totals.latency_ns.p99;
    let latency = latency.map(|ns| format!(", p99 {}", Unit::Time.short(ns as f64)));
    format!("{} IOPS{}", group_digits(point.totals.iops), latency.unwrap_or_default())
}

/// Causes for which a point is not as good as others; empty if there are none.
pub(super) fn flaw(point: &PointReport) -> &'static str {
    match (point.kept_up, point.interrupted) {
        (true, false) => "",
        (false, false) => "not kept up",
        (true, true) => "ended early",
        (false, true) => "not kept up and ended early",
    }
}

fn tiles(point: &PointReport) -> [Tile; 6] {
    let (totals, latency) = (&point.totals, &point.totals.latency_ns);
    let time = |nanoseconds: Option<u64>| {
        nanoseconds.map_or_else(|| "–".to_owned(), |ns| Unit::Time.short(ns as f64))
    };
    [
        ("I/O a second", group_digits(totals.iops)),
        ("bandwidth", totals.bandwidth()),
        ("median latency", time(latency.p50)),
        ("99th percentile", time(latency.p99)),
        ("99.9th percentile", time(latency.p99_9)),
        ("CPU per I/O, ours", Unit::Time.short(point.per_io.cpu_ns)),
    ]
    .map(|(name, value)| Tile { name, value })
}

impl LatencyTable {
    fn new(point: &PointReport) -> Self {
        let mut columns = Vec::new();
        let mut latencies = Vec::new();
        for (name, operation) in point.operations.completed() {
            let rate = format!("{}/s", group_digits(operation.totals.iops));
            columns.push((name.to_owned(), rate));
            latencies.push(&operation.totals.latency_ns);
            if let Some(latency) = &operation.service_latency_ns {
                columns.push((name.to_owned(), "from sending".to_owned()));
                latencies.push(latency);
            }
        }
        let rows = point.totals.latency_ns.columns().into_iter().enumerate();
        let rows = rows.map(|(index, (name, _))| {
            (name, latencies.iter().map(|latency| micros(latency.columns()[index].1)).collect())
        });
        Self { columns, rows: rows.collect() }
    }
}

/// Curves of latencies by percentile.
fn distribution(point: &PointReport) -> Chart {
    let mut lines = Vec::new();
    for (colour, (name, operation)) in point.operations.completed().enumerate() {
        lines.push(percentile_line(name, colour, &operation.distribution));
        if let Some(service) = &operation.service_distribution {
            let name = format!("{name}, from sending");
            lines.push(percentile_line(&name, colour, service).dashed());
        }
    }
    percentile_chart(lines)
}

pub(super) fn percentile_line(name: &str, colour: usize, distribution: &[(f64, u64)]) -> Line {
    let points = distribution.iter().map(|&(percentile, ns)| Point::new(percentile, ns as f64));
    Line::new(name, colour, points.collect())
}

pub(super) fn percentile_chart(lines: Vec<Line>) -> Chart {
    Chart {
        name: "latency-by-percentile",
        title: "Latency by percentile".to_owned(),
        x: Axis {
            name: "percentile",
            note: "share of the commands that took at most this time",
            scale: Scale::Nines,
            unit: Unit::Percent,
        },
        y: Axis::time("latency"),
        lines: with_points(lines),
        labels: "",
    }
}

/// Lines that have points.
fn with_points(lines: impl IntoIterator<Item = Line>) -> Vec<Line> {
    lines.into_iter().filter(|line| !line.points.is_empty()).collect()
}

/// Charts of a series; one interval makes no line.
fn series(point: &PointReport) -> Vec<Chart> {
    let series = &point.series;
    if series.len() < 2 {
        return Vec::new();
    }
    let mut charts = vec![
        Chart {
            name: "iops-over-time",
            title: "IOPS over time".to_owned(),
            x: END_OF_INTERVAL,
            y: Axis::iops(),
            lines: vec![line_over_time("", 0, series, |at| Some(at.iops))],
            labels: "",
        },
        Chart {
            name: "latency-over-time",
            title: "Latency over time".to_owned(),
            x: END_OF_INTERVAL,
            y: Axis::time("latency"),
            lines: with_points([
                line_over_time("max", 4, series, |at| Some(at.max_ns? as f64)),
                line_over_time("p99.9", 3, series, |at| Some(at.p99_9_ns? as f64)),
                line_over_time("p99", 1, series, |at| Some(at.p99_ns? as f64)),
                line_over_time("p50", 0, series, |at| Some(at.p50_ns? as f64)),
            ]),
            labels: "",
        },
    ];
    charts.extend(disturbance(series));
    charts
}

const END_OF_INTERVAL: Axis =
    Axis { name: "end of the interval", note: "", scale: Scale::Linear, unit: Unit::Seconds };

/// Chart of what else the machine did, if it did anything that can be seen.
fn disturbance(series: &[Interval]) -> Option<Chart> {
    /// Share in percent from which on there is something to see.
    const PERCENT_MIN: f64 = 0.5;
    let lines = [
        line_over_time("threads waited for a processor", 0, series, |at| {
            Some(at.run_queue_wait_share? * 100.0)
        }),
        line_over_time("other programs", 1, series, |at| Some(at.other_programs_share? * 100.0)),
        line_over_time("other guests (steal)", 4, series, |at| Some(at.steal_share? * 100.0)),
    ];
    let is_seen = |line: &Line| line.points.iter().any(|point| point.y >= PERCENT_MIN);
    let lines: Vec<_> = lines.into_iter().filter(is_seen).collect();
    (!lines.is_empty()).then(|| Chart {
        name: "disturbance-over-time",
        title: "What else the machine did".to_owned(),
        x: END_OF_INTERVAL,
        y: Axis {
            name: "share of the time",
            note: "of the threads or of all processors",
            scale: Scale::Linear,
            unit: Unit::Percent,
        },
        lines,
        labels: "",
    })
}

/// Line of the intervals that have the value.
fn line_over_time(
    name: &str,
    colour: usize,
    series: &[Interval],
    value: fn(&Interval) -> Option<f64>,
) -> Line {
    let points =
        series.iter().filter_map(|at| Some(Point::new(at.start_s + at.seconds, value(at)?)));
    Line::new(name, colour, points.collect())
}
