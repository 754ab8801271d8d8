//! State of a controller's connection, shared by the tasks and pollers that serve it.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use verbs::Provider;

use crate::{
    driver::data_path::{connection::Connection, fence::SharedFence, live_summary::LiveSummary},
    error::{Error, NotConnected},
};

/// State of a controller's connection.
pub(crate) enum ConnectionState<P: Provider> {
    /// No connection; commands are pending, or fail, until there is one.
    Disconnected(Disconnection),
    /// No connection and none to come: the final state, with its cause.
    Ended(Error),
    /// Commands are sent on this connection.
    Live(Arc<Connection<P>>),
}

impl<P: Provider> ConnectionState<P> {
    /// Returns true if the connection of this generation is the live one.
    fn is_live(&self, generation: u64) -> bool {
        matches!(self, Self::Live(connection) if connection.generation == generation)
    }
}

impl<P: Provider> Clone for ConnectionState<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Disconnected(disconnection) => Self::Disconnected(disconnection.clone()),
            Self::Ended(error) => Self::Ended(error.clone()),
            Self::Live(connection) => Self::Live(Arc::clone(connection)),
        }
    }
}

impl<P: Provider> fmt::Debug for ConnectionState<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(disconnection) => disconnection.fmt(f),
            Self::Ended(error) => write!(f, "Ended({error:?})"),
            Self::Live(connection) => write!(f, "Live({})", connection.generation),
        }
    }
}

/// Period without a connection.
#[derive(Clone, Debug)]
pub(crate) struct Disconnection {
    /// Error of a command that may not wait.
    pub(crate) error: Arc<NotConnected>,
    /// True if commands fail instead of waiting.
    pub(crate) commands_fail: bool,
}

impl Disconnection {
    /// Disconnection in which commands wait, before any attempt to reconnect.
    pub(crate) fn new(cause: Error) -> Self {
        let error = NotConnected { cause: Box::new(cause), attempt: 0, max: None };
        Self { error: Arc::new(error), commands_fail: false }
    }
}

/// State of a controller's connection, which anyone may watch.
pub(crate) struct ConnectionWatch<P: Provider> {
    shared: Arc<Shared<P>>,
}

struct Shared<P: Provider> {
    state: watch::Sender<ConnectionState<P>>,
    /// Connection that is live, or was last.
    latest: Mutex<Option<Arc<Connection<P>>>>,
    summary: Arc<LiveSummary>,
    fence: Arc<SharedFence>,
}

impl<P: Provider> Clone for ConnectionWatch<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Provider> ConnectionWatch<P> {
    /// Creates the watch of a controller that is not connected.
    pub(crate) fn new(fence: Arc<SharedFence>) -> Self {
        let state = ConnectionState::Disconnected(Disconnection::new(Error::Closed));
        let summary = Arc::<LiveSummary>::default();
        fence.add(&summary);
        Self {
            shared: Arc::new(Shared {
                state: watch::Sender::new(state),
                latest: Mutex::new(None),
                fence,
                summary,
            }),
        }
    }

    /// Write fence of the controller, which others may share.
    pub(crate) fn fence(&self) -> &SharedFence {
        &self.shared.fence
    }

    pub(crate) fn summary(&self) -> Arc<LiveSummary> {
        Arc::clone(&self.shared.summary)
    }

    pub(crate) fn state(&self) -> ConnectionState<P> {
        self.shared.state.borrow().clone()
    }

    /// Connection that is live, or was last; `None` before the first one.
    pub(crate) fn latest(&self) -> Option<Arc<Connection<P>>> {
        self.shared.latest.lock().clone()
    }

    /// Returns true if the connection of this generation is the live one.
    pub(crate) fn is_live(&self, generation: u64) -> bool {
        self.shared.state.borrow().is_live(generation)
    }

    /// Enters a state, unless the state is final.
    pub(crate) fn enter(&self, state: ConnectionState<P>) {
        if let ConnectionState::Live(connection) = &state {
            let before = self.shared.latest.lock().replace(Arc::clone(connection));
            debug_assert!(
                before.is_none_or(|before| before.generation < connection.generation),
                "generations rise"
            );
        }
        self.modify(|current| {
            let modified = !matches!(current, ConnectionState::Ended(_));
            if modified {
                *current = state;
            }
            modified
        });
    }

    /// Reports that the connection of this generation failed. Returns the cause of the loss: the
    /// first report counts.
    pub(crate) fn lost(&self, generation: u64, error: Error) -> Error {
        if self.is_live(generation) {
            let disconnection = Disconnection::new(error);
            self.modify(|current| {
                let first = current.is_live(generation);
                if first {
                    *current = ConnectionState::Disconnected(disconnection);
                }
                first
            });
        }
        self.cause().unwrap_or(Error::Closed)
    }

    /// Ends the waiting of commands for a connection: from now on they fail.
    pub(crate) fn fail_commands(&self) {
        self.modify(|current| match current {
            ConnectionState::Disconnected(disconnection) => {
                !std::mem::replace(&mut disconnection.commands_fail, true)
            }
            ConnectionState::Ended(_) | ConnectionState::Live(_) => false,
        });
    }

    /// Changes the state, and tells the watchers if `change` returns true.
    fn modify(&self, change: impl FnOnce(&mut ConnectionState<P>) -> bool) {
        self.shared.state.send_if_modified(|state| {
            let modified = change(state);
            if modified {
                update(&self.shared.summary, state);
            }
            modified
        });
    }

    /// Reason why there is no connection; `None` if there is one.
    pub(crate) fn cause(&self) -> Option<Error> {
        match &*self.shared.state.borrow() {
            ConnectionState::Disconnected(disconnection) => {
                Some((*disconnection.error.cause).clone())
            }
            ConnectionState::Ended(error) => Some(error.clone()),
            ConnectionState::Live(_) => None,
        }
    }

    /// Waits until the connection of this generation is no longer live.
    pub(crate) async fn until_lost(&self, generation: u64) {
        self.until(|state| !state.is_live(generation)).await;
    }

    /// Waits until there is a connection, or commands do not wait for one.
    pub(crate) async fn until_live_or_failing(&self) -> ConnectionState<P> {
        self.until(|state| match state {
            ConnectionState::Disconnected(disconnection) => disconnection.commands_fail,
            ConnectionState::Live(_) | ConnectionState::Ended(_) => true,
        })
        .await
    }

    /// Waits for the final state and returns its cause.
    pub(crate) async fn until_ended(&self) -> Error {
        match self.until(|state| matches!(state, ConnectionState::Ended(_))).await {
            ConnectionState::Ended(error) => error,
            _ => unreachable!("the final state was waited for"),
        }
    }

    /// Subscribes to changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<ConnectionState<P>> {
        self.shared.state.subscribe()
    }

    async fn until(
        &self,
        condition: impl FnMut(&ConnectionState<P>) -> bool,
    ) -> ConnectionState<P> {
        let mut watcher = self.subscribe();
        let found = watcher.wait_for(condition).await;
        found.expect("the sender lives as long as the watch").clone()
    }
}

/// Stores what the path of each command reads of a state.
fn update<P: Provider>(summary: &LiveSummary, state: &ConnectionState<P>) {
    summary.set_generation(match state {
        ConnectionState::Live(connection) => {
            summary.set_transfer_bytes_max(connection.transfer_bytes_max());
            summary.set_optional_commands(connection.negotiated().info.optional_commands);
            connection.generation
        }
        ConnectionState::Disconnected(_) | ConnectionState::Ended(_) => 0,
    });
}
