//! State and channels that a controller's handles share with its tasks.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::AuthenticationOptions,
    driver::{
        connect::admin_queue::AdminRequest,
        control::state_change::StateChange,
        data_path::{
            connection_state::ConnectionWatch, namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
    },
    error::Error,
    wire::AsyncEvent,
};

/// What the owner of a controller may ask for.
pub(crate) enum ControlRequest {
    /// The end; the answer comes when nothing is left.
    Delete(oneshot::Sender<()>),
    /// A new connection.
    Reset,
}

/// State that a controller's handles and tasks share.
pub(crate) struct ControllerShared<P: Provider> {
    pub(crate) connection: ConnectionWatch<P>,
    pub(crate) registry: Arc<NamespaceRegistry>,
    pub(crate) changes: broadcast::WeakSender<StateChange>,
    /// Secrets and policy of the next connection.
    pub(crate) authentication: Mutex<AuthenticationOptions>,
}

/// The ends of the channels that lead to the task.
pub(crate) struct ControlChannels {
    pub(crate) control: mpsc::Receiver<ControlRequest>,
    pub(crate) requests: mpsc::Receiver<AdminRequest>,
}

/// How the task is tied to the rest.
pub(crate) struct SupervisorChannels<P: Provider> {
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) inbox: ControlChannels,
    /// The only one, so that the changes end with the task.
    pub(crate) changes: broadcast::Sender<StateChange>,
    /// Where what the controller tells goes.
    pub(crate) events: mpsc::Sender<AsyncEvent>,
    /// Who waits for the first connection.
    pub(crate) first: oneshot::Sender<Result<Vec<Poller<P>>, Error>>,
}
