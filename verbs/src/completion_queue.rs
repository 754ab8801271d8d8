//! Completion queues.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    Completion, Error, Provider, RdmaCore, VerbsApi,
    provider::{CompletionQueueInfo, QueueRequest},
    sys::as_work_completions,
};

/// A completion queue with a completion channel, shared by any number of queue pairs of one
/// device.
///
/// To wait: [`poll_or_arm`](Self::poll_or_arm), and sleep until the file descriptor is readable
/// when that gives nothing. By hand it is [`arm`](Self::arm), then [`poll`](Self::poll) until it
/// gives nothing, then sleep, [`acknowledge`](Self::acknowledge), and around again. Polling
/// *after* arming matters: a completion that came before has made no event.
///
/// ```text
///   poll: nothing      a completion here makes no event ...
///   arm
///   poll               ... and is found here; a completion here, or later, makes an event
///   sleep              so a sleeper is woken
/// ```
///
/// Queue pairs reserve room for each of their slots, so a queue that is polled cannot overrun.
/// After a queue pair is closed its last completions may still come out; they are stale for every
/// queue pair. A device on which they accumulate, unpolled, while queue pairs come and go, reports
/// [`COMPLETION_QUEUE_ERROR`](crate::DeviceEventKind::COMPLETION_QUEUE_ERROR).
pub struct CompletionQueue<P: Provider = RdmaCore> {
    raw: P::CompletionQueue,
    provider: Arc<P>,
    capacity: u32,
    number: u32,
    api: VerbsApi,
    reserved: Arc<AtomicU32>,
}

impl<P: Provider> CompletionQueue<P> {
    pub(crate) fn new(
        provider: Arc<P>,
        raw: P::CompletionQueue,
        info: CompletionQueueInfo,
    ) -> Self {
        let CompletionQueueInfo { capacity, number, api } = info;
        Self { raw, provider, capacity, number, api, reserved: Arc::default() }
    }

    /// Moves completions into `out`, oldest first, and returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`]: the device is gone, or the queue overran.
    pub fn poll(&mut self, out: &mut [Completion]) -> Result<usize, Error> {
        self.provider.completions(&mut self.raw, QueueRequest::Poll(as_work_completions(out)))
    }

    /// Moves completions into `out`, as [`poll`](Self::poll). If there are none, takes old events
    /// off the file descriptor, arms, and polls again; so after a 0 it is safe to sleep until the
    /// descriptor is readable, and to call this again.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll), [`arm`](Self::arm) and [`acknowledge`](Self::acknowledge).
    pub fn poll_or_arm(&mut self, out: &mut [Completion]) -> Result<usize, Error> {
        let count = self.poll(out)?;
        if count > 0 {
            return Ok(count);
        }
        self.acknowledge()?;
        self.arm()?;
        self.poll(out)
    }

    /// Asks for one event on the file descriptor at the next completion.
    ///
    /// # Errors
    ///
    /// [`Error::Arm`]: the device is gone.
    pub fn arm(&mut self) -> Result<(), Error> {
        self.provider.completions(&mut self.raw, QueueRequest::Arm).map(drop)
    }

    /// Takes the events that have arrived off the file descriptor, without blocking, and
    /// returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::AcknowledgeCompletions`]: the channel cannot be read.
    pub fn acknowledge(&mut self) -> Result<u32, Error> {
        let count = self.provider.completions(&mut self.raw, QueueRequest::Acknowledge)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Changes how many completions it can hold, to at least `capacity`. What is in it stays.
    ///
    /// # Errors
    ///
    /// * [`Error::Misuse`]: queue pairs have reserved more.
    /// * [`Error::ResizeCompletionQueue`]: EINVAL beyond the device's limit, or below what is in
    ///   it; it is as it was.
    /// * [`Error::Unsupported`]: the device cannot.
    pub fn resize(&mut self, capacity: u32) -> Result<(), Error> {
        if capacity < self.reserved.load(Ordering::Relaxed) {
            return Err(Error::Misuse("queue pairs have reserved more of the completion queue"));
        }
        let made = self.provider.completions(&mut self.raw, QueueRequest::Resize(capacity))?;
        self.capacity = u32::try_from(made).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Capacity in completions: at least what was requested.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The queue's number, by which [`DeviceEvent`](crate::DeviceEvent)s name it: see
    /// [`EventSubject::CompletionQueue`](crate::EventSubject::CompletionQueue).
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Calls by which the queue is polled.
    pub fn api(&self) -> VerbsApi {
        self.api
    }

    pub(crate) fn raw(&self) -> &P::CompletionQueue {
        &self.raw
    }

    pub(crate) fn reserve(&self, entries: u32) -> Result<Reservation, Error> {
        let fits =
            |reserved: u32| reserved.checked_add(entries).filter(|&total| total <= self.capacity);
        self.reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map(|_| Reservation { entries, reserved: self.reserved.clone() })
            .map_err(|_| {
                Error::Misuse("the completion queue has no room for the queue pair's depths")
            })
    }
}

impl<P: Provider> AsFd for CompletionQueue<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl<P: Provider> fmt::Debug for CompletionQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue")
            .field("capacity", &self.capacity)
            .field("reserved", &self.reserved)
            .finish_non_exhaustive()
    }
}

/// A queue pair's share of a completion queue, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    entries: u32,
    reserved: Arc<AtomicU32>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.reserved.fetch_sub(self.entries, Ordering::Relaxed);
        debug_assert!(before >= self.entries, "a reservation is part of all");
    }
}
