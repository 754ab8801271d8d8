//! What was promised, and how far it is kept.

use super::{
    contestant::{Class, Contestant, Scenario},
    ledger::{Ledger, Spread},
    sample::Sample,
};

/// One promise.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) value: Option<Spread>,
    /// What bare verbs reach: nobody can be expected to do better.
    pub(crate) limit: Option<Spread>,
}

/// On which side of a number the promise is kept.
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

/// All that a contest can answer.
pub(crate) fn all(ledger: &Ledger) -> Vec<Goal> {
    let mut goals = Vec::new();
    against_the_kernel(ledger, &mut goals);
    against_the_floor(ledger, &mut goals);
    of_waiting(ledger, &mut goals);
    of_processor_time(ledger, &mut goals);
    let polled = polled(ledger, &DEEP);
    let per_read = |number: fn(&Sample) -> Option<f64>| ledger.spread(&DEEP, polled?, number);
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

fn against_the_kernel(ledger: &Ledger, goals: &mut Vec<Goal>) {
    let mut add = |(what, bound), scenario: &Scenario, number: fn(&Sample) -> Option<f64>| {
        let batched_only = scenario.random && scenario.depth > 1;
        let fio = ledger.best(scenario, |who| {
            let batched = matches!(who, Contestant::Fio { batched: true, .. });
            who.is_base() && (batched || !batched_only)
        });
        let [value, limit] = [polled(ledger, scenario), floor(ledger, scenario)]
            .map(|who| ledger.ratio(scenario, [who?, fio?], number));
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

fn against_the_floor(ledger: &Ledger, goals: &mut Vec<Goal>) {
    for write in [false, true] {
        let [shallow, deep] = [SHALLOW, DEEP].map(|scenario| Scenario { write, ..scenario });
        let pair = |scenario| Some([polled(ledger, scenario)?, floor(ledger, scenario)?]);
        goals.push(Goal {
            what: format!("{}: mean of bare verbs'", shallow.name()),
            bound: Bound::Most(1.05),
            value: pair(&shallow).and_then(|pair| ledger.ratio(&shallow, pair, mean)),
            limit: None,
        });
        goals.push(Goal {
            what: format!("{}: IOPS of bare verbs'", deep.name()),
            bound: Bound::Least(0.95),
            value: pair(&deep).and_then(|pair| ledger.ratio(&deep, pair, iops)),
            limit: None,
        });
    }
}

fn of_waiting(ledger: &Ledger, goals: &mut Vec<Goal>) {
    for wait in ["adaptive", "event"] {
        let pair = polled(ledger, &DEEP);
        let ours = Contestant::Nvmf(wait, Class::Normal);
        let value = pair.and_then(|polled| ledger.ratio(&DEEP, [&ours, polled], iops));
        goals.push(Goal {
            what: format!("{}, waiting {wait}: IOPS of ours polled", DEEP.name()),
            bound: Bound::Least(0.9),
            value,
            limit: None,
        });
    }
}

/// Nothing tells the kernel's initiator from rxe and the target: all run in the same work queues,
/// interrupts and system calls, also in ours. But the processor is one, so what a read takes of it
/// is known, whoever drives it; and what rxe and the target take of that is what is left of bare
/// verbs when their time outside of the kernel is taken away. The rest is the initiator's.
fn of_processor_time(ledger: &Ledger, goals: &mut Vec<Goal>) {
    let ours = ADAPTIVE;
    let fio = batched(ledger, &DEEP);
    let [own, limit] = [&ours, &FLOOR]
        .map(|who| fio.and_then(|fio| ledger.ratio(&DEEP, [who, fio], |sample| sample.cpu_us)));
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
        value: initiators_share(ledger),
        limit: None,
    });
}

fn initiators_share(ledger: &Ledger) -> Option<Spread> {
    let fio = batched(ledger, &DEEP)?;
    let [ours, floor, fio] = [&ADAPTIVE, &FLOOR, fio].map(|who| ledger.samples(&DEEP, who));
    let mut shares = Vec::new();
    for ((ours, floor), fio) in ours.iter().zip(floor).zip(fio) {
        let others = floor.guest_us() - floor.user_us?;
        let theirs = fio.guest_us() - others;
        // Where fio costs less than bare verbs, the machine was too busy to tell anything.
        if theirs <= 0.0 {
            return None;
        }
        shares.push((ours.guest_us() - others) / theirs);
    }
    Spread::of(shares.into_iter())
}

/// Ours when it spins.
fn polled<'a>(ledger: &'a Ledger, scenario: &Scenario) -> Option<&'a Contestant> {
    ledger.best(scenario, |who| matches!(who, Contestant::Nvmf("poll", _)))
}

fn floor<'a>(ledger: &'a Ledger, scenario: &Scenario) -> Option<&'a Contestant> {
    ledger.best(scenario, |who| matches!(who, Contestant::Floor(..)))
}

fn batched<'a>(ledger: &'a Ledger, scenario: &Scenario) -> Option<&'a Contestant> {
    ledger.best(scenario, |who| matches!(who, Contestant::Fio { batched: true, .. }))
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

const ADAPTIVE: Contestant = Contestant::Nvmf("adaptive", Class::Normal);
const FLOOR: Contestant = Contestant::Floor("spin", Class::Idle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_processor_leaves_out_the_target() {
        let mut ledger = Ledger::default();
        let fio = Contestant::Fio { engine: "libaio", batched: true };
        // A read takes 10 µs, of which half a microsecond is that of bare verbs: with ours 13,
        // half of the time idle, and with fio 20.
        let floor = Sample { iops: 100_000.0, user_us: Some(0.5), ..Sample::default() };
        let ours = Sample { iops: 1e6 / 26.0, idle: 0.5, ..Sample::default() };
        let theirs = Sample { iops: 50_000.0, ..Sample::default() };
        ledger.note(&DEEP, &FLOOR, floor);
        ledger.note(&DEEP, &ADAPTIVE, ours);
        ledger.note(&DEEP, &fio, theirs);
        let share = initiators_share(&ledger).unwrap();
        assert!((share.median - 3.5 / 10.5).abs() < 1e-9, "{share:?}");
        for who in [&FLOOR, &ADAPTIVE] {
            ledger.note(&DEEP, who, floor);
        }
        ledger.note(&DEEP, &fio, Sample { iops: 200_000.0, ..theirs });
        assert_eq!(initiators_share(&ledger), None);
    }

    #[test]
    fn what_was_not_measured_is_not_claimed() {
        assert!(all(&Ledger::default()).iter().all(|goal| goal.value.is_none()));
    }

    #[test]
    fn bounds_have_two_sides() {
        assert!(Bound::Least(1.5).is_met(1.5) && !Bound::Least(1.5).is_met(1.4));
        assert!(Bound::Most(0.3).is_met(0.3) && !Bound::Most(0.3).is_met(0.31));
    }
}
