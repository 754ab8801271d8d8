//! One NVMe queue: capsules on an RDMA queue pair.

use std::collections::VecDeque;
use std::time::Instant;

use verbs::active_side::{Action, ActiveSide, Event, State};
use verbs::{
    Buffer, Completion, Endpoint, Provider, QueuePair, RdmaCore, Refused, Retired, Segments, Window,
};

use super::command::{Command, Data, Rejection};
use super::limbo::Parting;
use super::statistics::Revoked;
use super::{memory, verbs_error};
use crate::error::{Error, Malformed, Misuse, Transport};
use crate::proto::{Answered, Finished, Slots, Waits};
use crate::wire::{CommandId, Cqe, FromBytes, IntoBytes, Opcode, QueueId, RemoteKey, Sgl, Sqe};

/// An NVMe queue on its connection. All it needs was made at connect: submitting and completing
/// allocate nothing.
pub(super) struct Queue<P: Provider = RdmaCore> {
    id: QueueId,
    queue_pair: QueuePair<P>,
    endpoint: Parting<Endpoint<P>>,
    side: ActiveSide,
    /// Receives it was made with.
    receives: u32,
    slots: Slots,
    commands: Vec<InFlight>,
    in_capsule_bytes: usize,
    inline: bool,
    /// Whether each command lends its data by a window, or all of it by its registration.
    windows: bool,
    /// Windows that are bound, each of which may yet need a work request to take it out of use.
    lent: u32,
    /// The slots whose keys this side takes out of use, in the order in which that completes.
    invalidating: VecDeque<u16>,
    /// Of the queue pair's doorbells, those that are counted.
    doorbells: u64,
}

/// What the queue keeps of the command in a slot.
#[derive(Default)]
struct InFlight {
    /// Where the capsule is built when it is sent from memory.
    capsule: Option<Buffer>,
    /// The data, ours again when the command is done.
    data: Option<Buffer>,
    user: u64,
    started: u64,
    /// How often it was sent before, on connections that are lost.
    resends: u8,
    sqe: Option<Sqe>,
    /// Ready to be bound.
    window: Option<Window>,
    /// Of the window while it is bound.
    key: Option<RemoteKey>,
    revoked: Option<Revoked>,
}

/// A command that is done.
pub(super) struct Ended {
    pub(super) user: u64,
    pub(super) started: u64,
    pub(super) resends: u8,
    pub(super) sqe: Sqe,
    pub(super) response: Option<Cqe>,
    pub(super) data: Option<Buffer>,
    /// Who took its key out of use, if it lent one.
    pub(super) revoked: Option<Revoked>,
}

/// What a queue is made of.
pub(super) struct Parts<P: Provider> {
    pub(super) id: QueueId,
    pub(super) queue_pair: QueuePair<P>,
    pub(super) endpoint: Parting<Endpoint<P>>,
    /// Where the connection stands: established.
    pub(super) side: ActiveSide,
    /// Receives that are posted.
    pub(super) receives: u32,
    /// Commands that may be in flight.
    pub(super) depth: u16,
    /// One 64-byte buffer for each command in flight.
    pub(super) capsules: Vec<Buffer>,
    /// One window for each command in flight, or none at all.
    pub(super) windows: Vec<Window>,
    pub(super) in_capsule_bytes: usize,
    /// Whether the device takes a command inside the work request.
    pub(super) inline: bool,
}

impl<P: Provider> Queue<P> {
    pub(super) fn new(mut parts: Parts<P>) -> Self {
        let windows = !parts.windows.is_empty();
        parts.queue_pair.reserve_windows(parts.windows.len());
        let mut free = parts.windows.into_iter();
        let commands = parts
            .capsules
            .into_iter()
            .map(|capsule| InFlight {
                capsule: Some(capsule),
                window: free.next(),
                ..InFlight::default()
            })
            .collect();
        Self {
            id: parts.id,
            receives: parts.receives,
            queue_pair: parts.queue_pair,
            endpoint: parts.endpoint,
            side: parts.side,
            slots: Slots::new(parts.id, parts.depth),
            commands,
            in_capsule_bytes: parts.in_capsule_bytes,
            inline: parts.inline,
            windows,
            lent: 0,
            invalidating: VecDeque::with_capacity(if windows { parts.depth.into() } else { 0 }),
            doorbells: 0,
        }
    }

