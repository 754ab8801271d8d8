//! The one engine of a queue pair in either state: what is queued, posted, and given back.

use std::{io, sync::Arc};

use super::{
    Capabilities, Parts, SENDS_QUEUED_MAX, lent::Lent, messages::Messages, next_generation,
};
use crate::{
    Binding, Buffer, Completion, Error, Interface, Provider, Refused, RefusedBind, RefusedBuffer,
    RemoteKey, Retired, Returned, Segments, SharedReceiveQueue, StaleCompletion, Window, WorkKind,
    completion::{Invalidated, Reservation},
    pending::Pending,
    provider::{
        Batch, Operation, Payload, Payloads, PostError, ReceiveRequest, Segment, SendRequest,
    },
    segment::{receivable, segment},
    shared_receive_queue::Share,
    slot::{InlineSlot, ReceiveTable, SendRing, SendSlot},
    token::{Kind, Token},
    window::BoundWindows,
};

/// What both states share. Fields drop in order: bound windows before the device's queue pair,
/// which rxe would wait for in vain; that before the buffers it may still use.
pub(super) struct Engine<P: Provider> {
    pub(super) windows: BoundWindows,
    pub(super) raw: P::QueuePair,
    pub(super) provider: Arc<P>,
    pub(super) sends: SendRing<Held>,
    /// The buffers of each slot of `sends`.
    pub(super) lent: Lent,
    pub(super) receives: ReceiveTable<(Buffer, u64)>,
    /// For each pending send the longest inline message, and the most segments.
    pub(super) payloads: Payloads,
    pub(super) messages: Option<Messages>,
    pub(super) pending_sends: Pending<SendRequest>,
    pub(super) pending_receives: Pending<ReceiveRequest>,
    pub(super) capabilities: Capabilities,
    /// How long a copied message may be: 0 where messages are kept.
    pub(super) inline_max: u32,
    pub(super) number: u32,
    pub(super) interface: Interface,
    pub(super) domain: u64,
    pub(super) connection: u64,
    pub(super) _reservation: Reservation,
    pub(super) share: Option<Share>,
    pub(super) doorbells: u64,
}

/// What a slot of the send queue holds.
pub(super) enum Held {
    /// Buffers that come back with this tag.
    Buffers(u64),
    Invalidation(RemoteKey),
    /// Where the message is, and one buffer if it has data.
    Row(u64),
}

/// Which of the two batches was not taken as a whole, and why; small enough for registers.
pub(super) struct Unposted {
    pub(super) kind: WorkKind,
    pub(super) source: io::Error,
}

