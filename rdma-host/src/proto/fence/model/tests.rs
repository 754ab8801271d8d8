//! Exhaustive search for a late write: one host, two controllers of a subsystem, two blocks.
//!
//! A write to the first block is in the old controller when its connection is lost. The host then
//! connects to the new controller, repeats the write, and writes other data to the block. All
//! interleavings of network, target, medium, host and time are searched; a rule is refuted if the
//! block does not hold the data that was answered last. The old controller has two queues, one of
//! them without a command; once it is gone, another process of the same host NQN may be given its
//! id.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::*;
use crate::wire::Opcode;

/// Keep-alive timeout, in ticks of a second.
const KEEP_ALIVE: u8 = 2;
/// Controller Quiesce Time of a target that reports it, in ticks.
const QUIESCE: u8 = 3;
/// Latest loss of the connection, in ticks: later ones differ from it in nothing.
const LOSS_MAX: u8 = 4;
/// End of the search: longer than all times of the rules.
const END: u8 = 20;

const OLD: ControllerId = ControllerId(1);
const NEW: ControllerId = ControllerId(2);
/// Queue of the first copy of the write.
const QUEUE: QueueId = QueueId(1);
const FIRST: Sqe = write(0);
const SECOND: Sqe = write(1);

/// Write to one block.
const fn write(lba: u8) -> Sqe {
    let mut bytes = [0; Sqe::SIZE];
    bytes[0] = Opcode::WRITE.0;
    bytes[4] = 1;
    bytes[40] = lba;
    zerocopy::transmute!(bytes)
}

/// First copy of the write, on the old association.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Write {
    OnTheWire,
    Received,
    Executing,
    Applied,
    Dropped,
}

/// Old controller, as the target has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Old {
    Live,
    /// The target noticed the loss at this time.
    Lost(u8),
    /// A controller whose id is free.
    Freed,
    /// Another process was given its id; true if that has a queue of the same id as the write's.
    Reused(bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Host {
    Live,
    /// The queue pairs were destroyed at this time.
    Closed(u8),
    /// As before; there is a new connection, to the controller with this id.
    Connected(u8, u16),
    /// The repetition was answered.
    Repeated(u8, u16),
    /// The other data was answered.
    Responded,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Data {
    Initial,
    First,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    write: Write,
    old: Old,
    host: Host,
    /// Time at which the old controller received the last command.
    received_at: u8,
    is_linked: bool,
    /// True while the old controller has the queue of the write.
    has_queue: bool,
    /// True while it has the other queue.
    has_idle_queue: bool,
    /// True while it has a queue of another process, which had a controller of the same id before,
    /// and connects its queue late.
    has_late_queue: bool,
    /// Answer of the target that the rule asks for and believes.
    answer: Option<Proof>,
    medium: Data,
}

/// Answers of the target.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    /// No knowledge of the old controller.
    Gone,
    /// The controller of this id does not have the queue of the write.
    QueueGone,
    /// No other queue.
    IdleQueueGone,
    /// A queue that the old controller never had.
    AnotherQueue,
}

/// Properties of a target.
#[derive(Clone, Copy)]
struct Target {
    /// Time in which a lost controller ends its commands; none for nvmet.
    quiesce: Option<u8>,
    /// True if it frees an id while commands of the controller are left.
    frees_early: bool,
}

const CONFORMING: Target = Target { quiesce: Some(QUIESCE), frees_early: false };
const NVMET: Target = Target { quiesce: None, frees_early: false };

/// Rule by which the host sends the next write.
#[derive(Clone, Copy, Debug)]
enum Rule {
    None,
    /// No repetition: the owner is told that the outcome is unknown, and writes other data.
    UnknownAlone,
    /// These ticks since the queue pairs were destroyed.
    Wait(u8),
    /// These ticks since the last command that was answered.
    WaitFromAnswer(u8),
    /// The controller says that its shutdown is complete.
    Shutdown,
    /// The new connection is given another id than the old one.
    AnotherId,
    /// The controller of the old id lacks a queue that the old one had.
    AnyQueueGone,
    /// The controller of the old id has a queue that the old one never had.
    AnotherQueue,
    /// The rules of [`WriteFence`], in this mode.
    Fence(Fence, Ids),
}

impl Rule {
    /// Returns true if the target is asked for the old controller.
    fn asks(self) -> bool {
        let with_ids = matches!(self, Self::Fence(_, ids) if ids != Ids::None);
        with_ids || matches!(self, Self::AnotherId | Self::AnyQueueGone | Self::AnotherQueue)
    }
}

/// Ids whose absence is a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Ids {
    None,
    Controllers,
    Queues,
}

