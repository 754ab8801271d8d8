//! Future of a read, write or compare: one command, where that is enough.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use verbs::Buffer;

use super::{Direction, Namespace, TransferError};
use crate::driver::api::request_channel::RequestCompletion;

/// Transfer of a whole buffer. Nothing is sent before it is polled.
pub(super) struct NamespaceTransfer<'namespace> {
    namespace: &'namespace Namespace,
    direction: Direction,
    lba: u64,
    progress: Progress<'namespace>,
}

enum Progress<'namespace> {
    /// Buffer of a transfer that has not begun.
    Unsent(Buffer),
    /// One command, in flight.
    InFlight(RequestCompletion<'namespace>),
    /// Several commands, or one that waits for room in the channel.
    Slow(Pin<Box<dyn Future<Output = Result<Buffer, TransferError>> + Send + 'namespace>>),
    Ended,
}

impl<'namespace> NamespaceTransfer<'namespace> {
    pub(super) fn new(
        namespace: &'namespace Namespace,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Self {
        Self { namespace, direction, lba, progress: Progress::Unsent(buffer) }
    }

    /// Sends the command, if one is enough and there is room for it.
    #[inline(always)]
    fn begin(&self, buffer: Buffer, waker: &Waker) -> Result<Progress<'namespace>, TransferError> {
        let Self { namespace, direction, lba, .. } = *self;
        let bytes = buffer.len() as u64;
        if let Err(error) = namespace.check_transfer(lba, bytes) {
            return Err(TransferError::unsent(error, buffer));
        }
        if bytes > namespace.transfer_bytes_max() {
            return Ok(Progress::Slow(Box::pin(namespace.transfer(direction, lba, buffer))));
        }
        let mut command = namespace.command(direction, lba, buffer);
        let poller = namespace.next_poller();
        Ok(match poller.try_send(&mut command, Some(waker)) {
            Some(completion) => Progress::InFlight(completion),
            None => Progress::Slow(Box::pin(async move {
                let done = poller.send(command).await.await;
                namespace.finish_part(direction, lba, done).await
            })),
        })
    }
}

impl Future for NamespaceTransfer<'_> {
    type Output = Result<Buffer, TransferError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Progress::Unsent(_) = self.progress
            && let Progress::Unsent(buffer) = mem::replace(&mut self.progress, Progress::Ended)
        {
            self.progress = match self.begin(buffer, context.waker()) {
                Ok(Progress::InFlight(completion)) => {
                    self.progress = Progress::InFlight(completion);
                    return Poll::Pending;
                }
                Ok(progress) => progress,
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        if let Progress::InFlight(completion) = &mut self.progress {
            let Poll::Ready(done) = completion.poll_buffer(context) else { return Poll::Pending };
            self.progress = Progress::Ended;
            match done {
                Ok(buffer) => return Poll::Ready(Ok(buffer)),
                // It may have to be sent in parts.
                Err(done) => {
                    let Self { namespace, direction, lba, .. } = *self;
                    self.progress =
                        Progress::Slow(Box::pin(namespace.finish_part(direction, lba, done)));
                }
            }
        }
        let Progress::Slow(transfer) = &mut self.progress else {
            panic!("a transfer that has ended is not polled again");
        };
        let ended = transfer.as_mut().poll(context);
        if ended.is_ready() {
            self.progress = Progress::Ended;
        }
        ended
    }
}
