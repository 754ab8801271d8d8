//! Commands of one thread to one target: a poller of a controller, or of several paths.

use std::time::Duration;

use rdma_host::{
    Command, CommandCompletion, Error, Poller, Provider, Statistics, SubmitError, SubsystemPoller,
};

/// Commands of one thread. A load is compiled for each kind: what a poller does for a command is
/// chosen once, and not for each.
pub(crate) trait CommandQueue {
    fn submit(&mut self, command: Command) -> Result<(), SubmitError>;

    fn ring_doorbells(&mut self) -> Result<(), Error>;

    /// Calls `each` with each command that has completed; returns their number.
    fn poll_with(&mut self, each: impl FnMut(CommandCompletion)) -> Result<usize, Error>;

    /// Waits until a command may have completed, or the limit is over.
    async fn ready(&mut self, limit: Duration) -> Result<(), Error>;

    /// Number of commands that can be submitted now.
    fn room(&self) -> usize;

    fn in_flight(&self) -> usize;

    /// Maximum number of commands in flight.
    fn depth(&self) -> usize;

    fn statistics(&mut self) -> &mut Statistics;
}

impl<P: Provider> CommandQueue for Poller<P> {
    #[inline(always)]
    fn submit(&mut self, command: Command) -> Result<(), SubmitError> {
        self.submit(command)
    }

    #[inline(always)]
    fn ring_doorbells(&mut self) -> Result<(), Error> {
        self.ring_doorbells()
    }

    #[inline(always)]
    fn poll_with(&mut self, each: impl FnMut(CommandCompletion)) -> Result<usize, Error> {
        self.poll_with(each)
    }

    async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        self.ready(limit).await
    }

    #[inline(always)]
    fn room(&self) -> usize {
        self.room()
    }

    #[inline(always)]
    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn depth(&self) -> usize {
        self.depth()
    }

    fn statistics(&mut self) -> &mut Statistics {
        self.statistics()
    }
}

impl<P: Provider> CommandQueue for SubsystemPoller<P> {
    fn submit(&mut self, command: Command) -> Result<(), SubmitError> {
        self.submit(command)
    }

    fn ring_doorbells(&mut self) -> Result<(), Error> {
        self.ring_doorbells();
        Ok(())
    }

    fn poll_with(&mut self, each: impl FnMut(CommandCompletion)) -> Result<usize, Error> {
        Ok(self.poll_with(each))
    }

    async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        self.ready(limit).await;
        Ok(())
    }

    fn room(&self) -> usize {
        self.room()
    }

    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn depth(&self) -> usize {
        self.depth()
    }

    fn statistics(&mut self) -> &mut Statistics {
        self.statistics()
    }
}
