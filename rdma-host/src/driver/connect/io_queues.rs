//! Bring-up of a controller's I/O queues. Each poller has one loop that owns it: the loop makes the
//! calls that block and drives the poller, while the queues wait for the target side by side.

use std::collections::HashMap;

use futures_util::{
    FutureExt,
    future::{BoxFuture, try_join_all},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use verbs::{ProtectionDomain, Provider};

use crate::{
    config::{
        ADMIN_TIMEOUT, CLOSE_REASON_TIMEOUT, CONCURRENT_AUTHENTICATIONS_MAX,
        CONCURRENT_CONNECTS_MAX, IDLE_TIMEOUT, MemoryMode,
    },
    driver::{
        buffers::{buffers, verbs_error},
        connect::{
            authenticate::{CommandChannel, authenticate},
            context::ConnectContext,
            rdma::{Plan, QueueConnector, Resolved},
        },
        data_path::{
            admin_queue::command_buffer::CommandBuffer,
            command::{Command, CommandCompletion},
            connection::QueueSet,
            memory::completion_entries,
            poller::Poller,
            queue::Queue,
        },
        runtime,
    },
    error::{Error, Misuse, Transport},
    proto::{BringUpInput, Execute, QueueBringUp, QueueBringUpAction, QueueReady},
    wire::{Cqe, Identify, QueueId},
};

/// Parameters of the bring-up of a controller's I/O queues.
pub(crate) struct IoQueues<'a, P: Provider> {
    pub(crate) context: &'a ConnectContext<'a, P>,
    pub(crate) domain: &'a ProtectionDomain<P>,
    pub(crate) memory: MemoryMode,
    /// Entries of each queue.
    pub(crate) entries: u16,
}

/// Limits for the queues of all pollers together.
struct Limits {
    connects: Semaphore,
    authentications: Semaphore,
}

impl<P: Provider> IoQueues<'_, P> {
    /// Brings all queues up; returns those of each poller, and what was agreed for each queue in
    /// the order of their ids. The first failure ends it.
    pub(crate) async fn connect(
        &self,
        bring_ups: Vec<QueueBringUp>,
    ) -> Result<(Vec<QueueSet<P>>, Vec<QueueReady>), Error> {
        let resolved = Resolved::new(self.context.provider, self.context.options).await?;
        let device = resolved.endpoint().limits().map_err(verbs_error)?;
        self.check_device(&device, bring_ups.len())?;
        let limits = Limits {
            connects: Semaphore::new(CONCURRENT_CONNECTS_MAX.into()),
            authentications: Semaphore::new(CONCURRENT_AUTHENTICATIONS_MAX),
        };
        let many = bring_ups.len() > FEW_QUEUES;
        let shares = distribute(bring_ups, self.context.pollers);
        let mut loops = Vec::with_capacity(shares.len());
        for share in &shares {
            let queues = u16::try_from(share.len()).expect("queue ids have 16 bits");
            let entries = completion_entries(self.memory, queues, self.entries);
            let queue = resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
            loops.push(PollerLoop::new(self, &limits, Poller::new(queue, ADMIN_TIMEOUT), many));
        }
        let mut resolved = Some(resolved);
        for (poller_loop, share) in loops.iter_mut().zip(shares) {
            poller_loop.start(share, &mut resolved)?;
        }
        let connected = try_join_all(loops.into_iter().map(PollerLoop::run)).await?;
        let (sets, ready): (Vec<_>, Vec<_>) = connected.into_iter().unzip();
        let mut ready: Vec<_> = ready.into_iter().flatten().collect();
        ready.sort_unstable_by_key(|&(id, _)| id);
        Ok((sets, ready.into_iter().map(|(_, ready)| ready).collect()))
    }

    /// Checks that the device allows this number of queues, before any is made.
    fn check_device(&self, device: &verbs::Limits, queues: usize) -> Result<(), Misuse> {
        let pollers = self.context.pollers.min(queues).max(1);
        let share = u16::try_from(queues.div_ceil(pollers)).expect("queue ids have 16 bits");
        let completions = completion_entries(self.memory, share, self.entries);
        let sends = self.memory.sends(self.entries);
        for (what, needed, max) in [
            // One more for the admin queue.
            ("queue pairs", queues as u64 + 1, device.queue_pairs),
            ("work requests each", sends.into(), device.queue_pair_work_requests),
            ("entries of a completion queue", completions.into(), device.completion_queue_entries),
        ] {
            if needed > max.into() {
                let (device, max) = (device.device.clone(), max.into());
                return Err(Misuse::DeviceLimit { device, what, needed, max });
            }
        }
        Ok(())
    }
}

