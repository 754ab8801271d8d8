//! Errors of calls to the PMIx library.

use std::time::Duration;

/// Error of a call to the PMIx library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library cannot be opened, or lacks a function; the text is the linker's.
    #[error("cannot open the PMIx library: {0}")]
    Library(String),
    /// The library refused a call, by a status of `pmix_common.h`.
    #[error("{call}: {text} ({status})")]
    Status {
        /// Name of the function.
        call: &'static str,
        /// Status, below 0.
        status: i32,
        /// Name of the status.
        text: String,
    },
    /// The call did not return in time.
    #[error("{call}: no answer in {limit:?}")]
    TimedOut {
        /// Name of the function.
        call: &'static str,
        /// Time that it had.
        limit: Duration,
    },
    /// Text with a zero byte, or a key or name that is too long, on this side; or a value of
    /// another type than this side expects, from the other ranks.
    #[error("{0}: no text that PMIx can carry")]
    Value(&'static str),
}
