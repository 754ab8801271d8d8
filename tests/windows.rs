//! Memory mode `window`: the target reaches the data of commands in flight, each by its own key on
//! its own queue, and nothing else. Over the fabric against a target that breaks the protocol, and
//! in the bed against the kernel's, which does not.

// bed: VERIFY_SIZE=512MiB --target tests/targets/deep.toml --deny non-flush.error

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Command, ConnectOptions, Controller, Error, ErrorClass, HostIdentity, MemoryMode, PoolOptions,
    ReconnectOptions, WindowCounters,
    error::TargetMisbehaved,
    wire::{NamespaceId, Status},
};
use serde_json::Value;
use tests::{
    SUBSYSTEM, nvmf_ok,
    target::{Answer, Hook, ReceivedCommand, TARGET_ADDRESS, Target},
    uri,
};

fn options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.reconnect = ReconnectOptions::never();
    options.io_queues = 2;
    options.io_timeout = Duration::from_secs(20);
    options.memory = MemoryMode::Window;
    options
}

fn fabric() -> (Fabric, Arc<Host>) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", [10, 0, 0, 1].into());
    (fabric, host)
}

/// Connects to a target with this hook, and does something with it.
fn with<T, F: Future<Output = T>>(
    hosts: (Fabric, Arc<Host>),
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Controller<Host>) -> F,
) -> T {
    let (fabric, host) = hosts;
    let hook: Hook = Box::new(hook);
    let target = Target::new(&fabric, hook);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        tokio::spawn(target.run());
        test(Controller::connect_over(&host, &options()).await.expect("an honest connect")).await
    })
}

