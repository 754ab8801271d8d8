//! Shutdown of controllers while their target is gone.

use std::time::{Duration, Instant};

use rdma_host::{ConnectOptions, Controller, Error, LifecycleState, wire::NamespaceId};

use crate::load::HANG_TIMEOUT;

/// State of a controller that was live, in which its owner may shut it down.
pub const STATES: [LifecycleState; 4] = [
    LifecycleState::Live,
    LifecycleState::Resetting,
    LifecycleState::Waiting,
    LifecycleState::Connecting,
];

/// Connects, has `kill` take the target away, and ends the controller as soon as it is in this
/// state; a read that is under way fails, with its buffer. Returns how long the end took.
///
/// # Panics
///
/// When it never gets there, or the read does not end.
pub async fn shut_down_in(
    state: LifecycleState,
    options: &ConnectOptions,
    kill: impl AsyncFnOnce(),
) -> Duration {
    let controller = Controller::connect(options).await.expect("the target is well");
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    let mut changes = controller.changes();
    let buffer = controller.allocate(4096).expect("memory");
    kill().await;
    let read = tokio::spawn(async move { namespace.read(0, buffer).await });
    if state != LifecycleState::Live {
        let reached =
            async { while changes.next().await.is_some_and(|change| change.state != state) {} };
        tokio::time::timeout(HANG_TIMEOUT, reached).await.expect("it gets there");
    }
    let begun = Instant::now();
    controller.shutdown().await;
    let took = begun.elapsed();
    let read = tokio::time::timeout(HANG_TIMEOUT, read).await.expect("it ends").expect("no panic");
    let failed = read.expect_err("the target is gone");
    assert!(matches!(failed.error, Error::Closed), "{state}: {failed}");
    assert!(failed.buffer.is_some(), "the buffer comes back");
    took
}

/// Begins a first connect to a target that is gone, and drops it after this time. Returns how long
/// it took until nothing of it was left.
///
/// # Panics
///
/// When it connects, or does not end.
pub async fn cancel_after(time: Duration, options: &ConnectOptions) -> Duration {
    let connecting = Controller::connect(options);
    let mut changes = connecting.changes();
    // An attempt that lasts long enough fails by itself.
    let connected = tokio::time::timeout(time, connecting).await;
    assert!(!matches!(connected, Ok(Ok(_))), "the target is gone");
    let begun = Instant::now();
    let ended = async { while changes.next().await.is_some() {} };
    tokio::time::timeout(HANG_TIMEOUT, ended).await.expect("it ends");
    begun.elapsed()
}
