//! Memory for I/O with a controller: allocated, or registered where it lies.

use std::{
    ops::Range,
    os::fd::{AsFd, OwnedFd},
};

use verbs::{
    Buffer, CallerMemory, MemoryOwner, Pool, PoolOptions, Provider, RegisterError, SharedMemory,
};

use crate::{
    driver::{
        api::controller::Controller,
        buffers::{self, verbs_error},
    },
    error::Error,
};

impl<P: Provider> Controller<P> {
    /// Allocates and registers a buffer for I/O with this controller.
    ///
    /// # Errors
    ///
    /// When the memory can't be allocated or registered; the error names the limit and its remedy.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        let (domain, mode) = self.domain();
        domain.allocate(bytes, mode.access()).map_err(verbs_error)
    }

    /// Allocates `count` buffers of `bytes` bytes each in one registration, if possible on
    /// [the NUMA node of the device](Self::numa_node).
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_many(&self, count: usize, bytes: usize) -> Result<Vec<Buffer>, Error> {
        let (domain, mode) = self.domain();
        let Some(node) = self.numa_node().filter(|_| count * bytes > 0) else {
            return buffers::buffers(&domain, count, bytes, mode.access());
        };
        let options =
            PoolOptions { count, size: bytes, node: Some(node), ..PoolOptions::default() };
        let mut pool = self.pool(options)?;
        // The buffers keep the registration.
        Ok(std::iter::from_fn(|| pool.take()).collect())
    }

    /// Registers memory of the caller, a `Vec<u8>` or a `Box<[u8]>`, without copying it;
    /// [`Buffer::deregister`] returns it.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); the error contains the memory.
    pub fn register<M: CallerMemory>(&self, memory: M) -> Result<Buffer, RegisterError<M>> {
        let (domain, mode) = self.domain();
        domain.register(memory, mode.access())
    }

    /// Allocates memory for code that reads and writes it by its address, as a program in C does,
    /// if possible on [the NUMA node of the device](Self::numa_node). Commands take
    /// [parts](SharedMemory::part) of it.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_shared(&self, bytes: usize) -> Result<SharedMemory, Error> {
        let (domain, mode) = self.domain();
        domain.allocate_shared(bytes, self.numa_node(), mode.access()).map_err(verbs_error)
    }

    /// Registers memory that its owner reads and writes by its address.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); the owner is dropped.
    pub fn register_shared(&self, owner: impl MemoryOwner) -> Result<SharedMemory, Error> {
        let (domain, mode) = self.domain();
        domain.register_shared(owner, mode.access()).map_err(verbs_error)
    }

    /// Maps a range of a file and registers it: a memfd, or a file of tmpfs or of huge pages, which
    /// other code or another process maps, or reads and writes by its descriptor. The range begins
    /// at a page.
    ///
    /// # Errors
    ///
    /// As [`ProtectionDomain::register_file`](verbs::ProtectionDomain::register_file).
    pub fn register_file(&self, file: impl AsFd, range: Range<u64>) -> Result<SharedMemory, Error> {
        let (domain, mode) = self.domain();
        domain.register_file(file, range, mode.access()).map_err(verbs_error)
    }

    /// Registers a range of a dma-buf, memory that another device exports, such as that of a GPU.
    /// No device here takes one: never seen to work.
    ///
    /// # Errors
    ///
    /// As [`ProtectionDomain::register_dma_buf`](verbs::ProtectionDomain::register_dma_buf).
    pub fn register_dma_buf(&self, file: OwnedFd, range: Range<u64>) -> Result<Buffer, Error> {
        let (domain, mode) = self.domain();
        domain.register_dma_buf(file, range, mode.access()).map_err(verbs_error)
    }

    /// Allocates a pool of buffers, on huge pages or pages of a NUMA node if the options say so.
    /// The memory mode sets the access rights; those of the options are ignored.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), and when required pages are not available.
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, Error> {
        let (domain, mode) = self.domain();
        domain.pool(PoolOptions { access: mode.access(), ..options }).map_err(verbs_error)
    }
}
