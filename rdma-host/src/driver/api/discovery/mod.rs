//! Discovery: asks where subsystems are, once or for as long as somebody wants to know.

mod session;
mod walk;
mod watch;

use std::sync::Arc;

use verbs::{Provider, RdmaCore};

pub use walk::{Discovered, Discovery};
pub use watch::{DiscoveryEvent, DiscoveryWatch};

use self::session::Session;
use crate::{
    config::{ConnectOptions, DISCOVERY_TIMEOUT},
    error::{Error, Incompatible, Rejected},
    proto::{DiscoveryAction, DiscoveryLog, DiscoveryRead, Execute, Negotiated, Transfer},
    wire::{AsyncEventMask, QueueId, SetFeatures},
};

/// A connection to a discovery controller: an admin queue and nothing else.
///
/// It is driven by its own methods alone: between two calls nothing is sent, also no keep-alive.
/// For a connection that stays there is [`DiscoveryWatch`].
pub struct DiscoveryController<P: Provider = RdmaCore> {
    session: Session<P>,
    negotiated: Negotiated,
}

impl DiscoveryController {
    /// Connects over the system's RDMA devices. The subsystem of the options is the well-known
    /// discovery subsystem, or one with a name of its own; their I/O queues do not matter.
    ///
    /// # Errors
    ///
    /// Whatever keeps the controller from being live, also that it is none for discovery.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }
}

impl<P: Provider> DiscoveryController<P> {
    /// Connects as [`connect`](DiscoveryController::connect), over any provider of RDMA.
    ///
    /// # Errors
    ///
    /// As [`connect`](DiscoveryController::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let (session, negotiated) = Session::connect(provider, options).await?;
        Ok(Self { session, negotiated })
    }

    /// What the controller says of itself.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Reads the whole log, again if it changes meanwhile. Takes a minute at most.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone, or its log is too long or never stays the same.
    pub async fn read_log(&mut self) -> Result<DiscoveryLog, Error> {
        let timeout = Error::Timeout { step: "the discovery log", after: DISCOVERY_TIMEOUT };
        let log = self.read_without_limit();
        tokio::time::timeout(DISCOVERY_TIMEOUT, log).await.unwrap_or(Err(timeout))
    }

    async fn read_without_limit(&mut self) -> Result<DiscoveryLog, Error> {
        let mut read = DiscoveryRead::new(self.negotiated.transfer_bytes_max);
        loop {
            match read.action()? {
                DiscoveryAction::Done(log) => return Ok(log),
                DiscoveryAction::Execute(command) => {
                    let (response, data) = self.session.execute(&command).await?;
                    read.handle(response, &data)?;
                }
            }
        }
    }

    /// Asks to be told of changes of the log.
    async fn subscribe(&mut self) -> Result<(), Error> {
        let events = AsyncEventMask::DISCOVERY_LOG_CHANGE;
        if !self.negotiated.info.events.contains(events) {
            return Err(Incompatible::NoDiscoveryEvents.into());
        }
        let name = "Set Features (Asynchronous Event Configuration)";
        let command = Execute {
            queue: QueueId::ADMIN,
            sqe: SetFeatures::async_events(events),
            transfer: Transfer::None,
            name,
        };
        let (response, _) = self.session.execute(&command).await?;
        match response.status() {
            status if status.is_success() => self.session.arm(),
            status => Err(Rejected::Command { command: name, status }.into()),
        }
    }

    /// Tells the controller, and disconnects. Takes a second at most.
    pub async fn shutdown(self) {
        self.session.shut_down().await;
    }
}
