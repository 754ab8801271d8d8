//! File descriptor of a device channel, registered with the runtime.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::{Readiness, current};
use crate::error::{Error, Transport};

/// Duplicate of a device channel's file descriptor that wakes a task when there is something to
/// read. The channel may be dropped first.
pub(crate) struct AsyncDescriptor(Registration);

enum Registration {
    Tokio(AsyncFd<OwnedFd>),
    Entered(Arc<dyn Readiness>),
}

impl AsyncDescriptor {
    /// Registers `fd` with the current runtime.
    #[expect(
        deprecated,
        reason = "the replacement is an unsafe function, whose condition (always the same open \
                  descriptor) a private OwnedFd that nothing replaces fulfils"
    )]
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let registered = match current() {
            Some(runtime) => runtime.readiness(fd).map(Registration::Entered),
            None => fd
                .try_clone_to_owned()
                .and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE))
                .map(Registration::Tokio),
        };
        registered.map(Self).map_err(failed)
    }

    /// Waits until there may be something to read. The caller then reads until there is nothing.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        std::future::poll_fn(|context| self.poll_ready(context)).await
    }

    /// As [`wait`](Self::wait), for the first of several.
    pub(crate) async fn any(several: &[Self]) -> Result<(), Error> {
        let poll = |context: &mut Context<'_>| {
            several
                .iter()
                .map(|one| one.poll_ready(context))
                .find(Poll::is_ready)
                .unwrap_or(Poll::Pending)
        };
        std::future::poll_fn(poll).await
    }

    /// Polls as [`wait`](Self::wait).
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &self.0 {
            Registration::Tokio(fd) => {
                ready!(fd.poll_read_ready(context)).map_err(failed)?.clear_ready();
                Poll::Ready(Ok(()))
            }
            Registration::Entered(readiness) => readiness.poll_ready(context).map_err(failed),
        }
    }
}

fn failed(error: io::Error) -> Error {
    Transport::Verbs(Arc::new(error)).into()
}
