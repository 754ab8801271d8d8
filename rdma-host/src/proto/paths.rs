//! Paths to the namespaces of a subsystem: which of them a command is sent on, and what follows
//! when it fails there.
//!
//! A path is a controller of the subsystem with its connection. Its asymmetric access (ANA) is
//! known per group of namespaces, as the controller reports it. The rules are Linux's where it has
//! them: optimized paths before non-optimized ones, and a choice among equals by policy.

mod selector;

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

pub use self::selector::PathSelector;
use crate::{
    config::RESENDS_MAX,
    proto::CommandClass,
    wire::{AnaLog, AnaState, Status},
};

/// Index of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub usize);

/// State of a path's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Commands may be sent.
    Live,
    /// The connection was lost or reset, and is made again.
    Reconnecting,
    /// The controller has given up, or was closed.
    Ended,
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Reconnecting => "connecting",
            Self::Ended => "ended",
        })
    }
}

/// Choice among paths of the same access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathPolicy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Path with the fewest commands in flight.
    QueueDepth,
    /// Path with the fewest commands in flight among those whose mean latency is at most twice the
    /// least. Each path gets a command now and then, so that its latency is known.
    Latency,
    /// This one, if it has that access; the others in turn.
    Preferred(PathId),
}

impl fmt::Display for PathPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("round-robin"),
            Self::QueueDepth => f.write_str("queue-depth"),
            Self::Latency => f.write_str("latency"),
            Self::Preferred(PathId(id)) => write!(f, "path {id} preferred"),
        }
    }
}

/// Choice for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// Send it on this path.
    Send(PathId),
    /// Hold it: a path may become usable.
    Hold,
    /// Fail it: no path will.
    Fail,
}

/// Failure of a command on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFailure {
    /// The controller answered with this status.
    Response(Status),
    /// The connection was lost before the command was sent.
    NotSent,
    /// The connection was lost, and there is no response.
    NoResponse,
}

/// Decision about a command that failed on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathDecision {
    /// End with its failure.
    Complete,
    /// Repetition on a path that is chosen again.
    Elsewhere,
    /// Repetition there, once the controller is proved to execute nothing more.
    BehindFence,
}

impl PathDecision {
    /// Decides about a command that was sent `sends` times without a response.
    ///
    /// After a response nothing of the command is left, so that no fence is needed. What is not
    /// repeatable goes elsewhere only if the status says that it was not executed.
    #[must_use]
    pub fn of(class: CommandClass, failure: PathFailure, sends: u8) -> Self {
        match (failure, class) {
            (PathFailure::NotSent, _) => Self::Elsewhere,
            (PathFailure::Response(status), _) if status.do_not_retry() => Self::Complete,
            (PathFailure::Response(status), _) if is_access_status(status) => Self::Elsewhere,
            (PathFailure::Response(status), CommandClass::NotRepeatable)
                if is_path_status(status) =>
            {
                Self::Complete
            }
            (PathFailure::Response(status), _) if is_path_status(status) => Self::Elsewhere,
            (PathFailure::Response(_), _) | (_, CommandClass::NotRepeatable) => Self::Complete,
            // A command in flight at each of several losses may be their cause.
            (PathFailure::NoResponse, _) if sends > RESENDS_MAX => Self::Complete,
            (PathFailure::NoResponse, CommandClass::WithoutEffect) => Self::Elsewhere,
            (PathFailure::NoResponse, CommandClass::IdempotentWrite) => Self::BehindFence,
        }
    }
}

/// Returns true for the statuses of asymmetric access: the command was not executed.
fn is_access_status(status: Status) -> bool {
    [Status::ANA_PERSISTENT_LOSS, Status::ANA_INACCESSIBLE, Status::ANA_TRANSITION]
        .contains(&status.code())
}

/// Returns true for path-related statuses (SCT 3, Base figure 105).
fn is_path_status(status: Status) -> bool {
    status.code().0 >> 8 == 3
}

