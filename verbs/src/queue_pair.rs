//! Queue pairs: typed bring-up, posting in batches, buffers in slots.

mod engine;
mod in_flight_buffers;
mod receive_table;
mod request_queue;
mod send_ring;

use std::{fmt, sync::Arc};

use self::engine::{Engine, FlushError};
use crate::{
    BindInfo, Buffer, CompletedWork, Completion, Error, Established, FlushedWork, PostBufferError,
    PostSendError, Provider, QueuePairCapabilities, RdmaCore, RemoteAddress, RemoteKey, SgList,
    StaleCompletion, VerbsApi, Window,
    completion_queue::Reservation,
    provider::{Operation, QueuePairInfo},
};

/// A queue pair that is not connected yet: receives can be posted, sends cannot.
///
/// ```compile_fail,E0599
/// # fn early(mut queue_pair: verbs::PreparedQueuePair) {
/// queue_pair.send_inline(b"too early"); // no such method before `ready`
/// # }
/// ```
pub struct PreparedQueuePair<P: Provider = RdmaCore> {
    engine: Engine<P>,
}

/// A connected queue pair.
///
/// Work is queued, for example by [`send`](Self::send), [`rdma_read`](Self::rdma_read),
/// [`bind`](Self::bind) and [`post_receive`](Self::post_receive), and handed to the device by
/// [`flush`](Self::flush): everything of one kind in one chain, with one doorbell. At most
/// [`SENDS_QUEUED_MAX`](crate::SENDS_QUEUED_MAX) sends wait for that; one more hands the others
/// over first, and is not queued where that fails, with the error of [`flush`](Self::flush). Its
/// buffers stay in the queue pair until its [completion](Self::complete), or until the queue pair
/// is [closed](Self::close).
///
/// Requests on the send queue are carried out in the order in which they were queued.
///
/// Dropping a queue pair destroys it first, and then frees what was posted.
///
/// What was read into a buffer is there when the read is completed, not before:
///
/// ```compile_fail,E0382
/// # fn early(queue_pair: &mut verbs::QueuePair, buffer: verbs::Buffer,
/// #          from: verbs::RemoteAddress, out: &mut [u8]) {
/// queue_pair.rdma_read(buffer, from, 1);
/// buffer.copy_out(0, out); // it comes back in `CompletedWork::Send`
/// # }
/// ```
pub struct QueuePair<P: Provider = RdmaCore> {
    engine: Engine<P>,
}

impl<P: Provider> PreparedQueuePair<P> {
    pub(crate) fn new(parts: Parts<P>, capabilities: QueuePairCapabilities) -> Self {
        Self { engine: Engine::new(parts, capabilities) }
    }

    /// Makes a queue pair that can send, once its endpoint's connection is established.
    ///
    /// # Panics
    ///
    /// When `established` is of another endpoint than this queue pair.
    pub fn ready(self, established: &Established) -> QueuePair<P> {
        assert_eq!(
            established.connection, self.engine.connection,
            "the connection that was established is another queue pair's",
        );
        QueuePair { engine: self.engine }
    }

    /// Queues a receive; see [`QueuePair::post_receive`].
    ///
    /// # Errors
    ///
    /// As [`QueuePair::post_receive`].
    pub fn post_receive(&mut self, buffer: Buffer, tag: u64) -> Result<(), PostBufferError> {
        self.engine.post_receive(buffer, tag)
    }

    /// Hands the queued receives to the device.
    ///
    /// # Errors
    ///
    /// [`Error::PostReceive`]; the receives not taken stay queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.engine.flush()
    }

    /// Destroys the queue pair and returns what was posted.
    pub fn close(self) -> Vec<FlushedWork> {
        self.engine.close()
    }

    /// The queue pair's number.
    pub fn number(&self) -> u32 {
        self.engine.number
    }
}

impl<P: Provider> QueuePair<P> {
    /// Returns true if a buffer is of this queue pair's domain, so that this side and the peer can
    /// use it here. A peer that uses the key of any other fails the connection.
    #[inline]
    pub fn accepts(&self, buffer: &Buffer) -> bool {
        buffer.domain() == self.engine.domain
    }

    /// Queues a send of a message that is copied at once; it needs no registered memory.
    ///
    /// Success of such a send makes a completion only periodically, often enough that credits
    /// always come back; failure always does.
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: process completions first.
    /// * [`Error::Misuse`]: the message is longer than [`QueuePairCapabilities::max_inline_data`].
    #[inline(always)] // the length is often known to the caller
    pub fn send_inline(&mut self, message: &[u8]) -> Result<(), Error> {
        if self.engine.has_room() {
            self.engine.post_inline(Operation::Send, message)
        } else {
            self.send_inline_after_others(message)
        }
    }

