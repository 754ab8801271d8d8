//! Report for a terminal.

use std::fmt::Write;

use super::{
    latency::Latency,
    rank_totals::Ranks,
    report::{Configuration, PointReport, SteadyState},
};
use crate::size;

/// One line that says what was measured.
pub(super) fn title(report: &PointReport) -> String {
    let configuration = &report.configuration;
    let pace = match configuration.rate {
        Some(rate) => {
            let arrival = configuration.arrival.as_deref().unwrap_or_default();
            let rate = match (configuration.read_rate, configuration.write_rate) {
                (Some(read), Some(write)) => format!("{read} reads and {write} writes"),
                _ => rate.to_string(),
            };
            format!(", {rate} a second ({arrival})")
        }
        None => String::new(),
    };
    let targets = match configuration.targets {
        0 | 1 => String::new(),
        several => format!(", each of {several} targets"),
    };
    let ranks = configuration.ranks.map(|count| format!(", each of {count} ranks"));
    let name = configuration.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let offsets = configuration.random_distribution.as_ref();
    let offsets = offsets.map(|words| format!(" {words}")).unwrap_or_default();
    format!(
        "{name}{}{offsets} {}, depth {} on {}, {}{pace}{targets}{}",
        configuration.rw,
        configuration.bs_in_words,
        configuration.iodepth,
        size::format_count(configuration.queues as u64, "queue"),
        size::format_count(configuration.threads as u64, "thread"),
        ranks.unwrap_or_default(),
    )
}

/// Results of one point.
pub(super) fn point(report: &PointReport) -> String {
    let (configuration, totals) = (&report.configuration, &report.totals);
    let seconds = report.seconds;
    let mut text = format!(
        "{}, {} waiting, {seconds:.1} s, device {}, memory mode {}\n",
        title(report),
        configuration.wait,
        configuration.device,
        configuration.memory_mode,
    );
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "  {:.0} IOPS, {}, {} errors{}",
        totals.iops,
        totals.bandwidth(),
        totals.errors,
        totals.retried.map(|retried| format!(", {retried} retried")).unwrap_or_default(),
    );
    let _ = writeln!(text, "  latency µs: {}", latency(&totals.latency_ns));
    let operations: Vec<_> = report.operations.completed().collect();
    if operations.len() > 1 {
        for (name, operation) in operations {
            let (iops, latency) = (operation.totals.iops, latency(&operation.totals.latency_ns));
            let _ = writeln!(text, "    {name}: {iops:.0} IOPS, µs: {latency}");
        }
    }
    if let Some(state) = &report.steady_state {
        steady_state(&mut text, state);
    }
    if let Some(cause) = &report.ended_by {
        let (unfinished, asked) = (report.unfinished, configuration.runtime_s);
        let _ = writeln!(
            text,
            "  ENDED EARLY after {seconds:.1} of {asked:.1} s, by {cause}; {unfinished} commands \
             were in flight"
        );
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "  WARNING: {warning}");
    }
    costs(&mut text, report);
    if let Some(ranks) = &report.ranks {
        of_ranks(&mut text, ranks);
    }
    paths(&mut text, report);
    if configuration.memory_mode == "window" {
        let (by_target, here) = (report.windows.by_target, report.windows.here);
        let _ = writeln!(text, "  windows: {by_target} closed by the target, {here} by us");
    }
    if !report.kept_up {
        let _ = writeln!(
            text,
            "  NOT KEPT UP: {} commands were due and never sent; latencies are lower bounds",
            report.missed
        );
    }
    text
}

fn steady_state(text: &mut String, state: &SteadyState) {
    let SteadyState { limit_percent, window_s, attained, .. } = state;
    let word = if *attained { "steady state" } else { "NO STEADY STATE" };
    let last = match (state.deviation_percent, state.mean_iops) {
        (Some(deviation), Some(mean)) => {
            format!(
                "the IOPS of the last {window_s:.1} s were within {deviation:.1} % of {mean:.0}"
            )
        }
        _ => format!("the measurement was shorter than {window_s:.1} s"),
    };
    let _ = writeln!(text, "  {word}: {last}; the limit is {limit_percent} %");
}

