//! Report of a measurement: what is written as JSON, and what the text, the page for a browser and
//! comparisons are made of.
//!
//! A field that an older version did not write has its default when such a file is read.

use std::time::Duration;

use rdma_host::DeviceCounters;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use super::totals::Totals;
use super::{
    counters::Counters,
    histogram_text::HistogramText,
    latency::{self, Distribution, Latency, distribution},
    rank_totals::Ranks,
};
use crate::{connect::QueueAuthentication, path_report::PathReport};

/// Version of the layout of a report in JSON. Reports of version 1 have no `schema`; since version
/// 2, a value that is not known, or that too few samples support, is null.
pub(super) const SCHEMA: u32 = 2;

/// Results of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) points: Vec<PointReport>,
    /// Points of a sweep for which there are no results.
    pub(super) failed_points: Vec<FailedPoint>,
    /// Signal that ended the run.
    pub(super) ended_by: Option<String>,
}

/// Point that could not be measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct FailedPoint {
    pub(super) point: String,
    pub(super) error: String,
}

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
    /// True if the measurement ended before its time.
    pub(super) interrupted: bool,
    /// Signal or failure that ended it then.
    pub(super) ended_by: Option<String>,
    /// Commands in flight at that end, whose completion was not waited for.
    pub(super) unfinished: u64,
    /// Mean time of a command in each stage.
    pub(super) mean_ns: StageMeans,
    pub(super) per_io: CostPerIo,
    /// Null in reports of version 0.1.0.
    pub(super) disturbance: Option<Disturbance>,
    /// Steady state that was to end the measurement; null if none was asked for.
    pub(super) steady_state: Option<SteadyState>,
    /// Causes for which the figures may not be what the target and the network can do.
    pub(super) warnings: Vec<String>,
    /// Null in earlier reports of several paths.
    pub(super) device: Option<DeviceTotals>,
    pub(super) windows: WindowTotals,
    pub(super) resident_bytes: ResidentBytes,
    pub(super) series: Vec<Interval>,
    pub(super) targets: Vec<TargetTotals>,
    /// Ranks that the point was merged from; null for a single process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ranks: Option<Ranks>,
    pub(super) configuration: Configuration,
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
    /// All latencies of `distribution`.
    pub(super) histogram: Option<HistogramText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_histogram: Option<HistogramText>,
}

/// Mean time of a command in each stage, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct StageMeans {
    pub(super) queue: f64,
    pub(super) submit: f64,
    /// Time in the call that rings the doorbell; a part of `submit` before version 2.
    pub(super) doorbell: Option<f64>,
    pub(super) wire_and_target: f64,
    pub(super) completion: f64,
}

/// Mean cost of a command on this host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct CostPerIo {
    /// Processor time of the load's threads.
    pub(super) cpu_ns: f64,
    /// Null in earlier reports of several paths; so is what follows.
    pub(super) doorbells: Option<f64>,
    pub(super) completions: Option<f64>,
    pub(super) empty_polls: Option<f64>,
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
    /// Latency; null where [`Latency`] is.
    pub(super) mean_ns: Option<f64>,
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) p99_9_ns: Option<u64>,
    pub(super) max_ns: Option<u64>,
    /// Commands of each direction; null in reports of version 0.1.0.
    pub(super) read: Option<IntervalOperation>,
    pub(super) write: Option<IntervalOperation>,
    /// Times that a worker lost its processor while it could run; this and what follows, except for
    /// the memory, is null in reports of version 0.1.0.
    pub(super) involuntary_switches: Option<u64>,
    /// Share of the time in which workers could run that they waited for a processor; null if the
    /// kernel does not count it.
    pub(super) run_queue_wait_share: Option<f64>,
    /// Time for which workers did not run though they had to, for more than 100 ms each.
    pub(super) starved_s: Option<f64>,
    /// Share of the processors' time in the user space of other programs.
    pub(super) other_programs_share: Option<f64>,
    /// Share of the processors' time that the hypervisor gave to other guests.
    pub(super) steal_share: Option<f64>,
    /// Resident memory of this process at the end.
    pub(super) resident_bytes: u64,
}

