//! The tables that hold what is posted until a completion, or the queue pair's end, gives it
//! back.
//!
//! Both are generic over what they hold, so that their arithmetic is tested without memory.

use crate::token::{Kind, Token};

/// The slots of a send queue: a ring in the order of posting.
///
/// A send queue executes in order, so a completion of one send says that all before it are done
/// too. Only one inline send in `period` asks for a completion, which is enough: a full ring
/// without outstanding completion cannot be, since `period` is never more than its length.
///
/// ```text
///        tail                                head = tail + used
///          v                                   v
///   | free | inline | inline | inline,signaled | free |
///                                 |
///            one completion here frees all three
/// ```
#[derive(Debug)]
pub(crate) struct SendRing<T> {
    slots: Box<[SendSlot]>,
    /// What the slots hold, apart from them, so that inline sends touch none of it.
    held: Box<[Option<T>]>,
    length: u32,
    tail: u32,
    used: u32,
    unsignaled: u32,
    period: u32,
}

#[derive(Clone, Copy, Debug)]
struct SendSlot {
    generation: u32,
    state: SendState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SendState {
    /// Not outstanding: free, or freed ahead of an older one.
    Done,
    /// Holds something, always signaled.
    Holding,
    /// An inline send with a completion to come.
    Signaled,
    /// An inline send that only a later completion frees.
    Unsignaled,
}

/// A slot taken for an inline send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct InlineSlot {
    pub(crate) index: u32,
    pub(crate) signaled: bool,
    pub(crate) token: u64,
}

impl<T> SendRing<T> {
    pub(crate) fn new(length: u32, generation: u32) -> Self {
        let slot = SendSlot { generation, state: SendState::Done };
        Self {
            slots: vec![slot; length as usize].into_boxed_slice(),
            held: (0..length).map(|_| None).collect(),
            length,
            tail: 0,
            used: 0,
            unsignaled: 0,
            period: (length / 4).clamp(1, SIGNAL_PERIOD_MAX),
        }
    }

    /// Takes a slot for an inline send; nothing when the ring is full.
    #[inline]
    pub(crate) fn take_inline(&mut self) -> Option<InlineSlot> {
        let signaled = self.unsignaled + 1 >= self.period;
        let state = if signaled { SendState::Signaled } else { SendState::Unsignaled };
        let (index, token) = self.take(state)?;
        self.unsignaled = if signaled { 0 } else { self.unsignaled + 1 };
        Some(InlineSlot { index, signaled, token })
    }

    /// Takes a slot that holds something; hands it back when the ring is full.
    pub(crate) fn take_holding(&mut self, held: T) -> Result<u64, T> {
        let Some((index, token)) = self.take(SendState::Holding) else { return Err(held) };
        self.held[index as usize] = Some(held);
        self.unsignaled = 0;
        Ok(token)
    }

    /// Frees a slot and those that are done with it. The outer nothing means a stale token, the
    /// inner nothing that the slot held nothing.
    pub(crate) fn retire(&mut self, slot: u32, generation: u32) -> Option<Option<T>> {
        let position = self.position(slot).filter(|&position| position < self.used)?;
        let entry = &mut self.slots[slot as usize];
        if entry.generation != generation || entry.state == SendState::Done {
            return None;
        }
        entry.state = SendState::Done;
        // Those before it that wait for a later completion are done; most often nothing else is.
        let mut index = self.tail;
        for _ in 0..position {
            let state = &mut self.slots[index as usize].state;
            if *state == SendState::Unsignaled {
                *state = SendState::Done;
            }
            index = self.after(index);
        }
        self.advance();
        Some(self.held[slot as usize].take())
    }

    /// Takes out all that is held, oldest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        let order = (0..self.used).map(|position| self.index(position)).collect::<Vec<_>>();
        self.used = 0;
        order.into_iter().filter_map(|index| {
            self.slots[index as usize].state = SendState::Done;
            self.held[index as usize].take()
        })
    }

    /// How many sends can be queued now.
    pub(crate) fn credits(&self) -> u32 {
        self.length - self.used
    }

    #[inline]
    fn take(&mut self, state: SendState) -> Option<(u32, u64)> {
        if self.used == self.length {
            return None;
        }
        let index = self.index(self.used);
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = state;
        self.used += 1;
        let token = Token { kind: Kind::Send, slot: index, generation: slot.generation };
        Some((index, token.pack()))
    }

    fn advance(&mut self) {
        while self.used > 0 && self.slots[self.tail as usize].state == SendState::Done {
            self.tail = self.after(self.tail);
            self.used -= 1;
        }
    }

    /// Slot at a distance from the tail; the distance is at most the ring's length.
    #[inline]
    fn index(&self, position: u32) -> u32 {
        let index = self.tail + position;
        if index < self.length { index } else { index - self.length }
    }

    fn after(&self, index: u32) -> u32 {
        if index + 1 < self.length { index + 1 } else { 0 }
    }

    /// Distance of a slot from the tail.
    fn position(&self, slot: u32) -> Option<u32> {
        if slot >= self.length {
            return None;
        }
        Some(if slot >= self.tail { slot - self.tail } else { slot + self.length - self.tail })
    }
}

/// The slots of a receive queue, freed in any order.
#[derive(Debug)]
pub(crate) struct ReceiveTable<T> {
    slots: Box<[ReceiveSlot<T>]>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct ReceiveSlot<T> {
    generation: u32,
    held: Option<T>,
}

impl<T> ReceiveTable<T> {
    pub(crate) fn new(length: u32, generation: u32) -> Self {
        let slot = |_| ReceiveSlot { generation, held: None };
        Self { slots: (0..length).map(slot).collect(), free: (0..length).rev().collect() }
    }

    /// Takes a slot; hands what it should hold back when there is none.
    pub(crate) fn take(&mut self, held: T) -> Result<u64, T> {
        let Some(index) = self.free.pop() else { return Err(held) };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.held = Some(held);
        let token = Token { kind: Kind::Receive, slot: index, generation: slot.generation };
        Ok(token.pack())
    }

    /// Frees a slot; nothing for a stale token.
    pub(crate) fn retire(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        let held = entry.held.take()?;
        self.free.push(slot);
        Some(held)
    }

    /// Takes out all that is held.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slots.iter_mut().filter_map(|slot| slot.held.take())
    }

    /// How many receives can be queued now.
    pub(crate) fn credits(&self) -> u32 {
        u32::try_from(self.free.len()).expect("the table was made with a 32-bit length")
    }
}

/// Beyond this, fewer completions save nothing that can be measured, and credits come back in
/// larger lumps.
const SIGNAL_PERIOD_MAX: u32 = 32;

#[cfg(test)]
mod tests;