fn costs(text: &mut String, report: &PointReport) {
    let (mean, cost) = (&report.mean_ns, &report.per_io);
    let software = match report.configuration.device_is_software {
        Some(true) => " (software RDMA: sends within it, a target on this host receives, too)",
        _ => "",
    };
    let submit = mean.submit / 1000.0;
    let sent = match mean.doorbell {
        Some(doorbell) => {
            format!("submit {submit:.1}, in the doorbell's call{software} {:.1}", doorbell / 1000.0)
        }
        None => format!("submit with the doorbell's call {submit:.1}"),
    };
    let _ = writeln!(
        text,
        "  of that, mean µs: queue {:.1}, {sent}, wire + target {:.1}, completion {:.1}",
        mean.queue / 1000.0,
        mean.wire_and_target / 1000.0,
        mean.completion / 1000.0,
    );
    let cpu = cost.cpu_ns / 1000.0;
    let _ = match (cost.doorbells, cost.completions, cost.empty_polls) {
        (Some(doorbells), Some(completions), Some(empty)) => writeln!(
            text,
            "  per I/O: CPU {cpu:.1} µs, {doorbells:.2} doorbells, {completions:.2} completions, \
             {empty:.2} empty polls",
        ),
        _ => writeln!(text, "  per I/O: CPU {cpu:.1} µs in the threads of the load"),
    };
}

/// Ranks that were merged, and those that failed.
fn of_ranks(text: &mut String, ranks: &Ranks) {
    let count = size::format_count(ranks.count as u64, "rank");
    let hosts = size::format_count(ranks.by_host.len() as u64, "host");
    let _ = writeln!(text, "  {count} on {hosts}, {}:", ranks.describe());
    for rank in &ranks.by_rank {
        let totals = &rank.totals;
        let percentile = |ns: Option<u64>| {
            ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1000.0))
        };
        let host = if rank.file.is_some() { format!(" ({})", rank.host) } else { String::new() };
        let _ = writeln!(
            text,
            "    {}{host}: {:.0} IOPS, {:.1} MiB/s, µs: p50 {}, p99 {}, p99.9 {}; {} errors",
            rank.name(),
            totals.iops,
            totals.bandwidth_bytes_per_s / f64::from(1 << 20),
            percentile(totals.latency_ns.p50),
            percentile(totals.latency_ns.p99),
            percentile(totals.latency_ns.p99_9),
            totals.errors,
        );
    }
    if let Some([slowest, fastest]) = ranks.slowest_and_fastest() {
        let _ = writeln!(
            text,
            "    slowest host {}, {:.0} IOPS; fastest {}, {:.0} IOPS",
            slowest.host, slowest.totals.iops, fastest.host, fastest.totals.iops
        );
    }
    if !ranks.differing_settings.is_empty() {
        let settings = ranks.differing_settings.join(", ");
        let _ = writeln!(text, "    they differ in: {settings}");
    }
    for failed in &ranks.failed {
        let _ = writeln!(text, "  FAILED, in no figure: {}: {}", failed.name(), failed.error);
    }
}

/// Paths of each target, if it has several.
fn paths(text: &mut String, report: &PointReport) {
    let Configuration { iopolicy, fence, .. } = &report.configuration;
    for target in report.targets.iter().filter(|target| !target.paths.is_empty()) {
        let count = target.paths.len();
        let (policy, fence) = (iopolicy.as_deref().unwrap_or(""), fence.as_deref().unwrap_or(""));
        let _ = writeln!(text, "  {count} paths, {policy}, fence {fence}:");
        for path in &target.paths {
            let _ = writeln!(text, "    {}", path.describe());
        }
    }
}

fn latency(latency: &Latency) -> String {
    let columns = latency.columns().map(|(name, ns)| match ns {
        Some(ns) => format!("{name} {:.1}", ns / 1000.0),
        None => format!("{name} -"),
    });
    columns.join(", ")
}
