//! Paths of one subsystem, their counters, and which of them have which namespace.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    path_record::{NamespaceHead, PathRecord, Presence},
    path_snapshot::{ActivePaths, PathCounters, PathSnapshot},
    path_status::{NamespacePath, PathStatus, SubsystemStatus, mean, numbers},
};
use crate::{
    config::ConnectOptions,
    driver::{api::namespace::Namespace, runtime},
    error::{Error, PathError},
    proto::{CommandRetry, PathChoice, PathId, PathPolicy, PathSelector, PathState, Paths},
    wire::{AnaLog, NamespaceId, NamespaceInfo, Nqn, Status},
};

/// Paths of a subsystem, shared by its handles, its namespaces and a task for each path.
pub(super) struct PathTable {
    pub(super) subsystem: Nqn,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) policy: PathPolicy,
    /// False if no command of unknown outcome is sent again, and none with a status.
    pub(super) resend: bool,
    /// Maximum time for which a command is held or sent again; `None` for no limit.
    pub(super) hold_limit: Option<Duration>,
    /// Clock of each command, which makes no system call, and its reading at the start.
    clock: quanta::Clock,
    started: (Instant, u64),
    state: Mutex<State>,
    /// Number of changes that may make a path usable.
    version: watch::Sender<u64>,
    /// Copy of the version, which is read for each command.
    latest: AtomicU64,
    /// Requests to read the ANA log, by path.
    rereads: Vec<Notify>,
    /// Locked while namespaces are identified on a path.
    pub(super) loading: tokio::sync::Mutex<()>,
}

struct State {
    paths: Paths,
    records: Vec<PathRecord>,
    heads: BTreeMap<NamespaceId, NamespaceHead>,
    /// Number of namespaces that were added.
    added: u64,
    /// Counters of the threads that poll the queues of paths themselves.
    counters: Vec<Arc<PathCounters>>,
    is_closed: bool,
}

/// Choice for a command.
pub(super) enum Begun<Path> {
    /// Send it on this path.
    Send(Path),
    /// No path but the excepted one is usable.
    Same,
    /// No path is usable now: it is held until the version changes.
    Hold(u64),
    /// No path will be usable.
    Fail,
}

/// Command that is sent on a path. Dropping it reports its end.
pub(super) struct Attempt {
    table: Arc<PathTable>,
    pub(super) path: PathId,
    pub(super) namespace: Arc<Namespace>,
    /// Rules of the controller for statuses that are not of the path.
    pub(super) retry: CommandRetry,
    pub(super) generation: u64,
    began: Instant,
    latency: Option<Duration>,
}

impl Attempt {
    /// Reports that the command succeeded.
    pub(super) fn succeed(mut self) {
        self.latency = Some(self.table.now().saturating_duration_since(self.began));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.table.state.lock().paths.end(self.path, self.latency);
    }
}

impl State {
    /// Chooses a path for a command to a namespace, another one than `except` if possible, by a
    /// choice among the paths of a group for which a condition holds.
    fn choose(
        &mut self,
        id: NamespaceId,
        except: Option<PathId>,
        version: u64,
        mut choose: impl FnMut(&mut Paths, u32, &dyn Fn(PathId) -> bool) -> PathChoice,
    ) -> Begun<(PathId, Arc<Namespace>)> {
        let Self { paths, records, heads, is_closed, .. } = self;
        let Some(head) = heads.get(&id).filter(|_| !*is_closed) else { return Begun::Fail };
        let group = head.info.ana_group;
        let others = |path| Some(path) != except && head.has(records, path);
        let chosen = match choose(paths, group, &others) {
            PathChoice::Hold | PathChoice::Fail if except.is_some() => {
                choose(paths, group, &|path| head.has(records, path))
            }
            chosen => chosen,
        };
        match chosen {
            PathChoice::Send(path) if Some(path) == except => Begun::Same,
            PathChoice::Send(path) => match &head.on[path.0] {
                Presence::There(namespace) => Begun::Send((path, Arc::clone(namespace))),
                Presence::Unknown | Presence::Absent => Begun::Hold(version),
            },
            PathChoice::Hold => Begun::Hold(version),
            PathChoice::Fail => Begun::Fail,
        }
    }
}

