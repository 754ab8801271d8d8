//! Question whether a controller still exists, which leaves nothing at the target.

use super::vocabulary::{Execute, RdmaConnect, connect_command, connect_data};
use crate::{
    config::ConnectOptions,
    wire::{CmRequestData, ControllerId, QueueId},
};

/// I/O Connect that no target accepts, since its queue id is out of range: it asks whether the
/// controller still exists, and [`ProbeAnswer`](crate::proto::ProbeAnswer) decodes the refusal. A
/// valid queue id would be attached to a controller that does.
#[derive(Debug)]
pub struct ControllerProbe {
    /// Connection to make first.
    pub open: RdmaConnect,
    /// The Connect.
    pub connect: Execute,
}

impl ControllerProbe {
    /// Entries of the queue: the minimum.
    const ENTRIES: u16 = 2;
    /// Beyond the queue ids that targets grant. 65,535 itself stands for no queue in places.
    const QUEUE: QueueId = QueueId(u16::MAX - 1);

    /// Question about the controller of this id.
    #[must_use]
    pub fn new(options: &ConnectOptions, controller: ControllerId) -> Self {
        let (queue, entries) = (Self::QUEUE, Self::ENTRIES);
        let request = CmRequestData::new(queue, entries, controller);
        Self {
            open: RdmaConnect { queue, entries, request, in_capsule_bytes: 0 },
            connect: Execute {
                queue,
                sqe: connect_command(options, queue, entries, 0),
                transfer: connect_data(options, controller),
                name: "a question about an old controller",
            },
        }
    }
}
