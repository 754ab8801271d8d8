//! A case: the fault of a target, and the outcome for either initiator.

use std::{fmt, time::Duration};

use super::{case_target::CaseTarget, fake_target::FakeTargetSpec};

/// Outcome for a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Noticed the loss, and is live again.
    CameBack,
    /// Connected at the first attempt.
    Connected,
    /// Was shut down by its owner, in whatever state.
    Deleted,
    /// Gave up with all attempts used up.
    Exhausted,
    /// Gave up with attempts left, since they can't help.
    GaveUp,
    /// Failed to connect at first.
    Refused,
    /// Is not live, and still tries.
    StillTrying,
    /// Stayed live all the time.
    Undisturbed,
}

/// Outcome of a read that was submitted after the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Brought data before the fault was healed.
    Done,
    /// Failed.
    Failed,
    /// Was held to the end of the case.
    Held,
    /// Was held, and brought data once the fault was healed.
    Late,
    /// Was held, and failed later.
    LateFailed,
}

/// Outcomes for one initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) controller: Outcome,
    pub(crate) read: Option<ReadOutcome>,
}

/// Outcomes that are expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) kernel: Observed,
    pub(crate) ours: Observed,
    /// Reason why ours is better where they differ.
    pub(crate) reason: &'static str,
}

/// Time at which a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Beside others, both initiators at once.
    Together,
    /// Alone, both initiators at once: what it does is felt by every other connection, or makes
    /// every other connect wait.
    Alone,
    /// Alone, and the kernel's initiator after ours has been through all such cases: it leaves
    /// connects that hang, and requests to a port that is down, after which rxe's RDMA-CM is mute.
    OneByOne,
}

/// Options with which both connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// `ctrl_loss_tmo` in seconds; negative for ever. The delay is a second.
    pub(crate) loss_timeout: i32,
    pub(crate) keep_alive: u32,
    pub(crate) io_queues: u16,
    pub(crate) queue_entries: u16,
    pub(crate) fast_io_fail: Option<u32>,
    /// Command timeout in seconds; else the default.
    pub(crate) io_timeout: Option<u32>,
    /// `dhchap_secret` and `dhchap_ctrl_secret`.
    pub(crate) secrets: [Option<&'static str>; 2],
    /// Another address than the target's.
    pub(crate) address: Option<&'static str>,
    pub(crate) service: Option<u16>,
    /// Another subsystem than the target's.
    pub(crate) subsystem: Option<&'static str>,
}

/// Target of a case.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TargetSpec {
    /// Only our two hosts may connect; else any may.
    pub(crate) closed: bool,
    /// There is a namespace, which is read.
    pub(crate) namespace: bool,
    /// Attributes of the subsystem.
    pub(crate) subsystem: &'static [(&'static str, &'static str)],
    /// Attributes of the port.
    pub(crate) port: &'static [(&'static str, &'static str)],
    /// Attributes of both hosts.
    pub(crate) hosts: &'static [(&'static str, &'static str)],
    /// A second subsystem keeps the port open.
    pub(crate) companion: bool,
    /// Further preparation before the first connect.
    pub(crate) prepare: Option<Action>,
    /// A fake target in place of the kernel's; the other fields do not count then.
    pub(crate) fake: Option<FakeTargetSpec>,
    /// The namespace is a mapped device, whose medium can be changed.
    pub(crate) mapped: bool,
}

/// Change of the target.
pub(crate) type Action = fn(&CaseTarget);

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) target: TargetSpec,
    pub(crate) options: Options,
    /// Fault; without one the case is about the first connect.
    pub(crate) fault: Option<Action>,
    /// Number of times that the fault is injected: again whenever both are live again.
    pub(crate) times: u32,
    /// Removal of the fault, after the time that it lasts.
    pub(crate) heal: Option<Action>,
    /// Request of the owner of both controllers, after the fault.
    pub(crate) request: Option<OwnerRequest>,
    /// Time between the fault and its removal.
    pub(crate) lasts: Duration,
    /// Time for which both are observed after that.
    pub(crate) watch: Duration,
    pub(crate) schedule: Schedule,
    /// Nothing is cleaned up: the kernel's initiator would take minutes to be deleted. Only of
    /// [`Schedule::OneByOne`], since it goes on to send requests.
    pub(crate) abandoned: bool,
    /// Feature of the kernel that the case needs.
    pub(crate) needs: Option<KernelFeature>,
    pub(crate) expected: Expected,
}

