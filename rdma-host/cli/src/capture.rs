//! `--capture`: what a command exchanges with targets, as a file for Wireshark.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rdma_capture::{Capture, CaptureFile};
use rdma_host::{
    RdmaCore,
    wire::{AuthenticationCommand, Sqe},
};

use crate::{failure::Failure, output, secret_text, size};

/// Block type of a section header, the first bytes of a pcapng file.
pub(crate) const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Capture")]
pub(crate) struct CaptureArguments {
    /// Write connection messages, commands and responses to a file for Wireshark (pcapng); each
    /// command takes longer then. Data and payloads of authentication are left out.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,

    /// Capture data that is in the capsule of a command, too: NQNs, and blocks that are written.
    #[arg(long, requires = "capture")]
    capture_data: bool,

    /// Size at which the capture ends; the command goes on.
    #[arg(long, value_name = "BYTES", default_value = "256M", requires = "capture",
          value_parser = size::positive_bytes)]
    capture_size: u64,
}

impl CaptureArguments {
    /// True if a capture is asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.capture.is_some()
    }
}

/// Provider of the system's devices, of which all commands are compiled for one: it captures, or
/// passes every call on.
pub(crate) type SystemProvider = Capture<RdmaCore>;

/// Command that connects.
pub(crate) trait ConnectingCommand {
    fn capture(&self) -> &CaptureArguments;

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure>;
}

/// Runs a command over the system's devices, with a capture if one is asked for.
pub(crate) fn run(command: &impl ConnectingCommand) -> Result<(), Failure> {
    let capture = command.capture();
    let provider = Arc::new(RdmaCore::new());
    let Some(path) = &capture.capture else { return command.run(&Capture::disabled(provider)) };
    let output = OutputStream::open(path)?;
    let payload_bytes = if capture.capture_data {
        AuthenticationCommand::bytes_without_payload
    } else {
        command_bytes
    };
    let file = CaptureFile::new(output, payload_bytes, capture.capture_size);
    let outcome = command.run(&Capture::new(provider, &file));
    // What is left of the command may still disconnect: what it writes then is in the file, too.
    if let Err(error) = file.finish() {
        let path = secret_text::shown_path(path);
        let remedy = match error.kind() {
            ErrorKind::FileTooLarge => "; raise --capture-size for more",
            _ => "",
        };
        output::print_message(format_args!(
            "nvmf: warning: {path} does not have all of the command: {error}{remedy}"
        ));
    }
    outcome
}

/// Bytes of a message without the data behind a command.
fn command_bytes(_message: &[u8]) -> usize {
    Sqe::SIZE
}

/// File of a capture, whose content stays until there is something to write. Not buffered: it is
/// complete also if a signal ends the program at once.
struct OutputStream {
    path: PathBuf,
    file: File,
    is_created: bool,
    is_written: bool,
}

impl OutputStream {
    /// Opens the file, before anything is connected.
    ///
    /// # Errors
    ///
    /// Also if there is a file with something else than a capture in it.
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::failed(format!("{}: {error}", secret_text::shown_path(path)))
        };
        let (file, is_created) = match File::create_new(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (replaceable(path).map_err(failed)?, false)
            }
            created => (created.map_err(failed)?, true),
        };
        Ok(Self { path: path.to_owned(), file, is_created, is_written: false })
    }
}

/// Opens a file that exists: a pipe, a device, or a file that is empty or has a capture.
fn replaceable(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return File::options().write(true).open(path);
    }
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut start = Vec::new();
    (&mut file).take(PCAPNG.len() as u64).read_to_end(&mut start)?;
    if !start.is_empty() && start != PCAPNG {
        let text = "there is a file that is no capture; remove it, or name another one";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    file.rewind()?;
    Ok(file)
}

impl Write for OutputStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_written && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.is_written = true;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputStream {
    /// Leaves no empty file where nothing was captured.
    fn drop(&mut self) {
        if self.is_created && !self.is_written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_capture_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "a report").unwrap();
        let refused = OutputStream::open(&path).err().expect("it is refused");
        assert_eq!(refused.exit_code(), 1);
        assert!(refused.to_string().contains("no capture"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a report");
    }

    #[test]
    fn a_capture_is_replaced_once_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(OutputStream::open(&path).unwrap());
        assert!(!path.exists(), "nothing was captured");
        fs::write(&path, [&PCAPNG[..], b"an older and longer one"].concat()).unwrap();
        let mut output = OutputStream::open(&path).unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"longer one"));
        output.write_all(&PCAPNG).unwrap();
        output.write_all(b"new").unwrap();
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), [&PCAPNG[..], b"new"].concat());
    }
}
