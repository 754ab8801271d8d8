//! Performance goals, and if they are met.

use super::{
    initiator::{Class, Initiator, Scenario},
    results::{Results, Spread},
    sample::Sample,
};

/// A goal, and the value that was measured.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) value: Option<Spread>,
    /// Value that bare verbs reach, which no initiator can be expected to exceed.
    pub(crate) limit: Option<Spread>,
}

/// Side of a number on which the goal is met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    Least(f64),
    Most(f64),
}

impl Bound {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::Least(bound) => value >= bound,
            Self::Most(bound) => value <= bound,
        }
    }
}

/// Every goal that a comparison can answer.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    against_the_kernel(results, &mut goals);
    against_bare_verbs(results, &mut goals);
    of_waiting(results, &mut goals);
    of_processor_time(results, &mut goals);
    let polled = polled(results, &DEEP);
    let per_read = |number: fn(&Sample) -> Option<f64>| results.spread(&DEEP, polled?, number);
    goals.push(Goal {
        what: "completions of a read, depth 32".into(),
        bound: Bound::Most(1.1),
        value: per_read(|sample| sample.completions),
        limit: None,
    });
    goals.push(Goal {
        what: "doorbells of a read, depth 32".into(),
        bound: Bound::Most(0.05),
        value: per_read(|sample| sample.doorbells),
        limit: None,
    });
    goals
}

/// Goals of the front ends: processor time of the machine for a read.
pub(crate) fn of_front_ends(results: &Results) -> Vec<Goal> {
    let ours = Initiator::Nvmf("poll", Class::Normal);
    let mut goals = Vec::new();
    for (scenario, device, engine) in [(SHALLOW, 1.5, 0.65), (DEEP, 1.1, 0.83)] {
        let batched = scenario.depth > 1;
        let kernel = Initiator::Fio { engine: "io_uring", batched };
        let mut add = |who: Initiator, base: &Initiator, bound| {
            let (who_name, base_name) = (who.name(), base.name());
            goals.push(Goal {
                what: format!("{}: {who_name}: time of {base_name}", scenario.name()),
                bound: Bound::Most(bound),
                value: results.ratio(&scenario, &who, base, |sample| sample.machine_us),
                limit: None,
            });
        };
        add(Initiator::Device { batched }, &kernel, device);
        add(Initiator::Engine { batched }, &kernel, engine);
        add(Initiator::Engine { batched }, &ours, 1.0);
    }
    goals
}

fn against_the_kernel(results: &Results, goals: &mut Vec<Goal>) {
    let mut add = |(what, bound), scenario: &Scenario, number: fn(&Sample) -> Option<f64>| {
        let batched_only = scenario.random && scenario.depth > 1;
        let fio = results.best(scenario, |who| {
            let batched = matches!(who, Initiator::Fio { batched: true, .. });
            who.is_base() && (batched || !batched_only)
        });
        let [value, limit] = [polled(results, scenario), bare_verbs(results, scenario)]
            .map(|who| results.ratio(scenario, who?, fio?, number));
        goals.push(Goal { what: format!("{}: {what}", scenario.name()), bound, value, limit });
    };
    add(("mean of the kernel's with fio", Bound::Most(0.48)), &SHALLOW, mean);
    add(("p99 of the kernel's with fio", Bound::Most(0.48)), &SHALLOW, p99);
    for write in [false, true] {
        for (depth, bound) in [(32, 1.6), (128, 1.5)] {
            let scenario = Scenario { write, depth, ..DEEP };
            add(("IOPS of the kernel's with fio batched", Bound::Least(bound)), &scenario, iops);
        }
    }
    for bytes in [128 << 10, 1 << 20] {
        for write in [false, true] {
            let scenario = Scenario { write, random: false, bytes, depth: 8 };
            add(("bandwidth of the kernel's with fio", Bound::Least(1.3)), &scenario, iops);
        }
    }
}

fn against_bare_verbs(results: &Results, goals: &mut Vec<Goal>) {
    for write in [false, true] {
        let [shallow, deep] = [SHALLOW, DEEP].map(|scenario| Scenario { write, ..scenario });
        let ratio = |scenario: &Scenario, number: fn(&Sample) -> Option<f64>| {
            let (ours, base) = (polled(results, scenario)?, bare_verbs(results, scenario)?);
            results.ratio(scenario, ours, base, number)
        };
        goals.push(Goal {
            what: format!("{}: mean of bare verbs'", shallow.name()),
            bound: Bound::Most(1.05),
            value: ratio(&shallow, mean),
            limit: None,
        });
        goals.push(Goal {
            what: format!("{}: IOPS of bare verbs'", deep.name()),
            bound: Bound::Least(0.95),
            value: ratio(&deep, iops),
            limit: None,
        });
    }
}

fn of_waiting(results: &Results, goals: &mut Vec<Goal>) {
    for wait in ["adaptive", "event"] {
        let ours = Initiator::Nvmf(wait, Class::Normal);
        let polled = polled(results, &DEEP);
        let value = polled.and_then(|polled| results.ratio(&DEEP, &ours, polled, iops));
        goals.push(Goal {
            what: format!("{}, waiting {wait}: IOPS of ours polled", DEEP.name()),
            bound: Bound::Least(0.9),
            value,
            limit: None,
        });
    }
}

