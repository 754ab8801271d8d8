//! Merged figures against those of all samples together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hdrhistogram::Histogram;
use proptest::prelude::{ProptestConfig, Strategy, prop, proptest};

use super::{
    super::{
        report::{BlockSize, Configuration, Interval, IntervalOperation, OperationTotals, Report},
        report_file, text,
    },
    command::merge_files,
    *,
};

fn histogram(samples: &[u64]) -> Histogram<u64> {
    let mut histogram = counters::histogram();
    samples.iter().for_each(|&sample| histogram.saturating_record(sample));
    histogram
}

/// Results of a rank that read for a time at an even rate, with these latencies.
fn rank(number: u32, begin: f64, seconds: f64, latencies: &[u64]) -> RankPoint {
    let completed = latencies.len() as u64;
    let totals = Totals {
        iops: completed as f64 / seconds,
        bandwidth_bytes_per_s: 4096.0 * completed as f64 / seconds,
        completed,
        bytes: 4096 * completed,
        retried: Some(1),
        latency_ns: Latency::new(&histogram(latencies)),
        ..Totals::default()
    };
    let read = OperationTotals {
        totals: totals.clone(),
        histogram: Some(HistogramText::new(&histogram(latencies))),
        ..OperationTotals::default()
    };
    let operation = IntervalOperation {
        iops: totals.iops,
        bandwidth_bytes_per_s: totals.bandwidth_bytes_per_s,
        mean_ns: totals.latency_ns.mean,
    };
    let interval = |index: u32| Interval {
        start_s: seconds / 4.0 * f64::from(index),
        seconds: seconds / 4.0,
        iops: totals.iops,
        bandwidth_bytes_per_s: totals.bandwidth_bytes_per_s,
        mean_ns: totals.latency_ns.mean,
        max_ns: totals.latency_ns.max,
        read: Some(operation.clone()),
        ..Interval::default()
    };
    let point = PointReport {
        series: (0..4).map(interval).collect(),
        operations: Operations { read, ..Operations::default() },
        targets: vec![TargetTotals { totals: totals.clone(), ..TargetTotals::default() }],
        totals,
        seconds,
        kept_up: true,
        configuration: Configuration {
            rw: "randread".to_owned(),
            bs: BlockSize::Bytes(4096),
            iodepth: 4,
            host: Some(format!("host{}", number / 2)),
            runtime_s: seconds,
            interval_s: Some(seconds / 4.0),
            began: format!("2026-11-30T12:00:{:06.3}Z", begin),
            ..Configuration::default()
        },
        ..PointReport::default()
    };
    RankPoint { rank: number, file: None, begin, point }
}