/// Commands of one direction in an interval.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct IntervalOperation {
    pub(super) iops: f64,
    pub(super) bandwidth_bytes_per_s: f64,
    pub(super) mean_ns: Option<f64>,
}

/// Load of the machine beside the measurement, as in each [`Interval`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Disturbance {
    pub(super) involuntary_switches: u64,
    pub(super) run_queue_wait_share: Option<f64>,
    pub(super) starved_s: f64,
    pub(super) other_programs_share: f64,
    pub(super) steal_share: f64,
    /// True if other programs wanted to run when the load began.
    pub(super) busy_at_start: bool,
    /// True if a worker was in the class `SCHED_IDLE`: all other programs come first.
    pub(super) idle_class: bool,
}

/// Steady state in the words of fio: the IOPS of all intervals of a window are within a limit of
/// their mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SteadyState {
    /// Largest deviation, in percent of the mean.
    pub(super) limit_percent: f64,
    /// Duration of the window, which ends with the measurement.
    pub(super) window_s: f64,
    pub(super) attained: bool,
    /// Largest deviation in the last window; null if the measurement was shorter than one.
    pub(super) deviation_percent: Option<f64>,
    /// Mean of the last window.
    pub(super) mean_iops: Option<f64>,
}

/// Results of one target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct TargetTotals {
    #[serde(flatten)]
    pub(super) totals: Totals,
    pub(super) target: String,
    pub(super) nqn: String,
    pub(super) nsid: u32,
    /// Paths, if there are several, and what each carried since it was connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) paths: Vec<PathReport>,
}

