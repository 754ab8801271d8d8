//! Results under the names of fio: JSON as of `--output-format=json+`, which
//! `fio_jsonplus_clat2csv` reads, and the logs of `write_iops_log`, `write_bw_log` and
//! `write_lat_log`, which `fio2gnuplot` and `fiologparser` read.

use std::{collections::BTreeMap, fmt::Write, time::SystemTime};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{
    counters,
    histogram_text::{COUNT_MAX, HistogramText},
    latency::{Distribution, Latency},
    report::{BlockSize, Configuration, Interval, IntervalOperation, OperationTotals, PointReport},
    text::title,
    totals::integer,
};

/// Percentiles that fio reports by default.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

/// Results of all points, each as a job.
pub(super) fn to_json(points: &[&PointReport]) -> Value {
    let began = points.first().map(|point| point.configuration.began.as_str());
    let began = began.and_then(|text| humantime::parse_rfc3339(text).ok());
    let began = began.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let began = began.unwrap_or_default();
    json!({
        "fio version": format!("nvmf-{}", env!("CARGO_PKG_VERSION")),
        "timestamp": began.as_secs(),
        "timestamp_ms": u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
        "time": points.first().map(|point| point.configuration.began.clone()),
        "jobs": points.iter().map(|point| job(point)).collect::<Vec<_>>(),
    })
}

fn job(point: &PointReport) -> Value {
    let configuration = &point.configuration;
    let milliseconds = integer(point.seconds * 1000.0);
    let operation = |operation, side| direction(operation, side, point, milliseconds);
    let mut job = json!({
        "jobname": configuration.name.clone().unwrap_or_else(|| title(point)),
        "groupid": 0,
        "error": 0,
        "total_err": point.totals.errors,
        "elapsed": integer((configuration.ramp_s + point.seconds).ceil()),
        "job options": options(configuration),
        "read": operation(&point.operations.read, |at| at.read.as_ref()),
        "write": operation(&point.operations.write, |at| at.write.as_ref()),
        "trim": operation(&OperationTotals::default(), |_| None),
        "job_runtime": milliseconds,
    });
    if let Some(steady_state) = &point.steady_state {
        job["steadystate"] = json!({
            "ss": format!("iops:{}%", steady_state.limit_percent),
            "duration": steady_state.window_s,
            "attained": u8::from(steady_state.attained),
            "criterion": steady_state.deviation_percent.map(|percent| format!("{percent:.6}%")),
            "data": { "iops_mean": steady_state.mean_iops },
        });
    }
    job
}

/// Settings under the names of fio's options.
fn options(configuration: &Configuration) -> Map<String, Value> {
    let rate = match (configuration.read_rate, configuration.write_rate) {
        (Some(read), Some(write)) => Some(format!("{read},{write}")),
        _ => configuration.rate.map(|rate| rate.to_string()),
    };
    let bs = match &configuration.bs {
        BlockSize::Bytes(bytes) => ("bs", bytes.to_string()),
        BlockSize::Weighted(sizes) => ("bssplit", sizes.clone()),
    };
    let all = [
        ("rw", Some(configuration.rw.clone())),
        ("rwmixread", Some(configuration.read_percent.to_string())),
        (bs.0, Some(bs.1)),
        ("iodepth", Some(configuration.iodepth.to_string())),
        ("numjobs", Some(configuration.queues.to_string())),
        ("runtime", Some(configuration.runtime_s.to_string())),
        ("ramp_time", Some(configuration.ramp_s.to_string())),
        ("size", Some(configuration.region_bytes.to_string())),
        ("rate_iops", rate),
        ("random_distribution", configuration.random_distribution.clone()),
        ("randseed", Some(configuration.seed.to_string())),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    given.collect()
}

fn direction(
    operation: &OperationTotals,
    side: fn(&Interval) -> Option<&IntervalOperation>,
    point: &PointReport,
    milliseconds: u64,
) -> Value {
    let totals = &operation.totals;
    let samples: Vec<_> = point.series.iter().filter_map(side).collect();
    let iops = Spread::new(samples.iter().map(|at| at.iops));
    let bw = Spread::new(samples.iter().map(|at| at.bandwidth_bytes_per_s / 1024.0));
    // In an open loop, latency counts from the due time, and the service from the submission.
    let latency = of_latency(operation.histogram.as_ref(), &operation.distribution, totals);
    let service = operation.service_latency_ns.as_ref().map(|service| {
        let curve = operation.service_distribution.as_ref();
        let histogram = decoded(operation.service_histogram.as_ref(), || {
            from_curve(curve.unwrap_or(&Vec::new()), service, totals.completed)
        });
        summary(service, &histogram)
    });
    json!({
        "io_bytes": totals.bytes,
        "io_kbytes": totals.bytes / 1024,
        "bw_bytes": integer(totals.bandwidth_bytes_per_s),
        "bw": integer(totals.bandwidth_bytes_per_s / 1024.0),
        "iops": totals.iops,
        "runtime": if totals.completed > 0 { milliseconds } else { 0 },
        "total_ios": totals.completed,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": { "min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0 },
        "clat_ns": service.unwrap_or_else(|| latency.clone()),
        "lat_ns": latency,
        "bw_min": integer(bw.min),
        "bw_max": integer(bw.max),
        "bw_mean": bw.mean,
        "bw_dev": bw.deviation,
        "bw_samples": bw.samples,
        "iops_min": integer(iops.min),
        "iops_max": integer(iops.max),
        "iops_mean": iops.mean,
        "iops_stddev": iops.deviation,
        "iops_samples": iops.samples,
    })
}

