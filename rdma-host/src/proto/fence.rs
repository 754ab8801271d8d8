//! Write fence: which commands may be sent while writes of an association that has ended may still
//! be executed.
//!
//! A write without a response may be in the old controller, and be executed long after its
//! connection was lost: over the data of its own repetition, or of a later write to the same blocks
//! that was answered. So writes to these blocks, new or repeated, wait until something proves that
//! the old controller executes nothing more. Reads and flushes do not wait.

mod controller_reset;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    config::{ConnectOptions, ENDED_ASSOCIATIONS_MAX, FENCE_PROBE_INTERVAL, Fence, FenceOptions},
    proto::{Negotiated, WrittenBlocks},
    wire::{
        ControllerId, ControllerInstance, NamespaceId, QueueId, Sqe, Status,
        is_invalid_controller_id, is_invalid_queue_size,
    },
};

use controller_reset::{ControllerResets, ResetAction};
pub use controller_reset::{ResetAnswer, ResetCommand, ResetStep};

/// Write without a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutstandingWrite {
    /// Queue that it was sent on.
    pub queue: QueueId,
    /// Blocks that it may change.
    pub written: WrittenBlocks,
}

/// Association of a host with a controller: one connection with all its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Association {
    /// Number of the association; later ones have higher numbers.
    pub number: u64,
    /// Address of the target. What is at another address proves something of this association only
    /// if it has said, while the association was the latest one here, that it has its queue.
    pub target: SocketAddr,
    /// Host identifier, by which reservations know the host.
    pub host_id: Uuid,
    /// Id of the first I/O queue.
    pub first_queue: QueueId,
    /// CNTLID.
    pub controller: ControllerId,
    /// Keep-alive timeout as granted; zero if it is off.
    pub keep_alive: Duration,
    /// Controller Quiesce Time (CQT); zero if the controller reports none.
    pub quiesce_time: Duration,
    /// True if a controller id that the target does not know proves that nothing of it is left.
    pub ids_prove: bool,
    /// True if a queue that the controller does not have proves that nothing of it is left.
    pub queues_prove: bool,
    /// CIU and CIRN, by which another controller can reset this one; `None` if not reported.
    pub instance: Option<ControllerInstance>,
    /// True if the controller resets others.
    pub resets_others: bool,
    /// True if each controller of the subsystem resets this one, whatever its address. Not believed
    /// of Linux's target, several of which may go by one NQN and know nothing of each other.
    pub nodes_agree: bool,
}

/// Model of Linux's target, unless its administrator has set another one.
const LINUX_MODEL: &str = "Linux";

impl Association {
    /// Association that was established with these options.
    #[must_use]
    pub fn new(number: u64, negotiated: &Negotiated, options: &ConnectOptions) -> Self {
        let info = &negotiated.info;
        // The granularity of the controller's timer (KAS).
        let unit = Duration::from_millis(100 * u64::from(info.keep_alive_granularity.max(1)));
        let units = options.keep_alive.as_millis().div_ceil(unit.as_millis());
        Self {
            number,
            target: options.address,
            host_id: options.host.id,
            first_queue: negotiated.first_io_queue,
            controller: negotiated.controller,
            keep_alive: unit * u32::try_from(units).unwrap_or(u32::MAX),
            quiesce_time: info.quiesce_time,
            ids_prove: Self::ids_prove(&options.fence, &info.model),
            queues_prove: Self::queues_prove(&options.fence, negotiated),
            instance: info.instance,
            resets_others: info.cross_controller_resets_max > 0,
            nodes_agree: info.model != LINUX_MODEL,
        }
    }

    /// Returns true if an answer about a queue of a controller proves the end of that queue. Known
    /// of Linux's target: it forgets a queue after its last command, and looks at the queue before
    /// the size that the question exceeds.
    #[must_use]
    pub fn queues_prove(options: &FenceOptions, negotiated: &Negotiated) -> bool {
        let exceeds = negotiated.capabilities.queue_entries_max() < u32::from(u16::MAX);
        negotiated.info.model == LINUX_MODEL
            && exceeds
            && Self::ids_prove(options, LINUX_MODEL)
            && options.mode != Fence::Off
    }

    /// Returns true if the ids of controllers prove their end on a target of this model.
    #[must_use]
    pub fn ids_prove(options: &FenceOptions, model: &str) -> bool {
        options.controller_ids.unwrap_or(model == LINUX_MODEL)
    }