fn merged(ranks: &[RankPoint]) -> PointReport {
    merge(ranks, Vec::new(), Start::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

fn samples() -> impl Strategy<Value = Vec<Vec<u64>>> {
    prop::collection::vec(prop::collection::vec(1..200_000_000_u64, 0..400), 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A histogram has three digits: a percentile is within 0.1 % of that of the samples.
    #[test]
    fn percentiles_are_those_of_all_samples_together(samples in samples()) {
        let ranks: Vec<_> =
            (0..).zip(&samples).map(|(number, own)| rank(number, 0.0, 2.0, own)).collect();
        let merged = merged(&ranks);
        let mut all = samples.concat();
        all.sort_unstable();
        let together = histogram(&all);
        let read = &merged.operations.read;
        assert_eq!(read.histogram.as_ref().and_then(HistogramText::decode), Some(together.clone()));
        assert_eq!(merged.totals.latency_ns, Latency::new(&together));
        for (found, quantile) in [
            (merged.totals.latency_ns.p50, 0.5),
            (merged.totals.latency_ns.p99, 0.99),
            (merged.totals.latency_ns.p99_9, 0.999),
        ] {
            let Some(found) = found else { continue };
            let index = all.iter().enumerate().map(|(index, _)| index + 1);
            let index = index.take_while(|it| (*it as f64) < quantile * all.len() as f64).count();
            let due = all[index] as f64;
            assert!((found as f64 / due - 1.0).abs() <= 0.001, "{quantile}: {found} {due}");
        }
        assert_eq!(merged.totals.completed, all.len() as u64);
    }
}

#[test]
fn rates_are_over_the_common_span() {
    // 100 and 300 commands a second, of which the second rank begins and ends a second later.
    let ranks = [rank(0, 0.0, 4.0, &[10_000; 400]), rank(1, 1.0, 4.0, &[20_000; 1200])];
    let start = Start { together: false, spread_s: 1.0 };
    let merged = merge(&ranks, Vec::new(), start).expect("they overlap");
    let of = merged.ranks.as_ref().expect("they are merged");
    assert_near(of.common_span_s, 3.0);
    assert_near(merged.totals.iops, 400.0);
    assert_near(merged.operations.read.totals.iops, 400.0);
    assert_eq!((merged.totals.completed, merged.totals.retried), (1600, Some(2)));
    assert_eq!(merged.series.len(), 3);
    for (interval, start) in merged.series.iter().zip([0.0, 1.0, 2.0]) {
        assert!((interval.start_s - start).abs() < 1e-9, "{interval:?}");
        assert_near(interval.iops, 400.0);
        let mean_ns = interval.mean_ns.unwrap_or_default();
        assert!((mean_ns / 17_500.0 - 1.0).abs() < 1e-3, "{interval:?}");
    }
    assert_eq!(of.by_host.len(), 1, "both are on one host");
    assert_eq!(merged.warnings.len(), 1, "a quarter of the time is not common");
    assert_eq!(merged.targets.len(), 1);
    assert_near(merged.targets[0].totals.iops, 400.0);
    let text = text::point(&merged);
    assert!(text.contains("\n  400 IOPS, 1.5 MiB/s, 0 errors"), "{text}");
}

#[test]
fn an_interval_that_the_span_cuts_counts_by_its_share() {
    let ranks = [rank(0, 0.0, 4.0, &[10_000; 400]), rank(1, 1.5, 4.0, &[20_000; 1200])];
    let merged = merged(&ranks);
    assert_near(merged.seconds, 2.5);
    assert_near(merged.totals.iops, 400.0);
    assert_near(merged.totals.bandwidth_bytes_per_s, 400.0 * 4096.0);
    assert!(merged.series.iter().all(|it| (it.iops - 400.0).abs() < 1e-6), "{:?}", merged.series);
}

#[test]
fn a_rank_that_is_slower_at_first_counts_as_it_was_in_the_span() {
    let mut slow = rank(1, 0.0, 4.0, &[10_000; 400]);
    for (interval, iops) in slow.point.series.iter_mut().zip([0.0, 200.0, 200.0, 0.0]) {
        interval.iops = iops;
    }
    let mut short = rank(0, 1.0, 2.0, &[10_000; 100]);
    let of = &slow.point.configuration;
    (short.point.configuration.runtime_s, short.point.configuration.interval_s) =
        (of.runtime_s, of.interval_s);
    let merged = merged(&[short, slow]);
    assert_near(merged.totals.iops, 50.0 + 200.0);
}

#[test]
fn runs_that_did_not_overlap_are_refused() {
    let ranks = [rank(0, 0.0, 2.0, &[1; 20]), rank(2, 2.5, 2.0, &[1; 20])];
    let error = merge(&ranks, Vec::new(), Start::default()).expect_err("there is no common time");
    assert!(error.starts_with("rank 0 on host0 ended before rank 2 on host1 began"), "{error}");
}

#[test]
fn a_rank_that_ended_early_is_in_no_figure() {
    let mut ranks: Vec<_> = (0..3).map(|number| rank(number, 0.0, 2.0, &[10_000; 40])).collect();
    (ranks[1].point.interrupted, ranks[1].point.seconds) = (true, 0.5);
    ranks[1].point.ended_by = Some("Read: no connection".to_owned());
    let point = merged(&ranks);
    let of = point.ranks.as_ref().expect("they are merged");
    assert_eq!((of.count, of.by_rank.len(), point.totals.completed), (3, 2, 80));
    assert!(!point.interrupted, "the others were measured to their end");
    let failure = of.failure().expect("one failed");
    assert_eq!(failure, "rank 1 on host0: ended after 0.5 of 2.0 s, by Read: no connection");
    // Where all ended early, as after a signal, what there is counts.
    ranks.iter_mut().for_each(|rank| rank.point.interrupted = true);
    let point = merged(&ranks);
    assert_eq!((point.totals.completed, point.interrupted), (120, true));
    assert_eq!(point.ranks.expect("they are merged").failed, []);
}

#[test]
fn another_job_is_refused_by_name() {
    let first = rank(0, 0.0, 2.0, &[1; 20]);
    let mut other = rank(2, 0.0, 2.0, &[1; 20]);
    other.point.configuration.kernel = "7.0".to_owned();
    let both = merged(&[first.clone(), other.clone()]);
    assert_eq!(both.ranks.expect("they are merged").differing_settings, ["kernel"]);
    other.point.configuration.iodepth = 8;
    let error = merge(&[first, other], Vec::new(), Start::default()).expect_err("it differs");
    let expected =
        "rank 2 on host1 was measured with iodepth 8, and rank 0 on host0 with iodepth 4";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_damaged_histogram_is_told() {
    let first = rank(0, 0.0, 2.0, &[1; 20]);
    let mut other = rank(1, 0.0, 2.0, &[1; 20]);
    other.point.operations.read.histogram = None;
    let error = merge(&[first, other], Vec::new(), Start::default()).expect_err("none is there");
    assert!(error.starts_with("rank 1 on host0: its histogram"), "{error}");
}

/// Files of 64 hosts in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let file = |number: u32| {
        let samples: Vec<_> = (0..5000_u64).map(|it| 9_000 + it * u64::from(number + 7)).collect();
        let point = rank(number * 2, f64::from(number) / 1000.0, 10.0, &samples).point;
        let report = Report { points: vec![point], ..Report::default() };
        let path = folder.join(format!("{number}.json"));
        fs::write(&path, report.to_json(false).to_string()).expect("the file is written");
        path
    };
    (0..64).map(file).collect()
}

#[test]
fn many_files_are_one_report_that_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path());
    let report = merge_files(&files).unwrap_or_else(|error| panic!("{error}"));
    let point = &report.points[0];
    let ranks = point.ranks.as_ref().expect("they are merged");
    assert_eq!((ranks.count, ranks.by_host.len(), point.totals.completed), (64, 64, 320_000));
    assert!((ranks.start_spread_s - 0.063).abs() < 1e-6, "{}", ranks.start_spread_s);
    assert_eq!(ranks.by_rank[7].file, Some(files[7].display().to_string()));
    let path = folder.path().join("merged.json");
    fs::write(&path, report.to_json(false).to_string()).expect("the file is written");
    let read = report_file::read(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.points[0].totals.latency_ns, point.totals.latency_ns);
    assert_eq!(read.points[0].ranks.as_ref().map(|ranks| ranks.by_host.len()), Some(64));
}

