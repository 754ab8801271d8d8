//! `nvmf read` and `nvmf write`: blocks to and from files and pipes.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use indicatif::ProgressBar;
use rdma_host::{Buffer, Provider, RangeCommands, TransferError};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::task::JoinHandle;

use crate::{
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::ConnectedController,
    failure::Failure,
    io_namespace::IoNamespace,
    load::{self, DRAIN_TIMEOUT},
    output,
    overwrite::OverwriteArguments,
    progress::transfer_bar,
    shutdown::InterruptibleRuntime,
    size,
    target::TargetArguments,
    termination_signal::TerminationSignal,
};

/// Commands in flight.
const DEPTH: usize = 8;
/// Bytes of a command, unless the controller takes less. Times the depth 2 MiB, below the 8 MiB
/// that users may commonly lock.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;

#[derive(Args)]
pub(crate) struct ReadArguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_id)]
    ns: Option<u32>,

    /// First block.
    #[arg(long, value_name = "LBA", default_value_t = 0, value_parser = size::count)]
    lba: u64,

    /// Number of blocks [default: to the end of the namespace].
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: Option<u64>,

    /// File to write the blocks to; - for standard output.
    #[arg(short, long, default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Args)]
pub(crate) struct WriteArguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_id)]
    ns: Option<u32>,

    /// First block.
    #[arg(long, value_name = "LBA", default_value_t = 0, value_parser = size::count)]
    lba: u64,

    /// Number of blocks [default: all of the file].
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: Option<u64>,

    /// File to write to the namespace; - for standard input.
    #[arg(short, long, default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

/// Command in flight.
type PendingTransfer = JoinHandle<Result<Buffer, TransferError>>;

/// Transfer of a range of a namespace, chunk by chunk in order. A signal ends it: nothing more is
/// submitted, and what is in flight has a second to complete.
struct RangeTransfer<P: Provider> {
    connected: ConnectedController<P>,
    namespace: IoNamespace,
    /// First block.
    lba: u64,
    buffers: Vec<Buffer>,
    pending: VecDeque<PendingTransfer>,
    chunk: u64,
    progress: ProgressBar,
}

impl ConnectingCommand for ReadArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        if self.file.as_os_str() == "-" && io::stdout().is_terminal() {
            return Err(Failure::usage("blocks are not for a terminal; name a file with --file"));
        }
        check_end(self.lba, self.blocks.unwrap_or(0))?;
        let mut output = Output::open(&self.file)?;
        let connected = ConnectedController::connect_paths(provider, &self.target)?;
        let namespace = connected.io_namespace(self.ns)?;
        let lba = self.lba;
        let blocks = self.blocks.unwrap_or(namespace.info().blocks.saturating_sub(lba));
        let bytes = check_range(&namespace, lba, blocks)?;
        output.truncate()?;
        let mut transfer = RangeTransfer::new(connected, namespace, lba, Some(bytes))?;
        let complete =
            transfer.read(bytes, &mut output).and_then(|read| Ok(read && output.flush()?));
        let done = transfer.describe("read", bytes);
        transfer.close();
        if complete? {
            output::print_message(done);
        }
        Ok(())
    }
}

impl ConnectingCommand for WriteArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let mut consent = self.overwrite.consent("write", self.file.as_os_str() != "-")?;
        let mut input = Input::open(&self.file)?;
        input.check(self.lba, self.blocks)?;
        let connected = ConnectedController::connect_paths(provider, &self.target)?;
        let namespace = connected.io_namespace(self.ns)?;
        let lba = self.lba;
        let bytes = input.bytes_to_write(&namespace, lba, self.blocks)?;
        consent.check(&connected, &namespace)?;
        let mut transfer = RangeTransfer::new(connected, namespace, lba, bytes)?;
        let written = transfer.write(bytes, &mut input);
        let done = written.map(|bytes| transfer.describe("written", bytes));
        transfer.close();
        output::print_message(done?);
        Ok(())
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
fn blocks_of(namespace: &IoNamespace, bytes: u64) -> u64 {
    bytes / u64::from(namespace.info().block_size)
}

