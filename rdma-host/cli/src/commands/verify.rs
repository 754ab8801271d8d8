//! `nvmf verify`: writes a pattern and reads it back, under load.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use clap::Args;
use quanta::Instant;
use rdma_host::{Buffer, Command, CommandCompletion, wire::NamespaceInfo};
use serde_json::json;

use crate::{
    Format,
    data_pattern::{DataPattern, PatternMismatch},
    failure::Failure,
    load::{Load, LoadArguments, Workload, completed_buffer},
    output, size,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Bytes to write and read back; more than the namespace has takes several passes
    /// [default: the whole namespace].
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    size: Option<u64>,

    /// Bytes of one command.
    #[arg(long, value_name = "BYTES", default_value = "64K", value_parser = size::bytes)]
    bs: u64,

    #[command(flatten)]
    load: LoadArguments,
}

/// Operation on each chunk in one phase.
#[derive(Clone, Copy)]
enum Phase {
    Read,
    Write,
}

/// Part of one thread in a phase; the threads take chunks from a common counter.
struct ThreadShare {
    phase: Phase,
    pattern: DataPattern,
    namespace: NamespaceInfo,
    block_bytes: usize,
    chunks: u64,
    stride: u64,
    next: Arc<AtomicU64>,
    /// Commands of this thread that completed.
    completed: u64,
    scratch: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut load = Load::connect(&arguments.load, arguments.load.target.options()?, arguments.bs)?;
    let there = load.namespace.bytes() / arguments.bs;
    let wanted = arguments.size.unwrap_or(there * arguments.bs).div_ceil(arguments.bs);
    if there == 0 || wanted == 0 {
        return Err(Failure::usage(format!(
            "nothing to verify: --size and the namespace ({}) must hold one --bs",
            size::format_bytes(load.namespace.bytes())
        )));
    }
    let start = Instant::now();
    let mut verified = 0;
    while verified < wanted {
        let chunks = there.min(wanted - verified);
        let pattern = DataPattern::new(arguments.load.seed, verified);
        phase(&mut load, Phase::Write, pattern, chunks)?;
        phase(&mut load, Phase::Read, pattern, chunks)?;
        verified += chunks;
    }
    let elapsed = start.elapsed();
    let bytes = verified * arguments.bs;
    let disconnects = std::mem::take(&mut *load.disconnects());
    let printed = match arguments.load.output_format {
        Format::Json => output::print_json(&json!({
            "verified_bytes": bytes,
            "mismatches": 0,
            "reconnects": disconnects.count(),
            "outages": disconnects.to_json(),
            "seconds": elapsed.as_secs_f64(),
            "queues": load.queues(),
            "memory_mode": load.controller.memory().mode.name(),
            "memory_fallback": load.controller.memory().fallback,
            "iodepth": arguments.load.iodepth,
            "bs": arguments.bs,
            "seed": arguments.load.seed,
        })),
        Format::Normal => output::print_text(&format!(
            "{} written and read back without a difference, depth {} on {}, memory mode {}, \
             {:.1} s ({} moved){}\n",
            size::format_bytes(bytes),
            arguments.load.iodepth,
            size::format_count(load.queues() as u64, "queue"),
            load.controller.memory(),
            elapsed.as_secs_f64(),
            size::format_rate(bytes * 2, elapsed),
            disconnects.summary(),
        )),
    };
    load.close();
    printed
}

fn phase(load: &mut Load, phase: Phase, pattern: DataPattern, chunks: u64) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let (namespace, block_bytes) = (load.namespace, load.block_bytes);
    let stride = stride(chunks);
    let shares = load.run(|_| ThreadShare {
        phase,
        pattern,
        namespace,
        block_bytes,
        chunks,
        stride,
        next: Arc::clone(&next),
        completed: 0,
        scratch: vec![0; block_bytes],
    })?;
    let completed: u64 = shares.iter().map(|share| share.completed).sum();
    assert_eq!(completed, chunks, "each chunk has one command, and each command completed");
    Ok(())
}

/// Step that visits each chunk once, out of order: about five eighths of their number, and coprime
/// to it.
fn stride(chunks: u64) -> u64 {
    let mut stride = (chunks / 8 * 5).max(1);
    while gcd(stride, chunks) != 1 {
        stride += 1;
    }
    stride
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl ThreadShare {
    /// Offset on the namespace of the chunk visited as number `index`, in bytes.
    fn offset(&self, index: u64) -> u64 {
        let chunk = u128::from(index) * u128::from(self.stride) % u128::from(self.chunks);
        u64::try_from(chunk).expect("less than chunks") * self.block_bytes as u64
    }

    fn mismatch(&self, difference: PatternMismatch) -> Failure {
        let block = difference.offset / u64::from(self.namespace.block_size);
        Failure::mismatch(format!(
            "data mismatch at byte {} (block {block}): expected {:#018x}, found {:#018x}",
            difference.offset, difference.expected, difference.found
        ))
    }
}

impl Workload for ThreadShare {
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
        self.completed += 1;
        if matches!(self.phase, Phase::Read) {
            buffer.copy_out(0, &mut self.scratch);
            let checked = self.pattern.check(offset, &self.scratch);
            checked.map_err(|difference| self.mismatch(difference))?;
        }
        Ok(buffer)
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
