//! Slots of a send queue.

use crate::WorkKind;

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
pub(super) struct SendRing<T> {
    states: Box<[SendState]>,
    /// Payloads of the slots, apart from the states, so that inline sends touch none of them.
    payloads: Box<[Option<T>]>,
    /// Number of slots with a payload.
    payload_count: u32,
    /// Token of the next send.
    head: u64,
    /// Token that the next send cannot have before another is completed: `tail` plus the ring's
    /// length.
    limit: u64,
    /// Token and slot of the oldest send whose slot is not free.
    tail: u64,
    tail_index: usize,
    /// Token below which every send was executed; signaled ones may have a completion to come.
    done: u64,
    /// Low bits of a token: its place in a period, which is a power of two. The last inline send of
    /// each is signaled.
    signal_mask: u64,
}

/// State of a slot's send. Taking a slot for an inline send changes nothing here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SendState {
    /// With a payload; a completion is to come.
    WithPayload,
    /// Inline. Its token says whether it is signaled.
    Inline,
    /// Completed before some that are older.
    Completed,
}

/// Slot taken for a send with a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SendSlot {
    /// Below the ring's length.
    pub(super) index: usize,
    pub(super) token: u64,
}

/// A slot taken for an inline send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InlineSlot {
    pub(super) signaled: bool,
    pub(super) token: u64,
}

impl<T> SendRing<T> {
    pub(super) fn new(length: u32, generation: u32) -> Self {
        // It would take 2^55 sends to count on into the kind.
        let first = WorkKind::Send.mark() | u64::from(generation) << 23;
        let period = (length / 4).clamp(1, SIGNAL_PERIOD_MAX);
        Self {
            states: vec![SendState::Inline; length as usize].into_boxed_slice(),
            payloads: (0..length).map(|_| None).collect(),
            payload_count: 0,
            head: first,
            limit: first + u64::from(length),
            tail: first,
            tail_index: 0,
            done: first,
            signal_mask: (1 << period.ilog2()) - 1,
        }
    }

    /// Takes a slot for an inline send; `None` when the ring is full.
    #[inline]
    pub(super) fn take_inline(&mut self) -> Option<InlineSlot> {
        if self.is_full() {
            return None;
        }
        let token = self.head;
        self.head += 1;
        Some(InlineSlot { signaled: self.is_signaled(token), token })
    }

    /// Returns true if an inline send with this token is signaled.
    #[inline]
    fn is_signaled(&self, token: u64) -> bool {
        (token + 1) & self.signal_mask == 0
    }

    /// Takes a slot with a payload; hands it back when the ring is full.
    #[inline]
    pub(super) fn take_with_payload(&mut self, payload: T) -> Result<SendSlot, T> {
        if self.is_full() {
            return Err(payload);
        }
        let token = self.head;
        self.head += 1;
        let index = self.index(token);
        self.states[index] = SendState::WithPayload;
        self.payloads[index] = Some(payload);
        self.payload_count += 1;
        Ok(SendSlot { index, token })
    }

    /// Takes a slot for an inline send, and the next with a payload; takes nothing when there are
    /// not both.
    #[inline]
    pub(super) fn take_two(&mut self, payload: T) -> Option<(InlineSlot, SendSlot)> {
        if self.limit - self.head < 2 {
            return None;
        }
        let token = self.head;
        self.head += 1;
        let first = InlineSlot { signaled: self.is_signaled(token), token };
        Some((first, self.take_with_payload(payload).ok()?))
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.head == self.limit
    }

    /// Payload of an outstanding send, if it has one.
    #[inline]
    pub(super) fn payload(&self, token: u64) -> Option<&T> {
        if !self.is_out(token) {
            return None;
        }
        self.payloads[self.index(token)].as_ref()
    }

    /// Frees a slot and those that are completed with it. The outer `None` means a stale token, the
    /// inner one a slot without a payload, which otherwise comes with the slot's index.
    #[inline]
    pub(super) fn complete(&mut self, token: u64) -> Option<Option<(usize, T)>> {
        if !self.is_out(token) {
            return None;
        }
        if self.payload_count == 0
            && self.is_signaled(token)
            && token - self.tail <= self.signal_mask
        {
            // All before it that are out ask for nothing.
            self.tail_index = self.index(token + 1);
            self.tail = token + 1;
            self.limit = self.tail + self.states.len() as u64;
            self.done = self.done.max(self.tail);
            if self.done > self.tail {
                self.free();
            }
            self.debug_check();
            return Some(None);
        }
        self.complete_out_of_order(token)
    }

