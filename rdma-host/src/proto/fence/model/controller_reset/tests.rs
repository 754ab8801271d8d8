//! Exhaustive search for a late write where a controller is asked to reset another one.
//!
//! A write is in the old controller when its connection is lost. The host is connected to another
//! controller of the subsystem, asks it to reset the old one, repeats the write, and writes other
//! data. All interleavings of target, medium and host are searched; a rule is refuted if the block
//! does not hold the data that was answered last. Time has no part: the target limits none.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    tests::{TARGET, association, closed},
    *,
};
use crate::{
    proto::{ResetAnswer, ResetStep},
    wire::{
        CrossControllerResetEntry, CrossControllerResetLog, CrossControllerResetStatus, NamespaceId,
    },
};

/// Most answers that the host asks for.
const ANSWERS_MAX: usize = 6;

const OLD: ControllerId = ControllerId(1);
const INSTANCE: ControllerInstance = ControllerInstance { uniquifier: 3, random: 0xc1c1 };

/// First copy of the write, on the old association.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Write {
    Received,
    Executing,
    Applied,
    Dropped,
}

/// Controller of the old id, as the target has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Old {
    /// The old one.
    Live,
    /// None.
    Freed,
    /// One of another process, with another CIRN.
    Reused,
}

/// Reset that was asked for, as the target has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reset {
    None,
    /// Reset of the old controller, or of the one that has its id now.
    InProgress(Old),
    Ended(CrossControllerStatus),
}

/// Outcome of a reset.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum CrossControllerStatus {
    Successful,
    Failed,
}

/// Answer to the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Refused,
    Begun,
    AtOnce,
    /// Entries of the old controller's ids: of an earlier reset, which succeeded, and of this one.
    Log(bool, Reset),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Host {
    Connected,
    /// The repetition was answered.
    Repeated,
    /// The other data was answered.
    Responded,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Data {
    Initial,
    First,
    Other,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    write: Write,
    old: Old,
    reset: Reset,
    /// True while the log page has the entry of an earlier reset of a controller of these ids.
    has_earlier: bool,
    host: Host,
    answers: Vec<Answer>,
    medium: Data,
}

/// Properties of a target.
#[derive(Clone, Copy)]
struct Target {
    /// True if it frees an id while commands of the controller are left.
    frees_early: bool,
}

/// Rule by which the host sends the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The command has succeeded, whether or not the reset has only begun.
    Begun,
    /// The log page has a reset that succeeded, of whatever controller.
    EntryOfAnother,
    /// The log page has a reset of these ids that succeeded, perhaps before the command.
    EarlierEntry,
    /// The reset has ended, perhaps without success.
    Ended,
    /// The command names the instance that has the id after the loss.
    LaterInstance,
    /// The rules of [`WriteFence`].
    Fence,
}

impl Rule {
    /// Next command of the host.
    fn step(self, answers: &[Answer]) -> Option<ResetStep> {
        if answers.len() >= ANSWERS_MAX {
            return None;
        }
        match (self, answers.len()) {
            (Self::Fence, _) => replay(answers).1,
            (Self::EarlierEntry, 0) | (_, 1) => Some(ResetStep::Reset),
            (_, 0) => Some(ResetStep::ReadLog { remove_ended: true }),
            _ => Some(ResetStep::ReadLog { remove_ended: false }),
        }
    }

    /// Returns true if the host may write after these answers.
    fn admits(self, answers: &[Answer]) -> bool {
        let after = answers.iter().skip_while(|answer| **answer != Answer::Begun);
        let logs: Vec<_> = after.filter_map(Answer::log).collect();
        let ended = |status| move |&(_, reset): &(_, Reset)| reset == Reset::Ended(status);
        let succeeded = ended(CrossControllerStatus::Successful);
        let at_once = answers.contains(&Answer::AtOnce);
        match self {
            Self::Begun => at_once || answers.contains(&Answer::Begun),
            // There is one.
            Self::EntryOfAnother => at_once || !logs.is_empty(),
            Self::EarlierEntry => at_once || logs.iter().any(|log| log.0 || succeeded(log)),
            Self::Ended => {
                let failed = ended(CrossControllerStatus::Failed);
                at_once || logs.iter().any(|log| succeeded(log) || failed(log))
            }
            Self::LaterInstance => at_once || logs.iter().any(succeeded),
            Self::Fence => replay(answers).0,
        }
    }
}

impl Answer {
    fn log(&self) -> Option<(bool, Reset)> {
        match *self {
            Self::Log(has_earlier, reset) => Some((has_earlier, reset)),
            _ => None,
        }
    }