/// Settings of a point, and the system it was measured on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Configuration {
    /// Name of the section of a job file.
    pub(super) name: Option<String>,
    pub(super) target: String,
    pub(super) nqn: String,
    pub(super) nsid: u32,
    /// Number of targets.
    pub(super) targets: usize,
    /// Further targets, each by address and NQN, between commas.
    pub(super) also: Option<String>,
    /// Number of ranks; null for a single process, and so is what follows for separate runs.
    pub(super) ranks: Option<usize>,
    /// Blocks of the ranks, as on the command line: `shared` or `disjoint`.
    pub(super) rank_regions: Option<String>,
    /// Local address, if it was given.
    pub(super) source: Option<String>,
    /// Addresses of the paths between commas; null if there is one, and so is what follows.
    pub(super) paths: Option<String>,
    /// Choice among paths of the same access.
    pub(super) iopolicy: Option<String>,
    /// Proof for which writes wait that overlap those of a lost path, as on the command line.
    pub(super) fence: Option<String>,
    pub(super) rw: String,
    pub(super) read_percent: u8,
    pub(super) bs: BlockSize,
    pub(super) bs_in_words: String,
    /// Distribution of the offsets of random commands, as on the command line; null for a uniform
    /// one.
    pub(super) random_distribution: Option<String>,
    pub(super) iodepth: u16,
    pub(super) queues: usize,
    pub(super) threads: usize,
    /// Entries of an I/O queue.
    pub(super) queue_entries: Option<u16>,
    pub(super) ramp_s: f64,
    pub(super) runtime_s: f64,
    /// Asked duration of an interval of the series.
    pub(super) interval_s: Option<f64>,
    /// Limit and window of the steady state that was to end the measurement.
    pub(super) until_percent: Option<f64>,
    pub(super) until_window_s: Option<f64>,
    /// Bytes of the namespace before the region: above 0 for a rank with a part of its own.
    pub(super) region_start: u64,
    pub(super) region_bytes: u64,
    pub(super) io_size: Option<u64>,
    /// `closed`, or `open` if there is a rate.
    #[serde(rename = "loop")]
    pub(super) loop_kind: String,
    /// Start of latencies: `submission` or `due time`.
    pub(super) latency_from: String,
    /// Commands per second for each target.
    pub(super) rate: Option<u64>,
    /// Parts of `rate`, if reads and writes have rates of their own.
    pub(super) read_rate: Option<u64>,
    pub(super) write_rate: Option<u64>,
    pub(super) arrival: Option<String>,
    pub(super) verify: bool,
    pub(super) wait: String,
    pub(super) memory_mode: String,
    pub(super) memory_fallback: Option<String>,
    /// Keep-alive timeout; 0 without one.
    pub(super) keep_alive_s: Option<f64>,
    /// IP type of service.
    pub(super) tos: Option<u8>,
    /// Exponent of the transport's timeout.
    pub(super) ack_timeout: Option<u8>,
    pub(super) retry_count: Option<u8>,
    pub(super) disable_sqflow: Option<bool>,
    /// True if all was captured, which takes time.
    pub(super) capture: Option<bool>,
    /// Bytes of the load's buffers that the first target can reach between commands.
    pub(super) reachable_bytes_at_rest: Option<u64>,
    /// Bytes of the load's buffers that it can reach while all its commands are in flight.
    pub(super) reachable_bytes_in_flight: Option<u64>,
    pub(super) device: String,
    /// True if the device is a program of the kernel, as rxe and siw are.
    pub(super) device_is_software: Option<bool>,
    pub(super) device_firmware: Option<String>,
    pub(super) port_speed: Option<String>,
    pub(super) gid_type: Option<String>,
    /// MTU of the path, in bytes; null over iWARP.
    pub(super) mtu: Option<u32>,
    /// MTU of the port's network interface, in bytes.
    pub(super) netdev_mtu: Option<u32>,
    pub(super) target_model: Option<String>,
    pub(super) target_firmware: Option<String>,
    pub(super) numa_node: Option<u32>,
    pub(super) cpus: Option<String>,
    pub(super) host: Option<String>,
    pub(super) cpu_model: Option<String>,
    pub(super) cpu_governor: Option<String>,
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) authentication: Vec<Option<QueueAuthentication>>,
    pub(super) seed: u64,
    /// Words of the command line, without secrets.
    pub(super) command_line: Option<String>,
    pub(super) version: String,
    /// Commit that the program was built from; `-dirty` if there were changes.
    pub(super) commit: Option<String>,
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

impl Report {
    /// Report of the only point, or of a sweep.
    pub(super) fn to_json(&self, sweep: bool) -> Value {
        if !sweep && let [point] = self.points.as_slice() {
            let mut value = json!(point);
            value["schema"] = SCHEMA.into();
            return value;
        }
        json!({
            "schema": SCHEMA,
            "interrupted": self.ended_by.is_some(),
            "ended_by": self.ended_by,
            "failed_points": self.failed_points,
            "points": self.points,
        })
    }

    /// Number of points that were not measured to their end.
    pub(super) fn failed_count(&self) -> usize {
        let ended_early = self.points.iter().filter(|point| point.interrupted);
        self.failed_points.len() + ended_early.count()
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
            histogram: Some(HistogramText::new(latency)),
            service_histogram: service.map(HistogramText::new),
        }
    }
}

impl StageMeans {
    pub(super) fn new(counters: &Counters) -> Self {
        let stages = counters.stages;
        let mean = |sum: u64| sum as f64 / stages.count.max(1) as f64;
        Self {
            queue: mean(stages.queue),
            submit: mean(stages.submit),
            doorbell: Some(mean(stages.doorbell)),
            wire_and_target: mean(stages.wire_and_target),
            completion: mean(stages.completion),
        }
    }
}

