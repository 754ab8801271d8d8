//! Data under load: right, and without an allocation for each command.

// bed: long --kernel 6.12 --target tests/targets/deep.toml --deny non-flush.error
// bed: long VERIFY_SIZE=512MiB --kernel 7 --target tests/targets/deep.toml --deny non-flush.error
// bed (siw): VERIFY_SIZE=512MiB --device siw --target tests/targets/deep.toml

use std::{
    alloc::System,
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use rdma_host::{
    Buffer, Command, Controller, LocalNamespace, LocalPoller, MemoryMode, Namespace, WaitMode,
    Waiter, wire::NamespaceId,
};
use serde_json::Value;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::{SUBSYSTEM, nvmf_ok, options, uri};
use tokio::{runtime::Runtime, task::JoinSet};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn verify_finds_no_difference() {
    // 10 GiB by default; ./tests/run may ask for less on a second kernel.
    let size = std::env::var("VERIFY_SIZE").unwrap_or_else(|_| "10GiB".to_owned());
    let target = uri(SUBSYSTEM);
    let shape = ["--iodepth", "32", "--queues", "4", "--bs", "128K", "--ns", "2"];
    let rest = ["--overwrite", "--size", &size, "-o", "json"];
    let arguments = [&["write-verify", &target][..], &shape, &rest];
    let report: Value = serde_json::from_slice(&nvmf_ok(&arguments.concat(), &[])).unwrap();
    println!("verified {report}");
    assert_eq!(report["mismatches"], 0);
    assert_eq!(report["queues"], 4);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn bench_reports_what_it_did() {
    for (access, depths) in [
        ("randread", ["1", "32", "128"].as_slice()),
        ("randwrite", &["1", "32", "128"]),
        ("read", &["32"]),
        ("write", &["32"]),
    ] {
        for depth in depths {
            let target = uri(SUBSYSTEM);
            let rest =
                ["--ramp", "100ms", "--queues", "2", "--ns", "1", "--overwrite", "-o", "json"];
            let bench = |runtime| -> Value {
                let shape = ["--iodepth", depth, "--rw", access, "--runtime", runtime];
                let arguments = [&["bench", &target], shape.as_slice(), rest.as_slice()].concat();
                serde_json::from_slice(&nvmf_ok(&arguments, &[])).unwrap()
            };
            // On a busy machine it takes longer until there are commands enough for p99.
            let mut reports = ["500ms", "5s", "1m"].into_iter().map(bench);
            let is_enough = |report: &Value| report["completed"].as_u64() >= Some(2000);
            let report = reports.find(is_enough).expect("two thousand commands in a minute");
            let iops = report["iops"].as_f64().unwrap();
            assert!(iops > 0.0 && report["errors"] == 0, "{report}");
            let latency = &report["latency_ns"];
            let order = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
            // A percentile that too few commands support is null.
            let values: Vec<_> = order.iter().filter_map(|name| latency[name].as_u64()).collect();
            assert!(values.is_sorted() && values[0] > 0 && values.len() >= 5, "{latency}");
            assert_eq!(report["configuration"]["iodepth"].to_string(), *depth);
            println!("{access} depth {depth}: {iops:.0} IOPS, p50 {} ns", values[1]);
        }
    }
}

/// For as long as `SOAK` says; the full size is 30 minutes: `tests/longer load`.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_long_run_has_no_errors_and_keeps_its_memory() {
    let runtime = std::env::var("SOAK").unwrap_or_else(|_| "5s".to_owned());
    let target = uri(SUBSYSTEM);
    let shape = ["--iodepth", "128", "--queues", "8", "--ns", "2", "--rw", "randrw"];
    let rest = ["--runtime", &runtime, "--ramp", "2s", "--overwrite", "-o", "json"];
    let arguments = [&["bench", &target], shape.as_slice(), rest.as_slice()].concat();
    let report: Value = serde_json::from_slice(&nvmf_ok(&arguments, &[])).unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    let series = report["series"].as_array().unwrap();
    let resident: Vec<_> = series.iter().map(|at| at["resident_bytes"].as_u64().unwrap()).collect();
    let (first, most) = (resident[0], *resident.iter().max().unwrap());
    println!(
        "{:.0} s, {} commands, {} errors; resident memory KiB: first {}, most {}, last {}",
        report["seconds"].as_f64().unwrap(),
        report["completed"],
        report["errors"],
        first >> 10,
        most >> 10,
        resident[resident.len() - 1] >> 10
    );
    assert!(most - first < 1 << 20, "resident memory grew: {resident:?}");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_data_path_allocates_nothing() {
    for memory in [MemoryMode::Pool, MemoryMode::Window] {
        let runtime = runtime();
        let mut options = options();
        options.io_queues = 2;
        options.memory = memory;
        let (controller, mut pollers) =
            runtime.block_on(Controller::connect(&options).polled(1)).unwrap();
        // siw has no windows, and the controller says what it does without.
        let expected = if tests::device() == "rxe0" { memory } else { MemoryMode::Pool };
        assert_eq!(controller.memory().mode, expected, "{}", controller.memory());
        let poller = &mut pollers[0];
        let mut buffers = controller.allocate_many(64, 4096).unwrap();
        let mut turn = |count: u64| {
            let (mut submitted, mut completed) = (0, 0);
            while completed < count {
                while submitted < count
                    && let Some(buffer) = buffers.pop()
                {
                    let (id, lba) = (NamespaceId(2), submitted % 1000);
                    let command = match submitted % 2 {
                        0 => Command::read(id, lba, 1, buffer),
                        _ => Command::write(id, lba, 1, buffer),
                    };
                    poller.submit(command).unwrap();
                    submitted += 1;
                }
                poller.ring_doorbells().unwrap();
                poller.poll().unwrap();
                while let Some(done) = poller.take() {
                    assert!(done.outcome.unwrap().status().is_success());
                    buffers.push(done.data.unwrap());
                    completed += 1;
                }
            }
        };
        turn(1000);
        let region = Region::new(ALLOCATOR);
        turn(10_000);
        let change = region.change();
        assert_eq!(change.allocations + change.reallocations, 0, "{memory:?}: {change:?}");
        drop(pollers);
        runtime.block_on(controller.shutdown());
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn futures_allocate_nothing() {
    for wait in [WaitMode::Poll, WaitMode::Event] {
        runtime().block_on(async {
            let mut options = options();
            options.wait = wait;
            options.keep_alive = Duration::from_secs(120); // no other command
            let controller = Controller::connect(&options).await.unwrap();
            let namespace = controller.namespace(NamespaceId(2)).await.unwrap();
            let completed = Arc::new(AtomicUsize::new(0));
            let mut tasks = JoinSet::new();
            for buffer in controller.allocate_many(32, 4096).unwrap() {
                tasks.spawn(read_and_write(namespace.clone(), buffer, completed.clone()));
            }
            let until = async |count| {
                while completed.load(Ordering::Relaxed) < count {
                    tokio::task::yield_now().await;
                }
            };
            until(1000).await;
            let region = Region::new(ALLOCATOR);
            until(11_000).await;
            let change = region.change();
            assert_eq!(change.allocations + change.reallocations, 0, "{wait:?}: {change:?}");
            tasks.shutdown().await;
            controller.shutdown().await;
        });
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn local_futures_allocate_nothing() {
    for memory in [MemoryMode::Pool, MemoryMode::Window] {
        runtime().block_on(async {
            let mut options = options().memory(memory);
            options.keep_alive = Duration::from_secs(120); // no other command
            let connecting = Controller::connect(&options);
            let (controller, mut pollers) = connecting.polled(1).await.unwrap();
            let info = controller.identify_namespace(NamespaceId(2)).await.unwrap();
            let poller = LocalPoller::new(pollers.remove(0), Waiter::new(WaitMode::Poll));
            let completed = Rc::new(Cell::new(0));
            for buffer in controller.allocate_many(32, 4096).unwrap() {
                let (namespace, completed) = (poller.namespace(info), Rc::clone(&completed));
                poller.spawn_local(local_read_and_write(namespace, buffer, completed));
            }
            let until = |count| {
                let completed = &completed;
                poller.run_until(std::future::poll_fn(move |context| {
                    context.waker().wake_by_ref();
                    if completed.get() < count { Poll::Pending } else { Poll::Ready(()) }
                }))
            };
            until(1000).await;
            let region = Region::new(ALLOCATOR);
            until(11_000).await;
            let change = region.change();
            assert_eq!(change.allocations + change.reallocations, 0, "{memory:?}: {change:?}");
            drop(poller);
            controller.shutdown().await;
        });
    }
}

async fn local_read_and_write(
    namespace: LocalNamespace,
    mut buffer: Buffer,
    completed: Rc<Cell<u64>>,
) {
    loop {
        buffer = namespace.write(0, buffer).await.expect("the controller lives");
        buffer = namespace.read(0, buffer).await.expect("the controller lives");
        completed.set(completed.get() + 2);
    }
}

async fn read_and_write(namespace: Namespace, mut buffer: Buffer, completed: Arc<AtomicUsize>) {
    loop {
        buffer = namespace.write(0, buffer).await.expect("the controller lives");
        buffer = namespace.read(0, buffer).await.expect("the controller lives");
        completed.fetch_add(2, Ordering::Relaxed);
    }
}

/// Memory of one more idle queue: ours, down to the device's plug-in.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn an_idle_queue_takes_little_memory() {
    let runtime = runtime();
    let taken_by = |memory, queues| {
        let mut options = options().memory(memory);
        (options.io_queues, options.queue_entries) = (queues, 128);
        let before = ALLOCATOR.stats();
        let connected = runtime.block_on(Controller::connect(&options).polled(1));
        let after = ALLOCATOR.stats();
        let (controller, pollers) = connected.unwrap();
        assert_eq!(pollers[0].queue_count(), usize::from(queues));
        drop(pollers);
        runtime.block_on(controller.shutdown());
        let held = |stats: stats_alloc::Stats| stats.bytes_allocated - stats.bytes_deallocated;
        held(after) - held(before)
    };
    for memory in [MemoryMode::Pool, MemoryMode::Window] {
        taken_by(memory, 1); // what is made once
        let each = (taken_by(memory, 18) - taken_by(memory, 2)) / 16;
        println!("{each} bytes for an idle queue of 128 entries, memory mode {memory:?}");
        if memory == MemoryMode::Pool {
            assert!(each <= 48 << 10, "{each}");
        }
    }
}
