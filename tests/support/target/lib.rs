//! A scripted NVMe target in this process, over the fabric.
//!
//! It reads commands by the specification's offsets, not with our own wire layer, so that the two
//! can't be wrong together. By default it keeps to the protocol: Connect, properties, Identify,
//! Number of Queues, Keep Alive, reads, writes and flushes of one namespace with 512-byte blocks,
//! and the optional commands and zones that it is told to have.
//! The hook sees every command with the default answer, and may change the answer. A write is
//! received, executed and answered in steps of their own: the hook may hold its execution, which
//! then outlives the connection.

#[path = "../authenticator.rs"]
pub mod authenticator;
mod controller;
mod metadata;
mod note;
mod nvm;
mod received_command;
pub mod zns;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::time::Instant;

use rdma_fabric::{Fabric, Host};
use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, PreparedQueuePair, ProtectionDomain, Provider, QueuePair, QueuePairCapabilities,
    RemoteAddress, RemoteKey,
};

use self::{authenticator::Authenticator, controller::ControllerState, note::note_of};
pub use self::{
    metadata::{Format, Guard, Protection},
    note::note,
    received_command::ReceivedCommand,
};

/// Address on which the target listens.
pub const TARGET_ADDRESS: &str = "10.0.0.2:4420";
/// Number of blocks of its one namespace, of 512 bytes each.
pub const BLOCKS: usize = 1024;

const BLOCK: usize = 512;
const ABORTED_FAILED_FUSED: u16 = 0x0009;
const ABORTED_MISSING_FUSED: u16 = 0x000a;
/// Size of a capsule: a command and the most in-capsule data that is announced.
const CAPSULE: usize = 64 + IN_CAPSULE;
const IN_CAPSULE: usize = 4096;

/// Answer to a command.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Data written to the host's memory first, if the command reads.
    pub data: Vec<u8>,
    /// Address and key to write to, if not those of the command.
    pub place: Option<(u64, u32)>,
    /// Messages sent after that: by default one response of 16 bytes.
    pub messages: Vec<Vec<u8>>,
    /// Key of the host that each message invalidates.
    pub invalidate: Option<u32>,
    /// Data of the command, but for a write, for the hook to read.
    pub carried: Vec<u8>,
    /// Delay before the answer is sent.
    pub delay: Duration,
    /// The answer is sent once this is set.
    pub gate: Option<Arc<AtomicBool>>,
    /// The connection is closed after the messages.
    pub disconnect: bool,
    /// The write is executed once this is set, also after the end of its connection, and answered
    /// after that.
    pub execute: Option<Arc<AtomicBool>>,
}

/// Changes answers. Called for every command, in order.
pub type Hook = Box<dyn FnMut(ReceivedCommand, &mut Answer) + Send>;

/// The target; [`run`](Self::run) it as a task.
pub struct Target<P: Provider = Host> {
    listener: Endpoint<P>,
    queues: Vec<Queue<P>>,
    controller: ControllerState,
    accept: Vec<u8>,
    refuse: RejectHook,
    disconnect_all: Arc<AtomicBool>,
}

/// Limits that the target grants.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Entries of each I/O queue.
    pub entries: u16,
    /// I/O queues.
    pub queues: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { entries: 32, queues: 4 }
    }
}

/// Decides about a connection request by its private data: to reject it, returns the private data
/// of the reject.
pub type RejectHook = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send>;

/// The controller's side of each queue; a new one for each exchange.
struct Authentication {
    make: Box<dyn FnMut(u16) -> Authenticator + Send>,
    queues: BTreeMap<u16, Authenticator>,
}

impl<P: Provider> std::fmt::Debug for Target<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("queues", &self.queues.len()).finish_non_exhaustive()
    }
}

/// One connection.
struct Queue<P: Provider> {
    id: u16,
    /// Controller that the queue was connected to.
    controller: Option<u16>,
    endpoint: Endpoint<P>,
    domain: ProtectionDomain<P>,
    completions: CompletionQueue<P>,
    state: State<P>,
    /// Writes whose data is on its way here: by tag.
    reading: Vec<Option<ReceivedCommand>>,
    /// First command of a fused operation, and its data, until the next command.
    fused: Option<(ReceivedCommand, Vec<u8>)>,
    /// Answers to go out later.
    late: Vec<(Instant, ReceivedCommand, Answer)>,
}

enum State<P: Provider> {
    Accepted(PreparedQueuePair<P>),
    Live(QueuePair<P>),
    Gone,
}