    /// Answer as the driver reports it.
    fn to_reset_answer(self) -> ResetAnswer {
        let success = Status::SUCCESS;
        match self {
            Self::Refused => {
                ResetAnswer::Response(Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED, 0)
            }
            Self::Begun => ResetAnswer::Response(success, 0b110),
            Self::AtOnce => ResetAnswer::Response(success, 1),
            Self::Log(has_earlier, reset) => {
                let entry = |impacted, uniquifier, status| CrossControllerResetEntry {
                    impacted,
                    uniquifier,
                    status,
                };
                let status = match reset {
                    Reset::None => None,
                    Reset::InProgress(_) => Some(CrossControllerResetStatus::IN_PROGRESS),
                    Reset::Ended(CrossControllerStatus::Successful) => {
                        Some(CrossControllerResetStatus::SUCCESSFUL)
                    }
                    Reset::Ended(CrossControllerStatus::Failed) => {
                        Some(CrossControllerResetStatus::FAILED)
                    }
                };
                let succeeded = CrossControllerResetStatus::SUCCESSFUL;
                let of_ids = |status| entry(OLD, INSTANCE.uniquifier, status);
                let mut entries = vec![
                    entry(ControllerId(9), INSTANCE.uniquifier, succeeded),
                    entry(OLD, INSTANCE.uniquifier + 1, succeeded),
                ];
                entries.extend(has_earlier.then(|| of_ids(succeeded)));
                entries.extend(status.map(of_ids));
                ResetAnswer::Log(CrossControllerResetLog { entries })
            }
        }
    }
}

/// Gives the answers to a [`WriteFence`]. Returns whether a write is admitted, and the next
/// command.
fn replay(answers: &[Answer]) -> (bool, Option<ResetStep>) {
    let old = Association { instance: Some(INSTANCE), ..association(1, OLD.0) };
    let other = Association { resets_others: true, ..association(2, 2) };
    let mut now = Instant::now();
    let mut fence = closed(FenceOptions::default(), old, now);
    fence.established(other);
    let mut left = answers.iter();
    let admits =
        |fence: &WriteFence| fence.admit(&Sqe::write(NamespaceId(1), 7, 1)) == Admission::Send;
    loop {
        match fence.action(TARGET, now) {
            FenceAction::Reset(command) => match left.next() {
                Some(answer) => {
                    drop(fence.reset_answered(&command, &answer.to_reset_answer(), now))
                }
                None => return (admits(&fence), Some(command.step)),
            },
            FenceAction::Wait(until) => now = until,
            FenceAction::Probe(_) | FenceAction::None => return (admits(&fence), None),
        }
    }
}

impl State {
    /// States that may follow.
    fn next(&self, rule: Rule, target: Target) -> Vec<(&'static str, Self)> {
        let mut all = self.next_of_target(target);
        let mut add = |what, next| all.push((what, next));
        if self.host == Host::Connected
            && let Some(step) = rule.step(&self.answers)
        {
            for (what, answer, next) in self.answers_to(step, rule, target) {
                let answers = [self.answers.as_slice(), &[answer]].concat();
                add(what, Self { answers, ..next });
            }
        }
        if rule.admits(&self.answers) {
            match self.host {
                Host::Connected => {
                    let next = Self { host: Host::Repeated, medium: Data::First, ..self.clone() };
                    add("the repetition is answered", next);
                }
                Host::Repeated => {
                    let next = Self { host: Host::Responded, medium: Data::Other, ..self.clone() };
                    add("other data is answered", next);
                }
                Host::Responded => {}
            }
        }
        all
    }

