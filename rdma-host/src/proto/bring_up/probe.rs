//! Question whether a controller still exists, which leaves nothing at the target.

use super::actions::{Execute, RdmaConnect, connect_command, connect_data};
use crate::{
    config::ConnectOptions,
    proto::ProbeQuestion,
    wire::{CmRequestData, QueueId},
};

/// I/O Connect that the target does not accept, since its queue id or queue size is out of range:
/// [`ProbeAnswer`](crate::proto::ProbeAnswer) decodes the refusal. A valid one would be attached to
/// a controller that exists.
#[derive(Debug)]
pub struct ControllerProbe {
    /// Connection to make first.
    pub open: RdmaConnect,
    /// The Connect.
    pub connect: Execute,
}

impl ControllerProbe {
    /// Entries of the queue pair: the minimum.
    const ENTRIES: u16 = 2;
    /// Entries of the queue that no controller has which is asked like this.
    const ENTRIES_EXCEEDED: u16 = u16::MAX;
    /// Beyond the queue ids that targets grant. 65,535 itself stands for no queue in places.
    const QUEUE: QueueId = QueueId(u16::MAX - 1);

    /// Connection and command that ask the question.
    #[must_use]
    pub fn new(options: &ConnectOptions, question: ProbeQuestion) -> Self {
        let ProbeQuestion { controller, queue } = question;
        let connect_entries = queue.map_or(Self::ENTRIES, |_| Self::ENTRIES_EXCEEDED);
        let (queue, entries) = (queue.unwrap_or(Self::QUEUE), Self::ENTRIES);
        let request = CmRequestData::new(queue, entries, controller);
        Self {
            open: RdmaConnect { queue, entries, request, in_capsule_bytes: 0 },
            connect: Execute {
                queue,
                sqe: connect_command(options, queue, connect_entries, 0),
                transfer: connect_data(options, controller),
                name: "a question about an old controller",
            },
        }
    }
}