impl<P: Provider> Engine<P> {
    pub(super) fn new(parts: Parts<P>, capabilities: Capabilities) -> Self {
        let Parts { raw, facts, provider, domain, connection, reservation, share } = parts;
        let generation = next_generation();
        let batch = capabilities.send.min(SENDS_QUEUED_MAX);
        Self {
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
            inline_max: capabilities.inline,
            number: facts.number,
            interface: facts.interface,
            domain,
            connection,
            _reservation: reservation,
            share,
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
        let Some(place) = self.pending_sends.place() else { return Err(full()) };
        let Some(InlineSlot { token, signaled }) = self.sends.take_inline() else {
            return Err(full());
        };
        let offset = place.index() * self.inline_max as usize;
        self.payloads.put_bytes(offset, message);
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
        segments: Segments,
        tag: u64,
    ) -> Result<(), Refused> {
        let reads = matches!(operation, Operation::RdmaRead(_));
        let payload = match segments.is_empty() {
            true => Err(Error::Misuse("a send needs a buffer; an empty message goes inline")),
            false => self.make_room(1).and_then(|()| self.gather(reads, &segments)),
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
        segments: Segments,
        tag: u64,
    ) -> Result<(), Refused> {
        let Ok(slot) = self.sends.take_holding(Held::Buffers(tag)) else {
            return Err(Refused { error: Error::QueueFull, segments });
        };
        self.lent.put(slot.index, segments);
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

    /// Whether one more request can be queued before any are handed over.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        !self.pending_sends.is_full()
    }

    /// Hands over what is queued if so many more cannot be. Where the send queue itself is full
    /// that would make no room, and is left to [`flush`](Self::flush).
    #[inline(always)]
    pub(super) fn make_room(&mut self, sends: u32) -> Result<(), Error> {
        match self.pending_sends.has_room(sends) {
            true => Ok(()),
            false if self.sends.is_full() => Err(full()),
            false => self.hand_over(),
        }
    }

    #[cold]
    fn hand_over(&mut self) -> Result<(), Error> {
        self.flush()
    }

    pub(super) fn bind(
        &mut self,
        window: Window,
        to: Binding<'_>,
    ) -> Result<RemoteKey, RefusedBind> {
        let buffer = to.buffer;
        let bind = match self.make_room(1).and_then(|()| window.request(self.domain, to)) {
            Ok(bind) => bind,
            Err(error) => return Err(RefusedBind { error, window }),
        };
        let Some(slot) = self.sends.take_inline() else {
            return Err(RefusedBind { error: Error::QueueFull, window });
        };
        self.windows.insert(window, &bind, buffer);
        self.push_inline(slot, Operation::BindWindow(bind), Payload::Nothing);
        Ok(bind.key)
    }

    pub(super) fn local_invalidate(&mut self, key: RemoteKey) -> Result<(), Error> {
        self.make_room(1)?;
        self.windows.begin_invalidation(key)?;
        let Ok(slot) = self.sends.take_holding(Held::Invalidation(key)) else {
            self.windows.cancel_invalidation(key);
            return Err(Error::QueueFull);
        };
        self.push(slot, Operation::LocalInvalidate(key), Payload::Nothing);
        Ok(())
    }

    pub(super) fn post_receive(&mut self, buffer: Buffer, tag: u64) -> Result<(), RefusedBuffer> {
        let segment = match receivable(self.domain, &buffer) {
            Ok(segment) => segment,
            Err(error) => return Err(RefusedBuffer { error, buffer }),
        };
        match self.receives.take((buffer, tag)) {
            Ok(token) => {
                self.pending_receives.push(ReceiveRequest { token, segment });
                Ok(())
            }
            Err((buffer, _)) => Err(RefusedBuffer { error: Error::QueueFull, buffer }),
        }
    }

    #[inline(always)] // small, as what is not is apart
    pub(super) fn flush(&mut self) -> Result<(), Error> {
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
    pub(super) fn flush_sends(&mut self) -> Result<(), Unposted> {
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

    pub(super) fn retire(&mut self, completion: &Completion) -> Result<Retired, StaleCompletion> {
        let token = Token::unpack(completion.token).ok_or(StaleCompletion)?;
        if completion.queue_pair != self.number {
            return Err(StaleCompletion);
        }
        match token.kind {
            Kind::Send => match self.sends.retire(completion.token).ok_or(StaleCompletion)? {
                Some((slot, held)) => Ok(self.give_back(slot, &held, completion)),
                None => Ok(Retired::Credit),
            },
            Kind::Receive => {
                let held = self.receives.retire(token.slot, token.generation);
                let (buffer, tag) = held.ok_or(StaleCompletion)?;
                self.note_invalidated(completion);
                let length = if completion.status.is_success() { completion.length } else { 0 };
                Ok(Retired::Receive { tag, buffer, length })
            }
        }
    }

    /// What a send held. Apart, since it moves more than there is in any other.
    #[inline(never)]
    fn give_back(&mut self, slot: usize, held: &Held, completion: &Completion) -> Retired {
        match *held {
            Held::Buffers(tag) => Retired::Send { tag, segments: self.lent.take(slot) },
            Held::Row(row) => Retired::Send { tag: row, segments: self.lent.take_one(slot).into() },
            Held::Invalidation(key) => {
                if completion.status.is_success() {
                    self.windows.invalidated(key);
                }
                Retired::Credit
            }
        }
    }

    #[inline(always)] // what it decides is mostly known to its callers
    pub(super) fn receive_again(
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

    pub(super) fn retire_shared(
        &mut self,
        completion: &Completion,
        shared: &mut SharedReceiveQueue<P>,
    ) -> Result<Retired, StaleCompletion> {
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

    pub(super) fn close(self) -> Vec<Returned> {
        let Self { windows, raw, mut sends, mut lent, mut receives, .. } = self;
        drop(windows);
        drop(raw); // the device lets go of the buffers before anybody else gets them
        let sends = sends.drain().filter_map(|(index, held)| match held {
            Held::Buffers(tag) | Held::Row(tag) => {
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

    /// Checks the buffers, and notes where they are, for the send that is queued next.
    fn gather(&mut self, reads: bool, segments: &Segments) -> Result<Payload, Error> {
        let (room, count) = (self.capabilities.segments as usize, segments.len());
        if count > room {
            return Err(Error::Misuse("more buffers than the queue pair's segments"));
        }
        let domain = self.domain;
        let segment =
            |buffer| if reads { receivable(domain, buffer) } else { segment(domain, buffer) };
        let first = self.pending_sends.next() * room;
        let row = self.payloads.segments_mut(first, count);
        for (place, buffer) in row.iter_mut().zip(segments.iter()) {
            *place = segment(buffer)?;
        }
        let count = u32::try_from(count).expect("a send has a few segments");
        Ok(Payload::Segments { first, count })
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
