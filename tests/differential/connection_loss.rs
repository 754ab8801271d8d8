//! Losses that time may heal: what is held, how often is tried, and what comes back.

use std::time::Duration;

use super::{
    case::{
        Case, KernelFeature,
        Outcome::{CameBack, Deleted, Exhausted, GaveUp, StillTrying},
        OwnerRequest,
        ReadOutcome::{Failed, Held, Late, LateFailed},
        TargetSpec,
    },
    case_target::CaseTarget,
};

pub(crate) fn cases() -> Vec<Case> {
    [ports(), targets(), controllers(), limits(), wishes(), reads()].concat()
}

fn ports() -> Vec<Case> {
    vec![
        Case::live("port closed for a while", CaseTarget::unlink)
            .heal(CaseTarget::link)
            .both(CameBack),
        Case::live("port closed and opened at once", |target| {
            target.unlink();
            target.link();
        })
        .both(CameBack),
        Case::live("port closed for good", CaseTarget::unlink)
            .with(|options| options.loss_timeout = 3)
            .both(Exhausted),
        Case::live("port closed for good, one attempt", CaseTarget::unlink)
            .with(|options| options.loss_timeout = 1)
            .both(Exhausted),
        Case::live("port closed for good, no attempts (ctrl_loss_tmo=0)", CaseTarget::unlink)
            .with(|options| options.loss_timeout = 0)
            .both(Exhausted),
        Case::live("port closed for good, attempts for ever", CaseTarget::unlink)
            .with(|options| options.loss_timeout = -1)
            .watched(Duration::from_secs(4))
            .both(StillTrying),
        Case::live("port opened when all attempts are used up", CaseTarget::unlink)
            .with(|options| options.loss_timeout = 1)
            .lasting(Duration::from_secs(4))
            .heal(CaseTarget::link)
            .both(Exhausted),
        Case::live("port closed three times", |target| {
            for _ in 0..3 {
                target.unlink();
                std::thread::sleep(Duration::from_millis(300));
                target.link();
                std::thread::sleep(Duration::from_millis(1500));
            }
        })
        .both(CameBack),
        Case::live("port opens at another service", |target| {
            target.unlink();
            target.port("trsvcid", &(target.service() + 1000).to_string());
            target.link();
        })
        .with(|options| options.loss_timeout = 3)
        .both(Exhausted),
        Case::live("port opens at another service, and at the old one later", |target| {
            target.unlink();
            target.port("trsvcid", &(target.service() + 1000).to_string());
            target.link();
        })
        .heal(|target| target.reopen("trsvcid", &target.service().to_string()))
        .both(CameBack),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        Case::live("target down and up", CaseTarget::down).heal(CaseTarget::make).both(CameBack),
        Case::live("target down and up at once", |target| {
            target.down();
            target.make();
        })
        .both(CameBack),
        Case::live("target down for good", CaseTarget::down)
            .with(|options| options.loss_timeout = 3)
            .both(Exhausted),
        Case::live("target down, up without the subsystem (0x182 DNR)", CaseTarget::down)
            .target(TargetSpec { companion: true, ..TargetSpec::default() })
            .heal(|target| {
                target.make();
                target.remove_subsystem();
            })
            .both(GaveUp),
        Case::live("target down, up without the host (0x184 DNR)", CaseTarget::down)
            .target(TargetSpec { closed: true, ..TargetSpec::default() })
            .heal(|target| {
                target.make_without_hosts();
            })
            .both(GaveUp),
        Case::live("target down and up, keep_alive_tmo=0", CaseTarget::down)
            .with(|options| options.keep_alive = 0)
            .heal(CaseTarget::make)
            .both(CameBack),
        Case::live("target down and up, keep_alive_tmo=1", CaseTarget::down)
            .with(|options| options.keep_alive = 1)
            .heal(CaseTarget::make)
            .both(CameBack),
    ]
}

