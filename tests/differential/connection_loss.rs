//! Losses that time may heal: what is held, how often is tried, and what comes back.

use std::time::Duration;

use super::{
    case::{
        Case,
        Life::{CameBack, Deleted, Exhausted, GaveUp, StillTrying},
        Made, Need,
        Read::{Failed, Held, Late, LateFailed},
        Wish,
    },
    case_target::Stage,
};

pub(crate) fn cases() -> Vec<Case> {
    [ports(), targets(), controllers(), limits(), wishes(), reads()].concat()
}

fn ports() -> Vec<Case> {
    vec![
        Case::live("port closed for a while", Stage::unlink).heal(Stage::link).both(CameBack),
        Case::live("port closed and opened at once", |stage| {
            stage.unlink();
            stage.link();
        })
        .both(CameBack),
        Case::live("port closed for good", Stage::unlink)
            .with(|options| options.loss_timeout = 3)
            .both(Exhausted),
        Case::live("port closed for good, one attempt", Stage::unlink)
            .with(|options| options.loss_timeout = 1)
            .both(Exhausted),
        Case::live("port closed for good, no attempts (ctrl_loss_tmo=0)", Stage::unlink)
            .with(|options| options.loss_timeout = 0)
            .both(Exhausted),
        Case::live("port closed for good, attempts for ever", Stage::unlink)
            .with(|options| options.loss_timeout = -1)
            .watched(Duration::from_secs(4))
            .both(StillTrying),
        Case::live("port opened when all attempts are used up", Stage::unlink)
            .with(|options| options.loss_timeout = 1)
            .lasting(Duration::from_secs(4))
            .heal(Stage::link)
            .both(Exhausted),
        Case::live("port closed three times", |stage| {
            for _ in 0..3 {
                stage.unlink();
                std::thread::sleep(Duration::from_millis(300));
                stage.link();
                std::thread::sleep(Duration::from_millis(1500));
            }
        })
        .both(CameBack),
        Case::live("port opens at another service", |stage| {
            stage.unlink();
            stage.port("trsvcid", &(stage.service() + 1000).to_string());
            stage.link();
        })
        .with(|options| options.loss_timeout = 3)
        .both(Exhausted),
        Case::live("port opens at another service, and at the old one later", |stage| {
            stage.unlink();
            stage.port("trsvcid", &(stage.service() + 1000).to_string());
            stage.link();
        })
        .heal(|stage| stage.reopen("trsvcid", &stage.service().to_string()))
        .both(CameBack),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        Case::live("target down and up", Stage::down).heal(Stage::make).both(CameBack),
        Case::live("target down and up at once", |stage| {
            stage.down();
            stage.make();
        })
        .both(CameBack),
        Case::live("target down for good", Stage::down)
            .with(|options| options.loss_timeout = 3)
            .both(Exhausted),
        Case::live("target down, up without the subsystem (0x182 DNR)", Stage::down)
            .made(Made { companion: true, ..Made::default() })
            .heal(|stage| {
                stage.make();
                stage.remove_subsystem();
            })
            .both(GaveUp),
        Case::live("target down, up without the host (0x184 DNR)", Stage::down)
            .made(Made { closed: true, ..Made::default() })
            .heal(|stage| {
                stage.make_for_nobody();
            })
            .both(GaveUp),
        Case::live("target down and up, keep_alive_tmo=0", Stage::down)
            .with(|options| options.keep_alive = 0)
            .heal(Stage::make)
            .both(CameBack),
        Case::live("target down and up, keep_alive_tmo=1", Stage::down)
            .with(|options| options.keep_alive = 1)
            .heal(Stage::make)
            .both(CameBack),
    ]
}

