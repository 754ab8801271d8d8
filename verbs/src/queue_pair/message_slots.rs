//! Messages that are kept in registered memory and sent from there.

use super::{
    QueuePair,
    engine::{Engine, SlotPayload, full},
    in_flight_buffers::InFlightBuffers,
};
use crate::{
    Buffer, Completion, Error, PostBufferError, Provider,
    provider::{Operation, Payload, SendRequest, Sge},
    sge::sge,
    slot::{InlineSlot, SendSlot},
};

/// Messages that are kept in the payloads, not copied there.
pub(super) struct MessageSlots {
    /// Of each, in bytes.
    size: usize,
    slots: usize,
    /// Whether the device takes that many inside a work request.
    inline: bool,
}

impl<P: Provider> QueuePair<P> {
    /// Has messages sent from a buffer of the caller's from now on, each from a slot of so many
    /// bytes, where they can also be [read](Self::message_slot) again. Nothing was sent before, and
    /// [`send_inline`](Self::send_inline) and its like send nothing after.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`]: the buffer is of another domain, or registered for more than sending;
    /// its length is not a multiple of `size`, which is not 0; something was sent already.
    pub fn set_message_buffer(&mut self, buffer: Buffer, size: usize) -> Result<(), Error> {
        self.engine.set_message_buffer(buffer, size)
    }

    /// Puts a message into a slot and queues sending it, inline. Until [`flush`](Self::flush) the
    /// slot is to be left alone: what is sent is what it holds then.
    ///
    /// It completes as [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: retire completions first.
    /// * [`Error::Misuse`]: there is no such slot, the message is longer, or slots are longer than
    ///   [`inline`](crate::Capabilities::max_inline_data).
    #[inline(always)] // the length is often known to the caller
    pub fn send_message(&mut self, slot: usize, message: &[u8]) -> Result<(), Error> {
        match self.engine.has_room() {
            true => self.engine.send_message(slot, message),
            false => self.send_message_after_others(slot, message),
        }
    }

    /// Apart, so that the usual case saves no registers for it.
    #[cold]
    fn send_message_after_others(&mut self, slot: usize, message: &[u8]) -> Result<(), Error> {
        self.engine.reserve_sends(1)?;
        self.engine.send_message(slot, message)
    }

    /// Puts a message into a slot and queues sending it, with a completion of its own, which has
    /// the slot as the tag. The device may read the slot until then: it goes inline only if it
    /// can.
    ///
    /// # Errors
    ///
    /// As [`send_message`](Self::send_message), but for the length of inline sends.
    #[inline]
    pub fn send_message_signaled(&mut self, slot: usize, message: &[u8]) -> Result<(), Error> {
        self.engine.send_message_signaled(slot, message)
    }

    /// Puts a message into a slot and queues sending it with what `data` holds behind it, with a
    /// completion of its own, which gives `data` back with the slot as the tag. The device may read
    /// the slot until then.
    ///
    /// # Errors
    ///
    /// Hands the data back with [`Error::QueueFull`], or [`Error::Misuse`]: there is no such slot,
    /// the message is longer; the data is of another domain, or empty;
    /// [`segments`](crate::Capabilities::max_send_sge) is 1.
    pub fn send_message_with_data(
        &mut self,
        slot: usize,
        message: &[u8],
        data: Buffer,
    ) -> Result<(), PostBufferError> {
        self.engine.send_message_with_data(slot, message, data)
    }

    /// The bytes of a slot, if there is one.
    #[inline]
    pub fn message_slot(&self, slot: usize) -> Option<&[u8]> {
        let MessageSlots { size, .. } = *self.engine.messages.as_ref()?;
        self.engine.payloads.bytes(slot.checked_mul(size)?, u32::try_from(size).ok()?)
    }

    /// Frees the slot of a message that was sent with a completion of its own; returns its slot,
    /// and its data if it had some. Does nothing when the completion is of anything else, or not
    /// of success.
    #[inline]
    pub fn complete_message(&mut self, completion: &Completion) -> Option<(u64, Option<Buffer>)> {
        self.engine.complete_message(completion)
    }
}

impl<P: Provider> Engine<P> {
    pub(super) fn set_message_buffer(&mut self, buffer: Buffer, size: usize) -> Result<(), Error> {
        sge(self.domain, &buffer)?;
        if size == 0 || !buffer.len().is_multiple_of(size) {
            return Err(Error::Misuse("a buffer for messages holds some of one size"));
        }
        if self.sends.credits() != self.capabilities.max_send_wr {
            return Err(Error::Misuse("messages cannot be kept once something was sent"));
        }
        let slots = buffer.len() / size;
        self.payloads.set_message_buffer(
            buffer.into_read_only().ok_or(Error::Misuse(
                "messages are kept in a buffer registered for sending only",
            ))?,
        );
        // One segment is for the message.
        let buffers = self.capabilities.max_send_sge - 1;
        self.in_flight = InFlightBuffers::new(self.capabilities.max_send_wr, buffers);
        let inline = size <= self.inline_max as usize;
        self.messages = Some(MessageSlots { size, slots, inline });
        self.inline_max = 0;
        Ok(())
    }

