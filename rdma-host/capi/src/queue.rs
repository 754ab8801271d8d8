//! Queues: commands of one thread.

mod poller_calls;
mod tags;

use std::{
    collections::VecDeque,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use quanta::Clock;
use rdma_host::{
    Buffer, Command, Controller, ExecutionStatus, Poller, SubmitError, WaitMode, Waiter,
    error::Error,
    wire::{BlockRange, NamespaceId, NamespaceInfo},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::Provider;

use self::{
    poller_calls::{Completions, PollerCalls, ProviderPoller},
    tags::Tags,
};
use crate::{
    error::CallError,
    handle::{Table, to_pointer},
    layout::{nvmf_completion, nvmf_memory, nvmf_queue, nvmf_statistics},
    memory::{MEMORIES, Memory},
};

/// All queues. The mutex is never locked: who locks the entry has the queue alone.
pub(crate) static QUEUES: Table<Mutex<Box<Queue>>, 4096> = Table::new(4, "nvmf_queue");

/// Sizes of blocks of the namespaces that a controller was asked about.
pub(crate) type BlockSizes = Arc<Mutex<Vec<(u32, u32)>>>;

/// Blocks of a namespace.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) nsid: u32,
    pub(crate) lba: u64,
    pub(crate) blocks: u32,
}

/// Place of data in memory.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Handle.
    pub(crate) memory: u64,
    pub(crate) offset: u64,
}

/// Command without memory of the program.
#[derive(Clone, Copy)]
pub(crate) enum Other<'a> {
    Flush { nsid: u32 },
    WriteZeroes { extent: Extent, deallocate: bool, forced: bool },
    Deallocate { nsid: u32, ranges: &'a [BlockRange] },
}

/// Queue of a controller.
pub(crate) struct Queue {
    poller: Box<dyn PollerCalls>,
    /// Number of the controller.
    number: u64,
    block_sizes: BlockSizes,
    /// Namespace that was used last, and the size of its blocks.
    last: (u32, u32),
    /// Maximum data of a command in bytes.
    bytes_max: u64,
    tags: Tags,
    /// Completions for which the program had no room.
    ready: VecDeque<nvmf_completion>,
    waiter: Waiter,
    /// Clock that is read without a system call where the processor's counter is one.
    clock: Clock,
}

/// Adds a queue over any provider, for programs in Rust that measure this library; the memory is
/// of the same controller. Returns the handles of both.
///
/// # Errors
///
/// The negative number of errno, if there are too many.
#[doc(hidden)]
pub fn add_queue<P: Provider>(
    controller: &Arc<Controller<P>>,
    poller: Poller<P>,
    namespace: &NamespaceInfo,
    bytes: usize,
) -> Result<(*mut nvmf_queue, *mut nvmf_memory), i32> {
    let block_sizes = Arc::new(Mutex::new(vec![(namespace.id.0, namespace.block_size)]));
    let added = || {
        let shared = controller.allocate_shared(bytes)?;
        let memory = MEMORIES.add(Memory { shared, controller: 0 })?;
        let queue = add(controller, poller, 0, &block_sizes)?;
        Ok((to_pointer(queue), to_pointer(memory)))
    };
    added().map_err(CallError::report)
}

/// Adds the queue of a poller; returns its handle.
pub(crate) fn add<P: Provider>(
    controller: &Arc<Controller<P>>,
    poller: Poller<P>,
    number: u64,
    block_sizes: &BlockSizes,
) -> Result<u64, CallError> {
    QUEUES.add(Mutex::new(Box::new(Queue {
        poller: Box::new(ProviderPoller { poller, controller: Arc::clone(controller) }),
        bytes_max: controller.negotiated().transfer_bytes_max,
        number,
        block_sizes: Arc::clone(block_sizes),
        last: (0, 0),
        tags: Tags::new(),
        ready: VecDeque::new(),
        waiter: Waiter::new(WaitMode::default()),
        clock: Clock::new(),
    })))
}

