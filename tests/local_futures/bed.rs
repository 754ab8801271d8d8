//! The kernel's target.

use std::{cell::Cell, rc::Rc, sync::mpsc, time::Duration};

use rdma_host::{
    Buffer, ConnectOptions, Controller, LifecycleState, LocalNamespace, LocalPoller, Poller,
    ReconnectOptions, WaitMode, Waiter, wire::NamespaceId,
};
use tests::{SUBSYSTEM, break_connections, noise, options};
use tokio::sync::Semaphore;

/// Blocks of each task, which no other one writes.
const BLOCKS_EACH: u64 = 64;
const TASKS: u32 = 32;

/// A controller with two queues on one poller, and the namespace's blocks for each task.
async fn connect(options: &ConnectOptions) -> (Controller, Poller, Vec<Buffer>) {
    let connecting = Controller::connect(options);
    let (controller, mut pollers) = connecting.polled(1).await.expect("the target is there");
    let buffers = controller.allocate_many(TASKS as usize, 16 << 10).expect("memory");
    (controller, pollers.remove(0), buffers)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Writes noise and reads it back until `over`; counts the rounds. Returns the error that ends it.
async fn write_and_verify(
    namespace: LocalNamespace,
    task: u64,
    mut buffer: Buffer,
    rounds: Rc<Cell<u64>>,
    over: Rc<Cell<bool>>,
) -> Result<(), rdma_host::Error> {
    let blocks = u64::from(namespace.info().blocks_in(buffer.len()));
    for round in 0.. {
        let data = noise(buffer.len(), (task << 32) + round);
        let lba = task * BLOCKS_EACH + round % (BLOCKS_EACH - blocks);
        buffer.copy_in(0, &data);
        buffer = namespace.write(lba, buffer).await.map_err(|failed| failed.error)?;
        buffer.fill(0);
        buffer = namespace.read(lba, buffer).await.map_err(|failed| failed.error)?;
        let mut read = vec![0; data.len()];
        buffer.copy_out(0, &mut read);
        assert!(read == data, "task {task}, round {round}: not what was written");
        rounds.set(rounds.get() + 1);
        if over.get() {
            break;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_is_right_through_losses_of_the_connection() {
    const LOSSES: u64 = 3;
    for wait in [WaitMode::Event, WaitMode::Poll, WaitMode::default()] {
        let reconnect = ReconnectOptions::default().delay(Duration::from_millis(200));
        let mut options = options().reconnect(reconnect);
        options.io_queues = 2;
        runtime().block_on(async {
            let (controller, poller, buffers) = connect(&options).await;
            let info = controller.identify_namespace(NamespaceId(1)).await.expect("it is there");
            let poller = LocalPoller::new(poller, Waiter::new(wait));
            let (rounds, over) = (Rc::<Cell<u64>>::default(), Rc::<Cell<bool>>::default());
            let ended = Rc::new(Semaphore::new(0));
            for (task, buffer) in (0..).zip(buffers) {
                let namespace = poller.namespace(info);
                let (rounds, over, ended) = (rounds.clone(), over.clone(), ended.clone());
                poller.spawn_local(async move {
                    let verified = write_and_verify(namespace, task, buffer, rounds, over).await;
                    verified.expect("commands are sent again");
                    ended.add_permits(1);
                });
            }
            let mut changes = controller.changes();
            let all = async {
                for _ in 0..LOSSES {
                    let before = rounds.get();
                    while rounds.get() < before + 10 * u64::from(TASKS) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    tokio::task::spawn_blocking(|| break_connections(SUBSYSTEM));
                    while changes.next().await.expect("it lives").state != LifecycleState::Live {}
                }
                over.set(true);
                ended.acquire_many(TASKS).await.expect("it is not closed").forget();
            };
            poller.run_until(all).await;
            println!("{wait:?}: {} writes and reads through {LOSSES} losses", rounds.get());
            drop(poller);
            controller.shutdown().await;
        });
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_transfer_in_parts_is_one_buffer_again() {
    runtime().block_on(async {
        let (controller, poller, buffers) = connect(&options()).await;
        drop(buffers);
        let info = controller.identify_namespace(NamespaceId(1)).await.expect("it is there");
        let poller = LocalPoller::new(poller, Waiter::new(WaitMode::default()));
        let namespace = poller.namespace(info);
        let bytes = 3 * usize::try_from(namespace.transfer_bytes_max()).expect("it fits")
            + info.block_size as usize;
        let (mut buffer, data) = (controller.allocate(bytes).expect("memory"), noise(bytes, 1));
        buffer.copy_in(0, &data);
        let transfers = async {
            let mut buffer = namespace.write(77, buffer).await.expect("it is written");
            buffer.fill(0);
            namespace.read(77, buffer).await.expect("it is read")
        };
        let buffer = poller.run_until(transfers).await;
        let mut read = vec![0; bytes];
        buffer.copy_out(0, &mut read);
        assert!(read == data);
        drop(poller);
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn no_future_outlives_a_controller_that_does_not_reconnect() {
    for wait in [WaitMode::Event, WaitMode::Poll] {
        let options = options().reconnect(ReconnectOptions::never());
        let (failed, failures) = mpsc::channel();
        runtime().block_on(async {
            let (controller, poller, buffers) = connect(&options).await;
            let info = controller.identify_namespace(NamespaceId(1)).await.expect("it is there");
            let poller = LocalPoller::new(poller, Waiter::new(wait));
            let (rounds, ended) = (Rc::<Cell<u64>>::default(), Rc::new(Semaphore::new(0)));
            for (task, buffer) in (0..).zip(buffers) {
                let namespace = poller.namespace(info);
                let (rounds, ended, failed) = (rounds.clone(), ended.clone(), failed.clone());
                poller.spawn_local(async move {
                    let over = Rc::default();
                    let verified = write_and_verify(namespace, task, buffer, rounds, over).await;
                    failed.send(verified.expect_err("it never ends by itself")).expect("the test");
                    ended.add_permits(1);
                });
            }
            let all = async {
                while rounds.get() < u64::from(TASKS) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::task::spawn_blocking(|| break_connections(SUBSYSTEM));
                ended.acquire_many(TASKS).await.expect("it is not closed").forget();
            };
            poller.run_until(all).await;
            drop(poller);
            controller.shutdown().await;
        });
        let errors: Vec<_> = failures.try_iter().collect();
        assert_eq!(errors.len(), TASKS as usize);
        println!("{wait:?}: {TASKS} futures ended: {}", errors[0]);
    }
}
