//! Protection information of commands that transfer none: the controller makes and checks it.

use crate::{
    driver::data_path::command::Command,
    proto::ProtectedBlocks,
    wire::{NamespaceInfo, Opcode, ProtectionChecks, ProtectionTags, ProtectionType, Sqe},
};

/// Reference tag of a block by default.
pub(super) fn default_reference(blocks: &ProtectedBlocks, lba: u64) -> u64 {
    match blocks.format().protection_type {
        ProtectionType::Type1 | ProtectionType::Type2 => lba & blocks.format().reference_tag_max(),
        ProtectionType::Type3 => 0,
    }
}

/// Adds to a command that is not about metadata what the controller needs to make or check
/// protection information, if the namespace has any (PRACT).
pub(super) fn protect_command(info: &NamespaceInfo, command: Command) -> Command {
    let Some(blocks) = ProtectedBlocks::of(info) else { return command };
    let sqe = protect_sqe(&blocks, command.sqe);
    Command { sqe, ..command }
}

fn protect_sqe(blocks: &ProtectedBlocks, sqe: Sqe) -> Sqe {
    let reference = default_reference(blocks, sqe.blocks().start);
    let tags = ProtectionTags { reference, ..ProtectionTags::default() };
    let (inserts, checks) = match sqe.opcode() {
        Opcode::READ => (true, blocks.checks(&tags, false)),
        Opcode::WRITE | Opcode::WRITE_ZEROES => (true, ProtectionChecks::default()),
        // The tags may be of any writer.
        Opcode::VERIFY => (false, ProtectionChecks { guard: true, ..ProtectionChecks::default() }),
        _ => return sqe,
    };
    sqe.with_protection(blocks.format(), inserts, checks, tags)
}
