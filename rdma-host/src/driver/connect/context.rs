//! Parameters of an attempt to connect a controller.

use std::sync::Arc;

use verbs::{ProtectionDomain, Provider};

use crate::{
    config::{ADMIN_TRANSFER_MAX, ConnectOptions, DISCOVERY_CHUNK_BYTES},
    driver::{
        connect::authenticate::AuthenticationParties, data_path::controller_group::ControllerGroup,
    },
    proto::BringUp,
};

/// Parameters of an attempt to connect.
pub(crate) struct ConnectContext<'a, P: Provider> {
    pub(crate) provider: &'a Arc<P>,
    pub(crate) options: &'a ConnectOptions,
    pub(crate) purpose: Purpose,
    /// Maximum number of pollers that share the I/O queues.
    pub(crate) pollers: usize,
    /// Seed of the ids of the I/O queues.
    pub(crate) queue_id_seed: u32,
    /// Protection domain of the connection before, to keep the memory that is registered in it.
    pub(crate) domain: Option<ProtectionDomain<P>>,
    /// Controllers whose domain is used; `None` for a controller with one of its own.
    pub(crate) group: Option<&'a ControllerGroup<P>>,
    pub(crate) parties: &'a AuthenticationParties,
}

/// Purpose of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Discovery log; no I/O queues.
    Discovery {
        /// True if the discovery log change event is needed.
        events: bool,
    },
    /// I/O to namespaces.
    Io,
}

impl Purpose {
    /// Creates the bring-up of a controller.
    pub(crate) fn bring_up(self, options: &ConnectOptions, queue_id_seed: u32) -> BringUp {
        match self {
            Self::Discovery { .. } => BringUp::discovery(options.clone()),
            Self::Io => BringUp::new(options.clone()).queue_id_seed(queue_id_seed),
        }
    }

    /// Maximum data transfer of an admin command in bytes.
    pub(crate) fn admin_transfer_max(self) -> usize {
        match self {
            Self::Discovery { .. } => DISCOVERY_CHUNK_BYTES as usize,
            Self::Io => ADMIN_TRANSFER_MAX,
        }
    }
}
