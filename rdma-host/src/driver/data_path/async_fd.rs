//! File descriptor of a device channel, registered with the runtime.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{driver::buffers::verbs_error, error::Error};

/// Duplicate of a device channel's file descriptor that wakes a task when there is something to
/// read. The channel may be dropped first.
pub(crate) struct AsyncDescriptor(AsyncFd<OwnedFd>);

impl AsyncDescriptor {
    /// Registers `fd` with the current tokio runtime.
    #[expect(
        deprecated,
        reason = "the replacement is an unsafe function, whose condition (always the same open \
                  descriptor) a private OwnedFd that nothing replaces fulfils"
    )]
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let register = |fd| AsyncFd::with_interest(fd, Interest::READABLE);
        fd.try_clone_to_owned().and_then(register).map(Self).map_err(verbs_error)
    }

    /// Waits until there may be something to read. The caller then reads until there is nothing.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        std::future::poll_fn(|context| self.poll(context)).await.map_err(verbs_error)
    }

    /// As [`wait`](Self::wait), for the first of several.
    pub(crate) async fn any(several: &[Self]) -> Result<(), Error> {
        let poll = |context: &mut Context<'_>| {
            several
                .iter()
                .map(|one| one.poll(context))
                .find(Poll::is_ready)
                .unwrap_or(Poll::Pending)
        };
        std::future::poll_fn(poll).await.map_err(verbs_error)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.0.poll_read_ready(context))?;
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }
}
