//! Registered memory that other code than this crate's reads and writes.
//!
//! # Safety
//!
//! The file exists because such memory belongs to code that the compiler does not check: a program
//! in C, or another process. It promises that no Rust reference to the bytes is made and that
//! nothing here copies them, so that it is sound for parts to overlap and for the bytes to change
//! at any time; and that an owner is dropped only when no device can access the memory any more.

#![allow(unsafe_code)]

use std::{fmt, io, os::fd::BorrowedFd, ptr::NonNull, sync::Arc};

use super::{Access, Agent, Backing, Buffer, Mapping, PageSize, Pages, Region, is_within};

/// Owner of memory, which is there as long as the owner lives. It is for code at a language
/// boundary, where nothing but the contract of an interface says how long memory lives.
///
/// # Safety
///
/// From a call of [`memory`](Self::memory) until the value is dropped, the bytes that the call
/// returned are mapped readable and writable, and no Rust reference to them exists.
pub unsafe trait MemoryOwner: Send + Sync + 'static {
    /// Start of the memory, and its length in bytes.
    fn memory(&self) -> (NonNull<u8>, usize);
}

/// Registered memory that other code reads and writes, at [`address`](Self::address): a program in
/// C, for example. Cloning makes another handle of the same memory.
///
/// Parts of it are [buffers](Buffer) for commands, at any offset, in any order, as many as are
/// wanted: they may overlap, and then a transfer finds or leaves there whatever the other one did.
/// Nothing copies their bytes: [`Buffer::copy_in`] and the like panic.
#[derive(Clone)]
pub struct SharedMemory {
    region: Arc<Region>,
}

/// Failure to take shared memory out of the reach of the device.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A part of it, or another handle, is in use.
    #[error("the memory is in use by a command, or by another handle of it")]
    InUse(SharedMemory),
    /// The device did not give it up. It must stay as it is, since it may still be written; its
    /// owner is leaked.
    #[error("the device did not give the memory up")]
    Kept,
}

impl SharedMemory {
    pub(crate) fn new(region: Region) -> Self {
        Self { region: Arc::new(region) }
    }

    /// Bytes from `offset` on, for one command; `None` if they are not within the memory.
    #[inline]
    pub fn part(&self, offset: usize, length: usize) -> Option<Buffer> {
        let within = is_within(offset, length, self.region.memory.length);
        within.then(|| Buffer { region: Arc::clone(&self.region), offset, length })
    }

    /// Start of the memory, for the code that reads and writes it.
    pub fn address(&self) -> u64 {
        self.region.memory.address()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.region.memory.length
    }

    /// Never: memory of no length is not registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the registration and drops the owner: no device accesses the memory any more.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]: while parts of it are in use it is handed back.
    pub fn release(self) -> Result<(), ReleaseError> {
        let region =
            Arc::try_unwrap(self.region).map_err(|region| ReleaseError::InUse(Self { region }))?;
        let Region { registration, memory, .. } = region;
        drop(registration);
        // A registration that the device did not give up still holds the memory.
        Arc::try_unwrap(memory).map(drop).map_err(|_| ReleaseError::Kept)
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("address", &format_args!("{:#x}", self.address()))
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

impl Mapping {
    /// Zeroed pages for code that is not Rust, if possible of this NUMA node; `None` when there is
    /// no memory, or `length` is 0.
    pub(crate) fn shared_pages(
        length: usize,
        node: Option<u32>,
        agent: Agent,
        access: Access,
    ) -> Option<Self> {
        let pages = Pages::map(length, PageSize::Base).ok()?;
        if let Some(node) = node {
            // Memory of another node is slower, and serves.
            let _ = pages.prefer(node);
        }
        Some(Self::of_pages(pages, length, agent, access).into_shared())
    }

    /// Pages of a file from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Pages::map_file`].
    pub(crate) fn shared_file(
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        (agent, access): (Agent, Access),
    ) -> io::Result<Self> {
        let pages = Pages::map_file(file, offset, length)?;
        Ok(Self::of_pages(pages, length, agent, access).into_shared())
    }

    /// Memory of an owner; `None` if it has no bytes.
    pub(crate) fn shared_with(
        owner: impl MemoryOwner,
        agent: Agent,
        access: Access,
    ) -> Option<Self> {
        let (start, length) = owner.memory();
        if length == 0 {
            return None;
        }
        let backing = Backing::Owner(Box::new(owner));
        Some(Self::new(start, length, backing, (agent, access)).into_shared())
    }
}
