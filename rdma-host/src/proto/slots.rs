//! Commands in flight on one queue, and their command ids.

use crate::{
    error::TargetMisbehaved,
    wire::{CommandId, Cqe, QueueId, RemoteKey},
};

/// Table of commands in flight, with one slot for each that the queue allows, which also holds what
/// its owner keeps of the command.
///
/// A command id holds the slot in its low bits and the slot's generation above them. A response
/// whose id is not in flight (never issued, or already completed) completes nothing and is an error
/// of the queue.
///
/// A command may have [a remote key of its own](Self::begin), which the controller is
/// asked to invalidate with its response. A response that invalidates another key is an error of
/// the queue: another command's data may be in transfer through that key. A response that
/// invalidates none is legal, but the command completes only when [the host
/// has](Self::handle_invalidated).
#[derive(Debug)]
pub struct Slots<T = ()> {
    queue: QueueId,
    slots: Box<[Slot<T>]>,
    free: FreeSlots,
    /// Slot bits of a command id, at most 15.
    slot_mask: u16,
}

/// List of the free slots, last in, first out.
#[derive(Debug)]
struct FreeSlots {
    /// First free slot; no slot's number if there is none.
    first: u16,
    /// Number of slots that are not free.
    in_flight: u16,
    /// Least bit of the generation in a command id.
    generation: u16,
}

/// Slot of a command that has begun.
#[derive(Debug)]
pub struct BegunCommand<'a, T> {
    /// Id of the command.
    pub command: CommandId,
    /// Number of the slot.
    pub slot: u16,
    /// Content of the slot, for the table's owner; left over from the command before.
    pub content: &'a mut T,
}

/// Completion condition of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletesOn {
    /// The response alone: the device no longer needs the send buffer (inline send).
    Response,
    /// The response and the send completion, in either order: before both, the device may still
    /// read the capsule or its data for a retransmission.
    ResponseAndSend,
}

/// Outcome of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseOutcome {
    /// The command has completed.
    Completed(CompletedCommand),
    /// The send has not completed yet.
    Pending,
    /// The remote key of the command is still valid: invalidate it, then call
    /// [`handle_invalidated`](Slots::handle_invalidated).
    KeyStillValid {
        /// Slot of the command.
        slot: u16,
        /// Remote key.
        key: RemoteKey,
    },
}

/// Completed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedCommand {
    /// Slot of the command, free again.
    pub slot: u16,
    /// Response of the controller.
    pub response: Cqe,
}

#[derive(Debug)]
struct Slot<T> {
    /// Id of the command; in a free slot, that of the next command.
    id: CommandId,
    /// Next free slot, in a free slot.
    next: u16,
    progress: Progress,
    content: T,
}

impl FreeSlots {
    /// Frees a slot, and gives it the id of its next command.
    #[inline(always)]
    fn push<T>(&mut self, slot: u16, entry: &mut Slot<T>) {
        // The slot bits stay: they are below what is added.
        entry.id = CommandId(entry.id.0.wrapping_add(self.generation));
        entry.progress = Progress::Free;
        entry.next = std::mem::replace(&mut self.first, slot);
        self.in_flight -= 1;
    }
}

/// ```text
///            begin                    response
///   Free ────────────► AwaitResponse ──────────► Free
///     │ begin                  ▲ sent
///     └────────► AwaitBoth ────┤
///                              └ response ► AwaitSend ── sent ──► Free
/// ```
///
/// For a command with a remote key of its own, the response may or may not invalidate the key:
///
/// ```text
///   KeyAwaitResponse ── response ► AwaitInvalidation ── invalidated ► Free
///          ▲ sent                          ▲ sent
///   KeyAwaitBoth ── response ► AwaitSendAndInvalidation ── invalidated ► AwaitSend
/// ```
#[derive(Clone, Copy, Debug)]
enum Progress {
    Free,
    AwaitBoth,
    AwaitInvalidation(Cqe),
    AwaitResponse,
    AwaitSend(Cqe),
    AwaitSendAndInvalidation(Cqe),
    KeyAwaitBoth(RemoteKey),
    KeyAwaitResponse(RemoteKey),
}

impl<T: Default> Slots<T> {
    /// Creates a table for at most `capacity` commands in flight.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0 or above 32,768, since a command id needs at least one bit of generation.
    #[must_use]
    pub fn new(queue: QueueId, capacity: u16) -> Self {
        assert!((1..=0x8000).contains(&capacity), "1 to 32,768 commands in flight");
        let slot = |slot| Slot {
            id: CommandId(slot),
            next: slot + 1,
            progress: Progress::Free,
            content: T::default(),
        };
        let generation = 1 << (u16::BITS - (capacity - 1).leading_zeros());
        Self {
            queue,
            slots: (0..capacity).map(slot).collect(),
            free: FreeSlots { first: 0, in_flight: 0, generation },
            slot_mask: generation - 1,
        }
    }
}

