//! `--metrics-file`: a file for node_exporter's textfile collector.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use crate::{failure::Failure, output, secret_text};

/// Start of every file of metrics.
const START: &[u8] = b"# HELP nvmf_";

/// File that is written whole: a reader sees the former content or the new one. It is removed on
/// drop, since its numbers would be taken for those of now.
pub(crate) struct MetricsFile {
    path: PathBuf,
    /// File in the same folder that becomes the file.
    new: PathBuf,
    /// True if the last write failed, which was told.
    has_failed: bool,
}

impl MetricsFile {
    /// Makes sure that the file can be written, before anything is connected.
    ///
    /// # Errors
    ///
    /// Also if there is something else at that path than a file of metrics.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        match starts_as_metrics(&path) {
            Ok(true) => {}
            Ok(false) => {
                let path = secret_text::shown_path(&path);
                return Err(Failure::failed(format!(
                    "--metrics-file: {path} exists and is no file of metrics: give another path"
                )));
            }
            Err(error) => return Err(failed(&path, &error)),
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let this = Self { new: path.with_file_name(name), path, has_failed: false };
        // As it will be written, but for the last step.
        this.write_new("").map_err(|error| failed(&this.path, &error))?;
        let _ = fs::remove_file(&this.new);
        Ok(this)
    }

    /// Replaces the content. A failure is told once.
    pub(crate) fn write(&mut self, content: &str) {
        let written = self.write_new(content).and_then(|()| fs::rename(&self.new, &self.path));
        if let Err(error) = &written {
            let _ = fs::remove_file(&self.new);
            if !self.has_failed {
                let path = secret_text::shown_path(&self.path);
                output::print_message(format_args!("nvmf: warning: {path}: {error}"));
            }
        }
        self.has_failed = written.is_err();
    }

    fn write_new(&self, content: &str) -> io::Result<()> {
        // Left by a process with the same number that was killed.
        let _ = fs::remove_file(&self.new);
        File::create_new(&self.new)?.write_all(content.as_bytes())
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns true if there is nothing, an empty file, or a file of metrics.
fn starts_as_metrics(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    }
    let mut start = Vec::new();
    File::open(path)?.take(START.len() as u64).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == START)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("--metrics-file: {}: {error}", secret_text::shown_path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nvmf.prom");
        fs::write(&path, "# HELP nvmf_old Left by a process that was killed.\n").unwrap();
        let mut file = MetricsFile::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        file.write("# HELP nvmf_new New.\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# HELP nvmf_new New.\n");
        let mut before = String::new();
        (&reader).read_to_string(&mut before).unwrap();
        assert!(before.contains("nvmf_old"), "a reader has the former content: {before}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_not_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (other, link) = (folder.path().join("other"), folder.path().join("link"));
        fs::write(&other, "something else").unwrap();
        std::os::unix::fs::symlink(folder.path().join("none"), &link).unwrap();
        for (path, word) in [
            (&folder.path().join("none/x.prom"), "No such file"),
            (&folder.path().to_owned(), "no file of metrics"),
            (&link, "no file of metrics"),
            (&other, "no file of metrics"),
        ] {
            let failure = MetricsFile::create(path).err().expect("it is refused").to_string();
            assert!(failure.contains(word) && failure.lines().count() == 1, "{failure}");
            assert!(failure.contains(path.to_str().unwrap()), "{failure}");
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "something else");
    }
}
