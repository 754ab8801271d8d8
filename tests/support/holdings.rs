//! What a process may leak.

use std::fs;
use std::process::Command;

/// Our open files, and what an RDMA device has given out.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    files: usize,
    resources: String,
}

impl Holdings {
    /// Counts, with the device of the bed.
    ///
    /// # Panics
    ///
    /// Outside the bed.
    #[must_use]
    pub fn now() -> Self {
        Self::of("rxe0")
    }

    /// The same with another device.
    ///
    /// # Panics
    ///
    /// As [`now`](Self::now).
    #[must_use]
    pub fn of(device: &str) -> Self {
        let output = crate::run(Command::new("rdma").args(["resource", "show", device]), &[]);
        Self {
            files: fs::read_dir("/proc/self/fd").expect("/proc is mounted").count(),
            resources: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }
}
