//! Registered memory: ownership, and access by the program and by devices.
//!
//! # Safety
//!
//! This file exists because a device reads and writes memory behind the compiler's back. It
//! promises to the safe side:
//!
//! * **No reference.** Registered bytes are never seen through a Rust reference. They are copied
//!   in and out through raw pointers, so a device that writes late, or at the wrong time, changes
//!   bytes that are not borrowed: the program reads wrong data, but no rule of the language breaks.
//!   The exception are bytes that no device may write: [`ReadOnly`]. A mapping is made for one
//!   access, and every registration of it gives just that, whichever provider makes it; a provider
//!   within this process is stopped by the mapping itself.
//! * **Alive.** A [`Buffer`] holds its [`Region`]; a region holds the registration and the
//!   [`Mapping`]. The registration is dropped first, so the device has lost its access before
//!   the memory is freed. Leaking a buffer leaks memory and nothing worse.
//! * **Owned.** Memory that the caller had before is moved in, taken apart into the numbers it
//!   consists of, and put together again when it is moved out; in between it has no other owner. A
//!   bare pointer cannot be registered, because nothing keeps its memory from being freed, remapped
//!   or borrowed meanwhile.
//! * **Within.** A buffer's range is within its region: it begins as all of it, and is only cut.
//! * **Unique.** Two buffers of one region never overlap: [`Buffer::split_off`] moves the range's
//!   end, [`Buffer::unsplit`] moves it back, and there is no other way to make a second one. The
//!   exception is [`SharedMemory`], whose bytes no owner of a buffer copies.
//! * **Threads.** A device is outside of the program. Where the "device" is a thread of this
//!   process ([`Agent::Thread`]) all copies are atomic, byte by byte, so that even then a late
//!   write is no data race.

#![allow(unsafe_code)]

mod access;
mod deregister;
mod pages;
mod read_only;
mod shared;

use std::{
    alloc::{self, Layout},
    any::Any,
    fmt,
    mem::ManuallyDrop,
    num::NonZero,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

pub use self::{
    access::{Access, Agent, Keys, Registration, RemoteAddress, RemoteKey},
    deregister::DeregisterError,
    pages::PageSize,
    shared::{MemoryOwner, ReleaseError, SharedMemory},
};
pub(crate) use self::{pages::Pages, read_only::ReadOnly};

/// A range of registered memory. Bytes are copied in and out; nothing borrows them.
///
/// A buffer is in one of two hands: yours, or, while it is posted, the queue pair's. It cannot be
/// cloned, so nothing can be posted twice:
///
/// ```compile_fail,E0382
/// # fn twice(queue_pair: &mut verbs::QueuePair, buffer: verbs::Buffer) {
/// queue_pair.post_receive(buffer, 1);
/// queue_pair.post_receive(buffer, 2); // moved into the first
/// # }
/// ```
///
/// nor read while the device may write it:
///
/// ```compile_fail,E0382
/// # fn touch(queue_pair: &mut verbs::QueuePair, buffer: verbs::Buffer, out: &mut [u8]) {
/// queue_pair.post_receive(buffer, 1);
/// buffer.copy_out(0, out); // it comes back in `CompletedWork::Receive`
/// # }
/// ```
///
/// A peer that was told the [remote key](Self::remote_key) may write at any time, as far as the
/// registration's [`Access`] allows. That is never undefined behaviour, but what is copied out
/// is then whatever is there.
pub struct Buffer {
    region: Arc<Region>,
    offset: usize,
    length: usize,
}

impl Buffer {
    pub(crate) fn whole(region: Region) -> Self {
        Self::of(Arc::new(region))
    }

    /// All of a region that no other buffer is of.
    pub(crate) fn of(region: Arc<Region>) -> Self {
        let length = region.memory.length;
        Self { region, offset: 0, length }
    }

    /// Copies bytes into the buffer.
    ///
    /// # Panics
    ///
    /// When `bytes` does not fit behind `offset`, or the memory is a device's or shared
    /// ([`is_local`](Self::is_local)); so do all that copy.
    #[inline]
    pub fn copy_in(&mut self, offset: usize, bytes: &[u8]) {
        let start = self.start(offset, bytes.len());
        // SAFETY: a buffer's range is within its region, and `start` checked that this one is
        // within the buffer's.
        unsafe { self.region.memory.write_within(start, bytes) };
    }

    /// Sets every byte.
    pub fn fill(&mut self, byte: u8) {
        self.start(0, self.length);
        self.region.memory.fill(self.offset, self.length, byte);
    }

    /// Keeps the bytes before `at` and returns those from `at` on. Nothing is copied.
    ///
    /// # Panics
    ///
    /// When `at` is beyond the end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.length, "cannot split {} bytes at {at}", self.length);
        let tail = Self {
            region: self.region.clone(),
            offset: self.offset + at,
            length: self.length - at,
        };
        self.length = at;
        tail
    }

    /// Joins the part that follows directly.
    ///
    /// # Errors
    ///
    /// Hands `other` back when it is of another registration or does not follow directly.
    pub fn unsplit(&mut self, other: Self) -> Result<(), Self> {
        let follows = self.offset + self.length == other.offset;
        if !follows || !Arc::ptr_eq(&self.region, &other.region) {
            return Err(other);
        }
        self.length += other.length;
        Ok(())
    }

    /// Address of the buffer by which the peer names it in a remote access.
    #[inline]
    pub fn address(&self) -> u64 {
        self.region.memory.address() + self.offset as u64
    }

    /// Copies bytes out of the buffer.
    ///
    /// # Panics
    ///
    /// When there are not as many bytes behind `offset` as `out` is long.
    #[inline]
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) {
        let start = self.start(offset, out.len());
        // SAFETY: a buffer's range is within its region, and `start` checked that this one is
        // within the buffer's.
        unsafe { self.region.memory.read_within(start, out) };
    }

    /// Turns the buffer into one whose bytes can be borrowed, if no device may write them: its
    /// memory is for sending only, and local.
    pub(crate) fn into_read_only(self) -> Option<ReadOnly> {
        (!self.region.memory.is_writable() && self.is_local()).then_some(ReadOnly(self))
    }

    /// Returns true if the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns true if bytes can be copied in and out; those of a
    /// [dma-buf](crate::ProtectionDomain::register_dma_buf) and of [`SharedMemory`] cannot.
    #[inline]
    pub fn is_local(&self) -> bool {
        !matches!(self.region.memory.backing, Backing::Foreign) && !self.region.memory.is_shared
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The key by which a peer can name this memory. It covers the whole registration, not only
    /// this part of it.
    #[inline]
    pub fn remote_key(&self) -> RemoteKey {
        self.region.keys.remote
    }

    #[inline]
    pub(crate) fn access(&self) -> Access {
        self.region.memory.access
    }

    /// Keeps the registration alive, and nothing else.
    pub(crate) fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    /// Identity of the protection domain.
    #[inline]
    pub(crate) fn domain(&self) -> u64 {
        self.region.domain
    }

    /// Offset of the buffer in its registration.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    #[inline]
    pub(crate) fn local_key(&self) -> u32 {
        self.region.keys.local
    }

    #[inline]
    fn start(&self, offset: usize, length: usize) -> usize {
        debug_assert!(is_within(self.offset, self.length, self.region.memory.length), "a part");
        if !is_within(offset, length, self.length) {
            out_of_bounds(offset, length, self.length);
        }
        self.offset + offset
    }
}

