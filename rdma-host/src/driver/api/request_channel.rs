//! Channel of commands to the task that drives a poller, and of their completions back.
//!
//! A request has a slot until its completion is received. Nothing is allocated for a request.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use verbs::Buffer;

use crate::{
    driver::data_path::command::{Command, CommandCompletion, ExecutionStatus},
    error::Error,
};

/// Creates a channel for at most this number of requests that have not completed.
pub(crate) fn channel(open_max: usize) -> (RequestSender, RequestReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { open_max, ..State::default() }),
        has_news: AtomicBool::new(false),
        turn: tokio::sync::Mutex::default(),
        room: Notify::new(),
    });
    let receiver = RequestReceiver {
        shared: shared.clone(),
        taken: VecDeque::new(),
        is_closed: false,
        wakers: Vec::new(),
    };
    (RequestSender { shared }, receiver)
}

/// Sender of requests, which its users share. Its end closes the channel.
pub(crate) struct RequestSender {
    shared: Arc<Shared>,
}

/// Receiver of requests, owned by the task that executes them. After its end all requests fail.
pub(crate) struct RequestReceiver {
    shared: Arc<Shared>,
    /// Requests that are the task's, first in, first out.
    taken: VecDeque<Request>,
    /// True once the sender has ended.
    is_closed: bool,
    /// Wakers of completed requests; empty between calls.
    wakers: Vec<Waker>,
}

/// Command to be executed by the task.
pub(crate) struct Request {
    /// Command; its `user` is the index of the slot.
    pub(crate) command: Command,
    /// Number of times that it was sent, on connections that were lost.
    pub(crate) sends: u8,
}

impl Request {
    /// Completion with an error.
    pub(crate) fn refuse(self, error: Error) -> CommandCompletion {
        let execution = ExecutionStatus::without_response(self.sends);
        CommandCompletion { execution, ..CommandCompletion::unsent(error, self.command) }
    }
}

/// Future of the completion of a request. The command is executed even if the future is dropped.
pub(crate) struct RequestCompletion<'sender> {
    shared: &'sender Shared,
    /// `None` once the completion was received.
    slot: Option<usize>,
}

/// Slot of a request in the channel of the task that forwarded it. The request is lost if this is
/// dropped before it has completed.
struct Origin {
    shared: Arc<Shared>,
    slot: usize,
    is_completed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// True if a request was queued, or the sender has ended, since the task last looked.
    has_news: AtomicBool,
    /// Turn of a sender that waits; others wait for it in their order.
    turn: tokio::sync::Mutex<()>,
    /// Notified when a request completes while senders wait.
    room: Notify,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Indices of free slots.
    free: Vec<usize>,
    /// Number of requests that have not completed.
    open: usize,
    open_max: usize,
    /// Requests that the task has not taken.
    queue: VecDeque<Request>,
    /// Waker of the task while it sleeps.
    task: Option<Waker>,
    /// Number of senders that wait.
    waiting: usize,
    /// True once the sender has ended.
    is_closed: bool,
    /// Error of every request from now on.
    error: Option<Error>,
}

struct Slot {
    progress: Progress,
    owner: Owner,
}

enum Progress {
    Free,
    InFlight,
    /// In flight in the channel of another task.
    Forwarded,
    Completed(CommandCompletion),
}

/// Receiver of a completion.
enum Owner {
    /// Future, with its waker once it has been polled.
    Future(Option<Waker>),
    /// None: the future was dropped.
    None,
    /// Task that forwarded the request.
    Task(Origin),
}

/// Completion of a request without a future, and the task that forwarded it.
struct Unclaimed {
    completion: CommandCompletion,
    origin: Option<Origin>,
}

