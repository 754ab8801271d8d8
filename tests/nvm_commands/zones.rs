//! Zoned namespaces: the library over the fabric against the scripted target.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use rdma_fabric::Host;
use rdma_host::{
    Buffer, Controller, Error, ExecutionStatus, ZoneSelection, ZonedNamespace,
    error::{Malformed, Misuse, ZoneMisuse},
    wire::{Status, Zone, ZoneAction, ZoneFilter, ZoneLimits, ZoneReportError, ZoneState},
};
use tests::{
    noise,
    target::{
        Answer, ReceivedCommand,
        zns::{ACTIVE_ZONES, APPEND_BLOCKS, OPEN_ZONES, ZONE_BLOCKS, ZONE_CAPACITY},
    },
};

use super::{BLOCK, filled, on_controller, on_target_of, read, status};

/// Number of the zone that is read only.
const WORN_OUT: usize = 7;

/// Commands that arrived, without those that hold the connection.
type Arrived = Arc<Mutex<Vec<ReceivedCommand>>>;

/// Runs a test on a zoned namespace; `hook` is asked about every command.
fn on_zoned<F: Future<Output = ()>>(
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
    test: impl FnOnce(Controller<Host>, ZonedNamespace, Arrived) -> F,
) {
    let arrived = Arrived::default();
    let noted = Arc::clone(&arrived);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_io() || seen.is_fabrics(0x00) {
            noted.lock().expect("no test panics").push(seen);
        }
        hook(seen, answer);
    };
    let prepare = |target: tests::target::Target| target.zoned(&[WORN_OUT]);
    on_target_of(prepare, hook, |controller, namespace| async {
        let zoned = controller.zoned_namespace(namespace).await.expect("it is zoned");
        test(controller, zoned, arrived).await;
    });
}

/// Number of commands with this opcode that arrived since the last call.
fn count(arrived: &Arrived, opcode: u8) -> usize {
    let all = std::mem::take(&mut *arrived.lock().expect("no test panics"));
    all.iter().filter(|seen| seen.is_io() && seen.sqe[0] == opcode).count()
}

/// All zones that the filter selects.
async fn zones(
    controller: &Controller<Host>,
    zoned: &ZonedNamespace,
    filter: ZoneFilter,
) -> Vec<Zone> {
    let buffer = controller.allocate(4096).expect("memory");
    let (zones, buffer) = zoned.report(0, filter, usize::MAX, buffer).await.expect("it succeeds");
    assert_eq!(buffer.len(), 4096);
    zones
}

/// Zone of this number.
async fn zone(controller: &Controller<Host>, zoned: &ZonedNamespace, number: u64) -> Zone {
    let buffer = controller.allocate(128).expect("memory");
    let lba = number * ZONE_BLOCKS + 5;
    let (zones, _) = zoned.report(lba, ZoneFilter::ALL, 1, buffer).await.expect("it succeeds");
    zones[0]
}

fn blocks(controller: &Controller<Host>, count: u64) -> Buffer {
    let bytes = usize::try_from(count).expect("few blocks") * BLOCK;
    controller.allocate(bytes).expect("memory")
}

fn misuse(error: &Error) -> ZoneMisuse {
    match error {
        Error::Misuse(Misuse::Zone(misuse)) => *misuse,
        error => panic!("{error}"),
    }
}

#[test]
fn a_namespace_that_is_not_zoned_is_refused_by_name() {
    on_controller(
        (0, 0),
        |_, _| {},
        |controller, namespace, arrived| async move {
            let refused = controller.zoned_namespace(namespace.clone()).await;
            let error = refused.err().expect("it is refused");
            assert_eq!(misuse(&error), ZoneMisuse::NotZoned(namespace.info().id));
            assert!(error.to_string().contains("namespace 1 is not zoned"), "{error}");
            assert!(arrived.lock().unwrap().is_empty());
            controller.shutdown().await;
        },
    );
}

/// The controller is enabled for all command sets, and shut down without a change of that.
#[test]
fn command_sets_are_selected_for_as_long_as_the_controller_is_enabled() {
    let written = Arrived::default();
    let seen_by_test = Arc::clone(&written);
    on_zoned(
        |_, _| {},
        |controller, _, arrived| async move {
            controller.shutdown().await;
            seen_by_test.lock().unwrap().append(&mut arrived.lock().unwrap());
        },
    );
    let all = written.lock().unwrap();
    let values: Vec<_> = all.iter().map(|seen| (seen.u32_at(44), seen.u64_at(48))).collect();
    assert_eq!(values, [(0x14, 0x0046_0061), (0x14, 0x0046_4061)]);
}

