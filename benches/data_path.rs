//! The path of a command through our code, over a device and a target in this process, for the
//! script `instructions` to count under valgrind. Functions of the device and the target are left
//! out by their names (`device_…`), and so is what a poller does by the clock.
//!
//! Arguments: the name of a row, and the number of commands or polls. Without arguments the program
//! prints the memory of one queue.

use std::{alloc::System, hint::black_box, mem::MaybeUninit, rc::Rc, sync::Arc};

use benches::fabric_bed::{Device, FabricBed, TwoPathsBed};
use rdma_host::{
    Buffer, Command, LocalNamespace, LocalPoller, MemoryMode, Namespace, Poller, SubsystemPoller,
    WaitMode, Waiter,
    wire::{MetadataFormat, NamespaceId, NamespaceInfo},
};
use scripted_target::{BLOCKS, Size, Target};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{runtime::Runtime, sync::Semaphore};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type QueueHandle = *mut nvmf_rdma::nvmf_queue;
type MemoryHandle = *mut nvmf_rdma::nvmf_memory;

/// Size of a block of the namespace, in bytes.
const BLOCK: usize = 512;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next();
    let times = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(64);
    let reads = |memory, depth| Work { memory, depth, bytes: 4096, writes: false };
    let writes = |memory, bytes| Work { memory, depth: 32, bytes, writes: true };
    let (pool, window) = (MemoryMode::Pool, MemoryMode::Window);
    match what.as_deref() {
        None => memory_of_a_queue(),
        Some("read") => polled(reads(pool, 32), times),
        Some("read-window") => polled(reads(window, 32), times),
        Some("read-depth-1") => polled(reads(pool, 1), times),
        Some("read-depth-1-window") => polled(reads(window, 1), times),
        Some("write-in-capsule") => polled(writes(pool, 4096), times),
        Some("write") => polled(writes(pool, 8192), times),
        Some("write-window") => polled(writes(window, 8192), times),
        Some("read-paths") => over_two_paths(reads(pool, 32), times),
        Some("read-c") => c_library(reads(pool, 32), times),
        Some("read-async") => asynchronous(reads(pool, 32), times),
        Some("read-async-depth-1") => asynchronous(reads(pool, 1), times),
        Some("read-local") => local(reads(pool, 32), times),
        Some("read-local-depth-1") => local(reads(pool, 1), times),
        Some("empty-poll") => empty_polls(1, times),
        Some("empty-poll-1000") => empty_polls(1000, times),
        Some("read-one-of-1") => one_of(1, times),
        Some("read-one-of-1000") => one_of(1000, times),
        Some("bench") => worker_of_bench(times),
        Some(other) => panic!("not known: {other}"),
    }
}

/// Commands of a loop.
#[derive(Clone, Copy)]
struct Work {
    memory: MemoryMode,
    depth: usize,
    bytes: usize,
    writes: bool,
}

impl Work {
    #[inline(always)] // into each loop alike
    fn command(self, buffer: Buffer) -> Command {
        let blocks = u32::try_from(self.bytes / BLOCK).expect("a few");
        if self.writes {
            Command::write(NamespaceId(1), 0, blocks, buffer)
        } else {
            Command::read(NamespaceId(1), 0, blocks, buffer)
        }
    }
}

/// One queue of the usual size.
const ONE: Size = Size { entries: 128, queues: 1 };

/// Shallow queues: a thousand deep ones would take longer to connect, under valgrind, than a
/// connect may take.
fn small(queues: u16) -> Size {
    Size { entries: 8, queues }
}

/// Bytes that this program has allocated.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

/// Executes commands through a poller, at the depth of `work`.
fn polled(work: Work, times: usize) {
    let (mut bed, mut poller) = FabricBed::polled(ONE, work.memory, allocated);
    let mut buffers = bed.controller.allocate_many(work.depth, work.bytes).expect("memory");
    let turns = times.div_ceil(work.depth);
    for _ in 0..turns {
        counted_submit(work, &mut poller, &mut buffers);
        while buffers.len() < work.depth {
            bed.device.device_does(|| answer(&mut bed.target));
            counted_complete(&mut poller, &mut buffers);
        }
    }
    println!("{} commands", turns * work.depth);
}

/// Lets the target take the commands and send its responses, so that one poll finds them all.
fn answer(target: &mut Target) {
    (0..3).for_each(|_| target.serve_once());
}

#[inline(never)]
fn counted_submit(work: Work, poller: &mut Poller<Device>, buffers: &mut Vec<Buffer>) {
    while let Some(buffer) = buffers.pop() {
        poller.submit(work.command(buffer)).expect("there is room");
    }
    poller.ring_doorbells().expect("the device takes them");
}