/// Writes and reads ranges of many lengths, at once; all must come back as it was.
async fn round_trips(controller: &Controller<Host>) {
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    let mut tasks = tokio::task::JoinSet::new();
    for (lba, blocks) in (0..20).zip([1, 9, 17].into_iter().cycle()) {
        let (namespace, length) = (namespace.clone(), blocks * 512);
        let mut buffer = controller.allocate(length).expect("memory");
        tasks.spawn(async move {
            for round in 0..20 {
                let data = tests::noise(length, lba * 100 + round);
                buffer.copy_in(0, &data);
                buffer = namespace.write(lba * 20, buffer).await.expect("it is written");
                buffer.fill(0);
                buffer = namespace.read(lba * 20, buffer).await.expect("it is read");
                let mut read = vec![0; length];
                buffer.copy_out(0, &mut read);
                assert!(read == data, "{length} bytes at block {} differ", lba * 20);
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.expect("every byte is right");
    }
}

#[test]
fn each_command_has_a_key_of_its_own() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let seen = keys.clone();
    let hook = move |command: ReceivedCommand, _: &mut Answer| {
        let lent = command.place().map(|(_, key)| key);
        assert_eq!(lent, command.to_invalidate(), "each key is to be taken out of use");
        seen.lock().unwrap().extend(lent);
    };
    with(fabric(), hook, async |controller| {
        assert_eq!(controller.memory().to_string(), "window");
        round_trips(&controller).await;
        controller.shutdown().await;
    });
    let keys = keys.lock().unwrap();
    // Reads, writes of more than a capsule takes, and the admin queue's data.
    assert!(keys.len() > 20 * 20, "{} keys", keys.len());
    for (index, key) in keys.iter().enumerate() {
        // A window's key comes again when it has been bound 256 times, and not before.
        let recent = &keys[index.saturating_sub(50)..index];
        assert!(!recent.contains(key), "key {key:#x} again");
    }
}

#[test]
fn memory_of_the_caller_and_of_pools_is_lent_the_same_way() {
    with(
        fabric(),
        |_, _| {},
        async |controller| {
            let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
            let data = tests::noise(9 * 512, 1);
            let buffer = controller.register(data.clone()).expect("registered");
            let buffer = namespace.write(7, buffer).await.expect("it is written");
            assert_eq!(buffer.deregister::<Vec<u8>>().expect("no window is bound"), data);

            let options = PoolOptions { count: 1, size: 9 * 512, ..PoolOptions::default() };
            let mut pool = controller.pool(options).expect("memory");
            let buffer = pool.take().expect("there is one");
            let buffer = namespace.read(7, buffer).await.expect("it is read");
            let mut read = vec![0; 9 * 512];
            buffer.copy_out(0, &mut read);
            assert!(read == data);
            pool.give(buffer).expect("it is whole");
            controller.shutdown().await;
        },
    );
}

#[test]
fn a_target_that_leaves_keys_in_use_is_legal() {
    for some in [1, 3] {
        let mut count = 0;
        let hook = move |_: ReceivedCommand, answer: &mut Answer| {
            count += 1;
            if count % some == 0 {
                answer.invalidate = None;
            }
        };
        with(fabric(), hook, async |controller| {
            round_trips(&controller).await;
            controller.shutdown().await;
        });
    }
}

/// Reads by turns until the controller ends; returns the error. All buffers must come back,
/// unchanged but for what was read: no command writes zeroes here.
fn ends(mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> Error {
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() {
            hook(seen, answer);
        }
    };
    with(fabric(), hook, async |controller| {
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut readers = tokio::task::JoinSet::new();
        for lba in 0..8 {
            let (namespace, mut buffer) =
                (namespace.clone(), controller.allocate(512).expect("memory"));
            readers.spawn(async move {
                let failed = loop {
                    buffer = match namespace.read(lba, buffer).await {
                        Ok(buffer) => buffer,
                        Err(failed) => break failed,
                    };
                };
                let mut bytes = [1; 512];
                failed.buffer.expect("the buffer comes back").copy_out(0, &mut bytes);
                assert!(bytes == [0; 512], "somebody wrote what was not read");
            });
        }
        let all = async {
            while let Some(outcome) = readers.join_next().await {
                outcome.expect("no buffer was touched");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the controller ends");
        let cause = controller.failed().await;
        controller.shutdown().await;
        cause
    })
}

#[test]
fn a_response_that_takes_another_commands_key_ends_the_controller() {
    let mut first = None;
    let error = ends(move |seen, answer| match first {
        None => {
            // Not answered, so that its key stays in use.
            first = Some((seen.queue, seen.to_invalidate()));
            answer.messages.clear();
            answer.data.clear();
        }
        Some((queue, key)) if queue == seen.queue => answer.invalidate = key,
        Some(_) => {}
    });
    let misbehaved =
        matches!(error, Error::TargetMisbehaved(TargetMisbehaved::WrongKeyInvalidated { .. }));
    assert!(misbehaved, "{error}");
}

#[test]
fn a_key_that_nobody_lent_fails_the_connection() {
    for wrong in [0, 0xdead_beef] {
        let error = ends(move |_, answer| answer.invalidate = Some(wrong));
        assert_eq!(error.class(), ErrorClass::Transport, "{error}");
    }
}

#[test]
fn a_key_taken_out_of_use_twice_fails_the_connection() {
    let mut count = 0;
    let error = ends(move |_, answer| {
        count += 1;
        if count == 20 {
            let again = answer.messages[0].clone();
            answer.messages.push(again);
        }
    });
    // Whichever is noticed first: the key that is gone, or the answer that is not due.
    let unknown = matches!(error, Error::TargetMisbehaved(TargetMisbehaved::UnknownCommand { .. }));
    assert!(unknown || error.class() == ErrorClass::Transport, "{error}");
}

#[test]
fn data_that_comes_after_the_response_is_refused() {
    let mut stale = None;
    let mut count = 0;
    let error = ends(move |seen, answer| {
        count += 1;
        match stale {
            None => stale = seen.place(),
            // Its command is answered, and another may be under way into the same buffer.
            Some(_) if count == 30 => {
                answer.place = stale;
                answer.data = vec![0xee; 512];
            }
            Some(_) => {}
        }
    });
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
}

#[test]
fn data_that_comes_over_another_queue_is_refused() {
    let mut first: Option<(u16, (u64, u32))> = None;
    let error = ends(move |seen, answer| match first {
        None => {
            // Not answered, so that its key stays in use.
            first = seen.place().map(|place| (seen.queue, place));
            answer.messages.clear();
            answer.data.clear();
        }
        Some((queue, place)) if queue != seen.queue => {
            answer.place = Some(place);
            answer.data = vec![0xee; 512];
        }
        Some(_) => {}
    });
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
}

#[test]
fn data_for_a_write_is_not_written() {
    // The key of a write lets its data be read. What is written by it is refused.
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() && seen.sqe[0] == 0x01 {
            answer.data = vec![0xee; 512];
        }
    };
    with(fabric(), hook, async |controller| {
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut buffer = controller.allocate(16 * 512).expect("memory");
        buffer.fill(7);
        let failed = namespace.write(0, buffer).await.expect_err("the connection is lost");
        let mut bytes = [0; 16 * 512];
        failed.buffer.expect("the buffer comes back").copy_out(0, &mut bytes);
        assert!(bytes == [7; 16 * 512]);
        assert_eq!(controller.failed().await.class(), ErrorClass::Transport);
    });
}

#[test]
fn without_windows_the_mode_is_pool_and_says_why() {
    let (fabric, host) = fabric();
    fabric.without_windows("host");
    let hook = |seen: ReceivedCommand, _: &mut Answer| assert_eq!(seen.to_invalidate(), None);
    with((fabric, host), hook, async |controller| {
        let report = controller.memory();
        assert_eq!(report.mode, MemoryMode::Pool);
        let reason = "pool (not as asked: not supported here: this host has no memory windows)";
        assert_eq!(report.to_string(), reason);
        round_trips(&controller).await;
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn windows_carry_the_right_data_under_load() {
    let target = uri(SUBSYSTEM);
    let size = std::env::var("VERIFY_SIZE").unwrap_or_else(|_| "1GiB".to_owned());
    let shape = ["--iodepth", "32", "--queues", "4", "--bs", "128K", "--ns", "2"];
    let rest = ["--memory", "window", "--overwrite", "--size", &size, "-o", "json"];
    let arguments = [&["write-verify", &target], shape.as_slice(), rest.as_slice()].concat();
    let report: Value = serde_json::from_slice(&nvmf_ok(&arguments, &[])).unwrap();
    println!("verified {report}");
    assert_eq!((&report["mismatches"], &report["memory_mode"]), (&0.into(), &"window".into()));
    assert_eq!(report["memory_fallback"], Value::Null);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_kernel_takes_every_key_out_of_use() {
    for depth in ["1", "32"] {
        let mut rates = Vec::new();
        for memory in ["pool", "window"] {
            let target = uri(SUBSYSTEM);
            let shape = ["--iodepth", depth, "--queues", "1", "--ns", "1", "--memory", memory];
            let rest = ["--runtime", "1s", "--ramp", "100ms", "-o", "json"];
            let arguments = [&["bench", &target], shape.as_slice(), rest.as_slice()].concat();
            let report: Value = serde_json::from_slice(&nvmf_ok(&arguments, &[])).unwrap();
            assert_eq!(report["configuration"]["memory_mode"], memory);
            let windows = &report["windows"];
            let by_target = if memory == "window" { report["completed"].clone() } else { 0.into() };
            assert_eq!((&windows["by_target"], &windows["here"]), (&by_target, &0.into()));
            rates.push(report["iops"].as_f64().unwrap());
        }
        println!("depth {depth}: pool {:.0} IOPS, window {:.0} IOPS", rates[0], rates[1]);
    }
}

/// nvmet refuses a namespace that is not there before it looks at the data's key, and so leaves
/// that in use.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_key_that_the_kernel_leaves_in_use_is_taken_out_of_use_here() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut options = tests::options();
    (options.io_queues, options.memory) = (1, MemoryMode::Window);
    let (controller, mut pollers) =
        runtime.block_on(Controller::connect(&options).polled(1)).unwrap();
    let poller = &mut pollers[0];
    let mut buffers = controller.allocate_many(32, 4096).unwrap();
    let mut ended = 0;
    for namespace in [99, 2, 99, 2] {
        while let Some(buffer) = buffers.pop() {
            poller.submit(Command::read(NamespaceId(namespace), 0, 1, buffer)).unwrap();
        }
        poller.ring_doorbells().unwrap();
        while poller.in_flight() > 0 {
            poller.poll().unwrap();
            while let Some(done) = poller.take() {
                let status = done.outcome.unwrap().status();
                match namespace {
                    2 => assert!(status.is_success(), "{status}"),
                    _ => assert_eq!(status.code(), Status::INVALID_NAMESPACE, "{status}"),
                }
                buffers.push(done.data.unwrap());
                ended += 1;
            }
        }
    }
    assert_eq!(ended, 4 * 32);
    assert_eq!(poller.statistics().windows, WindowCounters { by_target: 64, here: 64 });
    drop(pollers);
    runtime.block_on(controller.shutdown());
}

/// With windows bound, and reads on their way into them.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn all_buffers_come_back_when_the_port_closes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut options = tests::options();
    options.memory = MemoryMode::Window;
    options.reconnect = ReconnectOptions::never();
    for _ in 0..3 {
        let (controller, mut pollers) =
            runtime.block_on(Controller::connect(&options).polled(1)).unwrap();
        let poller = &mut pollers[0];
        let mut buffers = controller.allocate_many(32, 65_536).unwrap();
        let mut rounds = 0;
        let cause = loop {
            while let Some(buffer) = buffers.pop() {
                poller.submit(Command::read(NamespaceId(2), 0, 16, buffer)).unwrap();
            }
            let polled = poller.ring_doorbells().and_then(|()| poller.poll());
            buffers.extend(std::iter::from_fn(|| poller.take()).map(|done| done.data.unwrap()));
            rounds += 1;
            if rounds == 100 {
                tests::target(&["unlink", "port", "1", SUBSYSTEM]);
            }
            if let Err(error) = polled {
                break error;
            }
        };
        assert_eq!(cause.class(), ErrorClass::Transport, "{cause}");
        assert_eq!(buffers.len(), 32, "every buffer comes back");
        tests::target(&["link", "port", "1", SUBSYSTEM]);
        drop(pollers);
        runtime.block_on(controller.shutdown());
    }
}
