//! Protection information of extended blocks: computed before a write, checked after a read (NVM
//! 5.3).

use crc_fast::CrcAlgorithm;

use crate::{
    error::{ProtectionField, ProtectionMismatch},
    wire::{
        GuardType, NamespaceInfo, ProtectionChecks, ProtectionFormat, ProtectionInformation,
        ProtectionTags, ProtectionType,
    },
};

/// Layout of the extended blocks of a namespace with protection information.
///
/// ```text
///   data           metadata
///  +--------------+-----------------+----+   the guard is of all before the protection
///  |              |                 | PI |   information, if that is last
///  +--------------+----+------------+----+
///  |              | PI |                 |   and of the data alone, if it is first
///  +--------------+----+-----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedBlocks {
    format: ProtectionFormat,
    /// Bytes of an extended block.
    size: usize,
    /// Offset of the protection information in it.
    offset: usize,
}

impl ProtectedBlocks {
    /// Layout of a namespace; `None` if it has no protection information.
    #[must_use]
    pub fn of(info: &NamespaceInfo) -> Option<Self> {
        let format = info.metadata.protection?;
        let size = info.extended_block_size() as usize;
        let offset = if format.is_first { info.block_size as usize } else { size - format.bytes() };
        Some(Self { format, size, offset })
    }

    /// Format of the protection information.
    #[must_use]
    pub fn format(&self) -> ProtectionFormat {
        self.format
    }

    /// Bytes of an extended block.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Place of the protection information in an extended block.
    #[must_use]
    pub fn place(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.format.bytes()
    }

    /// Checks that this host makes unless it is told otherwise: all that there is something to
    /// compare with.
    #[must_use]
    pub fn checks(&self, tags: &ProtectionTags, has_storage_tag: bool) -> ProtectionChecks {
        ProtectionChecks {
            guard: true,
            application_tag: tags.application_mask != 0,
            reference_tag: self.format.protection_type != ProtectionType::Type3
                && self.format.reference_tag_bits() > 0,
            storage_tag: has_storage_tag,
        }
    }

    /// Computes the protection information of an extended block, and writes it there.
    ///
    /// # Panics
    ///
    /// If the block does not have the size of one.
    pub fn protect(&self, block: &mut [u8], tags: &ProtectionTags) {
        assert_eq!(block.len(), self.size, "the size of an extended block");
        let information = ProtectionInformation {
            guard: self.guard(block),
            application_tag: tags.application,
            storage_tag: tags.storage,
            reference_tag: tags.reference,
        };
        information.emit(self.format, &mut block[self.place()]);
    }

    /// Checks the protection information of the extended block `lba`.
    ///
    /// # Errors
    ///
    /// The first difference: of the guard, the application tag, the reference tag, the storage tag.
    ///
    /// # Panics
    ///
    /// If the block does not have the size of one.
    pub fn check(
        &self,
        lba: u64,
        block: &[u8],
        checks: ProtectionChecks,
        tags: &ProtectionTags,
    ) -> Result<(), ProtectionMismatch> {
        assert_eq!(block.len(), self.size, "the size of an extended block");
        let found = ProtectionInformation::parse(self.format, &block[self.place()]);
        if found.disables_checks(self.format) {
            return Ok(());
        }
        let compare = |is_checked: bool, field, found, expected| {
            if !is_checked || found == expected {
                return Ok(());
            }
            Err(ProtectionMismatch { lba, field, found, expected })
        };
        if checks.guard {
            compare(true, ProtectionField::Guard, found.guard, self.guard(block))?;
        }
        let application = |tag: u16| u64::from(tag & tags.application_mask);
        compare(
            checks.application_tag,
            ProtectionField::ApplicationTag,
            application(found.application_tag),
            application(tags.application),
        )?;
        compare(
            checks.reference_tag && self.format.protection_type != ProtectionType::Type3,
            ProtectionField::ReferenceTag,
            found.reference_tag,
            tags.reference & self.format.reference_tag_max(),
        )?;
        compare(
            checks.storage_tag,
            ProtectionField::StorageTag,
            found.storage_tag,
            tags.storage & self.format.storage_tag_max(),
        )
    }

    /// Guard of an extended block.
    fn guard(&self, block: &[u8]) -> u64 {
        let algorithm = match self.format.guard {
            GuardType::Crc16 => CrcAlgorithm::Crc16T10Dif,
            GuardType::Crc32 => CrcAlgorithm::Crc32Iscsi,
            GuardType::Crc64 => CrcAlgorithm::Crc64Nvme,
        };
        crc_fast::checksum(algorithm, &block[..self.offset])
    }
}

#[cfg(test)]
mod tests;
