//! One NVMe queue: capsules on an RDMA queue pair.

use std::{collections::VecDeque, time::Instant};

use verbs::{
    Buffer, CompletedWork, Completion, Endpoint, Provider, QueuePair, RdmaCore, SgList,
    TransportType, Window,
    active_side::{Action, ActiveSide, Event, State},
};

use crate::{
    driver::{
        buffers::verbs_error,
        data_path::{
            command::{Command, CommandCompletion, Data, ExecutionStatus, SubmitError},
            memory,
            statistics::{Outcome, Revoked},
        },
        deferred_close::DeferredClose,
    },
    error::{Error, Malformed, Misuse, Transport},
    proto::{CompletedCommand, CompletesOn, ResponseOutcome, Slots},
    wire::{CommandId, Cqe, FromBytes, IntoBytes, Opcode, QueueId, RemoteKey, SglDescriptor, Sqe},
};

/// An NVMe queue on its connection. All it needs was made at connect: submitting and completing
/// allocate nothing.
pub(crate) struct Queue<P: Provider = RdmaCore> {
    id: QueueId,
    queue_pair: QueuePair<P>,
    endpoint: DeferredClose<Endpoint<P>>,
    side: ActiveSide,
    transport: TransportType,
    /// Receives it was made with.
    receives: u32,
    slots: Slots,
    commands: Vec<InFlight>,
    in_capsule_bytes: usize,
    inline: bool,
    /// Whether commands without data in their capsule go out inline, and lend nothing of their own.
    plain: bool,
    /// The window of each command, which lends its data; or none, and all memory is lent by its
    /// registration.
    windows: Vec<Lease>,
    /// Windows that are bound, each of which may yet need a work request to take it out of use: so
    /// many sends are left for that.
    lent: u32,
    /// Work requests that a command may take until its key is out of use.
    sends_each: u32,
    /// The slots whose keys this side takes out of use, in the order in which that completes.
    invalidating: VecDeque<u16>,
    /// Of the queue pair's doorbells, those that are counted.
    doorbells: u64,
    /// Whether there may be something to hand to the device.
    pub(crate) is_dirty: bool,
}

/// What the queue keeps of the command in a slot, besides its capsule.
#[derive(Default)]
pub(crate) struct InFlight {
    /// The data, ours again when the command is done.
    data: Option<Buffer>,
    user: u64,
    pub(crate) started: u64,
    opcode: Opcode,
    /// How often it was sent before, on connections that are lost.
    resends: u8,
}

/// The window of a slot.
struct Lease {
    /// Ready to be bound.
    window: Option<Window>,
    /// Of the window while it is bound.
    key: Option<RemoteKey>,
    /// How the key of the command that is done went out of use.
    revoked: Option<Revoked>,
}

/// What a completion is.
pub(crate) enum ResponseHandling {
    /// The response to the command in this slot, which ends it.
    Finished(u16),
    /// Something that was taken, and ends no command yet.
    Nothing,
    /// A response of so many bytes, whatever it is to, which was taken.
    Read(u32),
    /// Something else, which was not taken.
    Unusual,
}

/// A command that got no answer before its queue ended.
pub(crate) struct AbortedCommand {
    pub(crate) user: u64,
    pub(crate) started: u64,
    pub(crate) resends: u8,
    pub(crate) sqe: Sqe,
    pub(crate) data: Option<Buffer>,
}

/// What a queue is made of.
pub(crate) struct Parts<P: Provider> {
    pub(crate) id: QueueId,
    /// It keeps a 64-byte message for each command in flight.
    pub(crate) queue_pair: QueuePair<P>,
    pub(crate) endpoint: DeferredClose<Endpoint<P>>,
    /// Where the connection stands: established.
    pub(crate) side: ActiveSide,
    /// Transport of the device.
    pub(crate) transport: TransportType,
    /// Receives that are posted.
    pub(crate) receives: u32,
    /// Commands that may be in flight.
    pub(crate) depth: u16,
    /// One window for each command in flight, or none at all.
    pub(crate) windows: Vec<Window>,
    pub(crate) in_capsule_bytes: usize,
    /// Whether the device takes a command inside the work request.
    pub(crate) inline: bool,
}

