//! Metadata and protection information of logical blocks (NVM 5.2 and 5.3).

use std::fmt;

/// Metadata of each logical block. Over Fabrics it follows the data of its block in the same
/// transfer: blocks are extended ones, and MPTR is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataFormat {
    /// MS: bytes of metadata of each block.
    pub bytes: u16,
    /// Protection information within the metadata, if the namespace has any (DPS).
    pub protection: Option<ProtectionFormat>,
}

/// Format of protection information (DPS, ELBAF).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectionFormat {
    /// PIF: guard, and with it the size.
    pub guard: GuardType,
    /// Type of protection.
    pub protection_type: ProtectionType,
    /// DPS bit 3: it is the first bytes of the metadata, and not the last ones.
    pub is_first: bool,
    /// STS: bits of the storage tag; the others of the storage and reference space are the
    /// reference tag's.
    pub storage_tag_bits: u8,
}

/// Guard: checksum of a block (NVM 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuardType {
    /// 16 bits: CRC-16/T10-DIF.
    Crc16,
    /// 32 bits: CRC-32C.
    Crc32,
    /// 64 bits: CRC-64/NVME.
    Crc64,
}

/// Type of protection, which is about the reference tag (NVM 5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtectionType {
    /// The reference tag is the low bits of the block's address.
    Type1,
    /// The reference tag counts from one that the command has.
    Type2,
    /// The reference tag is the command's for each block, and not checked.
    Type3,
}

/// Protection information of one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectionInformation {
    /// Guard.
    pub guard: u64,
    /// Application tag; FFFFh disables the checks of the block, in type 3 together with a reference
    /// tag of ones.
    pub application_tag: u16,
    /// Storage tag; 0 if it has no bits.
    pub storage_tag: u64,
    /// Reference tag.
    pub reference_tag: u64,
}

/// Tags of a command: those that its first block has, or is expected to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectionTags {
    /// LBAT, ELBAT: application tag.
    pub application: u16,
    /// LBATM, ELBATM: bits of the application tag that are checked.
    pub application_mask: u16,
    /// LBST, ELBST: storage tag.
    pub storage: u64,
    /// ILBRT, EILBRT: reference tag of the first block.
    pub reference: u64,
}

/// Checks of protection information (PRCHK and STC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectionChecks {
    /// Guard.
    pub guard: bool,
    /// Application tag, as far as its mask says.
    pub application_tag: bool,
    /// Reference tag, which type 3 does not check.
    pub reference_tag: bool,
    /// Storage tag.
    pub storage_tag: bool,
}

impl GuardType {
    /// Bits of the guard.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Crc16 => 16,
            Self::Crc32 => 32,
            Self::Crc64 => 64,
        }
    }
}

impl ProtectionType {
    /// Number of the type (DPS).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Type1 => 1,
            Self::Type2 => 2,
            Self::Type3 => 3,
        }
    }
}

impl MetadataFormat {
    /// Returns true if the metadata is nothing but protection information. The controller can
    /// insert and strip all of it then (PRACT), and data is transferred without.
    #[must_use]
    pub fn is_protection_only(&self) -> bool {
        self.protection.is_some_and(|format| format.bytes() == usize::from(self.bytes))
    }
}

impl fmt::Display for MetadataFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.protection) {
            (0, _) => f.write_str("none"),
            (bytes, None) => write!(f, "{bytes} B"),
            (bytes, Some(format)) => write!(f, "{bytes} B with {format}"),
        }
    }
}

impl ProtectionFormat {
    /// Format with a 16-bit guard and no storage tag, which a controller without extended formats
    /// (ELBAF) has.
    #[must_use]
    pub fn without_extension(protection_type: ProtectionType, is_first: bool) -> Self {
        Self { guard: GuardType::Crc16, protection_type, is_first, storage_tag_bits: 0 }
    }

    /// The format that an extended LBA format (ELBAF) describes; `None` if there is no such format.
    #[must_use]
    pub fn with_extension(self, elbaf: u32) -> Option<Self> {
        /// PIF of a format that QPIF has.
        const QUALIFIED: u32 = 0b11;
        let format = match (elbaf >> 7) & 0b11 {
            QUALIFIED => (elbaf >> 9) & 0xf,
            format => format,
        };
        let (guard, tag_bits) = match format {
            0 => (GuardType::Crc16, 0..=32),
            1 => (GuardType::Crc32, 16..=64),
            2 => (GuardType::Crc64, 0..=48),
            _ => return None,
        };
        let storage_tag_bits = u8::try_from(elbaf & 0x7f).expect("seven bits");
        let extended = Self { guard, storage_tag_bits, ..self };
        tag_bits.contains(&storage_tag_bits).then_some(extended)
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.guard {
            GuardType::Crc16 => 8,
            GuardType::Crc32 | GuardType::Crc64 => 16,
        }
    }

