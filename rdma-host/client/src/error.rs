//! Errors of opening, and of reads and writes.

use std::io;

use nvmf_options::failure::Failure;
use rdma_host::{Error, ErrorClass, ExecutionStatus, TransferError};

/// Failure to open a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The target or an option is wrong: what, and what to write instead.
    #[error("{0}")]
    Options(Failure),
    /// The target can't be connected.
    #[error(transparent)]
    Connect(#[from] Error),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Options(_) => Self::new(io::ErrorKind::InvalidInput, error),
            OpenError::Connect(error) => command_error(error),
        }
    }
}

/// Error of a read or write, inside of the [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ByteTransferError {
    /// Cause.
    pub source: Error,
    /// Execution status: of a write, parts may have been written.
    pub execution: ExecutionStatus,
}

pub(crate) fn transfer_error(failed: TransferError) -> io::Error {
    let TransferError { error: source, execution, .. } = failed;
    let kind = kind(&source);
    io::Error::new(kind, ByteTransferError { source, execution })
}

pub(crate) fn command_error(error: Error) -> io::Error {
    io::Error::new(kind(&error), error)
}

pub(crate) fn closed() -> io::Error {
    command_error(Error::Closed)
}

fn kind(error: &Error) -> io::ErrorKind {
    match (error, error.class()) {
        (Error::Closed, _) => io::ErrorKind::NotConnected,
        (Error::CommandTimeout { .. } | Error::Timeout { .. }, _) => io::ErrorKind::TimedOut,
        (_, ErrorClass::Access) => io::ErrorKind::PermissionDenied,
        (_, ErrorClass::Caller) => io::ErrorKind::InvalidInput,
        (_, ErrorClass::Transport) => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    }
}
