//! Protection domains and device events.

use std::{collections::VecDeque, sync::Arc};

use rustix::io::Errno;
use verbs::{DeviceEvent, DeviceEventKind, Error, EventSubject};

use crate::{
    signal::Signal,
    simulation::{DeviceId, DomainId, Simulation},
};

pub(crate) struct ProtectionDomain {
    pub(crate) device: DeviceId,
    events: VecDeque<DeviceEvent>,
    signal: Arc<Signal>,
}

impl Simulation {
    pub(crate) fn make_domain(
        &mut self,
        device: DeviceId,
    ) -> Result<(DomainId, Arc<Signal>), Error> {
        if !self.is_alive(device) {
            return Err(Error::CreateProtectionDomain(Errno::IO.into()));
        }
        let signal = self.make_signal(device.host).map_err(Error::CreateProtectionDomain)?;
        let id = DomainId(self.next_id());
        let domain = ProtectionDomain { device, events: VecDeque::new(), signal: signal.clone() };
        self.domains.insert(id, domain);
        Ok((id, signal))
    }

    /// Tells all domains of a device what happened to it.
    pub(crate) fn report(
        &mut self,
        device: DeviceId,
        kind: DeviceEventKind,
        subject: EventSubject,
    ) {
        for domain in self.domains.values_mut().filter(|domain| domain.device == device) {
            if domain.events.len() == EVENTS_MAX {
                domain.events.pop_front();
            }
            domain.events.push_back(DeviceEvent { kind, subject });
            domain.signal.raise();
        }
    }

    pub(crate) fn device_event(&mut self, id: DomainId) -> Option<DeviceEvent> {
        let domain = self.domains.get_mut(&id)?;
        let event = domain.events.pop_front();
        if domain.events.is_empty() {
            domain.signal.clear();
        }
        event
    }
}

/// Maximum number of events kept for a domain that does not read them.
const EVENTS_MAX: usize = 64;
