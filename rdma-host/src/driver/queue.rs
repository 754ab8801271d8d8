//! One NVMe queue: capsules on an RDMA queue pair.

use verbs::{
    Buffer, Completion, Endpoint, Provider, QueuePair, RdmaCore, Refused, Retired, Segments,
};

use super::command::{Command, Data, Rejection};
use super::verbs_error;
use crate::error::{Error, Malformed, Misuse, Transport};
use crate::proto::{Finished, Slots, Waits};
use crate::wire::{CommandId, Cqe, FromBytes, IntoBytes, Opcode, QueueId, RemoteKey, Sgl, Sqe};

/// An NVMe queue on its connection. All it needs was made at connect: submitting and completing
/// allocate nothing.
pub(super) struct Queue<P: Provider = RdmaCore> {
    id: QueueId,
    queue_pair: QueuePair<P>,
    endpoint: Endpoint<P>,
    slots: Slots,
    commands: Vec<InFlight>,
    in_capsule_bytes: usize,
    inline: bool,
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
    sqe: Option<Sqe>,
}

/// A command that is done.
pub(super) struct Ended {
    pub(super) user: u64,
    pub(super) started: u64,
    pub(super) sqe: Sqe,
    pub(super) response: Option<Cqe>,
    pub(super) data: Option<Buffer>,
}

/// What a queue is made of.
pub(super) struct Parts<P: Provider> {
    pub(super) id: QueueId,
    pub(super) queue_pair: QueuePair<P>,
    pub(super) endpoint: Endpoint<P>,
    /// Commands that may be in flight.
    pub(super) depth: u16,
    /// One 64-byte buffer for each command in flight.
    pub(super) capsules: Vec<Buffer>,
    pub(super) in_capsule_bytes: usize,
    /// Whether the device takes a command inside the work request.
    pub(super) inline: bool,
}

impl<P: Provider> Queue<P> {
    pub(super) fn new(parts: Parts<P>) -> Self {
        let commands = parts
            .capsules
            .into_iter()
            .map(|capsule| InFlight { capsule: Some(capsule), ..InFlight::default() })
            .collect();
        Self {
            id: parts.id,
            queue_pair: parts.queue_pair,
            endpoint: parts.endpoint,
            slots: Slots::new(parts.id, parts.depth),
            commands,
            in_capsule_bytes: parts.in_capsule_bytes,
            inline: parts.inline,
        }
    }

    /// Queues a command; [`flush`](Self::flush) rings the doorbell. `now` is kept with it.
    pub(super) fn submit(&mut self, command: Command, now: u64) -> Result<(), Rejection> {
        let in_capsule = self.fits_in_capsule(&command.data);
        let sends_memory = in_capsule || !self.inline;
        let waits = if sends_memory { Waits::ResponseAndSend } else { Waits::Response };
        let Some(id) = self.slots.begin(waits) else {
            return Err(Rejection::new(Misuse::Full.into(), command));
        };
        let slot = usize::from(self.slots.slot(id));
        let Command { mut sqe, data, user } = command;
        sqe.set_command_id(id);
        sqe.set_sgl(descriptor(&data, in_capsule));

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
                entry.take_back(refused.segments);
                let data = entry.data.take();
                self.slots.cancel(id);
                Err(Rejection { error: verbs_error(refused.error), user, data })
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
            Retired::Credit => None,
            Retired::Send { tag, segments } => {
                let slot = u16::try_from(tag).expect("tags of sends are slots");
                self.commands[usize::from(slot)].take_back(segments);
                self.slots.handle_sent(slot)
            }
            Retired::Receive { buffer, length, .. } => self.receive(buffer, length)?,
        };
        Ok(finished.map(|finished| self.end(finished.slot, Some(finished.response))))
    }

    /// Reads a response and gives its buffer to the device again.
    fn receive(&mut self, buffer: Buffer, length: u32) -> Result<Option<Finished>, Error> {
        let mut bytes = [0; Cqe::SIZE];
        buffer.copy_out(0, &mut bytes);
        self.queue_pair.post_receive(buffer, 0).map_err(|refused| verbs_error(refused.error))?;
        if length as usize != Cqe::SIZE {
            return Err(Malformed::ResponseLength(length, self.id).into());
        }
        let response = Cqe::read_from_bytes(&bytes).expect("a response is 16 bytes of any value");
        Ok(self.slots.handle_response(response)?)
    }

    /// Looks for connection events without blocking.
    pub(super) fn check_connection(&mut self) -> Result<(), Error> {
        use verbs::ConnectionEvent::{AddressChange, DeviceRemoval, Disconnected, TimewaitExit};
        while let Some(event) = self.endpoint.next_event().map_err(verbs_error)? {
            match event {
                Disconnected | DeviceRemoval | TimewaitExit | AddressChange => {
                    return Err(Transport::Disconnected(self.id).into());
                }
                _ => tracing::debug!(queue = %self.id, "a connection event was ignored"),
            }
        }
        Ok(())
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

    /// Ends the queue: destroys the queue pair, after which the device touches nothing any more,
    /// and returns the commands that were in flight with their buffers.
    pub(super) fn close(mut self) -> Vec<Ended> {
        if let Err(error) = self.endpoint.disconnect() {
            tracing::debug!(queue = %self.id, %error, "disconnect");
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
        Ended { user: self.user, started: self.started, sqe, response, data: self.data.take() }
    }
}

fn descriptor(data: &Data, in_capsule: bool) -> Sgl {
    let (Data::ToController(buffer) | Data::FromController(buffer)) = data else {
        return Sgl::none();
    };
    let length = u32::try_from(buffer.len()).expect("a transfer is below 16 MiB");
    match in_capsule {
        true => Sgl::in_capsule(0, length),
        false => Sgl::keyed(buffer.address(), length, RemoteKey(buffer.remote_key().0)),
    }
}