    /// Not inlined: the usual case saves no registers for it.
    #[cold]
    fn send_inline_after_others(&mut self, message: &[u8]) -> Result<(), Error> {
        self.engine.reserve_sends(1)?;
        self.engine.post_inline(Operation::Send, message)
    }

    /// Queues a send of one to four buffers; its completion gives them back with the `tag`.
    ///
    /// # Errors
    ///
    /// Hands the buffers back with [`Error::QueueFull`], or [`Error::Misuse`]: no buffer, more
    /// than [`QueuePairCapabilities::max_send_sge`], an empty one, or one of another domain.
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn send(&mut self, buffers: impl Into<SgList>, tag: u64) -> Result<(), PostSendError> {
        self.engine.post_buffers(Operation::Send, buffers.into(), tag)
    }

    /// Queues a send, as [`send_inline`](Self::send_inline), that also invalidates a key of the
    /// peer.
    ///
    /// # Errors
    ///
    /// As [`send_inline`](Self::send_inline).
    pub fn send_inline_with_invalidate(
        &mut self,
        message: &[u8],
        key: RemoteKey,
    ) -> Result<(), Error> {
        self.engine.reserve_sends(1)?;
        self.engine.post_inline(Operation::SendWithInvalidate(key), message)
    }

    /// Queues a send, as [`send`](Self::send), that also invalidates a key of the peer. The key
    /// must be of a window that the peer has bound to this connection: any other fails the
    /// connection.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn send_with_invalidate(
        &mut self,
        buffers: impl Into<SgList>,
        key: RemoteKey,
        tag: u64,
    ) -> Result<(), PostSendError> {
        self.engine.post_buffers(Operation::SendWithInvalidate(key), buffers.into(), tag)
    }

    /// Queues a read of the peer's memory into one to four buffers, in order; its completion gives
    /// them back, filled, with the `tag`.
    ///
    /// A send queued after a read may arrive before the read is done. So tell the peer that its
    /// memory is no longer needed only after the read's completion.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); also [`Error::Misuse`] when a buffer is registered without
    /// [`LOCAL_WRITE`](crate::Access::LOCAL_WRITE).
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn rdma_read(
        &mut self,
        buffers: impl Into<SgList>,
        from: RemoteAddress,
        tag: u64,
    ) -> Result<(), PostSendError> {
        self.engine.post_buffers(Operation::RdmaRead(from), buffers.into(), tag)
    }

    /// Queues a write of one to four buffers, in order, to the peer's memory; its completion gives
    /// them back with the `tag`. The peer is not told: send it a message afterwards, which
    /// arrives when the write is done.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn rdma_write(
        &mut self,
        buffers: impl Into<SgList>,
        to: RemoteAddress,
        tag: u64,
    ) -> Result<(), PostSendError> {
        self.engine.post_buffers(Operation::RdmaWrite(to), buffers.into(), tag)
    }

    /// Queues a write of bytes that are copied at once; otherwise as
    /// [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// As [`send_inline`](Self::send_inline).
    #[inline]
    pub fn rdma_write_inline(&mut self, bytes: &[u8], to: RemoteAddress) -> Result<(), Error> {
        self.engine.reserve_sends(1)?;
        self.engine.post_inline(Operation::RdmaWrite(to), bytes)
    }

    /// Gives the queue pair a window, which it keeps; returns the window's index: the number of
    /// those before it.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`]: the window is of another domain.
    pub fn add_window(&mut self, window: Window) -> Result<usize, Error> {
        self.engine.windows.add(window, self.engine.domain)
    }

    /// Queues the bind of the window at an index to a range of a buffer, and returns the key by
    /// which the peer reaches that range, from the buffer's [address](Buffer::address) on, over
    /// this connection alone. A send that is queued after this may carry the key to the peer.
    ///
    /// The window is [bound](Self::is_bound) until the key is invalid. The buffer stays the
    /// caller's; its bytes change whenever the peer writes them. Success makes a completion only
    /// periodically, as of [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// [`Error::QueueFull`], or [`Error::Misuse`]: there is no such window, or it is bound; the
    /// buffer is of another domain, the range is empty or not within the buffer, the access is
    /// nothing that a window can allow, or the buffer is registered without
    /// [`BIND`](crate::Access::BIND), or without [`LOCAL_WRITE`](crate::Access::LOCAL_WRITE) for a
    /// window that may be written.
    #[inline]
    pub fn bind(&mut self, window: usize, to: &BindInfo<'_>) -> Result<RemoteKey, Error> {
        self.engine.bind(window, to)
    }

    /// Queues the invalidation of the key of the window at an index, which is free after its
    /// completion, a [`CompletedWork::Credit`].
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: process completions first.
    /// * [`Error::Misuse`]: there is no such window, it is not bound, or its key is being
    ///   invalidated already.
    pub fn local_invalidate(&mut self, window: usize) -> Result<(), Error> {
        self.engine.local_invalidate(window)
    }

    /// Returns true while the peer may use the key of the window at an index: it was bound, and
    /// since then no receive of a message that invalidates the key was completed, and no
    /// [invalidation](Self::local_invalidate) by this side.
    ///
    /// A key stays valid if the peer, which was to invalidate it, answered without.
    pub fn is_bound(&self, window: usize) -> bool {
        self.engine.windows.is_bound(window)
    }

    /// Notes and returns the key that a received message invalidated; the window at the index
    /// `likely` is looked at first. Unlike the completion's own
    /// [`invalidated`](crate::provider::WorkCompletion::invalidated) it also knows on devices that
    /// report it ambiguously (rxe): there it is the last key of one of this queue pair's windows.
    #[inline]
    pub fn invalidated(&mut self, completion: &Completion, likely: usize) -> Option<RemoteKey> {
        self.engine.invalidated(completion, likely)
    }

    /// Queues a receive; its completion gives the buffer back with the `tag`.
    ///
    /// # Errors
    ///
    /// Hands the buffer back with [`Error::QueueFull`], or [`Error::Misuse`]: it is empty, of
    /// another domain, or registered without [`LOCAL_WRITE`](crate::Access::LOCAL_WRITE).
    pub fn post_receive(&mut self, buffer: Buffer, tag: u64) -> Result<(), PostBufferError> {
        self.engine.post_receive(buffer, tag)
    }

    /// Copies the beginning of a received message out, and queues its receive again, with the same
    /// buffer and tag: what [`complete`](Self::complete) and
    /// [`post_receive`](Self::post_receive) do together, for less. Returns the message's length;
    /// what `out` has beyond that is left over from other messages. That the message may have
    /// invalidated a key is left to [`invalidated`](Self::invalidated).
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding receive of this queue pair, or of one that
    /// failed.
    ///
    /// # Panics
    ///
    /// When the buffer is shorter than `out`.
    #[inline(always)]
    pub fn repost_receive(
        &mut self,
        completion: &Completion,
        out: &mut [u8],
    ) -> Result<u32, StaleCompletion> {
        self.engine.repost_receive(completion, out)
    }

    /// Hands what is queued to the device: the receives as one batch, then the sends as one.
    ///
    /// # Errors
    ///
    /// [`Error::PostReceive`] or [`Error::PostSend`]: ENOMEM when the device's own queue is
    /// full, EINVAL when it cannot take the request. Those not taken stay queued.
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), Error> {
        self.engine.flush()
    }

    /// Makes room for this number of sends in the queue of pending ones: hands those to the device
    /// if there is none. The sends are then queued without an error of earlier ones.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    #[inline]
    pub fn reserve_sends(&mut self, sends: u32) -> Result<(), Error> {
        self.engine.reserve_sends(sends)
    }

    /// Hands queued sends to the device; queued receives stay queued. A caller that holds them back
    /// rings fewer doorbells, and must leave a posted receive for each answer.
    ///
    /// # Errors
    ///
    /// [`Error::PostSend`], as [`flush`](Self::flush).
    #[inline(always)]
    pub fn flush_sends(&mut self) -> Result<(), Error> {
        self.engine.flush_sends().map_err(|FlushError { source, .. }| Error::PostSend(source))
    }

    /// Frees the slot of a completed work request and returns its buffers, whether it succeeded or
    /// not: [`status`](crate::provider::WorkCompletion::status) says that.
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding work request of this queue pair.
    pub fn complete(&mut self, completion: &Completion) -> Result<CompletedWork, StaleCompletion> {
        self.engine.complete(completion)
    }

    /// Destroys the queue pair, and then returns everything that was still in a slot.
    pub fn close(self) -> Vec<FlushedWork> {
        self.engine.close()
    }

    /// Number of receives that can be queued now.
    pub fn receive_credits(&self) -> u32 {
        self.engine.receives.credits()
    }

    /// Number of receives that are queued and not handed to the device yet.
    #[inline]
    pub fn queued_receives(&self) -> u32 {
        self.engine.pending_receives.len()
    }

    /// Number of sends that can be queued now.
    #[inline]
    pub fn send_credits(&self) -> u32 {
        self.engine.sends.credits()
    }

    /// Number of outstanding sends that hold buffers, or a key to invalidate; each has a completion
    /// to come.
    pub fn sends_with_payload(&self) -> u32 {
        self.engine.sends.payload_count()
    }

    /// Number of doorbells: batches handed to the device, refused ones included.
    pub fn doorbells(&self) -> u64 {
        self.engine.doorbells
    }

    /// Calls by which its sends are posted.
    pub fn api(&self) -> VerbsApi {
        self.engine.api
    }

    /// The queue pair's number, by which its completions are told from those of others.
    pub fn number(&self) -> u32 {
        self.engine.number
    }
}