    /// Doorbells since this was last asked.
    pub(super) fn new_doorbells(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.doorbells, self.queue_pair.doorbells());
        self.doorbells - before
    }

    /// Queues a command; [`flush`](Self::flush) rings the doorbell. `now` is kept with it.
    pub(super) fn submit(&mut self, command: Command, now: u64) -> Result<(), Rejection> {
        if command.data.buffer().is_some_and(|buffer| !self.queue_pair.accepts(buffer)) {
            return Err(Rejection::new(Transport::DeviceChanged.into(), command));
        }
        let in_capsule = self.fits_in_capsule(&command.data);
        let lends = self.windows && !in_capsule && command.data.len() > 0;
        let sends_memory = in_capsule || lends || !self.inline;
        let waits = if sends_memory { Waits::ResponseAndSend } else { Waits::Response };
        // So that there is always a place for what takes a key out of use.
        let full = self.windows && self.queue_pair.send_credits() < self.lent + SENDS_MAX;
        let Some(id) = (!full).then(|| self.slots.begin(waits)).flatten() else {
            return Err(Rejection::new(Misuse::Full.into(), command));
        };
        let slot = usize::from(self.slots.slot(id));
        let Command { mut sqe, data, user } = command;
        sqe.set_command_id(id);
        if lends {
            match self.lend(id, &data) {
                Ok(sgl) => sqe.set_sgl(sgl),
                Err(error) => {
                    self.slots.cancel(id);
                    return Err(Rejection { error, user, data: data.into_buffer() });
                }
            }
        } else {
            sqe.set_sgl(descriptor(&data, in_capsule));
        }

        let entry = &mut self.commands[slot];
        let data = data.into_buffer();
        let posted = if sends_memory {
            let mut capsule = entry.capsule.take().expect("a free slot has its capsule");
            capsule.copy_in(0, sqe.as_bytes());
            match (in_capsule, data) {
                (true, Some(data)) => self.queue_pair.send((capsule, data), slot as u64),
                (_, data) => {
                    entry.data = data;
                    self.queue_pair.send(capsule, slot as u64)
                }
            }
        } else {
            entry.data = data;
            self.queue_pair
                .send_inline(sqe.as_bytes())
                .map_err(|error| Refused { error, segments: Segments::default() })
        };
        match posted {
            Ok(()) => {
                (entry.user, entry.started, entry.sqe) = (user, now, Some(sqe));
                Ok(())
            }
            Err(refused) => {
                // A window that is bound already would stay so: the credits were counted, and
                // a capsule of ours is never refused.
                assert!(!lends, "a send after a bind was refused: {}", refused.error);
                entry.take_back(refused.segments);
                let data = entry.data.take();
                self.slots.cancel(id);
                Err(Rejection { error: verbs_error(refused.error), user, data })
            }
        }
    }

    /// As [`submit`](Self::submit), for a command that was sent so often before.
    pub(super) fn submit_again(
        &mut self,
        command: Command,
        now: u64,
        resends: u8,
    ) -> Result<(), Rejection> {
        let next = self.slots.next();
        self.submit(command, now)?;
        if let Some(slot) = next {
            self.commands[usize::from(slot)].resends = resends;
        }
        Ok(())
    }

    /// Lends a command's data by the slot's window.
    fn lend(&mut self, id: CommandId, data: &Data) -> Result<Sgl, Error> {
        let entry = &mut self.commands[usize::from(self.slots.slot(id))];
        let window = entry.window.take().expect("a free slot has its window");
        match memory::bind(&mut self.queue_pair, window, data) {
            Ok(key) => {
                self.slots.lend(id, key);
                entry.key = Some(key);
                self.lent += 1;
                let (address, length) = range(data);
                Ok(Sgl::keyed_once(address, length, key))
            }
            Err((error, window)) => {
                entry.window = Some(window);
                Err(error)
            }
        }
    }

    /// Hands everything queued to the device: receives first, so that none is missing when an
    /// answer comes.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.queue_pair.flush().map_err(verbs_error)
    }

    /// Takes a completion of this queue's queue pair; returns the command it ends, if any.
    pub(super) fn handle(&mut self, completion: &Completion) -> Result<Option<Ended>, Error> {
        let retired = self.queue_pair.retire(completion).map_err(verbs_error)?;
        if !completion.status().is_success() {
            self.keep(retired);
            let status = completion.status().to_string();
            return Err(Transport::QueuePair { queue: self.id, status }.into());
        }
        let finished = match retired {
            Retired::Credit => self.reclaim_next(),
            Retired::Send { tag, segments } => {
                let slot = u16::try_from(tag).expect("tags of sends are slots");
                self.commands[usize::from(slot)].take_back(segments);
                self.slots.handle_sent(slot)
            }
            Retired::Receive { buffer, length, .. } => self.receive(completion, buffer, length)?,
        };
        Ok(finished.map(|finished| self.end(finished.slot, Some(finished.response))))
    }

    /// Reads a response and gives its buffer to the device again.
    fn receive(
        &mut self,
        completion: &Completion,
        buffer: Buffer,
        length: u32,
    ) -> Result<Option<Finished>, Error> {
        let mut bytes = [0; Cqe::SIZE];
        buffer.copy_out(0, &mut bytes);
        if self.side.state() == State::Established {
            let posted = self.queue_pair.post_receive(buffer, 0);
            posted.map_err(|refused| verbs_error(refused.error))?;
        }
        if length as usize != Cqe::SIZE {
            return Err(Malformed::ResponseLength(length, self.id).into());
        }
        let response = Cqe::read_from_bytes(&bytes).expect("a response is 16 bytes of any value");
        let invalidated = self.queue_pair.invalidated(completion).map(|key| RemoteKey(key.0));
        match self.slots.handle_response(response, invalidated)? {
            Answered::Finished(finished) => {
                self.reclaim(finished.slot, Revoked::ByTarget);
                Ok(Some(finished))
            }
            Answered::Pending => {
                self.reclaim(self.slots.slot(response.command_id()), Revoked::ByTarget);
                Ok(None)
            }
            Answered::Reachable { slot, key } => {
                self.queue_pair.local_invalidate(verbs::RemoteKey(key.0)).map_err(verbs_error)?;
                self.invalidating.push_back(slot);
                Ok(None)
            }
        }
    }

    /// Takes the window of the oldest key that this side takes out of use, if that is done.
    fn reclaim_next(&mut self) -> Option<Finished> {
        let slot = *self.invalidating.front()?;
        if !self.reclaim(slot, Revoked::Here) {
            return None;
        }
        self.invalidating.pop_front();
        self.slots.handle_invalidated(slot)
    }

    /// Takes a slot's window back if its key is out of use; says whether it is.
    fn reclaim(&mut self, slot: u16, revoked: Revoked) -> bool {
        let entry = &mut self.commands[usize::from(slot)];
        let Some(key) = entry.key else { return false };
        let Some(window) = self.queue_pair.reclaim(verbs::RemoteKey(key.0)) else { return false };
        (entry.window, entry.key, entry.revoked) = (Some(window), None, Some(revoked));
        self.lent -= 1;
        true
    }

    /// Looks for connection events without blocking.
    pub(super) fn check_connection(&mut self) -> Result<(), Error> {
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
    pub(super) fn disconnect(&mut self) {
        self.step(Event::Disconnect);
    }

    /// Whether all that was posted is back, or can't be expected to come.
    pub(super) fn is_drained(&self) -> bool {
        let capsules = self.commands.iter().all(|entry| entry.capsule.is_some());
        let receives = self.queue_pair.receive_credits() == self.receives;
        // Draining without a disconnect: nothing has told the queue pair.
        self.side.state() != State::Disconnecting || (capsules && receives)
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
    pub(super) fn oldest(&self) -> Option<(u64, CommandId)> {
        let busy =
            self.commands.iter().filter_map(|entry| Some((entry.started, entry.sqe.as_ref()?)));
        let oldest = busy
            .filter(|(_, sqe)| sqe.opcode() != Opcode::ASYNCHRONOUS_EVENT_REQUEST)
            .min_by_key(|&(started, _)| started);
        oldest.map(|(started, sqe)| (started, sqe.command_id()))
    }

    /// Ends the queue, which was [disconnected](Self::disconnect): destroys the queue pair, after
    /// which the device touches nothing any more, and returns the commands that were in flight with
    /// their buffers.
    pub(super) fn close(mut self) -> Vec<Ended> {
        self.disconnect();
        if let Some(cause) = self.side.cause() {
            tracing::debug!(queue = %self.id, %cause, drained = self.is_drained(), "closed");
        }
        for returned in self.queue_pair.close() {
            if returned.kind == verbs::WorkKind::Send
                && let Some(entry) =
                    usize::try_from(returned.tag).ok().and_then(|slot| self.commands.get_mut(slot))
            {
                entry.take_back(returned.buffers);
            }
        }
        let busy = self.slots.abandon();
        busy.into_iter().map(|slot| self.commands[usize::from(slot)].end(None)).collect()
    }

    pub(super) fn id(&self) -> QueueId {
        self.id
    }

    pub(super) fn room(&self) -> usize {
        self.slots.room()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    pub(super) fn depth(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn number(&self) -> u32 {
        self.queue_pair.number()
    }

    pub(super) fn endpoint(&self) -> &Endpoint<P> {
        &self.endpoint
    }

    fn fits_in_capsule(&self, data: &Data) -> bool {
        matches!(data, Data::ToController(buffer) if buffer.len() <= self.in_capsule_bytes)
    }

    fn end(&mut self, slot: u16, response: Option<Cqe>) -> Ended {
        self.commands[usize::from(slot)].end(response)
    }

    /// After a failed work request: what came back stays with its command until the queue closes.
    fn keep(&mut self, retired: Retired) {
        if let Retired::Send { tag, segments } = retired
            && let Some(entry) =
                usize::try_from(tag).ok().and_then(|slot| self.commands.get_mut(slot))
        {
            entry.take_back(segments);
        }
    }
}

impl InFlight {
    /// The device is done with a send: the first segment is the capsule, the second the data.
    fn take_back(&mut self, segments: Segments) {
        let mut segments = segments.into_iter();
        if let Some(capsule) = segments.next() {
            self.capsule = Some(capsule);
        }
        if let Some(data) = segments.next() {
            self.data = Some(data);
        }
    }

    fn end(&mut self, response: Option<Cqe>) -> Ended {
        let sqe = self.sqe.take().expect("a command that ends was submitted");
        Ended {
            user: self.user,
            started: self.started,
            resends: std::mem::take(&mut self.resends),
            sqe,
            response,
            data: self.data.take(),
            revoked: self.revoked.take(),
        }
    }
}

/// Where a command's data is, and how many bytes.
fn range(data: &Data) -> (u64, u32) {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else { return (0, 0) };
    (buffer.address(), u32::try_from(buffer.len()).expect("a transfer is below 16 MiB"))
}

/// Work requests of a command until its key is out of use: bind, send, invalidate.
const SENDS_MAX: u32 = 3;

fn descriptor(data: &Data, in_capsule: bool) -> Sgl {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else {
        return Sgl::none();
    };
    let (address, length) = range(data);
    match in_capsule {
        true => Sgl::in_capsule(0, length),
        false => Sgl::keyed(address, length, RemoteKey(buffer.remote_key().0)),
    }
}
