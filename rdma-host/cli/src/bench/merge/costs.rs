//! Costs and surroundings of several ranks as those of one measurement: sums, means by the number
//! of commands, and the worst of what cannot be added.

use super::super::report::{
    CostPerIo, DeviceTotals, Disturbance, PointReport, ResidentBytes, StageMeans, SteadyState,
    WindowTotals,
};

/// Report with the sums of all ranks; it lacks commands, latencies, series and configuration.
pub(super) fn merge(ranks: &[&PointReport]) -> PointReport {
    let ended = ranks.iter().find(|point| point.interrupted);
    let sum = |value: fn(&PointReport) -> u64| {
        ranks.iter().fold(0, |sum: u64, point| sum.saturating_add(value(point)))
    };
    let end = ranks
        .iter()
        .try_fold(0, |sum: u64, point| Some(sum.saturating_add(point.resident_bytes.end?)));
    PointReport {
        missed: sum(|point| point.missed),
        kept_up: ranks.iter().all(|point| point.kept_up),
        interrupted: ended.is_some(),
        ended_by: ended.and_then(|point| point.ended_by.clone()),
        unfinished: sum(|point| point.unfinished),
        mean_ns: stages(ranks),
        per_io: costs(ranks),
        disturbance: disturbance(ranks),
        steady_state: steady_state(ranks),
        device: device(ranks),
        windows: WindowTotals {
            by_target: sum(|point| point.windows.by_target),
            here: sum(|point| point.windows.here),
        },
        resident_bytes: ResidentBytes { begin: sum(|point| point.resident_bytes.begin), end },
        ..PointReport::default()
    }
}

/// Mean of a value by the commands of each rank; none if a rank has none.
fn mean(ranks: &[&PointReport], value: impl Fn(&PointReport) -> Option<f64>) -> Option<f64> {
    let commands: f64 = ranks.iter().map(|point| point.totals.completed as f64).sum();
    let sum = ranks
        .iter()
        .try_fold(0.0, |sum, point| Some(sum + value(point)? * point.totals.completed as f64))?;
    Some(sum / commands.max(1.0))
}

fn stages(ranks: &[&PointReport]) -> StageMeans {
    let of = |stage: fn(&StageMeans) -> f64| {
        mean(ranks, |point| Some(stage(&point.mean_ns))).unwrap_or_default()
    };
    StageMeans {
        queue: of(|stages| stages.queue),
        submit: of(|stages| stages.submit),
        doorbell: mean(ranks, |point| point.mean_ns.doorbell),
        wire_and_target: of(|stages| stages.wire_and_target),
        completion: of(|stages| stages.completion),
    }
}

fn costs(ranks: &[&PointReport]) -> CostPerIo {
    CostPerIo {
        cpu_ns: mean(ranks, |point| Some(point.per_io.cpu_ns)).unwrap_or_default(),
        doorbells: mean(ranks, |point| point.per_io.doorbells),
        completions: mean(ranks, |point| point.per_io.completions),
        empty_polls: mean(ranks, |point| point.per_io.empty_polls),
    }
}

/// Other load: the largest shares, since ranks of one host see the same.
fn disturbance(ranks: &[&PointReport]) -> Option<Disturbance> {
    let all: Vec<_> = ranks.iter().filter_map(|point| point.disturbance.as_ref()).collect();
    if all.is_empty() || all.len() < ranks.len() {
        return None;
    }
    let most = |share: fn(&Disturbance) -> f64| all.iter().map(|it| share(it)).fold(0.0, f64::max);
    let waits = all.iter().filter_map(|it| it.run_queue_wait_share);
    Some(Disturbance {
        involuntary_switches: all
            .iter()
            .fold(0, |sum: u64, it| sum.saturating_add(it.involuntary_switches)),
        run_queue_wait_share: waits.reduce(f64::max),
        starved_s: all.iter().map(|it| it.starved_s).sum(),
        other_programs_share: most(|it| it.other_programs_share),
        steal_share: most(|it| it.steal_share),
        busy_at_start: all.iter().any(|it| it.busy_at_start),
        idle_class: all.iter().any(|it| it.idle_class),
    })
}

/// Steady state that all ranks attained, with the largest deviation of one.
fn steady_state(ranks: &[&PointReport]) -> Option<SteadyState> {
    let all = ranks.iter().map(|point| point.steady_state.as_ref());
    let all: Vec<_> = all.collect::<Option<_>>()?;
    let first = all.first()?;
    let deviations: Option<Vec<f64>> = all.iter().map(|it| it.deviation_percent).collect();
    let means: Option<Vec<f64>> = all.iter().map(|it| it.mean_iops).collect();
    Some(SteadyState {
        limit_percent: first.limit_percent,
        window_s: first.window_s,
        attained: all.iter().all(|it| it.attained),
        deviation_percent: deviations.map(|all| all.into_iter().fold(0.0, f64::max)),
        mean_iops: means.map(|all| all.into_iter().sum()),
    })
}

fn device(ranks: &[&PointReport]) -> Option<DeviceTotals> {
    ranks.iter().try_fold(DeviceTotals::default(), |sum, point| {
        let part = point.device.as_ref()?;
        Some(DeviceTotals {
            doorbells: sum.doorbells.saturating_add(part.doorbells),
            completions: sum.completions.saturating_add(part.completions),
            empty_polls: sum.empty_polls.saturating_add(part.empty_polls),
        })
    })
}
