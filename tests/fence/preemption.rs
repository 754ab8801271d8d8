//! Preempt-and-abort of a lost path, on Linux's target, whose medium is slow. Each path has a host
//! identifier of its own; the target's answers about controllers are not used.
//!
//! The path is lost for the host alone, whose packets have no route, as if a cable were cut:
//! Linux's target may crash if it ends the preempted controller while the command waits (FENCE.md).

use std::time::Instant;

use rdma_host::{
    FenceChanges, FenceOptions, PathState, Subsystem, SubsystemOptions,
    proto::PathId,
    wire::{AcquireAction, RegisterAction, ReleaseAction, ReservationCommand, ReservationType},
};
use tests::{command, enable_reservations, mapped_namespace::MappedNamespace};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{
    bed::{read, slow_medium, write},
    *,
};

/// Time for which the medium holds a write back, in milliseconds.
const DELAY_MS: u32 = 6_000;
const SLOW: NamespaceId = NamespaceId(1);
const HELD: ReservationType = ReservationType::WRITE_EXCLUSIVE_ALL;
const HOST_IDS: [Uuid; 2] = [Uuid::from_u128(0xa), Uuid::from_u128(0xb)];
/// Address of the path that is lost.
const CUT_ADDRESS: &str = "fd10:10:10::1";

/// A subsystem of two paths, and the held write of the first one, which is lost.
struct LostPath {
    subsystem: Subsystem,
    /// The medium, without the delay.
    direct: Namespace,
    /// End of the wait for the held write on the medium.
    executed: JoinHandle<Instant>,
    changes: FenceChanges,
    lost_at: Instant,
}

/// Takes the route to [`CUT_ADDRESS`] away, for as long as the guest runs.
fn cut() {
    command("ip", &format!("-6 route del local {CUT_ADDRESS} dev dum0 table local"));
    command("ip", &format!("-6 route add blackhole {CUT_ADDRESS} table local"));
}

async fn reserve(controller: &Controller, command: ReservationCommand) {
    let namespace = controller.namespace(SLOW).await.expect("it was added");
    let keys = controller.allocate(ReservationCommand::DATA_MAX).expect("memory");
    namespace.reserve(&command, false, keys).await.expect("it is accepted");
}

/// Key that a path has registered.
fn key(path: usize) -> u64 {
    path as u64 + 1
}

fn register(path: usize) -> ReservationCommand {
    let (action, new_key) = (RegisterAction::Register, key(path));
    ReservationCommand::Register { action, current_key: 0, new_key, persist: None }
}

fn acquire(action: AcquireAction, path: usize) -> ReservationCommand {
    let (current_key, preempt_key) = (key(path), key(1 - path));
    ReservationCommand::Acquire { action, reservation: HELD, current_key, preempt_key }
}

impl LostPath {
    /// Registers both paths, the first of which holds a reservation; then it is lost with a write
    /// of `byte`.
    async fn new(medium: &MappedNamespace, byte: u8) -> Self {
        let fence = FenceOptions::default().controller_ids(Some(false));
        let connect = tests::options().io_queues(1).reconnect(options(false)).fence(fence);
        // The target does not end the controller meanwhile.
        let connect = connect.keep_alive(Duration::from_secs(60));
        let second = connect.address;
        let first = format!("[{CUT_ADDRESS}]:4420").parse().expect("an address and a port");
        let paths = SubsystemOptions::new(connect.address(first)).path(second, None);
        let subsystem = Subsystem::connect(&paths.host_ids(HOST_IDS)).await.expect("one target");
        while subsystem.status().paths.iter().any(|path| path.state != PathState::Live) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let [first, second] =
            [0, 1].map(|path| subsystem.controller(PathId(path)).expect("it is connected"));
        reserve(&first, register(0)).await;
        reserve(&second, register(1)).await;
        reserve(&first, acquire(AcquireAction::Acquire, 0)).await;
        let slow = first.namespace(SLOW).await.expect("it was added");
        let direct = second.namespace(NamespaceId(2)).await.expect("it was added");
        let mut buffer = subsystem.allocate(slow.info().block_size as usize).expect("memory");
        buffer.fill(byte);
        let held = write(&slow, buffer);
        while medium.delayed_writes() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let changes = subsystem.fence_changes();
        cut();
        let lost_at = Instant::now();
        let sent = slow.read(0, first.allocate(slow.info().block_size as usize).expect("memory"));
        sent.await.expect_err("it cannot be sent");
        let failed = held.await.expect("no panic").expect_err("its outcome is unknown");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        let buffer = failed.buffer.expect("it is handed back");
        let executed = tokio::spawn(until_written(direct.clone(), buffer, byte));
        Self { subsystem, direct, executed, changes, lost_at }
    }