#[test]
fn zones_are_reported_page_by_page() {
    on_zoned(
        |_, _| {},
        |controller, zoned, arrived| async move {
            let expected = ZoneLimits {
                zone_blocks: ZONE_BLOCKS,
                active_zones_max: Some(ACTIVE_ZONES),
                open_zones_max: Some(OPEN_ZONES),
                append_bytes_max: Some(APPEND_BLOCKS * BLOCK as u64),
            };
            assert_eq!(zoned.limits(), expected);
            let all = zones(&controller, &zoned, ZoneFilter::ALL).await;
            assert_eq!((all.len(), count(&arrived, 0x7a)), (8, 1));
            let empty = Zone {
                start: 0,
                capacity: ZONE_CAPACITY,
                write_pointer: 0,
                state: ZoneState::EMPTY,
                kind: 2,
                attributes: 0,
            };
            assert_eq!(all[0], empty);
            assert_eq!((all[7].start, all[7].state), (7 * ZONE_BLOCKS, ZoneState::READ_ONLY));
            // Two zones a command: 8 zones fill four, and there are none after the last.
            for (bytes, wanted, from, found, commands) in [
                (192, usize::MAX, 0, 8, 4),
                (255, 3, 0, 3, 2),
                (128, usize::MAX, 5 * ZONE_BLOCKS + 1, 3, 3),
                (4096, 0, 0, 0, 0),
            ] {
                let buffer = controller.allocate(bytes).unwrap();
                let report = zoned.report(from, ZoneFilter::ALL, wanted, buffer).await;
                let (zones, buffer) = report.unwrap();
                assert_eq!((zones.len(), buffer.len()), (found, bytes));
                let first = usize::try_from(from / ZONE_BLOCKS).unwrap();
                assert_eq!(zones, all[first..][..found]);
                assert_eq!(count(&arrived, 0x7a), commands);
            }
            let of = |filter| zones(&controller, &zoned, filter);
            assert_eq!(of(ZoneFilter::READ_ONLY).await, [all[7]]);
            assert_eq!(of(ZoneFilter::EMPTY).await, all[..7]);
            assert!(of(ZoneFilter::OFFLINE).await.is_empty());
            for (lba, bytes) in [(1024, 4096), (0, 127)] {
                let buffer = controller.allocate(bytes).unwrap();
                let failed = zoned.report(lba, ZoneFilter::ALL, 1, buffer).await.unwrap_err();
                assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
            }
            controller.shutdown().await;
        },
    );
}

#[test]
fn appends_return_the_block_that_was_written() {
    on_zoned(
        |_, _| {},
        |controller, zoned, arrived| async move {
            let data = noise(16 * BLOCK, 3);
            for (part, expected) in [(0..8, 256), (8..13, 264), (13..16, 269)] {
                let bytes = &data[part.start * BLOCK..part.end * BLOCK];
                let (lba, buffer) = zoned.append(256, filled(&controller, bytes)).await.unwrap();
                assert_eq!((lba, buffer.len()), (expected, bytes.len()));
            }
            for block in [0usize, 7, 8, 15] {
                let found = read(&controller, zoned.namespace(), 256 + block as u64).await;
                assert!(found == data[block * BLOCK..][..BLOCK], "block {block}");
            }
            let found = zone(&controller, &zoned, 2).await;
            assert_eq!((found.state, found.write_pointer), (ZoneState::IMPLICITLY_OPEN, 272));
            arrived.lock().unwrap().clear();

            let refused = async |zone, count| {
                let buffer = blocks(&controller, count);
                let failed = zoned.append(zone, buffer).await.unwrap_err();
                assert_eq!(failed.execution, ExecutionStatus::NotSent, "{failed}");
                assert!(failed.buffer.is_some());
                failed.error
            };
            let error = refused(257, 1).await;
            let unaligned = ZoneMisuse::Unaligned { lba: 257, zone_blocks: ZONE_BLOCKS };
            assert_eq!(misuse(&error), unaligned);
            assert!(error.to_string().contains("this one at block 256"), "{error}");
            let error = refused(256, APPEND_BLOCKS + 1).await;
            let max = APPEND_BLOCKS * BLOCK as u64;
            let bytes = max + BLOCK as u64;
            assert_eq!(misuse(&error), ZoneMisuse::AppendBytes { bytes, max });
            assert!(error.to_string().contains("at most 32768 (ZASL)"), "{error}");
            let error = refused(1024, 1).await;
            assert!(matches!(error, Error::Misuse(Misuse::PastEnd { .. })), "{error}");
            assert_eq!(count(&arrived, 0x7d), 0);

            let (lba, _) = zoned.append(256, blocks(&controller, APPEND_BLOCKS)).await.unwrap();
            assert_eq!(lba, 272);
            let append = async |zone, count| {
                let failed = zoned.append(zone, blocks(&controller, count)).await.unwrap_err();
                status(&failed.error)
            };
            assert_eq!(append(256, 17).await, Status(0x1b8), "boundary error");
            zoned.append(256, blocks(&controller, 16)).await.unwrap();
            assert_eq!(append(256, 1).await, Status(0x1b9), "full");
            assert_eq!(append(7 * ZONE_BLOCKS, 1).await, Status(0x1ba), "read only");
            zoned.append(0, blocks(&controller, 1)).await.unwrap();
            zoned.append(128, blocks(&controller, 1)).await.unwrap();
            assert_eq!(append(384, 1).await, Status(0x1be), "too many open");
            controller.shutdown().await;
        },
    );
}

