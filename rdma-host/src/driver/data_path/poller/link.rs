//! Link of a poller to its controller.

use std::sync::Arc;

use verbs::Provider;

use super::Poller;
use crate::{
    config::ReconnectOptions,
    driver::data_path::{
        connection::{Connection, PollerMailbox, QueueSet},
        connection_state::ConnectionWatch,
        live_summary::LiveSummary,
        namespace_registry::NamespaceRegistry,
    },
    proto::{CommandRetry, OutstandingWrite},
};

/// Link of a poller to its controller, which supplies the queues of each connection.
pub(super) struct Link<P: Provider> {
    /// Number of the poller among those of the controller, from 0.
    pub(super) index: usize,
    pub(super) watch: ConnectionWatch<P>,
    pub(super) summary: Arc<LiveSummary>,
    pub(super) registry: Arc<NamespaceRegistry>,
    /// Connection that the queues belong to; the previous one while there are none.
    pub(super) connection: Option<Arc<Connection<P>>>,
    /// Rules for commands that fail on this connection.
    pub(super) retry: CommandRetry,
    /// True while commands to be retried, or behind the write fence, are pending.
    pub(super) is_holding: bool,
    /// Blocks of the commands in flight at a loss, while the queues are being closed.
    pub(super) outstanding: Vec<OutstandingWrite>,
    /// Version of the write fence at the last decision about the commands behind it.
    pub(super) fence_version: u64,
    /// True if new queues may follow a loss.
    pub(super) reconnects: bool,
    /// True if commands in flight are sent again after a loss.
    pub(super) resend: bool,
    /// True if the commands of a poller without queues stay pending until they are
    /// [forwarded](super::Poller::set_forwarding).
    pub(super) is_forwarding: bool,
}

impl<P: Provider> Poller<P> {
    /// Namespaces in use and summary of the controller; `None` without one.
    pub(crate) fn controller(&self) -> Option<(&NamespaceRegistry, &Arc<LiveSummary>)> {
        self.link.as_ref().map(|link| (&*link.registry, &link.summary))
    }

    /// Moves the queues out, for another poller.
    pub(crate) fn into_queue_set(mut self) -> Option<QueueSet<P>> {
        let queues = std::mem::take(&mut self.queues);
        Some(QueueSet { queues, completion_queue: self.completion_queue.take()? })
    }
}

impl<P: Provider> Link<P> {
    pub(super) fn new(
        index: usize,
        watch: ConnectionWatch<P>,
        registry: Arc<NamespaceRegistry>,
        options: &ReconnectOptions,
    ) -> Self {
        Self {
            index,
            summary: watch.summary(),
            watch,
            registry,
            connection: None,
            retry: CommandRetry::default(),
            is_holding: false,
            outstanding: Vec::new(),
            fence_version: 0,
            reconnects: options.attempts_max() != Some(0),
            resend: options.resend,
            is_forwarding: false,
        }
    }

    /// Generation of the connection; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.generation)
    }

    /// Returns true if the connection of the queues is live.
    pub(super) fn is_live(&self) -> bool {
        self.summary.is_live(self.generation())
    }

    /// Mailbox of the poller; `None` if the connection has no queue for it.
    pub(super) fn mailbox(&self) -> Option<&PollerMailbox<P>> {
        self.connection.as_ref()?.mailboxes.get(self.index)
    }

    /// Generation for which a command needs no check: that of the connection while no command is
    /// held, else [`u64::MAX`]. The poller keeps it, so that all these are one comparison on the
    /// path of each command, and asks again after a change of any.
    pub(super) fn unguarded(&self) -> u64 {
        if self.is_holding { u64::MAX } else { self.generation() }
    }
}
