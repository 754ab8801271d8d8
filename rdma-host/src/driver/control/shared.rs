//! State and channels that a controller's handles share with its tasks.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::AuthenticationOptions,
    driver::{
        control::state_change::StateChange,
        data_path::{
            admin_queue::{
                client::{AdminClient, AdminRequest},
                counters::AdminCounters,
            },
            connection_state::ConnectionWatch,
            controller_group::ControllerGroup,
            namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
    },
    error::Error,
    wire::{AsyncEvent, ControllerId},
};

/// Request of the owner of a controller.
pub(crate) enum ControlRequest {
    /// Delete the controller, and reply when nothing of it is left.
    Delete(oneshot::Sender<()>),
    /// Drop the connection and make a new one.
    Reset,
}

/// Question for the target about another controller of the subsystem, asked once the connection is
/// live.
pub(crate) struct ProbeRequest {
    pub(crate) controller: ControllerId,
    /// Reply: true if the controller does not exist any more; none where no answer would prove it.
    pub(crate) gone: oneshot::Sender<bool>,
}

/// State that a controller's handles and tasks share.
pub(crate) struct ControllerShared<P: Provider> {
    pub(crate) connection: ConnectionWatch<P>,
    /// Controllers that are paths of the same subsystem, if it is used with several.
    pub(crate) group: Option<Arc<ControllerGroup<P>>>,
    pub(crate) registry: Arc<NamespaceRegistry>,
    pub(crate) admin: AdminCounters,
    pub(crate) changes: broadcast::WeakSender<StateChange>,
    /// Secrets and policy of the next connection.
    pub(crate) authentication: Mutex<AuthenticationOptions>,
}

/// Receivers of the supervisor.
pub(crate) struct ControlChannels {
    pub(crate) control: mpsc::Receiver<ControlRequest>,
    pub(crate) probes: mpsc::Receiver<ProbeRequest>,
    pub(crate) requests: mpsc::Receiver<AdminRequest>,
}

/// State and channels that connect the supervisor with the controller's other parts.
pub(crate) struct SupervisorChannels<P: Provider> {
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) inbox: ControlChannels,
    /// Client of the supervisor's own admin queue, for the write fence.
    pub(crate) admin: AdminClient<P>,
    /// Only sender, so that the streams of changes end with the supervisor.
    pub(crate) changes: broadcast::Sender<StateChange>,
    /// Sender of asynchronous events.
    pub(crate) events: mpsc::Sender<AsyncEvent>,
    /// Reply to the first connect.
    pub(crate) first: oneshot::Sender<Result<Vec<Poller<P>>, Error>>,
}
