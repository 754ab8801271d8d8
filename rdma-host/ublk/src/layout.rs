//! Structures and numbers of linux/ublk_cmd.h.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Commands to /dev/ublk-control, as numbers of ioctl: read, written or both by the driver.
pub(crate) mod command {
    use super::ioctl_number;

    const READ: u32 = 2;
    const READ_WRITE: u32 = 3;
    /// Size of the structure that the numbers hold, which is that of the first drivers.
    const SIZE: u32 = 32;

    pub(crate) const ADD: u32 = ioctl_number(READ_WRITE, 0x04, SIZE);
    pub(crate) const DELETE: u32 = ioctl_number(READ_WRITE, 0x05, SIZE);
    pub(crate) const START: u32 = ioctl_number(READ_WRITE, 0x06, SIZE);
    pub(crate) const STOP: u32 = ioctl_number(READ_WRITE, 0x07, SIZE);
    pub(crate) const SET_PARAMETERS: u32 = ioctl_number(READ_WRITE, 0x08, SIZE);
    pub(crate) const GET_PARAMETERS: u32 = ioctl_number(READ, 0x09, SIZE);
    pub(crate) const START_RECOVERY: u32 = ioctl_number(READ_WRITE, 0x10, SIZE);
    pub(crate) const END_RECOVERY: u32 = ioctl_number(READ_WRITE, 0x11, SIZE);
    pub(crate) const GET_INFO: u32 = ioctl_number(READ, 0x12, SIZE);
    pub(crate) const GET_FEATURES: u32 = ioctl_number(READ, 0x13, SIZE);
    pub(crate) const DELETE_ASYNC: u32 = ioctl_number(READ, 0x14, SIZE);
    pub(crate) const UPDATE_SIZE: u32 = ioctl_number(READ_WRITE, 0x15, SIZE);
    pub(crate) const TRY_STOP: u32 = ioctl_number(READ_WRITE, 0x17, SIZE);
    pub(crate) const REGISTER_BUFFER: u32 = ioctl_number(READ_WRITE, 0x18, SIZE);
    pub(crate) const UNREGISTER_BUFFER: u32 = ioctl_number(READ_WRITE, 0x19, SIZE);
}

/// Commands to /dev/ublkcN.
pub(crate) const FETCH: u32 = ioctl_number(3, 0x20, 16);
pub(crate) const COMMIT_AND_FETCH: u32 = ioctl_number(3, 0x21, 16);

/// Most requests of a queue, for which the descriptors of the queues are spaced.
pub(crate) const DEPTH_MAX: u16 = 4096;

/// Flags of devices, which are also the features of a driver.
pub(crate) mod flag {
    pub(crate) const USER_RECOVERY: u64 = 1 << 3;
    pub(crate) const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    pub(crate) const UNPRIVILEGED: u64 = 1 << 5;
    pub(crate) const IOCTL_ENCODE: u64 = 1 << 6;
    pub(crate) const USER_COPY: u64 = 1 << 7;
    pub(crate) const UPDATE_SIZE: u64 = 1 << 10;
    pub(crate) const BATCH_IO: u64 = 1 << 15;
    pub(crate) const SAFE_STOP: u64 = 1 << 17;
    pub(crate) const SHARED_MEMORY: u64 = 1 << 19;
}

/// Position in /dev/ublkcN at which the data of a request begins, for a process that copies it.
pub(crate) fn data_position(queue: u16, tag: u16) -> u64 {
    const START: u64 = 0x8000_0000;
    const TAG_SHIFT: u32 = 25;
    const QUEUE_SHIFT: u32 = TAG_SHIFT + 16;
    START + (u64::from(queue) << QUEUE_SHIFT) + (u64::from(tag) << TAG_SHIFT)
}

const fn ioctl_number(direction: u32, number: u32, size: u32) -> u32 {
    (direction << 30) | (size << 16) | (0x75 << 8) | number
}

/// struct ublksrv_ctrl_cmd, and zeros up to the length of a large submission entry's command.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub(crate) struct ControlCommand {
    pub(crate) device: u32,
    pub(crate) queue: u16,
    pub(crate) length: u16,
    pub(crate) address: u64,
    pub(crate) data: u64,
    pub(crate) path_length: u16,
    pub(crate) pad: u16,
    pub(crate) reserved: u32,
}

