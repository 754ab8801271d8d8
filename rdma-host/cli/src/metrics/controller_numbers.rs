//! Numbers of a controller, from what it reports.

use std::{collections::BTreeMap, time::SystemTime};

use rdma_host::{
    AdminCounters, FenceChange, FenceChangeKind, LifecycleState, StateChange,
    wire::{AnaLog, AnaState, ControllerId},
};

/// Numbers of a controller since the command began.
#[derive(Clone, Debug)]
pub(crate) struct ControllerNumbers {
    pub(crate) state: LifecycleState,
    /// Time of the last change of the state.
    pub(crate) changed: SystemTime,
    /// Controller of the live or last connection.
    pub(crate) id: Option<ControllerId>,
    /// Number of connect attempts.
    pub(crate) connect_attempts: u64,
    /// Number of connections that became live.
    pub(crate) connections: u64,
    /// Numbers of the admin queue, once there is a controller.
    pub(crate) admin: Option<AdminCounters>,
    /// Number of asynchronous events.
    pub(crate) events: u64,
    /// Number of times that the write fence was closed.
    pub(crate) fence_closures: u64,
    /// Controllers that the write fence is closed for.
    pub(crate) fenced: BTreeMap<u16, FencedWrites>,
    /// State of each ANA group; empty if the controller reports none.
    pub(crate) ana_groups: Vec<(u32, AnaState)>,
}

/// Writes without a response of a controller, to whose blocks later writes wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FencedWrites {
    pub(crate) writes: u64,
    /// Number of blocks from the first to the last of them.
    pub(crate) blocks: u64,
}

impl ControllerNumbers {
    pub(crate) fn new() -> Self {
        Self {
            state: LifecycleState::New,
            changed: SystemTime::now(),
            id: None,
            connect_attempts: 0,
            connections: 0,
            admin: None,
            events: 0,
            fence_closures: 0,
            fenced: BTreeMap::new(),
            ana_groups: Vec::new(),
        }
    }

    /// Number of connections that became live after the first.
    pub(crate) fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    pub(crate) fn change_state(&mut self, change: &StateChange) {
        self.state = change.state;
        self.changed = change.at;
        match change.state {
            LifecycleState::Connecting => self.connect_attempts += 1,
            LifecycleState::Live => self.connections += 1,
            _ => {}
        }
    }

    pub(crate) fn change_fence(&mut self, change: &FenceChange) {
        let controller = change.controller.0;
        match &change.kind {
            FenceChangeKind::Closed { writes, span: (_, first, last), .. } => {
                let blocks = last.saturating_sub(*first).saturating_add(1);
                self.fence_closures += 1;
                self.fenced.insert(controller, FencedWrites { writes: *writes as u64, blocks });
            }
            FenceChangeKind::Opened { .. } => {
                self.fenced.remove(&controller);
            }
            _ => {}
        }
    }

    pub(crate) fn set_ana(&mut self, log: &AnaLog) {
        self.ana_groups = log.groups.iter().map(|group| (group.id, group.state)).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdma_host::{proto::FenceProof, wire::NamespaceId};

    use super::*;

    #[test]
    fn reconnects_are_counted_from_the_second_connection_on() {
        let mut numbers = ControllerNumbers::new();
        let mut enter = |state| {
            numbers.change_state(&StateChange {
                at: SystemTime::UNIX_EPOCH,
                state,
                cause: None,
                attempt: 0,
                attempts_max: None,
                next: None,
            });
            (numbers.connect_attempts, numbers.reconnects())
        };
        let first = [LifecycleState::Connecting, LifecycleState::Live].map(&mut enter);
        assert_eq!(first, [(1, 0), (1, 0)]);
        use LifecycleState::{Connecting, Live, Resetting, Waiting};
        let more = [Resetting, Waiting, Connecting, Waiting, Connecting, Live].map(enter);
        assert_eq!(more.last(), Some(&(3, 1)));
    }

    #[test]
    fn a_fence_is_closed_until_it_is_opened() {
        let mut numbers = ControllerNumbers::new();
        let mut change = FenceChange {
            at: SystemTime::UNIX_EPOCH,
            controller: ControllerId(3),
            kind: FenceChangeKind::Closed {
                writes: 2,
                span: (NamespaceId(1), 7, 8),
                is_probed: true,
                can_be_reset: false,
                opens_in: None,
                timeout: Duration::from_secs(60),
            },
        };
        numbers.change_fence(&change);
        let fenced = numbers.fenced[&3];
        assert_eq!((fenced.writes, fenced.blocks, numbers.fence_closures), (2, 2, 1));
        change.kind = FenceChangeKind::Opened { proof: FenceProof::Owner, after: Duration::ZERO };
        numbers.change_fence(&change);
        assert!(numbers.fenced.is_empty());
        assert_eq!(numbers.fence_closures, 1);
    }
}
