//! Block device for a namespace: made, taken over, stopped.

use std::{fs, fs::OpenOptions, os::unix::fs::OpenOptionsExt};

use rdma_host::{
    Controller, Negotiated,
    wire::{NamespaceInfo, NvmLimits, OptionalCommand},
};
use rustix::fs::OFlags;
use ublk::{
    Attributes, Control, DeviceInfo, DeviceOptions, DeviceState, Discard, Features, Parameters,
    Recovery,
};

use super::registry::{Entry, identifier, sectors};
use crate::{failure::Failure, output};

/// Maximum data of a request in bytes. Memory for as many requests as a queue takes is locked.
const REQUEST_BYTES_MAX: u32 = 128 << 10;

/// Most blocks of a Write Zeroes.
const WRITE_ZEROES_BLOCKS_MAX: u64 = 1 << 16;

/// Maximum block size of the block layer: a page.
const BLOCK_SIZE_MAX: u32 = 4096;

/// Path of a block device.
pub(super) fn path(id: u32) -> String {
    format!("/dev/ublkb{id}")
}

/// Failure of the driver.
pub(super) fn failure(error: ublk::Error) -> Failure {
    Failure::failed(error)
}

/// Geometry of the device of a namespace.
pub(super) async fn parameters(
    controller: &Controller,
    info: &NamespaceInfo,
    read_only: bool,
) -> Result<Parameters, Failure> {
    if info.is_zoned() && !read_only {
        return Err(Failure::failed(format!(
            "namespace {} is zoned, and the block device is not: attach it with --read-only",
            info.id
        )));
    }
    if info.block_size > BLOCK_SIZE_MAX {
        return Err(Failure::failed(format!(
            "namespace {} has blocks of {} bytes; a block device has at most {BLOCK_SIZE_MAX}",
            info.id, info.block_size
        )));
    }
    let limits = controller.nvm_limits().await?;
    Ok(parameters_of(&controller.negotiated(), &limits, info, read_only))
}

fn parameters_of(
    negotiated: &Negotiated,
    limits: &NvmLimits,
    info: &NamespaceInfo,
    read_only: bool,
) -> Parameters {
    let block_size = u64::from(info.block_size);
    let limit = |bytes: u64| u32::try_from(bytes >> 9).unwrap_or(u32::MAX >> 9 << 9);
    let controller = &negotiated.info;
    let has = |command| controller.optional_commands.contains(command);
    let discarded = limits.range_blocks.map_or(u64::from(u32::MAX), u64::from);
    let zeroed = limits.write_zeroes_bytes_max(4096).unwrap_or(u64::MAX);
    let zeroed = zeroed.min(WRITE_ZEROES_BLOCKS_MAX * block_size);
    Parameters {
        block_size: info.block_size,
        sectors: sectors(info),
        bytes_max: u32::try_from(negotiated.transfer_bytes_max)
            .unwrap_or(u32::MAX)
            .min(REQUEST_BYTES_MAX),
        attributes: Attributes {
            read_only,
            volatile_cache: controller.volatile_write_cache,
            force_unit_access: controller.volatile_write_cache,
        },
        discard: Discard {
            granularity: info.block_size,
            sectors_max: if has(OptionalCommand::DatasetManagement) {
                limit(discarded.saturating_mul(block_size))
            } else {
                0
            },
            write_zeroes_sectors_max: if has(OptionalCommand::WriteZeroes) {
                limit(zeroed)
            } else {
                0
            },
        },
    }
}

/// Makes a device, with this number of queues of this depth; requests in flight when its process
/// ends are given to the next one if `resend` is set, and it shares memory if `shares` is. It is
/// deleted again if the driver refuses its geometry.
pub(super) fn add(
    control: &mut Control,
    id: Option<u32>,
    limits: (u16, u16),
    parameters: Parameters,
    resend: bool,
    shares: bool,
) -> Result<DeviceInfo, Failure> {
    // Drivers before Linux 6.5 do not tell, and have none of those that matter.
    let features = control.features().unwrap_or_default();
    let options = options(id, limits, parameters.bytes_max, resend, shares, features);
    let info = control.add(&options).map_err(|error| match (error.errno(), options.id) {
        (Some(errno), Some(id)) if errno == rustix::io::Errno::EXIST.raw_os_error() => {
            Failure::failed(format!("there is {} already; `nvmf list` shows it", path(id)))
        }
        _ => failure(error),
    })?;
    if let Err(error) = control.set_parameters(&info, parameters) {
        // The first error is the one to report.
        let _ = control.delete(&info);
        return Err(failure(error));
    }
    if !options.user_copy && may_lose_reads(options.recovery, options.unprivileged, features) {
        let path = path(info.id());
        output::print_message(format_args!(
            "nvmf: warning: {path}: this kernel's ublk driver has no user copy: reads fail that \
             the process is completing when it is killed; use Linux 6.5 or later"
        ));
    }
    Ok(info)
}

/// Device to take over; `None` if there is none with this number, or nothing of it is left.
pub(super) fn find(control: &mut Control, id: u32) -> Result<Option<DeviceInfo>, Failure> {
    match control.info(id) {
        Ok(info) if info.state() == DeviceState::Dead => {
            control.delete(&info).map_err(failure)?;
            Ok(None)
        }
        Ok(info) => Ok(Some(info)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failure(error)),
    }
}