/// Use that may be made of a path for a group; earlier ones are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathUse {
    Optimized,
    NonOptimized,
    /// Not now.
    Later,
    Never,
}

/// Path.
#[derive(Clone, Debug)]
struct Path {
    state: PathState,
    /// Access by group; `None` if the controller reports none: all are optimized.
    groups: Option<HashMap<u32, GroupAccess>>,
    /// Maximum time of a change of the access (ANATT); zero if not reported.
    transition_time: Duration,
}

/// Access of a group at a controller.
#[derive(Clone, Copy, Debug)]
struct GroupAccess {
    state: AnaState,
    /// Time since which it is in change.
    changing_since: Option<Instant>,
    /// True after a status that contradicts it, until the log is read again.
    is_stale: bool,
}

impl Path {
    fn use_for(&self, group: u32) -> PathUse {
        match self.state {
            PathState::Ended => return PathUse::Never,
            PathState::Reconnecting => return PathUse::Later,
            PathState::Live => {}
        }
        let Some(groups) = &self.groups else { return PathUse::Optimized };
        match groups.get(&group) {
            Some(access) if access.is_stale => PathUse::Later,
            Some(access) => match access.state {
                AnaState::OPTIMIZED => PathUse::Optimized,
                AnaState::NON_OPTIMIZED => PathUse::NonOptimized,
                AnaState::PERSISTENT_LOSS => PathUse::Never,
                _ => PathUse::Later,
            },
            // The log is read again.
            None => PathUse::Later,
        }
    }
}

/// Paths of one subsystem.
///
/// Report the state of each path, its ANA log at every connect and event, and each command that is
/// sent and completed; ask for each command where it may go.
#[derive(Clone, Debug)]
pub struct Paths {
    paths: Vec<Path>,
    selector: PathSelector,
}

impl Paths {
    /// Creates this number of paths, which are not connected yet, and whose access is not known.
    #[must_use]
    pub fn new(count: usize, policy: PathPolicy) -> Self {
        let path = Path {
            state: PathState::Reconnecting,
            groups: Some(HashMap::new()),
            transition_time: Duration::ZERO,
        };
        Self { paths: vec![path; count], selector: PathSelector::new(count, policy) }
    }

    /// Reports the state of a path's connection. What is known of the access is that of the last
    /// connection, and is forgotten.
    pub fn set_state(&mut self, id: PathId, state: PathState) {
        let path = &mut self.paths[id.0];
        if path.state != state {
            path.state = state;
            self.selector.forget_latency(id);
            if let Some(groups) = &mut path.groups {
                groups.clear();
            }
        }
    }

    /// Reports that a controller has no asymmetric access.
    pub fn set_symmetric(&mut self, id: PathId) {
        self.paths[id.0].groups = None;
    }

    /// Reports the ANA log of a controller, and its maximum time of a change (ANATT).
    pub fn set_access(
        &mut self,
        id: PathId,
        log: &AnaLog,
        transition_time: Duration,
        now: Instant,
    ) {
        let path = &mut self.paths[id.0];
        let before = path.groups.take().unwrap_or_default();
        let access = |state: AnaState, group: u32| {
            let since = before.get(&group).and_then(|access| access.changing_since).unwrap_or(now);
            let changing_since = (state == AnaState::CHANGE).then_some(since);
            GroupAccess { state, changing_since, is_stale: false }
        };
        let groups = log.groups.iter().map(|group| (group.id, access(group.state, group.id)));
        path.groups = Some(groups.collect());
        path.transition_time = transition_time;
    }

    /// Reports a status of a command to a namespace of this group. Returns true if the ANA log has
    /// to be read: until then the path is not used for the group.
    pub fn note_status(&mut self, id: PathId, group: u32, status: Status) -> bool {
        let Some(groups) = &mut self.paths[id.0].groups else { return false };
        if !is_access_status(status) {
            return false;
        }
        if let Some(access) = groups.get_mut(&group) {
            access.is_stale = true;
        }
        true
    }

