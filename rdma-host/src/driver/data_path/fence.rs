//! Write fence of a controller, shared by its pollers and its supervisor.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tracing::Span;
use uuid::Uuid;

use crate::{
    config::{FENCE_PROBE_INTERVAL, FenceOptions, STATE_CHANGE_BACKLOG},
    driver::{data_path::live_summary::LiveSummary, runtime},
    proto::{
        Admission, Association, EndedAssociation, FenceAction, FenceProof, OutstandingWrite,
        ProbeAnswer, ProbeQuestion, ResetAnswer, ResetCommand, WriteFence,
    },
    wire::{ControllerId, NamespaceId, Sqe},
};

/// Change of the fence for writes after a loss of the connection.
#[derive(Clone, Debug)]
pub struct FenceChange {
    /// Time of the change.
    pub at: SystemTime,
    /// Controller whose connection was lost.
    pub controller: ControllerId,
    /// Change.
    pub kind: FenceChangeKind,
}

/// Kind of a change of the fence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FenceChangeKind {
    /// Writes to these blocks wait from now on.
    Closed {
        /// Number of writes without a response.
        writes: usize,
        /// Namespace and first and last block of those writes.
        span: (NamespaceId, u64, u64),
        /// True if the target is asked whether it still has the controller.
        is_probed: bool,
        /// True if another controller of the subsystem, if one is connected, is asked to reset it.
        can_be_reset: bool,
        /// Time from now on after which the fence opens; `None` if time opens it never.
        opens_in: Option<Duration>,
        /// Maximum time for which a write waits.
        timeout: Duration,
    },
    /// Writes to the blocks of this controller's writes are sent again.
    Opened {
        /// Proof that the controller executes nothing more.
        proof: FenceProof,
        /// Time since the connection was closed.
        after: Duration,
    },
}

impl fmt::Display for FenceChange {
    /// `controller 3 may still execute 2 writes (namespace 1, blocks 7 to 8): writes to their
    /// blocks wait until the target no longer knows it (asked every 100ms), and fail after 60s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let controller = self.controller;
        match &self.kind {
            FenceChangeKind::Closed {
                writes,
                span,
                is_probed,
                can_be_reset,
                opens_in,
                timeout,
            } => {
                let (namespace, first, last) = span;
                write!(
                    f,
                    "controller {controller} may still execute {writes} writes (namespace \
                     {namespace}, blocks {first} to {last}): writes to their blocks wait "
                )?;
                if *can_be_reset {
                    f.write_str("until another controller of the subsystem has reset it, or ")?;
                }
                match (is_probed, opens_in) {
                    (true, _) => write!(
                        f,
                        "until the target no longer knows it (asked every \
                         {FENCE_PROBE_INTERVAL:?})"
                    )?,
                    (false, Some(time)) => write!(f, "for {:.1} s", time.as_secs_f64())?,
                    (false, None) => f.write_str(
                        "for a proof of its end, which this target gives none of (option fence)",
                    )?,
                }
                write!(f, ", and fail after {timeout:?}")
            }
            FenceChangeKind::Opened { proof, after } => write!(
                f,
                "controller {controller} executes nothing more: {proof}; writes go on {:.1} s \
                 after the loss",
                after.as_secs_f64()
            ),
        }
    }
}

/// Write fence of a controller, or of all that are paths of one subsystem.
pub(crate) struct SharedFence {
    fence: Mutex<WriteFence>,
    /// Tell the path of each command of a controller whether the fence is open.
    summaries: Mutex<Vec<Weak<LiveSummary>>>,
    is_closed: AtomicBool,
    /// Number of the latest association.
    associations: AtomicU64,
    /// Number of changes.
    version: watch::Sender<u64>,
    changes: broadcast::Sender<FenceChange>,
}

impl SharedFence {
    pub(crate) fn new(options: FenceOptions) -> Self {
        Self {
            fence: Mutex::new(WriteFence::new(options)),
            summaries: Mutex::default(),
            is_closed: AtomicBool::new(false),
            associations: AtomicU64::new(0),
            version: watch::Sender::new(0),
            changes: broadcast::Sender::new(STATE_CHANGE_BACKLOG),
        }
    }

    /// Adds a controller, by what the path of each of its commands reads.
    pub(crate) fn add(&self, summary: &Arc<LiveSummary>) {
        let mut summaries = self.summaries.lock();
        summaries.retain(|summary| summary.strong_count() > 0);
        summaries.push(Arc::downgrade(summary));
        summary.set_fenced(self.is_closed.load(Ordering::Relaxed));
    }

