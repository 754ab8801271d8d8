//! Changes of a namespace while its controller is live.

use std::time::Duration;

use super::{
    case::{
        Case,
        Outcome::{CameBack, Undisturbed},
        ReadOutcome::{Done, Failed, Held, Late},
        Schedule, TargetSpec,
    },
    case_target::CaseTarget,
};

const READ: TargetSpec = TargetSpec {
    closed: false,
    namespace: true,
    subsystem: &[],
    port: &[],
    hosts: &[],
    companion: false,
    prepare: None,
    fake: None,
    mapped: false,
};

/// Reason why reads of a namespace that is lost for good differ.
const ANA: &str = "ours has one path, and tells at once that the namespace is not to be had there; \
                   Linux holds the read for a path that may never come";

/// Long enough for what would disturb a controller.
const WATCH: Duration = Duration::from_secs(4);

pub(crate) fn cases() -> Vec<Case> {
    [attached(), access_states(), media()].concat()
}

/// Target whose namespace is on a mapped device.
const MAPPED: TargetSpec = TargetSpec { mapped: true, ..READ };

/// Media that are slow, fail or hang.
fn media() -> Vec<Case> {
    let hangs = |name| {
        let heal = |target: &CaseTarget| target.mapper("resume");
        Case::live(name, |target| target.mapper("suspend --noflush --nolockfs"))
            .target(MAPPED)
            .heal(heal)
            .watched(WATCH)
    };
    vec![
        Case::live("medium slow (dm-delay 300 ms), read", |target| {
            target.map("delay /dev/ram0 0 300");
        })
        .target(MAPPED)
        .watched(WATCH)
        .both(Undisturbed.and(Done)),
        Case::live("medium fails (dm-error), read", |target| target.map("error"))
            .target(MAPPED)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("medium fails (dm-flakey), read", |target| {
            target.map("flakey /dev/ram0 0 0 3600");
        })
        .target(MAPPED)
        .watched(WATCH)
        .both(Undisturbed.and(Failed)),
        hangs("medium hangs, read, goes on").both(Undisturbed.and(Late)),
        hangs("medium hangs past the command timeout of 2 s, read, goes on")
            .with(|options| options.io_timeout = Some(2))
            .lasting(Duration::from_secs(6))
            .schedule(Schedule::Alone)
            .both(CameBack.and(Late)),
    ]
}

fn attached() -> Vec<Case> {
    let enable = |target: &CaseTarget| target.namespace("enable", "1");
    vec![
        Case::live("namespace well, read", |_| ())
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
        Case::live("namespace disabled, read", |target| target.namespace("enable", "0"))
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("namespace disabled and enabled, read", |target| {
            target.namespace("enable", "0");
            std::thread::sleep(Duration::from_secs(1));
            target.namespace("enable", "1");
        })
        .target(READ)
        .watched(WATCH)
        .differs(
            Undisturbed.and(Failed),
            Undisturbed.and(Done),
            "Linux has made another block device of it, and who has the first one open reads no \
             more; ours knows that it is the same namespace",
        ),
        Case::live("namespace disabled, read, enabled", |target| target.namespace("enable", "0"))
            .target(READ)
            .heal(enable)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("namespace removed, read", |target| target.remove_namespace(1))
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("another namespace added, read", |target| target.add_namespace(2))
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
    ]
}

fn access_states() -> Vec<Case> {
    vec![
        Case::live("ANA group non-optimized, read", |target| target.ana("non-optimized"))
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
        Case::live("ANA group inaccessible, read", |target| target.ana("inaccessible"))
            .target(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Held)),
        Case::live("ANA group inaccessible, read, optimized", |target| target.ana("inaccessible"))
            .target(READ)
            .heal(|target| target.ana("optimized"))
            .watched(WATCH)
            .both(Undisturbed.and(Late)),
        Case::live("ANA group lost persistently, read", |target| target.ana("persistent-loss"))
            .target(READ)
            .watched(WATCH)
            .differs(Undisturbed.and(Held), Undisturbed.and(Failed), ANA),
        Case::live("ANA group in change, read, optimized", |target| target.ana("change"))
            .target(READ)
            .heal(|target| target.ana("optimized"))
            .watched(WATCH)
            .both(Undisturbed.and(Late)),
    ]
}
