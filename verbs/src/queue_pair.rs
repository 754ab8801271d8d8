//! Queue pairs: bring-up as types, posting in batches, buffers in slots.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    Binding, Buffer, Completion, Error, Established, Interface, Provider, RdmaCore, Refused,
    RefusedBind, RefusedReceive, RemoteAddress, RemoteKey, Retired, Returned, SEGMENTS_MAX,
    Segments, SharedReceiveQueue, StaleCompletion, Unnamed, Window, WorkKind,
    completion::{Invalidated, Reservation},
    pending::Pending,
    provider::{
        Batch, Operation, Payload, Payloads, PostError, QueuePairFacts, ReceiveRequest, Segment,
        SendRequest,
    },
    segment::{receivable, segment},
    shared_receive_queue::Share,
    slot::{ReceiveTable, SendRing, SendSlot},
    token::{Kind, SLOTS_MAX, Token},
    window::BoundWindows,
};

/// How large a queue pair is made. Everything is allocated then; posting allocates nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capabilities {
    /// How many sends can be outstanding.
    pub send: u32,
    /// How many receives can be outstanding.
    pub receive: u32,
    /// How many buffers one send may gather, 1 to [`SEGMENTS_MAX`].
    pub segments: u32,
    /// How long an inline send may be, in bytes; rxe allows 512. 0 for none.
    pub inline: u32,
}

impl Capabilities {
    /// Refuses what no device could do.
    pub(crate) fn check(self, shared: bool) -> Result<(), Error> {
        let Self { send, receive, segments, .. } = self;
        if shared && receive != 0 {
            return Err(Error::Misuse("with a shared receive queue there are no others"));
        }
        if send == 0 || receive == 0 && !shared {
            return Err(Error::Misuse("a queue pair needs at least one send and one receive"));
        }
        if send > SLOTS_MAX || receive > SLOTS_MAX {
            return Err(Error::Misuse("a queue pair has at most 2^24 sends and 2^24 receives"));
        }
        if segments == 0 || segments as usize > SEGMENTS_MAX {
            return Err(Error::Misuse("a send gathers 1 to 4 buffers"));
        }
        Ok(())
    }
}

/// A queue pair that is not connected yet: receives can be posted, sends cannot.
///
/// ```compile_fail,E0599
/// # fn early(mut queue_pair: verbs::PreparedQueuePair) {
/// queue_pair.send_inline(b"too early"); // no such method before `ready`
/// # }
/// ```
pub struct PreparedQueuePair<P: Provider = RdmaCore, N = Unnamed> {
    engine: Engine<P, N>,
}

/// A connected queue pair.
///
/// Work is queued, for example by [`send`](Self::send), [`rdma_read`](Self::rdma_read),
/// [`bind`](Self::bind) and [`post_receive`](Self::post_receive), and handed to the device by
/// [`flush`](Self::flush): everything of one kind in one chain, with one doorbell. At most
/// [`SENDS_QUEUED_MAX`] sends wait for that; one more hands the others over first. Its buffers
/// stay in the queue pair until its completion is [retired](Self::retire), or the queue pair is
/// [closed](Self::close).
///
/// Requests on the send queue are carried out in the order in which they were queued.
///
/// Dropping a queue pair destroys it first, and then frees what was posted.
///
/// What was read into a buffer is there when the read is retired, not before:
///
/// ```compile_fail,E0382
/// # fn early(queue_pair: &mut verbs::QueuePair, buffer: verbs::Buffer,
/// #          from: verbs::RemoteAddress, out: &mut [u8]) {
/// queue_pair.rdma_read(buffer, from, 1);
/// buffer.copy_out(0, out); // it comes back in `Retired::Send`
/// # }
/// ```
pub struct QueuePair<P: Provider = RdmaCore, N = Unnamed> {
    engine: Engine<P, N>,
}

