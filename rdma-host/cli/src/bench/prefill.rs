//! Fills a namespace with the data that reads are compared with.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use rdma_host::{Buffer, Command, CommandCompletion, Provider, wire::NamespaceInfo};

use crate::{
    data_pattern::DataPattern,
    failure::Failure,
    load::{Load, Workload, completed_buffer},
};

/// Part of one thread, which takes chunks from a common counter.
struct ThreadShare<'a> {
    pattern: DataPattern,
    namespace: NamespaceInfo,
    /// Next chunk.
    next: &'a AtomicU64,
    /// Chunk after the last.
    end: u64,
    scratch: Vec<u8>,
}

/// Writes the bytes of a region, which begins at a multiple of the largest command.
pub(super) fn fill<P: Provider>(
    load: &mut Load<P>,
    region: &Range<u64>,
    seed: u64,
) -> Result<(), Failure> {
    let namespace = load.namespace;
    let block = u64::from(namespace.block_size);
    // Largest chunks first, then single blocks for the rest.
    let large = load.block_bytes;
    let small = usize::try_from(block).map_err(Failure::usage)?;
    let whole = region.end / large as u64;
    fill_chunks(load, region.start / large as u64..whole, seed)?;
    load.block_bytes = small;
    let outcome = fill_chunks(load, whole * (large as u64 / block)..region.end / block, seed);
    load.block_bytes = large;
    outcome
}

/// Writes the chunks of these numbers, of `load.block_bytes` each.
fn fill_chunks<P: Provider>(
    load: &mut Load<P>,
    chunks: Range<u64>,
    seed: u64,
) -> Result<(), Failure> {
    let (next, namespace, bytes) = (AtomicU64::new(chunks.start), load.namespace, load.block_bytes);
    let shares = load.run(|_| ThreadShare {
        pattern: DataPattern::new(seed, 0),
        namespace,
        next: &next,
        end: chunks.end,
        scratch: vec![0; bytes],
    })?;
    drop(shares);
    Ok(())
}

impl Workload for ThreadShare<'_> {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.end {
            return Err(buffer);
        }
        let offset = index * self.scratch.len() as u64;
        self.pattern.fill(offset, &mut self.scratch);
        buffer.copy_in(0, &self.scratch);
        let lba = offset / u64::from(self.namespace.block_size);
        let blocks = self.namespace.blocks_in(self.scratch.len());
        Ok(Command::write(self.namespace.id, lba, blocks, buffer))
    }

    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure> {
        completed_buffer(completion, "Write", || "while filling the namespace".to_owned())
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.end
    }
}
