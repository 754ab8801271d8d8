//! The first connect. Linux never retries it, nor do we unless asked to.

use super::{
    case::{
        Case, KernelFeature,
        Outcome::{Connected, Refused},
        Schedule, TargetSpec,
    },
    case_target::CaseTarget,
};

pub(crate) fn cases() -> Vec<Case> {
    [granted(), limits(), refused()].concat()
}

fn granted() -> Vec<Case> {
    vec![
        Case::first("first connect: nothing special"),
        Case::first("first connect: host allowed by name")
            .target(TargetSpec { closed: true, ..TargetSpec::default() }),
        Case::first("first connect: keep_alive_tmo=0").with(|options| options.keep_alive = 0),
        Case::first("first connect: keep_alive_tmo=1").with(|options| options.keep_alive = 1),
        Case::first("first connect: ctrl_loss_tmo=0").with(|options| options.loss_timeout = 0),
        Case::first("first connect: ctrl_loss_tmo=-1").with(|options| options.loss_timeout = -1),
        Case::first("first connect: second subsystem of a port")
            .target(TargetSpec { companion: true, ..TargetSpec::default() }),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case::first("first connect: more queues asked for than qid_max allows")
            .target(TargetSpec { subsystem: &[("qid_max", "1")], ..TargetSpec::default() })
            .with(|options| options.io_queues = 8),
        Case::first("first connect: queue_size above what the port grants")
            .target(TargetSpec { port: &[("max_queue_size", "16")], ..TargetSpec::default() })
            .with(|options| options.queue_entries = 1024),
        Case::first("first connect: the largest queues of the port")
            .target(TargetSpec { port: &[("max_queue_size", "256")], ..TargetSpec::default() })
            .with(|options| options.queue_entries = 1024),
        Case::first("first connect: no in-capsule data")
            .target(TargetSpec { port: &[("inline_data_size", "0")], ..TargetSpec::default() }),
        Case::first("first connect: 16 KiB of in-capsule data")
            .target(TargetSpec { port: &[("inline_data_size", "16384")], ..TargetSpec::default() }),
        Case::first("first connect: transfers of one page (MDTS 0 is no limit, 1 is 8 KiB)")
            .target(TargetSpec { port: &[("mdts", "1")], ..TargetSpec::default() })
            .needs(KernelFeature::TransferLimit),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        Case::first("first connect: no such subsystem (0x182 DNR)")
            .with(|options| options.subsystem = Some("nqn.2026-11.org.soft-roce:none"))
            .both(Refused),
        Case::first("first connect: subsystem not at this port (0x182 DNR)")
            .target(TargetSpec {
                companion: true,
                prepare: Some(CaseTarget::unlink),
                ..TargetSpec::default()
            })
            .both(Refused),
        Case::first("first connect: host not allowed (0x184 DNR)")
            .target(TargetSpec {
                closed: true,
                prepare: Some(CaseTarget::disallow),
                ..TargetSpec::default()
            })
            .both(Refused),
        Case::first("first connect: controller ids used up (0x181 DNR)")
            .target(TargetSpec { prepare: Some(CaseTarget::use_up_ids), ..TargetSpec::default() })
            .both(Refused),
        Case::first("first connect: namespace disabled")
            .target(TargetSpec {
                namespace: true,
                prepare: Some(|target| target.namespace("enable", "0")),
                ..TargetSpec::default()
            })
            .both(Connected),
        Case::first("first connect: nobody listens (CM reject 8)")
            .with(|options| options.service = Some(4999))
            .both(Refused),
        Case::first("first connect: port without a subsystem (CM reject 8)")
            .target(TargetSpec { prepare: Some(CaseTarget::unlink), ..TargetSpec::default() })
            .both(Refused),
        Case::first("first connect: no route to the address")
            .with(|options| options.address = Some("192.0.2.1"))
            .both(Refused),
        Case::first("first connect: an address of no RDMA device")
            .with(|options| options.address = Some("127.0.0.1"))
            .both(Refused),
        Case::first("first connect: nobody at the address")
            .with(|options| options.address = Some("10.10.10.77"))
            .schedule(Schedule::Alone)
            .both(Refused),
    ]
}