#[inline]
fn is_within(offset: usize, length: usize, all: usize) -> bool {
    offset <= all && length <= all - offset
}

#[cold]
fn out_of_bounds(offset: usize, length: usize, all: usize) -> ! {
    panic!("{length} bytes at {offset} are not within a buffer of {all} bytes")
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("address", &format_args!("{:#x}", self.address()))
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Memory with its registration. Fields drop in order: the registration before the memory.
pub(crate) struct Region {
    pub(crate) registration: Box<dyn Registration>,
    pub(crate) memory: Arc<Mapping>,
    pub(crate) keys: Keys,
    pub(crate) domain: u64,
}

/// Memory, before and while it is registered: of the heap, mapped by itself, or the caller's.
///
/// Memory that is made here begins as zeroes, on a page that no other allocation shares.
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
    backing: Backing,
    agent: Agent,
    /// Access of every registration of it, for good.
    access: Access,
    /// True if the bytes are read and written by other code than this crate's, so that no buffer
    /// copies them.
    is_shared: bool,
    /// True if buffers copy the bytes as any others: they are local, and of a device.
    is_plain: bool,
}

/// Origin of memory, which decides how it is freed.
enum Backing {
    /// Whole pages of the heap.
    Heap(Layout),
    /// Mapped by itself.
    Pages(Pages),
    /// Vector of the caller, with its capacity.
    Vector { capacity: usize },
    /// Memory of another device: the address means nothing to the processor.
    Foreign,
    /// Memory that is there as long as this value.
    Owner(
        #[expect(dead_code, reason = "it is dropped, and nothing else")] Box<dyn Any + Send + Sync>,
    ),
}

