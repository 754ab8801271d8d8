//! Writes that wait behind the fence: those that overlap writes of unknown outcome of an earlier
//! connection.

use verbs::Provider;

use super::{Link, Poller};
use crate::{
    driver::{
        data_path::{command::Command, fence::SharedFence, pending_command::PendingCommand},
        runtime,
    },
    error::{Error, Fenced},
    proto::{Admission, OutstandingWrite, WrittenBlocks},
    wire::QueueId,
};

impl<P: Provider> Poller<P> {
    /// Returns true if a new command has to wait behind the fence.
    pub(super) fn is_fenced(&self, command: &Command) -> bool {
        let Some(link) = &self.link else { return false };
        link.fence().admit(&command.sqe) != Admission::Send
    }

    /// Returns a pending command that may be sent; one that may not is kept for the time being.
    pub(super) fn admit(&mut self, mut pending: PendingCommand) -> Option<PendingCommand> {
        let fence = self.link.as_ref().map(Link::fence);
        let Some(Admission::Wait(controller)) =
            fence.map(|fence| fence.admit(&pending.command.sqe))
        else {
            return Some(pending);
        };
        if pending.fenced_since.is_none() {
            pending.fenced_since = Some(runtime::now());
            let (opcode, user) = (pending.command.sqe.opcode(), pending.command.user);
            tracing::debug!(
                parent: &self.span(), ?opcode, user, %controller,
                "a write waits until the controller of a lost connection executes nothing more"
            );
        }
        self.pending.push_fenced(pending);
        self.set_holding(true);
        None
    }

    /// Makes the commands behind the fence ready after it has changed: each is decided upon again.
    pub(super) fn release_fenced(&mut self) {
        let Some(link) = &mut self.link else { return };
        let version = link.watch.fence().version();
        if std::mem::replace(&mut link.fence_version, version) != version {
            self.pending.release_fenced();
        }
    }

    /// Fails the commands that have waited behind the fence for too long.
    pub(super) fn fail_fenced(&mut self) {
        let Some(link) = &self.link else { return };
        let after = link.fence().timeout();
        while let Some(pending) = self.pending.pop_fenced(after) {
            let link = self.link.as_ref().expect("it has not gone");
            if let Admission::Wait(controller) = link.fence().admit(&pending.command.sqe) {
                self.fail_command(pending, Error::Fenced(Fenced { controller, after }));
            } else {
                self.pending.push(pending);
            }
        }
    }

    /// Notes that a command was in flight on a queue when the connection was lost.
    pub(super) fn note_outstanding(&mut self, queue: QueueId, command: &Command) {
        if let Some(link) = &mut self.link {
            let written = WrittenBlocks::of(&command.sqe);
            link.outstanding.extend(written.map(|written| OutstandingWrite { queue, written }));
        }
    }

    /// Closes the fence for the writes that were in flight. To be called once the queue pairs are
    /// destroyed, and before any command is completed or sent again.
    pub(super) fn close_fence(&mut self) {
        let Some(link) = &mut self.link else { return };
        let writes = std::mem::take(&mut link.outstanding);
        if let Some(connection) = &link.connection {
            link.watch.fence().close(connection.association, writes, &connection.span);
        }
    }

    /// Waits until the fence changes, if commands are behind it.
    pub(super) async fn until_fence_changed(link: Option<&Link<P>>, has_fenced: bool) {
        match link {
            Some(link) if has_fenced => link.fence().until_changed(link.fence_version).await,
            _ => std::future::pending().await,
        }
    }
}

impl<P: Provider> Link<P> {
    fn fence(&self) -> &SharedFence {
        self.watch.fence()
    }
}
