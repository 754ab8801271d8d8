//! Linux's target with three ports, whose access (ANA) and links change under a verified load.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use rdma_host::{
    FenceChangeKind, FenceChanges, PathId, PathPolicy, PathState, ReconnectOptions, Subsystem,
    SubsystemNamespace, SubsystemOptions,
    error::{Misuse, PathError},
    wire::NamespaceId,
};
use tests::{
    SUBSYSTEM, controllers, deadline_factor, load::HANG_TIMEOUT,
    process_resources::ProcessResources, target, wait_for,
};
use tokio::sync::watch;

use super::*;

/// Numbers of the target's ports.
const PORTS: [u16; 3] = [1, 2, 3];
/// Workers, each of which writes and reads blocks of its own.
const WORKERS: u64 = 32;

fn options(policy: PathPolicy) -> SubsystemOptions {
    let reconnect = ReconnectOptions::default()
        .delay(Duration::from_millis(200))
        .fast_io_fail(Some(Duration::from_secs(20) * deadline_factor()));
    let connect = tests::options().io_queues(4).reconnect(reconnect);
    let address = connect.address;
    let at = |port| SocketAddr::new(address.ip(), port);
    SubsystemOptions::new(connect).path(at(4421), None).path(at(4422), None).policy(policy)
}

/// Number of times that each change is made: `tests/longer` asks for more than one.
fn rounds() -> usize {
    let told = std::env::var("MULTIPATH_ROUNDS").ok();
    told.and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// Link of the subsystem at a port.
fn link(port: u16) -> std::path::PathBuf {
    let ports = Path::new("/sys/kernel/config/nvmet/ports");
    ports.join(port.to_string()).join("subsystems").join(SUBSYSTEM)
}

async fn blocking(call: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(call).await.expect("no panic");
}

/// Takes the subsystem from a port, which ends its connections there.
pub(crate) async fn unlink(port: u16) {
    blocking(move || fs::remove_file(link(port)).expect("a subsystem may leave")).await;
}

pub(crate) async fn relink(port: u16) {
    let subsystem = Path::new("/sys/kernel/config/nvmet/subsystems").join(SUBSYSTEM);
    blocking(move || symlink(subsystem, link(port)).expect("and come back")).await;
}

pub(crate) async fn set_access(port: u16, state: &'static str) {
    blocking(move || drop(target(&["set", "ana", &port.to_string(), "1", state]))).await;
}

/// Waits until a path is used, or is not.
async fn until_active(subsystem: &Subsystem, path: usize, is_active: bool) -> Duration {
    let began = Instant::now();
    let is = || subsystem.status().paths[path].namespaces[0].is_active == is_active;
    while !is() {
        assert!(began.elapsed() < HANG_TIMEOUT * deadline_factor(), "{}", subsystem.status());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// Writes blocks and reads them back until it is told to stop; returns the number of rounds, and
/// the longest.
async fn verify(
    namespace: SubsystemNamespace,
    mut buffer: Buffer,
    worker: u64,
    stop: watch::Receiver<bool>,
) -> (u64, Duration) {
    let (mut rounds, mut longest) = (0u64, Duration::ZERO);
    let mut bytes = vec![0; buffer.len()];
    while !*stop.borrow() {
        let began = Instant::now();
        let lba = worker * 8 + rounds % 2;
        let value = u8::try_from(rounds % 251).expect("less than 251") + 1;
        buffer.fill(value);
        buffer = namespace.write(lba, buffer).await.expect("a path lives");
        // Also the block of the round before: a late write would be seen there.
        for (lba, value) in [(lba, value), (worker * 8 + (rounds + 1) % 2, value - 1)] {
            buffer.fill(0xff);
            buffer = namespace.read(lba, buffer).await.expect("a path lives");
            buffer.copy_out(0, &mut bytes);
            let is_same = rounds == 0 || value == 0 || bytes.iter().all(|&byte| byte == value);
            assert!(is_same, "worker {worker}, block {lba}: {} where {value} is due", bytes[0]);
        }
        if rounds.is_multiple_of(16) {
            namespace.flush().await.expect("a path lives");
        }
        longest = longest.max(began.elapsed());
        rounds += 1;
    }
    (rounds, longest)
}

/// Runs workers while `change` is done to the target.
async fn under_load(subsystem: &Subsystem, change: impl Future<Output = ()>) {
    let namespace = subsystem.namespace(NamespaceId(1)).await.expect("it is there");
    let (stop, _) = watch::channel(false);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let buffer = subsystem.allocate(4096).expect("memory");
            tokio::spawn(verify(namespace.clone(), buffer, worker, stop.subscribe()))
        })
        .collect();
    change.await;
    stop.send_replace(true);
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    for worker in workers {
        let (count, time) = worker.await.expect("no mismatch and no error");
        assert!(count > 0, "each goes on");
        (rounds, longest) = (rounds + count, longest.max(time));
    }
    println!("{rounds} rounds of a write and two reads, the longest {longest:?}");
    println!("{}", subsystem.status());
}

pub(crate) fn run_in_bed(test: impl Future<Output = ()>) {
    wait_for("the target is at rest", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let rounds = u32::try_from(rounds()).expect("a number of rounds");
        let limit = Duration::from_secs(120) * deadline_factor() * rounds;
        tokio::time::timeout(limit, test).await.expect("the test ends");
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_access_changes_under_load() {
    run_in_bed(async {
        let subsystem = Subsystem::connect(&options(PathPolicy::RoundRobin)).await;
        let subsystem = subsystem.expect("three ports");
        under_load(&subsystem, async {
            let states = ["non-optimized", "inaccessible", "change", "persistent-loss"];
            for state in states.repeat(rounds()) {
                for port in PORTS {
                    let path = usize::from(port) - 1;
                    set_access(port, state).await;
                    let left = until_active(&subsystem, path, false).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    set_access(port, "optimized").await;
                    let back = until_active(&subsystem, path, true).await;
                    println!("port {port} {state}: left after {left:?}, back after {back:?}");
                }
            }
        })
        .await;
        let status = subsystem.status();
        for path in &status.paths {
            assert!(path.state == PathState::Live && path.switches >= 8, "{status}");
            assert!(path.commands > 0 && path.switched_at.is_some(), "{status}");
        }
        subsystem.shutdown().await;
    });
}

/// Waits until the fence that a loss has closed is open again, while the address of the lost path
/// does not answer: the target says so at another address. Returns the number of such changes.
async fn until_open(changes: &mut FenceChanges) -> u32 {
    let (mut closed, mut opened) = (0, 0);
    loop {
        let limit = if opened < closed { HANG_TIMEOUT } else { Duration::from_millis(500) };
        let change = tokio::time::timeout(limit * deadline_factor(), changes.next()).await;
        let Ok(Some(change)) = change else {
            assert_eq!(opened, closed, "the fence opens");
            return opened;
        };
        println!("{change}");
        match change.kind {
            FenceChangeKind::Closed { .. } => closed = 1,
            _ => opened = 1,
        }
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn ports_are_taken_away_in_turn_under_load() {
    run_in_bed(async {
        let subsystem = Subsystem::connect(&options(PathPolicy::QueueDepth)).await;
        let subsystem = subsystem.expect("three ports");
        let mut changes = subsystem.fence_changes();
        let mut opened = 0;
        under_load(&subsystem, async {
            for port in PORTS.repeat(rounds()) {
                let path = usize::from(port) - 1;
                unlink(port).await;
                let left = until_active(&subsystem, path, false).await;
                opened += until_open(&mut changes).await;
                relink(port).await;
                let back = until_active(&subsystem, path, true).await;
                println!("port {port}: left after {left:?}, back after {back:?}");
                let before = subsystem.status().paths[path].commands;
                tokio::time::sleep(Duration::from_millis(300)).await;
                let after = subsystem.status().paths[path].commands;
                assert!(after > before, "commands come back: {}", subsystem.status());
            }
        })
        .await;
        assert!(opened > 0, "writes were in flight");
        for path in subsystem.status().paths {
            assert!(path.state == PathState::Live && path.switches >= 2, "{path}");
        }
        assert_eq!(controllers(SUBSYSTEM), 3, "nothing is left of old connections");
        subsystem.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_example_runs() {
    let second = format!("{}:4421", tests::address());
    let printed = tests::run_example("multipath", &[SUBSYSTEM, "1", &second]);
    assert!(printed.starts_with("64 blocks written and read back"), "{printed}");
    println!("{printed}");
}

/// Resources after what is made once, and stays.
fn resources_at_rest() -> ProcessResources {
    run_in_bed(async {
        let subsystem = Subsystem::connect(&options(PathPolicy::Latency)).await;
        subsystem.expect("three ports").shutdown().await;
    });
    ProcessResources::now()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_is_seen_when_all_paths_are_gone() {
    let before = resources_at_rest();
    run_in_bed(async {
        // One is not there at first.
        unlink(3).await;
        let subsystem = Subsystem::connect(&options(PathPolicy::Latency)).await;
        let subsystem = subsystem.expect("two ports");
        let namespace = subsystem.namespace(NamespaceId(1)).await.expect("it is there");
        let mut buffer = subsystem.allocate(4096).expect("memory");
        buffer.fill(b'A');
        let buffer = namespace.write(5, buffer).await.expect("two paths live");
        assert_eq!(subsystem.status().paths[2].state, PathState::Reconnecting);
        unlink(1).await;
        unlink(2).await;
        for path in 0..2 {
            until_active(&subsystem, path, false).await;
        }
        println!("{}", subsystem.status());
        let reader = namespace.clone();
        let held = tokio::spawn(async move { reader.read(5, buffer).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!held.is_finished(), "it is held");
        relink(3).await;
        let buffer = held.await.unwrap().expect("a path is there");
        let mut read = [0; 4096];
        buffer.copy_out(0, &mut read);
        assert_eq!(read, [b'A'; 4096]);
        // The last one is gone, too, and no attempt to reconnect is left.
        for path in [PathId(0), PathId(1)] {
            subsystem.controller(path).expect("it was connected").reset().await;
        }
        set_access(3, "persistent-loss").await;
        until_active(&subsystem, 2, false).await;
        relink(1).await;
        until_active(&subsystem, 0, true).await;
        let buffer = namespace.read(5, buffer).await.expect("the first is back");
        set_access(1, "persistent-loss").await;
        relink(2).await;
        until_active(&subsystem, 1, true).await;
        set_access(2, "persistent-loss").await;
        until_active(&subsystem, 1, false).await;
        let failed = namespace.read(5, buffer).await.expect_err("no path has access");
        println!("{failed}");
        let Error::Path(path) = &failed.error else { panic!("{failed}") };
        assert!(matches!(**path, PathError::NoPath { .. }));
        for port in PORTS {
            set_access(port, "optimized").await;
        }
        for path in 0..3 {
            until_active(&subsystem, path, true).await;
        }
        namespace.read(5, failed.buffer.unwrap()).await.expect("all are back");
        drop(namespace);
        subsystem.shutdown().await;
    });
    before.wait_until_released("rxe0");
}

/// blktests nvme/058: a namespace is replaced by another one, over and over, below several paths.
/// What was made for the old one never reaches the new one once that is known, and the new one is
/// used over all paths.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_namespace_is_replaced_again_and_again() {
    const REPLACEMENTS: u64 = 11;
    run_in_bed(async {
        let subsystem = Subsystem::connect(&options(PathPolicy::RoundRobin)).await;
        let subsystem = subsystem.expect("three ports");
        for replacement in 0..REPLACEMENTS {
            let old = subsystem.namespace(NamespaceId(1)).await.expect("it is there");
            let mut buffer = subsystem.allocate(4096).expect("memory");
            let uuid = uuid::Uuid::from_u128(0x5000 + u128::from(replacement));
            blocking(move || {
                for (attribute, value) in
                    [("enable", "0"), ("uuid", &*uuid.to_string()), ("enable", "1")]
                {
                    target(&["set", "namespace", SUBSYSTEM, "1", attribute, value]);
                }
            })
            .await;
            let began = Instant::now();
            let refused = loop {
                assert!(
                    began.elapsed() < HANG_TIMEOUT * deadline_factor(),
                    "{}",
                    subsystem.status()
                );
                match old.read(0, buffer).await {
                    Ok(read) => buffer = read,
                    Err(refused) => break refused,
                }
            };
            println!("replacement {replacement}: {refused} after {:?}", began.elapsed());
            let new = loop {
                assert!(
                    began.elapsed() < HANG_TIMEOUT * deadline_factor(),
                    "{}",
                    subsystem.status()
                );
                match subsystem.namespace(NamespaceId(1)).await {
                    Ok(new) if new.info().uuid == Some(uuid) => break new,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            for _ in 0..2 * PORTS.len() {
                let buffer = subsystem.allocate(4096).expect("memory");
                let refused = old.read(0, buffer).await.expect_err("it is another namespace").error;
                let is_replaced = matches!(refused, Error::Misuse(Misuse::NamespaceReplaced(_)));
                assert!(is_replaced && old.info().uuid != Some(uuid), "{refused}");
            }
            for lba in 0..2 * PORTS.len() as u64 {
                let buffer = subsystem.allocate(4096).expect("memory");
                new.write(lba, buffer).await.expect("it is used");
            }
        }
        println!("{}", subsystem.status());
        subsystem.shutdown().await;
    });
}
