//! Metadata and protection information of the scripted target, by the specification's figures and
//! polynomials, bit by bit: not by the library that it judges.

use super::{BLOCK, BLOCKS, ReceivedCommand};

/// Guard of protection information, by PIF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// 16 bits.
    Short,
    /// 32 bits.
    Medium,
    /// 64 bits.
    Long,
}

/// Protection information that the namespace is formatted with.
#[derive(Clone, Copy, Debug)]
pub struct Protection {
    /// Guard.
    pub guard: Guard,
    /// Type, 1 to 3.
    pub kind: u8,
    /// First in the metadata, not last.
    pub first: bool,
    /// Bits of the storage tag.
    pub storage_tag_bits: u32,
}

/// LBA format of the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bytes of data of a block, a power of two.
    pub block: usize,
    /// Bytes of metadata of a block.
    pub metadata: usize,
    /// Protection information in the metadata.
    pub protection: Option<Protection>,
}

impl Default for Format {
    fn default() -> Self {
        Self { block: BLOCK, metadata: 0, protection: None }
    }
}

/// Tags of protection information: application tag, storage and reference tag together.
type Tags = (u16, u128);

const INVALID_PROTECTION_INFORMATION: u16 = 0x4181;
const GUARD_CHECK: u16 = 0x4282;
const APPLICATION_TAG_CHECK: u16 = 0x4283;
const REFERENCE_TAG_CHECK: u16 = 0x4284;

impl Guard {
    fn bytes(self) -> usize {
        match self {
            Self::Short => 2,
            Self::Medium => 4,
            Self::Long => 8,
        }
    }

    /// Checksum of `data`: 8BB7h, most significant bit first; 1EDC6F41h and AD93D23594C93659h,
    /// least significant bit first, from ones and inverted.
    fn checksum(self, data: &[u8]) -> u64 {
        let reflected = |polynomial: u64, ones: u64| {
            !data.iter().fold(ones, |crc, &byte| {
                (0..8).fold(crc ^ u64::from(byte), |crc, _| (crc >> 1) ^ (polynomial * (crc & 1)))
            }) & ones
        };
        match self {
            Self::Short => {
                let crc = data.iter().fold(0u16, |crc, &byte| {
                    (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                        (crc << 1) ^ (0x8bb7 * (crc >> 15))
                    })
                });
                crc.into()
            }
            Self::Medium => reflected(0x1edc_6f41_u32.reverse_bits().into(), u32::MAX.into()),
            Self::Long => reflected(0xad93_d235_94c9_3659_u64.reverse_bits(), u64::MAX),
        }
    }
}

impl Protection {
    fn bytes(self) -> usize {
        if self.guard == Guard::Short { 8 } else { 16 }
    }

    /// Bits of the storage and reference space.
    fn space_bits(self) -> u32 {
        u32::try_from(8 * (self.bytes() - self.guard.bytes() - 2)).expect("small")
    }

    fn reference_mask(self) -> u128 {
        (1 << (self.space_bits() - self.storage_tag_bits)) - 1
    }

    /// Tags that a command has for the block `index` after its first one.
    fn tags(self, seen: ReceivedCommand, index: u64) -> Tags {
        let dword = |offset: usize| u128::from(seen.u32_at(offset));
        let space = dword(56) | dword(12) << 32 | dword(8) << 64;
        let counts = self.kind != 3;
        let reference = space + u128::from(if counts { index } else { 0 });
        let mask = self.reference_mask();
        ((seen.u32_at(60) & 0xffff) as u16, space & !mask | reference & mask)
    }
}

impl Format {
    /// Bytes of a block with its metadata.
    pub(super) fn size(self) -> usize {
        self.block + self.metadata
    }

    /// The medium of a namespace that was never written: its checks are disabled.
    pub(super) fn medium(self) -> Vec<u8> {
        let mut block = vec![0; self.size()];
        if self.protection.is_some() {
            block[self.block..].fill(0xff);
        }
        block.repeat(BLOCKS)
    }

    /// Writes FLBAS, DPC, DPS and the LBA format to Identify Namespace.
    pub(super) fn identify(self, bytes: &mut [u8]) {
        bytes[130] = u8::try_from(self.block.ilog2()).expect("small");
        if self.metadata == 0 {
            return;
        }
        bytes[26] = 1 << 4;
        bytes[27..29].copy_from_slice(&[1, 0x1f]);
        bytes[128..130]
            .copy_from_slice(&u16::try_from(self.metadata).expect("small").to_le_bytes());
        if let Some(protection) = self.protection {
            bytes[29] = protection.kind | u8::from(protection.first) << 3;
        }
    }

    /// Writes ELBAF to Identify Namespace of the NVM command set.
    pub(super) fn identify_extended(self, bytes: &mut [u8]) {
        if let Some(protection) = self.protection {
            let format = (protection.guard as u32) << 7 | protection.storage_tag_bits;
            bytes[12..16].copy_from_slice(&format.to_le_bytes());
        }
    }

