//! Refusals of a reconnect. A status with DNR is the end for both (Linux since 6.10).

use std::time::Duration;

use super::{
    case::{
        Case,
        Life::{CameBack, Exhausted, GaveUp, Undisturbed},
        Made, Wish,
    },
    case_target::Stage,
};

const CLOSED: Made = Made {
    closed: true,
    namespace: false,
    subsystem: &[],
    port: &[],
    hosts: &[],
    companion: false,
    prepare: None,
    script: None,
    mapped: false,
};

const WITH_COMPANION: Made = Made { closed: false, companion: true, ..CLOSED };

pub(crate) fn cases() -> Vec<Case> {
    [of_hosts(), of_subsystems(), of_controllers()].concat()
}

fn of_hosts() -> Vec<Case> {
    vec![
        Case::live("host removed, connection left alone", Stage::disallow)
            .made(CLOSED)
            .watched(Duration::from_secs(4))
            .both(Undisturbed),
        Case::live("host removed, controller fatal (0x184 DNR)", |stage| {
            stage.disallow();
            stage.fatal();
        })
        .made(CLOSED)
        .both(GaveUp),
        Case::live("host removed, port closed for a while (0x184 DNR)", |stage| {
            stage.disallow();
            stage.unlink();
        })
        .made(CLOSED)
        .heal(Stage::link)
        .both(GaveUp),
        Case::live("host removed, controller fatal, host allowed before the attempt", |stage| {
            stage.disallow();
            stage.fatal();
            stage.allow();
        })
        .made(CLOSED)
        .both(CameBack),
        Case::live("subsystem no longer for any host, controller fatal (0x184 DNR)", |stage| {
            stage.subsystem("allow_any_host", "0");
            stage.fatal();
        })
        .both(GaveUp),
        Case::live("subsystem for any host instead of two, controller fatal", |stage| {
            stage.disallow();
            stage.subsystem("allow_any_host", "1");
            stage.fatal();
        })
        .made(CLOSED)
        .both(CameBack),
        Case::live("host removed, controller fatal, no attempts (ctrl_loss_tmo=0)", |stage| {
            stage.disallow();
            stage.fatal();
        })
        .made(CLOSED)
        .with(|options| options.loss_timeout = 0)
        .both(Exhausted),
        Case::live("host removed, controller fatal, attempts for ever (0x184 DNR)", |stage| {
            stage.disallow();
            stage.fatal();
        })
        .made(CLOSED)
        .with(|options| options.loss_timeout = -1)
        .both(GaveUp),
    ]
}

fn of_subsystems() -> Vec<Case> {
    vec![
        Case::live("subsystem taken from a port that stays open (0x182 DNR)", Stage::unlink)
            .made(WITH_COMPANION)
            .both(GaveUp),
        Case::live("subsystem taken from an open port, back before the attempt", |stage| {
            stage.unlink();
            stage.link();
        })
        .made(WITH_COMPANION)
        .both(CameBack),
        Case::live("subsystem removed, port stays open (0x182 DNR)", Stage::remove_subsystem)
            .made(WITH_COMPANION)
            .both(GaveUp),
        Case::live("subsystem removed and made again before the attempt", |stage| {
            stage.remove_subsystem();
            stage.remake_subsystem();
        })
        .made(WITH_COMPANION)
        .both(CameBack),
        Case::live("subsystem taken from a port that stays open, for ever (0x182 DNR)", |stage| {
            stage.unlink();
        })
        .made(WITH_COMPANION)
        .with(|options| options.loss_timeout = -1)
        .both(GaveUp),
    ]
}

fn of_controllers() -> Vec<Case> {
    vec![
        Case::live("controller ids used up, controller fatal (0x181 DNR)", |stage| {
            stage.use_up_ids();
            stage.fatal();
        })
        .both(GaveUp),
        Case::live("controller ids used up, connection left alone", Stage::use_up_ids)
            .watched(Duration::from_secs(4))
            .both(Undisturbed),
        Case::live("controller ids used up, reset (0x181 DNR)", Stage::use_up_ids)
            .wish(Wish::Reset)
            .both(GaveUp),
    ]
}
