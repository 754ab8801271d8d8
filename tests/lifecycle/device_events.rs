//! Connections that the device ends.

use std::time::Duration;

use rdma_fabric::{Fault, Point};
use rdma_host::{ErrorClass, LifecycleState};
use verbs::Status;

use super::{Bed, options, reach, run};

/// Only the device's report tells of these: no work fails, and no timeout expires here.
#[test]
fn what_the_device_reports_ends_the_connection() {
    let host = || "host".to_owned();
    for (fault, words) in [
        (Fault::QueuePairsDie(host()), "the device reports that its queue pair failed"),
        (Fault::CompletionQueuesFail(host()), "our RDMA device reports that a completion queue"),
        (Fault::RemoveDevice(host()), "our RDMA device reports that it failed, or was removed"),
    ] {
        run(async {
            let bed = Bed::new();
            let options = options().keep_alive(Duration::ZERO).io_timeout(Duration::from_secs(600));
            let (controller, namespace) = bed.connect(&options).await;
            let mut changes = controller.changes();
            bed.answer(|seen, answer| {
                if seen.is_io() {
                    answer.messages.clear(); // so that a command is under way
                }
            });
            let buffer = controller.allocate(512).unwrap();
            let read = tokio::spawn(async move { namespace.read(7, buffer).await });
            tokio::time::sleep(Duration::from_millis(20)).await;
            bed.fabric.at(Point::Time(Duration::ZERO), fault.clone());
            bed.fabric.advance(Duration::from_millis(1));
            let lost = reach(&mut changes, LifecycleState::Resetting).await;
            let cause = lost.cause.expect("a cause");
            assert_eq!(cause.class(), ErrorClass::Transport);
            let removed = matches!(fault, Fault::RemoveDevice(_));
            // That shows elsewhere too, in other words.
            assert!(removed || cause.to_string().contains(words), "{cause}");
            bed.answer(|_, _| {});
            bed.fabric.restore_device("host");
            match read.await.unwrap() {
                Ok(_) => assert!(!removed, "its memory is of no use any more"),
                Err(failed) => assert!(removed && failed.buffer.is_some(), "{failed}"),
            }
            controller.shutdown().await;
        });
    }
}

/// On iWARP the work that a lost connection flushes comes back before the event that says so.
#[test]
fn flushed_work_waits_for_the_reason() {
    for (disconnect, words) in [
        (true, "the target or the network closed the connection"),
        (false, "flushed: the queue pair was no longer working"),
    ] {
        run(async {
            let bed = Bed::new();
            let (controller, namespace) = bed.connect(&options()).await;
            let mut changes = controller.changes();
            bed.answer(move |seen, answer| answer.disconnect = disconnect && seen.is_io());
            bed.fabric.at(Point::completion("host", 1), Fault::Fail(Status::FLUSHED));
            let buffer = controller.allocate(512).unwrap();
            let read = tokio::spawn(async move { namespace.read(7, buffer).await });
            let lost = reach(&mut changes, LifecycleState::Resetting).await;
            let cause = lost.cause.expect("a cause");
            assert_eq!(cause.class(), ErrorClass::Transport);
            assert!(cause.to_string().contains(words), "{cause}");
            bed.answer(|_, _| {});
            read.await.unwrap().expect("it is sent again");
            controller.shutdown().await;
        });
    }
}