/// True if the driver knows no device with this number.
pub(super) fn is_absent(error: &ublk::Error) -> bool {
    let absent = [rustix::io::Errno::NODEV, rustix::io::Errno::NOENT];
    error.errno().is_some_and(|errno| absent.iter().any(|no| no.raw_os_error() == errno))
}

/// Checks that a device which is taken over can share memory, if this is to be.
pub(super) fn check_sharing(device: &DeviceInfo, shares: bool) -> Result<(), Failure> {
    let path = path(device.id());
    if shares && !device.shares_memory() {
        return Err(Failure::usage(format!(
            "{path} was attached without --share: recover it without, or detach and attach it"
        )));
    }
    if device.shares_memory() && !shares {
        output::print_message(format_args!(
            "nvmf: warning: {path} was attached with --share; without it, requests are copied"
        ));
    }
    Ok(())
}

/// Begins to take a device over, after a check that it is of this namespace.
pub(super) fn take_over(
    control: &mut Control,
    device: &DeviceInfo,
    info: &NamespaceInfo,
    wanted: Parameters,
) -> Result<(), Failure> {
    let path = path(device.id());
    let former = control.parameters(device).map_err(failure)?;
    let was = Entry::read(device.id()).and_then(|entry| entry.namespace);
    if was.is_some() && was != identifier(info) {
        return Err(Failure::failed(format!(
            "{path} is of namespace {}, and this is another one: detach the device, with --force",
            was.unwrap_or_default()
        )));
    }
    let resizes = control.features().is_ok_and(Features::update_size);
    if former.block_size != wanted.block_size || former.sectors > wanted.sectors && !resizes {
        return Err(Failure::failed(format!(
            "{path} has {} sectors in blocks of {} bytes, and the namespace {} in blocks of {}: \
             detach the device, with --force",
            former.sectors, former.block_size, wanted.sectors, wanted.block_size
        )));
    }
    if former.bytes_max > wanted.bytes_max {
        return Err(Failure::failed(format!(
            "{path} has requests of {} bytes, and the controller takes {}: detach the device, with \
             --force",
            former.bytes_max, wanted.bytes_max
        )));
    }
    control.start_recovery(device).map_err(|error| match error.errno() {
        Some(errno) if errno == rustix::io::Errno::BUSY.raw_os_error() => {
            Failure::failed(format!("{path} is served by another process; `nvmf list` shows it"))
        }
        _ => failure(error),
    })
}

/// Number of processors that this kernel may have, of which each may have a hardware queue.
pub(super) fn queues_max() -> u16 {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = possible.trim().rsplit(['-', ',']).next();
    last.and_then(|last| last.parse().ok()).map_or(1, |last: u16| last.saturating_add(1))
}

/// Options of a new device, with this number of queues of this depth.
fn options(
    id: Option<u32>,
    (queues, depth): (u16, u16),
    bytes_max: u32,
    resend: bool,
    shares_memory: bool,
    features: Features,
) -> DeviceOptions {
    let recovery = if resend { Recovery::Reissue } else { Recovery::Fail };
    let unprivileged = !is_administrator();
    // A process that takes over may not have the memory that this one shares: the driver copies no
    // request in it. A device of a user without privileges is not taken over.
    let is_needed =
        may_lose_reads(recovery, unprivileged, features) || shares_memory && !unprivileged;
    let user_copy = is_needed && features.user_copy();
    DeviceOptions { id, queues, depth, bytes_max, recovery, user_copy, shares_memory, unprivileged }
}

/// True if reads that a process completes when it is killed may fail, where the driver copies their
/// data, although the device's requests are to outlive the process; those of a user without
/// privileges do not.
fn may_lose_reads(recovery: Recovery, unprivileged: bool, features: Features) -> bool {
    recovery == Recovery::Reissue && !unprivileged && features.pins_pages()
}

fn is_administrator() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// Stops a device. Unless `force` is set, one that is in use is left, which returns false. Drivers
/// before Linux 7 know only of users that have it for themselves: file systems, swap space, RAID.
pub(super) fn stop(
    control: &mut Control,
    device: &DeviceInfo,
    force: bool,
) -> Result<bool, Failure> {
    if !force {
        if device.state() != DeviceState::Live {
            return Ok(false);
        }
        let busy = rustix::io::Errno::BUSY.raw_os_error();
        if control.features().is_ok_and(ublk::Features::safe_stop) {
            return match control.try_stop(device) {
                Err(error) if error.errno() == Some(busy) => Ok(false),
                outcome => outcome.map(|()| true).map_err(failure),
            };
        }
        let flags = OFlags::EXCL.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path(device.id()));
        if opened.is_err_and(|error| error.raw_os_error() == Some(busy)) {
            return Ok(false);
        }
    }
    control.stop(device).map_err(failure)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_lost_only_by_devices_that_outlive_their_process() {
        let pins = Features::default();
        assert!(may_lose_reads(Recovery::Reissue, false, pins));
        assert!(!may_lose_reads(Recovery::Fail, false, pins), "those in flight fail anyway");
        assert!(!may_lose_reads(Recovery::Reissue, true, pins), "the driver refuses recovery");
    }
}
