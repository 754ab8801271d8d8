//! Transfers through the async API: in parts that are in flight together, through one buffer or
//! several, from and to memory of the caller, under any executor.

// bed: --target tests/targets/deep.toml --deny non-flush.error

use std::{
    fs::File,
    future::Future,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Buffer, ConnectOptions, Controller, Error, ExecutionStatus, HostIdentity, Namespace,
    ReconnectOptions, wire::NamespaceId,
};
use tests::{
    noise,
    target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target},
};
use verbs::Provider;

type Hook = Box<dyn FnMut(ReceivedCommand, &mut Answer) + Send>;

/// A fabric, a target whose manners change while it runs, and a host.
struct Bed {
    fabric: Fabric,
    host: Arc<Host>,
    hook: Arc<Mutex<Hook>>,
}

impl Bed {
    /// Must be called in a runtime: the target is a task of it.
    fn new() -> Self {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
        let hook: Arc<Mutex<Hook>> = Arc::new(Mutex::new(Box::new(|_, _| {})));
        let inner = Arc::clone(&hook);
        let call = move |seen: ReceivedCommand, answer: &mut Answer| lock(&inner)(seen, answer);
        tokio::spawn(Target::new(&fabric, Box::new(call)).run());
        Self { fabric, host, hook }
    }

    /// From now on the target answers like this.
    fn answer(&self, hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) {
        *lock(&self.hook) = Box::new(hook);
    }

    async fn connect(&self, options: &ConnectOptions) -> (Controller<Host>, Namespace) {
        let controller = Controller::connect_over(&self.host, options).await;
        let controller = controller.expect("an honest target");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        (controller, namespace)
    }

    /// Keeps answers to commands of namespaces back until `count` wait. Notes all of them.
    fn gather(&self, count: usize) -> Arc<Mutex<Vec<ReceivedCommand>>> {
        let all = Arc::new(Mutex::new(Vec::new()));
        let (gate, noted) = (Arc::new(AtomicBool::new(false)), Arc::clone(&all));
        self.answer(move |seen, answer| {
            if seen.is_io() {
                let mut noted = lock(&noted);
                noted.push(seen);
                gate.fetch_or(noted.len() == count, Ordering::AcqRel);
                answer.gate = Some(Arc::clone(&gate));
            }
        });
        all
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.io_queues = 2;
    options.queue_entries = 16;
    options.reconnect =
        ReconnectOptions::default().delay(Duration::from_millis(50)).loss_timeout(None);
    options
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Against hanging for ever.
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
    });
}

/// Has Identify Controller say so for a limit of 2^`log2` pages.
fn limit_transfers(seen: ReceivedCommand, answer: &mut Answer, log2: u8) {
    if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x01 {
        answer.data[77] = log2; // MDTS
    }
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    bytes
}

/// Buffers of these sizes, each of a registration of its own, with this content.
fn scattered<P: Provider>(controller: &Controller<P>, sizes: &[usize], data: &[u8]) -> Vec<Buffer> {
    let mut rest = data;
    let buffers = sizes.iter().map(|&size| {
        let (front, back) = rest.split_at(size);
        rest = back;
        let mut buffer = controller.allocate(size).expect("memory");
        buffer.copy_in(0, front);
        buffer
    });
    buffers.collect()
}

#[test]
fn the_parts_of_a_large_transfer_are_in_flight_together() {
    run(async {
        let bed = Bed::new();
        bed.answer(|seen, answer| limit_transfers(seen, answer, 2));
        let (controller, namespace) = bed.connect(&options()).await;
        assert_eq!(namespace.transfer_bytes_max(), 16 << 10);
        let data = noise(128 << 10, 1);
        let mut buffer = controller.allocate(data.len()).expect("memory");
        buffer.copy_in(0, &data);
        let registrations = bed.fabric.objects().registrations;
        // None is answered before all eight are there.
        let seen = bed.gather(8);
        let mut buffer = namespace.write(0, buffer).await.expect("written");
        assert_eq!(seen.lock().unwrap().len(), 8);
        buffer.fill(0);
        let seen = bed.gather(8);
        let buffer = namespace.read(0, buffer).await.expect("read");
        assert_eq!(seen.lock().unwrap().len(), 8);
        assert!(bytes(&buffer) == data);
        // The target registers nothing of its own for them that stays.
        assert!(bed.fabric.objects().registrations <= registrations + 16);
        controller.shutdown().await;
    });
}

