//! Shared receive queues: receives for several queue pairs.

use std::collections::VecDeque;

use rustix::io::Errno;
use verbs::{Error, provider::ReceiveRequest};

use super::simulation::{DeviceId, DomainId, Simulation};

/// Shared receive queue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SharedReceiveQueueId(pub(super) u64);

impl SharedReceiveQueueId {
    /// Number in device events.
    pub(super) fn number(self) -> u32 {
        u32::try_from(self.0).expect("fewer than 2^32 objects are ever made")
    }
}

pub(super) struct SharedReceiveQueue {
    pub(super) device: DeviceId,
    /// Domain of the memory of its receives.
    pub(super) domain: DomainId,
    pub(super) receives: VecDeque<ReceiveRequest>,
    pub(super) capacity: usize,
}

impl Simulation {
    pub(super) fn make_shared_receive_queue(
        &mut self,
        domain: DomainId,
        capacity: u32,
    ) -> Result<SharedReceiveQueueId, Error> {
        let device = self.domains[&domain].device;
        let refuse =
            |errno: Errno| Error::CreateSharedReceiveQueue { capacity, source: errno.into() };
        if !self.is_alive(device) {
            return Err(refuse(Errno::IO));
        }
        if capacity == 0 || capacity > RECEIVES_MAX {
            return Err(refuse(Errno::INVAL));
        }
        let id = SharedReceiveQueueId(self.next_id());
        let receives = VecDeque::new();
        let queue = SharedReceiveQueue { device, domain, receives, capacity: capacity as usize };
        self.shared.insert(id, queue);
        Ok(id)
    }

    /// Posts one receive.
    pub(super) fn post_shared_receive(
        &mut self,
        id: SharedReceiveQueueId,
        request: ReceiveRequest,
    ) -> Result<(), Errno> {
        let alive = self.is_alive(self.shared[&id].device);
        let queue = self.shared.get_mut(&id).expect("a handle keeps its shared receive queue");
        if !alive {
            return Err(Errno::IO);
        }
        if queue.receives.len() == queue.capacity {
            return Err(Errno::NOMEM);
        }
        queue.receives.push_back(request);
        self.resume_senders_of(id);
        Ok(())
    }

    /// Resumes the senders that wait for receives of a shared receive queue.
    fn resume_senders_of(&mut self, id: SharedReceiveQueueId) {
        let served = self.pairs.iter().filter(|(_, pair)| pair.shared == Some(id));
        for pair in served.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.resume_sender_of(pair);
        }
    }
}

/// Maximum number of receives of one shared receive queue.
pub(super) const RECEIVES_MAX: u32 = 1 << 15;
