//! Losses under load, again and again: every command is executed in the end, nothing is mixed up,
//! and the connection is back soon after the target is.

// bed: long --target tests/targets/lasting.toml

#[path = "recovery/access.rs"]
mod access;
#[path = "recovery/limits.rs"]
mod limits;
#[path = "recovery/monitor.rs"]
mod monitor;
#[path = "recovery/shutdown.rs"]
mod shutdown;

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use rdma_host::{
    Controller, ErrorClass, LifecycleState, StateChange, StateChanges, wire::NamespaceId,
};
use tests::{SUBSYSTEM, address, controllers, nvmf, options, run, target, uri, wait_for};

const TARGET_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/lasting.toml");

/// Number of losses in each test; RECOVERY_ROUNDS asks for more.
fn rounds() -> usize {
    std::env::var("RECOVERY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// The delay of these tests, as an option.
const DELAY: &str = "200ms";

/// Result of a load through several losses.
#[derive(Default)]
struct Struck {
    reconnects: u64,
    /// Times at which the target was back, one for each strike; seconds since 1970.
    returns: Vec<f64>,
    /// Times at which the load was connected again.
    backs: Vec<f64>,
}

impl Struck {
    /// Says how long after the target the connection was back.
    fn tell(&self, what: &str) {
        // A loss between two passes meets no connection; the next connect is a first one then.
        let waits = self.returns.iter().enumerate().filter_map(|(index, returned)| {
            let next = self.returns.get(index + 1).copied().unwrap_or(f64::INFINITY);
            let back = self.backs.iter().find(|&back| back >= returned)?;
            (*back < next).then_some(back - returned)
        });
        let mut waits: Vec<_> = waits.collect();
        waits.sort_unstable_by(f64::total_cmp);
        let (strikes, reconnects, met) = (self.returns.len(), self.reconnects, waits.len());
        let median = waits.get(met / 2).copied().unwrap_or(f64::NAN);
        let last = waits.last().copied().unwrap_or(f64::NAN);
        println!(
            "{strikes} {what}, {reconnects} reconnects; with a delay of {DELAY}, {met} of them \
             were live {median:.3} s after the return of the target, {last:.3} s at most"
        );
        assert!(reconnects >= u64::try_from(rounds()).expect("few"));
    }
}

fn seconds_now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.expect("the clock is right").as_secs_f64()
}

/// Verifies a namespace over and over while `strike` takes the connection away and gives it back,
/// until it was made again `rounds` times: a loss between two passes meets no connection.
fn verify_through(rounds: usize, mut strike: impl FnMut()) -> Struck {
    let (over, known) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut struck = Struck::default();
            while !over.load(Ordering::Relaxed) {
                let mut verify = nvmf();
                verify.args(["write-verify", &uri(SUBSYSTEM), "--overwrite", "--ns", "1"]);
                verify.args([
                    "--iodepth",
                    "32",
                    "--queues",
                    "4",
                    "--bs",
                    "16K",
                    "--size",
                    "512M",
                    "-c",
                    DELAY,
                    "-l",
                    "-1",
                ]);
                verify.args(["--retry-first-connect", "-o", "json"]);
                let output = run(&mut verify, &[]);
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {message}", output.status);
                let report: serde_json::Value =
                    serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(report["mismatches"], 0);
                struck.reconnects += report["reconnects"].as_u64().expect("a number");
                known.store(usize::try_from(struck.reconnects).expect("few"), Ordering::Relaxed);
                let outages = report["outages"].as_array().expect("a list").iter();
                struck.backs.extend(outages.map(|one| one["back"].as_f64().expect("a number")));
            }
            struck
        });
        let mut returns = Vec::new();
        for _ in 0..2 * rounds {
            if known.load(Ordering::Relaxed) >= rounds {
                break;
            }
            wait_for("the load is connected", Duration::from_secs(20), || {
                load.is_finished() || controllers(SUBSYSTEM) > 0
            });
            std::thread::sleep(Duration::from_millis(300));
            if load.is_finished() {
                break;
            }
            strike();
            returns.push(seconds_now());
        }
        over.store(true, Ordering::Relaxed);
        let struck = load.join().expect("every pass ends well");
        Struck { returns, ..struck }
    })
}

