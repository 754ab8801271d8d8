//! State and channels that a controller's handles share with its tasks.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{Domain, Provider};

use crate::{
    config::AuthenticationOptions,
    driver::{
        connect::admin_queue::AdminRequest,
        control::state_change::StateChange,
        data_path::{
            connection_state::ConnectionWatch,
            mailbox::{PollerMailbox, TimedOutCommand},
            memory::MemoryReport,
            namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
    },
    error::Error,
    proto::Negotiated,
    wire::AsyncEvent,
};

/// What the owner of a controller may ask for.
pub(crate) enum ControlRequest {
    /// The end; the answer comes when nothing is left.
    Delete(oneshot::Sender<()>),
    /// A new connection.
    Reset,
}

/// What the owner and the task see of the present connection.
pub(crate) struct ControllerShared<P: Provider> {
    pub(crate) liveness: ConnectionWatch,
    pub(crate) registry: Arc<NamespaceRegistry>,
    pub(crate) changes: broadcast::WeakSender<StateChange>,
    pub(crate) present: Mutex<Option<Connection<P>>>,
    /// How the next connection is authenticated.
    pub(crate) authentication: Mutex<AuthenticationOptions>,
}

/// The latest connection.
pub(crate) struct Connection<P: Provider> {
    pub(crate) negotiated: Arc<Negotiated>,
    pub(crate) domain: Domain<P>,
    pub(crate) device: String,
    pub(crate) numa_node: Option<u32>,
    pub(crate) memory: MemoryReport,
    pub(crate) generation: u64,
    pub(crate) berths: Vec<Arc<PollerMailbox<P>>>,
}

/// The ends of the channels that lead to the task.
pub(crate) struct ControlChannels {
    pub(crate) control: mpsc::Receiver<ControlRequest>,
    pub(crate) requests: mpsc::Receiver<AdminRequest>,
    pub(crate) late: mpsc::Receiver<TimedOutCommand>,
}

/// How the task is tied to the rest.
pub(crate) struct SupervisorChannels<P: Provider> {
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) inbox: ControlChannels,
    /// The only one, so that the changes end with the task.
    pub(crate) changes: broadcast::Sender<StateChange>,
    /// To make berths with.
    pub(crate) late: mpsc::Sender<TimedOutCommand>,
    /// Where what the controller tells goes.
    pub(crate) events: mpsc::Sender<AsyncEvent>,
    /// Who waits for the first connection.
    pub(crate) first: oneshot::Sender<Result<Vec<Poller<P>>, Error>>,
}