impl<P: Provider, N> PreparedQueuePair<P, N> {
    pub(crate) fn new(parts: Parts<P>, capabilities: Capabilities) -> Self {
        let Parts { raw, facts, provider, domain, connection, reservation, share } = parts;
        let generation = next_generation();
        let batch = capabilities.send.min(SENDS_QUEUED_MAX);
        let engine = Engine {
            raw,
            provider,
            windows: BoundWindows::new(),
            receives: ReceiveTable::new(capabilities.receive, generation),
            payloads: Payloads::new(
                (batch * capabilities.inline) as usize,
                (batch * capabilities.segments) as usize,
            ),
            sends: SendRing::new(capabilities.send, generation),
            lent: Lent::new(capabilities.send, capabilities.segments),
            messages: None,
            pending_sends: Pending::new(batch, SendRequest::EMPTY),
            pending_receives: Pending::new(capabilities.receive, ReceiveRequest::default()),
            capabilities,
            number: facts.number,
            interface: facts.interface,
            domain,
            connection,
            _reservation: reservation,
            share,
            doorbells: 0,
        };
        Self { engine }
    }

    /// Makes a queue pair that can send, once its endpoint's connection is established.
    ///
    /// # Panics
    ///
    /// When `established` is of another endpoint than this queue pair.
    pub fn ready(self, established: &Established) -> QueuePair<P, N> {
        assert_eq!(
            established.connection(),
            self.engine.connection,
            "the connection that was established is another queue pair's",
        );
        QueuePair { engine: self.engine }
    }

    /// Queues a receive; see [`QueuePair::post_receive`].
    ///
    /// # Errors
    ///
    /// As [`QueuePair::post_receive`].
    pub fn post_receive(&mut self, buffer: Buffer<N>, tag: u64) -> Result<(), RefusedReceive<N>> {
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
    pub fn close(self) -> Vec<Returned<N>> {
        self.engine.close()
    }

    /// The queue pair's number.
    pub fn number(&self) -> u32 {
        self.engine.number
    }
}

impl<P: Provider, N> QueuePair<P, N> {
    /// Whether a buffer is of this queue pair's domain, so that it can be used here, also by the
    /// peer. Where it is not, a peer that is told its key fails the connection.
    #[inline]
    pub fn accepts(&self, buffer: &Buffer<N>) -> bool {
        buffer.domain() == self.engine.domain
    }

    /// Queues a send of a message that is copied at once; it needs no registered memory.
    ///
    /// Success of such a send makes a completion only now and then, often enough that credits
    /// always come back; failure always does.
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: retire completions first.
    /// * [`Error::Misuse`]: the message is longer than [`Capabilities::inline`].
    #[inline(always)] // the length is often known to the caller
    pub fn send_inline(&mut self, message: &[u8]) -> Result<(), Error> {
        self.engine.post_inline(Operation::Send, message)
    }

    /// Has messages sent from a buffer of the caller's from now on, each from a row of so many
    /// bytes, where they can also be [read](Self::message) again. Nothing was sent before, and
    /// [`send_inline`](Self::send_inline) sends nothing after.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`]: the buffer is of another domain, or registered for more than sending;
    /// its length is not a multiple of `size`, which is not 0; something was sent already.
    pub fn keep_messages(&mut self, buffer: Buffer<N>, size: usize) -> Result<(), Error> {
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
    ///   [`Capabilities::inline`].
    #[inline(always)] // the length is often known to the caller
    pub fn send_message(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        self.engine.send_message(row, message)
    }

    /// Puts a message into a row and queues sending it with what `data` holds behind it; its
    /// completion gives `data` back, with the row as the tag. The device may read the row until
    /// then.
    ///
    /// # Errors
    ///
    /// Hands the data back with [`Error::QueueFull`], or [`Error::Misuse`]: there is no such row,
    /// the message is longer; the data is more than [`Capabilities::segments`] allows, which are
    /// one more than its buffers, or cannot be [sent](Self::send).
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn send_message_with(
        &mut self,
        row: usize,
        message: &[u8],
        data: impl Into<Segments<N>>,
    ) -> Result<(), Refused<N>> {
        self.engine.send_message_with(row, message, data.into())
    }

    /// The bytes of a row, if there is one.
    #[inline]
    pub fn message(&self, row: usize) -> Option<&[u8]> {
        let Messages { size, .. } = *self.engine.messages.as_ref()?;
        self.engine.payloads.bytes(row.checked_mul(size)?, u32::try_from(size).ok()?)
    }

    /// Queues a send of one to four buffers; its completion gives them back with the `tag`.
    ///
    /// # Errors
    ///
    /// Hands the buffers back with [`Error::QueueFull`], or [`Error::Misuse`]: no buffer, more
    /// than [`Capabilities::segments`], an empty one, or one of another domain.
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn send(&mut self, segments: impl Into<Segments<N>>, tag: u64) -> Result<(), Refused<N>> {
        self.engine.post_buffers(Operation::Send, segments.into(), tag)
    }

    /// Queues a send, as [`send_inline`](Self::send_inline), that also takes a key of the peer
    /// out of use.
    ///
    /// # Errors
    ///
    /// As [`send_inline`](Self::send_inline).
    pub fn send_inline_with_invalidate(
        &mut self,
        message: &[u8],
        key: RemoteKey,
    ) -> Result<(), Error> {
        self.engine.post_inline(Operation::SendWithInvalidate(key), message)
    }

    /// Queues a send, as [`send`](Self::send), that also takes a key of the peer out of use. The
    /// key must be of a window that the peer has bound to this connection: anything else fails
    /// the connection.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub fn send_with_invalidate(
        &mut self,
        segments: impl Into<Segments<N>>,
        key: RemoteKey,
        tag: u64,
    ) -> Result<(), Refused<N>> {
        self.engine.post_buffers(Operation::SendWithInvalidate(key), segments.into(), tag)
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
        segments: impl Into<Segments<N>>,
        from: RemoteAddress,
        tag: u64,
    ) -> Result<(), Refused<N>> {
        self.engine.post_buffers(Operation::RdmaRead(from), segments.into(), tag)
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
        segments: impl Into<Segments<N>>,
        to: RemoteAddress,
        tag: u64,
    ) -> Result<(), Refused<N>> {
        self.engine.post_buffers(Operation::RdmaWrite(to), segments.into(), tag)
    }