#[inline(never)]
fn counted_complete(poller: &mut Poller<Device>, buffers: &mut Vec<Buffer>) {
    let polled = poller.poll_with(|done| {
        assert!(done.outcome.is_ok_and(|response| response.status().is_success()));
        buffers.extend(done.data);
    });
    polled.expect("the controller lives");
}

/// Executes commands over two paths, in turn.
fn over_two_paths(work: Work, times: usize) {
    let (mut bed, mut poller) = TwoPathsBed::polled(ONE, allocated);
    let mut buffers = bed.subsystem.allocate_many(work.depth, work.bytes).expect("memory");
    let turns = times.div_ceil(work.depth);
    for _ in 0..turns {
        counted_submit_on_paths(work, &mut poller, &mut buffers);
        while buffers.len() < work.depth {
            bed.device.device_does(|| bed.targets.iter_mut().for_each(answer));
            counted_complete_on_paths(&mut poller, &mut buffers);
        }
    }
    println!("{} commands", turns * work.depth);
}

#[inline(never)]
fn counted_submit_on_paths(
    work: Work,
    poller: &mut SubsystemPoller<Device>,
    buffers: &mut Vec<Buffer>,
) {
    while let Some(buffer) = buffers.pop() {
        poller.submit(work.command(buffer)).expect("there is room");
    }
    poller.ring_doorbells();
}

#[inline(never)]
fn counted_complete_on_paths(poller: &mut SubsystemPoller<Device>, buffers: &mut Vec<Buffer>) {
    poller.poll_with(|done| {
        assert!(done.outcome.is_ok_and(|response| response.status().is_success()));
        buffers.extend(done.data);
    });
}

/// Executes reads through the C library, which takes a number for each and returns it.
fn c_library(work: Work, times: usize) {
    let (bed, poller) = FabricBed::polled(ONE, work.memory, allocated);
    let FabricBed { controller, mut target, device, .. } = bed;
    let namespace = namespace(1 << 20);
    let bytes = work.depth * work.bytes;
    let added = nvmf_rdma::add_queue(&Arc::new(controller), poller, &namespace, bytes);
    let (queue, memory) = added.expect("the tables have room");
    let turns = times.div_ceil(work.depth);
    for _ in 0..turns {
        counted_c_submit(work, queue, memory);
        let mut completed = 0;
        while completed < work.depth {
            device.device_does(|| answer(&mut target));
            completed += counted_c_complete(queue);
        }
    }
    println!("{} commands", turns * work.depth);
}

#[inline(never)]
fn counted_c_submit(work: Work, queue: QueueHandle, memory: MemoryHandle) {
    let blocks = u32::try_from(work.bytes / BLOCK).expect("a few");
    for slot in 0..work.depth as u64 {
        let offset = slot * work.bytes as u64;
        assert_eq!(nvmf_rdma::nvmf_read(queue, 1, 0, blocks, memory, offset, slot), 0);
    }
    assert_eq!(nvmf_rdma::nvmf_submit(queue), 0);
}

#[inline(never)]
fn counted_c_complete(queue: QueueHandle) -> usize {
    let mut completions = [const { MaybeUninit::uninit() }; 32];
    let completed = nvmf_rdma::poll(queue, &mut completions);
    completed.iter().for_each(|completion| assert_eq!(completion.result, 0));
    completed.len()
}

/// Executes reads through the async API, with one task for each of the depth.
fn asynchronous(work: Work, times: usize) {
    let (mut bed, namespace) =
        FabricBed::connect(ONE, work.memory, allocated, |connecting| async {
            let controller = connecting.await?;
            let namespace = controller.namespace(NamespaceId(1)).await?;
            Ok((controller, namespace))
        });
    let buffers = bed.controller.allocate_many(work.depth, work.bytes).expect("memory");
    let turns = times.div_ceil(work.depth);
    let FabricBed { runtime, target, device, .. } = &mut bed;
    counted_readers(runtime, device, target, &namespace, buffers, turns);
    println!("{} commands", turns * work.depth);
}

#[inline(never)]
fn counted_readers(
    runtime: &Runtime,
    device: &Device,
    target: &mut Target,
    namespace: &Namespace,
    buffers: Vec<Buffer>,
    turns: usize,
) {
    runtime.block_on(async {
        let mut readers = tokio::task::JoinSet::new();
        for buffer in buffers {
            readers.spawn(reader(namespace.clone(), buffer, turns));
        }
        while !readers.is_empty() {
            device.device_does(|| target.serve_once());
            tokio::task::yield_now().await;
            while readers.try_join_next().is_some() {}
        }
    });
}

/// Task of one reader. It has a name of its own: each function with that of the loop switches the
/// count.
async fn reader(namespace: Namespace, mut buffer: Buffer, turns: usize) {
    for _ in 0..turns {
        buffer = namespace.read(0, buffer).await.expect("the controller lives");
    }
}

