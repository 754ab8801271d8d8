//! The report as JSON; all other reports are made of it.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::counters::Tally;
use super::measure::{Interval, Outcome};
use super::sweep_points::Point;
use crate::connect;
use crate::load::Load;
use crate::target::wait_name;

/// The percentiles to report, by their names in JSON.
pub(super) const PERCENTILES: [(&str, f64); 8] = [
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p95", 95.0),
    ("p99", 99.0),
    ("p99_9", 99.9),
    ("p99_99", 99.99),
    ("p99_999", 99.999),
];

/// What one point came to.
pub(super) fn point(
    loads: &[Load],
    arguments: &Arguments,
    point: &Point,
    outcome: &Outcome,
) -> Value {
    let (total, seconds) = (&outcome.total, outcome.elapsed.as_secs_f64());
    let mut report = summary(total, seconds);
    report["seconds"] = seconds.into();
    report["operations"] = json!({
        "read": operation(total, false, seconds),
        "write": operation(total, true, seconds),
    });
    report["missed"] = total.missed.into();
    // One that was due in the last moment is no sign of anything; enough to move a percentile is.
    report["kept_up"] = (total.missed * 1000 <= total.completed()).into();
    report["mean_ns"] = stages(total);
    report["per_io"] = per_io(total);
    report["device"] = json!({
        "doorbells": total.statistics.device.doorbells,
        "completions": total.statistics.device.completions,
        "empty_polls": total.statistics.device.empty_polls,
    });
    report["windows"] = json!({
        "by_target": total.statistics.windows.by_target,
        "here": total.statistics.windows.here,
    });
    report["resident_bytes"] = json!({
        "begin": outcome.resident_bytes,
        "end": outcome.series.last().map(|interval| interval.resident_bytes),
    });
    report["series"] = outcome.series.iter().map(interval).collect();
    report["targets"] = loads
        .iter()
        .zip(&outcome.targets)
        .map(|(load, tally)| {
            let mut target = summary(tally, seconds);
            target["target"] = load.options.address.to_string().into();
            target["nqn"] = load.options.subsystem.as_str().into();
            target["nsid"] = load.namespace.id.0.into();
            target
        })
        .collect();
    let began = humantime::format_rfc3339_seconds(outcome.began);
    report["configuration"] = configuration(loads, arguments, point);
    report["configuration"]["began"] = began.to_string().into();
    report
}

fn summary(tally: &Tally, seconds: f64) -> Value {
    json!({
        "iops": tally.completed() as f64 / seconds,
        "bandwidth_bytes_per_s": tally.bytes() as f64 / seconds,
        "completed": tally.completed(),
        "bytes": tally.bytes(),
        "errors": tally.failed(),
        "latency_ns": latency(&tally.latency_of_all()),
    })
}

fn operation(tally: &Tally, write: bool, seconds: f64) -> Value {
    let operation = tally.operation(write);
    let histogram = tally.latency(write);
    let mut report = json!({
        "iops": operation.completed as f64 / seconds,
        "bandwidth_bytes_per_s": operation.bytes as f64 / seconds,
        "completed": operation.completed,
        "bytes": operation.bytes,
        "errors": operation.failed,
        "latency_ns": latency(histogram),
        "distribution": distribution(histogram),
    });
    if tally.from_due.is_some() {
        report["service_latency_ns"] = latency(&operation.latency_ns);
        report["service_distribution"] = distribution(&operation.latency_ns);
    }
    report
}

fn latency(histogram: &Histogram<u64>) -> Value {
    let mut report = json!({
        "min": histogram.min(),
        "mean": histogram.mean(),
        "stdev": histogram.stdev(),
        "max": histogram.max(),
    });
    for (name, percentile) in PERCENTILES {
        report[name] = histogram.value_at_percentile(percentile).into();
    }
    report
}

/// Pairs of a percentile and the nanoseconds that as many commands took at most; finer towards
/// the end.
fn distribution(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return json!([]);
    }
    let steps = histogram.iter_quantiles(8);
    steps
        .map(|step| json!([step.quantile_iterated_to() * 100.0, step.value_iterated_to()]))
        .collect()
}

/// Where the time of a command went, in the mean.
fn stages(total: &Tally) -> Value {
    let stages = total.stages;
    let mean = |sum: u64| sum as f64 / stages.count.max(1) as f64;
    json!({
        "queue": mean(stages.queue),
        "submit": mean(stages.submit),
        "wire_and_target": mean(stages.wire_and_target),
        "completion": mean(stages.completion),
    })
}

/// What a command cost this side, in the mean.
fn per_io(total: &Tally) -> Value {
    let completed = total.completed().max(1) as f64;
    let device = total.statistics.device;
    json!({
        "cpu_ns": total.cpu.as_nanos() as f64 / completed,
        "doorbells": device.doorbells as f64 / completed,
        "completions": device.completions as f64 / completed,
        "empty_polls": device.empty_polls as f64 / completed,
    })
}

fn interval(interval: &Interval) -> Value {
    let seconds = interval.duration.as_secs_f64();
    json!({
        "start_s": interval.start.as_secs_f64(),
        "seconds": seconds,
        "completed": interval.completed,
        "iops": interval.iops(),
        "bandwidth_bytes_per_s": interval.bytes as f64 / seconds.max(1e-9),
        "mean_ns": interval.mean_ns,
        "p50_ns": interval.p50_ns,
        "p99_ns": interval.p99_ns,
        "max_ns": interval.max_ns,
        "resident_bytes": interval.resident_bytes,
    })
}

/// The system that this runs on.
fn kernel() -> String {
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.release(), uname.machine()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}

fn configuration(loads: &[Load], arguments: &Arguments, point: &Point) -> Value {
    let load = &loads[0];
    let mut report = json!({
        "target": load.options.address.to_string(),
        "nqn": load.options.subsystem.as_str(),
        "nsid": load.namespace.id.0,
        "targets": loads.len(),
        "rw": arguments.rw.name(),
        "read_percent": arguments.rw.reads_percent(arguments.rwmixread),
        "iodepth": point.iodepth,
        "queues": load.queues(),
        "threads": load.threads(),
        "ramp_s": arguments.ramp.as_secs_f64(),
        "runtime_s": arguments.runtime.as_secs_f64(),
        "region_bytes": super::measure::region(load, arguments),
        "verify": arguments.verify,
        "wait": wait_name(load.options.wait),
        "memory_mode": load.controller.memory().mode.name(),
        "memory_fallback": load.controller.memory().fallback,
        "device": load.controller.device(),
        "numa_node": load.controller.numa_node(),
        "cpus": arguments.load.cpus.as_ref().map(ToString::to_string),
        "kernel": kernel(),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "authentication": connect::authentication_json(&load.controller.negotiated()),
        "seed": arguments.load.seed,
        "version": env!("CARGO_PKG_VERSION"),
    });
    report["bs"] = match point.bs.sizes().count() {
        1 => point.bs.largest().into(),
        _ => point.bs.name().into(),
    };
    report["bs_in_words"] = point.bs.in_words().into();
    report["io_size"] = arguments.io_size.into();
    report["rate"] = point.rate.into();
    report["arrival"] = point.rate.map(|_| arguments.arrival.name()).into();
    let (name, from) = match point.rate {
        Some(_) => ("open", "due time"),
        None => ("closed", "submission"),
    };
    report["loop"] = name.into();
    report["latency_from"] = from.into();
    report
}
