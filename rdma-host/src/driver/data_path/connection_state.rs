//! Whether there is a connection: shared by all that serve a controller.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::{
    error::{Error, NotConnected},
    wire::NamespaceId,
};

/// What a controller is to those who serve it.
#[derive(Clone, Debug)]
pub(crate) enum ConnectionState {
    /// No connection; commands are held, or fail, until there is one.
    Away(Disconnection),
    /// The end, and why.
    Ended(Error),
    /// Commands flow.
    Live(Arc<ConnectionInfo>),
}

impl ConnectionState {
    /// Returns true if the connection of this generation is the live one.
    fn is_live(&self, generation: u64) -> bool {
        matches!(self, Self::Live(info) if info.generation == generation)
    }
}

/// A time without a connection.
#[derive(Clone, Debug)]
pub(crate) struct Disconnection {
    pub(crate) away: Arc<NotConnected>,
    /// Whether commands fail rather than wait.
    pub(crate) commands_fail: bool,
}

/// What holds for one connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    /// Counts connections, from 1.
    pub(crate) generation: u64,
    /// How many pollers have queues: the first ones.
    pub(crate) pollers: usize,
    /// Bytes one command may move.
    pub(crate) transfer_bytes_max: u64,
    /// Namespaces that are not what they were.
    pub(crate) replaced: Vec<NamespaceId>,
}

/// The phase, for everyone to see.
#[derive(Clone)]
pub(crate) struct ConnectionWatch {
    phase: Arc<watch::Sender<ConnectionState>>,
    live: LiveGeneration,
}

/// Generation of the live connection, 0 without one: a copy of the phase for the path of each
/// command.
#[derive(Clone, Default)]
pub(crate) struct LiveGeneration(Arc<AtomicU64>);

impl LiveGeneration {
    /// Returns true if the connection of this generation is the live one. Relaxed: a thread that
    /// was told of a loss by another that knew of it sees it here.
    #[inline]
    pub(crate) fn is(&self, generation: u64) -> bool {
        self.0.load(Ordering::Relaxed) == generation
    }

    fn follow(&self, phase: &ConnectionState) {
        let generation = match phase {
            ConnectionState::Live(terms) => terms.generation,
            ConnectionState::Away(_) | ConnectionState::Ended(_) => 0,
        };
        self.0.store(generation, Ordering::Relaxed);
    }
}

impl ConnectionWatch {
    /// For a controller that is not connected.
    pub(crate) fn new() -> Self {
        let away = NotConnected { cause: Box::new(Error::Closed), attempt: 0, max: None };
        let outage = Disconnection { away: Arc::new(away), commands_fail: false };
        let phase = Arc::new(watch::Sender::new(ConnectionState::Away(outage)));
        Self { phase, live: LiveGeneration::default() }
    }

    pub(crate) fn live_generation(&self) -> LiveGeneration {
        self.live.clone()
    }

    pub(crate) fn phase(&self) -> ConnectionState {
        self.phase.borrow().clone()
    }

    /// Whether the connection with this number is the one that is live.
    pub(crate) fn is_live(&self, generation: u64) -> bool {
        self.phase.borrow().is_live(generation)
    }

    /// Enters another phase, unless it is the end already.
    pub(crate) fn enter(&self, phase: ConnectionState) {
        self.phase.send_if_modified(|current| {
            let going_on = !matches!(current, ConnectionState::Ended(_));
            if going_on {
                *current = phase;
                self.live.follow(current);
            }
            going_on
        });
    }

    /// The connection with this number failed. Returns why it really did: the first report counts.
    pub(crate) fn lost(&self, generation: u64, error: Error) -> Error {
        if self.is_live(generation) {
            let away = NotConnected { cause: Box::new(error), attempt: 0, max: None };
            let outage = Disconnection { away: Arc::new(away), commands_fail: false };
            self.phase.send_if_modified(|current| {
                let first = current.is_live(generation);
                if first {
                    *current = ConnectionState::Away(outage);
                    self.live.follow(current);
                }
                first
            });
        }
        self.cause().unwrap_or(Error::Closed)
    }

    /// Commands are not held any longer until there is a connection.
    pub(crate) fn fail_commands(&self) {
        self.phase.send_if_modified(|current| match current {
            ConnectionState::Away(outage) => !std::mem::replace(&mut outage.commands_fail, true),
            ConnectionState::Ended(_) | ConnectionState::Live(_) => false,
        });
    }

    /// Why there is no connection; nothing if there is one.
    pub(crate) fn cause(&self) -> Option<Error> {
        match &*self.phase.borrow() {
            ConnectionState::Away(outage) => Some((*outage.away.cause).clone()),
            ConnectionState::Ended(error) => Some(error.clone()),
            ConnectionState::Live(_) => None,
        }
    }

    /// Waits until the connection with this number is no longer live.
    pub(crate) async fn left(&self, generation: u64) {
        self.until(
            |phase| !matches!(phase, ConnectionState::Live(now) if now.generation == generation),
        )
        .await;
    }

    /// Waits until there is a connection, or commands are not to wait for one.
    pub(crate) async fn decided(&self) -> ConnectionState {
        let waits = |phase: &ConnectionState| match phase {
            ConnectionState::Away(outage) => !outage.commands_fail,
            ConnectionState::Live(_) | ConnectionState::Ended(_) => false,
        };
        self.until(|phase| !waits(phase)).await
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Error {
        match self.until(|phase| matches!(phase, ConnectionState::Ended(_))).await {
            ConnectionState::Ended(error) => error,
            ConnectionState::Away(_) | ConnectionState::Live(_) => Error::Closed,
        }
    }

    /// To be told of what changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<ConnectionState> {
        self.phase.subscribe()
    }

    async fn until(&self, condition: impl FnMut(&ConnectionState) -> bool) -> ConnectionState {
        let mut watcher = self.phase.subscribe();
        let found = watcher.wait_for(condition).await.map(|phase| phase.clone());
        found.unwrap_or(ConnectionState::Ended(Error::Closed))
    }
}
