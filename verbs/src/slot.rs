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
    /// A power of two, at least `length`.
    states: Box<[SendState]>,
    /// What the slots hold, apart from them, so that inline sends touch none of it.
    held: Box<[Option<T>]>,
    length: u64,
    /// The low bits of a token that are its slot.
    mask: u64,
    /// The next send.
    head: u64,
    /// What the next send cannot be, before another is retired: as far from `tail` as the ring is
    /// long.
    limit: u64,
    /// The oldest send whose slot is not free.
    tail: u64,
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
    /// Below [`SendRing::rows`].
    pub(crate) index: usize,
    pub(crate) signaled: bool,
    pub(crate) token: u64,
}

impl<T> SendRing<T> {
    pub(crate) fn new(length: u32, generation: u32) -> Self {
        // It would take 2^55 sends to count on into the kind.
        let first = Kind::Send.mark() | u64::from(generation) << 23;
        let rows = (length as usize).next_power_of_two();
        let period = (length / 4).clamp(1, SIGNAL_PERIOD_MAX);
        Self {
            states: vec![SendState::Silent; rows].into_boxed_slice(),
            held: (0..rows).map(|_| None).collect(),
            length: length.into(),
            mask: rows as u64 - 1,
            head: first,
            limit: first + u64::from(length),
            tail: first,
            done: first,
            quiet: (1 << period.ilog2()) - 1,
        }
    }

    /// Takes a slot for an inline send; nothing when the ring is full.
    #[inline]
    pub(crate) fn take_inline(&mut self) -> Option<SendSlot> {
        let index = self.next()?;
        let token = self.head;
        self.head += 1;
        let signaled = self.head & self.quiet == 0;
        if signaled {
            self.states[index] = SendState::Signaled;
        }
        Some(SendSlot { index, signaled, token })
    }

    /// Takes a slot that holds something; hands it back when the ring is full.
    #[inline]
    pub(crate) fn take_holding(&mut self, held: T) -> Result<SendSlot, T> {
        let Some(index) = self.next() else { return Err(held) };
        let token = self.head;
        self.head += 1;
        self.states[index] = SendState::Holding;
        self.held[index] = Some(held);
        Ok(SendSlot { index, signaled: true, token })
    }

    /// The slot that is taken next, if one is free.
    #[inline]
    pub(crate) fn next(&self) -> Option<usize> {
        (self.head != self.limit).then(|| self.index(self.head))
    }

    /// Frees a slot and those that are done with it. The outer nothing means a stale token, the
    /// inner nothing that the slot held nothing.
    #[inline]
    pub(crate) fn retire(&mut self, token: u64) -> Option<Option<T>> {
        if token.wrapping_sub(self.tail) >= self.head - self.tail {
            return None;
        }
        let index = self.index(token);
        let state = self.states[index];
        if state == SendState::Silent && token < self.done {
            return None;
        }
        self.states[index] = SendState::Silent;
        self.done = self.done.max(token + 1);
        while self.tail < self.done && self.states[self.index(self.tail)] == SendState::Silent {
            self.tail += 1;
        }
        self.limit = self.tail + self.length;
        Some(if state == SendState::Holding { self.held[index].take() } else { None })
    }

    /// Takes out all that is held, oldest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        let outstanding = self.tail..self.head;
        self.tail = self.head;
        self.limit = self.head + self.length;
        self.done = self.head;
        outstanding.filter_map(|token| {
            let index = self.index(token);
            self.states[index] = SendState::Silent;
            self.held[index].take()
        })
    }

    /// How many sends can be queued now.
    pub(crate) fn credits(&self) -> u32 {
        u32::try_from(self.limit - self.head).unwrap_or_default()
    }

    /// How many slots there are, for what is kept beside them.
    pub(crate) fn rows(&self) -> usize {
        self.states.len()
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what counts")]
    fn index(&self, token: u64) -> usize {
        (token & self.mask) as usize
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
