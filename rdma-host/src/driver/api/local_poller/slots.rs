//! Slots of the requests of one thread, and the owners that are woken by their completions.

use std::{
    mem,
    task::{Poll, Waker},
};

use verbs::Buffer;

use crate::driver::data_path::command::CommandCompletion;

/// Requests whose completions have not been received, each in a slot that is used again.
pub(super) struct LocalSlots {
    slots: Vec<Slot>,
    /// First slot of the list of free ones; [`NONE`] if there is none.
    free: u32,
    /// Numbers of the tasks to be polled.
    ready: Vec<u32>,
    /// Wakers to be woken, of tasks of other executors and of parts of tasks.
    wakers: Vec<Waker>,
}

struct Slot {
    progress: Progress,
    owner: Owner,
}

enum Progress {
    Free {
        /// Next slot of the list of free ones.
        next: u32,
    },
    InFlight,
    Completed(CommandCompletion),
}

/// Receiver of a completion.
pub(super) enum Owner {
    /// Future that has not been polled since the request began.
    Unpolled,
    /// Task of the poller, which is woken without its waker.
    Task(u32),
    /// Waker of any other task.
    Waker(Waker),
    /// None: the future was dropped.
    None,
}

/// Number of no slot.
pub(super) const NONE: u32 = u32::MAX;

impl LocalSlots {
    /// Creates as many slots as commands are in flight at most; more are added for requests that
    /// wait, and for completions that wait.
    pub(super) fn new(depth: usize) -> Self {
        let mut this = Self {
            slots: Vec::with_capacity(depth),
            free: NONE,
            ready: Vec::with_capacity(depth),
            wakers: Vec::with_capacity(depth),
        };
        for _ in 0..depth {
            this.grow();
        }
        this
    }

    /// Adds a slot to the list of free ones.
    #[cold]
    fn grow(&mut self) {
        let index = to_u32(self.slots.len());
        let progress = Progress::Free { next: mem::replace(&mut self.free, index) };
        self.slots.push(Slot { progress, owner: Owner::None });
    }

    /// Takes a slot for a request.
    #[inline(always)]
    pub(super) fn begin(&mut self, owner: Owner) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        let Progress::Free { next } = slot.progress else { unreachable!("a free slot") };
        self.free = next;
        *slot = Slot { progress: Progress::InFlight, owner };
        index
    }

    /// Returns true if a request has completed.
    pub(super) fn is_completed(&self, index: u32) -> bool {
        matches!(self.slots[index as usize].progress, Progress::Completed(_))
    }

    /// Returns true if the completion of the request wakes this waker, which is that of `task` or
    /// of no task of the poller.
    #[inline]
    pub(super) fn wakes(&self, index: u32, waker: &Waker, task: Option<u32>) -> bool {
        match &self.slots[index as usize].owner {
            Owner::Unpolled | Owner::None => false,
            Owner::Task(owner) => Some(*owner) == task,
            Owner::Waker(owner) => owner.will_wake(waker),
        }
    }

    /// Sets the owner of a request. Returns the one before, to be dropped once nothing is borrowed:
    /// with a waker other futures may be dropped.
    #[cold]
    pub(super) fn set_owner(&mut self, index: u32, owner: Owner) -> Owner {
        mem::replace(&mut self.slots[index as usize].owner, owner)
    }

    /// Completes a request; `user` is its slot. The completion is dropped if the future was.
    #[inline(always)]
    pub(super) fn complete(&mut self, completion: CommandCompletion) {
        let index = to_u32(usize::try_from(completion.user).unwrap_or(usize::MAX));
        let slot = &mut self.slots[index as usize];
        debug_assert!(matches!(slot.progress, Progress::InFlight), "a request completes once");
        match slot.owner {
            Owner::Task(task) => self.ready.push(task),
            Owner::Unpolled => {}
            Owner::Waker(_) | Owner::None => return self.complete_slowly(index, completion),
        }
        slot.progress = Progress::Completed(completion);
    }

    /// Completes a request of a task of another executor, or one whose future was dropped.
    #[inline(never)]
    fn complete_slowly(&mut self, index: u32, completion: CommandCompletion) {
        let slot = &mut self.slots[index as usize];
        match mem::replace(&mut slot.owner, Owner::Unpolled) {
            Owner::Waker(waker) => {
                slot.progress = Progress::Completed(completion);
                self.wakers.push(waker);
            }
            _ => self.free(index),
        }
    }

    /// Adds a slot to the list of free ones, and drops what is in it.
    #[inline(always)]
    fn free(&mut self, index: u32) {
        let next = mem::replace(&mut self.free, index);
        self.slots[index as usize].progress = Progress::Free { next };
    }

    /// Receives the completion of a request; of a command with data that has succeeded only the
    /// buffer, which saves moving the rest. The slot is free then.
    #[inline(always)]
    pub(super) fn receive_buffer(&mut self, index: u32) -> Poll<Result<Buffer, CommandCompletion>> {
        let slot = &mut self.slots[index as usize];
        let Progress::Completed(completion) = &mut slot.progress else { return Poll::Pending };
        if completion.is_success()
            && let Some(buffer) = completion.data.take()
        {
            self.free(index);
            return Poll::Ready(Ok(buffer));
        }
        self.receive(index).map(Err)
    }

    /// Receives the completion of a request. The slot is free then.
    pub(super) fn receive(&mut self, index: u32) -> Poll<CommandCompletion> {
        let progress = &mut self.slots[index as usize].progress;
        if !matches!(progress, Progress::Completed(_)) {
            return Poll::Pending;
        }
        let free = Progress::Free { next: mem::replace(&mut self.free, index) };
        match mem::replace(progress, free) {
            Progress::Completed(completion) => Poll::Ready(completion),
            Progress::Free { .. } | Progress::InFlight => unreachable!("it has completed"),
        }
    }

    /// Frees a slot whose request has completed, or was not submitted; leaves a request in flight
    /// without an owner. Returns what is to be dropped once nothing is borrowed.
    pub(super) fn abandon(&mut self, index: u32, is_submitted: bool) -> Abandoned {
        let completion = match self.receive(index) {
            Poll::Ready(completion) => Some(completion),
            Poll::Pending => {
                if !is_submitted {
                    self.free(index);
                }
                None
            }
        };
        (completion, self.set_owner(index, Owner::None))
    }

    /// Makes a task one to be polled.
    pub(super) fn set_ready(&mut self, task: u32) {
        self.ready.push(task);
    }

    /// Exchanges the list of tasks to be polled with an empty one.
    #[inline]
    pub(super) fn swap_ready(&mut self, empty: &mut Vec<u32>) {
        mem::swap(&mut self.ready, empty);
    }

    /// Exchanges the list of wakers with an empty one.
    #[inline]
    pub(super) fn swap_wakers(&mut self, empty: &mut Vec<Waker>) {
        mem::swap(&mut self.wakers, empty);
    }
}

/// Completion and owner of a request whose future was dropped.
pub(super) type Abandoned = (Option<CommandCompletion>, Owner);

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 of them")
}
