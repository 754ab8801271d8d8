//! Poller of the queues of several paths.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use quanta::Clock;
use tokio::sync::mpsc;
use verbs::{Buffer, Provider, RdmaCore};

use super::{
    path_snapshot::{PathCounters, PathSnapshot},
    path_table::{Begun, PathTable},
    progress::{FailedAttempt, Progress},
};
use crate::{
    config::PATH_RETRY_INTERVAL,
    driver::{
        data_path::{
            command::{Command, CommandCompletion, Data, ExecutionStatus, SubmitError},
            poller::Poller,
            statistics::Statistics,
            ticks::Ticks,
        },
        runtime,
    },
    error::{Error, Misuse},
    proto::{CommandClass, PathId, PathSelector},
    wire::{Cqe, NamespaceId, Sqe},
};

/// Owner of some queues of each path of a subsystem, in the way of a [`Poller`]: it submits
/// commands and polls their completions, on the thread of its owner. A path is chosen for each
/// command, and it goes to another one as
/// [`SubsystemNamespace::execute`](crate::SubsystemNamespace::execute) says.
///
/// ```text
///  submit… → ring_doorbells → poll_with
///  and when nothing completed: ready().await, then poll again
/// ```
///
/// Connections, the access to namespaces and reconnects are handled by tasks of the runtime on
/// which the subsystem was connected, which must get to run.
pub struct SubsystemPoller<P: Provider = RdmaCore> {
    table: Arc<PathTable>,
    /// Pollers of each path: one, none before its first connection and once its controller has
    /// ended, or several where other paths have fewer.
    pollers: Vec<Vec<Poller<P>>>,
    arrivals: mpsc::UnboundedReceiver<(PathId, Poller<P>)>,
    /// True until no more pollers will arrive.
    has_arrivals: bool,
    snapshot: PathSnapshot,
    selector: PathSelector,
    counters: Arc<PathCounters>,
    /// Commands that were submitted and have not completed, by the tag that the pollers see.
    operations: Vec<Operation>,
    /// Tags that are not in use.
    free: Vec<usize>,
    /// Commands that failed on a path, about which is decided at the next poll.
    failed: Vec<(PathId, CommandCompletion)>,
    held: Vec<Held>,
    done: VecDeque<CommandCompletion>,
    statistics: Statistics,
    clock: Clock,
    ticks: Ticks,
    /// Clock reading of the first submission since the last doorbell or poll; 0 for none.
    submitted_at: u64,
}

/// Command that was submitted, or row for one.
struct Operation {
    sqe: Sqe,
    user: u64,
    /// Clock reading of the submission.
    submitted: u64,
    has_buffer: bool,
    /// Generation of the connection that it was sent on.
    generation: u64,
    /// Attempts before this one; `None` if it is the first.
    progress: Option<Box<Progress>>,
}

/// Command that no poller has.
struct Held {
    tag: usize,
    data: Data,
    until: HeldUntil,
}

/// Condition under which a path is looked for again.
enum HeldUntil {
    /// A poller has room.
    Room,
    At(Instant),
    /// The paths are no longer those of this version of the table; or this time has come.
    Changed(u64, Option<Instant>),
}

impl HeldUntil {
    /// Time at which the condition holds whatever happens.
    fn due_at(&self) -> Option<Instant> {
        match *self {
            Self::Room => None,
            Self::At(due) => Some(due),
            Self::Changed(_, due) => due,
        }
    }
}

impl<P: Provider> SubsystemPoller<P> {
    pub(super) fn new(
        table: Arc<PathTable>,
        arrivals: mpsc::UnboundedReceiver<(PathId, Poller<P>)>,
    ) -> Self {
        let (count, clock) = (table.addresses.len(), runtime::clock());
        let mut this = Self {
            pollers: std::iter::repeat_with(Vec::new).take(count).collect(),
            arrivals,
            has_arrivals: true,
            snapshot: table.snapshot(),
            selector: PathSelector::new(count, table.policy),
            counters: table.new_counters(),
            table,
            operations: Vec::new(),
            free: Vec::new(),
            failed: Vec::new(),
            held: Vec::new(),
            done: VecDeque::new(),
            statistics: Statistics::default(),
            ticks: Ticks::new(&clock),
            clock,
            submitted_at: 0,
        };
        this.take_arrivals();
        this
    }