impl Queue {
    /// Submits the command that `command` makes of its blocks and the memory of their data. Each
    /// function for this is called here alone, which lets it be inlined.
    #[inline(always)] // of each command with data
    pub(crate) fn transfer(
        &mut self,
        command: impl FnOnce(NamespaceId, u64, u32, Buffer) -> Command,
        extent: Extent,
        place: Place,
        user: u64,
    ) -> Result<(), CallError> {
        self.with_buffer(extent, place, |queue, buffer| {
            let Extent { nsid, lba, blocks } = extent;
            let tag = queue.tags.take(user);
            let command = command(NamespaceId(nsid), lba, blocks, buffer).with_user(tag);
            queue.poller.submit(command).map_err(|error| queue.not_submitted(tag, error))
        })
    }

    /// Transfers consecutive blocks, each part to or from another place, as one command.
    pub(crate) fn transfer_parts(
        &mut self,
        command: impl Fn(NamespaceId, u64, u32, Buffer) -> Command,
        parts: &[(Extent, Place)],
        user: u64,
    ) -> Result<(), CallError> {
        let mut commands = Vec::with_capacity(parts.len());
        for &(extent, place) in parts {
            let Extent { nsid, lba, blocks } = extent;
            commands.push(self.with_buffer(extent, place, |_, buffer| {
                Ok(command(NamespaceId(nsid), lba, blocks, buffer))
            })?);
        }
        if commands.is_empty() {
            return Err(CallError::invalid("no segments; at least one is needed"));
        }
        if commands.len() > self.poller.depth() {
            let depth = self.poller.depth();
            return Err(CallError::invalid(format!("a queue takes {depth} segments at a time")));
        }
        if self.poller.room() < commands.len() {
            return Err(Error::from(rdma_host::error::Misuse::QueuesFull).into());
        }
        let tag = self.tags.take(user);
        let mut submitted = 0;
        for command in commands {
            match self.poller.submit(command.with_user(tag)) {
                Ok(()) => submitted += 1,
                Err(error) if submitted == 0 => return Err(self.not_submitted(tag, error)),
                Err(error) => {
                    self.tags.fail(tag, &error.error, ExecutionStatus::Unknown);
                    break;
                }
            }
        }
        self.tags.set_parts(tag, submitted);
        Ok(())
    }

    pub(crate) fn submit(&mut self, other: Other<'_>, user: u64) -> Result<(), CallError> {
        let command = match other {
            Other::Flush { nsid } => Command::flush(NamespaceId(nsid)),
            Other::WriteZeroes { extent, deallocate, forced } => {
                check_blocks(extent.blocks)?;
                let Extent { nsid, lba, blocks } = extent;
                let command = Command::write_zeroes(NamespaceId(nsid), lba, blocks, deallocate);
                if forced { command.with_force_unit_access() } else { command }
            }
            Other::Deallocate { nsid, ranges } => {
                if !(1..=BlockRange::COUNT_MAX).contains(&ranges.len()) {
                    let max = BlockRange::COUNT_MAX;
                    return Err(CallError::invalid(format!("a command takes 1 to {max} ranges")));
                }
                let buffer = self.poller.allocate(ranges.len() * BlockRange::SIZE)?;
                Command::deallocate(NamespaceId(nsid), ranges, buffer)
            }
        };
        let tag = self.tags.take(user);
        let submitted = self.poller.submit(command.with_user(tag));
        submitted.map_err(|error| self.not_submitted(tag, error))
    }

    #[inline]
    pub(crate) fn ring_doorbells(&mut self) -> Result<(), CallError> {
        Ok(self.poller.ring_doorbells()?)
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        out: &mut [MaybeUninit<nvmf_completion>],
    ) -> Result<usize, CallError> {
        let Self { poller, tags, ready, .. } = self;
        let (max, mut places) = (out.len(), out.iter_mut());
        while !ready.is_empty()
            && let Some(place) = places.next()
        {
            place.write(ready.pop_front().expect("it is not empty"));
        }
        if max > 0 && places.len() == 0 {
            return Ok(max);
        }
        let mut found = Completions { tags, places, ready };
        let polled = poller.poll(&mut found);
        let count = max - found.places.len();
        match polled {
            Err(error) if count == 0 => Err(error.into()),
            _ => Ok(count),
        }
    }

