//! `nvmf bench --compare A B`: differences of two reports, how sure they are, and the settings that
//! differ. Points are compared by the intervals of their series ([`MeanDifference`]).

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    mean_difference::MeanDifference,
    report::{Configuration, Interval, PointReport},
    result_format::ResultFormat,
    text::title,
};
use crate::{failure::Failure, output};

/// Measured quantity that is compared.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// Value of an interval.
    sample: fn(&Interval) -> Option<f64>,
    /// Value of the whole measurement, where no interval has one.
    whole: fn(&PointReport) -> Option<f64>,
    more_is_better: bool,
}

const MEASURES: [Measure; 5] = [
    Measure {
        name: "IOPS",
        unit: "",
        sample: |at| Some(at.iops),
        whole: |point| Some(point.totals.iops),
        more_is_better: true,
    },
    Measure::latency("mean latency", |at| at.mean_ns, |point| point.totals.latency_ns.mean),
    Measure::latency("p50 latency", |at| float(at.p50_ns), |of| float(of.totals.latency_ns.p50)),
    Measure::latency("p99 latency", |at| float(at.p99_ns), |of| float(of.totals.latency_ns.p99)),
    Measure::latency(
        "p99.9 latency",
        |at| float(at.p99_9_ns),
        |of| float(of.totals.latency_ns.p99_9),
    ),
];

/// Settings that every two measurements differ in.
const DIFFER_ALWAYS: [&str; 3] = ["began", "command_line", "name"];

/// Settings that always have a value: a report without one is older than they are.
const NEVER_NULL: [&str; 6] =
    ["interval_s", "queue_entries", "keep_alive_s", "retry_count", "disable_sqflow", "capture"];

/// Differences of two reports.
#[derive(Debug, Serialize)]
pub(super) struct Comparison<'a> {
    pub(super) points: Vec<PointComparison<'a>>,
    /// Points of the first report for which the second one has none of the same load.
    pub(super) only_before: Vec<String>,
    /// Points of the second report for which the first one has none of the same load.
    pub(super) only_after: Vec<String>,
}

/// Differences of two points.
#[derive(Debug, Serialize)]
pub(super) struct PointComparison<'a> {
    /// Title of the point in the first report.
    pub(super) point: String,
    /// False if the settings of the load differ.
    pub(super) same_load: bool,
    pub(super) settings: Vec<SettingDifference>,
    pub(super) measures: Vec<MeasureComparison>,
    #[serde(skip)]
    pub(super) before: &'a PointReport,
    #[serde(skip)]
    pub(super) after: &'a PointReport,
}

/// Setting, by its key in a report, with two values.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct SettingDifference {
    pub(super) setting: String,
    pub(super) before: Value,
    pub(super) after: Value,
}

/// Difference of one quantity.
#[derive(Debug, Serialize)]
pub(super) struct MeasureComparison {
    pub(super) measure: &'static str,
    /// `ns`, or nothing for IOPS.
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
    pub(super) before: f64,
    pub(super) after: f64,
    /// Difference in percent of the value before, as the other percentages are; null if that was 0.
    pub(super) percent: Option<f64>,
    /// Interval that holds the true difference with 95 % confidence; null with too few samples.
    pub(super) confidence_95_percent: Option<[f64; 2]>,
    /// Least rise that such a pair of runs shows in four of five cases.
    pub(super) smallest_visible_percent: Option<f64>,
    pub(super) verdict: Finding,
}

/// Finding about a measure of two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Finding {
    #[serde(rename = "better")]
    Better,
    #[serde(rename = "worse")]
    Worse,
    #[serde(rename = "no difference seen")]
    NoDifferenceSeen,
    #[serde(rename = "too few samples")]
    TooFewSamples,
}

impl<'a> Comparison<'a> {
    /// Compares each point with the first one of the same load in the other report; the only points
    /// of both reports in any case.
    pub(super) fn new(before: &'a [PointReport], after: &'a [PointReport]) -> Self {
        let single = before.len() == 1 && after.len() == 1;
        let is_pair = |before: &PointReport, after: &PointReport| {
            single || load(&before.configuration) == load(&after.configuration)
        };
        let pairs = before.iter().filter_map(|before| {
            let after = after.iter().find(|after| is_pair(before, after))?;
            Some(PointComparison::new(before, after))
        });
        let has_none = |point: &PointReport, others: &[PointReport]| {
            !others.iter().any(|other| is_pair(point, other))
        };
        let only = |points: &[PointReport], others: &[PointReport]| {
            points.iter().filter(|point| has_none(point, others)).map(title).collect()
        };
        Self {
            points: pairs.collect(),
            only_before: only(before, after),
            only_after: only(after, before),
        }
    }

