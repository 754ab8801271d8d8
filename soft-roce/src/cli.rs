//! The command line.

mod build;
mod native;
mod run;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use soft_roce::{Error, internal_commands::InternalCommand};

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
    /// Say what this machine can do, and why not more
    Doctor,
    #[command(subcommand)]
    Native(native::Native),
    Run(run::Run),
    #[command(subcommand)]
    Target(target::Target),
}

/// Parses the command line, does it, and reports an error in one line.
pub(crate) fn main() -> ExitCode {
    if let Some(role) = InternalCommand::of(std::env::args_os()) {
        return role.play();
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Subcommands::Build(build) => build.run(),
        Subcommands::Doctor => Ok(native::doctor()),
        Subcommands::Native(native) => native.run(),
        Subcommands::Run(run) => run.run(),
        Subcommands::Target(target) => target.run(),
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
