//! One connection of the model target.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use rdma_fabric::{Host, Readiness};
use scripted_target::{ReceivedCommand, authenticator::Authenticator};
use tokio::sync::Notify;
use verbs::{
    Access, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, PreparedQueuePair, ProtectionDomain, QueuePair, QueuePairCapabilities, RemoteAddress,
    RemoteKey,
};

use super::{Answer, Command, lock};
use crate::{executor::World, faults::CommandFault};

/// Bytes of a capsule: a command, and data of two blocks.
pub(super) const CAPSULE: usize = 64 + 1024;
/// Receives of a queue, which are more than any host may have in flight.
const RECEIVES: u32 = 48;
/// Tag of work whose completion says nothing.
const UNUSED: u64 = u64::MAX;

/// Endpoint, and the readiness of its events.
pub(super) struct Waiting {
    pub(super) endpoint: Endpoint<Host>,
    readiness: Readiness,
}

impl Waiting {
    pub(super) fn new(world: &World, endpoint: Endpoint<Host>) -> Self {
        let readiness = world.fabric().readiness(endpoint.as_fd()).expect("it is of this fabric");
        Self { endpoint, readiness }
    }

    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.readiness.poll_ready(context)
    }
}

/// Keys of the connections on which something has happened, for the target to look at.
#[derive(Clone, Default)]
pub(super) struct Notices {
    /// Wakes the target.
    pub(super) poked: Arc<Notify>,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    /// Connections with events or completions, perhaps.
    ready: BTreeSet<u64>,
    /// Connections that have ended.
    gone: BTreeSet<u64>,
}

impl Notices {
    /// Notice of a new connection, which is given at once.
    pub(super) fn of(&self, key: u64) -> Arc<Notice> {
        let notice = Arc::new(Notice { key, notices: self.clone() });
        Arc::clone(&notice).wake();
        notice
    }

    pub(super) fn take_ready(&self) -> BTreeSet<u64> {
        std::mem::take(&mut lock(&self.keys).ready)
    }

    /// Takes the least key of a connection that has ended.
    pub(super) fn take_gone(&self) -> Option<u64> {
        lock(&self.keys).gone.pop_first()
    }
}

/// Notice of one connection.
pub(super) struct Notice {
    key: u64,
    notices: Notices,
}

impl Notice {
    fn give_gone(&self) {
        lock(&self.notices.keys).gone.insert(self.key);
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        lock(&self.notices.keys).ready.insert(self.key);
        self.notices.poked.notify_one();
    }
}

/// One queue's connection.
pub(super) struct Connection {
    /// Queue that the host asked for.
    pub(super) queue: u16,
    /// Controller that it belongs to, once its Connect has said so; 0 before.
    pub(super) controller: u16,
    /// Controller's side of its authentication.
    pub(super) authenticator: Option<Authenticator>,
    /// Time at which the host told of its loss.
    pub(super) lost_at: Option<Duration>,
    /// Before the endpoint, so that the queue pair is destroyed first.
    state: State,
    waiting: Waiting,
    completions: CompletionQueue<Host>,
    completed: Readiness,
    notice: Arc<Notice>,
    domain: ProtectionDomain<Host>,
    /// Commands that wait for the completion of work, by its tag.
    waiting_for: Vec<Option<(Work, Command)>>,
}

enum State {
    Accepted(PreparedQueuePair<Host>),
    Live(QueuePair<Host>),
    Gone,
}

/// Work whose completion a command waits for.
enum Work {
    /// Data of a write is read from the host's memory.
    Read,
    /// A response that the host must not accept is sent. It is complete when the host has it, which
    /// may be late: the host need not have a receive posted for a repeat, and what is sent after
    /// one that waits for a receive waits with it.
    Violation,
}

/// Commands that have arrived, data of those that arrived before, and those of which the host has
/// a response that breaks the protocol.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) received: Vec<(ReceivedCommand, Vec<u8>)>,
    pub(super) read: Vec<(Command, Vec<u8>)>,
    pub(super) violated: Vec<Command>,
}

