//! Poller of the queues of several paths.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_all;
use quanta::Clock;
use tokio::sync::mpsc;
use verbs::{Buffer, Provider, RdmaCore};

use super::{
    operation::{HeldOperation, HeldUntil, Operation},
    path_snapshot::{PathCounters, PathSnapshot},
    path_table::{Begun, PathTable},
    progress::{FailedAttempt, Progress},
};
use crate::{
    config::PATH_RETRY_INTERVAL,
    driver::{
        data_path::{
            command::{Command, CommandCompletion, Data, ExecutionStatus, Submission, SubmitError},
            poller::{Poller, ReturnedCommand},
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
    /// Maximum number of commands in flight.
    depth: usize,
    /// Number of commands that were submitted and not handed back.
    in_flight: usize,
    /// Commands that pollers have and that are in flight for longer than one attempt, by the tag
    /// that the pollers see. All others are known to their queues alone.
    repeats: HashMap<u64, Operation>,
    /// Tag of the next of them.
    next_tag: u64,
    /// Commands that failed on a path, or were sent again, about which is decided at the next poll.
    returned: Vec<(PathId, ReturnedCommand)>,
    held: Vec<HeldOperation>,
    done: VecDeque<CommandCompletion>,
    statistics: Statistics,
    clock: Clock,
    ticks: Ticks,
    /// Clock reading of the first submission since the last doorbell or poll; 0 for none.
    submitted_at: u64,
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
            depth: 0,
            in_flight: 0,
            repeats: HashMap::new(),
            next_tag: 0,
            returned: Vec::new(),
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
        if self.in_flight >= self.depth {
            return Err(SubmitError::new(Misuse::QueuesFull.into(), command));
        }
        self.in_flight += 1;
        let namespace = command.sqe.namespace();
        let turn = self.snapshot.next_turn(namespace);
        let chosen = turn.or_else(|| self.choose_by_load(namespace));
        if let Some(path) = chosen
            && let Some(poller) = self.pollers[path.0].first_mut()
            && poller.submit_fast(&mut command, self.submitted_at)
        {
            self.selector.begin(path);
            return Ok(());
        }
        self.submit_slowly(chosen, command);
        Ok(())
    }

    /// Chooses a path by the load of each, or for another namespace than the command before.
    #[inline(never)]
    fn choose_by_load(&mut self, namespace: NamespaceId) -> Option<PathId> {
        if self.snapshot.set_latest(namespace)
            && let Some(path) = self.snapshot.next_turn(namespace)
        {
            return Some(path);
        }
        let active = self.snapshot.active(namespace)?;
        self.selector.choose(|index| active[index], runtime::now)
    }

    /// Sends a command with all checks, on another path if that which was chosen has no room, or
    /// holds it.
    #[inline(never)]
    fn submit_slowly(&mut self, chosen: Option<PathId>, mut command: Command) {
        if let Some(path) = chosen
            && let Some(poller) = self.pollers[path.0].iter_mut().find(|poller| poller.room() > 0)
        {
            self.selector.begin(path);
            if let Err(refused) = poller.submit_from(&mut command) {
                let generation = poller.generation();
                self.refused(path, generation, &command.sqe, refused);
            }
            return;
        }
        let Command { sqe, data, user } = command;
        let (submitted, has_buffer) = (self.submitted_at, data.buffer().is_some());
        let progress = Progress::default();
        self.send(Operation { sqe, user, submitted, has_buffer, progress }, data);
    }

    /// Notes a command that the poller of a path refused.
    #[cold]
    #[inline(never)]
    fn refused(&mut self, path: PathId, generation: u64, sqe: &Sqe, refused: SubmitError) {
        let submission = Submission::First { sqe: *sqe, started: self.submitted_at };
        let completion = refused.into();
        self.returned.push((path, ReturnedCommand { submission, generation, completion }));
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
        if !self.returned.is_empty() || !self.held.is_empty() {
            self.send_again();
        }
        completed += self.done.len();
        self.done.drain(..).for_each(each);
        if completed > 0 {
            self.in_flight -= completed;
            self.counters.publish(&self.selector);
        }
        completed
    }

    /// Polls the queues of one path; commands that failed are kept for a decision.
    #[inline]
    fn poll_path(&mut self, index: usize, each: &mut impl FnMut(CommandCompletion)) -> usize {
        let path = PathId(index);
        let Self { pollers, selector, returned, clock, ticks, .. } = self;
        let (mut completed, mut has_ended) = (0, false);
        for poller in &mut pollers[index] {
            let before = completed;
            let polled = poller.poll_with(|done| {
                completed += 1;
                each(done);
            });
            has_ended |= polled.is_err();
            if completed > before {
                // The last of those that arrived together stands for all.
                let started = poller.last_started();
                let latency = started.map(|at| ticks.nanoseconds(at, clock.raw()).max(1));
                let count = u32::try_from(completed - before).expect("queues are shorter");
                selector.end(path, count, latency);
            }
            if poller.has_returned() {
                returned.extend(poller.take_returned().into_iter().map(|done| (path, done)));
            }
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
        let path = PathId(path);
        self.returned.extend(poller.take_returned().into_iter().map(|done| (path, done)));
        while let Some(done) = poller.take() {
            self.selector.end(path, 1, None);
            self.done.push_back(done);
        }
    }

    /// Decides about the commands that failed, and sends those that are held and may go on.
    #[inline(never)]
    fn send_again(&mut self) {
        loop {
            for (path, returned) in std::mem::take(&mut self.returned) {
                self.decide(path, returned);
            }
            self.send_held();
            // Commands that were sent before are pending until then.
            for path in 0..self.pollers.len() {
                self.on_path(path, |poller| poller.poll().map(drop));
                for poller in &mut self.pollers[path] {
                    let returned = poller.take_returned().into_iter();
                    self.returned.extend(returned.map(|done| (PathId(path), done)));
                }
            }
            if self.returned.is_empty() {
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
        let mut is_due = |held: &mut HeldOperation| match held.until {
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
        due.into_iter().for_each(|held| self.send(held.operation, held.data));
    }

    /// Decides about a command that a poller of a path returned.
    fn decide(&mut self, path: PathId, returned: ReturnedCommand) {
        let ReturnedCommand { submission, generation, completion } = returned;
        let is_success = completion.is_success();
        let CommandCompletion { user, outcome: result, data, execution } = completion;
        let mut operation = match submission {
            Submission::First { sqe, started: submitted } => {
                let has_buffer = data.is_some() || sqe.has_data();
                Operation { sqe, user, submitted, has_buffer, progress: Progress::default() }
            }
            Submission::Repeat => {
                self.repeats.remove(&user).expect("it is kept until its poller returns it")
            }
        };
        self.selector.end(path, 1, None);
        if is_success {
            let Operation { sqe, user, progress, .. } = operation;
            self.statistics.count_retries(sqe.opcode(), progress.retries);
            self.done.push_back(CommandCompletion { user, outcome: result, data, execution });
            return;
        }
        self.refresh();
        let failed = FailedAttempt {
            path,
            generation,
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
                    self.send(operation, data);
                } else {
                    let until = HeldUntil::At(runtime::now() + delay);
                    self.held.push(HeldOperation { operation, data, until });
                }
            }
            None => self.complete(operation, result, data, execution),
        }
    }

    /// Submits a command to a poller of the path that is chosen for it, or holds it.
    #[inline(never)]
    fn send(&mut self, mut operation: Operation, data: Data) {
        let failed_on = operation.progress.failed_on.take();
        let namespace = operation.sqe.namespace();
        match self.choose(namespace, failed_on) {
            Begun::Send(path) => self.submit_to(path, operation, data),
            Begun::Same => {
                let until = HeldUntil::At(runtime::now() + PATH_RETRY_INTERVAL);
                self.held.push(HeldOperation { operation, data, until });
            }
            Begun::Hold(version) => self.hold(operation, data, version),
            Begun::Fail => {
                let error = match self.table.namespace(namespace) {
                    Some(_) => self.table.no_path(namespace),
                    None => Misuse::NoNamespace(namespace).into(),
                };
                let data = data.into_buffer();
                self.complete(operation, Err(error), data, ExecutionStatus::NotSent);
            }
        }
    }

    /// Submits a command to a poller of a path; without room, it is held.
    fn submit_to(&mut self, path: PathId, operation: Operation, data: Data) {
        let with_room = self.pollers[path.0].iter_mut().find(|poller| poller.room() > 0);
        let Some(poller) = with_room else {
            return self.held.push(HeldOperation { operation, data, until: HeldUntil::Room });
        };
        let (tag, submission) = (self.next_tag, Submission::Repeat);
        self.next_tag += 1;
        self.selector.begin(path);
        let command = Command { sqe: operation.sqe, data, user: tag };
        if let Err(refused) = poller.submit_again(command, operation.submitted) {
            let (generation, completion) = (poller.generation(), refused.into());
            self.returned.push((path, ReturnedCommand { submission, generation, completion }));
        }
        self.repeats.insert(tag, operation);
    }

    /// Holds a command for which no path is usable until the paths change, up to the limit.
    fn hold(&mut self, mut operation: Operation, data: Data, version: u64) {
        let due = operation.progress.hold(&self.table);
        if due.is_some_and(|due| due <= runtime::now()) {
            let (error, data) = (self.table.no_path(operation.sqe.namespace()), data.into_buffer());
            return self.complete(operation, Err(error), data, ExecutionStatus::NotSent);
        }
        self.held.push(HeldOperation { operation, data, until: HeldUntil::Changed(version, due) });
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
        self.snapshot.continue_turns(&before);
        for (index, connection) in self.snapshot.connections.iter().enumerate() {
            if before.connections[index].0 != connection.0 {
                self.selector.forget_latency(PathId(index));
            }
        }
    }

    /// Completes a command that succeeded nowhere.
    fn complete(
        &mut self,
        operation: Operation,
        outcome: Result<Cqe, Error>,
        data: Option<Buffer>,
        execution: ExecutionStatus,
    ) {
        let Operation { sqe, user, progress, .. } = operation;
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

    fn add(&mut self, (path, mut poller): (PathId, Poller<P>)) {
        poller.return_commands();
        self.depth += poller.depth();
        self.pollers[path.0].push(poller);
    }

    /// Waits until a command may have completed, or the limit is over.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn ready(&mut self, limit: Duration) {
        if !self.done.is_empty() || !self.returned.is_empty() {
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
        self.depth - self.in_flight
    }

    /// Number of commands that were submitted and not handed back.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
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
