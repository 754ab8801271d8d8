//! A wire that loses, repeats and reorders packets, or is cut off, between two devices of rxe. The
//! tests run at its far end.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rdma_host::{ConnectOptions, Controller, ReconnectOptions};
use serde_json::Value;
use tests::{
    SUBSYSTEM, nvmf,
    other_machine::{self, FAR, TARGET_ADDRESS, set_wire},
    run,
};

use super::history_load;

/// Wire with a fault, by arguments of `netem`, and the counter of rxe that shows the fault.
struct Fault {
    netem: &'static str,
    counter: &'static str,
}

const FAULTS: [Fault; 6] = [
    Fault { netem: "loss 1%", counter: "out_of_seq_request" },
    Fault { netem: "loss 5%", counter: "out_of_seq_request" },
    Fault { netem: "loss 20%", counter: "out_of_seq_request" },
    Fault { netem: "delay 1ms reorder 25% 25%", counter: "out_of_seq_request" },
    Fault { netem: "duplicate 10%", counter: "duplicate_request" },
    Fault { netem: "delay 1ms 1ms loss 2% duplicate 2%", counter: "duplicate_request" },
];

/// Wire without a fault.
const CLEAN: &str = "delay 0ms";
/// Wire of the partitions.
const LOSS: &str = "loss 5%";
/// Exponent of the device's timeout for an acknowledgement, 17 ms: that of rxe is half a second.
const ACK_TIMEOUT: u8 = 12;

/// Ends of the wire that lose what they send.
#[derive(Clone, Copy)]
enum Cut {
    Target,
    Host,
    Both,
}

impl Cut {
    fn set(self, netem: &str) {
        set_wire(!matches!(self, Self::Host), !matches!(self, Self::Target), netem);
    }
}

/// Time between the beginnings of two partitions: ten a minute.
const BETWEEN_PARTITIONS: Duration = Duration::from_secs(6);

/// Partitions, one after the other: short ones are bridged by retransmission, longer ones are not.
const PARTITIONS: [(Cut, Duration); 6] = [
    (Cut::Both, Duration::from_millis(4500)),
    (Cut::Target, Duration::from_millis(4500)),
    (Cut::Both, Duration::from_millis(200)),
    (Cut::Host, Duration::from_millis(4500)),
    (Cut::Both, Duration::from_millis(2500)),
    (Cut::Target, Duration::from_millis(1000)),
];

/// Counter of the device at the far end.
fn counter(name: &str) -> u64 {
    // As the first process sees it: the namespace has a view of its own.
    let devices = Path::new("/proc/1/root/sys/class/infiniband");
    let path = devices.join(FAR).join("ports/1/hw_counters").join(name);
    let text = fs::read_to_string(path).expect("rxe counts");
    text.trim().parse().expect("a number")
}

/// Bytes that a load has read back, and its losses of the connection.
#[derive(Debug, Default)]
struct Verified {
    bytes: u64,
    reconnects: u64,
    runs: u64,
}

/// Writes and reads back again and again until the time is over, and a connection was lost: on a
/// busy machine, a partition may meet one that is being made.
fn verify(time: Duration) -> Verified {
    let began = Instant::now();
    let uri = format!("nvmf-rdma://{TARGET_ADDRESS}/{SUBSYSTEM}");
    let mut sum = Verified::default();
    while sum.runs == 0 || sum.reconnects == 0 || began.elapsed() < time {
        let mut verify = nvmf();
        verify.args(["write-verify", &uri, "--overwrite", "--ns", "1", "-o", "json"]);
        verify.args(["--iodepth", "16", "--queues", "2", "--bs", "4K", "--size", "2M"]);
        verify.args(["-c", "0.2", "-l", "-1", "-k", "2", "--retry-first-connect"]);
        verify.args(["--ack-timeout", &ACK_TIMEOUT.to_string()]);
        let output = run(verify.args(["--seed", &sum.runs.to_string()]), &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {message}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["mismatches"], 0, "{report}");
        sum.bytes += report["verified_bytes"].as_u64().expect("a number");
        sum.reconnects += report["reconnects"].as_u64().expect("a number");
        sum.runs += 1;
    }
    sum
}

fn options() -> ConnectOptions {
    let address = format!("{TARGET_ADDRESS}:4420").parse().expect("an address");
    let reconnect = ReconnectOptions::default().delay(Duration::from_millis(200));
    let options = tests::options().address(address).ack_timeout(Some(ACK_TIMEOUT)).io_queues(2);
    options.reconnect(reconnect.loss_timeout(None))
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_each_fault_of_the_wire() {
    if !other_machine::is_here() {
        return other_machine::run_test("wire::data_survives_each_fault_of_the_wire");
    }
    let time = super::seconds_wanted().map_or(Duration::from_secs(2), |all| all / 30);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (seed, Fault { netem, counter: name }) in (0..).zip(FAULTS) {
        Cut::Both.set(CLEAN);
        let connecting = async { Controller::connect(&options()).await };
        let controller = runtime.block_on(connecting).expect("the wire is whole");
        let before = counter(name);
        Cut::Both.set(netem);
        let result = runtime.block_on(history_load::run(&controller, time, seed));
        let seen = counter(name) - before;
        println!("{netem}: {result:?}, {name} {seen}");
        assert_eq!(result.mismatches, (0, None), "{netem}");
        assert_eq!(result.refused.0, 0, "{netem}: {result:?}");
        assert!(result.done > 0 && seen > 0, "{netem}: no packet met it: {result:?}, {seen}");
        Cut::Both.set(CLEAN);
        runtime.block_on(controller.shutdown());
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn data_survives_ten_partitions_a_minute_at_5_percent_loss() {
    const TEST: &str = "wire::data_survives_ten_partitions_a_minute_at_5_percent_loss";
    if !other_machine::is_here() {
        return other_machine::run_test(TEST);
    }
    let time = super::seconds_wanted().unwrap_or(BETWEEN_PARTITIONS * 3);
    let verified = std::thread::scope(|scope| {
        let load = scope.spawn(|| verify(time));
        // Time to connect, so that a partition meets a connection.
        std::thread::sleep(Duration::from_millis(500));
        Cut::Both.set(LOSS);
        for (cut, length) in PARTITIONS.into_iter().cycle() {
            std::thread::sleep(BETWEEN_PARTITIONS - length);
            if load.is_finished() {
                break;
            }
            cut.set("loss 100%");
            std::thread::sleep(length);
            cut.set(LOSS);
        }
        Cut::Both.set(CLEAN);
        load.join().expect("every pass ends well")
    });
    let (seconds, Verified { bytes, reconnects, runs }) = (time.as_secs(), &verified);
    println!("{seconds} s, {} MiB read back in {runs} runs, {reconnects} reconnects", bytes >> 20);
}
