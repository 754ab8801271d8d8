//! User space of a guest that is not the host's: programs and libraries of another processor
//! architecture, or of another distribution, in a folder.
//!
//! The guest's root stays the host's, so that the caller's files are where they are here; only the
//! folders of the user space are covered.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount, mount_bind};
use serde::{Deserialize, Serialize};

use super::{architecture::Architecture, elf};
use crate::{Error, Result};

/// Tells the guest's first process that there is one.
pub(super) const VARIABLE: &str = "SOFT_ROCE_SYSROOT";

/// Name by which the guest mounts it.
pub(super) const TAG: &str = "sysroot";

/// `soft-roce` in it, the guest's init.
const PROGRAM: &str = "usr/bin/soft-roce";

/// Folders that take the place of the host's, where the host has them.
const FOLDERS: [&str; 6] = ["bin", "etc", "lib", "lib64", "sbin", "usr"];

/// Place where the guest mounts it first.
const PLACE: &str = "/sysroot";

/// Options of its mount: nothing changes there during a run, so all may be kept.
const OPTIONS: &std::ffi::CStr =
    c"trans=virtio,version=9p2000.L,access=any,cache=loose,msize=512000";

/// A folder with a user space, and `soft-roce` built for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sysroot {
    pub(super) folder: PathBuf,
    pub(super) architecture: Architecture,
}

impl Sysroot {
    /// Opens a folder; its `soft-roce` says for which processor it is.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().map_err(Error::io("open", folder))?;
        let program = folder.join(PROGRAM);
        let bytes = fs::read(&program).map_err(|error| {
            let reason = format!(
                "{}: {error}; build soft-roce for the guest's processor and put it there",
                program.display()
            );
            Error::Machine { name: "--sysroot", reason }
        })?;
        let architecture = elf::architecture(&bytes).ok_or_else(|| {
            let reason = format!("{} is no program for a known processor", program.display());
            Error::Machine { name: "--sysroot", reason }
        })?;
        Ok(Self { folder, architecture })
    }

    /// The guest's init.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join(PROGRAM)
    }

    /// Returns whether the guest sees its own user space at this path.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        FOLDERS.iter().any(|folder| path.starts_with(Path::new("/").join(folder)))
    }
}

/// In the guest: covers the user space of the host's root, which is mounted at `root`.
pub(super) fn cover(root: &Path) -> io::Result<()> {
    fs::create_dir_all(PLACE)?;
    mount(TAG, PLACE, "9p", MountFlags::RDONLY, OPTIONS)?;
    for folder in FOLDERS {
        let (from, to) = (Path::new(PLACE).join(folder), root.join(folder));
        // Where the host has a link, it leads to a folder that is covered as well.
        if from.is_dir() && to.is_dir() && !to.is_symlink() {
            mount_bind(from, to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Sysroot::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("usr/bin/soft-roce") && error.contains("build"), "{error}");
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        fs::write(folder.path().join(PROGRAM), "#!/bin/sh\n").unwrap();
        let error = Sysroot::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no program"), "{error}");
    }

    #[test]
    fn the_program_says_the_architecture() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        fs::copy(std::env::current_exe().unwrap(), folder.path().join(PROGRAM)).unwrap();
        let sysroot = Sysroot::open(folder.path()).unwrap();
        assert_eq!(sysroot.architecture, Architecture::host().unwrap());
        assert!(sysroot.program().is_file());
        assert!(sysroot.covers(Path::new("/usr/src")) && !sysroot.covers(Path::new("/home/usr")));
    }
}
