//! Connecting and disconnecting for a long time leaves nothing behind.

// bed: waits long --kernel 6.12 --target tests/targets/deep.toml --deny non-flush.error

use std::{fs, time::Duration};

use rdma_host::{Controller, wire::NamespaceId};
use tests::{SUBSYSTEM, controllers, options, process_resources::ProcessResources, wait_for};

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.expect("VmRSS is a number of kB")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_thousand_connections_leave_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = options();
    options.io_queues = 2;
    let cycle = || {
        runtime.block_on(async {
            let controller = Controller::connect(&options).await.unwrap();
            let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
            let buffer = controller.allocate(4096).unwrap();
            namespace.read(0, buffer).await.unwrap();
            controller.shutdown().await;
        });
    };
    for _ in 0..20 {
        cycle();
    }
    wait_for("no controllers", Duration::from_secs(5), || controllers(SUBSYSTEM) == 0);
    let (before, resident) = (ProcessResources::now(), resident_kib());
    for _ in 0..1000 {
        cycle();
    }
    wait_for("no controllers", Duration::from_secs(5), || controllers(SUBSYSTEM) == 0);
    wait_for("everything given back", Duration::from_secs(10), || {
        ProcessResources::now() == before
    });
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown < 1024, "resident memory grew by {grown} KiB in 1,000 cycles");
    println!("1,000 cycles: {before:?}, resident memory +{grown} KiB");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn failed_connects_leave_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut options = options();
    options.subsystem = "nqn.test:none".parse().unwrap();
    let cycle = || {
        runtime.block_on(async {
            assert!(Controller::connect(&options).await.is_err());
        });
    };
    for _ in 0..20 {
        cycle();
    }
    let before = ProcessResources::now();
    for _ in 0..200 {
        cycle();
    }
    wait_for("everything given back", Duration::from_secs(10), || {
        ProcessResources::now() == before
    });
}