    /// Queues a write of bytes that are copied at once; otherwise as
    /// [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// As [`send_inline`](Self::send_inline).
    #[inline]
    pub fn rdma_write_inline(&mut self, bytes: &[u8], to: RemoteAddress) -> Result<(), Error> {
        self.engine.post_inline(Operation::RdmaWrite(to), bytes)
    }

    /// Queues the binding of a window to a range of a buffer, and returns the key by which the
    /// peer reaches that range, at the buffer's [address](Buffer::address) and behind, over this
    /// connection alone. The key may be told to the peer by a send that is queued after this.
    ///
    /// The queue pair keeps the window; [`reclaim`](Self::reclaim) gives it back. The buffer stays
    /// yours: meanwhile its bytes change whenever the peer writes them. Success makes a
    /// completion only now and then, as of [`send_inline`](Self::send_inline).
    ///
    /// # Errors
    ///
    /// Hands the window back with [`Error::QueueFull`], or [`Error::Misuse`]: window or buffer is
    /// of another domain, the range is empty or not within the buffer, the access is nothing that a
    /// window can allow, or the buffer is registered without [`BIND`](crate::Access::BIND), or
    /// without [`LOCAL_WRITE`](crate::Access::LOCAL_WRITE) for a window that may be written.
    pub fn bind(
        &mut self,
        window: Window<N>,
        to: Binding<'_, N>,
    ) -> Result<RemoteKey, RefusedBind<N>> {
        self.engine.bind(window, to)
    }

    /// Queues taking a window's key out of use. Once the completion is retired, as
    /// [`Retired::Credit`], [`reclaim`](Self::reclaim) gives the window back.
    ///
    /// # Errors
    ///
    /// * [`Error::QueueFull`]: retire completions first.
    /// * [`Error::Misuse`]: no window is bound to this queue pair with that key, or it is being
    ///   taken out of use already.
    pub fn local_invalidate(&mut self, key: RemoteKey) -> Result<(), Error> {
        self.engine.local_invalidate(key)
    }

    /// Gives a window back whose key is out of use: because the peer sent with invalidate, and
    /// that receive is retired, or because this side [did](Self::local_invalidate). Nothing while
    /// the peer may still use the key.
    ///
    /// A peer that was to invalidate a key, and answered without, has left it in use.
    pub fn reclaim(&mut self, key: RemoteKey) -> Option<Window<N>> {
        self.engine.windows.reclaim(key)
    }

    /// Makes room for windows: up to `count` can be bound at a time without allocating.
    pub fn reserve_windows(&mut self, count: usize) {
        self.engine.windows.reserve(count);
    }

