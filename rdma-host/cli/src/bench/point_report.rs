//! Report of a point from what was counted and the settings it was measured with.

use std::{ops::Range, thread::available_parallelism};

use rdma_host::{MemoryMode, Provider};

use super::{
    arguments::{Arguments, value_name},
    random_distribution::RandomDistribution,
    rank_position::RankPosition,
    rate::Rate,
    recorder::Outcome,
    report::{
        BlockSize, Configuration, CostPerIo, DeviceTotals, Disturbance, Operations, PointReport,
        ResidentBytes, StageMeans, TargetTotals, Totals, WindowTotals,
    },
    sweep_points::Point,
};
use crate::{
    connect,
    environment::{self, Device, Port},
    failure::Failure,
    load::Load,
};

pub(super) fn new<P: Provider>(
    loads: &[Load<P>],
    arguments: &Arguments,
    point: &Point,
    rank: RankPosition,
    outcome: &Outcome,
) -> PointReport {
    let (total, seconds) = (&outcome.total, outcome.elapsed.as_secs_f64());
    let totals = Totals::new(total, seconds);
    let device = total.statistics.device;
    let windows = total.statistics.windows;
    let targets = loads.iter().zip(&outcome.targets).map(|(load, counters)| TargetTotals {
        totals: Totals::new(counters, seconds),
        target: load.options.address.to_string(),
        nqn: load.options.subsystem.as_str().to_owned(),
        nsid: load.namespace.id.0,
        paths: load.path_reports(),
    });
    let disturbance = Disturbance {
        involuntary_switches: total.scheduling.involuntary_switches,
        run_queue_wait_share: total.run_queue_wait_share(),
        starved_s: total.scheduling.starved.as_secs_f64(),
        other_programs_share: outcome.processors.others,
        steal_share: outcome.processors.steal,
        busy_at_start: outcome.machine_was_busy,
        idle_class: total.scheduling.idle_class,
    };
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
        per_io: CostPerIo::new(total, device, totals.completed),
        steady_state: outcome.steady_state.clone(),
        warnings: all_warnings(&disturbance, outcome, arguments),
        disturbance: Some(disturbance),
        device: Some(DeviceTotals {
            doorbells: device.doorbells,
            completions: device.completions,
            empty_polls: device.empty_polls,
        }),
        windows: WindowTotals { by_target: windows.by_target, here: windows.here },
        resident_bytes: ResidentBytes {
            begin: outcome.resident_bytes,
            end: outcome.series.last().map(|interval| interval.resident_bytes),
        },
        series: outcome.series.clone(),
        targets: targets.collect(),
        ranks: None,
        configuration: configuration(loads, arguments, point, rank, outcome),
        totals,
    }
}

fn configuration<P: Provider>(
    loads: &[Load<P>],
    arguments: &Arguments,
    point: &Point,
    rank: RankPosition,
    outcome: &Outcome,
) -> Configuration {
    let load = &loads[0];
    let several = load.paths.as_ref();
    let [at_rest, in_flight] = reachable_bytes(load, point);
    let each = point.rate.and_then(Rate::each);
    let skewed =
        Some(arguments.random_distribution()).filter(|&it| it != RandomDistribution::Random);
    let (loop_kind, latency_from) = match point.rate {
        Some(_) => ("open", "due time"),
        None => ("closed", "submission"),
    };
    Configuration {
        target: load.options.address.to_string(),
        nqn: load.options.subsystem.as_str().to_owned(),
        nsid: load.namespace.id.0,
        targets: loads.len(),
        also: also(loads),
        paths: several.map(|_| load.addresses.clone()),
        iopolicy: several.map(|paths| paths.status().policy.to_string()),
        fence: several.map(|_| load.options.fence.mode.name().to_owned()),
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
        interval_s: Some(arguments.interval().as_secs_f64()),
        until_percent: arguments.until,
        until_window_s: arguments.until.map(|_| arguments.window().as_secs_f64()),
        io_size: arguments.io_size,
        loop_kind: loop_kind.to_owned(),
        latency_from: latency_from.to_owned(),
        rate: point.rate.map(Rate::total),
        read_rate: each.map(|[read, _]| read),
        write_rate: each.map(|[_, write]| write),
        random_distribution: skewed.map(|words| words.to_string()),
        arrival: point.rate.map(|_| value_name(arguments.arrival())),
        verify: arguments.verify,
        reachable_bytes_at_rest: Some(at_rest),
        reachable_bytes_in_flight: Some(in_flight),
        cpus: arguments.load.cpus.as_ref().map(ToString::to_string),
        seed: arguments.load.seed,
        capture: Some(arguments.load.capture.is_on()),
        began: humantime::format_rfc3339_millis(outcome.began).to_string(),
        ..region(load, &arguments.region(load.namespace.bytes(), point, rank), rank)
    }
}

/// Blocks of this process, and the settings of the connection.
fn region<P: Provider>(load: &Load<P>, region: &Range<u64>, rank: RankPosition) -> Configuration {
    Configuration {
        rank_regions: (rank.count > 1).then(|| value_name(rank.regions)),
        region_start: region.start,
        region_bytes: region.end - region.start,
        ..connection(load)
    }
}

/// Targets after the first.
fn also<P: Provider>(loads: &[Load<P>]) -> Option<String> {
    let name = |load: &Load<P>| format!("{} {}", load.addresses, load.options.subsystem.as_str());
    let others: Vec<_> = loads[1..].iter().map(name).collect();
    (!others.is_empty()).then(|| others.join(","))
}

