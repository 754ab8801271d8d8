//! Cross-Controller Reset (TP8028): a controller of the subsystem resets the one of an ended
//! association, which then executes nothing more.
//!
//! ```text
//!  log page ──► it has an entry of the controller ──► log page, ended entries removed ─┐
//!     ▲  │                                                                            │
//!     │  └──► it has none ──► the command ──► reset at once: a proof                   │
//!     │                            │                                                  │
//!     │                            └──► begun ──► log page, until its entry has ended  │
//!     └──────────── refused, failed, or no answer: after a while ◄─────────────────────┘
//! ```
//!
//! An entry has no CIRN: it may be of an earlier controller with the same ids. So the command is
//! sent only while the log page has no entry of these ids, and one that succeeded later is of the
//! command.

use std::time::Instant;

use crate::{
    config::{
        ENDED_ASSOCIATIONS_MAX, FENCE_PROBE_INTERVAL, FENCE_PROBE_TIMEOUT, FENCE_RESET_INTERVAL,
        FENCE_RESET_TIMEOUT,
    },
    proto::fence::Association,
    wire::{
        ControllerId, ControllerInstance, CrossControllerResetLog, CrossControllerResetStatus, Sqe,
        Status, is_immediate_reset,
    },
};

/// Admin command of a reset, for the latest controller at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetCommand {
    /// Number of the ended association.
    pub ended: u64,
    /// Number of the association whose controller executes the command.
    pub through: u64,
    /// Controller to reset.
    pub controller: ControllerId,
    /// Identity that tells it from later controllers of its id.
    pub instance: ControllerInstance,
    /// Command.
    pub step: ResetStep,
}

/// Command of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetStep {
    /// Get Log Page, of the Cross-Controller Reset log page.
    ReadLog {
        /// True to remove the entries of resets that have ended.
        remove_ended: bool,
    },
    /// Cross-Controller Reset.
    Reset,
}

impl ResetCommand {
    /// Cross-Controller Reset as a command.
    #[must_use]
    pub fn to_sqe(&self) -> Sqe {
        Sqe::cross_controller_reset(self.controller, self.instance)
    }
}

/// Answer to a [`ResetCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetAnswer {
    /// Status and result of Cross-Controller Reset.
    Response(Status, u32),
    /// The log page.
    Log(CrossControllerResetLog),
    /// None in time, or a refusal to send the log page.
    None,
}

/// Progress of a reset, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The log page may have entries of the controller.
    Clearing { remove_ended: bool },
    /// The log page has none.
    Cleared,
    /// The reset has begun; it is given up at this time.
    Begun(Instant),
}

/// Reset that is tried.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    ended: u64,
    through: u64,
    progress: Progress,
    /// Time of the next command.
    next: Instant,
}

/// Refusal of a reset.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    ended: u64,
    through: u64,
    /// Time of the next attempt; `None` if there is none on this association.
    until: Option<Instant>,
    /// True if ended entries of the log page are in the way.
    is_log_full: bool,
}

/// Next command of the resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetAction {
    None,
    Execute(ResetCommand),
    Wait(Instant),
}

/// Resets of the controllers of ended associations, one at a time for each.
#[derive(Clone, Debug, Default)]
pub(super) struct ControllerResets {
    attempts: Vec<Attempt>,
    refusals: Vec<Refusal>,
    /// Numbers of the associations whose controllers are reset: writes of these may be reported
    /// later.
    done: Vec<u64>,
}

impl ControllerResets {
    /// Next command for the controller of `through`, of which `latest` are the controllers in use.
    pub(super) fn action(
        &mut self,
        ended: &Association,
        through: &Association,
        latest: &[Association],
        now: Instant,
    ) -> ResetAction {
        let Some(instance) = ended.instance else { return ResetAction::None };
        // The connection that it was tried on may be lost.
        let is_overdue = |one: &Attempt| now > one.next + 2 * FENCE_PROBE_TIMEOUT;
        self.attempts.retain(|one| {
            latest.iter().any(|latest| latest.number == one.through) && !is_overdue(one)
        });
        let is_of = |one: &&mut Attempt| one.ended == ended.number;
        let attempt = match self.attempts.iter_mut().find(is_of) {
            Some(attempt) if attempt.through != through.number => return ResetAction::None,
            Some(attempt) => attempt,
            None => match self.begin(ended.number, through.number, now) {
                Ok(attempt) => attempt,
                Err(action) => return action,
            },
        };
        if attempt.next > now {
            return ResetAction::Wait(attempt.next);
        }
        attempt.next = now + FENCE_PROBE_INTERVAL;
        let step = match attempt.progress {
            Progress::Clearing { remove_ended } => ResetStep::ReadLog { remove_ended },
            Progress::Cleared => ResetStep::Reset,
            Progress::Begun(_) => ResetStep::ReadLog { remove_ended: false },
        };
        let (ended, through, controller) = (ended.number, through.number, ended.controller);
        ResetAction::Execute(ResetCommand { ended, through, controller, instance, step })
    }

