//! Metadata of a namespace: its LBA format, and the extended one (NVM 4.1.5.3).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian::U32};

use super::{Identify, IdentifyError, NamespaceInfo};
use crate::wire::{MetadataFormat, NamespaceId, ProtectionFormat, ProtectionType};

/// Layout of Identify Namespace of the NVM command set (NVM figure 119).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtendedFormats {
    gap_0: [u8; 12],
    formats: [U32; 64],
    gap_268: [u8; 3828],
}

const _: () = assert!(size_of::<ExtendedFormats>() == Identify::SIZE);

/// Metadata of `bytes` bytes a block in a namespace with these bits of FLBAS and DPS.
pub(super) fn metadata_format(
    namespace: NamespaceId,
    bytes: u16,
    flbas: u8,
    dps: u8,
) -> Result<MetadataFormat, IdentifyError> {
    /// FLBAS: metadata is transferred at the end of its block.
    const EXTENDED: u8 = 1 << 4;
    /// DPS: protection information is the first bytes of the metadata.
    const FIRST: u8 = 1 << 3;
    if bytes == 0 {
        return Ok(MetadataFormat::default());
    }
    if flbas & EXTENDED == 0 {
        return Err(IdentifyError::SeparateMetadata { namespace, bytes });
    }
    let protection_type = match dps & 0b111 {
        0 => return Ok(MetadataFormat { bytes, protection: None }),
        1 => ProtectionType::Type1,
        2 => ProtectionType::Type2,
        3 => ProtectionType::Type3,
        _ => return Err(IdentifyError::Protection { namespace, bytes, dps, elbaf: 0 }),
    };
    let protection = ProtectionFormat::without_extension(protection_type, dps & FIRST != 0);
    if usize::from(bytes) < protection.bytes() {
        return Err(IdentifyError::Protection { namespace, bytes, dps, elbaf: 0 });
    }
    Ok(MetadataFormat { bytes, protection: Some(protection) })
}

impl NamespaceInfo {
    /// Size of an extended block in bytes: data, and metadata if there is any.
    #[must_use]
    pub fn extended_block_size(&self) -> u32 {
        self.block_size + u32::from(self.metadata.bytes)
    }

    /// Adds what Identify Namespace of the NVM command set (CNS 05h) says about the protection
    /// information of the LBA format of this index.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long, or has a format that does not exist.
    pub fn with_extended_format(self, index: usize, bytes: &[u8]) -> Result<Self, IdentifyError> {
        let data = ExtendedFormats::ref_from_bytes(bytes)
            .map_err(|_| IdentifyError::Length(bytes.len()))?;
        let Some(protection) = self.metadata.protection else { return Ok(self) };
        let elbaf = data.formats.get(index).map_or(0, |format| format.get());
        let bytes = self.metadata.bytes;
        let extended = protection.with_extension(elbaf);
        match extended.filter(|extended| extended.bytes() <= usize::from(bytes)) {
            Some(extended) => {
                let metadata = MetadataFormat { bytes, protection: Some(extended) };
                Ok(Self { metadata, ..self })
            }
            None => Err(IdentifyError::Protection { namespace: self.id, bytes, dps: 0, elbaf }),
        }
    }
}