    /// Returns true if another controller of the subsystem can reset this one.
    #[must_use]
    pub fn can_be_reset(&self) -> bool {
        // Those of one subsystem are taken to be alike.
        self.instance.is_some() && self.resets_others && (self.nodes_agree || self.ids_prove)
    }

    /// Time after the destruction of the host's queue pairs beyond which the controller executes
    /// nothing more; `None` if there is no such time. A target may notice the loss only after twice
    /// the keep-alive timeout, since traffic (TBKAS) restarts its timer once.
    #[must_use]
    pub fn time_to_end(&self, mode: Fence) -> Option<Duration> {
        let keep_alives = match mode {
            Fence::Proof => 2,
            Fence::Linux | Fence::Time => 3,
            Fence::Off => return None,
        };
        let is_known = !self.quiesce_time.is_zero() || mode == Fence::Time;
        // Targets round it up to whole seconds.
        let seconds = u64::try_from(self.keep_alive.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        let keep_alive = Duration::from_secs(seconds);
        (is_known && !keep_alive.is_zero()).then(|| keep_alives * keep_alive + self.quiesce_time)
    }
}

/// Association that ended with writes of unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAssociation {
    /// The association.
    pub association: Association,
    /// Time at which the host's last queue pair with such a write was destroyed. Until then the
    /// controller could receive commands.
    pub closed_at: Instant,
    /// Writes that may still be executed.
    pub writes: Vec<OutstandingWrite>,
}

impl EndedAssociation {
    /// Questions of which each may prove the end of some writes.
    fn questions(&self) -> Vec<ProbeQuestion> {
        let Association { controller, ids_prove, queues_prove, .. } = self.association;
        if !queues_prove {
            return Vec::from_iter(ids_prove.then_some(ProbeQuestion { controller, queue: None }));
        }
        let queues: BTreeSet<_> = self.writes.iter().map(|write| write.queue).collect();
        queues.into_iter().map(|queue| ProbeQuestion { controller, queue: Some(queue) }).collect()
    }
}

/// Proof that an ended association executes no more writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceProof {
    /// A new connection was given the controller id of the old one.
    SameController,
    /// The target does not know the controller any more.
    ControllerGone,
    /// The target has no controller of this id with the queues of the writes. Another association
    /// of the same host NQN may have been given the id.
    QueuesGone,
    /// Another controller of the subsystem has reset the controller.
    ControllerReset,
    /// The target has answered a preempt-and-abort of the host identifier of the association.
    Preempted,
    /// The time has passed after which the controller executes nothing more.
    Time,
    /// The owner said so.
    Owner,
}

impl std::fmt::Display for FenceProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SameController => "its id was given to the new connection",
            Self::ControllerGone => "the target does not know it any more",
            Self::QueuesGone => "the target has ended its queues",
            Self::ControllerReset => "another controller of the subsystem has reset it",
            Self::Preempted => "the commands of its host identifier were preempted and aborted",
            Self::Time => "the time in which it may execute commands is over",
            Self::Owner => "the owner says so",
        })
    }
}

/// Question to the target, as an I/O Connect that never succeeds.
///
/// While another association of the same host NQN has the id of the old controller, the target
/// answers for that one. It is told apart by its queues, whose ids a
/// [`BringUp`](crate::proto::BringUp) chooses for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeQuestion {
    /// Controller that may exist.
    pub controller: ControllerId,
    /// Queue that it may have: the Connect exceeds the maximum queue size. `None` where an answer
    /// about that would prove nothing: the Connect is for a queue id out of range.
    pub queue: Option<QueueId>,
}

/// Answer to a [`ProbeQuestion`] (Base figure 532).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The controller id is the one that is refused: there is no such controller.
    Gone,
    /// The queue size is the one that is refused: there is no such queue.
    QueueGone,
    /// The queue is there, and so is the controller.
    Known,
    /// Anything else, such as a refusal of the queue id, which is looked at after the controller.
    Unproved,
}

impl ProbeAnswer {
    /// Decodes status and result of the Connect.
    #[must_use]
    pub fn of(status: Status, result: u32) -> Self {
        match status.code() {
            Status::CONNECT_INVALID_PARAMETERS if is_invalid_controller_id(result) => Self::Gone,
            Status::CONNECT_INVALID_PARAMETERS if is_invalid_queue_size(result) => Self::QueueGone,
            Status::COMMAND_SEQUENCE_ERROR => Self::Known,
            _ => Self::Unproved,
        }
    }
}