impl Connection {
    /// Accepts a connection; `None` if the host has given up.
    pub(super) fn accept(
        world: &World,
        mut endpoint: Endpoint<Host>,
        request: &[u8],
        notice: Arc<Notice>,
    ) -> Option<Self> {
        let domain = endpoint.domain().ok()?;
        let completions = endpoint.completion_queue(4 * RECEIVES).ok()?;
        let capabilities = QueuePairCapabilities {
            max_send_wr: 3 * RECEIVES,
            max_recv_wr: RECEIVES,
            max_send_sge: 1,
            max_inline_data: 64,
        };
        let mut prepared = endpoint.queue_pair(&domain, &completions, capabilities).ok()?;
        let mut rest = domain.allocate(RECEIVES as usize * CAPSULE, Access::LOCAL_WRITE).ok()?;
        for left in (0..RECEIVES as usize).rev() {
            let next = rest.split_off(left * CAPSULE);
            prepared.post_receive(next, 0).map_err(|refused| refused.error).expect("room");
        }
        prepared.flush().ok()?;
        // Format 0, and the receives that a host may count on (RDMA 3.3.2).
        let private_data = [0, 0, 64, 0];
        let parameters =
            ConnectParameters { private_data: &private_data, ..ConnectParameters::default() };
        endpoint.accept(&parameters).ok()?;
        let completed = world.fabric().readiness(completions.as_fd()).expect("of this fabric");
        Some(Self {
            queue: u16::from_le_bytes([request[2], request[3]]),
            controller: 0,
            authenticator: None,
            lost_at: None,
            state: State::Accepted(prepared),
            waiting: Waiting::new(world, endpoint),
            completions,
            completed,
            notice,
            domain,
            waiting_for: Vec::new(),
        })
    }

    /// Disconnects. Nothing is received or answered from now on.
    pub(super) fn disconnect(&mut self) {
        // It may have done so already.
        let _ = self.waiting.endpoint.disconnect();
        self.state = State::Gone;
        self.notice.give_gone();
    }

    /// Takes what has arrived, and arms the completion queue and the notice.
    pub(super) fn step(&mut self) -> Arrived {
        let mut arrived = Arrived::default();
        self.is_ready(); // what has been told of is taken now
        self.handle_events();
        let mut batch = [Completion::default(); 16];
        let _ = self.completions.acknowledge();
        while let State::Live(_) = self.state {
            let count = self.completions.poll_or_arm(&mut batch).unwrap_or(0);
            if count == 0 {
                break;
            }
            for completion in &batch[..count] {
                self.complete(completion, &mut arrived);
            }
        }
        if self.is_ready() {
            Arc::clone(&self.notice).wake();
        }
        arrived
    }

    /// Tells if something has happened since the last call; if not, there will be a notice.
    fn is_ready(&self) -> bool {
        let waker = Waker::from(self.notice.clone());
        let mut context = Context::from_waker(&waker);
        let events = self.waiting.poll_ready(&mut context);
        let completed = self.completed.poll_ready(&mut context);
        events.is_ready() || completed.is_ready()
    }

    fn handle_events(&mut self) {
        while let Ok(Some(event)) = self.waiting.endpoint.next_event() {
            self.state = match (event, std::mem::replace(&mut self.state, State::Gone)) {
                (ConnectionEvent::Established(established), State::Accepted(prepared)) => {
                    State::Live(prepared.ready(&established))
                }
                (
                    ConnectionEvent::Disconnected
                    | ConnectionEvent::Rejected { .. }
                    | ConnectionEvent::ConnectError { .. }
                    | ConnectionEvent::Unreachable { .. }
                    | ConnectionEvent::DeviceRemoval,
                    _,
                ) => {
                    let _ = self.waiting.endpoint.disconnect();
                    self.notice.give_gone();
                    State::Gone
                }
                (_, state) => state,
            };
        }
    }

