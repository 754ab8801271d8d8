//! The first connect. Linux never retries it, nor do we unless asked to.

use super::{
    case::{
        Case,
        Life::{Connected, Refused},
        Made, Need, Turn,
    },
    case_target::Stage,
};

pub(crate) fn cases() -> Vec<Case> {
    [granted(), limits(), refused()].concat()
}

fn granted() -> Vec<Case> {
    vec![
        Case::first("first connect: nothing special"),
        Case::first("first connect: host allowed by name")
            .made(Made { closed: true, ..Made::default() }),
        Case::first("first connect: keep_alive_tmo=0").with(|options| options.keep_alive = 0),
        Case::first("first connect: keep_alive_tmo=1").with(|options| options.keep_alive = 1),
        Case::first("first connect: ctrl_loss_tmo=0").with(|options| options.loss_timeout = 0),
        Case::first("first connect: ctrl_loss_tmo=-1").with(|options| options.loss_timeout = -1),
        Case::first("first connect: second subsystem of a port")
            .made(Made { companion: true, ..Made::default() }),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case::first("first connect: more queues asked for than qid_max allows")
            .made(Made { subsystem: &[("qid_max", "1")], ..Made::default() })
            .with(|options| options.io_queues = 8),
        Case::first("first connect: queue_size above what the port grants")
            .made(Made { port: &[("max_queue_size", "16")], ..Made::default() })
            .with(|options| options.queue_entries = 1024),
        Case::first("first connect: the largest queues of the port")
            .made(Made { port: &[("max_queue_size", "256")], ..Made::default() })
            .with(|options| options.queue_entries = 1024),
        Case::first("first connect: no in-capsule data")
            .made(Made { port: &[("inline_data_size", "0")], ..Made::default() }),
        Case::first("first connect: 16 KiB of in-capsule data")
            .made(Made { port: &[("inline_data_size", "16384")], ..Made::default() }),
        Case::first("first connect: transfers of one page (MDTS 0 is no limit, 1 is 8 KiB)")
            .made(Made { port: &[("mdts", "1")], ..Made::default() })
            .needs(Need::TransferLimit),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        Case::first("first connect: no such subsystem (0x182 DNR)")
            .with(|options| options.subsystem = Some("nqn.2026-11.org.soft-roce:none"))
            .both(Refused),
        Case::first("first connect: subsystem not at this port (0x182 DNR)")
            .made(Made { companion: true, prepare: Some(Stage::unlink), ..Made::default() })
            .both(Refused),
        Case::first("first connect: host not allowed (0x184 DNR)")
            .made(Made { closed: true, prepare: Some(Stage::disallow), ..Made::default() })
            .both(Refused),
        Case::first("first connect: controller ids used up (0x181 DNR)")
            .made(Made { prepare: Some(Stage::use_up_ids), ..Made::default() })
            .both(Refused),
        Case::first("first connect: namespace disabled")
            .made(Made {
                namespace: true,
                prepare: Some(|stage| stage.namespace("enable", "0")),
                ..Made::default()
            })
            .both(Connected),
        Case::first("first connect: nobody listens (CM reject 8)")
            .with(|options| options.service = Some(4999))
            .both(Refused),
        Case::first("first connect: port without a subsystem (CM reject 8)")
            .made(Made { prepare: Some(Stage::unlink), ..Made::default() })
            .both(Refused),
        Case::first("first connect: no route to the address")
            .with(|options| options.address = Some("192.0.2.1"))
            .both(Refused),
        Case::first("first connect: an address of no RDMA device")
            .with(|options| options.address = Some("127.0.0.1"))
            .both(Refused),
        Case::first("first connect: nobody at the address")
            .with(|options| options.address = Some("10.10.10.77"))
            .turn(Turn::Alone)
            .both(Refused),
    ]
}
