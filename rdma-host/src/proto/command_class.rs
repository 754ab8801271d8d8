//! Class of a command: what may be done with one that has no response, and which blocks it may have
//! changed.

use std::ops::Range;

use crate::wire::{NamespaceId, Opcode, Sqe};

/// Class of an I/O command whose connection was lost before its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandClass {
    /// Command that changes nothing: sent again at once.
    WithoutEffect,
    /// Executed twice it has the effect of once: sent again behind the fence.
    IdempotentWrite,
    /// Never sent again: its second execution may have another effect or outcome, or nothing is
    /// known of it.
    NotRepeatable,
}

impl CommandClass {
    /// Class of a command. Of opcodes that are not known here, nothing is assumed.
    #[must_use]
    pub fn of(sqe: &Sqe) -> Self {
        match sqe.opcode() {
            _ if sqe.is_fused() => Self::NotRepeatable,
            Opcode::READ | Opcode::FLUSH | Opcode::VERIFY | Opcode::ZONE_MANAGEMENT_RECEIVE => {
                Self::WithoutEffect
            }
            Opcode::WRITE | Opcode::WRITE_ZEROES | Opcode::DATASET_MANAGEMENT => {
                Self::IdempotentWrite
            }
            _ => Self::NotRepeatable,
        }
    }
}

/// Blocks of one namespace that a command may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBlocks {
    /// Namespace, or the broadcast value.
    pub namespace: NamespaceId,
    /// Logical blocks; all if they are not known.
    pub blocks: Range<u64>,
}

impl WrittenBlocks {
    /// Blocks that a command may change; `None` for one that changes no data. Of opcodes that are
    /// not known here, all blocks of the namespace.
    #[must_use]
    pub fn of(sqe: &Sqe) -> Option<Self> {
        let blocks = match sqe.opcode() {
            Opcode::COMPARE if sqe.is_fused() => sqe.blocks(),
            Opcode::READ
            | Opcode::FLUSH
            | Opcode::COMPARE
            | Opcode::VERIFY
            | Opcode::ZONE_MANAGEMENT_RECEIVE
            | Opcode::RESERVATION_REGISTER
            | Opcode::RESERVATION_REPORT
            | Opcode::RESERVATION_ACQUIRE
            | Opcode::RESERVATION_RELEASE => return None,
            Opcode::WRITE | Opcode::WRITE_ZEROES | Opcode::WRITE_UNCORRECTABLE => sqe.blocks(),
            // The ranges of Dataset Management are in its data.
            _ => 0..u64::MAX,
        };
        Some(Self { namespace: sqe.namespace(), blocks })
    }

    /// Returns true if both have a block in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let same = self.namespace == other.namespace
            || [self.namespace, other.namespace].contains(&NamespaceId::BROADCAST);
        same && self.blocks.start < other.blocks.end && other.blocks.start < self.blocks.end
    }
}
