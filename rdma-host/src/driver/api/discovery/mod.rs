//! Discovery controllers: reading and watching of discovery logs.

mod walk;
mod watch;

use std::sync::Arc;

use verbs::{Provider, RdmaCore};

pub use walk::{Discovered, Discovery};
pub use watch::{DiscoveryEvent, DiscoveryWatch};

use crate::{
    config::{ConnectOptions, DISCOVERY_TIMEOUT, ReconnectOptions},
    driver::{
        api::{connecting::Connecting, controller::Controller},
        connect::context::Purpose,
        runtime,
    },
    error::Error,
    proto::{DiscoveryAction, DiscoveryLog, DiscoveryRead, Negotiated},
};

/// Discovery controller: a controller without I/O queues.
///
/// A task of the current runtime keeps the connection alive. A connection that is lost is not made
/// again: [`DiscoveryWatch`] does that. Dropping it disconnects in the background.
pub struct DiscoveryController<P: Provider = RdmaCore> {
    controller: Controller<P>,
    negotiated: Arc<Negotiated>,
}

impl DiscoveryController {
    /// Connects over the system's RDMA devices. The subsystem of the options is the well-known
    /// discovery subsystem, or one with a name of its own; the options for I/O queues and for
    /// reconnecting have no meaning.
    ///
    /// # Errors
    ///
    /// When the connect fails, or the controller is not a discovery controller.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }
}

impl<P: Provider> DiscoveryController<P> {
    /// Connects as [`connect`](DiscoveryController::connect), over any RDMA provider.
    ///
    /// # Errors
    ///
    /// As [`connect`](DiscoveryController::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let options = ConnectOptions { reconnect: ReconnectOptions::never(), ..options.clone() };
        let purpose = Purpose::Discovery { events: false };
        let controller = Connecting::new(provider, &options, purpose, None).await?;
        let negotiated = controller.negotiated();
        Ok(Self { controller, negotiated })
    }

    /// Parameters negotiated with the controller.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Reads the whole log, again if it changes meanwhile, within
    /// [`DISCOVERY_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// When the controller refuses, the connection is lost, or the log is too long or keeps
    /// changing.
    pub async fn read_log(&self) -> Result<DiscoveryLog, Error> {
        read_log(&self.controller, false).await
    }

    /// Shuts the controller down and disconnects, within a second.
    pub async fn shutdown(self) {
        self.controller.shutdown().await;
    }
}

/// Reads the whole log of a discovery controller.
async fn read_log<P: Provider>(
    controller: &Controller<P>,
    keeps_bytes: bool,
) -> Result<DiscoveryLog, Error> {
    let read = async {
        let mut read = DiscoveryRead::new(controller.negotiated().transfer_bytes_max)
            .keeping_bytes(keeps_bytes);
        loop {
            match read.action()? {
                DiscoveryAction::Done(log) => return Ok(log),
                DiscoveryAction::Execute(command) => {
                    let (response, data) = controller.admin().response_to(command).await?;
                    read.handle(response, &data)?;
                }
            }
        }
    };
    let timeout = Error::Timeout { step: "the discovery log", after: DISCOVERY_TIMEOUT };
    runtime::timeout(DISCOVERY_TIMEOUT, read).await.unwrap_or(Err(timeout))
}
