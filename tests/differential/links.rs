//! What is done to the network, which every connection feels.

use std::time::Duration;

use super::case::Life::{CameBack, StillTrying};
use super::case::{Case, Turn};
use super::stage::command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::live("port of the device down for 5 s", |_| command("ip link set dum0 down"))
            .lasting(Duration::from_secs(5))
            .heal(|_| command("ip link set dum0 up"))
            .watched(Duration::from_secs(12))
            .turn(Turn::OneByOne)
            .abandoned()
            .differs(
                StillTrying,
                CameBack,
                "ours sends no request while the port is down, which breaks RDMA-CM on rxe, and \
                 connects as soon as the port is back",
            ),
    ]
}
