//! The initiators as a case sees them, and how they are observed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::case::{Outcome, OwnerRequest, ReadOutcome};

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

/// One initiator through a fault.
pub(crate) struct Watched<'a> {
    initiator: &'a dyn Initiator,
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
    pub(crate) fn new(initiator: &'a dyn Initiator, attempts_max: Option<u32>) -> Self {
        let mark = initiator.mark();
        Self { initiator, mark, left: false, early: None, read: None, attempts_max }
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
        let read = self.read.as_ref().is_none_or(|read| read.get().is_some());
        let now = self.initiator.state();
        read && (now == ControllerState::Gone || (now == ControllerState::Live && self.left))
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

/// Observes for this long, or until all have settled.
pub(crate) fn watch(all: &mut [Watched<'_>], limit: Duration, until_settled: bool) {
    let start = Instant::now();
    while start.elapsed() < limit {
        // Each is looked at every time, or its loss might go unseen.
        let mut settled = true;
        for one in all.iter_mut() {
            settled &= one.settled();
        }
        if settled && until_settled {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