impl Answer {
    /// Tells if its first message is a response without an error.
    fn succeeds(&self) -> bool {
        self.messages.first().is_some_and(|message| message.get(14..) == Some(&[0, 0]))
    }

    fn may_go(&self) -> bool {
        is_open(self.gate.as_ref()) && is_open(self.execute.as_ref())
    }
}

/// Tells if a gate is set, or there is none.
fn is_open(gate: Option<&Arc<AtomicBool>>) -> bool {
    gate.is_none_or(|gate| gate.load(Ordering::Acquire))
}

impl Target<Host> {
    /// A target on the host "target" of this fabric.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    #[must_use]
    pub fn new(fabric: &Fabric, hook: Hook) -> Self {
        Self::at(fabric, "target", TARGET_ADDRESS, hook)
    }

    /// A target on a host of this name and address.
    ///
    /// # Panics
    ///
    /// When the address is none, or taken.
    #[must_use]
    pub fn at(fabric: &Fabric, name: &str, address: &str, hook: Hook) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        Self::over(fabric.host(name, address.ip()), address, hook)
    }
}

impl<P: Provider> Target<P> {
    /// A target at an address of any provider of RDMA.
    ///
    /// # Panics
    ///
    /// When the address is taken, or none of ours.
    #[must_use]
    pub fn over(provider: Arc<P>, address: SocketAddr, hook: Hook) -> Self {
        let mut listener = Endpoint::open_with(provider).expect("an endpoint");
        listener.listen(address, 16).expect("the address is free");
        let mut accept = vec![0; 32];
        accept[2] = 32;
        let controller = ControllerState::new(hook);
        let (refuse, disconnect_all): (RejectHook, _) = (Box::new(|_| None), Arc::default());
        Self { listener, queues: Vec::new(), controller, accept, refuse, disconnect_all }
    }

    /// Sets the hook that may reject connection requests.
    #[must_use]
    pub fn rejecting(mut self, refuse: RejectHook) -> Self {
        self.refuse = refuse;
        self
    }

    /// Closes all connections whenever `when` is set.
    #[must_use]
    pub fn disconnecting(mut self, when: Arc<AtomicBool>) -> Self {
        self.disconnect_all = when;
        self
    }

    /// Sets the limits that are granted.
    #[must_use]
    pub fn granting(mut self, size: Size) -> Self {
        self.controller.size = size;
        self.accept[2..4].copy_from_slice(&size.entries.to_le_bytes());
        self
    }

    /// Sets the private data of accepted connections.
    #[must_use]
    pub fn accepting_with(mut self, private_data: &[u8]) -> Self {
        self.accept = private_data.to_vec();
        self
    }

    /// Demands authentication on every queue; what `make` returns has one exchange of the queue
    /// with that id. A failed exchange does not end the connection.
    #[must_use]
    pub fn authenticating(
        mut self,
        make: impl FnMut(u16) -> Authenticator + Send + 'static,
    ) -> Self {
        let make = Box::new(make);
        self.controller.authentication = Some(Authentication { make, queues: BTreeMap::new() });
        self
    }

    /// Serves the medium of another target, as a second port of the subsystem does.
    #[must_use]
    pub fn on_medium_of(mut self, other: &Self) -> Self {
        self.controller.disk = Arc::clone(&other.controller.disk);
        self
    }

    /// Formats the namespace, which is as large in blocks as before, and was never written then.
    #[must_use]
    pub fn formatted(mut self, format: Format) -> Self {
        self.controller.format = format;
        self.controller.disk = Arc::new(Mutex::new(format.medium()));
        self
    }

    /// The medium: all blocks, each with its data and its metadata.
    #[must_use]
    pub fn medium(&self) -> Arc<Mutex<Vec<u8>>> {
        Arc::clone(&self.controller.disk)
    }

    /// Sets the model that Identify Controller reports. By default it is that of Linux's target, as
    /// which this one frees the id of a controller after its last command.
    #[must_use]
    pub fn of_model(mut self, model: &'static str) -> Self {
        self.controller.model = model;
        self
    }

    /// Sets the optional commands that Identify Controller reports (ONCS and FUSES). By default
    /// they are those of Linux's target, Dataset Management and Write Zeroes; others are executed
    /// all the same.
    #[must_use]
    pub fn supporting(mut self, oncs: u16, fuses: u16) -> Self {
        self.controller.optional_commands = [oncs, fuses];
        self
    }

