//! Failure of a command: a message and an exit code.

use std::fmt;

use rdma_host::{Error, ErrorClass};

/// Message in one line, by its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 3: access was refused, and trying again would not help.
    Access(String),
    /// 1: any other failure.
    Failed(String),
    /// 5: data that was read differs from what was written.
    Mismatch(String),
    /// 4: the target or the network failed.
    Transport(String),
    /// 2: the command line is wrong.
    Usage(String),
}

impl Failure {
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// Failure with the operation that failed in front of its message.
    pub(crate) fn context(self, what: impl fmt::Display) -> Self {
        match self {
            Self::Access(text) => Self::Access(format!("{what}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{what}: {text}")),
            Self::Mismatch(text) => Self::Mismatch(format!("{what}: {text}")),
            Self::Transport(text) => Self::Transport(format!("{what}: {text}")),
            Self::Usage(text) => Self::Usage(format!("{what}: {text}")),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Access(_) => 3,
            Self::Transport(_) => 4,
            Self::Mismatch(_) => 5,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Access(text)
        | Self::Failed(text)
        | Self::Mismatch(text)
        | Self::Transport(text)
        | Self::Usage(text)) = self;
        f.write_str(text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.class() {
            ErrorClass::Access => Self::Access(text),
            ErrorClass::Caller => Self::Usage(text),
            ErrorClass::Failed => Self::Failed(text),
            ErrorClass::Transport => Self::Transport(text),
        }
    }
}

impl From<rdma_host::TransferError> for Failure {
    fn from(failed: rdma_host::TransferError) -> Self {
        failed.error.into()
    }
}

impl From<rdma_host::SubmitError> for Failure {
    fn from(rejection: rdma_host::SubmitError) -> Self {
        rejection.error.into()
    }
}