    /// Number of a new association, higher than those of all before.
    pub(crate) fn next_number(&self) -> u64 {
        self.associations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reports the writes without a response of an association, whose queue pairs are destroyed.
    pub(crate) fn close(
        &self,
        association: Association,
        writes: Vec<OutstandingWrite>,
        controller: &Span,
    ) {
        let Some((namespace, first, last)) = span_of(&writes) else { return };
        let (count, now) = (writes.len(), runtime::now());
        let mut fence = self.fence.lock();
        if !fence.close(association, now, writes) {
            return;
        }
        let opens_in = association.time_to_end(fence.options().mode);
        let timeout = fence.options().timeout;
        let kind = FenceChangeKind::Closed {
            writes: count,
            span: (namespace, first, last),
            is_probed: association.ids_prove,
            can_be_reset: association.can_be_reset(),
            opens_in,
            timeout,
        };
        self.publish(association.controller, kind, controller);
        self.update(&fence);
    }

    /// Decides about a command, new or repeated.
    pub(crate) fn admit(&self, sqe: &Sqe) -> Admission {
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed { self.fence.lock().admit(sqe) } else { Admission::Send }
    }

    /// Maximum time for which a write waits.
    pub(crate) fn timeout(&self) -> Duration {
        self.fence.lock().options().timeout
    }

    /// Reports a new association.
    pub(crate) fn established(&self, association: Association) {
        self.open(FenceProof::SameController, |fence| fence.established(association));
        // The supervisors of other targets may ask these for it.
        self.version.send_modify(|version| *version += 1);
    }

    /// Next action of the supervisor that has a connection with this target.
    pub(crate) fn action(&self, target: SocketAddr) -> FenceAction {
        self.fence.lock().action(target, runtime::now())
    }

    /// Reports an answer of a target about an old controller.
    pub(crate) fn answered(
        &self,
        target: SocketAddr,
        question: ProbeQuestion,
        answer: ProbeAnswer,
    ) {
        let proof = match answer {
            ProbeAnswer::QueueGone => FenceProof::QueuesGone,
            ProbeAnswer::Gone | ProbeAnswer::Known | ProbeAnswer::Unproved => {
                FenceProof::ControllerGone
            }
        };
        self.open(proof, |fence| fence.answered(target, question, answer));
    }

    /// Reports the answer to a command of a reset.
    pub(crate) fn reset_answered(&self, command: &ResetCommand, answer: &ResetAnswer) {
        self.open(FenceProof::ControllerReset, |fence| {
            fence.reset_answered(command, answer, runtime::now())
        });
    }

    /// Opens the fence as far as time has passed.
    pub(crate) fn elapse(&self) {
        self.open(FenceProof::Time, |fence| fence.elapse(runtime::now()));
    }

    /// Opens the fence for a namespace as far as a host identifier was preempted from it, by a
    /// command sent at `sent_at`.
    pub(crate) fn preempted(&self, host_id: Uuid, namespace: NamespaceId, sent_at: Instant) {
        let prove = |fence: &mut WriteFence| fence.preempted(host_id, namespace, sent_at);
        self.open(FenceProof::Preempted, prove);
    }

    /// Opens the fence by the word of the owner.
    pub(crate) fn open_by_owner(&self) {
        self.open(FenceProof::Owner, WriteFence::open);
    }

    /// Number of changes of the fence.
    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits until the fence has changed after this version.
    pub(crate) async fn until_changed(&self, version: u64) {
        let mut watcher = self.version.subscribe();
        let changed = watcher.wait_for(|&now| now != version).await;
        changed.expect("the sender lives as long as the fence");
    }

    pub(crate) fn changes(&self) -> broadcast::WeakSender<FenceChange> {
        self.changes.downgrade()
    }

    fn open(
        &self,
        proof: FenceProof,
        prove: impl FnOnce(&mut WriteFence) -> Vec<EndedAssociation>,
    ) {
        let mut fence = self.fence.lock();
        let before = fence.write_count();
        let over = prove(&mut fence);
        for EndedAssociation { association, closed_at, .. } in &over {
            let kind = FenceChangeKind::Opened { proof, after: runtime::elapsed(*closed_at) };
            self.publish(association.controller, kind, &Span::current());
        }
        if fence.write_count() != before {
            self.update(&fence);
        }
    }

    fn publish(&self, controller: ControllerId, kind: FenceChangeKind, span: &Span) {
        let change = FenceChange { at: runtime::system_time(), controller, kind };
        tracing::info!(parent: span, "{change}");
        // There may be no subscribers.
        let _ = self.changes.send(change);
    }

    /// Tells the pollers and the supervisors of a change, while the fence is locked.
    fn update(&self, fence: &WriteFence) {
        let is_closed = !fence.is_open();
        let summaries = self.summaries.lock();
        self.is_closed.store(is_closed, Ordering::Relaxed);
        summaries.iter().filter_map(Weak::upgrade).for_each(|one| one.set_fenced(is_closed));
        drop(summaries);
        self.version.send_modify(|version| *version += 1);
    }
}

/// Namespace of the first write, and the first and last block of the writes to it.
fn span_of(writes: &[OutstandingWrite]) -> Option<(NamespaceId, u64, u64)> {
    let written = || writes.iter().map(|write| &write.written);
    let namespace = written().next()?.namespace;
    let same = written().filter(|write| write.namespace == namespace);
    let first = same.clone().map(|write| write.blocks.start).min()?;
    let last = same.map(|write| write.blocks.end - 1).max()?;
    Some((namespace, first, last))
}
