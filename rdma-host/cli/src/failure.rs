//! Failure of a command: a message and an exit code.

use std::fmt;

use rdma_host::{Error, ErrorClass, SubmitError, TransferError};

/// Message in one line, and the exit code: 1 for a failed operation, 2 for a wrong command line or
/// file, 3 if access was refused and trying again would not help, 4 for the target or the network,
/// 5 if data that was read differs from what was written.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Failed operation.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// Wrong command line or file.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// Data that differs from what was written.
    pub(crate) fn mismatch(message: impl fmt::Display) -> Self {
        Self { code: 5, message: message.to_string() }
    }

    /// Failure with the operation that failed in front of its message.
    pub(crate) fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {self}"), ..self }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.class() {
            ErrorClass::Failed => 1,
            ErrorClass::Caller => 2,
            ErrorClass::Access => 3,
            ErrorClass::Transport => 4,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        error.error.into()
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        error.error.into()
    }
}
