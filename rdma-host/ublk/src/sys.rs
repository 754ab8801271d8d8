//! System calls: rings of io_uring, the mapping of request descriptors, the mount namespace.
//!
//! # Safety
//!
//! The file exists because io_uring takes addresses, which the kernel uses until a command has
//! completed. A control command has a buffer of its own, which is leaked if the command does not
//! complete in time. A queue owns its memory, which no Rust reference is ever made to; it is leaked
//! if the queue ends while the driver or io_uring may still copy to or from it.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    marker::PhantomData,
    mem::{ManuallyDrop, size_of},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    mount::{MountPropagationFlags, mount_change},
    thread::UnshareFlags,
};
use verbs::SharedMemory;
use zerocopy::IntoBytes;

use crate::{
    device::Device,
    layout::{
        COMMIT_AND_FETCH, ControlCommand, DEPTH_MAX, FETCH, IoCommand, IoDescriptor, data_position,
    },
};

/// Ring of commands to the driver, one at a time.
pub(crate) struct ControlRing {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    /// Number of the latest command: that of one that came too late is another.
    number: u64,
}

impl ControlRing {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ring: IoUring::builder().build(4)?, number: 0 })
    }

    /// Sends a command with bytes that the driver reads and may write; returns its result, or
    /// `None` if there was none in time.
    pub(crate) fn call(
        &mut self,
        file: &File,
        operation: u32,
        command: ControlCommand,
        bytes: &mut [u8],
        limit: Duration,
    ) -> io::Result<Option<i32>> {
        let length = bytes.len();
        let buffer = Box::into_raw(bytes.to_vec().into_boxed_slice());
        let address = if length == 0 { 0 } else { buffer.cast::<u8>() as u64 };
        let command = ControlCommand { address, ..command };
        let mut words = [0; 80];
        words[..size_of::<ControlCommand>()].copy_from_slice(command.as_bytes());
        self.number += 1;
        let entry = opcode::UringCmd80::new(types::Fd(file.as_raw_fd()), operation).cmd(words);
        let entry = entry.build().user_data(self.number);
        // SAFETY: the buffer is not touched or freed before the command has completed; the ring
        // keeps the file open.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            let Some(result) = self.wait(limit)? else { return Ok(None) };
            // SAFETY: the pointer is that of a box, and the command has completed.
            let buffer = unsafe { Box::from_raw(buffer) };
            bytes.copy_from_slice(&buffer);
            return Ok(Some(result));
        }
        Err(io::Error::other("the ring is full of commands without an answer"))
    }

    fn wait(&mut self, limit: Duration) -> io::Result<Option<i32>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            enter(&self.ring.submitter(), left)?;
            let number = self.number;
            let found = self.ring.completion().find(|entry| entry.user_data() == number);
            if let Some(entry) = found {
                return Ok(Some(entry.result()));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

/// Submits, and waits for a completion, a signal or the end of the time. Returns the number of
/// entries that the kernel took.
fn enter(submitter: &io_uring::Submitter<'_>, limit: Duration) -> io::Result<usize> {
    let timespec = types::Timespec::from(limit);
    let arguments = types::SubmitArgs::new().timespec(&timespec);
    match submitter.submit_with_args(1, &arguments) {
        Ok(submitted) => Ok(submitted),
        // Errors of the wait, or of the first entry: the kernel took none.
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(0),
            _ => Err(error),
        },
    }
}

/// Event of a queue.
pub(crate) enum Event {
    /// The other descriptor is readable.
    Wake,
    /// There is a request with this tag.
    Request(u16),
    /// The data of a request was copied to the memory, as many bytes as the result has; or not, or
    /// not all of that of a read to the request, which is then not completed.
    Copied { tag: u16, result: i32 },
    /// The driver has given a tag back for good.
    Ended,
}

/// Number of the event that another descriptor is readable, beyond all tags.
const WAKE: u64 = 1 << 32;

/// Bit of the event that the data of the request with a tag was copied, above all tags.
const COPY: u64 = 1 << 16;

