//! Subsystem: one object above several controllers, its paths.
//!
//! ```text
//!   SubsystemNamespace   a command: chooses a path, sends, repeats elsewhere, holds
//!   SubsystemPoller      the same, for a thread that polls the queues of the paths itself
//!        |
//!   PathTable            state and access of each path, counters; proto::Paths decides
//!        |
//!   PathTask             one for each path: follows the connection, the ANA log, namespaces
//!        |
//!   Controller           neither holds commands nor sends them again; one fence and one protection
//!                        domain for all
//! ```

mod connecting;
mod first_attempts;
mod operation;
mod path_record;
mod path_snapshot;
mod path_status;
mod path_table;
mod path_task;
mod preemption;
mod progress;
mod subsystem_namespace;
mod subsystem_poller;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::watch;
use uuid::Uuid;
use verbs::{Buffer, CallerMemory, Provider, RdmaCore, RegisterError};

pub use self::{
    connecting::ConnectingSubsystem,
    path_status::{NamespacePath, PathStatus, SubsystemStatus},
    subsystem_namespace::SubsystemNamespace,
    subsystem_poller::SubsystemPoller,
};
use self::{path_record::Presence, path_table::PathTable, path_task::compare_namespaces};
use crate::{
    config::ConnectOptions,
    driver::{api::controller::Controller, control::subscription::FenceChanges},
    error::{Error, Misuse, PathError},
    proto::{PathId, PathPolicy},
    wire::{NamespaceId, NamespaceInfo},
};

/// Options of a subsystem with several paths.
#[derive(Clone, Debug)]
pub struct SubsystemOptions {
    connect: ConnectOptions,
    /// Address of the target and local address of each path.
    paths: Vec<(SocketAddr, Option<IpAddr>)>,
    /// Host identifier of each path, or none: that of `connect` for all.
    host_ids: Vec<Uuid>,
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
        Self { connect, paths, host_ids: Vec::new(), policy: PathPolicy::default() }
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

    /// Sets the host identifiers of the paths, in their order, by which reservations tell the paths
    /// apart; by default all have that of `connect`. See [`Subsystem::preempt_path`].
    #[must_use]
    pub fn host_ids(mut self, ids: impl IntoIterator<Item = Uuid>) -> Self {
        self.host_ids = ids.into_iter().collect();
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

    /// Checks that no path and no host identifier is given twice.
    ///
    /// # Errors
    ///
    /// [`PathError::Twice`], [`PathError::HostIdCount`] or [`PathError::SameHostId`].
    pub fn check(&self) -> Result<(), Error> {
        let refused = |error| Err(Error::Path(Arc::new(error)));
        if let Some(path) = first_repeated(&self.paths) {
            return refused(PathError::Twice(path.0));
        }
        let (ids, paths) = (self.host_ids.len(), self.paths.len());
        if ids != 0 && ids != paths {
            return refused(PathError::HostIdCount { ids, paths });
        }
        match first_repeated(&self.host_ids) {
            Some(&id) => refused(PathError::SameHostId(id)),
            None => Ok(()),
        }
    }

    /// Options of a path's controller, which neither holds commands nor sends them again.
    fn of_path(&self, index: usize) -> ConnectOptions {
        let (address, source) = self.paths[index];
        let mut options = self.connect.clone().address(address).source(source);
        options.host.id = self.host_ids.get(index).copied().unwrap_or(options.host.id);
        options.reconnect = options.reconnect.fast_io_fail(Some(Duration::ZERO)).resend(false);
        options
    }
}

/// First value that one before it is equal to.
fn first_repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    let is_repeated = |&(index, value): &(usize, &T)| values[..index].contains(value);
    values.iter().enumerate().find(is_repeated).map(|(_, value)| value)
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
    /// True if the queues of the paths are polled by the caller.
    is_polled: bool,
}

impl<P: Provider> Subsystem<P> {
    /// Identifies a namespace on all live paths, for I/O. It must be the same on each that has it.
    ///
    /// # Errors
    ///
    /// As [`identify_namespace`](Self::identify_namespace), and [`Misuse::PolledController`] if the
    /// queues of the paths are polled by the caller.
    pub async fn namespace(&self, id: NamespaceId) -> Result<SubsystemNamespace, Error> {
        if self.is_polled {
            return Err(Misuse::PolledController.into());
        }
        let info = self.identify_namespace(id).await?;
        Ok(SubsystemNamespace::new(Arc::clone(&self.table), info))
    }

    /// Identifies a namespace on all live paths. It must be the same on each that has it. Where
    /// another one has taken the id on all paths, that is used from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if it differs by path or has no identifier, else as
    /// [`Controller::identify_namespace`].
    pub async fn identify_namespace(&self, id: NamespaceId) -> Result<NamespaceInfo, Error> {
        let _guard = self.table.loading.lock().await;
        if let Some(info) = self.table.namespace(id)
            && !self.table.is_absent(id)
        {
            return Ok(info);
        }
        let mut on = Vec::new();
        let mut first = None;
        let mut failure = Error::from(Misuse::NoNamespace(id));
        for (address, controller) in self.table.addresses.iter().zip(&*self.controllers) {
            let Some(controller) = controller.get() else {
                on.push(Presence::Unknown);
                continue;
            };
            on.push(match controller.namespace_of_path(id).await {
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
        Ok(info)
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
        let Self { table, controllers, closing, .. } = &self;
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
