//! Commands of the controller itself on the queues of a poller.

use tokio::sync::oneshot;
use verbs::Provider;

use super::{Link, Poller};
use crate::driver::data_path::{
    command::CommandCompletion, connection::InternalCommand, queue::UnseenKind,
};

/// State of an internal command.
pub(super) enum State {
    /// Waits for room in its queue.
    Pending(InternalCommand),
    /// In flight.
    InFlight(oneshot::Sender<CommandCompletion>),
}

/// Waits for an internal command.
pub(super) async fn posted<P: Provider>(link: Option<&Link<P>>) {
    match link.and_then(Link::mailbox) {
        Some(mailbox) => mailbox.internal_command_posted().await,
        None => std::future::pending().await,
    }
}

impl<P: Provider> Poller<P> {
    /// Sends the pending internal command if its queue has room. Called right after completions,
    /// before commands of the owner are submitted.
    #[cold]
    pub(super) fn send_internal(&mut self) {
        let Some(State::Pending(InternalCommand { queue, .. })) = self.internal else { return };
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        let index = index.expect("an internal command is for a queue of this poller");
        if !self.queues[index].has_room() {
            return;
        }
        let Some(State::Pending(internal)) = self.internal.take() else { return };
        let InternalCommand { mut command, reply, .. } = internal;
        let started = self.clock.raw();
        match self.queues[index].submit_unseen(UnseenKind::Internal, &mut command, started) {
            Ok(()) => {
                self.note_submitted(index);
                self.internal = Some(State::InFlight(reply));
            }
            // The receiver may have given up.
            Err(error) => drop(reply.send(CommandCompletion::unsent(error, command))),
        }
    }

    /// Returns a completed internal command to the controller.
    pub(super) fn complete_internal(&mut self, completion: CommandCompletion) {
        if let Some(State::InFlight(reply)) = self.internal.take() {
            // The receiver may have given up.
            let _ = reply.send(completion);
        }
    }
}
