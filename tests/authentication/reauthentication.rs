//! Authenticating again on a live controller, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use auth::{Authenticated, HashId};
use rdma_host::{
    Buffer, Command, Controller, Error, ErrorClass, LifecycleState, Namespace, Poller,
    StateChanges, wire::NamespaceId,
};
use tests::{SUBSYSTEM, break_connections};

use super::bed::{GROUPS, HASHES, Keys, choose, in_runtime, plain, secret_text, write_and_read};

/// Blocks that each task of the load has for itself.
const SHARE: u64 = 8;

/// Writes and reads that go on until they are to stop, each checked.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(controller: &Controller, tasks: u64) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let tasks = (0..tasks).map(|task| {
            let buffer = controller.allocate(4096).expect("memory");
            let (namespace, count) = (namespace.clone(), Arc::clone(&count));
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut carried = Some(buffer);
                for turn in 0.. {
                    let Some(buffer) = carried.take_if(|_| !stop.load(Ordering::Relaxed)) else {
                        return;
                    };
                    carried = Some(write_and_compare(&namespace, task, turn, buffer).await);
                    count.fetch_add(2, Ordering::Relaxed);
                }
            })
        });
        let tasks = tasks.collect();
        Self { stop, count, tasks }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops the load; returns the number of commands, none of which has failed.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no I/O fails");
        }
        self.count.load(Ordering::Relaxed)
    }
}

async fn write_and_compare(
    namespace: &Namespace,
    task: u64,
    turn: u64,
    mut buffer: Buffer,
) -> Buffer {
    let pattern = tests::noise(4096, 1 + task + (turn << 8));
    buffer.copy_in(0, &pattern);
    buffer = namespace.write(SHARE * task, buffer).await.expect("a write");
    buffer.fill(0);
    buffer = namespace.read(SHARE * task, buffer).await.expect("a read");
    let mut bytes = vec![0; 4096];
    buffer.copy_out(0, &mut bytes);
    assert_eq!(bytes, pattern, "task {task}, turn {turn}");
    buffer
}

/// The keys and the choice of the target in one turn, given to it; each of them is another one now
/// and then.
fn turn(index: usize) -> (Keys, Authenticated) {
    let secret = |seed: usize| {
        let length = [32, 48, 64][seed % 3];
        let hash = HashId(u8::try_from(seed % 4).expect("below 4"));
        secret_text(hash, length, 1000 + seed as u64)
    };
    let (group, hash) = (GROUPS[index % 4], HASHES[index / 2 % 3]);
    choose(hash.0, group.0);
    let keys = Keys::new(secret(index / 2), Some(secret(100 + index.div_ceil(2))));
    keys.set();
    (keys, Authenticated { hash: hash.1, group: group.1, controller_proved: true })
}

/// States that have been told so far.
async fn states(changes: &mut StateChanges) -> Vec<LifecycleState> {
    let mut seen = Vec::new();
    while let Ok(Some(change)) = tokio::time::timeout(Duration::ZERO, changes.next()).await {
        seen.push(change.state);
    }
    seen
}

/// blktests nvme/045 and SPDK's host/auth.sh: a new host key, controller key, group or hash, twenty
/// times, and the same once more after each; the connection stays, and no I/O fails.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn keys_change_under_load_and_the_connection_stays() {
    in_runtime(async {
        let (keys, _) = turn(0);
        let controller = Controller::connect(&keys.options()).await.expect("the keys are right");
        let mut changes = controller.changes();
        let load = Load::start(&controller, 16).await;
        let began = Instant::now();
        for index in 1..=20 {
            let before = load.count();
            let (keys, expected) = turn(index);
            let how = controller.reauthenticate(Some(keys.credentials())).await;
            assert_eq!(how.expect("the keys are right"), [Some(expected); 3], "turn {index}");
            assert_eq!(controller.negotiated().authenticated, [Some(expected); 3]);
            let again = controller.reauthenticate(None).await.expect("the keys are right");
            assert_eq!(again, [Some(expected); 3]);
            assert!(load.count() > before, "the load goes on");
        }
        let took = began.elapsed().as_secs_f64();
        let count = load.stop().await;
        println!("40 times 3 queues in {took:.1} s, with {count} reads and writes");
        assert_eq!(states(&mut changes).await, []);
        // The new keys are those of connections to come.
        controller.reset().await;
        while changes.next().await.expect("it lives").state != LifecycleState::Live {}
        write_and_read(&controller).await;
        controller.shutdown().await;
    });
}

