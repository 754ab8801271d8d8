//! Resources of a process that a leak would show in: open files and objects of an RDMA device.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::load::HANG_TIMEOUT;

/// Open files of this process, and the objects that an RDMA device counts.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessResources {
    files: Vec<String>,
    resources: String,
}

impl ProcessResources {
    /// Counts those of this process and the device of the bed.
    ///
    /// # Panics
    ///
    /// Outside the bed.
    #[must_use]
    pub fn now() -> Self {
        Self::of(crate::device())
    }

    /// Counts those of this process and another device.
    ///
    /// # Panics
    ///
    /// As [`now`](Self::now).
    #[must_use]
    pub fn of(device: &str) -> Self {
        let output = crate::run(Command::new("rdma").args(["resource", "show", device]), &[]);
        let resources = String::from_utf8_lossy(&output.stdout);
        // Before the colon is the device's number, which changes when the device is made again.
        let resources = resources.split_once(':').map_or("", |(_, counts)| counts).to_owned();
        Self { files: files(), resources }
    }

    /// Waits until there are as many as these, and no more.
    ///
    /// # Panics
    ///
    /// When it never is.
    pub fn wait_until_released(&self, device: &str) {
        let begun = Instant::now();
        loop {
            let now = Self::of(device);
            if now == *self {
                return;
            }
            assert!(begun.elapsed() < HANG_TIMEOUT, "before: {self:#?}\nand now: {now:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Targets of our file descriptors, without the inode numbers.
fn files() -> Vec<String> {
    let folder = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let targets = folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let name = |target: PathBuf| {
        let name = target.to_string_lossy();
        name.split(":[").next().unwrap_or_default().to_owned()
    };
    let mut files: Vec<_> = targets.map(name).collect();
    files.sort();
    files
}
