//! Memory mapped by itself: huge pages, pages of one NUMA node, and pages of a file.
//!
//! # Safety
//!
//! This file exists because the kernel gives such memory by `mmap` only. It promises that a
//! [`Pages`] is the one owner of its mapping, which is readable and writable, and is unmapped
//! exactly once, when it is dropped; a [`Mapping`](crate::memory::Mapping) holds it as long as
//! anything uses the memory. Anonymous pages are zeroed, and nothing else has them; those of a file
//! are shared with all that map it, so that they back shared memory alone.

#![allow(unsafe_code)]

use std::{io, os::fd::BorrowedFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::page_size;

/// Size of the pages of memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PageSize {
    /// The system's own, 4 KiB on most.
    #[default]
    Base,
    /// 2 MiB; the system must have such pages in reserve.
    TwoMebibytes,
    /// 1 GiB; the system must have such pages in reserve.
    OneGibibyte,
}

impl PageSize {
    /// The size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Base => page_size(),
            Self::TwoMebibytes => 2 << 20,
            Self::OneGibibyte => 1 << 30,
        }
    }

    fn flags(self) -> MapFlags {
        match self {
            Self::Base => MapFlags::PRIVATE,
            Self::TwoMebibytes => MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB,
            Self::OneGibibyte => MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_1GB,
        }
    }
}

/// A mapping of whole pages, with no other allocation on them.
pub(crate) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

impl Pages {
    /// At least `length` zeroed bytes; nothing is left to chance later, since huge pages are
    /// reserved by this call.
    ///
    /// # Errors
    ///
    /// ENOMEM: no memory, or too few huge pages in reserve; EINVAL: no pages of this size.
    pub(crate) fn map(length: usize, size: PageSize) -> io::Result<Self> {
        let length = length
            .checked_next_multiple_of(size.bytes())
            .filter(|&length| length > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces none.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                size.flags(),
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Pages of a file from `offset` on, shared with it.
    ///
    /// # Errors
    ///
    /// EACCES: the file is not open for reading and writing; EINVAL: the offset is no multiple of
    /// the page size, or `length` is 0; ENODEV: files of this kind are not mapped.
    pub(crate) fn map_file(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let length =
            length.checked_next_multiple_of(page_size()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces none.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Asks for pages of a NUMA node, as long as it has some. Before the memory is first used.
    ///
    /// # Errors
    ///
    /// EINVAL: there is no such node. ENOSYS, EPERM: the kernel, or the container, has no say.
    pub(crate) fn prefer(&self, node: u32) -> io::Result<()> {
        let (mask, bit) = ((node / u64::BITS) as usize, node % u64::BITS);
        let mut nodes = [0u64; NODES_MAX / 64];
        *nodes.get_mut(mask).ok_or(io::ErrorKind::InvalidInput)? = 1 << bit;
        // SAFETY: the range is this mapping's own, and the mask lives during the call. The kernel
        // takes one more than the number of bits.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.length,
                libc::c_long::from(libc::MPOL_PREFERRED),
                nodes.as_ptr(),
                NODES_MAX + 1,
                0 as libc::c_long,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// NUMA node of the first page, once it was used; `None` when the kernel does not tell.
    pub(crate) fn node(&self) -> Option<u32> {
        let mut node: libc::c_int = -1;
        // SAFETY: the number is writable; the address is only looked up.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut node,
                std::ptr::null_mut::<u64>(),
                0 as libc::c_long,
                self.start.as_ptr(),
                MPOL_F_NODE | MPOL_F_ADDR,
            )
        };
        if result == 0 { u32::try_from(node).ok() } else { None }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the sole owner of the mapping, which was made with this length. Failing leaks.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Flag of `<linux/mempolicy.h>`: ask for the node ...
const MPOL_F_NODE: libc::c_long = 1;
/// ... that the page of an address is on.
const MPOL_F_ADDR: libc::c_long = 2;

/// Nodes that a mask can name; the most that Linux can be built for.
const NODES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_on_their_boundary() {
        let pages = Pages::map(5000, PageSize::Base).expect("there is memory");
        assert_eq!(pages.len(), 5000usize.next_multiple_of(page_size()));
        assert_eq!(pages.start().addr().get() % page_size(), 0);
        assert!(Pages::map(0, PageSize::Base).is_err());
        assert!(Pages::map(usize::MAX, PageSize::TwoMebibytes).is_err());
    }

    #[test]
    fn a_node_that_cannot_be_is_refused() {
        let pages = Pages::map(1, PageSize::Base).expect("there is memory");
        for node in [1023, 1024, u32::MAX] {
            assert!(pages.prefer(node).is_err(), "no machine has node {node}");
        }
    }
}