impl PathTable {
    pub(super) fn new(
        addresses: Vec<SocketAddr>,
        options: &ConnectOptions,
        policy: PathPolicy,
    ) -> Self {
        let count = addresses.len();
        let clock = runtime::clock();
        let record = || PathRecord {
            state: PathState::Reconnecting,
            generation: 0,
            retry: CommandRetry::default(),
            cause: None,
            failures: 0,
            switches: 0,
            switched_at: None,
        };
        Self {
            subsystem: options.subsystem.clone(),
            addresses,
            policy,
            resend: options.reconnect.resend,
            hold_limit: options.reconnect.fast_io_fail.or(options.reconnect.loss_timeout),
            started: (runtime::now(), clock.raw()),
            clock,
            state: Mutex::new(State {
                paths: Paths::new(count, policy),
                records: std::iter::repeat_with(record).take(count).collect(),
                heads: BTreeMap::new(),
                added: 0,
                counters: Vec::new(),
                is_closed: false,
            }),
            version: watch::Sender::new(0),
            latest: AtomicU64::new(0),
            rereads: std::iter::repeat_with(Notify::new).take(count).collect(),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// Time for the choice of a path.
    fn now(&self) -> Instant {
        let (at, raw) = self.started;
        at + self.clock.delta(raw, self.clock.raw())
    }

    /// Chooses a path for a command to a namespace, another one than `except` if possible. Fails if
    /// another namespace has its id now.
    pub(super) fn begin(
        self: &Arc<Self>,
        (id, instance): (NamespaceId, u64),
        except: Option<PathId>,
    ) -> Begun<Attempt> {
        let mut state = self.state.lock();
        if state.heads.get(&id).is_none_or(|head| head.instance != instance) {
            return Begun::Fail;
        }
        let (now, version) = (self.now(), *self.version.borrow());
        match state.choose(id, except, version, |paths, group, has| paths.choose(group, has, now)) {
            Begun::Send((path, namespace)) => {
                state.paths.begin(path);
                let record = &state.records[path.0];
                Begun::Send(Attempt {
                    table: Arc::clone(self),
                    path,
                    namespace,
                    retry: record.retry,
                    generation: record.generation,
                    began: now,
                    latency: None,
                })
            }
            Begun::Same => Begun::Same,
            Begun::Hold(version) => Begun::Hold(version),
            Begun::Fail => Begun::Fail,
        }
    }

    /// Chooses a path by the selector of one thread, among those for which `is_there` is true;
    /// nothing is counted.
    pub(super) fn choose(
        &self,
        selector: &mut PathSelector,
        is_there: impl Fn(PathId) -> bool,
        id: NamespaceId,
        except: Option<PathId>,
    ) -> Begun<PathId> {
        let mut state = self.state.lock();
        let (now, version) = (self.now(), *self.version.borrow());
        let chosen = state.choose(id, except, version, |paths, group, has| {
            paths.choose_by(selector, group, |path| is_there(path) && has(path), now)
        });
        match chosen {
            Begun::Send((path, _)) => Begun::Send(path),
            Begun::Same => Begun::Same,
            Begun::Hold(version) => Begun::Hold(version),
            Begun::Fail => Begun::Fail,
        }
    }

    /// Copies what is known of the paths.
    pub(super) fn snapshot(&self) -> PathSnapshot {
        let state = self.state.lock();
        let (count, policy) = (state.records.len(), self.policy);
        let active = |id: NamespaceId, head: &NamespaceHead| {
            ActivePaths::new(id, &head.active, count, policy)
        };
        let heads = state.heads.iter().filter(|_| !state.is_closed);
        PathSnapshot {
            version: self.latest.load(Ordering::Acquire),
            connections: state.records.iter().map(|path| (path.generation, path.retry)).collect(),
            active: heads.map(|(id, head)| active(*id, head)).collect(),
            latest: 0,
        }
    }

    /// Returns true if nothing has changed since this version.
    #[inline]
    pub(super) fn is_latest(&self, version: u64) -> bool {
        self.latest.load(Ordering::Acquire) == version
    }

    /// Creates the counters of a thread that polls the queues of paths itself.
    pub(super) fn new_counters(&self) -> Arc<PathCounters> {
        let counters = PathCounters::new(self.addresses.len());
        self.state.lock().counters.push(Arc::clone(&counters));
        counters
    }

    /// Reports that a command to a namespace failed on a connection of a path, with a status or
    /// without a response. Returns true if the path is not chosen again until its state or access
    /// was looked at.
    pub(super) fn fail(
        &self,
        (path, generation): (PathId, u64),
        id: NamespaceId,
        status: Option<Status>,
    ) -> bool {
        let mut state = self.state.lock();
        let head = state.heads.get(&id);
        let group = head.map_or(0, |head| head.info.ana_group);
        let is_live = head.is_some_and(|head| match &head.on[path.0] {
            Presence::There(namespace) => namespace.is_live(generation),
            Presence::Unknown | Presence::Absent => true,
        });
        let record = &mut state.records[path.0];
        record.failures += 1;
        if let Some(status) = status {
            let is_stale = state.paths.note_status(path, group, status);
            if is_stale {
                self.note_active(&mut state);
                self.rereads[path.0].notify_one();
            }
            return is_stale;
        }
        // A command that was told of the loss before the path's task was.
        if !is_live && record.generation == generation && record.state == PathState::Live {
            self.set_state(&mut state, path, PathState::Reconnecting);
        }
        !is_live
    }

    /// Waits until the version has changed, or until `deadline`.
    pub(super) async fn until_changed(&self, version: u64, deadline: Option<Instant>) {
        let mut changes = self.version.subscribe();
        let changed = async {
            // The table has the sender.
            let _ = changes.wait_for(|&now| now != version).await;
        };
        match deadline {
            Some(deadline) => {
                let _ = runtime::timeout_at(deadline, changed).await;
            }
            None => changed.await,
        }
    }

    /// Subscribes to the number of changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Returns true if the subsystem is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Reports that a connection is live, with what was read on it: the ANA log unless the access
    /// is symmetric, and the namespaces in use.
    pub(super) fn set_live(
        &self,
        path: PathId,
        (generation, retry): (u64, CommandRetry),
        access: Option<(AnaLog, Duration)>,
        namespaces: Vec<(NamespaceId, Presence)>,
    ) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        let record = &mut state.records[path.0];
        (record.generation, record.retry, record.cause) = (generation, retry, None);
        for (id, presence) in namespaces {
            if let Some(head) = state.heads.get_mut(&id) {
                if let Presence::There(namespace) = &presence {
                    head.info = namespace.info();
                }
                head.on[path.0] = presence;
            }
        }
        // The state first: it clears what was known of the access before.
        let is_new = state.records[path.0].state != PathState::Live;
        state.records[path.0].state = PathState::Live;
        state.paths.set_state(path, PathState::Live);
        match access {
            Some((log, time)) => state.paths.set_access(path, &log, time, runtime::now()),
            None => state.paths.set_symmetric(path),
        }
        if is_new {
            let address = self.addresses[path.0];
            tracing::info!(subsystem = %self.subsystem, path = path.0, %address, "a path is live");
        }
        self.note_active(&mut state);
    }

    /// Reports the ANA log of a live path.
    pub(super) fn set_access(&self, path: PathId, log: &AnaLog, transition_time: Duration) {
        let mut state = self.state.lock();
        state.paths.set_access(path, log, transition_time, runtime::now());
        self.note_active(&mut state);
    }

    /// Reports that a path has another namespace of this id now.
    pub(super) fn set_absent(&self, path: PathId, namespace: NamespaceId) {
        let mut state = self.state.lock();
        if let Some(head) = state.heads.get_mut(&namespace) {
            head.on[path.0] = Presence::Absent;
        }
        self.note_active(&mut state);
    }

    /// Reports that a path has no connection, or never will again.
    pub(super) fn set_lost(&self, path: PathId, state: PathState, cause: &Error) {
        let mut all = self.state.lock();
        let record = &mut all.records[path.0];
        // A command that failed may have reported the loss, without its cause.
        let is_new = record.cause.replace(cause.clone()).is_none() || record.state != state;
        if record.state != state {
            self.set_state(&mut all, path, state);
        }
        if is_new {
            self.note_change();
        }
        // Who closes the subsystem knows.
        if is_new && !all.is_closed {
            let address = self.addresses[path.0];
            let text = if state == PathState::Ended { "has ended" } else { "is lost" };
            let subsystem = &self.subsystem;
            tracing::warn!(%subsystem, path = path.0, %address, %cause, "a path {text}");
        }
    }

    /// Reports that the subsystem is closed: commands that are held fail.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.note_change();
    }

