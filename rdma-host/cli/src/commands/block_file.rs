//! Files and pipes with blocks, and the ranges of blocks that they are for.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rdma_host::RangeCommands;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::{failure::Failure, io_namespace::IoNamespace, load};

/// File or standard output for blocks.
pub(super) struct Output {
    writer: Box<dyn Write>,
    /// File, if it is not standard output.
    file: Option<File>,
    path: PathBuf,
}

impl Output {
    /// Opens the file, and leaves in it what it has.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            let writer = Box::new(io::stdout().lock());
            return Ok(Self { writer, file: None, path: path.to_owned() });
        }
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        let opened = opened.and_then(|file| Ok((file.try_clone()?, file)));
        let (writer, file) = opened.map_err(|error| output_error(path, &error))?;
        Ok(Self { writer: Box::new(writer), file: Some(file), path: path.to_owned() })
    }

    /// Empties a regular file, once there is something to write.
    pub(super) fn truncate(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let emptied = file
            .metadata()
            .and_then(|metadata| if metadata.is_file() { file.set_len(0) } else { Ok(()) });
        emptied.map_err(|error| output_error(&self.path, &error))
    }

    /// Writes all bytes; returns false if standard output is a pipe that the reader has closed.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let written = self.writer.write_all(bytes);
        self.check(written)
    }

    /// Flushes; returns false as [`write`](Self::write) does.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let flushed = self.writer.flush();
        self.check(flushed)
    }

    fn check(&self, result: io::Result<()>) -> Result<bool, Failure> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.path.as_os_str() == "-" => {
                Ok(false)
            }
            Err(error) => Err(output_error(&self.path, &error)),
        }
    }
}

fn output_error(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write to {}: {error}", path.display()))
}

/// File or standard input with blocks.
pub(super) struct Input {
    reader: File,
    path: PathBuf,
    /// Length, if it is a regular file.
    bytes: Option<u64>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let cannot =
            |error: io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
        if path.as_os_str() == "-" {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?;
            return Ok(Self { reader: stdin.into(), path: path.to_owned(), bytes: None });
        }
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(cannot(ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: file, path: path.to_owned(), bytes })
    }

    pub(super) fn name(&self) -> String {
        if self.path.as_os_str() == "-" {
            "standard input".to_owned()
        } else {
            self.path.display().to_string()
        }
    }

    /// Length in bytes, if it is a regular file.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Failure of a command for which there is no data.
    pub(super) fn no_data(&self) -> Failure {
        Failure::usage(format!("{} has no data", self.name()))
    }

    /// Refuses a range of blocks, or a file for it, that fits no namespace.
    pub(super) fn check(&self, lba: u64, blocks: Option<u64>) -> Result<(), Failure> {
        check_end(lba, blocks.unwrap_or(0))?;
        match (blocks, self.bytes) {
            (None, Some(0)) => Err(self.no_data()),
            (None, Some(bytes)) => load::check_blocks(&format!("{}:", self.name()), bytes)
                .map_err(|failure| failure.context("nothing was written")),
            _ => Ok(()),
        }
    }

    /// Number of bytes to write, checked as far as it is known; `None` to write until a pipe ends.
    pub(super) fn bytes_to_write(
        &self,
        namespace: &IoNamespace,
        lba: u64,
        blocks: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        let requested = blocks.map(|blocks| check_range(namespace, lba, blocks)).transpose()?;
        match (requested, self.bytes) {
            (Some(requested), Some(there)) if there < requested => Err(Failure::usage(format!(
                "{} has {there} bytes, {} blocks need {requested}; nothing was written",
                self.name(),
                blocks_of(namespace, requested),
            ))),
            (None, Some(there)) => {
                let checked = namespace.check_range(lba, there).map_err(rdma_host::Error::from);
                checked.map_err(|error| {
                    Failure::from(error).context(format!("{}; nothing was written", self.name()))
                })?;
                Ok(Some(there))
            }
            (requested, _) => Ok(requested),
        }
    }

    /// Reads until `chunk` is full or the input ends; `None` if there is nothing to read from a
    /// pipe or terminal, and `stop` returns true.
    pub(super) fn fill(
        &mut self,
        chunk: &mut [u8],
        stop: impl Fn() -> bool,
    ) -> Result<Option<usize>, Failure> {
        let mut filled = 0;
        while filled < chunk.len() {
            let read = self.wait_readable().and_then(|is_readable| {
                if is_readable {
                    self.reader.read(&mut chunk[filled..]).map(Some)
                } else {
                    Ok(None)
                }
            });
            match read {
                Ok(Some(0)) => break,
                Ok(Some(count)) => filled += count,
                Ok(None) if stop() => return Ok(None),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure::failed(format!("cannot read {}: {error}", self.name())));
                }
            }
        }
        Ok(Some(filled))
    }

    /// Waits for a while until a read would not block; always true of a file.
    fn wait_readable(&self) -> io::Result<bool> {
        /// Time between looks at the signals.
        const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut descriptors = [PollFd::new(&self.reader, PollFlags::IN)];
        Ok(self.bytes.is_some() || rustix::event::poll(&mut descriptors, Some(&INTERVAL))? > 0)
    }
}

/// Refuses a range that ends beyond all numbers of blocks.
pub(super) fn check_end(lba: u64, blocks: u64) -> Result<(), Failure> {
    lba.checked_add(blocks).map(drop).ok_or_else(|| {
        Failure::usage(format!(
            "{blocks} blocks from block {lba} on are past the end of any namespace"
        ))
    })
}

/// Number of bytes in a range of blocks.
///
/// # Errors
///
/// A usage error if the range does not fit the namespace.
pub(super) fn check_range(namespace: &IoNamespace, lba: u64, blocks: u64) -> Result<u64, Failure> {
    let bytes = blocks.checked_mul(u64::from(namespace.info().block_size));
    let bytes = bytes.ok_or_else(|| Failure::usage(format!("{blocks} blocks are too many")))?;
    // A range of no blocks starts past the end; it is refused as one block there would be.
    let least = u64::from(namespace.info().block_size);
    namespace.check_range(lba, bytes.max(least)).map_err(rdma_host::Error::from)?;
    Ok(bytes)
}

/// Whole blocks in a number of bytes.
pub(super) fn blocks_of(namespace: &IoNamespace, bytes: u64) -> u64 {
    bytes / u64::from(namespace.info().block_size)
}
