//! Committed tables of decisions, and what they rest on.

use std::{fmt::Write as _, net::Ipv4Addr, ops::Range};

use super::*;
use crate::{
    proto::CommandClass,
    wire::{
        CrossControllerResetEntry, CrossControllerResetLog, CrossControllerResetStatus,
        NamespaceId, Opcode, Sqe,
    },
};

const LEGEND: &str = "\
The write fence. A test compares this with the code; UPDATE_MATRIX=1 cargo test -p nvme-rdma fence
writes it again.

Commands without a response, of an association that has ended: whether they are sent again, and
what the fence does with a new one while writes to block 7 are of unknown outcome.

  at once         sent again, or sent, as soon as there is a connection
  fence           only once the old controller is proved to execute nothing more
  never           fails with an unknown outcome, as all commands do without `resend`

";

const PROOFS: &str = "
What opens the fence: rows are events after the loss, columns are modes.

  open            writes to the blocks go on
  -               they wait, and fail after the timeout; the blocks stay closed
  asks            the target is asked for the old controller every 100 ms

  proof           the default
  , Linux         the target names itself so: an id that it does not know proves the end, and that
                  a controller has no such queue, the end of the queue
  , CQT           the target reports a Controller Quiesce Time of 3 s; keep-alive is after 2 s
  , CCR           another controller of the subsystem is connected, and resets controllers
                  (Cross-Controller Reset)
  told            by the option, ids of controllers are a proof on this target

Against Linux: it sends everything again at once, and has no fence (off). The patches proposed for
it wait as in mode linux. An orderly shutdown proves nothing: Linux's target reports it complete
while commands are executed.

";

fn sqe(opcode: Opcode, lba: u8, fused: bool) -> Sqe {
    let mut bytes = [0; Sqe::SIZE];
    (bytes[0], bytes[1], bytes[4], bytes[40]) = (opcode.0, u8::from(fused), 1, lba);
    zerocopy::transmute!(bytes)
}

pub(super) fn association(number: u64, controller: u16) -> Association {
    Association {
        number,
        target: TARGET,
        host_id: Uuid::from_u128(1),
        first_queue: QueueId(1),
        controller: ControllerId(controller),
        keep_alive: Duration::from_secs(2),
        quiesce_time: Duration::ZERO,
        ids_prove: false,
        queues_prove: false,
        instance: None,
        resets_others: false,
        nodes_agree: true,
    }
}

/// Address of the target.
pub(super) const TARGET: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4420);

fn blocks(namespace: u32, blocks: Range<u64>) -> WrittenBlocks {
    WrittenBlocks { namespace: NamespaceId(namespace), blocks }
}

fn written(queue: u16, blocks: Range<u64>) -> Vec<OutstandingWrite> {
    let written = WrittenBlocks { namespace: NamespaceId(1), blocks };
    vec![OutstandingWrite { queue: QueueId(queue), written }]
}

fn question(controller: u16, queue: u16) -> ProbeQuestion {
    ProbeQuestion { controller: ControllerId(controller), queue: Some(QueueId(queue)) }
}

/// Fence after the loss of an association with a write to block 7.
pub(super) fn closed(options: FenceOptions, association: Association, at: Instant) -> WriteFence {
    let mut fence = WriteFence::new(options);
    fence.established(association);
    fence.close(association, at, written(1, 7..8));
    fence
}

fn commands() -> String {
    let fence = closed(FenceOptions::default(), association(1, 1), Instant::now());
    let admit = |sqe: &Sqe| match fence.admit(sqe) {
        Admission::Send => "at once",
        Admission::Wait(_) => "fence",
    };
    let mut text = format!("{:<22} again     new, block 7  new, block 8\n", "");
    for (name, opcode, fused) in [
        ("Flush", Opcode::FLUSH, false),
        ("Write", Opcode::WRITE, false),
        ("Write, fused", Opcode::WRITE, true),
        ("Read", Opcode::READ, false),
        ("Write Uncorrectable", Opcode::WRITE_UNCORRECTABLE, false),
        ("Compare", Opcode::COMPARE, false),
        ("Compare, fused", Opcode::COMPARE, true),
        ("Write Zeroes", Opcode::WRITE_ZEROES, false),
        ("Dataset Management", Opcode::DATASET_MANAGEMENT, false),
        ("Verify", Opcode::VERIFY, false),
        ("Reservation Register", Opcode::RESERVATION_REGISTER, false),
        ("Reservation Report", Opcode::RESERVATION_REPORT, false),
        ("Reservation Acquire", Opcode::RESERVATION_ACQUIRE, false),
        ("Reservation Release", Opcode::RESERVATION_RELEASE, false),
        ("Copy", Opcode::COPY, false),
        ("Zone Append", Opcode(0x7d), false),
        ("any other", Opcode(0x80), false),
    ] {
        let again = match CommandClass::of(&sqe(opcode, 7, fused)) {
            CommandClass::WithoutEffect => "at once",
            CommandClass::IdempotentWrite => "fence",
            CommandClass::NotRepeatable => "never",
        };
        let [overlapping, other] = [7, 8].map(|lba| admit(&sqe(opcode, lba, fused)));
        let line = format!("{name:<22} {again:<9} {overlapping:<13} {other}");
        writeln!(text, "{}", line.trim_end()).unwrap();
    }
    text
}

