//! Cross-Controller Reset log page (TP8028): progress and outcome of the requested resets.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian::U16};

use super::{LogError, LogPage};
use crate::wire::ControllerId;

/// Returns true if the result of a Cross-Controller Reset that succeeded says that the controller
/// is reset (IRS). Else the reset has only begun, and the log page tells its outcome.
#[must_use]
pub fn is_immediate_reset(result: u32) -> bool {
    result & 1 != 0
}

/// Decoded Cross-Controller Reset log page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossControllerResetLog {
    /// Resets in progress, and those that have ended and are not removed.
    pub entries: Vec<CrossControllerResetEntry>,
}

/// Reset of a controller. Its CIRN is not told: which request an entry is of follows from the time
/// at which it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossControllerResetEntry {
    /// Impacted controller (ICID).
    pub impacted: ControllerId,
    /// CIU of the impacted controller.
    pub uniquifier: u8,
    /// Progress or outcome (CCRS).
    pub status: CrossControllerResetStatus,
}

/// Progress or outcome of a reset (CCRS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrossControllerResetStatus(pub u8);

impl CrossControllerResetStatus {
    /// The reset is in progress.
    pub const IN_PROGRESS: Self = Self(0);
    /// The controller is reset.
    pub const SUCCESSFUL: Self = Self(1);
    /// The reset has failed: the controller may execute commands.
    pub const FAILED: Self = Self(2);
}

/// Layout of the header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    entries: U16,
    gap_2: [u8; 6],
}

/// Layout of an entry; fields that are not used are gaps.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    impacted: U16,
    uniquifier: u8,
    gap_3: [u8; 3],
    status: u8,
    gap_7: u8,
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<Entry>() == 8);

impl CrossControllerResetLog {
    /// Size of the page in bytes with the maximum number of entries, 511.
    pub const SIZE: u32 = 4096;

    /// RMC in the log specific parameter (LSP): the entries of resets that have ended are removed
    /// after they are read.
    pub const REMOVE_ENDED: u8 = 1;

    /// Decodes the page; bytes after the last entry are ignored.
    ///
    /// # Errors
    ///
    /// When the page is shorter than its entries require.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let due = |least: usize| {
            let page = LogPage::CROSS_CONTROLLER_RESET;
            LogError::Length { page, bytes: bytes.len(), least }
        };
        let (header, rest) =
            Header::ref_from_prefix(bytes).map_err(|_| due(size_of::<Header>()))?;
        let count = usize::from(header.entries.get());
        let (entries, _) = <[Entry]>::ref_from_prefix_with_elems(rest, count)
            .map_err(|_| due(size_of::<Header>() + count * size_of::<Entry>()))?;
        let decoded = entries.iter().map(|entry| CrossControllerResetEntry {
            impacted: ControllerId(entry.impacted.get()),
            uniquifier: entry.uniquifier,
            status: CrossControllerResetStatus(entry.status),
        });
        Ok(Self { entries: decoded.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reset of controller 0x1234 that succeeded, and one of controller 7 in progress.
    #[rustfmt::skip]
    const PAGE: [u8; 24] = [
        2, 0, 9, 9, 9, 9, 9, 9,
        0x34, 0x12, 5, 9, 0xff, 0xff, 1, 3,
        7, 0, 6, 9, 8, 0, 0, 0,
    ];

    #[test]
    fn a_page_in_literal_bytes() {
        let log = CrossControllerResetLog::parse(&PAGE).unwrap();
        let entry = |impacted, uniquifier, status| CrossControllerResetEntry {
            impacted: ControllerId(impacted),
            uniquifier,
            status,
        };
        let expected = [
            entry(0x1234, 5, CrossControllerResetStatus::SUCCESSFUL),
            entry(7, 6, CrossControllerResetStatus::IN_PROGRESS),
        ];
        assert_eq!(log.entries, expected);
    }

    #[test]
    fn a_page_shorter_than_its_entries_is_refused() {
        for length in 0..PAGE.len() {
            let error = CrossControllerResetLog::parse(&PAGE[..length]).unwrap_err();
            let least = if length < 8 { 8 } else { 24 };
            let page = LogPage::CROSS_CONTROLLER_RESET;
            assert_eq!(error, LogError::Length { page, bytes: length, least });
        }
        let mut most = vec![0; CrossControllerResetLog::SIZE as usize];
        most[..2].copy_from_slice(&511u16.to_le_bytes());
        assert_eq!(CrossControllerResetLog::parse(&most).unwrap().entries.len(), 511);
        most[..2].copy_from_slice(&512u16.to_le_bytes());
        assert!(CrossControllerResetLog::parse(&most).is_err());
        most.fill(0xff);
        assert!(CrossControllerResetLog::parse(&most).is_err());
    }

    #[test]
    fn a_success_that_is_not_immediate_has_only_begun() {
        assert!(is_immediate_reset(0b001) && is_immediate_reset(0b111));
        assert!(!is_immediate_reset(0b110) && !is_immediate_reset(0));
    }
}
