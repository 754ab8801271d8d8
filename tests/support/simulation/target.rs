//! Model of a target: one subsystem with one store, of which each block has a version, and a
//! controller for each association.
//!
//! The model is written from the specification, and reads commands by offsets, not with our own
//! wire layer. A command is received, executed, applied and answered, each at a time of its own.
//! Only the answer needs the connection: a write that has its data may land after its connection
//! has ended.
//!
//! ```text
//!   received --(data of a write is read)--> executing --> applied --> answered
//!                 no connection: dropped      a fault may make each step late, or leave it out
//! ```

mod admin;
mod admission;
mod connection;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use auth::{HashId, Secret};
use rdma_fabric::Host;
use scripted_target::ReceivedCommand;
use tokio::sync::Notify;
use verbs::Endpoint;

pub use self::admission::AdmissionLimits;
use self::{
    admin::Association,
    admission::Admission,
    connection::{Connection, Notices, Waiting},
};
use super::{
    executor::World,
    faults::{CommandFault, WorldFault},
    random::noise,
};

/// Address of the target.
pub const ADDRESS: &str = "10.0.0.2:4420";
/// Name of the subsystem.
pub const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:model";
/// Identifier of the one host.
pub const HOST_ID: &str = "6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5d";
/// Blocks of the namespace.
pub const BLOCKS: u64 = 32;
/// Bytes of a block.
pub const BLOCK: usize = 512;

/// Longest transit of a message that no fault delays.
const TRANSIT_MAX: Duration = Duration::from_micros(200);

/// Time within which a host closes a connection on which the target breaks the protocol.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Success, and statuses of the specification (Base 4.2.3): type in bits 10:8, DNR in bit 14.
const SUCCESS: u16 = 0;
const INVALID_FIELD: u16 = 0x4002;
const ABORTED: u16 = 0x0007;
const NOT_READY: u16 = 0x0082;
const OUT_OF_RANGE: u16 = 0x4080;

/// Limits that a controller grants; those of another connection differ.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of an I/O queue.
    pub entries: u16,
    /// Number of I/O queues.
    pub queues: u16,
    /// Maximum data transfer, as a power of two of 4,096 bytes.
    pub mdts: u8,
    /// True if every command counts as a keep-alive (TBKAS).
    pub traffic_keeps_alive: bool,
    /// True if data of writes may come in the capsule.
    pub takes_capsule_data: bool,
}

/// The target. Clones refer to the same one.
#[derive(Clone)]
pub struct ModelTarget {
    world: World,
    subsystem: Arc<Mutex<Subsystem>>,
    poked: Arc<Notify>,
}

/// State of the subsystem.
pub(super) struct Subsystem {
    world: World,
    listener: Option<Waiting>,
    admission: Admission,
    connections: BTreeMap<u64, Connection>,
    notices: Notices,
    associations: BTreeMap<u16, Association>,
    store: Vec<[u8; BLOCK]>,
    /// Steps of commands, by time.
    agenda: BTreeMap<(Duration, u64), Due>,
    /// Faults of the next I/O commands.
    faults: VecDeque<CommandFault>,
    next: u64,
    /// Limits that every controller grants; `None` to draw those of each.
    pub(super) limits: Option<Limits>,
    /// First byte of the namespace's NGUID; 0 if it has none.
    pub(super) nguid: u8,
    /// Longest time that an ordinary command takes.
    pub(super) pace: Duration,
    /// True if every queue is to be authenticated.
    pub(super) authenticates: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Number of writes that were applied, by stamp and block.
    pub(super) applied: BTreeMap<(u64, u64), u32>,
    /// Maximum number of times that a write may be executed.
    pub(super) executions_max: u32,
    /// Violations of the host.
    pub(super) violations: Vec<String>,
    /// True if messages of the host may be late.
    pub(super) is_disturbed: bool,
    /// True if the host may see responses late or never.
    pub(super) are_responses_hidden: bool,
    /// True if a command that the host has sent may arrive late or never.
    pub(super) lacks_commands: bool,
    /// Time that the host waits for the answer to an I/O command before it aborts it.
    pub(super) io_timeout: Duration,
    /// Times at which commands arrived, the last of an id, by controller, queue and id.
    arrivals: BTreeMap<(u16, u16, [u8; 2]), Duration>,
    /// True once it never listens again.
    is_closed: bool,
    /// True if the end of an I/O queue's connection ends the controller, too.
    ends_with_any_queue: bool,
}

