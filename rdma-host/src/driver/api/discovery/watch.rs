//! A discovery connection that stays: it hears of changes, reads the log again, and connects again
//! when it is lost.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use verbs::{Provider, RdmaCore};

use super::DiscoveryController;
use crate::{
    config::{ConnectOptions, DISCOVERY_KEEP_ALIVE, EVENT_INTERVAL_MIN},
    driver::control::supervisor::jitter_seed,
    error::Error,
    proto::{ConnectionFailure, DiscoveryLog, FailureKind, Verdict},
    wire::AsyncEventKind,
};

/// Watches a discovery controller.
///
/// A task of the current runtime keeps the connection alive and hears of changes; a connection that
/// is lost is sought again by [`next`](Self::next), as the options' `reconnect` has it. Only the
/// latest log is kept: slow readers miss those that were already replaced, and nothing else.
/// Dropping it disconnects in the background.
pub struct DiscoveryWatch<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: ConnectOptions,
    /// Attempts since the last log.
    attempts: u32,
    /// When the connection was lost that they are for.
    lost: Option<Instant>,
    state: State,
}

/// What is known of a watched discovery controller.
#[derive(Clone, Debug)]
pub enum DiscoveryEvent {
    /// The watch is over, for good.
    Ended(Error),
    /// The log, new or changed.
    Log(Arc<DiscoveryLog>),
    /// There is no connection; one will be tried again.
    Lost {
        /// Why.
        cause: Error,
        /// Which attempt comes next, from 1.
        attempt: u32,
        /// How many there will be; nothing for no end of them.
        max: Option<u32>,
        /// When, from now.
        delay: Duration,
    },
}

/// ```text
///           log                 lost
///   Live ───────► Live    Live ──────► Lost ──── connected ───► Live
///                           │           │  ▲
///                           │ no cure   │  └── attempt failed
///                           └──► Ended ◄┴ none left
/// ```
enum State {
    Ended(Error),
    Live(Serving),
    Lost { due: Instant },
}

/// The task, and what it tells.
struct Serving {
    news: watch::Receiver<Option<Result<Arc<DiscoveryLog>, Error>>>,
    /// Dropped, it ends the task.
    close: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl DiscoveryWatch {
    /// Watches over the system's RDMA devices. A keep-alive time of zero in the options becomes
    /// 30 s, since the connection is idle for long.
    ///
    /// # Errors
    ///
    /// As [`DiscoveryController::connect`], or when the controller tells of no changes. After
    /// that, errors come as news.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }
}

impl<P: Provider> DiscoveryWatch<P> {
    /// Watches as [`connect`](DiscoveryWatch::connect), over any provider of RDMA.
    ///
    /// # Errors
    ///
    /// As [`connect`](DiscoveryWatch::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let mut options = options.clone();
        if options.keep_alive.is_zero() {
            options.keep_alive = DISCOVERY_KEEP_ALIVE;
        }
        let state = State::Live(Serving::start(open(provider, &options).await?));
        Ok(Self { provider: Arc::clone(provider), options, attempts: 0, lost: None, state })
    }

    /// Waits for news: the log right after the connect, then every change, and what becomes of the
    /// connection. Nothing is lost when the future is dropped. After [`DiscoveryEvent::Ended`] it
    /// is repeated.
    pub async fn next(&mut self) -> DiscoveryEvent {
        loop {
            match &mut self.state {
                State::Ended(error) => return DiscoveryEvent::Ended(error.clone()),
                State::Live(serving) => match serving.next().await {
                    Ok(log) => {
                        (self.attempts, self.lost) = (0, None);
                        return DiscoveryEvent::Log(log);
                    }
                    Err(cause) => return self.lost(cause),
                },
                State::Lost { due } => {
                    tokio::time::sleep_until(*due).await;
                    match open(&self.provider, &self.options).await {
                        Ok(controller) => self.state = State::Live(Serving::start(controller)),
                        Err(cause) => return self.lost(cause),
                    }
                }
            }
        }
    }

    /// Ends the connection in order; takes a second at most.
    pub async fn shutdown(self) {
        if let State::Live(Serving { close, task, .. }) = self.state {
            drop(close);
            // A task that panicked has dropped its connection.
            let _ = task.await;
        }
    }

    fn lost(&mut self, cause: Error) -> DiscoveryEvent {
        let elapsed = self.lost.get_or_insert_with(Instant::now).elapsed();
        let attempts = self.attempts;
        let failure = ConnectionFailure {
            kind: FailureKind::from(&cause),
            attempts,
            elapsed,
            jitter_seed: jitter_seed(),
        };
        match self.options.reconnect.verdict(&failure) {
            Verdict::GiveUp(_) => {
                self.state = State::Ended(cause.clone());
                DiscoveryEvent::Ended(cause)
            }
            Verdict::Retry(delay) => {
                self.attempts += 1;
                self.state = State::Lost { due: Instant::now() + delay };
                let max = self.options.reconnect.attempts_max();
                DiscoveryEvent::Lost { cause, attempt: self.attempts, max, delay }
            }
        }
    }
}

impl Serving {
    fn start<P: Provider>(controller: DiscoveryController<P>) -> Self {
        let (sender, news) = watch::channel(None);
        let (close, closed) = mpsc::channel(1);
        Self { news, close, task: tokio::spawn(run(controller, sender, closed)) }
    }

    async fn next(&mut self) -> Result<Arc<DiscoveryLog>, Error> {
        // A task that is gone without a word was ended by its runtime.
        if self.news.changed().await.is_err() {
            return Err(Error::Closed);
        }
        self.news.borrow_and_update().clone().unwrap_or(Err(Error::Closed))
    }
}

/// A connection that tells of changes.
async fn open<P: Provider>(
    provider: &Arc<P>,
    options: &ConnectOptions,
) -> Result<DiscoveryController<P>, Error> {
    let mut controller = DiscoveryController::connect_over(provider, options).await?;
    controller.subscribe().await?;
    Ok(controller)
}

/// The task: serves until something fails, or the other side of `closed` is gone.
async fn run<P: Provider>(
    mut controller: DiscoveryController<P>,
    news: watch::Sender<Option<Result<Arc<DiscoveryLog>, Error>>>,
    mut closed: mpsc::Receiver<()>,
) {
    let cause = tokio::select! {
        cause = serve(&mut controller, &news) => cause,
        _ = closed.recv() => return controller.shutdown().await,
    };
    tracing::debug!(%cause, "the discovery connection is lost");
    news.send_replace(Some(Err(cause)));
}

/// Reads the log, and again after every change, until something fails.
async fn serve<P: Provider>(
    controller: &mut DiscoveryController<P>,
    news: &watch::Sender<Option<Result<Arc<DiscoveryLog>, Error>>>,
) -> Error {
    let mut known = None;
    loop {
        let log = match controller.read_log().await {
            Ok(log) => Arc::new(log),
            Err(error) => return error,
        };
        if known.as_ref() != Some(&log) {
            known = Some(Arc::clone(&log));
            news.send_replace(Some(Ok(log)));
        }
        if let Err(error) = changed(controller).await {
            return error;
        }
    }
}

/// Waits until the controller tells that its log has changed.
async fn changed<P: Provider>(controller: &mut DiscoveryController<P>) -> Result<(), Error> {
    loop {
        let seen = controller.session.event().await?;
        tracing::debug!(event = ?seen, "the discovery controller tells");
        // The next one is asked for only after this, however many there are.
        controller.session.idle(EVENT_INTERVAL_MIN).await?;
        controller.session.arm()?;
        if seen.kind() == AsyncEventKind::DiscoveryLogChange {
            return Ok(());
        }
    }
}