/// Knowledge of the host when it decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    closed_at: u8,
    now: u8,
    /// Id of the new controller.
    id: u16,
    answer: Option<Proof>,
}

impl Known {
    /// Decides by the rules of [`WriteFence`] about a write to the first block.
    fn admits(self, mode: Fence, ids: Ids, target: Target) -> bool {
        /// Address of the target.
        const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4420);
        let association = |number, controller| Association {
            number,
            target: ADDRESS,
            host_id: uuid::Uuid::nil(),
            first_queue: QueueId(1),
            controller,
            keep_alive: Duration::from_secs(KEEP_ALIVE.into()),
            quiesce_time: Duration::from_secs(target.quiesce.unwrap_or(0).into()),
            ids_prove: ids >= Ids::Controllers,
            queues_prove: ids >= Ids::Queues,
            instance: None,
            resets_others: false,
            nodes_agree: false,
        };
        let closed_at = Instant::now();
        let now = closed_at + Duration::from_secs((self.now - self.closed_at).into());
        let mut fence = WriteFence::new(FenceOptions::default().mode(mode));
        let written = WrittenBlocks::of(&FIRST).expect("a write has an effect");
        fence.established(association(1, OLD));
        let write = OutstandingWrite { queue: QUEUE, written };
        fence.close(association(1, OLD), closed_at, vec![write]);
        fence.established(association(2, ControllerId(self.id)));
        let question = match fence.action(ADDRESS, closed_at) {
            FenceAction::Probe(question) => Some(question),
            FenceAction::None | FenceAction::Wait(_) | FenceAction::Reset(_) => None,
        };
        match (self.answer, question) {
            (Some(Proof::Gone), Some(question)) => {
                drop(fence.answered(ADDRESS, question, ProbeAnswer::Gone))
            }
            (Some(Proof::QueueGone), Some(question)) if question.queue == Some(QUEUE) => {
                fence.answered(ADDRESS, question, ProbeAnswer::QueueGone);
            }
            _ => {}
        }
        fence.elapse(now);
        assert_eq!(fence.admit(&SECOND), Admission::Send, "another block is not closed");
        fence.admit(&FIRST) == Admission::Send
    }
}

impl State {
    const START: Self = Self {
        now: 0,
        write: Write::OnTheWire,
        old: Old::Live,
        host: Host::Live,
        received_at: 0,
        is_linked: true,
        has_queue: true,
        has_idle_queue: true,
        has_late_queue: false,
        answer: None,
        medium: Data::Initial,
    };

    /// Same state without what has no consequences any more.
    fn normal(self) -> Self {
        let received_at = if self.old == Old::Live { self.received_at } else { 0 };
        Self { received_at, ..self }
    }

    fn is_left(&self) -> bool {
        matches!(self.write, Write::Received | Write::Executing)
    }

    /// Returns true if the host may write to the first block.
    fn may_write(&self, search: &mut Search) -> bool {
        let (Host::Connected(closed_at, id) | Host::Repeated(closed_at, id)) = self.host else {
            return false;
        };
        match search.rule {
            Rule::None | Rule::UnknownAlone => true,
            Rule::Wait(ticks) => self.now >= closed_at + ticks,
            Rule::WaitFromAnswer(ticks) => self.now >= ticks,
            // nvmet reports it at once.
            Rule::Shutdown => self.is_linked,
            Rule::AnotherId => id != OLD.0,
            Rule::AnyQueueGone | Rule::AnotherQueue => self.answer.is_some(),
            Rule::Fence(mode, ids) => {
                let (target, now) = (search.target, self.now);
                let known = Known { closed_at, now, id, answer: self.answer };
                let admit = || known.admits(mode, ids, target);
                *search.admissions.entry(known).or_insert_with(admit)
            }
        }
    }