fn controllers() -> Vec<Case> {
    vec![
        Case::live("controller fatal (CSTS.CFS)", CaseTarget::fatal).both(CameBack),
        Case::live("controller fatal, no attempts (ctrl_loss_tmo=0)", CaseTarget::fatal)
            .with(|options| options.loss_timeout = 0)
            .both(Exhausted),
        Case::live("controller fatal, one attempt", CaseTarget::fatal)
            .with(|options| options.loss_timeout = 1)
            .both(CameBack),
        Case::live("controller fatal three times, one attempt for each", CaseTarget::fatal)
            .times(3)
            .with(|options| options.loss_timeout = 1)
            .both(CameBack),
        Case::live("controller fatal with eight queues", CaseTarget::fatal)
            .with(|options| options.io_queues = 8)
            .both(CameBack),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case::live("fewer queues (qid_max 4 to 1)", |target| target.subsystem("qid_max", "1"))
            .target(TargetSpec { subsystem: &[("qid_max", "4")], ..TargetSpec::default() })
            .with(|options| options.io_queues = 4)
            .both(CameBack),
        Case::live("more queues (qid_max 1 to 4)", |target| target.subsystem("qid_max", "4"))
            .target(TargetSpec { subsystem: &[("qid_max", "1")], ..TargetSpec::default() })
            .with(|options| options.io_queues = 4)
            .both(CameBack),
        Case::live("fewer queues, no attempts (ctrl_loss_tmo=0)", |target| {
            target.subsystem("qid_max", "1");
        })
        .target(TargetSpec { subsystem: &[("qid_max", "4")], ..TargetSpec::default() })
        .with(|options| {
            options.io_queues = 4;
            options.loss_timeout = 0;
        })
        .both(Exhausted),
        Case::live("smaller queues (max_queue_size 128 to 16)", |target| {
            target.reopen("max_queue_size", "16");
        })
        .with(|options| options.queue_entries = 128)
        .both(CameBack),
        Case::live("larger queues (max_queue_size 16 to 128)", |target| {
            target.reopen("max_queue_size", "128");
        })
        .target(TargetSpec { port: &[("max_queue_size", "16")], ..TargetSpec::default() })
        .with(|options| options.queue_entries = 128)
        .both(CameBack),
        Case::live("in-capsule data 4 KiB to none", |target| {
            target.reopen("inline_data_size", "0")
        })
        .target(TargetSpec { port: &[("inline_data_size", "4096")], ..TargetSpec::default() })
        .both(CameBack),
        Case::live("in-capsule data none to 16 KiB", |target| {
            target.reopen("inline_data_size", "16384");
        })
        .target(TargetSpec { port: &[("inline_data_size", "0")], ..TargetSpec::default() })
        .both(CameBack),
        Case::live("smaller transfers (MDTS 8 to 1)", |target| target.reopen("mdts", "1"))
            .target(TargetSpec { port: &[("mdts", "8")], ..TargetSpec::default() })
            .needs(KernelFeature::TransferLimit)
            .both(CameBack),
    ]
}

fn wishes() -> Vec<Case> {
    vec![
        Case::live("reset by its owner", |_| ()).request(OwnerRequest::Reset).both(CameBack),
        Case::live("reset while the host is not allowed (0x184 DNR)", CaseTarget::disallow)
            .target(TargetSpec { closed: true, ..TargetSpec::default() })
            .request(OwnerRequest::Reset)
            .both(GaveUp),
        Case::live("reset while the port is closed", |target| {
            target.unlink();
            std::thread::sleep(Duration::from_millis(500));
        })
        .request(OwnerRequest::Reset)
        .heal(CaseTarget::link)
        .both(CameBack),
        Case::live("reset of a controller that is lost", |target| {
            target.fatal();
            std::thread::sleep(Duration::from_millis(500));
        })
        .request(OwnerRequest::Reset)
        .both(CameBack),
        Case::live("deleted by its owner", |_| ()).request(OwnerRequest::Delete).both(Deleted),
        Case::live("deleted while it waits for the next attempt", |target| {
            target.unlink();
            std::thread::sleep(Duration::from_millis(1500));
        })
        .request(OwnerRequest::Delete)
        .both(Deleted),
        Case::live("deleted at the moment the target goes down", CaseTarget::down)
            .request(OwnerRequest::Delete)
            .both(Deleted),
    ]
}

fn reads() -> Vec<Case> {
    let read = TargetSpec { namespace: true, ..TargetSpec::default() };
    vec![
        Case::live("port closed for a while, read", CaseTarget::unlink)
            .target(read)
            .heal(CaseTarget::link)
            .both(CameBack.and(Late)),
        Case::live("port closed, read, commands held for ever", CaseTarget::unlink)
            .target(read)
            .with(|options| options.loss_timeout = -1)
            .watched(Duration::from_secs(4))
            .both(StillTrying.and(Held)),
        Case::live("port closed, read, fast_io_fail_tmo=1", CaseTarget::unlink)
            .target(read)
            .with(|options| {
                options.loss_timeout = -1;
                options.fast_io_fail = Some(1);
            })
            .watched(Duration::from_secs(4))
            .both(StillTrying.and(Failed)),
        Case::live("port closed, read, fast_io_fail_tmo=1, port opened", CaseTarget::unlink)
            .target(read)
            .with(|options| options.fast_io_fail = Some(1))
            .heal(CaseTarget::link)
            .both(CameBack.and(Failed)),
        Case::live("port closed for good, read", CaseTarget::unlink)
            .target(read)
            .with(|options| options.loss_timeout = 2)
            .both(Exhausted.and(Failed)),
        Case::live("target restarted with another namespace in this one's place, read", |target| {
            target.down();
        })
        .target(read)
        .heal(CaseTarget::make)
        .differs(
            CameBack.and(Late),
            CameBack.and(LateFailed),
            "ours knows the namespaces it uses by their UUIDs: what is read now is not to be taken \
             for the data of before",
        ),
    ]
}
