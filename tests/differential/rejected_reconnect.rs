//! Refusals of a reconnect. A status with DNR is the end for both (Linux since 6.10).

use std::time::Duration;

use super::{
    case::{
        Case,
        Outcome::{CameBack, Exhausted, GaveUp, Undisturbed},
        OwnerRequest, TargetSpec,
    },
    case_target::CaseTarget,
};

const CLOSED: TargetSpec = TargetSpec {
    closed: true,
    namespace: false,
    subsystem: &[],
    port: &[],
    hosts: &[],
    companion: false,
    prepare: None,
    fake: None,
    mapped: false,
};

const WITH_COMPANION: TargetSpec = TargetSpec { closed: false, companion: true, ..CLOSED };

pub(crate) fn cases() -> Vec<Case> {
    [of_hosts(), of_subsystems(), of_controllers()].concat()
}

fn of_hosts() -> Vec<Case> {
    vec![
        Case::live("host removed, connection left alone", CaseTarget::disallow)
            .target(CLOSED)
            .watched(Duration::from_secs(4))
            .both(Undisturbed),
        Case::live("host removed, controller fatal (0x184 DNR)", |target| {
            target.disallow();
            target.fatal();
        })
        .target(CLOSED)
        .both(GaveUp),
        Case::live("host removed, port closed for a while (0x184 DNR)", |target| {
            target.disallow();
            target.unlink();
        })
        .target(CLOSED)
        .heal(CaseTarget::link)
        .both(GaveUp),
        Case::live("host removed, controller fatal, host allowed before the attempt", |target| {
            target.disallow();
            target.fatal();
            target.allow();
        })
        .target(CLOSED)
        .both(CameBack),
        Case::live("subsystem no longer for any host, controller fatal (0x184 DNR)", |target| {
            target.subsystem("allow_any_host", "0");
            target.fatal();
        })
        .both(GaveUp),
        Case::live("subsystem for any host instead of two, controller fatal", |target| {
            target.disallow();
            target.subsystem("allow_any_host", "1");
            target.fatal();
        })
        .target(CLOSED)
        .both(CameBack),
        Case::live("host removed, controller fatal, no attempts (ctrl_loss_tmo=0)", |target| {
            target.disallow();
            target.fatal();
        })
        .target(CLOSED)
        .with(|options| options.loss_timeout = 0)
        .both(Exhausted),
        Case::live("host removed, controller fatal, attempts for ever (0x184 DNR)", |target| {
            target.disallow();
            target.fatal();
        })
        .target(CLOSED)
        .with(|options| options.loss_timeout = -1)
        .both(GaveUp),
    ]
}

fn of_subsystems() -> Vec<Case> {
    vec![
        Case::live("subsystem taken from a port that stays open (0x182 DNR)", CaseTarget::unlink)
            .target(WITH_COMPANION)
            .both(GaveUp),
        Case::live("subsystem taken from an open port, back before the attempt", |target| {
            target.unlink();
            target.link();
        })
        .target(WITH_COMPANION)
        .both(CameBack),
        Case::live("subsystem removed, port stays open (0x182 DNR)", CaseTarget::remove_subsystem)
            .target(WITH_COMPANION)
            .both(GaveUp),
        Case::live("subsystem removed and made again before the attempt", |target| {
            target.remove_subsystem();
            target.remake_subsystem();
        })
        .target(WITH_COMPANION)
        .both(CameBack),
        Case::live("subsystem taken from a port that stays open, for ever (0x182 DNR)", |target| {
            target.unlink();
        })
        .target(WITH_COMPANION)
        .with(|options| options.loss_timeout = -1)
        .both(GaveUp),
    ]
}

fn of_controllers() -> Vec<Case> {
    vec![
        Case::live("controller ids used up, controller fatal (0x181 DNR)", |target| {
            target.use_up_ids();
            target.fatal();
        })
        .both(GaveUp),
        Case::live("controller ids used up, connection left alone", CaseTarget::use_up_ids)
            .watched(Duration::from_secs(4))
            .both(Undisturbed),
        Case::live("controller ids used up, reset (0x181 DNR)", CaseTarget::use_up_ids)
            .request(OwnerRequest::Reset)
            .both(GaveUp),
    ]
}