    /// Queues a command to a namespace that the subsystem has
    /// [identified](super::Subsystem::identify_namespace). Nothing is sent before
    /// [`ring_doorbells`](Self::ring_doorbells). What is wrong with a command is told by its
    /// completion.
    ///
    /// # Errors
    ///
    /// [`Misuse::QueuesFull`] without [room](Self::room). The error returns the buffer.
    #[inline(never)] // as that of a poller
    pub fn submit(&mut self, mut command: Command) -> Result<(), SubmitError> {
        if self.submitted_at == 0 {
            self.submitted_at = self.clock.raw();
        }
        self.refresh();
        let Some(tag) = self.free.pop() else {
            return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
        };
        let operation = &mut self.operations[tag];
        (operation.sqe, operation.user) = (command.sqe, command.user);
        operation.submitted = self.submitted_at;
        operation.has_buffer = command.data.buffer().is_some();
        command.user = tag as u64;
        let namespace = command.sqe.namespace();
        if let Some(active) = self.snapshot.active(namespace)
            && let Some(path) = self.selector.choose(|index| active[index], runtime::now)
            && let Some(poller) = self.pollers[path.0].first_mut()
            && poller.room() > 0
        {
            operation.generation = self.snapshot.connections[path.0].0;
            self.selector.begin(path);
            if let Err(refused) = poller.submit_from(&mut command) {
                self.failed.push((path, refused.into()));
            }
            return Ok(());
        }
        self.send(tag, command.data);
        Ok(())
    }

    /// Hands all queued commands to the devices, with one doorbell for each queue.
    pub fn ring_doorbells(&mut self) {
        if self.submitted_at == 0 {
            return;
        }
        self.submitted_at = 0;
        self.counters.publish(&self.selector);
        for path in 0..self.pollers.len() {
            self.on_path(path, Poller::ring_doorbells);
        }
    }

    /// Polls for completions, without blocking, and calls `each` with each of them; returns their
    /// number. Commands that failed on a path are sent again where their class allows it.
    pub fn poll_with(&mut self, mut each: impl FnMut(CommandCompletion)) -> usize {
        self.submitted_at = 0;
        if self.has_arrivals {
            self.take_arrivals();
        }
        let mut completed = 0;
        for path in 0..self.pollers.len() {
            completed += self.poll_path(path, &mut each);
        }
        if !self.failed.is_empty() || !self.held.is_empty() {
            self.send_again();
        }
        completed += self.done.len();
        self.done.drain(..).for_each(each);
        if completed > 0 {
            self.counters.publish(&self.selector);
        }
        completed
    }

    /// Polls the queues of one path; completions of commands that failed are kept for a decision.
    #[inline]
    fn poll_path(&mut self, index: usize, each: &mut impl FnMut(CommandCompletion)) -> usize {
        let path = PathId(index);
        let Self { pollers, selector, operations, free, failed, statistics, clock, ticks, .. } =
            self;
        let (mut completed, mut has_ended) = (0, false);
        for poller in &mut pollers[index] {
            let polled = poller.poll_with(|mut done| {
                if !done.outcome.as_ref().is_ok_and(|response| response.status().is_success()) {
                    failed.push((path, done));
                    return;
                }
                let tag = tag_of(&done);
                let operation = &mut operations[tag];
                free.push(tag);
                // The first of those that arrived together stands for all.
                let latency = (completed == 0)
                    .then(|| ticks.nanoseconds(operation.submitted, clock.raw()).max(1));
                selector.end(path, latency);
                if let Some(progress) = operation.progress.take() {
                    statistics.count_retries(operation.sqe.opcode(), progress.retries);
                }
                completed += 1;
                done.user = operation.user;
                each(done);
            });
            has_ended |= polled.is_err();
        }
        if has_ended {
            self.on_path(index, |poller| poller.poll().map(drop));
        }
        completed
    }

    /// Calls a method of the pollers of a path. One that fails has ended with its controller: its
    /// commands have failed.
    #[inline]
    fn on_path(&mut self, index: usize, call: impl Fn(&mut Poller<P>) -> Result<(), Error>) {
        let has_failed = |poller: &mut Poller<P>| call(poller).is_err();
        let ended = self.pollers[index].iter_mut().position(has_failed);
        if let Some(ended) = ended {
            self.retire(index, ended);
            self.on_path(index, call);
        }
    }

    /// Takes the commands of a poller that has ended.
    #[cold]
    #[inline(never)]
    fn retire(&mut self, path: usize, index: usize) {
        let mut poller = self.pollers[path].swap_remove(index);
        self.statistics.add_successes(poller.statistics().take());
        let take = || poller.take().map(|done| (PathId(path), done));
        self.failed.extend(std::iter::from_fn(take));
    }

    /// Decides about the commands that failed, and sends those that are held and may go on.
    #[inline(never)]
    fn send_again(&mut self) {
        loop {
            for (path, done) in std::mem::take(&mut self.failed) {
                self.decide(path, done);
            }
            self.send_held();
            // Commands that were sent before are pending until then.
            for path in 0..self.pollers.len() {
                self.on_path(path, |poller| poller.poll().map(drop));
            }
            if self.failed.is_empty() {
                return;
            }
        }
    }

