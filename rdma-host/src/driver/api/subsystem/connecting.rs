//! Connecting the paths of a subsystem.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use verbs::{Provider, RdmaCore};

use super::{
    Subsystem, SubsystemOptions,
    first_attempts::{self, ConnectAttempt, FirstAttempt, Outcome},
    path_table::PathTable,
    path_task::{PathTask, SubsystemIdentity},
    subsystem_poller::SubsystemPoller,
};
use crate::{
    config::ConnectOptions,
    driver::{
        api::{connecting::Connecting, controller::Controller},
        connect::context::Purpose,
        data_path::{controller_group::ControllerGroup, poller::Poller},
        runtime,
    },
    error::Error,
    proto::{PathId, PathState},
};

/// First connect of a subsystem, not started yet. It is started by awaiting it, or by
/// [`polled`](Self::polled), in a tokio runtime; dropping the future ends it.
///
/// Awaited, it returns a [`Subsystem`] whose queues are served by tasks of the current runtime.
#[must_use = "it connects when awaited"]
pub struct ConnectingSubsystem<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: SubsystemOptions,
}

impl Subsystem {
    /// Connects all paths over the system's RDMA devices, at once. When one is connected, the
    /// others are waited for, but for a second at most: a path that is not connected by then, or
    /// can't be reached, is tried further, by the options for reconnects.
    ///
    /// # Errors
    ///
    /// Awaited, the error of the first path if none can be connected; [`Error::Path`] if the
    /// targets report different subsystems.
    pub fn connect(options: &SubsystemOptions) -> ConnectingSubsystem {
        Self::connect_over(&Arc::new(RdmaCore::new()), options)
    }
}

impl<P: Provider> Subsystem<P> {
    /// Connects as [`connect`](Subsystem::connect), over any RDMA provider.
    ///
    /// # Errors
    ///
    /// As [`connect`](Subsystem::connect).
    pub fn connect_over(provider: &Arc<P>, options: &SubsystemOptions) -> ConnectingSubsystem<P> {
        ConnectingSubsystem { provider: Arc::clone(provider), options: options.clone() }
    }
}

impl<P: Provider> ConnectingSubsystem<P> {
    /// Connects and leaves the queues of the paths to the caller, who drives them: those of each
    /// path are distributed over `pollers` pollers, or fewer when no path has as many queues. A
    /// poller has queues of all paths, but where a path has fewer queues than there are pollers.
    /// The subsystem has no namespaces to read from then.
    ///
    /// # Errors
    ///
    /// As [`Subsystem::connect`].
    pub async fn polled(
        self,
        pollers: usize,
    ) -> Result<(Subsystem<P>, Vec<SubsystemPoller<P>>), Error> {
        let pollers = pollers.max(1);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..pollers).map(|_| mpsc::unbounded_channel()).unzip();
        let owners = PollerOwners { senders: Arc::new(Mutex::new(senders)), count: pollers };
        let subsystem = self.run(Some(owners.clone())).await?;
        let new = |arrivals| SubsystemPoller::new(Arc::clone(&subsystem.table), arrivals);
        // Locked until their number is known: a path that is connected now would send its pollers
        // to owners that are dropped, and so disconnect them.
        let mut senders = owners.senders.lock();
        let mut all: Vec<_> = receivers.into_iter().map(new).collect();
        // Poller n of each path went to owner n.
        let count = all.iter().take_while(|poller| poller.depth() > 0).count();
        senders.truncate(count);
        all.truncate(count);
        Ok((subsystem, all))
    }

    /// Connects; the pollers go to their owners, or to tasks if there are none.
    async fn run(self, owners: Option<PollerOwners<P>>) -> Result<Subsystem<P>, Error> {
        let Self { provider, options } = self;
        options.check()?;
        let addresses: Vec<_> = options.addresses().collect();
        let group = Arc::new(ControllerGroup::new(options.connect.fence.clone()));
        let connecting = |options: &ConnectOptions, path| {
            let group = Some(Arc::clone(&group));
            let connecting = Connecting::new(&provider, options, Purpose::Io, group);
            connect(connecting, path, owners.clone())
        };
        let attempt =
            |index| FirstAttempt::Running(connecting(&options.of_path(index), PathId(index)));
        let mut attempts: Vec<_> = (0..addresses.len()).map(attempt).collect();
        first_attempts::wait(&mut attempts).await;
        let identity = identify(&addresses, &attempts)?;
        let table = Arc::new(PathTable::new(addresses, &options.connect, options.policy));
        let controllers: Arc<[_]> = attempts.iter().map(|_| OnceLock::new()).collect();
        let closing = watch::Sender::new(());
        for (index, attempt) in attempts.into_iter().enumerate() {
            let path = PathId(index);
            let start = PathStart {
                table: Arc::clone(&table),
                path,
                controllers: Arc::clone(&controllers),
                identity: identity.clone(),
                closing: closing.subscribe(),
            };
            match attempt {
                FirstAttempt::Ended(Ok(controller)) => {
                    let mut task = start.task(controller);
                    task.load().await?;
                    runtime::spawn(task.run());
                }
                attempt => {
                    let mut options = options.of_path(index);
                    options.reconnect = options.reconnect.first_connect(true);
                    runtime::spawn(start.connect(attempt, connecting(&options, path)));
                }
            }
        }
        Ok(Subsystem { table, controllers, closing, is_polled: owners.is_some() })
    }
}

