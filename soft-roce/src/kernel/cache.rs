//! Cache of built kernels: one folder per source version and configuration, one name per series.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::{FdFlags, fcntl_setfd},
};

use crate::{Error, Result, kernel::config};

/// The beginning of the names of the links to current kernels.
const POINTER: &str = "current-";

/// The cache folder, `$XDG_CACHE_HOME/soft-roce`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user; nothing is created yet.
    ///
    /// # Errors
    ///
    /// When neither `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn open() -> Result<Self> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let base = named("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")))
            .filter(|base| base.is_absolute())
            .ok_or(Error::NoCache)?;
        Ok(Self { root: base.join("soft-roce") })
    }

    /// A cache in another folder.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel program that `name` stands for, if it was built with today's configuration.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<PathBuf> {
        let entry = fs::read_link(self.pointer(name)).ok()?;
        let linux = self.root.join(&entry).join("linux");
        let matches = entry.to_str()?.ends_with(&format!("-{}", config::hash()));
        (matches && linux.is_file()).then_some(linux)
    }

    /// The key of a source version under today's options and patches.
    #[must_use]
    pub fn key(version: &str) -> String {
        format!("{version}-{}", config::hash())
    }

    /// The entry for a source version under today's options and patches.
    #[must_use]
    pub fn entry(&self, version: &str) -> PathBuf {
        self.root.join(Self::key(version))
    }

    /// The names under which kernels are kept, with the program of each, or none when it is of
    /// other options or patches than today's and will be built again.
    #[must_use]
    pub fn kernels(&self) -> Vec<(String, Option<PathBuf>)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter_map(|name| name.strip_prefix(POINTER).map(str::to_owned));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), self.current(&name))).collect()
    }

    /// Makes `name` stand for `entry`, in one step.
    pub(crate) fn point(&self, name: &str, entry: &Path) -> Result<()> {
        let target = entry.file_name().expect("an entry is a folder inside the cache");
        let fresh = self.root.join(format!("new-{name}.{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        symlink(target, &fresh).map_err(Error::io("create", &fresh))?;
        fs::rename(&fresh, self.pointer(name)).map_err(Error::io("rename", &fresh))
    }

    /// Takes the lock of that name; calls `on_wait` first if another process holds it.
    pub(crate) fn lock(&self, name: &str, on_wait: impl FnOnce()) -> Result<Lock> {
        // Programs are executed from here: no other user may change them, whatever the umask.
        let mut folder = DirBuilder::new();
        let created = folder.recursive(true).mode(0o700).create(&self.root);
        created.map_err(Error::io("create", &self.root))?;
        let path = self.root.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            on_wait();
            flock(&file, FlockOperation::LockExclusive).map_err(Error::errno("lock", &path))?;
        }
        Ok(Lock { file })
    }

    fn pointer(&self, name: &str) -> PathBuf {
        self.root.join(format!("{POINTER}{name}"))
    }
}

/// A lock that ends when dropped, or when the last process that inherited it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Lets programs started from now on hold the lock too: a compiler that outlives us must not
    /// share its tree with the next build.
    pub(crate) fn inherit(&self) -> io::Result<()> {
        Ok(fcntl_setfd(&self.file, FdFlags::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_configuration_is_not_current() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().into());
        let stale = folder.path().join("6.12.1-000000000000");
        for entry in [&stale, &cache.entry("6.12.2")] {
            fs::create_dir(entry).unwrap();
            fs::write(entry.join("linux"), "").unwrap();
        }
        assert_eq!(cache.current("6.12"), None);
        cache.point("6.12", &stale).unwrap();
        assert_eq!(cache.current("6.12"), None);
        cache.point("6.12", &cache.entry("6.12.2")).unwrap();
        assert_eq!(cache.current("6.12"), Some(cache.entry("6.12.2").join("linux")));
    }

    #[test]
    fn the_folder_is_closed_to_other_users() {
        use std::os::unix::fs::MetadataExt;

        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("soft-roce"));
        cache.lock("build", || panic!("no other holds it")).unwrap();
        assert_eq!(fs::metadata(cache.root()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_lock_waits() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().into());
        let first = cache.lock("build", || panic!("no other holds it")).unwrap();
        let (told, waits) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| cache.lock("build", || told.send(()).unwrap()).unwrap());
            waits.recv().unwrap();
            drop(first);
        });
    }
}
