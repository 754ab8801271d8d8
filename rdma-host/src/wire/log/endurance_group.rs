//! Endurance group information and rotational media information (Base 5.1.12.1.10 and
//! 5.1.12.1.22).

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U128},
};

use super::{LogError, LogPage};

/// Wear and work of an endurance group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnduranceGroupLog {
    /// Critical warnings, one bit each: spare below its threshold (0), reliability degraded (2),
    /// read-only (3).
    pub critical_warning: u8,
    /// Spare capacity left, in percent.
    pub available_spare_percent: u8,
    /// Threshold of the spare capacity, in percent.
    pub spare_threshold_percent: u8,
    /// Part of the life used, in percent; may exceed 100.
    pub percentage_used: u8,
    /// Domain of the group.
    pub domain: u16,
    /// Estimate of the data units that can be written in all.
    pub endurance_estimate: u128,
    /// Data units read by hosts, in units of 10^9 bytes.
    pub data_units_read: u128,
    /// Data units written by hosts, in units of 10^9 bytes.
    pub data_units_written: u128,
    /// Data units written to the media, in units of 10^9 bytes.
    pub media_units_written: u128,
    /// Number of read commands.
    pub host_read_commands: u128,
    /// Number of write commands.
    pub host_write_commands: u128,
    /// Number of media and data integrity errors.
    pub media_errors: u128,
    /// Number of entries of the error log.
    pub error_entries: u128,
    /// Total capacity in bytes.
    pub total_bytes: u128,
    /// Unallocated capacity in bytes.
    pub unallocated_bytes: u128,
}

/// Media of an endurance group that rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationalMediaLog {
    /// Endurance group.
    pub endurance_group: u16,
    /// Number of actuators.
    pub actuators: u16,
    /// Nominal rotational speed in revolutions a minute; 0 if not reported, 1 for media that do not
    /// rotate.
    pub revolutions_per_minute: u16,
    /// Number of times that the media were spun up.
    pub spin_ups: u32,
    /// Number of times that this failed.
    pub failed_spin_ups: u32,
    /// Number of times that the heads were loaded.
    pub loads: u32,
    /// Number of times that this failed.
    pub failed_loads: u32,
}

/// Layout of the endurance group information log page (Base figure 218).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EnduranceGroupLayout {
    critical_warning: u8,
    gap_1: [u8; 2],
    available_spare: u8,
    spare_threshold: u8,
    percentage_used: u8,
    domain: U16,
    gap_8: [u8; 24],
    endurance_estimate: U128,
    data_units_read: U128,
    data_units_written: U128,
    media_units_written: U128,
    host_read_commands: U128,
    host_write_commands: U128,
    media_errors: U128,
    error_entries: U128,
    total_bytes: U128,
    unallocated_bytes: U128,
    gap_192: [u8; 320],
}

const _: () = assert!(size_of::<EnduranceGroupLayout>() == EnduranceGroupLog::SIZE);
const _: () = assert!(offset_of!(EnduranceGroupLayout, endurance_estimate) == 32);
const _: () = assert!(offset_of!(EnduranceGroupLayout, unallocated_bytes) == 176);

/// Layout of the rotational media information log page.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RotationalMediaLayout {
    endurance_group: U16,
    actuators: U16,
    speed: U16,
    gap_6: [u8; 2],
    spin_ups: U32,
    failed_spin_ups: U32,
    loads: U32,
    failed_loads: U32,
    gap_24: [u8; 488],
}

const _: () = assert!(size_of::<RotationalMediaLayout>() == RotationalMediaLog::SIZE);

impl EnduranceGroupLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 512;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is shorter than 512 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let (page, _) = EnduranceGroupLayout::ref_from_prefix(bytes)
            .map_err(|_| short(LogPage::ENDURANCE_GROUP, bytes, Self::SIZE))?;
        Ok(Self {
            critical_warning: page.critical_warning,
            available_spare_percent: page.available_spare,
            spare_threshold_percent: page.spare_threshold,
            percentage_used: page.percentage_used,
            domain: page.domain.get(),
            endurance_estimate: page.endurance_estimate.get(),
            data_units_read: page.data_units_read.get(),
            data_units_written: page.data_units_written.get(),
            media_units_written: page.media_units_written.get(),
            host_read_commands: page.host_read_commands.get(),
            host_write_commands: page.host_write_commands.get(),
            media_errors: page.media_errors.get(),
            error_entries: page.error_entries.get(),
            total_bytes: page.total_bytes.get(),
            unallocated_bytes: page.unallocated_bytes.get(),
        })
    }
}

impl RotationalMediaLog {
    /// Size of the page in bytes.
    pub const SIZE: usize = 512;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is shorter than 512 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let (page, _) = RotationalMediaLayout::ref_from_prefix(bytes)
            .map_err(|_| short(LogPage::ROTATIONAL_MEDIA, bytes, Self::SIZE))?;
        Ok(Self {
            endurance_group: page.endurance_group.get(),
            actuators: page.actuators.get(),
            revolutions_per_minute: page.speed.get(),
            spin_ups: page.spin_ups.get(),
            failed_spin_ups: page.failed_spin_ups.get(),
            loads: page.loads.get(),
            failed_loads: page.failed_loads.get(),
        })
    }
}

fn short(page: LogPage, bytes: &[u8], least: usize) -> LogError {
    LogError::Length { page, bytes: bytes.len(), least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endurance_group_by_offset() {
        let mut bytes = [0; 512];
        bytes[..8].copy_from_slice(&[4, 0, 0, 90, 10, 101, 2, 1]);
        for (at, number) in (32..192).step_by(16).zip(1..) {
            bytes[at] = number;
            bytes[at + 15] = 0x80;
        }
        let log = EnduranceGroupLog::parse(&bytes).unwrap();
        assert_eq!((log.critical_warning, log.available_spare_percent), (4, 90));
        assert_eq!((log.spare_threshold_percent, log.percentage_used, log.domain), (10, 101, 258));
        let all = [
            log.endurance_estimate,
            log.data_units_read,
            log.data_units_written,
            log.media_units_written,
            log.host_read_commands,
            log.host_write_commands,
            log.media_errors,
            log.error_entries,
            log.total_bytes,
            log.unallocated_bytes,
        ];
        assert_eq!(all.map(|number| number - (1 << 127)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(EnduranceGroupLog::parse(&bytes[1..]).is_err());
    }

    #[test]
    fn rotational_media_by_offset() {
        let mut bytes = [0; 512];
        bytes[..8].copy_from_slice(&[1, 0, 2, 0, 0x20, 0x1c, 9, 9]);
        bytes[8..24].copy_from_slice(&[3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 1]);
        let log = RotationalMediaLog::parse(&bytes).unwrap();
        assert_eq!((log.endurance_group, log.actuators, log.revolutions_per_minute), (1, 2, 7200));
        assert_eq!((log.spin_ups, log.failed_spin_ups, log.loads), (3, 4, 5));
        assert_eq!(log.failed_loads, 0x0100_0006);
        assert!(RotationalMediaLog::parse(&bytes[1..]).is_err());
    }
}
