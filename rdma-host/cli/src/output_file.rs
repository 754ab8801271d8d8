//! Files that results are written to: opened before anything is connected, so that a path which
//! can't be written costs no measurement, and written again after each point of a sweep.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{failure::Failure, secret_text};

/// File for a result.
pub(crate) struct OutputFile {
    path: PathBuf,
    file: File,
    /// True if the file did not exist before.
    created: bool,
    /// Content that was written last.
    written: Option<Vec<u8>>,
}

impl OutputFile {
    /// Opens the file. What it contained stays until there is something to write.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Err(Failure::usage(
                "- is the name of no file: give /dev/stdout for standard output, or ./- for a file",
            ));
        }
        let (file, created) = match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (File::options().write(true).open(path), false)
            }
            created => (created, true),
        };
        let file = file.map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), file, created, written: None })
    }

    /// Replaces the content. Where that fails, as on a full disk, the content that was written
    /// before is put back. A pipe or device has no content to replace: it gets the `last` one only.
    pub(crate) fn write(&mut self, content: Vec<u8>, last: bool) -> Result<(), Failure> {
        let kind = self.file.metadata().map_err(|error| failed(&self.path, &error))?;
        if !kind.is_file() {
            let written = if last { self.file.write_all(&content) } else { Ok(()) };
            return written.map_err(|error| failed(&self.path, &error));
        }
        if let Err(error) = replace(&mut self.file, &content) {
            let before = self.written.as_deref().unwrap_or_default();
            // Its space is still allocated. There is no place to report that this failed, too.
            let _ = replace(&mut self.file, before);
            return Err(failed(&self.path, &error));
        }
        self.written = Some(content);
        Ok(())
    }
}

impl Drop for OutputFile {
    /// Leaves no empty file where nothing was measured.
    fn drop(&mut self) {
        if self.created && self.written.is_none() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// True if both are names of one regular file, also by links or before it is there.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => {
            one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
        }
        (Err(_), Err(_)) => one.file_name() == other.file_name() && folder(one) == folder(other),
        _ => false,
    }
}

fn folder(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()
}

fn replace(file: &mut File, content: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", secret_text::shown_path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_content_until_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "older and longer").unwrap();
        drop([OutputFile::open(&old).unwrap(), OutputFile::open(&new).unwrap()]);
        assert_eq!(fs::read_to_string(&old).unwrap(), "older and longer");
        assert!(!new.exists(), "nothing was measured");

        let mut file = OutputFile::open(&old).unwrap();
        for content in ["a first point", "more"] {
            file.write(content.into(), false).unwrap();
            assert_eq!(fs::read_to_string(&old).unwrap(), content);
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_is_told_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none/x")] {
            let failure = OutputFile::open(&path).err().expect("it can't be opened");
            assert_eq!(failure.exit_code(), 1);
            assert!(failure.to_string().contains(path.to_str().unwrap()), "{failure}");
        }
    }

    #[test]
    fn a_file_is_the_same_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "").unwrap();
        fs::write(path("b"), "").unwrap();
        fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink("a", path("soft")).unwrap();
        for (one, other, same) in [
            ("a", "a", true),
            ("a", "hard", true),
            ("soft", "hard", true),
            ("a", "b", false),
            ("a", "none", false),
            ("none", "./none", true),
            ("none", "other", false),
        ] {
            assert_eq!(is_same(&path(one), &path(other)), same, "{one} {other}");
        }
        assert!(!is_same(Path::new("/dev/null"), Path::new("/dev/null")));
        let failure = OutputFile::open(Path::new("-")).err().expect("it is no file");
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn a_device_gets_the_last_content_only() {
        let mut full_disk = OutputFile::open(Path::new("/dev/full")).unwrap();
        full_disk.write(b"a point".to_vec(), false).unwrap();
        let failure = full_disk.write(b"all points".to_vec(), true).unwrap_err();
        assert!(failure.to_string().starts_with("/dev/full: No space left"), "{failure}");
    }
}