impl<T> Slots<T> {
    /// Allocates a slot for a new command, which may have a remote key of its own; `None` if all
    /// are in use.
    #[inline]
    pub fn begin(
        &mut self,
        completes_on: CompletesOn,
        key: Option<RemoteKey>,
    ) -> Option<BegunCommand<'_, T>> {
        let slot = self.free.first;
        let entry = self.slots.get_mut(usize::from(slot))?;
        debug_assert!(matches!(entry.progress, Progress::Free), "the list is of free slots");
        self.free.first = entry.next;
        self.free.in_flight += 1;
        entry.progress = match (completes_on, key) {
            (CompletesOn::Response, None) => Progress::AwaitResponse,
            (CompletesOn::Response, Some(key)) => Progress::KeyAwaitResponse(key),
            (CompletesOn::ResponseAndSend, None) => Progress::AwaitBoth,
            (CompletesOn::ResponseAndSend, Some(key)) => Progress::KeyAwaitBoth(key),
        };
        Some(BegunCommand { command: entry.id, slot, content: &mut entry.content })
    }

    /// Slot of the next command.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<u16> {
        let slot = self.free.first;
        (usize::from(slot) < self.slots.len()).then_some(slot)
    }

    /// Content of a slot, of its command or of the last one.
    ///
    /// # Panics
    ///
    /// If `slot` is out of range.
    #[inline]
    #[must_use]
    pub fn content(&self, slot: u16) -> &T {
        &self.slots[usize::from(slot)].content
    }

    /// As [`content`](Self::content), to be changed.
    ///
    /// # Panics
    ///
    /// If `slot` is out of range.
    #[inline]
    pub fn content_mut(&mut self, slot: u16) -> &mut T {
        &mut self.slots[usize::from(slot)].content
    }

    /// Commands in flight: their ids, and what their slots hold for the table's owner.
    pub fn iter(&self) -> impl Iterator<Item = (CommandId, &T)> {
        let busy = self.slots.iter().filter(|slot| !matches!(slot.progress, Progress::Free));
        busy.map(|slot| (slot.id, &slot.content))
    }

    /// Frees the slot of a command that was not sent.
    pub fn cancel(&mut self, command: CommandId) {
        let slot = self.slot(command);
        self.release(slot);
    }

    /// Handles a response and the key that it invalidated, if any.
    ///
    /// # Errors
    ///
    /// When no such command waits for one, or the key is not the command's.
    #[inline]
    pub fn handle_response(
        &mut self,
        response: Cqe,
        invalidated: Option<RemoteKey>,
    ) -> Result<ResponseOutcome, TargetMisbehaved> {
        let command = response.command_id();
        let slot = self.slot(command);
        let Some(entry) = self.slots.get_mut(usize::from(slot)) else {
            return Err(self.unknown(command));
        };
        if entry.id != command {
            return Err(self.unknown(command));
        }
        match (entry.progress, invalidated) {
            (Progress::AwaitResponse, None) => self.complete(slot, response),
            (Progress::AwaitBoth, None) => {
                entry.progress = Progress::AwaitSend(response);
                Ok(ResponseOutcome::Pending)
            }
            (Progress::KeyAwaitBoth(expected), Some(key)) if expected == key => {
                entry.progress = Progress::AwaitSend(response);
                Ok(ResponseOutcome::Pending)
            }
            (Progress::KeyAwaitResponse(expected), Some(key)) if expected == key => {
                self.complete(slot, response)
            }
            _ => self.handle_key_mismatch(response, invalidated),
        }
    }

    /// Fast path of [`handle_response`](Self::handle_response): completes a command that waits for
    /// its response alone, and whose key, if it has one, is the one that was invalidated. Returns
    /// the slot, free again, and what it holds. Returns `None` and changes nothing in any other
    /// case.
    #[inline]
    pub fn complete_fast(
        &mut self,
        command: CommandId,
        invalidated: Option<RemoteKey>,
    ) -> Option<(u16, &mut T)> {
        let slot = self.slot(command);
        let entry = self.slots.get_mut(usize::from(slot))?;
        let is_last = match (entry.progress, invalidated) {
            (Progress::AwaitResponse, None) => true,
            (Progress::KeyAwaitResponse(expected), Some(key)) => expected == key,
            _ => false,
        };
        if entry.id != command || !is_last {
            return None;
        }
        self.free.push(slot, entry);
        Some((slot, &mut entry.content))
    }

    #[inline]
    fn complete(&mut self, slot: u16, response: Cqe) -> Result<ResponseOutcome, TargetMisbehaved> {
        self.release(slot);
        Ok(ResponseOutcome::Completed(CompletedCommand { slot, response }))
    }

    /// Handles a response that did not invalidate the command's key, or was not expected.
    #[cold]
    fn handle_key_mismatch(
        &mut self,
        response: Cqe,
        invalidated: Option<RemoteKey>,
    ) -> Result<ResponseOutcome, TargetMisbehaved> {
        let (command, queue) = (response.command_id(), self.queue);
        let slot = self.slot(command);
        let entry = &mut self.slots[usize::from(slot)];
        let (key, left) = match entry.progress {
            Progress::AwaitBoth | Progress::AwaitResponse => (None, entry.progress),
            Progress::KeyAwaitBoth(key) => {
                (Some(key), Progress::AwaitSendAndInvalidation(response))
            }
            Progress::KeyAwaitResponse(key) => (Some(key), Progress::AwaitInvalidation(response)),
            _ => return Err(self.unknown(command)),
        };
        match (invalidated, key) {
            (Some(key), _) => Err(TargetMisbehaved::WrongKeyInvalidated { key, command, queue }),
            (None, Some(key)) => {
                entry.progress = left;
                Ok(ResponseOutcome::KeyStillValid { slot, key })
            }
            (None, None) => Err(self.unknown(command)),
        }
    }

    #[cold]
    fn unknown(&self, command: CommandId) -> TargetMisbehaved {
        TargetMisbehaved::UnknownCommand { command, queue: self.queue }
    }

    /// Notes the invalidation of the key of a [`KeyStillValid`](ResponseOutcome::KeyStillValid)
    /// command.
    ///
    /// # Panics
    ///
    /// If `slot` is out of range. Completions come from the local device, whose tokens are checked.
    pub fn handle_invalidated(&mut self, slot: u16) -> Option<CompletedCommand> {
        let entry = &mut self.slots[usize::from(slot)];
        match entry.progress {
            Progress::AwaitInvalidation(response) => {
                self.release(slot);
                Some(CompletedCommand { slot, response })
            }
            Progress::AwaitSendAndInvalidation(response) => {
                entry.progress = Progress::AwaitSend(response);
                None
            }
            _ => None,
        }
    }

    /// Handles the send completion of `slot`.
    ///
    /// # Panics
    ///
    /// If `slot` is out of range. Completions come from the local device, whose tokens are checked.
    pub fn handle_sent(&mut self, slot: u16) -> Option<CompletedCommand> {
        let entry = &mut self.slots[usize::from(slot)];
        match entry.progress {
            Progress::AwaitBoth => {
                entry.progress = Progress::AwaitResponse;
                None
            }
            Progress::AwaitSend(response) => {
                self.release(slot);
                Some(CompletedCommand { slot, response })
            }
            Progress::AwaitSendAndInvalidation(response) => {
                entry.progress = Progress::AwaitInvalidation(response);
                None
            }
            Progress::KeyAwaitBoth(key) => {
                entry.progress = Progress::KeyAwaitResponse(key);
                None
            }
            Progress::AwaitInvalidation(_)
            | Progress::AwaitResponse
            | Progress::Free
            | Progress::KeyAwaitResponse(_) => None,
        }
    }

    /// Frees the slots of all commands in flight and returns them, for a queue that is closed.
    pub fn cancel_all(&mut self) -> Vec<u16> {
        let last = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let busy: Vec<u16> = (0..last).filter(|&slot| self.is_in_flight(slot)).collect();
        for &slot in &busy {
            self.release(slot);
        }
        busy
    }

    /// Slot field of a command id; may be out of range.
    #[inline]
    #[must_use]
    pub fn slot(&self, command: CommandId) -> u16 {
        command.0 & self.slot_mask
    }

    /// Id of the command in a slot; in a free slot, that of its next command.
    #[inline]
    #[must_use]
    pub fn id(&self, slot: u16) -> CommandId {
        self.slots[usize::from(slot)].id
    }

    /// Returns true if the slot holds a command.
    #[inline]
    #[must_use]
    pub fn is_in_flight(&self, slot: u16) -> bool {
        !matches!(self.slots[usize::from(slot)].progress, Progress::Free)
    }

    /// Number of commands in flight.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.free.in_flight.into()
    }

    /// Number of free slots.
    #[inline]
    #[must_use]
    pub fn available(&self) -> usize {
        self.slots.len() - self.in_flight()
    }

    /// Number of slots.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    fn release(&mut self, slot: u16) {
        self.free.push(slot, &mut self.slots[usize::from(slot)]);
    }
}

#[cfg(test)]
mod tests;
