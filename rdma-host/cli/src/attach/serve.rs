//! Loop of a hardware queue: requests become commands, and responses complete them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rdma_host::{
    Buffer, CommandCompletion, Poller, SharedMemory, Waiter,
    error::{Error, Rejected},
    wire::Status,
};
use tokio::sync::watch;
use ublk::{Device, Operation, Queue, Request};

use super::translate::Blocks;
use crate::{
    failure::Failure,
    metrics::{QueueNumbers, Report, RequestNumbers, ThreadRequests},
};

/// Parts with which one thread serves a queue.
pub(super) struct QueueParts {
    pub(super) index: u16,
    pub(super) poller: Poller,
    /// Memory of the data of all requests.
    pub(super) memory: SharedMemory,
    /// Memory that programs share with the device.
    pub(super) shared: Option<SharedMemory>,
    /// Memory of the range of a discard, for each request.
    pub(super) ranges: Vec<Buffer>,
    pub(super) blocks: Blocks,
    /// Requests for the numbers of the queue, and to end the loop: the requests of the device are
    /// left to the next daemon.
    pub(super) requests: Arc<ThreadRequests>,
    pub(super) report: watch::Sender<Report>,
}

/// Queue that this thread serves.
pub(super) struct Server {
    queue: Queue,
    poller: Poller,
    memory: SharedMemory,
    shared: Option<SharedMemory>,
    ranges: Vec<Option<Buffer>>,
    blocks: Blocks,
    /// Requests for which the poller has no room yet.
    waiting: VecDeque<Request>,
    numbers: RequestNumbers,
    /// Result of each request in flight if it succeeds: the number of its bytes.
    results: Vec<i32>,
    requests: Arc<ThreadRequests>,
    report: watch::Sender<Report>,
    /// Request for the numbers that was answered last.
    reported: u64,
    /// True once the controller is gone for good: every request fails.
    has_failed: bool,
}

/// Longest sleep: after it, the requests to the thread are looked at.
const SLEEP_MAX: Duration = Duration::from_millis(200);

impl Server {
    /// Fetches the requests of the queue, from this thread.
    pub(super) fn new(device: &Arc<Device>, parts: QueueParts) -> Result<Self, Failure> {
        let QueueParts { index, poller, memory, shared, ranges, blocks, requests, report } = parts;
        let queue = Queue::new(device, index, memory.clone()).map_err(Failure::failed)?;
        let depth = usize::from(device.depth());
        Ok(Self {
            queue,
            poller,
            memory,
            shared,
            ranges: ranges.into_iter().map(Some).collect(),
            blocks,
            waiting: VecDeque::with_capacity(depth),
            numbers: RequestNumbers::default(),
            results: vec![0; depth],
            requests,
            report,
            reported: 0,
            has_failed: false,
        })
    }

    /// Serves until the device is stopped. Where there is nothing to do after completions, these go
    /// to the driver by the system call that sleeps.
    pub(super) fn run(&mut self, mut waiter: Waiter) -> Result<(), Failure> {
        let mut is_deferred = false;
        loop {
            let mut worked = self.submit_requests();
            worked |= self.complete_requests();
            is_deferred = worked && !is_deferred;
            let request = self.requests.latest();
            if self.queue.is_ended() || request == ThreadRequests::LEAVE {
                self.queue.submit().map_err(Failure::failed)?;
                return Ok(());
            }
            if request != self.reported {
                self.reported = request;
                self.numbers.waiting = self.waiting.len() as u64;
                let numbers = QueueNumbers::of(&mut self.poller, self.numbers);
                self.report.send_replace((request, numbers));
            }
            if worked {
                waiter.busy();
            } else if !waiter.spins() && self.arm() {
                self.sleep()?;
                continue;
            }
            if !is_deferred {
                self.queue.submit().map_err(Failure::failed)?;
            }
        }
    }

    /// Submits commands for all requests, with one doorbell; returns true if there were any.
    fn submit_requests(&mut self) -> bool {
        let mut worked = false;
        while let Some(request) = self.queue.next_request() {
            worked = true;
            self.waiting.push_back(request);
        }
        if self.waiting.is_empty() {
            return worked;
        }
        while (self.has_failed || self.poller.room() > 0)
            && let Some(request) = self.waiting.pop_front()
        {
            self.start(request);
        }
        if self.poller.ring_doorbells().is_err() {
            self.fail();
        }
        worked
    }

