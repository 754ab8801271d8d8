//! `soft-roce run`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Args;
use regex_lite::Regex;
use soft_roce::{
    CpuAffinity, Device, Error, Guest, Kernel, Machine, Outcome, Result, RunStatus,
    run::{is_guest, kernel_log},
    size,
};

use super::{non_empty, path_or_empty, print_message};

/// Run a program in a guest that has rxe and, with --target, an NVMe target
///
/// The program runs here: in this folder, on these files, with these arguments, environment and
/// standard streams, and its exit status becomes ours. Inside it is root, the RDMA device is at
/// 10.10.10.1 (SOFT_ROCE_ADDRESS), and `soft-roce target` changes the target while it runs. The
/// guest ends with the program. The status is 124 when the time is up, 101 when the kernel crashed,
/// warned or gave no result, and 128 + N when signal N killed the program. Inside a guest, `run`
/// executes the program in that guest.
#[derive(Args)]
pub(crate) struct Run {
    /// Kernel: 6.12, 7 (the newest 7.x), or the path of a built `linux` program
    #[arg(long, env = "SOFT_ROCE_KERNEL", default_value = "6.12")]
    kernel: Kernel,
    /// RDMA device: rxe (soft-RoCE, rxe0) or siw (soft-iWARP, siw0) at 10.10.10.1, or both:
    /// rxe0 there and siw0 at 10.10.11.1 (SOFT_ROCE_SIW_ADDRESS)
    #[arg(long, env = "SOFT_ROCE_DEVICE", default_value_t)]
    device: Device,
    /// The machine: uml (User-Mode Linux), qemu (a stock kernel in QEMU), or auto: uml, and qemu
    /// where that cannot run
    #[arg(long, env = soft_roce::MACHINE_VARIABLE, default_value = "auto")]
    machine: Machine,
    /// Number of processors of the guest; more than one needs --machine qemu [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// The user space, instead of this machine's: a folder as `soft-roce sysroot` makes it, with
    /// soft-roce for its processor as usr/bin/soft-roce; the guest has that processor. Needs QEMU
    #[arg(long, value_name = "FOLDER")]
    sysroot: Option<PathBuf>,
    /// Set up the NVMe target of this file before the program starts
    #[arg(long, value_name = "FILE", env = "SOFT_ROCE_TARGET", value_parser = path_or_empty())]
    target: Option<PathBuf>,
    /// End the run, whatever it is doing, after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// The guest's memory
    #[arg(long, default_value = "1G", value_parser = size::parse)]
    mem: u64,
    /// The processor to run on, or `all`: on an idle machine system calls of a 7.x kernel are then
    /// faster [default: the processor with the fewest guests; all for QEMU]
    #[arg(long, value_name = "N|all")]
    cpu: Option<CpuAffinity>,
    /// Make kernel messages that match fatal; may be given again
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    deny: Vec<Regex>,
    /// Let the kernel warn in lines that match: of a fault of its own that is known; may be given
    /// again
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    allow: Vec<Regex>,
    /// Keep the kernel's messages in this file; a new one is readable by its owner only
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
        value_names = ["PROGRAM", "ARGS"]
    )]
    program: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if is_guest() {
            return self.run_here();
        }
        let outcome = self.guest().run()?;
        report(&outcome);
        Ok(ExitCode::from(outcome.status()))
    }

    /// Executes the program in the guest in which this process runs.
    ///
    /// So a runner that is set for cargo also works for a cargo that a test calls. The options
    /// are those of the run that started the guest; one that asks for something else is refused.
    fn run_here(self) -> Result<ExitCode> {
        let targets = self.target.iter().map(|file| file.canonicalize().ok());
        let own = std::env::var_os("SOFT_ROCE_TARGET").map(PathBuf::from);
        if targets.into_iter().any(|target| target != own) {
            let text = "this is a guest already, and its target is another; use \
                        `soft-roce target up FILE` in it";
            return Err(Error::Usage(text.into()));
        }
        let Some((name, args)) = self.program.split_first() else {
            let text = "this is a guest already; name a program, or start a shell as usual";
            return Err(Error::Usage(text.into()));
        };
        let error = Command::new(name).args(args).exec();
        print_message(format_args!("soft-roce: cannot run {}: {error}", name.display()));
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Ok(ExitCode::from(if missing { 127 } else { 126 }))
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
        if let Some(folder) = self.sysroot {
            guest = guest.sysroot(folder);
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
        outcome.excerpt().iter().for_each(|line| print_message(format_args!("  {line}")));
    }
    match &outcome.ending {
        RunStatus::TimedOut(limit) => {
            print_message(format_args!(
                "soft-roce: not done after {} s; killed (--timeout)",
                limit.as_secs_f64()
            ));
        }
        RunStatus::NoResult(reason) => {
            print_message(format_args!(
                "soft-roce: no result from the guest: {reason}; its kernel's log is above"
            ));
        }
        RunStatus::OutputFailed(reason) => {
            print_message(format_args!("soft-roce: cannot write the program's output: {reason}"));
        }
        RunStatus::NotSetUp(reason) => print_message(format_args!("soft-roce: {reason}")),
        RunStatus::NotStarted(_, reason) => {
            print_message(format_args!("soft-roce: cannot run {reason}"))
        }
        _ => {}
    }
    if let Some(kernel_log::KernelWarning { kind, line, .. }) = outcome.kernel_warnings.first() {
        let count = outcome.kernel_warnings.len();
        print_message(format_args!(
            "soft-roce: {count} bad kernel messages (see above), first a {kind}: {line}"
        ));
    }
    if outcome.panicked() || matches!(outcome.ending, RunStatus::NoResult(_)) {
        print_message(format_args!(
            "soft-roce: cause: {}",
            outcome.cause().unwrap_or("not a known one")
        ));
        print_message(format_args!(
            "soft-roce: `soft-roce doctor` tries what a guest needs; --log FILE keeps the kernel's \
             whole log"
        ));
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    let duration = Duration::try_from_secs_f64(number);
    duration.ok().filter(|limit| !limit.is_zero()).ok_or_else(|| "give more than 0".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        run: Run,
    }

    fn program_of(words: &[&str]) -> Option<Vec<OsString>> {
        let words = std::iter::once(&"run").chain(words);
        Some(Arguments::try_parse_from(words).ok()?.run.program)
    }

    #[test]
    fn an_option_that_is_not_known_is_no_program() {
        assert_eq!(program_of(&["--typo", "x"]), None);
        let words = |words: [&str; 2]| Some(words.map(OsString::from).to_vec());
        assert_eq!(program_of(&["x", "--typo"]), words(["x", "--typo"]));
        assert_eq!(program_of(&["x", "--kernel"]), words(["x", "--kernel"]));
        assert_eq!(program_of(&["--", "--typo", "x"]), words(["--typo", "x"]));
    }
}
