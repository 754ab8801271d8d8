//! Report of a measurement: what is written as JSON, and what the text, the page for a browser and
//! comparisons are made of.
//!
//! A field that an older version did not write has its default when such a file is read.

use std::{fs, path::Path, time::Duration};

use hdrhistogram::Histogram;
use rdma_host::Operation;
use serde::{Deserialize, Serialize};

use super::counters::Counters;
use crate::{connect::QueueAuthentication, failure::Failure};

/// Results and configuration of one point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct PointReport {
    #[serde(flatten)]
    pub(super) totals: Totals,
    /// Duration of the measurement.
    pub(super) seconds: f64,
    pub(super) operations: Operations,
    /// Commands of an open loop that were due and never sent.
    pub(super) missed: u64,
    /// False if the missed commands are enough to change a percentile.
    pub(super) kept_up: bool,
    /// Mean time of a command in each stage.
    pub(super) mean_ns: StageMeans,
    pub(super) per_io: CostPerIo,
    pub(super) device: DeviceTotals,
    pub(super) windows: WindowTotals,
    pub(super) resident_bytes: ResidentBytes,
    pub(super) series: Vec<Interval>,
    pub(super) targets: Vec<TargetTotals>,
    pub(super) configuration: Configuration,
}

/// Commands of both directions, or of one, with their latency.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) iops: f64,
    pub(super) bandwidth_bytes_per_s: f64,
    pub(super) completed: u64,
    pub(super) bytes: u64,
    pub(super) errors: u64,
    pub(super) latency_ns: Latency,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Operations {
    pub(super) read: OperationTotals,
    pub(super) write: OperationTotals,
}

/// Commands of one direction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct OperationTotals {
    #[serde(flatten)]
    pub(super) totals: Totals,
    pub(super) distribution: Distribution,
    /// Latency from submission; in an open loop only, where `latency_ns` counts from the due time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_latency_ns: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_distribution: Option<Distribution>,
}

/// Pairs of a percentile and the nanoseconds within which that share of the commands completed;
/// at smaller distances towards 100.
pub(super) type Distribution = Vec<(f64, u64)>;

/// Latency in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Latency {
    pub(super) min: u64,
    pub(super) mean: f64,
    pub(super) stdev: f64,
    pub(super) max: u64,
    pub(super) p50: u64,
    pub(super) p75: u64,
    pub(super) p90: u64,
    pub(super) p95: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) p99_99: u64,
    pub(super) p99_999: u64,
}

/// Mean time of a command in each stage, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct StageMeans {
    pub(super) queue: f64,
    pub(super) submit: f64,
    pub(super) wire_and_target: f64,
    pub(super) completion: f64,
}

/// Mean cost of a command on this host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct CostPerIo {
    pub(super) cpu_ns: f64,
    pub(super) doorbells: f64,
    pub(super) completions: f64,
    pub(super) empty_polls: f64,
}

/// Operations on the RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct DeviceTotals {
    pub(super) doorbells: u64,
    pub(super) completions: u64,
    pub(super) empty_polls: u64,
}

/// Memory windows that were invalidated, by the side that did it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct WindowTotals {
    pub(super) by_target: u64,
    pub(super) here: u64,
}

/// Resident memory of this process before the measurement and at the end of its last interval.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct ResidentBytes {
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
}

/// Results of one interval on all targets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Interval {
    /// Start, from the begin of the measurement.
    pub(super) start_s: f64,
    /// Duration.
    pub(super) seconds: f64,
    pub(super) completed: u64,
    pub(super) iops: f64,
    pub(super) bandwidth_bytes_per_s: f64,
    pub(super) mean_ns: f64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
    /// Resident memory of this process at the end.
    pub(super) resident_bytes: u64,
}

/// Results of one target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct TargetTotals {
    #[serde(flatten)]
    pub(super) totals: Totals,
    pub(super) target: String,
    pub(super) nqn: String,
    pub(super) nsid: u32,
}

/// Settings of a point, and the system it was measured on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Configuration {
    pub(super) target: String,
    pub(super) nqn: String,
    pub(super) nsid: u32,
    /// Number of targets.
    pub(super) targets: usize,
    pub(super) rw: String,
    pub(super) read_percent: u8,
    pub(super) bs: BlockSize,
    pub(super) bs_in_words: String,
    pub(super) iodepth: u16,
    pub(super) queues: usize,
    pub(super) threads: usize,
    pub(super) ramp_s: f64,
    pub(super) runtime_s: f64,
    pub(super) region_bytes: u64,
    pub(super) io_size: Option<u64>,
    /// `closed`, or `open` if there is a rate.
    #[serde(rename = "loop")]
    pub(super) loop_kind: String,
    /// Start of latencies: `submission` or `due time`.
    pub(super) latency_from: String,
    /// Commands per second for each target.
    pub(super) rate: Option<u64>,
    pub(super) arrival: Option<String>,
    pub(super) verify: bool,
    pub(super) wait: String,
    pub(super) memory_mode: String,
    pub(super) memory_fallback: Option<String>,
    pub(super) device: String,
    pub(super) numa_node: Option<u32>,
    pub(super) cpus: Option<String>,
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) authentication: Vec<Option<QueueAuthentication>>,
    pub(super) seed: u64,
    pub(super) version: String,
    /// Begin of the measurement (RFC 3339).
    pub(super) began: String,
}

/// Bytes of a command, or sizes with weights as on the command line.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum BlockSize {
    Bytes(u64),
    Weighted(String),
}