/// Share of the processor that the initiator alone takes. The kernel's initiator, rxe and the
/// target share work queues, interrupts and system calls, so none of them can be measured by
/// itself. But the guest has one processor, so the time that one read takes of it is known for
/// every initiator. Of that, rxe and the target take what bare verbs take, less the user time of
/// bare verbs; the rest is the initiator's.
fn of_processor_time(results: &Results, goals: &mut Vec<Goal>) {
    let ours = ADAPTIVE;
    let fio = batched(results, &DEEP);
    let [own, limit] = [&ours, &BARE_VERBS]
        .map(|who| fio.and_then(|fio| results.ratio(&DEEP, who, fio, |sample| sample.cpu_us)));
    let of = "of fio's";
    goals.push(Goal {
        what: format!("{}, waiting adaptive: our process's time {of}", DEEP.name()),
        bound: Bound::Most(0.3),
        value: own,
        limit,
    });
    goals.push(Goal {
        what: format!("the same, less rxe and the target: {of} and the kernel's initiator's"),
        bound: Bound::Most(0.3),
        value: initiators_share(results),
        limit: None,
    });
}

fn initiators_share(results: &Results) -> Option<Spread> {
    let fio = batched(results, &DEEP)?;
    let [ours, bare_verbs, fio] =
        [&ADAPTIVE, &BARE_VERBS, fio].map(|who| results.samples(&DEEP, who));
    let mut shares = Vec::new();
    for ((ours, bare_verbs), fio) in ours.iter().zip(bare_verbs).zip(fio) {
        let others = bare_verbs.guest_us() - bare_verbs.user_us?;
        let theirs = fio.guest_us() - others;
        // Where fio costs less than bare verbs, the machine was too busy for a measurement.
        if theirs <= 0.0 {
            return None;
        }
        shares.push((ours.guest_us() - others) / theirs);
    }
    Spread::of(shares.into_iter())
}

/// Our initiator with a poller that spins.
fn polled<'a>(results: &'a Results, scenario: &Scenario) -> Option<&'a Initiator> {
    results.best(scenario, |who| matches!(who, Initiator::Nvmf("poll", _)))
}

fn bare_verbs<'a>(results: &'a Results, scenario: &Scenario) -> Option<&'a Initiator> {
    results.best(scenario, |who| matches!(who, Initiator::BareVerbs(..)))
}

fn batched<'a>(results: &'a Results, scenario: &Scenario) -> Option<&'a Initiator> {
    results.best(scenario, |who| matches!(who, Initiator::Fio { batched: true, .. }))
}

fn iops(sample: &Sample) -> Option<f64> {
    Some(sample.iops)
}

fn mean(sample: &Sample) -> Option<f64> {
    sample.mean_us
}

fn p99(sample: &Sample) -> Option<f64> {
    sample.p99_us
}

const SHALLOW: Scenario = Scenario { write: false, random: true, bytes: 4096, depth: 1 };
const DEEP: Scenario = Scenario { depth: 32, ..SHALLOW };

const ADAPTIVE: Initiator = Initiator::Nvmf("adaptive", Class::Normal);
const BARE_VERBS: Initiator = Initiator::BareVerbs("spin", Class::Idle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_processor_leaves_out_the_target() {
        let mut results = Results::default();
        let fio = Initiator::Fio { engine: "libaio", batched: true };
        // A read takes 10 µs, of which half a microsecond is that of bare verbs: with ours 13,
        // half of the time idle, and with fio 20.
        let bare_verbs = Sample { iops: 100_000.0, user_us: Some(0.5), ..Sample::default() };
        let ours = Sample { iops: 1e6 / 26.0, idle: 0.5, ..Sample::default() };
        let theirs = Sample { iops: 50_000.0, ..Sample::default() };
        results.note(&DEEP, &BARE_VERBS, bare_verbs);
        results.note(&DEEP, &ADAPTIVE, ours);
        results.note(&DEEP, &fio, theirs);
        let share = initiators_share(&results).unwrap();
        assert!((share.median - 3.5 / 10.5).abs() < 1e-9, "{share:?}");
        for who in [&BARE_VERBS, &ADAPTIVE] {
            results.note(&DEEP, who, bare_verbs);
        }
        results.note(&DEEP, &fio, Sample { iops: 200_000.0, ..theirs });
        assert_eq!(initiators_share(&results), None);
    }

    #[test]
    fn what_was_not_measured_is_not_claimed() {
        let results = Results::default();
        let goals = all(&results).into_iter().chain(of_front_ends(&results));
        assert!(goals.into_iter().all(|goal| goal.value.is_none()));
    }

    #[test]
    fn bounds_have_two_sides() {
        assert!(Bound::Least(1.5).is_met(1.5) && !Bound::Least(1.5).is_met(1.4));
        assert!(Bound::Most(0.3).is_met(0.3) && !Bound::Most(0.3).is_met(0.31));
    }
}
