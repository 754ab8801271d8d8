//! Run of one case.

use std::time::Duration;

use tests::wait_for;
use tokio::runtime::Handle;

use super::{
    case::{Case, Observed, Outcome, OwnerRequest},
    case_target::CaseTarget,
    kernel_initiator::KernelInitiator,
    observe::{ControllerState, Initiator, Watched, watch_fault, watch_outcome},
    our_initiator::OurInitiator,
};

/// Outcomes for one initiator, and its history.
#[derive(Clone, Debug)]
pub(crate) struct InitiatorResult {
    pub(crate) seen: Observed,
    pub(crate) history: String,
}

/// Outcomes for both initiators; none for one that stopped short.
#[derive(Clone, Debug, Default)]
pub(crate) struct CaseResult {
    pub(crate) kernel: Option<InitiatorResult>,
    pub(crate) ours: Option<InitiatorResult>,
}

impl CaseResult {
    /// Outcome for one of the initiators.
    pub(crate) fn of(&self, side: Side) -> Option<&InitiatorResult> {
        match side {
            Side::KernelInitiator => self.kernel.as_ref(),
            Side::OurInitiator => self.ours.as_ref(),
        }
    }

    /// Replaces the outcome for one of the initiators.
    pub(crate) fn set(&mut self, side: Side, result: Option<InitiatorResult>) {
        match side {
            Side::KernelInitiator => self.kernel = result,
            Side::OurInitiator => self.ours = result,
        }
    }
}

/// One of the initiators.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    KernelInitiator,
    OurInitiator,
}

/// Time between the fault and the read that is to meet it, for news of the fault to arrive.
const SPREAD: Duration = Duration::from_millis(500);

/// Runs a case for these initiators, both at once; `number` is that of this run alone.
pub(crate) fn run_case(
    number: u16,
    case: &Case,
    sides: &[Side],
    runtime: &Handle,
) -> Vec<InitiatorResult> {
    let target = CaseTarget::set_up(number, case.target);
    let results = match case.fault {
        None => first_connect(&target, case, sides, runtime),
        Some(_) => through_the_fault(&target, case, sides, runtime),
    };
    if !leaves_all(case, sides) {
        target.tear_down();
    }
    results
}

type Connected = Result<Box<dyn Initiator>, String>;

/// Connects all at the same time.
fn connect(target: &CaseTarget, case: &Case, sides: &[Side], runtime: &Handle) -> Vec<Connected> {
    let one = |side: Side| -> Connected {
        let connected: Box<dyn Initiator> = match side {
            Side::KernelInitiator => Box::new(
                KernelInitiator::connect(target, &case.options)
                    .map_err(|error| error.to_string())?,
            ),
            Side::OurInitiator => Box::new(
                OurInitiator::connect(runtime, target, &case.options)
                    .map_err(|error| error.to_string())?,
            ),
        };
        Ok(connected)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = sides.iter().map(|&side| scope.spawn(move || one(side))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("it only connects"));
        ended.collect()
    })
}

fn first_connect(
    target: &CaseTarget,
    case: &Case,
    sides: &[Side],
    runtime: &Handle,
) -> Vec<InitiatorResult> {
    let connected = connect(target, case, sides, runtime);
    let result = connected.into_iter().map(|connected| match connected {
        Ok(initiator) => {
            initiator.request(OwnerRequest::Delete);
            InitiatorResult { seen: Outcome::Connected.into(), history: "connected".into() }
        }
        Err(error) => InitiatorResult { seen: Outcome::Refused.into(), history: error },
    });
    result.collect()
}

fn through_the_fault(
    target: &CaseTarget,
    case: &Case,
    sides: &[Side],
    runtime: &Handle,
) -> Vec<InitiatorResult> {
    let connected = connect(target, case, sides, runtime);
    let mut initiators: Vec<_> = connected
        .into_iter()
        .map(|connected| connected.expect("the target is well before the fault"))
        .collect();
    if case.target.namespace {
        initiators.iter_mut().for_each(|initiator| initiator.open());
    }
    let attempts_max = u32::try_from(case.options.loss_timeout).ok();
    let expected = sides.iter().map(|&side| expected(case, side));
    let mut watched: Vec<_> = initiators
        .iter()
        .zip(expected)
        .map(|(one, expected)| Watched::new(&**one, expected, attempts_max))
        .collect();

    let mut result = Vec::new();
    inject_fault(target, case, &initiators);
    if case.target.namespace {
        std::thread::sleep(SPREAD);
        watched.iter_mut().for_each(Watched::read);
    }
    std::thread::scope(|scope| {
        for initiator in &initiators {
            // The request may take long, but neither the healing nor the other initiator waits for
            // it.
            scope.spawn(move || case.request.map(|request| initiator.request(request)));
        }
        if let Some(heal) = case.heal {
            watch_fault(&mut watched, case.lasts);
            watched.iter_mut().for_each(Watched::healing);
            heal(target);
        }
        watch_outcome(&mut watched, case.watch);
        let deleted = case.request == Some(OwnerRequest::Delete);
        let seen = watched.iter_mut().zip(&initiators).map(|(watched, initiator)| {
            let read = watched.read_outcome(case.heal.is_some());
            InitiatorResult {
                seen: Observed { controller: watched.controller_outcome(deleted), read },
                history: initiator.history(),
            }
        });
        result = seen.collect();
    });
    drop(watched);
    if leaves_all(case, sides) {
        initiators.into_iter().for_each(std::mem::forget);
    } else {
        initiators.iter().for_each(|one| one.request(OwnerRequest::Delete));
    }
    result
}

/// Outcome that a case expects for one of the initiators.
pub(crate) fn expected(case: &Case, side: Side) -> Observed {
    match side {
        Side::KernelInitiator => case.expected.kernel,
        Side::OurInitiator => case.expected.ours,
    }
}

/// Injects the fault as often as the case says.
fn inject_fault(target: &CaseTarget, case: &Case, initiators: &[Box<dyn Initiator>]) {
    let fault = case.fault.expect("there is one");
    for _ in 1..case.times {
        let marks: Vec<_> = initiators.iter().map(|one| one.mark()).collect();
        fault(target);
        wait_for("all live again", Duration::from_secs(20), || {
            let mut all = initiators.iter().zip(&marks);
            all.all(|(one, &mark)| one.left_since(mark) && one.state() == ControllerState::Live)
        });
    }
    fault(target);
}

/// Tells if the target of the case stays to the end of the guest.
fn leaves_all(case: &Case, sides: &[Side]) -> bool {
    case.abandoned && sides.contains(&Side::KernelInitiator)
}
