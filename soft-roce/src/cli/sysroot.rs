//! `soft-roce sysroot`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use soft_roce::{Architecture, Result, make_sysroot};

/// Make a user space for another processor, for `run --sysroot`, of Debian's packages
///
/// It has a shell, coreutils, util-linux, iproute2 and RDMA's libraries with their development
/// files, so that the folder also serves the linker. Nothing is installed on this machine. Before a
/// guest can run there, put soft-roce, built for that processor, into its usr/bin.
#[derive(Args)]
pub(crate) struct Sysroot {
    /// The folder; it must be empty, absent, or made by the same command before
    folder: PathBuf,
    /// The processor: aarch64 or x86_64
    #[arg(long)]
    arch: Architecture,
    /// More of Debian's packages
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
}

impl Sysroot {
    pub(crate) fn run(self) -> Result<ExitCode> {
        make_sysroot(&self.folder, self.arch.debian(), &self.packages)?;
        Ok(super::print(&self.folder.display().to_string()))
    }
}
