//! What came of a run.

use std::time::Duration;

use rustix::process::Signal;

use crate::run::kernel_log::{self, KernelWarning};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// Nobody reads standard output any more, so the run was ended.
    BrokenPipe,
    /// The program ended by itself with this status.
    Exited(i32),
    /// A signal killed the program.
    Killed(i32),
    /// The guest went away without a result.
    NoResult(String),
    /// The bed could not be set up inside the guest, for this reason.
    NotSetUp(String),
    /// The program could not be started: a shell's status for that, and the reason.
    NotStarted(i32, String),
    /// The time was up.
    TimedOut(Duration),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: RunStatus,
    /// Lines of the kernel's log that make the run a failure.
    pub kernel_warnings: Vec<KernelWarning>,
    /// The kernel's messages.
    pub kernel_log: String,
    /// What was captured of standard output.
    pub stdout: Vec<u8>,
    /// What was captured of standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// The status for a shell: the program's own, 128 + signal, 124 after a timeout, and 101 when
    /// the kernel complained or nothing is known of the program.
    #[must_use]
    pub fn status(&self) -> u8 {
        let number = match &self.ending {
            RunStatus::TimedOut(_) => 124,
            _ if !self.kernel_warnings.is_empty() => 101,
            RunStatus::NoResult(_) | RunStatus::NotSetUp(_) => 101,
            RunStatus::BrokenPipe => 128 + Signal::PIPE.as_raw(),
            RunStatus::Exited(status) | RunStatus::NotStarted(status, _) => *status,
            RunStatus::Killed(signal) => 128 + signal,
        };
        u8::try_from(number).unwrap_or(101)
    }

    /// Whether the program succeeded and the kernel stayed sound.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status() == 0
    }

    /// The part of the kernel's log that belongs to the failure.
    #[must_use]
    pub fn excerpt(&self) -> Vec<&str> {
        kernel_log::excerpt(&self.kernel_log, &self.kernel_warnings)
    }
}