impl<P: Provider> RangeTransfer<P> {
    fn new(
        connected: ConnectedController<P>,
        namespace: IoNamespace,
        lba: u64,
        bytes: Option<u64>,
    ) -> Result<Self, Failure> {
        let chunk = CHUNK_BYTES.min(namespace.transfer_bytes_max());
        let chunk = chunk.max(u64::from(namespace.info().block_size));
        let size = usize::try_from(chunk).map_err(Failure::failed)?;
        let buffers = connected.controller.allocate_many(DEPTH, size)?;
        let progress = transfer_bar(bytes);
        let pending = VecDeque::new();
        Ok(Self { connected, namespace, lba, buffers, pending, chunk, progress })
    }

    /// Reads `bytes`; returns false if the reader of the output has closed the pipe before.
    fn read(&mut self, bytes: u64, output: &mut Output) -> Result<bool, Failure> {
        let (mut submitted, mut received) = (0, 0);
        let mut copy = Vec::new();
        while received < bytes {
            let signal = self.signal();
            if let Some(signal) = signal.filter(|_| self.pending.is_empty()) {
                return Err(Failure::interrupted(signal).context(self.describe("read", received)));
            }
            while signal.is_none()
                && submitted < bytes
                && let Some(mut buffer) = self.buffers.pop()
            {
                // A target that sends nothing must not leave the blocks of an earlier command.
                buffer.fill(0);
                let length = self.chunk.min(bytes - submitted);
                let at = self.lba + blocks_of(&self.namespace, submitted);
                self.submit(buffer, length, move |namespace, part| async move {
                    namespace.read(at, part).await
                })?;
                submitted += length;
            }
            let buffer = self.wait_oldest().map_err(|failure| {
                let end = self.lba + blocks_of(&self.namespace, received);
                failure.context(format!("after {received} of {bytes} bytes, at block {end}"))
            })?;
            copy.resize(buffer.len(), 0);
            buffer.copy_out(0, &mut copy);
            received += copy.len() as u64;
            self.progress.inc(copy.len() as u64);
            self.release(buffer);
            if !output.write(&copy)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes `bytes`, or until the input ends; returns the number of bytes written.
    fn write(&mut self, bytes: Option<u64>, input: &mut Input) -> Result<u64, Failure> {
        let (mut submitted, mut written) = (0, 0);
        let mut copy = vec![0; usize::try_from(self.chunk).map_err(Failure::failed)?];
        let mut ended = false;
        loop {
            let room = |submitted: u64| bytes.is_none_or(|bytes| submitted < bytes);
            while self.signal().is_none() && !ended && room(submitted) && !self.buffers.is_empty() {
                let want = bytes.map_or(self.chunk, |bytes| self.chunk.min(bytes - submitted));
                let chunk = &mut copy[..usize::try_from(want).unwrap_or(usize::MAX)];
                let shutdown = &self.connected.runtime.shutdown;
                let Some(got) = input.fill(chunk, || shutdown.get().is_some())? else { break };
                ended = got < chunk.len();
                if got == 0 {
                    break;
                }
                let at = self.lba + blocks_of(&self.namespace, submitted);
                let outcome = self.write_chunk(at, &chunk[..got]);
                outcome.map_err(|failure| self.describe_partial_write(failure, written))?;
                submitted += got as u64;
            }
            if self.pending.is_empty() {
                break;
            }
            let buffer = self
                .wait_oldest()
                .map_err(|failure| self.describe_partial_write(failure, written))?;
            written += buffer.len() as u64;
            self.progress.inc(buffer.len() as u64);
            self.release(buffer);
        }
        let is_done = ended || bytes.is_some_and(|bytes| written == bytes);
        match (self.signal(), bytes) {
            // What a signal ended is not flushed: that may take long.
            (Some(signal), _) if !is_done => {
                Err(Failure::interrupted(signal).context(self.describe("written", written)))
            }
            (_, Some(bytes)) if written < bytes => {
                let ended = format!("{} ended after {written} of {bytes} bytes", input.name());
                Err(self.describe_partial_write(Failure::failed(ended), written))
            }
            (None, None) if written == 0 => Err(input.no_data()),
            _ => {
                let not_flushed = |failure: Failure| {
                    failure.context(format!("{}, not flushed", self.describe("written", written)))
                };
                self.flush(written).map_err(not_flushed)
            }
        }
    }

    /// Signal that ends the transfer, if there was one.
    fn signal(&self) -> Option<TerminationSignal> {
        self.connected.runtime.shutdown.get()
    }

    fn write_chunk(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.namespace.check_range(at, bytes.len() as u64).map_err(rdma_host::Error::from)?;
        let mut buffer = self.buffers.pop().expect("the caller saw a free one");
        buffer.copy_in(0, bytes);
        self.submit(buffer, bytes.len() as u64, move |namespace, part| async move {
            namespace.write(at, part).await
        })
    }

    fn flush(&self, written: u64) -> Result<u64, Failure> {
        self.connected.runtime.run(self.namespace.flush())?;
        Ok(written)
    }

    /// Failure with the number of blocks written before it without a gap; later ones may be too.
    fn describe_partial_write(&self, failure: Failure, written: u64) -> Failure {
        if written == 0 && self.pending.is_empty() {
            return failure.context("nothing was written");
        }
        failure.context(format!("{}, later ones may be, too", self.describe("written", written)))
    }

    /// Number of blocks from the first on that were transferred, and the last of them.
    fn describe(&self, what: &str, bytes: u64) -> String {
        let blocks = blocks_of(&self.namespace, bytes);
        let count = size::format_count(blocks, "block");
        match blocks.checked_sub(1) {
            None => format!("{count} {what}"),
            Some(last) => {
                let (bytes, last) = (size::format_bytes(bytes), self.lba + last);
                format!("{count} {what} ({bytes}), up to block {last}")
            }
        }
    }

    fn submit<F, R>(&mut self, buffer: Buffer, length: u64, operation: F) -> Result<(), Failure>
    where
        F: FnOnce(IoNamespace, Buffer) -> R + Send + 'static,
        R: Future<Output = Result<Buffer, TransferError>> + Send,
    {
        let length = usize::try_from(length).map_err(Failure::failed)?;
        let namespace = self.namespace.clone();
        let task = async move {
            let mut part = buffer;
            let rest = (length < part.len()).then(|| part.split_off(length));
            let part = operation(namespace, part).await?;
            // The rest of a short last chunk is not needed again.
            drop(rest);
            Ok(part)
        };
        self.pending.push_back(self.connected.runtime.runtime.spawn(task));
        Ok(())
    }

    /// Waits for the oldest command, and returns its buffer. A command that outlasts a signal by
    /// more than a second is in flight still.
    fn wait_oldest(&mut self) -> Result<Buffer, Failure> {
        let mut oldest = self.pending.pop_front().expect("a command is in flight");
        let InterruptibleRuntime { runtime, shutdown } = &self.connected.runtime;
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = &mut oldest => Ok(outcome),
                signal = async {
                    let signal = shutdown.received().await;
                    tokio::time::sleep(DRAIN_TIMEOUT).await;
                    signal
                } => Err(Failure::interrupted(signal)),
            }
        });
        match outcome {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(error)) => Err(Failure::failed(format!("a task failed: {error}"))),
            Err(interrupted) => {
                self.pending.push_front(oldest);
                Err(interrupted)
            }
        }
    }

    fn release(&mut self, buffer: Buffer) {
        if buffer.len() as u64 == self.chunk {
            self.buffers.push(buffer);
        }
    }

    fn close(self) {
        self.progress.finish_and_clear();
        drop((self.progress, self.namespace));
        self.connected.close();
    }
}

struct Output {
    writer: Box<dyn Write>,
    /// File, if it is not standard output.
    file: Option<File>,
    path: PathBuf,
}

impl Output {
    /// Opens the file, and leaves in it what it has.
    fn open(path: &Path) -> Result<Self, Failure> {
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
    fn truncate(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let emptied = file
            .metadata()
            .and_then(|metadata| if metadata.is_file() { file.set_len(0) } else { Ok(()) });
        emptied.map_err(|error| output_error(&self.path, &error))
    }

    /// Writes all bytes; returns false if standard output is a pipe that the reader has closed.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let written = self.writer.write_all(bytes);
        self.check(written)
    }

    /// Flushes; returns false as [`write`](Self::write) does.
    fn flush(&mut self) -> Result<bool, Failure> {
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

#[cfg(test)]
mod tests;
