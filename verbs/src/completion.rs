//! Completions of work requests.

use std::{fmt, ops::Deref};

use crate::{RemoteKey, WorkKind, token::Token};

/// Work completion that came off a [`CompletionQueue`](crate::CompletionQueue): only
/// [`poll`](crate::CompletionQueue::poll) and [`poll_or_arm`](crate::CompletionQueue::poll_or_arm)
/// make one. [`QueuePair::complete`](crate::QueuePair::complete) turns it into what the work
/// request held, and so relies on it: a buffer that came back by a completion of a program's own
/// making could still be the device's.
///
/// ```compile_fail,E0599
/// # fn forge(queue_pair: &mut verbs::QueuePair, token: u64) {
/// let status = verbs::Status::SUCCESS;
/// queue_pair.complete(&verbs::Completion::new(token, status, queue_pair.number(), 0));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Completion(WorkCompletion);

impl Deref for Completion {
    type Target = WorkCompletion;

    #[inline]
    fn deref(&self) -> &WorkCompletion {
        &self.0
    }
}

#[cfg(test)]
impl From<WorkCompletion> for Completion {
    fn from(completion: WorkCompletion) -> Self {
        Self(completion)
    }
}

/// Outcome of a work request, as a provider reports it (`ibv_wc`).
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkCompletion {
    pub(crate) token: u64,
    pub(crate) status: Status,
    pub(crate) queue_pair: u32,
    pub(crate) length: u32,
    pub(crate) invalidated: Invalidated,
    pub(crate) vendor_error: u32,
}

impl WorkCompletion {
    /// Completion of the work request with this token.
    pub fn new(token: u64, status: Status, queue_pair: u32, length: u32) -> Self {
        Self { token, status, queue_pair, length, ..Self::default() }
    }

    /// Adds the remote key that the received message invalidated.
    #[must_use]
    pub fn with_invalidated(self, key: RemoteKey) -> Self {
        Self { invalidated: Invalidated::Certainly(key), ..self }
    }

    /// Adds the device's own error number.
    #[must_use]
    pub fn with_vendor_error(self, vendor_error: u32) -> Self {
        Self { vendor_error, ..self }
    }

    /// Returns true for a receive, by the request's token: devices do not say it in a failed
    /// completion.
    #[inline]
    pub fn is_receive(&self) -> bool {
        Token::unpack(self.token).is_some_and(|token| token.kind == WorkKind::Receive)
    }

    /// Number of bytes received; meaningful for a receive that succeeded.
    #[inline]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Remote key that the received message invalidated, if the device reports it unambiguously.
    /// rxe does not; there [`QueuePair::invalidated`](crate::QueuePair::invalidated) tells.
    pub fn invalidated(&self) -> Option<RemoteKey> {
        match self.invalidated {
            Invalidated::Certainly(key) => Some(key),
            Invalidated::No | Invalidated::Perhaps(_) => None,
        }
    }

    /// Returns false if the received message certainly invalidated no remote key.
    #[inline]
    pub fn may_invalidate(&self) -> bool {
        self.invalidated != Invalidated::No
    }

    /// [Number](crate::QueuePair::number) of the queue pair.
    #[inline]
    pub fn queue_pair(&self) -> u32 {
        self.queue_pair
    }

    /// Status of the work request.
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

/// Key that a received message invalidated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Invalidated {
    Certainly(RemoteKey),
    #[default]
    No,
    /// Key that was invalidated if the queue pair has bound it; else the device means something
    /// else.
    Perhaps(RemoteKey),
}

/// Status of a work request, by the numbers of `enum ibv_wc_status`. Unknown numbers are kept.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Meaning of the number, in a few words.
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
    /// Success.
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
    /// The peer found the message invalid: too long, or a key that it could not invalidate.
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
    /// Returns true if the work request succeeded.
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
        let flushed = |kind| WorkCompletion::new(token(kind), Status::FLUSHED, 17, 0);
        assert!(flushed(WorkKind::Receive).is_receive());
        assert!(!flushed(WorkKind::Send).is_receive());
        assert!(!WorkCompletion::default().is_receive());
    }

    #[test]
    fn an_unknown_status_is_kept() {
        assert_eq!(format!("{:?}", Status(77)), "Status(77)");
        assert_eq!(Status(77).to_string(), "a status this version does not know (status 77)");
        assert_eq!(format!("{:?}", Status::FLUSHED), "FLUSHED");
    }
}
