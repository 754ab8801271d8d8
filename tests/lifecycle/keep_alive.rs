//! Keep Alive without an answer, and refused.

use std::time::Duration;

use rdma_host::{Error, LifecycleState};

use super::{Bed, options, reach, run};

#[test]
fn a_silent_target_is_noticed_by_the_keep_alive() {
    run(async {
        let bed = Bed::new();
        let mut options = options();
        options.keep_alive = Duration::from_millis(400);
        let (controller, _namespace) = bed.connect(&options).await;
        let mut changes = controller.changes();
        bed.answer(|seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x18 {
                answer.messages.clear();
            }
        });
        let lost = reach(&mut changes, LifecycleState::Resetting).await;
        assert!(matches!(lost.cause, Some(Error::KeepAlive(_))), "{lost}");
        bed.answer(|_, _| {});
        reach(&mut changes, LifecycleState::Live).await;
        controller.shutdown().await;
    });
}

/// A status with DNR, but not of a Connect: what it refuses is Keep Alive, not us.
#[test]
fn a_refused_keep_alive_is_a_loss_and_no_end() {
    run(async {
        let bed = Bed::new();
        let mut options = options();
        options.keep_alive = Duration::from_millis(400);
        let (controller, namespace) = bed.connect(&options).await;
        let mut changes = controller.changes();
        bed.answer(|seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x18 {
                answer.messages = vec![seen.response(0x4001, 0)];
            }
        });
        let lost = reach(&mut changes, LifecycleState::Resetting).await;
        assert!(lost.cause.expect("a cause").to_string().contains("refuses Keep Alive"));
        bed.answer(|_, _| {});
        reach(&mut changes, LifecycleState::Live).await;
        namespace.read(0, controller.allocate(512).unwrap()).await.expect("it is back");
        controller.shutdown().await;
    });
}
