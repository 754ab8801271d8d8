//! Paths of a run: the folder that takes its private files, and folders that a guest cannot see.

use std::{
    env,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::{Error, Result};

/// Folders that the guest covers with its own file systems.
const COVERED: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/var/run", "/var/lock"];

/// A folder for private files that the guest sees too: `TMPDIR`, `/tmp` or `/var/tmp`.
pub(crate) fn private_base() -> Result<PathBuf> {
    let named = env::var_os("TMPDIR").map(PathBuf::from);
    let usual = ["/tmp", "/var/tmp"].map(PathBuf::from);
    let fits = |path: &PathBuf| {
        path.is_absolute() && is_plain(path) && is_trusted(path) && !is_covered(path)
    };
    named.into_iter().chain(usual).find(fits).ok_or_else(|| {
        let text = "no folder for the files of a run: neither TMPDIR, /tmp nor /var/tmp is one \
                    that you can write to and other users cannot rename files in; set TMPDIR to \
                    a folder of your own";
        Error::Usage(text.into())
    })
}

/// Tells if this user may create files in the folder, and no other user may rename or remove them:
/// by its mode or that of a folder above it.
pub(crate) fn is_trusted(folder: &Path) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    let is_sticky = |mode: u32| mode & 0o1000 != 0;
    let is_safe = |metadata: Metadata| metadata.mode() & 0o002 == 0 || is_sticky(metadata.mode());
    writable(&real) && real.ancestors().all(|above| above.metadata().is_ok_and(is_safe))
}

/// Tells if the guest cannot see this path because one of its own file systems is on top.
pub(crate) fn is_covered(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    COVERED.iter().any(|covered| path.starts_with(covered))
}

/// Tells if the kernel's command line can carry this path.
fn is_plain(path: &Path) -> bool {
    let special = |letter: char| letter.is_whitespace() || "\"',".contains(letter);
    path.to_str().is_some_and(|path| !path.contains(special))
}

fn writable(folder: &Path) -> bool {
    folder.is_dir() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn a_folder_in_which_others_can_rename_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let set = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).unwrap();
            (is_trusted(folder.path()), is_trusted(&below))
        };
        assert_eq!(set(0o700), (true, true));
        assert_eq!(set(0o1777), (true, true));
        assert_eq!(set(0o777), (false, false));
        assert!(!is_trusted(&below.join("none")));
    }
}
