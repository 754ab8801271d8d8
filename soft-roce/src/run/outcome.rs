//! Outcome of a run.

use std::time::Duration;

use rustix::process::Signal;

use crate::run::{
    cause,
    kernel_log::{self, KernelWarning},
};

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// The reader of the program's output closed it, so the run was ended.
    BrokenPipe,
    /// The program exited with this status.
    Exited(i32),
    /// This signal killed the program.
    Killed(i32),
    /// The guest ended without the program's status, for this reason.
    NoResult(String),
    /// The program's output could not be written, for this reason, so the run was ended.
    OutputFailed(String),
    /// The bed could not be set up inside the guest, for this reason.
    NotSetUp(String),
    /// The program could not be started: a shell's status for that, and the reason.
    NotStarted(i32, String),
    /// The time limit was reached.
    TimedOut(Duration),
}

/// Outcome of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result.
    pub ending: RunStatus,
    /// Lines of the kernel's log that make the run a failure.
    pub kernel_warnings: Vec<KernelWarning>,
    /// The kernel's messages.
    pub kernel_log: String,
    /// The captured part of standard output.
    pub stdout: Vec<u8>,
    /// The captured part of standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Exit status for a shell: the program's own, 128 + signal, 124 after a timeout, and 101 when
    /// the kernel logged a fatal message or there is no status of the program.
    #[must_use]
    pub fn status(&self) -> u8 {
        let number = match &self.ending {
            RunStatus::TimedOut(_) => 124,
            _ if !self.kernel_warnings.is_empty() => 101,
            RunStatus::NoResult(_) | RunStatus::NotSetUp(_) | RunStatus::OutputFailed(_) => 101,
            RunStatus::BrokenPipe => 128 + Signal::PIPE.as_raw(),
            RunStatus::Exited(status) | RunStatus::NotStarted(status, _) => *status,
            RunStatus::Killed(signal) => 128 + signal,
        };
        u8::try_from(number).unwrap_or(101)
    }

    /// Tells if the program succeeded and the kernel logged no fatal message.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status() == 0
    }

    /// Cause of a guest that ended without a result, or whose kernel panicked behind the program's
    /// status, if it is a known one, and what to do.
    #[must_use]
    pub fn cause(&self) -> Option<&'static str> {
        match &self.ending {
            RunStatus::NoResult(reason) => cause::find(&self.kernel_log, reason),
            _ if self.panicked() => cause::find(&self.kernel_log, ""),
            _ => None,
        }
    }

    /// Returns true if the kernel panicked.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.kernel_warnings.iter().any(|warning| warning.kind == "panic")
    }

    /// The part of the kernel's log that belongs to the failure.
    #[must_use]
    pub fn excerpt(&self) -> Vec<&str> {
        kernel_log::excerpt(&self.kernel_log, &self.kernel_warnings)
    }
}
