//! The initiators as a case sees them, and how they are observed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::case::{Observed, Outcome, OwnerRequest, ReadOutcome};

/// State of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControllerState {
    Disconnected,
    Gone,
    Live,
}

/// A connected controller of either initiator.
pub(crate) trait Initiator: Send + Sync {
    fn state(&self) -> ControllerState;
    /// Position in its history.
    fn mark(&self) -> usize;
    /// Tells if it was not live at some time after `mark`.
    fn left_since(&self, mark: usize) -> bool;
    /// Attempts to connect again that failed.
    fn attempts(&self) -> u32;
    /// Makes ready to read its first namespace.
    fn open(&mut self);
    /// Begins to read.
    fn read(&self) -> Pending;
    /// Makes a request of the owner, and waits until it is done.
    fn request(&self, request: OwnerRequest);
    /// History of the controller as text.
    fn history(&self) -> String;
}

/// A read that has been begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(Arc<Mutex<Option<bool>>>);

impl Pending {
    /// Records that the read has ended, with data or without.
    pub(crate) fn set(&self, well: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(well);
    }

    pub(crate) fn get(&self) -> Option<bool> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limit of the time beyond that of a case for outcomes that are expected: the machine may be busy.
const EXPECTED_WAIT_MAX: Duration = Duration::from_secs(60);

/// One initiator through a fault.
pub(crate) struct Watched<'a> {
    initiator: &'a dyn Initiator,
    /// Outcomes that are expected: they are waited for, and decide nothing else.
    expected: Observed,
    mark: usize,
    left: bool,
    /// Outcome of the read when the fault was healed.
    early: Option<bool>,
    read: Option<Pending>,
    /// Limit of attempts; none if there is no limit.
    attempts_max: Option<u32>,
}

impl<'a> Watched<'a> {
    /// Begins to observe, before the fault.
    pub(crate) fn new(
        initiator: &'a dyn Initiator,
        expected: Observed,
        attempts_max: Option<u32>,
    ) -> Self {
        let mark = initiator.mark();
        Self { initiator, expected, mark, left: false, early: None, read: None, attempts_max }
    }

    pub(crate) fn read(&mut self) {
        self.read = Some(self.initiator.read());
    }

    /// Records the read's outcome before the fault is healed.
    pub(crate) fn healing(&mut self) {
        self.early = self.read.as_ref().and_then(Pending::get);
    }

    fn look(&mut self) {
        self.left |=
            self.initiator.state() != ControllerState::Live || self.initiator.left_since(self.mark);
    }

    /// Tells if no further change is expected.
    fn settled(&mut self) -> bool {
        self.look();
        let now = self.initiator.state();
        self.has_read()
            && (now == ControllerState::Gone || (now == ControllerState::Live && self.left))
    }

    /// Tells if what is expected has come, as far as it can before the fault is healed.
    fn is_noticed(&mut self) -> bool {
        self.look();
        let stays = matches!(self.expected.controller, Outcome::Undisturbed | Outcome::Deleted);
        let early = matches!(self.expected.read, Some(ReadOutcome::Done | ReadOutcome::Failed));
        (stays || self.left) && (!early || self.has_read())
    }

    /// Tells if what is expected has come.
    fn is_as_expected(&mut self) -> bool {
        self.look();
        let state = self.initiator.state();
        let controller = match self.expected.controller {
            Outcome::CameBack => state == ControllerState::Live && self.left,
            Outcome::Deleted | Outcome::Exhausted | Outcome::GaveUp => {
                state == ControllerState::Gone
            }
            _ => true,
        };
        controller && (self.expected.read == Some(ReadOutcome::Held) || self.has_read())
    }

    /// Tells if the read has ended, or there is none.
    fn has_read(&self) -> bool {
        self.read.as_ref().is_none_or(|read| read.get().is_some())
    }

    pub(crate) fn controller_outcome(&mut self, deleted: bool) -> Outcome {
        self.look();
        match self.initiator.state() {
            ControllerState::Gone if deleted => Outcome::Deleted,
            ControllerState::Gone => {
                let left = |max| self.initiator.attempts() < max;
                if self.attempts_max.is_none_or(left) {
                    Outcome::GaveUp
                } else {
                    Outcome::Exhausted
                }
            }
            ControllerState::Disconnected => Outcome::StillTrying,
            ControllerState::Live if self.left => Outcome::CameBack,
            ControllerState::Live => Outcome::Undisturbed,
        }
    }

    pub(crate) fn read_outcome(&self, healed: bool) -> Option<ReadOutcome> {
        let read = self.read.as_ref()?;
        Some(match (self.early, read.get(), healed) {
            (Some(true), ..) | (None, Some(true), false) => ReadOutcome::Done,
            (Some(false), ..) | (None, Some(false), false) => ReadOutcome::Failed,
            (None, Some(true), true) => ReadOutcome::Late,
            (None, Some(false), true) => ReadOutcome::LateFailed,
            (None, None, _) => ReadOutcome::Held,
        })
    }
}

/// Observes the fault for this long, and until both have noticed it.
pub(crate) fn watch_fault(all: &mut [Watched<'_>], lasts: Duration) {
    watch(all, lasts, |_| false);
    watch(all, EXPECTED_WAIT_MAX, Watched::is_noticed);
}

/// Observes for this long, or until all have settled, and until what is expected has come.
pub(crate) fn watch_outcome(all: &mut [Watched<'_>], limit: Duration) {
    watch(all, limit, Watched::settled);
    watch(all, EXPECTED_WAIT_MAX, Watched::is_as_expected);
}

fn watch<'a>(all: &mut [Watched<'a>], limit: Duration, is_done: fn(&mut Watched<'a>) -> bool) {
    let start = Instant::now();
    while start.elapsed() < limit {
        // Each is looked at every time, or its loss might go unseen.
        let mut done = true;
        for one in all.iter_mut() {
            done &= is_done(one);
        }
        if done {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
