//! Device that is served.

use std::{fs::File, sync::atomic::AtomicBool};

/// Device that this process serves: its file, and its limits as the driver has them.
#[derive(Debug)]
pub struct Device {
    pub(crate) file: File,
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) bytes_max: u32,
    /// True if this process copies the data of requests, not the driver.
    pub(crate) user_copy: bool,
    /// True if this process has the memory that the driver knows as shared.
    pub(crate) has_shared: AtomicBool,
}

impl Device {
    /// Number of hardware queues.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Most requests of a queue: their tags are below that.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// Maximum data of a request in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u32 {
        self.bytes_max
    }

    /// Bytes of memory that a queue needs: as much as its requests transfer at most.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        usize::from(self.depth) * self.bytes_max as usize
    }
}
