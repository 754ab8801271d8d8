//! Protection information fields of commands (NVM 3.2).

use zerocopy::little_endian::U32;

use super::Sqe;
use crate::wire::{ProtectionChecks, ProtectionFormat, ProtectionTags};

/// PRACT.
const ACTION: u32 = 1 << 29;

impl Sqe {
    /// Sets the protection information fields of a Read, Write, Compare, Verify or Write Zeroes. If
    /// `inserts` is set (PRACT), the controller makes the protection information of a write, and
    /// strips that of a read if there is no other metadata.
    #[must_use]
    pub fn with_protection(
        mut self,
        format: ProtectionFormat,
        inserts: bool,
        checks: ProtectionChecks,
        tags: ProtectionTags,
    ) -> Self {
        let bits = [
            (inserts, 29),
            (checks.guard, 28),
            (checks.application_tag, 27),
            (checks.reference_tag, 26),
            (checks.storage_tag, 24),
        ];
        let info = bits.into_iter().fold(0, |all, (set, bit)| all | u32::from(set) << bit);
        let space = format.space(tags.storage, tags.reference);
        let bytes = space.to_le_bytes();
        let dword =
            |at: usize| U32::from_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        self.cdw12 |= U32::new(info);
        (self.cdw14, self.cdw3, self.cdw2) = (dword(0), dword(4), dword(8));
        self.cdw15 = U32::new(u32::from(tags.application_mask) << 16 | u32::from(tags.application));
        self
    }

    /// Returns true if the controller inserts or strips the protection information (PRACT).
    #[must_use]
    pub fn inserts_protection(&self) -> bool {
        self.cdw12.get() & ACTION != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{GuardType, NamespaceId, ProtectionType};
    use zerocopy::IntoBytes;

    fn format(guard: GuardType, storage_tag_bits: u8) -> ProtectionFormat {
        let protection_type = ProtectionType::Type1;
        ProtectionFormat { guard, protection_type, is_first: false, storage_tag_bits }
    }

    #[test]
    fn fields_of_commands_in_literal_bytes() {
        let tags = ProtectionTags {
            application: 0x1234,
            application_mask: 0xff0f,
            storage: 0x0102_0304_0506_0708,
            reference: 0x1112_1314_1516_1718,
        };
        let all = ProtectionChecks { storage_tag: true, ..ProtectionChecks::of_bits(0b111) };
        let sqe = |format| Sqe::read(NamespaceId(1), 9, 8).with_protection(format, true, all, tags);
        let short = sqe(format(GuardType::Crc16, 8));
        assert_eq!(short.as_bytes()[8..16], [0; 8]);
        #[rustfmt::skip]
        let expected = [
            7, 0, 0, 0x3d, 0, 0, 0, 0,
            0x18, 0x17, 0x16, 0x08, 0x34, 0x12, 0x0f, 0xff,
        ];
        assert_eq!(short.as_bytes()[48..], expected);
        assert!(short.inserts_protection());
        let long = sqe(format(GuardType::Crc64, 16));
        assert_eq!(long.as_bytes()[8..16], [0, 0, 0, 0, 0x08, 0x07, 0, 0]);
        assert_eq!(long.as_bytes()[56..60], [0x18, 0x17, 0x16, 0x15]);
        let longest = sqe(format(GuardType::Crc32, 64));
        assert_eq!(longest.as_bytes()[8..16], [0x02, 0x01, 0, 0, 0x06, 0x05, 0x04, 0x03]);
        assert_eq!(longest.as_bytes()[56..60], [0x18, 0x17, 0x08, 0x07]);
        for (bits, byte) in [(0b100, 0x10), (0b010, 0x08), (0b001, 0x04)] {
            let checks = ProtectionChecks::of_bits(bits);
            let sqe = Sqe::write(NamespaceId(1), 9, 8);
            let sqe = sqe.with_protection(format(GuardType::Crc16, 0), false, checks, tags);
            assert_eq!((sqe.as_bytes()[51], sqe.inserts_protection()), (byte, false));
        }
    }
}