    pub(crate) fn wait(
        &mut self,
        out: &mut [MaybeUninit<nvmf_completion>],
        min: usize,
        limit: Option<Duration>,
    ) -> Result<usize, CallError> {
        // Set at the first look at the clock, so that completions that are there cost none.
        let mut deadline = None;
        let mut count = 0;
        loop {
            let polled = match self.poll(&mut out[count..]) {
                Ok(polled) => polled,
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            };
            count += polled;
            // More than what the program has submitted is not to come; some of it may be held by
            // the poller, and be in no queue.
            let is_all = self.tags.is_unused() && self.ready.is_empty();
            if count >= min.min(out.len()) || is_all {
                self.waiter.busy();
                return Ok(count);
            }
            if polled > 0 {
                self.waiter.busy();
                continue;
            }
            let left = limit.map(|limit| {
                let now = self.clock.now();
                // Both are less than 2^63 ns.
                deadline.get_or_insert(now + limit).duration_since(now)
            });
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(count);
            }
            if !self.waiter.spins() && self.arm()? {
                sleep(self.poller.event_descriptor()?, left)?;
            }
        }
    }

    pub(crate) fn arm(&mut self) -> Result<bool, CallError> {
        Ok(self.ready.is_empty() && self.poller.arm()?)
    }

    pub(crate) fn descriptor(&mut self) -> Result<RawFd, CallError> {
        Ok(self.poller.event_descriptor()?.as_raw_fd())
    }

    pub(crate) fn room(&self) -> usize {
        self.poller.room()
    }

    pub(crate) fn own_thread(&mut self, pollers: usize) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // More threads than processors would keep each other waiting.
        self.waiter = if pollers > processors {
            Waiter::new(WaitMode::default())
        } else {
            Waiter::on_own_thread(WaitMode::Poll, pollers)
        };
    }

    pub(crate) fn statistics(&mut self) -> nvmf_statistics {
        self.poller.statistics()
    }

    /// Calls a function with the data of a command.
    #[inline(always)] // of each command with data
    fn with_buffer<R>(
        &mut self,
        extent: Extent,
        place: Place,
        function: impl FnOnce(&mut Self, Buffer) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let Extent { nsid, blocks, .. } = extent;
        check_blocks(blocks)?;
        let block_size = if self.last.0 == nsid { self.last.1 } else { self.find(nsid)? };
        let bytes = u64::from(blocks) * u64::from(block_size);
        if bytes > self.bytes_max {
            return Err(too_large(bytes, self.bytes_max));
        }
        let memory = MEMORIES.read(place.memory)?;
        let memory = memory.get()?;
        if memory.controller != self.number {
            return Err(CallError::invalid("the memory is registered with another controller"));
        }
        let part = usize::try_from(place.offset).ok().zip(usize::try_from(bytes).ok());
        let Some(buffer) = part.and_then(|(offset, bytes)| memory.shared.part(offset, bytes))
        else {
            return Err(outside(place.offset, bytes, memory.shared.len()));
        };
        function(self, buffer)
    }

    #[cold]
    fn not_submitted(&mut self, tag: u64, error: SubmitError) -> CallError {
        self.tags.give(tag);
        error.into()
    }

    /// Size of a block of another namespace than the last.
    #[cold]
    fn find(&mut self, nsid: u32) -> Result<u32, CallError> {
        let sizes = self.block_sizes.lock();
        let Some(&found) = sizes.iter().find(|(known, _)| *known == nsid) else {
            let text = format!("the size of a block of namespace {nsid} is not known");
            return Err(CallError::invalid(format!("{text}: call nvmf_namespace_get first")));
        };
        self.last = found;
        Ok(found.1)
    }
}

/// Sleeps until the descriptor is readable, or for this time.
fn sleep(descriptor: BorrowedFd<'_>, limit: Option<Duration>) -> Result<(), CallError> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(CallError::system("poll", &error.into())),
    }
}

#[inline]
fn check_blocks(blocks: u32) -> Result<(), CallError> {
    if (1..=0x1_0000).contains(&blocks) { Ok(()) } else { Err(wrong_blocks(blocks)) }
}

#[cold]
fn wrong_blocks(blocks: u32) -> CallError {
    CallError::invalid(format!("{blocks} blocks in one command; 1 to 65536 are possible"))
}

#[cold]
fn too_large(bytes: u64, max: u64) -> CallError {
    CallError::invalid(format!("{bytes} bytes in one command; at most {max} are possible"))
}

#[cold]
fn outside(offset: u64, bytes: u64, length: usize) -> CallError {
    let text = format!("{bytes} bytes at {offset} are not within memory of {length} bytes");
    CallError::invalid(text)
}