/// Next action of the driver, while there is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceAction {
    /// Wait for a change.
    None,
    /// Ask the target, and report the answer.
    Probe(ProbeQuestion),
    /// Admin command of a reset to execute; the answer is to be reported.
    Reset(ResetCommand),
    /// Call again at this time.
    Wait(Instant),
}

/// Decision about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The command may be sent.
    Send,
    /// The command waits for the end of this controller.
    Wait(ControllerId),
}

/// Write fence of one controller, or of all that are paths of one subsystem, across their
/// associations.
///
/// Report every association that is established, and the writes without a response of each that
/// ended; ask for each command whether it may be sent, and for the next action while one may not.
#[derive(Clone, Debug)]
pub struct WriteFence {
    options: FenceOptions,
    ended: Vec<EndedAssociation>,
    /// Latest association with each target.
    latest: Vec<Association>,
    /// Targets that have said of an association with another one, by its number, that they have
    /// its queue: both addresses are of one node.
    knowing: Vec<(SocketAddr, u64)>,
    /// Targets that were asked for that.
    introduced: Vec<(SocketAddr, u64)>,
    /// Time of the next question to the target.
    next_probe: Option<Instant>,
    /// Number of questions so far: all are asked in turn.
    asked: usize,
    resets: ControllerResets,
}

impl WriteFence {
    /// Creates a fence that is open.
    #[must_use]
    pub fn new(options: FenceOptions) -> Self {
        Self {
            options,
            ended: Vec::new(),
            latest: Vec::new(),
            knowing: Vec::new(),
            introduced: Vec::new(),
            next_probe: None,
            asked: 0,
            resets: ControllerResets::default(),
        }
    }