impl<P: Provider> Queue<P> {
    pub(crate) fn new(mut parts: Parts<P>) -> Self {
        parts.queue_pair.reserve_windows(parts.windows.len());
        let lease = |window| Lease { window: Some(window), key: None, revoked: None };
        let windows: Vec<_> = parts.windows.into_iter().map(lease).collect();
        let lent_max = if windows.is_empty() { 0 } else { parts.depth };
        Self {
            id: parts.id,
            receives: parts.receives,
            queue_pair: parts.queue_pair,
            endpoint: parts.endpoint,
            side: parts.side,
            slots: Slots::new(parts.id, parts.depth),
            commands: (0..parts.depth).map(|_| InFlight::default()).collect(),
            transport: parts.transport,
            in_capsule_bytes: parts.in_capsule_bytes,
            inline: parts.inline,
            plain: parts.inline && windows.is_empty(),
            windows,
            lent: 0,
            sends_each: if lent_max == 0 { 1 } else { SENDS_MAX },
            invalidating: VecDeque::with_capacity(lent_max.into()),
            doorbells: 0,
            is_dirty: false,
        }
    }

    /// Doorbells since this was last asked.
    pub(crate) fn new_doorbells(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.doorbells, self.queue_pair.doorbells());
        self.doorbells - before
    }

    /// How a command names this data if it goes out as a copy inside its work request, and the data
    /// is fit to be used.
    #[inline]
    pub(crate) fn inline_sgl(&self, data: &Data) -> Option<SglDescriptor> {
        if !self.plain {
            return None;
        }
        let (Data::FromController(buffer) | Data::ToController(buffer)) = data else {
            return Some(SglDescriptor::none());
        };
        let length = u32::try_from(buffer.len()).ok()?;
        let fits = length <= SglDescriptor::KEYED_LENGTH_MAX
            && self.queue_pair.accepts(buffer)
            && !self.fits_in_capsule(data);
        fits.then(|| {
            SglDescriptor::keyed(buffer.address(), length, RemoteKey(buffer.remote_key().0))
        })
    }

    /// Queues a command that [is sent inline](Self::inline_sgl), and takes its data.
    #[inline(always)]
    pub(crate) fn submit_inline(
        &mut self,
        command: &mut Command,
        sgl: SglDescriptor,
        now: u64,
    ) -> Result<(), Error> {
        let Some(id) = self.slots.begin(CompletesOn::Response) else { return Err(full()) };
        let slot = usize::from(self.slots.slot(id));
        command.sqe.set_command_id(id);
        command.sqe.set_sgl(sgl);
        if let Err(error) = self.queue_pair.send_message(slot, command.sqe.as_bytes()) {
            self.slots.cancel(id);
            return Err(verbs_error(error));
        }
        self.commands[slot].begin(command, now);
        Ok(())
    }

    /// Queues any command, and takes its data; [`flush`](Self::flush) rings the doorbell. `now` is
    /// kept with it.
    pub(crate) fn submit(&mut self, command: &mut Command, now: u64) -> Result<(), Error> {
        if command.data.buffer().is_some_and(|buffer| !self.queue_pair.accepts(buffer)) {
            return Err(Transport::DeviceChanged.into());
        }
        let in_capsule = self.fits_in_capsule(&command.data);
        let lends = !self.windows.is_empty() && !in_capsule && command.data.len() > 0;
        if !in_capsule && !lends && self.inline {
            let sgl = descriptor(&command.data, false);
            return self.submit_inline(command, sgl, now);
        }
        if !self.has_room() {
            return Err(full());
        }
        // A bind and its send: neither is to be queued without the other.
        self.queue_pair.reserve_sends(2).map_err(verbs_error)?;
        let Some(id) = self.slots.begin(CompletesOn::ResponseAndSend) else { return Err(full()) };
        let slot = usize::from(self.slots.slot(id));
        let sgl = match lends {
            true => self.lend(id, &command.data),
            false => Ok(descriptor(&command.data, in_capsule)),
        };
        match sgl {
            Ok(sgl) => command.sqe.set_sgl(sgl),
            Err(error) => {
                self.slots.cancel(id);
                return Err(error);
            }
        }
        command.sqe.set_command_id(id);
        let capsule = command.sqe.as_bytes();
        if in_capsule
            && let Some(data) = std::mem::replace(&mut command.data, Data::None).into_buffer()
        {
            if let Err(refused) = self.queue_pair.send_message_with_data(slot, capsule, data) {
                command.data = Data::ToController(refused.buffer);
                self.slots.cancel(id);
                return Err(verbs_error(refused.error));
            }
        } else if let Err(error) = self.queue_pair.send_message_signaled(slot, capsule) {
            // A window that is bound already would stay so: credits and room were seen to.
            assert!(!lends, "a send after a bind was refused: {error}");
            self.slots.cancel(id);
            return Err(verbs_error(error));
        }
        self.commands[slot].begin(command, now);
        Ok(())
    }

    /// As [`submit`](Self::submit), for a command that was sent so often before.
    pub(crate) fn submit_again(
        &mut self,
        mut command: Command,
        now: u64,
        resends: u8,
    ) -> Result<(), SubmitError> {
        let next = self.slots.next();
        if let Err(error) = self.submit(&mut command, now) {
            return Err(SubmitError::new(error, command));
        }
        if let Some(slot) = next {
            self.commands[usize::from(slot)].resends = resends;
        }
        Ok(())
    }

    /// Lends a command's data by the slot's window.
    fn lend(&mut self, id: CommandId, data: &Data) -> Result<SglDescriptor, Error> {
        let lease = &mut self.windows[usize::from(self.slots.slot(id))];
        let window = lease.window.take().expect("a free slot has its window");
        match memory::bind(&mut self.queue_pair, window, data) {
            Ok(key) => {
                self.slots.set_remote_key(id, key);
                lease.key = Some(key);
                self.lent += 1;
                let (address, length) = range(data);
                Ok(SglDescriptor::keyed_with_invalidate(address, length, key))
            }
            Err((error, window)) => {
                lease.window = Some(window);
                Err(error)
            }
        }
    }

    /// Hands what is queued to the device: the commands, and first of all receives, where there are
    /// not enough for the answers to all of them, or where it is worth a doorbell.
    #[inline]
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let queued = self.queue_pair.queued_receives();
        let flushed = match queued > self.receives / 2 || self.runs_short(queued) {
            true => self.queue_pair.flush(),
            false => self.queue_pair.flush_sends(),
        };
        flushed.map_err(verbs_error)
    }

    /// Whether the device has fewer receives than there will be answers.
    #[inline]
    fn runs_short(&self, queued: u32) -> bool {
        ((self.receives - queued) as usize) < self.slots.in_flight()
    }

    /// Takes a completion of this queue's queue pair if it is one of those that a command has: of
    /// its response, or of its send. What the response is, it leaves in `response`.
    #[inline(always)] // the hot loop is in here; what is not usual is apart
    pub(crate) fn answer(
        &mut self,
        completion: &Completion,
        response: &mut Cqe,
    ) -> ResponseHandling {
        if !completion.status().is_success() || self.side.state() != State::Established {
            return ResponseHandling::Unusual;
        }
        if !completion.is_receive() {
            return self.sent(completion, response);
        }
        // The response is read, and its buffer takes another.
        let received = self.queue_pair.repost_receive(completion, response.as_mut_bytes());
        let Ok(length) = received else { return ResponseHandling::Unusual };
        let usual = length as usize == Cqe::SIZE && !completion.may_invalidate();
        if usual && let Some(slot) = self.slots.complete_fast(response.command_id()) {
            return ResponseHandling::Finished(slot);
        }
        ResponseHandling::Read(length)
    }

    /// Takes the completion of a send that a command waits for.
    fn sent(&mut self, completion: &Completion, response: &mut Cqe) -> ResponseHandling {
        let Some((slot, data)) = self.queue_pair.complete_message(completion) else {
            return ResponseHandling::Unusual;
        };
        let slot = u16::try_from(slot).expect("there is a message for each slot");
        if data.is_some() {
            self.commands[usize::from(slot)].data = data;
        }
        match self.slots.handle_sent(slot) {
            Some(finished) => {
                *response = finished.response;
                ResponseHandling::Finished(slot)
            }
            None => ResponseHandling::Nothing,
        }
    }

    /// Takes any completion: a send is done, something failed, or the end has begun. Returns the
    /// command it ends, if any.
    #[inline(never)]
    pub(crate) fn handle_other(
        &mut self,
        completion: &Completion,
    ) -> Result<Option<CompletedCommand>, Error> {
        let completed = self.queue_pair.complete(completion).map_err(verbs_error)?;
        if !completion.status().is_success() {
            self.keep_returned(completed);
            let status = completion.status().to_string();
            return Err(Transport::QueuePair { queue: self.id, status }.into());
        }
        match completed {
            CompletedWork::Credit => Ok(self.reclaim_next()),
            CompletedWork::Send { tag, buffers } => {
                let slot = u16::try_from(tag).expect("tags of sends are slots");
                self.commands[usize::from(slot)].take_back(buffers);
                Ok(self.slots.handle_sent(slot))
            }
            CompletedWork::Receive { buffer, length, .. } => {
                let mut response = Cqe::default();
                buffer.copy_out(0, response.as_mut_bytes());
                self.respond(completion, response, length)
            }
        }
    }

    /// What follows from a response; returns the command it ends, if any.
    #[inline(never)]
    pub(crate) fn respond(
        &mut self,
        completion: &Completion,
        response: Cqe,
        length: u32,
    ) -> Result<Option<CompletedCommand>, Error> {
        if length as usize != Cqe::SIZE {
            return Err(Malformed::ResponseLength(length, self.id).into());
        }
        let invalidated = self.queue_pair.invalidated(completion).map(|key| RemoteKey(key.0));
        match self.slots.handle_response(response, invalidated)? {
            ResponseOutcome::Completed(finished) => {
                if !self.windows.is_empty() {
                    self.reclaim(finished.slot, Revoked::ByTarget);
                }
                Ok(Some(finished))
            }
            ResponseOutcome::Pending => {
                self.reclaim(self.slots.slot(response.command_id()), Revoked::ByTarget);
                Ok(None)
            }
            ResponseOutcome::KeyStillValid { slot, key } => {
                self.queue_pair.local_invalidate(verbs::RemoteKey(key.0)).map_err(verbs_error)?;
                self.invalidating.push_back(slot);
                Ok(None)
            }
        }
    }

    /// Hands a command out as if it had not been answered.
    pub(crate) fn disown(&mut self, slot: u16) -> AbortedCommand {
        let sqe = self.sqe(slot);
        self.commands[usize::from(slot)].end(sqe)
    }

    /// The command of a slot, as it was sent last.
    fn sqe(&self, slot: u16) -> Sqe {
        let capsule = self.queue_pair.message_slot(slot.into()).expect("each slot has a message");
        Sqe::read_from_bytes(capsule).expect("a message is as long as a command")
    }

    /// How the key of the slot's command went out of use, if it was one of its own.
    #[inline]
    pub(crate) fn take_revoked(&mut self, slot: u16) -> Option<Revoked> {
        self.windows.get_mut(usize::from(slot))?.revoked.take()
    }

    /// What is known of the command in a slot.
    #[inline]
    pub(crate) fn command(&mut self, slot: u16) -> &mut InFlight {
        &mut self.commands[usize::from(slot)]
    }

    /// Takes the window of the oldest key that this side takes out of use, if that is done.
    fn reclaim_next(&mut self) -> Option<CompletedCommand> {
        let slot = *self.invalidating.front()?;
        if !self.reclaim(slot, Revoked::Here) {
            return None;
        }
        self.invalidating.pop_front();
        self.slots.handle_invalidated(slot)
    }

    /// Takes a slot's window back if its key is out of use; says whether it is.
    fn reclaim(&mut self, slot: u16, revoked: Revoked) -> bool {
        let Some(lease) = self.windows.get_mut(usize::from(slot)) else { return false };
        let Some(key) = lease.key else { return false };
        let Some(window) = self.queue_pair.reclaim(verbs::RemoteKey(key.0)) else { return false };
        *lease = Lease { window: Some(window), key: None, revoked: Some(revoked) };
        self.lent -= 1;
        true
    }

    /// Returns true if the device flushes the work of a lost connection before it tells of the
    /// loss. Elsewhere, work that was flushed before the event failed for a reason of its own.
    pub(crate) fn flushes_before_event(&self) -> bool {
        self.transport == TransportType::Iwarp
    }

    /// Looks for connection events without blocking.
    pub(crate) fn check_connection(&mut self) -> Result<(), Error> {
        while let Some(event) = self.endpoint.next_event().map_err(verbs_error)? {
            self.step(Event::from(&event));
            if self.side.state() != State::Established {
                return Err(Transport::Disconnected(self.id).into());
            }
            tracing::debug!(queue = %self.id, "a connection event was ignored");
        }
        Ok(())
    }

    /// Begins the end: the queue pair turns to its error state, and all that is posted comes back
    /// as completions, for as long as [`is_drained`](Self::is_drained) says that some is missing.
    pub(crate) fn disconnect(&mut self) {
        self.step(Event::Disconnect);
    }

    /// Whether all that was posted is back, or can't be expected to come.
    pub(crate) fn is_drained(&self) -> bool {
        let sends = self.queue_pair.sends_with_payload() == 0;
        let back = self.queue_pair.receive_credits() + self.queue_pair.queued_receives();
        let receives = back == self.receives;
        // Draining without a disconnect: nothing has told the queue pair.
        self.side.state() != State::Disconnecting || (sends && receives)
    }

    /// Does what the table says of an event.
    fn step(&mut self, event: Event) {
        let mut action = self.side.handle(event, Instant::now());
        while action == Action::Disconnect {
            // With the port down there is nobody to say it to, and destroying the queue pair does.
            let said = match self.endpoint.must_be_silent() {
                true => false,
                false => self.endpoint.disconnect().is_ok(),
            };
            if said {
                return;
            }
            action = self.side.handle(Event::RequestFailed, Instant::now());
        }
    }

    /// When the oldest command in flight was submitted, and its id. An Asynchronous Event Request
    /// may take for ever.
    pub(crate) fn oldest(&self) -> Option<(u64, CommandId)> {
        if self.slots.in_flight() == 0 {
            return None;
        }
        let busy = (0..).zip(&self.commands).filter(|&(slot, entry)| {
            self.slots.is_in_flight(slot) && entry.opcode != Opcode::ASYNCHRONOUS_EVENT_REQUEST
        });
        let oldest = busy.min_by_key(|&(_, entry)| entry.started);
        oldest.map(|(slot, entry)| (entry.started, self.slots.id(slot)))
    }

    /// Ends the queue, which was [disconnected](Self::disconnect): destroys the queue pair, after
    /// which the device touches nothing any more, and returns the commands that were in flight with
    /// their buffers.
    pub(crate) fn close(mut self) -> Vec<AbortedCommand> {
        self.disconnect();
        if let Some(cause) = self.side.cause() {
            tracing::debug!(queue = %self.id, %cause, drained = self.is_drained(), "closed");
        }
        let busy = self.slots.abort_all().into_iter();
        let busy: Vec<_> = busy.map(|slot| (slot, self.sqe(slot))).collect();
        for returned in self.queue_pair.close() {
            if returned.kind == verbs::WorkKind::Send
                && let Some(entry) =
                    usize::try_from(returned.tag).ok().and_then(|slot| self.commands.get_mut(slot))
            {
                entry.take_back(returned.buffers);
            }
        }
        let ended = busy.into_iter();
        ended.map(|(slot, sqe)| self.commands[usize::from(slot)].end(sqe)).collect()
    }

    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    /// Whether a command fits. Where acknowledgements lag behind responses, sends may be short
    /// though slots are not.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.slots.available() > 0 && self.queue_pair.send_credits() >= self.lent + self.sends_each
    }

    pub(crate) fn depth(&self) -> usize {
        self.slots.capacity()
    }

    pub(crate) fn number(&self) -> u32 {
        self.queue_pair.number()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint<P> {
        &self.endpoint
    }

    #[inline]
    fn fits_in_capsule(&self, data: &Data) -> bool {
        matches!(data, Data::ToController(buffer) if buffer.len() <= self.in_capsule_bytes)
    }

    /// After a failed work request: what came back stays with its command until the queue closes.
    fn keep_returned(&mut self, completed: CompletedWork) {
        if let CompletedWork::Send { tag, buffers } = completed
            && let Some(entry) =
                usize::try_from(tag).ok().and_then(|slot| self.commands.get_mut(slot))
        {
            entry.take_back(buffers);
        }
    }
}