    /// Makes its namespace one of the Zoned Namespace command set, with the zones of [`zns`];
    /// `worn_out` are the numbers of those that are read only.
    #[must_use]
    pub fn zoned(mut self, worn_out: &[usize]) -> Self {
        let mut zones = zns::Zones::new();
        worn_out.iter().for_each(|&index| zones.wear_out(index));
        self.controller.zones = Some(zones);
        self
    }

    /// Sets the Controller Quiesce Time (CQT) that Identify Controller reports, in milliseconds.
    /// The target does not keep to it by itself.
    #[must_use]
    pub fn quiescing_within(mut self, milliseconds: u16) -> Self {
        self.controller.quiesce_ms = milliseconds;
        self
    }

    /// Serves until the task is dropped. While there is nothing to do, it looks less and less
    /// often: where time is paused, it may be minutes.
    pub async fn run(mut self) {
        const LOOK_MIN: Duration = Duration::from_micros(100);
        const LOOK_MAX: Duration = Duration::from_millis(5);
        let mut look = LOOK_MIN;
        loop {
            look = if self.step(Idle::Return) { LOOK_MIN } else { LOOK_MAX.min(look * 2) };
            tokio::time::sleep(look).await;
        }
    }

    /// Serves until `stop` is set, and sleeps while there is nothing to do, so that many targets
    /// share a processor.
    ///
    /// # Panics
    ///
    /// When the system does not let it sleep.
    pub fn serve(mut self, stop: &AtomicBool) {
        /// Time between polls for what raises no event: `stop`, and delayed answers.
        const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        while !stop.load(Ordering::Relaxed) {
            if self.step(Idle::Arm) {
                continue;
            }
            let queues = self.queues.iter();
            let own = queues.flat_map(|queue| [queue.endpoint.as_fd(), queue.completions.as_fd()]);
            let all = own.chain([self.listener.as_fd()]);
            let mut all: Vec<_> =
                all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            rustix::event::poll(&mut all, Some(&LOOK)).expect("it sleeps");
        }
    }

    /// Serves what is there now.
    pub fn serve_once(&mut self) {
        self.step(Idle::Return);
    }

    /// Serves what is there now; tells if there was anything.
    fn step(&mut self, idle: Idle) -> bool {
        let mut busy = self.disconnect_all.swap(false, Ordering::Relaxed);
        if busy {
            self.queues.iter_mut().for_each(Queue::disconnect_all);
        }
        while let Some(event) = self.listener.next_event().expect("the listener lives") {
            busy = true;
            if let ConnectionEvent::ConnectRequest { mut endpoint, private_data, .. } = event {
                match (self.refuse)(&private_data) {
                    Some(refusal) => drop(endpoint.reject(&refusal)),
                    None => {
                        let size = self.controller.size;
                        let queue = Queue::accept(endpoint, &private_data, &self.accept, size);
                        self.queues.extend(queue);
                    }
                }
            }
        }
        for queue in &mut self.queues {
            busy |= queue.step(&mut self.controller, idle);
        }
        let executed = self.controller.execute();
        let before = self.queues.len();
        self.queues.retain(|queue| !matches!(queue.state, State::Gone));
        if self.queues.len() < before {
            note_of(", its target", &format!("lost a connection, has {}", self.queues.len()));
        }
        // Nothing else ends a queue, and to look for it takes long with a thousand queues.
        if executed || self.queues.len() < before {
            let queues = &self.queues;
            self.controller.free(|id, queue| {
                queues.iter().any(|one| one.controller == Some(id) && one.id == queue)
            });
        }
        busy
    }
}

/// Action when a completion queue is empty.
#[derive(Clone, Copy)]
enum Idle {
    /// Arm it: the next completion raises an event.
    Arm,
    Return,
}

impl<P: Provider> Queue<P> {
    /// Accepts a connection; none if the host has given up.
    fn accept(
        mut endpoint: Endpoint<P>,
        request: &[u8],
        accept: &[u8],
        size: Size,
    ) -> Option<Self> {
        // Twice what may be in flight: a host that keeps to less never finds no receive.
        let receives = 2 * u32::from(size.entries);
        let domain = endpoint.domain().expect("a domain");
        let completions = endpoint.completion_queue(4 * receives).expect("a completion queue");
        let capabilities = QueuePairCapabilities {
            max_send_wr: 2 * receives,
            max_recv_wr: receives,
            max_send_sge: 1,
            max_inline_data: 64,
        };
        let mut prepared = endpoint.queue_pair(&domain, &completions, capabilities).ok()?;
        let all = receives as usize * CAPSULE;
        let mut rest = domain.allocate(all, Access::LOCAL_WRITE).expect("memory");
        for left in (0..receives as usize).rev() {
            let next = rest.split_off(left * CAPSULE);
            prepared.post_receive(next, 0).map_err(|refused| refused.error).expect("room");
        }
        prepared.flush().expect("receives are taken");
        let parameters = ConnectParameters { private_data: accept, ..ConnectParameters::default() };
        endpoint.accept(&parameters).ok()?;
        let id = u16::from_le_bytes([request[2], request[3]]);
        Some(Self {
            id,
            controller: None,
            endpoint,
            domain,
            completions,
            state: State::Accepted(prepared),
            reading: Vec::new(),
            fused: None,
            late: Vec::new(),
        })
    }