    /// States that may follow.
    fn next(&self, search: &mut Search) -> Vec<(&'static str, Self)> {
        let mut all = self.next_of_target(search.rule, search.target);
        let mut add = |what, next| all.push((what, next));
        let now = self.now;
        match self.host {
            Host::Live if now <= LOSS_MAX => {
                add("the connection is lost", Self { host: Host::Closed(now), ..*self });
            }
            Host::Closed(closed_at) => {
                let id = if self.old == Old::Freed { OLD } else { NEW };
                add("a new connection", Self { host: Host::Connected(closed_at, id.0), ..*self });
            }
            Host::Connected(closed_at, id) if self.may_write(search) => {
                if matches!(search.rule, Rule::UnknownAlone) {
                    let host = Host::Responded;
                    add("other data is answered", Self { host, medium: Data::Other, ..*self });
                } else {
                    let host = Host::Repeated(closed_at, id);
                    let repeated = Self { host, medium: Data::First, ..*self };
                    add("the repetition is answered", repeated);
                }
            }
            Host::Repeated(..) if self.may_write(search) => {
                let host = Host::Responded;
                add("other data is answered", Self { host, medium: Data::Other, ..*self });
            }
            _ => {}
        }
        if matches!(self.host, Host::Connected(..)) && self.answer.is_none() {
            for (proof, what) in self.answers(search.rule) {
                add(what, Self { answer: Some(proof), ..*self });
            }
        }
        all
    }

    /// Answers of the target that the rule asks for, as far as they are a proof to it.
    fn answers(&self, rule: Rule) -> Vec<(Proof, &'static str)> {
        let is_freed = self.old == Old::Freed;
        let (has_queue, has_another) = match self.old {
            Old::Live | Old::Lost(_) => (self.has_queue, self.has_late_queue),
            Old::Freed => (false, false),
            Old::Reused(has_queue) => (has_queue, true),
        };
        let gone = (Proof::Gone, "the target does not know the old controller");
        let queue_gone = (Proof::QueueGone, "the target does not know the queue of the write");
        let idle = (Proof::IdleQueueGone, "the target does not know the other queue");
        let another = (Proof::AnotherQueue, "the target has a queue that the old one never had");
        let asks_queue = matches!(rule, Rule::AnyQueueGone | Rule::Fence(_, Ids::Queues));
        let known = !is_freed;
        [
            (is_freed && matches!(rule, Rule::Fence(_, ids) if ids != Ids::None)).then_some(gone),
            (known && !has_queue && asks_queue).then_some(queue_gone),
            (known && !self.has_idle_queue && matches!(rule, Rule::AnyQueueGone)).then_some(idle),
            (has_another && matches!(rule, Rule::AnotherQueue)).then_some(another),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn next_of_target(&self, rule: Rule, target: Target) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut add = |what, next| all.push((what, next));
        let (now, is_closed) = (self.now, self.host != Host::Live);
        let expires_at = self.received_at + KEEP_ALIVE;
        match (self.write, self.old) {
            (Write::OnTheWire, Old::Live) if self.is_linked && !is_closed => {
                let received = Self { write: Write::Received, received_at: now, ..*self };
                add("the write is received", received);
            }
            (Write::OnTheWire, _) if is_closed => {
                add("the write is lost", Self { write: Write::Dropped, ..*self });
            }
            (Write::Received, old) => {
                add("the write is begun", Self { write: Write::Executing, ..*self });
                if old != Old::Live {
                    add("the write is dropped", Self { write: Write::Dropped, ..*self });
                }
            }
            (Write::Executing, _) => {
                let applied = Self { write: Write::Applied, medium: Data::First, ..*self };
                add("the first copy reaches the medium", applied);
            }
            _ => {}
        }
        if self.is_linked {
            add("the link dies", Self { is_linked: false, ..*self });
        }
        // Traffic restarts the target's timer once.
        let notices = self.old == Old::Live && now >= expires_at + KEEP_ALIVE;
        let ends = matches!((self.old, target.quiesce), (Old::Lost(since), Some(quiesce))
            if now >= since + quiesce && self.is_left());
        if now < END && !notices && !ends {
            add("", Self { now: now + 1, ..*self });
        }
        all.extend(self.next_of_old(rule, target));
        all
    }

    /// States that follow from what becomes of the old controller.
    fn next_of_old(&self, rule: Rule, target: Target) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut add = |what, next| all.push((what, next));
        let (now, is_closed) = (self.now, self.host != Host::Live);
        match self.old {
            Old::Live => {
                let lost = Self { old: Old::Lost(now), ..*self };
                if now >= self.received_at + KEEP_ALIVE {
                    add("keep-alive runs out at the target", lost);
                }
                if is_closed && self.is_linked {
                    add("the target sees the disconnect", lost);
                }
                if matches!(rule, Rule::AnotherQueue) {
                    let late = Self { has_late_queue: true, ..*self };
                    add("another process connects a queue late", late);
                }
            }
            Old::Lost(_) => {
                let is_left = self.is_left() && !target.frees_early;
                if self.has_idle_queue {
                    add("the other queue is ended", Self { has_idle_queue: false, ..*self });
                }
                if self.has_queue && !is_left {
                    add("the queue of the write is ended", Self { has_queue: false, ..*self });
                }
                if !self.has_queue && !self.has_idle_queue {
                    let freed = Self { old: Old::Freed, has_late_queue: false, ..*self };
                    add("the old controller is freed", freed);
                }
            }
            Old::Freed if rule.asks() => {
                for same in [false, true] {
                    let reused = Self { old: Old::Reused(same), ..*self };
                    add("another process is given its id", reused);
                }
            }
            Old::Freed | Old::Reused(_) => {}
        }
        all
    }
}