    /// True if data is transferred without metadata: the controller inserts and strips it.
    fn is_stripped(self, seen: ReceivedCommand) -> bool {
        inserts(seen) && self.protection.is_some_and(|one| one.bytes() == self.metadata)
    }

    /// Blocks as they are stored, of the data of a write or compare, or of a Write Zeroes.
    pub(super) fn stored(self, seen: ReceivedCommand, data: &[u8]) -> Vec<u8> {
        let Some(protection) = self.protection else { return data.to_vec() };
        let size = if self.is_stripped(seen) { self.block } else { self.size() };
        let mut blocks = Vec::new();
        for (index, block) in (0..).zip(data.chunks_exact(size)) {
            let mut block = block.to_vec();
            block.resize(self.size(), 0);
            if inserts(seen) {
                self.insert(protection, &mut block, protection.tags(seen, index));
            }
            blocks.extend(block);
        }
        blocks
    }

    /// Blocks as a Write Zeroes stores them.
    pub(super) fn zeroes(self, seen: ReceivedCommand, blocks: usize) -> Vec<u8> {
        let size = if self.is_stripped(seen) { self.block } else { self.size() };
        self.stored(seen, &vec![0; blocks * size])
    }

    /// Data of a read of these stored blocks.
    pub(super) fn returned(self, seen: ReceivedCommand, stored: Vec<u8>) -> Vec<u8> {
        if !self.is_stripped(seen) {
            return stored;
        }
        stored.chunks_exact(self.size()).flat_map(|block| block[..self.block].to_vec()).collect()
    }

    /// Status of the fields of a command and of the protection information of its blocks.
    pub(super) fn status(self, seen: ReceivedCommand, blocks: &[u8]) -> u16 {
        let Some(protection) = self.protection else {
            return if inserts(seen) { INVALID_PROTECTION_INFORMATION } else { 0 };
        };
        let checks_reference = seen.sqe[51] & 0x04 != 0;
        let (_, first) = protection.tags(seen, 0);
        let mask = protection.reference_mask();
        let is_address = first & mask == u128::from(seen.u64_at(40)) & mask;
        let (writes, zeroes) = (seen.sqe[0] == 0x01, seen.sqe[0] == 0x08);
        if (checks_reference && protection.kind == 3)
            || (protection.kind == 1
                && (checks_reference || (inserts(seen) && (writes || zeroes)))
                && !is_address)
            || (inserts(seen) && matches!(seen.sqe[0], 0x05 | 0x0c))
            || (zeroes && seen.sqe[51] & 0x1c != 0)
        {
            return INVALID_PROTECTION_INFORMATION;
        }
        if (writes && inserts(seen)) || zeroes {
            return 0;
        }
        let all = (0..).zip(blocks.chunks_exact(self.size()));
        let statuses = all.map(|(index, block)| {
            self.check(protection, seen, block, protection.tags(seen, index))
        });
        statuses.into_iter().find(|&status| status != 0).unwrap_or(0)
    }

    /// Place of the protection information in a block.
    fn offset(self, protection: Protection) -> usize {
        if protection.first { self.block } else { self.size() - protection.bytes() }
    }

    fn insert(self, protection: Protection, block: &mut [u8], (application, space): Tags) {
        let offset = self.offset(protection);
        let guard = protection.guard.checksum(&block[..offset]).to_be_bytes();
        let mut information = guard[8 - protection.guard.bytes()..].to_vec();
        information.extend(application.to_be_bytes());
        let bits = usize::try_from(protection.space_bits()).expect("small");
        information.extend(&space.to_be_bytes()[16 - bits / 8..]);
        block[offset..][..protection.bytes()].copy_from_slice(&information);
    }

    fn check(
        self,
        protection: Protection,
        seen: ReceivedCommand,
        block: &[u8],
        (application, space): Tags,
    ) -> u16 {
        let checks = |bit: u8| seen.sqe[51] & bit != 0;
        let offset = self.offset(protection);
        let information = &block[offset..][..protection.bytes()];
        let number =
            |bytes: &[u8]| bytes.iter().fold(0u128, |all, &byte| all << 8 | u128::from(byte));
        let (guard, tags) = information.split_at(protection.guard.bytes());
        let (tag, found) = (number(&tags[..2]), number(&tags[2..]));
        let mask = protection.reference_mask();
        if tag == 0xffff && (protection.kind != 3 || found & mask == mask) {
            return 0;
        }
        let computed = u128::from(protection.guard.checksum(&block[..offset]));
        let tag_mask = u128::from(seen.u32_at(60) >> 16);
        if checks(0x10) && number(guard) != computed {
            GUARD_CHECK
        } else if checks(0x08) && (tag ^ u128::from(application)) & tag_mask != 0 {
            APPLICATION_TAG_CHECK
        } else if (checks(0x04) && (found ^ space) & mask != 0)
            || (checks(0x01) && (found ^ space) & !mask != 0)
        {
            REFERENCE_TAG_CHECK
        } else {
            0
        }
    }
}

/// PRACT.
fn inserts(seen: ReceivedCommand) -> bool {
    seen.sqe[51] & 0x20 != 0
}
