//! A case: what is done to a target, and what either initiator makes of it.

use std::{fmt, time::Duration};

use super::{case_target::Stage, fake_target::Script};

/// What became of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The loss was noticed, and it is live again.
    CameBack,
    /// The first connect succeeded.
    Connected,
    /// Its owner ended it, in whatever state it was.
    Deleted,
    /// It ended with all attempts used up.
    Exhausted,
    /// It ended with attempts left, since they can't help.
    GaveUp,
    /// The first connect failed.
    Refused,
    /// It is not live, and still tries.
    StillTrying,
    /// It never stopped being live.
    Undisturbed,
}

/// What became of a read begun after the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It brought data before anything was healed.
    Done,
    /// It failed.
    Failed,
    /// It was held to the end of the case.
    Held,
    /// It was held, and brought data once the fault was healed.
    Late,
    /// It was held, and failed later.
    LateFailed,
}

/// All that is seen of one initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) life: Life,
    pub(crate) read: Option<Read>,
}

/// What is seen, or must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) kernel: Seen,
    pub(crate) ours: Seen,
    /// Why ours is better where they differ.
    pub(crate) reason: &'static str,
}

/// When a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Beside others, both initiators at once.
    Together,
    /// Alone, both initiators at once: what it does is felt by every other connection, or makes
    /// every other connect wait.
    Alone,
    /// Alone, ours first, the kernel's afterwards.
    OneByOne,
}

/// How both connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// `ctrl_loss_tmo` in seconds; negative for ever. The delay is a second.
    pub(crate) loss_timeout: i32,
    pub(crate) keep_alive: u32,
    pub(crate) io_queues: u16,
    pub(crate) queue_entries: u16,
    pub(crate) fast_io_fail: Option<u32>,
    /// How long a command may take, in seconds; else as is usual.
    pub(crate) io_timeout: Option<u32>,
    /// `dhchap_secret` and `dhchap_ctrl_secret`.
    pub(crate) secrets: [Option<&'static str>; 2],
    /// Another place than where the target listens.
    pub(crate) address: Option<&'static str>,
    pub(crate) service: Option<u16>,
    /// Another subsystem than the one there is.
    pub(crate) subsystem: Option<&'static str>,
}

/// How the target is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    /// Only our two hosts may connect; else any may.
    pub(crate) closed: bool,
    /// With a namespace, which is read.
    pub(crate) namespace: bool,
    /// Attributes of the subsystem.
    pub(crate) subsystem: &'static [(&'static str, &'static str)],
    /// Attributes of the port.
    pub(crate) port: &'static [(&'static str, &'static str)],
    /// Attributes of both hosts.
    pub(crate) hosts: &'static [(&'static str, &'static str)],
    /// A second subsystem keeps the port open.
    pub(crate) companion: bool,
    /// What else is done before anybody connects.
    pub(crate) prepare: Option<Lever>,
    /// A target of our own in place of the kernel's; of the rest, nothing counts then.
    pub(crate) script: Option<Script>,
    /// The namespace is a mapped device, whose medium can be changed.
    pub(crate) mapped: bool,
}

/// Something done to the target, or asked of the initiators.
pub(crate) type Lever = fn(&Stage);

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) made: Made,
    pub(crate) options: Options,
    /// Without one the case is about the first connect.
    pub(crate) fault: Option<Lever>,
    /// How often it strikes: again whenever both are live again.
    pub(crate) times: u32,
    /// After a while of the fault.
    pub(crate) heal: Option<Lever>,
    /// What the initiators' owner asks for, after the fault.
    pub(crate) wish: Option<Wish>,
    /// For how long the fault lasts before it is healed.
    pub(crate) lasts: Duration,
    /// For how long both are watched after all was done.
    pub(crate) watch: Duration,
    pub(crate) turn: Turn,
    /// Nothing is cleaned up: the kernel's initiator would take minutes to be deleted.
    pub(crate) abandoned: bool,
    /// What it needs of the kernel.
    pub(crate) needs: Option<Need>,
    pub(crate) expected: Expected,
}

/// What an owner may want of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Delete,
    Reset,
}

/// What 6.12 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A network namespace in which rxe hears something.
    OtherMachine,
    /// `param_mdts`.
    TransferLimit,
}

impl Life {
    /// With a read.
    pub(crate) fn and(self, read: Read) -> Seen {
        Seen { life: self, read: Some(read) }
    }
}

impl From<Life> for Seen {
    fn from(life: Life) -> Self {
        Self { life, read: None }
    }
}

impl Case {
    /// A first connect.
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
        let expected =
            Expected { kernel: Life::Connected.into(), ours: Life::Connected.into(), reason: "" };
        Self {
            name,
            made: Made::default(),
            options,
            fault: None,
            times: 1,
            heal: None,
            wish: None,
            lasts: Duration::from_millis(2500),
            watch: Duration::from_secs(8),
            turn: Turn::Together,
            abandoned: false,
            needs: None,
            expected,
        }
    }

    /// A fault of a target that both are connected to.
    pub(crate) fn live(name: &'static str, fault: Lever) -> Self {
        Self { fault: Some(fault), ..Self::first(name) }
    }

    pub(crate) fn made(self, made: Made) -> Self {
        Self { made, ..self }
    }

    pub(crate) fn with(mut self, change: fn(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    pub(crate) fn heal(self, heal: Lever) -> Self {
        Self { heal: Some(heal), ..self }
    }

    pub(crate) fn lasting(self, lasts: Duration) -> Self {
        Self { lasts, ..self }
    }

    pub(crate) fn watched(self, watch: Duration) -> Self {
        Self { watch, ..self }
    }

    pub(crate) fn wish(self, wish: Wish) -> Self {
        Self { wish: Some(wish), ..self }
    }

    pub(crate) fn turn(self, turn: Turn) -> Self {
        Self { turn, ..self }
    }

    pub(crate) fn abandoned(self) -> Self {
        Self { abandoned: true, ..self }
    }

    pub(crate) fn needs(self, need: Need) -> Self {
        Self { needs: Some(need), ..self }
    }

    /// Both initiators do the same.
    pub(crate) fn both(self, seen: impl Into<Seen>) -> Self {
        let seen = seen.into();
        let expected = Expected { kernel: seen, ours: seen, reason: "" };
        Self { expected, ..self }
    }

    /// They differ, for a reason.
    pub(crate) fn differs(
        self,
        kernel: impl Into<Seen>,
        ours: impl Into<Seen>,
        reason: &'static str,
    ) -> Self {
        let expected = Expected { kernel: kernel.into(), ours: ours.into(), reason };
        Self { expected, ..self }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.life {
            Life::CameBack => "came back",
            Life::Connected => "connected",
            Life::Deleted => "deleted",
            Life::Exhausted => "attempts used up",
            Life::GaveUp => "gave up at once",
            Life::Refused => "refused",
            Life::StillTrying => "still trying",
            Life::Undisturbed => "undisturbed",
        })?;
        f.write_str(match self.read {
            None => "",
            Some(Read::Done) => "; read done",
            Some(Read::Failed) => "; read failed",
            Some(Read::Held) => "; read held",
            Some(Read::Late) => "; read held, then done",
            Some(Read::LateFailed) => "; read held, then failed",
        })
    }
}
