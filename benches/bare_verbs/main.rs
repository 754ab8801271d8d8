//! Reads or writes by bare verbs, after an ordinary fabrics connect: the lower bound for every
//! initiator. Every command is encoded once, before the clock starts; then it is post, poll, post
//! again, with no slots, buffers or deadlines, and no check but that of the status. An initiator
//! that can be used has to do more.
//!
//! Prints what `benches/versus` reads: `iops=… mean_us=… p50_us=… p99_us=… …`.

mod raw_queue;

use std::{error::Error, net::SocketAddr, time::Duration};

use benches::load::{Meter, Report};
use clap::{Parser, ValueEnum};
use raw_queue::{Controller, RawQueue, SEND, SQE_BYTES, inline_send};
use rdma_host::{
    ConnectOptions, HostIdentity,
    wire::{CommandId, IntoBytes, NamespaceId, Nqn, RemoteKey, SglDescriptor, Sqe},
};
use uuid::Uuid;
use verbs::provider::{Payload, Payloads, SendRequest, WorkCompletion};

/// Reads or writes by bare verbs, as fast as the device and the target go.
#[derive(Parser)]
struct Arguments {
    /// The target's address and port.
    address: SocketAddr,
    /// The subsystem.
    nqn: Nqn,
    /// The namespace, of blocks of 4 KiB.
    #[arg(long, default_value_t = 1)]
    ns: u32,
    /// Commands in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=255))]
    depth: u16,
    /// Direction of the transfers.
    #[arg(long, default_value = "read")]
    rw: Direction,
    /// Bytes of each.
    #[arg(long, default_value_t = 4096)]
    bs: u32,
    /// Seconds to measure, after half a second of warming up.
    #[arg(long, default_value_t = 2.0)]
    runtime: f64,
    /// Number of commands to do instead, for a counter of instructions.
    #[arg(long)]
    count: Option<u64>,
    /// Action while nothing completes.
    #[arg(long, default_value = "spin")]
    wait: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Arm the completion queue and sleep.
    Event,
    /// Poll again.
    Spin,
    /// Yield the processor, then poll again.
    Yield,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (depth, bytes) = (usize::from(arguments.depth), arguments.bs as usize);
    let host = HostIdentity::from_id(Uuid::from_u128(0xf1));
    let mut options = ConnectOptions::new(arguments.address, arguments.nqn.clone(), host);
    options.io_queues = 1;
    options.queue_entries = options.queue_entries.max(arguments.depth + 1);
    options.keep_alive = Duration::ZERO; // no task here sends them
    let mut controller = Controller::connect(&options, depth * (bytes + Sqe::SIZE))?;
    let granted = controller.negotiated.queue_entries - 1;
    if arguments.depth > granted {
        return Err(format!("the target takes {granted} commands at a time").into());
    }
    let in_capsule = controller.negotiated.in_capsule_bytes as usize >= bytes;
    let (requests, payloads) = encode(&arguments, &controller.io, in_capsule);
    let report = run(&arguments, &mut controller.io, &requests, &payloads)?;
    println!("{report}");
    Ok(())
}

/// Encodes every command: one for each that may be in flight, to be posted any number of times.
fn encode(
    arguments: &Arguments,
    queue: &RawQueue,
    in_capsule: bool,
) -> (Vec<SendRequest>, Payloads) {
    let depth = usize::from(arguments.depth);
    let blocks = arguments.bs / BLOCK;
    let mut payloads = Payloads::new(depth * Sqe::SIZE, depth);
    let requests = (0..depth).map(|slot| {
        let id = CommandId(u16::try_from(slot).expect("as many as the depth"));
        let namespace = NamespaceId(arguments.ns);
        let lba = slot as u64 * STRIDE % SPAN * u64::from(blocks);
        // Data that is sent from memory stands right behind its capsule.
        let place = slot * (arguments.bs as usize + Sqe::SIZE);
        let data = queue.data + (place + Sqe::SIZE) as u64;
        let key = RemoteKey(queue.keys.remote.0);
        let mut sqe = match arguments.rw {
            Direction::Read => Sqe::read(namespace, lba, blocks),
            Direction::Write => Sqe::write(namespace, lba, blocks),
        };
        sqe.set_command_id(id);
        let mut request = inline_send(slot as u64, slot);
        if arguments.rw == Direction::Write && in_capsule {
            sqe.set_sgl(SglDescriptor::in_capsule(0, arguments.bs));
            queue.put(place, sqe.as_bytes());
            let [sge] = payloads.sg_list_mut(slot, 1) else { unreachable!("one was asked for") };
            sge.address = queue.data + place as u64;
            sge.length = arguments.bs + SQE_BYTES;
            sge.local_key = queue.keys.local;
            request.payload = Payload::SgList { first: slot, count: 1 };
        } else {
            sqe.set_sgl(SglDescriptor::keyed(data, arguments.bs, key));
            payloads.write_inline(slot * Sqe::SIZE, sqe.as_bytes());
        }
        request
    });
    (requests.collect(), payloads)
}

/// Posts, polls and posts again until the time is over.
fn run(
    arguments: &Arguments,
    queue: &mut RawQueue,
    requests: &[SendRequest],
    payloads: &Payloads,
) -> Result<Report, Box<dyn Error>> {
    let depth = requests.len();
    let mut meter = Meter::new(arguments.runtime, arguments.count);
    let mut started = vec![meter.now(); depth];
    let mut found = [WorkCompletion::default(); BATCH];
    let (mut sends, mut receives) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let mut unsignaled = 0;
    sends.extend_from_slice(requests);
    let mut armed = false;
    while !meter.is_over() {
        if !sends.is_empty() {
            queue.send(&sends, payloads)?;
            meter.doorbells += 1;
            sends.clear();
        }
        let count = queue.poll(&mut found)?;
        let now = meter.now();
        meter.note_poll(count, now);
        if count == 0 {
            wait(arguments.wait, queue, armed)?;
            armed = !armed;
            continue;
        }
        armed = false;
        for completion in &found[..count] {
            if !completion.status().is_success() {
                return Err(completion.status().to_string().into());
            }
            if completion.token() & SEND != 0 {
                continue;
            }
            let index = usize::try_from(completion.token())?;
            let (slot, status) = queue.response(index);
            if status != 0 {
                return Err(format!("a command failed with status {status:#x}").into());
            }
            let slot = usize::from(slot);
            meter.record(started[slot], now);
            started[slot] = now;
            receives.push(queue.receives[index]);
            unsignaled = (unsignaled + 1) % depth.max(SIGNAL_EVERY);
            sends.push(SendRequest { signaled: unsignaled == 0, ..requests[slot] });
        }
        if !receives.is_empty() {
            queue.repost(&receives)?;
            receives.clear();
        }
    }
    Ok(meter.report())
}

/// Waits a little for completions: the caller polls between arming and sleeping, since a completion
/// from before arming raises no event.
fn wait(wait: Wait, queue: &mut RawQueue, armed: bool) -> Result<(), Box<dyn Error>> {
    match wait {
        Wait::Spin => {}
        Wait::Yield => std::thread::yield_now(),
        Wait::Event if armed => queue.sleep()?,
        Wait::Event => queue.arm()?,
    }
    Ok(())
}

const BLOCK: u32 = 4096;

/// Distance from one command to the next, in commands, and number of places that are used.
const STRIDE: u64 = 37;
const SPAN: u64 = 101;

const BATCH: usize = 64;

/// One send in this many is signaled, so that the places of those before it become free.
const SIGNAL_EVERY: usize = 32;
