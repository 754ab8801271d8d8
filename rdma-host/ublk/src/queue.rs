//! Hardware queues: requests and their completions.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use verbs::SharedMemory;

use crate::{
    device::Device,
    error::Error,
    layout::IoDescriptor,
    sys::{Event, QueueRing},
};

/// Kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Blocks to memory.
    Read,
    /// Blocks from memory; with Force Unit Access if the flag is set.
    Write {
        /// Completion once the blocks are non-volatile.
        force_unit_access: bool,
    },
    /// Completed writes become non-volatile.
    Flush,
    /// The content of blocks is not needed any more.
    Discard,
    /// Blocks become zeros, which may deallocate them unless the flag is set.
    WriteZeroes {
        /// The blocks stay allocated.
        no_unmap: bool,
    },
    /// Another one, by its number.
    Other(u8),
}

/// Request of the block layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number by which it is completed; its memory is the one of this number.
    pub tag: u16,
    /// Kind.
    pub operation: Operation,
    /// First sector of 512 bytes.
    pub sector: u64,
    /// Number of sectors of 512 bytes.
    pub sectors: u32,
    /// Place of the data in the memory that is [shared](crate::Control::share), in bytes from its
    /// start, if it is there.
    pub shared_offset: Option<u32>,
}

/// Request of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagState {
    /// The driver has the tag, or its data is being copied.
    Free,
    /// The owner of the queue has the request.
    Taken { is_shared: bool },
}

/// Hardware queue of a device, for the thread that made it.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<ublk::Queue>();
/// ```
pub struct Queue {
    ring: QueueRing,
    device: Arc<Device>,
    tags: Box<[TagState]>,
    /// Number of tags that the driver has given back for good.
    ended: u16,
}

impl Queue {
    /// Begins to serve a queue from this thread. The data of the request with tag `t` is
    /// [`offset`](Self::offset) bytes from the start of `memory`.
    ///
    /// # Errors
    ///
    /// When the memory is too small, or the process may have no io_uring.
    pub fn new(device: &Arc<Device>, index: u16, memory: SharedMemory) -> Result<Self, Error> {
        let Device { depth, bytes_max, .. } = **device;
        if memory.len() < device.memory_bytes() {
            return Err(Error::Memory { bytes: memory.len(), depth, bytes_max });
        }
        let ring = QueueRing::new(device, index, memory).map_err(Error::Ring)?;
        let tags = vec![TagState::Free; usize::from(depth)].into_boxed_slice();
        Ok(Self { ring, device: Arc::clone(device), tags, ended: 0 })
    }

    /// Place of the data of a request in the memory, in bytes from its start.
    #[inline]
    #[must_use]
    pub fn offset(&self, tag: u16) -> usize {
        usize::from(tag) * self.device.bytes_max as usize
    }

    /// Next request, if there is one, with its data in the memory if it is a write. Makes no system
    /// call; where this process copies data, a write comes after the next [`submit`](Self::submit).
    #[inline]
    pub fn next_request(&mut self) -> Option<Request> {
        loop {
            match self.ring.next()? {
                Event::Wake => {}
                Event::Request(tag) => {
                    let request = self.request(tag);
                    match request.shared_offset {
                        Some(_) if self.device.has_shared.load(Ordering::Relaxed) => {
                            return Some(self.take(request));
                        }
                        // A process before this one shared the memory. The driver copies nothing.
                        Some(_) if !self.device.user_copy => self.ring.commit(tag, -libc::EIO),
                        _ if self.device.user_copy && request.has_data() => {
                            self.ring.copy_from_request(tag, request.copied_bytes());
                        }
                        _ => return Some(self.take(Request { shared_offset: None, ..request })),
                    }
                }
                Event::Copied { tag, result } => {
                    let request = Request { shared_offset: None, ..self.request(tag) };
                    if request.is_whole(result) {
                        return Some(self.take(request));
                    }
                    // Not for want of life: a process that was killed does not come here.
                    self.ring.commit(tag, -libc::EIO);
                }
                Event::Ended => self.ended += 1,
            }
        }
    }

    fn take(&mut self, request: Request) -> Request {
        let is_shared = request.shared_offset.is_some();
        self.tags[usize::from(request.tag)] = TagState::Taken { is_shared };
        request
    }

    fn request(&self, tag: u16) -> Request {
        Request::new(tag, self.ring.descriptor(tag))
    }