/// Event after the loss, at which the fence may open.
type Event = (&'static str, fn(&mut WriteFence, Association, Instant));

const EVENTS: [Event; 22] = [
    ("new connection, same id", |fence, association, _| {
        fence.established(Association { number: 2, ..association });
    }),
    ("new connection, other id", |fence, association, _| {
        let controller = ControllerId(2);
        fence.established(Association { number: 2, controller, ..association });
    }),
    ("answer: no such controller", |fence, association, _| {
        let answer = ProbeAnswer::of(Status(0x4182), 0x0001_0010);
        fence.answered(TARGET, question(association.controller.0, 1), answer);
    }),
    ("answer: no such queue", |fence, association, _| {
        let answer = ProbeAnswer::of(Status(0x4182), 0x0000_002c);
        fence.answered(TARGET, question(association.controller.0, 1), answer);
    }),
    ("the same, of another queue", |fence, association, _| {
        let answer = ProbeAnswer::of(Status(0x4182), 0x0000_002c);
        fence.answered(TARGET, question(association.controller.0, 2), answer);
    }),
    ("answer: queue id", |fence, association, _| {
        let answer = ProbeAnswer::of(Status(0x4182), 0x0000_002a);
        fence.answered(TARGET, question(association.controller.0, 1), answer);
    }),
    ("answer: another status", |fence, association, _| {
        let answer = ProbeAnswer::of(Status(0x400c), 0x0001_0010);
        fence.answered(TARGET, question(association.controller.0, 1), answer);
    }),
    ("reset: refused", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0x4001, 0)]);
    }),
    ("reset: done at once", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0, 1)]);
    }),
    ("reset: begun", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0, 0b110)]);
    }),
    ("begun, log page: done", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0, 0), entry(1, 3, 1)]);
    }),
    ("the same, failed", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0, 0), entry(1, 3, 2)]);
    }),
    ("the same, of another id", |fence, association, at| {
        reset(fence, association, at, &[NO_ENTRY, response(0, 0), entry(5, 3, 1)]);
    }),
    ("done, but before the reset", |fence, association, at| {
        reset(fence, association, at, &[entry(1, 3, 1); 8]);
    }),
    ("preempt-and-abort, its host", |fence, _, at| {
        fence.preempted(Uuid::from_u128(1), NamespaceId(1), at);
    }),
    ("the same, another host", |fence, _, at| {
        fence.preempted(Uuid::from_u128(2), NamespaceId(1), at);
    }),
    ("keep-alive timeout", |fence, _, at| drop(fence.elapse(at + Duration::from_secs(2)))),
    ("2 × keep-alive", |fence, _, at| drop(fence.elapse(at + Duration::from_millis(4001)))),
    ("2 × keep-alive + CQT", |fence, _, at| drop(fence.elapse(at + Duration::from_secs(7)))),
    ("and 1 ms", |fence, _, at| drop(fence.elapse(at + Duration::from_millis(7001)))),
    ("3 × keep-alive + CQT + 1 ms", |fence, _, at| {
        drop(fence.elapse(at + Duration::from_millis(9001)));
    }),
    ("the owner's word", |fence, _, _| drop(fence.open())),
];

/// Answer of another controller, in the order of the commands.
#[derive(Clone, Copy)]
enum OfOther {
    Response(Status, u32),
    Log(Option<CrossControllerResetEntry>),
}

