//! A target that goes away under load: every command ends once, soon, and says why.

// bed: waits --target tests/targets/deep.toml

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use rdma_host::{Controller, Error, ErrorClass, ReconnectOptions, wire::NamespaceId};
use tests::{SUBSYSTEM, command, controllers, nvmf, options, run, target, uri, wait_for};
use verbs::{ConnectParameters, Endpoint, QueuePairCapabilities};

/// A bench that would run for a minute.
fn bench() -> Child {
    let child = nvmf()
        .args(["bench", &uri(SUBSYSTEM), "--ns", "1", "--runtime", "60", "--queues", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("NVMF runs");
    wait_for("the bench connects", Duration::from_secs(5), || controllers(SUBSYSTEM) == 1);
    // And is past all it asks for before the load.
    std::thread::sleep(Duration::from_secs(1));
    child
}

/// The bench ends long before its time, with this exit code and these words.
fn ends(bench: Child, code: i32, words: &str) {
    let output = bench.wait_with_output().expect("the bench ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(words), "{message:?} lacks {words:?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_port_closes() {
    let running = bench();
    target(&["unlink", "port", "1", SUBSYSTEM]);
    ends(running, 4, "closed the connection");
    target(&["link", "port", "1", SUBSYSTEM]);
    // And the target serves the next one.
    stop(bench());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_controller_turns_fatal() {
    let bench = bench();
    target(&["fatal", SUBSYSTEM]);
    ends(bench, 4, "closed the connection");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_namespace_goes_away() {
    let bench = bench();
    target(&["set", "namespace", SUBSYSTEM, "1", "enable", "0"]);
    ends(bench, 1, "Read failed");
    target(&["set", "namespace", SUBSYSTEM, "1", "enable", "1"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_killed_initiator_leaves_room_for_the_next() {
    for _ in 0..5 {
        stop(bench());
        wait_for("the target forgets", Duration::from_secs(15), || controllers(SUBSYSTEM) == 0);
    }
}

/// Kills without a word to the target.
fn stop(mut bench: Child) {
    bench.kill().expect("it still runs");
    bench.wait().expect("it is our child");
}

/// A request sent while the port is down is the last that the CM of rxe sends (6.12 and 7.3), so
/// none may be: not by the connect that gives up, nor by the one that waits.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn connects_wait_for_the_port() {
    let mut read = nvmf();
    read.args(["read", &uri(SUBSYSTEM), "--ns", "1", "--blocks", "1"]);
    command("ip", "link set dum0 down");
    let refused = run(&mut read, &[]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{message}");
    assert!(message.contains("the port of our RDMA device is down"), "{message}");

    let waiting = read.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("NVMF runs");
    std::thread::sleep(Duration::from_secs(1));
    command("ip", "link set dum0 up");
    let output = waiting.wait_with_output().expect("the read ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 512);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn all_requests_end_once_with_their_buffers() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut options = options();
        options.io_queues = 2;
        options.reconnect = ReconnectOptions::never();
        let controller = Controller::connect(&options).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        let mut tasks = Vec::new();
        for lba in 0..300u64 {
            let namespace = namespace.clone();
            let mut buffer = controller.allocate(4096).unwrap();
            tasks.push(tokio::spawn(async move {
                let mut completed = 0u64;
                loop {
                    buffer = match namespace.read(lba * 8, buffer).await {
                        Ok(buffer) => buffer,
                        Err(failed) => return (completed, failed),
                    };
                    completed += 1;
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::spawn_blocking(|| target(&["unlink", "port", "1", SUBSYSTEM])).await.unwrap();
        let mut total = 0;
        for task in tasks {
            let (completed, failed) = task.await.unwrap();
            assert_eq!(failed.error.class(), ErrorClass::Transport, "{failed}");
            assert!(failed.buffer.is_some());
            total += completed;
        }
        assert!(total > 0, "the load ran");
        assert!(matches!(controller.failed().await, Error::Transport(_)));
        controller.shutdown().await;
        target(&["link", "port", "1", SUBSYSTEM]);
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn an_idle_connection_is_kept_alive() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut options = options();
        options.keep_alive = Duration::from_secs(1);
        let controller = Controller::connect(&options).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let buffer = controller.allocate(512).unwrap();
        namespace.read(0, buffer).await.unwrap();
        controller.shutdown().await;
    });
}

/// Sends a connection request, whether the port is up or not, and drops it.
fn request_regardless() -> Result<(), verbs::Error> {
    let second = Duration::from_secs(1);
    let await_event = |endpoint: &mut Endpoint| {
        wait_for("an event", second, || endpoint.next_event().is_ok_and(|event| event.is_some()));
    };
    let mut endpoint = Endpoint::open()?;
    endpoint.resolve_address(None, options().address, second)?;
    await_event(&mut endpoint);
    let (domain, queue) = (endpoint.domain()?, endpoint.completion_queue(8)?);
    let size = QueuePairCapabilities {
        max_send_wr: 1,
        max_recv_wr: 1,
        max_send_sge: 1,
        max_inline_data: 0,
    };
    let _queue_pair = endpoint.queue_pair(&domain, &queue, size)?;
    endpoint.resolve_route(second)?;
    await_event(&mut endpoint);
    endpoint.connect(&ConnectParameters::default())?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

/// Another program has killed the CM of rxe. We say so, and need no new process once there is a new
/// device. The name makes it the last test of its file: it takes the device away.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn z_a_dead_cm_is_noticed_and_survived() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    command("ip", "link set dum0 down");
    let connect = runtime.spawn(async { Controller::connect(&options()).await });
    std::thread::sleep(Duration::from_millis(500));
    request_regardless().unwrap();
    command("ip", "link set dum0 up");
    let error = runtime.block_on(connect).unwrap().err().expect("the CM is dead");
    assert!(error.to_string().contains("sends nothing since its port was down"), "{error}");

    // Before 7 the kernel deletes no device that a process has open, and librdmacm closes none.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.starts_with("6.") {
        return;
    }
    command("rdma", "link delete rxe0");
    command("rdma", "link add rxe0 type rxe netdev dum0");
    target(&["unlink", "port", "1", SUBSYSTEM]);
    target(&["link", "port", "1", SUBSYSTEM]);
    runtime.block_on(async {
        let controller = Controller::connect(&options()).await.unwrap();
        controller.shutdown().await;
    });
}
