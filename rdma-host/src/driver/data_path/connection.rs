//! Connection of a controller: a snapshot of all that holds from bring-up to loss.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified, mpsc, oneshot};
use tracing::Span;
use verbs::{CompletionQueue, Limits, ProtectionDomain, Provider};

use crate::{
    driver::{
        data_path::{
            admin_queue::counters::AdminCounters,
            command::{Command, CommandCompletion},
            memory::MemoryReport,
            queue::Queue,
        },
        runtime,
    },
    proto::{Association, Negotiated},
    wire::{CommandId, QueueId},
};

/// Connection of a controller. Constant while it is live, except for the outcomes of a
/// re-authentication.
pub(crate) struct Connection<P: Provider> {
    /// Number of the connection, from 1.
    pub(crate) generation: u64,
    /// Span of the controller, above those of its queues.
    pub(crate) span: Span,
    pub(crate) negotiated: Mutex<Arc<Negotiated>>,
    /// Association, as the write fence knows it.
    pub(crate) association: Association,
    pub(crate) domain: ProtectionDomain<P>,
    /// Limits of the RDMA device.
    pub(crate) device: Limits,
    pub(crate) memory: MemoryReport,
    pub(crate) admin: AdminCounters,
    /// One per poller that has queues, in the order of the pollers. Pollers beyond have none.
    pub(crate) mailboxes: Vec<PollerMailbox<P>>,
    /// Commands to abort, for the admin queue.
    pub(crate) timed_out: mpsc::Sender<TimedOutCommand>,
}

impl<P: Provider> Connection<P> {
    pub(crate) fn negotiated(&self) -> Arc<Negotiated> {
        Arc::clone(&self.negotiated.lock())
    }

    /// Maximum data transfer of one command in bytes.
    pub(crate) fn transfer_bytes_max(&self) -> u64 {
        self.negotiated.lock().transfer_bytes_max
    }

    /// Mailbox of the poller that owns a queue.
    pub(crate) fn mailbox_of(&self, queue: QueueId) -> Option<&PollerMailbox<P>> {
        self.mailboxes.iter().find(|mailbox| mailbox.queues.contains(&queue))
    }

    /// Time at which the most recently completed I/O command was submitted.
    pub(crate) fn last_traffic(&self) -> Option<Instant> {
        self.mailboxes.iter().filter_map(PollerMailbox::last_traffic).max()
    }

    /// Returns true if a poller owns queues.
    pub(crate) fn is_in_use(&self) -> bool {
        self.mailboxes.iter().any(PollerMailbox::is_in_use)
    }

    /// Closes the queues that no poller has taken.
    pub(crate) fn close_untaken(&self) {
        self.mailboxes.iter().for_each(PollerMailbox::close_untaken);
    }

    /// Requests the abort of a command; returns false if too many requests are pending.
    pub(crate) fn abort(&self, command: TimedOutCommand) -> bool {
        self.set_aborted(command.queue, false);
        self.timed_out.try_send(command).is_ok()
    }

    /// Sets whether the controller says that it has aborted the command of a queue that timed out.
    pub(crate) fn set_aborted(&self, queue: QueueId, is_aborted: bool) {
        if let Some(mailbox) = self.mailbox_of(queue) {
            mailbox.is_aborted.store(is_aborted, Ordering::Relaxed);
        }
    }
}

/// Connected queues and the completion queue they share.
pub(crate) struct QueueSet<P: Provider> {
    /// Declared before the completion queue, so that the queue pairs are destroyed first.
    pub(crate) queues: Vec<Queue<P>>,
    pub(crate) completion_queue: CompletionQueue<P>,
}

/// Command that timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOutCommand {
    pub(crate) queue: QueueId,
    pub(crate) command: CommandId,
}

/// Command of the controller itself, which a poller sends on one of its queues among the commands
/// of its owner.
pub(crate) struct InternalCommand {
    pub(crate) queue: QueueId,
    pub(crate) command: Command,
    /// Dropped without a completion if the connection is lost first.
    pub(crate) reply: oneshot::Sender<CommandCompletion>,
}

/// Channel between the supervisor and one poller, for one connection.
pub(crate) struct PollerMailbox<P: Provider> {
    /// Queues of the poller.
    queues: Vec<QueueId>,
    queue_set: Mutex<Handover<P>>,
    internal_command: Mutex<Option<InternalCommand>>,
    internal_command_posted: Notify,
    /// True if the controller says that it has aborted the command that timed out.
    is_aborted: AtomicBool,
    /// Time at which the most recently completed command was submitted, in nanoseconds after
    /// `epoch`; 0 for none.
    traffic: AtomicU64,
    epoch: Instant,
}

/// Owner of the queues.
enum Handover<P: Provider> {
    /// The mailbox: the poller has not taken them yet.
    Ready(QueueSet<P>),
    /// The poller.
    Taken,
    /// None: the queues have been closed.
    Closed,
}

impl<P: Provider> PollerMailbox<P> {
    pub(crate) fn new(set: QueueSet<P>) -> Self {
        Self {
            queues: set.queues.iter().map(Queue::id).collect(),
            queue_set: Mutex::new(Handover::Ready(set)),
            internal_command: Mutex::new(None),
            internal_command_posted: Notify::new(),
            is_aborted: AtomicBool::new(false),
            traffic: AtomicU64::new(0),
            epoch: runtime::now(),
        }
    }

    /// Hands the queues over to the poller, unless they are closed already.
    pub(crate) fn take(&self) -> Option<QueueSet<P>> {
        let mut handover = self.queue_set.lock();
        match std::mem::replace(&mut *handover, Handover::Taken) {
            Handover::Ready(set) => Some(set),
            before => {
                *handover = before;
                None
            }
        }
    }

    /// Reports that the poller has closed the queues.
    pub(crate) fn release(&self) {
        *self.queue_set.lock() = Handover::Closed;
    }

    /// Returns true if the controller says that it has aborted the command that timed out.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }

    fn is_in_use(&self) -> bool {
        matches!(*self.queue_set.lock(), Handover::Taken)
    }

    fn close_untaken(&self) {
        for queue in self.take().into_iter().flat_map(|set| set.queues) {
            queue.close();
        }
    }

    /// Passes a command to the poller. There is one at a time: an older one that the poller has
    /// not taken is dropped.
    pub(crate) fn post(&self, command: InternalCommand) {
        *self.internal_command.lock() = Some(command);
        self.internal_command_posted.notify_one();
    }

    pub(crate) fn take_internal_command(&self) -> Option<InternalCommand> {
        self.internal_command.lock().take()
    }

    /// Waits for a command of the controller.
    pub(crate) fn internal_command_posted(&self) -> Notified<'_> {
        self.internal_command_posted.notified()
    }

    /// Reports that a command submitted `age` ago has completed.
    pub(crate) fn record_traffic(&self, age: Duration) {
        let submitted = runtime::elapsed(self.epoch).saturating_sub(age);
        let nanoseconds = u64::try_from(submitted.as_nanos()).unwrap_or(u64::MAX);
        self.traffic.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    fn last_traffic(&self) -> Option<Instant> {
        match self.traffic.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(self.epoch + Duration::from_nanos(nanoseconds)),
        }
    }
}
