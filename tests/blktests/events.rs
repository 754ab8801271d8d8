//! Asynchronous events that the target sends while a host is connected.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rdma_host::{
    ControllerEvent, ControllerEvents, Error, EventDetail, LifecycleState, NamespaceChange,
    config::EVENT_INTERVAL_MIN,
    error::Misuse,
    wire::{AnaState, AsyncEventKind},
};
use tests::nvmf;

use super::*;

/// Another UUID for namespace 3, and the one it has.
const OTHER: &str = "f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e99";
const SAME: &str = "f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e03";

/// Takes notices until one says this of namespace 3.
async fn until_third(
    notices: &mut ControllerEvents,
    mut wanted: impl FnMut(&NamespaceChange) -> bool,
) -> NamespaceChange {
    loop {
        let notice = notices.next().await.expect("the controller goes on");
        println!("{notice}");
        let EventDetail::Namespaces(fates) = notice.detail else { panic!("{notice}") };
        let mut third = fates.into_iter().filter(|(id, _)| *id == THIRD);
        if let Some((_, fate)) = third.next().filter(|(_, fate)| wanted(fate)) {
            return fate;
        }
    }
}

/// blktests nvme/027: a rescan finds what has come and gone.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_rescan_finds_what_there_is() {
    in_runtime(async {
        let controller = connected().await;
        let ids = async || -> Vec<u32> {
            controller.rescan().await.unwrap().iter().map(|info| info.id.0).collect()
        };
        assert_eq!(ids().await, [1, 2, 3]);
        set(3, "enable", "0").await;
        assert_eq!(ids().await, [1, 2]);
        set(3, "enable", "1").await;
        assert_eq!(ids().await, [1, 2, 3]);
        controller.shutdown().await;
    });
}

/// blktests nvme/058, for one path: another namespace under the same number is told, and what was
/// made for the old one does not reach it.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_replaced_namespace_is_told_and_refused() {
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(THIRD).await.unwrap();
        let neighbour = controller.namespace(FIRST).await.unwrap();
        let mut notices = controller.events();
        set(3, "enable", "0").await;
        until_third(&mut notices, |fate| matches!(fate, NamespaceChange::Gone)).await;
        set(3, "enable", "1").await;
        until_third(&mut notices, |fate| matches!(fate, NamespaceChange::Added(_))).await;
        let _ = read(&controller, &namespace, 0, 4096).await;

        replace_third(OTHER).await;
        let fate =
            until_third(&mut notices, |fate| matches!(fate, NamespaceChange::Replaced(_))).await;
        let NamespaceChange::Replaced(info) = fate else { unreachable!("just matched") };
        assert_eq!(info.uuid.unwrap().to_string(), OTHER);
        let failed = namespace.read(0, controller.allocate(4096).unwrap()).await.unwrap_err();
        let refused = matches!(failed.error, Error::Misuse(Misuse::NamespaceReplaced(THIRD)));
        assert!(refused, "{failed}");
        let _ = read(&controller, &neighbour, 0, 4096).await;
        let anew = controller.namespace(THIRD).await.unwrap();
        let _ = read(&controller, &anew, 0, 4096).await;
        controller.shutdown().await;
        replace_third(SAME).await;
    });
}

/// Makes namespace 3 another one, by its UUID.
async fn replace_third(uuid: &str) {
    set(3, "enable", "0").await;
    set(3, "uuid", uuid).await;
    set(3, "enable", "1").await;
}

/// blktests nvme/051: two loops that enable and disable a namespace at once; the host is told as
/// often as it can take, and knows how it ended.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_storm_of_events_is_survived() {
    in_runtime(async {
        let controller = connected().await;
        let _third = controller.namespace(THIRD).await.unwrap();
        let first = controller.namespace(FIRST).await.unwrap();
        let (mut notices, mut changes) = (controller.events(), controller.changes());
        let began = std::time::Instant::now();
        let storm = |first: &'static str, second: &'static str| async move {
            for _ in 0..20 {
                set(3, "enable", first).await;
                set(3, "enable", second).await;
            }
        };
        tokio::join!(storm("0", "1"), storm("1", "0"));
        // How the loops end is up to chance; this is not, and nothing in them looks like it.
        replace_third(OTHER).await;
        let mut count = 0;
        until_third(&mut notices, |fate| {
            count += 1;
            matches!(fate, NamespaceChange::Replaced(_))
        })
        .await;
        let elapsed = began.elapsed();
        println!("{count} events in {elapsed:?}");
        let most = elapsed.as_millis() / EVENT_INTERVAL_MIN.as_millis() + 1;
        assert!(count >= 2 && count <= most, "{count} events in {elapsed:?}");
        replace_third(SAME).await;
        let _ = read(&controller, &first, 0, 4096).await;
        controller.shutdown().await;
        let left = changes.next().await.expect("it ends");
        assert_eq!(left.state, LifecycleState::Deleting, "the connection was never lost: {left}");
    });
}