impl<P: Provider> QueuePair<P> {
    /// Sets the buffer that [`send_message`](Self::send_message) and its variants send from, in
    /// slots of `size` bytes, where messages can also be [read](Self::message_slot) again. Before
    /// the first send only; [`send_inline`](Self::send_inline) and its variants are refused
    /// afterwards.
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
    /// * [`Error::QueueFull`]: process completions first.
    /// * [`Error::Misuse`]: there is no such slot, the message is longer, or slots are longer than
    ///   [`max_inline_data`](crate::QueuePairCapabilities::max_inline_data).
    #[inline(always)] // the length is often known to the caller
    pub fn send_message(&mut self, slot: usize, message: &[u8]) -> Result<(), Error> {
        if self.engine.has_room() {
            self.engine.send_message(slot, message)
        } else {
            self.send_message_after_others(slot, message)
        }
    }

    /// Not inlined: the usual case saves no registers for it.
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

    /// Queues the bind of the window at the index `slot`, as [`bind`](Self::bind), and then the
    /// message that `message` makes of its key, as
    /// [`send_message_signaled`](Self::send_message_signaled): both, or neither. Returns the key.
    ///
    /// # Errors
    ///
    /// As those two.
    #[inline]
    pub fn send_message_with_bind<'m>(
        &mut self,
        slot: usize,
        to: &BindInfo<'_>,
        message: impl FnOnce(RemoteKey) -> &'m [u8],
    ) -> Result<RemoteKey, Error> {
        self.engine.send_message_with_bind(slot, to, message)
    }

    /// Puts a message into a slot and queues sending it with what `data` holds behind it, with a
    /// completion of its own, which gives `data` back with the slot as the tag. The device may read
    /// the slot until then.
    ///
    /// # Errors
    ///
    /// Hands the data back with [`Error::QueueFull`], or [`Error::Misuse`]: there is no such slot,
    /// the message is longer; the data is of another domain, or empty;
    /// [`max_send_sge`](crate::QueuePairCapabilities::max_send_sge) is 1.
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
        self.engine.message_slot(slot)
    }

    /// Frees the slot of a message that was sent with a completion of its own; returns its slot,
    /// and its data if it had some. Does nothing when the completion is of anything else, or not
    /// of success.
    #[inline]
    pub fn complete_message(&mut self, completion: &Completion) -> Option<(u64, Option<Buffer>)> {
        self.engine.complete_message(completion)
    }
}

impl<P: Provider> fmt::Debug for PreparedQueuePair<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedQueuePair").field(&self.engine.number).finish()
    }
}

impl<P: Provider> fmt::Debug for QueuePair<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.engine.number)
            .field("send_credits", &self.engine.sends.credits())
            .field("receive_credits", &self.engine.receives.credits())
            .finish_non_exhaustive()
    }
}

/// Parts of a new queue pair.
pub(crate) struct Parts<P: Provider> {
    pub(crate) raw: P::QueuePair,
    pub(crate) info: QueuePairInfo,
    pub(crate) provider: Arc<P>,
    /// Identity of the domain.
    pub(crate) domain: u64,
    /// Identity of the endpoint that `raw` is bound to.
    pub(crate) connection: u64,
    /// Room in the completion queue.
    pub(crate) reservation: Reservation,
}

#[cfg(test)]
mod tests;
