//! Asking one discovery subsystem after the other, as referrals lead.

use std::sync::Arc;

use verbs::{Provider, RdmaCore};

use super::DiscoveryController;
use crate::{
    config::ConnectOptions,
    error::Error,
    proto::{DiscoveryLog, DiscoveryTarget, ReferralWalk, SkippedReferral},
};

/// A walk over discovery subsystems, each of which is asked once.
pub struct Discovery<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: ConnectOptions,
    walk: ReferralWalk,
}

/// What one of them said.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// Who was asked.
    pub visit: DiscoveryTarget,
    /// Its log, or why there is none.
    pub outcome: Result<DiscoveryLog, Error>,
    /// Its referrals that are not followed.
    pub skipped: Vec<SkippedReferral>,
}

impl Discovery {
    /// A walk over the system's RDMA devices that begins at the options' address and subsystem
    /// and follows at most `depth_max` referrals in a row; 0 for none.
    #[must_use]
    pub fn new(options: &ConnectOptions, depth_max: u8) -> Self {
        Self::over(&Arc::new(RdmaCore::new()), options, depth_max)
    }
}

impl<P: Provider> Discovery<P> {
    /// The same over any provider of RDMA.
    #[must_use]
    pub fn over(provider: &Arc<P>, options: &ConnectOptions, depth_max: u8) -> Self {
        let mut walk = ReferralWalk::new(depth_max);
        let first = walk.add(options.address, options.subsystem.clone());
        first.expect("an empty walk takes the first");
        Self { provider: Arc::clone(provider), options: options.clone(), walk }
    }

    /// Asks the next one; nothing when all were asked. One that does not answer takes no longer
    /// than [`DiscoveryController`] does.
    pub async fn next(&mut self) -> Option<Discovered> {
        let visit = self.walk.next()?;
        self.options.address = visit.address;
        self.options.subsystem = visit.subsystem.clone();
        let outcome = self.ask().await;
        let skipped = match &outcome {
            Ok(log) => self.walk.handle_log(&visit, log),
            Err(_) => Vec::new(),
        };
        Some(Discovered { visit, outcome, skipped })
    }

    async fn ask(&self) -> Result<DiscoveryLog, Error> {
        let controller = DiscoveryController::connect_over(&self.provider, &self.options).await?;
        let log = controller.read_log().await;
        controller.shutdown().await;
        log
    }
}