const NO_ENTRY: OfOther = OfOther::Log(None);

fn response(status: u16, result: u32) -> OfOther {
    OfOther::Response(Status(status), result)
}

const fn entry(impacted: u16, uniquifier: u8, status: u8) -> OfOther {
    OfOther::Log(Some(CrossControllerResetEntry {
        impacted: ControllerId(impacted),
        uniquifier,
        status: CrossControllerResetStatus(status),
    }))
}

/// Connects another controller, which answers like this.
fn reset(fence: &mut WriteFence, association: Association, at: Instant, answers: &[OfOther]) {
    let controller = ControllerId(2);
    fence.established(Association { number: 2, controller, ..association });
    let (mut now, mut answers) = (at, answers.iter());
    // The most that the answers need.
    for _ in 0..32 {
        match fence.action(TARGET, now) {
            FenceAction::Reset(command) => {
                let Some(&answer) = answers.next() else { return };
                let answer = match answer {
                    OfOther::Response(status, result) => ResetAnswer::Response(status, result),
                    OfOther::Log(entry) => {
                        ResetAnswer::Log(CrossControllerResetLog { entries: Vec::from_iter(entry) })
                    }
                };
                fence.reset_answered(&command, &answer, now);
            }
            FenceAction::Wait(until) => now = until,
            FenceAction::Probe(_) | FenceAction::None => return,
        }
    }
}

fn proofs() -> String {
    let other = association(1, 1);
    let ids_prove = Association::ids_prove(&options(), "Linux");
    let linux = Association { ids_prove, queues_prove: true, ..other };
    let instance = Some(ControllerInstance { uniquifier: 3, random: 1 });
    let resetting = Association { instance, resets_others: true, ..other };
    let quiescing = Association { quiesce_time: Duration::from_secs(3), ..other };
    let told = options().controller_ids(Some(true));
    let told = Association { ids_prove: Association::ids_prove(&told, "SCRIPT"), ..other };
    let columns = [
        ("proof, Linux", Fence::Proof, linux),
        ("proof", Fence::Proof, other),
        ("proof, told", Fence::Proof, told),
        ("proof, CQT", Fence::Proof, quiescing),
        ("proof, CCR", Fence::Proof, resetting),
        ("linux, CQT", Fence::Linux, quiescing),
        ("time", Fence::Time, other),
        ("off", Fence::Off, linux),
    ];
    let mut text = PROOFS.to_owned();
    let mut line = |name: &str, cells: Vec<&str>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<13}")).collect();
        writeln!(text, "{}", format!("{name:<28} {cells}").trim_end()).unwrap();
    };
    line("", columns.iter().map(|column| column.0).collect());
    let asks = |&(_, mode, association): &(&str, Fence, Association)| {
        let at = Instant::now();
        let mut fence = closed(options().mode(mode), association, at);
        match fence.action(TARGET, at) {
            FenceAction::Probe(_) => "asks",
            FenceAction::None if fence.is_open() => "open",
            FenceAction::None | FenceAction::Wait(_) | FenceAction::Reset(_) => "-",
        }
    };
    line("loss", columns.iter().map(asks).collect());
    for (name, event) in EVENTS {
        let cell = |&(_, mode, association): &(&str, Fence, Association)| {
            let at = Instant::now();
            let mut fence = closed(options().mode(mode), association, at);
            event(&mut fence, association, at);
            if fence.is_open() { "open" } else { "-" }
        };
        line(name, columns.iter().map(cell).collect());
    }
    text
}

fn options() -> FenceOptions {
    FenceOptions::default()
}

#[test]
fn the_matrix_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/fence/matrix.txt");
    let matrix = [LEGEND, &commands(), &proofs()].concat();
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(path, &matrix).unwrap();
    }
    assert_eq!(matrix, std::fs::read_to_string(path).unwrap());
}

#[test]
fn blocks_overlap_where_they_have_one_in_common() {
    let one = blocks(1, 8..16);
    for (namespace, others, overlaps) in [
        (1, 0..8, false),
        (1, 0..9, true),
        (1, 15..16, true),
        (1, 16..17, false),
        (1, 0..u64::MAX, true),
        (2, 8..16, false),
        (u32::MAX, 8..16, true),
    ] {
        let other = blocks(namespace, others.clone());
        assert_eq!(one.overlaps(&other), overlaps, "{namespace}, {others:?}");
        assert_eq!(other.overlaps(&one), overlaps, "{namespace}, {others:?}");
    }
    let last = Sqe::write(NamespaceId(1), u64::MAX - 1, 8);
    assert_eq!(WrittenBlocks::of(&last).unwrap().blocks, u64::MAX - 1..u64::MAX);
}

