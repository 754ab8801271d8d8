//! What both initiators are to a case, and how they are watched.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::case::{Outcome, OwnerRequest, ReadOutcome};

/// How a controller is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControllerState {
    Disconnected,
    Gone,
    Live,
}

/// A connected controller of either initiator.
pub(crate) trait Initiator: Send + Sync {
    fn state(&self) -> ControllerState;
    /// A place in its story.
    fn mark(&self) -> usize;
    /// Whether its story says that it was not live at some time since then.
    fn left_since(&self, mark: usize) -> bool;
    /// Attempts to connect again that failed.
    fn attempts(&self) -> u32;
    /// Makes ready to read its first namespace.
    fn open(&mut self);
    /// Begins to read.
    fn read(&self) -> Pending;
    /// Asks for something, and waits until it is done.
    fn request(&self, request: OwnerRequest);
    /// What happened, for people.
    fn history(&self) -> String;
}

/// A read that has been begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(Arc<Mutex<Option<bool>>>);

impl Pending {
    /// It has ended, well or not.
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
    /// How the read was when the fault was healed.
    early: Option<bool>,
    read: Option<Pending>,
    /// Attempts there may be; nothing for no end of them.
    attempts_max: Option<u32>,
}

impl<'a> Watched<'a> {
    /// From before the fault on.
    pub(crate) fn new(initiator: &'a dyn Initiator, attempts_max: Option<u32>) -> Self {
        let mark = initiator.mark();
        Self { initiator, mark, left: false, early: None, read: None, attempts_max }
    }

    pub(crate) fn read(&mut self) {
        self.read = Some(self.initiator.read());
    }

    /// The fault is about to be healed.
    pub(crate) fn healing(&mut self) {
        self.early = self.read.as_ref().and_then(Pending::get);
    }

    fn look(&mut self) {
        self.left |=
            self.initiator.state() != ControllerState::Live || self.initiator.left_since(self.mark);
    }

    /// Whether nothing more is to be expected of it.
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

/// Watches for this long, or until all has settled.
pub(crate) fn watch(all: &mut [Watched<'_>], limit: Duration, until_settled: bool) {
    let start = Instant::now();
    while start.elapsed() < limit {
        // Each is looked at, or its absence might go unseen.
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
