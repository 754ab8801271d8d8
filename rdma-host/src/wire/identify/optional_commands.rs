//! Commands that a controller need not support (Base figure 312, ONCS and FUSES).

use std::fmt;

/// Commands that a controller supports, of those that it need not support.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionalCommands {
    /// Optional NVM Command Support (ONCS).
    pub oncs: u16,
    /// Fused Operation Support (FUSES).
    pub fuses: u16,
}

/// Command, group of commands or fused operation that a controller need not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionalCommand {
    /// Compare (ONCS bit 0).
    Compare,
    /// Compare and Write, fused (FUSES bit 0).
    CompareAndWrite,
    /// Copy (ONCS bit 8).
    Copy,
    /// Dataset Management (ONCS bit 2).
    DatasetManagement,
    /// Commands of reservations (ONCS bit 5).
    Reservations,
    /// The fields Save and Select of Set Features and Get Features (ONCS bit 4).
    SaveAndSelect,
    /// Verify (ONCS bit 7).
    Verify,
    /// Write Uncorrectable (ONCS bit 1).
    WriteUncorrectable,
    /// Write Zeroes (ONCS bit 3).
    WriteZeroes,
}

impl OptionalCommands {
    /// Returns true if the controller supports this one.
    #[must_use]
    pub fn contains(self, command: OptionalCommand) -> bool {
        let (_, field, bit) = command.name_field_and_bit();
        let bits = if field == FUSES { self.fuses } else { self.oncs };
        bits & (1 << bit) != 0
    }
}

const FUSES: &str = "FUSES";
const ONCS: &str = "ONCS";

impl OptionalCommand {
    fn name_field_and_bit(self) -> (&'static str, &'static str, u8) {
        match self {
            Self::Compare => ("Compare", ONCS, 0),
            Self::CompareAndWrite => ("fused Compare and Write", FUSES, 0),
            Self::Copy => ("Copy", ONCS, 8),
            Self::DatasetManagement => ("Dataset Management", ONCS, 2),
            Self::Reservations => ("reservations", ONCS, 5),
            Self::SaveAndSelect => ("saved, default and supported values of features", ONCS, 4),
            Self::Verify => ("Verify", ONCS, 7),
            Self::WriteUncorrectable => ("Write Uncorrectable", ONCS, 1),
            Self::WriteZeroes => ("Write Zeroes", ONCS, 3),
        }
    }
}

/// Name, and where the controller says that it supports it.
impl fmt::Display for OptionalCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, field, bit) = self.name_field_and_bit();
        write!(f, "{name} ({field} bit {bit})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_bit_of_the_specification() {
        let fused = OptionalCommands { oncs: 0, fuses: 1 };
        assert!(fused.contains(OptionalCommand::CompareAndWrite));
        for (bit, command) in [
            OptionalCommand::Compare,
            OptionalCommand::WriteUncorrectable,
            OptionalCommand::DatasetManagement,
            OptionalCommand::WriteZeroes,
            OptionalCommand::SaveAndSelect,
            OptionalCommand::Reservations,
        ]
        .into_iter()
        .enumerate()
        .chain([(7, OptionalCommand::Verify), (8, OptionalCommand::Copy)])
        {
            let only = OptionalCommands { oncs: 1 << bit, fuses: 0 };
            assert!(only.contains(command), "{command}");
            let others = OptionalCommands { oncs: !(1 << bit), fuses: u16::MAX };
            assert!(!others.contains(command) && !fused.contains(command), "{command}");
        }
        assert_eq!(OptionalCommand::Verify.to_string(), "Verify (ONCS bit 7)");
    }
}