    async fn on_medium(&self) -> u8 {
        let size = self.direct.info().block_size as usize;
        read(&self.direct, self.subsystem.allocate(size).expect("memory")).await.0
    }
}

/// Reads a block until it has this content.
async fn until_written(namespace: Namespace, mut buffer: rdma_host::Buffer, byte: u8) -> Instant {
    loop {
        let seen;
        (seen, buffer) = read(&namespace, buffer).await;
        if seen == byte {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn preempt_and_abort_is_answered_after_the_held_write() {
    // A guest of its own: rxe loses its queue pair of connection management by the cut, too, and no
    // connection is made or ended after it.
    let (medium, direct) = slow_medium(DELAY_MS);
    if !enable_reservations(SLOW.0) {
        println!("SKIPPED: this kernel's target has no reservations");
        return;
    }
    run(async {
        let mut connect = tests::options().io_queues(1);
        connect.host.id = HOST_IDS[0];
        let again = Controller::connect(&connect).await.expect("the target is there");
        let mut lost = LostPath::new(&medium, b'A').await;
        let second = lost.subsystem.controller(PathId(1)).expect("it lives");
        // Preempt is answered while the write is held: it proves nothing.
        let sent_at = Instant::now();
        reserve(&second, acquire(AcquireAction::Preempt, 1)).await;
        let plain = sent_at.elapsed();
        assert_ne!(lost.on_medium().await, b'A', "it is held");

        // The host identifier is registered again.
        reserve(&again, register(0)).await;
        let sent_at = Instant::now();
        lost.subsystem.preempt_path(PathId(0), SLOW).await.expect("it is preempted");
        let (answered, abort) = (Instant::now(), sent_at.elapsed());
        assert_eq!(lost.on_medium().await, b'A', "the held write was executed before");
        let closed = lost.changes.next().await.expect("the fence closes");
        assert!(matches!(closed.kind, FenceChangeKind::Closed { .. }), "{closed}");
        let opened = lost.changes.next().await.expect("and opens");
        let FenceChangeKind::Opened { proof, .. } = opened.kind else { panic!("{opened}") };
        assert_eq!(proof, FenceProof::Preempted);
        let slow = second.namespace(SLOW).await.expect("it was added");
        let mut buffer = second.allocate(slow.info().block_size as usize).expect("memory");
        buffer.fill(b'B');
        write(&slow, buffer).await.unwrap().expect("writes go on");
        assert_eq!(lost.on_medium().await, b'B');
        let executed = lost.executed.await.expect("it was seen");
        println!(
            "{closed}\n{opened}\npreempt was answered {plain:?} after it was sent, \
             preempt-and-abort {abort:?}, {:?} after the loss; the held write was seen on the \
             medium {:?} after the loss",
            answered - lost.lost_at,
            executed - lost.lost_at,
        );
        let clear = ReservationCommand::Release {
            action: ReleaseAction::Clear,
            current_key: key(1),
            reservation: HELD,
        };
        reserve(&second, clear).await;
        again.shutdown().await;
        lost.subsystem.shutdown().await;
    });
    drop((medium, direct));
}
