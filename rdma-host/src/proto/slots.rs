//! The commands in flight on one queue, and the ids that name them on the wire.

use crate::error::TargetMisbehaved;
use crate::wire::{CommandId, Cqe, QueueId, RemoteKey};

/// One slot for each command that may be in flight.
///
/// A command id is a slot in the low bits and the slot's generation above it. A response to an id
/// that is not in flight right now (never issued, finished, or answered twice) completes nothing
/// and condemns the queue.
///
/// A command may have [a remote key of its own](Self::set_remote_key), which the controller is asked
/// to invalidate with its response. A response that invalidates another key is an error of the
/// queue: another command's data may be in transfer through that key. A response that invalidates
/// none is legal, but the command completes only when [the host has](Self::handle_invalidated).
#[derive(Debug)]
pub struct Slots {
    queue: QueueId,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// At most 15.
    slot_bits: u32,
    slot_mask: u16,
    generation_mask: u16,
}

/// What has to happen before a command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletesOn {
    /// The response alone: the device keeps nothing of the send.
    Response,
    /// The response and the send's own completion, in either order: until both, the device may
    /// still read the capsule or its data for a retransmission.
    ResponseAndSend,
}

/// What follows from a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseOutcome {
    /// The command is done.
    Completed(CompletedCommand),
    /// Its send has not completed yet.
    Pending,
    /// The key that it lent is still in use: take that out of use, then say
    /// [so](Slots::handle_invalidated).
    KeyStillValid {
        /// The command's slot.
        slot: u16,
        /// The key.
        key: RemoteKey,
    },
}

/// A command that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedCommand {
    /// Its slot, free again.
    pub slot: u16,
    /// The controller's response.
    pub response: Cqe,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u16,
    progress: Progress,
}

/// ```text
///            begin                    response
///   Free ────────────► AwaitResponse ──────────► Free
///     │ begin                  ▲ sent
///     └────────► AwaitBoth ────┤
///                              └ response ► AwaitSend ── sent ──► Free
/// ```
///
/// Where a key was lent, the response takes that out of use, too, or leaves it:
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

impl Slots {
    /// A table for at most `capacity` commands in flight.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0 or above 32,768: a command id must have room for a generation.
    #[must_use]
    pub fn new(queue: QueueId, capacity: u16) -> Self {
        assert!((1..=0x8000).contains(&capacity), "1 to 32,768 commands in flight");
        let slot = Slot { generation: 0, progress: Progress::Free };
        let slot_bits = u16::BITS - (capacity - 1).leading_zeros();
        Self {
            queue,
            slots: vec![slot; usize::from(capacity)],
            free: (0..capacity).rev().collect(),
            slot_bits,
            slot_mask: (1 << slot_bits) - 1,
            generation_mask: u16::MAX >> slot_bits,
        }
    }

    /// Takes a slot for a new command; none when all are in flight.
    #[inline]
    pub fn begin(&mut self, completes_on: CompletesOn) -> Option<CommandId> {
        let slot = self.free.pop()?;
        let entry = &mut self.slots[usize::from(slot)];
        entry.progress = match completes_on {
            CompletesOn::Response => Progress::AwaitResponse,
            CompletesOn::ResponseAndSend => Progress::AwaitBoth,
        };
        Some(CommandId(entry.generation << self.slot_bits | slot))
    }

    /// The slot that the next command takes.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Takes back a slot whose command never left.
    pub fn cancel(&mut self, command: CommandId) {
        let slot = self.slot(command);
        self.release(slot);
    }

    /// Notes by which key the controller may reach the data of a command that was just begun.
    pub fn set_remote_key(&mut self, command: CommandId, key: RemoteKey) {
        let slot = self.slot(command);
        let entry = &mut self.slots[usize::from(slot)];
        entry.progress = match entry.progress {
            Progress::AwaitBoth => Progress::KeyAwaitBoth(key),
            Progress::AwaitResponse => Progress::KeyAwaitResponse(key),
            other => other,
        };
    }

    /// A response came in, and took a key out of use, or none.
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
        if command.0 >> self.slot_bits != entry.generation & self.generation_mask {
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
    /// its response alone and has no key of its own, and returns the slot, free again. Returns
    /// `None` and changes nothing in any other case.
    #[inline]
    pub fn complete_fast(&mut self, command: CommandId) -> Option<u16> {
        let slot = self.slot(command);
        let entry = self.slots.get_mut(usize::from(slot))?;
        // Not `checked_shr`: with 32,768 slots there is still one bit.
        let differs = (command.0 >> self.slot_bits) ^ (entry.generation & self.generation_mask);
        if differs != 0 || !matches!(entry.progress, Progress::AwaitResponse) {
            return None;
        }
        self.release(slot);
        Some(slot)
    }

    #[inline]
    fn complete(&mut self, slot: u16, response: Cqe) -> Result<ResponseOutcome, TargetMisbehaved> {
        self.release(slot);
        Ok(ResponseOutcome::Completed(CompletedCommand { slot, response }))
    }

    /// A response to a slot's command did not take the key out of use that it lent, or is not due.
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

    /// Notes that the key of a [`KeyStillValid`](ResponseOutcome::KeyStillValid) command is invalid.
    ///
    /// # Panics
    ///
    /// If `slot` is not one of ours.
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

    /// The device is done with the send of `slot`.
    ///
    /// # Panics
    ///
    /// If `slot` is not one of ours: completions come from our own device, by checked tokens.
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

    /// Ends every command in flight and returns their slots: the queue is gone.
    pub fn abort_all(&mut self) -> Vec<u16> {
        let last = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let busy: Vec<u16> = (0..last).filter(|&slot| self.is_in_flight(slot)).collect();
        for &slot in &busy {
            self.release(slot);
        }
        busy
    }

    /// The slot a command id names, whether it exists or not.
    #[inline]
    #[must_use]
    pub fn slot(&self, command: CommandId) -> u16 {
        command.0 & self.slot_mask
    }

    /// The id of the command in a slot, if it holds one.
    #[must_use]
    pub fn id(&self, slot: u16) -> CommandId {
        CommandId(self.slots[usize::from(slot)].generation << self.slot_bits | slot)
    }

    /// Whether the slot holds a command.
    #[inline]
    #[must_use]
    pub fn is_in_flight(&self, slot: u16) -> bool {
        !matches!(self.slots[usize::from(slot)].progress, Progress::Free)
    }

    /// How many commands are in flight.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many more may be.
    #[inline]
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// How many slots there are.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    fn release(&mut self, slot: u16) {
        let entry = &mut self.slots[usize::from(slot)];
        entry.generation = entry.generation.wrapping_add(1);
        entry.progress = Progress::Free;
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests;