#[test]
fn wrong_files_are_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path());
    let [a, b] = [&files[0], &files[1]].map(PathBuf::clone);
    let new = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the file is written");
        path
    };
    let text = fs::read_to_string(&b).expect("it is there");
    let merged = merge_files(&[a.clone(), b.clone()]).expect("two hosts").to_json(false);
    for (other, words) in [
        (a.clone(), "0.json is given twice"),
        (new("copy.json", fs::read_to_string(&a).expect("it is there")), "are the same report"),
        (new("merged.json", merged.to_string()), "merged.json is a merged report"),
        (new("cut.json", text[..text.len() / 2].to_owned()), "cut.json: "),
        (new("odd.json", text.replace("HISTE", "HISTX")), "odd.json: its histogram of latencies"),
        (new("sweep.json", format!(r#"{{"points":[{text},{text}]}}"#)), "has 1 of the 2 points of"),
        (new("when.json", text.replace("2026-11-30T", "x")), "does not say when"),
        (folder.path().join("none.json"), "No such file"),
    ] {
        let failure = merge_files(&[a.clone(), other]).map(|_| ()).expect_err(words);
        let message = failure.to_string();
        assert!(message.contains(words) && !message.contains('\n'), "{words}: {message}");
        assert_eq!(failure.exit_code(), 2);
    }
    let one = merge_files(&[a]).map(|_| ()).expect_err("one is not enough");
    assert!(one.to_string().contains("two at least"), "{one}");
}
