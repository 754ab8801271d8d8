//! Cost of the engine itself, over a device that does next to nothing. `examples/cost.sh` has
//! callgrind count the instructions and system calls of each function named `cost_*`, without
//! those of the functions named `device_*`, which stand for the device's plug-in; this program
//! says how often each ran, and how often memory was allocated meanwhile.

use std::{
    alloc::System,
    hint::black_box,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectionEvent, DeviceEvent,
    Endpoint, Error, Limits, PreparedQueuePair, Provider, QueuePair, QueuePairCapabilities,
    RemoteKey, Status, VerbsApi,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmEventKind, CmRequest, CompletionQueueInfo, Keys, Payloads, PostError,
        QueuePairInfo, QueuePairRequest, QueueRequest, ReceiveRequest, RegisterRequest,
        SendRequest, WorkCompletion,
    },
};

const ROUNDS: u32 = 1000;
const DEPTH: u32 = 16;
const NUMBER: u32 = 17;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One inline send, handed over by itself.
#[inline(never)]
fn cost_post_one(pair: &mut QueuePair<Nothing>, message: &[u8; 64]) {
    pair.send_inline(message).expect("there is room");
    pair.flush().expect("it takes everything");
}

/// Sixteen inline sends, handed over together.
#[inline(never)]
fn cost_post_chain(pair: &mut QueuePair<Nothing>, message: &[u8; 64]) {
    for _ in 0..DEPTH {
        pair.send_inline(message).expect("there is room");
    }
    pair.flush().expect("it takes everything");
}

/// One receive, handed over by itself.
#[inline(never)]
fn cost_post_receive(pair: &mut QueuePair<Nothing>, buffer: Buffer) {
    pair.post_receive(buffer, 0).expect("there is room");
    pair.flush().expect("it takes everything");
}

/// One completion, taken by itself.
#[inline(never)]
fn cost_poll_one(queue: &mut CompletionQueue<Nothing>, out: &mut [Completion; 1]) -> usize {
    queue.poll(out).expect("it works")
}

/// A queue that is empty.
#[inline(never)]
fn cost_poll_empty(queue: &mut CompletionQueue<Nothing>, out: &mut [Completion; 1]) -> usize {
    let count = queue.poll(out).expect("it works");
    count + black_box(1) // so that the linker keeps it apart from the next
}

/// A queue that is empty, on which 64 queue pairs complete.
#[inline(never)]
fn cost_poll_empty_of_64(queue: &mut CompletionQueue<Nothing>, out: &mut [Completion; 1]) -> usize {
    let count = queue.poll(out).expect("it works");
    count + black_box(64)
}

/// The slots of a completed inline send and of those before it, freed.
#[inline(never)]
fn cost_complete_send(pair: &mut QueuePair<Nothing>, completion: &Completion) {
    pair.complete(completion).expect("it is ours");
}

/// The slot of a completed receive, freed.
#[inline(never)]
fn cost_complete_receive(pair: &mut QueuePair<Nothing>, completion: &Completion) -> Buffer {
    match pair.complete(completion) {
        Ok(CompletedWork::Receive { buffer, .. }) => buffer,
        other => panic!("a receive was posted: {other:?}"),
    }
}

fn main() -> Result<(), Error> {
    let mut endpoint = Endpoint::open_with(Arc::new(Nothing))?;
    let domain = endpoint.domain()?;
    let mut queue = endpoint.completion_queue(2 * DEPTH)?;
    let size = QueuePairCapabilities {
        max_send_wr: DEPTH,
        max_recv_wr: DEPTH,
        max_send_sge: 1,
        max_inline_data: 64,
    };
    let pair = endpoint.queue_pair(&domain, &queue, size)?;
    let Some(ConnectionEvent::Established(established)) = endpoint.next_event()? else {
        return Err(Error::Misuse("the device below knows no other event"));
    };
    let mut pair = pair.ready(&established);
    let mut buffer = domain.allocate(64, Access::LOCAL_WRITE)?;
    let message = black_box([7; 64]);
    let mut out = [Completion::default()];
    let (mut busy, _pairs) = shared_by_64()?;
    let mut polls = 0;
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        for _ in 0..DEPTH {
            cost_post_one(&mut pair, &message);
        }
        polls += settle(&mut pair, &mut queue);
        cost_post_chain(&mut pair, &message);
        polls += settle(&mut pair, &mut queue);
        cost_post_receive(&mut pair, buffer);
        polls += 1;
        assert_eq!(cost_poll_one(&mut queue, &mut out), 1);
        buffer = cost_complete_receive(&mut pair, &out[0]);
        assert_eq!(cost_poll_empty(&mut queue, &mut out), 1);
        assert_eq!(cost_poll_empty_of_64(&mut busy, &mut out), 64);
    }
    println!("allocations {}", region.change().allocations + region.change().reallocations);
    println!("cost_post_one {}", ROUNDS * DEPTH);
    println!("cost_post_chain {}", ROUNDS * DEPTH);
    println!("cost_post_receive {ROUNDS}");
    println!("cost_poll_one {polls}");
    println!("cost_poll_empty {ROUNDS}");
    println!("cost_poll_empty_of_64 {ROUNDS}");
    println!("cost_complete_receive {ROUNDS}");
    println!("cost_complete_send {}", polls - ROUNDS);
    Ok(())
}

