//! `nvmf write-verify`: writes a pattern and reads it back, under load.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use indicatif::ProgressBar;
use quanta::Instant;
use rdma_host::{Buffer, Command, CommandCompletion, Provider, wire::NamespaceInfo};
use serde_json::{Value, json};

use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    data_pattern::{DataPattern, PatternMismatch},
    failure::Failure,
    load::{self, Load, LoadArguments, Workload, completed_buffer},
    output,
    overwrite::OverwriteArguments,
    progress::transfer_bar,
    shutdown::InterruptibleRuntime,
    size,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Bytes from the first block on to write and read back, a multiple of the block size; more
    /// than the namespace has takes several passes [default: the whole namespace].
    #[arg(long, value_name = "BYTES", value_parser = size::positive_bytes)]
    size: Option<u64>,

    /// Bytes of one command; single blocks are written where fewer are left [default: 64K, or what
    /// the controller takes if that is less].
    #[arg(long, value_name = "BYTES", value_parser = size::positive_bytes)]
    bs: Option<u64>,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    load: LoadArguments,

    #[command(flatten)]
    overwrite: OverwriteArguments,
}

/// Operation on each chunk in one phase.
#[derive(Clone, Copy)]
enum Phase {
    Read,
    Write,
}

/// Part of one thread in a phase; the threads take chunks from a common counter.
struct ThreadShare<'a> {
    phase: Phase,
    pattern: DataPattern,
    namespace: NamespaceInfo,
    block_bytes: usize,
    /// Offset of the first chunk on the namespace, in bytes.
    start: u64,
    chunks: u64,
    stride: u64,
    next: &'a AtomicU64,
    /// Bytes that completed as they should, of all threads.
    completed: &'a CompletedBytes,
    scratch: Vec<u8>,
}

impl ConnectingCommand for Arguments {
    fn capture(&self) -> &CaptureArguments {
        &self.load.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let mut consent = self.overwrite.consent("write-verify", true)?;
        let runtime = InterruptibleRuntime::new()?;
        let options = self.load.target.subsystem_options()?;
        self.load.check(options.connect())?;
        for (option, bytes) in [("--bs", self.bs), ("--size", self.size)] {
            let checked = bytes.map_or(Ok(()), |bytes| load::check_blocks(option, bytes));
            checked.map_err(|failure| failure.context("nothing was written"))?;
        }
        let mut load = Load::connect(provider, &runtime, &self.load, options, self.bs)?;
        let wanted = bytes_wanted(self.size, &load.namespace)?;
        consent.check_load(&mut load)?;
        let start = Instant::now();
        let completed = CompletedBytes {
            bytes: Default::default(),
            bar: transfer_bar(Some(wanted.saturating_mul(2))),
        };
        let outcome = write_and_read_back(&mut load, self.load.seed, wanted, &completed);
        completed.bar.finish_and_clear();
        let result = VerifyResult {
            wanted,
            written: completed.bytes[Phase::Write as usize].load(Ordering::Relaxed),
            verified: completed.bytes[Phase::Read as usize].load(Ordering::Relaxed),
            elapsed: start.elapsed(),
            failure: outcome.err(),
        };
        let printed = match self.output_format {
            Format::Json => output::print_json(&result.to_json(&load, self)),
            Format::Normal => output::print_text(&result.to_text(&load)),
        };
        load.close();
        result.failure.map_or(printed, Err)
    }
}

/// Bytes in each phase of a run, and the failure or signal that ended it early.
struct VerifyResult {
    wanted: u64,
    written: u64,
    verified: u64,
    elapsed: Duration,
    failure: Option<Failure>,
}