/// Request of a controller's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerRequest {
    Delete,
    Reset,
}

/// Feature that 6.12 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelFeature {
    /// A network namespace in which rxe hears something.
    OtherMachine,
    /// `param_mdts`.
    TransferLimit,
}

impl Outcome {
    /// Outcomes for the controller and a read.
    pub(crate) fn and(self, read: ReadOutcome) -> Observed {
        Observed { controller: self, read: Some(read) }
    }
}

impl From<Outcome> for Observed {
    fn from(outcome: Outcome) -> Self {
        Self { controller: outcome, read: None }
    }
}

impl Case {
    /// A case about the first connect.
    pub(crate) fn first(name: &'static str) -> Self {
        let options = Options {
            loss_timeout: 60,
            keep_alive: 5,
            io_queues: 1,
            queue_entries: 32,
            fast_io_fail: None,
            io_timeout: None,
            secrets: [None, None],
            address: None,
            service: None,
            subsystem: None,
        };
        let expected = Expected {
            kernel: Outcome::Connected.into(),
            ours: Outcome::Connected.into(),
            reason: "",
        };
        Self {
            name,
            target: TargetSpec::default(),
            options,
            fault: None,
            times: 1,
            heal: None,
            request: None,
            lasts: Duration::from_millis(2500),
            watch: Duration::from_secs(8),
            schedule: Schedule::Together,
            abandoned: false,
            needs: None,
            expected,
        }
    }

    /// A case about a fault while both are connected.
    pub(crate) fn live(name: &'static str, fault: Action) -> Self {
        Self { fault: Some(fault), ..Self::first(name) }
    }

    pub(crate) fn target(self, target: TargetSpec) -> Self {
        Self { target, ..self }
    }

    pub(crate) fn with(mut self, change: fn(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    pub(crate) fn heal(self, heal: Action) -> Self {
        Self { heal: Some(heal), ..self }
    }

    pub(crate) fn lasting(self, lasts: Duration) -> Self {
        Self { lasts, ..self }
    }

    pub(crate) fn watched(self, watch: Duration) -> Self {
        Self { watch, ..self }
    }

    pub(crate) fn request(self, request: OwnerRequest) -> Self {
        Self { request: Some(request), ..self }
    }

    pub(crate) fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    pub(crate) fn abandoned(self) -> Self {
        Self { abandoned: true, ..self }
    }

    pub(crate) fn needs(self, need: KernelFeature) -> Self {
        Self { needs: Some(need), ..self }
    }

    /// Expects the same outcomes for both initiators.
    pub(crate) fn both(self, seen: impl Into<Observed>) -> Self {
        let seen = seen.into();
        let expected = Expected { kernel: seen, ours: seen, reason: "" };
        Self { expected, ..self }
    }

    /// Expects different outcomes, for a reason.
    pub(crate) fn differs(
        self,
        kernel: impl Into<Observed>,
        ours: impl Into<Observed>,
        reason: &'static str,
    ) -> Self {
        let expected = Expected { kernel: kernel.into(), ours: ours.into(), reason };
        Self { expected, ..self }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.controller {
            Outcome::CameBack => "came back",
            Outcome::Connected => "connected",
            Outcome::Deleted => "deleted",
            Outcome::Exhausted => "attempts used up",
            Outcome::GaveUp => "gave up at once",
            Outcome::Refused => "refused",
            Outcome::StillTrying => "still trying",
            Outcome::Undisturbed => "undisturbed",
        })?;
        f.write_str(match self.read {
            None => "",
            Some(ReadOutcome::Done) => "; read done",
            Some(ReadOutcome::Failed) => "; read failed",
            Some(ReadOutcome::Held) => "; read held",
            Some(ReadOutcome::Late) => "; read held, then done",
            Some(ReadOutcome::LateFailed) => "; read held, then failed",
        })
    }
}