    /// The key that a received message took out of use. Unlike [`Completion::invalidated`] it
    /// also knows on devices that do not say plainly (rxe): there it is one of this queue pair's
    /// windows that are bound, or not reclaimed yet.
    pub fn invalidated(&self, completion: &Completion) -> Option<RemoteKey> {
        match completion.invalidated {
            Invalidated::Certainly(key) => Some(key),
            Invalidated::Perhaps(key) => self.engine.windows.contains(key).then_some(key),
            Invalidated::No => None,
        }
    }

    /// Queues a receive; its completion gives the buffer back with the `tag`.
    ///
    /// # Errors
    ///
    /// Hands the buffer back with [`Error::QueueFull`], or [`Error::Misuse`]: it is empty, of
    /// another domain, or registered without [`LOCAL_WRITE`](crate::Access::LOCAL_WRITE).
    pub fn post_receive(&mut self, buffer: Buffer<N>, tag: u64) -> Result<(), RefusedReceive<N>> {
        self.engine.post_receive(buffer, tag)
    }

    /// Copies the beginning of a received message out, and queues its receive again, with the same
    /// buffer and tag: what [`retire`](Self::retire) and
    /// [`post_receive`](Self::post_receive) do together, for less. Returns the message's length;
    /// what `out` has beyond that is left over from other messages.
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding receive of this queue pair, or of one that
    /// failed.
    ///
    /// # Panics
    ///
    /// When the buffer is shorter than `out`.
    #[inline]
    pub fn receive_again(
        &mut self,
        completion: &Completion,
        out: &mut [u8],
    ) -> Result<u32, StaleCompletion> {
        self.engine.receive_again(completion, out)
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

    /// Hands what is queued for sending to the device; queued receives stay queued. Whoever holds
    /// them back rings fewer doorbells, and sees to it that there is a receive for each answer.
    ///
    /// # Errors
    ///
    /// [`Error::PostSend`], as [`flush`](Self::flush).
    #[inline(always)]
    pub fn flush_sends(&mut self) -> Result<(), Error> {
        self.engine.flush_sends().map_err(|Unposted { source, .. }| Error::PostSend(source))
    }

    /// Frees the slot of a completed work request and returns what it held, whether it succeeded
    /// or not: look at [`Completion::status`].
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding work request of this queue pair.
    pub fn retire(&mut self, completion: &Completion) -> Result<Retired<N>, StaleCompletion> {
        self.engine.retire(completion)
    }

    /// The same, for the completion of a receive that this queue pair took from a shared queue.
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding receive of that queue, or of another queue
    /// pair.
    pub fn retire_shared(
        &mut self,
        completion: &Completion,
        shared: &mut SharedReceiveQueue<P, N>,
    ) -> Result<Retired<N>, StaleCompletion> {
        self.engine.retire_shared(completion, shared)
    }

    /// Destroys the queue pair, and then returns everything that was still in a slot.
    pub fn close(self) -> Vec<Returned<N>> {
        self.engine.close()
    }

    /// How many receives can be queued now.
    pub fn receive_credits(&self) -> u32 {
        self.engine.receives.credits()
    }

    /// How many receives are queued and not handed to the device yet.
    #[inline]
    pub fn queued_receives(&self) -> u32 {
        self.engine.pending_receives.len()
    }

    /// How many sends can be queued now.
    #[inline]
    pub fn send_credits(&self) -> u32 {
        self.engine.sends.credits()
    }

    /// How many sends are out that have a completion to come with what they hold.
    pub fn held_sends(&self) -> u32 {
        self.engine.sends.holding()
    }

    /// How often it has handed work to the device, each time with one doorbell; a batch that the
    /// device refused counts too.
    pub fn doorbells(&self) -> u64 {
        self.engine.doorbells
    }

    /// By which calls its sends are posted.
    pub fn interface(&self) -> Interface {
        self.engine.interface
    }

    /// The queue pair's number, by which completions of a shared queue are told apart.
    pub fn number(&self) -> u32 {
        self.engine.number
    }
}

impl<P: Provider, N> fmt::Debug for PreparedQueuePair<P, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedQueuePair").field(&self.engine.number).finish()
    }
}

impl<P: Provider, N> fmt::Debug for QueuePair<P, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.engine.number)
            .field("send_credits", &self.engine.sends.credits())
            .field("receive_credits", &self.engine.receives.credits())
            .finish_non_exhaustive()
    }
}

