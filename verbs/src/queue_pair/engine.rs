//! Engine of a queue pair, connected or not: queueing, posting, and completing work.

mod message_slots;

use std::{io, sync::Arc};

use self::message_slots::MessageSlots;
use super::{
    Parts,
    in_flight_buffers::InFlightBuffers,
    receive_table::ReceiveTable,
    request_queue::RequestQueue,
    send_ring::{InlineSlot, SendRing, SendSlot},
};
use crate::{
    BindInfo, Buffer, CompletedWork, Completion, Error, FlushedWork, PostBufferError,
    PostSendError, Provider, QueuePairCapabilities, RemoteKey, SENDS_QUEUED_MAX, SgList,
    StaleCompletion, VerbsApi, WorkKind,
    completion::Invalidated,
    completion_queue::Reservation,
    provider::{Batch, Operation, Payload, Payloads, PostError, ReceiveRequest, SendRequest, Sge},
    sge::{receivable, sge},
    token::{Token, next_generation},
    window::WindowTable,
};

/// State of a queue pair, connected or not. Fields drop in order: bound windows before the device's
/// queue pair, which rxe would wait for in vain; that before the buffers it may still use.
pub(super) struct Engine<P: Provider> {
    pub(super) windows: WindowTable,
    pub(super) raw: P::QueuePair,
    pub(super) provider: Arc<P>,
    pub(super) sends: SendRing<SlotPayload>,
    /// The buffers of each slot of `sends`.
    pub(super) in_flight: InFlightBuffers,
    pub(super) receives: ReceiveTable<(Buffer, u64)>,
    /// Storage for each pending send: the longest inline message, and the most elements.
    pub(super) payloads: Payloads,
    pub(super) messages: MessageSlots,
    pub(super) pending_sends: RequestQueue<SendRequest>,
    pub(super) pending_receives: RequestQueue<ReceiveRequest>,
    pub(super) capabilities: QueuePairCapabilities,
    /// Maximum length of a copied message: 0 with a message buffer.
    pub(super) inline_max: u32,
    pub(super) number: u32,
    pub(super) api: VerbsApi,
    pub(super) domain: u64,
    pub(super) connection: u64,
    pub(super) _reservation: Reservation,
    pub(super) doorbells: u64,
}

/// Payload of a slot of the send queue.
#[derive(Clone, Copy)]
pub(super) enum SlotPayload {
    /// Buffers that come back with this tag.
    Buffers(u64),
    /// Key of the window at this index.
    Invalidation(RemoteKey, u32),
    /// Message slot.
    Message(u64),
    /// Message slot; it has a buffer with data.
    MessageWithData(u64),
}

/// Error of a flush: the batch that was not accepted as a whole; small enough for registers.
pub(super) struct FlushError {
    pub(super) kind: WorkKind,
    pub(super) source: io::Error,
}

impl<P: Provider> Engine<P> {
    pub(super) fn new(parts: Parts<P>, capabilities: QueuePairCapabilities) -> Self {
        let Parts { raw, info, provider, domain, connection, reservation } = parts;
        let generation = next_generation();
        let batch = capabilities.max_send_wr.min(SENDS_QUEUED_MAX);
        Self {
            raw,
            provider,
            windows: WindowTable::default(),
            receives: ReceiveTable::new(capabilities.max_recv_wr, generation),
            payloads: Payloads::new(
                (batch * capabilities.max_inline_data) as usize,
                (batch * capabilities.max_send_sge) as usize,
            ),
            sends: SendRing::new(capabilities.max_send_wr, generation),
            in_flight: InFlightBuffers::new(capabilities.max_send_wr, capabilities.max_send_sge),
            messages: MessageSlots::default(),
            pending_sends: RequestQueue::new(batch, SendRequest::EMPTY),
            pending_receives: RequestQueue::new(
                capabilities.max_recv_wr,
                ReceiveRequest::default(),
            ),
            capabilities,
            inline_max: capabilities.max_inline_data,
            number: info.number,
            api: info.api,
            domain,
            connection,
            _reservation: reservation,
            doorbells: 0,
        }
    }

