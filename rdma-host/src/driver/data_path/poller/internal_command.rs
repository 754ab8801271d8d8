//! Commands of the controller's own on the queues of a poller.

use tokio::sync::oneshot;
use verbs::Provider;

use super::{Link, Poller};
use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion},
        connection::InternalCommand,
    },
    error::Error,
    wire::{Opcode, QueueId},
};

/// The `user` of such a command; its opcode tells it from an owner's with the same.
const ERRAND: u64 = u64::MAX;

/// How far a command has come.
pub(super) enum State {
    /// Its queue has had no room for it yet.
    Waits { queue: QueueId, command: Command, reply: oneshot::Sender<CommandCompletion> },
    /// It is in flight.
    Sent(oneshot::Sender<CommandCompletion>),
}

impl State {
    pub(super) fn new(internal: InternalCommand) -> Self {
        let InternalCommand { queue, mut command, reply } = internal;
        command.user = ERRAND;
        Self::Waits { queue, command, reply }
    }
}

/// Waits until there is a command to send.
pub(super) async fn posted<P: Provider>(link: Option<&Link<P>>) {
    match link.and_then(Link::mailbox) {
        Some(mailbox) => mailbox.internal_command_posted().await,
        None => std::future::pending().await,
    }
}

impl<P: Provider> Poller<P> {
    /// Sends the command that waits, once its queue has room: right after completions, before the
    /// owner's commands.
    #[cold]
    pub(super) fn send_errand(&mut self) -> Result<(), Error> {
        let Some(State::Waits { queue, .. }) = self.errand else { return Ok(()) };
        let index = self.queues.iter().position(|candidate| candidate.id() == queue);
        if index.is_some_and(|index| !self.queues[index].has_room()) {
            return Ok(());
        }
        let (Some(index), Some(State::Waits { mut command, reply, .. })) =
            (index, self.errand.take())
        else {
            return Ok(());
        };
        let now = self.clock.raw();
        match self.queues[index].submit(&mut command, now) {
            Ok(()) => {
                self.note_submitted(index);
                self.errand = Some(State::Sent(reply));
                self.flush_dirty()
            }
            Err(error) => {
                let _ = reply.send(CommandCompletion {
                    user: ERRAND,
                    ..CommandCompletion::unsent(error, command)
                });
                Ok(())
            }
        }
    }

    /// Gives a command of the controller's back to it.
    #[cold]
    pub(super) fn end_errand(&mut self, done: CommandCompletion) {
        if let Some(State::Sent(reply)) = self.errand.take() {
            // Who no longer waits has given the buffer up.
            let _ = reply.send(done);
        }
    }
}

/// Whether a command is the controller's, while there is one.
pub(super) fn is_errand(user: u64, opcode: Opcode) -> bool {
    user == ERRAND && opcode == Opcode::FABRICS
}
