//! The task that drives a poller for the async API.

use tokio::sync::{mpsc, oneshot};
use verbs::Provider;

use super::command::{Command, Done};
use super::controller::IDLE;
use super::poller::Poller;
use super::wait::Waiter;
use crate::config::WaitMode;
use crate::error::Error;

/// A command from any thread, and where it goes when it is done. `command.user` is not used.
pub(super) struct IoRequest {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Done>,
}

/// Serves requests until the last sender is gone and nothing is in flight, or the controller
/// fails. Every request taken is answered.
pub(super) async fn run<P: Provider>(
    poller: Poller<P>,
    requests: mpsc::Receiver<IoRequest>,
    wait: WaitMode,
) {
    let replies = std::iter::repeat_with(|| None).take(poller.depth()).collect();
    let free = (0..poller.depth()).rev().collect();
    let mut task = IoTask { poller, requests, replies, free, waiter: Waiter::new(wait) };
    let error = task.serve().await.err().unwrap_or(Error::Closed);
    let error = task.poller.fail(error);
    task.deliver();
    task.requests.close();
    while let Ok(request) = task.requests.try_recv() {
        let IoRequest { command, reply } = request;
        let data = command.data.into_buffer();
        let _ = reply.send(Done { user: 0, outcome: Err(error.clone()), data });
    }
}

struct IoTask<P: Provider> {
    poller: Poller<P>,
    requests: mpsc::Receiver<IoRequest>,
    /// Who waits, by the command's `user`.
    replies: Vec<Option<oneshot::Sender<Done>>>,
    free: Vec<usize>,
    waiter: Waiter,
}

impl<P: Provider> IoTask<P> {
    async fn serve(&mut self) -> Result<(), Error> {
        let mut closing = false;
        loop {
            let taken = self.take_requests(&mut closing)?;
            self.poller.poll()?;
            let delivered = self.deliver();
            if closing && self.poller.in_flight() == 0 {
                return Ok(());
            }
            if taken + delivered > 0 {
                self.waiter.busy();
                tokio::task::yield_now().await;
            } else if self.waiter.spins() {
                tokio::task::yield_now().await;
            } else {
                self.sleep(&mut closing).await?;
            }
        }
    }

    /// Submits what waits, as far as there is room; one doorbell for all of it.
    fn take_requests(&mut self, closing: &mut bool) -> Result<usize, Error> {
        let mut taken = 0;
        while !self.free.is_empty() {
            match self.requests.try_recv() {
                Ok(request) => self.begin(request),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    *closing = true;
                    break;
                }
            }
            taken += 1;
        }
        if taken > 0 {
            self.poller.flush()?;
        }
        Ok(taken)
    }

    fn begin(&mut self, request: IoRequest) {
        let IoRequest { mut command, reply } = request;
        let index = self.free.pop().expect("requests are taken only while there is room");
        command.user = index as u64;
        match self.poller.submit(command) {
            Ok(()) => self.replies[index] = Some(reply),
            Err(rejection) => {
                self.free.push(index);
                let outcome = Err(rejection.error);
                let _ = reply.send(Done { user: 0, outcome, data: rejection.data });
            }
        }
    }

    /// Answers what is done. Who no longer waits has given the buffer up.
    fn deliver(&mut self) -> usize {
        let mut delivered = 0;
        while let Some(done) = self.poller.take() {
            delivered += 1;
            let index = usize::try_from(done.user).expect("users are indices");
            if let Some(reply) = self.replies[index].take() {
                self.free.push(index);
                let _ = reply.send(done);
            }
        }
        delivered
    }

    async fn sleep(&mut self, closing: &mut bool) -> Result<(), Error> {
        let room = !self.free.is_empty() && !*closing;
        tokio::select! {
            request = self.requests.recv(), if room => match request {
                Some(request) => {
                    self.begin(request);
                    self.poller.flush()
                }
                None => {
                    *closing = true;
                    Ok(())
                }
            },
            ready = self.poller.ready(IDLE) => ready,
        }
    }
}
