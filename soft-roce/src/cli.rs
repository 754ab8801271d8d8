//! The command line.

mod build;
mod doctor;
mod generate;
mod native;
mod run;
mod sysroot;
mod target;

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser},
};
use command_manual::Generate;
use soft_roce::{Error, internal_commands::InternalCommand};

const EXAMPLES: &str = "\
Examples:
  soft-roce run -- cargo test
  soft-roce run --target soft-roce/targets/basic.toml -- nvmf discover -a 10.10.10.1";

/// RDMA without hardware: runs programs in a kernel that has soft-RoCE and an NVMe target
///
/// The kernel is User-Mode Linux, an ordinary process: no root, no KVM, no kernel module. It is
/// built once from the kernel source of Debian or Ubuntu and boots in half a second.
#[derive(Parser)]
#[command(name = "soft-roce", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Build(build::Build),
    Doctor(doctor::Doctor),
    Export(build::Export),
    /// Write manual pages, or print completions for a shell
    #[command(subcommand)]
    Generate(Generate),
    Import(build::Import),
    #[command(subcommand)]
    Native(native::Native),
    Run(Box<run::Run>),
    Sysroot(sysroot::Sysroot),
    #[command(subcommand)]
    Target(target::Target),
}

/// Parses the command line, does it, and reports an error in one line.
pub(crate) fn main() -> ExitCode {
    if let Some(command) = InternalCommand::of(std::env::args_os()) {
        return command.run();
    }
    let command = Arguments::command().term_width(command_manual::help_width());
    let parsed = command.try_get_matches();
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => return printed(help.print()),
    };
    let done = match arguments.command {
        Subcommands::Build(build) => build.run(),
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Export(export) => export.run(),
        Subcommands::Generate(generate) => Ok(generate::run(&generate, Arguments::command())),
        Subcommands::Import(import) => import.run(),
        Subcommands::Native(native) => native.run(),
        Subcommands::Run(run) => run.run(),
        Subcommands::Sysroot(sysroot) => sysroot.run(),
        Subcommands::Target(target) => target.run(),
    };
    done.unwrap_or_else(|error| report(&error))
}

/// Parser of a path that may be empty: an environment variable that was meant to be unset is.
pub(crate) fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The path that [`path_or_empty`] has parsed, if there is one.
pub(crate) fn non_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

fn report(error: &Error) -> ExitCode {
    if let Error::Build { tail, .. } = error {
        tail.iter().for_each(|line| print_message(format_args!("  {line}")));
    }
    print_message(format_args!("soft-roce: {error}"));
    ExitCode::from(2)
}

/// Prints a result and a line end; a reader who has left is no error, a full disk is told.
fn print(text: &str) -> ExitCode {
    printed(writeln!(io::stdout(), "{text}"))
}

fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            print_message(format_args!("soft-roce: standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line on standard error. There is no place to report that this failed.
fn print_message(message: impl Display) {
    let _ = writeln!(io::stderr(), "{message}");
}
