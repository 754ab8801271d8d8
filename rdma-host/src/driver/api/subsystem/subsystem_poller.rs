//! Poller of the queues of several paths.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use quanta::Clock;
use slab::Slab;
use tokio::sync::mpsc;
use verbs::{Provider, RdmaCore};

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
            statistics::{PollerMeter, Statistics},
            ticks::Ticks,
        },
        runtime,
    },
    error::{Error, Misuse},
    proto::{CommandClass, PathId, PathPolicy, PathSelector},
    wire::{NamespaceId, Sqe},
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
    operations: Slab<Operation>,
    /// Commands that failed on a path, about which is decided at the next poll.
    failed: Vec<(PathId, CommandCompletion)>,
    held: Vec<Held>,
    done: VecDeque<CommandCompletion>,
    depth: usize,
    meter: PollerMeter,
    clock: Clock,
    ticks: Ticks,
}

/// Command that was submitted.
struct Operation {
    sqe: Sqe,
    user: u64,
    /// Clock reading of the submission.
    submitted: u64,
    has_buffer: bool,
    /// Generation of the connection that it was sent on.
    generation: u64,
    progress: Progress,
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
        policy: PathPolicy,
        arrivals: mpsc::UnboundedReceiver<(PathId, Poller<P>)>,
    ) -> Self {
        let (count, clock) = (table.addresses.len(), runtime::clock());
        let mut this = Self {
            pollers: std::iter::repeat_with(Vec::new).take(count).collect(),
            arrivals,
            has_arrivals: true,
            snapshot: table.snapshot(),
            selector: PathSelector::new(count, policy),
            counters: table.new_counters(),
            table,
            operations: Slab::new(),
            failed: Vec::new(),
            held: Vec::new(),
            done: VecDeque::new(),
            depth: 0,
            meter: PollerMeter::new(),
            ticks: Ticks::new(&clock),
            clock,
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
    pub fn submit(&mut self, command: Command) -> Result<(), SubmitError> {
        if self.room() == 0 {
            return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
        }
        let Command { sqe, data, user } = command;
        let tag = self.operations.insert(Operation {
            sqe,
            user,
            submitted: self.clock.raw(),
            has_buffer: data.buffer().is_some(),
            generation: 0,
            progress: Progress::default(),
        });
        self.send(tag, data);
        Ok(())
    }

    /// Hands all queued commands to the devices, with one doorbell for each queue.
    pub fn ring_doorbells(&mut self) {
        for path in 0..self.pollers.len() {
            self.on_path(path, Poller::ring_doorbells);
        }
    }

    /// Polls for completions, without blocking, and calls `each` with each of them; returns their
    /// number. Commands that failed on a path are sent again where their class allows it.
    pub fn poll_with(&mut self, mut each: impl FnMut(CommandCompletion)) -> usize {
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
        completed
    }

    /// Polls the queues of one path; completions of commands that failed are kept for a decision.
    fn poll_path(&mut self, index: usize, each: &mut impl FnMut(CommandCompletion)) -> usize {
        let path = PathId(index);
        let Self { pollers, selector, counters, operations, failed, meter, clock, ticks, .. } =
            self;
        let (mut completed, mut now, mut has_ended) = (0, 0, false);
        for poller in &mut pollers[index] {
            let polled = poller.poll_with(|done| {
                if !done.outcome.as_ref().is_ok_and(|response| response.status().is_success()) {
                    failed.push((path, done));
                    return;
                }
                if now == 0 {
                    now = clock.raw();
                }
                let tag = usize::try_from(done.user).expect("tags are indices");
                let operation = operations.remove(tag);
                let latency = ticks.nanoseconds(operation.submitted, now);
                selector.end(path, Some(Duration::from_nanos(latency)));
                counters.end(path, selector);
                record_success(meter, &operation, &done, now);
                completed += 1;
                each(CommandCompletion { user: operation.user, ..done });
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
    fn on_path(&mut self, index: usize, call: impl Fn(&mut Poller<P>) -> Result<(), Error>) {
        let failed = &mut self.failed;
        self.pollers[index].retain_mut(|poller| {
            let is_there = call(poller).is_ok();
            if !is_there {
                let take = || poller.take().map(|done| (PathId(index), done));
                failed.extend(std::iter::from_fn(take));
            }
            is_there
        });
    }

    /// Decides about the commands that failed, and sends those that are held and may go on.
    #[inline(never)]
    fn send_again(&mut self) {
        loop {
            for (path, done) in std::mem::take(&mut self.failed) {
                self.decide(path, done);
            }
            self.send_held();
            self.ring_doorbells();
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
        let CommandCompletion { user, outcome: result, data, execution } = done;
        let tag = usize::try_from(user).expect("tags are indices");
        self.selector.end(path, None);
        self.counters.end(path, &self.selector);
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
        let next = operation.progress.decide(&self.table, &failed);
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
    fn send(&mut self, tag: usize, data: Data) {
        let operation = &self.operations[tag];
        let (sqe, failed_on) = (operation.sqe, operation.progress.failed_on);
        let path = match self.choose(sqe.namespace(), failed_on) {
            Begun::Send(path) => path,
            Begun::Same => {
                self.operations[tag].progress.failed_on = None;
                let until = HeldUntil::At(runtime::now() + PATH_RETRY_INTERVAL);
                return self.held.push(Held { tag, data, until });
            }
            Begun::Hold(version) => return self.hold(tag, data, version),
            Begun::Fail => {
                let error = match self.snapshot.active(sqe.namespace()) {
                    None if self.table.namespace(sqe.namespace()).is_none() => {
                        Misuse::NoNamespace(sqe.namespace()).into()
                    }
                    _ => self.table.no_path(sqe.namespace()),
                };
                let (data, execution) = (data.into_buffer(), ExecutionStatus::NotSent);
                return self.complete(tag, Err(error), data, execution);
            }
        };
        let with_room = self.pollers[path.0].iter_mut().find(|poller| poller.room() > 0);
        let Some(poller) = with_room else {
            return self.held.push(Held { tag, data, until: HeldUntil::Room });
        };
        self.operations[tag].generation = self.snapshot.connections[path.0].0;
        self.selector.begin(path);
        self.counters.begin(path, &self.selector);
        if let Err(refused) = poller.submit(Command { sqe, data, user: tag as u64 }) {
            self.failed.push((path, refused.into()));
        }
    }

    /// Holds a command for which no path is usable until the paths change, up to the limit.
    fn hold(&mut self, tag: usize, data: Data, version: u64) {
        let operation = &mut self.operations[tag];
        operation.progress.failed_on = None;
        let due = operation.progress.hold(&self.table);
        if due.is_some_and(|due| due <= runtime::now()) {
            let error = self.table.no_path(operation.sqe.namespace());
            let (data, execution) = (data.into_buffer(), ExecutionStatus::NotSent);
            return self.complete(tag, Err(error), data, execution);
        }
        self.held.push(Held { tag, data, until: HeldUntil::Changed(version, due) });
    }

    /// Chooses a path that has a poller with room, if there is one.
    #[inline]
    fn choose(&mut self, namespace: NamespaceId, except: Option<PathId>) -> Begun<PathId> {
        self.refresh();
        let Self { table, pollers, snapshot, selector, .. } = self;
        if except.is_none()
            && let Some(active) = snapshot.active(namespace)
        {
            let has_room = |index: usize| {
                active[index] && pollers[index].iter().any(|poller| poller.room() > 0)
            };
            if let Some(path) = selector.choose(has_room, runtime::now) {
                return Begun::Send(path);
            }
        }
        table.choose(selector, |path| !pollers[path.0].is_empty(), namespace, except)
    }

    /// Copies the state of the paths if it has changed.
    #[inline]
    fn refresh(&mut self) {
        if self.table.is_latest(self.snapshot.version) {
            return;
        }
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
        outcome: Result<crate::wire::Cqe, Error>,
        data: Option<verbs::Buffer>,
        execution: ExecutionStatus,
    ) {
        let Operation { sqe, user, progress, .. } = self.operations.remove(tag);
        (0..progress.retries).for_each(|_| self.meter.record_retry(sqe.opcode()));
        self.meter.record_failure(sqe.opcode());
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
        self.depth += poller.depth();
        self.pollers[path.0].push(poller);
        self.operations.reserve(self.depth.saturating_sub(self.operations.capacity()));
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
        self.depth.saturating_sub(self.in_flight())
    }

    /// Number of commands that were submitted and not handed back.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len() + self.done.len()
    }

    /// Maximum number of commands in flight: the sum of the queues of all paths that were
    /// connected.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Statistics of the commands. A latency is that of the whole command, on all its paths; the
    /// device's counters are those of all paths.
    pub fn statistics(&mut self) -> &mut Statistics {
        let statistics = self.meter.statistics(self.ticks);
        for poller in self.pollers.iter_mut().flatten() {
            statistics.add_work(&poller.statistics().take());
        }
        statistics
    }
}

impl<P: Provider> Drop for SubsystemPoller<P> {
    fn drop(&mut self) {
        self.counters.close();
    }
}

/// Counts a command that succeeded.
#[inline]
fn record_success(
    meter: &mut PollerMeter,
    operation: &Operation,
    done: &CommandCompletion,
    now: u64,
) {
    let opcode = operation.sqe.opcode();
    (0..operation.progress.retries).for_each(|_| meter.record_retry(opcode));
    let bytes = done.data.as_ref().map_or(0, |buffer| buffer.len() as u64);
    meter.record_success(opcode, bytes, (operation.submitted, now));
}