    /// Queues an inline message, for which there is [room](Self::has_room).
    #[inline(always)] // most of what it decides is known to its callers
    pub(super) fn post_inline(
        &mut self,
        operation: Operation,
        message: &[u8],
    ) -> Result<(), Error> {
        // No `ok_or`, which would make and drop an error for each message.
        let Some(length) = self.inline_length(message) else { return Err(too_long()) };
        let Some(place) = self.pending_sends.vacant_entry() else { return Err(full()) };
        let Some(InlineSlot { token, signaled }) = self.sends.take_inline() else {
            return Err(full());
        };
        let offset = place.index() * self.inline_max as usize;
        self.payloads.write_inline(offset, message);
        let payload = Payload::Inline { offset, length };
        place.fill(SendRequest { token, signaled, operation, payload });
        Ok(())
    }

    fn inline_length(&self, message: &[u8]) -> Option<u32> {
        let length = u32::try_from(message.len()).ok()?;
        (length <= self.inline_max).then_some(length)
    }

    #[expect(clippy::result_large_err, reason = "buffers are handed back without allocating")]
    pub(super) fn post_buffers(
        &mut self,
        operation: Operation,
        buffers: SgList,
        tag: u64,
    ) -> Result<(), PostSendError> {
        let reads = matches!(operation, Operation::RdmaRead(_));
        let payload = if buffers.is_empty() {
            Err(Error::Misuse("a send needs a buffer; an empty message goes inline"))
        } else {
            self.reserve_sends(1).and_then(|()| self.gather(reads, &buffers))
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return Err(PostSendError { error, buffers }),
        };
        let Ok(slot) = self.sends.take_with_payload(SlotPayload::Buffers(tag)) else {
            return Err(PostSendError { error: Error::QueueFull, buffers });
        };
        self.in_flight.put(slot.index, buffers);
        self.push(slot, operation, payload);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn push(&mut self, slot: SendSlot, operation: Operation, payload: Payload) {
        let SendSlot { token, .. } = slot;
        self.pending_sends.push(SendRequest { token, signaled: true, operation, payload });
    }

    #[inline(always)]
    pub(super) fn push_inline(&mut self, slot: InlineSlot, operation: Operation, payload: Payload) {
        let InlineSlot { token, signaled } = slot;
        self.pending_sends.push(SendRequest { token, signaled, operation, payload });
    }

    /// Returns true if one more request can be queued before a doorbell.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        !self.pending_sends.is_full()
    }

    /// Hands over the queued sends if this number does not fit behind them. Where the send queue
    /// itself is full that would make no room, and is left to [`flush`](Self::flush).
    #[inline(always)]
    pub(super) fn reserve_sends(&mut self, sends: u32) -> Result<(), Error> {
        if self.pending_sends.has_room(sends) {
            Ok(())
        } else if self.sends.is_full() {
            Err(full())
        } else {
            self.hand_over()
        }
    }

    #[cold]
    fn hand_over(&mut self) -> Result<(), Error> {
        self.flush()
    }

    #[inline]
    pub(super) fn bind(&mut self, index: usize, to: &BindInfo<'_>) -> Result<RemoteKey, Error> {
        self.reserve_sends(1)?;
        let key = self.windows.check(index, self.domain, to)?;
        let Some(slot) = self.sends.take_inline() else { return Err(full()) };
        let bind = self.windows.begin(index, to);
        self.push_inline(slot, Operation::BindWindow(bind), Payload::Nothing);
        Ok(key)
    }

    pub(super) fn local_invalidate(&mut self, index: usize) -> Result<(), Error> {
        self.reserve_sends(1)?;
        let key = self.windows.begin_invalidation(index)?;
        let number = u32::try_from(index).expect("there are not as many windows");
        let payload = SlotPayload::Invalidation(key, number);
        let Ok(slot) = self.sends.take_with_payload(payload) else {
            self.windows.cancel_invalidation(index);
            return Err(Error::QueueFull);
        };
        self.push(slot, Operation::LocalInvalidate(key), Payload::Nothing);
        Ok(())
    }

    pub(super) fn post_receive(&mut self, buffer: Buffer, tag: u64) -> Result<(), PostBufferError> {
        let sge = match receivable(self.domain, &buffer) {
            Ok(sge) => sge,
            Err(error) => return Err(PostBufferError { error, buffer }),
        };
        match self.receives.take((buffer, tag)) {
            Ok(token) => {
                self.pending_receives.push(ReceiveRequest { token, sge });
                Ok(())
            }
            Err((buffer, _)) => Err(PostBufferError { error: Error::QueueFull, buffer }),
        }
    }

