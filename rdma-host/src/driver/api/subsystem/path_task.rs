//! Task of a path: follows its connection and its access to the namespaces.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use verbs::Provider;

use super::{path_record::Presence, path_table::PathTable};
use crate::{
    config::{EVENT_INTERVAL_MIN, PATH_RELOAD_DELAY},
    driver::{
        api::controller::Controller, control::controller_event::ControllerEvent,
        data_path::connection_state::ConnectionState, runtime,
    },
    error::{Error, Misuse, PathDifference, PathError},
    proto::{CommandRetry, PathId, PathState},
    wire::{AsyncEventKind, NamespaceInfo},
};

/// Task of one path. It ends with its controller, or when the subsystem is closed.
pub(super) struct PathTask<P: Provider> {
    table: Arc<PathTable>,
    path: PathId,
    controller: Arc<Controller<P>>,
    /// Identity that the first path has reported.
    identity: SubsystemIdentity,
    /// End of the task, when the sender is dropped: the subsystem is closed.
    closing: watch::Receiver<()>,
    /// Generation of the connection that commands are sent on.
    loaded: u64,
    /// Time of the next attempt to read what a new connection has.
    load_at: Option<Instant>,
    /// Time at which the ANA log is read again.
    read_at: Option<Instant>,
    /// Time of the last reading of it.
    last_read: Option<Instant>,
}

/// Properties that the controllers of one subsystem have in common (Base 5.1.13).
#[derive(Clone, Debug)]
pub(super) struct SubsystemIdentity {
    address: SocketAddr,
    nqn: String,
    serial: String,
    model: String,
}

impl SubsystemIdentity {
    /// Identity that a controller reports.
    pub(super) fn of<P: Provider>(address: SocketAddr, controller: &Controller<P>) -> Self {
        let info = &controller.negotiated().info;
        let [nqn, serial, model] =
            [&info.subsystem_nqn, &info.serial, &info.model].map(String::clone);
        Self { address, nqn, serial, model }
    }

    /// Compares the controller of another path.
    pub(super) fn compare(&self, other: &Self) -> Result<(), Error> {
        let properties = [
            ("subsystem NQN", &self.nqn, &other.nqn),
            ("serial number", &self.serial, &other.serial),
            ("model", &self.model, &other.model),
        ];
        let differs = properties.into_iter().find(|(_, first, other)| first != other);
        let Some((property, first, value)) = differs else { return Ok(()) };
        let difference = PathDifference { property, first: first.clone(), other: value.clone() };
        let (address, other) = (self.address, other.address);
        Err(Error::Path(Arc::new(PathError::AnotherSubsystem { address, other, difference })))
    }
}

/// Compares a namespace on two paths: the identifiers, the format, the size and the ANA group.
pub(super) fn compare_namespaces(
    (address, first): (SocketAddr, &NamespaceInfo),
    (other, info): (SocketAddr, &NamespaceInfo),
) -> Result<(), Error> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let uuid = |uuid: Option<uuid::Uuid>| text(uuid.map(|uuid| uuid.to_string()));
    let eui64 = |info: &NamespaceInfo| text(info.eui64.map(|eui64| eui64.to_string()));
    let properties = [
        ("UUID", uuid(first.uuid), uuid(info.uuid)),
        ("NGUID", uuid(first.nguid), uuid(info.nguid)),
        ("EUI64", eui64(first), eui64(info)),
        ("block size", first.block_size.to_string(), info.block_size.to_string()),
        ("metadata", first.metadata.to_string(), info.metadata.to_string()),
        ("size in blocks", first.blocks.to_string(), info.blocks.to_string()),
        ("command set", first.command_set.to_string(), info.command_set.to_string()),
        ("ANA group", first.ana_group.to_string(), info.ana_group.to_string()),
    ];
    let differs = properties.into_iter().find(|(_, first, other)| first != other);
    let Some((property, first, value)) = differs else { return Ok(()) };
    let difference = PathDifference { property, first, other: value };
    let namespace = info.id;
    let error = PathError::AnotherNamespace { namespace, address, other, difference };
    Err(Error::Path(Arc::new(error)))
}

impl<P: Provider> PathTask<P> {
    pub(super) fn new(
        table: Arc<PathTable>,
        path: PathId,
        controller: Arc<Controller<P>>,
        identity: SubsystemIdentity,
        closing: watch::Receiver<()>,
    ) -> Self {
        let (load_at, read_at, last_read) = (None, None, None);
        Self { table, path, controller, identity, closing, loaded: 0, load_at, read_at, last_read }
    }

