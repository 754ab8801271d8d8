//! Messages that are kept in registered memory and sent from there.

use super::{
    QueuePair,
    engine::{Engine, Held, full},
    lent::Lent,
};
use crate::{
    Buffer, Completion, Error, Provider, RefusedBuffer,
    provider::{Operation, Payload, Segment, SendRequest},
    segment::segment,
    slot::{InlineSlot, SendSlot},
};

/// Messages that are kept in the payloads, not copied there.
pub(super) struct Messages {
    /// Of each, in bytes.
    size: usize,
    rows: usize,
    /// Whether the device takes that many inside a work request.
    inline: bool,
}

impl<P: Provider> QueuePair<P> {
    /// Has messages sent from a buffer of the caller's from now on, each from a row of so many
    /// bytes, where they can also be [read](Self::message) again. Nothing was sent before, and
    /// [`send_inline`](Self::send_inline) and its like send nothing after.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`]: the buffer is of another domain, or registered for more than sending;
    /// its length is not a multiple of `size`, which is not 0; something was sent already.
    pub fn keep_messages(&mut self, buffer: Buffer, size: usize) -> Result<(), Error> {
        self.engine.keep_messages(buffer, size)
    }

    /// Puts a message into a row and queues sending it, inline. Until [`flush`](Self::flush) the
    /// row is to be left alone: what is sent is what it holds then.
    ///
    /// It completes as [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: retire completions first.
    /// * [`Error::Misuse`]: there is no such row, the message is longer, or rows are longer than
    ///   [`inline`](crate::Capabilities::inline).
    #[inline(always)] // the length is often known to the caller
    pub fn send_message(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        match self.engine.has_room() {
            true => self.engine.send_message(row, message),
            false => self.send_message_after_others(row, message),
        }
    }

    /// Apart, so that the usual case saves no registers for it.
    #[cold]
    fn send_message_after_others(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        self.engine.make_room(1)?;
        self.engine.send_message(row, message)
    }

    /// Puts a message into a row and queues sending it, with a completion of its own, which has the
    /// row as the tag. The device may read the row until then: it goes inline only if it can.
    ///
    /// # Errors
    ///
    /// As [`send_message`](Self::send_message), but for the length of inline sends.
    #[inline]
    pub fn send_message_signaled(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        self.engine.send_message_signaled(row, message)
    }

    /// Puts a message into a row and queues sending it with what `data` holds behind it, with a
    /// completion of its own, which gives `data` back with the row as the tag. The device may read
    /// the row until then.
    ///
    /// # Errors
    ///
    /// Hands the data back with [`Error::QueueFull`], or [`Error::Misuse`]: there is no such row,
    /// the message is longer; the data is of another domain, or empty;
    /// [`segments`](crate::Capabilities::segments) is 1.
    pub fn send_message_with(
        &mut self,
        row: usize,
        message: &[u8],
        data: Buffer,
    ) -> Result<(), RefusedBuffer> {
        self.engine.send_message_with(row, message, data)
    }

    /// The bytes of a row, if there is one.
    #[inline]
    pub fn message(&self, row: usize) -> Option<&[u8]> {
        let Messages { size, .. } = *self.engine.messages.as_ref()?;
        self.engine.payloads.bytes(row.checked_mul(size)?, u32::try_from(size).ok()?)
    }

    /// Frees the slot of a message that was sent with a completion of its own; returns its row, and
    /// its data if it had some. Does nothing when the completion is of anything else, or not of
    /// success.
    #[inline]
    pub fn retire_message(&mut self, completion: &Completion) -> Option<(u64, Option<Buffer>)> {
        self.engine.retire_message(completion)
    }
}

impl<P: Provider> Engine<P> {
    pub(super) fn keep_messages(&mut self, buffer: Buffer, size: usize) -> Result<(), Error> {
        segment(self.domain, &buffer)?;
        if size == 0 || !buffer.len().is_multiple_of(size) {
            return Err(Error::Misuse("a buffer for messages holds some of one size"));
        }
        if self.sends.credits() != self.capabilities.send {
            return Err(Error::Misuse("messages cannot be kept once something was sent"));
        }
        let rows = buffer.len() / size;
        self.payloads.keep(
            buffer.into_read_only().ok_or(Error::Misuse(
                "messages are kept in a buffer registered for sending only",
            ))?,
        );
        // One segment is for the message.
        let buffers = self.capabilities.segments - 1;
        self.lent = Lent::new(self.capabilities.send, buffers);
        let inline = size <= self.inline_max as usize;
        self.messages = Some(Messages { size, rows, inline });
        self.inline_max = 0;
        Ok(())
    }