/// What a queue pair is put together from.
pub(crate) struct Parts<P: Provider> {
    pub(crate) raw: P::QueuePair,
    pub(crate) facts: QueuePairFacts,
    pub(crate) provider: Arc<P>,
    /// Identity of the domain.
    pub(crate) domain: u64,
    /// Identity of the endpoint that `raw` is bound to.
    pub(crate) connection: u64,
    /// Room in the completion queue.
    pub(crate) reservation: Reservation,
    pub(crate) share: Option<Share>,
}

/// What both states share. Fields drop in order: bound windows before the device's queue pair,
/// which rxe would wait for in vain; that before the buffers it may still use.
struct Engine<P: Provider, N> {
    windows: BoundWindows<N>,
    raw: P::QueuePair,
    provider: Arc<P>,
    sends: SendRing<Held>,
    /// The buffers of each slot of `sends`.
    lent: Lent<N>,
    receives: ReceiveTable<(Buffer<N>, u64)>,
    /// For each pending send the longest inline message, and the most segments.
    payloads: Payloads,
    messages: Option<Messages>,
    pending_sends: Pending<SendRequest>,
    pending_receives: Pending<ReceiveRequest>,
    capabilities: Capabilities,
    number: u32,
    interface: Interface,
    domain: u64,
    connection: u64,
    _reservation: Reservation,
    share: Option<Share>,
    doorbells: u64,
}

/// What a slot of the send queue holds.
enum Held {
    /// Buffers, if any, that come back with this tag.
    Buffers(u64),
    Invalidation(RemoteKey),
}

/// Messages that are kept in the payloads, not copied there.
struct Messages {
    /// Of each, in bytes.
    size: usize,
    rows: usize,
    /// Whether the device takes that many inside a work request.
    inline: bool,
}

/// Which of the two batches was not taken as a whole, and why; small enough for registers.
struct Unposted {
    kind: WorkKind,
    source: io::Error,
}

impl<P: Provider, N> Engine<P, N> {
    #[inline(always)] // most of what it decides is known to its callers
    fn post_inline(&mut self, operation: Operation, message: &[u8]) -> Result<(), Error> {
        // No `ok_or`, which would make and drop an error for each message.
        let Some(length) = self.inline_length(message) else { return Err(too_long()) };
        self.make_room()?;
        let Some(slot) = self.sends.take_inline() else { return Err(full()) };
        let offset = self.pending_sends.next() * self.capabilities.inline as usize;
        self.payloads.put_bytes(offset, message);
        self.push(slot, operation, Payload::Inline { offset, length });
        Ok(())
    }

    fn inline_length(&self, message: &[u8]) -> Option<u32> {
        let length = u32::try_from(message.len()).ok()?;
        (length <= self.capabilities.inline && self.messages.is_none()).then_some(length)
    }

    fn keep_messages(&mut self, buffer: Buffer<N>, size: usize) -> Result<(), Error> {
        segment(self.domain, &buffer)?;
        if !buffer.is_read_only() {
            return Err(Error::Misuse("messages are kept in a buffer registered for sending only"));
        }
        if size == 0 || !buffer.len().is_multiple_of(size) {
            return Err(Error::Misuse("a buffer for messages holds some of one size"));
        }
        if self.sends.credits() != self.capabilities.send {
            return Err(Error::Misuse("messages cannot be kept once something was sent"));
        }
        let rows = buffer.len() / size;
        self.payloads.keep(buffer.unnamed());
        // One segment is for the message.
        let buffers = self.capabilities.segments - 1;
        self.lent = Lent::new(self.capabilities.send, buffers);
        let inline = size <= self.capabilities.inline as usize;
        self.messages = Some(Messages { size, rows, inline });
        Ok(())
    }

    /// Where a message goes that is no longer than its row, and how long it is.
    #[inline(always)]
    fn row(&self, row: usize, message: &[u8]) -> Option<(usize, u32, bool)> {
        let Messages { size, rows, inline } = *self.messages.as_ref()?;
        let length = u32::try_from(message.len()).ok()?;
        (row < rows && message.len() <= size).then_some((row * size, length, inline))
    }