/// Command between its receipt and its answer.
#[derive(Clone, Debug)]
struct Command {
    number: u64,
    connection: u64,
    seen: ReceivedCommand,
    data: Vec<u8>,
    fault: Option<CommandFault>,
}

/// Step of a command that is due.
#[derive(Clone, Debug)]
enum Due {
    /// The request that has waited longest is accepted.
    Accept,
    Apply(Command),
    Answer(Command, Answer),
    /// The host must have closed the connection of this command by now.
    CheckClosed(Command),
    /// Keep-alive timeout of a controller may have expired.
    KeepAlive(u16),
    /// The response to a command is sent again, without its data.
    Repeat(Command, Answer),
}

/// Answer to a command.
#[derive(Clone, Debug, Default)]
struct Answer {
    status: u16,
    result: u64,
    data: Vec<u8>,
}

impl fmt::Debug for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelTarget").finish_non_exhaustive()
    }
}

impl ModelTarget {
    /// Target on the host "target" of a world; [`run`](Self::run) it as a task.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let notices = Notices::default();
        let poked = notices.poked.clone();
        let subsystem = Subsystem {
            world: world.clone(),
            listener: Some(listener(world)),
            admission: Admission::default(),
            notices,
            connections: BTreeMap::new(),
            associations: BTreeMap::new(),
            store: vec![[0; BLOCK]; usize::try_from(BLOCKS).expect("few")],
            agenda: BTreeMap::new(),
            faults: VecDeque::new(),
            next: 0,
            limits: None,
            nguid: 0,
            pace: Duration::from_micros(40),
            authenticates: false,
            counts: BTreeMap::new(),
            applied: BTreeMap::new(),
            executions_max: 1,
            violations: Vec::new(),
            is_disturbed: false,
            are_responses_hidden: false,
            lacks_commands: false,
            io_timeout: Duration::ZERO,
            arrivals: BTreeMap::new(),
            is_closed: false,
            ends_with_any_queue: world.draw(|random| random.once_in(2)),
        };
        Self { world: world.clone(), subsystem: Arc::new(Mutex::new(subsystem)), poked }
    }

    /// Serves until the task is dropped.
    pub async fn run(self) {
        loop {
            let now = self.world.now();
            let due = {
                let mut subsystem = self.lock();
                subsystem.step(now);
                subsystem.agenda.first_key_value().map(|(&(at, _), _)| at)
            };
            let mut poked = pin!(self.poked.notified());
            let mut sleep = pin!(async {
                match due {
                    Some(at) => self.world.sleep(at.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            });
            std::future::poll_fn(|context| {
                let is_ready = self.lock().poll_ready(context).is_ready()
                    || poked.as_mut().poll(context).is_ready();
                if is_ready { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
            })
            .await;
        }
    }

    /// Changes the target from outside.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Subsystem) -> T) -> T {
        let changed = change(&mut self.lock());
        self.poked.notify_one();
        changed
    }

    /// Releases all connections and the listener.
    pub fn close(&self) {
        let mut subsystem = self.lock();
        subsystem.connections.clear();
        subsystem.listener = None;
        subsystem.is_closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Subsystem> {
        lock(&self.subsystem)
    }
}

/// Locks; a task that panicked while it held the lock has ended the run.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Secrets of the host and of the subsystem.
///
/// # Panics
///
/// Never: they have 32 bytes.
#[must_use]
pub fn secrets() -> [Secret; 2] {
    [1, 2].map(|seed| Secret::from_bytes(HashId::SHA_256, &noise(32, seed)).expect("32 bytes"))
}

fn listener(world: &World) -> Waiting {
    let address: std::net::SocketAddr = ADDRESS.parse().expect("an address");
    let host = world.fabric().host("target", address.ip());
    let mut endpoint: Endpoint<Host> = Endpoint::open_with(host).expect("an endpoint");
    endpoint.listen(address, 64).expect("the address is free");
    Waiting::new(world, endpoint)
}

impl Subsystem {
    /// Adds a fault for one of the next I/O commands.
    pub(super) fn add_fault(&mut self, fault: CommandFault) {
        self.faults.push_back(fault);
    }

    /// Notes that the host knows of the loss of all its present connections.
    pub(super) fn note_lost(&mut self, now: Duration) {
        for connection in self.connections.values_mut() {
            connection.lost_at.get_or_insert(now);
        }
    }

    /// Notes a fault that excuses what the host does from now on.
    pub(super) fn note_fault(&mut self, fault: WorldFault) {
        self.is_disturbed |= fault.delays_messages();
        self.lacks_commands |= fault.hides_responses();
        self.are_responses_hidden |= fault.hides_responses();
    }

    /// Sets limits of accepting connections, and counts requests from now on.
    pub(super) fn admit(&mut self, limits: AdmissionLimits) {
        self.admission = Admission::new(limits);
    }

    /// Connection requests in each second in which there were any.
    pub(super) fn requests(&self) -> Vec<u64> {
        self.admission.by_second.values().copied().collect()
    }

    /// Takes back the faults that no command has had yet.
    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Ends every connection, as a target that is restarted. What executes goes on.
    pub(super) fn restart(&mut self) {
        self.connections.values_mut().for_each(Connection::disconnect);
        self.associations.clear();
        self.admission.forget();
    }

    /// Ends the connections of one I/O queue, by the order of their connects.
    pub(super) fn disconnect_one(&mut self, index: usize) {
        let queues: Vec<_> = self.connections.keys().copied().collect();
        if let Some(key) = queues.get(index % queues.len().max(1)) {
            self.connections.get_mut(key).expect("just listed").disconnect();
        }
    }

    /// Stops and starts to listen.
    pub(super) fn set_listening(&mut self, listens: bool) {
        match (&self.listener, listens) {
            (Some(_), false) => self.listener = None,
            (None, true) if !self.is_closed => self.listener = Some(listener(&self.world)),
            _ => {}
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &self.listener {
            Some(listener) => listener.poll_ready(context),
            None => Poll::Pending,
        }
    }

    /// Does all that can be done now.
    fn step(&mut self, now: Duration) {
        self.take_requests(now);
        let mut touched = self.notices.take_ready();
        for &key in &touched {
            let Some(connection) = self.connections.get_mut(&key) else { continue };
            let arrived = connection.step();
            for (seen, data) in arrived.received {
                self.receive(key, seen, data, now);
            }
            for (command, data) in arrived.read {
                self.execute(Command { data, ..command }, now);
            }
            for command in arrived.violated {
                self.count("responses that break the protocol, and that the host has");
                self.plan(now + CLOSE_MAX, Due::CheckClosed(command));
            }
        }
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Due::Accept => self.accept_next(now),
                Due::Apply(command) => self.apply(command, now),
                Due::Answer(command, answer) => {
                    touched.insert(command.connection);
                    self.answer(&command, answer, now);
                }
                Due::CheckClosed(command) => self.check_closed(&command),
                Due::Repeat(command, answer) => {
                    if let Some(connection) = self.connections.get_mut(&command.connection) {
                        touched.insert(command.connection);
                        connection.repeat(command, &answer);
                    }
                }
                Due::KeepAlive(controller) => self.check_keep_alive(controller, now),
            }
        }
        for key in touched {
            if let Some(connection) = self.connections.get_mut(&key) {
                connection.flush();
            }
        }
        self.end_connections();
    }

    /// Removes connections that have ended. A controller ends with that of its admin queue.
    fn end_connections(&mut self) {
        while let Some(key) = self.notices.take_gone() {
            let Some(connection) = self.connections.get(&key) else { continue };
            let (queue, controller) = (connection.queue, connection.controller);
            self.world.note(format_args!("target: queue {queue} of {controller} is gone"));
            self.connections.remove(&key);
            let ends = queue == 0 || self.ends_with_any_queue;
            if ends && self.associations.remove(&controller).is_some() {
                let own = |connection: &&mut Connection| connection.controller == controller;
                self.connections.values_mut().filter(own).for_each(Connection::disconnect);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn plan(&mut self, at: Duration, due: Due) {
        let number = self.next();
        self.agenda.insert((at, number), due);
    }

    /// Takes a command that has arrived; reads its data first, if that is in the host's memory.
    fn receive(&mut self, key: u64, seen: ReceivedCommand, in_capsule: Vec<u8>, now: Duration) {
        let number = self.next();
        let controller = self.connections[&key].controller;
        if let Some(association) = self.associations.get_mut(&controller)
            && (association.limits.traffic_keeps_alive || seen.sqe[0] == 0x18)
        {
            association.last_activity = now;
        }
        let fault = if seen.is_io() { self.faults.pop_front() } else { None };
        let command = Command { number, connection: key, seen, data: in_capsule, fault };
        self.count("commands received");
        self.arrivals.insert((controller, seen.queue, [seen.sqe[2], seen.sqe[3]]), now);
        if seen.is_io() && !self.is_disturbed {
            self.check_connection(&command);
        }
        let (queue, opcode) = (seen.queue, seen.sqe[0]);
        let kind = if opcode == 0x7f { seen.sqe[4] } else { 0 };
        self.world.note(format_args!(
            "target: #{number} received: queue {queue} of {controller}, \
             opcode {opcode:#04x}/{kind:#04x}, lba {}, fault {fault:?}",
            if seen.is_io() { seen.u64_at(40) } else { 0 },
        ));
        match fault {
            Some(CommandFault::Disconnect) => {
                self.connections.get_mut(&key).expect("it is there").disconnect();
            }
            _ if command.takes_data() => {
                self.connections.get_mut(&key).expect("it is there").read(command);
            }
            _ => self.execute(command, now),
        }
    }

    /// Checks that the host did not send a command on a connection that it knew to be lost.
    fn check_connection(&mut self, command: &Command) {
        let now = self.world.idle_time();
        let lost_at = self.connections[&command.connection].lost_at;
        if let Some(lost_at) = lost_at.filter(|lost_at| now > *lost_at + TRANSIT_MAX) {
            let (number, late) = (command.number, now - lost_at);
            let what = format!("#{number} was sent {late:?} after the loss of its connection");
            self.world.note(format_args!("VIOLATION: {what}"));
            self.violations.push(what);
        }
    }

    /// Executes a command whose data is here.
    fn execute(&mut self, command: Command, now: Duration) {
        if !command.seen.is_io() {
            if let Some(answer) = self.administer(&command, now) {
                let after = self.delay();
                self.plan(now + after, Due::Answer(command, answer));
            }
            return;
        }
        let after = match command.fault {
            Some(CommandFault::SlowExecution(time)) => time,
            _ => self.delay(),
        };
        self.plan(now + after, Due::Apply(command));
    }

    fn delay(&mut self) -> Duration {
        let pace = self.pace;
        self.world.draw(|random| random.time(Duration::from_micros(1), pace))
    }

    /// Lets a command take effect.
    fn apply(&mut self, command: Command, now: Duration) {
        let (number, seen) = (command.number, command.seen);
        let is_late = !self.connections.contains_key(&command.connection);
        let answer = match (command.fault, command.range()) {
            (Some(CommandFault::Status(status)), _) => Answer { status, ..Answer::default() },
            (_, None) => Answer { status: OUT_OF_RANGE, ..Answer::default() },
            (_, Some(range)) => match seen.sqe[0] {
                0x01 => {
                    let stamp = stamp(&command.data);
                    self.world.note(format_args!("target: #{number} applied, stamp {stamp:#x}"));
                    for (block, data) in range.zip(command.data.chunks_exact(BLOCK)) {
                        self.store[block].copy_from_slice(data);
                        self.count_execution(stamp, block as u64);
                    }
                    if is_late {
                        self.count("writes applied after their connection");
                    }
                    Answer::default()
                }
                0x02 => Answer { data: self.store[range].concat(), ..Answer::default() },
                0x00 => Answer::default(),
                _ => Answer { status: 0x4001, ..Answer::default() },
            },
        };
        let after = match command.fault {
            Some(CommandFault::SlowAnswer(time)) => time,
            _ => self.delay(),
        };
        self.plan(now + after, Due::Answer(command, answer));
    }

    /// Checks that the host has closed the connection on which a response broke the protocol.
    fn check_closed(&mut self, command: &Command) {
        let Some(connection) = self.connections.get(&command.connection) else { return };
        if self.are_responses_hidden || connection.lost_at.is_some() {
            return;
        }
        let (number, fault) = (command.number, command.fault.map_or("", CommandFault::name));
        let what = format!("#{number}, {fault}: the connection is still there after {CLOSE_MAX:?}");
        self.world.note(format_args!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    fn count_execution(&mut self, stamp: u64, block: u64) {
        let count = self.applied.entry((stamp, block)).or_default();
        *count += 1;
        if *count > self.executions_max {
            let (count, max) = (*count, self.executions_max);
            let what = format!("write {stamp:#x} was executed {count} times; {max} are allowed");
            self.world.note(format_args!("VIOLATION: {what}"));
            self.violations.push(what);
        }
    }

    fn answer(&mut self, command: &Command, answer: Answer, now: Duration) {
        let Command { number, fault, .. } = command;
        let Some(connection) = self.connections.get_mut(&command.connection) else { return };
        if let Some(CommandFault::NoAnswer) = fault {
            self.world.note(format_args!("target: #{number} is not answered"));
            return;
        }
        connection.answer(command, &answer);
        let status = answer.status;
        self.world.note(format_args!("target: #{number} answered: status {status:#x}"));
        if let Some(CommandFault::RepeatedResponse) = fault {
            let after = self.delay();
            self.plan(now + after, Due::Repeat(command.clone(), answer));
        }
    }
}

impl Command {
    /// Tells if data is to be read from the host's memory.
    fn takes_data(&self) -> bool {
        let sends = self.seen.is_fabrics(0x01)
            || self.seen.is_fabrics(0x05)
            || self.seen.is_host_behavior()
            || (self.seen.is_io() && self.seen.sqe[0] == 0x01);
        sends && self.seen.sqe[39] != 0x01
    }

    /// Blocks of an I/O command; `None` if they are not all in the namespace.
    fn range(&self) -> Option<std::ops::Range<usize>> {
        if self.seen.sqe[0] == 0x00 {
            return Some(0..0);
        }
        let start = self.seen.u64_at(40);
        let end = start.checked_add(u64::from(self.seen.u32_at(48) & 0xffff) + 1)?;
        let end = usize::try_from(end).ok().filter(|_| end <= BLOCKS)?;
        Some(usize::try_from(start).ok()?..end)
    }
}

/// Stamp of the first block of some data: its first eight bytes.
fn stamp(data: &[u8]) -> u64 {
    data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
