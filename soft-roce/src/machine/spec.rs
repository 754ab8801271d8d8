//! Machine of a run, as its launcher has to know it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{architecture::Architecture, sysroot::Sysroot};
use crate::run::paths;

/// Everything takes longer where QEMU emulates the processor; deadlines grow by this factor. Ten to
/// twenty times is what was measured, but deadlines have some room already.
const EMULATION_FACTOR: u32 = 5;

/// A machine that is ready to be started, as its launcher has to know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MachineSpec {
    /// The kernel is the program itself.
    Uml,
    /// The kernel is loaded by QEMU.
    Qemu(QemuSpec),
}

impl MachineSpec {
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

/// A QEMU machine that is ready to be started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QemuSpec {
    pub(super) program: PathBuf,
    pub(super) architecture: Architecture,
    /// Reason why the processor is emulated; none with KVM.
    pub(super) emulated: Option<String>,
    pub(super) cpus: usize,
    /// The part of the initramfs that holds modules.
    pub(super) module_archive: PathBuf,
    /// Folder of all modules, as the guest sees it.
    pub(super) modules: PathBuf,
    /// The user space, if it is not the host's.
    pub(super) sysroot: Option<Sysroot>,
}

impl QemuSpec {
    /// The user space, if it is not the host's.
    pub(super) fn sysroot(&self) -> Option<&Sysroot> {
        self.sysroot.as_ref()
    }

    /// Tells if the processor is emulated, which takes ten to twenty times as long.
    pub(crate) fn is_emulated(&self) -> bool {
        self.emulated.is_some()
    }
}