fn of_latency(
    text: Option<&HistogramText>,
    curve: &Distribution,
    totals: &super::report::Totals,
) -> Value {
    let latency = &totals.latency_ns;
    let histogram = decoded(text, || from_curve(curve, latency, totals.completed));
    summary(latency, &histogram)
}

/// Histogram of a report; one without it, or with a damaged one, has `other`.
fn decoded(text: Option<&HistogramText>, other: impl FnOnce() -> Histogram<u64>) -> Histogram<u64> {
    text.and_then(HistogramText::decode).unwrap_or_else(other)
}

/// Histogram from the curve and the percentiles of a report without one: a percentile between two
/// of those is that of the larger.
fn from_curve(curve: &Distribution, latency: &Latency, completed: u64) -> Histogram<u64> {
    let (mut histogram, completed) = (counters::histogram(), completed.min(COUNT_MAX));
    let named = latency
        .columns()
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix('p')?.parse().ok()?, integer(value?))));
    let mut all: Distribution = curve.iter().copied().chain(named).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    all.extend(latency.max.map(|max| (100.0, max)));
    let mut counted = 0;
    for (percentile, nanoseconds) in all {
        let until = integer(completed as f64 * percentile / 100.0).min(completed);
        histogram.saturating_record_n(nanoseconds, until.saturating_sub(counted));
        counted = counted.max(until);
    }
    histogram
}

fn summary(latency: &Latency, histogram: &Histogram<u64>) -> Value {
    let mut summary = json!({
        "min": latency.min.unwrap_or(0),
        "max": latency.max.unwrap_or(0),
        "mean": latency.mean.unwrap_or(0.0),
        "stddev": latency.stdev.unwrap_or(0.0),
        "N": histogram.len(),
    });
    if !histogram.is_empty() {
        let percentiles = PERCENTILES.map(|percentile| {
            (format!("{percentile:.6}"), histogram.value_at_quantile(percentile / 100.0))
        });
        let bins = histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()));
        summary["percentile"] = json!(BTreeMap::from(percentiles));
        summary["bins"] = json!(bins.collect::<BTreeMap<_, _>>());
    }
    summary
}

/// Least, mean and most of some samples.
struct Spread {
    min: f64,
    max: f64,
    mean: f64,
    deviation: f64,
    samples: usize,
}

impl Spread {
    fn new(samples: impl Iterator<Item = f64>) -> Self {
        let samples: Vec<_> = samples.collect();
        let count = (samples.len() as f64).max(1.0);
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        Self {
            min: samples.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max: samples.iter().copied().fold(0.0, f64::max),
            mean,
            deviation: (squares / (count - 1.0).max(1.0)).sqrt(),
            samples: samples.len(),
        }
    }
}

