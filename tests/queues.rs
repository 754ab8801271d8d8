//! Many queues of one controller come up together, while another controller's commands go on.
//!
//! Over the fabric time does not matter: the target delays its answers to Connect until as many are
//! in progress as may be, and commands of the other controller have been completed meanwhile. If
//! the queues were connected one after the other, or the other controller waited, the test would
//! never end.

// bed: --target tests/targets/deep.toml

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Buffer, ConnectOptions, Controller, Error, HostIdentity, LifecycleState, Namespace,
    config::CONCURRENT_CONNECTS_MAX, wire::NamespaceId,
};
use tests::{
    noise,
    target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target},
};

const QUEUES: u16 = 256;
/// Commands that the other controller completes while a batch of queues waits.
const MEANWHILE: u64 = 10;

/// Delays the answers to Connect until a batch is complete.
struct ConnectBarrier {
    /// Connects are delayed.
    enabled: bool,
    /// Number of Connects that wait.
    waiting: u16,
    gate: Arc<AtomicBool>,
    /// Number of Connects in each batch.
    batches: Vec<u16>,
    /// Number of commands that the other controller has completed, now and when the batch was full.
    completed: Arc<AtomicU64>,
    mark: u64,
}

impl ConnectBarrier {
    fn new(completed: &Arc<AtomicU64>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            enabled: false,
            waiting: 0,
            gate: Arc::default(),
            batches: Vec::new(),
            completed: Arc::clone(completed),
            mark: u64::MAX,
        }))
    }

    fn on_command(&mut self, seen: ReceivedCommand, answer: &mut Answer) {
        if self.enabled && seen.queue != 0 && seen.is_fabrics(0x01) {
            answer.gate = Some(Arc::clone(&self.gate));
            self.waiting += 1;
            if self.waiting == CONCURRENT_CONNECTS_MAX {
                self.mark = self.completed.load(Ordering::Acquire) + MEANWHILE;
            }
        }
        if self.completed.load(Ordering::Acquire) >= self.mark {
            self.gate.store(true, Ordering::Release);
            self.gate = Arc::default();
            self.batches.push(std::mem::take(&mut self.waiting));
            self.mark = u64::MAX;
        }
    }
}

fn options(queues: u16) -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.io_queues = queues;
    options.queue_entries = 4;
    options.reconnect.delay = Duration::from_millis(50);
    options
}

/// A fabric with a target that grants many queues, and a host.
fn bed(mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> (Fabric, Arc<Host>) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x09 && seen.sqe[40] == 0x07 {
            answer.messages = vec![seen.response(0, seen.u32_at(44).into())];
        }
        hook(seen, answer);
    };
    tokio::spawn(Target::new(&fabric, Box::new(hook)).run());
    (fabric, host)
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Against hanging for ever.
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends");
    });
}

/// Writes and reads back, again and again.
async fn keep_busy(namespace: Namespace, mut buffer: Buffer, completed: Arc<AtomicU64>) {
    for round in 0u64.. {
        let data = noise(buffer.len(), round);
        buffer.copy_in(0, &data);
        let lba = round % 64;
        buffer = namespace.write(lba, buffer).await.expect("the other controller is well");
        buffer.fill(0);
        buffer = namespace.read(lba, buffer).await.expect("the other controller is well");
        let mut read = vec![0; data.len()];
        buffer.copy_out(0, &mut read);
        assert!(read == data, "round {round}: what was read is not what was written");
        completed.fetch_add(2, Ordering::AcqRel);
    }
}

