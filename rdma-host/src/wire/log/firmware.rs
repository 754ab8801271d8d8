//! Firmware slot information log page (Base 5.1.12.1.4).

use super::{LogError, LogPage, text};

/// Firmware revisions of a controller, and the active slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareSlotLog {
    /// Active slot, 1 to 7; other numbers as sent.
    pub active: u8,
    /// Slot to be activated by the next reset, if set.
    pub next: Option<u8>,
    /// Revision in each slot, from slot 1; `None` for an empty slot.
    pub revisions: [Option<String>; 7],
}

impl FirmwareSlotLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 512;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is shorter than 512 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let page = bytes.first_chunk::<{ Self::SIZE }>().ok_or(LogError::Length {
            page: LogPage::FIRMWARE_SLOTS,
            bytes: bytes.len(),
            least: Self::SIZE,
        })?;
        let next = (page[0] >> 4) & 0b111;
        let revision = |slot: usize| {
            let field = &page[8 + slot * 8..16 + slot * 8];
            Some(text(field)).filter(|revision| !revision.is_empty())
        };
        Ok(Self {
            active: page[0] & 0b111,
            next: Some(next).filter(|&slot| slot != 0),
            revisions: std::array::from_fn(revision),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_by_offset() {
        let mut bytes = [0; 512];
        bytes[0] = 0x21;
        bytes[8..16].copy_from_slice(b"6.12.117");
        bytes[16..24].copy_from_slice(b"7.0     ");
        bytes[56] = 0x1b;
        let slots = FirmwareSlotLog::parse(&bytes).unwrap();
        assert_eq!((slots.active, slots.next), (1, Some(2)));
        assert_eq!(slots.revisions[0].as_deref(), Some("6.12.117"));
        assert_eq!(slots.revisions[1].as_deref(), Some("7.0"));
        assert_eq!(slots.revisions[2], None);
        assert_eq!(slots.revisions[6].as_deref(), Some("?"));
        assert!(FirmwareSlotLog::parse(&bytes[1..]).is_err());
    }
}
