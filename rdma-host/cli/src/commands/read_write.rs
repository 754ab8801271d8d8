//! `nvmf read` and `nvmf write`: blocks to and from files and pipes.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use indicatif::ProgressBar;
use rdma_host::{Buffer, Provider, RangeCommands, TransferError};
use tokio::task::JoinHandle;

use super::{
    block_file::{Input, Output, blocks_of, check_end, check_range},
    metadata::{MetadataArguments, read_joined},
};
use crate::{
    block_layout::BlockLayout,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::ConnectedController,
    failure::Failure,
    io_namespace::IoNamespace,
    load::DRAIN_TIMEOUT,
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
    metadata: MetadataArguments,

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

    /// Have each command complete once its blocks are on non-volatile media (FUA).
    #[arg(long)]
    force_unit_access: bool,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    metadata: MetadataArguments,

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
    layout: BlockLayout,
    /// First block.
    lba: u64,
    buffers: Vec<Buffer>,
    pending: VecDeque<PendingTransfer>,
    /// Bytes of data of a command.
    chunk: u64,
    /// True if writes have Force Unit Access.
    is_forced: bool,
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
        let metadata = self.metadata.metadata.as_deref();
        let mut metadata = metadata.map(Output::open).transpose()?;
        let connected = ConnectedController::connect_paths(provider, &self.target)?;
        let namespace = connected.io_namespace(self.ns)?;
        let lba = self.lba;
        let blocks = self.blocks.unwrap_or(namespace.info().blocks.saturating_sub(lba));
        let bytes = check_range(&namespace, lba, blocks)?;
        let layout = self.metadata.layout(&namespace, lba)?;
        self.metadata.check_size(&layout, Some(bytes))?;
        output.truncate()?;
        if let Some(metadata) = &metadata {
            metadata.truncate()?;
        }
        let mut transfer = RangeTransfer::new(connected, namespace, layout, (lba, Some(bytes)))?;
        let read = transfer.read(bytes, &mut output, metadata.as_mut());
        let complete = read.and_then(|read| Ok(read && output.flush()?));
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
        let layout = self.metadata.layout(&namespace, lba)?;
        let mut metadata = self.metadata.input(&namespace, &layout, bytes)?;
        if self.force_unit_access && layout.action().is_some() {
            return Err(Failure::usage(
                "--force-unit-access is for namespaces without metadata; every write ends with a \
                 flush",
            ));
        }
        consent.check(&connected, &namespace)?;
        let mut transfer = RangeTransfer::new(connected, namespace, layout, (lba, bytes))?;
        transfer.is_forced = self.force_unit_access;
        let written = transfer.write(bytes, &mut input, metadata.as_mut());
        let done = written.map(|bytes| transfer.describe("written", bytes));
        transfer.close();
        output::print_message(done?);
        Ok(())
    }
}

impl<P: Provider> RangeTransfer<P> {
    fn new(
        connected: ConnectedController<P>,
        namespace: IoNamespace,
        layout: BlockLayout,
        (lba, bytes): (u64, Option<u64>),
    ) -> Result<Self, Failure> {
        let chunk = CHUNK_BYTES.min(namespace.transfer_bytes_max());
        let chunk = chunk.max(u64::from(namespace.info().block_size));
        let size = layout.buffer_bytes(usize::try_from(chunk).map_err(Failure::failed)?);
        // A zone takes its blocks in their order alone.
        let depth = if namespace.info().is_zoned() { 1 } else { DEPTH };
        let buffers = connected.controller.allocate_many(depth, size)?;
        let progress = transfer_bar(bytes);
        let pending = VecDeque::new();
        let is_forced = false;
        Ok(Self { connected, namespace, layout, lba, buffers, pending, chunk, is_forced, progress })
    }

    /// Reads `bytes`; returns false if the reader of the output has closed the pipe before.
    fn read(
        &mut self,
        bytes: u64,
        output: &mut Output,
        mut metadata: Option<&mut Output>,
    ) -> Result<bool, Failure> {
        let (layout, mut submitted, mut received) = (self.layout, 0, 0);
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
                    layout.read(&namespace, at, part).await
                })?;
                submitted += length;
            }
            let buffer = self.wait_oldest().map_err(|failure| {
                let end = self.lba + blocks_of(&self.namespace, received);
                failure.context(format!("after {received} of {bytes} bytes, at block {end}"))
            })?;
            copy.resize(buffer.len(), 0);
            buffer.copy_out(0, &mut copy);
            let length = layout.data_bytes(copy.len()) as u64;
            received += length;
            self.progress.inc(length);
            self.release(buffer);
            if let Some((data, other)) = layout.split(&copy) {
                metadata.as_mut().map(|output| output.write(&other)).transpose()?;
                copy = data;
            }
            if !output.write(&copy)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes `bytes`, or until the input ends; returns the number of bytes written.
    fn write(
        &mut self,
        bytes: Option<u64>,
        input: &mut Input,
        mut metadata: Option<&mut Input>,
    ) -> Result<u64, Failure> {
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
                let outcome = self.write_chunk(at, &chunk[..got], metadata.as_deref_mut());
                outcome.map_err(|failure| self.describe_partial_write(failure, written))?;
                submitted += got as u64;
            }
            if self.pending.is_empty() {
                break;
            }
            let buffer = self
                .wait_oldest()
                .map_err(|failure| self.describe_partial_write(failure, written))?;
            let length = self.layout.data_bytes(buffer.len()) as u64;
            written += length;
            self.progress.inc(length);
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

    fn write_chunk(
        &mut self,
        at: u64,
        bytes: &[u8],
        metadata: Option<&mut Input>,
    ) -> Result<(), Failure> {
        self.namespace.check_range(at, bytes.len() as u64).map_err(rdma_host::Error::from)?;
        let (layout, is_forced) = (self.layout, self.is_forced);
        let shutdown = &self.connected.runtime.shutdown;
        let joined = read_joined(&layout, bytes, metadata, || shutdown.get().is_some())?;
        let mut buffer = self.buffers.pop().expect("the caller saw a free one");
        buffer.copy_in(0, joined.as_deref().unwrap_or(bytes));
        self.submit(buffer, bytes.len() as u64, move |namespace, part| async move {
            match is_forced {
                true => namespace.write_with_force_unit_access(at, part).await,
                false => layout.write(&namespace, at, part).await,
            }
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
        let length = self.layout.buffer_bytes(usize::try_from(length).map_err(Failure::failed)?);
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
        if self.layout.data_bytes(buffer.len()) as u64 == self.chunk {
            self.buffers.push(buffer);
        }
    }

    fn close(self) {
        self.progress.finish_and_clear();
        drop((self.progress, self.namespace));
        self.connected.close();
    }
}

#[cfg(test)]
mod tests;
