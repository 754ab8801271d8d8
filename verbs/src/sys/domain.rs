//! Protection domains and registrations.
//!
//! # Safety
//!
//! This file exists to register memory. It promises that memory stays allocated as long as the
//! device may use it: a registration holds its mapping, is deregistered before it lets go of
//! it, and never lets go when deregistering failed. A bind is made of two registrations that its
//! caller keeps during the post.

#![allow(unsafe_code)]

use std::{
    any::Any,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use rdma_core_sys as c;
use rustix::process::{Resource, getrlimit};

use super::{device::DeviceContext, events::Subscription};
use crate::{
    Access, DeviceEvent, Error, RemoteKey,
    memory::Mapping,
    provider::{BindWindow, DmaBuf, Keys, Registration},
};

/// A protection domain, shared by what is made in it.
pub struct RawDomain(Arc<DomainInner>);

pub(super) struct DomainInner {
    raw: NonNull<c::ibv_pd>,
    device: Arc<DeviceContext>,
    events: Arc<Subscription>,
}

// SAFETY: a domain is tied to no thread, and verbs calls on it may run at once.
unsafe impl Send for DomainInner {}
// SAFETY: through a shared domain only the pointer can be read; verbs calls may run at once.
unsafe impl Sync for DomainInner {}

impl RawDomain {
    pub(super) fn new(device: Arc<DeviceContext>) -> Result<Self, Error> {
        let events = device.subscribe().map_err(Error::CreateProtectionDomain)?;
        // SAFETY: the device keeps its context open.
        let raw = unsafe { c::ibv_alloc_pd(device.context()) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::CreateProtectionDomain(io::Error::last_os_error()))?;
        Ok(Self(Arc::new(DomainInner { raw, device, events })))
    }

    pub(super) fn register(&self, memory: Arc<Mapping>) -> Result<(RawRegistration, Keys), Error> {
        // Data is looked at only after a completion that came behind it, which no relaxed write
        // passes (PCIe 2.4.1). Kernels and devices that do not know the flag ignore it.
        let flags = flags(memory.access()) | c::IBV_ACCESS_RELAXED_ORDERING;
        let length = memory.len();
        // SAFETY: the domain is live, and the registration below holds the memory.
        let raw =
            unsafe { c::ibv_reg_mr(self.0.raw.as_ptr(), memory.pointer().cast(), length, flags) };
        let raw = NonNull::new(raw).ok_or_else(|| refused(length, io::Error::last_os_error()))?;
        Ok(self.registered(raw, Some(memory)))
    }

    /// The kernel keeps the dma-buf as long as it is registered, with or without our descriptor.
    pub(super) fn register_dma_buf(
        &self,
        dma_buf: &DmaBuf,
    ) -> Result<(RawRegistration, Keys), Error> {
        let DmaBuf { file, offset, length, address, access } = dma_buf;
        let flags = flags(*access).cast_signed();
        // SAFETY: the domain is live and the descriptor open; the device reaches nothing but the
        // range of the dma-buf, which is no memory of this process that Rust knows of.
        let raw = unsafe {
            c::ibv_reg_dmabuf_mr(
                self.0.raw.as_ptr(),
                *offset,
                *length,
                address.get() as u64,
                file.as_raw_fd(),
                flags,
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let error = io::Error::last_os_error();
            if error.raw_os_error().is_some_and(|errno| UNKNOWN_HERE.contains(&errno)) {
                return Error::Unsupported("this device, or its plug-in, registers no dma-buf");
            }
            refused(*length, error)
        })?;
        Ok(self.registered(raw, None))
    }

    fn registered(
        &self,
        raw: NonNull<c::ibv_mr>,
        memory: Option<Arc<Mapping>>,
    ) -> (RawRegistration, Keys) {
        // SAFETY: the caller has just registered it, so this is a live memory region.
        let region = unsafe { raw.as_ref() };
        let keys = Keys { local: region.lkey, remote: RemoteKey(region.rkey) };
        let object = Object::Memory { raw, memory };
        (RawRegistration { object, _domain: self.0.clone() }, keys)
    }

    pub(super) fn window(&self) -> Result<(RawRegistration, Keys), Error> {
        if self.0.device.limits()?.windows == 0 {
            return Err(Error::Unsupported("this device has no memory windows of type 2"));
        }
        // SAFETY: the domain is live as long as `self`.
        let raw = unsafe { c::ibv_alloc_mw(self.0.raw.as_ptr(), c::IBV_MW_TYPE_2) };
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::AllocateWindow(io::Error::last_os_error()))?;
        // SAFETY: the call succeeded, so this is a live window.
        let key = unsafe { raw.as_ref() }.rkey;
        // What remains of the key without the bits that change is unique on the device.
        let keys = Keys { local: key >> 8, remote: RemoteKey(key) };
        Ok((RawRegistration { object: Object::Window(raw), _domain: self.0.clone() }, keys))
    }

    pub(super) fn event(&self) -> Result<Option<DeviceEvent>, Error> {
        self.0.device.event(&self.0.events).map_err(Error::ReadDeviceEvent)
    }

    pub(super) fn is_port_down(&self) -> Option<bool> {
        self.0.device.is_port_down()
    }

    pub(super) fn inner(&self) -> &Arc<DomainInner> {
        &self.0
    }
}