#[test]
fn queues_come_up_together_and_nobody_waits_for_them() {
    run(async {
        let completed = Arc::default();
        let barrier = ConnectBarrier::new(&completed);
        let hook = Arc::clone(&barrier);
        let (_fabric, host) =
            bed(move |seen, answer| hook.lock().unwrap().on_command(seen, answer));
        let busy = Controller::connect_over(&host, &options(1)).await.expect("an honest target");
        let namespace = busy.namespace(NamespaceId(1)).await.expect("it is there");
        let buffer = busy.allocate(2048).expect("memory");
        let load = tokio::spawn(keep_busy(namespace, buffer, completed));

        barrier.lock().unwrap().enabled = true;
        let many = Controller::connect_over(&host, &options(QUEUES)).await.expect("all come up");
        assert_eq!(many.negotiated().io_queues, QUEUES);
        let batches = std::mem::take(&mut barrier.lock().unwrap().batches);
        assert_eq!(
            batches,
            vec![CONCURRENT_CONNECTS_MAX; usize::from(QUEUES / CONCURRENT_CONNECTS_MAX)]
        );

        // The same when they are lost.
        let mut changes = many.changes();
        many.reset().await;
        while changes.next().await.expect("it goes on").state != LifecycleState::Live {}
        let batches = std::mem::take(&mut barrier.lock().unwrap().batches);
        assert_eq!(
            batches,
            vec![CONCURRENT_CONNECTS_MAX; usize::from(QUEUES / CONCURRENT_CONNECTS_MAX)]
        );

        many.shutdown().await;
        assert!(!load.is_finished(), "the other controller's load goes on");
        load.abort();
        busy.shutdown().await;
    });
}

#[test]
fn one_queue_that_is_refused_leaves_nothing_of_the_others() {
    run(async {
        let (fabric, host) = bed(|seen, answer| {
            if seen.queue == 37 && seen.is_fabrics(0x01) {
                answer.messages = vec![seen.response(0x4182, 0)];
            }
        });
        let before = fabric.objects();
        let error = Controller::connect_over(&host, &options(64)).await.err().expect("a refusal");
        assert!(matches!(error, Error::Rejected(_)), "{error}");
        assert!(error.to_string().contains("queue 37"), "{error}");
        while fabric.objects() != before {
            tokio::time::sleep(Duration::from_millis(1)).await; // the target's half goes later
        }
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn all_that_nvmet_grants_come_up_beside_a_verified_load() {
    const GRANTED: u16 = 128; // NVMET_NR_QUEUES
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut options = tests::options();
        options.io_queues = 1;
        options.queue_entries = 32;
        let busy = Controller::connect(&options).await.expect("the target is up");
        let namespace = busy.namespace(NamespaceId(2)).await.expect("it is there");
        let completed: Arc<AtomicU64> = Arc::default();
        let buffer = busy.allocate(4096).expect("memory");
        let load = tokio::spawn(keep_busy(namespace, buffer, Arc::clone(&completed)));
        while completed.load(Ordering::Acquire) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        options.io_queues = 200;
        for turn in 1..=2 {
            let (before, began) = (completed.load(Ordering::Acquire), Instant::now());
            let many = Controller::connect(&options).await.expect("all come up");
            let (meanwhile, took) = (completed.load(Ordering::Acquire) - before, began.elapsed());
            assert_eq!(many.negotiated().io_queues, GRANTED);
            println!(
                "turn {turn}: {GRANTED} queues up in {:.2} s, {meanwhile} commands of the other \
                 controller meanwhile",
                took.as_secs_f64()
            );
            // All of it shares one processor and one thread. Where connecting holds the load up, it
            // gets one command through for each batch of queues: eight.
            assert!(meanwhile >= u64::from(GRANTED), "{meanwhile} commands meanwhile");
            assert!(!load.is_finished(), "the load goes on");
            // Each of the queues works.
            let namespace = many.namespace(NamespaceId(1)).await.expect("it is there");
            let reads: Vec<_> = (0..4 * u64::from(GRANTED))
                .map(|lba| {
                    let namespace = namespace.clone();
                    let buffer = many.allocate(512).expect("memory");
                    tokio::spawn(async move { namespace.read(lba, buffer).await.map(drop) })
                })
                .collect();
            for read in reads {
                read.await.expect("it ends").expect("the queue works");
            }
            many.shutdown().await;
        }
        load.abort();
        busy.shutdown().await;
    });
}