/// Logs of one point, by the end of their names.
pub(super) fn logs(point: &PointReport) -> [(&'static str, String); 3] {
    type Value = fn(&IntervalOperation) -> Option<f64>;
    let values: [(&'static str, Value); 3] = [
        ("iops", |at| Some(at.iops)),
        ("bw", |at| Some(at.bandwidth_bytes_per_s / 1024.0)),
        ("lat", |at| at.mean_ns),
    ];
    values.map(|(name, value)| {
        let mut log = String::new();
        for at in &point.series {
            let end = integer((at.start_s + at.seconds) * 1000.0);
            for (direction, operation) in operations(at, &point.configuration).iter().enumerate() {
                // Without commands there is no sample, as in fio.
                let value = operation.as_ref().filter(|it| it.iops > 0.0).and_then(value);
                if let Some(value) = value {
                    let value = value.round();
                    // Time, value, direction, and block size and offset, which fio leaves out of
                    // averages, too. Writing to a string does not fail.
                    let _ = writeln!(log, "{end}, {value}, {direction}, 0, 0");
                }
            }
        }
        (name, log)
    })
}

/// Reads and writes of an interval. Reports of version 0.1.0 do not tell them apart: a mixed load
/// of theirs counts as reads.
fn operations(at: &Interval, of: &Configuration) -> [Option<IntervalOperation>; 2] {
    if at.read.is_some() || at.write.is_some() {
        return [at.read.clone(), at.write.clone()];
    }
    let all = IntervalOperation {
        iops: at.iops,
        bandwidth_bytes_per_s: at.bandwidth_bytes_per_s,
        mean_ns: at.mean_ns,
    };
    if of.read_percent == 0 { [None, Some(all)] } else { [Some(all), None] }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::report_file, *};

    fn histogram() -> Histogram<u64> {
        let mut histogram = counters::histogram();
        (1..=100_000).for_each(|value| histogram.record(value * 100).unwrap());
        histogram
    }

    fn point() -> PointReport {
        let histogram = histogram();
        let mut point = PointReport::default();
        let read = &mut point.operations.read;
        read.totals.latency_ns = Latency::new(&histogram);
        read.totals.completed = histogram.len();
        read.histogram = Some(HistogramText::new(&histogram));
        read.distribution = super::super::latency::distribution(&histogram);
        point
    }

    #[test]
    fn percentiles_and_bins_are_those_of_the_histogram() {
        let json = to_json(&[&point()]);
        let clat = &json["jobs"][0]["read"]["clat_ns"];
        for (percentile, due) in [("50.000000", 5e6), ("99.000000", 9.9e6), ("99.990000", 9.999e6)]
        {
            let found = clat["percentile"][percentile].as_f64().unwrap();
            assert!((found / due - 1.0).abs() < 0.001, "{percentile}: {found}");
        }
        let bins = clat["bins"].as_object().unwrap();
        assert_eq!(bins.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 100_000);
        assert_eq!(json["jobs"][0]["write"]["clat_ns"]["N"], 0);
        assert_eq!(clat, &json["jobs"][0]["read"]["lat_ns"]);
    }

    /// Without a histogram, the percentiles that a report has are exact, the others near.
    #[test]
    fn an_older_report_has_the_percentiles_it_has() {
        let mut point = point();
        point.operations.read.histogram = None;
        let json = to_json(&[&point]);
        let percentile = &json["jobs"][0]["read"]["clat_ns"]["percentile"];
        let latency = &point.operations.read.totals.latency_ns;
        for (name, due) in [
            ("50.000000", latency.p50),
            ("90.000000", latency.p90),
            ("99.000000", latency.p99),
            ("99.990000", latency.p99_99),
        ] {
            let (found, due) = (percentile[name].as_f64().unwrap(), due.unwrap() as f64);
            assert!((found / due - 1.0).abs() < 0.001, "{name}: {found} {due}");
        }
        let near = percentile["60.000000"].as_f64().unwrap();
        assert!((6.0e6..6.4e6).contains(&near), "{near}");
    }

    #[test]
    fn the_sample_of_version_0_1_0_has_jobs_and_logs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench/report-sample.json");
        let points = report_file::read(Path::new(path)).unwrap().points;
        let json = to_json(&points.iter().collect::<Vec<_>>());
        let jobs = json["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), 2);
        for (job, point) in jobs.iter().zip(&points) {
            let totals = &point.operations.read.totals;
            assert_eq!(job["read"]["total_ios"], totals.completed);
            assert_eq!(job["read"]["lat_ns"]["max"], json!(totals.latency_ns.max.unwrap_or(0)));
            let [(_, iops), _, (name, lat)] = logs(point);
            assert_eq!((iops.lines().count(), name), (point.series.len(), "lat"));
            assert!(lat.lines().all(|line| line.split(", ").count() == 5), "{lat}");
        }
    }

    #[test]
    fn a_mixed_load_has_a_line_for_each_direction() {
        let side = |iops| IntervalOperation { iops, ..IntervalOperation::default() };
        let at = Interval {
            start_s: 1.0,
            seconds: 0.5,
            read: Some(side(7.2)),
            write: Some(side(3.0)),
            ..Interval::default()
        };
        let point = PointReport { series: vec![at], ..PointReport::default() };
        let [(_, iops), ..] = logs(&point);
        assert_eq!(iops, "1500, 7, 0, 0, 0\n1500, 3, 1, 0, 0\n");
    }
}
