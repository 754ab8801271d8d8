//! `soft-roce native`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use soft_roce::{Result, native};

use super::print;

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
            Self::Status => return Ok(print(native::status().to_string().trim_end())),
        }
        Ok(ExitCode::SUCCESS)
    }
}
