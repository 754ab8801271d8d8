//! Scatter gather list descriptors as used over RDMA (Base 4.3.2, RDMA 3.2).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::RemoteKey;

/// One 16-byte descriptor; a command over RDMA carries exactly one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SglDescriptor {
    /// Bytes 0-7: a virtual address of ours, or an offset into the capsule.
    address: U64,
    /// Bytes 8-14: length and key; how they divide depends on the type.
    body: [u8; 7],
    /// Byte 15: descriptor type (high four bits) and subtype.
    identifier: u8,
}

const _: () = assert!(size_of::<SglDescriptor>() == 16);

/// Keyed data block, subtype address (Base figures 115 and 117).
const KEYED_ADDRESS: u8 = 0x40;
/// Keyed data block, subtype invalidate key: the response takes the key out of use (RDMA 3.2).
const KEYED_INVALIDATE: u8 = 0x4f;
/// Data block, subtype offset.
const BLOCK_OFFSET: u8 = 0x01;

impl SglDescriptor {
    /// The most bytes one keyed descriptor can name: its length field has 24 bits.
    pub const KEYED_LENGTH_MAX: u32 = (1 << 24) - 1;

    /// A command without data: a keyed descriptor of nothing.
    #[inline]
    #[must_use]
    pub fn none() -> Self {
        Self { address: U64::ZERO, body: [0; 7], identifier: KEYED_ADDRESS }
    }

    /// Data in our memory, which the controller reads or writes by RDMA.
    ///
    /// # Panics
    ///
    /// If `length` exceeds [`KEYED_LENGTH_MAX`](Self::KEYED_LENGTH_MAX): transfers are split
    /// long before.
    #[inline]
    #[must_use]
    pub fn keyed(address: u64, length: u32, key: RemoteKey) -> Self {
        assert!(length <= Self::KEYED_LENGTH_MAX, "a keyed descriptor names at most 16 MiB - 1");
        let mut body = [0; 7];
        body[..3].copy_from_slice(&length.to_le_bytes()[..3]);
        body[3..].copy_from_slice(&key.0.to_le_bytes());
        Self { address: U64::new(address), body, identifier: KEYED_ADDRESS }
    }

    /// The same, with a key that the controller is to take out of use with its response.
    ///
    /// # Panics
    ///
    /// As [`keyed`](Self::keyed).
    #[inline]
    #[must_use]
    pub fn keyed_with_invalidate(address: u64, length: u32, key: RemoteKey) -> Self {
        Self { identifier: KEYED_INVALIDATE, ..Self::keyed(address, length, key) }
    }

    /// Data that follows the command in its capsule, `offset` bytes after the 64th.
    #[inline]
    #[must_use]
    pub fn in_capsule(offset: u64, length: u32) -> Self {
        let mut body = [0; 7];
        body[..4].copy_from_slice(U32::new(length).as_bytes());
        Self { address: U64::new(offset), body, identifier: BLOCK_OFFSET }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_bytes() {
        assert_eq!(
            SglDescriptor::none().as_bytes(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40]
        );
        assert_eq!(
            SglDescriptor::keyed(0x1122_3344_5566_7788, 0x0a_0b0c, RemoteKey(0xdead_beef))
                .as_bytes(),
            [
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x0c, 0x0b, 0x0a, 0xef, 0xbe, 0xad,
                0xde, 0x40
            ]
        );
        assert_eq!(
            SglDescriptor::keyed_with_invalidate(
                0x1122_3344_5566_7788,
                0x0a_0b0c,
                RemoteKey(0xdead_beef)
            )
            .as_bytes(),
            [
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x0c, 0x0b, 0x0a, 0xef, 0xbe, 0xad,
                0xde, 0x4f
            ]
        );
        assert_eq!(
            SglDescriptor::in_capsule(0, 4096).as_bytes(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x01]
        );
    }

    #[test]
    #[should_panic(expected = "16 MiB - 1")]
    fn refuses_more_than_24_bits() {
        let _ = SglDescriptor::keyed(0, 1 << 24, RemoteKey(1));
    }
}
