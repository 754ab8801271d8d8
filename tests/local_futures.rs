//! Futures that submit to the poller of their own thread: over the fabric against the scripted
//! target, and in the bed against the kernel's, through losses of the connection
//! (`local_futures/bed.rs`).

// bed: --target tests/targets/lasting.toml

#[path = "local_futures/bed.rs"]
mod bed;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Buffer, Command, ConnectOptions, Controller, Error, ExecutionStatus, HostIdentity,
    LocalNamespace, LocalPoller, ReconnectOptions, TransferError, WaitMode, Waiter,
    wire::NamespaceId,
};
use tests::{
    noise,
    target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target},
};
use tokio::sync::Semaphore;

const BLOCK: usize = 512;
/// Commands in flight at most: one fewer than the entries of the queue.
const DEPTH: u16 = 3;

/// A poller and its controller, whose target asks a hook how to answer I/O.
struct Local {
    poller: LocalPoller<Host>,
    namespace: LocalNamespace<Host>,
    controller: Controller<Host>,
    /// Logical blocks of the commands that the target has received, in their order.
    received: Arc<Mutex<Vec<u64>>>,
    /// Set to close all connections.
    disconnect: Arc<AtomicBool>,
}

impl Local {
    fn buffer(&self) -> Buffer {
        self.controller.allocate(BLOCK).expect("memory")
    }

    fn received(&self) -> Vec<u64> {
        self.received.lock().expect("no panic").clone()
    }

    /// Drives the poller until the target has received this number of commands.
    async fn until_received(&self, count: usize) {
        self.poller
            .run_until(async {
                while self.received().len() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
    }
}

/// Runs a test in both modes of waiting; I/O is answered as `hook` says.
fn on_local<F: Future<Output = ()>>(
    reconnect: &ReconnectOptions,
    hook: impl FnMut(&ReceivedCommand, &mut Answer) + Clone + Send + 'static,
    test: impl Fn(Local) -> F,
) {
    for wait in [WaitMode::Event, WaitMode::Poll] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let local = connect(wait, reconnect.clone(), hook.clone()).await;
            let test = tokio::time::timeout(Duration::from_secs(60), test(local));
            test.await.expect("the test ends");
        });
    }
}

async fn connect(
    wait: WaitMode,
    reconnect: ReconnectOptions,
    mut hook: impl FnMut(&ReceivedCommand, &mut Answer) + Send + 'static,
) -> Local {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let (received, disconnect) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
    let seen_by_target = Arc::clone(&received);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() {
            seen_by_target.lock().expect("no panic").push(seen.u64_at(40));
            hook(&seen, answer);
        }
    };
    let target = Target::new(&fabric, Box::new(hook)).disconnecting(Arc::clone(&disconnect));
    tokio::spawn(async move {
        target.run().await;
        drop(fabric);
    });
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let mut options = ConnectOptions::new(address, nqn, identity).reconnect(reconnect);
    (options.io_queues, options.queue_entries) = (1, DEPTH + 1);
    let connecting = Controller::connect_over(&host, &options);
    let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
    let info = controller.identify_namespace(NamespaceId(1)).await.expect("it is there");
    let poller = LocalPoller::new(pollers.remove(0), Waiter::new(wait));
    let namespace = poller.namespace(info);
    Local { poller, namespace, controller, received, disconnect }
}

fn reconnects() -> ReconnectOptions {
    ReconnectOptions::default().delay(Duration::from_millis(10))
}

fn fill(mut buffer: Buffer, seed: u64) -> (Buffer, Vec<u8>) {
    let data = noise(buffer.len(), seed);
    buffer.copy_in(0, &data);
    (buffer, data)
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    bytes
}

