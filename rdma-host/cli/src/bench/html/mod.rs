//! Report for a browser: one file that loads nothing from elsewhere, whose charts can be taken out
//! as files.
//!
//! ```text
//!  page ─ sweep ─ point ─ chart, stages… ─▶ picture ─ plot ─ axis, key, label ─▶ templates/*.svg
//!     └─ comparison ─▲  └─ facts, settings
//! ```
//!
//! All text comes into a page by templates that escape it (`templates/`).

mod axis;
mod chart;
mod colour;
mod comparison;
mod differences;
mod facts;
mod key;
mod label;
mod number;
mod picture;
mod plot;
mod point;
mod ranks;
mod settings;
mod stages;
mod sweep;
mod text;
mod unbroken;

use askama::Template;
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use self::{
    colour::{PALETTE, Palette},
    comparison::ComparisonView,
    picture::Picture,
    point::PointView,
    sweep::SweepView,
    unbroken::unbroken,
};
use super::{
    compare::Comparison,
    report::{PointReport, Report},
    text::title,
};
use crate::{output, size};

/// Chart as a document of its own.
pub(super) struct ChartFile {
    /// Name of the file, without a suffix.
    pub(super) name: String,
    pub(super) svg: String,
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    palette: &'static Palette,
    title: String,
    heading: String,
    subheading: String,
    content: Content<'a>,
    /// Differences from an earlier report, below the content.
    baseline: Option<ComparisonView<'a>>,
    script: &'static str,
    script_hash: String,
}

