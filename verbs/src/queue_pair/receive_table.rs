//! Slots of a receive queue.

use crate::{WorkKind, token::Token};

/// The slots of a receive queue, freed in any order.
#[derive(Debug)]
pub(super) struct ReceiveTable<T> {
    slots: Box<[ReceiveSlot<T>]>,
    /// The first `credits` are free.
    free: Box<[u32]>,
    credits: u32,
}

#[derive(Debug)]
struct ReceiveSlot<T> {
    /// Token of the receive; in a free slot, that of the last.
    token: u64,
    held: Option<T>,
}

impl<T> ReceiveTable<T> {
    pub(super) fn new(length: u32, generation: u32) -> Self {
        let token = |slot| Token { kind: WorkKind::Receive, slot, generation }.pack();
        let slot = |slot| ReceiveSlot { token: token(slot), held: None };
        let free = (0..length).rev().collect();
        Self { slots: (0..length).map(slot).collect(), free, credits: length }
    }

    /// Takes a slot; hands what it should hold back when there is none.
    #[inline]
    pub(super) fn take(&mut self, held: T) -> Result<u64, T> {
        let Some(credits) = self.credits.checked_sub(1) else { return Err(held) };
        self.credits = credits;
        let index = self.free[credits as usize];
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.held.is_none(), "a free slot holds nothing");
        slot.token = Token::next(slot.token);
        slot.held = Some(held);
        Ok(slot.token)
    }

    /// Frees a slot; `None` for a stale token.
    #[inline]
    pub(super) fn complete(&mut self, token: u64) -> Option<T> {
        let slot = Token::slot(token);
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.token != token {
            return None;
        }
        let held = entry.held.take()?;
        debug_assert!((self.credits as usize) < self.slots.len(), "a taken slot is no credit");
        self.free[self.credits as usize] = slot;
        self.credits += 1;
        Some(held)
    }

    /// Keeps the payload of a slot under another token, which it returns; `None` for a stale one.
    #[inline]
    pub(super) fn renew(&mut self, token: u64) -> Option<(u64, &T)> {
        let entry = self.slots.get_mut(Token::slot(token) as usize)?;
        if entry.token != token {
            return None;
        }
        let held = entry.held.as_ref()?;
        entry.token = Token::next(token);
        Some((entry.token, held))
    }

    /// Takes out all that is held.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slots.iter_mut().filter_map(|slot| slot.held.take())
    }

    /// Number of receives that can be queued now.
    pub(super) fn credits(&self) -> u32 {
        self.credits
    }
}

#[cfg(test)]
mod tests;