    /// Prints the differences; fails if there are none, since no points could be compared.
    pub(super) fn print(&self, format: ResultFormat) -> Result<(), Failure> {
        if self.points.is_empty() {
            return Err(Failure::failed("the reports have no points of the same load"));
        }
        match format {
            ResultFormat::Normal => output::print_text(&self.to_text()),
            ResultFormat::Json => output::print_json(&json!(self)),
            ResultFormat::Fio => Err(Failure::usage("fio has no comparison; use -o json")),
        }
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for point in &self.points {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", point.point);
            let [began, later] = [point.before, point.after].map(|it| &it.configuration.began);
            let _ = writeln!(text, "  began: {began} → {later}");
            for SettingDifference { setting, before, after } in &point.settings {
                let _ = writeln!(text, "  {setting}: {} → {}", value(before), value(after));
            }
            point.measures.iter().for_each(|measure| measure_line(&mut text, measure));
        }
        for (name, points) in [("first", &self.only_before), ("second", &self.only_after)] {
            for point in points {
                let _ = writeln!(text, "{point}: only in the {name} report");
            }
        }
        text
    }
}

/// Settings of the load, by which the points of two sweeps are paired.
fn load(of: &Configuration) -> impl PartialEq + '_ {
    let offsets = (&of.bs, &of.random_distribution);
    let pace = (of.rate, of.read_rate, &of.arrival);
    let load = (&of.name, &of.rw, of.read_percent, offsets, pace);
    (load, of.iodepth, of.queues, of.threads, (of.targets, of.ranks))
}

impl<'a> PointComparison<'a> {
    fn new(before: &'a PointReport, after: &'a PointReport) -> Self {
        let measures = MEASURES.iter().filter_map(|measure| measure.compare(before, after));
        Self {
            point: title(before),
            same_load: load(&before.configuration) == load(&after.configuration),
            settings: differing_settings(&before.configuration, &after.configuration),
            measures: measures.collect(),
            before,
            after,
        }
    }
}

/// Settings with different values, in the order of a report.
fn differing_settings(before: &Configuration, after: &Configuration) -> Vec<SettingDifference> {
    let (before, mut after) = (settings(before), settings(after));
    let differences = before.into_iter().filter_map(|(setting, before)| {
        let after = after.remove(&setting).unwrap_or_default();
        let is_known =
            !NEVER_NULL.contains(&setting.as_str()) || !before.is_null() && !after.is_null();
        let is_due = is_known && before != after && !DIFFER_ALWAYS.contains(&setting.as_str());
        is_due.then_some(SettingDifference { setting, before, after })
    });
    differences.collect()
}

fn settings(of: &Configuration) -> Map<String, Value> {
    match json!(of) {
        Value::Object(settings) => settings,
        _ => unreachable!("a configuration has fields"),
    }
}

fn float(nanoseconds: Option<u64>) -> Option<f64> {
    nanoseconds.map(|nanoseconds| nanoseconds as f64)
}

impl Measure {
    const fn latency(
        name: &'static str,
        sample: fn(&Interval) -> Option<f64>,
        whole: fn(&PointReport) -> Option<f64>,
    ) -> Self {
        Self { name, unit: "ns", sample, whole, more_is_better: false }
    }

    /// Comparison of this quantity, if both points have it.
    fn compare(&self, before: &PointReport, after: &PointReport) -> Option<MeasureComparison> {
        let difference = MeanDifference::new(&self.samples(before)?, &self.samples(after)?);
        let percent = |value| difference.percent(value);
        let verdict = match difference.error.map(|error| error.interval) {
            None => Finding::TooFewSamples,
            Some((low, high)) if low <= 0.0 && high >= 0.0 => Finding::NoDifferenceSeen,
            Some((low, _)) if (low > 0.0) == self.more_is_better => Finding::Better,
            Some(_) => Finding::Worse,
        };
        Some(MeasureComparison {
            measure: self.name,
            unit: self.unit,
            more_is_better: self.more_is_better,
            before: difference.before,
            after: difference.after,
            percent: percent(difference.after - difference.before),
            confidence_95_percent: difference.error.and_then(|error| {
                let (low, high) = error.interval;
                Some([percent(low)?, percent(high)?])
            }),
            smallest_visible_percent: difference.error.and_then(|it| percent(it.smallest_visible)),
            verdict,
        })
    }

    /// Values of a series, without the intervals that lasted less than half as long as most; or
    /// that of the whole measurement.
    fn samples(&self, point: &PointReport) -> Option<Vec<f64>> {
        let mut durations: Vec<_> = point.series.iter().map(|at| at.seconds).collect();
        durations.sort_by(f64::total_cmp);
        let median = durations.get(durations.len() / 2).copied().unwrap_or_default();
        let long = point.series.iter().filter(|at| at.seconds * 2.0 >= median);
        let samples: Vec<_> = long.filter_map(self.sample).collect();
        if samples.is_empty() { Some(vec![(self.whole)(point)?]) } else { Some(samples) }
    }
}