/// Shares queues out to at most `pollers` pollers in turn.
fn distribute(bring_ups: Vec<QueueBringUp>, pollers: usize) -> Vec<Vec<QueueBringUp>> {
    let count = pollers.min(bring_ups.len()).max(1);
    let mut shares: Vec<_> = (0..count).map(|_| Vec::new()).collect();
    for (index, bring_up) in bring_ups.into_iter().enumerate() {
        shares[index % count].push(bring_up);
    }
    shares
}

/// Bring-up of one poller's queues.
struct PollerLoop<'a, P: Provider> {
    /// Futures of the queues that are being brought up. Before the poller with its completion
    /// queue, so that queue pairs are destroyed first.
    steps: FuturesUnordered<BoxFuture<'a, StepOutcome<'a, P>>>,
    io: &'a IoQueues<'a, P>,
    limits: &'a Limits,
    poller: Poller<P>,
    /// True if there are many queues, of all pollers together.
    many: bool,
    /// Buffers for queues that are connected.
    buffers: Vec<CommandBuffer>,
    /// Commands of the queues' futures, and the sender for these.
    commands: mpsc::UnboundedReceiver<QueueCommand>,
    sender: mpsc::UnboundedSender<QueueCommand>,
    /// Receivers of the completions of the commands in flight, one command per queue.
    in_flight: HashMap<QueueId, oneshot::Sender<CommandCompletion>>,
    ready: Vec<(QueueId, QueueReady)>,
}

/// Queue that is being connected.
struct ConnectingQueue<'a, P: Provider> {
    bring_up: QueueBringUp,
    connector: QueueConnector<'a, P>,
    permit: SemaphorePermit<'a>,
}

/// Result of what a queue has waited for.
enum Step<'a, P: Provider> {
    /// The connector has a call to make.
    Call(Box<ConnectingQueue<'a, P>>),
    /// The queue accepts commands; its buffer is free.
    Ready(QueueId, QueueReady, CommandBuffer),
}

type StepOutcome<'a, P> = Result<Step<'a, P>, (QueueId, Error)>;