/// Ring of one queue, with the descriptors of its requests and the memory of their data.
pub(crate) struct QueueRing {
    ring: ManuallyDrop<IoUring>,
    device: Arc<Device>,
    index: u16,
    descriptors: NonNull<IoDescriptor>,
    /// Bytes of the mapping of the descriptors.
    mapped: usize,
    memory: ManuallyDrop<SharedMemory>,
    /// Number of tags that the driver has, and may copy data of, or that io_uring copies data of.
    with_driver: u16,
    /// Number of entries that were not submitted.
    queued: u16,
    is_polling: bool,
    /// The driver knows the thread that fetched first, and refuses others.
    _thread: PhantomData<Rc<()>>,
}

impl QueueRing {
    /// Fetches with all tags. The memory has room for them all.
    pub(crate) fn new(device: &Arc<Device>, index: u16, memory: SharedMemory) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes =
            |depth: u16| (usize::from(depth) * size_of::<IoDescriptor>()).next_multiple_of(page);
        let (mapped, offset) = (bytes(device.depth), bytes(DEPTH_MAX) * usize::from(index));
        let entries = u32::from(device.depth) * if device.user_copy { 2 } else { 1 } + 1;
        let ring = IoUring::builder().setup_single_issuer().build(entries.next_power_of_two())?;
        let (flags, file) = (MapFlags::SHARED | MapFlags::POPULATE, &device.file);
        // SAFETY: a new mapping, where the kernel wants it.
        let descriptors =
            unsafe { mmap(ptr::null_mut(), mapped, ProtFlags::READ, flags, file, offset as u64) }?;
        let mut this = Self {
            ring: ManuallyDrop::new(ring),
            device: Arc::clone(device),
            index,
            descriptors: NonNull::new(descriptors).expect("not at address 0").cast(),
            mapped,
            memory: ManuallyDrop::new(memory),
            with_driver: 0,
            queued: 0,
            is_polling: false,
            _thread: PhantomData,
        };
        (0..device.depth).for_each(|tag| this.push(FETCH, tag, -1));
        this.submit()?;
        Ok(this)
    }

    pub(crate) fn commit(&mut self, tag: u16, result: i32) {
        self.push(COMMIT_AND_FETCH, tag, result);
    }

    /// Copies data from a request to the memory.
    pub(crate) fn copy_from_request(&mut self, tag: u16, bytes: u32) {
        let (memory, bytes) = (self.address(tag) as *mut u8, bytes.min(self.device.bytes_max));
        let entry = opcode::Read::new(self.file(), memory, bytes);
        let entry = entry.offset(data_position(self.index, tag)).build();
        self.with_driver += 1;
        self.push_entry(&entry.user_data(COPY | u64::from(tag)));
    }

    /// Copies data from the memory to a request, and completes it then with that many bytes. If not
    /// all is copied it is not completed, and there is one event, that of the copy: while a process
    /// is being killed, the request stays, and the next process is given it again.
    pub(crate) fn copy_and_commit(&mut self, tag: u16, bytes: u32) {
        let (memory, bytes) = (self.address(tag) as *const u8, bytes.min(self.device.bytes_max));
        let entry = opcode::Write::new(self.file(), memory, bytes);
        let entry = entry.offset(data_position(self.index, tag)).build();
        let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        self.push_entry(&entry.flags(flags).user_data(COPY | u64::from(tag)));
        self.commit(tag, bytes.cast_signed());
    }

    /// Address of the memory of a request.
    fn address(&self, tag: u16) -> u64 {
        let offset = usize::from(tag) * self.device.bytes_max as usize;
        self.memory.address() + offset as u64
    }

    fn file(&self) -> types::Fd {
        types::Fd(self.device.file.as_raw_fd())
    }

    fn push(&mut self, operation: u32, tag: u16, result: i32) {
        // The driver takes none where this process copies.
        let address = if self.device.user_copy { 0 } else { self.address(tag) };
        let command = IoCommand { queue: self.index, tag, result, address };
        let command = zerocopy::transmute!(command);
        let entry = opcode::UringCmd16::new(self.file(), operation).cmd(command).build();
        self.with_driver += 1;
        self.push_entry(&entry.user_data(tag.into()));
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry has no address but that of memory which this queue owns, as long as the
        // driver has the tag.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("there is room for the entries of all tags and one more");
        self.queued += 1;
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let entry = self.ring.completion().next()?;
        if entry.user_data() == WAKE {
            self.is_polling = false;
            return Some(Event::Wake);
        }
        self.with_driver -= 1;
        let tag = u16::try_from(entry.user_data() & !COPY).expect("a tag");
        if entry.user_data() & COPY != 0 {
            return Some(Event::Copied { tag, result: entry.result() });
        }
        Some(if entry.result() == 0 { Event::Request(tag) } else { Event::Ended })
    }

    /// Descriptor of a request.
    pub(crate) fn descriptor(&self, tag: u16) -> IoDescriptor {
        assert!(tag < self.device.depth, "tag {tag} of {}", self.device.depth);
        // SAFETY: the mapping has a descriptor for each tag.
        let descriptor = unsafe { self.descriptors.add(usize::from(tag)) };
        // SAFETY: it is mapped, and any bytes are a descriptor; the driver wrote it before it
        // completed the fetch, which synchronizes.
        unsafe { descriptor.read_volatile() }
    }

    /// True while another descriptor is watched that has not become readable.
    pub(crate) fn is_polling(&self) -> bool {
        self.is_polling
    }

    /// Submits what was pushed; returns true if that was something. Without memory the kernel takes
    /// no more entries: the rest is submitted by the next call.
    pub(crate) fn submit(&mut self) -> io::Result<bool> {
        if self.queued == 0 {
            return Ok(false);
        }
        let submitted = submit(&self.ring)?;
        self.note_submitted(submitted)?;
        Ok(true)
    }

    /// Notes entries that the kernel took.
    ///
    /// # Errors
    ///
    /// When an entry may have been taken without the one that is linked to it: a read would be
    /// completed though its copy failed. All requests are left to the next process.
    fn note_submitted(&mut self, submitted: usize) -> io::Result<()> {
        self.queued -= u16::try_from(submitted).expect("no more than there were");
        if self.queued > 0 && submitted > 0 && self.device.user_copy {
            return Err(io::Error::other("the kernel has taken a part of the entries"));
        }
        Ok(())
    }

    pub(crate) fn sleep(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> io::Result<()> {
        if let Some(other) = other.filter(|_| !self.is_polling) {
            let readable = u32::from(libc::POLLIN.cast_unsigned());
            let entry = opcode::PollAdd::new(types::Fd(other.as_raw_fd()), readable).build();
            self.push_entry(&entry.user_data(WAKE));
            self.is_polling = true;
        }
        let submitted = enter(&self.ring.submitter(), limit)?;
        self.note_submitted(submitted)
    }
}

