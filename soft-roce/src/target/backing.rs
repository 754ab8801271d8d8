//! Backing devices of namespaces: how they are made and removed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Backing, FileBacking, NullBlk, configfs::TargetRoot};
use crate::{Error, Result, helper};

/// A backing device that exists, with what is needed to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum BackingDevice {
    /// A file of the user, which is not removed.
    File(PathBuf),
    /// A loop device on a file of the user.
    Loop(PathBuf),
    /// A null block device, by name.
    NullBlk(String),
    /// A file in memory.
    Ram(PathBuf),
}

impl BackingDevice {
    /// Value for the namespace's `device_path`.
    pub(super) fn device(&self) -> PathBuf {
        match self {
            Self::NullBlk(name) => Path::new("/dev").join(name),
            Self::File(path) | Self::Loop(path) | Self::Ram(path) => path.clone(),
        }
    }

    /// Removes the device, except for the user's file.
    pub(super) fn remove(&self, root: &TargetRoot) -> Result<()> {
        match self {
            Self::File(_) => Ok(()),
            Self::Loop(device) => helper::check(helper::system("losetup").arg("-d").arg(device)),
            Self::NullBlk(name) => root.null_blk(name)?.remove(),
            Self::Ram(path) => fs::remove_file(path).map_err(Error::io("remove", path)),
        }
    }
}

impl Backing {
    /// Makes the device, with this name.
    pub(super) fn make(&self, root: &TargetRoot, name: &str) -> Result<BackingDevice> {
        match self {
            Self::NullBlk(null) => null.make(root, name),
            Self::File(file) => file.make(),
            Self::Ram(ram) => {
                let folder = root.own.join("ram");
                fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
                let path = folder.join(name);
                grow(&path, ram.size)?;
                Ok(BackingDevice::Ram(path))
            }
        }
    }

    /// Value for the namespace's `buffered_io`; `None` where the kernel does not use it.
    pub(super) fn buffered_io(&self) -> Option<bool> {
        match self {
            Self::NullBlk(_) => None,
            Self::Ram(_) => Some(true),
            Self::File(FileBacking { block_size: Some(_), .. }) => None,
            Self::File(file) => Some(file.buffered_io.unwrap_or(true)),
        }
    }
}

impl NullBlk {
    fn make(&self, root: &TargetRoot, name: &str) -> Result<BackingDevice> {
        let node = root.null_blk(name)?;
        node.create()?;
        let made = BackingDevice::NullBlk(name.into());
        self.set_up(&node).inspect_err(|_| drop(made.remove(root)))?;
        Ok(made)
    }

    fn set_up(&self, node: &super::configfs::Node) -> Result<()> {
        node.set("size", &(self.size >> 20).to_string())?;
        node.set("blocksize", &self.block_size.to_string())?;
        node.set("memory_backed", if self.memory_backed { "1" } else { "0" })?;
        if let Some(nanoseconds) = self.completion_nsec {
            // The delay is that of completions by timer.
            node.set("irqmode", "2")?;
            node.set("completion_nsec", &nanoseconds.to_string())?;
        }
        for (attribute, value) in &self.extra {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            node.set(attribute, &text)?;
        }
        node.set("power", "1")
    }
}

impl FileBacking {
    fn make(&self) -> Result<BackingDevice> {
        let path = &self.path;
        match self.size {
            Some(size) => grow(path, size)?,
            None => drop(File::open(path).map_err(Error::io("open", path))?),
        }
        let path = path.canonicalize().map_err(Error::io("find", path))?;
        let Some(block_size) = self.block_size else { return Ok(BackingDevice::File(path)) };
        let mut losetup = helper::system("losetup");
        losetup.args(["--find", "--show", "--sector-size", &block_size.to_string()]).arg(path);
        let device = helper::output(&mut losetup)?;
        Ok(BackingDevice::Loop(device.trim().into()))
    }
}

/// Makes a sparse file of at least this length.
fn grow(path: &Path, size: u64) -> Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::io("create", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    if length >= size {
        return Ok(());
    }
    file.set_len(size).map_err(Error::io("grow", path))
}