    /// Where a message goes that is no longer than its row, and how long it is.
    #[inline(always)]
    fn row(&self, row: usize, message: &[u8]) -> Option<(usize, u32, bool)> {
        let Messages { size, rows, inline } = *self.messages.as_ref()?;
        let length = u32::try_from(message.len()).ok()?;
        (row < rows && message.len() <= size).then_some((row * size, length, inline))
    }

    /// Queues a message, for which there is [room](Self::has_room).
    #[inline(always)]
    pub(super) fn send_message(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        let Some((offset, length, true)) = self.row(row, message) else { return Err(no_row()) };
        let Some(place) = self.pending_sends.place() else { return Err(full()) };
        let Some(InlineSlot { token, signaled }) = self.sends.take_inline() else {
            return Err(full());
        };
        self.payloads.keep_bytes(offset, message);
        let payload = Payload::Inline { offset, length };
        place.fill(SendRequest { token, signaled, operation: Operation::Send, payload });
        Ok(())
    }

    #[inline]
    pub(super) fn send_message_signaled(
        &mut self,
        row: usize,
        message: &[u8],
    ) -> Result<(), Error> {
        let Some((offset, length, inline)) = self.row(row, message) else { return Err(no_row()) };
        self.make_room(1)?;
        let payload = match inline {
            true => Payload::Inline { offset, length },
            false => self.note(&[self.payloads.kept(offset, length)]),
        };
        let Ok(slot) = self.sends.take_holding(Held::Row(row as u64)) else { return Err(full()) };
        self.payloads.keep_bytes(offset, message);
        self.push(slot, Operation::Send, payload);
        Ok(())
    }

    pub(super) fn send_message_with(
        &mut self,
        row: usize,
        message: &[u8],
        data: Buffer,
    ) -> Result<(), RefusedBuffer> {
        match self.gather_message(row, message, &data) {
            Ok((slot, offset, payload)) => {
                self.payloads.keep_bytes(offset, message);
                self.lent.put_one(slot.index, data);
                self.push(slot, Operation::Send, payload);
                Ok(())
            }
            Err(error) => Err(RefusedBuffer { error, buffer: data }),
        }
    }

    /// Takes a slot for a message with data, and notes where both are.
    #[inline]
    fn gather_message(
        &mut self,
        row: usize,
        message: &[u8],
        data: &Buffer,
    ) -> Result<(SendSlot, usize, Payload), Error> {
        let Some((offset, length, _)) = self.row(row, message) else { return Err(no_row()) };
        if self.capabilities.segments < 2 {
            return Err(Error::Misuse("a message with data takes two segments"));
        }
        let both = [self.payloads.kept(offset, length), segment(self.domain, data)?];
        self.make_room(1)?;
        let Ok(slot) = self.sends.take_holding(Held::Row(row as u64)) else { return Err(full()) };
        Ok((slot, offset, self.note(&both)))
    }

    /// Notes where the memory of the send is that is queued next.
    #[inline]
    fn note<const COUNT: usize>(&mut self, segments: &[Segment; COUNT]) -> Payload {
        let first = self.pending_sends.next() * self.capabilities.segments as usize;
        self.payloads.segments_mut(first, COUNT).copy_from_slice(segments);
        let count = u32::try_from(COUNT).expect("a send has a few segments");
        Payload::Segments { first, count }
    }

    #[inline]
    pub(super) fn retire_message(
        &mut self,
        completion: &Completion,
    ) -> Option<(u64, Option<Buffer>)> {
        if completion.queue_pair != self.number || !completion.status.is_success() {
            return None;
        }
        let Some(&Held::Row(row)) = self.sends.held(completion.token) else { return None };
        let (index, _) = self.sends.retire(completion.token)??;
        Some((row, self.lent.take_one(index)))
    }
}

#[cold]
fn no_row() -> Error {
    Error::Misuse("there is no such row, or the message is longer, or cannot go inline")
}
