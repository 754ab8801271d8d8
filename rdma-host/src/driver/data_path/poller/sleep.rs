//! Sleep of a poller until there is something to do.

use std::{collections::VecDeque, os::fd::AsFd, time::Duration};

use verbs::Provider;

use super::{Idle, Link, Poller, internal_command};
use crate::{
    config::TICK,
    driver::{
        buffers::verbs_error,
        data_path::queue::Queue,
        runtime::{self, AsyncDescriptor, RuntimeId},
    },
    error::Error,
};

/// File descriptors to sleep on, registered with the runtime that sleeps. A poller may move from
/// one runtime to another.
pub(super) struct Events {
    runtime: RuntimeId,
    completions: AsyncDescriptor,
    connections: Vec<AsyncDescriptor>,
}

impl Events {
    /// Registers the connection of another queue; `None` if that fails.
    pub(super) fn with<P: Provider>(mut self, queue: &Queue<P>) -> Option<Self> {
        self.connections.push(AsyncDescriptor::new(queue.endpoint().as_fd()).ok()?);
        Some(self)
    }
}

impl<P: Provider> Poller<P> {
    /// Sleeps until a command completes or the connection changes, for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        if self.completion_queue.is_none() {
            return self.sleep_disconnected(limit).await;
        }
        let limit = if self.failed_work.is_some() { limit.min(TICK) } else { limit };
        let due = self.pending.next_due().map(|due| due.saturating_duration_since(runtime::now()));
        let limit = due.map_or(limit, |due| limit.min(due));
        let slept = self.arm_and_sleep(limit).await;
        slept.or_else(|error| self.lose(error))
    }

    async fn arm_and_sleep(&mut self, limit: Duration) -> Result<(), Error> {
        let runtime = RuntimeId::current();
        if self.events.as_ref().is_none_or(|events| events.runtime != runtime) {
            self.events = self.register(runtime)?;
        }
        self.is_armed = false; // the event of the next completion is taken here
        self.completions(Idle::Arm, VecDeque::push_back)?;
        if !self.done.is_empty() {
            return Ok(());
        }
        let Some(events) = &self.events else { return Ok(()) };
        let connection_changed = tokio::select! {
            biased;
            ready = events.completions.wait() => { ready?; false }
            changed = AsyncDescriptor::any(&events.connections) => { changed?; true }
            () = until_lost(self.link.as_ref()) => true,
            () = internal_command::posted(self.link.as_ref()) => true,
            () = Self::until_fence_changed(self.link.as_ref(), self.pending.has_fenced()) => true,
            () = runtime::sleep(limit) => true,
        };
        if let Some(completion_queue) = &mut self.completion_queue {
            completion_queue.acknowledge().map_err(verbs_error)?;
        }
        self.completions(Idle::Return, VecDeque::push_back)?;
        if connection_changed {
            return self.tick();
        }
        self.tick.check_soon();
        Ok(())
    }

    fn register(&self, runtime: RuntimeId) -> Result<Option<Events>, Error> {
        let Some(completion_queue) = &self.completion_queue else { return Ok(None) };
        let connections =
            self.queues.iter().map(|queue| AsyncDescriptor::new(queue.endpoint().as_fd()));
        Ok(Some(Events {
            runtime,
            completions: AsyncDescriptor::new(completion_queue.as_fd())?,
            connections: connections.collect::<Result<_, _>>()?,
        }))
    }
}

/// Waits until the poller's connection is no longer live.
async fn until_lost<P: Provider>(link: Option<&Link<P>>) {
    match link {
        Some(link) => link.watch.until_lost(link.generation()).await,
        None => std::future::pending().await,
    }
}
