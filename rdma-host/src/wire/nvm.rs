//! Data of NVM commands that transfer no blocks, and the limits of these commands.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{Identify, IdentifyError};

/// Range of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks.
    pub blocks: u32,
}

/// Layout of a Dataset Management range (NVM 3.2.3).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    attributes: U32,
    blocks: U32,
    lba: U64,
}

const _: () = assert!(size_of::<Layout>() == BlockRange::SIZE);

/// Layout of a source range of Copy, descriptor format 0 (NVM 3.2.2).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct CopyLayout {
    gap_0: [u8; 8],
    lba: U64,
    /// Zero-based.
    blocks: U16,
    gap_18: [u8; 14],
}

const _: () = assert!(size_of::<CopyLayout>() == BlockRange::COPY_SIZE);

impl BlockRange {
    /// Size of one range in bytes.
    pub const SIZE: usize = 16;
    /// Maximum number of ranges of one command.
    pub const COUNT_MAX: usize = 256;

    /// Encodes the range as one of those in the data of a Dataset Management command.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let Self { lba, blocks } = self;
        let (blocks, lba) = (U32::new(blocks), U64::new(lba));
        zerocopy::transmute!(Layout { attributes: U32::ZERO, blocks, lba })
    }

    /// Size of a source range of Copy in bytes.
    pub const COPY_SIZE: usize = 32;
    /// Maximum number of blocks of a source range of Copy.
    pub const COPY_BLOCKS_MAX: u32 = 1 << 16;

    /// Encodes ranges as the data of a Copy command.
    ///
    /// # Panics
    ///
    /// If a range has no blocks or more than 65,536, which the zero-based field cannot hold.
    #[must_use]
    pub fn to_copy_bytes(ranges: &[Self]) -> Vec<u8> {
        let layouts = ranges.iter().map(|range| {
            let blocks = range.blocks.checked_sub(1).and_then(|blocks| u16::try_from(blocks).ok());
            CopyLayout {
                gap_0: [0; 8],
                lba: U64::new(range.lba),
                blocks: U16::new(blocks.expect("a source range has 1 to 65,536 blocks")),
                gap_18: [0; 14],
            }
        });
        layouts.flat_map(|layout| layout.as_bytes().to_vec()).collect()
    }
}

/// Limits of the Copy command of a namespace (NVM 4.1.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// MSSRL: maximum number of blocks of a source range.
    pub range_blocks: u32,
    /// MCL: maximum number of blocks of all source ranges of one command.
    pub blocks: u32,
    /// MSRC: maximum number of source ranges of one command, 1 to 256.
    pub ranges: u16,
}

/// Layout of Identify Namespace around the limits of Copy (NVM figure 114).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CopyLimitsLayout {
    gap_0: [u8; 74],
    range_blocks: U16,
    blocks: U32,
    ranges: u8,
    gap_81: [u8; 4015],
}

const _: () = assert!(size_of::<CopyLimitsLayout>() == Identify::SIZE);

impl CopyLimits {
    /// Decodes them from the Identify Namespace data structure.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let data = CopyLimitsLayout::ref_from_bytes(bytes)
            .map_err(|_| IdentifyError::Length(bytes.len()))?;
        Ok(Self {
            range_blocks: data.range_blocks.get().into(),
            blocks: data.blocks.get(),
            ranges: u16::from(data.ranges) + 1,
        })
    }
}

/// Limits of commands that transfer no blocks (NVM 4.1.5.4); `None` for no limit or not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmLimits {
    /// VSL: maximum bytes of one Verify, as a power of two of the smallest page (CAP.MPSMIN).
    pub verify_pages_log2: Option<u8>,
    /// WZSL: maximum bytes of one Write Zeroes, in the same unit.
    pub write_zeroes_pages_log2: Option<u8>,
    /// WUSL: maximum bytes of one Write Uncorrectable, in the same unit.
    pub write_uncorrectable_pages_log2: Option<u8>,
    /// DMRL: maximum number of ranges of one Dataset Management.
    pub ranges: Option<u8>,
    /// DMRSL: maximum number of blocks of one range.
    pub range_blocks: Option<u32>,
    /// DMSL: maximum number of blocks of all ranges of one command.
    pub blocks: Option<u64>,
}

/// Layout of the data structure.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Limits {
    verify: u8,
    write_zeroes: u8,
    write_uncorrectable: u8,
    ranges: u8,
    range_blocks: U32,
    blocks: U64,
    gap_16: [u8; 4080],
}

const _: () = assert!(size_of::<Limits>() == Identify::SIZE);