    /// Frees the slot of a send with a payload, and those that are completed with it; returns its
    /// index. `None` means a stale token, or a slot without a payload.
    #[inline(always)]
    pub(super) fn complete_payload(&mut self, token: u64) -> Option<usize> {
        if !self.is_out(token) {
            return None;
        }
        let index = self.index(token);
        if self.states[index] != SendState::WithPayload || !self.is_next_to_complete(token) {
            return self.complete_out_of_order(token)?.map(|(index, _)| index);
        }
        self.states[index] = SendState::Inline;
        self.payloads[index] = None;
        self.payload_count -= 1;
        self.tail = token + 1;
        self.tail_index = if index + 1 == self.states.len() { 0 } else { index + 1 };
        self.limit = self.tail + self.states.len() as u64;
        self.done = self.done.max(self.tail);
        if self.done > self.tail {
            self.free();
        }
        self.debug_check();
        Some(index)
    }

    /// Returns true if no completion is to come of the sends before one, of which there are few.
    #[inline]
    fn is_next_to_complete(&self, token: u64) -> bool {
        token == self.tail
            || token == self.tail + 1
                && self.states[self.tail_index] == SendState::Inline
                && !self.is_signaled(self.tail)
    }

    fn complete_out_of_order(&mut self, token: u64) -> Option<Option<(usize, T)>> {
        let index = self.index(token);
        let state = self.states[index];
        match state {
            SendState::Completed => return None,
            SendState::Inline if token < self.done && !self.is_signaled(token) => return None,
            SendState::Inline | SendState::WithPayload => self.states[index] = SendState::Completed,
        }
        self.done = self.done.max(token + 1);
        self.free();
        if state != SendState::WithPayload {
            self.debug_check();
            return Some(None);
        }
        self.payload_count -= 1;
        self.debug_check();
        Some(self.payloads[index].take().map(|payload| (index, payload)))
    }

    /// Checks the order of the ring's positions.
    #[inline]
    fn debug_check(&self) {
        debug_assert!(self.tail <= self.done && self.done <= self.head, "executed sends are taken");
        debug_assert!(self.head <= self.limit, "there are no more sends than slots");
        debug_assert!(self.tail_index < self.states.len(), "the tail is a slot");
        let outstanding = self.head - self.tail;
        debug_assert!(u64::from(self.payload_count) <= outstanding, "payloads are outstanding");
    }

    /// Frees the oldest slots, as far as no completion of them is to come.
    #[inline]
    fn free(&mut self) {
        let (mut tail, mut index) = (self.tail, self.tail_index);
        while tail < self.done {
            match self.states[index] {
                SendState::WithPayload => break,
                SendState::Inline if self.is_signaled(tail) => break,
                SendState::Inline => {}
                SendState::Completed => self.states[index] = SendState::Inline,
            }
            tail += 1;
            index = if index + 1 == self.states.len() { 0 } else { index + 1 };
        }
        (self.tail, self.tail_index) = (tail, index);
        self.limit = tail + self.states.len() as u64;
    }

    /// Returns true if a token is of an outstanding send.
    #[inline]
    fn is_out(&self, token: u64) -> bool {
        token.wrapping_sub(self.tail) < self.head - self.tail
    }

    /// The slot of a send, which is no further behind the oldest than the ring is long.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^24 slots")]
    fn index(&self, token: u64) -> usize {
        let index = self.tail_index + (token - self.tail) as usize;
        if index >= self.states.len() { index - self.states.len() } else { index }
    }

    /// Takes out all that is held, oldest first, with the indices of the slots.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (usize, T)> {
        let indices: Vec<_> = (self.tail..self.head).map(|token| self.index(token)).collect();
        (self.tail, self.tail_index, self.payload_count) = (self.head, 0, 0);
        self.limit = self.head + self.states.len() as u64;
        self.done = self.head;
        indices.into_iter().filter_map(|index| {
            self.states[index] = SendState::Inline;
            self.payloads[index].take().map(|payload| (index, payload))
        })
    }

    /// Number of sends that can be queued now.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^24 slots")]
    pub(super) fn credits(&self) -> u32 {
        (self.limit - self.head) as u32
    }

    /// Number of sends with a payload.
    pub(super) fn payload_count(&self) -> u32 {
        self.payload_count
    }
}

/// Beyond this, fewer completions save nothing that can be measured, and credits come back in
/// larger lumps.
const SIGNAL_PERIOD_MAX: u32 = 32;

#[cfg(test)]
mod tests;
