//! Page of the differences of two reports.

use askama::{Template, filters::HtmlSafe};

use super::{
    super::{
        compare::{Comparison, MeasureComparison, PointComparison},
        report::PointReport,
    },
    chart::{Chart, Line},
    differences::Differences,
    facts,
    number::{NO_VALUE, group_digits, micros},
    picture::{Figure, Picture},
    point::{flaw, percentile_chart, percentile_line},
};
use crate::size;

#[derive(Template)]
#[template(path = "comparison.html")]
pub(super) struct ComparisonView<'a> {
    comparison: &'a Comparison<'a>,
    points: Vec<PointView<'a>>,
}

impl HtmlSafe for ComparisonView<'_> {}

/// Differences of two points.
struct PointView<'a> {
    title: &'a str,
    same_load: bool,
    /// Results that are not as good as others, and why.
    notices: Vec<String>,
    differences: Figure,
    percentiles: Figure,
    /// Rows of the table of measures.
    measures: Vec<(&'static str, Vec<(&'static str, String)>)>,
    /// Names of settings with both values.
    settings: Vec<(String, String, String)>,
}

impl<'a> ComparisonView<'a> {
    pub(super) fn new(comparison: &'a Comparison<'a>) -> Self {
        Self { comparison, points: comparison.points.iter().map(PointView::new).collect() }
    }

    pub(super) fn heading(&self) -> String {
        match self.points.as_slice() {
            [only] => format!("Comparison: {}", only.title),
            several => {
                format!("Comparison of {}", size::format_count(several.len() as u64, "point"))
            }
        }
    }

    /// Begin of both measurements.
    pub(super) fn subheading(&self) -> String {
        let Some(first) = self.comparison.points.first() else { return String::new() };
        let [before, after] = [first.before, first.after].map(run);
        format!("before: {before}; after: {after}")
    }
}

/// Begin and place of a measurement.
fn run(point: &PointReport) -> String {
    let of = &point.configuration;
    let mut text = facts::time(&of.began);
    for (word, value) in [(" on", &of.host), (", commit", &of.commit)] {
        if let Some(value) = value {
            text += &format!("{word} {value}");
        }
    }
    text
}

impl<'a> PointView<'a> {
    fn new(point: &'a PointComparison<'a>) -> Self {
        let settings = point.settings.iter().map(|it| {
            let shown = |value| facts::shown(&it.setting, value);
            (facts::setting_name(&it.setting), shown(&it.before), shown(&it.after))
        });
        Self {
            title: &point.point,
            same_load: point.same_load,
            notices: notices(point),
            differences: Differences(&point.measures).figure(),
            percentiles: percentiles(point).figure(),
            measures: point.measures.iter().map(|it| (it.measure, cells(it))).collect(),
            settings: settings.collect(),
        }
    }
}

fn notices(point: &PointComparison<'_>) -> Vec<String> {
    let mut notices = Vec::new();
    for (name, point) in [("before", point.before), ("after", point.after)] {
        let flaw = Some(flaw(point)).filter(|flaw| !flaw.is_empty()).map(str::to_owned);
        let causes = flaw.into_iter().chain(point.warnings.iter().cloned());
        notices.extend(causes.map(|cause| format!("{name}: {cause}")));
    }
    notices
}

/// Curves of both points; those of writes are dashed.
fn percentiles(point: &PointComparison<'_>) -> Chart {
    let mut lines: Vec<Line> = Vec::new();
    for (colour, (run, point)) in
        [("before", point.before), ("after", point.after)].into_iter().enumerate()
    {
        for (name, operation) in point.operations.completed() {
            let line = percentile_line(&format!("{name}, {run}"), colour, &operation.distribution);
            lines.push(if name == "write" { line.dashed() } else { line });
        }
    }
    percentile_chart(lines)
}

/// Cells of a row of the table of measures.
fn cells(measure: &MeasureComparison) -> Vec<(&'static str, String)> {
    let shown = |value: f64| match measure.unit {
        "ns" => format!("{} µs", micros(Some(value))),
        _ => group_digits(value),
    };
    let none = || NO_VALUE.to_owned();
    let interval = measure.confidence_95_percent;
    vec![
        ("before", shown(measure.before)),
        ("after", shown(measure.after)),
        ("difference", measure.percent.map_or_else(none, |it| format!("{it:+.1} %"))),
        (
            "95 % interval",
            interval.map_or_else(none, |[low, high]| format!("{low:+.1} to {high:+.1} %")),
        ),
        (
            "smallest visible",
            measure.smallest_visible_percent.map_or_else(none, |it| format!("{it:.1} %")),
        ),
        ("verdict", measure.verdict.in_words().to_owned()),
    ]
}
