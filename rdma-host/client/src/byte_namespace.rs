//! Namespace whose bytes are read and written at any offset.

mod cursor;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use rdma_host::{Error, Subsystem, SubsystemNamespace, error::Misuse};
use verbs::Provider;

pub use self::cursor::NamespaceCursor;
use crate::{
    block_locks::{BlockLock, BlockLocks},
    bounce_buffers::{BounceBuffer, BounceBuffers},
    error::{closed, command_error},
};

/// Buffers of a [`ByteNamespace`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ByteOptions {
    /// Number of buffers: the maximum of commands in flight.
    pub buffers: usize,
    /// Size of a buffer in bytes, rounded up to whole blocks: the maximum of one command.
    pub buffer_bytes: usize,
}

impl Default for ByteOptions {
    /// 16 buffers of 128 KiB.
    fn default() -> Self {
        Self { buffers: 16, buffer_bytes: 128 << 10 }
    }
}

impl ByteOptions {
    /// Sets the number of buffers; at least one is used.
    #[must_use]
    pub fn buffers(self, buffers: usize) -> Self {
        Self { buffers, ..self }
    }

    /// Sets the size of a buffer in bytes; it is at least a block.
    #[must_use]
    pub fn buffer_bytes(self, buffer_bytes: usize) -> Self {
        Self { buffer_bytes, ..self }
    }
}

/// Counters of a [`ByteNamespace`] and its clones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteCounters {
    /// Bytes that were copied between the caller's memory and registered buffers.
    pub copied: u64,
    /// Blocks that were read because a write had only a part of them.
    pub partial_blocks: u64,
}

/// Namespace whose bytes are read and written at any offset. Cheap to clone; clones share the
/// buffers.
///
/// Data is copied through registered buffers. To avoid the copy, transfer whole blocks of memory
/// that is registered, by [`blocks`](Self::blocks).
///
/// A write of a part of a block reads the block and writes it back. Other writes through clones of
/// this namespace wait meanwhile if they are to the same blocks; writes of others, of other hosts
/// for instance, are not known here and may be undone by it.
///
/// Dropping a future does not stop its commands; a write still holds its blocks until it is done.
/// A large read or write is several commands, and is not atomic.
#[derive(Clone)]
pub struct ByteNamespace {
    namespace: SubsystemNamespace,
    buffers: Arc<BounceBuffers>,
    locks: Arc<BlockLocks>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    copied: AtomicU64,
    partial_blocks: AtomicU64,
}

/// Part of a transfer, of one command.
struct Part {
    /// First block.
    lba: u64,
    /// Bytes of the first block before the data.
    skip: usize,
    /// Bytes of whole blocks that the data lies in.
    span: usize,
}

impl ByteNamespace {
    pub(crate) fn new<P: Provider>(
        subsystem: &Subsystem<P>,
        namespace: SubsystemNamespace,
        options: ByteOptions,
    ) -> Result<Self, Error> {
        let info = namespace.info();
        // Protection information alone is the controller's, and no matter of bytes.
        if !info.metadata.is_protection_only() {
            Misuse::check_no_metadata(&info)?;
        }
        let block_size = info.block_size as usize;
        let bytes = options.buffer_bytes.max(1).next_multiple_of(block_size);
        let buffers = subsystem.allocate_many(options.buffers.max(1), bytes)?;
        let buffers = BounceBuffers::new(buffers);
        Ok(Self { namespace, buffers, locks: Arc::default(), counters: Arc::default() })
    }

    /// Namespace by blocks, for memory that is registered.
    #[must_use]
    pub fn blocks(&self) -> &SubsystemNamespace {
        &self.namespace
    }

    /// Size in bytes, as last identified.
    #[must_use]
    pub fn size(&self) -> u64 {
        let info = self.namespace.info();
        info.blocks.saturating_mul(u64::from(info.block_size))
    }

    /// Counters since the namespace was opened.
    #[must_use]
    pub fn counters(&self) -> ByteCounters {
        ByteCounters {
            copied: self.counters.copied.load(Ordering::Relaxed),
            partial_blocks: self.counters.partial_blocks.load(Ordering::Relaxed),
        }
    }

    /// Position in the namespace, for [`AsyncRead`](tokio::io::AsyncRead),
    /// [`AsyncWrite`](tokio::io::AsyncWrite) and [`AsyncSeek`](tokio::io::AsyncSeek), at byte 0.
    #[must_use]
    pub fn cursor(&self) -> NamespaceCursor {
        NamespaceCursor::new(self.clone())
    }