    /// Returns the error of a command for which there is no path.
    pub(super) fn no_path(&self, namespace: NamespaceId) -> Error {
        let status = self.status();
        if self.state.lock().is_closed {
            return Error::Closed;
        }
        let states = status.paths.iter().map(|path| path.describe(namespace)).collect();
        Error::Path(Arc::new(PathError::NoPath { namespace, states }))
    }

    /// Ids of the namespaces in use, with what is known of them.
    pub(super) fn namespaces(&self) -> Vec<NamespaceInfo> {
        self.state.lock().heads.values().map(|head| head.info).collect()
    }

    /// Latest description of a namespace in use.
    pub(super) fn namespace(&self, id: NamespaceId) -> Option<NamespaceInfo> {
        let state = self.state.lock();
        let head = state.heads.get(&id)?;
        let sizes = head.on.iter().filter_map(|presence| match presence {
            Presence::There(namespace) => Some(namespace.info().blocks),
            _ => None,
        });
        Some(NamespaceInfo { blocks: sizes.max().unwrap_or(head.info.blocks), ..head.info })
    }

    /// Number of the namespace that has this id; `None` if it is not in use.
    pub(super) fn instance(&self, id: NamespaceId) -> Option<u64> {
        self.state.lock().heads.get(&id).map(|head| head.instance)
    }

