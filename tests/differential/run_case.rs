//! One case from its beginning to its end.

use std::time::{Duration, Instant};

use tests::wait_for;
use tokio::runtime::Handle;

use super::{
    case::{Case, Life, Seen, Turn, Wish},
    case_target::Stage,
    kernel_initiator::Kernel,
    observe::{Initiator, Now, Watched, watch},
    our_initiator::Ours,
};

/// What was seen of one initiator, and its story.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) seen: Seen,
    pub(crate) story: String,
}

/// What was seen of both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    pub(crate) kernel: Option<Told>,
    pub(crate) ours: Option<Told>,
    pub(crate) took: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Kernel,
    Ours,
}

/// Between a fault and a read that is to meet it: for news of it to arrive.
const SPREAD: Duration = Duration::from_millis(500);

/// Plays a case; `number` is nobody else's.
pub(crate) fn play(number: u16, case: &Case, runtime: &Handle) -> Played {
    let start = Instant::now();
    let rounds = match case.turn {
        Turn::Together | Turn::Alone => vec![vec![Side::Kernel, Side::Ours]],
        Turn::OneByOne => vec![vec![Side::Ours], vec![Side::Kernel]],
    };
    let mut played = Played::default();
    for sides in rounds {
        let stage = Stage::up(number, case.made);
        let told = match case.fault {
            None => first_connect(&stage, case, &sides, runtime),
            Some(_) => through_the_fault(&stage, case, &sides, runtime),
        };
        for (side, told) in sides.iter().zip(told) {
            match side {
                Side::Kernel => played.kernel = Some(told),
                Side::Ours => played.ours = Some(told),
            }
        }
        if !leaves_all(case, &sides) {
            stage.clear();
        }
    }
    played.took = start.elapsed();
    played
}

type Connected = Result<Box<dyn Initiator>, String>;

/// Connects all, at the same time.
fn connect(stage: &Stage, case: &Case, sides: &[Side], runtime: &Handle) -> Vec<Connected> {
    let one = |side: Side| -> Connected {
        let connected: Box<dyn Initiator> = match side {
            Side::Kernel => {
                Box::new(Kernel::connect(stage, &case.options).map_err(|error| error.to_string())?)
            }
            Side::Ours => Box::new(
                Ours::connect(runtime, stage, &case.options).map_err(|error| error.to_string())?,
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

fn first_connect(stage: &Stage, case: &Case, sides: &[Side], runtime: &Handle) -> Vec<Told> {
    let connected = connect(stage, case, sides, runtime);
    let told = connected.into_iter().map(|connected| match connected {
        Ok(initiator) => {
            initiator.wish(Wish::Delete);
            Told { seen: Life::Connected.into(), story: "connected".into() }
        }
        Err(error) => Told { seen: Life::Refused.into(), story: error },
    });
    told.collect()
}

fn through_the_fault(stage: &Stage, case: &Case, sides: &[Side], runtime: &Handle) -> Vec<Told> {
    let connected = connect(stage, case, sides, runtime);
    let mut initiators: Vec<_> = connected
        .into_iter()
        .map(|connected| connected.expect("the target is well before the fault"))
        .collect();
    if case.made.namespace {
        initiators.iter_mut().for_each(|initiator| initiator.open());
    }
    let attempts_max = u32::try_from(case.options.loss_timeout).ok();
    let mut watched: Vec<_> =
        initiators.iter().map(|one| Watched::new(&**one, attempts_max)).collect();

    let mut told = Vec::new();
    strike(stage, case, &initiators);
    if case.made.namespace {
        std::thread::sleep(SPREAD);
        watched.iter_mut().for_each(Watched::read);
    }
    std::thread::scope(|scope| {
        for initiator in &initiators {
            // What is asked for may take long, but neither the healing nor the other waits for it.
            scope.spawn(move || case.wish.map(|wish| initiator.wish(wish)));
        }
        if let Some(heal) = case.heal {
            watch(&mut watched, case.lasts, false);
            watched.iter_mut().for_each(Watched::healing);
            heal(stage);
        }
        watch(&mut watched, case.watch, true);
        let deleted = case.wish == Some(Wish::Delete);
        let seen = watched.iter_mut().zip(&initiators).map(|(watched, initiator)| {
            let read = watched.outcome(case.heal.is_some());
            Told { seen: Seen { life: watched.life(deleted), read }, story: initiator.story() }
        });
        told = seen.collect();
    });
    drop(watched);
    if leaves_all(case, sides) {
        initiators.into_iter().for_each(std::mem::forget);
    } else {
        initiators.iter().for_each(|one| one.wish(Wish::Delete));
    }
    told
}

/// The fault, as often as it is to strike.
fn strike(stage: &Stage, case: &Case, initiators: &[Box<dyn Initiator>]) {
    let fault = case.fault.expect("there is one");
    for _ in 1..case.times {
        let marks: Vec<_> = initiators.iter().map(|one| one.mark()).collect();
        fault(stage);
        wait_for("all live again", Duration::from_secs(20), || {
            let mut all = initiators.iter().zip(&marks);
            all.all(|(one, &mark)| one.left_since(mark) && one.now() == Now::Live)
        });
    }
    fault(stage);
}

/// Whether what the case made stays to the end of the guest.
fn leaves_all(case: &Case, sides: &[Side]) -> bool {
    case.abandoned && sides.contains(&Side::Kernel)
}
