//! Scatter Gather List descriptors used over RDMA (Base 4.3.2, RDMA 3.2).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::RemoteKey;

/// SGL descriptor of 16 bytes; a command over RDMA contains exactly one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SglDescriptor {
    /// Bytes 7:0: virtual address in host memory, or offset into the capsule.
    address: U64,
    /// Bytes 14:8: length and key, in widths that depend on the type.
    body: [u8; 7],
    /// Byte 15: descriptor type (bits 7:4) and subtype.
    identifier: u8,
}

const _: () = assert!(size_of::<SglDescriptor>() == 16);

/// Keyed SGL Data Block descriptor, subtype Address (Base figures 115 and 117).
const KEYED_ADDRESS: u8 = 0x40;
/// Keyed SGL Data Block descriptor, subtype Invalidate Key: the response invalidates the key (RDMA
/// 3.2).
const KEYED_INVALIDATE: u8 = 0x4f;
/// SGL Data Block descriptor, subtype Offset.
const BLOCK_OFFSET: u8 = 0x01;

impl SglDescriptor {
    /// Maximum length of a keyed descriptor in bytes: its length field has 24 bits.
    pub const KEYED_LENGTH_MAX: u32 = (1 << 24) - 1;

    /// Keyed descriptor of length 0, for a command without data.
    #[inline]
    #[must_use]
    pub fn none() -> Self {
        Self { address: U64::ZERO, body: [0; 7], identifier: KEYED_ADDRESS }
    }

    /// Data in host memory, which the controller accesses by RDMA.
    ///
    /// # Panics
    ///
    /// If `length` exceeds [`KEYED_LENGTH_MAX`](Self::KEYED_LENGTH_MAX). Transfers are limited to
    /// less.
    #[inline]
    #[must_use]
    pub fn keyed(address: u64, length: u32, key: RemoteKey) -> Self {
        assert!(length <= Self::KEYED_LENGTH_MAX, "a keyed descriptor names at most 16 MiB - 1");
        let mut body = [0; 7];
        body[..3].copy_from_slice(&length.to_le_bytes()[..3]);
        body[3..].copy_from_slice(&key.0.to_le_bytes());
        Self { address: U64::new(address), body, identifier: KEYED_ADDRESS }
    }

    /// As [`keyed`](Self::keyed), with a key that the controller is to invalidate with its response
    /// (SEND with Invalidate).
    ///
    /// # Panics
    ///
    /// As for [`keyed`](Self::keyed).
    #[inline]
    #[must_use]
    pub fn keyed_with_invalidate(address: u64, length: u32, key: RemoteKey) -> Self {
        Self { identifier: KEYED_INVALIDATE, ..Self::keyed(address, length, key) }
    }

    /// In-capsule data, `offset` bytes after the end of the command.
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
