//! Machines that a guest runs on: a User-Mode Linux process, or QEMU with a stock kernel.
//!
//! Both give a guest the same: the host's files with the caller's rights, one framed line for the
//! program's streams, and the kernel's messages in a file. They differ in where the kernel comes
//! from (built here; a distribution's package), in speed, and in what they ask of the host.

pub(crate) mod boot;
mod builtin;
mod cpio;
mod elf;
mod initramfs;
mod kvm;
pub(crate) mod modprobe;
mod modules;
pub mod qemu;
mod stock;
pub(crate) mod sysroot;
pub(crate) mod uml;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Kernel, Result,
    kernel::{build, cache::Cache},
    run::{dir::PrivateDir, memory, paths, trial},
};
use sysroot::Sysroot;

/// Names the machine in the environment, as `--machine` does on the command line.
pub const MACHINE_VARIABLE: &str = "SOFT_ROCE_MACHINE";

/// Tells a program in a guest by what factor its deadlines should be longer than elsewhere.
pub(crate) const DEADLINE_FACTOR_VARIABLE: &str = "SOFT_ROCE_DEADLINE_FACTOR";

/// Everything takes longer where QEMU emulates the processor; deadlines grow by this factor. Ten to
/// twenty times is what was measured, but deadlines have some room already.
const EMULATION_FACTOR: u32 = 5;

/// The machine that a guest is to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    /// User-Mode Linux; QEMU where that cannot run.
    #[default]
    Auto,
    /// A QEMU virtual machine with a distribution's kernel.
    Qemu,
    /// A User-Mode Linux process.
    Uml,
}

impl FromStr for Machine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "auto" => Ok(Self::Auto),
            "qemu" => Ok(Self::Qemu),
            "uml" => Ok(Self::Uml),
            other => {
                Err(Error::Usage(format!("no machine {other:?}; known are auto, uml and qemu")))
            }
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Qemu => "qemu",
            Self::Uml => "uml",
        })
    }
}

/// A machine that is ready to be started, as its launcher has to know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MachineSpec {
    /// The kernel is the program itself.
    Uml,
    /// The kernel is loaded by QEMU.
    Qemu(qemu::QemuSpec),
}

impl MachineSpec {
    /// Reserves memory for the guest of the run in `run`: a folder, where memory is a file.
    pub(crate) fn reserve_memory(&self, bytes: u64, run: &Path) -> Result<Option<PrivateDir>> {
        match self {
            Self::Uml => memory::reserve(bytes, run).map(Some),
            Self::Qemu(_) => qemu::check_memory(bytes).map(|()| None),
        }
    }

    /// The guest's init, where that is not this program.
    pub(crate) fn init(&self) -> Option<PathBuf> {
        match self {
            Self::Uml => None,
            Self::Qemu(qemu) => qemu.sysroot().map(Sysroot::program),
        }
    }

    /// Returns whether the guest has something of its own at this path of the host's.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        let by_sysroot = match self {
            Self::Uml => None,
            Self::Qemu(qemu) => qemu.sysroot(),
        };
        paths::is_covered(path) || by_sysroot.is_some_and(|sysroot| sysroot.covers(path))
    }

    /// The factor by which deadlines grow on this machine.
    pub(crate) fn deadline_factor(&self) -> u32 {
        match self {
            Self::Qemu(qemu) if qemu.is_emulated() => EMULATION_FACTOR,
            Self::Uml | Self::Qemu(_) => 1,
        }
    }
}

/// A kernel, and the machine that boots it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) kernel: PathBuf,
    pub(crate) machine: MachineSpec,
    /// A line for the user.
    pub(crate) note: Option<String>,
}

/// Looks whether User-Mode Linux can run here, as far as that is known without a kernel of it.
///
/// # Errors
///
/// [`Error::Machine`] with the reason why not.
pub fn check_uml() -> Result<()> {
    match uml::refusal(&Kernel::default(), None) {
        Some(reason) => Err(Error::Machine { name: uml::NAME, reason }),
        None => Ok(()),
    }
}

/// Prepares User-Mode Linux: finds the kernel, or builds it.
pub(crate) fn prepare_uml(kernel: &Kernel, cpus: Option<usize>) -> Result<Prepared> {
    if let Some(reason) = uml::refusal(kernel, cpus) {
        return Err(Error::Machine { name: uml::NAME, reason });
    }
    let kernel = build::locate(kernel, Cache::open, &trial::run)?;
    Ok(Prepared { kernel, machine: MachineSpec::Uml, note: None })
}

/// Prepares QEMU: finds the kernel, or downloads it. The guest has the processor of `sysroot` and
/// its user space, if there is one, else the host's.
pub(crate) fn prepare_qemu(
    kernel: &Kernel,
    cpus: Option<usize>,
    sysroot: Option<&Sysroot>,
) -> Result<Prepared> {
    let (spec, kernel, note) = qemu::prepare(kernel, cpus, sysroot)?;
    Ok(Prepared { kernel, machine: MachineSpec::Qemu(spec), note })
}

/// Multiplies a deadline by a machine's factor.
pub(crate) fn scaled(deadline: Duration, factor: u32) -> Duration {
    deadline.saturating_mul(factor.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_printed() {
        for machine in [Machine::Auto, Machine::Qemu, Machine::Uml] {
            assert_eq!(machine.to_string().parse::<Machine>().unwrap(), machine);
        }
        assert_eq!("".parse::<Machine>().unwrap(), Machine::Auto);
        let error = "vm".parse::<Machine>().unwrap_err().to_string();
        assert!(error.contains("\"vm\"") && error.contains("qemu"), "{error}");
    }
}
