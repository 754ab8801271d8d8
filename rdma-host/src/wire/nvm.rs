//! Data of NVM commands that transfer no blocks, and the limits of these commands.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
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

impl BlockRange {
    /// Size of one range in bytes.
    pub const SIZE: usize = 16;
    /// Maximum number of ranges of one command.
    pub const COUNT_MAX: usize = 256;

    /// Encodes ranges as the data of a Dataset Management command.
    #[must_use]
    pub fn to_bytes(ranges: &[Self]) -> Vec<u8> {
        let layouts = ranges.iter().map(|range| Layout {
            attributes: U32::ZERO,
            blocks: U32::new(range.blocks),
            lba: U64::new(range.lba),
        });
        layouts.flat_map(|layout| layout.as_bytes().to_vec()).collect()
    }
}

/// Limits of commands that transfer no blocks (NVM 4.1.5.4); `None` for no limit or not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmLimits {
    /// WZSL: maximum bytes of one Write Zeroes, as a power of two of the smallest page
    /// (CAP.MPSMIN).
    pub write_zeroes_pages_log2: Option<u8>,
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
        Ok(Self {
            write_zeroes_pages_log2: Some(data.write_zeroes).filter(|&limit| limit != 0),
            ranges: Some(data.ranges).filter(|&limit| limit != 0),
            range_blocks: Some(data.range_blocks.get()).filter(|&limit| limit != 0),
            blocks: Some(data.blocks.get()).filter(|&limit| limit != 0),
        })
    }

    /// Maximum bytes of one Write Zeroes, with smallest pages of `page_size_min` bytes.
    #[must_use]
    pub fn write_zeroes_bytes_max(&self, page_size_min: u64) -> Option<u64> {
        let pages = 1u64.checked_shl(self.write_zeroes_pages_log2?.into())?;
        pages.checked_mul(page_size_min)
    }
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
        assert_eq!(BlockRange::to_bytes(&[range]), expected);
        assert_eq!(BlockRange::to_bytes(&[range; 3]).len(), 48);
    }

    #[test]
    fn limits_by_offset() {
        let mut bytes = [0; 4096];
        assert_eq!(NvmLimits::parse(&bytes), Ok(NvmLimits::default()));
        bytes[1] = 8;
        bytes[3] = 255;
        bytes[4..8].copy_from_slice(&[0, 0, 1, 0]);
        bytes[8..16].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        let limits = NvmLimits::parse(&bytes).unwrap();
        let expected = NvmLimits {
            write_zeroes_pages_log2: Some(8),
            ranges: Some(255),
            range_blocks: Some(1 << 16),
            blocks: Some(1 << 32),
        };
        assert_eq!(limits, expected);
        assert_eq!(limits.write_zeroes_bytes_max(4096), Some(1 << 20));
        bytes[1] = 200;
        let limits = NvmLimits::parse(&bytes).unwrap();
        assert_eq!(limits.write_zeroes_bytes_max(4096), None, "more than there can be is no limit");
        assert_eq!(NvmLimits::parse(&bytes[1..]), Err(IdentifyError::Length(4095)));
    }
}
