//! Values that go into a queue pair and come out of it.

use std::fmt;

use arrayvec::ArrayVec;

use crate::{Buffer, Error, SGE_MAX, WorkKind};

/// Buffers of one send, gathered in order (`sg_list`).
#[derive(Debug)]
pub struct SgList(ArrayVec<Buffer, SGE_MAX>);

impl SgList {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self(ArrayVec::new())
    }

    /// Adds one at the end.
    ///
    /// # Errors
    ///
    /// Hands the buffer back when there are [`SGE_MAX`] already.
    pub fn push(&mut self, buffer: Buffer) -> Result<(), Buffer> {
        self.0.try_push(buffer).map_err(|refused| refused.element())
    }

    /// Returns true if there is no buffer.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The buffers in order.
    pub fn iter(&self) -> impl Iterator<Item = &Buffer> {
        self.0.iter()
    }

    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Default for SgList {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Buffer> for SgList {
    fn from(buffer: Buffer) -> Self {
        Self(ArrayVec::from_iter([buffer]))
    }
}

impl From<(Buffer, Buffer)> for SgList {
    fn from((first, second): (Buffer, Buffer)) -> Self {
        Self(ArrayVec::from_iter([first, second]))
    }
}

impl From<Option<Buffer>> for SgList {
    fn from(buffer: Option<Buffer>) -> Self {
        Self(buffer.into_iter().collect())
    }
}

impl FromIterator<Buffer> for SgList {
    /// # Panics
    ///
    /// When there are more than [`SGE_MAX`].
    fn from_iter<I: IntoIterator<Item = Buffer>>(buffers: I) -> Self {
        Self(ArrayVec::from_iter(buffers))
    }
}

impl IntoIterator for SgList {
    type Item = Buffer;
    type IntoIter = arrayvec::IntoIter<Buffer, SGE_MAX>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Work request that completed, with the buffers it held.
#[derive(Debug)]
pub enum CompletedWork {
    /// An inline send or write, a bind or an invalidation, and with it those before it: only
    /// credits come back.
    Credit,
    /// A receive.
    Receive {
        /// Tag given when it was posted.
        tag: u64,
        /// The message, if the completion is of success.
        buffer: Buffer,
        /// Length of the message; 0 if the receive failed.
        length: u32,
    },
    /// A send or write of buffers, or a read into them.
    Send {
        /// Tag given when it was queued.
        tag: u64,
        /// The buffers, in the same order; after a read that succeeded with what was read.
        buffers: SgList,
    },
}

/// A completion that does not belong to any outstanding work request of this queue pair: it was
/// completed already, or is of an earlier queue pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the completion belongs to no outstanding work request of this queue pair")]
pub struct StaleCompletion;

/// Work request that a closed queue pair still held.
#[derive(Debug)]
pub struct FlushedWork {
    /// Tag given when it was posted.
    pub tag: u64,
    /// Queue that it was on.
    pub kind: WorkKind,
    /// The buffers; one, for a receive.
    pub buffers: SgList,
}

/// Send that was not queued, with its buffers.
#[derive(Debug)]
pub struct PostSendError {
    /// Error of the post.
    pub error: Error,
    /// The buffers, as they were given.
    pub buffers: SgList,
}

/// A receive, or a message with data, that was not queued, with its buffer.
#[derive(Debug)]
pub struct PostBufferError {
    /// Error of the post.
    pub error: Error,
    /// The buffer, as it was given.
    pub buffer: Buffer,
}

impl fmt::Display for PostSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "send refused: {}", self.error)
    }
}

impl fmt::Display for PostBufferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer refused: {}", self.error)
    }
}

impl std::error::Error for PostSendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl std::error::Error for PostBufferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<PostSendError> for Error {
    fn from(refused: PostSendError) -> Self {
        refused.error
    }
}

impl From<PostBufferError> for Error {
    fn from(refused: PostBufferError) -> Self {
        refused.error
    }
}