    /// Completes a request with the number of bytes that were transferred, or a negative number of
    /// errno, once [`submit`](Self::submit) is called.
    ///
    /// # Panics
    ///
    /// When there is no request with this tag.
    #[inline]
    pub fn complete(&mut self, tag: u16, result: i32) {
        let state = std::mem::replace(&mut self.tags[usize::from(tag)], TagState::Free);
        assert_ne!(state, TagState::Free, "tag {tag} was completed");
        let is_copied = self.device.user_copy && state == TagState::Taken { is_shared: false };
        match u32::try_from(result) {
            Ok(bytes @ 1..) if is_copied && self.request(tag).operation == Operation::Read => {
                self.ring.copy_and_commit(tag, bytes);
            }
            _ => self.ring.commit(tag, result),
        }
    }

    /// Hands completions to the driver, with one system call if there are any. Returns true if
    /// there were.
    ///
    /// # Errors
    ///
    /// When io_uring fails.
    #[inline]
    pub fn submit(&mut self) -> Result<bool, Error> {
        self.ring.submit().map_err(Error::Ring)
    }

    /// Sleeps until there is a request, `other` is readable or the time is over; it submits before.
    /// The other descriptor is always the same.
    ///
    /// # Errors
    ///
    /// When io_uring fails.
    pub fn sleep(&mut self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<(), Error> {
        self.ring.sleep(other, limit).map_err(Error::Ring)
    }

    /// Returns true if the other descriptor of the latest [`sleep`](Self::sleep) has not become
    /// readable, as far as all [requests](Self::next_request) were taken.
    #[inline]
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.ring.is_polling()
    }

    /// Returns true once the device was stopped and all requests have completed.
    #[inline]
    #[must_use]
    pub fn is_ended(&self) -> bool {
        usize::from(self.ended) == self.tags.len()
    }
}

impl Request {
    fn new(tag: u16, descriptor: IoDescriptor) -> Self {
        const FORCE_UNIT_ACCESS: u32 = 1 << 13;
        const NO_UNMAP: u32 = 1 << 15;
        let IoDescriptor { operation_flags, sectors, sector, .. } = descriptor;
        let has = |flag: u32| operation_flags & flag != 0;
        let operation = match (operation_flags & 0xff) as u8 {
            0 => Operation::Read,
            1 => Operation::Write { force_unit_access: has(FORCE_UNIT_ACCESS) },
            2 => Operation::Flush,
            3 => Operation::Discard,
            5 => Operation::WriteZeroes { no_unmap: has(NO_UNMAP) },
            other => Operation::Other(other),
        };
        let shared_offset = descriptor.buffer_offset();
        Self { tag, operation, sector, sectors, shared_offset }
    }

    /// True if data goes from the request to the device.
    fn has_data(&self) -> bool {
        matches!(self.operation, Operation::Write { .. })
    }

    /// True if a copy with this result has brought all data of the request.
    fn is_whole(&self, result: i32) -> bool {
        self.has_data() && u32::try_from(result) == Ok(self.copied_bytes())
    }

    /// Bytes of the data of a read or a write, of which the device's maximum has 32 bits.
    fn copied_bytes(&self) -> u32 {
        self.sectors << 9
    }

    /// Bytes of the request.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.sectors) << 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_numbers_of_the_driver() {
        let request = |operation_flags| {
            let descriptor = IoDescriptor { operation_flags, sectors: 8, sector: 16, address: 0 };
            Request::new(3, descriptor)
        };
        for (flags, operation) in [
            (0, Operation::Read),
            (1 | 1 << 8, Operation::Write { force_unit_access: false }),
            (1 | 1 << 13, Operation::Write { force_unit_access: true }),
            (2, Operation::Flush),
            (3, Operation::Discard),
            (5, Operation::WriteZeroes { no_unmap: false }),
            (5 | 1 << 15, Operation::WriteZeroes { no_unmap: true }),
            (4, Operation::Other(4)),
            (18, Operation::Other(18)),
        ] {
            let expected =
                Request { tag: 3, operation, sector: 16, sectors: 8, shared_offset: None };
            assert_eq!(request(flags), expected, "{flags:#x}");
        }
        assert_eq!(request(0).bytes(), 4096);
    }

    #[test]
    fn data_is_in_shared_memory_if_the_driver_says_so() {
        let address = 0xffff_f000;
        let request = |operation_flags| {
            Request::new(0, IoDescriptor { operation_flags, sectors: 8, sector: 0, address })
        };
        assert_eq!(request(1).shared_offset, None);
        assert_eq!(request(1 | 1 << 19).shared_offset, Some(0xffff_f000));
    }

    /// No part of a write is executed.
    #[test]
    fn a_write_is_whole_or_fails() {
        let write = Operation::Write { force_unit_access: false };
        let write =
            Request { tag: 3, operation: write, sector: 16, sectors: 8, shared_offset: None };
        let read = Request { operation: Operation::Read, ..write };
        assert!(write.is_whole(4096) && !read.is_whole(4096));
        for result in [-libc::EINVAL, 0, 512, 4095] {
            assert!(!write.is_whole(result), "{result}");
        }
    }
}
