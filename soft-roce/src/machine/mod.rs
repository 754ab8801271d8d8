//! Machines that a guest runs on: a User-Mode Linux process, or QEMU with a stock kernel.
//!
//! Both give a guest the same: the host's files with the caller's rights, one framed line for the
//! program's streams, and the kernel's messages in a file. They differ in where the kernel comes
//! from (built here; a distribution's package), in speed, and in what they ask of the host.

mod architecture;
pub(crate) mod boot;
mod builtin;
mod cpio;
mod elf;
mod initramfs;
mod kvm;
pub(crate) mod modprobe;
mod modules;
pub mod qemu;
pub(crate) mod spec;
mod stock;
pub(crate) mod sysroot;
pub(crate) mod uml;

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{
    Error, Kernel, Result,
    kernel::{
        build::{self, Trial},
        cache::Cache,
    },
};
use spec::MachineSpec;
use sysroot::Sysroot;

pub use architecture::Architecture;

/// Names the machine in the environment, as `--machine` does on the command line.
pub const MACHINE_VARIABLE: &str = "SOFT_ROCE_MACHINE";

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

/// Prepares User-Mode Linux: finds the kernel, or builds it and tries it.
pub(crate) fn prepare_uml(
    kernel: &Kernel,
    cpus: Option<usize>,
    trial: Trial<'_>,
) -> Result<Prepared> {
    if let Some(reason) = uml::refusal(kernel, cpus) {
        return Err(Error::Machine { name: uml::NAME, reason });
    }
    let kernel = build::locate(kernel, Cache::open, trial)?;
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