    /// Reads the bytes from `offset` on into the whole of `out`.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) beyond the end of the namespace; otherwise
    /// with a [`ByteTransferError`](crate::ByteTransferError).
    pub async fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(offset, out.len(), io::ErrorKind::UnexpectedEof)?;
        let mut parts = Vec::new();
        let (mut rest, mut at) = (out, offset);
        while !rest.is_empty() {
            let (part, now);
            (now, rest) = rest.split_at_mut(self.part_bytes(at, rest.len()));
            (part, at) = (self.part(at, now.len()), at + now.len() as u64);
            parts.push(self.read_part(part, now));
        }
        try_join_all(parts).await.map(drop)
    }

    /// Reads bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`read_exact_at`](Self::read_exact_at).
    pub async fn read_bytes(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.check(offset, length, io::ErrorKind::UnexpectedEof)?;
        let mut bytes = BytesMut::zeroed(length);
        self.read_exact_at(&mut bytes, offset).await?;
        Ok(bytes.freeze())
    }

    /// Writes all bytes from `offset` on. They are on non-volatile media after a
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`StorageFull`](io::ErrorKind::StorageFull) beyond the end of the namespace, where nothing
    /// is written; otherwise with a [`ByteTransferError`](crate::ByteTransferError), and parts may
    /// have been written.
    pub async fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check(offset, data.len(), io::ErrorKind::StorageFull)?;
        let mut parts = Vec::new();
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let (part, now);
            (now, rest) = rest.split_at(self.part_bytes(at, rest.len()));
            (part, at) = (self.part(at, now.len()), at + now.len() as u64);
            parts.push(self.write_part(part, now));
        }
        try_join_all(parts).await.map(drop)
    }

    /// Flushes completed writes to non-volatile media (Flush).
    ///
    /// # Errors
    ///
    /// When the controller refuses, or no path is usable for too long.
    pub async fn flush(&self) -> io::Result<()> {
        self.namespace.flush().await.map_err(command_error)
    }

    fn check(&self, offset: u64, length: usize, kind: io::ErrorKind) -> io::Result<()> {
        let size = self.size();
        match offset.checked_add(length as u64) {
            Some(end) if end <= size => Ok(()),
            _ => Err(io::Error::new(
                kind,
                format!("{length} bytes from {offset} on: the namespace has {size} bytes"),
            )),
        }
    }

    fn block_size(&self) -> u64 {
        u64::from(self.namespace.info().block_size)
    }

    /// Number of the next bytes that are transferred by one command: those of a buffer of blocks.
    fn part_bytes(&self, offset: u64, rest: usize) -> usize {
        let skip = usize::try_from(offset % self.block_size()).expect("blocks fit memory");
        (self.buffers.bytes - skip).min(rest)
    }

    fn part(&self, offset: u64, length: usize) -> Part {
        let block_size = self.block_size();
        let skip = usize::try_from(offset % block_size).expect("blocks fit memory");
        let block = usize::try_from(block_size).expect("blocks fit memory");
        Part { lba: offset / block_size, skip, span: (skip + length).next_multiple_of(block) }
    }

    async fn read_part(&self, part: Part, out: &mut [u8]) -> io::Result<()> {
        let mut bounce = self.buffers.take(part.span).await?;
        let namespace = self.namespace.clone();
        let mut bounce = to_its_end(async move {
            bounce.transfer(|buffer| async move { namespace.read(part.lba, buffer).await }).await?;
            Ok(bounce)
        })
        .await?;
        bounce.part().copy_out(part.skip, out);
        self.counters.copied.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn write_part(&self, part: Part, data: &[u8]) -> io::Result<()> {
        let blocks = part.span as u64 / self.block_size();
        // In this order: who has a buffer waits for no lock.
        let lock = self.locks.lock(part.lba..part.lba + blocks).await;
        let mut bounce = self.buffers.take(part.span).await?;
        if part.skip > 0 {
            bounce = self.read_block(bounce, part.lba, 0).await?;
        }
        let ends_within = part.skip + data.len() < part.span;
        if ends_within && (blocks > 1 || part.skip == 0) {
            bounce = self.read_block(bounce, part.lba, blocks - 1).await?;
        }
        bounce.part().copy_in(part.skip, data);
        self.counters.copied.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.write_blocks(bounce, part.lba, lock).await
    }

    /// Reads one block to its place in the buffer.
    async fn read_block(
        &self,
        mut bounce: BounceBuffer,
        first: u64,
        index: u64,
    ) -> io::Result<BounceBuffer> {
        let block = usize::try_from(self.block_size()).expect("blocks fit memory");
        let at = usize::try_from(index).expect("it is within a buffer") * block;
        let namespace = self.namespace.clone();
        self.counters.partial_blocks.fetch_add(1, Ordering::Relaxed);
        to_its_end(async move {
            let read = |buffer| async move { namespace.read(first + index, buffer).await };
            bounce.transfer_range(at, block, read).await?;
            Ok(bounce)
        })
        .await
    }

    async fn write_blocks(
        &self,
        mut bounce: BounceBuffer,
        lba: u64,
        lock: BlockLock,
    ) -> io::Result<()> {
        let namespace = self.namespace.clone();
        to_its_end(async move {
            let written = bounce.transfer(|data| async move { namespace.write(lba, data).await });
            let written = written.await;
            drop(lock);
            written
        })
        .await
    }
}

/// Runs a transfer to its end, also if its caller is dropped: else its buffer would be lost, and
/// its lock released early.
async fn to_its_end<T: Send + 'static>(
    transfer: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    // It does not panic; the runtime may be shut down.
    tokio::spawn(transfer).await.unwrap_or_else(|_| Err(closed()))
}
