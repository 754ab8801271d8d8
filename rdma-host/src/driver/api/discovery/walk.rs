//! Walk over discovery subsystems along their referrals.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use verbs::{Provider, RdmaCore};

use super::{DiscoveryController, read_log};
use crate::{
    config::{CONCURRENT_QUERIES_MAX, ConnectOptions, DISCOVERY_WALK_TIMEOUT},
    driver::runtime,
    error::Error,
    proto::{DiscoveryLog, DiscoveryTarget, ReferralWalk, SkippedReferral},
};

/// Walk over discovery subsystems, each of which is queried once, some of them at the same time.
///
/// All of it ends [within a time](Self::within): what was not queried by then is returned with that
/// error.
pub struct Discovery<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: ConnectOptions,
    walk: ReferralWalk,
    /// Queries, in the order of the walk.
    queries: FuturesOrdered<BoxFuture<'static, Discovered>>,
    timeout: Duration,
    keeps_bytes: bool,
    /// Set by the first query.
    deadline: Option<Instant>,
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
        Self {
            provider: Arc::clone(provider),
            options: options.clone(),
            walk,
            queries: FuturesOrdered::new(),
            timeout: DISCOVERY_WALK_TIMEOUT,
            keeps_bytes: false,
            deadline: None,
        }
    }

    /// Sets the time within which the whole walk ends; by default [`DISCOVERY_WALK_TIMEOUT`].
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Keeps the [bytes](DiscoveryLog::bytes) of each log page, too.
    #[must_use]
    pub fn keeping_bytes(self) -> Self {
        Self { keeps_bytes: true, ..self }
    }

    /// Returns the result of the next subsystem, in the order of the referrals; `None` when all
    /// were queried. Cancel-safe. The timeouts of each are those of [`DiscoveryController`].
    pub async fn next(&mut self) -> Option<Discovered> {
        let after = self.timeout;
        let deadline = *self.deadline.get_or_insert_with(|| runtime::now() + after);
        while self.queries.len() < CONCURRENT_QUERIES_MAX
            && let Some(target) = self.walk.next()
        {
            let options =
                self.options.clone().address(target.address).subsystem(target.subsystem.clone());
            let (provider, keeps_bytes) = (Arc::clone(&self.provider), self.keeps_bytes);
            let query = async move {
                let query = query(&provider, &options, keeps_bytes);
                let queried = runtime::timeout_at(deadline, query).await;
                let timeout = Error::Timeout { step: "the walk over referrals", after };
                let outcome = queried.unwrap_or(Err(timeout));
                Discovered { target, outcome, skipped: Vec::new() }
            };
            self.queries.push_back(query.boxed());
        }
        let mut discovered = self.queries.next().await?;
        if let Ok(log) = &discovered.outcome {
            discovered.skipped = self.walk.handle_log(&discovered.target, log);
        }
        Some(discovered)
    }

    /// Number of subsystems that are being queried.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queries.len()
    }
}

async fn query<P: Provider>(
    provider: &Arc<P>,
    options: &ConnectOptions,
    keeps_bytes: bool,
) -> Result<DiscoveryLog, Error> {
    let controller = DiscoveryController::connect_over(provider, options).await?;
    let log = read_log(&controller.controller, keeps_bytes).await;
    controller.shutdown().await;
    log
}