impl VerifyResult {
    fn to_json<P: Provider>(&self, load: &Load<P>, arguments: &Arguments) -> Value {
        let disconnects = load.disconnects();
        json!({
            "written_bytes": self.written,
            "verified_bytes": self.verified,
            "mismatches": u8::from(self.failure.as_ref().is_some_and(Failure::is_mismatch)),
            "interrupted": self.failure.is_some(),
            "ended_by": self.failure.as_ref().map(Failure::ended_by),
            "reconnects": disconnects.count(),
            "outages": disconnects.to_json(),
            "paths": load.path_reports(),
            "seconds": self.elapsed.as_secs_f64(),
            "queues": load.queues(),
            "memory_mode": load.controller.memory().mode.name(),
            "memory_fallback": load.controller.memory().fallback,
            "iodepth": load.depth,
            "bs": load.block_bytes,
            "seed": arguments.load.seed,
        })
    }

    fn to_text<P: Provider>(&self, load: &Load<P>) -> String {
        let verified = size::format_bytes(self.verified);
        let verified = match &self.failure {
            None => format!("{verified} written and read back without a difference"),
            Some(failure) => format!(
                "ended early by {}: {} of {} written, {verified} of that read back without a \
                 difference",
                failure.ended_by(),
                size::format_bytes(self.written),
                size::format_bytes(self.wanted),
            ),
        };
        let paths = load.path_reports();
        let paths: String = paths.iter().map(|path| format!("  {}\n", path.describe())).collect();
        format!(
            "{verified}, depth {} on {}, memory mode {}, {:.1} s ({} moved){}\n{paths}",
            load.depth,
            size::format_count(load.queues() as u64, "queue"),
            load.controller.memory(),
            self.elapsed.as_secs_f64(),
            size::format_rate(self.written + self.verified, self.elapsed),
            load.disconnects().summary(),
        )
    }
}

/// Bytes completed in each phase, of all threads and passes, and the bar that shows them.
struct CompletedBytes {
    /// Bytes by their [`Phase`].
    bytes: [AtomicU64; 2],
    bar: ProgressBar,
}

fn write_and_read_back<P: Provider>(
    load: &mut Load<P>,
    seed: u64,
    wanted: u64,
    completed: &CompletedBytes,
) -> Result<(), Failure> {
    let there = load.namespace.bytes();
    let mut verified = 0;
    while verified < wanted {
        let bytes = there.min(wanted - verified);
        let pattern = DataPattern::new(seed, verified);
        phase(load, Phase::Write, pattern, bytes, completed)?;
        phase(load, Phase::Read, pattern, bytes, completed)?;
        verified += bytes;
    }
    Ok(())
}

/// Bytes to write and read back: whole blocks, so that no other block is touched.
fn bytes_wanted(size: Option<u64>, namespace: &NamespaceInfo) -> Result<u64, Failure> {
    let wanted = size.unwrap_or_else(|| namespace.bytes());
    let block = namespace.block_size;
    if wanted == 0 || !wanted.is_multiple_of(u64::from(block)) {
        return Err(Failure::usage(format!(
            "--size {wanted} is not a multiple of the namespace's block size, {block} bytes; \
             nothing was written"
        )));
    }
    Ok(wanted)
}

/// Writes or reads the first `bytes` bytes of the namespace: by the largest commands first, then
/// block by block what is left. Adds what completed to `completed`.
fn phase<P: Provider>(
    load: &mut Load<P>,
    phase: Phase,
    pattern: DataPattern,
    bytes: u64,
    completed: &CompletedBytes,
) -> Result<(), Failure> {
    let large = load.block_bytes;
    let whole = bytes - bytes % large as u64;
    chunks(load, phase, pattern, 0..whole, completed)?;
    load.block_bytes = load.namespace.block_size as usize;
    let outcome = chunks(load, phase, pattern, whole..bytes, completed);
    load.block_bytes = large;
    outcome
}

/// Writes or reads a range of bytes by commands of `load.block_bytes` bytes.
fn chunks<P: Provider>(
    load: &mut Load<P>,
    phase: Phase,
    pattern: DataPattern,
    range: Range<u64>,
    completed: &CompletedBytes,
) -> Result<(), Failure> {
    if range.is_empty() {
        return Ok(());
    }
    let (next, before) =
        (AtomicU64::new(0), completed.bytes[phase as usize].load(Ordering::Relaxed));
    let (namespace, block_bytes) = (load.namespace, load.block_bytes);
    let chunks = (range.end - range.start) / block_bytes as u64;
    load.run(|_| ThreadShare {
        phase,
        pattern,
        namespace,
        block_bytes,
        start: range.start,
        chunks,
        stride: stride(chunks),
        next: &next,
        completed,
        scratch: vec![0; block_bytes],
    })?;
    let completed = completed.bytes[phase as usize].load(Ordering::Relaxed) - before;
    assert_eq!(completed, range.end - range.start, "each chunk has a command that completed");
    Ok(())
}