/// Reads the points of a JSON report.
pub(super) fn read(path: &Path) -> Result<Vec<PointReport>, Failure> {
    /// One point, or the points of a sweep.
    #[derive(Deserialize)]
    struct ReportFile {
        points: Option<Vec<PointReport>>,
        #[serde(flatten)]
        point: PointReport,
    }
    let failed = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let file: ReportFile =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(file.points.unwrap_or_else(|| vec![file.point]))
}

impl Totals {
    /// Totals of both directions.
    pub(super) fn new(counters: &Counters, seconds: f64) -> Self {
        let total = counters.total();
        Self::of_operation(&total, &total.latency_ns, seconds)
    }

    fn of_operation(operation: &Operation, latency_ns: &Histogram<u64>, seconds: f64) -> Self {
        Self {
            iops: operation.completed as f64 / seconds,
            bandwidth_bytes_per_s: operation.bytes as f64 / seconds,
            completed: operation.completed,
            bytes: operation.bytes,
            errors: operation.failed,
            latency_ns: Latency::new(latency_ns),
        }
    }
}

impl Operations {
    pub(super) fn new(counters: &Counters, seconds: f64) -> Self {
        let totals = |write| OperationTotals::new(counters, write, seconds);
        Self { read: totals(false), write: totals(true) }
    }

    /// Directions with completed commands, by name.
    pub(super) fn completed(&self) -> impl Iterator<Item = (&'static str, &OperationTotals)> {
        let all = [("read", &self.read), ("write", &self.write)];
        all.into_iter().filter(|(_, operation)| operation.totals.completed > 0)
    }
}

impl OperationTotals {
    fn new(counters: &Counters, write: bool, seconds: f64) -> Self {
        let (operation, latency) = (counters.operation(write), counters.latency(write));
        let service = counters.latency_from_due.is_some().then_some(&operation.latency_ns);
        Self {
            totals: Totals::of_operation(operation, latency, seconds),
            distribution: distribution(latency),
            service_latency_ns: service.map(Latency::new),
            service_distribution: service.map(distribution),
        }
    }
}

fn distribution(histogram: &Histogram<u64>) -> Distribution {
    if histogram.is_empty() {
        return Vec::new();
    }
    let steps = histogram.iter_quantiles(8);
    steps.map(|step| (step.quantile_iterated_to() * 100.0, step.value_iterated_to())).collect()
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Self {
            min: histogram.min(),
            mean: histogram.mean(),
            stdev: histogram.stdev(),
            max: histogram.max(),
            p50: at(50.0),
            p75: at(75.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            p99_999: at(99.999),
        }
    }

    /// Columns of a table, in nanoseconds: least, mean, the percentiles, and most.
    pub(super) fn columns(&self) -> [(&'static str, f64); 11] {
        [
            ("min", self.min as f64),
            ("mean", self.mean),
            ("p50", self.p50 as f64),
            ("p75", self.p75 as f64),
            ("p90", self.p90 as f64),
            ("p95", self.p95 as f64),
            ("p99", self.p99 as f64),
            ("p99.9", self.p99_9 as f64),
            ("p99.99", self.p99_99 as f64),
            ("p99.999", self.p99_999 as f64),
            ("max", self.max as f64),
        ]
    }
}

impl StageMeans {
    pub(super) fn new(counters: &Counters) -> Self {
        let stages = counters.stages;
        let mean = |sum: u64| sum as f64 / stages.count.max(1) as f64;
        Self {
            queue: mean(stages.queue),
            submit: mean(stages.submit),
            wire_and_target: mean(stages.wire_and_target),
            completion: mean(stages.completion),
        }
    }
}

impl CostPerIo {
    pub(super) fn new(counters: &Counters, completed: u64) -> Self {
        let device = counters.statistics.device;
        let per_io = |sum: f64| sum / completed.max(1) as f64;
        Self {
            cpu_ns: per_io(counters.cpu.as_nanos() as f64),
            doorbells: per_io(device.doorbells as f64),
            completions: per_io(device.completions as f64),
            empty_polls: per_io(device.empty_polls as f64),
        }
    }
}

impl Interval {
    pub(super) fn new(
        start: Duration,
        duration: Duration,
        counters: &Counters,
        resident_bytes: u64,
    ) -> Self {
        let (seconds, total) = (duration.as_secs_f64(), counters.total());
        Self {
            start_s: start.as_secs_f64(),
            seconds,
            completed: total.completed,
            iops: total.completed as f64 / seconds.max(1e-9),
            bandwidth_bytes_per_s: total.bytes as f64 / seconds.max(1e-9),
            mean_ns: total.latency_ns.mean(),
            p50_ns: total.latency_ns.value_at_quantile(0.5),
            p99_ns: total.latency_ns.value_at_quantile(0.99),
            max_ns: total.latency_ns.max(),
            resident_bytes,
        }
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The sample was written by version 0.1.0 before the report was a typed structure: a sweep of
    /// two points, of an open and of a closed loop.
    #[test]
    fn keys_and_values_are_those_of_older_versions() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench/report-sample.json");
        let points = read(Path::new(path)).unwrap();
        let sample: Value = serde_json::from_str(include_str!("report-sample.json")).unwrap();
        assert_eq!(points.len(), 2);
        assert_eq!(json!({ "points": points }), sample);
    }

    #[test]
    fn reports_with_fewer_fields_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, r#"{ "iops": 3, "configuration": { "bs": "4096:1,8192:1" } }"#).unwrap();
        let points = read(&path).unwrap();
        assert_eq!(points[0].totals.iops, 3.0);
        assert_eq!(points[0].configuration.bs, BlockSize::Weighted("4096:1,8192:1".to_owned()));
        fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("EOF"));
    }
}