impl AsFd for RawDomain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.events.as_fd()
    }
}

impl DomainInner {
    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_pd {
        self.raw.as_ptr()
    }

    pub(super) fn device(&self) -> &DeviceContext {
        &self.device
    }
}

impl Drop for DomainInner {
    fn drop(&mut self) {
        // SAFETY: the sole owner; queue pairs and registrations hold the domain, so none is left.
        unsafe { c::ibv_dealloc_pd(self.raw.as_ptr()) };
    }
}

/// Registered memory, or a memory window.
pub struct RawRegistration {
    object: Object,
    _domain: Arc<DomainInner>,
}

enum Object {
    Memory { raw: NonNull<c::ibv_mr>, memory: Option<Arc<Mapping>> },
    Window(NonNull<c::ibv_mw>),
}

// SAFETY: memory regions and windows are tied to no thread.
unsafe impl Send for RawRegistration {}
// SAFETY: through a shared registration only the pointer can be read, but by `to_bind`, which says
// whose it must be.
unsafe impl Sync for RawRegistration {}

impl Registration for RawRegistration {
    fn innermost(&self) -> &dyn Any {
        self
    }
}

impl Drop for RawRegistration {
    fn drop(&mut self) {
        match &mut self.object {
            Object::Memory { raw, memory } => {
                // SAFETY: the sole owner; the domain, a field, goes after this.
                let result = unsafe { c::ibv_dereg_mr(raw.as_ptr()) };
                if result != 0 {
                    // The device may still write there, so it must never be used otherwise.
                    std::mem::forget(memory.take());
                }
            }
            Object::Window(raw) => {
                // SAFETY: the sole owner. Where it fails the window's memory
                // cannot be deregistered either, and is leaked there.
                unsafe { c::ibv_dealloc_mw(raw.as_ptr()) };
            }
        }
    }
}

/// Bind request of the plug-in, made of the registrations of a window and of memory, as whose only
/// [`WindowTable`](crate::provider::WindowTable) gives them, borrowed exclusively; `None` if that
/// is not what they are. Its pointers are live as long as the table is borrowed.
#[inline]
pub(super) fn to_bind(
    (window, memory): (&dyn Any, &dyn Any),
    bind: &BindWindow,
) -> Option<c::ibv_send_wr_bind_mw> {
    let Object::Window(mw) = window.downcast_ref::<RawRegistration>()?.object else { return None };
    let memory = &memory.downcast_ref::<RawRegistration>()?.object;
    let Object::Memory { raw: mr, .. } = memory else { return None };
    // Plug-ins look there for the key that a bind replaces.
    // SAFETY: the window is live, and in one table, which is borrowed exclusively.
    unsafe { (*mw.as_ptr()).rkey = bind.replaced_key().0 };
    Some(c::ibv_send_wr_bind_mw {
        mw: mw.as_ptr(),
        rkey: bind.key.0,
        bind_info: c::ibv_mw_bind_info {
            mr: mr.as_ptr(),
            addr: bind.address,
            length: bind.length,
            mw_access_flags: flags(bind.access) & !c::IBV_ACCESS_LOCAL_WRITE,
        },
    })
}

fn flags(access: Access) -> libc::c_uint {
    [
        (Access::LOCAL_WRITE, c::IBV_ACCESS_LOCAL_WRITE),
        (Access::REMOTE_READ, c::IBV_ACCESS_REMOTE_READ),
        (Access::REMOTE_WRITE, c::IBV_ACCESS_REMOTE_WRITE),
        (Access::BIND, c::IBV_ACCESS_MW_BIND),
    ]
    .into_iter()
    .filter(|&(right, _)| access.contains(right))
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// ENOMEM is what the kernel says when the limit on locked memory is exceeded; it is blamed
/// when there is a limit.
fn refused(length: usize, source: io::Error) -> Error {
    let out_of_memory = source.raw_os_error() == Some(libc::ENOMEM);
    match getrlimit(Resource::Memlock).current {
        Some(limit) if out_of_memory => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            Error::LockedMemoryLimit { length, pinned: pinned(&status), limit, source }
        }
        _ => Error::Register { length, source },
    }
}

/// Bytes that the process has registered already, as its status file says.
fn pinned(status: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let kibibytes = value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.map_or(0, |kibibytes: u64| kibibytes.saturating_mul(1024))
}

/// Errors of the plug-in, or of an older kernel, for a call that it does not know.
const UNKNOWN_HERE: [libc::c_int; 3] = [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::ENOSYS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_translates_bit_by_bit() {
        assert_eq!(flags(Access::NONE), 0);
        assert_eq!(flags(Access::LOCAL_WRITE), 1);
        assert_eq!(flags(Access::REMOTE_WRITE), 3);
        assert_eq!(flags(Access::REMOTE_READ | Access::LOCAL_WRITE), 5);
        assert_eq!(flags(Access::BIND), 16);
    }

    #[test]
    fn what_is_pinned_is_read_from_the_status() {
        assert_eq!(pinned("VmLck:\t      64 kB\nVmPin:\t    4096 kB\nVmHWM:\t1 kB\n"), 4 << 20);
        assert_eq!(pinned(""), 0);
        assert_eq!(pinned("VmPin:\t  many kB\n"), 0);
    }
}
