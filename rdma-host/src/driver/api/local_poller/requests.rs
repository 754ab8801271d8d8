//! Requests of the futures of one thread, and the poller that executes them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use verbs::{Buffer, Provider};

use super::{
    slots::{LocalSlots, NONE, Owner},
    tasks::CurrentTask,
};
use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion},
        poller::Poller,
    },
    error::Error,
};

/// Requests of the futures of a thread, and the task that makes them.
pub(super) struct LocalShared<P: Provider> {
    pub(super) requests: RefCell<LocalRequests<P>>,
    pub(super) current: Cell<CurrentTask>,
}

/// Poller and its requests.
pub(super) struct LocalRequests<P: Provider> {
    pub(super) poller: Poller<P>,
    pub(super) slots: LocalSlots,
    /// Commands that wait for room, first in, first out; their `user` is the slot.
    waiting: VecDeque<Command>,
    /// Waker of the task that drives the poller, while it sleeps.
    pub(super) driver: Option<Waker>,
    /// Error of the poller, which has failed.
    failure: Option<Error>,
}

/// Future of the completion of a request. The command is executed even if the future is dropped,
/// unless it waits for room.
pub(super) struct LocalCompletion<'poller, P: Provider> {
    shared: &'poller LocalShared<P>,
    /// [`NONE`] once the completion was received.
    slot: u32,
}

impl<P: Provider> LocalRequests<P> {
    pub(super) fn new(poller: Poller<P>) -> Self {
        let slots = LocalSlots::new(poller.depth());
        Self { poller, slots, waiting: VecDeque::new(), driver: None, failure: None }
    }

    /// Submits the command of a slot, which is taken; lets it wait behind others for room.
    #[inline(always)]
    fn submit(&mut self, command: &mut Command) {
        let started = self.poller.submission_time();
        if !self.waiting.is_empty() || !self.poller.submit_fast(command, started) {
            self.submit_slowly(command);
        }
    }

    #[inline(never)]
    fn submit_slowly(&mut self, command: &mut Command) {
        if let Some(error) = &self.failure {
            let refused = CommandCompletion::unsent(error.clone(), command.take());
            self.slots.complete(refused);
        } else if self.waiting.is_empty() && self.poller.room() > 0 {
            self.submit_now(command);
        } else {
            self.waiting.push_back(command.take());
        }
    }

    /// Submits a command, or completes it with the error.
    fn submit_now(&mut self, command: &mut Command) {
        if let Err(refused) = self.poller.submit_from(command) {
            self.slots.complete(refused.into());
        }
    }

    /// Rings the doorbells, and polls; returns the number of requests that have completed.
    #[inline(always)]
    pub(super) fn poll(&mut self) -> usize {
        if self.failure.is_some() {
            return 0;
        }
        let mut completed = 0;
        if let Err(error) = self.poll_completions(&mut completed) {
            completed += self.fail(error);
        }
        if !self.waiting.is_empty() {
            self.submit_waiting();
        }
        completed
    }

    #[inline(always)]
    fn poll_completions(&mut self, completed: &mut usize) -> Result<(), Error> {
        let Self { poller, slots, .. } = self;
        poller.ring_doorbells()?;
        while let Some(completion) = poller.take() {
            slots.complete(completion);
            *completed += 1;
        }
        poller.poll_into(|_, completion| {
            slots.complete(completion);
            *completed += 1;
        })?;
        Ok(())
    }

    /// Submits the commands that wait, as far as there is room.
    #[inline(never)]
    fn submit_waiting(&mut self) {
        while self.poller.room() > 0
            && let Some(mut command) = self.waiting.pop_front()
        {
            self.submit_now(&mut command);
        }
        if let Err(error) = self.poller.ring_doorbells() {
            self.fail(error);
        }
    }

    /// Fails the poller and all requests; returns the number of these.
    #[cold]
    pub(super) fn fail(&mut self, error: Error) -> usize {
        let error = self.poller.fail(error);
        let mut completed = 0;
        while let Some(completion) = self.poller.take() {
            self.slots.complete(completion);
            completed += 1;
        }
        for command in self.waiting.drain(..) {
            self.slots.complete(CommandCompletion::unsent(error.clone(), command));
            completed += 1;
        }
        self.failure = Some(error);
        completed
    }

