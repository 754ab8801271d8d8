//! Where a run's files go: its private folder, and the guest's memory.

use std::{
    env,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statfs, statvfs};

use crate::{Error, Result, kernel::cache::Cache};

/// What a tmpfs calls itself.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Folders that the guest covers with its own file systems.
const COVERED: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/var/run", "/var/lock"];

/// A folder for private files that the guest sees too.
pub(crate) fn private_base() -> PathBuf {
    let named = env::var_os("TMPDIR").map(PathBuf::from);
    let usual = ["/tmp", "/var/tmp"].map(PathBuf::from);
    let fits = |path: &PathBuf| {
        path.is_absolute() && is_plain(path) && writable(path) && !is_covered(path)
    };
    named.into_iter().chain(usual).find(fits).unwrap_or_else(|| "/tmp".into())
}

/// Whether the guest cannot see this path because one of its own file systems is on top.
pub(crate) fn is_covered(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    COVERED.iter().any(|covered| path.starts_with(covered))
}

/// Whether the kernel's command line can carry this path.
fn is_plain(path: &Path) -> bool {
    let special = |letter: char| letter.is_whitespace() || "\"',".contains(letter);
    path.to_str().is_some_and(|path| !path.contains(special))
}

/// A folder with room for the guest's memory, a tmpfs if there is one.
///
/// Memory that lies on a disk is written out by the host as it changes; it works, slower.
pub(crate) fn memory_folder(bytes: u64) -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    if is_tmpfs(shared) && has_room(shared, bytes) {
        return Ok(shared.into());
    }
    let mut others = vec![private_base(), "/var/tmp".into()];
    others.extend(Cache::open().map(|cache| cache.root().to_path_buf()));
    let found = others.into_iter().find(|folder| has_room(folder, bytes));
    found.ok_or_else(|| {
        let mib = bytes >> 20;
        let text = format!(
            "no room for {mib} MiB of guest memory in /dev/shm, TMPDIR, /tmp or the cache; \
             set TMPDIR to a larger folder or give less with --mem"
        );
        Error::Usage(text)
    })
}

fn is_tmpfs(folder: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between machines")]
    statfs(folder).is_ok_and(|about| about.f_type as i64 == TMPFS_MAGIC)
}

fn has_room(folder: &Path, bytes: u64) -> bool {
    let free = |folder| statvfs(folder).map_or(0, |about| about.f_bavail * about.f_frsize);
    writable(folder) && free(folder) >= bytes
}

fn writable(folder: &Path) -> bool {
    folder.is_dir() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_folders_are_known() {
        assert!(is_covered(Path::new("/proc/self")));
        assert!(is_covered(Path::new("/dev")));
        assert!(!is_covered(Path::new("/usr/bin")));
    }

    #[test]
    fn paths_with_spaces_stay_off_the_command_line() {
        assert!(is_plain(Path::new("/tmp/größe")));
        assert!(!is_plain(Path::new("/tmp/my files")));
        assert!(!is_plain(Path::new("/tmp/a\"b")));
    }

    #[test]
    fn too_much_memory_is_refused() {
        let error = memory_folder(u64::MAX).unwrap_err().to_string();
        assert!(error.contains("--mem"), "{error}");
    }
}
