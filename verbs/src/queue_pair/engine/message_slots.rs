//! Messages that are built in registered memory and sent from there.

use super::{
    super::{
        in_flight_buffers::InFlightBuffers,
        send_ring::{InlineSlot, SendSlot},
    },
    Engine, SlotPayload, full,
};
use crate::{
    BindInfo, Buffer, Completion, Error, PostBufferError, Provider, RemoteKey,
    provider::{Operation, Payload, SendRequest, Sge},
    sge::sge,
};

/// Layout of the message buffer: no slots of no size, if there is none.
#[derive(Clone, Copy, Default)]
pub(in crate::queue_pair) struct MessageSlots {
    /// Size of a slot, in bytes.
    size: usize,
    slots: usize,
    /// Longest message that the device takes inside a work request; 0 if not any slot's.
    inline_max: usize,
}

impl<P: Provider> Engine<P> {
    #[inline]
    pub(in crate::queue_pair) fn message_slot(&self, slot: usize) -> Option<&[u8]> {
        let MessageSlots { size, slots, .. } = self.messages;
        let offset = slot.checked_mul(size).filter(|_| slot < slots)?;
        self.payloads.bytes(offset, u32::try_from(size).ok()?)
    }

    pub(in crate::queue_pair) fn set_message_buffer(
        &mut self,
        buffer: Buffer,
        size: usize,
    ) -> Result<(), Error> {
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
        let inline_max = if size <= self.inline_max as usize { size } else { 0 };
        self.messages = MessageSlots { size, slots, inline_max };
        self.inline_max = 0;
        Ok(())
    }

    /// Address and length of a message that is no longer than its slot.
    #[inline]
    fn place(&self, slot: usize, message: &[u8]) -> Option<(usize, u32)> {
        let MessageSlots { size, slots, .. } = self.messages;
        let length = u32::try_from(message.len()).ok()?;
        (slot < slots && message.len() <= size).then_some((slot * size, length))
    }

    /// Queues a message, for which there is [room](Self::has_room).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "an inline message is short")]
    pub(in crate::queue_pair) fn send_message(
        &mut self,
        slot: usize,
        message: &[u8],
    ) -> Result<(), Error> {
        let MessageSlots { size, slots, inline_max } = self.messages;
        if message.len() > inline_max || slot >= slots {
            return Err(no_slot());
        }
        let Some(place) = self.pending_sends.vacant_entry() else { return Err(full()) };
        let Some(InlineSlot { token, signaled }) = self.sends.take_inline() else {
            return Err(full());
        };
        let (offset, length) = (slot * size, message.len() as u32);
        self.payloads.write_message(offset, message);
        let payload = Payload::Inline { offset, length };
        place.fill(SendRequest { token, signaled, operation: Operation::Send, payload });
        Ok(())
    }

    #[inline]
    pub(in crate::queue_pair) fn send_message_signaled(
        &mut self,
        slot: usize,
        message: &[u8],
    ) -> Result<(), Error> {
        let Some((offset, length)) = self.place(slot, message) else { return Err(no_slot()) };
        self.reserve_sends(1)?;
        let payload = self.message_payload(offset, length);
        let Ok(send) = self.sends.take_with_payload(SlotPayload::Message(slot as u64)) else {
            return Err(full());
        };
        self.payloads.write_message(offset, message);
        self.push(send, Operation::Send, payload);
        Ok(())
    }

    #[inline]
    pub(in crate::queue_pair) fn send_message_with_bind<'m>(
        &mut self,
        slot: usize,
        to: &BindInfo<'_>,
        message: impl FnOnce(RemoteKey) -> &'m [u8],
    ) -> Result<RemoteKey, Error> {
        self.reserve_sends(2)?;
        let key = self.windows.check(slot, self.domain, to)?;
        let message = message(key);
        let Some((offset, length)) = self.place(slot, message) else { return Err(no_slot()) };
        let taken = self.sends.take_two(SlotPayload::Message(slot as u64));
        let Some((bind_slot, send)) = taken else { return Err(full()) };
        let bind = self.windows.begin(slot, to);
        self.push_inline(bind_slot, Operation::BindWindow(bind), Payload::Nothing);
        let payload = self.message_payload(offset, length);
        self.payloads.write_message(offset, message);
        self.push(send, Operation::Send, payload);
        Ok(key)
    }

    /// Payload of the message that is queued next, and has its slot until it is completed.
    #[inline]
    fn message_payload(&mut self, offset: usize, length: u32) -> Payload {
        if length as usize <= self.messages.inline_max {
            Payload::Inline { offset, length }
        } else {
            self.set_sg_list(&[self.payloads.message_sge(offset, length)])
        }
    }

    pub(in crate::queue_pair) fn send_message_with_data(
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
        let Some((offset, length)) = self.place(slot, message) else { return Err(no_slot()) };
        if self.capabilities.max_send_sge < 2 {
            return Err(Error::Misuse("a message with data takes two segments"));
        }
        let both = [self.payloads.message_sge(offset, length), sge(self.domain, data)?];
        self.reserve_sends(1)?;
        let payload = SlotPayload::MessageWithData(slot as u64);
        let Ok(send) = self.sends.take_with_payload(payload) else { return Err(full()) };
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
    pub(in crate::queue_pair) fn complete_message(
        &mut self,
        completion: &Completion,
    ) -> Option<(u64, Option<Buffer>)> {
        if completion.queue_pair != self.number || !completion.status.is_success() {
            return None;
        }
        let (slot, has_data) = match *self.sends.payload(completion.token)? {
            SlotPayload::Message(slot) => (slot, false),
            SlotPayload::MessageWithData(slot) => (slot, true),
            SlotPayload::Buffers(_) | SlotPayload::Invalidation(..) => return None,
        };
        let index = self.sends.complete_payload(completion.token)?;
        Some((slot, if has_data { self.in_flight.take_one(index) } else { None }))
    }
}

#[cold]
fn no_slot() -> Error {
    Error::Misuse("there is no such slot, or the message is longer, or cannot go inline")
}