/// A completion queue, and 64 queue pairs that complete on it.
fn shared_by_64() -> Result<(CompletionQueue<Nothing>, Vec<PreparedQueuePair<Nothing>>), Error> {
    let mut endpoint = Endpoint::open_with(Arc::new(Nothing))?;
    let domain = endpoint.domain()?;
    let queue = endpoint.completion_queue(64 * 2 * DEPTH)?;
    let size = QueuePairCapabilities {
        max_send_wr: DEPTH,
        max_recv_wr: DEPTH,
        max_send_sge: 1,
        max_inline_data: 64,
    };
    let pairs = (0..64).map(|_| endpoint.queue_pair(&domain, &queue, size));
    let pairs = pairs.collect::<Result<_, _>>()?;
    Ok((queue, pairs))
}

/// Retires what was sent; says how many completions that took.
fn settle(pair: &mut QueuePair<Nothing>, queue: &mut CompletionQueue<Nothing>) -> u32 {
    let mut out = [Completion::default()];
    let mut polls = 0;
    while pair.send_credits() < DEPTH {
        polls += 1;
        assert_eq!(cost_poll_one(queue, &mut out), 1);
        cost_complete_send(pair, &out[0]);
    }
    polls
}

/// Completes at once what asks for a completion.
struct Nothing;

static TOKENS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static POSTED: AtomicUsize = AtomicUsize::new(0);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn complete(token: u64) {
    let posted = POSTED.load(Relaxed);
    TOKENS[posted % TOKENS.len()].store(token, Relaxed);
    POSTED.store(posted + 1, Relaxed);
}

#[inline(never)]
fn device_post_sends(requests: &[SendRequest], payloads: &Payloads) {
    black_box(payloads);
    for request in requests {
        if request.signaled {
            complete(request.token);
        }
    }
}

#[inline(never)]
fn device_post_receives(requests: &[ReceiveRequest]) {
    requests.iter().for_each(|request| complete(request.token));
}

#[inline(never)]
fn device_poll(out: &mut [WorkCompletion]) -> usize {
    let mut count = 0;
    for completion in out {
        let taken = TAKEN.load(Relaxed);
        if taken == POSTED.load(Relaxed) {
            break;
        }
        let token = TOKENS[taken % TOKENS.len()].load(Relaxed);
        *completion = WorkCompletion::new(token, Status::SUCCESS, NUMBER, 64);
        TAKEN.store(taken + 1, Relaxed);
        count += 1;
    }
    count
}

impl Provider for Nothing {
    type Endpoint = io::Stdin; // has a file descriptor
    type ProtectionDomain = io::Stdin;
    type Registration = ();
    type CompletionQueue = io::Stdin;
    type QueuePair = ();

    fn agent(&self) -> Agent {
        Agent::Thread
    }

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        Ok(io::stdin())
    }

    fn request(&self, _: &mut Self::Endpoint, _: CmRequest<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn cm_event(&self, _: &mut Self::Endpoint) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        Ok(Some(CmEvent {
            kind: CmEventKind::ESTABLISHED,
            status: 0,
            private_data: Default::default(),
            parameters: Default::default(),
            incoming: None,
        }))
    }

    fn limits(&self, _: &Self::Endpoint) -> Result<Limits, Error> {
        Ok(Limits::default())
    }

    fn domain(&self, _: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        Ok(io::stdin())
    }

    fn device_event(&self, _: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        Ok(None)
    }

    fn is_port_down(&self, _: &Self::ProtectionDomain) -> Option<bool> {
        None
    }

    fn register(
        &self,
        _: &Self::ProtectionDomain,
        _: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        Ok(((), Keys { local: 1, remote: RemoteKey(2) }))
    }

    fn completion_queue(
        &self,
        _: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        Ok((io::stdin(), CompletionQueueInfo { capacity, number: 1, api: VerbsApi::Legacy }))
    }

    fn queue_pair(
        &self,
        _: &mut Self::Endpoint,
        _: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        Ok(((), QueuePairInfo { number: NUMBER, api: VerbsApi::Legacy }))
    }

    #[inline]
    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        match batch {
            Batch::Receives { requests, .. } => device_post_receives(requests),
            Batch::Sends { requests, payloads, .. } => device_post_sends(requests, payloads),
        }
        Ok(())
    }

    #[inline]
    fn completions(
        &self,
        _: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        Ok(if let QueueRequest::Poll(out) = request { device_poll(out) } else { 0 })
    }
}
