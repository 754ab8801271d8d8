//! Attributes of devices, ports and queue pairs.
//!
//! # Safety
//!
//! This file exists to have structures filled in. It promises that they are filled when they are
//! read.

#![allow(unsafe_code)]

use std::{collections::BTreeSet, ffi::c_int, io, mem::MaybeUninit, ptr::NonNull};

use rdma_core_sys as c;

use crate::Error;

/// Attributes of a device.
///
/// # Safety
///
/// The context is open.
pub(super) unsafe fn query(context: NonNull<c::ibv_context>) -> Result<c::ibv_device_attr, Error> {
    let mut attributes = MaybeUninit::zeroed();
    // SAFETY: the caller's context is open, and the attributes are writable.
    match unsafe { c::ibv_query_device(context.as_ptr(), attributes.as_mut_ptr()) } {
        // SAFETY: the structure is integers, for which the zeroes that remain are valid.
        0 => Ok(unsafe { attributes.assume_init() }),
        errno => Err(Error::QueryDevice(io::Error::from_raw_os_error(errno))),
    }
}

/// Attributes of a port.
///
/// # Safety
///
/// The context is open.
pub(super) unsafe fn query_port(
    context: NonNull<c::ibv_context>,
    number: u8,
) -> Result<c::ibv_port_attr, Error> {
    let mut port = c::ibv_port_attr::default();
    // SAFETY: the caller's context is open, and the attributes are writable.
    match unsafe { c::ibv_query_port(context.as_ptr(), number, &raw mut port) } {
        0 => Ok(port),
        errno => Err(Error::QueryDevice(io::Error::from_raw_os_error(errno))),
    }
}

/// Path MTU of a connected queue pair; nothing before it is connected, or where the device does not
/// say.
///
/// # Safety
///
/// The queue pair is live.
pub(super) unsafe fn query_path_mtu(queue_pair: NonNull<c::ibv_qp>) -> Option<c::ibv_mtu> {
    const MASK: c_int = c::IBV_QP_STATE | c::IBV_QP_PATH_MTU;
    let (mut attributes, mut init) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    // SAFETY: the caller's queue pair is live, and both structures are writable.
    let errno = unsafe {
        c::ibv_query_qp(queue_pair.as_ptr(), attributes.as_mut_ptr(), MASK, init.as_mut_ptr())
    };
    // SAFETY: the structure is integers, for which the zeroes that remain are valid.
    let attributes = (errno == 0).then(|| unsafe { attributes.assume_init() })?;
    matches!(attributes.qp_state, c::IBV_QPS_RTR | c::IBV_QPS_RTS).then_some(attributes.path_mtu)
}

/// Numbers of the active ports; nothing where the device does not say.
///
/// # Safety
///
/// The context is open.
pub(super) unsafe fn active_ports(context: NonNull<c::ibv_context>) -> Option<BTreeSet<u32>> {
    // SAFETY: the caller's context is open during the call.
    let count = unsafe { query(context) }.ok()?.phys_port_cnt;
    let mut active = BTreeSet::new();
    for number in 1..=count {
        // SAFETY: as above, the caller's context is open.
        if unsafe { query_port(context, number) }.ok()?.state == c::IBV_PORT_ACTIVE {
            active.insert(number.into());
        }
    }
    Some(active)
}