impl<'a, P: Provider> PollerLoop<'a, P> {
    fn new(io: &'a IoQueues<'a, P>, limits: &'a Limits, poller: Poller<P>, many: bool) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        Self {
            steps: FuturesUnordered::new(),
            io,
            limits,
            poller,
            many,
            buffers: Vec::new(),
            commands,
            sender,
            in_flight: HashMap::new(),
            ready: Vec::new(),
        }
    }

    /// Starts the bring-up of queues. The first one takes the device that is resolved already.
    fn start(
        &mut self,
        bring_ups: Vec<QueueBringUp>,
        resolved: &mut Option<Resolved<P>>,
    ) -> Result<(), Error> {
        let count = bring_ups.len().min(CONCURRENT_CONNECTS_MAX.into());
        let buffers = buffers(self.io.domain, count, Identify::SIZE, self.io.memory.access())?;
        self.buffers = buffers.into_iter().map(CommandBuffer::from).collect();
        for bring_up in bring_ups {
            self.steps.push(begin(self.io, self.limits, bring_up, resolved.take()).boxed());
        }
        Ok(())
    }

    async fn run(mut self) -> Result<(QueueSet<P>, Vec<(QueueId, QueueReady)>), Error> {
        while !self.steps.is_empty() {
            // The poller is waited for if nothing else is to be done.
            let driven = tokio::select! {
                biased;
                Some(step) = self.steps.next() => {
                    self.handle_step(step.map_err(|(_, error)| error)?).await?;
                    Ok(())
                }
                Some(command) = self.commands.recv() => self.submit(command),
                ready = self.poller.ready(IDLE_TIMEOUT) => ready,
            };
            let driven = driven.and_then(|()| self.poller.poll());
            self.deliver();
            if let Err(error) = driven {
                return Err(self.failure(error).await);
            }
        }
        let mut set =
            self.poller.into_queue_set().expect("a poller that has not failed has queues");
        set.queues.sort_unstable_by_key(Queue::id);
        Ok((set, self.ready))
    }

    async fn handle_step(&mut self, step: Step<'a, P>) -> Result<(), Error> {
        match step {
            Step::Ready(queue, ready, buffer) => {
                self.ready.push((queue, ready));
                self.buffers.push(buffer);
                return Ok(());
            }
            Step::Call(connecting) if connecting.connector.is_established() => {
                self.add(*connecting)?;
            }
            Step::Call(mut connecting) => {
                let completion_queue = self.poller.completion_queue();
                let completion_queue = completion_queue.expect("the poller has not failed");
                connecting.connector.call(completion_queue)?;
                self.steps.push(wait(connecting).boxed());
            }
        }
        if self.many {
            yield_to_others().await;
        }
        Ok(())
    }

    /// Adds a connected queue to the poller, and continues its bring-up.
    fn add(&mut self, connecting: ConnectingQueue<'a, P>) -> Result<(), Error> {
        let ConnectingQueue { mut bring_up, connector, permit } = connecting;
        let (queue, accept) = connector.into_queue()?;
        self.poller.add(queue);
        bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
        let buffer = self.buffers.pop().expect("there is one for each queue that may connect");
        let (queue, commands) = (bring_up.id(), self.sender.clone());
        let channel = QueueChannel { queue, buffer, commands };
        self.steps.push(initialize(self.io, self.limits, bring_up, permit, channel).boxed());
        Ok(())
    }

    fn submit(&mut self, command: QueueCommand) -> Result<(), Error> {
        let QueueCommand { queue, command, reply } = command;
        match self.poller.submit_to(queue, command) {
            Ok(()) => {
                self.in_flight.insert(queue, reply);
                self.poller.ring_doorbells()
            }
            Err(refused) => {
                // Without a receiver the queue has given up.
                let _ = reply.send(CommandCompletion::from(refused));
                Ok(())
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(completion) = self.poller.take() {
            let queue = QueueId(u16::try_from(completion.user).expect("a tag is a queue id"));
            if let Some(reply) = self.in_flight.remove(&queue) {
                // Without a receiver the command has timed out.
                let _ = reply.send(completion);
            }
        }
    }

    /// Returns the error of the bring-up after a failure of the poller. If that is the end of a
    /// connection, and its queue is being brought up, the queue's own error says more: such as what
    /// the target sent before it disconnected.
    async fn failure(mut self, error: Error) -> Error {
        let (Error::Transport(Transport::Disconnected(queue))
        | Error::Transport(Transport::QueuePair { queue, .. })) = &error
        else {
            return error;
        };
        if self.ready.iter().any(|(ready, _)| ready == queue) {
            return error;
        }
        let own = async {
            loop {
                tokio::select! {
                    biased;
                    Some(step) = self.steps.next() => match step {
                        Err((failed, own)) if failed == *queue => return own,
                        Ok(Step::Ready(ready, ..)) if ready == *queue => return error.clone(),
                        _ => {}
                    },
                    // Which the failed poller refuses.
                    Some(command) = self.commands.recv() => drop(self.submit(command)),
                }
            }
        };
        runtime::timeout(CLOSE_REASON_TIMEOUT, own).await.unwrap_or_else(|_| error.clone())
    }
}

/// Number of queues up to which the time that their calls take is not worth a wait for a busy
/// runtime.
const FEW_QUEUES: usize = 4;

/// Lets the runtime's other tasks run after a call that blocked: they may have I/O to complete.
async fn yield_to_others() {
    /// Turns of a command: its completion, its caller, the submission of the next.
    const TURNS: usize = 4;
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Waits until a queue may be brought up and its device is known.
async fn begin<'a, P: Provider>(
    io: &'a IoQueues<'a, P>,
    limits: &'a Limits,
    bring_up: QueueBringUp,
    resolved: Option<Resolved<P>>,
) -> StepOutcome<'a, P> {
    let permit = limits.connects.acquire().await.expect("the semaphore is never closed");
    let resolving = async {
        let QueueBringUpAction::RdmaConnect(open) = bring_up.action()? else {
            unreachable!("the bring-up of a queue begins with its RDMA connection");
        };
        let ConnectContext { options, provider, .. } = *io.context;
        let resolved = match resolved {
            Some(resolved) => resolved,
            None => Resolved::new(provider, options).await?,
        };
        let plan = Plan { options, domain: io.domain, open, memory: io.memory };
        Ok(resolved.connector(plan))
    };
    let connector = resolving.await.map_err(|error| (bring_up.id(), error))?;
    Ok(Step::Call(Box::new(ConnectingQueue { bring_up, connector, permit })))
}