#[test]
fn states_of_zones_are_changed() {
    on_zoned(
        |_, _| {},
        |controller, zoned, arrived| async move {
            use ZoneSelection::{All, Zone};
            let states = async || {
                let all = zones(&controller, &zoned, ZoneFilter::ALL).await;
                all.iter().map(|zone| zone.state.0).collect::<Vec<_>>()
            };
            zoned.manage(ZoneAction::OPEN, Zone(0)).await.unwrap();
            zoned.append(0, blocks(&controller, 2)).await.unwrap();
            zoned.append(128, blocks(&controller, 2)).await.unwrap();
            assert_eq!(states().await, [3, 2, 1, 1, 1, 1, 1, 0xd]);
            zoned.manage(ZoneAction::CLOSE, Zone(0)).await.unwrap();
            zoned.manage(ZoneAction::FINISH, Zone(256)).await.unwrap();
            assert_eq!(states().await, [4, 2, 0xe, 1, 1, 1, 1, 0xd]);
            zoned.manage(ZoneAction::OPEN, All).await.unwrap();
            assert_eq!(states().await, [3, 3, 0xe, 1, 1, 1, 1, 0xd]);
            zoned.manage(ZoneAction::RESET, Zone(0)).await.unwrap();
            assert!(read(&controller, zoned.namespace(), 0).await.iter().all(|&byte| byte == 0));
            zoned.manage(ZoneAction::OFFLINE, Zone(7 * ZONE_BLOCKS)).await.unwrap();
            assert_eq!(states().await, [1, 3, 0xe, 1, 1, 1, 1, 0xf]);
            let error = zoned.manage(ZoneAction::OFFLINE, Zone(0)).await.unwrap_err();
            let words =
                "Zone Management Send (Offline) failed: invalid zone state transition (0x1bf";
            assert!(error.to_string().contains(words), "{error}");
            zoned.manage(ZoneAction::CLOSE, All).await.unwrap();
            zoned.manage(ZoneAction::RESET, All).await.unwrap();
            assert_eq!(states().await, [1, 1, 1, 1, 1, 1, 1, 0xf]);

            arrived.lock().unwrap().clear();
            let error = zoned.manage(ZoneAction::RESET, Zone(1)).await.unwrap_err();
            assert!(matches!(misuse(&error), ZoneMisuse::Unaligned { lba: 1, .. }), "{error}");
            let error = zoned.manage(ZoneAction::RESET, Zone(1024)).await.unwrap_err();
            assert!(matches!(error, Error::Misuse(Misuse::PastEnd { .. })), "{error}");
            assert_eq!(count(&arrived, 0x79), 0);
            controller.shutdown().await;
        },
    );
}

/// Parts of a write that exceeds a command arrive one after another, also of several buffers.
#[test]
fn a_write_fills_a_zone_in_the_order_of_its_blocks() {
    let is_pending = Arc::new(AtomicBool::new(false));
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_identify_controller() {
            // MDTS: 16 KiB, or 32 blocks.
            answer.data[77] = 2;
        }
        if seen.is_write() {
            // An answer that comes late does not let the next one overtake.
            is_pending.fetch_xor(true, Ordering::Relaxed);
            if is_pending.load(Ordering::Relaxed) {
                answer.delay = std::time::Duration::from_millis(5);
            }
        }
    };
    on_zoned(hook, |controller, zoned, arrived| async move {
        let data = noise(96 * BLOCK, 5);
        let namespace = zoned.namespace();
        let written = namespace.write(0, filled(&controller, &data[..80 * BLOCK])).await.unwrap();
        assert_eq!((written.len(), count(&arrived, 0x01)), (80 * BLOCK, 3));
        let rest = [80..83, 83..96].map(|part| &data[part.start * BLOCK..part.end * BLOCK]);
        let rest = rest.map(|bytes| filled(&controller, bytes));
        let written = namespace.write_vectored(80, rest.into()).await.unwrap();
        assert_eq!(written.iter().map(Buffer::len).collect::<Vec<_>>(), [3 * BLOCK, 13 * BLOCK]);
        for block in [0, 31, 32, 79, 80, 83, 95] {
            let found = read(&controller, namespace, block as u64).await;
            assert!(found == data[block * BLOCK..][..BLOCK], "block {block}");
        }
        assert_eq!(zone(&controller, &zoned, 0).await.state, ZoneState::FULL);
        // The fourth part is beyond the capacity.
        let failed = namespace.write(128, blocks(&controller, 100)).await.unwrap_err();
        assert_eq!(status(&failed.error), Status(0x1b9));
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "parts were written");
        assert!(failed.buffer.is_some_and(|buffer| buffer.len() == 100 * BLOCK));
        controller.shutdown().await;
    });
}

