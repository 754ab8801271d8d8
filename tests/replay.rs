//! A recorded run is run again without the provider that it was recorded on: with the same results.

// bed (recorded): --kernel 6.12 --target tests/targets/deep.toml -- what_rxe_does_is_recorded
// bed (replayed): host --kernel 6.12 -- a_run_on_rxe_is_replayed_without_it

use std::{sync::Arc, time::Duration};

use rdma_fabric::{Fabric, Recorder, Replay, Trace};
use rdma_host::{
    ConnectOptions, Controller, Error, Fence, FenceOptions, HostIdentity, ReconnectOptions,
    wire::NamespaceId,
};
use tests::{
    noise,
    target::{Answer, Hook, ReceivedCommand, TARGET_ADDRESS, Target},
};
use verbs::{Provider, RdmaCore};

fn options(address: &str) -> ConnectOptions {
    let nqn = tests::SUBSYSTEM.parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(address.parse().expect("an address"), nqn, host);
    options.reconnect = ReconnectOptions::never();
    // Without a fence queue ids begin with 1.
    options.fence = FenceOptions::default().mode(Fence::Off);
    options.io_queues = 1;
    options.queue_entries = 4;
    options.keep_alive = Duration::ZERO; // when it comes is up to the clock
    options.io_timeout = Duration::from_millis(500);
    options
}

fn run<T>(job: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(job)
}

/// Connects, writes, reads, and says all that it learned.
async fn job<P: Provider>(provider: &Arc<P>, options: &ConnectOptions) -> Result<String, Error> {
    let controller = Controller::connect_over(provider, options).await?;
    let mut learned = format!("{:?}\n", controller.negotiated());
    let namespace = controller.namespace(NamespaceId(1)).await?;
    learned += &format!("{:?}\n", namespace.info());
    for (lba, blocks) in [(3, 1), (11, 9), (100, 3)] {
        let data = noise(blocks * 512, lba);
        let mut buffer = controller.allocate(data.len())?;
        buffer.copy_in(0, &data);
        let mut buffer = namespace.write(lba, buffer).await.map_err(|failed| failed.error)?;
        buffer.fill(0);
        let buffer = namespace.read(lba, buffer).await.map_err(|failed| failed.error)?;
        let mut read = vec![0; data.len()];
        buffer.copy_out(0, &mut read);
        assert!(read == data, "{blocks} blocks from {lba} on differ");
        learned += &format!("{blocks} blocks from {lba} on are as written\n");
    }
    controller.shutdown().await;
    Ok(learned)
}

/// Runs the job on a target with this hook; returns what came of it, and the tape.
fn recorded(hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> (String, String) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let hook: Hook = Box::new(hook);
    let (target, trace) = (Target::new(&fabric, hook), Trace::default());
    let recorder = Recorder::new(host, &trace);
    let outcome = run(async {
        tokio::spawn(target.run());
        job(&recorder, &options(TARGET_ADDRESS)).await
    });
    (words(outcome), trace.recording())
}

fn words(outcome: Result<String, Error>) -> String {
    outcome.unwrap_or_else(|error| format!("{error}"))
}

fn replayed(tape: &str, options: &ConnectOptions) -> String {
    let replay = Replay::new(tape).expect("it is a tape");
    let outcome = words(run(job(&replay, options)));
    assert_eq!(replay.divergence(), None, "{outcome}");
    outcome
}

#[test]
fn a_run_over_the_fabric_is_replayed() {
    let (outcome, tape) = recorded(|_, _| {});
    assert!(outcome.contains("3 blocks from 100 on are as written"), "{outcome}");
    assert_eq!(replayed(&tape, &options(TARGET_ADDRESS)), outcome);
}

#[test]
fn what_a_target_did_wrong_is_replayed() {
    let hooks: [fn(ReceivedCommand, &mut Answer); 3] = [
        |seen, answer| {
            if seen.is_io() && seen.sqe[0] == 0x02 {
                answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]);
            }
        },
        |seen, answer| {
            if seen.is_io() && seen.sqe[0] == 0x02 {
                answer.data = vec![0; 1 << 20]; // far beyond the buffer
            }
        },
        |seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x06 {
                answer.data = noise(4096, 7);
            }
        },
    ];
    for hook in hooks {
        let (outcome, tape) = recorded(hook);
        assert!(!outcome.contains("as written"), "{outcome}");
        assert_eq!(replayed(&tape, &options(TARGET_ADDRESS)), outcome);
    }
}

#[test]
fn another_run_than_that_of_the_tape_is_told_apart() {
    let (_, tape) = recorded(|_, _| {});
    let replay = Replay::new(&tape).expect("it is a tape");
    let mut options = options(TARGET_ADDRESS);
    options.type_of_service = Some(3); // asked for nothing of the kind
    let _ =
        run(async { tokio::time::timeout(Duration::from_secs(1), job(&replay, &options)).await });
    let divergence = replay.divergence().expect("it is another run");
    assert!(divergence.contains("SetTypeOfService"), "{divergence}");
    let error = Replay::new("no tape").err().expect("it is none").to_string();
    assert!(error.contains("line 1"), "{error}");
}

/// `TAPE` names a tape that `what_rxe_does_is_recorded` has kept.
#[test]
#[ignore = "needs a tape from the test bed: run by ./tests/run"]
fn a_run_on_rxe_is_replayed_without_it() {
    let path = std::env::var_os("TAPE").expect("TAPE names the tape");
    let tape = std::fs::read_to_string(path).expect("the tape can be read");
    let learned = replayed(&tape, &options("10.10.10.1:4420"));
    assert!(learned.contains("9 blocks from 11 on are as written"), "{learned}");
}

/// Records, and replays at once. With TAPE set to a path, keeps the tape there.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_rxe_does_is_recorded() {
    let options = options(&format!("{}:4420", tests::address()));
    let trace = Trace::default();
    let recorder = Recorder::new(Arc::new(RdmaCore::new()), &trace);
    let outcome = words(run(job(&recorder, &options)));
    assert!(outcome.contains("3 blocks from 100 on are as written"), "{outcome}");
    assert_eq!(replayed(&trace.recording(), &options), outcome);
    if let Some(path) = std::env::var_os("TAPE") {
        std::fs::write(path, trace.recording()).expect("it can be written");
    }
}

/// Two objects whose events are due after the same calls.
#[test]
fn events_of_several_objects_come_in_their_recorded_order() {
    let rest = r#""kind":0,"status":0,"data":[],"parameters":[0,0,0,0],"incoming":false"#;
    let event = |endpoint| format!(r#"{{"Event":{{"endpoint":{endpoint},{rest}}}}}"#);
    let tape = [1, 0, 0, 1].map(event).join("\n");
    let replay = Replay::new(&tape).expect("it is a tape");
    let mut endpoints = [0, 1].map(|_| replay.endpoint().expect("an endpoint"));
    let mut has_event = |index: usize| {
        let event = replay.cm_event(&mut endpoints[index]).expect("it succeeds");
        event.is_some()
    };
    assert!(!has_event(0), "the first event is of the other endpoint");
    assert!(has_event(1) && !has_event(1), "two events of the other endpoint come before its next");
    assert!(has_event(0));
    let [first, mut second] = endpoints;
    drop(first); // with one event left, which can't be taken any more
    assert!(replay.cm_event(&mut second).expect("it succeeds").is_some());
}