/// Submits; returns the number of entries that the kernel took.
fn submit(ring: &IoUring) -> io::Result<usize> {
    loop {
        match ring.submit() {
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EBUSY | libc::EAGAIN) => return Ok(0),
                _ => return Err(error),
            },
            submitted => return submitted,
        }
    }
}

impl Drop for QueueRing {
    fn drop(&mut self) {
        // SAFETY: the ring is not used any more.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        // SAFETY: nothing refers to the mapping, which is this queue's.
        let unmapped = unsafe { munmap(self.descriptors.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok());
        // Otherwise the driver may copy from or to it until the process ends.
        if self.with_driver == 0 {
            // SAFETY: the memory is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// Gives this thread, and those that it starts from here on, a mount namespace of its own, into
/// which mounts and unmounts propagate, but not out of it: so that the end of the process never
/// unmounts a file system that is on its own device.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: only the mount namespace is left, which no memory depends on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that is refused ends a submission, as a lack of memory does.
    #[test]
    fn the_rest_of_a_submission_is_submitted_by_the_next() {
        let Ok(mut ring) = IoUring::new(8) else {
            println!("SKIPPED: this process may have no io_uring");
            return;
        };
        let entry = |number| opcode::Nop::new().build().user_data(number);
        let refused = entry(1).flags(squeue::Flags::BUFFER_SELECT);
        for entry in [entry(0), refused, entry(2), entry(3)] {
            // SAFETY: the entries have no address that the kernel would read or write.
            unsafe { ring.submission().push(&entry) }.unwrap();
        }
        assert_eq!(submit(&ring).unwrap(), 2);
        assert_eq!(ring.submission().len(), 2, "the kernel left them there");
        assert_eq!(enter(&ring.submitter(), Duration::from_secs(60)).unwrap(), 2);
        let numbers: Vec<_> = ring.completion().map(|entry| entry.user_data()).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(enter(&ring.submitter(), Duration::ZERO).unwrap(), 0);
    }
}
