//! Commands supported and effects log page (Base 5.1.12.1.6).

use zerocopy::{FromBytes, little_endian::U32};

use super::{LogError, LogPage};
use crate::wire::Opcode;

/// Commands that a controller supports, with their effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectsLog {
    /// Admin commands, by opcode.
    pub admin: Vec<(Opcode, CommandEffects)>,
    /// I/O commands, by opcode.
    pub io: Vec<(Opcode, CommandEffects)>,
}

/// Effects of a command, or of Set Features for a feature, one bit each (Base figure 213), and its
/// scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandEffects(pub u32);

impl EffectsLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 4096;

    /// Decodes the page; unsupported commands are omitted.
    ///
    /// # Errors
    ///
    /// When it is shorter than 4,096 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let short =
            || LogError::Length { page: LogPage::EFFECTS, bytes: bytes.len(), least: Self::SIZE };
        let page = bytes.get(..Self::SIZE).ok_or_else(short)?;
        let (admin, rest) = <[U32; 256]>::ref_from_prefix(page).map_err(|_| short())?;
        let (io, _) = <[U32; 256]>::ref_from_prefix(rest).map_err(|_| short())?;
        Ok(Self { admin: supported(admin), io: supported(io) })
    }
}

fn supported(entries: &[U32; 256]) -> Vec<(Opcode, CommandEffects)> {
    let all = (0..=u8::MAX).zip(entries).map(|(opcode, entry)| (Opcode(opcode), entry.get()));
    all.filter(|(_, bits)| bits & 1 != 0)
        .map(|(opcode, bits)| (opcode, CommandEffects(bits)))
        .collect()
}

impl CommandEffects {
    /// LBCC: may change the contents of logical blocks.
    #[must_use]
    pub fn changes_content(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// NCC: may change the capabilities of a namespace.
    #[must_use]
    pub fn changes_namespace(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// NIC: may change the number or attributes of namespaces.
    #[must_use]
    pub fn changes_inventory(self) -> bool {
        self.0 & (1 << 3) != 0
    }

    /// Names of the scope, of which there may be several; empty if not reported.
    #[must_use]
    pub fn scope(self) -> Vec<&'static str> {
        const NAMES: [&str; 6] =
            ["namespace", "controller", "NVM set", "endurance group", "domain", "subsystem"];
        let bits = self.0 >> 20;
        let all = NAMES.into_iter().enumerate();
        all.filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| name).collect()
    }

    /// CCC: may change the capabilities of the controller.
    #[must_use]
    pub fn changes_controller(self) -> bool {
        self.0 & (1 << 4) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_by_offset() {
        let mut bytes = [0; 4096];
        bytes[4 * 2] = 0x01;
        bytes[4 * 9] = 0x10; // not supported
        bytes[1024 + 4] = 0x03;
        bytes[2047] = 0x80; // not supported
        bytes[2048] = 0x01; // reserved
        let effects = EffectsLog::parse(&bytes).unwrap();
        assert_eq!(effects.admin, [(Opcode(2), CommandEffects(1))]);
        assert_eq!(effects.io, [(Opcode::WRITE, CommandEffects(3))]);
        assert!(effects.io[0].1.changes_content() && !effects.io[0].1.changes_namespace());
        let all = CommandEffects(0x1f);
        assert!(all.changes_inventory() && all.changes_controller() && all.changes_namespace());
        assert!(EffectsLog::parse(&bytes[1..]).is_err());
    }
}
