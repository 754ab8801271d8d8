//! Processor architecture of a guest.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Processor architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit x86.
    X86_64,
}

impl Architecture {
    /// The architecture of this machine.
    ///
    /// # Errors
    ///
    /// When guests of this architecture are not known.
    pub fn host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => {
                let reason = format!("guests for the processor {other} are not known");
                Err(Error::Machine { name: "QEMU", reason })
            }
        }
    }

    /// Name in Debian's packages.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }

    /// QEMU's accelerator that emulates it. A kernel for x86 changes its own code while other
    /// processors run it, which the emulator does not order between threads of its own: in some
    /// boots a processor executes the breakpoint that guards such a change.
    pub(super) fn emulator(self) -> &'static str {
        match self {
            Self::Aarch64 => "tcg,thread=multi",
            Self::X86_64 => "tcg,thread=single",
        }
    }

    /// QEMU's program for it.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Aarch64 => "qemu-system-aarch64",
            Self::X86_64 => "qemu-system-x86_64",
        }
    }

    /// Debian's package with that program.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Aarch64 => "qemu-system-arm",
            Self::X86_64 => "qemu-system-x86",
        }
    }

    /// The first serial port, as the kernel names it.
    pub(super) fn console(self) -> &'static str {
        match self {
            Self::Aarch64 => "ttyAMA0",
            Self::X86_64 => "ttyS0",
        }
    }

    /// The processor, with all that this QEMU knows. Emulated Arm signs pointers by an algorithm of
    /// QEMU's own: the architecture's would take half of the time.
    pub(super) fn processor(self, emulated: bool) -> &'static str {
        match self {
            Self::Aarch64 if emulated => "max,pauth-impdef=on",
            Self::Aarch64 | Self::X86_64 => "max",
        }
    }

    /// Options for a machine that has nothing but what is added to it, and no network.
    pub(super) fn machine(self) -> Vec<&'static str> {
        let machine = match self {
            Self::Aarch64 => "virt,gic-version=max",
            Self::X86_64 => "q35",
        };
        vec![
            "-M",
            machine,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-nic",
            "none",
            "-no-reboot",
        ]
    }
}

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            "x86_64" | "amd64" => Ok(Self::X86_64),
            other => {
                let text = format!("no processor {other:?}; known are aarch64 and x86_64");
                Err(Error::Usage(text))
            }
        }
    }
}
