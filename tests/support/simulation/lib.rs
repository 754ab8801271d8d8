//! Simulation of the whole host against a model target that may misbehave: one thread, virtual
//! time, and nothing that does not follow from a script.
//!
//! ```text
//!   Script ---- steps ----> client: the driver, its callers, and what must hold
//!     |                        |
//!    seed --> executor: order, time        fabric: messages, faults        target: model
//! ```
//!
//! In every run, whatever the target does, this holds:
//!
//! * Each read, write and flush ends once, and all end once the faults are over.
//! * A read returns what a write wrote that was not overwritten before it began ([`history`]).
//! * No write is executed more often than the options let it be sent.
//! * I/O that may not wait for a connection fails in time.
//! * Nothing changes a buffer after it has come back.
//! * A connect, a shutdown and each other call ends in its time.
//! * No command arrives on a connection whose loss the controller has told of.
//! * In the end no object of the fabric is left.

pub mod client;
pub mod executor;
pub mod faults;
pub mod history;
pub mod random;
pub mod script;
pub mod storm;
pub mod target;

#[cfg(test)]
mod scenarios;

use std::{any::Any, panic, time::Duration};

use rdma_fabric::Objects;

use self::{client::Client, executor::World, random::Random, target::ModelTarget};
pub use self::{client::Counts, script::Script};

/// Time after which nothing of a run is in transit any more.
const QUIET: Duration = Duration::from_secs(120);

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Violations of what holds; empty for a run without a fault of ours.
    pub violations: Vec<String>,
    /// History of the run, one event a line.
    pub transcript: String,
    /// Occurrences by name.
    pub counts: Counts,
    /// Virtual time that the run took.
    pub time: Duration,
}

/// Runs a script.
#[must_use]
pub fn run(script: &Script) -> Report {
    let world = World::new(script.seed);
    let ran = panic::catch_unwind(panic::AssertUnwindSafe(|| run_in(&world, script)));
    let mut report = ran.unwrap_or_else(|payload| Report {
        violations: vec![format!("a panic: {}", message_of(&*payload))],
        ..Report::default()
    });
    report.transcript = world.take_transcript();
    report.time = world.now();
    report
}

fn run_in(world: &World, script: &Script) -> Report {
    let target = ModelTarget::new(world);
    let mut random = Random::new(script.seed ^ 0x00b7_10e5);
    let client = Client::new(world, &target, &mut random);
    let (own, serving, script) = (client.clone(), target.clone(), script.clone());
    let (clock, served) = (world.clone(), target.clone());
    world.run(async move {
        clock.spawn(serving.run());
        own.perform(script).await;
        served.close();
        clock.sleep(QUIET).await;
    });
    world.fabric().run_until_idle();
    let objects = world.fabric().objects();
    if objects != Objects::default() {
        client.violation(format!("objects are left: {objects:?}"));
    }
    let (mut violations, mut counts) = client.finish();
    let of_target = target.change(|target| {
        violations.append(&mut target.violations);
        std::mem::take(&mut target.counts)
    });
    for (name, count) in of_target {
        *counts.entry(format!("target: {name}")).or_default() += count;
    }
    *counts.entry("turns".to_owned()).or_default() += world.turns();
    Report { violations, counts, ..Report::default() }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