    /// Returns true if no command waits.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ended.is_empty()
    }

    /// Ended associations with writes of unknown outcome, the oldest first.
    #[must_use]
    pub fn ended(&self) -> &[EndedAssociation] {
        &self.ended
    }

    /// Mode and limits.
    #[must_use]
    pub fn options(&self) -> &FenceOptions {
        &self.options
    }

    /// Reports a new association. Returns the ended ones that it proves to be over.
    pub fn established(&mut self, association: Association) -> Vec<EndedAssociation> {
        self.latest.retain(|latest| latest.target != association.target);
        self.latest.push(association);
        self.next_probe = None;
        let knowing = self.knowing.clone();
        let over = self.remove(|ended| is_followed_by(&ended.association, &association, &knowing));
        let (latest, ended) = (&self.latest, &self.ended);
        let is_left = |number: u64| {
            latest.iter().any(|latest| latest.number == number)
                || ended.iter().any(|ended| ended.association.number == number)
        };
        self.knowing.retain(|&(_, number)| is_left(number));
        self.introduced.retain(|&(_, number)| is_left(number));
        self.resets.retain(is_left);
        over
    }

    /// Reports the writes without a response of an association, whose queue pairs were destroyed at
    /// `closed_at`; several reports of one association are joined. Returns true if the fence closed
    /// or closed further.
    pub fn close(
        &mut self,
        association: Association,
        closed_at: Instant,
        writes: Vec<OutstandingWrite>,
    ) -> bool {
        let follows = |latest: &Association| is_followed_by(&association, latest, &self.knowing);
        let is_over = self.latest.iter().any(follows) || self.resets.has_reset(association.number);
        if writes.is_empty() || self.options.mode == Fence::Off || is_over {
            return false;
        }
        let same = |ended: &&mut EndedAssociation| ended.association.number == association.number;
        if let Some(ended) = self.ended.iter_mut().find(same) {
            ended.closed_at = ended.closed_at.max(closed_at);
            ended.writes.extend(writes);
        } else {
            self.ended.push(EndedAssociation { association, closed_at, writes });
        }
        true
    }

    /// Decides about a command, new or repeated.
    #[must_use]
    pub fn admit(&self, sqe: &Sqe) -> Admission {
        let Some(written) = WrittenBlocks::of(sqe) else { return Admission::Send };
        let is_full = self.ended.len() >= ENDED_ASSOCIATIONS_MAX;
        let closed = |ended: &&EndedAssociation| {
            is_full || ended.writes.iter().any(|earlier| earlier.written.overlaps(&written))
        };
        match self.ended.iter().find(closed) {
            Some(ended) => Admission::Wait(ended.association.controller),
            None => Admission::Send,
        }
    }

    /// Next action at `now`, on the latest association with a target.
    pub fn action(&mut self, target: SocketAddr, now: Instant) -> FenceAction {
        let over = self.ended.iter().filter_map(|ended| self.over_at(ended)).min();
        let over = match self.reset(target, now) {
            ResetAction::Execute(command) => return FenceAction::Reset(command),
            ResetAction::Wait(until) => Some(over.map_or(until, |over| over.min(until))),
            ResetAction::None => over,
        };
        let ended = self.ended.iter().filter(|ended| self.knows(target, &ended.association));
        let questions: Vec<_> = ended.flat_map(EndedAssociation::questions).collect();
        if questions.is_empty()
            && let Some(question) = self.introduce(target)
        {
            return FenceAction::Probe(question);
        }
        if questions.is_empty() {
            return over.map_or(FenceAction::None, FenceAction::Wait);
        }
        match self.next_probe.filter(|&due| due > now) {
            Some(due) => FenceAction::Wait(over.map_or(due, |over| due.min(over))),
            None => {
                self.next_probe = Some(now + FENCE_PROBE_INTERVAL);
                let question = questions[self.asked % questions.len()];
                self.asked = self.asked.wrapping_add(1);
                FenceAction::Probe(question)
            }
        }
    }

    /// Reports the answer of a target. Returns the ended associations that it proves to be over,
    /// with the writes that were left of them; of others it may prove the end of some writes.
    pub fn answered(
        &mut self,
        target: SocketAddr,
        question: ProbeQuestion,
        answer: ProbeAnswer,
    ) -> Vec<EndedAssociation> {
        let ProbeQuestion { controller, queue } = question;
        let knowing = self.knowing.clone();
        let is_asked = |ended: &EndedAssociation| {
            let association = &ended.association;
            association.controller == controller && knows(&knowing, target, association)
        };
        match answer {
            ProbeAnswer::Gone => {
                self.remove(|ended| is_asked(ended) && ended.association.ids_prove)
            }
            ProbeAnswer::QueueGone => {
                let is_proved = |ended: &EndedAssociation, write: &OutstandingWrite| {
                    is_asked(ended) && ended.association.queues_prove && Some(write.queue) == queue
                };
                let over = self.remove_writes(is_proved);
                // The next question may be as good.
                self.next_probe = None;
                over
            }
            ProbeAnswer::Known => {
                let known = self.latest.iter().find(|latest| {
                    latest.controller == controller && Some(latest.first_queue) == queue
                });
                let known = known.filter(|known| self.may_introduce(target, known));
                self.knowing.extend(known.map(|known| (target, known.number)));
                Vec::new()
            }
            ProbeAnswer::Unproved => Vec::new(),
        }
    }

    /// Next command of a reset through the latest controller at a target.
    fn reset(&mut self, target: SocketAddr, now: Instant) -> ResetAction {
        let Some(through) = self.latest.iter().find(|latest| latest.target == target) else {
            return ResetAction::None;
        };
        let mut until = None;
        for EndedAssociation { association: ended, .. } in &self.ended {
            let is_other = through.number != ended.number && through.controller != ended.controller;
            let agree =
                ended.nodes_agree || ended.ids_prove && knows(&self.knowing, through.target, ended);
            if !(through.resets_others && is_other && agree) {
                continue;
            }
            match self.resets.action(ended, through, &self.latest, now) {
                ResetAction::None => {}
                ResetAction::Wait(due) => until = Some(until.map_or(due, |until| due.min(until))),
                execute @ ResetAction::Execute(_) => return execute,
            }
        }
        until.map_or(ResetAction::None, ResetAction::Wait)
    }

    /// Reports the answer to a command of a reset. Returns the ended associations that it proves to
    /// be over.
    pub fn reset_answered(
        &mut self,
        command: &ResetCommand,
        answer: &ResetAnswer,
        now: Instant,
    ) -> Vec<EndedAssociation> {
        let is_reset = self.resets.answered(command, answer, now);
        self.remove(|ended| is_reset && ended.association.number == command.ended)
    }

    /// Question whether a target has a queue of an association with another one, which is asked
    /// once for each.
    fn introduce(&mut self, target: SocketAddr) -> Option<ProbeQuestion> {
        let is_new = |latest: &&Association| {
            let asked = self.introduced.contains(&(target, latest.number));
            !asked && self.may_introduce(target, latest)
        };
        let Association { number, controller, first_queue, .. } =
            *self.latest.iter().find(is_new)?;
        self.introduced.push((target, number));
        Some(ProbeQuestion { controller, queue: Some(first_queue) })
    }

    /// Returns true if a target's answer would tell whether it has a controller of another one: the
    /// id is that of one association only.
    fn may_introduce(&self, target: SocketAddr, association: &Association) -> bool {
        let same_id = |latest: &&Association| latest.controller == association.controller;
        association.queues_prove
            && association.target != target
            && self.latest.iter().filter(same_id).count() == 1
    }

    /// Returns true if a target's answers are of the node that an association was with.
    fn knows(&self, target: SocketAddr, association: &Association) -> bool {
        knows(&self.knowing, target, association)
    }

    /// Number of writes that may still be executed.
    #[must_use]
    pub fn write_count(&self) -> usize {
        self.ended.iter().map(|ended| ended.writes.len()).sum()
    }

    /// Returns the ended associations that are over by time at `now`.
    pub fn elapse(&mut self, now: Instant) -> Vec<EndedAssociation> {
        let mode = self.options.mode;
        self.remove(|ended| {
            let time = ended.association.time_to_end(mode);
            time.is_some_and(|time| now.saturating_duration_since(ended.closed_at) > time)
        })
    }

    /// Reports that a host identifier was preempted from a namespace, and its commands aborted, on
    /// which a reservation is held: what was sent by associations that had ended at `sent_at`, when
    /// the command for that was sent, is not executed any more. Returns the ended associations that
    /// are over, with the writes that were left of them.
    pub fn preempted(
        &mut self,
        host_id: Uuid,
        namespace: NamespaceId,
        sent_at: Instant,
    ) -> Vec<EndedAssociation> {
        self.remove_writes(|ended, write| {
            ended.association.host_id == host_id
                && ended.closed_at <= sent_at
                && write.written.namespace == namespace
        })
    }

    /// Opens the fence by the word of the owner, who knows that no write is executed any more.
    pub fn open(&mut self) -> Vec<EndedAssociation> {
        self.remove(|_| true)
    }

    /// Time at which an ended association is over, if time proves that.
    #[must_use]
    pub fn over_at(&self, ended: &EndedAssociation) -> Option<Instant> {
        /// The time has to be exceeded.
        const EXCESS: Duration = Duration::from_millis(1);
        let time = ended.association.time_to_end(self.options.mode)?;
        Some(ended.closed_at + time + EXCESS)
    }

    /// Removes the writes that are proved not to be executed any more. Returns the associations
    /// that have no others.
    fn remove_writes(
        &mut self,
        is_proved: impl Fn(&EndedAssociation, &OutstandingWrite) -> bool,
    ) -> Vec<EndedAssociation> {
        let over = self.remove(|ended| ended.writes.iter().all(|write| is_proved(ended, write)));
        for ended in &mut self.ended {
            let writes = std::mem::take(&mut ended.writes);
            let left = writes.into_iter().filter(|write| !is_proved(ended, write));
            ended.writes = left.collect();
        }
        over
    }

    fn remove(&mut self, is_over: impl Fn(&EndedAssociation) -> bool) -> Vec<EndedAssociation> {
        self.ended.extract_if(.., |ended| is_over(ended)).collect()
    }
}

/// Returns true if a target's answers are of the node that an association was with.
fn knows(knowing: &[(SocketAddr, u64)], target: SocketAddr, association: &Association) -> bool {
    association.target == target || knowing.contains(&(target, association.number))
}

/// Returns true if the later association proves by its controller id that the earlier one is over.
fn is_followed_by(
    earlier: &Association,
    later: &Association,
    knowing: &[(SocketAddr, u64)],
) -> bool {
    earlier.ids_prove
        && later.ids_prove
        && knows(knowing, later.target, earlier)
        && earlier.controller == later.controller
        && earlier.number < later.number
}

#[cfg(test)]
#[path = "fence/model/tests.rs"]
mod model;
#[cfg(test)]
#[path = "fence/model/controller_reset/tests.rs"]
mod reset_model;
#[cfg(test)]
mod tests;
