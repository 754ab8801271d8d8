//! SMART and health information (Base 5.1.12.1.3), as far as an alarm needs it.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U128};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{LogError, LogPage};

/// How well the controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLog {
    /// One bit for each warning (Base figure 207); 0 when all is well.
    pub critical_warning: u8,
    /// The temperature in kelvins; 0 when it does not say.
    pub temperature_kelvin: u16,
    /// Spare capacity left, in percent.
    pub available_spare_percent: u8,
    /// Below which spare capacity it warns, in percent.
    pub spare_threshold_percent: u8,
    /// Life used up, in percent; may exceed 100.
    pub percentage_used: u8,
    /// Times it lost power without being told before.
    pub unsafe_shutdowns: u128,
    /// Times it could not give back what was stored.
    pub media_errors: u128,
    /// Errors in its error log, over its life.
    pub error_entries: u128,
}

/// The page as sent, to the last field we read.
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
    /// The size of the page in bytes.
    pub const SIZE: usize = 512;

    /// Reads the page.
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
