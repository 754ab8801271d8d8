//! Errors.

use std::{io, time::Duration};

/// Failure of a command to the ublk driver, or of a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no ublk driver.
    #[error(
        "this kernel has no ublk (no /dev/ublk-control): run `modprobe ublk_drv`, or use Linux \
         6.4 or later with CONFIG_BLK_DEV_UBLK"
    )]
    Missing,
    /// A file of the driver cannot be opened.
    #[error("{path}: {source}")]
    Open {
        /// File.
        path: String,
        /// Reason.
        source: io::Error,
    },
    /// The driver refused a command.
    #[error("the ublk driver refused {command} of device {id}: {source}")]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// Number of the device.
        id: u32,
        /// Reason.
        source: io::Error,
    },
    /// The driver did not answer.
    #[error("the ublk driver did not answer {command} of device {id} within {limit:?}")]
    Timeout {
        /// Name of the command.
        command: &'static str,
        /// Number of the device.
        id: u32,
        /// Deadline that has passed.
        limit: Duration,
    },
    /// An io_uring instance failed.
    #[error("io_uring: {0}")]
    Ring(#[source] io::Error),
    /// The queue cannot be served with this memory.
    #[error("{bytes} bytes of memory are too few for {depth} requests of {bytes_max} bytes")]
    Memory {
        /// Length of the memory.
        bytes: usize,
        /// Number of requests.
        depth: u16,
        /// Maximum data of a request in bytes.
        bytes_max: u32,
    },
}

impl Error {
    /// Number of errno with which the driver refused a command.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Open { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
