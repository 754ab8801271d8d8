//! The access of the controller to a namespace changes (ANA) under load: commands wait, as those of
//! the kernel's initiator do.

use std::thread;

use serde_json::Value;
use tests::{KernelInitiator, load::HANG_TIMEOUT};

use super::*;

/// Duration of a change.
const CHANGE: Duration = Duration::from_millis(1500);

fn set_access(state: &str) {
    target(&["set", "ana", "1", "1", state]);
}

/// Runs `load` while the access is in one state for [`CHANGE`].
fn through<T: Send>(state: &str, load: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let load = scope.spawn(load);
        thread::sleep(Duration::from_millis(800));
        set_access(state);
        thread::sleep(CHANGE);
        set_access("optimized");
        load.join().expect("the load does not panic")
    })
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn no_command_fails_while_the_access_changes() {
    for state in ["change", "inaccessible"] {
        let report = through(state, || {
            let target = uri(SUBSYSTEM);
            let shape = ["--iodepth", "32", "--queues", "2", "--rw", "randread", "--ns", "1"];
            let rest = ["--runtime", "4s", "--interval", "500ms", "-l", "60", "-o", "json"];
            let output = run(nvmf().args(["bench", &target]).args(shape).args(rest), &[]);
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{state}: {}: {message}", output.status);
            serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
        });
        assert_eq!(report["errors"], 0, "{report}");
        let longest = Duration::from_nanos(report["latency_ns"]["max"].as_u64().expect("a number"));
        println!("{state} for {CHANGE:?}: {}, the longest {longest:?}", report["completed"]);
        let waited = CHANGE - Duration::from_millis(100);
        assert!(longest >= waited, "the reads waited for {longest:?}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn neither_does_one_of_the_kernel() {
    let kernel = KernelInitiator::connect();
    let device = kernel.device(1);
    for state in ["change", "inaccessible"] {
        let took = through(state, || {
            let began = std::time::Instant::now();
            while began.elapsed() < 2 * CHANGE {
                let mut read = Command::new("dd");
                let input = format!("if={}", device.display());
                let output = run(
                    read.args([&input, "of=/dev/null", "bs=4k", "count=256"]).arg("iflag=direct"),
                    &[],
                );
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{state}: {message}");
            }
            began.elapsed()
        });
        println!("{state} for {CHANGE:?}: the kernel's reads went on for {took:?}");
    }
}

/// A path that is lost for good is told at once; the load ends, and nothing is lost of the target.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_path_that_is_lost_for_good_is_told() {
    in_runtime(async {
        let controller = Controller::connect(&quick()).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        change_target(&["set", "ana", "1", "1", "persistent-loss"]).await;
        let read = namespace.read(0, controller.allocate(4096).unwrap());
        let read = tokio::time::timeout(HANG_TIMEOUT, read).await.expect("it is not tried again");
        change_target(&["set", "ana", "1", "1", "optimized"]).await;
        let failed = read.expect_err("there is no path");
        assert!(failed.error.to_string().contains("persistent loss"), "{failed}");
        namespace.read(0, failed.buffer.unwrap()).await.expect("it is back");
        controller.shutdown().await;
    });
}