/// Settings of the connection, and those that are not of the load.
fn connection<P: Provider>(load: &Load<P>) -> Configuration {
    let (options, memory) = (&load.options, load.controller.memory());
    Configuration {
        source: options.source.map(|address| address.to_string()),
        queue_entries: Some(options.queue_entries),
        keep_alive_s: Some(options.keep_alive.as_secs_f64()),
        tos: options.type_of_service,
        ack_timeout: options.ack_timeout,
        retry_count: Some(options.retry_count),
        disable_sqflow: Some(options.disable_flow_control),
        wait: options.wait.name().to_owned(),
        memory_mode: memory.mode.name().to_owned(),
        memory_fallback: memory.fallback,
        ..surroundings(load)
    }
}

/// Settings that are not those of the load: the program, the host, its device and the target.
fn surroundings<P: Provider>(load: &Load<P>) -> Configuration {
    let device = Device::new(&load.controller.device());
    let port = device.port();
    let port = port.as_ref();
    let negotiated = load.controller.negotiated();
    Configuration {
        device: load.controller.device(),
        device_is_software: Some(device.is_software()),
        device_firmware: device.firmware(),
        port_speed: port.and_then(Port::speed),
        gid_type: port.and_then(Port::gid_types),
        mtu: load.controller.mtu(),
        netdev_mtu: port.and_then(Port::netdev_mtu),
        target_model: Some(negotiated.info.model.clone()),
        target_firmware: Some(negotiated.info.firmware.clone()),
        numa_node: load.controller.numa_node(),
        host: Some(environment::host()),
        cpu_model: environment::cpu_model(),
        cpu_governor: environment::cpu_governor(),
        kernel: environment::kernel(),
        processors: available_parallelism().map_or(1, usize::from),
        authentication: connect::queue_authentication(&negotiated),
        command_line: Some(environment::command_line()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("NVMF_COMMIT").map(str::to_owned),
        ..Configuration::default()
    }
}

/// Bytes of the load's buffers that the target can reach between commands, and while as many
/// commands as possible are in flight: by the keys of the registrations, or by windows.
fn reachable_bytes<P: Provider>(load: &Load<P>, point: &Point) -> [u64; 2] {
    let slots: usize = load.queues_of_threads().map(|queues| queues * load.depth).sum();
    let slots = slots as u64;
    if load.controller.memory().mode == MemoryMode::Window {
        return [0, slots * point.bs.largest()];
    }
    [slots * point.bs.sizes().sum::<u64>(); 2]
}

fn all_warnings(
    disturbance: &Disturbance,
    outcome: &Outcome,
    arguments: &Arguments,
) -> Vec<String> {
    let mut all = warnings(disturbance, outcome.elapsed.as_secs_f64());
    all.extend(joined_intervals(outcome, arguments));
    all
}

/// Other load that was heavy enough to change the figures of a measurement of `seconds`.
fn warnings(disturbance: &Disturbance, seconds: f64) -> Vec<String> {
    /// Shares from which on there is a warning.
    const OTHERS_MIN: f64 = 0.1;
    const STEAL_MIN: f64 = 0.01;
    const WAIT_MIN: f64 = 0.05;
    let Disturbance { idle_class, other_programs_share, starved_s, steal_share, .. } = *disturbance;
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut warnings = Vec::new();
    let advice = if idle_class {
        "; they poll in the idle class, where all other programs come first: leave a processor \
         free, or use --wait event"
    } else {
        ""
    };
    if disturbance.busy_at_start {
        warnings.push("the machine was busy: other programs wanted to run, too".to_owned());
    }
    if starved_s >= WAIT_MIN * seconds {
        warnings.push(format!(
            "the machine was busy: threads got no processor for {starved_s:.1} s{advice}"
        ));
    } else if idle_class && other_programs_share >= OTHERS_MIN {
        warnings.push(format!(
            "the machine was busy: other programs took {} of the processors from the threads\
             {advice}",
            percent(other_programs_share)
        ));
    }
    let wait_share = disturbance.run_queue_wait_share.filter(|_| !idle_class).unwrap_or(0.0);
    if wait_share >= WAIT_MIN {
        warnings.push(format!(
            "the machine was busy: the threads waited for a processor in {} of the time",
            percent(wait_share)
        ));
    }
    if steal_share >= STEAL_MIN {
        warnings.push(format!(
            "the hypervisor gave {} of the processors to other guests",
            percent(steal_share)
        ));
    }
    warnings
}

/// Warning that many intervals are longer than they were to be.
fn joined_intervals(outcome: &Outcome, arguments: &Arguments) -> Option<String> {
    let joined = outcome.joined;
    let all = joined + outcome.series.len() as u64;
    let interval = humantime::format_duration(arguments.interval());
    (joined * 10 >= all && joined > 0).then(|| {
        format!(
            "{joined} of {all} intervals of {interval} were over before they could be reported, \
             and are joined to the next: give a longer --interval"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_told() {
        let quiet = Disturbance {
            involuntary_switches: 100_000,
            run_queue_wait_share: Some(0.01),
            starved_s: 0.1,
            other_programs_share: 0.05,
            steal_share: 0.001,
            busy_at_start: false,
            idle_class: true,
        };
        assert_eq!(warnings(&quiet, 10.0), [""; 0]);
        for (busy, message) in [
            (
                Disturbance { starved_s: 1.5, ..quiet.clone() },
                "no processor for 1.5 s; they poll in",
            ),
            (Disturbance { other_programs_share: 0.4, ..quiet.clone() }, "took 40 % of the"),
            (Disturbance { steal_share: 0.02, ..quiet.clone() }, "hypervisor gave 2 %"),
            (
                Disturbance { run_queue_wait_share: Some(0.2), idle_class: false, ..quiet },
                "waited for a processor in 20 %",
            ),
        ] {
            let warnings = warnings(&busy, 10.0);
            assert!(warnings.len() == 1 && warnings[0].contains(message), "{warnings:?}");
        }
    }
}