/// Search of all states that a rule allows with a target.
struct Search {
    rule: Rule,
    target: Target,
    /// Decisions of the fence.
    admissions: HashMap<Known, bool>,
}

/// Outcome of a search.
enum Outcome {
    /// The rule holds.
    Holds {
        /// True if the other data was ever written.
        progress: bool,
        /// All states.
        states: Vec<State>,
    },
    /// Steps to a block with the data of the late write.
    Refuted(Vec<String>),
}

/// Searches all states that a rule allows, breadth first: the steps to a failure are the fewest.
fn search(rule: Rule, target: Target) -> Outcome {
    let mut search = Search { rule, target, admissions: HashMap::new() };
    // To other rules the queue without a command is nothing.
    let start = State { has_idle_queue: matches!(rule, Rule::AnyQueueGone), ..State::START };
    let mut from: HashMap<State, Option<(State, &str)>> = HashMap::from([(start, None)]);
    let mut queue = VecDeque::from([start]);
    let mut progress = false;
    while let Some(state) = queue.pop_front() {
        if state.host == Host::Responded {
            progress = true;
            if state.medium != Data::Other {
                let (mut steps, mut at) = (Vec::new(), state);
                while let Some((earlier, what)) = from[&at] {
                    if !what.is_empty() {
                        steps.push(format!("{:>2} {what}", earlier.now));
                    }
                    at = earlier;
                }
                steps.reverse();
                return Outcome::Refuted(steps);
            }
        }
        for (what, next) in state.next(&mut search) {
            let next = next.normal();
            from.entry(next).or_insert_with(|| {
                queue.push_back(next);
                Some((state, what))
            });
        }
    }
    Outcome::Holds { progress, states: from.into_keys().collect() }
}

/// States of the old controller in which a write waits, and does so whatever happens.
fn stuck(rule: Rule, target: Target) -> HashSet<Old> {
    let Outcome::Holds { states, .. } = search(rule, target) else { panic!("{rule:?}") };
    let mut search = Search { rule, target, admissions: HashMap::new() };
    let mut before: HashMap<State, Vec<State>> = HashMap::new();
    for state in &states {
        for (_, next) in state.next(&mut search) {
            before.entry(next.normal()).or_default().push(*state);
        }
    }
    let is_answered = |state: &&State| state.host == Host::Responded;
    let mut proceeding: Vec<_> = states.iter().filter(is_answered).copied().collect();
    let mut proceeds = HashSet::new();
    while let Some(state) = proceeding.pop() {
        if proceeds.insert(state) {
            proceeding.extend(before.get(&state).into_iter().flatten());
        }
    }
    let waits = |state: &&State| matches!(state.host, Host::Connected(..) | Host::Repeated(..));
    let stuck = states.iter().filter(waits).filter(|&state| !proceeds.contains(state));
    stuck.map(|state| state.old).collect()
}

