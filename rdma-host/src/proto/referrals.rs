//! Following of referrals: each discovery subsystem is queried once, up to a maximum depth.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    net::SocketAddr,
};

use super::DiscoveryLog;
use crate::{
    config::DISCOVERY_TARGETS_MAX,
    wire::{DiscoveryEntryError, Nqn, SubsystemType},
};

/// Discovery subsystem to query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryTarget {
    /// Address of its port.
    pub address: SocketAddr,
    /// NQN of the subsystem.
    pub subsystem: Nqn,
    /// Number of referrals followed to it; 0 for one that the caller added.
    pub depth: u8,
}

/// Referral that is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedReferral {
    /// Destination as sent.
    pub destination: String,
    /// Reason for not following it.
    pub reason: SkipReason,
}

/// Reason for not following a referral.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// The subsystem has been queried or is queued: referrals may form cycles.
    #[error("already asked")]
    AlreadyQueried,
    /// The subsystem exceeds the maximum depth.
    #[error("more than {0} referrals away")]
    Depth(u8),
    /// The entry is not a valid RDMA address.
    #[error("{0}")]
    Entry(#[from] DiscoveryEntryError),
    /// There are too many subsystems.
    #[error("more than {0} discovery subsystems")]
    TooMany(usize),
}

/// Breadth-first walk over referrals. Call [`next`](Self::next), query the subsystem, pass its log
/// to [`handle_log`](Self::handle_log).
///
/// Subsystems with fewer referrals come first, so each is reached by the shortest path.
#[derive(Debug)]
pub struct ReferralWalk {
    depth_max: u8,
    known: HashSet<(SocketAddr, String)>,
    queue: VecDeque<DiscoveryTarget>,
}

impl ReferralWalk {
    /// Creates a walk that follows up to `depth_max` referrals in a row; 0 follows none.
    #[must_use]
    pub fn new(depth_max: u8) -> Self {
        Self { depth_max, known: HashSet::new(), queue: VecDeque::new() }
    }

    /// Adds a subsystem to query.
    ///
    /// # Errors
    ///
    /// When it was added before, or there are too many.
    pub fn add(&mut self, address: SocketAddr, subsystem: Nqn) -> Result<(), SkipReason> {
        self.enqueue(DiscoveryTarget { address, subsystem, depth: 0 })
    }

    /// Returns the next subsystem to query, or `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "what comes depends on the logs handed in")]
    pub fn next(&mut self) -> Option<DiscoveryTarget> {
        self.queue.pop_front()
    }

    /// Passes the log of a subsystem; returns the referrals that are not followed, except those to
    /// other ports of the log's own subsystem.
    pub fn handle_log(
        &mut self,
        target: &DiscoveryTarget,
        log: &DiscoveryLog,
    ) -> Vec<SkippedReferral> {
        let referrals = log.entries.iter().filter(|entry| entry.kind == SubsystemType::REFERRAL);
        let mut skipped = Vec::new();
        for entry in referrals {
            let outcome =
                entry.socket_address().and_then(|destination| Ok((destination, entry.nqn()?)));
            let outcome = outcome.map_err(SkipReason::from).and_then(|(address, subsystem)| {
                let address = in_zone_of(address, target.address);
                self.enqueue(DiscoveryTarget {
                    address,
                    subsystem,
                    depth: target.depth.saturating_add(1),
                })
            });
            if let Err(reason) = outcome {
                let destination =
                    format!("{} at {}:{}", entry.subsystem, entry.address, entry.service);
                skipped.push(SkippedReferral { destination, reason });
            }
        }
        skipped
    }

    fn enqueue(&mut self, target: DiscoveryTarget) -> Result<(), SkipReason> {
        let key = (target.address, target.subsystem.as_str().to_owned());
        if self.known.contains(&key) {
            return Err(SkipReason::AlreadyQueried);
        }
        if target.depth > self.depth_max {
            return Err(SkipReason::Depth(self.depth_max));
        }
        if self.known.len() == DISCOVERY_TARGETS_MAX {
            return Err(SkipReason::TooMany(DISCOVERY_TARGETS_MAX));
        }
        self.known.insert(key);
        self.queue.push_back(target);
        Ok(())
    }
}

/// Completes a link-local address, which a target sends without scope id, with the scope id of the
/// target that sent it.
fn in_zone_of(address: SocketAddr, parent: SocketAddr) -> SocketAddr {
    match (address, parent) {
        (SocketAddr::V6(mut address), SocketAddr::V6(parent))
            if address.ip().is_unicast_link_local() && address.scope_id() == 0 =>
        {
            address.set_scope_id(parent.scope_id());
            address.into()
        }
        (address, _) => address,
    }
}

impl fmt::Display for DiscoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.subsystem, self.address)
    }
}

impl fmt::Display for SkippedReferral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the referral to {} is not followed: {}", self.destination, self.reason)
    }
}

#[cfg(test)]
mod tests;
