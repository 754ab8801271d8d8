//! SMART / Health Information log page (Base 5.1.12.1.3): the fields that an alarm needs.

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U128},
};

use super::{LogError, LogPage};

/// Decoded SMART / Health Information log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLog {
    /// Critical warnings, one bit each (Base figure 207); 0 for none.
    pub critical_warning: u8,
    /// Composite temperature in kelvins; 0 if not reported.
    pub temperature_kelvin: u16,
    /// Available spare capacity in percent.
    pub available_spare_percent: u8,
    /// Available spare threshold in percent; below it a warning is reported.
    pub spare_threshold_percent: u8,
    /// Estimated life used in percent; may exceed 100.
    pub percentage_used: u8,
    /// Number of unsafe shutdowns.
    pub unsafe_shutdowns: u128,
    /// Number of unrecovered data integrity errors.
    pub media_errors: u128,
    /// Number of error log entries over the life of the controller.
    pub error_entries: u128,
}

/// Layout of the page.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    critical_warning: u8,
    temperature: U16,
    available_spare: u8,
    spare_threshold: u8,
    percentage_used: u8,
    gap_6: [u8; 138],
    unsafe_shutdowns: U128,
    media_errors: U128,
    error_entries: U128,
    gap_192: [u8; 320],
}

const _: () = assert!(size_of::<Layout>() == HealthLog::SIZE);
const _: () = assert!(offset_of!(Layout, temperature) == 1);
const _: () = assert!(offset_of!(Layout, unsafe_shutdowns) == 144);
const _: () = assert!(offset_of!(Layout, error_entries) == 176);

impl HealthLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 512;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is shorter than 512 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let (page, _) = Layout::ref_from_prefix(bytes).map_err(|_| LogError::Length {
            page: LogPage::HEALTH,
            bytes: bytes.len(),
            least: Self::SIZE,
        })?;
        Ok(Self {
            critical_warning: page.critical_warning,
            temperature_kelvin: page.temperature.get(),
            available_spare_percent: page.available_spare,
            spare_threshold_percent: page.spare_threshold,
            percentage_used: page.percentage_used,
            unsafe_shutdowns: page.unsafe_shutdowns.get(),
            media_errors: page.media_errors.get(),
            error_entries: page.error_entries.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_by_offset() {
        let mut bytes = [0; 512];
        bytes[..6].copy_from_slice(&[0x05, 0x38, 0x01, 99, 10, 101]);
        bytes[144] = 3;
        bytes[160] = 4;
        bytes[191] = 0x80;
        let health = HealthLog::parse(&bytes).unwrap();
        assert_eq!((health.critical_warning, health.temperature_kelvin), (5, 312));
        assert_eq!((health.available_spare_percent, health.spare_threshold_percent), (99, 10));
        assert_eq!(health.percentage_used, 101);
        assert_eq!((health.unsafe_shutdowns, health.media_errors), (3, 4));
        assert_eq!(health.error_entries, 1 << 127);
        assert!(HealthLog::parse(&bytes[1..]).is_err());
    }
}
