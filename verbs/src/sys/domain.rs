//! Protection domains and registrations.
//!
//! # Safety
//!
//! This file exists to register memory. It promises that memory stays allocated as long as the
//! device may use it: a registration holds its mapping, is deregistered before it lets go of
//! it, and never lets go when deregistering failed. Posts name memory and windows by number;
//! the pointers that a bind needs are looked up, and used, under the lock that destruction takes.

#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use rdma_core_sys as c;
use rustix::process::{Resource, getrlimit};

use super::{device::DeviceContext, events::Subscription};
use crate::{
    Access, DeviceEvent, Error, RemoteKey,
    memory::Mapping,
    provider::{BindWindow, DmaBuf, Keys},
};

/// A protection domain, shared by what is made in it.
pub struct RawDomain(Arc<DomainInner>);

pub(super) struct DomainInner {
    raw: NonNull<c::ibv_pd>,
    device: Arc<DeviceContext>,
    events: Arc<Subscription>,
    handles: Mutex<HandleTable>,
}

/// Memory regions and windows by the numbers that binds name. Each is live while the lock is held:
/// it is removed before it is destroyed.
#[derive(Default)]
pub(super) struct HandleTable {
    memory: HashMap<u32, NonNull<c::ibv_mr>>,
    windows: HashMap<u32, NonNull<c::ibv_mw>>,
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
        Ok(Self(Arc::new(DomainInner { raw, device, events, handles: Mutex::default() })))
    }

    pub(super) fn register(&self, memory: Arc<Mapping>) -> Result<(RawRegistration, Keys), Error> {
        let (length, flags) = (memory.len(), flags(memory.access()));
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
        self.0.handles().memory.insert(keys.local, raw);
        let object = Object::Memory { raw, memory };
        (RawRegistration { object, number: keys.local, domain: self.0.clone() }, keys)
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
        self.0.handles().windows.insert(keys.local, raw);
        let object = Object::Window(raw);
        Ok((RawRegistration { object, number: keys.local, domain: self.0.clone() }, keys))
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

    pub(super) fn handles(&self) -> MutexGuard<'_, HandleTable> {
        self.handles.lock()
    }
}

impl HandleTable {
    /// Bind request of the plug-in; `None` when a number names nothing. Its pointers are live while
    /// the lock on `self` is held.
    pub(super) fn bind(&self, bind: &BindWindow) -> Option<c::ibv_send_wr_bind_mw> {
        Some(c::ibv_send_wr_bind_mw {
            mw: self.windows.get(&bind.window)?.as_ptr(),
            rkey: bind.key.0,
            bind_info: c::ibv_mw_bind_info {
                mr: self.memory.get(&bind.memory)?.as_ptr(),
                addr: bind.address,
                length: bind.length,
                mw_access_flags: flags(bind.access) & !c::IBV_ACCESS_LOCAL_WRITE,
            },
        })
    }

    /// Notes a window's new key where plug-ins look for the one that the next bind replaces.
    pub(super) fn set_bound_key(&mut self, bind: &BindWindow) {
        if let Some(window) = self.windows.get_mut(&bind.window) {
            // SAFETY: the window is live, see `HandleTable`; it is read and written under its lock.
            unsafe { window.as_mut() }.rkey = bind.key.0;
        }
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
    /// Number in the domain's table.
    number: u32,
    domain: Arc<DomainInner>,
}

enum Object {
    Memory { raw: NonNull<c::ibv_mr>, memory: Option<Arc<Mapping>> },
    Window(NonNull<c::ibv_mw>),
}

// SAFETY: memory regions and windows are tied to no thread.
unsafe impl Send for RawRegistration {}
// SAFETY: through a shared registration nothing can be reached at all.
unsafe impl Sync for RawRegistration {}

impl Drop for RawRegistration {
    fn drop(&mut self) {
        match &mut self.object {
            Object::Memory { raw, memory } => {
                self.domain.handles().memory.remove(&self.number);
                // SAFETY: the sole owner, no longer named; the domain, a field, goes after this.
                let result = unsafe { c::ibv_dereg_mr(raw.as_ptr()) };
                if result != 0 {
                    // The device may still write there, so it must never be used otherwise.
                    std::mem::forget(memory.take());
                }
            }
            Object::Window(raw) => {
                self.domain.handles().windows.remove(&self.number);
                // SAFETY: the sole owner, no longer named. Where it fails the window's memory
                // cannot be deregistered either, and is leaked there.
                unsafe { c::ibv_dealloc_mw(raw.as_ptr()) };
            }
        }
    }
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