    fn disconnect_all(&mut self) {
        // It may have done so already.
        let _ = self.endpoint.disconnect();
        self.state = State::Gone;
    }

    /// Serves one queue; tells if there was anything to do.
    fn step(&mut self, controller: &mut ControllerState, idle: Idle) -> bool {
        while let Ok(Some(event)) = self.endpoint.next_event() {
            self.state = match (event, std::mem::replace(&mut self.state, State::Gone)) {
                (ConnectionEvent::Established(established), State::Accepted(prepared)) => {
                    State::Live(prepared.ready(&established))
                }
                // The host may be gone before it has learned that its request was accepted.
                (
                    ConnectionEvent::Disconnected
                    | ConnectionEvent::Rejected { .. }
                    | ConnectionEvent::ConnectError { .. }
                    | ConnectionEvent::Unreachable { .. },
                    _,
                ) => State::Gone,
                (_, state) => state,
            };
        }
        let mut batch = [Completion::default(); 16];
        let State::Live(_) = self.state else { return false };
        let polled = match idle {
            Idle::Arm => self.completions.poll_or_arm(&mut batch),
            Idle::Return => self.completions.poll(&mut batch),
        };
        let count = polled.unwrap_or(0);
        for completion in &batch[..count] {
            self.complete(completion, controller);
        }
        let now = Instant::now();
        for (_, seen, answer) in
            self.late.extract_if(.., |late| late.0 <= now && late.2.may_go()).collect::<Vec<_>>()
        {
            self.send(seen, &answer);
        }
        if let State::Live(queue_pair) = &mut self.state {
            // A host that is gone takes nothing any more.
            let _ = queue_pair.flush();
        }
        count > 0
    }

    fn complete(&mut self, completion: &Completion, controller: &mut ControllerState) {
        let State::Live(queue_pair) = &mut self.state else { return };
        let Ok(completed) = queue_pair.complete(completion) else { return };
        if !completion.status().is_success() {
            self.state = State::Gone;
            return;
        }
        match completed {
            CompletedWork::Receive { buffer, length, .. } => {
                let mut capsule = vec![0; length as usize];
                buffer.copy_out(0, &mut capsule);
                let _ = queue_pair.post_receive(buffer, 0);
                let seen =
                    ReceivedCommand { queue: self.id, sqe: capsule[..64].try_into().expect("64") };
                self.begin(seen, &capsule[64..], controller);
            }
            CompletedWork::Send { tag, buffers } => {
                let index = usize::try_from(tag).unwrap_or(usize::MAX);
                let Some(seen) = self.reading.get_mut(index).and_then(Option::take) else { return };
                let buffer = buffers.into_iter().next().expect("one buffer was read");
                let mut data = vec![0; buffer.len()];
                buffer.copy_out(0, &mut data);
                self.finish(seen, &data, controller);
            }
            CompletedWork::Credit => {}
        }
    }

    /// Begins a command; reads its data from the host's memory first.
    fn begin(
        &mut self,
        seen: ReceivedCommand,
        in_capsule: &[u8],
        controller: &mut ControllerState,
    ) {
        note_of(", its target", &format!("queue {} got opcode {:#04x}", seen.queue, seen.sqe[0]));
        let takes_data = match seen.sqe[0] {
            0x7f => seen.is_fabrics(0x01) || seen.is_fabrics(0x05),
            opcode => opcode & 0b11 == 0b01,
        };
        let (length, place) = seen.keyed();
        if !takes_data || length == 0 || seen.sqe[39] == 0x01 {
            self.finish(seen, in_capsule, controller);
            return;
        }
        let State::Live(queue_pair) = &mut self.state else { return };
        let buffer = self.domain.allocate(length, Access::LOCAL_WRITE).expect("memory");
        let tag = self.reading.len() as u64;
        self.reading.push(Some(seen));
        let _ = queue_pair.rdma_read(buffer, place, tag);
    }

