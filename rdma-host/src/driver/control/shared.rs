//! State and channels that a controller's handles share with its tasks.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{Domain, Provider};

use crate::{
    config::AuthenticationOptions,
    driver::{
        connect::admin_queue::Request,
        control::state_change::Change,
        data_path::{
            connection_state::Liveness,
            mailbox::{Berth, Late},
            memory::MemoryReport,
            namespace_registry::Registry,
            poller::Poller,
        },
    },
    error::Error,
    proto::Negotiated,
    wire::AsyncEvent,
};

/// What the owner of a controller may ask for.
pub(crate) enum Control {
    /// The end; the answer comes when nothing is left.
    Delete(oneshot::Sender<()>),
    /// A new connection.
    Reset,
}

/// What the owner and the task see of the present connection.
pub(crate) struct Shared<P: Provider> {
    pub(crate) liveness: Liveness,
    pub(crate) registry: Arc<Registry>,
    pub(crate) changes: broadcast::WeakSender<Change>,
    pub(crate) present: Mutex<Option<Present<P>>>,
    /// How the next connection is authenticated.
    pub(crate) authentication: Mutex<AuthenticationOptions>,
}

/// The latest connection.
pub(crate) struct Present<P: Provider> {
    pub(crate) negotiated: Arc<Negotiated>,
    pub(crate) domain: Domain<P>,
    pub(crate) device: String,
    pub(crate) numa_node: Option<u32>,
    pub(crate) memory: MemoryReport,
    pub(crate) generation: u64,
    pub(crate) berths: Vec<Arc<Berth<P>>>,
}

/// The ends of the channels that lead to the task.
pub(crate) struct Inbox {
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) late: mpsc::Receiver<Late>,
}

/// How the task is tied to the rest.
pub(crate) struct Wiring<P: Provider> {
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) inbox: Inbox,
    /// The only one, so that the changes end with the task.
    pub(crate) changes: broadcast::Sender<Change>,
    /// To make berths with.
    pub(crate) late: mpsc::Sender<Late>,
    /// Where what the controller tells goes.
    pub(crate) events: mpsc::Sender<AsyncEvent>,
    /// Who waits for the first connection.
    pub(crate) first: oneshot::Sender<Result<Vec<Poller<P>>, Error>>,
}