    /// Returns true if each path was found not to have the namespace in use, or to have another one
    /// of its id.
    pub(super) fn is_absent(&self, id: NamespaceId) -> bool {
        let state = self.state.lock();
        let head = state.heads.get(&id);
        head.is_some_and(|head| head.on.iter().all(|on| matches!(on, Presence::Absent)))
    }

    /// Returns true if the connection of a path is live.
    pub(super) fn is_live(&self, path: PathId) -> bool {
        self.state.lock().records[path.0].state == PathState::Live
    }

    /// Handles of a namespace in use, on the paths that have it.
    pub(super) fn on_paths(&self, id: NamespaceId) -> Vec<Arc<Namespace>> {
        let state = self.state.lock();
        let on = state.heads.get(&id).map(|head| head.on.iter()).into_iter().flatten();
        let there = on.filter_map(|presence| match presence {
            Presence::There(namespace) => Some(Arc::clone(namespace)),
            _ => None,
        });
        there.collect()
    }

    /// Adds a namespace, which was identified on the live paths, in place of another one of its id.
    pub(super) fn add(&self, info: NamespaceInfo, on: Vec<Presence>) {
        let mut state = self.state.lock();
        let same = state.heads.get(&info.id).filter(|head| head.info.is_same_as(&info));
        let instance = same.map_or(state.added, |head| head.instance);
        state.added += 1;
        let head = NamespaceHead { info, instance, on, active: Vec::new() };
        let has = |path| head.has(&state.records, path);
        let active = state.paths.active(info.ana_group, has);
        state.heads.insert(info.id, NamespaceHead { active, ..head });
        for path in (0..self.addresses.len()).map(PathId) {
            if state.paths.lacks_group(path, info.ana_group) {
                self.rereads[path.0].notify_one();
            }
        }
        self.note_change();
    }