impl<P: Provider> IntoFuture for ConnectingSubsystem<P> {
    type Output = Result<Subsystem<P>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run(None))
    }
}

/// Channel to an owner of pollers of all paths.
type PollerSender<P> = mpsc::UnboundedSender<(PathId, Poller<P>)>;

/// Owners of the pollers of all paths: poller n of each path goes to owner n.
struct PollerOwners<P: Provider> {
    /// Fewer than [`count`](Self::count) once it is known how many queues the paths have.
    senders: Arc<Mutex<Vec<PollerSender<P>>>>,
    count: usize,
}

impl<P: Provider> Clone for PollerOwners<P> {
    fn clone(&self) -> Self {
        Self { senders: Arc::clone(&self.senders), count: self.count }
    }
}

impl<P: Provider> PollerOwners<P> {
    /// Hands the pollers of a path to their owners.
    fn send(&self, path: PathId, pollers: Vec<Poller<P>>) {
        let senders = self.senders.lock();
        for (index, poller) in pollers.into_iter().enumerate() {
            // Dropped with an owner that is gone, its queues are disconnected.
            let _ = senders[index % senders.len()].send((path, poller));
        }
    }
}

/// Connection of one path, as a future that does not start by itself.
fn connect<P: Provider>(
    connecting: Connecting<P>,
    path: PathId,
    owners: Option<PollerOwners<P>>,
) -> ConnectAttempt<P> {
    let Some(owners) = owners else { return connecting.into_future() };
    Box::pin(async move {
        let (controller, pollers) = connecting.polled(owners.count).await?;
        owners.send(path, pollers);
        Ok(controller)
    })
}

/// Parts of a path's task, before its controller is connected.
struct PathStart<P: Provider> {
    table: Arc<PathTable>,
    path: PathId,
    controllers: Arc<[OnceLock<Arc<Controller<P>>>]>,
    identity: SubsystemIdentity,
    closing: watch::Receiver<()>,
}

impl<P: Provider> PathStart<P> {
    fn task(self, controller: Controller<P>) -> PathTask<P> {
        let Self { table, path, controllers, identity, closing } = self;
        let controller = controllers[path.0].get_or_init(|| Arc::new(controller)).clone();
        PathTask::new(table, path, controller, identity, closing)
    }

    /// Goes on with the first attempt of a path, connects it after that by the policy of
    /// reconnects, and runs its task.
    async fn connect(self, first: FirstAttempt<P>, further: ConnectAttempt<P>) {
        let mut closing = self.closing.clone();
        let connected = tokio::select! {
            biased;
            _ = closing.changed() => return,
            connected = self.attempts(first, further) => connected,
        };
        match connected {
            Ok(controller) => self.task(controller).run().await,
            Err(error) => self.table.set_lost(self.path, PathState::Ended, &error),
        }
    }

    async fn attempts(&self, first: FirstAttempt<P>, further: ConnectAttempt<P>) -> Outcome<P> {
        let first = match first {
            FirstAttempt::Running(attempt) => attempt.await,
            FirstAttempt::Ended(outcome) => outcome,
        };
        let Err(error) = first else { return first };
        self.table.set_lost(self.path, PathState::Reconnecting, &error);
        let (path, address) = (self.path.0, self.table.addresses[self.path.0]);
        tracing::warn!(path, %address, %error, "a path can't be connected: once more");
        further.await
    }
}

/// Compares what the controllers of the connected paths report. If none is connected, the error is
/// that of the first path.
fn identify<P: Provider>(
    addresses: &[SocketAddr],
    attempts: &[FirstAttempt<P>],
) -> Result<SubsystemIdentity, Error> {
    let connected = addresses.iter().zip(attempts);
    let mut identities = connected.filter_map(|(address, attempt)| {
        Some(SubsystemIdentity::of(*address, attempt.controller()?))
    });
    let Some(first) = identities.next() else {
        let error = attempts.iter().find_map(FirstAttempt::error);
        return Err(error.expect("all attempts have failed, and there is one").clone());
    };
    identities.try_for_each(|other| first.compare(&other))?;
    Ok(first)
}