/// Step that visits each chunk once, out of order: about five eighths of their number, and coprime
/// to it.
fn stride(chunks: u64) -> u64 {
    let least = (chunks / 8 * 5).max(1);
    (least..).find(|stride| gcd(*stride, chunks) == 1).expect("prime numbers never end")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl ThreadShare<'_> {
    /// Offset on the namespace of the chunk visited as number `index`, in bytes.
    fn offset(&self, index: u64) -> u64 {
        let chunk = u128::from(index) * u128::from(self.stride) % u128::from(self.chunks);
        let chunk = u64::try_from(chunk).expect("less than chunks");
        self.start + chunk * self.block_bytes as u64
    }

    fn mismatch(&self, difference: PatternMismatch) -> Failure {
        let block = difference.offset / u64::from(self.namespace.block_size);
        Failure::mismatch(format!(
            "data mismatch at byte {} (block {block}): expected {:#018x}, found {:#018x}",
            difference.offset, difference.expected, difference.found
        ))
    }
}

impl Workload for ThreadShare<'_> {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.chunks {
            return Err(buffer);
        }
        let offset = self.offset(index);
        let lba = offset / u64::from(self.namespace.block_size);
        let blocks = self.namespace.blocks_in(self.block_bytes);
        Ok(match self.phase {
            Phase::Write => {
                self.pattern.fill(offset, &mut self.scratch);
                buffer.copy_in(0, &self.scratch);
                Command::write(self.namespace.id, lba, blocks, buffer).with_user(offset)
            }
            Phase::Read => {
                // Data that the last command left must not pass for what this one read.
                buffer.fill(0);
                Command::read(self.namespace.id, lba, blocks, buffer).with_user(offset)
            }
        })
    }

    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure> {
        let offset = completion.user;
        let name = match self.phase {
            Phase::Read => "Read",
            Phase::Write => "Write",
        };
        let context = || format!("at byte {offset} of the namespace");
        let buffer = completed_buffer(completion, name, context)?;
        if matches!(self.phase, Phase::Read) {
            buffer.copy_out(0, &mut self.scratch);
            let checked = self.pattern.check(offset, &self.scratch);
            checked.map_err(|difference| self.mismatch(difference))?;
        }
        let bytes = self.block_bytes as u64;
        self.completed.bytes[self.phase as usize].fetch_add(bytes, Ordering::Relaxed);
        self.completed.bar.inc(bytes);
        Ok(buffer)
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.chunks
    }
}

#[cfg(test)]
mod tests {
    use rdma_host::wire::{MetadataFormat, NamespaceId};

    use super::*;

    #[test]
    fn a_size_is_a_number_of_whole_blocks() {
        let namespace = NamespaceInfo {
            id: NamespaceId(1),
            blocks: 1000,
            block_size: 512,
            metadata: MetadataFormat::default(),
            nguid: None,
            eui64: None,
            uuid: None,
            command_set: 0,
            ana_group: 0,
        };
        assert_eq!(bytes_wanted(None, &namespace).unwrap(), 512_000);
        assert_eq!(bytes_wanted(Some(512), &namespace).unwrap(), 512);
        for wrong in [0, 1, 1000] {
            let refused = bytes_wanted(Some(wrong), &namespace).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains("nothing was written"), "{refused}");
        }
    }

    #[test]
    fn every_chunk_is_visited_once() {
        for chunks in [1u64, 2, 3, 8, 10, 97, 1000, 4096] {
            let stride = stride(chunks);
            let mut seen: Vec<_> = (0..chunks).map(|index| index * stride % chunks).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..chunks), "{chunks}");
        }
    }
}
