//! Media that are slow, fail for a while, or lose what is written.

use std::time::Duration;

use rdma_host::{Controller, FenceOptions, ReconnectOptions};
use tests::{
    SUBSYSTEM, break_connections, controllers,
    load::HANG_TIMEOUT,
    mapped_namespace::{DISK, MappedNamespace},
    wait_for,
};

use super::history_load::{self, LoadResult};

/// Time of one load; with `LOSS_SECONDS`, an eighth of that.
fn load_time() -> Duration {
    super::seconds_wanted().map_or(Duration::from_secs(4), |all| all / 8)
}

/// Time between two losses of the connection.
const BETWEEN_LOSSES: Duration = Duration::from_millis(1500);

/// Runs a load on a mapped device with this table, while `strike` does something again and again.
fn load_on(device: &'static str, table: &str, resend: bool, strike: fn()) -> LoadResult {
    wait_for("the target is at rest", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    let medium = MappedNamespace::add(1, device, table);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let delay = Duration::from_millis(100);
    let reconnect = ReconnectOptions::default().delay(delay).loss_timeout(None).resend(resend);
    let options = tests::options()
        .keep_alive(Duration::from_secs(2) * tests::deadline_factor())
        .reconnect(reconnect)
        .fence(FenceOptions::default());
    let result = runtime.block_on(async {
        let controller = Controller::connect(&options).await.expect("the target is there");
        let load = history_load::run(&controller, load_time(), u64::from(resend));
        let strikes = async {
            loop {
                tokio::time::sleep(BETWEEN_LOSSES).await;
                tokio::task::spawn_blocking(strike).await.expect("no panic");
            }
        };
        let result = tokio::select! {
            result = load => result,
            () = strikes => unreachable!("they go on"),
        };
        controller.shutdown().await;
        result
    });
    wait_for("the target forgets", HANG_TIMEOUT, || controllers(SUBSYSTEM) == 0);
    drop(medium);
    println!("{table}: {result:?}");
    result
}

/// The medium executes writes long after their connection is lost.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_slow_medium_shows_no_late_write() {
    let table = format!("delay {DISK} 0 1 {DISK} 0 200");
    for resend in [true, false] {
        let result = load_on("slow", &table, resend, || break_connections(SUBSYSTEM));
        assert_eq!(result.mismatches, (0, None));
        assert!(result.done > 0, "{result:?}");
        assert!(resend || result.unknown > 0, "no write met the loss: {result:?}");
    }
}

/// The medium fails every other second: its errors come through, and the connection stays.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_medium_that_fails_is_an_error_of_each_command_and_no_loss() {
    let result = load_on("failing", &format!("flakey {DISK} 0 1 1"), true, || ());
    assert_eq!(result.mismatches, (0, None));
    assert!(result.done > 0 && result.refused.0 > 0 && result.unknown == 0, "{result:?}");
}

/// The load is one that notices: the medium forgets writes that it has answered.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_medium_that_drops_writes_is_noticed() {
    let table = format!("flakey {DISK} 0 1 2 1 drop_writes");
    let result = load_on("dropping", &table, true, || ());
    assert_eq!((result.refused.0, result.unknown), (0, 0), "{result:?}");
    assert!(result.mismatches.0 > 0, "{result:?}");
}
