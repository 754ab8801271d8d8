//! `soft-roce native` and `soft-roce doctor`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use soft_roce::{
    Result,
    doctor::{self, Verdict},
    native,
};

/// Set up rxe and the target on this machine's own kernel; needs root and the modules
#[derive(Subcommand)]
pub(crate) enum Native {
    /// Make an RDMA device and bring up the target of FILE
    Up {
        /// The target file [default: no target, only the device]
        file: Option<PathBuf>,
    },
    /// Take down what `up` brought up
    Down,
    /// Say what stands, and what is missing
    Status,
}

impl Native {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Up { file } => native::up(file.as_deref())?,
            Self::Down => native::down()?,
            Self::Status => print!("{}", native::status()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints what this machine can do; fails when something does not work.
pub(crate) fn doctor() -> ExitCode {
    let checks = doctor::examine();
    for check in &checks {
        let mark = match check.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        println!("{mark}  {}: {}", check.subject, check.text);
    }
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
