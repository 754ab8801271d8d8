//! `nvmf`: NVMe over Fabrics over RDMA from the command line, as a function.
#![forbid(unsafe_code)]

mod attach;
mod bench;
mod block_layout;
mod capture;
mod command_queue;
mod commands;
mod connect;
mod cpus;
mod data_pattern;
mod disconnects;
mod environment;
mod io_namespace;
mod load;
mod metrics;
mod nvme_cli;
mod output;
mod output_file;
mod overwrite;
mod path_report;
mod process_hardening;
mod progress;
mod shutdown;
mod signature;
mod terminal;
mod usage_error;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use command_manual::Generate;
use nvmf_options::{
    configuration, failure, host, option_value, program::Program, secret_text, secrets, size,
    target, target_address, termination_signal, text_file,
};

pub use crate::bench::execute_random_reads;
use crate::{
    commands::{
        blocks, config, discover, doctor, generate, hostnqn, identify, identify_data, key, log,
        monitor, nvm, passthrough, read_write, report_bug, reservations, write_verify, zns,
    },
    failure::Failure,
};

/// NVMe over Fabrics over RDMA, in user space.
///
/// A target is given as one argument (nvmf-rdma://ADDRESS:PORT/NQN, or an SPDK transport ID in
/// quotes) or by the options of nvme-cli (-a, -s, -n). Several addresses between commas, or --path,
/// are paths to one subsystem.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 access refused for good, 4 target or network
/// unreachable, 5 data mismatch, 130 and 143 ended by SIGINT and SIGTERM.
#[derive(Parser)]
#[command(name = "nvmf", version, after_help = nvme_cli::help())]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Log to standard error; given twice, in full detail.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Send any admin command, by the options of nvme-cli, and print result and data.
    #[command(
        after_help = "Example:\n  nvmf admin-passthru TARGET --opcode 6 --cdw10 1 --data-len 4096 \
                      --read"
    )]
    AdminPassthru(Box<passthrough::AdminArguments>),
    /// Attach a namespace as a block device (ublk), and print its path.
    ///
    /// A process in the background serves the device until `nvmf detach`. If it ends otherwise,
    /// requests wait until `nvmf attach --recover N` with the same target serves the device again;
    /// those that were in flight are repeated.
    ///
    /// It is a device for file systems and programs that know only files: no /dev/nvmeN, and no
    /// ioctl of NVMe (`nvmf log` and `nvmf identify` have what these ask for). Each request passes
    /// the kernel and this process: latency is better in fio's engine and the libraries.
    #[command(after_help = "Example:\n  nvmf attach TARGET --ns 1")]
    Attach(Box<attach::Arguments>),
    /// Measure IOPS and latency under load; patterns that write overwrite the namespace.
    #[command(after_help = "Example:\n  nvmf bench TARGET --ns 1 --bs 4K --iodepth 8 --runtime 2s")]
    Bench(Box<bench::Arguments>),
    /// Compare blocks with a file or standard input, within the controller (Compare).
    #[command(
        after_help = "Example:\n  nvmf compare TARGET --ns 1 --lba 8 --blocks 8 --file image"
    )]
    Compare(nvm::CompareArguments),
    /// Read, show and write the configuration in /etc/nvme.
    #[command(subcommand, after_help = "Example:\n  nvmf config show")]
    Config(config::Command),
    /// Overwrite blocks with copies of others, without a transfer of data (Copy).
    #[command(
        after_help = "Example:\n  nvmf copy TARGET --ns 1 --sdlba 64 --lba 0,32 --blocks 8,8 \
                      --overwrite"
    )]
    Copy(nvm::CopyArguments),
    /// End a block device that `nvmf attach` made.
    ///
    /// A device that is in use is left as it is. Before Linux 7, that is known only of file
    /// systems, swap space and the like, not of programs that have it open.
    #[command(after_help = "Example:\n  nvmf detach /dev/ublkb0")]
    Detach(attach::DetachArguments),
    #[command(after_help = "Example:\n  nvmf discover -a ADDRESS")]
    Discover(discover::Arguments),
    /// Check this machine's RDMA devices, limits and settings, and say what to do.
    #[command(after_help = "Example:\n  nvmf doctor")]
    Doctor(doctor::Arguments),
    /// Overwrite blocks with what the target leaves there: deallocate them (Dataset Management).
    #[command(
        visible_alias = "discard",
        after_help = "Example:\n  nvmf dsm TARGET --ns 1 --lba 0,100 --blocks 8,8 --overwrite"
    )]
    Dsm(blocks::DeallocateArguments),
    /// Flush completed writes to non-volatile media.
    #[command(after_help = "Example:\n  nvmf flush TARGET --ns 1")]
    Flush(blocks::FlushArguments),
    /// Write manual pages, or print completions for a shell.
    #[command(subcommand, after_help = "Example:\n  nvmf generate completions bash")]
    Generate(Generate),
    /// Make a new host NQN, and print it.
    #[command(after_help = "Example:\n  nvmf gen-hostnqn")]
    GenHostnqn,
    /// Show every field of Identify Controller, with the keys of nvme-cli.
    #[command(after_help = "Example:\n  nvmf id-ctrl TARGET -o json")]
    IdCtrl(identify_data::ControllerArguments),
    /// Show every field of Identify Namespace, with the keys of nvme-cli.
    #[command(after_help = "Example:\n  nvmf id-ns TARGET --ns 1 -o json")]
    IdNs(identify_data::NamespaceArguments),
    /// Show the controller, its namespaces and the negotiated parameters.
    #[command(after_help = "Example:\n  nvmf identify TARGET -o json")]
    Identify(identify::Arguments),
    /// Read a feature, and print its value and data.
    #[command(after_help = "Example:\n  nvmf get-feature TARGET --feature-id 7")]
    GetFeature(passthrough::GetFeatureArguments),
    /// Read any log page, or a part of it, as bytes; `nvmf log` has the usual ones as text.
    #[command(after_help = "Example:\n  nvmf get-log TARGET --log-id 2 --log-len 512")]
    GetLog(passthrough::GetLogArguments),
    /// Send any I/O command; one that may change blocks asks, and overwrites them.
    #[command(
        after_help = "Example:\n  nvmf io-passthru TARGET --ns 1 --opcode 2 --data-len 512 --read"
    )]
    IoPassthru(Box<passthrough::IoArguments>),
    /// Make and check DH-HMAC-CHAP secrets.
    #[command(subcommand, after_help = "Example:\n  nvmf key gen -m 1")]
    Key(key::Command),
    /// Show the block devices that `nvmf attach` made.
    #[command(after_help = "Example:\n  nvmf list -o json")]
    List(attach::ListArguments),
    /// Show a log page: health, errors, firmware, effects, changed namespaces, access states.
    #[command(after_help = "Example:\n  nvmf log TARGET health")]
    Log(log::Arguments),
    /// Stay connected and print each change of state and event, one a line.
    #[command(after_help = "Example:\n  nvmf monitor TARGET --runtime 2s")]
    Monitor(monitor::Arguments),
    /// Read blocks to a file or standard output.
    #[command(after_help = "Example:\n  nvmf read TARGET --ns 1 --lba 0 --blocks 8 --file image")]
    Read(read_write::ReadArguments),
    #[command(after_help = "Example:\n  nvmf report result.json --csv result.csv")]
    Report(bench::ReportArguments),
    /// Gather what a bug report needs, without secrets: versions, devices, limits, configuration.
    #[command(after_help = "Example:\n  nvmf report-bug -- identify TARGET")]
    ReportBug(report_bug::Arguments),
    /// Register this host for reservations of a namespace, replace its key, or unregister it.
    #[command(after_help = "Example:\n  nvmf resv-register TARGET --ns 1 --nrkey 0x1")]
    ResvRegister(reservations::RegisterArguments),
    /// Acquire a reservation of a namespace, or preempt that of other hosts.
    ///
    /// `--racqa preempt-and-abort` ends once all commands of the preempted hosts have ended: none
    /// of them changes a block after that.
    #[command(after_help = "Example:\n  nvmf resv-acquire TARGET --ns 1 --crkey 0x1 --rtype 1")]
    ResvAcquire(reservations::AcquireArguments),
    /// Show the reservation of a namespace and the registered hosts, with the keys of nvme-cli.
    #[command(after_help = "Example:\n  nvmf resv-report TARGET --ns 1 -o json")]
    ResvReport(reservations::ReportArguments),
    /// Release the reservation of a namespace, or clear it with all registrations.
    #[command(after_help = "Example:\n  nvmf resv-release TARGET --ns 1 --crkey 0x1 --rtype 1")]
    ResvRelease(reservations::ReleaseArguments),
    /// Set a feature to a value; its data, if it has some, comes from a file.
    #[command(after_help = "Example:\n  nvmf set-feature TARGET --feature-id 11 --value 0x100")]
    SetFeature(passthrough::SetFeatureArguments),
    /// Show the NQN of this host.
    #[command(after_help = "Example:\n  nvmf show-hostnqn")]
    ShowHostnqn,
    /// Have the controller read blocks, without a transfer of data (Verify).
    ///
    /// `nvmf write-verify` is another command: it overwrites the namespace and reads it back.
    #[command(after_help = "Example:\n  nvmf verify TARGET --ns 1 --lba 0 --blocks 8")]
    Verify(nvm::VerifyArguments),
    /// Overwrite blocks with data from a file or standard input.
    #[command(after_help = "Example:\n  nvmf write TARGET --ns 1 --lba 8 --file image --overwrite")]
    Write(read_write::WriteArguments),
    /// Overwrite blocks so that they can't be read until they are written (Write Uncorrectable).
    #[command(
        after_help = "Example:\n  nvmf write-uncor TARGET --ns 1 --lba 0 --blocks 8 --overwrite"
    )]
    WriteUncor(nvm::WriteUncorrectableArguments),
    /// Overwrite the namespace with a seeded pattern, under load, and read it back.
    #[command(after_help = "Example:\n  nvmf write-verify TARGET --ns 1 --size 1M --overwrite")]
    WriteVerify(write_verify::Arguments),
    /// Overwrite blocks with zeros, without a transfer of data.
    #[command(
        after_help = "Example:\n  nvmf write-zeroes TARGET --ns 1 --lba 0 --blocks 8 --overwrite"
    )]
    WriteZeroes(blocks::WriteZeroesArguments),
    /// Show, append to and manage the zones of a zoned namespace.
    #[command(subcommand, after_help = "Example:\n  nvmf zns report-zones TARGET --ns 1")]
    Zns(zns::Command),
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