impl MeasureComparison {
    /// Share by which the value after is worse, in percent; negative if it is better, none if there
    /// was nothing before.
    pub(super) fn worse_percent(&self) -> Option<f64> {
        self.percent.map(|percent| if self.more_is_better { -percent } else { percent })
    }

    /// True if the value after is worse by more than `limit` percent, as far as that is known: of
    /// nothing, every share is exceeded.
    pub(super) fn is_worse_by(&self, limit: f64) -> bool {
        let exceeds = match self.worse_percent() {
            Some(percent) => percent > limit,
            None => !self.more_is_better && self.after > self.before,
        };
        matches!(self.verdict, Finding::Worse | Finding::TooFewSamples) && exceeds
    }

    /// Differences, in percent, between which such a pair of runs shows none in one of five cases
    /// or more: as a ratio, the fall is as large as the rise.
    pub(super) fn invisible_percent(&self) -> Option<[f64; 2]> {
        let rise = self.smallest_visible_percent?;
        Some([-rise / (1.0 + rise / 100.0), rise])
    }

    /// A value for people, with its unit.
    pub(super) fn shown(&self, value: f64) -> String {
        match self.unit {
            "ns" => format!("{:.1} µs", value / 1000.0),
            _ => format!("{value:.1}"),
        }
    }
}

impl Finding {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceSeen => "no difference seen",
            Self::TooFewSamples => "too few samples",
        }
    }
}

