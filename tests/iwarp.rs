//! Connecting and losing a connection over iWARP, where Linux makes the TCP connection within the
//! call that sends the request, and where a lost connection flushes its work before it is reported.

// bed: waits --device siw --target tests/targets/deep.toml

use std::{
    fs,
    time::{Duration, Instant},
};

use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, LifecycleState, config::CONNECT_TIMEOUT,
    wire::NamespaceId,
};
use tests::{
    SUBSYSTEM, options, process_resources::ProcessResources, shutdown::cancel_after, target,
    wait_for,
};

/// Unused address on the network of the device: packets to it are lost.
const SILENT: &str = "10.10.10.77:4420";
/// Address of the target with a port without a listener.
const CLOSED: &str = "10.10.10.1:4999";

fn to(address: &str) -> ConnectOptions {
    options().address(address.parse().expect("an address"))
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test)
}

/// The error of a connect, and how long it took.
fn refused(options: &ConnectOptions) -> (Error, Duration) {
    let begun = Instant::now();
    let Err(error) = in_runtime(Controller::connect(options).into_future()) else {
        panic!("there is no target")
    };
    (error, begun.elapsed())
}

/// Has the kernel try a TCP connection for this many repeats, of which 6, its default, take two
/// minutes, and 1 takes three seconds.
fn set_repeats(count: u8) {
    fs::write("/proc/sys/net/ipv4/tcp_syn_retries", count.to_string()).expect("it is the guest's");
}

/// The threads that are within the call.
fn connecting() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted").flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).filter(|name| name.trim() == "rdma_connect").count()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_connect_ends_by_its_deadline_or_at_the_wish_and_leaves_nothing() {
    let before = ProcessResources::now();
    set_repeats(6);
    let (error, took) = refused(&to(SILENT));
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
    assert!(error.to_string().contains("does not answer (nothing came back within"), "{error}");
    assert!(took < 4 * CONNECT_TIMEOUT, "{took:?}, where the call takes two minutes");
    assert_eq!(connecting(), 1, "the call goes on");
    set_repeats(1);
    let mut options = to(SILENT);
    options.reconnect.first_connect = true;
    let took = in_runtime(cancel_after(Duration::from_millis(500), &options));
    assert!(took < CONNECT_TIMEOUT, "{took:?} from the wish to the end");
    let (error, _) = refused(&to(SILENT));
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
    assert!(error.to_string().contains("does not answer (Connection timed out"), "{error}");
    // The first of the three calls began with more repeats, which it looks up each time.
    wait_for("no call goes on", Duration::from_secs(40), || connecting() == 0);
    before.wait_until_released(tests::device());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_closed_port_is_told_as_on_other_devices() {
    let (error, took) = refused(&to(CLOSED));
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
    assert!(error.to_string().contains("nothing listens for NVMe on that port"), "{error}");
    assert!(took < CONNECT_TIMEOUT, "{took:?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_lost_connection_is_told_as_one_and_comes_back() {
    let mut options = options().io_queues(4);
    options.reconnect.delay = Duration::from_millis(200);
    in_runtime(async {
        let controller = Controller::connect(&options).await.expect("the target is well");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut changes = controller.changes();
        let mut buffer = controller.allocate(4096).expect("memory");
        for _ in 0..10 {
            target(&["unlink", "port", "1", SUBSYSTEM]);
            let change = changes.next().await.expect("the controller goes on");
            let cause = change.cause.expect("a loss has one").to_string();
            assert!(cause.contains("the target or the network closed the connection"), "{cause}");
            target(&["link", "port", "1", SUBSYSTEM]);
            buffer = namespace.read(0, buffer).await.expect("it waits for the connection");
            while changes.next().await.is_some_and(|change| change.state != LifecycleState::Live) {}
        }
        controller.shutdown().await;
    });
}
