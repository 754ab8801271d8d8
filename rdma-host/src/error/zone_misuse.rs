//! Errors of callers with commands on zones.

use crate::wire::NamespaceId;

/// Command on zones that the namespace can't execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneMisuse {
    /// A Zone Append is larger than the controller's limit.
    #[error("{bytes} bytes in one Zone Append; the controller takes at most {max} (ZASL)")]
    AppendBytes {
        /// Size of the data.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The namespace is not a zoned one.
    #[error("namespace {0} is not zoned, and takes no commands of zones")]
    NotZoned(NamespaceId),
    /// The block is not the first one of a zone.
    #[error(
        "block {lba} is not the first of a zone: zones begin every {zone_blocks} blocks, this one \
         at block {}", lba - lba % zone_blocks
    )]
    Unaligned {
        /// Block.
        lba: u64,
        /// Distance between the first blocks of two zones.
        zone_blocks: u64,
    },
}
