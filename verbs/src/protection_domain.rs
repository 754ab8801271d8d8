//! Protection domains.

use std::{
    fmt, fs,
    num::NonZero,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Access, Buffer, CallerMemory, DeviceEvent, Error, MemoryOwner, Provider, RdmaCore,
    RegisterError, SharedMemory, Window,
    memory::{Agent, Mapping, Region, page_size},
    provider::{DmaBuf, RegisterRequest},
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
pub struct ProtectionDomain<P: Provider = RdmaCore> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Provider> {
    raw: P::ProtectionDomain,
    provider: Arc<P>,
    identity: u64,
}

impl<P: Provider> ProtectionDomain<P> {
    pub(crate) fn new(provider: Arc<P>, raw: P::ProtectionDomain) -> Self {
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
        let memory =
            Mapping::allocate(length, self.agent(), access).ok_or(Error::Allocate { length })?;
        Ok(Buffer::whole(self.region(Arc::new(memory))?))
    }

    /// Registers memory that the caller has, a `Vec<u8>` or a `Box<[u8]>`, without copying it.
    /// [`Buffer::deregister`] gives it back.
    ///
    /// ```no_run
    /// # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
    /// # fn round_trip(domain: &verbs::ProtectionDomain) -> Result {
    /// let buffer = domain.register(vec![0; 1 << 20], verbs::Access::LOCAL_WRITE)?;
    /// // ... post it, complete it ...
    /// let memory: Vec<u8> = buffer.deregister()?;
    /// # drop(memory);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Its pages are locked as a whole, also where other allocations share them; a peer's key
    /// reaches its bytes alone. Only the bytes that there are count, not the capacity.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), with the memory handed back.
    pub fn register<M: CallerMemory>(
        &self,
        memory: M,
        access: Access,
    ) -> Result<Buffer, RegisterError<M>> {
        let mapping =
            Mapping::of_vector(memory.into_vector(), self.agent(), access).map_err(|empty| {
                let error = Error::Misuse("memory of no length cannot be registered");
                RegisterError { error, memory: M::from_vector(empty) }
            })?;
        let mapping = Arc::new(mapping);
        self.region(mapping.clone()).map(Buffer::whole).map_err(|error| {
            let mapping = Arc::into_inner(mapping).expect("what was refused is not kept");
            RegisterError { error, memory: M::from_vector(mapping.into_vector()) }
        })
    }

    /// Allocates `length` bytes of zeroes for code that reads and writes them by their address, if
    /// possible on this NUMA node, and registers them. They are unmapped when neither a handle of
    /// them nor a part of them is left.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_shared(
        &self,
        length: usize,
        node: Option<u32>,
        access: Access,
    ) -> Result<SharedMemory, Error> {
        if length == 0 {
            return Err(Error::Misuse("memory of no length cannot be registered"));
        }
        let memory = Mapping::shared_pages(length, node, self.agent(), access);
        let memory = memory.ok_or(Error::Allocate { length })?;
        Ok(SharedMemory::new(self.region(Arc::new(memory))?))
    }

    /// Registers memory of an owner that reads and writes it by its address, without copying it.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); the owner is dropped.
    pub fn register_shared(
        &self,
        owner: impl MemoryOwner,
        access: Access,
    ) -> Result<SharedMemory, Error> {
        let memory = Mapping::shared_with(owner, self.agent(), access);
        let memory = memory.ok_or(Error::Misuse("memory of no length cannot be registered"))?;
        Ok(SharedMemory::new(self.region(Arc::new(memory))?))
    }

    /// Maps a range of a file and registers it: a memfd, or a file of tmpfs or of huge pages, which
    /// other code or another process maps, or reads and writes by its descriptor. It is unmapped
    /// when neither a handle nor a part of it is left.
    ///
    /// Of a file system with a page cache, the kernel refuses to lock pages that a device writes.
    ///
    /// # Errors
    ///
    /// * [`Error::Misuse`]: the range has no bytes, is not within the file, or does not begin at a
    ///   page.
    /// * [`Error::MapFile`]: EACCES: the file is not open for reading and writing; ENODEV: files of
    ///   its kind are not mapped.
    /// * [`Error::Register`]: EFAULT: the pages cannot be locked; otherwise as
    ///   [`allocate`](Self::allocate).
    pub fn register_file(
        &self,
        file: impl AsFd,
        range: Range<u64>,
        access: Access,
    ) -> Result<SharedMemory, Error> {
        let file = file.as_fd();
        let length = range.end.checked_sub(range.start).filter(|&bytes| bytes > 0);
        let Some(length) = length.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Err(Error::Misuse("memory of no length cannot be registered"));
        };
        if !range.start.is_multiple_of(page_size() as u64) {
            return Err(Error::Misuse("a file is registered from a page on"));
        }
        let size = rustix::fs::fstat(file).map_err(|error| Error::MapFile(error.into()))?.st_size;
        if u64::try_from(size).is_ok_and(|size| size < range.end) {
            return Err(Error::Misuse("the range is not within the file"));
        }
        let memory = Mapping::shared_file(file, range.start, length, (self.agent(), access));
        let memory = memory.map_err(Error::MapFile)?;
        Ok(SharedMemory::new(self.region(Arc::new(memory))?))
    }

    /// Registers a range of a dma-buf, memory that another device exports. It can be sent,
    /// received into, read and written by RDMA, but not copied by the processor:
    /// [`Buffer::is_local`].
    ///
    /// Seen so far: rxe and siw refuse it as [`Error::Unsupported`]. It was never tried on a device
    /// that takes one.
    ///
    /// # Errors
    ///
    /// * [`Error::Unsupported`]: the device, or its plug-in, cannot; see
    ///   [`takes_dma_buf`](Self::takes_dma_buf).
    /// * [`Error::Register`]: EINVAL: the file is no dma-buf, or the range is not within it.
    /// * [`Error::LockedMemoryLimit`], [`Error::Misuse`]: as [`allocate`](Self::allocate).
    pub fn register_dma_buf(
        &self,
        file: OwnedFd,
        range: Range<u64>,
        access: Access,
    ) -> Result<Buffer, Error> {
        let offset = range.start;
        let length = range.end.checked_sub(offset).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(length) = length.filter(|&length| length > 0) else {
            return Err(Error::Misuse("memory of no length cannot be registered"));
        };
        // Devices want an address that is as far into a page as the offset; 0 would be "nowhere".
        let page = page_size();
        let into = usize::try_from(offset % page as u64).expect("less than a page");
        let address = NonZero::new(page + into).expect("at least a page");
        let dma_buf = DmaBuf { file: Arc::new(file), offset, length, address, access };
        let request = RegisterRequest::DmaBuf(dma_buf);
        let (registration, keys) = self.inner.provider.register(&self.inner.raw, request)?;
        let memory = Arc::new(Mapping::foreign(address, length, self.agent(), access));
        let registration = Box::new(registration);
        let domain = self.inner.identity;
        Ok(Buffer::whole(Region { registration, memory, keys, domain }))
    }

    /// Returns true if the device registers dma-bufs. The probe is a file that is no dma-buf: a
    /// device that can finds that out, one that cannot never looks.
    ///
    /// # Errors
    ///
    /// [`Error::Register`]: there is no such file to ask with.
    pub fn takes_dma_buf(&self) -> Result<bool, Error> {
        let length = page_size();
        let file =
            fs::File::open("/dev/null").map_err(|source| Error::Register { length, source })?;
        let asked = self.register_dma_buf(file.into(), 0..length as u64, Access::LOCAL_WRITE);
        Ok(!matches!(asked, Err(Error::Unsupported(_))))
    }

    /// Registers memory with the access it was made for.
    pub(crate) fn region(&self, memory: Arc<Mapping>) -> Result<Region, Error> {
        let request = RegisterRequest::Memory(memory.clone());
        let (registration, keys) = self.inner.provider.register(&self.inner.raw, request)?;
        let registration = Box::new(registration);
        let domain = self.inner.identity;
        Ok(Region { registration, memory, keys, domain })
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

    /// The next event of the domain's device, if there is one. Never blocks; the domain's file
    /// descriptor is readable when there is one.
    ///
    /// Every domain gets every event of its device, from when the domain was made; clones of one
    /// domain share them. A domain keeps at least the last 64 unread ones.
    ///
    /// # Errors
    ///
    /// [`Error::ReadDeviceEvent`]. That the device is gone is no error but an event.
    pub fn next_event(&self) -> Result<Option<DeviceEvent>, Error> {
        self.inner.provider.device_event(&self.inner.raw)
    }

    /// Returns true if all ports of the domain's device are down, and `None` where that is unknown,
    /// as of a device that is gone. Never blocks.
    pub fn is_port_down(&self) -> Option<bool> {
        self.inner.provider.is_port_down(&self.inner.raw)
    }

    pub(crate) fn agent(&self) -> Agent {
        self.inner.provider.agent()
    }

    pub(crate) fn identity(&self) -> u64 {
        self.inner.identity
    }

    pub(crate) fn raw(&self) -> &P::ProtectionDomain {
        &self.inner.raw
    }
}

impl<P: Provider> AsFd for ProtectionDomain<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.raw.as_fd()
    }
}

impl<P: Provider> Clone for ProtectionDomain<P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<P: Provider> fmt::Debug for ProtectionDomain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProtectionDomain").field(&self.inner.identity).finish()
    }
}

static IDENTITY: AtomicU64 = AtomicU64::new(1);