    /// Returns true if a live path's log lacks the group of a namespace in use.
    pub(super) fn lacks_group(&self, path: PathId) -> bool {
        let state = self.state.lock();
        state.heads.values().any(|head| state.paths.lacks_group(path, head.info.ana_group))
    }

    /// Time at which the path is to be reset, since its access has been changing for too long.
    pub(super) fn overdue_at(&self, path: PathId) -> Option<Instant> {
        self.state.lock().paths.overdue_at(path)
    }

    /// Waits for a request to read the ANA log of a path.
    pub(super) async fn until_stale(&self, path: PathId) {
        self.rereads[path.0].notified().await;
    }

    /// State of all paths.
    pub(super) fn status(&self) -> SubsystemStatus {
        let state = self.state.lock();
        let (shared, counters) = (state.paths.selector(), || state.counters.iter());
        let path = |(index, record): (usize, &PathRecord)| {
            let id = PathId(index);
            let namespaces = state.heads.values().map(|head| NamespacePath {
                namespace: head.info.id,
                is_there: matches!(head.on[index], Presence::There(_)),
                is_active: head.active.contains(&id),
                access: state.paths.access(id, head.info.ana_group),
            });
            PathStatus {
                id,
                address: self.addresses[index],
                state: record.state,
                cause: record.cause.clone(),
                namespaces: namespaces.collect(),
                commands: shared.commands(id) + counters().map(|one| one.commands(id)).sum::<u64>(),
                failures: record.failures,
                in_flight: shared.in_flight(id)
                    + counters().map(|one| one.in_flight(id)).sum::<u32>(),
                latency: mean(counters().map(|one| one.latency(id)).chain([shared.latency(id)])),
                switches: record.switches,
                switched_at: record.switched_at,
            }
        };
        SubsystemStatus {
            subsystem: self.subsystem.clone(),
            policy: self.policy,
            paths: state.records.iter().enumerate().map(path).collect(),
        }
    }

    fn set_state(&self, all: &mut State, path: PathId, state: PathState) {
        all.records[path.0].state = state;
        all.paths.set_state(path, state);
        self.note_active(all);
    }

    /// Notes a change that may make a path usable.
    fn note_change(&self) {
        self.version.send_modify(|version| {
            *version += 1;
            self.latest.store(*version, Ordering::Release);
        });
    }

    /// Notes which paths are used from now on, after any change of them.
    fn note_active(&self, state: &mut State) {
        let State { paths, records, heads, is_closed, .. } = state;
        for (namespace, head) in heads.iter_mut().filter(|_| !*is_closed) {
            let active = paths.active(head.info.ana_group, |path| head.has(records, path));
            if active == head.active {
                continue;
            }
            let before = std::mem::replace(&mut head.active, active);
            for (index, record) in records.iter_mut().enumerate() {
                let path = PathId(index);
                if before.contains(&path) != head.active.contains(&path) {
                    record.switches += 1;
                    record.switched_at = Some(runtime::system_time());
                }
            }
            let [before, now] = [&before, &head.active].map(|paths| numbers(paths));
            tracing::info!(
                subsystem = %self.subsystem, %namespace, before, now,
                "commands go to other paths"
            );
        }
        self.note_change();
    }
}
