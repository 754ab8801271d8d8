//! Completion queues and what comes out of them.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    Error, Provider, RdmaCore, RemoteKey, VerbsApi,
    provider::{CompletionQueueInfo, QueueRequest},
    token::{Kind, Token},
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
///   sleep              so whoever sleeps is woken
/// ```
///
/// Queue pairs reserve room for each of their slots, so a queue that is polled cannot overrun.
/// After a queue pair is closed its last completions may still come out; no queue pair will know
/// them. A device on which they pile up, unpolled, while queue pairs come and go, reports
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
        self.provider.completions(&mut self.raw, QueueRequest::Poll(out))
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

    /// How many completions it holds: at least what was asked for.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The queue's number, by which [`DeviceEvent`](crate::DeviceEvent)s name it: see
    /// [`EventSubject::CompletionQueue`](crate::EventSubject::CompletionQueue).
    pub fn number(&self) -> u32 {
        self.number
    }

    /// By which calls it is polled.
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
        self.reserved.fetch_sub(self.entries, Ordering::Relaxed);
    }
}

/// How one work request ended. [`QueuePair::complete`](crate::QueuePair::complete) turns it into
/// what the work request held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Completion {
    pub(crate) token: u64,
    pub(crate) status: Status,
    pub(crate) queue_pair: u32,
    pub(crate) length: u32,
    pub(crate) invalidated: Invalidated,
    pub(crate) vendor_error: u32,
}

impl Completion {
    /// A completion as a provider makes it; `token` is that of the request.
    pub fn new(token: u64, status: Status, queue_pair: u32, length: u32) -> Self {
        Self { token, status, queue_pair, length, ..Self::default() }
    }

    /// The same, of a message that took a remote key out of use.
    #[must_use]
    pub fn with_invalidated(self, key: RemoteKey) -> Self {
        Self { invalidated: Invalidated::Certainly(key), ..self }
    }

    /// The same, with the device's own error number.
    #[must_use]
    pub fn with_vendor_error(self, vendor_error: u32) -> Self {
        Self { vendor_error, ..self }
    }

    /// Whether it is of a receive. Devices do not say in a failed completion; the request's
    /// token does.
    #[inline]
    pub fn is_receive(&self) -> bool {
        Token::unpack(self.token).is_some_and(|token| token.kind == Kind::Receive)
    }

    /// How many bytes were received; meaningful for a receive that succeeded.
    #[inline]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The remote key that the received message took out of use, if the device says so plainly.
    /// rxe does not; there [`QueuePair::reclaim`](crate::QueuePair::reclaim) tells.
    pub fn invalidated(&self) -> Option<RemoteKey> {
        match self.invalidated {
            Invalidated::Certainly(key) => Some(key),
            Invalidated::No | Invalidated::Perhaps(_) => None,
        }
    }

    /// Whether the received message may have taken a remote key out of use: where this is false
    /// it has not.
    #[inline]
    pub fn may_invalidate(&self) -> bool {
        self.invalidated != Invalidated::No
    }

    /// [Number](crate::QueuePair::number) of the queue pair.
    #[inline]
    pub fn queue_pair(&self) -> u32 {
        self.queue_pair
    }

    /// Whether the work request succeeded, or why not.
    #[inline]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The token of the work request, as the provider was given it.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The device's own error number, for its vendor.
    pub fn vendor_error(&self) -> u32 {
        self.vendor_error
    }
}

/// Whether a received message took a key out of use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Invalidated {
    Certainly(RemoteKey),
    #[default]
    No,
    /// The device says something that may mean so; it does if the queue pair has bound that key.
    Perhaps(RemoteKey),
}

/// How a work request ended, by the numbers of `enum ibv_wc_status`. A number that this version
/// does not know is kept.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// What the number means, in a few words.
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "a status this version does not know",
                }
            }

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// It succeeded.
    SUCCESS = 0, "success";
    /// A message longer than the receive buffer, or a send longer than the port allows.
    LOCAL_LENGTH = 1, "local length error: a message did not fit its buffer";
    /// The queue pair's own state or the request was inconsistent.
    LOCAL_OPERATION = 2, "local queue pair operation error";
    /// Only for a kind of connection that we do not use.
    LOCAL_CONTEXT_OPERATION = 3, "local end-to-end context operation error";
    /// A buffer's key does not cover it, or lacks the access that was needed.
    LOCAL_PROTECTION = 4, "local protection error: a key does not allow this access";
    /// The queue pair had failed, or was disconnected, before this request's turn.
    FLUSHED = 5, "flushed: the queue pair was no longer working";
    /// A memory window could not be bound.
    WINDOW_BIND = 6, "memory window bind error";
    /// The peer's transport answered something unexpected.
    BAD_RESPONSE = 7, "bad response from the peer's transport";
    /// A buffer did not allow what a request from the peer needed.
    LOCAL_ACCESS = 8, "local access error";
    /// The peer found the message invalid: too long, or a key it could not take out of use.
    REMOTE_INVALID_REQUEST = 9, "the peer refused the message as invalid";
    /// The peer's memory does not allow the access.
    REMOTE_ACCESS = 10, "remote access error: the peer's key does not allow this access";
    /// The peer could not complete the request.
    REMOTE_OPERATION = 11, "the peer could not complete the request";
    /// The peer did not answer, however often it was tried: it, or the way to it, is gone.
    RETRY_EXCEEDED = 12, "no answer from the peer: transport retries exceeded";
    /// The peer had no receive posted, however often it was tried.
    RECEIVER_NOT_READY = 13, "the peer had no receive posted: its retries exceeded";
    /// Only for a kind of connection that we do not use.
    LOCAL_DOMAIN_VIOLATION = 14, "local reliable datagram domain violation";
    /// Only for a kind of connection that we do not use.
    REMOTE_INVALID_READ = 15, "remote invalid reliable datagram request";
    /// The peer gave the operation up.
    REMOTE_ABORTED = 16, "the peer aborted the operation";
    /// Only for a kind of connection that we do not use.
    INVALID_CONTEXT_NUMBER = 17, "invalid end-to-end context number";
    /// Only for a kind of connection that we do not use.
    INVALID_CONTEXT_STATE = 18, "invalid end-to-end context state";
    /// The device failed.
    FATAL = 19, "fatal error of the device";
    /// The peer did not answer in time.
    RESPONSE_TIMEOUT = 20, "response timed out";
    /// Anything else.
    GENERAL = 21, "general error";
}

impl Status {
    /// Whether the work request succeeded.
    #[inline]
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Status({})", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {})", self.text(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_comes_from_the_token() {
        let token = |kind| Token { kind, slot: 1, generation: 2 }.pack();
        let flushed = |kind| Completion::new(token(kind), Status::FLUSHED, 17, 0);
        assert!(flushed(Kind::Receive).is_receive());
        assert!(!flushed(Kind::Send).is_receive());
        assert!(!Completion::default().is_receive());
    }

    #[test]
    fn an_unknown_status_is_kept() {
        assert_eq!(format!("{:?}", Status(77)), "Status(77)");
        assert_eq!(Status(77).to_string(), "a status this version does not know (status 77)");
        assert_eq!(format!("{:?}", Status::FLUSHED), "FLUSHED");
    }
}