/// Polls a future once, outside of any task.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn operations_do_as_those_of_a_shared_namespace() {
    on_local(
        &reconnects(),
        |_, _| {},
        async |local| {
            let Local { poller, namespace, .. } = &local;
            poller
                .run_until(async {
                    let (buffer, data) = fill(local.buffer(), 1);
                    let buffer = namespace.write(3, buffer).await.expect("it is written");
                    let (buffer, other) = fill(buffer, 2);
                    let write = namespace.write_with_force_unit_access(4, buffer);
                    let buffer = write.await.expect("it is written");
                    namespace.flush().await.expect("it is flushed");
                    let buffer = namespace.read(3, buffer).await.expect("it is read");
                    assert!(bytes(&buffer) == data);
                    let buffer = namespace.read(4, buffer).await.expect("it is read");
                    assert!(bytes(&buffer) == other);

                    let zeroes = Command::write_zeroes(NamespaceId(1), 3, 1, false).with_user(9);
                    let done = namespace.execute(zeroes).await;
                    assert_eq!(done.user, 9, "the tag is the caller's");
                    done.into_result("Write Zeroes").0.expect("it is executed");
                    let buffer = namespace.read(3, buffer).await.expect("it is read");
                    assert!(bytes(&buffer).iter().all(|&byte| byte == 0));

                    let past_end = namespace.read(namespace.info().blocks, buffer).await;
                    let TransferError { buffer, execution, .. } =
                        past_end.expect_err("no such block");
                    assert_eq!((buffer.is_some(), execution), (true, ExecutionStatus::NotSent));
                })
                .await;
        },
    );
}

#[test]
fn commands_beyond_the_depth_wait_in_their_order() {
    const TASKS: u32 = 20;
    on_local(
        &reconnects(),
        |_, _| {},
        async |local| {
            let ended = Rc::new(Semaphore::new(0));
            for lba in 0..u64::from(TASKS) {
                let (namespace, buffer) = (local.namespace.clone(), local.buffer());
                let ended = Rc::clone(&ended);
                local.poller.spawn_local(async move {
                    namespace.read(lba, buffer).await.expect("it is read");
                    ended.add_permits(1);
                });
            }
            let all = ended.acquire_many(TASKS);
            drop(local.poller.run_until(all).await.expect("it is not closed"));
            assert_eq!(local.received(), (0..u64::from(TASKS)).collect::<Vec<_>>());
        },
    );
}

#[test]
fn a_dropped_future_leaves_its_buffer_to_the_command_and_a_waiting_one_sends_none() {
    let gate = Arc::<AtomicBool>::default();
    let of_target = Arc::clone(&gate);
    let hook = move |_: &ReceivedCommand, answer: &mut Answer| {
        answer.gate = Some(Arc::clone(&of_target));
    };
    on_local(&reconnects(), hook, async |local| {
        gate.store(false, Ordering::Release);
        let namespace = &local.namespace;
        let (buffer, data) = fill(local.buffer(), 1);
        {
            let mut write = pin!(namespace.write(0, buffer));
            let mut reads: Vec<_> =
                (1..5).map(|lba| Box::pin(namespace.read(lba, local.buffer()))).collect();
            assert!(!poll_once(write.as_mut()));
            reads.iter_mut().for_each(|read| assert!(!poll_once(read.as_mut())));
            // Of five commands, as many as the depth are in flight, the others wait.
            local.until_received(DEPTH.into()).await;
        }
        gate.store(true, Ordering::Release);
        let read = local.poller.run_until(namespace.read(0, local.buffer())).await;
        assert!(bytes(&read.expect("it is read")) == data, "the write was executed");
        assert_eq!(local.received(), [0, 1, 2, 0], "those that waited were not sent");
    });
}

#[test]
fn commands_in_flight_at_a_loss_are_sent_again() {
    let gate = Arc::<AtomicBool>::default();
    let of_target = Arc::clone(&gate);
    let hook = move |_: &ReceivedCommand, answer: &mut Answer| {
        answer.gate = Some(Arc::clone(&of_target));
    };
    on_local(&reconnects(), hook, async |local| {
        gate.store(false, Ordering::Release);
        let ended = Rc::new(Semaphore::new(0));
        for lba in 0..6 {
            let (namespace, buffer) = (local.namespace.clone(), local.buffer());
            let ended = Rc::clone(&ended);
            local.poller.spawn_local(async move {
                namespace.read(lba, buffer).await.expect("sent again");
                ended.add_permits(1);
            });
        }
        local.until_received(DEPTH.into()).await;
        gate.store(true, Ordering::Release);
        local.disconnect.store(true, Ordering::Release);
        drop(local.poller.run_until(ended.acquire_many(6)).await.expect("it is not closed"));
    });
}

