//! Position in a namespace: the traits of tokio for bytes in a row.

use std::{
    io::{self, SeekFrom},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::ByteNamespace;

/// Maximum of bytes that are transferred at once.
const TRANSFER_BYTES_MAX: usize = 1 << 20;

/// Position in a namespace, to read, write and seek as in a file.
///
/// A read at the end of the namespace returns no bytes; a write there fails with
/// [`StorageFull`](io::ErrorKind::StorageFull). As with `tokio::fs::File`, a write returns when its
/// data is copied; its error is returned by the next operation, and by `flush`, which waits for it
/// and sends Flush. Flush before dropping a cursor: else a write goes on, and its error is lost.
pub struct NamespaceCursor {
    namespace: ByteNamespace,
    /// Byte that the next read or write begins with.
    position: u64,
    /// Data of the position that was read and not taken.
    read: Bytes,
    state: State,
    /// True if there are writes that were not flushed.
    is_dirty: bool,
}

type Transfer<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

enum State {
    Idle,
    Reading(Transfer<Bytes>),
    /// A write or a flush.
    Writing(Transfer<()>),
}

impl NamespaceCursor {
    pub(crate) fn new(namespace: ByteNamespace) -> Self {
        Self { namespace, position: 0, read: Bytes::new(), state: State::Idle, is_dirty: false }
    }

    /// Byte that the next read or write begins with.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Namespace of the cursor.
    #[must_use]
    pub fn namespace(&self) -> &ByteNamespace {
        &self.namespace
    }

    /// Waits for the write or flush that is under way.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Writing(transfer) = &mut self.state {
            let written = ready!(transfer.as_mut().poll(context));
            self.state = State::Idle;
            return Poll::Ready(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Number of bytes from the position to the end, but no more than these.
    fn rest(&self, length: usize) -> usize {
        let rest = self.namespace.size().saturating_sub(self.position);
        usize::try_from(rest).unwrap_or(usize::MAX).min(length).min(TRANSFER_BYTES_MAX)
    }

    /// Forgets what was read.
    fn discard_read(&mut self) {
        self.read.clear();
        if matches!(self.state, State::Reading(_)) {
            self.state = State::Idle;
        }
    }
}

impl AsyncRead for NamespaceCursor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_written(context))?;
        if self.read.is_empty() {
            let length = self.rest(out.remaining());
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            if !matches!(self.state, State::Reading(_)) {
                let (namespace, position) = (self.namespace.clone(), self.position);
                let transfer = async move { namespace.read_bytes(position, length).await };
                self.state = State::Reading(Box::pin(transfer));
            }
            let State::Reading(transfer) = &mut self.state else { unreachable!("just set") };
            let read = ready!(transfer.as_mut().poll(context));
            self.state = State::Idle;
            self.read = read?;
        }
        let length = self.read.len().min(out.remaining());
        out.put_slice(&self.read[..length]);
        self.read.advance(length);
        self.position += length as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NamespaceCursor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(context))?;
        self.discard_read();
        let length = self.rest(data.len());
        if length == 0 && !data.is_empty() {
            let size = self.namespace.size();
            let message = format!("the end of the namespace is reached, at {size} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::StorageFull, message)));
        }
        let (namespace, position) = (self.namespace.clone(), self.position);
        let data = Bytes::copy_from_slice(&data[..length]);
        let transfer = async move { namespace.write_all_at(&data, position).await };
        self.state = State::Writing(Box::pin(transfer));
        self.is_dirty = true;
        self.position += length as u64;
        // It begins now, not with the next call.
        if let Poll::Ready(written) = self.poll_written(context) {
            written?;
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(context))?;
        if self.is_dirty {
            self.is_dirty = false;
            let namespace = self.namespace.clone();
            self.state = State::Writing(Box::pin(async move { namespace.flush().await }));
            ready!(self.poll_written(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl AsyncSeek for NamespaceCursor {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.namespace.size().checked_add_signed(distance),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a position before the first byte")
        })?;
        self.discard_read();
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
