//! The commands in flight on one queue, and the ids that name them on the wire.

use crate::error::TargetMisbehaved;
use crate::wire::{CommandId, Cqe, QueueId};

/// One slot for each command that may be in flight.
///
/// A command id is a slot in the low bits and the slot's generation above it. A response to an id
/// that is not in flight right now (never issued, finished, or answered twice) completes nothing
/// and condemns the queue.
#[derive(Debug)]
pub struct Slots {
    queue: QueueId,
    slots: Vec<Slot>,
    free: Vec<u16>,
    slot_bits: u32,
}

/// What has to happen before a command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The response alone: the device keeps nothing of the send.
    Response,
    /// The response and the send's own completion, in either order: until both, the device may
    /// still read the capsule or its data for a retransmission.
    ResponseAndSend,
}

/// A command that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
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
#[derive(Clone, Copy, Debug)]
enum Progress {
    Free,
    AwaitBoth,
    AwaitResponse,
    AwaitSend(Cqe),
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
        Self {
            queue,
            slots: vec![slot; usize::from(capacity)],
            free: (0..capacity).rev().collect(),
            slot_bits: u16::BITS - (capacity - 1).leading_zeros(),
        }
    }

    /// Takes a slot for a new command; none when all are in flight.
    pub fn begin(&mut self, waits: Waits) -> Option<CommandId> {
        let slot = self.free.pop()?;
        let entry = &mut self.slots[usize::from(slot)];
        entry.progress = match waits {
            Waits::Response => Progress::AwaitResponse,
            Waits::ResponseAndSend => Progress::AwaitBoth,
        };
        let generation = entry.generation.checked_shl(self.slot_bits).unwrap_or(0);
        Some(CommandId(generation | slot))
    }

    /// Takes back a slot whose command never left.
    pub fn cancel(&mut self, command: CommandId) {
        let slot = self.slot(command);
        self.release(slot);
    }

    /// A response came in.
    ///
    /// # Errors
    ///
    /// When no such command waits for one.
    pub fn handle_response(&mut self, response: Cqe) -> Result<Option<Finished>, TargetMisbehaved> {
        let command = response.command_id();
        let unknown = TargetMisbehaved::UnknownCommand { command, queue: self.queue };
        let slot = self.slot(command);
        let Some(entry) = self.slots.get_mut(usize::from(slot)) else { return Err(unknown) };
        let generation = command.0.checked_shr(self.slot_bits).unwrap_or(0);
        let mask = u16::MAX.checked_shr(self.slot_bits).unwrap_or(0);
        if generation != entry.generation & mask {
            return Err(unknown);
        }
        match entry.progress {
            Progress::AwaitBoth => {
                entry.progress = Progress::AwaitSend(response);
                Ok(None)
            }
            Progress::AwaitResponse => {
                self.release(slot);
                Ok(Some(Finished { slot, response }))
            }
            Progress::AwaitSend(_) | Progress::Free => Err(unknown),
        }
    }

    /// The device is done with the send of `slot`.
    ///
    /// # Panics
    ///
    /// If `slot` is not one of ours: completions come from our own device, by checked tokens.
    pub fn handle_sent(&mut self, slot: u16) -> Option<Finished> {
        let entry = &mut self.slots[usize::from(slot)];
        match entry.progress {
            Progress::AwaitBoth => {
                entry.progress = Progress::AwaitResponse;
                None
            }
            Progress::AwaitSend(response) => {
                self.release(slot);
                Some(Finished { slot, response })
            }
            Progress::AwaitResponse | Progress::Free => None,
        }
    }

    /// Ends every command in flight and returns their slots: the queue is gone.
    pub fn abandon(&mut self) -> Vec<u16> {
        let last = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let busy: Vec<u16> = (0..last).filter(|&slot| self.is_in_flight(slot)).collect();
        for &slot in &busy {
            self.release(slot);
        }
        busy
    }

    /// The slot a command id names, whether it exists or not.
    #[must_use]
    pub fn slot(&self, command: CommandId) -> u16 {
        let mask = u32::from(u16::MAX) >> (u16::BITS - self.slot_bits);
        command.0 & u16::try_from(mask).unwrap_or(u16::MAX)
    }

    /// Whether the slot holds a command.
    #[must_use]
    pub fn is_in_flight(&self, slot: u16) -> bool {
        !matches!(self.slots[usize::from(slot)].progress, Progress::Free)
    }

    /// How many commands are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many more may be.
    #[must_use]
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// How many slots there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn release(&mut self, slot: u16) {
        let entry = &mut self.slots[usize::from(slot)];
        entry.generation = entry.generation.wrapping_add(1);
        entry.progress = Progress::Free;
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests;
