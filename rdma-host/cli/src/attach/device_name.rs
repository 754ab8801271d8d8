//! Names of attached devices: links in `/dev/nvmf`.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Folder of the links.
const FOLDER: &str = "/dev/nvmf";

/// Maximum length in bytes.
const BYTES_MAX: usize = 64;

/// Name of a device, of the user's choice.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String")]
pub(super) struct DeviceName(String);

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(format!("a name has 1 to {BYTES_MAX} characters"));
        }
        if !text.chars().all(is_allowed) || text.starts_with(['.', '-']) {
            let rule = "a name is of letters, digits, '_', and, but for the first, '.' and '-'";
            return Err(rule.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl DeviceName {
    /// Name of the device at a path in the folder; `None` for other paths.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        path.strip_prefix(FOLDER)?.strip_prefix('/')?.parse().ok()
    }

    /// Path of the link.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }

    /// Checks that the name is not in use for another device than `id`.
    pub(super) fn check_free(&self, id: Option<u32>) -> Result<(), Failure> {
        let path = self.path();
        let shown = path.display();
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => return Err(Failure::usage(format!("{shown} is not a link of nvmf's"))),
        };
        let is_own = id.is_some_and(|id| target == target_of(id));
        // A link whose device is gone was left behind.
        if is_own || !path.exists() {
            return Ok(());
        }
        let other = Path::new("/dev").join(target.file_name().unwrap_or_default());
        Err(Failure::usage(format!(
            "{shown} is {}: give another --name, or detach that device",
            other.display()
        )))
    }

    /// Links the name to a device.
    pub(super) fn link(&self, id: u32) -> Result<(), Failure> {
        let made = || {
            fs::create_dir_all(FOLDER)?;
            let new = Path::new(FOLDER).join(format!(".ublkb{id}"));
            // Left by a process that was killed.
            let _ = fs::remove_file(&new);
            symlink(target_of(id), &new)?;
            fs::rename(&new, self.path())
        };
        let failed = |error: io::Error| {
            Failure::failed(format!("the link {} to ublkb{id}: {error}", self.path().display()))
        };
        made().map_err(failed)
    }

    /// Removes the link, if it is to this device.
    pub(super) fn unlink(&self, id: u32) -> io::Result<()> {
        let path = self.path();
        if fs::read_link(&path).is_ok_and(|target| target == target_of(id)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Target of a link, relative to the folder.
fn target_of(id: u32) -> PathBuf {
    PathBuf::from(format!("../ublkb{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name_of_plain_characters() {
        let longest = "n".repeat(BYTES_MAX);
        for name in ["db", "db-1.data_2", "7", &longest] {
            let name: DeviceName = name.parse().unwrap();
            assert_eq!(DeviceName::of_path(name.path().to_str().unwrap()), Some(name));
        }
        let long = "n".repeat(BYTES_MAX + 1);
        for name in ["", ".", "..", ".db", "-db", "a/b", "a b", "a\n", "ä", &long] {
            assert!(name.parse::<DeviceName>().is_err(), "{name:?}");
        }
        for path in ["/dev/nvmf", "/dev/nvmf/", "/dev/nvmf/../sda", "/dev/nvmfdb", "db"] {
            assert_eq!(DeviceName::of_path(path), None, "{path}");
        }
    }
}
