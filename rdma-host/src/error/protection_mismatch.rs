//! Difference between a block and its protection information.

use std::fmt;

/// Block that differs from its protection information, or has other tags than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {field} of block {lba} is {found:#x} where {expected:#x} is expected; the block was \
     changed or written with other tags: restore it, or read it without checks (prinfo 0)"
)]
pub struct ProtectionMismatch {
    /// Block.
    pub lba: u64,
    /// Field that differs.
    pub field: ProtectionField,
    /// Value that the block has.
    pub found: u64,
    /// Value that it should have: of the guard, that of its data.
    pub expected: u64,
}

/// Field of protection information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectionField {
    /// Guard.
    Guard,
    /// Application tag.
    ApplicationTag,
    /// Reference tag.
    ReferenceTag,
    /// Storage tag.
    StorageTag,
}

impl fmt::Display for ProtectionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "guard",
            Self::ApplicationTag => "application tag",
            Self::ReferenceTag => "reference tag",
            Self::StorageTag => "storage tag",
        })
    }
}