    /// Where a message goes that is no longer than its slot, and how long it is.
    #[inline(always)]
    fn place(&self, slot: usize, message: &[u8]) -> Option<(usize, u32, bool)> {
        let MessageSlots { size, slots, inline } = *self.messages.as_ref()?;
        let length = u32::try_from(message.len()).ok()?;
        (slot < slots && message.len() <= size).then_some((slot * size, length, inline))
    }

    /// Queues a message, for which there is [room](Self::has_room).
    #[inline(always)]
    pub(super) fn send_message(&mut self, slot: usize, message: &[u8]) -> Result<(), Error> {
        let Some((offset, length, true)) = self.place(slot, message) else { return Err(no_slot()) };
        let Some(place) = self.pending_sends.vacant_entry() else { return Err(full()) };
        let Some(InlineSlot { token, signaled }) = self.sends.take_inline() else {
            return Err(full());
        };
        self.payloads.write_message(offset, message);
        let payload = Payload::Inline { offset, length };
        place.fill(SendRequest { token, signaled, operation: Operation::Send, payload });
        Ok(())
    }

    #[inline]
    pub(super) fn send_message_signaled(
        &mut self,
        slot: usize,
        message: &[u8],
    ) -> Result<(), Error> {
        let Some((offset, length, inline)) = self.place(slot, message) else {
            return Err(no_slot());
        };
        self.reserve_sends(1)?;
        let payload = match inline {
            true => Payload::Inline { offset, length },
            false => self.set_sg_list(&[self.payloads.message_sge(offset, length)]),
        };
        let Ok(send) = self.sends.take_with_payload(SlotPayload::Message(slot as u64)) else {
            return Err(full());
        };
        self.payloads.write_message(offset, message);
        self.push(send, Operation::Send, payload);
        Ok(())
    }

    pub(super) fn send_message_with_data(
        &mut self,
        slot: usize,
        message: &[u8],
        data: Buffer,
    ) -> Result<(), PostBufferError> {
        match self.gather_message(slot, message, &data) {
            Ok((send, offset, payload)) => {
                self.payloads.write_message(offset, message);
                self.in_flight.put_one(send.index, data);
                self.push(send, Operation::Send, payload);
                Ok(())
            }
            Err(error) => Err(PostBufferError { error, buffer: data }),
        }
    }

    /// Takes a slot for a message with data, and notes where both are.
    #[inline]
    fn gather_message(
        &mut self,
        slot: usize,
        message: &[u8],
        data: &Buffer,
    ) -> Result<(SendSlot, usize, Payload), Error> {
        let Some((offset, length, _)) = self.place(slot, message) else { return Err(no_slot()) };
        if self.capabilities.max_send_sge < 2 {
            return Err(Error::Misuse("a message with data takes two segments"));
        }
        let both = [self.payloads.message_sge(offset, length), sge(self.domain, data)?];
        self.reserve_sends(1)?;
        let Ok(send) = self.sends.take_with_payload(SlotPayload::Message(slot as u64)) else {
            return Err(full());
        };
        Ok((send, offset, self.set_sg_list(&both)))
    }

    /// Notes where the memory of the send is that is queued next.
    #[inline]
    fn set_sg_list<const COUNT: usize>(&mut self, sges: &[Sge; COUNT]) -> Payload {
        let first = self.pending_sends.next() * self.capabilities.max_send_sge as usize;
        self.payloads.sg_list_mut(first, COUNT).copy_from_slice(sges);
        let count = u32::try_from(COUNT).expect("a send has a few segments");
        Payload::SgList { first, count }
    }

    #[inline]
    pub(super) fn complete_message(
        &mut self,
        completion: &Completion,
    ) -> Option<(u64, Option<Buffer>)> {
        if completion.queue_pair != self.number || !completion.status.is_success() {
            return None;
        }
        let Some(&SlotPayload::Message(slot)) = self.sends.payload(completion.token) else {
            return None;
        };
        let (index, _) = self.sends.complete(completion.token)??;
        Some((slot, self.in_flight.take_one(index)))
    }
}

#[cold]
fn no_slot() -> Error {
    Error::Misuse("there is no such slot, or the message is longer, or cannot go inline")
}
