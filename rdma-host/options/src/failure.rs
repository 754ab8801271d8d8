//! Failure of a command: a message and an exit code.

use std::fmt;

use rdma_host::{Error, ErrorClass, SubmitError, TransferError};

use crate::termination_signal::TerminationSignal;

/// Message in one line, and the exit code: 1 for a failed operation, 2 for a wrong command line or
/// file, 3 if access was refused and trying again would not help, 4 for the target or the network,
/// 5 if data that was read differs from what was written, 128 + N for signal N.
#[derive(Clone, Debug)]
pub struct Failure {
    code: u8,
    message: String,
    /// Signal that ended the command, if one did.
    signal: Option<TerminationSignal>,
}

impl Failure {
    /// Failed operation.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(1, message)
    }

    /// Wrong command line or file.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(2, message)
    }

    /// Data that differs from what was written.
    pub fn mismatch(message: impl fmt::Display) -> Self {
        Self::new(5, message)
    }

    /// Failure of another process that ran the same command: its exit code and its message.
    pub fn of_process(code: u8, message: impl fmt::Display) -> Self {
        Self::new(code, message)
    }

    /// End by a signal, before the command was done.
    pub fn interrupted(signal: TerminationSignal) -> Self {
        let code = u8::try_from(128 + signal.number()).expect("signal numbers are below 65");
        Self { signal: Some(signal), ..Self::new(code, format!("interrupted by {signal}")) }
    }

    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), signal: None }
    }

    /// Cause of an early end as results state it: the name of the signal, or the message.
    pub fn ended_by(&self) -> String {
        self.signal.map_or_else(|| self.message.clone(), |signal| signal.to_string())
    }

    /// Failure with the operation that failed in front of its message.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {self}"), ..self }
    }

    /// True if data that was read differs from what was written.
    pub fn is_mismatch(&self) -> bool {
        self.code == 5
    }

    /// Exit code of a command that failed so.
    pub fn exit_code(&self) -> u8 {
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
            _ if matches!(error, Error::Protection(_)) => 5,
            ErrorClass::Failed => 1,
            ErrorClass::Caller => 2,
            ErrorClass::Access => 3,
            ErrorClass::Transport => 4,
        };
        Self::new(code, error)
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