/// Value of a setting as the command line has it; a dash for none.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn measure_line(text: &mut String, measure: &MeasureComparison) {
    let (before, after) = (measure.shown(measure.before), measure.shown(measure.after));
    let percent = measure.percent.map_or("-".to_owned(), |percent| format!("{percent:+.1} %"));
    let _ = write!(text, "  {:<13} {before:>14} → {after:>14}  {percent}", measure.measure);
    if let Some([low, high]) = measure.confidence_95_percent {
        let _ = write!(text, " (95 %: {low:+.1} to {high:+.1} %)");
    }
    let _ = write!(text, "  {}", measure.verdict.in_words());
    if let Some(smallest) = measure.smallest_visible_percent {
        let _ = write!(text, "; smallest visible {smallest:.1} %");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Point with a series of these IOPS.
    fn report(iodepth: u16, iops: &[f64]) -> PointReport {
        let at = |&iops: &f64| Interval { seconds: 1.0, iops, ..Interval::default() };
        PointReport {
            configuration: Configuration { iodepth, ..Configuration::default() },
            series: iops.iter().map(at).collect(),
            ..PointReport::default()
        }
    }

    fn verdict(before: &[f64], after: &[f64]) -> Finding {
        let (before, after) = ([report(1, before)], [report(1, after)]);
        Comparison::new(&before, &after).points[0].measures[0].verdict
    }

    #[test]
    fn verdicts() {
        for (before, after, expected) in [
            (&[1.0, 1.05][..], &[2.0, 2.1][..], Finding::Better),
            (&[2.0, 2.1], &[1.0, 1.05], Finding::Worse),
            (&[1.0, 3.0, 2.0, 4.0], &[2.0, 3.0, 1.0, 4.5], Finding::NoDifferenceSeen),
            (&[1.0], &[2.0], Finding::TooFewSamples),
        ] {
            assert_eq!(verdict(before, after), expected);
        }
    }

    #[test]
    fn points_of_the_same_load_are_compared() {
        let before = [report(1, &[1.0, 1.1]), report(8, &[8.0, 8.1, 7.9])];
        let after = [report(8, &[16.0, 16.1, 15.9]), report(9, &[1.0])];
        let comparison = Comparison::new(&before, &after);
        assert_eq!(comparison.points.len(), 1);
        let iops = &comparison.points[0].measures[0];
        assert_eq!(
            (iops.verdict, iops.worse_percent().map(f64::round)),
            (Finding::Better, Some(-100.0))
        );
        assert!((iops.percent.unwrap() - 100.0).abs() < 1e-9);
        let lists = [&comparison.only_before, &comparison.only_after];
        assert!(lists.iter().all(|list| list.len() == 1), "{lists:?}");
        assert!(lists[0][0].contains("depth 1") && lists[1][0].contains("depth 9"), "{lists:?}");
    }

    /// Two runs with one point each are compared whatever their settings; the text says which.
    #[test]
    fn settings_that_differ_are_named() {
        let (mut before, mut after) = (report(1, &[1.0, 1.1]), report(2, &[1.0, 1.1]));
        before.configuration.interval_s = Some(1.0);
        after.configuration.interval_s = Some(0.1);
        // The report before is older than this setting.
        after.configuration.retry_count = Some(7);
        after.configuration.began = "later".to_owned();
        after.configuration.kernel = "7.0.0".to_owned();
        after.configuration.cpu_governor = Some("performance".to_owned());
        let (before, after) = ([before], [after]);
        let comparison = Comparison::new(&before, &after);
        let settings: Vec<_> =
            comparison.points[0].settings.iter().map(|it| it.setting.as_str()).collect();
        assert_eq!(settings, ["cpu_governor", "interval_s", "iodepth", "kernel"]);
        let text = comparison.to_text();
        assert!(text.contains("\n  iodepth: 1 → 2\n"), "{text}");
        assert!(text.contains("\n  cpu_governor: - → performance\n"), "{text}");
    }

    /// Older reports have no p99.9 of an interval: that of the whole measurement is compared.
    #[test]
    fn a_quantity_that_no_interval_has_is_that_of_the_whole() {
        let mut points = [report(1, &[1.0, 1.1]), report(1, &[1.0, 1.1])];
        let p99_9 = |point: &Comparison<'_>| {
            let find = |it: &&MeasureComparison| it.measure == "p99.9 latency";
            point.points[0].measures.iter().find(find).map(|it| (it.before, it.after, it.verdict))
        };
        assert_eq!(p99_9(&Comparison::new(&points[..1], &points[1..])), None);
        points[0].totals.latency_ns.p99_9 = Some(1000);
        points[1].totals.latency_ns.p99_9 = Some(1500);
        let whole = (1000.0, 1500.0, Finding::TooFewSamples);
        assert_eq!(p99_9(&Comparison::new(&points[..1], &points[1..])), Some(whole));
        for at in points.iter_mut().flat_map(|point| &mut point.series) {
            at.p99_9_ns = Some(1200);
        }
        let equal = (1200.0, 1200.0, Finding::NoDifferenceSeen);
        assert_eq!(p99_9(&Comparison::new(&points[..1], &points[1..])), Some(equal));
    }

    #[test]
    fn a_difference_from_nothing_has_no_percentage() {
        let (before, after) = ([report(1, &[0.0; 5])], [report(1, &[9.0, 10.0, 11.0, 10.0, 9.0])]);
        let compared = Comparison::new(&before, &after);
        let iops = &compared.points[0].measures[0];
        assert_eq!((iops.percent, iops.confidence_95_percent), (None, None));
        assert_eq!((iops.smallest_visible_percent, iops.verdict), (None, Finding::Better));
        let text = compared.to_text();
        assert!(text.contains("9.8  -  better") && !text.contains("0.0 %"), "{text}");
        assert!(json!(compared)["points"][0]["measures"][0]["percent"].is_null());
    }

    /// Neither an interval nor what could not have been seen is a fall by more than all.
    #[test]
    fn no_difference_is_a_fall_by_more_than_all() {
        let (before, after) = ([report(1, &[100.0, 9.0])], [report(1, &[1.0, 80.0, 20.0])]);
        let compared = Comparison::new(&before, &after);
        let iops = &compared.points[0].measures[0];
        let [low, high] = iops.confidence_95_percent.expect("enough samples");
        assert!((-100.0..0.0).contains(&low) && high > 100.0, "{low} {high}");
        let [fall, rise] = iops.invisible_percent().expect("enough samples");
        assert!((-100.0..-50.0).contains(&fall) && rise > 100.0, "{fall} {rise}");
        assert_eq!(iops.verdict, Finding::NoDifferenceSeen);
    }

    /// An interval to which others were joined is longer than most, and does not displace them.
    #[test]
    fn all_but_short_intervals_are_compared() {
        let mut before = report(1, &[100.0, 101.0, 102.0, 90.0, 7.0]);
        (before.series[3].seconds, before.series[4].seconds) = (5.0, 0.1);
        let samples = MEASURES[0].samples(&before).expect("samples");
        assert_eq!(samples, [100.0, 101.0, 102.0, 90.0]);
    }

    #[test]
    fn the_text_has_the_interval_and_what_could_have_been_seen() {
        let (before, after) = ([report(1, &[100.0, 102.0])], [report(1, &[100.0, 103.0])]);
        let text = Comparison::new(&before, &after).to_text();
        let line = text.lines().find(|line| line.contains("IOPS")).expect("a line");
        for part in ["101.0 →", "101.5", "+0.5 % (95 %: -", "no difference seen; smallest visible"]
        {
            assert!(line.contains(part), "{line} lacks {part}");
        }
    }
}
