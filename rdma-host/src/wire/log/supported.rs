//! Supported log pages, and feature identifiers supported and effects (Base 5.1.12.1.1 and
//! 5.1.12.1.18).

use zerocopy::{FromBytes, little_endian::U32};

use super::{CommandEffects, LogError, LogPage};

/// Log pages that a controller supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedLogPages(pub Vec<LogPage>);

/// Features that a controller supports, with the effects of Set Features, by feature identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureEffectsLog(pub Vec<(u8, CommandEffects)>);

impl SupportedLogPages {
    /// Size of the page in bytes.
    pub const SIZE: usize = 1024;

    /// Decodes the page; log pages that are not supported are omitted.
    ///
    /// # Errors
    ///
    /// When it is shorter than 1,024 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let supported = supported(LogPage::SUPPORTED, bytes)?;
        Ok(Self(supported.into_iter().map(|(id, _)| LogPage(id)).collect()))
    }
}

impl FeatureEffectsLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 1024;

    /// Decodes the page; features that are not supported are omitted.
    ///
    /// # Errors
    ///
    /// When it is shorter than 1,024 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let supported = supported(LogPage::FEATURES, bytes)?;
        Ok(Self(supported.into_iter().map(|(id, bits)| (id, CommandEffects(bits))).collect()))
    }
}

/// Identifiers of the entries whose bit 0 is set, with all of their bits.
fn supported(page: LogPage, bytes: &[u8]) -> Result<Vec<(u8, u32)>, LogError> {
    let (entries, _) = <[U32; 256]>::ref_from_prefix(bytes).map_err(|_| LogError::Length {
        page,
        bytes: bytes.len(),
        least: size_of::<[U32; 256]>(),
    })?;
    let all = (0..=u8::MAX).zip(entries).map(|(id, entry)| (id, entry.get()));
    Ok(all.filter(|(_, bits)| bits & 1 != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_by_offset() {
        let mut bytes = [0; 1024];
        bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
        bytes[4 * 7..4 * 8].copy_from_slice(&[0b1_0001, 0, 0x20, 0]);
        bytes[4 * 8] = 0b10; // not supported
        bytes[4 * 255] = 3;
        let pages = SupportedLogPages::parse(&bytes).unwrap();
        assert_eq!(pages.0, [LogPage(0), LogPage(7), LogPage(255)]);
        let FeatureEffectsLog(features) = FeatureEffectsLog::parse(&bytes).unwrap();
        let (id, effects) = features[1];
        assert_eq!((id, effects.scope()), (7, vec!["controller"]));
        assert!(effects.changes_controller() && !effects.changes_content());
        assert!(!effects.changes_namespace() && !effects.changes_inventory());
        assert!(features[2].1.changes_content() && features[2].1.scope().is_empty());
        let error = FeatureEffectsLog::parse(&bytes[1..]).unwrap_err().to_string();
        assert!(error.contains("features") && error.contains("1023"), "{error}");
        assert!(SupportedLogPages::parse(&[]).is_err());
    }
}
