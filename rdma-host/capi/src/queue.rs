//! Queues: commands of one thread.

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
    Command, CommandCompletion, Controller, ExecutionStatus, OperationStatistics, Poller, WaitMode,
    Waiter,
    error::{Error, Rejected},
    wire::{BlockRange, NamespaceId, NamespaceInfo},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::Provider;

use crate::{
    error::{CallError, Class, number_of, set_last},
    handle::{Table, to_pointer},
    layout::{nvmf_completion, nvmf_memory, nvmf_operation, nvmf_queue, nvmf_statistics},
    memory::{MEMORIES, Memory},
};

/// All queues. The mutex is never locked: who locks the entry has the queue alone.
pub(crate) static QUEUES: Table<Mutex<Box<dyn QueueCalls>>, 4096> = Table::new(4, "nvmf_queue");

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

/// Direction of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Transfer {
    Read,
    Write { forced: bool },
}

/// Command without memory of the program.
#[derive(Clone, Copy)]
pub(crate) enum Other<'a> {
    Flush { nsid: u32 },
    WriteZeroes { extent: Extent, deallocate: bool, forced: bool },
    Deallocate { nsid: u32, ranges: &'a [BlockRange] },
}

/// Calls of a queue, whatever its RDMA provider is.
pub(crate) trait QueueCalls: Send {
    fn transfer(
        &mut self,
        transfer: Transfer,
        extent: Extent,
        place: Place,
        user: u64,
    ) -> Result<(), CallError>;
    /// Transfers consecutive blocks, each part to or from another place, as one command.
    fn transfer_parts(
        &mut self,
        transfer: Transfer,
        parts: &[(Extent, Place)],
        user: u64,
    ) -> Result<(), CallError>;
    fn submit(&mut self, other: Other<'_>, user: u64) -> Result<(), CallError>;
    fn ring_doorbells(&mut self) -> Result<(), CallError>;
    fn poll(&mut self, out: &mut [MaybeUninit<nvmf_completion>]) -> Result<usize, CallError>;
    fn wait(
        &mut self,
        out: &mut [MaybeUninit<nvmf_completion>],
        min: usize,
        limit: Option<Duration>,
    ) -> Result<usize, CallError>;
    fn arm(&mut self) -> Result<bool, CallError>;
    fn descriptor(&mut self) -> Result<RawFd, CallError>;
    fn room(&self) -> usize;
    fn own_thread(&mut self, pollers: usize);
    fn statistics(&mut self) -> nvmf_statistics;
}

/// Queue of one provider.
struct Queue<P: Provider> {
    poller: Poller<P>,
    controller: Arc<Controller<P>>,
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

/// Numbers of commands in flight, and what the program is told of each.
#[derive(Default)]
struct Tags {
    tags: Vec<Tag>,
    free: Vec<u32>,
}

/// Command of the program, which may be several of the queue.
struct Tag {
    completion: nvmf_completion,
    /// Number of commands of the queue that have not completed.
    parts: u32,
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
        poller,
        bytes_max: controller.negotiated().transfer_bytes_max,
        controller: Arc::clone(controller),
        number,
        block_sizes: Arc::clone(block_sizes),
        last: (0, 0),
        tags: Tags::default(),
        ready: VecDeque::new(),
        waiter: Waiter::new(WaitMode::default()),
        clock: Clock::new(),
    })))
}

impl<P: Provider> QueueCalls for Queue<P> {
    #[inline]
    fn transfer(
        &mut self,
        transfer: Transfer,
        extent: Extent,
        place: Place,
        user: u64,
    ) -> Result<(), CallError> {
        let command = self.command(transfer, extent, place)?;
        self.submit_whole(command, user)
    }

    fn transfer_parts(
        &mut self,
        transfer: Transfer,
        parts: &[(Extent, Place)],
        user: u64,
    ) -> Result<(), CallError> {
        let mut commands = Vec::with_capacity(parts.len());
        for &(extent, place) in parts {
            commands.push(self.command(transfer, extent, place)?);
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
            match self.poller.submit(Command { user: u64::from(tag), ..command }) {
                Ok(()) => submitted += 1,
                Err(error) if submitted == 0 => {
                    self.tags.give(tag);
                    return Err(error.into());
                }
                Err(error) => {
                    self.tags.fail(tag, &error.error, ExecutionStatus::Unknown);
                    break;
                }
            }
        }
        self.tags.tags[tag as usize].parts = submitted;
        Ok(())
    }

