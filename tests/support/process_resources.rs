//! What a process may leak.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::load::HANG_TIMEOUT;

/// Our open files, and what an RDMA device has given out.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessResources {
    files: Vec<String>,
    resources: String,
}

impl ProcessResources {
    /// Counts, with the device of the bed.
    ///
    /// # Panics
    ///
    /// Outside the bed.
    #[must_use]
    pub fn now() -> Self {
        Self::of(crate::device())
    }

    /// The same with another device.
    ///
    /// # Panics
    ///
    /// As [`now`](Self::now).
    #[must_use]
    pub fn of(device: &str) -> Self {
        let output = crate::run(Command::new("rdma").args(["resource", "show", device]), &[]);
        let resources = String::from_utf8_lossy(&output.stdout);
        // Before the colon is a number, which is another once the device was made anew.
        let resources = resources.split_once(':').map_or("", |(_, counts)| counts).to_owned();
        Self { files: files(), resources }
    }

    /// Waits until as much is held as this, and no more.
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

/// What our file descriptors are, without the numbers by which one is told from another.
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