    #[inline(always)]
    fn send_message(&mut self, row: usize, message: &[u8]) -> Result<(), Error> {
        let Some((offset, length, true)) = self.row(row, message) else { return Err(no_row()) };
        self.make_room()?;
        let Some(slot) = self.sends.take_inline() else { return Err(full()) };
        self.payloads.put_bytes(offset, message);
        self.push(slot, Operation::Send, Payload::Inline { offset, length });
        Ok(())
    }

    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    #[inline]
    fn send_message_with(
        &mut self,
        row: usize,
        message: &[u8],
        data: Segments<N>,
    ) -> Result<(), Refused<N>> {
        let Some((offset, length, inline)) = self.row(row, message) else {
            return Err(Refused { error: no_row(), segments: data });
        };
        if let Err(error) = self.make_room() {
            return Err(Refused { error, segments: data });
        }
        let payload = match inline && data.is_empty() {
            true => Ok(Payload::Inline { offset, length }),
            false => self.gather(self.payloads.kept(offset, length), false, &data),
        };
        match payload {
            Ok(payload) => {
                self.hold((Operation::Send, payload), data, row as u64)?;
                self.payloads.put_bytes(offset, message);
                Ok(())
            }
            Err(error) => Err(Refused { error, segments: data }),
        }
    }

    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    fn post_buffers(
        &mut self,
        operation: Operation,
        segments: Segments<N>,
        tag: u64,
    ) -> Result<(), Refused<N>> {
        let reads = matches!(operation, Operation::RdmaRead(_));
        let payload = match segments.is_empty() {
            true => Err(Error::Misuse("a send needs a buffer; an empty message goes inline")),
            false => self.make_room().and_then(|()| self.gather(None, reads, &segments)),
        };
        match payload {
            Ok(payload) => self.hold((operation, payload), segments, tag),
            Err(error) => Err(Refused { error, segments }),
        }
    }

    /// Queues a request that has a completion of its own, which gives the buffers back.
    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    #[inline]
    fn hold(
        &mut self,
        (operation, payload): (Operation, Payload),
        segments: Segments<N>,
        tag: u64,
    ) -> Result<(), Refused<N>> {
        let Ok(slot) = self.sends.take_holding(Held::Buffers(tag)) else {
            return Err(Refused { error: Error::QueueFull, segments });
        };
        self.lent.put(slot.index, segments);
        self.push(slot, operation, payload);
        Ok(())
    }

    #[inline(always)]
    fn push(&mut self, slot: SendSlot, operation: Operation, payload: Payload) {
        let SendSlot { token, signaled, .. } = slot;
        self.pending_sends.push(SendRequest { token, signaled, operation, payload });
    }

