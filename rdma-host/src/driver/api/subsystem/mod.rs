//! Subsystem: one object above several controllers, its paths.
//!
//! ```text
//!   SubsystemNamespace   a command: chooses a path, sends, repeats elsewhere, holds
//!        |
//!   PathTable            state and access of each path, counters; proto::Paths decides
//!        |
//!   PathTask             one for each path: follows the connection, the ANA log, namespaces
//!        |
//!   Controller           neither holds commands nor sends them again; one fence and one protection
//!                        domain for all
//! ```

mod first_attempts;
mod path_status;
mod path_table;
mod path_task;
mod subsystem_namespace;
mod subsystem_queue;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::watch;
use verbs::{Buffer, CallerMemory, Provider, RdmaCore, RegisterError};

use self::{
    first_attempts::{FirstAttempt, Outcome},
    path_table::{PathTable, Presence},
    path_task::{PathTask, SubsystemIdentity, compare_namespaces},
};
pub use self::{
    path_status::{NamespacePath, PathStatus, SubsystemStatus},
    subsystem_namespace::SubsystemNamespace,
    subsystem_queue::SubsystemQueue,
};
use crate::{
    config::ConnectOptions,
    driver::{
        api::{connecting::Connecting, controller::Controller},
        connect::context::Purpose,
        control::subscription::FenceChanges,
        data_path::controller_group::ControllerGroup,
        runtime,
    },
    error::{Error, Misuse, PathError},
    proto::{PathId, PathPolicy, PathState},
    wire::NamespaceId,
};

/// Options of a subsystem with several paths.
#[derive(Clone, Debug)]
pub struct SubsystemOptions {
    connect: ConnectOptions,
    /// Address of the target and local address of each path.
    paths: Vec<(SocketAddr, Option<IpAddr>)>,
    policy: PathPolicy,
}

impl SubsystemOptions {
    /// Creates options with one path, the addresses of `connect`. The other options are those of
    /// all paths, but for these of [`reconnect`](ConnectOptions::reconnect), which are the
    /// subsystem's: `fast_io_fail` is the maximum time for which a command is held or sent again,
    /// by default `loss_timeout`; with `resend`, a command without a response is sent again on
    /// another path.
    ///
    /// With [`Fence::Off`](crate::Fence::Off), writes of unknown outcome are sent again on another
    /// path at once, as by Linux.
    #[must_use]
    pub fn new(connect: ConnectOptions) -> Self {
        let paths = vec![(connect.address, connect.source)];
        Self { connect, paths, policy: PathPolicy::default() }
    }

    /// Addresses of the paths.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.paths.iter().map(|&(address, _)| address)
    }

    /// Adds a path: an address of the target, and the local address to use, by default as the
    /// routing table says.
    #[must_use]
    pub fn path(mut self, address: SocketAddr, source: Option<IpAddr>) -> Self {
        self.paths.push((address, source));
        self
    }

    /// Sets the choice among paths of the same access.
    #[must_use]
    pub fn policy(mut self, policy: PathPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Options of the connections, those of the first path.
    #[must_use]
    pub fn connect(&self) -> &ConnectOptions {
        &self.connect
    }

    /// Options of the connections, to change them; addresses of paths stay those that were given.
    pub fn connect_mut(&mut self) -> &mut ConnectOptions {
        &mut self.connect
    }

    /// Checks that no path is given twice.
    ///
    /// # Errors
    ///
    /// [`PathError::Twice`] if one is.
    pub fn check(&self) -> Result<(), Error> {
        let twice = |(index, path): (usize, &_)| self.paths[..index].contains(path);
        match self.paths.iter().enumerate().find(|&one| twice(one)) {
            Some((_, path)) => Err(Error::Path(Arc::new(PathError::Twice(path.0)))),
            None => Ok(()),
        }
    }

    /// Options of a path's controller, which neither holds commands nor sends them again.
    fn of_path(&self, index: usize) -> ConnectOptions {
        let (address, source) = self.paths[index];
        let mut options = self.connect.clone().address(address).source(source);
        options.reconnect = options.reconnect.fast_io_fail(Some(Duration::ZERO)).resend(false);
        options
    }
}

