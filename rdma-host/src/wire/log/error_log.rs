//! Error information log page (Base 5.1.12.1.2).

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{LogError, LogPage};
use crate::wire::{CommandId, NamespaceId, QueueId, Status};

/// Error log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLogEntry {
    /// Error count, unique over the life of the controller, from 1.
    pub count: u64,
    /// Queue of the command, if the error belongs to one.
    pub queue: Option<QueueId>,
    /// Command id, if the error belongs to a command.
    pub command: Option<CommandId>,
    /// Status of the command.
    pub status: Status,
    /// Offset of the invalid byte in the command, if any.
    pub parameter_byte: Option<u8>,
    /// First logical block with the error.
    pub lba: u64,
    /// Namespace, if the error belongs to one.
    pub namespace: Option<NamespaceId>,
}

/// Layout of an entry (Base figure 206).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    count: U64,
    queue: U16,
    command: U16,
    status: U16,
    parameter: U16,
    lba: U64,
    namespace: U32,
    gap_28: [u8; 36],
}

const _: () = assert!(size_of::<Layout>() == ErrorLogEntry::SIZE);
const _: () = assert!(offset_of!(Layout, namespace) == 24);

impl ErrorLogEntry {
    /// Size of one entry in bytes.
    pub const SIZE: usize = 64;

    /// Decodes all entries of a page or of its first part; unused entries (count 0) are omitted.
    ///
    /// # Errors
    ///
    /// When the last entry is incomplete.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, LogError> {
        let entries = <[Layout]>::ref_from_bytes(bytes).map_err(|_| LogError::Length {
            page: LogPage::ERROR,
            bytes: bytes.len(),
            least: bytes.len().next_multiple_of(Self::SIZE),
        })?;
        let known = entries.iter().filter(|entry| entry.count.get() != 0);
        Ok(known.map(Self::new).collect())
    }

    fn new(entry: &Layout) -> Self {
        const NONE: u16 = 0xffff;
        let present = |value: U16| Some(value.get()).filter(|&value| value != NONE);
        let parameter = present(entry.parameter).map(|value| value.to_le_bytes()[0]);
        Self {
            count: entry.count.get(),
            queue: present(entry.queue).map(QueueId),
            command: present(entry.command).map(CommandId),
            status: Status(entry.status.get() >> 1),
            parameter_byte: parameter,
            lba: entry.lba.get(),
            namespace: Some(entry.namespace.get())
                .filter(|&id| id != 0 && id != 0xffff_ffff)
                .map(NamespaceId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_by_offset() {
        let mut bytes = [0; 192];
        bytes[0] = 9;
        bytes[8..16].copy_from_slice(&[2, 0, 0x34, 0x12, 0x05, 0x40, 0x2a, 0x03]);
        bytes[16] = 77;
        bytes[24] = 5;
        bytes[64] = 8;
        bytes[72..80].copy_from_slice(&[0xff; 8]);
        let entries = ErrorLogEntry::parse_all(&bytes).unwrap();
        let expected = ErrorLogEntry {
            count: 9,
            queue: Some(QueueId(2)),
            command: Some(CommandId(0x1234)),
            status: Status(0x2002),
            parameter_byte: Some(0x2a),
            lba: 77,
            namespace: Some(NamespaceId(5)),
        };
        assert_eq!(entries[0], expected);
        assert_eq!((entries[1].count, entries[1].queue, entries[1].command), (8, None, None));
        assert_eq!((entries[1].parameter_byte, entries[1].namespace), (None, None));
        assert_eq!(entries.len(), 2, "an entry with a count of 0 says nothing");
    }

    #[test]
    fn a_cut_entry_is_refused() {
        let error = ErrorLogEntry::parse_all(&[1; 100]).unwrap_err();
        let expected = LogError::Length { page: LogPage::ERROR, bytes: 100, least: 128 };
        assert_eq!(error, expected);
    }
}
