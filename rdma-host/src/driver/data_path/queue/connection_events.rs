//! Connection events of a queue, its disconnect and its end.

use verbs::{
    Endpoint, Provider,
    active_side::{Action, Event, State},
};

use super::{Cancelled, Queue, command_of};
use crate::{
    driver::{buffers::verbs_error, runtime},
    error::{Error, Transport},
    wire::{CommandId, Opcode},
};

impl<P: Provider> Queue<P> {
    pub(crate) fn endpoint(&self) -> &Endpoint<P> {
        &self.endpoint
    }

    /// Handles connection events, without blocking; fails if one ends the connection.
    pub(crate) fn check_connection(&mut self) -> Result<(), Error> {
        while let Some(event) = self.endpoint.next_event().map_err(verbs_error)? {
            let event = Event::from(&event);
            self.step(event);
            let state = self.active_side.state();
            tracing::debug!(parent: &self.span, ?event, ?state, "connection-manager event");
            if state != State::Established {
                return Err(Transport::Disconnected(self.id).into());
            }
        }
        Ok(())
    }

    /// Disconnects. The queue pair enters the error state, and all posted work requests complete
    /// until [`is_drained`](Self::is_drained) returns true.
    pub(crate) fn disconnect(&mut self) {
        self.step(Event::Disconnect);
    }

    /// Returns true if no more completions are expected.
    pub(crate) fn is_drained(&self) -> bool {
        let sends = self.queue_pair.sends_with_payload() == 0;
        let back = self.queue_pair.receive_credits() + self.queue_pair.queued_receives();
        let receives = back == self.receives;
        // Without a disconnect, nothing has put the queue pair into the error state.
        self.active_side.state() != State::Disconnecting || (sends && receives)
    }

    /// Performs the transition for an event.
    fn step(&mut self, event: Event) {
        let mut action = self.active_side.handle(event, runtime::now());
        while action == Action::Disconnect {
            // Refused on rxe while the port is down; destroying the queue pair suffices.
            if self.endpoint.disconnect().is_ok() {
                return;
            }
            action = self.active_side.handle(Event::RequestFailed, runtime::now());
        }
    }

    /// Closes the queue, which was [disconnected](Self::disconnect): destroys the queue pair, after
    /// which the device accesses no buffer. Returns the commands that were in flight.
    pub(crate) fn close(mut self) -> Vec<Cancelled> {
        self.disconnect();
        let drained = self.is_drained();
        match self.active_side.cause() {
            Some(cause) => tracing::debug!(parent: &self.span, %cause, drained, "closed"),
            None => tracing::debug!(parent: &self.span, drained, "closed"),
        }
        let cancelled = self.slots.cancel_all().into_iter();
        let cancelled: Vec<_> = cancelled.map(|slot| (slot, self.sqe(slot))).collect();
        for returned in self.queue_pair.close() {
            if returned.kind == verbs::WorkKind::Send
                && let Some(command) = command_of(&mut self.slots, returned.tag)
            {
                command.take_back(returned.buffers);
            }
        }
        let cancel = |(slot, sqe)| self.slots.content_mut(slot).cancel(sqe);
        cancelled.into_iter().map(cancel).collect()
    }

    /// Ends a completed command as if there had been no response.
    pub(crate) fn cancel(&mut self, slot: u16) -> Cancelled {
        let sqe = self.sqe(slot);
        self.slots.content_mut(slot).cancel(sqe)
    }

    /// Command that has been in flight for longest: its latest submission and its id. Asynchronous
    /// Event Requests do not count, since they may stay in flight forever.
    pub(crate) fn oldest(&self) -> Option<(u64, CommandId)> {
        let in_flight = self
            .slots
            .iter()
            .filter(|(_, command)| command.opcode != Opcode::ASYNCHRONOUS_EVENT_REQUEST);
        in_flight.map(|(id, command)| (command.sent(), id)).min_by_key(|&(sent, _)| sent)
    }
}