    /// Begins an attempt, unless it was refused.
    fn begin(
        &mut self,
        ended: u64,
        through: u64,
        now: Instant,
    ) -> Result<&mut Attempt, ResetAction> {
        let is_same = |one: &Refusal| (one.ended, one.through) == (ended, through);
        let mut remove_ended = false;
        if let Some(refusal) = self.refusals.iter().find(|one| is_same(one)) {
            match refusal.until {
                None => return Err(ResetAction::None),
                Some(until) if until > now => return Err(ResetAction::Wait(until)),
                Some(_) => remove_ended = refusal.is_log_full,
            }
            self.refusals.retain(|one| !is_same(one));
        }
        let progress = Progress::Clearing { remove_ended };
        Ok(self.attempts.push_mut(Attempt { ended, through, progress, next: now }))
    }

    /// Takes the answer to a command; returns true if it proves that the controller is reset.
    pub(super) fn answered(
        &mut self,
        command: &ResetCommand,
        answer: &ResetAnswer,
        now: Instant,
    ) -> bool {
        let ResetCommand { ended, through, .. } = *command;
        let is_of = |one: &&mut Attempt| (one.ended, one.through) == (ended, through);
        let Some(attempt) = self.attempts.iter_mut().find(is_of) else { return false };
        match (attempt.progress, answer) {
            (Progress::Clearing { remove_ended }, ResetAnswer::Log(log)) => {
                let of_controller = entries_of(log, command);
                attempt.progress = match of_controller.is_empty() {
                    true => Progress::Cleared,
                    // One in progress stays, and is looked at again.
                    false => Progress::Clearing { remove_ended: true },
                };
                // Entries that are read with their removal are gone only then.
                if attempt.progress == Progress::Cleared || !remove_ended {
                    attempt.next = now;
                }
                false
            }
            (Progress::Cleared, &ResetAnswer::Response(status, result)) => {
                let is_reset = status.is_success() && is_immediate_reset(result);
                match status.is_success() {
                    true => attempt.progress = Progress::Begun(now + FENCE_RESET_TIMEOUT),
                    false => self.refuse(command, Some(status), now),
                }
                is_reset && self.finish(ended)
            }
            (Progress::Begun(until), ResetAnswer::Log(log)) => {
                let of_controller = entries_of(log, command);
                let is = |status| of_controller.contains(&status);
                let is_reset = !of_controller.is_empty()
                    && of_controller
                        .iter()
                        .all(|&one| one == CrossControllerResetStatus::SUCCESSFUL);
                if is_reset {
                    return self.finish(ended);
                }
                if is(CrossControllerResetStatus::FAILED) || now >= until {
                    self.refuse(command, None, now);
                }
                false
            }
            _ => {
                self.refuse(command, None, now);
                false
            }
        }
    }

    /// Ends an attempt; the next one is due later, or never if the same command would be refused.
    fn refuse(&mut self, command: &ResetCommand, status: Option<Status>, now: Instant) {
        let ResetCommand { ended, through, .. } = *command;
        self.attempts.retain(|one| one.ended != ended);
        let code = status.map(Status::code);
        let is_busy = matches!(
            code,
            Some(
                Status::CROSS_CONTROLLER_RESET_IN_PROGRESS
                    | Status::CROSS_CONTROLLER_RESET_LOG_FULL
                    | Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED
            )
        );
        let is_final = !is_busy && status.is_some_and(Status::do_not_retry);
        self.refusals.push(Refusal {
            ended,
            through,
            until: (!is_final).then(|| now + FENCE_RESET_INTERVAL),
            is_log_full: code == Some(Status::CROSS_CONTROLLER_RESET_LOG_FULL),
        });
    }

    /// Notes that a controller is reset.
    fn finish(&mut self, ended: u64) -> bool {
        self.attempts.retain(|one| one.ended != ended);
        if self.done.len() >= ENDED_ASSOCIATIONS_MAX {
            self.done.remove(0);
        }
        self.done.push(ended);
        true
    }

    /// Returns true if the controller of this association is reset.
    pub(super) fn has_reset(&self, number: u64) -> bool {
        self.done.contains(&number)
    }

    /// Forgets associations that are neither in use, nor ended with writes of unknown outcome.
    pub(super) fn retain(&mut self, is_left: impl Fn(u64) -> bool) {
        self.attempts.retain(|one| is_left(one.ended) && is_left(one.through));
        self.refusals.retain(|one| is_left(one.ended) && is_left(one.through));
    }
}

/// Progress of the resets of the controller, as a log page tells it.
fn entries_of(
    log: &CrossControllerResetLog,
    command: &ResetCommand,
) -> Vec<CrossControllerResetStatus> {
    let ids = (command.controller, command.instance.uniquifier);
    let of_controller = log.entries.iter().filter(|one| (one.impacted, one.uniquifier) == ids);
    of_controller.map(|one| one.status).collect()
}