/// Executes the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::print_message(format_args!("nvmf: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut nvmf = Arguments::command().term_width(command_manual::help_width());
    let words = nvme_cli::replace_words(std::env::args_os().collect(), &nvmf);
    let parsed = nvmf.try_get_matches_from_mut(&words);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => Err(usage_error::failure(&error, &words, &nvmf))?,
        Err(help) => return output::check(help.print()).map(drop),
    };
    log_to_stderr(arguments.verbose);
    Program { warn: output::print_warning, protect: process_hardening::protect }.set();
    match arguments.command {
        Command::AdminPassthru(arguments) => capture::run(&*arguments),
        Command::Attach(arguments) => attach::run(&arguments),
        Command::Bench(arguments) => capture::run(&jobs(*arguments, &words)?),
        Command::Compare(arguments) => capture::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Copy(arguments) => capture::run(&arguments),
        Command::Detach(arguments) => attach::detach(&arguments),
        Command::Discover(arguments) => capture::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Dsm(arguments) => capture::run(&arguments),
        Command::Flush(arguments) => capture::run(&arguments),
        Command::Generate(command) => generate::run(&command, Arguments::command()),
        Command::GenHostnqn => hostnqn::generate(),
        Command::GetFeature(arguments) => capture::run(&arguments),
        Command::GetLog(arguments) => capture::run(&arguments),
        Command::IdCtrl(arguments) => capture::run(&arguments),
        Command::IdNs(arguments) => capture::run(&arguments),
        Command::Identify(arguments) => capture::run(&arguments),
        Command::IoPassthru(arguments) => capture::run(&*arguments),
        Command::Key(command) => key::run(&command),
        Command::List(arguments) => attach::list(&arguments),
        Command::Log(arguments) => capture::run(&arguments),
        Command::Monitor(arguments) => capture::run(&arguments),
        Command::Read(arguments) => capture::run(&arguments),
        Command::Report(arguments) => bench::report(&arguments),
        Command::ReportBug(arguments) => report_bug::run(&arguments, &Arguments::command()),
        Command::ResvAcquire(arguments) => capture::run(&arguments),
        Command::ResvRegister(arguments) => capture::run(&arguments),
        Command::ResvRelease(arguments) => capture::run(&arguments),
        Command::ResvReport(arguments) => capture::run(&arguments),
        Command::SetFeature(arguments) => capture::run(&arguments),
        Command::ShowHostnqn => hostnqn::show(),
        Command::Verify(arguments) => capture::run(&arguments),
        Command::Write(arguments) => capture::run(&arguments),
        Command::WriteUncor(arguments) => capture::run(&arguments),
        Command::WriteVerify(arguments) => capture::run(&arguments),
        Command::WriteZeroes(arguments) => capture::run(&arguments),
        Command::Zns(command) => zns::run(&command),
    }
}

/// Jobs of `nvmf bench`: those of a file, or the one of the command line.
fn jobs(arguments: bench::Arguments, words: &[OsString]) -> Result<Vec<bench::Job>, Failure> {
    match &arguments.job {
        Some(path) => bench::read_jobs(path, words, &Arguments::command()),
        None => Ok(vec![bench::Job::unnamed(arguments)]),
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
        .with_writer(|| output::LogOutput)
        .log_internal_errors(false)
        .init();
}
