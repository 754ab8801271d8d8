//! Following referrals: which discovery subsystems to ask, each once, and no further than allowed.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use super::DiscoveryLog;
use crate::config::DISCOVERY_TARGETS_MAX;
use crate::wire::{DiscoveryEntryError, Nqn, SubsystemType};

/// A discovery subsystem to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryTarget {
    /// Where it is.
    pub address: SocketAddr,
    /// Its name.
    pub subsystem: Nqn,
    /// Referrals that led there; 0 for one that the caller named.
    pub depth: u8,
}

/// A referral that is not followed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedReferral {
    /// Where it leads, as sent.
    pub destination: String,
    /// Why not.
    pub reason: SkipReason,
}

/// Why a referral is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// It was asked already, or is going to be: referrals may go in circles.
    #[error("already asked")]
    AlreadyQueried,
    /// It is more referrals away than the caller wants.
    #[error("more than {0} referrals away")]
    Depth(u8),
    /// It leads to no destination that RDMA can reach.
    #[error("{0}")]
    Entry(#[from] DiscoveryEntryError),
    /// There are too many.
    #[error("more than {0} discovery subsystems")]
    TooMany(usize),
}

/// Plans whom to ask. Take [`next`](Self::next), ask it, tell [`handle_log`](Self::handle_log).
///
/// Breadth first: those closest to where the caller began come first, as does the shortest way to
/// each.
#[derive(Debug)]
pub struct ReferralWalk {
    depth_max: u8,
    known: HashSet<(SocketAddr, String)>,
    queue: VecDeque<DiscoveryTarget>,
}

impl ReferralWalk {
    /// A walk that follows referrals of referrals, `depth_max` of them in a row; 0 follows none.
    #[must_use]
    pub fn new(depth_max: u8) -> Self {
        Self { depth_max, known: HashSet::new(), queue: VecDeque::new() }
    }

    /// Adds a subsystem that the caller names.
    ///
    /// # Errors
    ///
    /// When it is known, or there are too many.
    pub fn add(&mut self, address: SocketAddr, subsystem: Nqn) -> Result<(), SkipReason> {
        self.enqueue(DiscoveryTarget { address, subsystem, depth: 0 })
    }

    /// Whom to ask next, until nobody is left.
    #[expect(clippy::should_implement_trait, reason = "what comes depends on the logs handed in")]
    pub fn next(&mut self) -> Option<DiscoveryTarget> {
        self.queue.pop_front()
    }

    /// What it said; returns the referrals that are not followed. One to a port of the same log's
    /// own subsystem is not worth a word.
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

/// A link-local address means nothing without its interface, which a target can't know: that of
/// the target which named it.
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