#[test]
fn several_buffers_are_one_transfer_in_flight_together() {
    run(async {
        let bed = Bed::new();
        bed.answer(|seen, answer| limit_transfers(seen, answer, 2));
        let (controller, namespace) = bed.connect(&options()).await;
        // One is larger than a transfer: two commands.
        let sizes = [512, 4096, 20 << 10, 1024, 8192];
        let data = noise(sizes.iter().sum(), 2);
        let buffers = scattered(&controller, &sizes, &data);
        let seen = bed.gather(6);
        let mut buffers = namespace.write_vectored(3, buffers).await.expect("written");
        assert_eq!(seen.lock().unwrap().len(), 6);
        buffers.iter_mut().for_each(|buffer| buffer.fill(0));
        let seen = bed.gather(6);
        let buffers = namespace.read_vectored(3, buffers).await.expect("read");
        assert_eq!(seen.lock().unwrap().len(), 6);
        assert!(buffers.iter().map(Buffer::len).eq(sizes), "in their order");
        assert!(buffers.iter().flat_map(bytes).eq(data));
        controller.shutdown().await;
    });
}

#[test]
fn neighbours_share_a_command_and_come_back_apart() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let data = noise(4 * 1024, 3);
        // Three neighbours, and one from elsewhere.
        let mut buffers = controller.allocate_many(3, 1024).expect("memory");
        buffers.push(controller.allocate(1024).expect("memory"));
        for (buffer, data) in buffers.iter_mut().zip(data.chunks(1024)) {
            buffer.copy_in(0, data);
        }
        let addresses: Vec<_> = buffers.iter().map(Buffer::address).collect();
        let seen = bed.gather(2);
        let buffers = namespace.write_vectored(0, buffers).await.expect("written");
        let blocks: Vec<_> = seen.lock().unwrap().iter().map(|seen| seen.u32_at(48) + 1).collect();
        assert_eq!(blocks, [6, 2]);
        assert!(buffers.iter().map(Buffer::address).eq(addresses));
        bed.answer(|_, _| {});
        let whole = controller.allocate(data.len()).expect("memory");
        assert!(bytes(&namespace.read(0, whole).await.expect("read")) == data);
        controller.shutdown().await;
    });
}

#[test]
fn buffers_of_a_failed_transfer_come_back_in_order() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let sizes = [512, 1024, 2048];
        let buffers = scattered(&controller, &sizes, &noise(3584, 4));
        bed.answer(|seen, answer| {
            if seen.is_io() && seen.u64_at(40) == 1 {
                answer.messages = vec![seen.response(0x0281, 0)]; // unrecovered read error
            }
        });
        let failed = namespace.read_vectored(0, buffers).await.expect_err("a part fails");
        assert!(matches!(failed.error, Error::Rejected(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "the others were executed");
        let lengths =
            failed.buffers.iter().map(|buffer| buffer.as_ref().expect("it is here").len());
        assert!(lengths.eq(sizes));

        let buffers = scattered(&controller, &[512, 100], &noise(612, 5));
        let failed = namespace.write_vectored(0, buffers).await.expect_err("100 is no block");
        assert!(matches!(failed.error, Error::Misuse(_)), "{failed}");
        assert_eq!((failed.execution, failed.buffers.len()), (ExecutionStatus::NotSent, 2));
        let failed = namespace.write_vectored(0, Vec::new()).await.expect_err("nothing to write");
        assert!(matches!(failed.error, Error::Misuse(_)), "{failed}");
        controller.shutdown().await;
    });
}

#[test]
fn several_buffers_survive_a_smaller_transfer_limit() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let sizes = [64 << 10, 512, 32 << 10];
        let data = noise(sizes.iter().sum(), 6);
        let buffers = scattered(&controller, &sizes, &data);
        let mut buffers = namespace.write_vectored(0, buffers).await.expect("written");
        buffers.iter_mut().for_each(|buffer| buffer.fill(0));
        let mut condemned = false;
        bed.answer(move |seen, answer| {
            limit_transfers(seen, answer, 2);
            if seen.is_io() && !std::mem::replace(&mut condemned, true) {
                answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]); // an answer to nothing
            }
        });
        let buffers = namespace.read_vectored(0, buffers).await.expect("in smaller parts");
        assert_eq!(namespace.transfer_bytes_max(), 16 << 10);
        assert!(buffers.iter().flat_map(bytes).eq(data));
        controller.shutdown().await;
    });
}

