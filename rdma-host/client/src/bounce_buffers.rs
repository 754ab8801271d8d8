//! Registered buffers that data is copied through.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rdma_host::TransferError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use verbs::Buffer;

use crate::error::{closed, transfer_error};

/// Fixed number of registered buffers of one size.
pub(crate) struct BounceBuffers {
    free: Mutex<Vec<Buffer>>,
    permits: Arc<Semaphore>,
    /// Buffers that have not been lost with the queue that had them.
    count: AtomicUsize,
    /// Size of one in bytes.
    pub(crate) bytes: usize,
}

/// Buffer that is in use; dropping it puts it back.
pub(crate) struct BounceBuffer {
    pool: Arc<BounceBuffers>,
    /// Part in use; none while a command has it.
    part: Option<Buffer>,
    /// Part that is not used.
    rest: Option<Buffer>,
    /// Not returned with a buffer that is lost.
    permit: Option<OwnedSemaphorePermit>,
}

impl BounceBuffers {
    /// Creates a pool of these buffers, which have the same size.
    pub(crate) fn new(buffers: Vec<Buffer>) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(buffers.len())),
            count: AtomicUsize::new(buffers.len()),
            bytes: buffers.first().map_or(0, Buffer::len),
            free: Mutex::new(buffers),
        })
    }

    /// Takes a buffer and uses the first `bytes` of it; waits for one to be free.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> io::Result<BounceBuffer> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let mut part = self.free.lock().pop().expect("a permit stands for a free buffer");
        let rest = (bytes < part.len()).then(|| part.split_off(bytes));
        Ok(BounceBuffer { pool: Arc::clone(self), part: Some(part), rest, permit: Some(permit) })
    }
}

impl BounceBuffer {
    /// Part in use.
    pub(crate) fn part(&mut self) -> &mut Buffer {
        self.part.as_mut().expect("no command has it")
    }

    /// Has a command read or write the part in use.
    pub(crate) async fn transfer<F>(&mut self, command: impl FnOnce(Buffer) -> F) -> io::Result<()>
    where
        F: Future<Output = Result<Buffer, TransferError>>,
    {
        let part = self.part.take().expect("no command has it");
        match command(part).await {
            Ok(part) => self.part = Some(part),
            Err(mut failed) => {
                self.part = failed.buffer.take();
                return Err(transfer_error(failed));
            }
        }
        Ok(())
    }

    /// Has a command read the bytes of the part in use from `at` on, as many as `bytes`.
    pub(crate) async fn transfer_range<F>(
        &mut self,
        at: usize,
        bytes: usize,
        command: impl FnOnce(Buffer) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = Result<Buffer, TransferError>>,
    {
        const CONTIGUOUS: &str = "they were one buffer";
        let mut front = self.part.take().expect("no command has it");
        let mut middle = front.split_off(at);
        let back = middle.split_off(bytes);
        let (result, middle) = match command(middle).await {
            Ok(middle) => (Ok(()), Some(middle)),
            Err(mut failed) => {
                let middle = failed.buffer.take();
                (Err(transfer_error(failed)), middle)
            }
        };
        if let Some(middle) = middle {
            front.unsplit(middle).expect(CONTIGUOUS);
            front.unsplit(back).expect(CONTIGUOUS);
            self.part = Some(front);
        }
        result
    }
}

impl Drop for BounceBuffer {
    fn drop(&mut self) {
        let permit = self.permit.take().expect("only taken here");
        match self.part.take() {
            Some(mut whole) => {
                if let Some(rest) = self.rest.take() {
                    whole.unsplit(rest).expect("they were one buffer");
                }
                self.pool.free.lock().push(whole);
            }
            // The queue that had it is gone.
            None => {
                permit.forget();
                if self.pool.count.fetch_sub(1, Ordering::Relaxed) == 1 {
                    self.pool.permits.close();
                }
            }
        }
    }
}