/// struct ublksrv_ctrl_dev_info.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub(crate) struct Info {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) state: u16,
    pub(crate) pad: u16,
    pub(crate) bytes_max: u32,
    pub(crate) id: u32,
    pub(crate) process: i32,
    pub(crate) pad_1: u32,
    pub(crate) flags: u64,
    pub(crate) server_flags: u64,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) reserved: [u64; 2],
}

/// struct ublk_params up to its discard parameters, and the major number that follows them.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub(crate) struct RawParameters {
    pub(crate) length: u32,
    pub(crate) types: u32,
    pub(crate) attributes: u32,
    pub(crate) block_shift: u8,
    pub(crate) physical_block_shift: u8,
    pub(crate) io_optimal_shift: u8,
    pub(crate) io_minimum_shift: u8,
    pub(crate) sectors_max: u32,
    pub(crate) chunk_sectors: u32,
    pub(crate) sectors: u64,
    pub(crate) virtual_boundary: u64,
    pub(crate) discard_alignment: u32,
    pub(crate) discard_granularity: u32,
    pub(crate) discard_sectors_max: u32,
    pub(crate) write_zeroes_sectors_max: u32,
    pub(crate) discard_segments_max: u16,
    pub(crate) reserved: u16,
    pub(crate) character_major: u32,
}

impl RawParameters {
    pub(crate) const LENGTH: u32 = 64;
}

/// Kinds of parameters in [`RawParameters::types`].
pub(crate) const BASIC: u32 = 1 << 0;
pub(crate) const DISCARD: u32 = 1 << 1;

/// struct ublksrv_io_cmd.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub(crate) struct IoCommand {
    pub(crate) queue: u16,
    pub(crate) tag: u16,
    pub(crate) result: i32,
    pub(crate) address: u64,
}

/// struct ublk_shmem_buf_reg.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub(crate) struct BufferRegistration {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) flags: u32,
    pub(crate) reserved: u32,
}

/// Maximum length of [`BufferRegistration`]; offsets have 32 bits.
pub(crate) const BUFFER_BYTES_MAX: u64 = 1 << 32;

/// struct ublksrv_io_desc: a request, in memory that the driver writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
pub(crate) struct IoDescriptor {
    pub(crate) operation_flags: u32,
    pub(crate) sectors: u32,
    pub(crate) sector: u64,
    pub(crate) address: u64,
}

impl IoDescriptor {
    /// Offset of the data in the registered buffer, which has index 0, if it is there.
    pub(crate) fn buffer_offset(&self) -> Option<u32> {
        const IN_BUFFER: u32 = 1 << 19;
        let is_there = self.operation_flags & IN_BUFFER != 0;
        is_there.then(|| u32::try_from(self.address).expect("no other buffer is registered"))
    }
}

const _: () = {
    assert!(size_of::<ControlCommand>() == 32);
    assert!(size_of::<Info>() == 64);
    assert!(size_of::<RawParameters>() == RawParameters::LENGTH as usize);
    assert!(size_of::<IoCommand>() == 16);
    assert!(size_of::<IoDescriptor>() == 24);
    assert!(size_of::<BufferRegistration>() == 24);
};

/// Properties of a device that the block layer is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Writes are refused.
    pub read_only: bool,
    /// Completed writes are volatile until a flush.
    pub volatile_cache: bool,
    /// Writes with Force Unit Access are non-volatile once they complete.
    pub force_unit_access: bool,
}

/// Limits of discards and writes of zeros; a limit of 0 means that the device has none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discard {
    /// Smallest unit of a discard in bytes.
    pub granularity: u32,
    /// Most sectors of 512 bytes of a discard.
    pub sectors_max: u32,
    /// Most sectors of 512 bytes of a write of zeros.
    pub write_zeroes_sectors_max: u32,
}

/// Geometry of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Logical block size in bytes: a power of two from 512 to the size of a page.
    pub block_size: u32,
    /// Size of the device in sectors of 512 bytes.
    pub sectors: u64,
    /// Maximum data of a request in bytes.
    pub bytes_max: u32,
    /// Properties.
    pub attributes: Attributes,
    /// Limits of discards.
    pub discard: Discard,
}

const READ_ONLY: u32 = 1 << 0;
const VOLATILE_CACHE: u32 = 1 << 2;
const FORCE_UNIT_ACCESS: u32 = 1 << 3;

