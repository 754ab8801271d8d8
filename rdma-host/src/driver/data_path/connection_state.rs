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
pub(crate) enum Phase {
    /// No connection; commands are held, or fail, until there is one.
    Away(Outage),
    /// The end, and why.
    Ended(Error),
    /// Commands flow.
    Live(Arc<Terms>),
}

/// A time without a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) away: Arc<NotConnected>,
    /// Whether commands fail rather than wait.
    pub(crate) commands_fail: bool,
}

/// What holds for one connection.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
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
pub(crate) struct Liveness {
    phase: Arc<watch::Sender<Phase>>,
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

    fn follow(&self, phase: &Phase) {
        let generation = match phase {
            Phase::Live(terms) => terms.generation,
            Phase::Away(_) | Phase::Ended(_) => 0,
        };
        self.0.store(generation, Ordering::Relaxed);
    }
}

impl Liveness {
    /// For a controller that is not connected.
    pub(crate) fn new() -> Self {
        let away = NotConnected { cause: Box::new(Error::Closed), attempt: 0, max: None };
        let outage = Outage { away: Arc::new(away), commands_fail: false };
        let phase = Arc::new(watch::Sender::new(Phase::Away(outage)));
        Self { phase, live: LiveGeneration::default() }
    }

    pub(crate) fn live_generation(&self) -> LiveGeneration {
        self.live.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Whether the connection with this number is the one that is live.
    pub(crate) fn is_live(&self, generation: u64) -> bool {
        matches!(&*self.phase.borrow(), Phase::Live(terms) if terms.generation == generation)
    }

    /// Enters another phase, unless it is the end already.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let going_on = !matches!(current, Phase::Ended(_));
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
            let outage = Outage { away: Arc::new(away), commands_fail: false };
            self.phase.send_if_modified(|current| {
                let first = matches!(current, Phase::Live(terms) if terms.generation == generation);
                if first {
                    *current = Phase::Away(outage);
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
            Phase::Away(outage) => !std::mem::replace(&mut outage.commands_fail, true),
            Phase::Ended(_) | Phase::Live(_) => false,
        });
    }

    /// Why there is no connection; nothing if there is one.
    pub(crate) fn cause(&self) -> Option<Error> {
        match &*self.phase.borrow() {
            Phase::Away(outage) => Some((*outage.away.cause).clone()),
            Phase::Ended(error) => Some(error.clone()),
            Phase::Live(_) => None,
        }
    }

    /// Waits until the connection with this number is no longer live.
    pub(crate) async fn left(&self, generation: u64) {
        self.until(|phase| !matches!(phase, Phase::Live(now) if now.generation == generation))
            .await;
    }

    /// Waits until there is a connection, or commands are not to wait for one.
    pub(crate) async fn decided(&self) -> Phase {
        let waits = |phase: &Phase| matches!(phase, Phase::Away(outage) if !outage.commands_fail);
        self.until(|phase| !waits(phase)).await
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Error {
        match self.until(|phase| matches!(phase, Phase::Ended(_))).await {
            Phase::Ended(error) => error,
            Phase::Away(_) | Phase::Live(_) => Error::Closed,
        }
    }

    /// To be told of what changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    async fn until(&self, condition: impl FnMut(&Phase) -> bool) -> Phase {
        let mut watcher = self.phase.subscribe();
        let found = watcher.wait_for(condition).await.map(|phase| phase.clone());
        found.unwrap_or(Phase::Ended(Error::Closed))
    }
}
