//! Any command, by its fields.

use zerocopy::little_endian::U32;

use super::{Opcode, Sqe};
use crate::wire::NamespaceId;

/// Direction of the data of a command (Base 3.1.2.1, bits 1:0 of the opcode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirection {
    /// No data.
    None,
    /// From host to controller.
    ToController,
    /// From controller to host.
    FromController,
    /// Both ways, which no transport of this library can do.
    Bidirectional,
}

impl Opcode {
    /// Direction of the data, if the command has any.
    #[must_use]
    pub fn direction(self) -> DataDirection {
        match self.0 & 0b11 {
            0b00 => DataDirection::None,
            0b01 => DataDirection::ToController,
            0b10 => DataDirection::FromController,
            _ => DataDirection::Bidirectional,
        }
    }
}

impl Sqe {
    /// Any command, by its dwords 2 and 3, and 10 to 15.
    #[must_use]
    pub fn with_dwords(
        opcode: Opcode,
        namespace: NamespaceId,
        [cdw2, cdw3]: [u32; 2],
        dwords: [u32; 6],
    ) -> Self {
        let [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = dwords.map(U32::new);
        let (cdw2, cdw3) = (U32::new(cdw2), U32::new(cdw3));
        let sqe = Self::new(opcode, namespace);
        Self { cdw2, cdw3, cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, ..sqe }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn dwords_are_at_their_places() {
        let sqe = Sqe::with_dwords(Opcode(0xc1), NamespaceId(7), [2, 3], [10, 11, 12, 13, 14, 15]);
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[..8], [0xc1, 0x40, 0, 0, 7, 0, 0, 0]);
        let dword = |index: usize| bytes[4 * index];
        assert_eq!([2, 3, 10, 11, 12, 13, 14, 15].map(dword), [2, 3, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn directions_are_in_the_opcode() {
        use DataDirection::{Bidirectional, FromController, None, ToController};
        let directions = [Opcode::FLUSH, Opcode::WRITE, Opcode::READ, Opcode(0x83)];
        let expected = [None, ToController, FromController, Bidirectional];
        assert_eq!(directions.map(Opcode::direction), expected);
    }
}