fn controllers() -> Vec<Case> {
    vec![
        Case::live("controller fatal (CSTS.CFS)", Stage::fatal).both(CameBack),
        Case::live("controller fatal, no attempts (ctrl_loss_tmo=0)", Stage::fatal)
            .with(|options| options.loss_timeout = 0)
            .both(Exhausted),
        Case::live("controller fatal, one attempt", Stage::fatal)
            .with(|options| options.loss_timeout = 1)
            .both(CameBack),
        Case::live("controller fatal three times, one attempt for each", Stage::fatal)
            .times(3)
            .with(|options| options.loss_timeout = 1)
            .both(CameBack),
        Case::live("controller fatal with eight queues", Stage::fatal)
            .with(|options| options.io_queues = 8)
            .both(CameBack),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case::live("fewer queues (qid_max 4 to 1)", |stage| stage.subsystem("qid_max", "1"))
            .made(Made { subsystem: &[("qid_max", "4")], ..Made::default() })
            .with(|options| options.io_queues = 4)
            .both(CameBack),
        Case::live("more queues (qid_max 1 to 4)", |stage| stage.subsystem("qid_max", "4"))
            .made(Made { subsystem: &[("qid_max", "1")], ..Made::default() })
            .with(|options| options.io_queues = 4)
            .both(CameBack),
        Case::live("fewer queues, no attempts (ctrl_loss_tmo=0)", |stage| {
            stage.subsystem("qid_max", "1");
        })
        .made(Made { subsystem: &[("qid_max", "4")], ..Made::default() })
        .with(|options| {
            options.io_queues = 4;
            options.loss_timeout = 0;
        })
        .both(Exhausted),
        Case::live("smaller queues (max_queue_size 128 to 16)", |stage| {
            stage.reopen("max_queue_size", "16");
        })
        .with(|options| options.queue_entries = 128)
        .both(CameBack),
        Case::live("larger queues (max_queue_size 16 to 128)", |stage| {
            stage.reopen("max_queue_size", "128");
        })
        .made(Made { port: &[("max_queue_size", "16")], ..Made::default() })
        .with(|options| options.queue_entries = 128)
        .both(CameBack),
        Case::live("in-capsule data 4 KiB to none", |stage| stage.reopen("inline_data_size", "0"))
            .made(Made { port: &[("inline_data_size", "4096")], ..Made::default() })
            .both(CameBack),
        Case::live("in-capsule data none to 16 KiB", |stage| {
            stage.reopen("inline_data_size", "16384");
        })
        .made(Made { port: &[("inline_data_size", "0")], ..Made::default() })
        .both(CameBack),
        Case::live("smaller transfers (MDTS 8 to 1)", |stage| stage.reopen("mdts", "1"))
            .made(Made { port: &[("mdts", "8")], ..Made::default() })
            .needs(Need::TransferLimit)
            .both(CameBack),
    ]
}

fn wishes() -> Vec<Case> {
    vec![
        Case::live("reset by its owner", |_| ()).wish(Wish::Reset).both(CameBack),
        Case::live("reset while the host is not allowed (0x184 DNR)", Stage::disallow)
            .made(Made { closed: true, ..Made::default() })
            .wish(Wish::Reset)
            .both(GaveUp),
        Case::live("reset while the port is closed", |stage| {
            stage.unlink();
            std::thread::sleep(Duration::from_millis(500));
        })
        .wish(Wish::Reset)
        .heal(Stage::link)
        .both(CameBack),
        Case::live("reset of a controller that is lost", |stage| {
            stage.fatal();
            std::thread::sleep(Duration::from_millis(500));
        })
        .wish(Wish::Reset)
        .both(CameBack),
        Case::live("deleted by its owner", |_| ()).wish(Wish::Delete).both(Deleted),
        Case::live("deleted while it waits for the next attempt", |stage| {
            stage.unlink();
            std::thread::sleep(Duration::from_millis(1500));
        })
        .wish(Wish::Delete)
        .both(Deleted),
        Case::live("deleted at the moment the target goes down", Stage::down)
            .wish(Wish::Delete)
            .both(Deleted),
    ]
}

fn reads() -> Vec<Case> {
    let read = Made { namespace: true, ..Made::default() };
    vec![
        Case::live("port closed for a while, read", Stage::unlink)
            .made(read)
            .heal(Stage::link)
            .both(CameBack.and(Late)),
        Case::live("port closed, read, commands held for ever", Stage::unlink)
            .made(read)
            .with(|options| options.loss_timeout = -1)
            .watched(Duration::from_secs(4))
            .both(StillTrying.and(Held)),
        Case::live("port closed, read, fast_io_fail_tmo=1", Stage::unlink)
            .made(read)
            .with(|options| {
                options.loss_timeout = -1;
                options.fast_io_fail = Some(1);
            })
            .watched(Duration::from_secs(4))
            .both(StillTrying.and(Failed)),
        Case::live("port closed, read, fast_io_fail_tmo=1, port opened", Stage::unlink)
            .made(read)
            .with(|options| options.fast_io_fail = Some(1))
            .heal(Stage::link)
            .both(CameBack.and(Failed)),
        Case::live("port closed for good, read", Stage::unlink)
            .made(read)
            .with(|options| options.loss_timeout = 2)
            .both(Exhausted.and(Failed)),
        Case::live("target restarted with another namespace in this one's place, read", |stage| {
            stage.down();
        })
        .made(read)
        .heal(Stage::make)
        .differs(
            CameBack.and(Late),
            CameBack.and(LateFailed),
            "ours knows the namespaces it uses by their UUIDs: what is read now is not to be taken \
             for the data of before",
        ),
    ]
}