    fn submit(&mut self, other: Other<'_>, user: u64) -> Result<(), CallError> {
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
                let buffer = self.controller.allocate(ranges.len() * BlockRange::SIZE)?;
                Command::deallocate(NamespaceId(nsid), ranges, buffer)
            }
        };
        self.submit_whole(command, user)
    }

    #[inline]
    fn ring_doorbells(&mut self) -> Result<(), CallError> {
        Ok(self.poller.ring_doorbells()?)
    }

    #[inline]
    fn poll(&mut self, out: &mut [MaybeUninit<nvmf_completion>]) -> Result<usize, CallError> {
        let Self { poller, tags, ready, .. } = self;
        let mut count = 0;
        while count < out.len()
            && let Some(completion) = ready.pop_front()
        {
            out[count].write(completion);
            count += 1;
        }
        if count > 0 && count == out.len() {
            return Ok(count);
        }
        let mut store = |done| {
            let Some(completion) = tags.complete(done) else { return };
            match out.get_mut(count) {
                Some(place) => {
                    place.write(completion);
                    count += 1;
                }
                None => ready.push_back(completion),
            }
        };
        let polled = poller.poll_with(&mut store);
        let Err(error) = polled else { return Ok(count) };
        while let Some(done) = poller.take() {
            store(done);
        }
        if count == 0 { Err(error.into()) } else { Ok(count) }
    }

    fn wait(
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

    fn arm(&mut self) -> Result<bool, CallError> {
        Ok(self.ready.is_empty() && self.poller.arm()?)
    }

    fn descriptor(&mut self) -> Result<RawFd, CallError> {
        Ok(self.poller.event_descriptor()?.as_raw_fd())
    }

    fn room(&self) -> usize {
        self.poller.room()
    }

    fn own_thread(&mut self, pollers: usize) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // More threads than processors would keep each other waiting.
        self.waiter = if pollers > processors {
            Waiter::new(WaitMode::default())
        } else {
            Waiter::on_own_thread(WaitMode::Poll, pollers)
        };
    }

    fn statistics(&mut self) -> nvmf_statistics {
        let statistics = self.poller.statistics();
        nvmf_statistics {
            size: size_of::<nvmf_statistics>() as u64,
            read: operation(&statistics.read),
            write: operation(&statistics.write),
            other: operation(&statistics.other),
            doorbells: statistics.device.doorbells,
            completions: statistics.device.completions,
            empty_polls: statistics.device.empty_polls,
        }
    }
}

impl<P: Provider> Queue<P> {
    /// Command with data.
    #[inline(always)] // it moves the command otherwise
    fn command(
        &mut self,
        transfer: Transfer,
        extent: Extent,
        place: Place,
    ) -> Result<Command, CallError> {
        let Extent { nsid, lba, blocks } = extent;
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
        let id = NamespaceId(nsid);
        Ok(match transfer {
            Transfer::Read => Command::read(id, lba, blocks, buffer),
            Transfer::Write { forced: false } => Command::write(id, lba, blocks, buffer),
            Transfer::Write { forced: true } => {
                Command::write(id, lba, blocks, buffer).with_force_unit_access()
            }
        })
    }

    /// Submits a command that is all of one of the program's.
    #[inline(always)] // it moves the command otherwise
    fn submit_whole(&mut self, mut command: Command, user: u64) -> Result<(), CallError> {
        let tag = self.tags.take(user);
        command.user = tag.into();
        let submitted = self.poller.submit(command);
        submitted.map_err(|error| {
            self.tags.give(tag);
            error.into()
        })
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

impl Tags {
    /// Number for a command of one part.
    #[inline]
    fn take(&mut self, user: u64) -> u32 {
        let completion = nvmf_completion { user, result: 0, status: 0, execution: 0, reserved: 0 };
        let tag = Tag { completion, parts: 1 };
        match self.free.pop() {
            Some(free) => {
                self.tags[free as usize] = tag;
                free
            }
            None => self.add(tag),
        }
    }

    #[cold]
    fn add(&mut self, tag: Tag) -> u32 {
        let number = u32::try_from(self.tags.len()).expect("fewer than queues have entries");
        self.tags.push(tag);
        // Room, so that giving it back allocates nothing.
        self.free.reserve(self.tags.len());
        number
    }

    /// Returns true if no command is outstanding.
    fn is_unused(&self) -> bool {
        self.tags.len() == self.free.len()
    }

    #[inline]
    fn give(&mut self, tag: u32) {
        self.free.push(tag);
    }

    /// Notes a completion; returns that of the program's command if it is the last one of it.
    #[inline]
    fn complete(&mut self, done: CommandCompletion) -> Option<nvmf_completion> {
        let number = u32::try_from(done.user).expect("a number of this table");
        match &done.outcome {
            Ok(response) if response.status().is_success() => {}
            _ => self.fail_of(number, &done),
        }
        let tag = &mut self.tags[number as usize];
        tag.parts -= 1;
        if tag.parts > 0 {
            return None;
        }
        let completion = tag.completion;
        self.give(number);
        Some(completion)
    }

    #[cold]
    fn fail_of(&mut self, number: u32, done: &CommandCompletion) {
        match &done.outcome {
            Err(error) => self.fail(number, error, done.execution),
            Ok(response) => {
                let status = response.status();
                let error = Rejected::Command { command: "command", status }.into();
                self.fail(number, &error, done.execution);
                self.tags[number as usize].completion.status = status.0;
            }
        }
    }

    /// Notes the first failure of a command.
    fn fail(&mut self, number: u32, error: &Error, execution: ExecutionStatus) {
        let (errno, class) = number_of(error);
        // An argument that was wrong would have been refused before.
        let (errno, class) = match error {
            Error::Rejected(_) => (libc::EIO, Class::Failed),
            _ => (errno, class),
        };
        set_last(class, &error.to_string());
        let completion = &mut self.tags[number as usize].completion;
        if completion.result == 0 {
            completion.result = -errno;
            completion.execution = match execution {
                ExecutionStatus::Answered => 0,
                ExecutionStatus::NotSent => 1,
                ExecutionStatus::Unknown => 2,
            };
        }
    }
}

fn operation(operation: &OperationStatistics) -> nvmf_operation {
    let latency = &operation.latency_ns;
    let some = !latency.is_empty();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    let mean = latency.mean() as u64;
    nvmf_operation {
        completed: operation.completed,
        failed: operation.failed,
        retried: operation.retried,
        bytes: operation.bytes,
        latency_min_ns: if some { latency.min() } else { 0 },
        latency_mean_ns: mean,
        latency_p50_ns: latency.value_at_quantile(0.5),
        latency_p99_ns: latency.value_at_quantile(0.99),
        latency_p999_ns: latency.value_at_quantile(0.999),
        latency_max_ns: latency.max(),
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