impl InFlight {
    /// Keeps what is needed of a command that was queued, and its data.
    #[inline(always)]
    fn begin(&mut self, command: &mut Command, now: u64) {
        (self.user, self.started) = (command.user, now);
        self.opcode = command.sqe.opcode();
        self.data = std::mem::replace(&mut command.data, Data::None).into_buffer();
    }

    /// The device is done with a send, which had data or not.
    fn take_back(&mut self, buffers: SgList) {
        if let Some(data) = buffers.into_iter().next() {
            self.data = Some(data);
        }
    }

    /// What it does.
    #[inline]
    pub(crate) fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// By what its owner knows it.
    #[inline]
    pub(crate) fn user(&self) -> u64 {
        self.user
    }

    /// What there is to count of its end.
    #[inline]
    pub(crate) fn outcome(
        &self,
        response: Cqe,
        latency_ns: u64,
        revoked: Option<Revoked>,
    ) -> Outcome {
        let bytes = self.data.as_ref().map_or(0, |buffer| buffer.len() as u64);
        let success = response.status().is_success();
        Outcome { success, bytes, latency_ns, revoked }
    }

    /// Ends with this response.
    #[inline]
    pub(crate) fn complete(&mut self, response: Cqe) -> CommandCompletion {
        self.resends = 0;
        let (outcome, execution) = (Ok(response), ExecutionStatus::Answered);
        CommandCompletion { user: self.user, outcome, data: self.data.take(), execution }
    }

    fn end(&mut self, sqe: Sqe) -> AbortedCommand {
        let resends = std::mem::take(&mut self.resends);
        AbortedCommand {
            user: self.user,
            started: self.started,
            resends,
            sqe,
            data: self.data.take(),
        }
    }
}

#[cold]
fn full() -> Error {
    Misuse::QueuesFull.into()
}

/// Where a command's data is, and how many bytes.
#[inline]
fn range(data: &Data) -> (u64, u32) {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else { return (0, 0) };
    (buffer.address(), u32::try_from(buffer.len()).expect("a transfer is below 16 MiB"))
}

/// Work requests of a command until its key is out of use: bind, send, invalidate.
const SENDS_MAX: u32 = 3;

#[inline]
fn descriptor(data: &Data, in_capsule: bool) -> SglDescriptor {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else {
        return SglDescriptor::none();
    };
    let (address, length) = range(data);
    match in_capsule {
        true => SglDescriptor::in_capsule(0, length),
        false => SglDescriptor::keyed(address, length, RemoteKey(buffer.remote_key().0)),
    }
}