/// Waits until there is a call to make for the connection.
async fn wait<P: Provider>(mut connecting: Box<ConnectingQueue<'_, P>>) -> StepOutcome<'_, P> {
    let waited = connecting.connector.until_call().await;
    waited.map_err(|error| (connecting.bring_up.id(), error))?;
    Ok(Step::Call(connecting))
}

/// Brings a queue up whose RDMA connection is established.
async fn initialize<'a, P: Provider>(
    io: &'a IoQueues<'a, P>,
    limits: &'a Limits,
    mut bring_up: QueueBringUp,
    permit: SemaphorePermit<'a>,
    mut channel: QueueChannel,
) -> StepOutcome<'a, P> {
    let queue = bring_up.id();
    let initializing = async {
        loop {
            match bring_up.action()? {
                QueueBringUpAction::Ready(ready) => return Ok(ready),
                QueueBringUpAction::Execute(execute) => {
                    let (response, data) = channel.execute(execute).await?;
                    bring_up.handle(&BringUpInput::Completed(response, &data))?;
                }
                QueueBringUpAction::Authenticate => {
                    let _permit = limits.authentications.acquire().await;
                    let parties = io.context.parties;
                    let outcome = authenticate(&mut channel, queue, parties).await?;
                    bring_up.handle(&BringUpInput::Authenticated(outcome))?;
                }
                QueueBringUpAction::RdmaConnect(_) => unreachable!("the queue is connected"),
            }
        }
    };
    let ready = initializing.await.map_err(|error| (queue, error))?;
    drop(permit);
    Ok(Step::Ready(queue, ready, channel.buffer))
}

/// Command of a queue's future for the loop to submit.
struct QueueCommand {
    queue: QueueId,
    command: Command,
    reply: oneshot::Sender<CommandCompletion>,
}

/// Queue that belongs to a loop's poller.
struct QueueChannel {
    queue: QueueId,
    buffer: CommandBuffer,
    commands: mpsc::UnboundedSender<QueueCommand>,
}

impl CommandChannel for QueueChannel {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let (reply, completion) = oneshot::channel();
        let data = self.buffer.data(&execute.transfer);
        let command = Command { sqe: execute.sqe, data, user: self.queue.0.into() };
        let command = QueueCommand { queue: self.queue, command, reply };
        self.commands.send(command).unwrap_or_else(|_| unreachable!("the loop owns the future"));
        match runtime::timeout(ADMIN_TIMEOUT, completion).await {
            Ok(completion) => {
                let completion = completion.expect("the loop owns the future");
                self.buffer.response(completion, &execute)
            }
            Err(_) => Err(Error::Timeout { step: execute.name, after: ADMIN_TIMEOUT }),
        }
    }
}
