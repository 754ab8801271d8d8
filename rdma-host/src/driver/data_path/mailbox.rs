//! Where a poller that lost its queues gets new ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified, mpsc, oneshot};
use verbs::{CompletionQueue, Provider};

use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion},
        connection_state::ConnectionWatch,
        namespace_registry::NamespaceRegistry,
        queue::Queue,
    },
    wire::{CommandId, QueueId},
};

/// Connected queues and the completion queue they share.
pub(crate) struct QueueSet<P: Provider> {
    /// Before the completion queue, so that queue pairs go first.
    pub(crate) queues: Vec<Queue<P>>,
    pub(crate) completion_queue: CompletionQueue<P>,
}

/// A command that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOutCommand {
    pub(crate) queue: QueueId,
    pub(crate) command: CommandId,
}

/// A command of the controller's own, for a poller to send on one of its queues among the commands
/// of its owner, who does not see it.
pub(crate) struct InternalCommand {
    /// Which connection it is for; another one does not send it.
    pub(crate) generation: u64,
    pub(crate) queue: QueueId,
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<CommandCompletion>,
}

/// The tie between one poller and the controller that serves it with queues.
pub(crate) struct PollerMailbox<P: Provider> {
    pub(crate) liveness: ConnectionWatch,
    pub(crate) registry: Arc<NamespaceRegistry>,
    assembly: Mutex<Option<QueueSet<P>>>,
    /// The queues that were laid ready last.
    queues: Mutex<Vec<QueueId>>,
    /// Commands to abort.
    late: mpsc::Sender<TimedOutCommand>,
    errand: Mutex<Option<InternalCommand>>,
    errand_posted: Notify,
    /// Whether the poller has queues.
    in_use: AtomicBool,
    /// When the command was submitted that completed last: nanoseconds after `epoch`.
    traffic: AtomicU64,
    epoch: Instant,
}

impl<P: Provider> PollerMailbox<P> {
    pub(crate) fn new(
        liveness: ConnectionWatch,
        registry: Arc<NamespaceRegistry>,
        late: mpsc::Sender<TimedOutCommand>,
    ) -> Self {
        Self {
            liveness,
            registry,
            assembly: Mutex::new(None),
            queues: Mutex::new(Vec::new()),
            late,
            errand: Mutex::new(None),
            errand_posted: Notify::new(),
            in_use: AtomicBool::new(false),
            traffic: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// Lays queues ready for the poller, in the place of any that it has not taken.
    pub(crate) fn put(&self, assembly: Option<QueueSet<P>>) {
        let queues = assembly.iter().flat_map(|assembly| &assembly.queues);
        *self.queues.lock() = queues.map(Queue::id).collect();
        let old = std::mem::replace(&mut *self.assembly.lock(), assembly);
        for queue in old.into_iter().flat_map(|old| old.queues) {
            queue.close();
        }
    }

    /// Whether this queue is, or will be, the poller's.
    pub(crate) fn serves(&self, queue: QueueId) -> bool {
        self.queues.lock().contains(&queue)
    }

    /// The queues that lie ready.
    pub(crate) fn take(&self) -> Option<QueueSet<P>> {
        let assembly = self.assembly.lock().take();
        self.in_use.store(assembly.is_some(), Ordering::Release);
        assembly
    }

    /// The poller has given its queues up.
    pub(crate) fn leave(&self) {
        self.in_use.store(false, Ordering::Release);
    }

    /// Whether the poller holds queues.
    pub(crate) fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// Has the poller send a command. There is one at a time: an older one that it has not taken is
    /// forgotten.
    pub(crate) fn post(&self, errand: InternalCommand) {
        *self.errand.lock() = Some(errand);
        self.errand_posted.notify_one();
    }

    /// What the poller is to send.
    pub(crate) fn take_errand(&self) -> Option<InternalCommand> {
        self.errand.lock().take()
    }

    /// Waits until there is something to send.
    pub(crate) fn errand_posted(&self) -> Notified<'_> {
        self.errand_posted.notified()
    }

    /// Asks for a command to be aborted; false when too many are waiting for that.
    pub(crate) fn abort(&self, late: TimedOutCommand) -> bool {
        self.late.try_send(late).is_ok()
    }

    /// A command submitted so long ago has completed.
    pub(crate) fn note_traffic(&self, age: Duration) {
        let submitted = self.epoch.elapsed().saturating_sub(age);
        let nanoseconds = u64::try_from(submitted.as_nanos()).unwrap_or(u64::MAX);
        self.traffic.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    /// When the newest completed command was submitted.
    pub(crate) fn traffic(&self) -> Option<Instant> {
        match self.traffic.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(self.epoch + Duration::from_nanos(nanoseconds)),
        }
    }
}
