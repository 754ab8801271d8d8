//! `soft-roce run`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use regex_lite::Regex;
use soft_roce::{
    Device, Guest, Kernel, Machine, Outcome, Result, RunStatus, run::kernel_log, size,
};

use super::{non_empty, path_or_empty};

/// Run a program in a guest that has rxe and, with --target, an NVMe target
///
/// The program runs here: in this folder, on these files, with these arguments, environment and
/// standard streams, and its exit status becomes ours. Inside it is root, the RDMA device is at
/// 10.10.10.1 (SOFT_ROCE_ADDRESS), and `soft-roce target` changes the target while it runs. The
/// guest ends with the program. The status is 124 when the time is up, 101 when the kernel crashed,
/// warned or gave no result, and 128 + N when signal N killed the program.
#[derive(Args)]
pub(crate) struct Run {
    /// Which kernel: 6.12, 7 (the newest 7.x), or the path of a built `linux` program
    #[arg(long, env = "SOFT_ROCE_KERNEL", default_value = "6.12")]
    kernel: Kernel,
    /// Which RDMA device: rxe (soft-RoCE, rxe0) or siw (soft-iWARP, siw0) at 10.10.10.1, or both:
    /// rxe0 there and siw0 at 10.10.11.1 (SOFT_ROCE_SIW_ADDRESS)
    #[arg(long, env = "SOFT_ROCE_DEVICE", default_value_t)]
    device: Device,
    /// The machine: uml (User-Mode Linux), qemu (a stock kernel in QEMU), or auto: uml, and qemu
    /// where that cannot run
    #[arg(long, env = soft_roce::MACHINE_VARIABLE, default_value = "auto")]
    machine: Machine,
    /// How many processors the guest has; more than one needs --machine qemu [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// Set up the NVMe target of this file before the program starts
    #[arg(long, value_name = "FILE", env = "SOFT_ROCE_TARGET", value_parser = path_or_empty())]
    target: Option<PathBuf>,
    /// End the run, whatever it is doing, after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// The guest's memory
    #[arg(long, default_value = "1G", value_parser = size::parse)]
    mem: u64,
    /// The processor to run on [default: the one with the fewest guests]
    #[arg(long)]
    cpu: Option<usize>,
    /// Make kernel messages that match fatal; may be given again
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    deny: Vec<Regex>,
    /// Let the kernel warn in lines that match: of a fault of its own that is known; may be given
    /// again
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    allow: Vec<Regex>,
    /// Keep the kernel's messages in this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Keep the kernel's log and the state of RDMA of a run that fails, in a folder of its own in
    /// this one
    #[arg(long, value_name = "FOLDER", env = "SOFT_ROCE_ARTIFACTS")]
    #[arg(value_parser = path_or_empty())]
    artifacts: Option<PathBuf>,
    /// Start an interactive shell, or PROGRAM, on a terminal of its own
    #[arg(long)]
    shell: bool,
    /// Add words to the kernel's command line
    #[arg(long, value_name = "WORD")]
    kernel_arg: Vec<String>,
    /// The program and its arguments
    #[arg(
        required_unless_present = "shell",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["PROGRAM", "ARGS"]
    )]
    program: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let outcome = self.guest().run()?;
        report(&outcome);
        Ok(ExitCode::from(outcome.status()))
    }

    fn guest(self) -> Guest {
        let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let mut words = self.program.into_iter();
        let program = words.next().unwrap_or_else(shell);
        let mut guest = Guest::new(program)
            .args(words)
            .kernel(self.kernel)
            .machine(self.machine)
            .device(self.device)
            .memory_bytes(self.mem)
            .kernel_args(self.kernel_arg);
        guest = self.deny.into_iter().fold(guest, Guest::deny);
        guest = self.allow.into_iter().fold(guest, Guest::allow);
        if let Some(file) = non_empty(self.target) {
            guest = guest.target(file);
        }
        if let Some(timeout) = self.timeout {
            guest = guest.timeout(timeout);
        }
        if let Some(cpus) = self.cpus {
            guest = guest.cpus(cpus);
        }
        if let Some(cpu) = self.cpu {
            guest = guest.cpu(cpu);
        }
        if let Some(file) = self.log {
            guest = guest.log(file);
        }
        if let Some(folder) = non_empty(self.artifacts) {
            guest = guest.artifacts(folder);
        }
        if self.shell { guest.interactive() } else { guest }
    }
}

fn report(outcome: &Outcome) {
    let broken = !outcome.kernel_warnings.is_empty();
    if broken || matches!(outcome.ending, RunStatus::NoResult(_)) {
        outcome.excerpt().iter().for_each(|line| eprintln!("  {line}"));
    }
    match &outcome.ending {
        RunStatus::TimedOut(limit) => {
            eprintln!("soft-roce: not done after {} s; killed (--timeout)", limit.as_secs_f64());
        }
        RunStatus::NoResult(reason) => {
            eprintln!("soft-roce: no result from the guest: {reason}; its kernel's log is above");
        }
        RunStatus::NotSetUp(reason) => eprintln!("soft-roce: {reason}"),
        RunStatus::NotStarted(_, reason) => eprintln!("soft-roce: cannot run {reason}"),
        _ => {}
    }
    if let Some(kernel_log::KernelWarning { kind, line, .. }) = outcome.kernel_warnings.first() {
        let count = outcome.kernel_warnings.len();
        eprintln!("soft-roce: {count} bad kernel messages (see above), first a {kind}: {line}");
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    let duration = Duration::try_from_secs_f64(number);
    duration.ok().filter(|limit| !limit.is_zero()).ok_or_else(|| "give more than 0".into())
}
