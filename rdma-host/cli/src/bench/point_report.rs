//! Report of a point from what was counted and the settings it was measured with.

use std::thread::available_parallelism;

use super::{
    arguments::{Arguments, value_name},
    recorder::Outcome,
    report::{
        BlockSize, Configuration, CostPerIo, DeviceTotals, Operations, PointReport, ResidentBytes,
        StageMeans, TargetTotals, Totals, WindowTotals,
    },
    sweep_points::Point,
};
use crate::{connect, failure::Failure, load::Load};

pub(super) fn new(
    loads: &[Load],
    arguments: &Arguments,
    point: &Point,
    outcome: &Outcome,
) -> PointReport {
    let (total, seconds) = (&outcome.total, outcome.elapsed.as_secs_f64());
    let totals = Totals::new(total, seconds);
    let (device, windows) = (total.statistics.device, total.statistics.windows);
    let targets = loads.iter().zip(&outcome.targets).map(|(load, counters)| TargetTotals {
        totals: Totals::new(counters, seconds),
        target: load.options.address.to_string(),
        nqn: load.options.subsystem.as_str().to_owned(),
        nsid: load.namespace.id.0,
    });
    PointReport {
        seconds,
        operations: Operations::new(total, seconds),
        missed: total.missed,
        // A single command that was due in the last moment means nothing.
        kept_up: total.missed * 1000 <= totals.completed,
        interrupted: outcome.failure.is_some(),
        ended_by: outcome.failure.as_ref().map(Failure::ended_by),
        unfinished: total.unfinished,
        mean_ns: StageMeans::new(total),
        per_io: CostPerIo::new(total, totals.completed),
        device: DeviceTotals {
            doorbells: device.doorbells,
            completions: device.completions,
            empty_polls: device.empty_polls,
        },
        windows: WindowTotals { by_target: windows.by_target, here: windows.here },
        resident_bytes: ResidentBytes {
            begin: outcome.resident_bytes,
            end: outcome.series.last().map(|interval| interval.resident_bytes),
        },
        series: outcome.series.clone(),
        targets: targets.collect(),
        configuration: configuration(loads, arguments, point, outcome),
        totals,
    }
}

fn configuration(
    loads: &[Load],
    arguments: &Arguments,
    point: &Point,
    outcome: &Outcome,
) -> Configuration {
    let load = &loads[0];
    let memory = load.controller.memory();
    let (loop_kind, latency_from) = match point.rate {
        Some(_) => ("open", "due time"),
        None => ("closed", "submission"),
    };
    Configuration {
        target: load.options.address.to_string(),
        nqn: load.options.subsystem.as_str().to_owned(),
        nsid: load.namespace.id.0,
        targets: loads.len(),
        rw: value_name(arguments.rw),
        read_percent: arguments.read_percent(),
        bs: match point.bs.sizes().count() {
            1 => BlockSize::Bytes(point.bs.largest()),
            _ => BlockSize::Weighted(point.bs.name()),
        },
        bs_in_words: point.bs.describe(),
        iodepth: u16::try_from(load.depth).expect("at most the entries of a queue"),
        queues: load.queues(),
        threads: load.threads(),
        ramp_s: arguments.ramp.as_secs_f64(),
        runtime_s: arguments.runtime.as_secs_f64(),
        region_bytes: arguments.region_bytes(load.namespace.bytes()),
        io_size: arguments.io_size,
        loop_kind: loop_kind.to_owned(),
        latency_from: latency_from.to_owned(),
        rate: point.rate,
        arrival: point.rate.map(|_| value_name(arguments.arrival())),
        verify: arguments.verify,
        wait: load.options.wait.name().to_owned(),
        memory_mode: memory.mode.name().to_owned(),
        memory_fallback: memory.fallback,
        device: load.controller.device(),
        numa_node: load.controller.numa_node(),
        cpus: arguments.load.cpus.as_ref().map(ToString::to_string),
        kernel: kernel(),
        processors: available_parallelism().map_or(1, usize::from),
        authentication: connect::queue_authentication(&load.controller.negotiated()),
        seed: arguments.load.seed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        began: humantime::format_rfc3339_seconds(outcome.began).to_string(),
    }
}

/// Name, release and machine of the running kernel.
fn kernel() -> String {
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.release(), uname.machine()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}
