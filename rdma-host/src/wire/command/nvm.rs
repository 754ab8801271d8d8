//! Optional commands of the NVM command set (NVM 3.2).

use super::{Opcode, Sqe};
use crate::wire::NamespaceId;

impl Sqe {
    /// Compare of `blocks` logical blocks from `lba` on with the data of the command (NVM 3.2.1).
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn compare(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self::new(Opcode::COMPARE, namespace).with_blocks(lba, blocks)
    }

    /// First command of a fused Compare and Write of `blocks` logical blocks from `lba` on (NVM
    /// 3.2.1, Base 3.4.2). It is sent right before the [second](Self::fused_write), on one queue.
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn fused_compare(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        let mut sqe = Self::compare(namespace, lba, blocks);
        sqe.flags |= FUSE_FIRST;
        sqe
    }

    /// Second command of the fused operation whose [first](Self::fused_compare) this is: the Write
    /// of its blocks, with its Force Unit Access.
    #[must_use]
    pub fn fused_write(self) -> Self {
        let flags = self.flags & !FUSE_FIRST | FUSE_SECOND;
        Self { opcode: Opcode::WRITE, flags, ..self }
    }

    /// Verify: reads `blocks` logical blocks from `lba` on without a transfer of them (NVM 3.2.5).
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn verify(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self::new(Opcode::VERIFY, namespace).with_blocks(lba, blocks)
    }

    /// Write Uncorrectable: reads of `blocks` logical blocks from `lba` on fail until the blocks
    /// are written (NVM 3.2.7).
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn write_uncorrectable(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self::new(Opcode::WRITE_UNCORRECTABLE, namespace).with_blocks(lba, blocks)
    }

    /// Copy of `ranges` source ranges to the logical blocks from `lba` on, one after the other (NVM
    /// 3.2.2); the data holds the ranges in the layout of
    /// [`BlockRange::to_copy_bytes`](crate::wire::BlockRange::to_copy_bytes) (format 0).
    ///
    /// # Panics
    ///
    /// If `ranges` is 0 or above 256, which the zero-based field cannot hold.
    #[must_use]
    pub fn copy(namespace: NamespaceId, lba: u64, ranges: usize) -> Self {
        // In place of a number of blocks, CDW12 has the number of ranges in bits 7:0, zero-based.
        let ranges = u32::from(zero_based_range_count(ranges)) + 1;
        Self::new(Opcode::COPY, namespace).with_blocks(lba, ranges)
    }
}

/// Fused Operation field (FUSE) of the first and of the second command.
const FUSE_FIRST: u8 = 0b01;
const FUSE_SECOND: u8 = 0b10;

/// Number of ranges of a command as its zero-based field has it.
pub(super) fn zero_based_range_count(ranges: usize) -> u8 {
    let count = ranges.checked_sub(1).and_then(|count| u8::try_from(count).ok());
    count.expect("a command takes 1 to 256 ranges")
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn commands_of_blocks_in_literal_bytes() {
        const LBA: u64 = 0x0102_0304_0506_0708;
        for (sqe, opcode, sends_data) in [
            (Sqe::compare(NamespaceId(3), LBA, 0x1234), 0x05, true),
            (Sqe::verify(NamespaceId(3), LBA, 0x1234), 0x0c, false),
            (Sqe::write_uncorrectable(NamespaceId(3), LBA, 0x1234), 0x04, false),
        ] {
            assert_eq!(sqe.as_bytes()[..8], [opcode, 0x40, 0, 0, 3, 0, 0, 0]);
            #[rustfmt::skip]
            let expected = [
                8, 7, 6, 5, 4, 3, 2, 1,
                0x33, 0x12, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0,
            ];
            assert_eq!(sqe.as_bytes()[40..], expected, "{opcode:#x}");
            assert_eq!(sqe.opcode().sends_data(), sends_data, "{opcode:#x}");
        }
    }

    #[test]
    fn copy_in_literal_bytes() {
        let sqe = Sqe::copy(NamespaceId(1), 0x0000_0002_0000_0009, 256);
        assert_eq!((sqe.as_bytes()[0], sqe.opcode().sends_data()), (0x19, true));
        assert_eq!(sqe.as_bytes()[40..52], [9, 0, 0, 0, 2, 0, 0, 0, 0xff, 0, 0, 0]);
    }

    #[test]
    fn compare_and_write_in_literal_bytes() {
        let first = Sqe::fused_compare(NamespaceId(3), 9, 8).with_force_unit_access();
        let second = first.fused_write();
        for (sqe, start) in [(first, [0x05, 0x41, 0, 0, 3]), (second, [0x01, 0x42, 0, 0, 3])] {
            assert!(sqe.is_fused());
            assert_eq!(sqe.as_bytes()[..5], start);
            assert_eq!(sqe.as_bytes()[40..52], [9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x40]);
        }
    }

    #[test]
    #[should_panic(expected = "1 to 256 ranges")]
    fn a_copy_of_nothing_is_a_caller_error() {
        let _ = Sqe::copy(NamespaceId(1), 0, 0);
    }
}