    #[inline(always)] // small, as what is not is apart
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        // Receives first: an answer to one of the sends may need them.
        let flushed =
            if self.pending_receives.is_empty() { self.flush_sends() } else { self.flush_both() };
        flushed.map_err(|FlushError { kind, source }| match kind {
            WorkKind::Receive => Error::PostReceive(source),
            WorkKind::Send => Error::PostSend(source),
        })
    }

    /// Not inlined: the calls that have only sends save no registers for it.
    #[inline(never)]
    fn flush_both(&mut self) -> Result<(), FlushError> {
        self.doorbells += 1;
        let outstanding = self.capabilities.max_recv_wr - self.receives.credits();
        debug_assert!(self.pending_receives.len() <= outstanding, "each queued receive has a slot");
        let (queue_pair, requests) = (&mut self.raw, self.pending_receives.as_slice());
        let result = self.provider.post(Batch::Receives { queue_pair, requests });
        let settled = self.pending_receives.settle(result);
        settled.map_err(|source| FlushError { kind: WorkKind::Receive, source })?;
        self.flush_sends()
    }

    #[inline(always)]
    pub(super) fn flush_sends(&mut self) -> Result<(), FlushError> {
        if self.pending_sends.is_empty() {
            return Ok(());
        }
        self.doorbells += 1;
        let outstanding = self.capabilities.max_send_wr - self.sends.credits();
        debug_assert!(self.pending_sends.len() <= outstanding, "each queued send has a slot");
        let (queue_pair, requests) = (&mut self.raw, self.pending_sends.as_slice());
        let (payloads, windows) = (&self.payloads, &mut self.windows);
        let result = self.provider.post(Batch::Sends { queue_pair, requests, payloads, windows });
        match result {
            Ok(()) => {
                self.pending_sends.clear();
                Ok(())
            }
            Err(refused) => Err(self.keep_unposted(refused)),
        }
    }

    /// Moves the sends that were not taken to the front, with their payloads.
    #[cold]
    fn keep_unposted(&mut self, refused: PostError) -> FlushError {
        let before = self.pending_sends.len();
        let source = self.pending_sends.settle(Err(refused)).expect_err("it was refused");
        let gone = before - self.pending_sends.len();
        let bytes = (gone * self.capabilities.max_inline_data) as usize;
        let sges = (gone * self.capabilities.max_send_sge) as usize;
        self.payloads.discard_front(bytes, sges);
        let copied = self.payloads.is_copied();
        for request in self.pending_sends.as_mut_slice() {
            match &mut request.payload {
                Payload::Inline { offset, .. } if copied => *offset -= bytes,
                Payload::SgList { first, .. } => *first -= sges,
                Payload::Inline { .. } | Payload::Nothing => {}
            }
        }
        FlushError { kind: WorkKind::Send, source }
    }

    pub(super) fn complete(
        &mut self,
        completion: &Completion,
    ) -> Result<CompletedWork, StaleCompletion> {
        let token = Token::unpack(completion.token).ok_or(StaleCompletion)?;
        if completion.queue_pair != self.number {
            return Err(StaleCompletion);
        }
        match token.kind {
            WorkKind::Send => match self.sends.complete(completion.token).ok_or(StaleCompletion)? {
                Some((slot, payload)) => Ok(self.release_send(slot, &payload, completion)),
                None => Ok(CompletedWork::Credit),
            },
            WorkKind::Receive if matches!(completion.invalidated, Invalidated::No) => {
                self.complete_receive(completion)
            }
            WorkKind::Receive => self.complete_invalidating(completion),
        }
    }

    #[inline(always)]
    fn complete_receive(
        &mut self,
        completion: &Completion,
    ) -> Result<CompletedWork, StaleCompletion> {
        let held = self.receives.complete(completion.token);
        let (buffer, tag) = held.ok_or(StaleCompletion)?;
        let length = if completion.status.is_success() { completion.length } else { 0 };
        Ok(CompletedWork::Receive { tag, buffer, length })
    }

    /// Completes a receive that has invalidated a key. Apart, so that others save fewer registers.
    #[inline(never)]
    fn complete_invalidating(
        &mut self,
        completion: &Completion,
    ) -> Result<CompletedWork, StaleCompletion> {
        let completed = self.complete_receive(completion)?;
        self.invalidated(completion, 0);
        Ok(completed)
    }

    /// Releases the payload of a completed send. Apart, since it moves more than the other cases.
    #[inline(never)]
    fn release_send(
        &mut self,
        slot: usize,
        payload: &SlotPayload,
        completion: &Completion,
    ) -> CompletedWork {
        match *payload {
            SlotPayload::Buffers(tag) => {
                CompletedWork::Send { tag, buffers: self.in_flight.take(slot) }
            }
            SlotPayload::Message(tag) => CompletedWork::Send { tag, buffers: SgList::new() },
            SlotPayload::MessageWithData(tag) => {
                CompletedWork::Send { tag, buffers: self.in_flight.take_one(slot).into() }
            }
            SlotPayload::Invalidation(key, index) => {
                self.release_invalidation(key, index as usize, completion.status.is_success())
            }
        }
    }

    #[inline(never)] // of those that complete sends, it alone looks at windows
    fn release_invalidation(
        &mut self,
        key: RemoteKey,
        index: usize,
        is_success: bool,
    ) -> CompletedWork {
        if is_success {
            self.windows.invalidated(key, index);
        }
        CompletedWork::Credit
    }

    #[inline(always)] // what it decides is mostly known to its callers
    pub(super) fn repost_receive(
        &mut self,
        completion: &Completion,
        out: &mut [u8],
    ) -> Result<u32, StaleCompletion> {
        if completion.queue_pair != self.number || !completion.status.is_success() {
            return Err(StaleCompletion);
        }
        let renewed = self.receives.renew(completion.token);
        let (token, (buffer, _)) = renewed.ok_or(StaleCompletion)?;
        buffer.copy_out(0, out);
        // It was checked when it was posted first.
        self.pending_receives.push(ReceiveRequest { token, sge: Sge::of(buffer) });
        Ok(completion.length)
    }

    #[inline(always)]
    pub(super) fn invalidated(
        &mut self,
        completion: &Completion,
        likely: usize,
    ) -> Option<RemoteKey> {
        match completion.invalidated {
            Invalidated::Certainly(key) => {
                self.windows.invalidated(key, likely);
                Some(key)
            }
            Invalidated::Perhaps(key) => self.windows.invalidated(key, likely).then_some(key),
            Invalidated::No => None,
        }
    }

    pub(super) fn close(self) -> Vec<FlushedWork> {
        let Self { windows, raw, mut sends, mut in_flight, mut receives, .. } = self;
        drop(windows);
        drop(raw); // the device lets go of the buffers before anybody else gets them
        let sends = sends.drain().filter_map(|(index, payload)| match payload {
            SlotPayload::Buffers(tag)
            | SlotPayload::Message(tag)
            | SlotPayload::MessageWithData(tag) => {
                Some(FlushedWork { tag, kind: WorkKind::Send, buffers: in_flight.take(index) })
            }
            SlotPayload::Invalidation(..) => None,
        });
        let receives = receives.drain().map(|(buffer, tag)| FlushedWork {
            tag,
            kind: WorkKind::Receive,
            buffers: buffer.into(),
        });
        sends.chain(receives).collect()
    }

    /// Checks the buffers, and notes where they are, for the send that is queued next.
    fn gather(&mut self, reads: bool, buffers: &SgList) -> Result<Payload, Error> {
        let (room, count) = (self.capabilities.max_send_sge as usize, buffers.len());
        if count > room {
            return Err(Error::Misuse("more buffers than the queue pair's segments"));
        }
        let domain = self.domain;
        let to_sge = |buffer| if reads { receivable(domain, buffer) } else { sge(domain, buffer) };
        let first = self.pending_sends.next() * room;
        let row = self.payloads.sg_list_mut(first, count);
        for (place, buffer) in row.iter_mut().zip(buffers.iter()) {
            *place = to_sge(buffer)?;
        }
        let count = u32::try_from(count).expect("a send has a few segments");
        Ok(Payload::SgList { first, count })
    }
}

#[cold]
pub(super) fn full() -> Error {
    Error::QueueFull
}

#[cold]
fn too_long() -> Error {
    Error::Misuse("the message is longer than the queue pair's inline size, or not in a row")
}
