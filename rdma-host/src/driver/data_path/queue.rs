//! One NVMe queue: command and response capsules on an RDMA queue pair.

mod connection_events;
mod in_flight;

use std::collections::VecDeque;

use tracing::Span;
use verbs::{
    CompletedWork, Completion, Endpoint, Provider, QueuePair, RdmaCore, TransportType,
    active_side::{ActiveSide, State},
};

pub(crate) use self::in_flight::{Cancelled, Completed, FailedCommand, FailedInFlight, UnseenKind};
use self::in_flight::{InFlight, Origin, OriginKind};
use crate::{
    driver::{
        buffers::verbs_error,
        data_path::{
            command::{Command, Data, SubmitError},
            memory,
            pending_command::PendingCommand,
            statistics::{InvalidatedBy, WindowCounters},
        },
    },
    error::{Error, Malformed, Misuse, Transport},
    proto::{BegunCommand, CompletedCommand, CompletesOn, ResponseOutcome, Slots},
    wire::{Cqe, FromBytes, IntoBytes, QueueId, RemoteKey, SglDescriptor, Sqe},
};

/// NVMe queue and its connection. Everything is allocated at connect: submission and completion
/// allocate nothing.
pub(crate) struct Queue<P: Provider = RdmaCore> {
    id: QueueId,
    /// Span of the queue's events, below that of its controller.
    span: Span,
    queue_pair: QueuePair<P>,
    endpoint: Endpoint<P>,
    active_side: ActiveSide,
    transport: TransportType,
    /// Number of receives posted at connect.
    receives: u32,
    /// Commands in flight.
    slots: Slots<InFlight>,
    /// Maximum in-capsule data in bytes; 0 for none.
    in_capsule_bytes: usize,
    /// True if the device takes a command inside the work request.
    inline: bool,
    /// True if commands without in-capsule data are sent inline, and there are no windows.
    has_fast_path: bool,
    /// True if the queue pair has a window for each slot, at its number; false if the registrations
    /// themselves are remotely accessible.
    has_windows: bool,
    /// Number of windows that are bound. One send is reserved for the invalidation of each.
    bound_windows: u32,
    /// Slots whose keys this host invalidates, in the order of the completions.
    invalidating: VecDeque<u16>,
    /// Number of doorbells of the queue pair that have been counted.
    doorbells: u64,
    /// Invalidations of remote keys that have not been counted.
    invalidations: WindowCounters,
    /// True if work requests may be queued that no doorbell was rung for.
    pub(crate) is_dirty: bool,
}

/// Completion that is off the path of each command.
#[derive(Clone, Copy)]
pub(crate) struct Unhandled {
    /// Length of the response that was copied out, if the completion is of one.
    pub(crate) response_length: Option<u32>,
}

/// Parts of a connected queue.
pub(crate) struct Parts<P: Provider> {
    pub(crate) id: QueueId,
    /// Queue pair with a message of 64 bytes per command in flight, and a window or none.
    pub(crate) queue_pair: QueuePair<P>,
    pub(crate) endpoint: Endpoint<P>,
    /// Connection state machine, in the established state.
    pub(crate) side: ActiveSide,
    /// Transport of the device.
    pub(crate) transport: TransportType,
    /// Number of posted receives.
    pub(crate) receives: u32,
    /// Maximum number of commands in flight.
    pub(crate) depth: u16,
    /// True if the queue pair has windows.
    pub(crate) has_windows: bool,
    /// Maximum in-capsule data in bytes; 0 for none.
    pub(crate) in_capsule_bytes: usize,
    /// True if the device takes a command inside the work request.
    pub(crate) inline: bool,
}

impl<P: Provider> Queue<P> {
    pub(crate) fn new(parts: Parts<P>) -> Self {
        let bound_max = if parts.has_windows { parts.depth } else { 0 };
        Self {
            id: parts.id,
            span: tracing::debug_span!("queue", qid = parts.id.0),
            receives: parts.receives,
            queue_pair: parts.queue_pair,
            endpoint: parts.endpoint,
            active_side: parts.side,
            slots: Slots::new(parts.id, parts.depth),
            transport: parts.transport,
            in_capsule_bytes: parts.in_capsule_bytes,
            inline: parts.inline,
            has_fast_path: parts.inline && !parts.has_windows,
            has_windows: parts.has_windows,
            bound_windows: 0,
            invalidating: VecDeque::with_capacity(bound_max.into()),
            doorbells: 0,
            invalidations: WindowCounters::default(),
            is_dirty: false,
        }
    }