    /// Hands over what is queued if no more can be.
    #[inline(always)]
    fn make_room(&mut self) -> Result<(), Error> {
        match self.pending_sends.is_full() {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    #[cold]
    fn hand_over(&mut self) -> Result<(), Error> {
        self.flush()
    }

    fn bind(&mut self, window: Window<N>, to: Binding<'_, N>) -> Result<RemoteKey, RefusedBind<N>> {
        let buffer = to.buffer;
        let bind = match self.make_room().and_then(|()| window.request(self.domain, to)) {
            Ok(bind) => bind,
            Err(error) => return Err(RefusedBind { error, window }),
        };
        let Some(slot) = self.sends.take_inline() else {
            return Err(RefusedBind { error: Error::QueueFull, window });
        };
        self.windows.insert(window, &bind, buffer);
        self.push(slot, Operation::BindWindow(bind), Payload::Nothing);
        Ok(bind.key)
    }

    fn local_invalidate(&mut self, key: RemoteKey) -> Result<(), Error> {
        self.make_room()?;
        self.windows.begin_invalidation(key)?;
        let Ok(slot) = self.sends.take_holding(Held::Invalidation(key)) else {
            self.windows.cancel_invalidation(key);
            return Err(Error::QueueFull);
        };
        self.push(slot, Operation::LocalInvalidate(key), Payload::Nothing);
        Ok(())
    }

    fn post_receive(&mut self, buffer: Buffer<N>, tag: u64) -> Result<(), RefusedReceive<N>> {
        let segment = match receivable(self.domain, &buffer) {
            Ok(segment) => segment,
            Err(error) => return Err(RefusedReceive { error, buffer }),
        };
        match self.receives.take((buffer, tag)) {
            Ok(token) => {
                self.pending_receives.push(ReceiveRequest { token, segment });
                Ok(())
            }
            Err((buffer, _)) => Err(RefusedReceive { error: Error::QueueFull, buffer }),
        }
    }

    #[inline(always)] // small, as what is not is apart
    fn flush(&mut self) -> Result<(), Error> {
        // Receives first: an answer to one of the sends may need them.
        let flushed =
            if self.pending_receives.is_empty() { self.flush_sends() } else { self.flush_both() };
        flushed.map_err(|Unposted { kind, source }| match kind {
            WorkKind::Receive => Error::PostReceive(source),
            WorkKind::Send => Error::PostSend(source),
        })
    }

    /// Apart, so that the calls that have only sends save no registers for it.
    #[inline(never)]
    fn flush_both(&mut self) -> Result<(), Unposted> {
        self.doorbells += 1;
        let (queue_pair, requests) = (&mut self.raw, self.pending_receives.as_slice());
        let result = self.provider.post(Batch::Receives { queue_pair, requests });
        let settled = self.pending_receives.settle(result);
        settled.map_err(|source| Unposted { kind: WorkKind::Receive, source })?;
        self.flush_sends()
    }

    #[inline(always)]
    fn flush_sends(&mut self) -> Result<(), Unposted> {
        if self.pending_sends.is_empty() {
            return Ok(());
        }
        self.doorbells += 1;
        let (queue_pair, requests) = (&mut self.raw, self.pending_sends.as_slice());
        let payloads = &self.payloads;
        let result = self.provider.post(Batch::Sends { queue_pair, requests, payloads });
        match result {
            Ok(()) => {
                self.pending_sends.clear();
                Ok(())
            }
            Err(refused) => Err(self.keep_rest(refused)),
        }
    }

    /// Moves the sends that were not taken to the front, with their payloads.
    #[cold]
    fn keep_rest(&mut self, refused: PostError) -> Unposted {
        let before = self.pending_sends.len();
        let source = self.pending_sends.settle(Err(refused)).expect_err("it was refused");
        let gone = before - self.pending_sends.len();
        let Capabilities { inline, segments, .. } = self.capabilities;
        let (bytes, segments) = ((gone * inline) as usize, (gone * segments) as usize);
        self.payloads.forget_front(bytes, segments);
        let copied = self.payloads.is_copied();
        for request in self.pending_sends.as_mut_slice() {
            match &mut request.payload {
                Payload::Inline { offset, .. } if copied => *offset -= bytes,
                Payload::Segments { first, .. } => *first -= segments,
                Payload::Inline { .. } | Payload::Nothing => {}
            }
        }
        Unposted { kind: WorkKind::Send, source }
    }

    fn retire(&mut self, completion: &Completion) -> Result<Retired<N>, StaleCompletion> {
        let token = Token::unpack(completion.token).ok_or(StaleCompletion)?;
        if completion.queue_pair != self.number {
            return Err(StaleCompletion);
        }
        match token.kind {
            Kind::Send => {
                let held = self.sends.retire(completion.token).ok_or(StaleCompletion)?;
                Ok(match held {
                    Some((index, Held::Buffers(tag))) => {
                        Retired::Send { tag, segments: self.lent.take(index) }
                    }
                    Some((_, Held::Invalidation(key))) => {
                        if completion.status.is_success() {
                            self.windows.invalidated(key);
                        }
                        Retired::Credit
                    }
                    None => Retired::Credit,
                })
            }
            Kind::Receive => {
                let held = self.receives.retire(token.slot, token.generation);
                let (buffer, tag) = held.ok_or(StaleCompletion)?;
                self.note_invalidated(completion);
                let length = if completion.status.is_success() { completion.length } else { 0 };
                Ok(Retired::Receive { tag, buffer, length })
            }
        }
    }

    #[inline]
    fn receive_again(
        &mut self,
        completion: &Completion,
        out: &mut [u8],
    ) -> Result<u32, StaleCompletion> {
        let Some(Token { kind: Kind::Receive, slot, generation }) = Token::unpack(completion.token)
        else {
            return Err(StaleCompletion);
        };
        if completion.queue_pair != self.number || !completion.status.is_success() {
            return Err(StaleCompletion);
        }
        let (token, (buffer, _)) = self.receives.renew(slot, generation).ok_or(StaleCompletion)?;
        buffer.copy_out(0, out);
        // It was checked when it was posted first.
        self.pending_receives.push(ReceiveRequest { token, segment: Segment::of(buffer) });
        self.note_invalidated(completion);
        Ok(completion.length)
    }

    fn retire_shared(
        &mut self,
        completion: &Completion,
        shared: &mut SharedReceiveQueue<P, N>,
    ) -> Result<Retired<N>, StaleCompletion> {
        if completion.queue_pair != self.number || self.share.is_none() {
            return Err(StaleCompletion);
        }
        let retired = shared.retire(completion)?;
        self.note_invalidated(completion);
        Ok(retired)
    }

    #[inline]
    fn note_invalidated(&mut self, completion: &Completion) {
        match completion.invalidated {
            Invalidated::Certainly(key) | Invalidated::Perhaps(key) => {
                self.windows.invalidated(key);
            }
            Invalidated::No => {}
        }
    }

    fn close(self) -> Vec<Returned<N>> {
        let Self { windows, raw, mut sends, mut lent, mut receives, .. } = self;
        drop(windows);
        drop(raw); // the device lets go of the buffers before anybody else gets them
        let sends = sends.drain().filter_map(|(index, held)| match held {
            Held::Buffers(tag) => {
                Some(Returned { tag, kind: WorkKind::Send, buffers: lent.take(index) })
            }
            Held::Invalidation(_) => None,
        });
        let receives = receives.drain().map(|(buffer, tag)| Returned {
            tag,
            kind: WorkKind::Receive,
            buffers: buffer.into(),
        });
        sends.chain(receives).collect()
    }

    /// Checks the buffers, and notes where they and what goes first are, for the send that is queued
    /// next.
    fn gather(
        &mut self,
        first: Option<Segment>,
        reads: bool,
        segments: &Segments<N>,
    ) -> Result<Payload, Error> {
        let room = self.capabilities.segments as usize;
        let count = usize::from(first.is_some()) + segments.len();
        if count > room {
            return Err(Error::Misuse("more buffers than the queue pair's segments"));
        }
        let domain = self.domain;
        let segment =
            |buffer| if reads { receivable(domain, buffer) } else { segment(domain, buffer) };
        let start = self.pending_sends.next() * room;
        let row = self.payloads.segments_mut(start, count);
        let all = first.map(Ok).into_iter().chain(segments.iter().map(segment));
        for (place, segment) in row.iter_mut().zip(all) {
            *place = segment?;
        }
        let count = u32::try_from(count).expect("a send has a few segments");
        Ok(Payload::Segments { first: start, count })
    }
}

/// The buffers of sends that are out, beside their slots: as many for each as it may have.
struct Lent<N> {
    rows: Box<[Option<Buffer<N>>]>,
    each: usize,
}

impl<N> Lent<N> {
    fn new(slots: u32, each: u32) -> Self {
        Self { rows: (0..slots * each).map(|_| None).collect(), each: each as usize }
    }

    #[inline]
    fn put(&mut self, slot: usize, segments: Segments<N>) {
        let row = self.rows[slot * self.each..].iter_mut();
        row.zip(segments).for_each(|(place, buffer)| *place = Some(buffer));
    }

    #[inline]
    fn take(&mut self, slot: usize) -> Segments<N> {
        let row = &mut self.rows[slot * self.each..][..self.each];
        row.iter_mut().map_while(Option::take).collect()
    }
}

#[cold]
fn full() -> Error {
    Error::QueueFull
}

#[cold]
fn too_long() -> Error {
    Error::Misuse("the message is longer than the queue pair's inline size")
}

#[cold]
fn no_row() -> Error {
    Error::Misuse("there is no such row, or the message is longer, or cannot go inline")
}

/// How many sends wait at most to be handed to the device. A doorbell for more of them saves
/// nothing that can be measured; what they take is kept for each queue pair.
pub const SENDS_QUEUED_MAX: u32 = 64;

/// Far apart, so that a completion of an earlier queue pair of the same number is stale.
pub(crate) fn next_generation() -> u32 {
    GENERATION.fetch_add(GENERATION_STEP, Ordering::Relaxed)
}

/// Odd, so that all numbers are visited; large, so that neighbours are far apart.
const GENERATION_STEP: u32 = 0x9E37_79B1;

static GENERATION: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests;
