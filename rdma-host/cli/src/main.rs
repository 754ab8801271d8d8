//! `nvmf`: NVMe over Fabrics over RDMA from the command line.
#![forbid(unsafe_code)]

mod bench;
mod commands;
mod configuration;
mod connect;
mod cpus;
mod data_pattern;
mod disconnects;
mod failure;
mod host;
mod keyring;
mod load;
mod output;
mod process_hardening;
mod secrets;
mod shutdown;
mod size;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    commands::{config, discover, identify, key, log, monitor, read_write, verify},
    failure::Failure,
};

/// NVMe over Fabrics over RDMA, in user space.
///
/// A target is given as one argument (nvmf-rdma://ADDRESS:PORT/NQN, or an SPDK transport ID in
/// quotes) or by the options of nvme-cli (-a, -s, -n).
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 access refused for good, 4 target or network
/// unreachable, 5 data mismatch.
#[derive(Parser)]
#[command(name = "nvmf", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Log to standard error; given twice, in full detail.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Measure IOPS and latency under load.
    Bench(Box<bench::Arguments>),
    /// Read, show and write the configuration in /etc/nvme.
    #[command(subcommand)]
    Config(config::Command),
    Discover(discover::Arguments),
    /// Show the controller, its namespaces and the negotiated parameters.
    Identify(identify::Arguments),
    /// Make and check DH-HMAC-CHAP secrets.
    #[command(subcommand)]
    Key(key::Command),
    /// Show a log page: health, errors, firmware, effects, changed namespaces, access states.
    Log(log::Arguments),
    /// Stay connected and print each change of state and event, one a line.
    Monitor(monitor::Arguments),
    /// Read blocks to a file or standard output.
    Read(read_write::Arguments),
    /// Write a seeded pattern and read it back. Overwrites the namespace.
    Verify(verify::Arguments),
    /// Write blocks from a file or standard input.
    Write(read_write::Arguments),
}

/// Output format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people.
    #[default]
    Normal,
    /// JSON for programs: one value on standard output, and nothing else.
    Json,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::print_message(format_args!("nvmf: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => return output::check(help.print()).map(drop),
    };
    log_to_stderr(arguments.verbose);
    match arguments.command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Discover(arguments) => discover::run(&arguments),
        Command::Identify(arguments) => identify::run(&arguments),
        Command::Key(command) => key::run(&command),
        Command::Log(arguments) => log::run(&arguments),
        Command::Monitor(arguments) => monitor::run(&arguments),
        Command::Read(arguments) => read_write::read(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Write(arguments) => read_write::write(&arguments),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing_subscriber::filter::LevelFilter::DEBUG,
        _ => tracing_subscriber::filter::LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .init();
}