    /// Executes a command whose data is here; of a fused operation both, once both are here.
    fn finish(&mut self, seen: ReceivedCommand, data: &[u8], controller: &mut ControllerState) {
        match (seen.fuse(), self.fused.take()) {
            (1, None) => self.fused = Some((seen, data.to_vec())),
            (2, Some((first, compared))) => {
                let fails = controller.nvm_status(first, &compared) != 0;
                self.execute(first, &compared, controller, None);
                let status = fails.then_some(ABORTED_FAILED_FUSED);
                self.execute(seen, data, controller, status);
            }
            (fuse, first) => {
                if let Some((first, compared)) = first {
                    self.execute(first, &compared, controller, Some(ABORTED_MISSING_FUSED));
                }
                let status = (fuse != 0).then_some(ABORTED_MISSING_FUSED);
                self.execute(seen, data, controller, status);
            }
        }
    }

    /// Executes a command, unless it is answered with this status.
    fn execute(
        &mut self,
        seen: ReceivedCommand,
        data: &[u8],
        controller: &mut ControllerState,
        refused: Option<u16>,
    ) {
        let mut answer = controller.answer(self.controller, seen, data);
        if let Some(status) = refused {
            answer.messages = vec![seen.response(status, 0)];
        }
        answer.invalidate = seen.to_invalidate();
        if !seen.is_write() {
            answer.carried = data.to_vec();
        }
        if let Some(authentication) = &mut controller.authentication {
            authentication.take_part(seen, data, &mut answer);
        }
        (controller.hook)(seen, &mut answer);
        if seen.is_fabrics(0x01) {
            self.controller = controller.connected(seen.queue, &answer);
        }
        // One that is answered with an error is not executed.
        let status = answer.messages.first().and_then(|message| message.get(14..16));
        let is_refused = status.is_some_and(|status| status != [0, 0]);
        if seen.is_write() && !is_refused {
            let queue = self.controller.map(|id| (id, seen.queue));
            let stored = controller.format.stored(seen, data);
            controller.execute_zones(seen);
            controller.begin_write(queue, seen, &stored, answer.execute.clone());
        } else if seen.is_io() && answer.succeeds() {
            let appended = answer.messages[0][..8].try_into().expect("a response has 16 bytes");
            controller.execute_nvm(seen, data, u64::from_le_bytes(appended));
        }
        match answer.delay {
            Duration::ZERO if answer.may_go() => self.send(seen, &answer),
            delay => self.late.push((Instant::now() + delay, seen, answer)),
        }
    }

    fn send(&mut self, seen: ReceivedCommand, answer: &Answer) {
        let State::Live(queue_pair) = &mut self.state else { return };
        if !answer.data.is_empty() {
            let (_, mut place) = seen.keyed();
            if let Some((address, key)) = answer.place {
                place = RemoteAddress { address, key: RemoteKey(key) };
            }
            let buffer = filled(&self.domain, &answer.data);
            // No tag of a read: what comes back is dropped.
            let _ = queue_pair.rdma_write(buffer, place, u64::MAX);
        }
        for message in &answer.messages {
            if message.len() <= 64 {
                let _ = match answer.invalidate {
                    Some(key) => queue_pair.send_inline_with_invalidate(message, RemoteKey(key)),
                    None => queue_pair.send_inline(message),
                };
            } else {
                let _ = queue_pair.send(filled(&self.domain, message), u64::MAX);
            }
        }
        if answer.disconnect {
            let _ = queue_pair.flush();
            let _ = self.endpoint.disconnect();
        }
    }
}

impl Authentication {
    fn take_part(&mut self, seen: ReceivedCommand, data: &[u8], answer: &mut Answer) {
        if seen.is_fabrics(0x01) {
            answer.messages[0][2] |= 2;
        } else if seen.is_fabrics(0x05) {
            // A Negotiate begins another exchange.
            if data.starts_with(&[0, 0]) {
                self.queues.insert(seen.queue, (self.make)(seen.queue));
            }
            if let Some(authenticator) = self.queues.get_mut(&seen.queue) {
                authenticator.send(data);
            }
        } else if seen.is_fabrics(0x06)
            && let Some(authenticator) = self.queues.get_mut(&seen.queue)
        {
            answer.data = authenticator.receive(seen.u32_at(44) as usize);
        }
    }
}

fn filled<P: Provider>(domain: &ProtectionDomain<P>, bytes: &[u8]) -> Buffer {
    let mut buffer = domain.allocate(bytes.len(), Access::LOCAL_WRITE).expect("memory");
    buffer.copy_in(0, bytes);
    buffer
}
