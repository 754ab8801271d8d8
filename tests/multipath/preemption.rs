//! Preempt-and-abort of a lost path, by a scripted target: Linux's may crash on it, see FENCE.md.

use rdma_host::{FenceChangeKind, PathPolicy, proto::FenceProof};
use tests::target::ReceivedCommand;
use uuid::Uuid;

use super::*;

const REPORT: u8 = 0x0e;
const ACQUIRE: u8 = 0x11;
const HOST_IDS: [Uuid; 2] = [Uuid::from_u128(0xa), Uuid::from_u128(0xb)];

/// Report of a reservation of type 5, with these paths registered: the key is the number of the
/// path, from 1.
fn report(paths: &[usize], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    (bytes[4], bytes[5]) = (5, u8::try_from(paths.len()).expect("two at most"));
    for (entry, &path) in bytes[64..].chunks_exact_mut(64).zip(paths) {
        entry[8] = u8::try_from(path).expect("two at most") + 1;
        entry[16..32].copy_from_slice(HOST_IDS[path].as_bytes());
    }
    bytes
}

#[test]
fn a_lost_path_is_preempted_and_its_writes_are_over() {
    run(async {
        let all = Ports::new();
        let fence = FenceOptions::default().controller_ids(Some(false));
        let paths = both(connect_options().fence(fence)).host_ids(HOST_IDS);
        let paths = paths.policy(PathPolicy::Preferred(PathId(0)));
        let (subsystem, namespace) = all.connect(&paths).await;
        let mut changes = subsystem.fence_changes();
        let (gate, received) = all.ports[0].hold_write();
        // The target answers in any case, but preempts only if this is set.
        let [obeys, preempted] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (is_obeying, executed) = (Arc::clone(&obeys), Arc::clone(&gate));
        all.ports[1].answer(move |seen: ReceivedCommand, answer: &mut Answer| match seen.sqe[0] {
            REPORT if seen.is_io() => {
                let left = usize::from(preempted.load(Ordering::Relaxed));
                answer.data = report(&[0, 1][left..], seen.keyed().0);
            }
            ACQUIRE if seen.is_io() && is_obeying.load(Ordering::Relaxed) => {
                preempted.store(true, Ordering::Relaxed);
                answer.gate = Some(Arc::clone(&executed));
            }
            _ => {}
        });
        let buffer = subsystem.allocate(512).expect("memory");
        let writing = namespace.clone();
        let write = tokio::spawn(async move { writing.write(7, buffer).await });
        until(|| received.load(Ordering::Relaxed)).await;
        all.ports[0].close();
        let closed = changes.next().await.expect("the fence closes");
        assert!(matches!(closed.kind, FenceChangeKind::Closed { .. }), "{closed}");

        let lost = (PathId(0), NamespaceId(1));
        let refused = subsystem.preempt_path(lost.0, lost.1).await.expect_err("it is registered");
        assert!(refused.to_string().contains("has left it registered"), "{refused}");
        obeys.store(true, Ordering::Relaxed);
        let (preempted, ()) = tokio::join!(subsystem.preempt_path(lost.0, lost.1), async {
            until(|| all.ports[1].count(ACQUIRE) == 2).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(all.ports[1].count(WRITE), 0, "it waits");
            gate.store(true, Ordering::Relaxed);
        });
        preempted.expect("it is preempted");
        let opened = changes.next().await.expect("the fence opens");
        let FenceChangeKind::Opened { proof, .. } = opened.kind else { panic!("{opened}") };
        assert_eq!(proof, FenceProof::Preempted);
        write.await.expect("no panic").expect("it is sent again");
        assert_eq!(all.ports[1].count(WRITE), 1);
        subsystem.shutdown().await;
    });
}

#[test]
fn paths_that_reservations_cannot_tell_apart_are_not_preempted() {
    run(async {
        let all = Ports::new();
        let (subsystem, _namespace) = all.connect(&both(connect_options())).await;
        let refused = subsystem.preempt_path(PathId(0), NamespaceId(1)).await;
        let refused = refused.expect_err("they have one host identifier").to_string();
        assert!(refused.contains("reservations can't tell them apart"), "{refused}");
        assert_eq!(all.ports[1].count(ACQUIRE), 0);
        subsystem.shutdown().await;
    });
}