    /// Returns true if a path's log does not have a group, so that it has to be read again.
    #[must_use]
    pub fn lacks_group(&self, id: PathId, group: u32) -> bool {
        let path = &self.paths[id.0];
        let lacks = |groups: &HashMap<_, _>| !groups.contains_key(&group);
        path.state == PathState::Live && path.groups.as_ref().is_some_and(lacks)
    }

    /// Time at which a path is to be reset, as by Linux: one of its groups has been in change for
    /// twice the time that its controller reports (ANATT). `None` if none is in change.
    #[must_use]
    pub fn overdue_at(&self, id: PathId) -> Option<Instant> {
        let path = &self.paths[id.0];
        let limit = 2 * path.transition_time;
        let changes = path.groups.iter().flat_map(HashMap::values);
        let since = changes.filter_map(|access| access.changing_since).min()?;
        (path.state == PathState::Live && !limit.is_zero()).then(|| since + limit)
    }

    /// Access of a group on a path; `None` if it is not known, or all is optimized there.
    #[must_use]
    pub fn access(&self, id: PathId, group: u32) -> Option<AnaState> {
        Some(self.paths[id.0].groups.as_ref()?.get(&group)?.state)
    }

    /// Selector of the commands of this choice, with the load of each path.
    #[must_use]
    pub fn selector(&self) -> &PathSelector {
        &self.selector
    }

    /// Paths among which [`choose`](Self::choose) chooses; none if it holds commands or fails them.
    pub fn active(&self, group: u32, has: impl Fn(PathId) -> bool) -> Vec<PathId> {
        let ids = || (0..self.paths.len()).map(PathId).filter(|&id| has(id));
        let use_of = |id: PathId| self.paths[id.0].use_for(group);
        let best = ids().map(use_of).min().filter(|best| *best < PathUse::Later);
        ids().filter(|&id| Some(use_of(id)) == best).collect()
    }

    /// Reports a command that is sent.
    pub fn begin(&mut self, id: PathId) {
        self.selector.begin(id);
    }

    /// Reports the end of a command, and its latency if it was executed.
    ///
    /// # Panics
    ///
    /// If none was in flight.
    pub fn end(&mut self, id: PathId, latency: Option<Duration>) {
        let nanoseconds =
            |latency: Duration| u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX / 2);
        self.selector.end(id, 1, latency.map(nanoseconds));
    }

    /// Chooses a path for a command to a namespace of this group, which is on the paths for which
    /// `has` is true.
    pub fn choose(&mut self, group: u32, has: impl Fn(PathId) -> bool, now: Instant) -> PathChoice {
        let Self { paths, selector } = self;
        choose(paths, selector, (group, has), now)
    }

    /// Chooses as [`choose`](Self::choose), by another selector than that of all commands.
    pub fn choose_by(
        &self,
        selector: &mut PathSelector,
        group: u32,
        has: impl Fn(PathId) -> bool,
        now: Instant,
    ) -> PathChoice {
        choose(&self.paths, selector, (group, has), now)
    }
}

fn choose(
    paths: &[Path],
    selector: &mut PathSelector,
    (group, has): (u32, impl Fn(PathId) -> bool),
    now: Instant,
) -> PathChoice {
    let use_of = |index: usize| has(PathId(index)).then(|| paths[index].use_for(group));
    let best = match (0..paths.len()).filter_map(use_of).min() {
        None | Some(PathUse::Never) => return PathChoice::Fail,
        Some(PathUse::Later) => return PathChoice::Hold,
        best => best,
    };
    let chosen = selector.choose(|index| use_of(index) == best, || now);
    PathChoice::Send(chosen.expect("there is the best one"))
}

#[cfg(test)]
mod tests;
