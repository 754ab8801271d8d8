//! Controller properties (Base 3.1.4), accessed by Property Get and Property Set over fabrics.

use std::{fmt, time::Duration};

/// Controller property: offset, width and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// Offset in the property space in bytes.
    pub offset: u32,
    /// True for a width of 8 bytes, false for 4.
    pub wide: bool,
    /// Symbol in the specification.
    pub name: &'static str,
}

impl Property {
    /// Controller Capabilities (Base 3.1.4.1).
    pub const CAPABILITIES: Self = Self { offset: 0x00, wide: true, name: "CAP" };
    /// Version (Base 3.1.4.2).
    pub const VERSION: Self = Self { offset: 0x08, wide: false, name: "VS" };
    /// Controller Configuration (Base 3.1.4.5).
    pub const CONFIGURATION: Self = Self { offset: 0x14, wide: false, name: "CC" };
    /// Controller Status (Base 3.1.4.6).
    pub const STATUS: Self = Self { offset: 0x1c, wide: false, name: "CSTS" };
}

/// Controller Capabilities (CAP, Base 3.1.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerCapabilities(pub u64);

impl ControllerCapabilities {
    /// Maximum number of entries of an I/O queue (MQES, which is zero-based).
    #[must_use]
    pub fn queue_entries_max(self) -> u32 {
        u32::from(self.word(0)) + 1
    }

    /// Maximum time for enabling the controller (TO, in units of 500 ms).
    #[must_use]
    pub fn ready_timeout(self) -> Duration {
        Duration::from_millis(500) * u32::from(self.0.to_le_bytes()[3])
    }

    /// Minimum memory page size in bytes (MPSMIN).
    #[must_use]
    pub fn page_size_min(self) -> u64 {
        1 << (12 + ((self.0 >> 48) & 0xf))
    }

    /// Returns true if the NVM command set is supported (CSS bit 0).
    #[must_use]
    pub fn has_nvm_command_set(self) -> bool {
        self.0 & (1 << 37) != 0
    }

    /// Returns true if I/O command sets can be selected beside NVM (CSS bit 6).
    #[must_use]
    pub fn has_command_sets(self) -> bool {
        self.0 & (1 << 43) != 0
    }

    fn word(self, index: usize) -> u16 {
        let bytes = self.0.to_le_bytes();
        u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
    }
}

/// Controller Configuration (CC, Base 3.1.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration(pub u32);

impl Configuration {
    /// Enabled, 4 KiB pages, round robin arbitration, 64-byte commands, 16-byte responses, and all
    /// command sets that the controller supports (CSS = 110b) if it supports others than NVM.
    #[must_use]
    pub fn enabled(capabilities: ControllerCapabilities) -> Self {
        const NVM: u32 = (4 << 20) | (6 << 16) | 1;
        Self(if capabilities.has_command_sets() { NVM | (0b110 << 4) } else { NVM })
    }

    /// Adds a normal shutdown notification (SHN = 01b).
    #[must_use]
    pub fn with_shutdown(self) -> Self {
        Self(self.0 | (0b01 << 14))
    }
}

/// Controller Status (CSTS, Base 3.1.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerStatus(pub u32);

impl ControllerStatus {
    /// RDY: the controller accepts commands.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.0 & 1 != 0
    }

    /// CFS: a fatal error; the controller must be reset.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        self.0 & 0b10 != 0
    }

    /// SHST = 10b: the shutdown is complete.
    #[must_use]
    pub fn is_shut_down(self) -> bool {
        (self.0 >> 2) & 0b11 == 0b10
    }
}

/// Version of the specification (VS, Base 3.1.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tertiary, minor, low, high] = self.0.to_le_bytes();
        write!(f, "{}.{minor}.{tertiary}", u16::from_le_bytes([low, high]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_the_kernel_target() {
        // Value of Linux 6.12 nvmet: MQES 127, CQR, TO 15, CSS NVM.
        let capabilities = ControllerCapabilities(0x0000_0020_0f01_007f);
        assert_eq!(capabilities.queue_entries_max(), 128);
        assert_eq!(capabilities.ready_timeout(), Duration::from_millis(7500));
        assert_eq!(capabilities.page_size_min(), 4096);
        assert!(capabilities.has_nvm_command_set());
    }

    #[test]
    fn configuration_in_literal_bytes() {
        let nvm = ControllerCapabilities(0x0000_0020_0f01_007f);
        assert_eq!(Configuration::enabled(nvm).0, 0x0046_0001);
        assert_eq!(Configuration::enabled(nvm).with_shutdown().0, 0x0046_4001);
        // Value of Linux 6.12 nvmet with zoned block devices.
        let all = ControllerCapabilities(0x0000_0820_0f01_007f);
        assert_eq!(Configuration::enabled(all).0, 0x0046_0061);
        assert_eq!(Configuration::enabled(all).with_shutdown().0, 0x0046_4061);
    }

    #[test]
    fn status_bits() {
        assert!(ControllerStatus(1).is_ready() && !ControllerStatus(1).is_fatal());
        assert!(ControllerStatus(2).is_fatal());
        assert!(ControllerStatus(0b1001).is_shut_down());
        assert!(!ControllerStatus(0b0101).is_shut_down());
    }

    #[test]
    fn version_in_words() {
        assert_eq!(Version(0x0001_0300).to_string(), "1.3.0");
        assert_eq!(Version(0x0002_0100).to_string(), "2.1.0");
    }
}
