//! Namespaces of the target on devices of the device mapper.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{SUBSYSTEM, dmsetup};

/// Disk in memory, beneath the mapped devices.
pub const DISK: &str = "/dev/ram0";
/// Length of a mapped device in sectors of 512 bytes.
pub const SECTORS: u32 = 2048;

/// Namespace of [`SUBSYSTEM`] on a block device; removed on drop.
#[derive(Debug)]
pub struct AddedNamespace {
    path: PathBuf,
}

impl AddedNamespace {
    /// Adds a namespace on the block device of this path.
    ///
    /// # Panics
    ///
    /// When the target refuses.
    #[must_use]
    pub fn on(nsid: u32, device: &str) -> Self {
        let subsystem = Path::new("/sys/kernel/config/nvmet/subsystems").join(SUBSYSTEM);
        let path = subsystem.join("namespaces").join(nsid.to_string());
        fs::create_dir(&path).expect("a namespace is added");
        fs::write(path.join("device_path"), device).expect("the device is there");
        fs::write(path.join("enable"), "1").expect("it is enabled");
        Self { path }
    }
}

impl Drop for AddedNamespace {
    fn drop(&mut self) {
        // If it stays, the next test that adds it says so.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Namespace on a mapped device; both are removed on drop.
#[derive(Debug)]
pub struct MappedNamespace {
    device: &'static str,
    namespace: Option<AddedNamespace>,
}

impl MappedNamespace {
    /// Makes a mapped device of a target of the device mapper, such as `delay`, and its arguments,
    /// and adds a namespace on it.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn add(nsid: u32, device: &'static str, target: &str) -> Self {
        dmsetup(&["create", device, "--table", &format!("0 {SECTORS} {target}")]);
        let minor = dmsetup(&["info", "-c", "--noheadings", "-o", "minor", device]);
        let namespace = AddedNamespace::on(nsid, &format!("/dev/dm-{}", minor.trim()));
        Self { device, namespace: Some(namespace) }
    }

    /// Number of writes that a device of the type `delay` holds back.
    ///
    /// # Panics
    ///
    /// When the device is of another type.
    #[must_use]
    pub fn delayed_writes(&self) -> u32 {
        let status = dmsetup(&["status", self.device]);
        // Start, length, type, and then the reads, writes and flushes that are held back.
        let writes = status.split_whitespace().nth(4).expect("reads and writes");
        writes.parse().expect("a number")
    }
}

impl Drop for MappedNamespace {
    fn drop(&mut self) {
        self.namespace = None;
        dmsetup(&["remove", self.device]);
    }
}