    /// Runs until the controller has ended.
    pub(super) async fn run(mut self) {
        let mut connections = self.controller.connection_watch().subscribe();
        let mut events = self.controller.events();
        loop {
            let state = connections.borrow_and_update().clone();
            match state {
                ConnectionState::Live(connection) if connection.generation != self.loaded => {
                    if self.load_at.is_none_or(|due| due <= runtime::now())
                        && let Err(refused) = self.load().await
                    {
                        return self.end(&refused).await;
                    }
                }
                ConnectionState::Live(_) => self.load_at = None,
                ConnectionState::Disconnected(disconnection) => {
                    self.load_at = None;
                    let cause = &disconnection.error.cause;
                    self.table.set_lost(self.path, PathState::Reconnecting, cause);
                }
                ConnectionState::Ended(error) => {
                    return self.table.set_lost(self.path, PathState::Ended, &error);
                }
            }
            let (table, path) = (&self.table, self.path);
            let overdue_at = table.overdue_at(path);
            tokio::select! {
                biased;
                _ = self.closing.changed() => {
                    return table.set_lost(path, PathState::Ended, &Error::Closed);
                }
                // An error is for a controller that has ended, which its state says.
                changed = connections.changed() => if changed.is_err() { return },
                Some(event) = events.next() => if let Err(refused) = self.handle(&event).await {
                    return self.end(&refused).await;
                },
                () = table.until_stale(path) => self.read_again(EVENT_INTERVAL_MIN),
                () = until(self.read_at) => self.read_access().await,
                () = until(self.load_at) => {}
                () = until(overdue_at) => {
                    let address = table.addresses[path.0];
                    tracing::warn!(
                        path = path.0, %address,
                        "the access to a namespace has been changing for too long: resetting"
                    );
                    self.controller.reset().await;
                }
            }
        }
    }

    async fn handle(&mut self, event: &ControllerEvent) -> Result<(), Error> {
        match event.event.kind() {
            AsyncEventKind::AnaChange => self.read_access().await,
            // Namespaces may have come, changed their group, or been replaced.
            AsyncEventKind::NamespaceAttributeChanged => self.load().await?,
            _ => {}
        }
        Ok(())
    }

    /// Ends a path that does not belong to the subsystem.
    async fn end(self, refused: &Error) {
        self.table.set_lost(self.path, PathState::Ended, refused);
        self.controller.close().await;
    }

    /// Reads what a new connection has, and lets commands go there; tries it later again if that
    /// fails. An error is for a path that does not belong to the subsystem.
    pub(super) async fn load(&mut self) -> Result<(), Error> {
        match self.try_load().await {
            Ok(()) => {}
            Err(refused @ Error::Path(_)) => return Err(refused),
            Err(error) => {
                let (path, address) = (self.path, self.table.addresses[self.path.0]);
                tracing::info!(path = path.0, %address, %error, "a path can't be used yet");
                self.table.set_lost(path, PathState::Reconnecting, &error);
                (self.loaded, self.load_at) = (0, Some(runtime::now() + PATH_RELOAD_DELAY));
            }
        }
        Ok(())
    }

    async fn try_load(&mut self) -> Result<(), Error> {
        let ConnectionState::Live(connection) = self.controller.connection_watch().state() else {
            return Ok(());
        };
        let address = self.table.addresses[self.path.0];
        self.identity.compare(&SubsystemIdentity::of(address, &self.controller))?;
        let table = Arc::clone(&self.table);
        let _guard = table.loading.lock().await;
        let info = connection.negotiated().info.clone();
        let access = match info.reports_ana {
            true => Some((self.controller.ana_log().await?, info.ana_transition_time)),
            false => None,
        };
        let mut namespaces = Vec::new();
        for known in self.table.namespaces() {
            namespaces.push((known.id, self.identify(&known).await?));
        }
        self.loaded = connection.generation;
        self.load_at = None;
        let resend = self.table.resend;
        let rules = (connection.generation, CommandRetry::new(&info, resend));
        self.table.set_live(self.path, rules, access, namespaces);
        if self.table.lacks_group(self.path) {
            self.read_again(PATH_RELOAD_DELAY);
        }
        Ok(())
    }

    /// Identifies a namespace in use. Another one of this id is not used; its size and group may
    /// have changed.
    async fn identify(&self, known: &NamespaceInfo) -> Result<Presence, Error> {
        let namespace = match self.controller.namespace_of_path(known.id).await {
            Ok(namespace) => namespace,
            Err(Error::Misuse(Misuse::NoNamespace(_)) | Error::Malformed(_)) => {
                return Ok(Presence::Absent);
            }
            Err(error) => return Err(error),
        };
        let address = self.table.addresses[self.path.0];
        let info = namespace.info();
        let same = NamespaceInfo { blocks: info.blocks, ana_group: info.ana_group, ..*known };
        match compare_namespaces((self.identity.address, &same), (address, &info)) {
            Ok(()) => Ok(Presence::There(Arc::new(namespace))),
            Err(error) => {
                tracing::warn!(path = self.path.0, %address, %error, "a path is not used");
                Ok(Presence::Absent)
            }
        }
    }

    /// Reads the ANA log again, at least this long after the last time.
    fn read_again(&mut self, after: Duration) {
        let now = runtime::now();
        self.read_at = Some(self.last_read.map_or(now, |last| now.max(last + after)));
    }

    async fn read_access(&mut self) {
        self.read_at = None;
        let info = self.controller.negotiated().info.clone();
        if !info.reports_ana || !self.controller.connection_watch().is_live(self.loaded) {
            return;
        }
        self.last_read = Some(runtime::now());
        match self.controller.ana_log().await {
            Ok(log) => {
                self.table.set_access(self.path, &log, info.ana_transition_time);
                if self.table.lacks_group(self.path) {
                    self.read_again(PATH_RELOAD_DELAY);
                }
            }
            Err(error) => {
                tracing::info!(path = self.path.0, %error, "the ANA log can't be read");
                self.read_again(PATH_RELOAD_DELAY);
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => runtime::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