    fn send_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (now, is_latest) = (runtime::now(), |version| self.table.is_latest(version));
        let mut room: usize = self.pollers.iter().flatten().map(Poller::room).sum();
        let mut is_due = |held: &mut Held| match held.until {
            HeldUntil::Room if room > 0 => {
                room -= 1;
                true
            }
            HeldUntil::Room => false,
            HeldUntil::At(due) => due <= now,
            HeldUntil::Changed(version, due) => {
                !is_latest(version) || due.is_some_and(|due| due <= now)
            }
        };
        let due: Vec<_> = self.held.extract_if(.., |held| is_due(held)).collect();
        due.into_iter().for_each(|held| self.send(held.tag, held.data));
    }

    /// Decides about a command that failed on a path.
    fn decide(&mut self, path: PathId, done: CommandCompletion) {
        let tag = tag_of(&done);
        let CommandCompletion { outcome: result, data, execution, .. } = done;
        self.selector.end(path, None);
        self.refresh();
        let operation = &mut self.operations[tag];
        let failed = FailedAttempt {
            path,
            generation: operation.generation,
            retry: self.snapshot.connections[path.0].1,
            namespace: operation.sqe.namespace(),
            class: CommandClass::of(&operation.sqe),
            opcode: operation.sqe.opcode(),
            result: &result,
            execution,
        };
        let progress = operation.progress.get_or_insert_default();
        let next = progress.decide(&self.table, &failed);
        match next.filter(|_| operation.has_buffer == data.is_some()) {
            Some(delay) => {
                let data = Data::of(&operation.sqe, data);
                if delay.is_zero() {
                    self.send(tag, data);
                } else {
                    let until = HeldUntil::At(runtime::now() + delay);
                    self.held.push(Held { tag, data, until });
                }
            }
            None => self.complete(tag, result, data, execution),
        }
    }

    /// Submits a command to a poller of the path that is chosen for it, or holds it.
    #[inline(never)]
    fn send(&mut self, tag: usize, data: Data) {
        let operation = &mut self.operations[tag];
        let (sqe, progress) = (operation.sqe, operation.progress.as_mut());
        let failed_on = progress.and_then(|progress| progress.failed_on.take());
        let namespace = sqe.namespace();
        match self.choose(namespace, failed_on) {
            Begun::Send(path) => {
                self.submit_to(path, tag, Command { sqe, data, user: tag as u64 });
            }
            Begun::Same => {
                let until = HeldUntil::At(runtime::now() + PATH_RETRY_INTERVAL);
                self.held.push(Held { tag, data, until });
            }
            Begun::Hold(version) => self.hold(tag, data, version),
            Begun::Fail => {
                let error = match self.table.namespace(namespace) {
                    Some(_) => self.table.no_path(namespace),
                    None => Misuse::NoNamespace(namespace).into(),
                };
                self.complete(tag, Err(error), data.into_buffer(), ExecutionStatus::NotSent);
            }
        }
    }

    /// Submits a command to a poller of a path; without room, it is held.
    fn submit_to(&mut self, path: PathId, tag: usize, command: Command) {
        let with_room = self.pollers[path.0].iter_mut().find(|poller| poller.room() > 0);
        let Some(poller) = with_room else {
            return self.held.push(Held { tag, data: command.data, until: HeldUntil::Room });
        };
        let operation = &mut self.operations[tag];
        operation.generation = self.snapshot.connections[path.0].0;
        self.selector.begin(path);
        let submitted = match operation.progress {
            None => poller.submit(command),
            Some(_) => poller.submit_later(command, operation.submitted),
        };
        if let Err(refused) = submitted {
            self.failed.push((path, refused.into()));
        }
    }

    /// Holds a command for which no path is usable until the paths change, up to the limit.
    fn hold(&mut self, tag: usize, data: Data, version: u64) {
        let operation = &mut self.operations[tag];
        let due = operation.progress.get_or_insert_default().hold(&self.table);
        if due.is_some_and(|due| due <= runtime::now()) {
            let error = self.table.no_path(operation.sqe.namespace());
            return self.complete(tag, Err(error), data.into_buffer(), ExecutionStatus::NotSent);
        }
        self.held.push(Held { tag, data, until: HeldUntil::Changed(version, due) });
    }

    /// Chooses a path, another one than `except` if possible.
    fn choose(&mut self, namespace: NamespaceId, except: Option<PathId>) -> Begun<PathId> {
        if except.is_none()
            && let Some(path) = self.choose_now(namespace)
        {
            return Begun::Send(path);
        }
        let Self { table, pollers, selector, .. } = self;
        table.choose(selector, |path| !pollers[path.0].is_empty(), namespace, except)
    }

    /// Chooses a path that has a poller with room, without a look at the table; `None` if none of
    /// those that are used now has.
    fn choose_now(&mut self, namespace: NamespaceId) -> Option<PathId> {
        self.refresh();
        let Self { pollers, snapshot, selector, .. } = self;
        let active = snapshot.active(namespace)?;
        let has_room =
            |index: usize| active[index] && pollers[index].iter().any(|poller| poller.room() > 0);
        selector.choose(has_room, runtime::now)
    }

    /// Copies the state of the paths if it has changed.
    #[inline]
    fn refresh(&mut self) {
        if !self.table.is_latest(self.snapshot.version) {
            self.copy();
        }
    }

    #[cold]
    #[inline(never)]
    fn copy(&mut self) {
        let before = std::mem::replace(&mut self.snapshot, self.table.snapshot());
        for (index, connection) in self.snapshot.connections.iter().enumerate() {
            if before.connections[index].0 != connection.0 {
                self.selector.forget_latency(PathId(index));
            }
        }
    }

    /// Completes a command that succeeded nowhere.
    fn complete(
        &mut self,
        tag: usize,
        outcome: Result<Cqe, Error>,
        data: Option<Buffer>,
        execution: ExecutionStatus,
    ) {
        let operation = &mut self.operations[tag];
        let (sqe, user) = (operation.sqe, operation.user);
        let progress = operation.progress.take().unwrap_or_default();
        self.free.push(tag);
        self.statistics.count_retries(sqe.opcode(), progress.retries);
        self.statistics.count_failure(sqe.opcode());
        let execution = progress.execution(execution);
        self.done.push_back(CommandCompletion { user, outcome, data, execution });
    }

    /// Takes the pollers of paths that were connected.
    fn take_arrivals(&mut self) {
        loop {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.add(arrival),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.has_arrivals = false,
            }
        }
    }

    fn add(&mut self, (path, poller): (PathId, Poller<P>)) {
        let (first, count) = (self.operations.len(), poller.depth());
        let unused = || Operation {
            sqe: Sqe::flush(NamespaceId(0)),
            user: 0,
            submitted: 0,
            has_buffer: false,
            generation: 0,
            progress: None,
        };
        self.operations.resize_with(first + count, unused);
        self.free.extend(first..first + count);
        self.pollers[path.0].push(poller);
    }

    /// Waits until a command may have completed, or the limit is over.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn ready(&mut self, limit: Duration) {
        if !self.done.is_empty() || !self.failed.is_empty() {
            return;
        }
        let due = self.held.iter().filter_map(|held| held.until.due_at()).min();
        let due = due.map(|due| due.saturating_duration_since(runtime::now()));
        let limit = due.map_or(limit, |due| due.min(limit));
        let changed = self.held.iter().find_map(|held| match held.until {
            HeldUntil::Changed(version, _) => Some(version),
            HeldUntil::Room | HeldUntil::At(_) => None,
        });
        let Self { table, pollers, arrivals, has_arrivals, .. } = self;
        let sleeps: Vec<_> =
            pollers.iter_mut().flatten().map(|poller| Box::pin(poller.ready(limit))).collect();
        let any_is_ready = async {
            if sleeps.is_empty() {
                runtime::sleep(limit).await;
            } else {
                // The next poll finds those that have ended.
                let _ = select_all(sleeps).await;
            }
        };
        let changes = async {
            match changed {
                Some(version) => table.until_changed(version, None).await,
                None => std::future::pending().await,
            }
        };
        let arrival = tokio::select! {
            biased;
            () = any_is_ready => None,
            () = changes => None,
            arrival = arrivals.recv(), if *has_arrivals => Some(arrival),
        };
        match arrival {
            Some(Some(arrival)) => self.add(arrival),
            Some(None) => self.has_arrivals = false,
            None => {}
        }
    }

    /// Number of commands that can be submitted now.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.free.len().saturating_sub(self.done.len())
    }

    /// Number of commands that were submitted and not handed back.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len() - self.free.len() + self.done.len()
    }

    /// Maximum number of commands in flight: the sum of the queues of all paths that were
    /// connected.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.operations.len()
    }

    /// Statistics of the commands. A latency is that of the whole command, on all its paths; the
    /// device's counters are those of all paths.
    pub fn statistics(&mut self) -> &mut Statistics {
        for poller in self.pollers.iter_mut().flatten() {
            self.statistics.add_successes(poller.statistics().take());
        }
        &mut self.statistics
    }
}

impl<P: Provider> Drop for SubsystemPoller<P> {
    fn drop(&mut self) {
        self.counters.close();
    }
}

/// Tag of a command in the table of its owner.
#[inline]
fn tag_of(done: &CommandCompletion) -> usize {
    usize::try_from(done.user).expect("tags are indices")
}