/// The latest queue pair counts, and every write.
#[test]
fn reports_of_one_association_are_joined() {
    let (at, association) = (Instant::now(), association(3, 1));
    let mut fence = closed(options().mode(Fence::Time), association, at);
    let later = at + Duration::from_secs(1);
    assert!(fence.close(association, later, written(1, 20..21)));
    assert!(!fence.close(association, later, Vec::new()));
    assert_eq!(fence.ended().len(), 1);
    assert_eq!(fence.ended()[0].writes.len(), 2);
    assert!(fence.elapse(at + Duration::from_millis(6001)).is_empty());
    assert_eq!(fence.elapse(later + Duration::from_millis(6001)).len(), 1);
}

/// A poller may report its writes only after the next connection is established.
#[test]
fn a_late_report_closes_unless_the_next_association_proves_the_end() {
    for (next, closes) in [(1, false), (2, true)] {
        let old = Association { ids_prove: true, ..association(1, 1) };
        let mut fence = WriteFence::new(options());
        fence.established(old);
        fence.established(Association { number: 2, controller: ControllerId(next), ..old });
        assert_eq!(fence.close(old, Instant::now(), written(1, 7..8)), closes, "{next}");
    }
}

/// One whose id is in use again must not keep the target from being asked for the others.
#[test]
fn questions_are_spaced_and_all_controllers_are_asked_for() {
    let (at, old) = (Instant::now(), Association { ids_prove: true, ..association(1, 1) });
    let mut fence = closed(options(), old, at);
    let second = Association { number: 2, controller: ControllerId(2), ..old };
    fence.close(second, at, written(1, 0..1));
    let of_controller = |id| ProbeQuestion { controller: ControllerId(id), queue: None };
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(of_controller(1)));
    assert_eq!(fence.action(TARGET, at), FenceAction::Wait(at + FENCE_PROBE_INTERVAL));
    let at = at + FENCE_PROBE_INTERVAL;
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(of_controller(2)));
    let at = at + FENCE_PROBE_INTERVAL;
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(of_controller(1)));
    assert_eq!(fence.answered(TARGET, of_controller(1), ProbeAnswer::Gone).len(), 1);
    let at = at + FENCE_PROBE_INTERVAL;
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(of_controller(2)));
}

/// The blocks of a queue's writes are opened with the queue, and the next queue is asked for at
/// once.
#[test]
fn each_queue_with_writes_is_asked_for() {
    let (at, old) = (Instant::now(), Association { ids_prove: true, ..association(1, 1) });
    let mut fence = closed(options(), Association { queues_prove: true, ..old }, at);
    fence.close(old, at, written(3, 20..21));
    fence.close(old, at, written(1, 30..31));
    let waits = |fence: &WriteFence, lba| fence.admit(&sqe(Opcode::WRITE, lba, false));
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(question(1, 1)));
    assert!(fence.answered(TARGET, question(1, 1), ProbeAnswer::Unproved).is_empty());
    assert_eq!(fence.action(TARGET, at), FenceAction::Wait(at + FENCE_PROBE_INTERVAL));
    let at = at + FENCE_PROBE_INTERVAL;
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(question(1, 3)));
    assert!(fence.answered(TARGET, question(1, 3), ProbeAnswer::QueueGone).is_empty());
    let closed = Admission::Wait(ControllerId(1));
    assert_eq!([7, 20, 30].map(|lba| waits(&fence, lba)), [closed, Admission::Send, closed]);
    assert_eq!(fence.action(TARGET, at), FenceAction::Probe(question(1, 1)));
    let over = fence.answered(TARGET, question(1, 1), ProbeAnswer::QueueGone);
    assert_eq!(over.iter().map(|ended| ended.writes.len()).sum::<usize>(), 2);
    assert!(fence.is_open());
}