/// Subsystem, used over several paths: controllers that a host has connected at several addresses.
/// I/O goes on as long as one path is usable.
///
/// All paths use one RDMA device, so that a buffer can be sent on each of them. Dropping the
/// subsystem shuts it down in the background; [`shutdown`](Self::shutdown) waits for that.
pub struct Subsystem<P: Provider = RdmaCore> {
    table: Arc<PathTable>,
    controllers: Arc<[OnceLock<Arc<Controller<P>>>]>,
    /// Ends the tasks of the paths when it is dropped.
    closing: watch::Sender<()>,
}

impl Subsystem {
    /// Connects all paths over the system's RDMA devices, at once. When one is connected, the
    /// others are waited for, but for a second at most: a path that is not connected by then, or
    /// can't be reached, is tried further, by the options for reconnects.
    ///
    /// # Errors
    ///
    /// The error of the first path if none can be connected; [`Error::Path`] if the targets report
    /// different subsystems.
    pub async fn connect(options: &SubsystemOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }
}

impl<P: Provider> Subsystem<P> {
    /// Connects as [`connect`](Subsystem::connect), over any RDMA provider.
    ///
    /// # Errors
    ///
    /// As [`connect`](Subsystem::connect).
    pub async fn connect_over(
        provider: &Arc<P>,
        options: &SubsystemOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let addresses: Vec<_> = options.addresses().collect();
        let group = Arc::new(ControllerGroup::new(options.connect.fence.clone()));
        let connecting = |options: &ConnectOptions| {
            Connecting::new(provider, options, Purpose::Io, Some(Arc::clone(&group)))
        };
        let attempt =
            |index| FirstAttempt::Running(connecting(&options.of_path(index)).into_future());
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
                    runtime::spawn(start.connect(attempt, connecting(&options)));
                }
            }
        }
        Ok(Self { table, controllers, closing })
    }

    /// Identifies a namespace on all live paths. It must be the same on each that has it.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if it differs by path or has no identifier, else as
    /// [`Controller::namespace`].
    pub async fn namespace(&self, id: NamespaceId) -> Result<SubsystemNamespace, Error> {
        let _guard = self.table.loading.lock().await;
        let handle = SubsystemNamespace::new(Arc::clone(&self.table), id);
        if self.table.namespace(id).is_some() {
            return Ok(handle);
        }
        let mut on = Vec::new();
        let mut first = None;
        let mut failure = Error::from(Misuse::NoNamespace(id));
        for (address, controller) in self.table.addresses.iter().zip(&*self.controllers) {
            let Some(controller) = controller.get() else {
                on.push(Presence::Unknown);
                continue;
            };
            on.push(match controller.namespace(id).await {
                Ok(namespace) => {
                    let info = namespace.info();
                    let (at, known) = *first.get_or_insert((*address, info));
                    compare_namespaces((at, &known), (*address, &info))?;
                    Presence::There(Arc::new(namespace))
                }
                Err(Error::Misuse(Misuse::NoNamespace(_))) => Presence::Absent,
                Err(error) => {
                    failure = error;
                    Presence::Unknown
                }
            });
        }
        let (_, info) = first.ok_or(failure)?;
        if info.uuid.is_none() && info.nguid.is_none() && info.eui64.is_none() {
            return Err(Error::Path(Arc::new(PathError::NoIdentifier(id))));
        }
        self.table.add(info, on);
        Ok(handle)
    }

    /// Creates a queue of commands to a namespace, of `depth` commands in flight at most.
    ///
    /// # Errors
    ///
    /// As [`namespace`](Self::namespace).
    pub async fn queue(&self, id: NamespaceId, depth: usize) -> Result<SubsystemQueue, Error> {
        Ok(SubsystemQueue::new(self.namespace(id).await?, depth))
    }

    /// State of the paths, with counters.
    #[must_use]
    pub fn status(&self) -> SubsystemStatus {
        self.table.status()
    }

    /// Subscribes to the changes of the paths: of their connections and of the access to namespaces
    /// in use.
    #[must_use]
    pub fn changes(&self) -> SubsystemChanges {
        let mut version = self.table.subscribe();
        version.mark_changed();
        SubsystemChanges { table: Arc::clone(&self.table), version }
    }

    /// Controller of a path, for its log pages, events and admin commands; `None` before its first
    /// connection. It neither holds commands nor sends them again.
    #[must_use]
    pub fn controller(&self, path: PathId) -> Option<Arc<Controller<P>>> {
        self.controllers.get(path.0)?.get().cloned()
    }

    /// Controller of a live path, or of one that was if none is.
    ///
    /// # Panics
    ///
    /// Never: a subsystem is handed out once a path is connected.
    #[must_use]
    pub fn any_controller(&self) -> Arc<Controller<P>> {
        let is_live = |path: &PathId| self.table.is_live(*path);
        let paths = || (0..self.controllers.len()).map(PathId);
        let connected = |path| self.controller(path);
        let found = paths().filter(is_live).find_map(connected);
        let found = found.or_else(|| paths().find_map(connected));
        found.expect("a subsystem is handed out once a path is connected")
    }

    /// Allocates and registers a buffer for I/O over any path.
    ///
    /// # Errors
    ///
    /// As [`Controller::allocate`].
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        self.any_controller().allocate(bytes)
    }

    /// Allocates `count` buffers of `bytes` bytes each, for I/O over any path.
    ///
    /// # Errors
    ///
    /// As [`Controller::allocate_many`].
    pub fn allocate_many(&self, count: usize, bytes: usize) -> Result<Vec<Buffer>, Error> {
        self.any_controller().allocate_many(count, bytes)
    }

    /// Registers memory of the caller for I/O over any path.
    ///
    /// # Errors
    ///
    /// As [`Controller::register`].
    pub fn register<M: CallerMemory>(&self, memory: M) -> Result<Buffer, RegisterError<M>> {
        self.any_controller().register(memory)
    }

    /// Subscribes to the changes of the fence, which is that of all paths.
    #[must_use]
    pub fn fence_changes(&self) -> FenceChanges {
        self.any_controller().fence_changes()
    }

    /// Opens the fence, as [`Controller::open_fence`].
    pub fn open_fence(&self) {
        self.any_controller().open_fence();
    }

    /// Shuts all controllers down, as [`Controller::shutdown`]. Commands in flight and held ones
    /// fail.
    pub async fn shutdown(self) {
        let Self { table, controllers, closing } = &self;
        table.close();
        let connected = controllers.iter().filter_map(OnceLock::get);
        join_all(connected.map(|controller| controller.close())).await;
        let _ = closing.send(());
    }
}

impl<P: Provider> Drop for Subsystem<P> {
    fn drop(&mut self) {
        self.table.close();
    }
}

/// Changes of a subsystem's paths.
pub struct SubsystemChanges {
    table: Arc<PathTable>,
    version: watch::Receiver<u64>,
}

impl SubsystemChanges {
    /// Waits for a change since the last call; the first call returns at once. Returns the state
    /// then, in which several changes may be seen; `None` once the subsystem is closed.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<SubsystemStatus> {
        self.version.changed().await.ok()?;
        (!self.table.is_closed()).then(|| self.table.status())
    }
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
    async fn connect(self, first: FirstAttempt<P>, further: Connecting<P>) {
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

    async fn attempts(&self, first: FirstAttempt<P>, further: Connecting<P>) -> Outcome<P> {
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
