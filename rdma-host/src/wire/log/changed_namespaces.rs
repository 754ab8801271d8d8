//! Changed namespace list log page (Base 5.1.12.1.5).

use zerocopy::{FromBytes, little_endian::U32};

use super::{LogError, LogPage};
use crate::wire::NamespaceId;

/// Namespaces changed since the page was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedNamespaceList {
    /// Changed namespaces in the controller's order, without duplicates.
    These(Vec<NamespaceId>),
    /// More than fit into the page: any namespace may have changed.
    TooMany,
}

impl ChangedNamespaceList {
    /// Size of the page in bytes.
    pub const SIZE: usize = 4096;

    const ENTRIES: usize = Self::SIZE / 4;
    const OVERFLOW: u32 = 0xffff_ffff;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let entries = <[U32; Self::ENTRIES]>::ref_from_bytes(bytes).map_err(|_| {
            let page = LogPage::CHANGED_NAMESPACES;
            LogError::Length { page, bytes: bytes.len(), least: Self::SIZE }
        })?;
        let ids = entries.iter().map(|entry| entry.get()).take_while(|&id| id != 0);
        let mut ids: Vec<_> = ids.collect();
        if ids.contains(&Self::OVERFLOW) {
            return Ok(Self::TooMany);
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|&id| seen.insert(id));
        Ok(Self::These(ids.into_iter().map(NamespaceId).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: &[u32]) -> Vec<u8> {
        let mut bytes: Vec<_> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        bytes.resize(ChangedNamespaceList::SIZE, 0);
        bytes
    }

    #[test]
    fn a_list_ends_at_zero_and_names_each_once() {
        let these = ChangedNamespaceList::parse(&page(&[7, 2, 7, 9, 0, 4])).unwrap();
        assert_eq!(these, ChangedNamespaceList::These([7, 2, 9].map(NamespaceId).to_vec()));
        assert_eq!(
            ChangedNamespaceList::parse(&page(&[])).unwrap(),
            ChangedNamespaceList::These(vec![])
        );
    }

    #[test]
    fn overflow_means_any() {
        let overflow = ChangedNamespaceList::parse(&page(&[0xffff_ffff])).unwrap();
        assert_eq!(overflow, ChangedNamespaceList::TooMany);
    }

    #[test]
    fn another_length_is_refused() {
        let error = ChangedNamespaceList::parse(&[0; 4092]).unwrap_err();
        assert!(error.to_string().contains("4092 bytes where at least 4096"), "{error}");
    }
}
