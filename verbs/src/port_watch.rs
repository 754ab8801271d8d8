//! Watch of a device's ports.

use std::fmt;

use crate::{ProtectionDomain, Provider, RdmaCore, active_side::Event};

/// Watch of the ports of a domain's device, as events for an
/// [`ActiveSide`](crate::active_side::ActiveSide).
///
/// The connection manager does not say which of several ports a connection uses, so there is an
/// event only when all ports are down, and when one of them is active again. The state is that of
/// the device's own events ([`DeviceEventKind`](crate::DeviceEventKind)): a call reads those that
/// have arrived, without blocking and without a descriptor of its own.
pub struct PortWatch<P: Provider = RdmaCore> {
    domain: ProtectionDomain<P>,
    /// State at the last call; ports count as active before the first.
    was_down: bool,
}

impl<P: Provider> PortWatch<P> {
    /// Starts to watch the ports of the domain's device, which it keeps.
    pub fn new(domain: ProtectionDomain<P>) -> Self {
        Self { domain, was_down: false }
    }

    /// Returns the change since the last call: [`Event::PortDown`] or [`Event::PortActive`].
    pub fn next_event(&mut self) -> Option<Event> {
        let is_down = self.domain.is_port_down()?;
        if is_down == std::mem::replace(&mut self.was_down, is_down) {
            return None;
        }
        Some(if is_down { Event::PortDown } else { Event::PortActive })
    }
}

impl<P: Provider> fmt::Debug for PortWatch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortWatch").field("was_down", &self.was_down).finish_non_exhaustive()
    }
}
