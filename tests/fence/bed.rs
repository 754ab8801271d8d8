//! Late writes in the bed: over rxe against the scripted target, and on Linux's target, whose
//! medium is slow.

use std::{net::SocketAddr, path::Path, time::SystemTime};

use rdma_host::{Buffer, FenceOptions, TransferError};
use tests::{
    SUBSYSTEM, break_connections, controllers,
    load::HANG_TIMEOUT,
    mapped_namespace::{AddedNamespace, DISK, MappedNamespace},
    process_resources::ProcessResources,
    wait_for,
};
use tokio::task::JoinHandle;
use verbs::RdmaCore;

use super::*;

/// An address beside that of the bed's target.
fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::new(tests::options().address.ip(), port)
}

async fn over_rxe(port: u16, fence: Fence, resend: bool) -> u8 {
    let [host, target] = [Arc::new(RdmaCore::new()), Arc::new(RdmaCore::new())];
    let options = connect_options(elsewhere(port), fence).reconnect(options(resend));
    LateWrite::begin(&host, target, options, |target| target).await.play().await
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn over_rxe_a_late_write_is_lost_without_the_fence() {
    run(async {
        assert_eq!(over_rxe(4431, Fence::Off, true).await, b'A');
        assert_eq!(over_rxe(4432, Fence::Off, false).await, b'A');
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn over_rxe_no_write_is_lost_behind_the_fence() {
    for round in 0..10 {
        run(async {
            assert_eq!(over_rxe(4440 + round, Fence::Proof, round % 2 == 0).await, b'B', "{round}");
        });
    }
}

/// Time for which the medium holds a write back, in milliseconds: longer than the target takes to
/// end a controller whose host is silent.
const DELAY_MS: u32 = 12_000;
/// Delay of a medium that is slow enough for a write to be held when its connection is lost.
const SHORT_DELAY_MS: u32 = 1_500;

/// A medium in memory: namespace 2, and through a device that delays writes, namespace 1.
pub(crate) fn slow_medium(delay_ms: u32) -> (MappedNamespace, AddedNamespace) {
    let table = format!("delay {DISK} 0 0 {DISK} 0 {delay_ms}");
    (MappedNamespace::add(1, "fence", &table), AddedNamespace::on(2, DISK))
}

/// A first block of this namespace as the medium has it.
pub(crate) async fn read(namespace: &Namespace, buffer: Buffer) -> (u8, Buffer) {
    let buffer = namespace.read(LBA, buffer).await.expect("a read does not wait");
    let mut byte = [0; 1];
    buffer.copy_out(0, &mut byte);
    (byte[0], buffer)
}

const LBA: u64 = 8;

pub(crate) fn write(
    namespace: &Namespace,
    buffer: Buffer,
) -> JoinHandle<Result<Buffer, TransferError>> {
    let namespace = namespace.clone();
    tokio::spawn(async move { namespace.write(LBA, buffer).await })
}

/// Time at which the target has freed a controller.
fn gone_at(controller: u16) -> std::thread::JoinHandle<SystemTime> {
    let name = format!("ctrl{controller}");
    let path = Path::new("/sys/kernel/debug/nvmet").join(SUBSYSTEM).join(name);
    assert!(path.is_dir(), "{} is there", path.display());
    std::thread::spawn(move || {
        while path.is_dir() {
            std::thread::sleep(Duration::from_millis(5));
        }
        SystemTime::now()
    })
}

/// Makes what the first connection of a process makes, and what stays.
fn connect_once() {
    run(async {
        let controller = Controller::connect(&tests::options()).await.expect("the target is there");
        controller.shutdown().await;
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn on_linux_a_write_goes_out_once_the_old_controller_is_gone() {
    wait_for("the target is at rest", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    let (medium, direct) = slow_medium(DELAY_MS);
    connect_once();
    let before = ProcessResources::now();
    run(async {
        let connect = tests::options()
            .io_queues(1)
            .keep_alive(Duration::from_secs(5))
            .reconnect(options(false))
            .fence(FenceOptions::default());
        let controller = Controller::connect(&connect).await.expect("the target is there");
        let mut changes = controller.fence_changes();
        let slow = controller.namespace(NamespaceId(1)).await.expect("it was added");
        let fast = controller.namespace(NamespaceId(2)).await.expect("it was added");
        let block_size = slow.info().block_size as usize;
        let [mut first, mut second, spare] =
            [0; 3].map(|_| controller.allocate(block_size).expect("memory"));
        first.fill(b'A');
        second.fill(b'B');
        let old = controller.negotiated().controller.0;
        let write_of_first = write(&slow, first);
        while medium.delayed_writes() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let gone = gone_at(old);
        let lost_at = SystemTime::now();
        break_connections(SUBSYSTEM);
        let failed = write_of_first.await.unwrap().expect_err("its outcome is unknown");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let write_of_second = write(&slow, second);
        let (byte, spare) = read(&fast, spare).await;
        assert_eq!(byte, 0, "the first write is not executed yet");
        let closed = changes.next().await.expect("the fence closes");
        println!("{closed}");
        assert_eq!(medium.delayed_writes(), 1, "the second write waits");
        assert!(!gone.is_finished(), "the old controller is left");
        let opened = changes.next().await.expect("and opens");
        println!("{opened}");
        let gone_at = gone.join().expect("it is seen to go");
        let (byte, spare) = read(&fast, spare).await;
        assert_eq!(byte, b'A', "the first write was executed before the second is sent");
        let after = opened.at.duration_since(gone_at).unwrap_or_default();
        println!(
            "the old controller was gone {:?} after the loss, and the fence open {after:?} later",
            gone_at.duration_since(lost_at).expect("it went after that"),
        );
        write_of_second.await.unwrap().expect("it is executed");
        let (byte, _spare) = read(&fast, spare).await;
        assert_eq!(byte, b'B');
        assert_eq!(controllers(SUBSYSTEM), 1, "questions leave no controller");
        controller.shutdown().await;
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    before.wait_until_released("rxe0");
    drop((medium, direct));
}

/// Another process of the same host NQN is given the id of the old controller, before the host that
/// lost it can ask: to the target its controller is the one that is asked for.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn on_linux_an_id_that_is_in_use_again_does_not_keep_the_fence_closed() {
    wait_for("the target is at rest", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    let (medium, direct) = slow_medium(SHORT_DELAY_MS);
    run(async {
        let connect = tests::options()
            .io_queues(1)
            .fence(FenceOptions::default().timeout(Duration::from_secs(5)));
        let slowly = options(true).delay(Duration::from_secs(4));
        let first = Controller::connect(&connect.clone().reconnect(slowly)).await;
        let first = first.expect("the target is there");
        let mut changes = first.fence_changes();
        let mut states = first.changes();
        let slow = first.namespace(NamespaceId(1)).await.expect("it was added");
        let block_size = slow.info().block_size as usize;
        let buffer = first.allocate(block_size).expect("memory");
        let old = first.negotiated();
        let written = write(&slow, buffer);
        while medium.delayed_writes() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let gone = gone_at(old.controller.0);
        break_connections(SUBSYSTEM);
        tokio::task::spawn_blocking(|| gone.join().expect("it is seen to go")).await.unwrap();
        let second = Controller::connect(&connect).await.expect("the target is there");
        while states.next().await.expect("it goes on").state != LifecycleState::Live {}
        let (new, another) = (first.negotiated(), second.negotiated());
        assert_eq!(another.controller, old.controller, "the id is given to the other one");
        assert_ne!(new.controller, old.controller);
        println!("queues {} and {}", old.first_io_queue, another.first_io_queue);
        println!("{}", changes.next().await.expect("the fence closes"));
        let opened = changes.next().await.expect("and opens");
        println!("{opened}");
        let FenceChangeKind::Opened { proof, .. } = opened.kind else { panic!("{opened}") };
        assert_eq!(proof, FenceProof::QueuesGone);
        written.await.unwrap().expect("it is sent again");
        assert_eq!(controllers(SUBSYSTEM), 2, "questions leave no controller");
        let slow = second.namespace(NamespaceId(1)).await.expect("it was added");
        let buffer = second.allocate(block_size).expect("memory");
        slow.write(LBA, buffer).await.expect("questions leave no queue, and take none away");
        first.shutdown().await;
        second.shutdown().await;
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    drop((medium, direct));
}
