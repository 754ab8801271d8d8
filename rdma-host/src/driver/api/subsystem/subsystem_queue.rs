//! Commands of one owner to a namespace of a subsystem, as a poller has them.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quanta::Clock;
use tokio::task::unconstrained;

use super::subsystem_namespace::SubsystemNamespace;
use crate::{
    driver::{
        data_path::{
            command::{Command, CommandCompletion},
            statistics::{PollerMeter, Statistics},
            ticks::Ticks,
        },
        runtime,
    },
    wire::Opcode,
};

/// Commands of one owner to a namespace of a subsystem, in the way of a
/// [`Poller`](crate::Poller): commands are submitted and their completions polled. A path is chosen
/// for each, and it goes to another one as
/// [`SubsystemNamespace::execute`](SubsystemNamespace::execute) says.
///
/// ```text
///  submit… → ring_doorbells → poll_with
///  and when nothing completed: ready().await, then poll again
/// ```
///
/// The queues of the paths are driven by tasks of the runtime on which the subsystem was connected,
/// which must get to run: an owner without completions waits by [`ready`](Self::ready).
pub struct SubsystemQueue {
    namespace: SubsystemNamespace,
    commands: FuturesUnordered<Pin<Box<dyn Future<Output = Executed> + Send>>>,
    done: VecDeque<CommandCompletion>,
    depth: usize,
    meter: PollerMeter,
    clock: Clock,
    ticks: Ticks,
}

/// Completion of a command, and what is counted of it.
struct Executed {
    completion: CommandCompletion,
    opcode: Opcode,
    /// Clock reading of the submission.
    submitted: u64,
    /// Number of times that it was sent again after a status that allows it.
    retries: u8,
}

impl SubsystemQueue {
    pub(super) fn new(namespace: SubsystemNamespace, depth: usize) -> Self {
        let clock = runtime::clock();
        Self {
            namespace,
            commands: FuturesUnordered::new(),
            done: VecDeque::with_capacity(depth),
            depth,
            meter: PollerMeter::new(),
            ticks: Ticks::new(&clock),
            clock,
        }
    }

    /// Submits a command of the namespace; [`ring_doorbells`](Self::ring_doorbells) sends it.
    pub fn submit(&mut self, command: Command) {
        let (namespace, opcode) = (self.namespace.clone(), command.sqe.opcode());
        let submitted = self.clock.raw();
        self.commands.push(Box::pin(async move {
            let (completion, retries) = namespace.execute_counted(command).await;
            Executed { completion, opcode, submitted, retries }
        }));
    }

    /// Sends what was submitted.
    pub fn ring_doorbells(&mut self) {
        self.drive();
    }

    /// Calls `each` with each command that has completed; returns their number.
    pub fn poll_with(&mut self, each: impl FnMut(CommandCompletion)) -> usize {
        self.drive();
        let completed = self.done.len();
        self.done.drain(..).for_each(each);
        completed
    }

    /// Waits until a command has completed, or the limit is over.
    pub async fn ready(&mut self, limit: Duration) {
        if !self.done.is_empty() {
            return;
        }
        if self.commands.is_empty() {
            return runtime::sleep(limit).await;
        }
        let next = unconstrained(self.commands.next());
        if let Ok(Some(executed)) = runtime::timeout(limit, next).await {
            self.finish(executed);
        }
    }

    /// Number of commands that can be submitted now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.depth.saturating_sub(self.in_flight())
    }

    /// Number of commands that were submitted and not handed back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.commands.len() + self.done.len()
    }

    /// Maximum number of commands in flight.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Statistics of the commands. A latency is that of the whole command, on all its paths; the
    /// device's counters are 0: they are those of the paths' pollers.
    pub fn statistics(&mut self) -> &mut Statistics {
        self.meter.statistics(self.ticks)
    }

    /// Goes on with all commands as far as possible.
    fn drive(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        // The caller need not yield between polls: tokio's budget would make them end with nothing.
        while let Poll::Ready(Some(executed)) =
            Pin::new(&mut unconstrained(self.commands.next())).poll(&mut context)
        {
            self.finish(executed);
        }
    }

    fn finish(&mut self, executed: Executed) {
        let Executed { completion, opcode, submitted, retries } = executed;
        (0..retries).for_each(|_| self.meter.record_retry(opcode));
        if completion.outcome.as_ref().is_ok_and(|response| response.status().is_success()) {
            let bytes = completion.data.as_ref().map_or(0, |buffer| buffer.len() as u64);
            self.meter.record_success(opcode, bytes, (submitted, self.clock.raw()));
        } else {
            self.meter.record_failure(opcode);
        }
        self.done.push_back(completion);
    }
}
