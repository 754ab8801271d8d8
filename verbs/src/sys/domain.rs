//! Protection domains and registrations.
//!
//! # Safety
//!
//! This file exists to register memory. It promises that memory stays allocated as long as the
//! device may use it: a registration holds its mapping, is deregistered before it lets go of
//! it, and never lets go when deregistering failed.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use rdma_core_sys as c;
use rustix::process::{Resource, getrlimit};

use super::device::Hold;
use crate::{Access, DeviceEvent, Error, RemoteKey, memory::Mapping, provider::Keys};

/// A protection domain, shared by what is made in it.
pub struct RawDomain(Arc<DomainInner>);

pub(super) struct DomainInner {
    raw: NonNull<c::ibv_pd>,
    hold: Arc<Hold>,
}

// SAFETY: a domain is tied to no thread, and verbs calls on it may run at once.
unsafe impl Send for DomainInner {}
// SAFETY: through a shared domain only the pointer can be read; verbs calls may run at once.
unsafe impl Sync for DomainInner {}

impl RawDomain {
    pub(super) fn new(hold: Arc<Hold>) -> Result<Self, Error> {
        // SAFETY: the hold keeps the context open.
        let raw = unsafe { c::ibv_alloc_pd(hold.context()) };
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::CreateDomain(io::Error::last_os_error()))?;
        Ok(Self(Arc::new(DomainInner { raw, hold })))
    }

    pub(super) fn register(
        &self,
        memory: Arc<Mapping>,
        access: Access,
    ) -> Result<(RawRegistration, Keys), Error> {
        let length = memory.len();
        // SAFETY: the domain is live, and the registration below holds the memory.
        let raw = unsafe {
            c::ibv_reg_mr(self.0.raw.as_ptr(), memory.pointer().cast(), length, flags(access))
        };
        let raw = NonNull::new(raw).ok_or_else(|| refused(length, io::Error::last_os_error()))?;
        // SAFETY: the call succeeded, so this is a live memory region.
        let region = unsafe { raw.as_ref() };
        let keys = Keys { local: region.lkey, remote: RemoteKey(region.rkey) };
        Ok((RawRegistration { raw, memory: Some(memory), _domain: self.0.clone() }, keys))
    }

    pub(super) fn window(&self) -> Result<(RawRegistration, Keys), Error> {
        Err(Error::Unsupported("memory windows"))
    }

    pub(super) fn event(&self) -> Result<Option<DeviceEvent>, Error> {
        Ok(None)
    }

    pub(super) fn inner(&self) -> &Arc<DomainInner> {
        &self.0
    }
}

impl AsFd for RawDomain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.hold.events()
    }
}

impl DomainInner {
    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_pd {
        self.raw.as_ptr()
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl Drop for DomainInner {
    fn drop(&mut self) {
        // SAFETY: the sole owner; queue pairs and registrations hold the domain, so none is left.
        unsafe { c::ibv_dealloc_pd(self.raw.as_ptr()) };
    }
}

/// Registered memory.
pub struct RawRegistration {
    raw: NonNull<c::ibv_mr>,
    memory: Option<Arc<Mapping>>,
    _domain: Arc<DomainInner>,
}

// SAFETY: a memory region is tied to no thread.
unsafe impl Send for RawRegistration {}
// SAFETY: through a shared registration nothing can be reached at all.
unsafe impl Sync for RawRegistration {}

impl Drop for RawRegistration {
    fn drop(&mut self) {
        // SAFETY: the sole owner; the domain, a field, goes after this.
        let result = unsafe { c::ibv_dereg_mr(self.raw.as_ptr()) };
        if result != 0 {
            // The device may still write there, so the memory must never be used otherwise.
            std::mem::forget(self.memory.take());
        }
    }
}

fn flags(access: Access) -> libc::c_uint {
    [
        (Access::LOCAL_WRITE, c::IBV_ACCESS_LOCAL_WRITE),
        (Access::REMOTE_READ, c::IBV_ACCESS_REMOTE_READ),
        (Access::REMOTE_WRITE, c::IBV_ACCESS_REMOTE_WRITE),
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
        Some(limit) if out_of_memory => Error::LockedMemoryLimit { length, limit, source },
        _ => Error::Register { length, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_translates_bit_by_bit() {
        assert_eq!(flags(Access::NONE), 0);
        assert_eq!(flags(Access::LOCAL_WRITE), 1);
        assert_eq!(flags(Access::REMOTE_WRITE), 3);
        assert_eq!(flags(Access::REMOTE_READ | Access::LOCAL_WRITE), 5);
    }
}