enum Content<'a> {
    Point(Box<PointView<'a>>),
    Sweep(Box<SweepView<'a>>),
    Comparison(ComparisonView<'a>),
}

/// Script that shows values and saves charts; a page does without.
const SCRIPT: &str = include_str!("../../../templates/page.js");

/// Page of one or several reports, with their differences from an earlier one if there is one.
pub(super) fn page(reports: &[Report], baseline: Option<&Comparison<'_>>) -> String {
    let points: Vec<_> = reports.iter().flat_map(|report| &report.points).collect();
    let failed: Vec<_> = reports.iter().flat_map(|report| &report.failed_points).collect();
    let began = points.first().map(|point| facts::time(&point.configuration.began));
    let began = began.unwrap_or_default();
    let (heading, content) = match points.as_slice() {
        [only] if failed.is_empty() => {
            (title(only), Content::Point(Box::new(PointView::new(only, facts::of_point(only)))))
        }
        points => (sweep_title(points), Content::Sweep(Box::new(SweepView::new(points, failed)))),
    };
    let baseline = baseline.map(ComparisonView::new);
    rendered(format!("{heading} · {began}"), heading, subheading(&points), content, baseline)
}

/// Page of the differences of two reports.
pub(super) fn comparison(comparison: &Comparison<'_>) -> String {
    let view = ComparisonView::new(comparison);
    let (heading, subheading) = (view.heading(), view.subheading());
    let title = format!("{heading} · {subheading}");
    rendered(title, heading, subheading, Content::Comparison(view), None)
}

/// Charts of these reports: those of all points, and those of each.
pub(super) fn charts(reports: &[Report]) -> Vec<ChartFile> {
    let points: Vec<_> = reports.iter().flat_map(|report| &report.points).collect();
    let mut files = Vec::new();
    if points.len() > 1 {
        let subtitle = format!("{}; {}", sweep_title(&points), subheading(&points));
        for chart in sweep::charts(&points) {
            files.push(ChartFile::new(chart.name().to_owned(), &chart, &subtitle));
        }
    }
    for (index, point) in points.iter().enumerate() {
        let subtitle = format!("{}; {}", title(point), subheading(&[point]));
        for picture in point::pictures(point) {
            let name = match points.len() {
                1 => picture.name().to_owned(),
                _ => format!("point-{}-{}", index + 1, picture.name()),
            };
            files.push(ChartFile::new(name, &*picture, &subtitle));
        }
    }
    files
}

fn sweep_title(points: &[&PointReport]) -> String {
    format!("{}: {}", size::format_count(points.len() as u64, "point"), settings::title(points))
}

/// Place and time of the measurement.
fn subheading(points: &[&PointReport]) -> String {
    let Some(first) = points.first() else { return String::new() };
    let of = &first.configuration;
    let began = facts::time(&of.began);
    let host = of.host.as_deref().map(|host| format!(" on {host}")).unwrap_or_default();
    format!("{} at {}, over {}{host}; {began}", of.nqn, of.target, of.device)
}

impl ChartFile {
    fn new(name: String, picture: &dyn Picture, subtitle: &str) -> Self {
        Self { name, svg: printable(&picture.document(subtitle)) }
    }
}

fn rendered(
    title: String,
    heading: String,
    subheading: String,
    content: Content<'_>,
    baseline: Option<ComparisonView<'_>>,
) -> String {
    let page = Page {
        palette: &PALETTE,
        title,
        heading,
        subheading,
        content,
        baseline,
        script: SCRIPT,
        script_hash: Base64::encode_string(&Sha256::digest(SCRIPT)),
    };
    printable(&page.render().expect("writing to a string does not fail"))
}

/// Document in which unprintable characters, which come from outside, are shown by their numbers.
fn printable(document: &str) -> String {
    output::printable(document, &['\n']).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use roxmltree::{Document, Node};
    use serde_json::Value;

    use super::{
        super::{
            rank_totals::{FailedRank, HostTotals, RankTotals, Ranks},
            report::{
                BlockSize, Configuration, FailedPoint, Interval, OperationTotals, Operations,
                TargetTotals, Totals,
            },
        },
        *,
    };

    /// Point of a sweep.
    fn point(iodepth: u16, bs: u64) -> PointReport {
        let pairs =
            (0..100).map(|percent| (f64::from(percent), 10_000 + 1_000 * u64::from(iodepth)));
        let mut totals =
            Totals { completed: 9, iops: 1000.0 * f64::from(iodepth), ..Totals::default() };
        totals.latency_ns.p99 = Some(20_000 * u64::from(iodepth));
        let read = OperationTotals {
            totals: totals.clone(),
            distribution: pairs.collect(),
            ..OperationTotals::default()
        };
        let interval = |second: u32| Interval {
            start_s: f64::from(second),
            seconds: 1.0,
            iops: 7779.0,
            p50_ns: Some(11_000),
            p99_ns: Some(12_000),
            max_ns: Some(13_000),
            steal_share: Some(0.02),
            ..Interval::default()
        };
        PointReport {
            totals,
            kept_up: true,
            operations: Operations { read, ..Operations::default() },
            series: (0..3).map(interval).collect(),
            configuration: Configuration {
                rw: "randread".to_owned(),
                bs: BlockSize::Bytes(bs),
                bs_in_words: format!("{bs} B"),
                iodepth,
                queues: 1,
                began: "2026-11-29T07:48:37Z".to_owned(),
                ..Configuration::default()
            },
            ..PointReport::default()
        }
    }

    fn report(points: Vec<PointReport>) -> [Report; 1] {
        [Report { points, ..Report::default() }]
    }

    /// Point of two hosts, and of a rank that failed.
    fn of_ranks(mut point: PointReport) -> PointReport {
        let host = |name: &str| HostTotals { host: name.to_owned(), ..HostTotals::default() };
        point.configuration.ranks = Some(3);
        point.ranks = Some(Ranks {
            by_rank: vec![RankTotals::default(); 2],
            by_host: vec![host("a"), host("b")],
            failed: vec![FailedRank { error: "no".to_owned(), ..FailedRank::default() }],
            ..Ranks::default()
        });
        point
    }

    /// Reports of all kinds.
    fn reports() -> Vec<[Report; 1]> {
        let sizes = |count: u32| -> Vec<_> { (0..count).map(|power| 512 << power).collect() };
        let sweep = |count| {
            sizes(count).into_iter().flat_map(|bs| [1, 8].map(|depth| point(depth, bs))).collect()
        };
        let mut ended = point(8, 4096);
        (ended.interrupted, ended.ended_by) = (true, Some("SIGINT".to_owned()));
        (ended.kept_up, ended.missed, ended.totals.errors) = (false, 5, 3);
        ended.targets = vec![TargetTotals::default(), TargetTotals::default()];
        let failed = FailedPoint { point: "depth 64".to_owned(), error: "no".to_owned() };
        vec![
            report(vec![point(1, 512)]),
            report(vec![ended.clone()]),
            report(sweep(1)),
            report(sweep(6)),
            report(sweep(12)),
            [Report { points: vec![ended], failed_points: vec![failed], ..Report::default() }],
            report(vec![]),
            report(vec![PointReport::default()]),
            report(vec![of_ranks(point(8, 4096))]),
        ]
    }

    /// Page as XML, without its script.
    fn xml(page: &str) -> String {
        let (before, rest) = page.split_once("<script>").unwrap();
        let (_, after) = rest.split_once("</script>").unwrap();
        format!("{before}{after}").replacen("<!DOCTYPE html>", "", 1)
    }

    fn elements<'a>(
        document: &'a Document<'_>,
        name: &'a str,
    ) -> impl Iterator<Item = Node<'a, 'a>> {
        document.descendants().filter(move |node| node.has_tag_name(name))
    }

    fn svg_elements<'a>(node: Node<'a, 'a>, class: &str) -> Vec<Node<'a, 'a>> {
        let has_class = |node: &Node<'_, '_>| {
            node.attribute("class").is_some_and(|all| all.split(' ').any(|it| it == class))
        };
        node.descendants().filter(has_class).collect()
    }

    #[test]
    fn pages_and_charts_are_well_formed() {
        for report in reports() {
            let page = page(&report, None);
            Document::parse(&xml(&page)).unwrap_or_else(|error| panic!("{error}: {page}"));
            for ChartFile { name, svg } in charts(&report) {
                let document =
                    Document::parse(&svg).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(document.root_element().tag_name().namespace(), Some(SVG));
            }
        }
    }

    const SVG: &str = "http://www.w3.org/2000/svg";

    #[test]
    fn a_page_loads_nothing_and_runs_its_script_only() {
        for report in reports() {
            let page = page(&report, None);
            let without_names = page.replace(SVG, "");
            for loads in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<link"] {
                let found = without_names.lines().find(|line| {
                    // A comment of the script.
                    line.contains(loads) && !line.trim_start().starts_with("// ")
                });
                assert_eq!(found, None, "{loads}");
            }
            let (_, script) = page.split_once("<script>").unwrap();
            let (script, _) = script.split_once("</script>").unwrap();
            let hash = Base64::encode_string(&Sha256::digest(script));
            let policy = format!(
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'"
            );
            assert!(page.contains(&policy));
            assert_eq!(page.matches("<script").count(), 1);
        }
    }

    const HOSTILE: &str = "\"'><script>alert(1)</script>&amp;{{x}}\u{202e}\u{1b}[2J\u{0}|";

    /// Replaces all text in a report, and puts text where there is none.
    fn make_hostile(value: &mut Value) {
        match value {
            Value::String(text) => HOSTILE.clone_into(text),
            Value::Array(values) => values.iter_mut().for_each(make_hostile),
            Value::Object(fields) => fields.values_mut().for_each(make_hostile),
            _ => {}
        }
    }

    fn hostile(point: &PointReport) -> PointReport {
        let mut value = serde_json::to_value(point).unwrap();
        make_hostile(&mut value);
        let keys: Vec<_> = value["configuration"].as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let mut changed = value.clone();
            changed["configuration"][&key] = HOSTILE.into();
            if serde_json::from_value::<PointReport>(changed.clone()).is_ok() {
                value = changed;
            }
        }
        let text = || HOSTILE.to_owned();
        let point: PointReport = serde_json::from_value(value).unwrap();
        PointReport { warnings: vec![text()], ended_by: Some(text()), ..point }
    }

    #[test]
    fn all_text_from_outside_is_escaped() {
        for mut report in reports() {
            report[0].points = report[0].points.iter().map(hostile).collect();
            for failed in &mut report[0].failed_points {
                *failed = FailedPoint { point: HOSTILE.to_owned(), error: HOSTILE.to_owned() };
            }
            let count = report[0].points.len() + report[0].failed_points.len();
            let page = page(&report, None);
            assert_eq!(page.matches("<script").count(), 1);
            assert!(!page.contains(['\u{202e}', '\u{1b}', '\0']));
            assert_eq!(
                count > 0,
                page.contains("&lt;script&#62;") || page.contains("&#60;script&#62;")
            );
            Document::parse(&xml(&page)).unwrap_or_else(|error| panic!("{error}"));
            for ChartFile { svg, .. } in charts(&report) {
                assert!(!svg.contains("<script"));
                Document::parse(&svg).unwrap();
            }
        }
    }

    #[test]
    fn no_text_is_marked_as_safe_but_the_script() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            count += text.matches("|safe").count() + text.matches("| safe").count();
        }
        assert_eq!(count, 1);
    }

    #[test]
    fn titles_differ_by_run() {
        let mut later = point(1, 512);
        later.configuration.began = "2026-11-29T08:00:00Z".to_owned();
        let mut pages = reports();
        pages.push(report(vec![later]));
        let pages: Vec<_> = pages.iter().map(|report| page(report, None)).collect();
        let titles: HashSet<_> = pages
            .iter()
            .map(|page| page.split("<title>").nth(1).unwrap().split("</title>").next().unwrap())
            .collect();
        assert_eq!(titles.len(), pages.len(), "{titles:?}");
    }

    #[test]
    fn many_lines_have_a_plot_each() {
        for (sizes, plots, curves) in [(6, 1, 6), (7, 7, 1), (12, 12, 1)] {
            let points =
                (0..sizes).flat_map(|power| [1, 8].map(|depth| point(depth, 512 << power)));
            let report = report(points.collect());
            for chart in ["iops-by-depth", "p99-by-iops"] {
                let file = charts(&report).into_iter().find(|file| file.name == chart).unwrap();
                let document = Document::parse(&file.svg).unwrap();
                let found = svg_elements(document.root_element(), "plot");
                assert_eq!(found.len(), plots, "{chart}");
                for plot in found {
                    let all = svg_elements(plot, "curve");
                    assert_eq!(all.len(), curves);
                    let colours: HashSet<_> =
                        all.iter().map(|curve| curve.attribute("stroke").unwrap()).collect();
                    assert_eq!(colours.len(), curves, "no two lines look alike");
                }
            }
        }
    }

    #[test]
    fn points_are_named_with_their_depth_and_whether_they_kept_up() {
        let mut points = vec![point(1, 512), point(8, 512)];
        points[1].kept_up = false;
        let files = charts(&report(points));
        let file = files.iter().find(|file| file.name == "p99-by-iops").unwrap();
        let document = Document::parse(&file.svg).unwrap();
        let titles: Vec<_> =
            elements(&document, "title").filter_map(|node| node.text()).skip(1).collect();
        assert_eq!(
            titles,
            [
                "p99 20.0 µs, IOPS 1\u{2009}000; queue depth 1",
                "p99 160.0 µs, IOPS 8\u{2009}000; queue depth 8, not kept up"
            ]
        );
        let root = document.root_element();
        // The point, and the mark in the legend.
        assert_eq!(svg_elements(root, "hollow").len(), 2);
        let texts: Vec<_> = elements(&document, "text").filter_map(|node| node.text()).collect();
        for text in ["1", "8", "at points: queue depth", "not kept up"] {
            assert!(texts.contains(&text), "{text}: {texts:?}");
        }
    }

    #[test]
    fn values_over_time_have_a_name_and_a_unit() {
        let page = page(&report(vec![point(1, 512)]), None);
        assert!(page.contains("<title>IOPS 7\u{2009}779, end of the interval 1 s</title>"));
        assert!(page.contains("<title>p99: latency 12.0 µs, end of the interval 1 s</title>"));
    }

    /// Each shape and text has a colour within the chart, and no text leaves it.
    #[test]
    fn a_chart_that_is_taken_out_keeps_its_looks() {
        for ChartFile { name, svg } in reports().iter().flat_map(|report| charts(report)) {
            let document = Document::parse(&svg).unwrap();
            let root = document.root_element();
            let [left, _, across, _] = root
                .attribute("viewBox")
                .unwrap()
                .split(' ')
                .map(|it| it.parse::<f64>().unwrap())
                .collect::<Vec<_>>()[..]
            else {
                panic!("four numbers")
            };
            assert!(
                root.attribute("font-family").is_some() && svg.contains("prefers-color-scheme")
            );
            for node in root.descendants() {
                let is_seen = ["path", "rect", "text"].contains(&node.tag_name().name());
                if is_seen && node.ancestors().all(|it| it.attribute("fill").is_none()) {
                    panic!("{name}: {node:?} would be black");
                }
                if node.has_tag_name((SVG, "text")) {
                    let size = node.attribute("font-size").map_or(12.0, |it| it.parse().unwrap());
                    let wide = super::text::width(node.text().unwrap_or_default(), size);
                    let x: f64 = node.attribute("x").map_or(0.0, |it| it.parse().unwrap());
                    let start = match node.attribute("text-anchor") {
                        Some("end") => x - wide,
                        Some(_) => x - wide / 2.0,
                        None => x,
                    };
                    assert!(start >= left && start + wide <= left + across, "{name}: {node:?}");
                }
            }
        }
    }

    /// Type is no smaller on a page of 420 pixels: beside a figure there is a margin of 25 on each
    /// side.
    #[test]
    fn type_is_readable_on_a_narrow_page() {
        let figure_width = 420.0 - 2.0 * 25.0;
        for report in reports() {
            let page = page(&report, None);
            let text = xml(&page);
            let document = Document::parse(&text).unwrap();
            for svg in svg_elements(document.root_element(), "narrow") {
                let view = svg.attribute("viewBox").unwrap().split(' ').nth(2).unwrap();
                let scale = figure_width / view.parse::<f64>().unwrap();
                for node in svg.descendants().filter(|it| it.has_tag_name((SVG, "text"))) {
                    let size = node.attribute("font-size").map_or(12.0, |it| it.parse().unwrap());
                    assert!(size * scale >= 10.0, "{node:?}: {size} × {scale}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_cut_or_closed_on_paper() {
        let style = include_str!("../../../templates/page.css");
        assert!(!style.replace("overflow-wrap", "").contains("overflow"), "no scrollbar, no cut");
        let (_, print) = style.split_once("@media print").unwrap();
        assert!(
            print
                .contains("details::details-content { display: block; content-visibility: visible")
        );
        let page = page(&reports()[4], None);
        let document = xml(&page);
        let document = Document::parse(&document).unwrap();
        // Open where there is no script; the script opens them on paper.
        assert!(elements(&document, "details").all(|node| node.attribute("open").is_some()));
        assert_eq!(elements(&document, "details").count(), 24);
        assert!(SCRIPT.contains("beforeprint"));
        // A percentile is a row, so that long numbers need no wide page.
        let percentiles = elements(&document, "th").filter(|node| node.text() == Some("p99.999"));
        assert!(percentiles.count() == 24);
        // On a narrow page each cell names its column.
        let rows = elements(&document, "table").filter(|it| it.attribute("class") == Some("rows"));
        let cells: Vec<_> =
            rows.flat_map(|table| table.descendants()).filter(|it| it.has_tag_name("td")).collect();
        assert!(cells.len() > 24 && cells.iter().all(|it| it.has_attribute("data-label")));
    }

    #[test]
    fn a_comparison_has_both_curves_the_differences_and_the_settings() {
        let (before, mut after) = (point(1, 512), point(1, 512));
        after.configuration.kernel = "Linux <7>".to_owned();
        after.series.iter_mut().for_each(|at| at.iops *= 2.0);
        let (before, after) = ([before, point(8, 512)], [after, point(4, 512)]);
        let compared = Comparison::new(&before, &after);
        let page = comparison(&compared);
        let text = xml(&page);
        let document = Document::parse(&text).unwrap();
        let names: HashSet<_> =
            elements(&document, "g").filter_map(|node| node.attribute("data-name")).collect();
        assert_eq!(names, HashSet::from(["read, before", "read, after"]));
        for words in [
            "+100.0 %",
            "95 % interval",
            "smallest visible",
            "Linux &#60;7&#62;",
            "Only in the first report:</b> randread 512 B, depth 8",
            "Only in the second report:</b> randread 512 B, depth 4",
        ] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("overflow-x") && page.matches("<script").count() == 1);

        // A run with a baseline has them below its own results.
        let [own, both] =
            [None, Some(&compared)].map(|it| super::page(&report(after.to_vec()), it));
        let text = xml(&both);
        let document = Document::parse(&text).unwrap();
        let figures = |document: &Document<'_>| elements(document, "figure").count();
        assert_eq!(figures(&document), figures(&Document::parse(&xml(&own)).unwrap()) + 2);
        for words in ["Differences from the baseline", "read, before", "+100.0 %"] {
            assert!(both.contains(words) && !own.contains(words), "{words}");
        }
    }

    #[test]
    fn any_values_make_a_page() {
        let mut extreme = point(8, 4096);
        for value in [0.0, -1.0, 1e-300, 1e300, f64::MAX] {
            extreme.totals.iops = value;
            extreme.mean_ns.queue = value;
            extreme.series[1].iops = value;
            extreme.series[1].start_s = value;
            extreme.operations.read.distribution[50] = (value, u64::MAX);
            extreme.totals.latency_ns.p99 = Some(u64::MAX);
            for points in [vec![extreme.clone()], vec![extreme.clone(), point(1, 512)]] {
                Document::parse(&xml(&page(&report(points), None))).unwrap();
            }
        }
    }
}