impl RequestSender {
    /// Queues a command, which is taken; `waker` is woken by its completion, as if the future had
    /// been polled with it. Returns `None`, and leaves the command, if the channel is full or
    /// others wait for room.
    #[inline(always)] // the command is built in its place
    pub(crate) fn try_send(
        &self,
        command: &mut Command,
        waker: Option<&Waker>,
    ) -> Option<RequestCompletion<'_>> {
        let mut state = self.shared.state.lock();
        if state.waiting > 0 {
            return None;
        }
        let mut owner = Owner::Future(waker.cloned());
        let slot = self.shared.queue(&mut state, command, 0, &mut owner)?;
        let is_completed = state.error.is_some();
        wake_task(state);
        if is_completed && let Some(waker) = waker {
            waker.wake_by_ref();
        }
        Some(RequestCompletion { shared: &self.shared, slot: Some(slot) })
    }

    /// Queues a command. Waits for room, behind those that wait already.
    pub(crate) async fn send(&self, mut command: Command) -> RequestCompletion<'_> {
        if let Some(completion) = self.try_send(&mut command, None) {
            return completion;
        }
        let slot = self.queue_when_possible(command, 0, Owner::Future(None)).await;
        RequestCompletion { shared: &self.shared, slot }
    }

    /// Queues a request that the task of `from` has taken, and passes its completion there.
    pub(crate) async fn forward(&self, request: Request, from: &RequestReceiver) {
        let Request { command, sends } = request;
        let origin = from.forwarding(&command);
        self.queue_when_possible(command, sends, Owner::Task(origin)).await;
    }

    /// Returns the slot; `None` if a forwarded request was refused.
    async fn queue_when_possible(
        &self,
        mut command: Command,
        sends: u8,
        mut owner: Owner,
    ) -> Option<usize> {
        let _waiting = WaitingSender::new(&self.shared);
        let _turn = self.shared.turn.lock().await;
        loop {
            let room = self.shared.room.notified();
            {
                let mut state = self.shared.state.lock();
                if let Some(error) = &state.error
                    && let Owner::Task(origin) = owner
                {
                    let completion = Request { command, sends }.refuse(error.clone());
                    drop(state);
                    origin.complete(completion);
                    return None;
                }
                let queued = self.shared.queue(&mut state, &mut command, sends, &mut owner);
                if queued.is_some() {
                    wake_task(state);
                    return queued;
                }
            }
            room.await;
        }
    }
}

impl Drop for RequestSender {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        self.shared.has_news.store(true, Ordering::Release);
        wake_task(state);
    }
}

impl RequestReceiver {
    /// Oldest request; `None` if there is none now.
    #[inline]
    pub(crate) fn first(&mut self) -> Option<&mut Request> {
        if self.taken.is_empty() && self.shared.has_news.swap(false, Ordering::Acquire) {
            let mut state = self.shared.state.lock();
            mem::swap(&mut state.queue, &mut self.taken);
            self.is_closed = state.is_closed;
        }
        self.taken.front_mut()
    }

