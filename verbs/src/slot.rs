//! The tables that hold what is posted until a completion, or the queue pair's end, gives it
//! back.
//!
//! Both are generic over what they hold, so that their arithmetic is tested without memory.

use crate::token::{Kind, Token};

/// The slots of a send queue: a ring in the order of posting.
///
/// A send queue executes in order, so a completion of one send says that all before it are done
/// too. Of `period` sends, only the last asks for a completion if it is inline, which is enough:
/// a full ring without outstanding completion cannot be, since `period` is never more than its
/// length.
///
/// ```text
///        tail                                  head
///          v                                    v
///   | free | inline | inline | inline, signaled | free |
///                                 |
///            one completion here frees all three
/// ```
///
/// Sends are numbered, and a send's number is its token; so an unsignaled send writes to no slot.
#[derive(Debug)]
pub(crate) struct SendRing<T> {
    states: Box<[SendState]>,
    /// What the slots hold, apart from them, so that inline sends touch none of it.
    held: Box<[Option<T>]>,
    /// How many hold something.
    holding: u32,
    /// The next send, and its slot.
    head: u64,
    head_index: usize,
    /// What the next send cannot be, before another is retired: as far from `tail` as the ring is
    /// long.
    limit: u64,
    /// The oldest send whose slot is not free, and that slot.
    tail: u64,
    tail_index: usize,
    /// All before this have been carried out, but those that have a completion to come.
    done: u64,
    /// The low bits of a token that are its place in a period, which is a power of two. The last
    /// inline send in each asks for a completion.
    quiet: u64,
}

/// Whether a slot's send has a completion to come by itself. A free slot has not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SendState {
    /// Yes, and it holds something.
    Holding,
    /// Yes, and it is inline.
    Signaled,
    /// Only if it fails; a later completion frees it.
    Silent,
}

/// A slot taken for a send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SendSlot {
    /// Below the ring's length.
    pub(crate) index: usize,
    pub(crate) signaled: bool,
    pub(crate) token: u64,
}

impl<T> SendRing<T> {
    pub(crate) fn new(length: u32, generation: u32) -> Self {
        // It would take 2^55 sends to count on into the kind.
        let first = Kind::Send.mark() | u64::from(generation) << 23;
        let period = (length / 4).clamp(1, SIGNAL_PERIOD_MAX);
        Self {
            states: vec![SendState::Silent; length as usize].into_boxed_slice(),
            held: (0..length).map(|_| None).collect(),
            holding: 0,
            head: first,
            head_index: 0,
            limit: first + u64::from(length),
            tail: first,
            tail_index: 0,
            done: first,
            quiet: (1 << period.ilog2()) - 1,
        }
    }

    /// Takes a slot for an inline send; nothing when the ring is full.
    #[inline]
    pub(crate) fn take_inline(&mut self) -> Option<SendSlot> {
        if self.is_full() {
            return None;
        }
        let (token, index) = self.advance();
        let signaled = self.head & self.quiet == 0;
        if signaled {
            self.states[index] = SendState::Signaled;
        }
        Some(SendSlot { index, signaled, token })
    }

    /// Takes a slot that holds something; hands it back when the ring is full.
    #[inline]
    pub(crate) fn take_holding(&mut self, held: T) -> Result<SendSlot, T> {
        if self.is_full() {
            return Err(held);
        }
        let (token, index) = self.advance();
        self.states[index] = SendState::Holding;
        self.held[index] = Some(held);
        self.holding += 1;
        Ok(SendSlot { index, signaled: true, token })
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.head == self.limit
    }

    #[inline]
    fn advance(&mut self) -> (u64, usize) {
        let taken = (self.head, self.head_index);
        self.head += 1;
        self.head_index = self.following(self.head_index);
        taken
    }

    /// The slot after a slot.
    #[inline]
    fn following(&self, index: usize) -> usize {
        if index + 1 == self.states.len() { 0 } else { index + 1 }
    }

    /// What an outstanding send holds, if it does.
    #[inline]
    pub(crate) fn held(&self, token: u64) -> Option<&T> {
        let distance = token.wrapping_sub(self.tail);
        if distance >= self.head - self.tail {
            return None;
        }
        self.held[self.behind_tail(distance)].as_ref()
    }

