//! Requests of the futures of one thread, and the poller that executes them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use verbs::{Buffer, Provider};

use super::slots::{LocalSlots, Owner};
use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion},
        poller::Poller,
    },
    error::Error,
};

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
    requests: &'poller RefCell<LocalRequests<P>>,
    /// `None` once the completion was received.
    slot: Option<u32>,
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
        let Self { poller, slots, .. } = self;
        let polled = poller
            .ring_doorbells()
            .and_then(|()| poller.poll_with(|completion| slots.complete(completion)));
        let completed = match polled {
            Ok(completed) => completed,
            Err(error) => self.fail(error),
        };
        if !self.waiting.is_empty() {
            self.submit_waiting();
        }
        completed
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

impl<'poller, P: Provider> LocalCompletion<'poller, P> {
    /// Submits a command, which is taken. Its completion wakes the task of this waker; without one
    /// the future is yet to be polled.
    #[inline(always)] // the command is built in its place
    pub(super) fn new(
        requests: &'poller RefCell<LocalRequests<P>>,
        command: &mut Command,
        waker: Option<&Waker>,
    ) -> Self {
        let owner = waker.map_or(Owner::Unpolled, |waker| owner(requests, waker));
        let wakes = matches!(owner, Owner::Waker(_));
        let mut borrowed = requests.borrow_mut();
        let slot = borrowed.slots.begin(owner);
        command.user = slot.into();
        borrowed.submit(command);
        let driver = borrowed.driver.take();
        // It may be that a poller that has failed is not driven any more.
        let failed = wakes && borrowed.slots.is_completed(slot);
        drop(borrowed);
        if let Some(driver) = driver {
            driver.wake();
        }
        if failed && let Some(waker) = waker {
            waker.wake_by_ref();
        }
        Self { requests, slot: Some(slot) }
    }

    /// Receives the completion as the future does; of a command with data that has succeeded only
    /// the buffer, which saves moving the rest.
    ///
    /// # Panics
    ///
    /// When it was ready before.
    #[inline(always)]
    pub(super) fn poll_buffer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Buffer, CommandCompletion>> {
        let slot = self.slot.expect("a future that is ready is not polled again");
        let received = self.requests.borrow_mut().slots.receive_buffer(slot);
        match received {
            Poll::Ready(done) => {
                self.slot = None;
                Poll::Ready(done)
            }
            Poll::Pending => {
                self.set_waker(slot, context.waker());
                Poll::Pending
            }
        }
    }

    /// Has the completion wake this waker. Nothing is borrowed while wakers are cloned or dropped.
    #[inline]
    fn set_waker(&self, slot: u32, waker: &Waker) {
        if !self.requests.borrow().slots.wakes(slot, waker) {
            let waker = waker.clone();
            let before = self.requests.borrow_mut().slots.set_waker(slot, waker);
            drop(before);
        }
    }
}

impl<P: Provider> Future for LocalCompletion<'_, P> {
    type Output = CommandCompletion;

    /// # Panics
    ///
    /// When it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CommandCompletion> {
        let slot = self.slot.expect("a future that is ready is not polled again");
        let received = self.requests.borrow_mut().slots.receive(slot);
        if received.is_ready() {
            self.slot = None;
        } else {
            self.set_waker(slot, context.waker());
        }
        received
    }
}

impl<P: Provider> Drop for LocalCompletion<'_, P> {
    #[inline]
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            abandon(self.requests, slot);
        }
    }
}

/// Owner of a request whose future is polled with this waker.
#[inline(always)]
fn owner<P: Provider>(requests: &RefCell<LocalRequests<P>>, waker: &Waker) -> Owner {
    let task = requests.borrow().slots.task_of(waker);
    task.map_or_else(|| Owner::Waker(waker.clone()), Owner::Task)
}

/// Leaves a request without an owner. One that waits for room is dropped with its buffer.
#[cold]
fn abandon<P: Provider>(requests: &RefCell<LocalRequests<P>>, slot: u32) {
    let mut borrowed = requests.borrow_mut();
    let waiting = borrowed.waiting.iter().position(|command| command.user == u64::from(slot));
    let command = waiting.and_then(|at| borrowed.waiting.remove(at));
    let abandoned = borrowed.slots.abandon(slot, command.is_none());
    drop(borrowed);
    drop((command, abandoned));
}
