//! What is done to the network, which every connection feels.

use std::time::Duration;

use super::case::Life::{CameBack, GaveUp, StillTrying};
use super::case::{Case, Need, Turn};
use super::stage::command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::live("RDMA device removed, back later", |_| command("rdma link del rxe0"))
            .heal(|stage| {
                command("rdma link add rxe0 type rxe netdev dum0");
                stage.unlink();
                stage.link();
            })
            .watched(Duration::from_secs(15))
            .turn(Turn::InTurn)
            .needs(Need::DeviceRemoval)
            .differs(
                GaveUp,
                CameBack,
                "Linux deletes the controllers of a device that is removed; ours looks for another \
                 way to the target as long as its options say",
            ),
        Case::live("port of the device down for 5 s", |_| command("ip link set dum0 down"))
            .lasting(Duration::from_secs(5))
            .heal(|_| command("ip link set dum0 up"))
            .watched(Duration::from_secs(12))
            .turn(Turn::InTurn)
            .abandoned()
            .differs(
                StillTrying,
                CameBack,
                "ours sends no request while the port is down, which breaks RDMA-CM on rxe, and \
                 connects as soon as the port is back",
            ),
    ]
}
