//! Protection domains.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Access, Buffer, DeviceEvent, Error, Provider, RdmaCore, SharedReceiveQueue, Window,
    memory::{Mapping, Region},
    provider::RegisterRequest,
};

/// A protection domain: queue pairs and memory of one domain can be used together, and a peer's
/// keys reach no other.
///
/// Cloning makes another handle of the same domain.
///
/// What is made in a domain keeps it. What is borrowed from it cannot be kept:
///
/// ```compile_fail,E0597
/// use std::os::fd::AsFd;
/// # fn wait(endpoint: &verbs::Endpoint) -> Result<(), verbs::Error> {
/// let events;
/// {
///     let domain = endpoint.domain()?;
///     events = domain.as_fd();
/// } // the domain ends here
/// drop(events);
/// # Ok(())
/// # }
/// ```
pub struct Domain<P: Provider = RdmaCore> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Provider> {
    raw: P::Domain,
    provider: Arc<P>,
    identity: u64,
}

impl<P: Provider> Domain<P> {
    pub(crate) fn new(provider: Arc<P>, raw: P::Domain) -> Self {
        let identity = IDENTITY.fetch_add(1, Ordering::Relaxed);
        Self { inner: Arc::new(Inner { raw, provider, identity }) }
    }

    /// Allocates `length` bytes of zeroes, aligned to a page, and registers them.
    ///
    /// # Errors
    ///
    /// * [`Error::LockedMemoryLimit`] names the limit and the remedy.
    /// * [`Error::Allocate`], [`Error::Register`]: no memory, or the device's limits.
    /// * [`Error::Misuse`]: a length of 0.
    pub fn allocate(&self, length: usize, access: Access) -> Result<Buffer, Error> {
        if length == 0 {
            return Err(Error::Misuse("memory of no length cannot be registered"));
        }
        let memory = Mapping::allocate(length, P::AGENT).ok_or(Error::Allocate { length })?;
        let memory = Arc::new(memory);
        let request = RegisterRequest::Memory { memory: memory.clone(), access };
        let (registration, keys) = self.inner.provider.register(&self.inner.raw, request)?;
        let _registration = Box::new(registration);
        let domain = self.inner.identity;
        Ok(Buffer::whole(Region { _registration, memory, keys, access, domain }))
    }

    /// Allocates a memory window; it serves one bind after another.
    ///
    /// # Errors
    ///
    /// * [`Error::Unsupported`]: the device has none of type 2; see
    ///   [`Limits::windows`](crate::Limits::windows).
    /// * [`Error::AllocateWindow`]: ENOMEM when it is out of them.
    pub fn window(&self) -> Result<Window, Error> {
        let (registration, keys) =
            self.inner.provider.register(&self.inner.raw, RegisterRequest::Window)?;
        Ok(Window::new(Box::new(registration), keys, self.inner.identity))
    }

    /// Makes a shared receive queue for `capacity` receives.
    ///
    /// # Errors
    ///
    /// * [`Error::CreateSharedReceiveQueue`]: EINVAL or ENOMEM beyond the device's limits.
    /// * [`Error::Unsupported`]: the device has none.
    /// * [`Error::Misuse`]: a capacity of 0.
    pub fn shared_receive_queue(&self, capacity: u32) -> Result<SharedReceiveQueue<P>, Error> {
        SharedReceiveQueue::new(self.clone(), self.inner.provider.clone(), capacity)
    }

    /// The next event of the domain's device, if there is one. Never blocks; the domain's file
    /// descriptor is readable when there is one.
    ///
    /// Every domain gets every event of its device, from when the domain was made; clones of one
    /// domain share them. A domain keeps at least the last 64 that nobody has read.
    ///
    /// # Errors
    ///
    /// [`Error::ReadDeviceEvent`]. That the device is gone is no error but an event.
    pub fn next_event(&self) -> Result<Option<DeviceEvent>, Error> {
        self.inner.provider.device_event(&self.inner.raw)
    }

    pub(crate) fn identity(&self) -> u64 {
        self.inner.identity
    }

    pub(crate) fn raw(&self) -> &P::Domain {
        &self.inner.raw
    }
}

impl<P: Provider> AsFd for Domain<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.raw.as_fd()
    }
}

impl<P: Provider> Clone for Domain<P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<P: Provider> fmt::Debug for Domain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Domain").field(&self.inner.identity).finish()
    }
}

static IDENTITY: AtomicU64 = AtomicU64::new(1);