#[test]
fn every_future_ends_with_the_controller() {
    let hook = |_: &ReceivedCommand, answer: &mut Answer| {
        answer.gate = Some(Arc::default()); // never answered
    };
    on_local(&ReconnectOptions::never(), hook, async |local| {
        let failures = Rc::new(RefCell::new(Vec::new()));
        let ended = Rc::new(Semaphore::new(0));
        for lba in 0..6 {
            let (namespace, buffer) = (local.namespace.clone(), local.buffer());
            let (failures, ended) = (Rc::clone(&failures), Rc::clone(&ended));
            local.poller.spawn_local(async move {
                let failed = namespace.read(lba, buffer).await.expect_err("never answered");
                failures.borrow_mut().push(failed);
                ended.add_permits(1);
            });
        }
        local.until_received(DEPTH.into()).await;
        local.disconnect.store(true, Ordering::Release);
        drop(local.poller.run_until(ended.acquire_many(6)).await.expect("it is not closed"));
        for TransferError { buffer, error, .. } in failures.borrow().iter() {
            assert!(buffer.is_some(), "the buffer comes back: {error}");
        }
        let unknown = |failed: &&TransferError| failed.execution == ExecutionStatus::Unknown;
        assert_eq!(failures.borrow().iter().filter(unknown).count(), usize::from(DEPTH));
        let late = local.poller.run_until(local.namespace.read(0, local.buffer())).await;
        assert_eq!(late.expect_err("it has ended").execution, ExecutionStatus::NotSent);
    });
}

#[test]
fn futures_of_another_executor_are_woken_and_end_with_the_poller() {
    on_local(
        &reconnects(),
        |_, _| {},
        async |local| {
            let completed = Rc::new(Cell::new(0));
            let tasks = tokio::task::LocalSet::new();
            let mut readers = tokio::task::JoinSet::new();
            for lba in 0..6 {
                let (namespace, buffer) = (local.namespace.clone(), local.buffer());
                readers.spawn_local_on(
                    read_until_failure(namespace, lba, buffer, completed.clone()),
                    &tasks,
                );
            }
            tasks
                .run_until(local.poller.run_until(async {
                    while completed.get() < 100 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }))
                .await;
            drop(local.poller);
            tasks
                .run_until(async {
                    while let Some(failed) = readers.join_next().await {
                        let error = failed.expect("no panic");
                        assert!(matches!(error, Error::Closed), "{error}");
                    }
                })
                .await;
        },
    );
}

async fn read_until_failure(
    namespace: LocalNamespace<Host>,
    lba: u64,
    mut buffer: Buffer,
    completed: Rc<Cell<u32>>,
) -> Error {
    loop {
        match namespace.read(lba, buffer).await {
            Ok(read) => buffer = read,
            Err(failed) => return failed.error,
        }
        completed.set(completed.get() + 1);
    }
}

#[test]
fn tasks_of_a_dropped_poller_are_dropped() {
    on_local(
        &reconnects(),
        |_, _| {},
        async |local| {
            let alive = Rc::new(());
            for lba in 0..6 {
                let (namespace, buffer, alive) =
                    (local.namespace.clone(), local.buffer(), alive.clone());
                local.poller.spawn_local(async move {
                    let _alive = alive;
                    let _ = namespace.read(lba, buffer).await;
                    std::future::pending::<()>().await;
                });
            }
            local.until_received(6).await;
            assert_eq!(Rc::strong_count(&alive), 7);
            drop(local.poller);
            assert_eq!(Rc::strong_count(&alive), 1);
        },
    );
}

#[test]
#[should_panic(expected = "driven by one future at a time")]
fn a_poller_is_driven_by_one_future_at_a_time() {
    on_local(
        &reconnects(),
        |_, _| {},
        async |local| {
            let poller = &local.poller;
            poller.run_until(poller.run_until(async {})).await;
        },
    );
}