    fn start(&mut self, request: Request) {
        let tag = request.tag;
        if self.has_failed {
            return self.queue.complete(tag, failed(rustix::io::Errno::IO));
        }
        let translated = match self.blocks.translate(&request) {
            Ok(translated) => translated,
            Err(refused) => return self.queue.complete(tag, refused.result()),
        };
        let (index, bytes) = (usize::from(tag), request.bytes());
        self.results[index] = i32::try_from(bytes).unwrap_or_default();
        if matches!(request.operation, Operation::Read | Operation::Write { .. }) {
            self.numbers.count(request.shared_offset.is_some());
        }
        let data = || {
            let bytes = usize::try_from(bytes).expect("32 bits of sectors");
            let part = match request.shared_offset {
                Some(offset) => {
                    let shared = self.shared.as_ref().expect("the driver was told of this one");
                    shared.part(offset as usize, bytes)
                }
                None => self.memory.part(self.queue.offset(tag), bytes),
            };
            part.expect("the driver keeps to the device's maximum, and within the memory")
        };
        let ranges = || self.ranges[index].take().expect("one command for each request");
        let command = self.blocks.command(translated, data, ranges).with_user(tag.into());
        if let Err(error) = self.poller.submit(command) {
            let completion = CommandCompletion::from(error);
            complete(&mut self.queue, &mut self.ranges, &self.results, completion);
        }
    }

    /// Completes requests whose commands have; returns true if there were any.
    fn complete_requests(&mut self) -> bool {
        if self.has_failed {
            return false;
        }
        let Self { queue, poller, ranges, results, .. } = self;
        match poller.poll_with(|completion| complete(queue, ranges, results, completion)) {
            Ok(count) => count > 0,
            Err(_) => {
                self.fail();
                true
            }
        }
    }

    /// Fails all commands, since the controller is gone for good.
    fn fail(&mut self) {
        self.has_failed = true;
        while let Some(completion) = self.poller.take() {
            complete(&mut self.queue, &mut self.ranges, &self.results, completion);
        }
        while let Some(request) = self.waiting.pop_front() {
            self.queue.complete(request.tag, failed(rustix::io::Errno::IO));
        }
    }

    /// Returns true if the poller has nothing to do before its descriptor is readable.
    fn arm(&mut self) -> bool {
        if self.has_failed {
            return true;
        }
        let armed = self.poller.arm_if_needed(!self.queue.is_watching());
        if armed.is_err() {
            self.fail();
        }
        armed.unwrap_or(false)
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let Self { queue, poller, has_failed, .. } = self;
        let other = if *has_failed { None } else { Some(poller.event_descriptor()?) };
        queue.sleep(other, SLEEP_MAX).map_err(Failure::failed)
    }
}

fn complete(
    queue: &mut Queue,
    ranges: &mut [Option<Buffer>],
    results: &[i32],
    completion: CommandCompletion,
) {
    let tag = u16::try_from(completion.user).expect("a tag");
    let index = usize::from(tag);
    let (outcome, data) = completion.into_result("command");
    if let Some(buffer) = data.filter(Buffer::is_local) {
        ranges[index] = Some(buffer);
    }
    let result = match outcome {
        Ok(_) => results[index],
        Err(error) => {
            tracing::warn!("a request failed: {error}");
            failed(errno_of(&error))
        }
    };
    queue.complete(tag, result);
}

fn failed(errno: rustix::io::Errno) -> i32 {
    -errno.raw_os_error()
}

/// Number by which the block layer knows a failure: a command that is not supported is done in
/// another way.
fn errno_of(error: &Error) -> rustix::io::Errno {
    match error {
        Error::Rejected(Rejected::Command { status, .. })
            if [Status::INVALID_OPCODE, Status::INVALID_FIELD].contains(&status.code()) =>
        {
            rustix::io::Errno::OPNOTSUPP
        }
        _ => rustix::io::Errno::IO,
    }
}
