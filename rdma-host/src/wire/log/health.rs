//! SMART / Health Information log page (Base 5.1.12.1.3).

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U128},
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
    /// Critical warnings of endurance groups, one bit each (Base figure 207); 0 for none.
    pub endurance_group_warning: u8,
    /// Data units read by the host: thousands of 512 bytes, rounded up; 0 if not reported.
    pub data_units_read: u128,
    /// Data units written by the host: thousands of 512 bytes, rounded up; 0 if not reported.
    pub data_units_written: u128,
    /// Number of read commands of the host.
    pub host_read_commands: u128,
    /// Number of write commands of the host.
    pub host_write_commands: u128,
    /// Time for which the controller was busy with I/O, in minutes.
    pub controller_busy_minutes: u128,
    /// Number of power cycles.
    pub power_cycles: u128,
    /// Power-on time in hours.
    pub power_on_hours: u128,
    /// Number of unsafe shutdowns.
    pub unsafe_shutdowns: u128,
    /// Number of unrecovered data integrity errors.
    pub media_errors: u128,
    /// Number of error log entries over the life of the controller.
    pub error_entries: u128,
    /// Time above the warning temperature, in minutes.
    pub warning_temperature_minutes: u32,
    /// Time above the critical temperature, in minutes.
    pub critical_temperature_minutes: u32,
    /// Temperatures of the sensors 1 to 8 in kelvins; 0 for a sensor that does not exist.
    pub sensors_kelvin: [u16; 8],
    /// Number of transitions to the thermal management temperatures 1 and 2.
    pub thermal_transitions: [u32; 2],
    /// Time in the thermal management temperatures 1 and 2, in seconds.
    pub thermal_seconds: [u32; 2],
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
    endurance_group_warning: u8,
    gap_7: [u8; 25],
    data_units_read: U128,
    data_units_written: U128,
    host_read_commands: U128,
    host_write_commands: U128,
    controller_busy: U128,
    power_cycles: U128,
    power_on_hours: U128,
    unsafe_shutdowns: U128,
    media_errors: U128,
    error_entries: U128,
    warning_temperature: U32,
    critical_temperature: U32,
    sensors: [U16; 8],
    thermal_transitions: [U32; 2],
    thermal_seconds: [U32; 2],
    gap_232: [u8; 280],
}

const _: () = assert!(size_of::<Layout>() == HealthLog::SIZE);
const _: () = assert!(offset_of!(Layout, temperature) == 1);
const _: () = assert!(offset_of!(Layout, unsafe_shutdowns) == 144);
const _: () = assert!(offset_of!(Layout, data_units_read) == 32);
const _: () = assert!(offset_of!(Layout, error_entries) == 176);
const _: () = assert!(offset_of!(Layout, sensors) == 200);
const _: () = assert!(offset_of!(Layout, thermal_seconds) == 224);

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
            endurance_group_warning: page.endurance_group_warning,
            data_units_read: page.data_units_read.get(),
            data_units_written: page.data_units_written.get(),
            host_read_commands: page.host_read_commands.get(),
            host_write_commands: page.host_write_commands.get(),
            controller_busy_minutes: page.controller_busy.get(),
            power_cycles: page.power_cycles.get(),
            power_on_hours: page.power_on_hours.get(),
            unsafe_shutdowns: page.unsafe_shutdowns.get(),
            media_errors: page.media_errors.get(),
            error_entries: page.error_entries.get(),
            warning_temperature_minutes: page.warning_temperature.get(),
            critical_temperature_minutes: page.critical_temperature.get(),
            sensors_kelvin: page.sensors.map(U16::get),
            thermal_transitions: page.thermal_transitions.map(U32::get),
            thermal_seconds: page.thermal_seconds.map(U32::get),
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
        bytes[6] = 2;
        for (index, byte) in (32..144).step_by(16).enumerate() {
            bytes[byte] = u8::try_from(index).unwrap() + 10;
        }
        bytes[192] = 20;
        bytes[196] = 21;
        bytes[202..204].copy_from_slice(&[0x38, 0x01]);
        (bytes[216], bytes[220], bytes[224], bytes[228]) = (22, 23, 24, 25);
        bytes[144] = 3;
        bytes[160] = 4;
        bytes[191] = 0x80;
        let health = HealthLog::parse(&bytes).unwrap();
        assert_eq!((health.critical_warning, health.temperature_kelvin), (5, 312));
        assert_eq!((health.available_spare_percent, health.spare_threshold_percent), (99, 10));
        assert_eq!(health.percentage_used, 101);
        assert_eq!((health.unsafe_shutdowns, health.media_errors), (3, 4));
        assert_eq!(health.error_entries, 1 << 127);
        assert_eq!(health.endurance_group_warning, 2);
        assert_eq!((health.data_units_read, health.data_units_written), (10, 11));
        assert_eq!((health.host_read_commands, health.host_write_commands), (12, 13));
        assert_eq!((health.controller_busy_minutes, health.power_cycles), (14, 15));
        assert_eq!(health.power_on_hours, 16);
        assert_eq!(health.warning_temperature_minutes, 20);
        assert_eq!(health.critical_temperature_minutes, 21);
        assert_eq!(health.sensors_kelvin, [0, 312, 0, 0, 0, 0, 0, 0]);
        assert_eq!((health.thermal_transitions, health.thermal_seconds), ([22, 23], [24, 25]));
        assert!(HealthLog::parse(&bytes[1..]).is_err());
    }
}
