//! Completion queue entries (Base 4.2), which are response capsules over fabrics.

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U64},
};

use super::{CommandId, Status};

/// Completion queue entry (response): 16 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Cqe {
    result: U64,
    submission_head: U16,
    submission_queue: U16,
    command_id: U16,
    status: U16,
}

const _: () = assert!(size_of::<Cqe>() == 16);
const _: () = assert!(offset_of!(Cqe, submission_head) == 8);
const _: () = assert!(offset_of!(Cqe, command_id) == 12);
const _: () = assert!(offset_of!(Cqe, status) == 14);

impl Cqe {
    /// Size of a response in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Creates a response, as a target does.
    #[must_use]
    pub fn new(command_id: CommandId, status: Status, result: u64) -> Self {
        Self {
            result: U64::new(result),
            submission_head: U16::ZERO,
            submission_queue: U16::ZERO,
            command_id: U16::new(command_id.0),
            status: U16::new(status.0 << 1),
        }
    }

    /// Command-specific result (DW0 and DW1).
    #[must_use]
    pub fn result(&self) -> u64 {
        self.result.get()
    }

    /// Low dword of [`result`](Self::result), the only one that most commands use.
    #[must_use]
    pub fn result_dword(&self) -> u32 {
        let bytes = self.result.to_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Id of the completed command (CID).
    #[inline]
    #[must_use]
    pub fn command_id(&self) -> CommandId {
        CommandId(self.command_id.get())
    }

    /// Status field without the phase bit, which has no meaning over fabrics.
    #[inline]
    #[must_use]
    pub fn status(&self) -> Status {
        Status(self.status.get() >> 1)
    }

    /// Submission queue head pointer (SQHD): entries that the controller has consumed.
    #[must_use]
    pub fn submission_head(&self) -> u16 {
        self.submission_head.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_bytes() {
        let bytes = [0x01, 0, 0x06, 0, 0, 0, 0, 0, 0x05, 0, 0x01, 0, 0x34, 0x12, 0x05, 0xc3];
        let cqe = Cqe::read_from_bytes(&bytes).unwrap();
        assert_eq!(cqe.result_dword(), 0x0006_0001);
        assert_eq!(cqe.submission_head(), 5);
        assert_eq!(cqe.command_id(), CommandId(0x1234));
        assert_eq!(cqe.status(), Status(0x6182));
        assert!(cqe.status().do_not_retry());
        assert_eq!(cqe.as_bytes(), bytes);
    }

    #[test]
    fn round_trip() {
        let cqe = Cqe::new(CommandId(9), Status(0x4002), 7);
        assert_eq!(cqe.command_id(), CommandId(9));
        assert_eq!(cqe.status(), Status(0x4002));
        assert_eq!(cqe.result(), 7);
    }
}