    /// Bits of the reference tag.
    #[must_use]
    pub fn reference_tag_bits(&self) -> u8 {
        self.space_bits() - self.storage_tag_bits
    }

    /// Reference tag of ones.
    #[must_use]
    pub fn reference_tag_max(&self) -> u64 {
        ones(self.reference_tag_bits())
    }

    /// Storage tag of ones.
    #[must_use]
    pub fn storage_tag_max(&self) -> u64 {
        ones(self.storage_tag_bits)
    }

    /// Reference tag of a block, `blocks` blocks after one with this tag.
    #[must_use]
    pub fn advance(&self, reference: u64, blocks: u64) -> u64 {
        match self.protection_type {
            ProtectionType::Type1 | ProtectionType::Type2 => {
                reference.wrapping_add(blocks) & self.reference_tag_max()
            }
            ProtectionType::Type3 => reference,
        }
    }

    /// Bits of the storage and reference space.
    fn space_bits(&self) -> u8 {
        match self.guard {
            GuardType::Crc16 => 32,
            GuardType::Crc32 => 80,
            GuardType::Crc64 => 48,
        }
    }

    /// Storage and reference space with these tags.
    pub(super) fn space(&self, storage: u64, reference: u64) -> u128 {
        let storage = u128::from(storage & self.storage_tag_max());
        storage << self.reference_tag_bits() | u128::from(reference & self.reference_tag_max())
    }
}

impl fmt::Display for ProtectionFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, bits) = (self.protection_type.number(), self.guard.bits());
        let place = if self.is_first { "first" } else { "last" };
        write!(f, "PI type {number}, {bits}-bit guard, {place}")
    }
}

/// Number of this many ones, at most 64.
fn ones(bits: u8) -> u64 {
    1u64.checked_shl(bits.into()).unwrap_or(0).wrapping_sub(1)
}

impl ProtectionInformation {
    /// Decodes protection information.
    ///
    /// # Panics
    ///
    /// If `bytes` does not have the size of the format.
    #[must_use]
    pub fn parse(format: ProtectionFormat, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), format.bytes(), "the size of protection information");
        let (guard, rest) = bytes.split_at(guard_bytes(format.guard));
        let (application, space) = rest.split_at(2);
        let space = number(space);
        let low = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
        Self {
            guard: low(number(guard)),
            application_tag: u16::from_be_bytes([application[0], application[1]]),
            storage_tag: low(space >> format.reference_tag_bits()),
            reference_tag: low(space) & format.reference_tag_max(),
        }
    }

    /// Encodes protection information.
    ///
    /// # Panics
    ///
    /// If `bytes` does not have the size of the format.
    pub fn emit(&self, format: ProtectionFormat, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), format.bytes(), "the size of protection information");
        let (guard, rest) = bytes.split_at_mut(guard_bytes(format.guard));
        let (application, space) = rest.split_at_mut(2);
        guard.copy_from_slice(&self.guard.to_be_bytes()[8 - guard.len()..]);
        application.copy_from_slice(&self.application_tag.to_be_bytes());
        let tags = format.space(self.storage_tag, self.reference_tag).to_be_bytes();
        space.copy_from_slice(&tags[16 - space.len()..]);
    }

    /// Returns true if its tags disable the checks of its block (NVM 5.3.3).
    #[must_use]
    pub fn disables_checks(&self, format: ProtectionFormat) -> bool {
        let is_type_3 = format.protection_type == ProtectionType::Type3;
        self.application_tag == u16::MAX
            && (!is_type_3 || self.reference_tag == format.reference_tag_max())
    }
}

/// Number of big-endian bytes.
fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |all, &byte| all << 8 | u128::from(byte))
}

fn guard_bytes(guard: GuardType) -> usize {
    usize::from(guard.bits() / 8)
}

impl ProtectionChecks {
    /// Checks of the bits of PRCHK, which are those of nvme-cli's `--prinfo`.
    #[must_use]
    pub fn of_bits(bits: u8) -> Self {
        Self {
            guard: bits & 0b100 != 0,
            application_tag: bits & 0b010 != 0,
            reference_tag: bits & 0b001 != 0,
            storage_tag: false,
        }
    }
}

#[cfg(test)]
mod tests;