/// Loses the connection at the first command with each of these opcodes, after its execution.
fn losing_first(mut opcodes: Vec<u8>) -> impl FnMut(ReceivedCommand, &mut Answer) + Send {
    move |seen, answer| {
        if let Some(at) = opcodes.iter().position(|&opcode| seen.is_io() && seen.sqe[0] == opcode) {
            opcodes.remove(at);
            answer.messages.clear();
            answer.disconnect = true;
        }
    }
}

#[test]
fn appends_and_state_changes_are_not_sent_twice() {
    on_zoned(losing_first(vec![0x7d, 0x79, 0x7a]), |controller, zoned, arrived| async move {
        let failed = zoned.append(0, blocks(&controller, 1)).await.unwrap_err();
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        zoned.manage(ZoneAction::RESET, ZoneSelection::Zone(0)).await.unwrap_err();
        {
            let all = arrived.lock().unwrap();
            let sent = all.iter().filter(|seen| seen.is_io()).map(|seen| seen.sqe[0]);
            assert_eq!(sent.collect::<Vec<_>>(), [0x7d, 0x79]);
        }
        // A report changes nothing: it is sent again.
        assert_eq!(zones(&controller, &zoned, ZoneFilter::ALL).await.len(), 8);
        assert_eq!(count(&arrived, 0x7a), 2);
        controller.shutdown().await;
    });
}

/// The repeated write of one that was executed is refused; that does not say that it was not.
#[test]
fn a_repeated_write_to_a_zone_is_refused_with_an_unknown_execution() {
    on_zoned(losing_first(vec![0x01]), |controller, zoned, arrived| async move {
        let data = noise(8 * BLOCK, 7);
        let namespace = zoned.namespace();
        let failed = namespace.write(0, filled(&controller, &data)).await.unwrap_err();
        assert_eq!(status(&failed.error), Status::ZONE_INVALID_WRITE);
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        assert_eq!(count(&arrived, 0x01), 2);
        // The write pointer tells.
        assert_eq!(zone(&controller, &zoned, 0).await.write_pointer, 8);
        assert!(read(&controller, namespace, 7).await == data[7 * BLOCK..]);
        // One that was sent once, and refused, was not executed.
        let failed = namespace.write(0, filled(&controller, &data)).await.unwrap_err();
        assert_eq!(status(&failed.error), Status::ZONE_INVALID_WRITE);
        assert_eq!(failed.execution, ExecutionStatus::Responded, "{failed}");
        controller.shutdown().await;
    });
}

#[test]
fn data_on_zones_that_contradicts_itself_is_not_believed() {
    let hook = |seen: ReceivedCommand, answer: &mut Answer| match (seen.is_io(), seen.sqe[0]) {
        (true, 0x7d) => answer.messages = vec![seen.response(0, 127)],
        // More zones than the medium has, the last one at its end.
        (true, 0x7a) if seen.u64_at(40) == 0 => {
            answer.data[0] = 200;
            answer.data[8 * 64 + 17] = 4;
        }
        (true, 0x7a) => answer.data[64 + 16] = 0,
        _ => {}
    };
    on_zoned(hook, |controller, zoned, _| async move {
        let error = zoned.append(0, blocks(&controller, 2)).await.unwrap_err().error;
        let malformed = |error: &Error| match error {
            Error::Malformed(Malformed::Zones(error)) => *error,
            error => panic!("{error}"),
        };
        assert_eq!(malformed(&error), ZoneReportError::Appended { lba: 127, zone: 0 });
        let report = async |lba| {
            let buffer = controller.allocate(4096).unwrap();
            zoned.report(lba, ZoneFilter::ALL, usize::MAX, buffer).await.unwrap_err()
        };
        let failed = report(0).await;
        assert_eq!(malformed(&failed.error), ZoneReportError::Order { zone: 0, after: 1153 });
        assert!(failed.buffer.is_some());
        let failed = report(128).await;
        assert_eq!(malformed(&failed.error), ZoneReportError::Order { zone: 0, after: 128 });
        controller.shutdown().await;
    });
}
