//! Fills a namespace with the pattern that reads are checked against.

use std::sync::atomic::{AtomicU64, Ordering};

use rdma_host::wire::NamespaceInfo;
use rdma_host::{Buffer, Command, CommandCompletion};

use crate::data_pattern::Pattern;
use crate::failure::Failure;
use crate::load::{Load, Workload};

/// One worker's share: pieces are taken from a common counter.
struct Share<'a> {
    pattern: Pattern,
    namespace: NamespaceInfo,
    next: &'a AtomicU64,
    pieces: u64,
    scratch: Vec<u8>,
}

/// Writes all of the first `region` bytes.
pub(super) fn fill(load: &mut Load, region: u64, seed: u64) -> Result<(), Failure> {
    let namespace = load.namespace;
    let block = u64::from(namespace.block_size);
    // The largest pieces come first; then single blocks for what is left.
    let large = load.block_bytes;
    let small = usize::try_from(block).map_err(Failure::usage)?;
    let done = region / large as u64;
    pieces(load, (large, 0), done, seed)?;
    let first = done * (large as u64 / block);
    let rest = region / block - first;
    load.block_bytes = small;
    let outcome = pieces(load, (small, first), first + rest, seed);
    load.block_bytes = large;
    outcome
}

/// Writes the pieces from `first` to before `end`.
fn pieces(
    load: &mut Load,
    (bytes, first): (usize, u64),
    end: u64,
    seed: u64,
) -> Result<(), Failure> {
    let (next, namespace) = (AtomicU64::new(first), load.namespace);
    let shares = load.run(|_| Share {
        pattern: Pattern::new(seed, 0),
        namespace,
        next: &next,
        pieces: end,
        scratch: vec![0; bytes],
    })?;
    drop(shares);
    Ok(())
}

impl Workload for Share<'_> {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.pieces {
            return Err(buffer);
        }
        let offset = index * self.scratch.len() as u64;
        self.pattern.fill(offset, &mut self.scratch);
        buffer.copy_in(0, &self.scratch);
        let lba = offset / u64::from(self.namespace.block_size);
        let blocks = self.namespace.blocks_in(self.scratch.len());
        Ok(Command::write(self.namespace.id, lba, blocks, buffer))
    }

    fn done(&mut self, done: CommandCompletion) -> Result<Buffer, Failure> {
        let (outcome, buffer) = done.into_result("Write");
        outcome.map_err(|error| Failure::from(error).context("while filling the namespace"))?;
        buffer.ok_or_else(|| Failure::failed("a command came back without data"))
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.pieces
    }
}