impl NvmLimits {
    /// Decodes the data structure.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let data = Limits::ref_from_bytes(bytes).map_err(|_| IdentifyError::Length(bytes.len()))?;
        let pages_log2 = |limit: u8| Some(limit).filter(|&limit| limit != 0);
        Ok(Self {
            verify_pages_log2: pages_log2(data.verify),
            write_zeroes_pages_log2: pages_log2(data.write_zeroes),
            write_uncorrectable_pages_log2: pages_log2(data.write_uncorrectable),
            ranges: Some(data.ranges).filter(|&limit| limit != 0),
            range_blocks: Some(data.range_blocks.get()).filter(|&limit| limit != 0),
            blocks: Some(data.blocks.get()).filter(|&limit| limit != 0),
        })
    }

    /// Maximum bytes of one Write Zeroes, with smallest pages of `page_size_min` bytes.
    #[must_use]
    pub fn write_zeroes_bytes_max(&self, page_size_min: u64) -> Option<u64> {
        bytes_max(self.write_zeroes_pages_log2, page_size_min)
    }

    /// Maximum bytes of one Write Uncorrectable, with smallest pages of `page_size_min` bytes.
    #[must_use]
    pub fn write_uncorrectable_bytes_max(&self, page_size_min: u64) -> Option<u64> {
        bytes_max(self.write_uncorrectable_pages_log2, page_size_min)
    }

    /// Maximum bytes of one Verify, with smallest pages of `page_size_min` bytes.
    #[must_use]
    pub fn verify_bytes_max(&self, page_size_min: u64) -> Option<u64> {
        bytes_max(self.verify_pages_log2, page_size_min)
    }
}

fn bytes_max(pages_log2: Option<u8>, page_size: u64) -> Option<u64> {
    1u64.checked_shl(pages_log2?.into())?.checked_mul(page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_literal_bytes() {
        let range = BlockRange { lba: 0x0102_0304_0506_0708, blocks: 0x0a0b_0c0d };
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a,
            8, 7, 6, 5, 4, 3, 2, 1,
        ];
        assert_eq!(range.to_bytes(), expected);
    }

    #[test]
    fn source_ranges_in_literal_bytes() {
        let range = BlockRange { lba: 0x0102_0304_0506_0708, blocks: 0x0c0e };
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0,
            8, 7, 6, 5, 4, 3, 2, 1,
            0x0d, 0x0c, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(BlockRange::to_copy_bytes(&[range]), expected);
        let most = BlockRange { lba: 0, blocks: BlockRange::COPY_BLOCKS_MAX };
        assert_eq!(BlockRange::to_copy_bytes(&[most; 2])[48..50], [0xff, 0xff]);
    }

    #[test]
    #[should_panic(expected = "1 to 65,536 blocks")]
    fn a_source_range_of_too_many_blocks_is_a_caller_error() {
        let _ = BlockRange::to_copy_bytes(&[BlockRange { lba: 0, blocks: 65_537 }]);
    }

    #[test]
    fn copy_limits_by_offset() {
        let mut bytes = [0; 4096];
        bytes[74..81].copy_from_slice(&[0, 1, 0, 0, 2, 0, 127]);
        let limits = CopyLimits { range_blocks: 256, blocks: 0x2_0000, ranges: 128 };
        assert_eq!(CopyLimits::parse(&bytes), Ok(limits));
        assert_eq!(CopyLimits::parse(&bytes[1..]), Err(IdentifyError::Length(4095)));
    }

    #[test]
    fn limits_by_offset() {
        let mut bytes = [0; 4096];
        assert_eq!(NvmLimits::parse(&bytes), Ok(NvmLimits::default()));
        bytes[0] = 3;
        bytes[1] = 8;
        bytes[2] = 5;
        bytes[3] = 255;
        bytes[4..8].copy_from_slice(&[0, 0, 1, 0]);
        bytes[8..16].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        let limits = NvmLimits::parse(&bytes).unwrap();
        let expected = NvmLimits {
            verify_pages_log2: Some(3),
            write_zeroes_pages_log2: Some(8),
            write_uncorrectable_pages_log2: Some(5),
            ranges: Some(255),
            range_blocks: Some(1 << 16),
            blocks: Some(1 << 32),
        };
        assert_eq!(limits, expected);
        assert_eq!(limits.write_zeroes_bytes_max(4096), Some(1 << 20));
        assert_eq!(limits.verify_bytes_max(4096), Some(1 << 15));
        assert_eq!(limits.write_uncorrectable_bytes_max(4096), Some(1 << 17));
        bytes[1] = 200;
        let limits = NvmLimits::parse(&bytes).unwrap();
        assert_eq!(limits.write_zeroes_bytes_max(4096), None, "more than there can be is no limit");
        assert_eq!(NvmLimits::parse(&bytes[1..]), Err(IdentifyError::Length(4095)));
    }
}
