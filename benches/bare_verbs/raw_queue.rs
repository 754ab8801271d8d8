//! One connected queue over the provider's own calls, without the checks that keep them safe to
//! use.

use std::{
    error::Error,
    net::SocketAddr,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rdma_host::{
    ConnectOptions, RdmaCore,
    proto::{
        BringUp, BringUpAction, BringUpInput, Execute, Negotiated, QueueBringUp,
        QueueBringUpAction, QueueReady, RdmaConnect, Transfer,
    },
    wire::{CmAcceptData, CommandId, Cqe, FromBytes, IntoBytes, RemoteKey, SglDescriptor, Sqe},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::{
    Access, ConnectParameters, PrivateData, Provider, QueuePairCapabilities,
    memory::{Agent, Mapping},
    provider::{
        Batch, CmEventKind, CmRequest, Keys, Operation, Payload, Payloads, QueuePairRequest,
        QueueRequest, ReceiveRequest, RegisterRequest, SendRequest, Sge, WindowTable,
        WorkCompletion,
    },
};

/// A queue of a controller. Its memory holds the responses, then the data.
pub(crate) struct RawQueue {
    // Dropped in this order: the queue pair before the objects that it was made from.
    pub(crate) pair: <RdmaCore as Provider>::QueuePair,
    pub(crate) completions: <RdmaCore as Provider>::CompletionQueue,
    /// Receive requests, one for each response, all posted at first.
    pub(crate) receives: Vec<ReceiveRequest>,
    /// Address of the data, and the keys of its memory.
    pub(crate) data: u64,
    pub(crate) keys: Keys,
    memory: Arc<Mapping>,
    data_offset: usize,
    _registration: <RdmaCore as Provider>::Registration,
    _domain: <RdmaCore as Provider>::ProtectionDomain,
    _endpoint: Endpoint,
}

type Endpoint = <RdmaCore as Provider>::Endpoint;

/// Both queues of a controller, and the negotiated parameters. The admin queue stays open for as
/// long as the I/O queue is used.
pub(crate) struct Controller {
    pub(crate) io: RawQueue,
    pub(crate) negotiated: Negotiated,
    _admin: RawQueue,
}

impl Controller {
    /// Connects to a subsystem, with one I/O queue that has `data` bytes for data.
    pub(crate) fn connect(options: &ConnectOptions, data: usize) -> Result<Self, Box<dyn Error>> {
        let mut bring_up = BringUp::new(options.clone());
        let (mut admin, mut io) = (None, None);
        loop {
            match bring_up.action()? {
                BringUpAction::RdmaConnect(open) => {
                    let (queue, accept) = RawQueue::connect(options.address, &open, SCRATCH)?;
                    admin = Some(queue);
                    bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
                }
                BringUpAction::Execute(execute) => {
                    let queue = admin.as_mut().ok_or("a command for a queue that is not open")?;
                    let (response, data) = queue.execute(&execute)?;
                    bring_up.handle(&BringUpInput::Completed(response, &data))?;
                }
                BringUpAction::Wait(time) => {
                    std::thread::sleep(time);
                    bring_up.handle(&BringUpInput::TimerFired)?;
                }
                BringUpAction::Authenticate(_) => return Err(DEMANDS.into()),
                BringUpAction::ConnectIoQueues { mut queues, .. } => {
                    let (queue, up) = RawQueue::bring_up(
                        options.address,
                        queues.swap_remove(0),
                        data.max(SCRATCH),
                    )?;
                    io = Some(queue);
                    bring_up.handle(&BringUpInput::IoQueuesReady(&[up]))?;
                }
                BringUpAction::Live(negotiated) => {
                    let negotiated = *negotiated;
                    return match (admin, io) {
                        (Some(_admin), Some(io)) => Ok(Self { io, negotiated, _admin }),
                        _ => Err("the target granted no I/O queue".into()),
                    };
                }
            }
        }
    }
}

const DEMANDS: &str = "the target demands authentication";

impl RawQueue {
    /// Brings an I/O queue up.
    fn bring_up(
        address: SocketAddr,
        mut bring_up: QueueBringUp,
        data: usize,
    ) -> Result<(Self, QueueReady), Box<dyn Error>> {
        let mut queue = None;
        loop {
            match (bring_up.action()?, &mut queue) {
                (QueueBringUpAction::RdmaConnect(open), queue) => {
                    let (made, accept) = Self::connect(address, &open, data)?;
                    *queue = Some(made);
                    bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
                }
                (QueueBringUpAction::Execute(execute), Some(queue)) => {
                    let (response, data) = queue.execute(&execute)?;
                    bring_up.handle(&BringUpInput::Completed(response, &data))?;
                }
                (QueueBringUpAction::Ready(up), Some(_)) => {
                    return Ok((queue.take().ok_or("it is open")?, up));
                }
                (QueueBringUpAction::Authenticate, _) => return Err(DEMANDS.into()),
                (_, None) => return Err("a command for a queue that is not open".into()),
            }
        }
    }

    fn connect(
        address: SocketAddr,
        open: &RdmaConnect,
        data: usize,
    ) -> Result<(Self, CmAcceptData), Box<dyn Error>> {
        let mut endpoint = resolve(address)?;
        let domain = PROVIDER.domain(&endpoint)?;
        let entries = u32::from(open.entries);
        let (completion_queue, _) =
            PROVIDER.completion_queue(&endpoint, SENDS_PER_ENTRY * entries * 2)?;
        let capabilities = QueuePairCapabilities {
            max_send_wr: SENDS_PER_ENTRY * entries,
            max_recv_wr: entries,
            max_send_sge: 1,
            max_inline_data: SQE_BYTES,
        };
        let request = QueuePairRequest { domain: &domain, queue: &completion_queue, capabilities };
        let (pair, _) = PROVIDER.queue_pair(&mut endpoint, request)?;
        let data_offset = usize::from(open.entries) * RESPONSE;
        let access = Access::LOCAL_WRITE | Access::REMOTE_READ | Access::REMOTE_WRITE;
        let memory = Mapping::allocate(data_offset + data, Agent::Thread, access);
        let memory = Arc::new(memory.ok_or("no memory")?);
        let register = RegisterRequest::Memory(Arc::clone(&memory));
        let (registration, keys) = PROVIDER.register(&domain, register)?;
        let receives = (0..u64::from(open.entries)).map(|token| ReceiveRequest {
            token,
            sge: Sge {
                address: memory.address() + token * RESPONSE as u64,
                length: CQE_BYTES,
                local_key: keys.local,
            },
        });
        let mut queue = Self {
            pair,
            completions: completion_queue,
            receives: receives.collect(),
            data: memory.address() + data_offset as u64,
            keys,
            memory,
            data_offset,
            _registration: registration,
            _domain: domain,
            _endpoint: endpoint,
        };
        let (queue_pair, requests) = (&mut queue.pair, queue.receives.as_slice());
        PROVIDER.post(Batch::Receives { queue_pair, requests }).map_err(|error| error.source)?;
        let accept = queue.establish(open)?;
        Ok((queue, accept))
    }

    /// Establishes the connection; returns the private data of the target's accept.
    fn establish(&mut self, open: &RdmaConnect) -> Result<CmAcceptData, Box<dyn Error>> {
        let parameters = ConnectParameters {
            private_data: open.request.as_bytes(),
            responder_resources: READ_DEPTH,
            initiator_depth: 0,
            retry_count: 6, // 7 is for ever on rxe
            rnr_retry_count: 7,
        };
        PROVIDER.request(&mut self._endpoint, CmRequest::Connect(parameters))?;
        let answer = expect(&mut self._endpoint, CmEventKind::ESTABLISHED)?;
        Ok(CmAcceptData::parse(&answer)?)
    }

    /// Sends one command and waits for its response and data.
    fn execute(&mut self, execute: &Execute) -> Result<(Cqe, Vec<u8>), Box<dyn Error>> {
        let mut sqe = execute.sqe;
        let key = RemoteKey(self.keys.remote.0);
        let length = match &execute.transfer {
            Transfer::FromController(length) => *length,
            Transfer::None => 0,
            Transfer::ToController(bytes) => {
                self.memory.device_write(self.data_offset, bytes);
                bytes.len()
            }
        };
        sqe.set_command_id(CommandId(0));
        match length {
            0 => sqe.set_sgl(SglDescriptor::none()),
            _ => sqe.set_sgl(SglDescriptor::keyed(self.data, u32::try_from(length)?, key)),
        }
        let mut payloads = Payloads::new(Sqe::SIZE, 0);
        payloads.write_inline(0, sqe.as_bytes());
        self.send(&[inline_send(0, 0)], &payloads)?;
        let mut found = [WorkCompletion::default()];
        let until = Instant::now() + PATIENCE;
        loop {
            if self.poll(&mut found)? == 0 {
                if Instant::now() > until {
                    return Err(format!("{}: no answer within {PATIENCE:?}", execute.name).into());
                }
                std::thread::yield_now();
                continue;
            }
            let [completion] = found;
            if !completion.status().is_success() {
                return Err(format!("{}: {}", execute.name, completion.status()).into());
            }
            if completion.token() != SEND {
                break;
            }
        }
        let index = usize::try_from(found[0].token())?;
        let mut response = [0; Cqe::SIZE];
        self.memory.device_read(index * RESPONSE, &mut response);
        self.repost(&[self.receives[index]])?;
        let mut data = vec![0; length];
        self.memory.device_read(self.data_offset, &mut data);
        Ok((Cqe::read_from_bytes(&response).expect("16 bytes of any value"), data))
    }

    /// Polls for completions; returns their number.
    #[inline]
    pub(crate) fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Box<dyn Error>> {
        Ok(PROVIDER.completions(&mut self.completions, QueueRequest::Poll(out))?)
    }

    #[inline]
    pub(crate) fn send(
        &mut self,
        requests: &[SendRequest],
        payloads: &Payloads,
    ) -> Result<(), Box<dyn Error>> {
        let queue_pair = &mut self.pair;
        let windows = &mut WindowTable::default();
        let posted = PROVIDER.post(Batch::Sends { queue_pair, requests, payloads, windows });
        Ok(posted.map_err(|error| error.source)?)
    }

    /// Posts receives again.
    #[inline]
    pub(crate) fn repost(&mut self, requests: &[ReceiveRequest]) -> Result<(), Box<dyn Error>> {
        let queue_pair = &mut self.pair;
        let posted = PROVIDER.post(Batch::Receives { queue_pair, requests });
        Ok(posted.map_err(|error| error.source)?)
    }

    /// Command id and status of a response: the fields that are looked at.
    #[inline]
    pub(crate) fn response(&self, index: usize) -> (u16, u16) {
        let mut end = [0; 4];
        self.memory.device_read(index * RESPONSE + Cqe::SIZE - 4, &mut end);
        let [low, high, status_low, status_high] = end;
        (u16::from_le_bytes([low, high]), u16::from_le_bytes([status_low, status_high]) >> 1)
    }

    /// Copies bytes into the memory of the data.
    pub(crate) fn put(&self, offset: usize, bytes: &[u8]) {
        self.memory.device_write(self.data_offset + offset, bytes);
    }

    /// Sleeps until a completion event arrives, at most a second; the caller polls afterwards.
    pub(crate) fn sleep(&mut self) -> Result<(), Box<dyn Error>> {
        await_readable(&self.completions, Duration::from_secs(1))?;
        PROVIDER.completions(&mut self.completions, QueueRequest::Acknowledge)?;
        Ok(())
    }

    /// Arms the completion queue: the next completion raises an event.
    pub(crate) fn arm(&mut self) -> Result<(), Box<dyn Error>> {
        PROVIDER.completions(&mut self.completions, QueueRequest::Arm)?;
        Ok(())
    }
}

/// Makes an endpoint with a resolved address and route.
fn resolve(destination: SocketAddr) -> Result<Endpoint, Box<dyn Error>> {
    let mut endpoint = PROVIDER.endpoint()?;
    let (source, timeout) = (None, PATIENCE);
    let resolve = CmRequest::ResolveAddress { source, destination, timeout };
    PROVIDER.request(&mut endpoint, resolve)?;
    expect(&mut endpoint, CmEventKind::ADDRESS_RESOLVED)?;
    PROVIDER.request(&mut endpoint, CmRequest::ResolveRoute { timeout })?;
    expect(&mut endpoint, CmEventKind::ROUTE_RESOLVED)?;
    Ok(endpoint)
}

/// Send request for the capsule in a row of the payloads.
pub(crate) fn inline_send(token: u64, row: usize) -> SendRequest {
    let payload = Payload::Inline { offset: row * Sqe::SIZE, length: SQE_BYTES };
    SendRequest { token: token | SEND, signaled: false, operation: Operation::Send, payload }
}

/// Waits for the next event, which must be of this kind; returns its private data.
fn expect(endpoint: &mut Endpoint, kind: CmEventKind) -> Result<PrivateData, Box<dyn Error>> {
    loop {
        if let Some(event) = PROVIDER.cm_event(endpoint)? {
            if event.kind == kind {
                return Ok(event.private_data);
            }
            return Err(format!("{:?}, status {}", event.kind, event.status).into());
        }
        if !await_readable(endpoint, PATIENCE)? {
            return Err(format!("{kind:?} did not come within {PATIENCE:?}").into());
        }
    }
}

/// Waits until `file` is readable; false if it was not within `limit`.
fn await_readable(file: &impl AsFd, limit: Duration) -> Result<bool, Box<dyn Error>> {
    let limit = Timespec::try_from(limit)?;
    Ok(poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&limit))? > 0)
}

/// Mark of the tokens of sends; those of receives are indices.
pub(crate) const SEND: u64 = 1 << 63;

/// Size of a command, as [`Sqe`] has it.
pub(crate) const SQE_BYTES: u32 = 64;
const CQE_BYTES: u32 = 16;
const _: () = assert!(Sqe::SIZE == 64 && Cqe::SIZE == 16);

const PROVIDER: RdmaCore = RdmaCore::new();

/// Places on the send queue for an entry: sends are signaled now and then, so that a place becomes
/// free later than its command.
const SENDS_PER_ENTRY: u32 = 2;

/// Distance of two responses in memory: a cache line.
const RESPONSE: usize = 64;

/// Memory for the data of Connect and Identify.
const SCRATCH: usize = 4096;

const READ_DEPTH: u8 = 128;

const PATIENCE: Duration = Duration::from_secs(5);