/// SPDK's `ns_hotplug_stress`: while a namespace comes and goes below several hosts, those that
/// stay keep their size, every read of them succeeds, and no connection is lost.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn namespaces_that_stay_are_not_disturbed() {
    const HOSTS: usize = 4;
    in_runtime(async {
        let stop = Arc::new(AtomicBool::new(false));
        let mut hosts = Vec::new();
        for _ in 0..HOSTS {
            let controller = connected().await;
            let namespace = async |id| controller.namespace(id).await.expect("it stays");
            let namespaces = [namespace(FIRST).await, namespace(SECOND).await];
            let (changes, events) = (controller.changes(), controller.events());
            let stop = Arc::clone(&stop);
            let reads = tokio::spawn(async move {
                let infos = namespaces.each_ref().map(Namespace::info);
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    for (namespace, info) in namespaces.iter().zip(infos) {
                        let _ = read(&controller, namespace, 0, 4096).await;
                        assert_eq!(namespace.info(), info);
                        reads += 1;
                    }
                }
                controller.shutdown().await;
                reads
            });
            hosts.push((reads, changes, events));
        }
        let storm = |first: &'static str, second: &'static str| async move {
            for _ in 0..15 {
                set(3, "enable", first).await;
                set(3, "enable", second).await;
            }
        };
        tokio::join!(storm("0", "1"), storm("1", "0"));
        set(3, "enable", "1").await;
        stop.store(true, Ordering::Relaxed);
        for (reads, mut changes, mut events) in hosts {
            assert!(reads.await.expect("it does not panic") > 0);
            let end = changes.next().await.expect("it ends");
            assert_eq!(end.state, LifecycleState::Deleting, "no connection was lost: {end}");
            assert!(events.next().await.is_some(), "it was told of the third namespace");
        }
    });
}

/// Takes the next notice of access states: the state of group 2.
async fn state_of_second_group(notices: &mut ControllerEvents) -> AnaState {
    let notice: ControllerEvent = notices.next().await.expect("the controller goes on");
    println!("{notice}");
    assert_eq!(notice.event.kind(), AsyncEventKind::AnaChange);
    let EventDetail::Ana(log) = notice.detail else { panic!("{notice}") };
    log.groups.iter().find(|group| group.id == 2).expect("the group is there").state
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn access_states_are_told() {
    in_runtime(async {
        let controller = connected().await;
        let mut notices = controller.events();
        for (name, state) in [
            ("non-optimized", AnaState::NON_OPTIMIZED),
            ("inaccessible", AnaState::INACCESSIBLE),
            ("optimized", AnaState::OPTIMIZED),
        ] {
            change_target(&["set", "ana", "1", "2", name]).await;
            while state_of_second_group(&mut notices).await != state {}
        }
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn events_are_told_after_a_reconnect_too() {
    in_runtime(async {
        let controller = connected().await;
        let _third = controller.namespace(THIRD).await.unwrap();
        let (mut notices, mut changes) = (controller.events(), controller.changes());
        controller.reset().await;
        while changes.next().await.expect("it comes back").state != LifecycleState::Live {}
        set(3, "enable", "0").await;
        until_third(&mut notices, |fate| matches!(fate, NamespaceChange::Gone)).await;
        set(3, "enable", "1").await;
        until_third(&mut notices, |fate| matches!(fate, NamespaceChange::Added(_))).await;
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_monitor_prints_notices() {
    for (format, expected) in
        [("normal", "notice: namespace attribute changed"), ("json", "\"notice\":")]
    {
        let mut monitor = nvmf();
        monitor.args(["monitor", &uri(SUBSYSTEM), "--runtime", "3", "-o", format]);
        monitor.stdout(std::process::Stdio::piped());
        let monitor = monitor.spawn().expect("NVMF runs");
        wait_for("the monitor connects", Duration::from_secs(5), || controllers(SUBSYSTEM) == 1);
        std::thread::sleep(Duration::from_millis(300)); // until it asks for events
        for value in ["0", "1"] {
            target(&["set", "namespace", SUBSYSTEM, "3", "enable", value]);
        }
        let output = monitor.wait_with_output().expect("the monitor ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(expected), "{text}");
        if format == "json" {
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
                assert!(value["time"].is_number(), "{line}");
            }
        }
    }
}