impl Parameters {
    pub(crate) fn to_raw(self) -> RawParameters {
        let shift = u8::try_from(self.block_size.ilog2()).expect("below 32");
        let Attributes { read_only, volatile_cache, force_unit_access } = self.attributes;
        let set = |condition: bool, bit: u32| if condition { bit } else { 0 };
        let Discard { granularity, sectors_max, write_zeroes_sectors_max } = self.discard;
        RawParameters {
            length: RawParameters::LENGTH,
            types: BASIC | set(granularity > 0, DISCARD),
            attributes: set(read_only, READ_ONLY)
                | set(volatile_cache, VOLATILE_CACHE)
                | set(force_unit_access, FORCE_UNIT_ACCESS),
            block_shift: shift,
            physical_block_shift: shift,
            io_optimal_shift: shift,
            io_minimum_shift: shift,
            sectors_max: self.bytes_max >> 9,
            sectors: self.sectors,
            discard_granularity: granularity,
            discard_sectors_max: sectors_max,
            write_zeroes_sectors_max,
            discard_segments_max: 1,
            ..RawParameters::default()
        }
    }

    pub(crate) fn from_raw(raw: &RawParameters) -> Self {
        let has = |bit: u32| raw.attributes & bit != 0;
        Self {
            block_size: 1_u32.checked_shl(raw.block_shift.into()).unwrap_or_default(),
            sectors: raw.sectors,
            bytes_max: raw.sectors_max << 9,
            attributes: Attributes {
                read_only: has(READ_ONLY),
                volatile_cache: has(VOLATILE_CACHE),
                force_unit_access: has(FORCE_UNIT_ACCESS),
            },
            discard: Discard {
                granularity: raw.discard_granularity,
                sectors_max: raw.discard_sectors_max,
                write_zeroes_sectors_max: raw.write_zeroes_sectors_max,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_same_after_the_kernels_form() {
        let parameters = Parameters {
            block_size: 4096,
            sectors: 1 << 21,
            bytes_max: 128 << 10,
            attributes: Attributes {
                read_only: false,
                volatile_cache: true,
                force_unit_access: true,
            },
            discard: Discard { granularity: 4096, sectors_max: 8, write_zeroes_sectors_max: 16 },
        };
        let raw = parameters.to_raw();
        assert_eq!((raw.types, raw.attributes, raw.block_shift), (3, 12, 12));
        assert_eq!(Parameters::from_raw(&raw), parameters);
    }

    #[test]
    fn data_has_the_positions_of_the_driver() {
        assert_eq!(data_position(0, 0), 0x8000_0000);
        assert_eq!(data_position(0, 1), 0x8200_0000);
        assert_eq!(data_position(1, 0), 0x200_8000_0000);
        assert_eq!(data_position(3, 4095), 0x8000_0000 + (3 << 41 | 4095 << 25));
    }

    /// The installed header has the numbers; a test, since few machines that build have it.
    #[test]
    fn numbers_are_those_of_the_header() {
        let Ok(header) = std::fs::read_to_string("/usr/include/linux/ublk_cmd.h") else {
            println!("SKIPPED: no linux/ublk_cmd.h; run: apt-get install linux-libc-dev");
            return;
        };
        let defined = |name: &str| {
            let line = header.lines().find(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("#define") && words.next() == Some(name)
            });
            let value = line?.split_whitespace().nth(2)?;
            u32::from_str_radix(value.trim_start_matches("0x"), 16).ok()
        };
        for (name, number) in [
            ("UBLK_CMD_ADD_DEV", command::ADD),
            ("UBLK_CMD_DEL_DEV", command::DELETE),
            ("UBLK_CMD_START_DEV", command::START),
            ("UBLK_CMD_STOP_DEV", command::STOP),
            ("UBLK_CMD_SET_PARAMS", command::SET_PARAMETERS),
            ("UBLK_CMD_GET_PARAMS", command::GET_PARAMETERS),
            ("UBLK_CMD_START_USER_RECOVERY", command::START_RECOVERY),
            ("UBLK_CMD_END_USER_RECOVERY", command::END_RECOVERY),
            ("UBLK_CMD_GET_DEV_INFO2", command::GET_INFO),
            ("UBLK_IO_FETCH_REQ", FETCH),
            ("UBLK_IO_COMMIT_AND_FETCH_REQ", COMMIT_AND_FETCH),
        ] {
            if let Some(defined) = defined(name) {
                assert_eq!(number & 0xff, defined, "{name}");
            }
        }
    }
}
