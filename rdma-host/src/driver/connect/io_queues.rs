//! The I/O queues of a controller, connected several at a time.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use verbs::{Buffer, ProtectionDomain, Provider};

use crate::{
    config::{
        ADMIN_TIMEOUT, ADMIN_TRANSFER_MAX, CLOSE_REASON_TIMEOUT, CONCURRENT_AUTHENTICATIONS_MAX,
        CONCURRENT_CONNECTS_MAX, MemoryMode,
    },
    driver::{
        buffers::{buffers, verbs_error},
        connect::{
            authenticate::authenticate,
            command_buffer::CommandBuffer,
            context::ConnectContext,
            rdma::{Completions, Plan, Resolved},
            shared_poller::{SharedPoller, SharedQueue},
        },
        data_path::{connection::QueueSet, memory::completion_entries, poller::Poller},
    },
    error::{Error, Transport},
    proto::{BringUp, BringUpInput, QueueBringUpAction, QueueReady},
    wire::QueueId,
};

/// What all queues have in common while they are brought up, and are shared out over the pollers.
pub(crate) struct IoQueueConnector<'a, P: Provider> {
    pub(crate) means: &'a ConnectContext<'a, P>,
    pub(crate) ladder: &'a BringUp,
    pub(crate) domain: &'a ProtectionDomain<P>,
    pub(crate) memory: MemoryMode,
    /// How many queues there will be.
    pub(crate) total: u16,
    /// Entries of each.
    pub(crate) entries: u16,
}

/// What is still to be done, and what is done.
struct Progress<P: Provider> {
    pollers: Vec<SharedPoller<P>>,
    /// The number of the next queue.
    next: AtomicU32,
    /// The way on which the completion queues were made, for whoever is first.
    resolved: Mutex<Option<Resolved<P>>>,
    authentications: Semaphore,
    up: Mutex<Vec<(QueueId, QueueReady)>>,
}

impl<P: Provider> IoQueueConnector<'_, P> {
    /// Brings all queues up. The first failure ends it.
    pub(crate) async fn run(&self) -> Result<(Vec<QueueSet<P>>, Vec<QueueReady>), Error> {
        let progress = self.begin().await?;
        let lanes = usize::from(self.total.min(CONCURRENT_CONNECTS_MAX));
        let access = self.memory.access();
        let scratch = buffers(self.domain, lanes, ADMIN_TRANSFER_MAX, access)?;
        let lanes = scratch.into_iter().map(|buffer| self.lane(&progress, buffer));
        tokio::select! {
            done = self.all(&progress, lanes.collect()) => done?,
            _ = join_all(progress.pollers.iter().map(SharedPoller::serve)) => {}
        }
        let mut up = progress.up.into_inner();
        up.sort_by_key(|&(queue, _)| queue);
        let assemblies = progress.pollers.into_iter().map(SharedPoller::into_assembly);
        Ok((assemblies.collect::<Result<_, _>>()?, up.into_iter().map(|(_, up)| up).collect()))
    }

    /// Waits for all lanes, or the first failure. Where a lane fails by a connection that is not
    /// its own, the lane of that knows more, such as what the target said before it hung up: it is
    /// waited for, a moment.
    async fn all(
        &self,
        progress: &Progress<P>,
        mut lanes: FuturesUnordered<impl Future<Output = Result<(), (QueueId, Error)>>>,
    ) -> Result<(), Error> {
        let (mut failure, mut patience) = (Ok(()), Duration::MAX);
        while let Ok(Some(ended)) = tokio::time::timeout(patience, lanes.next()).await {
            let Err((queue, error)) = ended else { continue };
            let concerned = concerned(&error).filter(|&concerned| {
                concerned != queue && progress.up.lock().iter().all(|&(up, _)| up != concerned)
            });
            if concerned.is_none() {
                return Err(error);
            }
            (failure, patience) = (failure.and(Err(error)), CLOSE_REASON_TIMEOUT);
        }
        failure
    }

    async fn begin(&self) -> Result<Progress<P>, Error> {
        let resolved = Resolved::new(self.means.provider, self.means.options).await?;
        let count = self.pollers();
        let entries = completion_entries(self.memory, self.total.div_ceil(count), self.entries);
        let poller = |_| {
            let queue = resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
            Ok(SharedPoller::new(Poller::new(queue, ADMIN_TIMEOUT), self.total))
        };
        Ok(Progress {
            pollers: (0..count).map(poller).collect::<Result<_, Error>>()?,
            next: AtomicU32::new(1),
            resolved: Mutex::new(Some(resolved)),
            authentications: Semaphore::new(CONCURRENT_AUTHENTICATIONS_MAX),
            up: Mutex::new(Vec::with_capacity(self.total.into())),
        })
    }

    fn pollers(&self) -> u16 {
        u16::try_from(self.means.pollers).unwrap_or(u16::MAX).min(self.total).max(1)
    }

    /// Brings one queue up after the other, until there are none left.
    async fn lane(&self, progress: &Progress<P>, scratch: Buffer) -> Result<(), (QueueId, Error)> {
        let mut scratch = CommandBuffer::from(scratch);
        loop {
            let next = u16::try_from(progress.next.fetch_add(1, Ordering::Relaxed));
            let Some(queue) = next.ok().filter(|&next| next <= self.total).map(QueueId) else {
                return Ok(());
            };
            let up = self.bring_up(progress, queue, &mut scratch).await;
            let up = up.map_err(|error| (queue, error))?;
            progress.up.lock().push((queue, up));
        }
    }

    async fn bring_up(
        &self,
        progress: &Progress<P>,
        queue: QueueId,
        scratch: &mut CommandBuffer,
    ) -> Result<QueueReady, Error> {
        // Shared out in turn.
        let poller = &progress.pollers[usize::from((queue.0 - 1) % self.pollers())];
        let mut ladder = self.ladder.queue(queue)?;
        loop {
            match ladder.action()? {
                QueueBringUpAction::Ready(up) => return Ok(up),
                QueueBringUpAction::RdmaConnect(open) => {
                    let (options, memory) = (self.means.options, self.memory);
                    let plan = Plan { options, domain: self.domain, open: &open, memory };
                    let first = progress.resolved.lock().take();
                    let connected = poller.unless_failed(async {
                        let resolved = match first {
                            Some(resolved) => resolved,
                            None => Resolved::new(self.means.provider, options).await?,
                        };
                        resolved.connect(plan, Completions::Shared(poller)).await
                    });
                    let (queue, accept) = connected.await?;
                    poller.add(queue).await;
                    ladder.handle(&BringUpInput::RdmaConnected(accept))?;
                }
                QueueBringUpAction::Authenticate => {
                    let turn = progress.authentications.acquire().await;
                    let mut carrier = SharedQueue { poller, scratch };
                    let how = authenticate(&mut carrier, queue, self.means.parties).await?;
                    drop(turn);
                    ladder.handle(&BringUpInput::Authenticated(how))?;
                }
                QueueBringUpAction::Execute(execute) => {
                    let (response, data) = poller.execute(scratch, execute).await?;
                    ladder.handle(&BringUpInput::Completed(response, &data))?;
                }
            }
        }
    }
}

/// The queue whose connection has failed, if that is what has.
fn concerned(error: &Error) -> Option<QueueId> {
    match error {
        Error::Transport(Transport::Disconnected(queue) | Transport::QueuePair { queue, .. }) => {
            Some(*queue)
        }
        _ => None,
    }
}