    /// Number of doorbells since the last call.
    pub(crate) fn new_doorbells(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.doorbells, self.queue_pair.doorbells());
        self.doorbells - before
    }

    /// Invalidations of remote keys since the last call.
    pub(crate) fn new_invalidations(&mut self) -> WindowCounters {
        std::mem::take(&mut self.invalidations)
    }

    /// Queues a command on the fast path: it is sent inline, and the controller accesses its data
    /// by the key of the registration; or it has data for which a window is bound. Returns true if
    /// it has taken the command's buffer; false for any other command, or without room: that is
    /// left to [`submit`](Self::submit).
    #[inline(always)]
    pub(crate) fn submit_fast(&mut self, command: &mut Command, started: u64) -> bool {
        match self.inline_sgl(command) {
            Some(sgl) => self.submit_inline(command, sgl, started).is_ok(),
            None => {
                self.binds(&command.data)
                    && !command.sqe.is_fused()
                    && self.submit_bound(command, started).is_ok()
            }
        }
    }

    /// Data pointer of a command on the fast path; `None` for any other command.
    #[inline(always)]
    fn inline_sgl(&self, command: &Command) -> Option<SglDescriptor> {
        if !self.has_fast_path {
            return None;
        }
        let data = &command.data;
        let (Data::FromController(buffer) | Data::ToController(buffer)) = data else {
            return Some(SglDescriptor::none());
        };
        let length = u32::try_from(buffer.len()).ok()?;
        let fits = length <= SglDescriptor::KEYED_LENGTH_MAX
            && self.queue_pair.accepts(buffer)
            && !self.fits_in_capsule(data)
            && !(matches!(data, Data::ToController(_)) && command.sqe.is_fused());
        fits.then(|| {
            SglDescriptor::keyed(buffer.address(), length, RemoteKey(buffer.remote_key().0))
        })
    }

    /// Queues a command that is sent inline, and takes its buffer unless that fails.
    #[inline(always)]
    fn submit_inline(
        &mut self,
        command: &mut Command,
        sgl: SglDescriptor,
        started: u64,
    ) -> Result<(), Error> {
        let Some(begun) = self.slots.begin(CompletesOn::Response, None) else { return Err(full()) };
        let BegunCommand { command: id, slot, content } = begun;
        command.sqe.set_command_id(id);
        command.sqe.set_sgl(sgl);
        if let Err(error) = self.queue_pair.send_message(slot.into(), command.sqe.as_bytes()) {
            self.slots.cancel(id);
            return Err(verbs_error(error));
        }
        content.begin(command, started);
        Ok(())
    }

    /// Queues any command, and takes its buffer; sent by [`ring_doorbell`](Self::ring_doorbell).
    pub(crate) fn submit(&mut self, command: &mut Command, started: u64) -> Result<(), Error> {
        if !self.accepts(&command.data) {
            return Err(Transport::DeviceChanged.into());
        }
        let in_capsule = self.fits_in_capsule(&command.data);
        if self.binds(&command.data) {
            return self.submit_bound(command, started);
        }
        if !in_capsule && self.inline {
            let sgl = descriptor(&command.data, false);
            return self.submit_inline(command, sgl, started);
        }
        if !self.has_room() {
            return Err(full());
        }
        self.queue_pair.reserve_sends(1).map_err(verbs_error)?;
        let Some(begun) = self.slots.begin(CompletesOn::ResponseAndSend, None) else {
            return Err(full());
        };
        let BegunCommand { command: id, slot, .. } = begun;
        command.sqe.set_sgl(descriptor(&command.data, in_capsule));
        command.sqe.set_command_id(id);
        let capsule = command.sqe.as_bytes();
        if in_capsule
            && let Some(data) = std::mem::replace(&mut command.data, Data::None).into_buffer()
        {
            if let Err(refused) = self.queue_pair.send_message_with_data(slot.into(), capsule, data)
            {
                command.data = Data::ToController(refused.buffer);
                self.slots.cancel(id);
                return Err(verbs_error(refused.error));
            }
        } else if let Err(error) = self.queue_pair.send_message_signaled(slot.into(), capsule) {
            self.slots.cancel(id);
            return Err(verbs_error(error));
        }
        self.slots.content_mut(slot).begin(command, started);
        Ok(())
    }

    /// Queues a pending command, at the clock reading `now`.
    pub(crate) fn submit_pending(
        &mut self,
        pending: PendingCommand,
        now: u64,
    ) -> Result<(), SubmitError> {
        let PendingCommand { mut command, started, sends, is_without_response, is_repeat, .. } =
            pending;
        let kind = match (is_repeat, is_without_response) {
            (true, _) => OriginKind::Unseen(UnseenKind::Repeat),
            (false, true) => OriginKind::WithoutResponse,
            (false, false) => OriginKind::Pending,
        };
        let origin = Origin { resends: sends, kind };
        let submitted = self.submit_from(origin, &mut command, started, now);
        submitted.map_err(|error| SubmitError::new(error, command))
    }

    /// Queues a command that the owner of the poller does not see.
    pub(crate) fn submit_unseen(
        &mut self,
        kind: UnseenKind,
        command: &mut Command,
        started: u64,
    ) -> Result<(), Error> {
        let origin = Origin { resends: 0, kind: OriginKind::Unseen(kind) };
        self.submit_from(origin, command, started, started)
    }

    fn submit_from(
        &mut self,
        origin: Origin,
        command: &mut Command,
        started: u64,
        now: u64,
    ) -> Result<(), Error> {
        let next = self.slots.next();
        self.submit(command, started)?;
        let slot = next.expect("a slot was free for the command");
        self.slots.content_mut(slot).set_origin(origin, now);
        Ok(())
    }

    /// Returns true if the queue pair can send the data of a command.
    pub(crate) fn accepts(&self, data: &Data) -> bool {
        data.buffer().is_none_or(|buffer| self.queue_pair.accepts(buffer))
    }

    /// Returns true if a window is bound for the data of a command.
    #[inline]
    fn binds(&self, data: &Data) -> bool {
        let length = data.len();
        let max = SglDescriptor::KEYED_LENGTH_MAX as usize;
        self.has_windows && (1..=max).contains(&length) && !self.fits_in_capsule(data)
    }

    /// Queues a command for whose data a window [is bound](Self::binds), and takes its buffer
    /// unless that fails.
    #[inline(never)]
    fn submit_bound(&mut self, command: &mut Command, started: u64) -> Result<(), Error> {
        let Some(slot) = self.slots.next().filter(|_| self.has_room()) else { return Err(full()) };
        let to = memory::bind_info(&command.data).expect("a command that binds has data");
        let (id, sqe) = (self.slots.id(slot), &mut command.sqe);
        let (address, length) = range(&command.data);
        let sent = self.queue_pair.send_message_with_bind(slot.into(), &to, |key| {
            sqe.set_command_id(id);
            let key = RemoteKey(key.0);
            sqe.set_sgl(SglDescriptor::keyed_with_invalidate(address, length, key));
            sqe.as_bytes()
        });
        let key = RemoteKey(sent.map_err(verbs_error)?.0);
        let begun = self.slots.begin(CompletesOn::ResponseAndSend, Some(key));
        begun.expect("a slot is free").content.begin(command, started);
        self.bound_windows += 1;
        Ok(())
    }

    /// Rings the doorbells: of the queued commands, and of the queued receives if half of all are
    /// queued or if the device has too few for the responses to all commands.
    #[inline]
    pub(crate) fn ring_doorbell(&mut self) -> Result<(), Error> {
        let queued = self.queue_pair.queued_receives();
        let posted = if queued > self.receives / 2 || self.lacks_receives(queued) {
            self.queue_pair.flush()
        } else {
            self.queue_pair.flush_sends()
        };
        debug_assert!(
            posted.is_err() || !self.lacks_receives(self.queue_pair.queued_receives()),
            "a receive is posted for each command in flight"
        );
        posted.map_err(verbs_error)
    }

    /// Returns true if the device has fewer receives than there are commands in flight.
    #[inline]
    fn lacks_receives(&self, queued: u32) -> bool {
        ((self.receives - queued) as usize) < self.slots.in_flight()
    }

    /// Handles a completion of this queue's queue pair if it is one that every command has, of its
    /// response or of its send. Returns the command that it completes, if any, with the response in
    /// `response`. Any other completion is left to
    /// [`complete_slowly`](Self::complete_slowly).
    #[inline(always)] // the hot loop; what is rare is not inlined
    pub(crate) fn complete(
        &mut self,
        completion: &Completion,
        response: &mut Cqe,
    ) -> Result<Option<Completed<'_>>, Unhandled> {
        if !completion.status().is_success() || self.active_side.state() != State::Established {
            return Err(Unhandled { response_length: None });
        }
        // The response is copied out, and its receive is queued again. Whether the completion is of
        // a receive shows its token, which is compared whole.
        let length = match self.queue_pair.repost_receive(completion, response.as_mut_bytes()) {
            Ok(length) => length,
            Err(_) if completion.is_receive() => return Err(Unhandled { response_length: None }),
            Err(_) => return self.complete_send(*completion, response),
        };
        if length as usize == Cqe::SIZE {
            if completion.may_invalidate() {
                return self.complete_bound(*completion, response);
            }
            if let Some((slot, command)) = self.slots.complete_fast(response.command_id(), None) {
                return Ok(Some(Completed { slot, command }));
            }
        }
        Err(Unhandled { response_length: Some(length) })
    }

    /// Handles the response to a command whose window it has unbound, if that alone was missing.
    #[inline(never)]
    fn complete_bound(
        &mut self,
        completion: Completion,
        response: &Cqe,
    ) -> Result<Option<Completed<'_>>, Unhandled> {
        let command = response.command_id();
        let key = self.queue_pair.invalidated(&completion, self.slots.slot(command).into());
        let done = key.and_then(|key| self.slots.complete_fast(command, Some(RemoteKey(key.0))));
        let Some((slot, command)) = done else {
            return Err(Unhandled { response_length: Some(completion.length()) });
        };
        self.invalidations.count(InvalidatedBy::Target);
        self.bound_windows -= 1;
        Ok(Some(Completed { slot, command }))
    }

    /// Handles the completion of a command's send. Takes the completion by value: the hot loop need
    /// not keep it in memory.
    #[inline(never)]
    fn complete_send(
        &mut self,
        completion: Completion,
        response: &mut Cqe,
    ) -> Result<Option<Completed<'_>>, Unhandled> {
        let Some((slot, data)) = self.queue_pair.complete_message(&completion) else {
            return Err(Unhandled { response_length: None });
        };
        let slot = u16::try_from(slot).expect("there is a message for each slot");
        if let Some(data) = data {
            self.slots.content_mut(slot).set_data(data);
        }
        let Some(completed) = self.slots.handle_sent(slot) else { return Ok(None) };
        *response = completed.response;
        Ok(Some(self.completed(slot)))
    }

    /// Handles a completion that [`complete`](Self::complete) left. Returns the slot of the command
    /// that it completes, if any; otherwise an invalidation may have been queued.
    #[inline(always)] // no caller of it is inlined
    pub(crate) fn complete_slowly(
        &mut self,
        completion: &Completion,
        response: &mut Cqe,
        unhandled: Unhandled,
    ) -> Result<Option<u16>, Error> {
        let completed = match unhandled.response_length {
            Some(length) => self.handle_response(completion, *response, length)?,
            None => self.handle_other(completion)?,
        };
        Ok(completed.map(|completed| {
            *response = completed.response;
            completed.slot
        }))
    }

    /// Command of the poller's owner that was completed last in a slot, and failed.
    pub(crate) fn failed(&self, slot: u16) -> Option<FailedInFlight> {
        self.slots.content(slot).failed()
    }

    /// Command that was completed last in a slot.
    #[inline]
    pub(crate) fn completed(&mut self, slot: u16) -> Completed<'_> {
        Completed { slot, command: self.slots.content_mut(slot) }
    }

    /// Handles a completion of any work request, successful or not.
    fn handle_other(&mut self, completion: &Completion) -> Result<Option<CompletedCommand>, Error> {
        let completed = self.queue_pair.complete(completion).map_err(verbs_error)?;
        if !completion.status().is_success() {
            self.keep_returned(completed);
            let status = completion.status().to_string();
            return Err(Transport::QueuePair { queue: self.id, status }.into());
        }
        match completed {
            CompletedWork::Credit => Ok(self.complete_invalidation()),
            CompletedWork::Send { tag, buffers } => {
                let slot = u16::try_from(tag).expect("tags of sends are slots");
                self.slots.content_mut(slot).take_back(buffers);
                Ok(self.slots.handle_sent(slot))
            }
            CompletedWork::Receive { buffer, length, .. } => {
                let mut response = Cqe::default();
                buffer.copy_out(0, response.as_mut_bytes());
                self.handle_response(completion, response, length)
            }
        }
    }

    /// Handles a response; returns the command that it completes, if any.
    fn handle_response(
        &mut self,
        completion: &Completion,
        response: Cqe,
        length: u32,
    ) -> Result<Option<CompletedCommand>, Error> {
        if length as usize != Cqe::SIZE {
            return Err(Malformed::ResponseLength(length, self.id).into());
        }
        let slot = self.slots.slot(response.command_id());
        let key = self.queue_pair.invalidated(completion, slot.into()).map(|key| RemoteKey(key.0));
        let outcome = self.slots.handle_response(response, key)?;
        if key.is_some() {
            self.count_invalidation(InvalidatedBy::Target); // of the command's own key
        }
        match outcome {
            ResponseOutcome::Completed(completed) => return Ok(Some(completed)),
            ResponseOutcome::Pending => {}
            ResponseOutcome::KeyStillValid { slot, .. } => {
                self.queue_pair.local_invalidate(slot.into()).map_err(verbs_error)?;
                self.invalidating.push_back(slot);
            }
        }
        Ok(None)
    }

    /// Capsule of the last command in a slot.
    pub(crate) fn sqe(&self, slot: u16) -> Sqe {
        let capsule = self.queue_pair.message_slot(slot.into()).expect("each slot has a message");
        Sqe::read_from_bytes(capsule).expect("a message is as long as a command")
    }

    /// Command of the oldest invalidation by this host, if that has completed.
    fn complete_invalidation(&mut self) -> Option<CompletedCommand> {
        let slot = *self.invalidating.front()?;
        if self.queue_pair.is_bound(slot.into()) {
            return None;
        }
        self.invalidating.pop_front();
        self.count_invalidation(InvalidatedBy::Host);
        self.slots.handle_invalidated(slot)
    }

    /// Counts the end of a bind.
    #[inline]
    fn count_invalidation(&mut self, by: InvalidatedBy) {
        self.invalidations.count(by);
        self.bound_windows -= 1;
    }

    /// Returns true if the device flushes the work of a lost connection before it reports the
    /// event. On other devices, work that is flushed before an event failed for its own reason.
    pub(crate) fn flushes_before_event(&self) -> bool {
        self.transport == TransportType::Iwarp
    }

    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    /// Span of the queue's events.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Returns true if there is room for a command. Where acknowledgements lag behind responses,
    /// sends may be short though slots are not.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    /// Returns true if there is room for this number of commands.
    #[inline]
    pub(crate) fn has_room_for(&self, commands: u16) -> bool {
        let sends = u32::from(commands) * if self.has_windows { SENDS_MAX } else { 1 };
        let credits = self.queue_pair.send_credits();
        self.slots.available() >= usize::from(commands) && credits >= self.bound_windows + sends
    }

    /// Maximum number of commands in flight.
    pub(crate) fn depth(&self) -> usize {
        self.slots.capacity()
    }

    /// Number of commands in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Number of the queue pair.
    pub(crate) fn number(&self) -> u32 {
        self.queue_pair.number()
    }

    #[inline]
    fn fits_in_capsule(&self, data: &Data) -> bool {
        matches!(data, Data::ToController(buffer) if buffer.len() <= self.in_capsule_bytes)
    }

    /// Keeps the buffer of a failed work request with its command, until the queue is closed.
    fn keep_returned(&mut self, completed: CompletedWork) {
        if let CompletedWork::Send { tag, buffers } = completed
            && let Some(command) = command_of(&mut self.slots, tag)
        {
            command.take_back(buffers);
        }
    }
}

/// Command whose capsule was sent with this tag.
fn command_of(slots: &mut Slots<InFlight>, tag: u64) -> Option<&mut InFlight> {
    let slot = u16::try_from(tag).ok().filter(|&slot| usize::from(slot) < slots.capacity())?;
    Some(slots.content_mut(slot))
}

#[cold]
fn full() -> Error {
    Misuse::QueuesFull.into()
}

/// Address and length of a command's data.
#[inline]
fn range(data: &Data) -> (u64, u32) {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else { return (0, 0) };
    (buffer.address(), u32::try_from(buffer.len()).expect("a transfer is below 16 MiB"))
}

/// Maximum number of sends of a command with a window: bind, send, invalidate.
const SENDS_MAX: u32 = 3;

#[inline]
fn descriptor(data: &Data, in_capsule: bool) -> SglDescriptor {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else {
        return SglDescriptor::none();
    };
    let (address, length) = range(data);
    if in_capsule {
        SglDescriptor::in_capsule(0, length)
    } else {
        SglDescriptor::keyed(address, length, RemoteKey(buffer.remote_key().0))
    }
}