    fn next_of_target(&self, target: Target) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut add = |what, next| all.push((what, next));
        match self.write {
            Write::Received => {
                add("the write is begun", Self { write: Write::Executing, ..self.clone() });
            }
            Write::Executing => {
                let applied = Self { write: Write::Applied, medium: Data::First, ..self.clone() };
                add("the first copy reaches the medium", applied);
            }
            Write::Applied | Write::Dropped => {}
        }
        let is_left = matches!(self.write, Write::Received | Write::Executing);
        match self.old {
            Old::Live if !is_left || target.frees_early => {
                add("the old controller is freed", Self { old: Old::Freed, ..self.clone() });
            }
            Old::Freed => {
                add("another process is given its id", Self { old: Old::Reused, ..self.clone() });
            }
            _ => {}
        }
        if let Reset::InProgress(of) = self.reset {
            let ended = |status| Self { reset: Reset::Ended(status), ..self.clone() };
            if let Some(next) = ended(CrossControllerStatus::Successful).reset_by(of) {
                add("the reset succeeds", next);
            }
            add("the reset fails", ended(CrossControllerStatus::Failed));
        }
        all
    }

    /// State in which a controller is reset; none while a command of it is executed.
    fn reset_by(self, of: Old) -> Option<Self> {
        match (of, self.write) {
            (Old::Live, Write::Executing) => None,
            (Old::Live, Write::Received) => {
                Some(Self { write: Write::Dropped, old: Old::Freed, ..self })
            }
            (Old::Live, _) => Some(Self { old: Old::Freed, ..self }),
            _ => Some(self),
        }
    }

    /// Answers of the target to a command.
    fn answers_to(
        &self,
        step: ResetStep,
        rule: Rule,
        target: Target,
    ) -> Vec<(&'static str, Answer, Self)> {
        let ResetStep::ReadLog { remove_ended } = step else {
            return self.answers_to_reset(rule, target);
        };
        let answer = Answer::Log(self.has_earlier, self.reset);
        let mut next = self.clone();
        if remove_ended {
            next.has_earlier = false;
            if matches!(next.reset, Reset::Ended(_)) {
                next.reset = Reset::None;
            }
        }
        vec![("the log page is read", answer, next)]
    }

    fn answers_to_reset(&self, rule: Rule, target: Target) -> Vec<(&'static str, Answer, Self)> {
        let mut all = vec![("the reset is refused", Answer::Refused, self.clone())];
        // The controller that the command names, if it is there.
        let named = match (rule, self.old) {
            (Rule::LaterInstance, Old::Reused) | (_, Old::Live) => Some(self.old),
            _ => None,
        };
        if let Some(named) = named {
            let begun = Self { reset: Reset::InProgress(named), ..self.clone() };
            all.push(("the reset is begun", Answer::Begun, begun));
        }
        let is_over = named.is_none() && !target.frees_early;
        let at_once = self.clone().reset_by(named.unwrap_or(Old::Freed));
        if let Some(next) = at_once.filter(|_| named.is_some() || is_over) {
            all.push(("it is reset at once", Answer::AtOnce, next));
        }
        all
    }
}

/// Searches all states that a rule allows, breadth first. Returns whether the other data was ever
/// written, or the steps to a block with the data of the late write.
fn search(rule: Rule, target: Target) -> Result<bool, Vec<&'static str>> {
    let start = |has_earlier| State {
        write: Write::Received,
        old: Old::Live,
        reset: Reset::None,
        has_earlier,
        host: Host::Connected,
        answers: Vec::new(),
        medium: Data::Initial,
    };
    let starts = [false, true].map(start);
    let mut from: HashMap<State, Option<(State, &str)>> = HashMap::new();
    from.extend(starts.iter().map(|start| (start.clone(), None)));
    let mut queue = VecDeque::from(starts);
    let mut progress = false;
    while let Some(state) = queue.pop_front() {
        progress |= state.host == Host::Responded;
        if state.host == Host::Responded && state.medium != Data::Other {
            let (mut steps, mut at) = (Vec::new(), &state);
            while let Some((earlier, what)) = &from[at] {
                steps.push(*what);
                at = earlier;
            }
            steps.reverse();
            return Err(steps);
        }
        for (what, next) in state.next(rule, target) {
            if !from.contains_key(&next) {
                from.insert(next.clone(), Some((state.clone(), what)));
                queue.push_back(next);
            }
        }
    }
    Ok(progress)
}

const CONFORMING: Target = Target { frees_early: false };
const FREES_EARLY: Target = Target { frees_early: true };

#[test]
fn a_reset_that_has_succeeded_is_a_proof() {
    for target in [CONFORMING, FREES_EARLY] {
        assert_eq!(search(Rule::Fence, target), Ok(true));
    }
}

/// Each of these believes more than the rules of the fence do.
#[test]
fn weaker_rules_of_resets_are_refuted() {
    let weaker = [Rule::Begun, Rule::EntryOfAnother, Rule::EarlierEntry, Rule::Ended];
    let mut refuted = HashSet::new();
    for target in [CONFORMING, FREES_EARLY] {
        for rule in weaker {
            let steps = search(rule, target).expect_err(&format!("{rule:?} holds"));
            println!("{rule:?}:\n{}", steps.join("\n"));
            assert_eq!(steps.last(), Some(&"the first copy reaches the medium"));
            refuted.insert(steps);
        }
    }
    assert!(refuted.len() >= weaker.len(), "each by steps of its own");
}

/// The identity has to be known from before the loss, where ids are given again early.
#[test]
fn an_instance_that_was_learned_after_the_loss_is_refuted() {
    let steps = search(Rule::LaterInstance, FREES_EARLY).expect_err("it holds");
    println!("{:?}:\n{}", Rule::LaterInstance, steps.join("\n"));
    assert!(steps.contains(&"another process is given its id"), "{steps:?}");
}
