//! Faults of the network, which every connection meets.

use std::time::Duration;

use super::{
    case::{
        Case, KernelFeature,
        Outcome::{CameBack, Exhausted, StillTrying},
        Schedule, TargetSpec,
    },
    case_target::command,
    fake_target::{FakeTargetSpec, REMOTE_ADDRESS},
};

pub(crate) fn cases() -> Vec<Case> {
    [silence(), ports()].concat()
}

/// The wire swallows everything, and says nothing about it.
fn silence() -> Vec<Case> {
    let silent = |name| {
        let fake = FakeTargetSpec { remote: true, ..FakeTargetSpec::misbehaving(|_, _| ()) };
        Case::live(name, |_| command("tc qdisc add dev wire0 root netem loss 100%"))
            .target(TargetSpec { fake: Some(fake), ..TargetSpec::default() })
            .with(|options| {
                options.address = Some(REMOTE_ADDRESS);
                options.keep_alive = 2;
            })
            .heal(|_| command("tc qdisc del dev wire0 root"))
            .needs(KernelFeature::OtherMachine)
            .schedule(Schedule::Alone)
    };
    vec![
        silent("silent link for 6 s, keep_alive_tmo=2")
            .lasting(Duration::from_secs(6))
            .watched(Duration::from_secs(12))
            .both(CameBack),
        silent("silent link for 12 s, keep_alive_tmo=2, one attempt")
            .with(|options| options.loss_timeout = 1)
            .lasting(Duration::from_secs(12))
            .watched(Duration::from_secs(12))
            .differs(
                CameBack,
                Exhausted,
                "an attempt of Linux lasts as long as its CM has patience, more than a minute, so \
                 that ctrl_loss_tmo says little; ours has a deadline",
            ),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        Case::live("port of the device down for 5 s", |_| command("ip link set dum0 down"))
            .lasting(Duration::from_secs(5))
            .heal(|_| command("ip link set dum0 up"))
            .watched(Duration::from_secs(12))
            .schedule(Schedule::OneByOne)
            .abandoned()
            .differs(
                StillTrying,
                CameBack,
                "ours sends no request while the port is down, which breaks RDMA-CM on rxe, and \
                 connects as soon as the port is back",
            ),
    ]
}