/// The port closes and opens again.
fn lose_port() {
    target(&["unlink", "port", "1", SUBSYSTEM]);
    std::thread::sleep(Duration::from_millis(100));
    target(&["link", "port", "1", SUBSYSTEM]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_the_loss_of_the_port() {
    verify_through(rounds(), lose_port).tell("losses of the port");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_a_restart_of_the_target() {
    let restart = || {
        target(&["down"]);
        target(&["up", TARGET_FILE]);
    };
    verify_through(rounds(), restart).tell("restarts of the target");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_a_fatal_controller() {
    let turn_fatal = || {
        let program = std::env::var("SOFT_ROCE_PROGRAM").expect("run by ./tests/run");
        // A verify that has just ended has no controller to turn fatal.
        let _ = run(Command::new(program).args(["target", "fatal", SUBSYSTEM]), &[]);
    };
    verify_through(rounds(), turn_fatal).tell("fatal controllers");
}

/// Takes changes until the state is entered.
async fn reach(changes: &mut StateChanges, state: LifecycleState) -> StateChange {
    loop {
        let change = changes.next().await.expect("the controller goes on");
        if change.state == state {
            return change;
        }
    }
}

fn in_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test ends");
    });
}

/// Runs `soft-roce target`, off the runtime's threads.
async fn change_target(arguments: &[&str]) {
    let owned: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
    let change = move || target(&owned.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(change).await.expect("it ends");
}

fn quick() -> rdma_host::ConnectOptions {
    let mut options = options();
    options.io_queues = 2;
    options.reconnect.delay = Duration::from_millis(500);
    options
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn queues_come_and_go_with_the_target() {
    in_runtime(async {
        let mut options = quick();
        options.io_queues = 4;
        let controller = Controller::connect(&options).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        let mut changes = controller.changes();
        for (target_arguments, granted) in [
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "1"], 1),
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "2"], 2),
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "8"], 4),
        ] {
            change_target(target_arguments).await;
            reach(&mut changes, LifecycleState::Live).await;
            assert_eq!(controller.negotiated().io_queues, granted);
            let reads = (0..50).map(|lba| {
                let (namespace, controller) = (namespace.clone(), &controller);
                async move {
                    let buffer = controller.allocate(4096).unwrap();
                    namespace.read(lba * 8, buffer).await.map(drop)
                }
            });
            for read in reads {
                read.await.expect("all queues that are there serve");
            }
        }
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_host_that_is_no_longer_allowed_gives_up_at_once() {
    let host = options().host.nqn.to_string();
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, &host]);
    in_runtime(async {
        let controller = Controller::connect(&quick()).await.unwrap();
        let host = host.clone();
        tokio::task::spawn_blocking(move || {
            target(&["disallow", SUBSYSTEM, &host]);
            target(&["fatal", SUBSYSTEM]);
        })
        .await
        .unwrap();
        let error = controller.failed().await;
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
        assert!(error.to_string().contains("1 attempt to reconnect"), "{error}");
    });
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"]);
}

/// The device goes, and comes back under the same name: the controller takes it up again, and only
/// memory that was registered with the old one is of no use. Runs last of its file, by its name.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn z_a_device_that_was_removed_is_used_again() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    if release.starts_with("6.") {
        println!("SKIPPED: before 7 the kernel deletes no device that a process has open");
        return;
    }
    in_runtime(async {
        let controller = Controller::connect(&quick()).await.expect("it connects");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut changes = controller.changes();
        let old = controller.allocate(4096).expect("memory");
        let old = namespace.read(0, old).await.expect("all is well");
        let rdma = |words: &'static str| {
            tokio::task::spawn_blocking(move || tests::command("rdma", words))
        };
        rdma("link delete rxe0").await.expect("it goes");
        let lost = reach(&mut changes, LifecycleState::Resetting).await;
        assert_eq!(lost.cause.expect("a cause").class(), ErrorClass::Transport);
        tokio::time::sleep(Duration::from_secs(1)).await;
        rdma("link add rxe0 type rxe netdev dum0").await.expect("it is back");
        change_target(&["unlink", "port", "1", SUBSYSTEM]).await;
        change_target(&["link", "port", "1", SUBSYSTEM]).await;
        reach(&mut changes, LifecycleState::Live).await;
        let failed = namespace.read(0, old).await.expect_err("memory of the old device");
        println!("{failed}");
        let new = controller.allocate(4096).expect("memory of the new device");
        namespace.read(0, new).await.expect("the new device serves");
        controller.shutdown().await;
    });
}