    /// Removes the [first](Self::first) request.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Request> {
        self.taken.pop_front()
    }

    /// Returns true if there is no request, and none will come.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed && self.taken.is_empty()
    }

    /// Waits for a request, or for the end of the sender.
    pub(crate) async fn ready(&self) {
        poll_fn(|context| {
            let mut state = self.shared.state.lock();
            if !self.taken.is_empty() || self.shared.has_news.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            state.task = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Passes completions to the owners of their requests; `user` is the index of the slot.
    #[inline]
    pub(crate) fn complete(&mut self, completions: impl Iterator<Item = CommandCompletion>) {
        let mut state = self.shared.state.lock();
        let before = state.open;
        let mut unclaimed = Vec::new();
        for completion in completions {
            state.complete(completion, &mut self.wakers, &mut unclaimed);
        }
        let has_room = state.open < before;
        notify_room(&self.shared.room, state, has_room);
        self.wakers.drain(..).for_each(Waker::wake);
        unclaimed.into_iter().for_each(Unclaimed::forward);
    }

    /// Fails the requests that have not been removed, and every request from now on.
    pub(crate) fn refuse(&mut self, error: &Error) {
        let mut state = self.shared.state.lock();
        state.error.get_or_insert_with(|| error.clone());
        let queue = mem::take(&mut state.queue);
        drop(state);
        let requests = mem::take(&mut self.taken).into_iter().chain(queue);
        self.complete(requests.map(|request| request.refuse(error.clone())));
        self.shared.room.notify_waiters();
    }

    /// Notes that a request is forwarded to the task of another poller.
    fn forwarding(&self, command: &Command) -> Origin {
        let slot = slot_of(command.user);
        self.shared.state.lock().slots[slot].progress = Progress::Forwarded;
        Origin { shared: self.shared.clone(), slot, is_completed: false }
    }
}

impl Drop for RequestReceiver {
    /// Commands are in flight if the runtime of the task is shut down.
    fn drop(&mut self) {
        self.refuse(&Error::Closed);
        let state = self.shared.state.lock();
        let in_flight = state.slots.iter().enumerate();
        let in_flight = in_flight.filter(|(_, slot)| matches!(slot.progress, Progress::InFlight));
        let lost: Vec<_> = in_flight.map(|(index, _)| lost(index)).collect();
        drop(state);
        self.complete(lost.into_iter());
    }
}

impl RequestCompletion<'_> {
    /// Receives the completion as the future does; of a command with data that has succeeded only
    /// the buffer, which saves moving the rest.
    ///
    /// # Panics
    ///
    /// When it was ready before.
    #[inline(always)]
    pub(crate) fn poll_buffer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Buffer, CommandCompletion>> {
        let index = self.slot.expect("a future that is ready is not polled again");
        let mut state = self.shared.state.lock();
        let slot = &mut state.slots[index];
        let received = match &mut slot.progress {
            Progress::Completed(completion) if completion.is_success() => completion.data.take(),
            Progress::Completed(_) => None,
            _ => {
                slot.owner = Owner::Future(Some(context.waker().clone()));
                return Poll::Pending;
            }
        };
        self.slot = None;
        Poll::Ready(match received {
            Some(buffer) => {
                slot.progress = Progress::Free;
                state.free.push(index);
                Ok(buffer)
            }
            None => Err(state.receive(index).expect("it has completed")),
        })
    }
}

impl Future for RequestCompletion<'_> {
    type Output = CommandCompletion;

    /// # Panics
    ///
    /// When it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CommandCompletion> {
        let index = self.slot.expect("a future that is ready is not polled again");
        let mut state = self.shared.state.lock();
        match state.receive(index) {
            Some(completion) => {
                self.slot = None;
                Poll::Ready(completion)
            }
            None => {
                state.slots[index].owner = Owner::Future(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for RequestCompletion<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(index) = self.slot {
            self.shared.abandon(index);
        }
    }
}

impl Origin {
    /// Passes a completion on to the owner of the request.
    fn complete(mut self, completion: CommandCompletion) {
        self.is_completed = true;
        self.pass(completion);
    }

    fn pass(&self, completion: CommandCompletion) {
        let completion = CommandCompletion { user: self.slot as u64, ..completion };
        let (mut wakers, mut unclaimed) = (Vec::new(), Vec::new());
        let mut state = self.shared.state.lock();
        state.complete(completion, &mut wakers, &mut unclaimed);
        notify_room(&self.shared.room, state, true);
        wakers.into_iter().for_each(Waker::wake);
        unclaimed.into_iter().for_each(Unclaimed::forward);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if !self.is_completed {
            self.pass(lost(self.slot));
        }
    }
}

impl Unclaimed {
    fn forward(self) {
        if let Some(origin) = self.origin {
            origin.complete(self.completion);
        }
    }
}

impl Shared {
    /// Queues a command, or completes it with the error of the channel; returns its slot. Returns
    /// `None`, and leaves command and owner, if the channel is full.
    #[inline(always)]
    fn queue(
        &self,
        state: &mut State,
        command: &mut Command,
        sends: u8,
        owner: &mut Owner,
    ) -> Option<usize> {
        if state.open >= state.open_max && state.error.is_none() {
            return None;
        }
        let index = state.free.pop().unwrap_or_else(|| state.add_slot());
        let slot = &mut state.slots[index];
        slot.owner = mem::replace(owner, Owner::None);
        command.user = index as u64;
        if let Some(error) = &state.error {
            let request = Request { command: command.take(), sends };
            slot.progress = Progress::Completed(request.refuse(error.clone()));
            return Some(index);
        }
        slot.progress = Progress::InFlight;
        state.open += 1;
        state.queue.push_back(Request { command: command.take(), sends });
        self.has_news.store(true, Ordering::Release);
        Some(index)
    }

    /// Leaves a request without an owner.
    #[cold]
    fn abandon(&self, index: usize) {
        let mut state = self.state.lock();
        let completion = state.receive(index);
        if completion.is_none() {
            state.slots[index].owner = Owner::None;
        }
        drop(state); // before the completion, whose buffer may be the last of its memory
    }
}

impl State {
    /// Adds a slot; returns its index. The owners of completed requests limit their number.
    #[cold]
    fn add_slot(&mut self) -> usize {
        self.slots.push(Slot { progress: Progress::Free, owner: Owner::None });
        self.slots.len() - 1
    }

    /// Stores a completion for its future; adds it to `unclaimed` if there is none.
    #[inline(always)]
    fn complete(
        &mut self,
        completion: CommandCompletion,
        wakers: &mut Vec<Waker>,
        unclaimed: &mut Vec<Unclaimed>,
    ) {
        let index = slot_of(completion.user);
        self.open -= 1;
        let slot = &mut self.slots[index];
        match mem::replace(&mut slot.owner, Owner::Future(None)) {
            Owner::Future(waker) => {
                slot.progress = Progress::Completed(completion);
                wakers.extend(waker);
            }
            owner => {
                slot.progress = Progress::Free;
                self.free.push(index);
                let origin = match owner {
                    Owner::Task(origin) => Some(origin),
                    Owner::Future(_) | Owner::None => None,
                };
                unclaimed.push(Unclaimed { completion, origin });
            }
        }
    }

    /// Takes the completion of a request, if there is one, and frees its slot.
    fn receive(&mut self, index: usize) -> Option<CommandCompletion> {
        let progress = &mut self.slots[index].progress;
        if !matches!(progress, Progress::Completed(_)) {
            return None;
        }
        let Progress::Completed(completion) = mem::replace(progress, Progress::Free) else {
            unreachable!("it was just seen");
        };
        self.free.push(index);
        Some(completion)
    }
}

/// Sender that waits for room.
struct WaitingSender<'a>(&'a Shared);

impl<'a> WaitingSender<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().waiting += 1;
        Self(shared)
    }
}

impl Drop for WaitingSender<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting -= 1;
    }
}

/// Releases the lock, and wakes the task if it sleeps.
#[inline]
fn wake_task(mut state: MutexGuard<'_, State>) {
    let task = state.task.take();
    drop(state);
    if let Some(task) = task {
        task.wake();
    }
}

/// Releases the lock, and has the sender whose turn it is try again if there may be room.
#[inline]
fn notify_room(room: &Notify, state: MutexGuard<'_, State>, has_room: bool) {
    let is_awaited = has_room && state.waiting > 0;
    drop(state);
    if is_awaited {
        room.notify_one();
    }
}

/// Index of the slot of a command with this `user`.
#[inline]
fn slot_of(user: u64) -> usize {
    usize::try_from(user).expect("an index of the channel")
}

/// Completion of a command whose poller is gone with it.
fn lost(slot: usize) -> CommandCompletion {
    CommandCompletion {
        user: slot as u64,
        outcome: Err(Error::Closed),
        data: None,
        execution: ExecutionStatus::Unknown,
    }
}

#[cfg(test)]
mod tests;