/// Targets reach the caller's memory itself, at the same address each time.
#[test]
fn memory_of_the_caller_is_used_again_and_again_without_copies() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let memory = noise(8192, 7);
        let (start, data) = (memory.as_ptr().addr() as u64, memory.clone());
        let mut buffer = controller.register(memory).expect("registered");
        let before = bed.fabric.objects();
        let places = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&places);
        bed.answer(move |seen, _| noted.lock().unwrap().extend(seen.place()));
        buffer = namespace.write(0, buffer).await.expect("written");
        for _ in 0..1000 {
            buffer.fill(0);
            buffer = namespace.read(0, buffer).await.expect("read");
        }
        let places = std::mem::take(&mut *places.lock().unwrap());
        assert_eq!(places.len(), 1001);
        assert!(places.iter().all(|place| *place == places[0]), "one place, one key");
        assert_eq!(places[0].0, start);
        assert_eq!(bed.fabric.objects(), before, "nothing was registered");
        let memory: Vec<u8> = buffer.deregister().expect("it is whole");
        assert_eq!(memory.as_ptr().addr() as u64, start);
        assert!(memory == data);
        controller.shutdown().await;
    });
}

/// Many buffers come from the node of the device, in one registration; or from anywhere.
#[test]
fn buffers_come_from_the_numa_node_of_the_device() {
    run(async {
        // No machine has the last: its memory is had all the same.
        for node in [None, Some(0), Some(1000)] {
            let bed = Bed::new();
            if let Some(node) = node {
                bed.fabric.set_numa_node("host", node);
            }
            let (controller, namespace) = bed.connect(&options()).await;
            assert_eq!(controller.numa_node(), node);
            let before = bed.fabric.objects().registrations;
            let mut buffers = controller.allocate_many(5, 1024).expect("memory");
            assert_eq!(bed.fabric.objects().registrations, before + 1);
            for (seed, buffer) in (0..).zip(&mut buffers) {
                buffer.copy_in(0, &noise(1024, seed));
            }
            let mut buffers = namespace.write_vectored(0, buffers).await.expect("written");
            buffers.iter_mut().for_each(|buffer| buffer.fill(0));
            let buffers = namespace.read_vectored(0, buffers).await.expect("read");
            for (seed, buffer) in (0..).zip(&buffers) {
                assert!(bytes(buffer) == noise(1024, seed), "node {node:?}, buffer {seed}");
            }
            controller.shutdown().await;
        }
    });
}

/// Futures of a namespace need nothing of tokio where they are awaited.
#[test]
fn any_executor_of_any_thread_will_do() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let (namespace, mut buffer) =
                    (namespace.clone(), controller.allocate(4096).unwrap());
                std::thread::spawn(move || {
                    assert!(tokio::runtime::Handle::try_current().is_err());
                    for round in 0..20 {
                        let data = noise(4096, 100 * thread + round);
                        buffer.copy_in(0, &data);
                        let written = namespace.write(8 * thread, buffer);
                        buffer = pollster::block_on(written).expect("written");
                        buffer.fill(0);
                        let tail = buffer.split_off(2048);
                        let read = namespace.read_vectored(8 * thread, vec![buffer, tail]);
                        let mut parts = pollster::block_on(read).expect("read").into_iter();
                        buffer = parts.next().expect("two parts");
                        buffer.unsplit(parts.next().expect("two parts")).expect("it follows");
                        assert!(bytes(&buffer) == data);
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no thread fails"));
        controller.shutdown().await;
    });
}