/// Each controller of them may execute something: no write is sent until one is over.
#[test]
fn too_many_ended_associations_close_all_blocks() {
    let (at, old) = (Instant::now(), Association { ids_prove: true, ..association(1, 1) });
    let mut fence = WriteFence::new(options());
    let ended = |number: usize| Association {
        number: number as u64,
        controller: ControllerId(u16::try_from(number).unwrap()),
        ..old
    };
    let another = sqe(Opcode::WRITE, 100, false);
    for number in 1..=ENDED_ASSOCIATIONS_MAX {
        assert_eq!(fence.admit(&another), Admission::Send, "{number}");
        fence.close(ended(number), at, written(1, 7..8));
    }
    assert_eq!(fence.admit(&another), Admission::Wait(ControllerId(1)));
    assert_eq!(fence.admit(&sqe(Opcode::READ, 7, false)), Admission::Send);
    fence.answered(TARGET, question(1, 1), ProbeAnswer::Gone);
    assert_eq!(fence.admit(&another), Admission::Send);
}

#[test]
fn without_a_keep_alive_no_time_is_a_proof() {
    let quiesce_time = Duration::from_secs(3);
    let off = Association { keep_alive: Duration::ZERO, quiesce_time, ..association(1, 1) };
    assert_eq!(off.time_to_end(Fence::Time), None);
    let rounded = Association { keep_alive: Duration::from_millis(1100), ..off };
    assert_eq!(rounded.time_to_end(Fence::Proof), Some(Duration::from_secs(7)));
}

/// Answers of another address prove the end of an association only if that is known to be the same
/// node: it has said that it has the queue, while no other association had that id.
#[test]
fn another_address_is_believed_if_it_knew_the_queue() {
    const OTHER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4421);
    let at = Instant::now();
    let first = Association { ids_prove: true, queues_prove: true, ..association(1, 1) };
    for (id, answer, is_believed) in [
        (2, ProbeAnswer::Known, true),
        (2, ProbeAnswer::QueueGone, false),
        (2, ProbeAnswer::Gone, false),
        (2, ProbeAnswer::Unproved, false),
        (1, ProbeAnswer::Known, false),
    ] {
        let mut fence = WriteFence::new(options());
        fence.established(first);
        let controller = ControllerId(id);
        let second =
            Association { number: 2, target: OTHER, first_queue: QueueId(5), controller, ..first };
        fence.established(second);
        let asked = fence.action(OTHER, at);
        let is_asked = asked == FenceAction::Probe(question(1, 1));
        assert_eq!(is_asked, id != 1, "an id that both have tells nothing: {asked:?}");
        fence.answered(OTHER, question(1, 1), answer);
        assert_eq!(fence.action(OTHER, at), FenceAction::None, "once");
        fence.close(first, at, written(3, 7..8));
        let asked = fence.action(OTHER, at);
        assert_eq!(asked == FenceAction::Probe(question(1, 3)), is_believed, "{answer:?}");
        let over = fence.answered(OTHER, question(1, 3), ProbeAnswer::Gone);
        assert_eq!(over.len(), usize::from(is_believed), "{answer:?} of {id}");
        fence.close(first, at, written(3, 7..8));
        let given = Association { number: 3, controller: ControllerId(1), ..second };
        let over = fence.established(given).len();
        assert_eq!(over, usize::from(is_believed), "{answer:?} of {id}");
    }
}

/// Preempt-and-abort proves the end of what its host identifier had sent to that namespace before.
#[test]
fn a_preemption_is_a_proof_for_one_host_and_namespace() {
    let (at, old) = (Instant::now(), association(1, 1));
    let [own, other] = [1, 2].map(Uuid::from_u128);
    let mut fence = closed(options(), old, at);
    let sent_at = at + Duration::from_millis(1);
    assert_eq!(fence.preempted(other, NamespaceId(1), sent_at), []);
    assert_eq!(fence.preempted(own, NamespaceId(2), sent_at), []);
    assert_eq!(fence.preempted(own, NamespaceId(1), at - Duration::from_millis(1)), []);
    assert_eq!(fence.write_count(), 1);
    let written = WrittenBlocks { namespace: NamespaceId(2), blocks: 3..4 };
    fence.close(old, at, vec![OutstandingWrite { queue: QueueId(1), written }]);
    assert_eq!(fence.preempted(own, NamespaceId(1), sent_at), []);
    assert_eq!(fence.write_count(), 1, "that to the other namespace");
    assert_eq!(fence.preempted(own, NamespaceId(2), sent_at).len(), 1);
    assert!(fence.is_open());
}
