//! `nvmf verify`: writes a pattern, reads it back, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use quanta::Instant;
use rdma_host::wire::NamespaceInfo;
use rdma_host::{Buffer, Command, CommandCompletion};
use serde_json::json;

use crate::data_pattern::{Difference, Pattern};
use crate::failure::Failure;
use crate::load::{Load, LoadArguments, Workload};
use crate::{Format, print_json, size};

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

/// What one phase does to every piece of the namespace.
#[derive(Clone, Copy)]
enum Phase {
    Read,
    Write,
}

/// One worker's share of a phase: pieces are taken from a common counter.
struct Share {
    phase: Phase,
    pattern: Pattern,
    namespace: NamespaceInfo,
    block_bytes: usize,
    pieces: u64,
    stride: u64,
    next: Arc<AtomicU64>,
    /// Commands of this worker that came back.
    done: u64,
    scratch: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut load = Load::connect(&arguments.load, arguments.load.target.options()?, arguments.bs)?;
    let there = load.namespace.bytes() / arguments.bs;
    let wanted = arguments.size.unwrap_or(there * arguments.bs).div_ceil(arguments.bs);
    if there == 0 || wanted == 0 {
        return Err(Failure::usage(format!(
            "nothing to verify: --size and the namespace ({}) must hold one --bs",
            size::in_words(load.namespace.bytes())
        )));
    }
    let start = Instant::now();
    let mut verified = 0;
    while verified < wanted {
        let pieces = there.min(wanted - verified);
        let pattern = Pattern::new(arguments.load.seed, verified);
        phase(&mut load, Phase::Write, pattern, pieces)?;
        phase(&mut load, Phase::Read, pattern, pieces)?;
        verified += pieces;
    }
    let elapsed = start.elapsed();
    let bytes = verified * arguments.bs;
    let outages = std::mem::take(&mut *load.outages());
    match arguments.load.output_format {
        Format::Json => print_json(&json!({
            "verified_bytes": bytes,
            "mismatches": 0,
            "reconnects": outages.count(),
            "outages": outages.to_json(),
            "seconds": elapsed.as_secs_f64(),
            "queues": load.queues(),
            "memory_mode": load.controller.memory().mode.name(),
            "memory_fallback": load.controller.memory().fallback,
            "iodepth": arguments.load.iodepth,
            "bs": arguments.bs,
            "seed": arguments.load.seed,
        }))?,
        Format::Normal => println!(
            "{} written and read back without a difference, depth {} on {}, memory mode {}, \
             {:.1} s ({} moved){}",
            size::in_words(bytes),
            arguments.load.iodepth,
            size::count(load.queues() as u64, "queue"),
            load.controller.memory(),
            elapsed.as_secs_f64(),
            size::rate_in_words(bytes * 2, elapsed),
            outages.in_words(),
        ),
    }
    load.close();
    Ok(())
}

fn phase(load: &mut Load, phase: Phase, pattern: Pattern, pieces: u64) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let (namespace, block_bytes) = (load.namespace, load.block_bytes);
    let stride = stride(pieces);
    let shares = load.run(|_| Share {
        phase,
        pattern,
        namespace,
        block_bytes,
        pieces,
        stride,
        next: Arc::clone(&next),
        done: 0,
        scratch: vec![0; block_bytes],
    })?;
    let done: u64 = shares.iter().map(|share| share.done).sum();
    match done == pieces {
        true => Ok(()),
        false => Err(Failure::failed(format!("of {pieces} commands, {done} came back: a bug"))),
    }
}

/// A step through the pieces that visits each once, out of order: about five eighths of them,
/// and prime to their number.
fn stride(pieces: u64) -> u64 {
    let mut stride = (pieces / 8 * 5).max(1);
    while gcd(stride, pieces) != 1 {
        stride += 1;
    }
    stride
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Share {
    /// Where piece number `index` of this phase stands: bytes from the start.
    fn offset(&self, index: u64) -> u64 {
        let piece = u128::from(index) * u128::from(self.stride) % u128::from(self.pieces);
        u64::try_from(piece).expect("less than pieces") * self.block_bytes as u64
    }

    fn mismatch(&self, difference: Difference) -> Failure {
        let block = difference.offset / u64::from(self.namespace.block_size);
        Failure::Mismatch(format!(
            "data mismatch at byte {} (block {block}): expected {:#018x}, found {:#018x}",
            difference.offset, difference.expected, difference.found
        ))
    }
}

impl Workload for Share {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.pieces {
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
                // What the last command left must not pass for what this one read.
                buffer.fill(0);
                Command::read(self.namespace.id, lba, blocks, buffer).with_user(offset)
            }
        })
    }

    fn done(&mut self, done: CommandCompletion) -> Result<Buffer, Failure> {
        let offset = done.user;
        let name = match self.phase {
            Phase::Read => "Read",
            Phase::Write => "Write",
        };
        let (outcome, buffer) = done.into_result(name);
        self.done += 1;
        outcome.map_err(|error| {
            Failure::from(error).context(format!("at byte {offset} of the namespace"))
        })?;
        let buffer = buffer.ok_or_else(|| Failure::failed("a command came back without data"))?;
        if matches!(self.phase, Phase::Read) {
            buffer.copy_out(0, &mut self.scratch);
            let checked = self.pattern.check(offset, &self.scratch);
            checked.map_err(|difference| self.mismatch(difference))?;
        }
        Ok(buffer)
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_visited_once() {
        for pieces in [1u64, 2, 3, 8, 10, 97, 1000, 4096] {
            let stride = stride(pieces);
            let mut seen: Vec<_> = (0..pieces).map(|index| index * stride % pieces).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..pieces), "{pieces}");
        }
    }
}