#[track_caller]
fn holds(rule: Rule, target: Target) {
    match search(rule, target) {
        Outcome::Holds { progress, .. } => assert!(progress, "{rule:?} lets nothing be written"),
        Outcome::Refuted(steps) => panic!("{rule:?}:\n{}", steps.join("\n")),
    }
}

/// The last step is the first copy that reaches the medium.
#[track_caller]
fn is_refuted(rule: Rule, target: Target) {
    let Outcome::Refuted(steps) = search(rule, target) else { panic!("{rule:?} holds") };
    println!("{rule:?}:\n{}", steps.join("\n"));
    assert!(steps.last().is_some_and(|last| last.contains("reaches the medium")), "{steps:?}");
}

/// Times beyond which a write is let through: the shortest that holds, in ticks.
const TWICE: u8 = 2 * KEEP_ALIVE + QUIESCE;

#[test]
fn rules_without_a_fence_are_refuted() {
    for target in [CONFORMING, NVMET] {
        is_refuted(Rule::None, target);
        is_refuted(Rule::Fence(Fence::Off, Ids::Queues), target);
        is_refuted(Rule::UnknownAlone, target);
        is_refuted(Rule::Shutdown, target);
    }
}

#[test]
fn shorter_times_are_refuted() {
    for target in [CONFORMING, NVMET] {
        is_refuted(Rule::Wait(KEEP_ALIVE), target);
        is_refuted(Rule::Wait(KEEP_ALIVE + QUIESCE), target);
        is_refuted(Rule::Wait(TWICE), target);
        is_refuted(Rule::WaitFromAnswer(TWICE + 1), target);
    }
    holds(Rule::Wait(TWICE + 1), CONFORMING);
    is_refuted(Rule::Wait(TWICE + 1), NVMET);
}

#[test]
fn the_fence_holds_where_the_target_keeps_to_what_it_reports() {
    for mode in [Fence::Proof, Fence::Linux, Fence::Time] {
        holds(Rule::Fence(mode, Ids::None), CONFORMING);
    }
    for ids in [Ids::Controllers, Ids::Queues] {
        holds(Rule::Fence(Fence::Proof, ids), CONFORMING);
        holds(Rule::Fence(Fence::Proof, ids), NVMET);
    }
    holds(Rule::Fence(Fence::Linux, Ids::Queues), NVMET);
}

/// Ids that are given to another process: what the answers about the controller of this id prove.
#[test]
fn weaker_answers_about_an_id_in_use_are_refuted() {
    for target in [CONFORMING, NVMET] {
        is_refuted(Rule::AnotherId, target);
        is_refuted(Rule::AnyQueueGone, target);
        is_refuted(Rule::AnotherQueue, target);
    }
}

/// With answers about controllers alone, a write waits for as long as another process has the id.
/// With those about queues, it does so only if both have a queue of the same id.
#[test]
fn an_id_in_use_again_keeps_the_fence_closed_only_with_the_same_queue() {
    let stuck = |ids| stuck(Rule::Fence(Fence::Proof, ids), NVMET);
    assert!(stuck(Ids::Controllers) == HashSet::from([false, true].map(Old::Reused)));
    assert!(stuck(Ids::Queues) == HashSet::from([Old::Reused(true)]));
}

/// Without a quiesce time, and with ids that prove nothing, the fence stays closed.
#[test]
fn without_a_proof_nothing_is_written() {
    for mode in [Fence::Proof, Fence::Linux] {
        let outcome = search(Rule::Fence(mode, Ids::None), NVMET);
        assert!(matches!(outcome, Outcome::Holds { progress: false, .. }), "{mode:?}");
    }
}

/// Assumptions, as the options call them, can fail.
#[test]
fn assumptions_are_refuted() {
    is_refuted(Rule::Fence(Fence::Time, Ids::None), NVMET);
    for ids in [Ids::Controllers, Ids::Queues] {
        is_refuted(Rule::Fence(Fence::Proof, ids), Target { frees_early: true, ..NVMET });
    }
}