    /// Returns true if the poller has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }
}

impl<P: Provider> LocalShared<P> {
    /// Owner of a request whose future is polled with this waker.
    #[inline(always)]
    fn owner(&self, waker: &Waker) -> Owner {
        let task = self.current.get().number(waker);
        task.map_or_else(|| Owner::Waker(waker.clone()), Owner::Task)
    }

    /// Submits a command, which is taken; returns the slot. Its completion wakes the task of this
    /// waker; without one the future is yet to be polled.
    #[inline(always)] // the command is built in its place
    pub(super) fn submit(&self, command: &mut Command, waker: Option<&Waker>) -> u32 {
        let owner = waker.map_or(Owner::Unpolled, |waker| self.owner(waker));
        let wakes = matches!(owner, Owner::Waker(_));
        let mut requests = self.requests.borrow_mut();
        let slot = requests.slots.begin(owner);
        command.user = slot.into();
        requests.submit(command);
        if wakes || requests.driver.is_some() {
            drop(requests);
            self.wake_after_submission(slot, waker);
        }
        slot
    }

    /// Wakes the driver of the poller, if it sleeps; and the future, if the command was refused: it
    /// may be that a poller that has failed is not driven any more.
    #[inline(never)]
    fn wake_after_submission(&self, slot: u32, waker: Option<&Waker>) {
        let mut requests = self.requests.borrow_mut();
        let driver = requests.driver.take();
        let is_completed = requests.slots.is_completed(slot);
        drop(requests);
        if let Some(driver) = driver {
            driver.wake();
        }
        if is_completed && let Some(waker) = waker {
            waker.wake_by_ref();
        }
    }

    /// Receives the completion of a slot as a [`LocalCompletion`] does; of a command with data that
    /// has succeeded only the buffer, which saves moving the rest.
    #[inline(always)]
    pub(super) fn poll_buffer(
        &self,
        slot: u32,
        waker: &Waker,
    ) -> Poll<Result<Buffer, CommandCompletion>> {
        let received = self.requests.borrow_mut().slots.receive_buffer(slot);
        if received.is_pending() {
            self.set_waker(slot, waker);
        }
        received
    }

    /// Has the completion wake this waker. Nothing is borrowed while wakers are cloned or dropped.
    #[inline]
    fn set_waker(&self, slot: u32, waker: &Waker) {
        let task = self.current.get().number(waker);
        if !self.requests.borrow().slots.wakes(slot, waker, task) {
            let owner = self.owner(waker);
            let before = self.requests.borrow_mut().slots.set_owner(slot, owner);
            drop(before);
        }
    }

    /// Leaves a request without an owner. One that waits for room is dropped with its buffer.
    #[cold]
    pub(super) fn abandon(&self, slot: u32) {
        let mut requests = self.requests.borrow_mut();
        let waiting = requests.waiting.iter().position(|command| command.user == u64::from(slot));
        let command = waiting.and_then(|at| requests.waiting.remove(at));
        let abandoned = requests.slots.abandon(slot, command.is_none());
        drop(requests);
        drop((command, abandoned));
    }
}

impl<'poller, P: Provider> LocalCompletion<'poller, P> {
    /// Submits a command; the future is yet to be polled.
    pub(super) fn new(shared: &'poller LocalShared<P>, mut command: Command) -> Self {
        Self { shared, slot: shared.submit(&mut command, None) }
    }
}

impl<P: Provider> Future for LocalCompletion<'_, P> {
    type Output = CommandCompletion;

    /// # Panics
    ///
    /// When it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CommandCompletion> {
        assert_ne!(self.slot, NONE, "a future that is ready is not polled again");
        let received = self.shared.requests.borrow_mut().slots.receive(self.slot);
        if received.is_ready() {
            self.slot = NONE;
        } else {
            self.shared.set_waker(self.slot, context.waker());
        }
        received
    }
}

impl<P: Provider> Drop for LocalCompletion<'_, P> {
    #[inline]
    fn drop(&mut self) {
        if self.slot != NONE {
            self.shared.abandon(self.slot);
        }
    }
}
