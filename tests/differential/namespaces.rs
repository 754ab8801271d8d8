//! What happens to a namespace while its controller is well.

use std::time::Duration;

use super::{
    case::{
        Case,
        Life::{CameBack, Undisturbed},
        Made,
        Read::{Done, Failed, Held, Late},
        Turn,
    },
    case_target::Stage,
};

const READ: Made = Made {
    closed: false,
    namespace: true,
    subsystem: &[],
    port: &[],
    hosts: &[],
    companion: false,
    prepare: None,
    script: None,
    mapped: false,
};

/// Why reads of a namespace that can't be reached now differ.
const ANA: &str = "ours has one path, and tells at once that the namespace is not to be had there; \
                   Linux holds the read for a path that may never come";

/// Long enough for what would disturb a controller.
const WATCH: Duration = Duration::from_secs(4);

pub(crate) fn cases() -> Vec<Case> {
    [attached(), media()].concat()
}

/// What it is stored on.
const MAPPED: Made = Made { mapped: true, ..READ };

/// Media that are slow, fail or hang.
fn media() -> Vec<Case> {
    let hangs = |name| {
        let heal = |stage: &Stage| stage.mapper("resume");
        Case::live(name, |stage| stage.mapper("suspend --noflush --nolockfs"))
            .made(MAPPED)
            .heal(heal)
            .watched(WATCH)
    };
    vec![
        Case::live("medium slow (dm-delay 300 ms), read", |stage| {
            stage.map("delay /dev/ram0 0 300");
        })
        .made(MAPPED)
        .watched(WATCH)
        .both(Undisturbed.and(Done)),
        Case::live("medium fails (dm-error), read", |stage| stage.map("error"))
            .made(MAPPED)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("medium fails (dm-flakey), read", |stage| {
            stage.map("flakey /dev/ram0 0 0 3600");
        })
        .made(MAPPED)
        .watched(WATCH)
        .both(Undisturbed.and(Failed)),
        hangs("medium hangs, read, goes on").both(Undisturbed.and(Late)),
        hangs("medium hangs past the command timeout of 2 s, read, goes on")
            .with(|options| options.io_timeout = Some(2))
            .lasting(Duration::from_secs(6))
            .turn(Turn::Alone)
            .both(CameBack.and(Late)),
    ]
}

fn attached() -> Vec<Case> {
    let enable = |stage: &Stage| stage.namespace("enable", "1");
    vec![
        Case::live("namespace well, read", |_| ())
            .made(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
        Case::live("namespace disabled, read", |stage| stage.namespace("enable", "0"))
            .made(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("namespace disabled and enabled, read", |stage| {
            stage.namespace("enable", "0");
            std::thread::sleep(Duration::from_secs(1));
            stage.namespace("enable", "1");
        })
        .made(READ)
        .watched(WATCH)
        .differs(
            Undisturbed.and(Failed),
            Undisturbed.and(Done),
            "Linux has made another block device of it, and who has the first one open reads no \
             more; ours knows that it is the same namespace",
        ),
        Case::live("namespace disabled, read, enabled", |stage| stage.namespace("enable", "0"))
            .made(READ)
            .heal(enable)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("namespace removed, read", |stage| stage.remove_namespace(1))
            .made(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Failed)),
        Case::live("another namespace added, read", |stage| stage.add_namespace(2))
            .made(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
        Case::live("ANA group non-optimized, read", |stage| stage.ana("non-optimized"))
            .made(READ)
            .watched(WATCH)
            .both(Undisturbed.and(Done)),
        Case::live("ANA group inaccessible, read", |stage| stage.ana("inaccessible"))
            .made(READ)
            .watched(WATCH)
            .differs(Undisturbed.and(Held), Undisturbed.and(Failed), ANA),
        Case::live("ANA group inaccessible, read, optimized", |stage| stage.ana("inaccessible"))
            .made(READ)
            .heal(|stage| stage.ana("optimized"))
            .watched(WATCH)
            .differs(Undisturbed.and(Late), Undisturbed.and(Failed), ANA),
        Case::live("ANA group lost persistently, read", |stage| stage.ana("persistent-loss"))
            .made(READ)
            .watched(WATCH)
            .differs(Undisturbed.and(Held), Undisturbed.and(Failed), ANA),
        Case::live("ANA group in change, read, optimized", |stage| stage.ana("change"))
            .made(READ)
            .heal(|stage| stage.ana("optimized"))
            .watched(WATCH)
            .differs(Undisturbed.and(Late), Undisturbed.and(Failed), ANA),
    ]
}