// SAFETY: the pointer is the sole handle of its allocation; access through a shared `Mapping` is
// atomic, or from the owner of a `Buffer`, whose ranges do not overlap.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`: concurrent access is atomic or of disjoint ranges, see the file's top.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(
        start: NonNull<u8>,
        length: usize,
        backing: Backing,
        (agent, access): (Agent, Access),
    ) -> Self {
        let is_plain = matches!(agent, Agent::Device) && !matches!(backing, Backing::Foreign);
        Self { start, length, backing, agent, access, is_shared: false, is_plain }
    }

    /// Leaves the bytes to other code.
    fn into_shared(self) -> Self {
        let mut this = self;
        (this.is_shared, this.is_plain) = (true, false);
        this
    }

    /// Panics if the bytes are not for buffers to copy.
    fn assert_local(&self) {
        assert!(!self.is_shared, "shared memory is read and written by its owner");
        assert!(
            !matches!(self.backing, Backing::Foreign),
            "the memory of a device cannot be copied by the processor",
        );
    }

    /// Allocates memory of the heap, for callers of a provider; users of this crate have
    /// [`ProtectionDomain::allocate`](crate::ProtectionDomain::allocate).
    ///
    /// `None` when there is no memory, or `length` is 0 or beyond any address space.
    pub fn allocate(length: usize, agent: Agent, access: Access) -> Option<Self> {
        let page = page_size();
        let size = length.checked_next_multiple_of(page).filter(|&size| size > 0)?;
        let layout = Layout::from_size_align(size, page).ok()?;
        // SAFETY: the layout's size is not zero, which was checked on the way to it.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Self::new(start, length, Backing::Heap(layout), (agent, access)))
    }

    /// The first `length` bytes of pages.
    pub(crate) fn of_pages(pages: Pages, length: usize, agent: Agent, access: Access) -> Self {
        assert!(length <= pages.len(), "the pages were mapped for {length} bytes");
        Self::new(pages.start(), length, Backing::Pages(pages), (agent, access))
    }

    /// The caller's memory; handed back when it has no bytes.
    pub(crate) fn of_vector(
        vector: Vec<u8>,
        agent: Agent,
        access: Access,
    ) -> Result<Self, Vec<u8>> {
        if vector.is_empty() {
            return Err(vector);
        }
        let mut vector = ManuallyDrop::new(vector);
        let (length, capacity) = (vector.len(), vector.capacity());
        let start = NonNull::from(vector.as_mut_slice()).cast();
        Ok(Self::new(start, length, Backing::Vector { capacity }, (agent, access)))
    }

    /// Memory of a device, by the address that work requests use; not 0.
    pub(crate) fn foreign(
        address: NonZero<usize>,
        length: usize,
        agent: Agent,
        access: Access,
    ) -> Self {
        let start = NonNull::without_provenance(address);
        Self::new(start, length, Backing::Foreign, (agent, access))
    }

    /// The NUMA node that it begins on, if it was mapped by itself and the kernel tells.
    pub(crate) fn node(&self) -> Option<u32> {
        match &self.backing {
            Backing::Pages(pages) => pages.node(),
            _ => None,
        }
    }

    fn is_callers(&self) -> bool {
        matches!(self.backing, Backing::Vector { .. })
    }

    /// The caller's memory again.
    ///
    /// # Panics
    ///
    /// When it is [not the caller's](Self::is_callers).
    pub(crate) fn into_vector(self) -> Vec<u8> {
        let this = ManuallyDrop::new(self);
        let Backing::Vector { capacity } = this.backing else {
            panic!("only the caller's memory goes back to the caller");
        };
        // SAFETY: `of_vector` took a vector apart into these numbers; `this` is never dropped, and
        // was the sole owner.
        unsafe { Vec::from_raw_parts(this.start.as_ptr(), this.length, capacity) }
    }

    /// Address of the memory, as a number.
    #[inline]
    pub fn address(&self) -> u64 {
        self.start.addr().get() as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Access that every registration of the memory gives, to this side and to the peer. It is
    /// fixed when the memory is allocated: memory for sending only stays so.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns true if a device may write the memory.
    #[inline]
    fn is_writable(&self) -> bool {
        self.access.contains(Access::LOCAL_WRITE)
    }

    /// Never: memory of no length is not made.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads bytes, as the device of a provider within this process does.
    ///
    /// # Panics
    ///
    /// When the range is not within the memory, or it was not made for [`Agent::Thread`], which
    /// is to say by [`Provider::agent`](crate::Provider::agent).
    pub fn device_read(&self, offset: usize, out: &mut [u8]) {
        assert_eq!(self.agent, Agent::Thread, "only memory shared between threads is copied so");
        self.at(offset, out.len());
        self.read_shared(offset, out);
    }

    /// Writes bytes, as the device of a provider within this process does.
    ///
    /// # Panics
    ///
    /// When the range is not within the memory, when it was not made for [`Agent::Thread`], which
    /// is to say by [`Provider::agent`](crate::Provider::agent), or when its
    /// [access](Self::access) is without [`LOCAL_WRITE`](Access::LOCAL_WRITE): bytes that no
    /// device may write can be borrowed.
    pub fn device_write(&self, offset: usize, bytes: &[u8]) {
        assert_eq!(self.agent, Agent::Thread, "only memory shared between threads is copied so");
        assert!(self.is_writable(), "the memory was made for sending only");
        self.at(offset, bytes.len());
        self.write_shared(offset, bytes);
    }

    /// The memory, for the call that registers it. Not to be read or written through.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Copies from a range.
    ///
    /// # Safety
    ///
    /// It is within the memory.
    #[inline]
    unsafe fn read_within(&self, offset: usize, out: &mut [u8]) {
        if !self.is_plain {
            return self.copy_out_shared(offset, out);
        }
        debug_assert!(is_within(offset, out.len(), self.length), "the caller checks");
        // SAFETY: as the caller promises, it is within the allocation, or one past its end.
        let from = unsafe { self.start.add(offset) };
        // SAFETY: the range is within, and lives as long as `self`; `out` is borrowed
        // exclusively, as registered memory never is, so they are disjoint.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), out.as_mut_ptr(), out.len()) };
    }

    // Apart, as the next, so that a profiler can tell them from what a real device needs.
    #[inline(never)]
    fn copy_out_shared(&self, offset: usize, out: &mut [u8]) {
        self.assert_local();
        self.read_shared(offset, out);
    }

    #[inline(never)]
    fn copy_in_shared(&self, offset: usize, bytes: &[u8]) {
        self.assert_local();
        self.write_shared(offset, bytes);
    }

    #[inline(never)]
    fn read_shared(&self, offset: usize, out: &mut [u8]) {
        for (shared, byte) in self.bytes(offset, out.len()).iter().zip(out) {
            *byte = shared.load(Ordering::Relaxed);
        }
    }

    #[inline(never)]
    fn write_shared(&self, offset: usize, bytes: &[u8]) {
        for (shared, byte) in self.bytes(offset, bytes.len()).iter().zip(bytes) {
            shared.store(*byte, Ordering::Relaxed);
        }
    }

    /// Copies to a range.
    ///
    /// # Safety
    ///
    /// It is within the memory.
    #[inline]
    unsafe fn write_within(&self, offset: usize, bytes: &[u8]) {
        if !self.is_plain {
            return self.copy_in_shared(offset, bytes);
        }
        debug_assert!(is_within(offset, bytes.len(), self.length), "the caller checks");
        // SAFETY: as the caller promises, it is within the allocation, or one past its end.
        let to = unsafe { self.start.add(offset) };
        // SAFETY: the range is within, and lives as long as `self`; only its buffer's owner gets
        // here, by `&mut self`, so that `bytes` is no borrow of it, and elsewhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }

    fn fill(&self, offset: usize, length: usize, byte: u8) {
        self.assert_local();
        let to = self.at(offset, length);
        match self.agent {
            // SAFETY: `at` checked the range; only the owner of the buffer that covers it, which
            // is borrowed exclusively, gets here.
            Agent::Device => unsafe { ptr::write_bytes(to.as_ptr(), byte, length) },
            Agent::Thread => {
                for shared in self.bytes(offset, length) {
                    shared.store(byte, Ordering::Relaxed);
                }
            }
        }
    }

    fn bytes(&self, offset: usize, length: usize) -> &[AtomicU8] {
        let at = self.at(offset, length).cast::<AtomicU8>();
        // SAFETY: `at` checked the range; with `Agent::Thread` every access is by `AtomicU8`,
        // since the other arms of `read`, `write` and `fill` are then never taken.
        unsafe { &*ptr::slice_from_raw_parts(at.as_ptr(), length) }
    }

    #[inline]
    fn at(&self, offset: usize, length: usize) -> NonNull<u8> {
        if !is_within(offset, length, self.length) {
            out_of_bounds(offset, length, self.length);
        }
        assert!(
            !matches!(self.backing, Backing::Foreign),
            "the memory of a device cannot be copied by the processor",
        );
        // SAFETY: the range was just checked to be within the memory.
        unsafe { self.start.add(offset) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: `allocate` made it with this layout; buffers and registrations hold the
            // mapping in an `Arc`, so nothing uses the memory any more.
            Backing::Heap(layout) => unsafe { alloc::dealloc(self.start.as_ptr(), layout) },
            Backing::Vector { capacity } => {
                // SAFETY: `of_vector` took a vector apart into these numbers; nothing uses the
                // memory any more, as above. Bytes need no care of their own.
                drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), 0, capacity) });
            }
            Backing::Pages(_) | Backing::Foreign | Backing::Owner(_) => {}
        }
    }
}

pub(crate) fn page_size() -> usize {
    // Not by rustix, which looks into the vDSO and crashes under valgrind.
    // SAFETY: the call takes a number and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("length", &self.memory.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
