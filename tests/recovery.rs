//! Losses under load, again and again: every command is executed in the end, nothing is mixed up,
//! and the connection is back soon after the target is.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdma_host::proto::State;
use rdma_host::wire::NamespaceId;
use rdma_host::{Change, Changes, Class, Controller};
use tests::{SUBSYSTEM, controllers, nvmf, options, run, target, uri, wait_for};

const TARGET_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/lasting.toml");

/// How often each test takes the connection away; RECOVERY_ROUNDS asks for more.
fn rounds() -> usize {
    std::env::var("RECOVERY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Verifies a namespace over and over while `strike` takes the connection away, `rounds` times;
/// returns how often it was made again.
fn verify_through(rounds: usize, mut strike: impl FnMut()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut reconnects = 0;
            while !over.load(Ordering::Relaxed) {
                let mut verify = nvmf();
                verify.args(["verify", &uri(SUBSYSTEM), "--ns", "1", "--iodepth", "32"]);
                verify.args([
                    "--queues", "4", "--bs", "16K", "--size", "512M", "-c", "200ms", "-l", "-1",
                ]);
                verify.args(["--retry-first-connect", "-o", "json"]);
                let output = run(&mut verify, &[]);
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {message}", output.status);
                let report: serde_json::Value =
                    serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(report["mismatches"], 0);
                reconnects += report["reconnects"].as_u64().expect("a number");
            }
            reconnects
        });
        for _ in 0..rounds {
            wait_for("the load is connected", Duration::from_secs(20), || {
                load.is_finished() || controllers(SUBSYSTEM) > 0
            });
            std::thread::sleep(Duration::from_millis(300));
            if load.is_finished() {
                break;
            }
            strike();
        }
        over.store(true, Ordering::Relaxed);
        load.join().expect("every pass ends well")
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
    let reconnects = verify_through(rounds(), lose_port);
    println!("{} losses of the port, {reconnects} reconnects", rounds());
    assert!(reconnects > 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_a_restart_of_the_target() {
    let reconnects = verify_through(rounds(), || {
        target(&["down"]);
        target(&["up", TARGET_FILE]);
    });
    println!("{} restarts of the target, {reconnects} reconnects", rounds());
    assert!(reconnects > 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_a_fatal_controller() {
    let reconnects = verify_through(rounds(), || {
        let program = std::env::var("SOFT_ROCE_PROGRAM").expect("run by ./tests/run");
        // A verify that has just ended has no controller to turn fatal.
        let _ = run(Command::new(program).args(["target", "fatal", SUBSYSTEM]), &[]);
    });
    println!("{} fatal controllers, {reconnects} reconnects", rounds());
    assert!(reconnects > 0);
}

/// Takes changes until the state is entered.
async fn reach(changes: &mut Changes, state: State) -> Change {
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

/// What `soft-roce target` does, off the runtime's threads.
async fn lever(arguments: &'static [&'static str]) {
    tokio::task::spawn_blocking(|| target(arguments)).await.expect("the lever moves");
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
        for (lever_arguments, granted) in [
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "1"], 1),
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "2"], 2),
            (&["set", "subsystem", SUBSYSTEM, "qid_max", "8"], 4),
        ] {
            lever(lever_arguments).await;
            reach(&mut changes, State::Live).await;
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
        assert_eq!(error.class(), Class::Access, "{error}");
        assert!(error.to_string().contains("1 attempt to reconnect"), "{error}");
    });
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"]);
}

/// Runs `nvmf monitor` with these options.
fn monitor(arguments: &[&str]) -> Child {
    let child = nvmf()
        .args(["monitor", &uri(SUBSYSTEM), "-c", "500ms"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("NVMF runs");
    wait_for("the monitor connects", Duration::from_secs(5), || controllers(SUBSYSTEM) == 1);
    child
}

fn story(monitor: Child, code: i32) -> String {
    let output = monitor.wait_with_output().expect("the monitor ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{message}");
    text
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_monitor_tells_what_happened() {
    let restarted = monitor(&["--runtime", "4"]);
    lose_port();
    let text = story(restarted, 0);
    let states: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(text.contains("closed the connection"), "{text}");
    assert_eq!(states.first().copied(), Some("connecting"), "{text}");
    assert_eq!(states.last().copied(), Some("dead"), "{text}");
    assert!(states.iter().filter(|state| state.starts_with("live")).count() == 2, "{text}");

    let host = options().host.nqn.to_string();
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, &host]);
    let refused = monitor(&["-q", &host, "-o", "json"]);
    target(&["disallow", SUBSYSTEM, &host]);
    target(&["fatal", SUBSYSTEM]);
    let text = story(refused, 3);
    let last = text.lines().last().expect("lines");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON lines");
    assert_eq!((&last["state"], &last["attempt"]), (&"dead".into(), &1.into()), "{text}");
    assert!(
        last["cause"].as_str().expect("a cause").contains("does not allow this host"),
        "{text}"
    );
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
        let lost = reach(&mut changes, State::Resetting).await;
        assert_eq!(lost.cause.expect("a cause").class(), Class::Transport);
        tokio::time::sleep(Duration::from_secs(1)).await;
        rdma("link add rxe0 type rxe netdev dum0").await.expect("it is back");
        lever(&["unlink", "port", "1", SUBSYSTEM]).await;
        lever(&["link", "port", "1", SUBSYSTEM]).await;
        reach(&mut changes, State::Live).await;
        let failed = namespace.read(0, old).await.expect_err("memory of the old device");
        println!("{failed}");
        let new = controller.allocate(4096).expect("memory of the new device");
        namespace.read(0, new).await.expect("the new device serves");
        controller.shutdown().await;
    });
}
