//! The command line.

mod build;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use soft_roce::machine::{Error, Result};

/// RDMA without hardware: runs programs in a kernel that has soft-RoCE and an NVMe target
///
/// The kernel is User-Mode Linux, an ordinary process: no root, no KVM, no kernel module. It is
/// built once from Debian's kernel source and boots in half a second.
#[derive(Parser)]
#[command(name = "soft-roce", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Build(build::Build),
}

/// Parses the command line, does it, and reports an error in one line.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Subcommands::Build(build) => build.run(),
    };
    done.unwrap_or_else(|error| report(&error))
}

fn report(error: &Error) -> ExitCode {
    if let Error::Build { tail, .. } = error {
        tail.iter().for_each(|line| eprintln!("  {line}"));
    }
    eprintln!("soft-roce: {error}");
    ExitCode::from(2)
}
