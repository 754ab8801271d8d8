//! Shared receive queues.
//!
//! # Safety
//!
//! This file exists to make and fill them. It promises that a queue outlives the queue pairs that
//! take receives from it, and that the chains it posts live during the call.

#![allow(unsafe_code)]

use std::{
    io,
    ptr::{self, NonNull},
    sync::Arc,
};

use rdma_core_sys as c;

use super::{domain::DomainInner, receives};
use crate::{
    Error,
    provider::{PostError, ReceiveRequest},
};

/// A shared receive queue, kept by the queue pairs that take receives from it.
pub struct RawSharedReceiveQueue {
    inner: Arc<SharedInner>,
}

pub(super) struct SharedInner {
    raw: NonNull<c::ibv_srq>,
    domain: Arc<DomainInner>,
}

// SAFETY: a queue is tied to no thread, and verbs calls on it may run at once.
unsafe impl Send for SharedInner {}
// SAFETY: through a shared queue only the pointer can be read; verbs calls may run at once.
unsafe impl Sync for SharedInner {}

impl RawSharedReceiveQueue {
    pub(super) fn new(domain: &Arc<DomainInner>, capacity: u32) -> Result<(Self, u32), Error> {
        let attr = c::ibv_srq_attr { max_wr: capacity, max_sge: 1, srq_limit: 0 };
        let mut attributes = c::ibv_srq_init_attr { srq_context: ptr::null_mut(), attr };
        // SAFETY: the domain is live, and the attributes are writable.
        let raw = unsafe { c::ibv_create_srq(domain.pointer(), &raw mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
                Error::Unsupported("this device has no shared receive queues")
            }
            source => Error::CreateSharedReceiveQueue { capacity, source },
        })?;
        let inner = Arc::new(SharedInner { raw, domain: domain.clone() });
        // SAFETY: the call succeeded, so this is a live queue.
        let number = unsafe { inner.raw.as_ref() }.handle;
        Ok((Self { inner }, number))
    }

    #[inline]
    pub(super) fn post(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        let queue = self.inner.raw.as_ptr();
        // SAFETY: the queue is live; the chain and its segments are, during the call.
        receives::post(requests, |first, bad| unsafe { c::ibv_post_srq_recv(queue, first, bad) })
    }

    pub(super) fn inner(&self) -> &Arc<SharedInner> {
        &self.inner
    }
}

impl SharedInner {
    /// Live as long as `self`.
    pub(super) fn pointer(&self) -> *mut c::ibv_srq {
        self.raw.as_ptr()
    }

    pub(super) fn domain(&self) -> &Arc<DomainInner> {
        &self.domain
    }
}

impl Drop for SharedInner {
    fn drop(&mut self) {
        // SAFETY: the sole owner; queue pairs hold the queue, so none is left. The domain, a
        // field, goes after this.
        unsafe { c::ibv_destroy_srq(self.raw.as_ptr()) };
    }
}
