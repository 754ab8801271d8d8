//! Walk over discovery subsystems along their referrals.

use std::sync::Arc;

use verbs::{Provider, RdmaCore};

use super::DiscoveryController;
use crate::{
    config::ConnectOptions,
    error::Error,
    proto::{DiscoveryLog, DiscoveryTarget, ReferralWalk, SkippedReferral},
};

/// Walk over discovery subsystems, each of which is queried once.
pub struct Discovery<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: ConnectOptions,
    walk: ReferralWalk,
}

/// Result of querying one discovery subsystem.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// Subsystem that was queried.
    pub target: DiscoveryTarget,
    /// Discovery log, or the error.
    pub outcome: Result<DiscoveryLog, Error>,
    /// Referrals that are not followed.
    pub skipped: Vec<SkippedReferral>,
}

impl Discovery {
    /// Creates a walk over the system's RDMA devices that starts at the options' address and
    /// subsystem and follows at most `depth_max` referrals in a row; 0 follows none.
    #[must_use]
    pub fn new(options: &ConnectOptions, depth_max: u8) -> Self {
        Self::over(&Arc::new(RdmaCore::new()), options, depth_max)
    }
}

impl<P: Provider> Discovery<P> {
    /// Creates a walk as [`new`](Discovery::new), over any RDMA provider.
    #[must_use]
    pub fn over(provider: &Arc<P>, options: &ConnectOptions, depth_max: u8) -> Self {
        let mut walk = ReferralWalk::new(depth_max);
        let first = walk.add(options.address, options.subsystem.clone());
        first.expect("an empty walk takes the first");
        Self { provider: Arc::clone(provider), options: options.clone(), walk }
    }

    /// Queries the next subsystem; `None` when all were queried. The timeouts are those of
    /// [`DiscoveryController`].
    pub async fn next(&mut self) -> Option<Discovered> {
        let target = self.walk.next()?;
        self.options.address = target.address;
        self.options.subsystem = target.subsystem.clone();
        let outcome = self.query().await;
        let skipped = match &outcome {
            Ok(log) => self.walk.handle_log(&target, log),
            Err(_) => Vec::new(),
        };
        Some(Discovered { target, outcome, skipped })
    }

    async fn query(&self) -> Result<DiscoveryLog, Error> {
        let controller = DiscoveryController::connect_over(&self.provider, &self.options).await?;
        let log = controller.read_log().await;
        controller.shutdown().await;
        log
    }
}