    /// Frees a slot and those that are done with it. The outer nothing means a stale token, the
    /// inner nothing that the slot held nothing; what it held comes with the slot's index.
    #[inline]
    pub(crate) fn retire(&mut self, token: u64) -> Option<Option<(usize, T)>> {
        let distance = token.wrapping_sub(self.tail);
        if distance >= self.head - self.tail {
            return None;
        }
        let index = self.behind_tail(distance);
        let state = self.states[index];
        if state == SendState::Silent && token < self.done {
            return None;
        }
        self.states[index] = SendState::Silent;
        self.done = self.done.max(token + 1);
        while self.tail < self.done && self.states[self.tail_index] == SendState::Silent {
            self.tail += 1;
            self.limit += 1;
            self.tail_index = self.following(self.tail_index);
        }
        if state != SendState::Holding {
            return Some(None);
        }
        self.holding -= 1;
        Some(self.held[index].take().map(|held| (index, held)))
    }

    /// The slot so far behind the oldest, within the ring.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^24 slots")]
    fn behind_tail(&self, distance: u64) -> usize {
        let index = self.tail_index + distance as usize;
        if index >= self.states.len() { index - self.states.len() } else { index }
    }

    /// Takes out all that is held, oldest first, with the indices of the slots.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (usize, T)> {
        let outstanding = 0..self.head - self.tail;
        let indices: Vec<_> = outstanding.map(|distance| self.behind_tail(distance)).collect();
        (self.tail, self.tail_index) = (self.head, self.head_index);
        self.limit = self.head + self.states.len() as u64;
        self.done = self.head;
        self.holding = 0;
        indices.into_iter().filter_map(|index| {
            self.states[index] = SendState::Silent;
            self.held[index].take().map(|held| (index, held))
        })
    }

    /// How many sends can be queued now.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^24 slots")]
    pub(crate) fn credits(&self) -> u32 {
        (self.limit - self.head) as u32
    }

    /// How many sends hold something.
    pub(crate) fn holding(&self) -> u32 {
        self.holding
    }
}

/// The slots of a receive queue, freed in any order.
#[derive(Debug)]
pub(crate) struct ReceiveTable<T> {
    slots: Box<[ReceiveSlot<T>]>,
    /// The first `credits` are free.
    free: Box<[u32]>,
    credits: u32,
}

#[derive(Debug)]
struct ReceiveSlot<T> {
    generation: u32,
    held: Option<T>,
}

impl<T> ReceiveTable<T> {
    pub(crate) fn new(length: u32, generation: u32) -> Self {
        let slot = |_| ReceiveSlot { generation, held: None };
        let free = (0..length).rev().collect();
        Self { slots: (0..length).map(slot).collect(), free, credits: length }
    }

    /// Takes a slot; hands what it should hold back when there is none.
    #[inline]
    pub(crate) fn take(&mut self, held: T) -> Result<u64, T> {
        let Some(credits) = self.credits.checked_sub(1) else { return Err(held) };
        self.credits = credits;
        let index = self.free[credits as usize];
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.held = Some(held);
        let token = Token { kind: Kind::Receive, slot: index, generation: slot.generation };
        Ok(token.pack())
    }

    /// Frees a slot; nothing for a stale token.
    #[inline]
    pub(crate) fn retire(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        let held = entry.held.take()?;
        self.free[self.credits as usize] = slot;
        self.credits += 1;
        Some(held)
    }

    /// Lets a slot go on holding what it holds, under another token, which it returns; nothing for
    /// a stale one.
    #[inline]
    pub(crate) fn renew(&mut self, slot: u32, generation: u32) -> Option<(u64, &T)> {
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        let held = entry.held.as_ref()?;
        entry.generation = generation.wrapping_add(1);
        let token = Token { kind: Kind::Receive, slot, generation: entry.generation };
        Some((token.pack(), held))
    }

    /// Takes out all that is held.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slots.iter_mut().filter_map(|slot| slot.held.take())
    }

    /// How many receives can be queued now.
    pub(crate) fn credits(&self) -> u32 {
        self.credits
    }
}

/// Beyond this, fewer completions save nothing that can be measured, and credits come back in
/// larger lumps.
const SIGNAL_PERIOD_MAX: u32 = 32;

#[cfg(test)]
mod tests;