    fn complete(&mut self, completion: &Completion, arrived: &mut Arrived) {
        let State::Live(queue_pair) = &mut self.state else { return };
        let Ok(completed) = queue_pair.complete(completion) else { return };
        if !completion.status().is_success() {
            return self.disconnect();
        }
        match completed {
            CompletedWork::Receive { buffer, length, .. } => {
                let mut capsule = vec![0; length as usize];
                buffer.copy_out(0, &mut capsule);
                let _ = queue_pair.post_receive(buffer, 0);
                let Some((sqe, data)) = capsule.split_first_chunk() else { return };
                let seen = ReceivedCommand { queue: self.queue, sqe: *sqe };
                arrived.received.push((seen, data.to_vec()));
            }
            CompletedWork::Send { tag, buffers } => {
                let index = usize::try_from(tag).unwrap_or(usize::MAX);
                let waiting = self.waiting_for.get_mut(index).and_then(Option::take);
                let Some((work, command)) = waiting else { return };
                if let Work::Violation = work {
                    return arrived.violated.push(command);
                }
                let buffer = buffers.into_iter().next().expect("one buffer was read");
                let mut data = vec![0; buffer.len()];
                buffer.copy_out(0, &mut data);
                arrived.read.push((command, data));
            }
            CompletedWork::Credit => {}
        }
    }

    /// Starts to read the data of a command.
    pub(super) fn read(&mut self, command: Command) {
        let State::Live(queue_pair) = &mut self.state else { return };
        let (length, place) = keyed(command.seen);
        let Ok(buffer) = self.domain.allocate(length.max(1), Access::LOCAL_WRITE) else { return };
        let tag = self.waiting_for.len() as u64;
        self.waiting_for.push(Some((Work::Read, command)));
        let _ = queue_pair.rdma_read(buffer, place, tag);
    }

    /// Sends data and response of a command, with what its fault makes of them.
    pub(super) fn answer(&mut self, command: &Command, answer: &Answer) {
        let State::Live(queue_pair) = &mut self.state else { return };
        if !answer.data.is_empty() {
            let (length, place) = keyed(command.seen);
            let data = &answer.data[..answer.data.len().min(length)];
            let Ok(mut buffer) = self.domain.allocate(data.len().max(1), Access::LOCAL_WRITE)
            else {
                return;
            };
            buffer.copy_in(0, data);
            let _ = queue_pair.rdma_write(buffer, place, UNUSED);
        }
        let mut message = command.seen.response(answer.status, answer.result);
        match command.fault {
            Some(CommandFault::WrongCommand) => {
                message[12] ^= 0x15;
                message[13] ^= 0x80;
            }
            Some(CommandFault::StaleGeneration) => message[13] ^= 0x80,
            Some(CommandFault::ShortResponse) => message.truncate(12),
            Some(CommandFault::LongResponse) => message.resize(20, 0),
            _ => {}
        }
        if command.fault.is_some_and(CommandFault::breaks_protocol) {
            return self.send_violation(command.clone(), &message);
        }
        let _ = match command.seen.to_invalidate() {
            Some(key) => queue_pair.send_inline_with_invalidate(&message, RemoteKey(key)),
            None => queue_pair.send_inline(&message),
        };
    }

    /// Sends the response to a command again.
    pub(super) fn repeat(&mut self, command: Command, answer: &Answer) {
        let message = command.seen.response(answer.status, answer.result);
        self.send_violation(command, &message);
    }

    /// Sends a response that the host must not accept.
    fn send_violation(&mut self, command: Command, message: &[u8]) {
        let State::Live(queue_pair) = &mut self.state else { return };
        let Ok(mut buffer) = self.domain.allocate(message.len(), Access::LOCAL_WRITE) else {
            return;
        };
        buffer.copy_in(0, message);
        let tag = self.waiting_for.len() as u64;
        let key = command.seen.to_invalidate().map(RemoteKey);
        self.waiting_for.push(Some((Work::Violation, command)));
        let _ = match key {
            Some(key) => queue_pair.send_with_invalidate(buffer, key, tag),
            None => queue_pair.send(buffer, tag),
        };
    }

    /// Hands queued work to the device.
    pub(super) fn flush(&mut self) {
        if let State::Live(queue_pair) = &mut self.state {
            // A host that is gone takes nothing any more.
            let _ = queue_pair.flush();
        }
    }
}

/// Length and place of a command's data in the host's memory.
fn keyed(seen: ReceivedCommand) -> (usize, RemoteAddress) {
    let length = seen.u32_at(32) & 0x00ff_ffff;
    let place = RemoteAddress { address: seen.u64_at(24), key: RemoteKey(seen.u32_at(35)) };
    (length as usize, place)
}