impl CostPerIo {
    /// Costs of `completed` commands, with these counters of the device.
    pub(super) fn new(counters: &Counters, device: DeviceCounters, completed: u64) -> Self {
        let per_io = |sum: f64| sum / completed.max(1) as f64;
        let of_device = |count: u64| Some(per_io(count as f64));
        Self {
            cpu_ns: per_io(counters.cpu.as_nanos() as f64),
            doorbells: of_device(device.doorbells),
            completions: of_device(device.completions),
            empty_polls: of_device(device.empty_polls),
        }
    }
}

impl Interval {
    /// Results of the workers; the shares of other programs are not among them.
    pub(super) fn new(start: Duration, duration: Duration, counters: &Counters) -> Self {
        let (seconds, total) = (duration.as_secs_f64(), counters.total());
        let latency_ns = &total.latency_ns;
        let operation = |write| IntervalOperation {
            iops: counters.operation(write).completed as f64 / seconds.max(1e-9),
            bandwidth_bytes_per_s: counters.operation(write).bytes as f64 / seconds.max(1e-9),
            mean_ns: latency::mean(counters.latency(write)),
        };
        Self {
            start_s: start.as_secs_f64(),
            seconds,
            completed: total.completed,
            iops: total.completed as f64 / seconds.max(1e-9),
            bandwidth_bytes_per_s: total.bytes as f64 / seconds.max(1e-9),
            mean_ns: latency::mean(latency_ns),
            p50_ns: latency::value_at(latency_ns, 0.5),
            p99_ns: latency::value_at(latency_ns, 0.99),
            p99_9_ns: latency::value_at(latency_ns, 0.999),
            max_ns: (!latency_ns.is_empty()).then(|| latency_ns.max()),
            read: Some(operation(false)),
            write: Some(operation(true)),
            involuntary_switches: Some(counters.scheduling.involuntary_switches),
            run_queue_wait_share: counters.run_queue_wait_share(),
            starved_s: Some(counters.scheduling.starved.as_secs_f64()),
            ..Self::default()
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
    use super::*;

    /// The sample was written by version 0.1.0 before the report was a typed structure: a sweep of
    /// two points, of an open and of a closed loop.
    #[test]
    fn keys_and_values_are_those_of_older_versions() {
        let sample: Value = serde_json::from_str(include_str!("report-sample.json")).unwrap();
        let points: Vec<PointReport> = serde_json::from_value(sample["points"].clone()).unwrap();
        assert_eq!(points.len(), 2);
        let mut now = json!({ "points": points });
        keep_keys_of(&mut now, &sample);
        assert_eq!(now, sample);
    }

    /// Removes the keys that `sample` lacks: those of later versions.
    fn keep_keys_of(value: &mut Value, sample: &Value) {
        match (value, sample) {
            (Value::Object(value), Value::Object(sample)) => {
                value.retain(|key, _| sample.contains_key(key));
                value.iter_mut().for_each(|(key, value)| keep_keys_of(value, &sample[key]));
            }
            (Value::Array(values), Value::Array(samples)) => {
                values.iter_mut().zip(samples).for_each(|(value, one)| keep_keys_of(value, one));
            }
            _ => {}
        }
    }

    #[test]
    fn a_report_says_its_version_and_the_points_that_failed() {
        let point = PointReport::default();
        let one = Report { points: vec![point.clone()], ..Report::default() };
        assert_eq!(
            (&one.to_json(false)["schema"], &one.to_json(false)["ended_by"]),
            (&json!(2), &Value::Null)
        );
        let error = "no".to_owned();
        let ended = PointReport { interrupted: true, ..point.clone() };
        let sweep = Report {
            points: vec![point, ended],
            failed_points: vec![FailedPoint { point: "depth 64".to_owned(), error }],
            ended_by: Some("SIGINT".to_owned()),
        };
        let json = sweep.to_json(true);
        assert_eq!(json["failed_points"], json!([{ "point": "depth 64", "error": "no" }]));
        assert_eq!((&json["interrupted"], &json["ended_by"]), (&json!(true), &json!("SIGINT")));
        assert_eq!(sweep.failed_count(), 2);
    }
}
