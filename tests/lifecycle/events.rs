//! Events and spans of `tracing`.

use rdma_host::{Controller, Fence, FenceOptions, proto::LifecycleState};
use tracing_subscriber::filter::LevelFilter;

use super::{Bed, options, reach, run};

fn log_of(level: LevelFilter, test: impl Future<Output = ()>) -> String {
    tests::log_of(level, || run(test))
}

/// Events of `tracing` tell the same as the stream of changes.
#[test]
fn every_change_is_an_event_too() {
    let mut told = Vec::new();
    let text = log_of(LevelFilter::INFO, async {
        let bed = Bed::new();
        let connecting = Controller::connect_over(&bed.host, &options());
        let mut changes = connecting.changes();
        let controller = connecting.await.expect("an honest target");
        controller.reset().await;
        for state in [LifecycleState::Live, LifecycleState::Live] {
            loop {
                let change = changes.next().await.expect("it goes on");
                told.push(change.clone());
                if change.state == state {
                    break;
                }
            }
        }
        controller.shutdown().await;
        while let Some(change) = changes.next().await {
            told.push(change);
        }
    });
    let mut lines = text.lines();
    for change in &told {
        let (state, attempt) = (change.state, change.attempt);
        let fields = format!("state={state} attempt={attempt}");
        let found = lines.any(|line| line.contains(&change.to_string()) && line.contains(&fields));
        assert!(found, "{change}, with {fields}, is not told in its turn:\n{text}");
    }
    assert_eq!(told.last().map(|change| change.state), Some(LifecycleState::Dead));
}

/// Events of a failed command and of a reconnect have the fields of their controller and queue.
#[test]
fn events_are_in_the_spans_of_their_controller_and_queue() {
    let text = log_of(LevelFilter::DEBUG, async {
        let bed = Bed::new();
        // Without a fence queue ids begin with 1.
        let options = options().fence(FenceOptions::default().mode(Fence::Off));
        let (controller, namespace) = bed.connect(&options).await;
        bed.answer(|seen, answer| {
            if seen.is_io() {
                answer.messages = vec![seen.response(0x4281, 0)];
            }
        });
        let buffer = controller.allocate(512).expect("memory");
        namespace.read(0, buffer).await.expect_err("an unrecovered read error");
        bed.answer(|_, _| {});
        let mut changes = controller.changes();
        controller.reset().await;
        reach(&mut changes, LifecycleState::Live).await;
        let buffer = controller.allocate(512).expect("memory");
        namespace.read(0, buffer).await.expect("the controller is live again");
        controller.shutdown().await;
    });
    let controller = "controller{nqn=nqn.2026-11.org.soft-roce:scripted cntlid=7}:";
    for parts in [
        &[controller, "queue{qid=1}:", "a command failed", "opcode=Opcode(0x02)", "status="][..],
        &[controller, "queue{qid=1}:", "closed"],
        &[controller, "queues were taken", "generation=1"],
        &[controller, "the queues are closed", "cause=the controller was reset"],
        &[controller, "queues were taken", "generation=2"],
        &["controller{nqn=", "connection-manager event", "event="],
    ] {
        let found = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?}:\n{text}");
    }
    let reads = text.lines().filter(|line| line.contains("opcode=Opcode(0x02)")).count();
    assert_eq!(reads, 1, "a command that succeeds makes no event:\n{text}");
}