/// Executes reads through futures on the poller's thread, with one task for each of the depth.
fn local(work: Work, times: usize) {
    let (bed, poller) = FabricBed::polled(ONE, work.memory, allocated);
    let FabricBed { runtime, controller, mut target, device, .. } = bed;
    device.set_before_poll(move || answer(&mut target));
    let poller = LocalPoller::new(poller, Waiter::new(WaitMode::Poll));
    let buffers = controller.allocate_many(work.depth, work.bytes).expect("memory");
    let turns = times.div_ceil(work.depth);
    counted_local_readers(&runtime, &poller, buffers, turns);
    println!("{} commands", turns * work.depth);
}

#[inline(never)]
fn counted_local_readers(
    runtime: &Runtime,
    poller: &LocalPoller<Device>,
    buffers: Vec<Buffer>,
    turns: usize,
) {
    let ended = Rc::new(Semaphore::new(0));
    let readers = u32::try_from(buffers.len()).expect("a few");
    for buffer in buffers {
        let namespace = poller.namespace(namespace(BLOCKS as u64));
        poller.spawn_local(local_reader(namespace, buffer, turns, Rc::clone(&ended)));
    }
    let all = runtime.block_on(poller.run_until(ended.acquire_many(readers)));
    drop(all.expect("it is not closed"));
}

/// Task of one reader.
async fn local_reader(
    namespace: LocalNamespace<Device>,
    mut buffer: Buffer,
    turns: usize,
    ended: Rc<Semaphore>,
) {
    for _ in 0..turns {
        buffer = namespace.read(0, buffer).await.expect("the controller lives");
    }
    ended.add_permits(1);
}

/// Polls queues on which no completion arrives.
fn empty_polls(queues: u16, times: usize) {
    let (_bed, mut poller) = FabricBed::polled(small(queues), MemoryMode::Pool, allocated);
    counted_looks(&mut poller, times);
    println!("{times} looks at {queues} queues");
}

#[inline(never)]
fn counted_looks(poller: &mut Poller<Device>, times: usize) {
    for _ in 0..times {
        assert_eq!(black_box(poller.poll().expect("the controller lives")), 0);
    }
}

/// Executes one read at a time, each on the next of `queues` queues.
fn one_of(queues: u16, times: usize) {
    let (mut bed, mut poller) = FabricBed::polled(small(queues), MemoryMode::Pool, allocated);
    let work = Work { memory: MemoryMode::Pool, depth: 1, bytes: 4096, writes: false };
    let mut buffers = bed.controller.allocate_many(1, work.bytes).expect("memory");
    for _ in 0..times {
        counted_submit(work, &mut poller, &mut buffers);
        while buffers.is_empty() {
            bed.device.device_does(|| answer(&mut bed.target));
            counted_complete(&mut poller, &mut buffers);
        }
    }
    println!("{times} commands on {queues} queues");
}

/// Executes reads through the loop of `nvmf bench`.
fn worker_of_bench(times: usize) {
    let (bed, mut poller) = FabricBed::polled(ONE, MemoryMode::Pool, allocated);
    let mut target = bed.target;
    bed.device.set_before_poll(move || answer(&mut target));
    let buffers = bed.controller.allocate_many(32, 4096).expect("memory");
    let _context = bed.runtime.enter();
    let completed = counted_worker(&mut poller, buffers, times as u64);
    println!("{completed} commands");
}

#[inline(never)]
fn counted_worker(poller: &mut Poller<Device>, buffers: Vec<Buffer>, times: u64) -> u64 {
    let namespace = namespace(BLOCKS as u64);
    nvmf::execute_random_reads(poller, buffers, namespace, times).expect("the controller lives")
}

/// Namespace with this number of blocks of 512 bytes.
fn namespace(blocks: u64) -> NamespaceInfo {
    NamespaceInfo {
        id: NamespaceId(1),
        blocks,
        block_size: u32::try_from(BLOCK).expect("a few"),
        metadata: MetadataFormat::default(),
        nguid: None,
        eui64: None,
        uuid: None,
        command_set: 0,
        ana_group: 0,
    }
}

/// Prints the memory of one more queue, the device's own left out.
fn memory_of_a_queue() {
    let memory = |queues, mode| {
        let (bed, _poller) = FabricBed::polled(Size { queues, ..ONE }, mode, allocated);
        bed.device.allocated_by_others()
    };
    for mode in [MemoryMode::Pool, MemoryMode::Window] {
        let (few, many) = (memory(2, mode), memory(10, mode));
        println!("{} {}", mode.name(), (many - few) / 8);
    }
}
