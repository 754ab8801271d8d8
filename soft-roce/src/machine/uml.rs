//! User-Mode Linux: its command line, and how it says that it cannot run here.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use crate::{
    Kernel, Outcome, RunStatus,
    run::spec::{LaunchSpec, name},
};

/// Name of the machine, for messages.
pub(crate) const NAME: &str = "User-Mode Linux";

/// First line of a kernel's log; before it, User-Mode Linux looks at what its host permits.
const FIRST_LINE: &str = "Linux version ";

/// Parts of lines that tell of a host which forbids what User-Mode Linux needs.
const REFUSALS: [&str; 6] = [
    "ptrace",
    "noexec",
    "PROT_EXEC",
    "Operation not permitted",
    "Permission denied",
    "Exec format error",
];

/// Returns why User-Mode Linux cannot be used for this, as far as that is known beforehand.
pub(crate) fn refusal(kernel: &Kernel, cpus: Option<usize>) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        let name = std::env::consts::ARCH;
        return Some(format!("it runs on x86-64, and this processor is {name}"));
    }
    if let Some(cpus) = cpus.filter(|cpus| *cpus > 1) {
        return Some(format!("it has one processor, and --cpus asks for {cpus}"));
    }
    if let Some(reason) = tracing_is_forbidden() {
        return Some(reason.into());
    }
    match kernel {
        Kernel::Program(path) if path.is_file() && !is_program(kernel) => {
            Some(format!("{} is a kernel for another machine", path.display()))
        }
        _ => None,
    }
}

/// Returns the setting of Yama's that forbids ptrace to this user, where there is one.
fn tracing_is_forbidden() -> Option<&'static str> {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "3" => Some("ptrace is forbidden by kernel.yama.ptrace_scope=3"),
        "2" if !rustix::process::geteuid().is_root() => {
            Some("ptrace is root's alone by kernel.yama.ptrace_scope=2")
        }
        _ => None,
    }
}

/// Returns why the host did not let User-Mode Linux start, where that is what ended a run.
pub(crate) fn refused_by_host(outcome: &Outcome) -> Option<String> {
    let RunStatus::NoResult(reason) = &outcome.ending else { return None };
    if outcome.kernel_log.contains(FIRST_LINE) {
        return None;
    }
    // A check that succeeded names what it has checked, too.
    let is_refusal = |line: &&str| {
        !line.trim_end().ends_with("OK") && REFUSALS.iter().any(|part| line.contains(part))
    };
    let mut lines = outcome.kernel_log.lines().rev().chain([reason.as_str()]);
    lines.find(is_refusal).map(|line| line.trim().to_owned())
}

/// The kernel's command line.
pub(crate) fn arguments(launch: &LaunchSpec, folder: &Path, line: [&OwnedFd; 2]) -> Vec<String> {
    let [input, output] = line.map(AsRawFd::as_raw_fd);
    let place = folder.display();
    let mut arguments = vec![
        format!("mem={}K", launch.memory_bytes >> 10),
        "root=/dev/root".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "rw".into(),
        format!("uml_dir={place}/{}/", name::UML),
        "umid=guest".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        format!("con1=fd:{input},fd:{output}"),
        "loglevel=7".into(),
        "oops=panic".into(),
        "null_blk.nr_devices=0".into(),
        // Half the cost of a system call, where kernel and host have it (7.x); ptrace otherwise.
        "seccomp=auto".into(),
        format!("init={place}/{}", name::INIT),
    ];
    arguments.extend_from_slice(&launch.extra);
    arguments.extend(["--".into(), "init".into(), place.to_string()]);
    arguments
}

/// Tells if a kernel is given as a program, and not as a file that is loaded, as a distribution's
/// `vmlinuz` is.
pub(crate) fn is_program(kernel: &Kernel) -> bool {
    let Kernel::Program(path) = kernel else { return false };
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && (start.starts_with(b"\x7fELF") || start.starts_with(b"#!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(log: &str, ending: RunStatus) -> Outcome {
        Outcome {
            ending,
            kernel_warnings: Vec::new(),
            kernel_log: log.into(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn a_host_that_forbids_is_told_from_a_guest_that_fails() {
        let lost = || RunStatus::NoResult("its kernel ended (exit 1) while booting".into());
        let forbidden = "Core dump limits :\nptrace: Operation not permitted\n";
        let found = refused_by_host(&outcome(forbidden, lost()));
        assert_eq!(found.as_deref(), Some("ptrace: Operation not permitted"));
        let booted = "Linux version 6.12\nptrace: Operation not permitted\n";
        assert_eq!(refused_by_host(&outcome(booted, lost())), None);
        assert_eq!(refused_by_host(&outcome(forbidden, RunStatus::Exited(1))), None);
        assert_eq!(refused_by_host(&outcome("out of memory\n", lost())), None);
        let checked = "Checking PROT_EXEC mmap in /dev/shm/x...OK\nThe extended state\n";
        assert_eq!(refused_by_host(&outcome(checked, lost())), None);
        let started = RunStatus::NoResult("cannot start /x/linux: Permission denied".into());
        assert!(refused_by_host(&outcome("", started)).is_some());
    }

    #[test]
    fn what_it_cannot_do_is_said_beforehand() {
        let kernel = Kernel::default();
        assert_eq!(refusal(&kernel, None).is_none(), cfg!(target_arch = "x86_64"));
        assert!(refusal(&kernel, Some(2)).is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"MZ\0\0 a kernel").unwrap();
        assert!(refusal(&Kernel::Program(file.path().into()), None).is_some());
    }
}