/// An owner who drives the queues and keeps them full loses no room by the exchange.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn queues_that_their_owner_keeps_full_are_authenticated_again() {
    in_runtime(async {
        let (keys, _) = turn(0);
        let (controller, mut pollers) =
            Controller::connect(&keys.options()).polled(1).await.expect("the keys are right");
        let poller = pollers.pop().expect("one poller");
        let buffers = controller.allocate_many(poller.depth(), 4096).expect("memory");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let driver = std::thread::spawn(move || keep_full(poller, buffers, &stopped));
        for index in 1..=4 {
            let (keys, expected) = turn(index);
            let how = controller.reauthenticate(Some(keys.credentials())).await;
            assert_eq!(how.expect("the keys are right"), [Some(expected); 3], "turn {index}");
        }
        stop.store(true, Ordering::Relaxed);
        let done = driver.join().expect("no read fails");
        println!("{done} reads");
        assert!(done > 0);
        controller.shutdown().await;
    });
}

/// Reads with as many commands in flight as the queues take; returns how many were done.
fn keep_full(mut poller: Poller, mut buffers: Vec<Buffer>, stop: &AtomicBool) -> u64 {
    let (all, mut done, mut next) = (buffers.len(), 0, 0);
    while !stop.load(Ordering::Relaxed) || buffers.len() < all {
        while !stop.load(Ordering::Relaxed)
            && let Some(buffer) = buffers.pop()
        {
            next = (next + SHARE) % 4096;
            let submitted = poller.submit(Command::read(NamespaceId(1), next, 8, buffer));
            submitted.unwrap_or_else(|rejection| panic!("{}", rejection.error));
        }
        poller.ring_doorbells().expect("it is connected");
        poller.poll().expect("it is connected");
        while let Some(finished) = poller.take() {
            let (outcome, buffer) = finished.into_result("Read");
            outcome.expect("a read");
            buffers.extend(buffer);
            done += 1;
        }
    }
    done
}

/// Linux's target drops the connection over new secrets that it does not know; the old ones bring
/// it back, and I/O waits for that.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn secrets_that_the_target_refuses_are_not_kept() {
    in_runtime(async {
        let (keys, expected) = turn(0);
        let controller = Controller::connect(&keys.options()).await.expect("the keys are right");
        let mut changes = controller.changes();
        let load = Load::start(&controller, 4).await;
        for (host, theirs) in
            [(plain(77), keys.controller.clone()), (keys.host.clone(), Some(plain(77)))]
        {
            let wrong = Keys::new(host, theirs);
            let error = controller.reauthenticate(Some(wrong.credentials())).await;
            let error = error.expect_err("the target does not know them");
            assert!(matches!(error, Error::ReauthenticationFailed(_)), "{error}");
            assert_eq!(error.class(), ErrorClass::Access, "{error}");
            assert!(error.to_string().contains("stay as they were"), "{error}");
            loop {
                let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
                match change.expect("it comes back").expect("it lives").state {
                    LifecycleState::Live => break,
                    LifecycleState::Dead => panic!("the old secrets are still right"),
                    _ => {}
                }
            }
        }
        let again = controller.reauthenticate(None).await.expect("the keys are right");
        assert_eq!(again, [Some(expected); 3]);
        assert!(load.stop().await > 0);
        controller.shutdown().await;
    });
}

/// A key that was changed at the target, and not here, is found out, and is the end.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn authenticating_again_with_an_outdated_key_is_the_end() {
    in_runtime(async {
        let (keys, _) = turn(0);
        let controller = Controller::connect(&keys.options()).await.expect("the keys are right");
        turn(7);
        let error = controller.reauthenticate(None).await.expect_err("the key is old");
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
        let end = controller.failed().await;
        assert_eq!(end.class(), ErrorClass::Access, "{end}");
        assert!(end.to_string().contains("1 attempt"), "{end}");
        let error = controller.reauthenticate(None).await.expect_err("it has ended");
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
    });
}

/// Without a connection nothing can be authenticated, and nothing is changed.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn there_must_be_a_connection() {
    in_runtime(async {
        let (keys, _) = turn(0);
        let mut options = keys.options();
        options.reconnect.delay = Duration::from_secs(2);
        let controller = Controller::connect(&options).await.expect("the keys are right");
        let mut changes = controller.changes();
        tokio::task::spawn_blocking(|| break_connections(SUBSYSTEM)).await.expect("it ends");
        while changes.next().await.expect("it lives").state != LifecycleState::Waiting {}
        let wrong = Keys::new(plain(77), None);
        let error = controller.reauthenticate(Some(wrong.credentials())).await;
        let error = error.expect_err("there is no connection");
        assert_eq!(error.class(), ErrorClass::Transport, "{error}");
        while changes.next().await.expect("it lives").state != LifecycleState::Live {}
        write_and_read(&controller).await;
        controller.shutdown().await;
    });
}