/// More than fits waits at the caller's, and nothing is lost.
#[test]
fn what_other_threads_submit_waits_in_a_queue_of_limited_length() {
    run(async {
        let mut options = options();
        options.io_queues = 1;
        options.queue_entries = 4;
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options).await;
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (gate, counted) = (Arc::new(AtomicBool::new(false)), Arc::clone(&in_flight));
        let held = Arc::clone(&gate);
        bed.answer(move |seen, answer| {
            if seen.is_io() {
                counted.fetch_add(1, Ordering::AcqRel);
                answer.gate = Some(Arc::clone(&held));
            }
        });
        let buffers = controller.allocate_many(64, 512).expect("memory");
        let reads = buffers.into_iter().enumerate().map(|(lba, buffer)| {
            let namespace = namespace.clone();
            std::thread::spawn(move || pollster::block_on(namespace.read(lba as u64, buffer)))
        });
        let reads: Vec<_> = reads.collect();
        while in_flight.load(Ordering::Acquire) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(in_flight.load(Ordering::Acquire), 3, "one entry stays empty");
        gate.store(true, Ordering::Release);
        while reads.iter().any(|read| !read.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for read in reads {
            read.join().expect("no thread fails").expect("it is read");
        }
        assert_eq!(in_flight.load(Ordering::Acquire), 64);
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn several_buffers_and_megabytes_on_rxe() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut options = tests::options();
    options.io_queues = 2;
    let (controller, namespace) = runtime.block_on(async {
        let controller = Controller::connect(&options).await.expect("the target is up");
        let namespace = controller.namespace(NamespaceId(2)).await.expect("it is there");
        (controller, namespace)
    });
    // From a thread without a runtime.
    let sizes = [4096, 3 << 20, 64 << 10, 1 << 20, 4096];
    let data = noise(sizes.iter().sum(), 8);
    let mut buffers = scattered(&controller, &sizes, &data);
    let memory = controller.register(data[..1 << 20].to_vec());
    buffers.push(memory.expect("registered"));
    let mut buffers = pollster::block_on(namespace.write_vectored(5, buffers)).expect("written");
    buffers.iter_mut().for_each(|buffer| buffer.fill(0));
    let mut buffers = pollster::block_on(namespace.read_vectored(5, buffers)).expect("read");
    let memory: Vec<u8> = buffers.pop().expect("the last").deregister().expect("it is whole");
    assert!(memory == data[..1 << 20]);
    assert!(buffers.iter().flat_map(bytes).eq(data.iter().copied()));
    let whole = controller.allocate(data.len()).expect("memory");
    let whole = pollster::block_on(namespace.read(5, whole)).expect("read");
    assert!(bytes(&whole) == data);
    println!("{} bytes in {} buffers and in one", data.len(), sizes.len());
    runtime.block_on(controller.shutdown());
}

/// A file that another process could have: written by its descriptor, sent from where it lies, and
/// read into.
async fn through_a_file<P: Provider>(controller: &Controller<P>, namespace: &Namespace) {
    const PAGE: usize = 4096;
    let name = "registered";
    let file: File = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)
        .expect("a file in memory")
        .into();
    file.set_len(3 * PAGE as u64).expect("it grows");
    let data = noise(2 * PAGE, 8);
    file.write_all_at(&data, PAGE as u64).expect("it is written");
    let memory = controller.register_file(&file, PAGE as u64..3 * PAGE as u64).expect("it is");
    assert_eq!(memory.len(), 2 * PAGE);
    // In two parts, the second first, and back the other way round.
    for (from, to) in [(0, PAGE), (PAGE, 0)] {
        let lba = (to / 512) as u64;
        let part = memory.part(from, PAGE).expect("it is within");
        namespace.write(lba, part).await.expect("it is written");
    }
    let whole = memory.part(0, 2 * PAGE).expect("it is within");
    drop(namespace.read(0, whole).await.expect("it is read"));
    let mut read = vec![0; 2 * PAGE];
    file.read_exact_at(&mut read, PAGE as u64).expect("it is there");
    assert!(read[..PAGE] == data[PAGE..] && read[PAGE..] == data[..PAGE]);
    memory.release().expect("nothing uses it");
    let refused = |range: std::ops::Range<u64>| {
        let error = controller.register_file(&file, range).expect_err("it is no range of it");
        error.to_string()
    };
    assert!(refused(0..0).contains("no length"));
    assert!(refused(512..1024).contains("from a page on"));
    assert!(refused(0..3 * PAGE as u64 + 1).contains("not within the file"));
    let unwritable = File::open("/proc/self/exe").expect("it is there");
    let error = controller.register_file(&unwritable, 0..512).expect_err("it is not writable");
    assert!(error.to_string().contains("open for reading and writing"), "{error}");
}

#[test]
fn a_file_is_transferred_from_where_it_lies() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        through_a_file(&controller, &namespace).await;
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_file_is_transferred_over_rxe() {
    run(async {
        let controller = Controller::connect(&tests::options()).await.expect("it is there");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        through_a_file(&controller, &namespace).await;
        controller.shutdown().await;
    });
}
