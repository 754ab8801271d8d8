//! Task that drives a poller for the async API.

use std::sync::{Arc, Weak};

use verbs::Provider;

use crate::{
    config::{IDLE_TIMEOUT, WaitMode},
    driver::{
        api::request_channel::{Request, RequestReceiver, RequestSender},
        data_path::{
            command::{CommandCompletion, ExecutionStatus, SubmitError},
            pending_command::PendingCommand,
            poller::Poller,
            wait::Waiter,
        },
    },
    error::Error,
};

/// Senders of requests to all I/O tasks of a controller.
pub(crate) struct IoTaskPeers {
    senders: Weak<[RequestSender]>,
    /// Index of the task that holds this.
    index: usize,
}

impl IoTaskPeers {
    /// Peers of the task `index`, which ends when the handles of the controller are gone.
    pub(crate) fn new(senders: &Arc<[RequestSender]>, index: usize) -> Self {
        Self { senders: Arc::downgrade(senders), index }
    }

    /// Sends a request of `own` to one of the first `connected` tasks, those that have queues.
    async fn forward(&self, request: Request, own: &mut RequestReceiver, connected: usize) {
        match self.senders.upgrade() {
            Some(senders) => senders[self.index % connected.max(1)].forward(request, own).await,
            None => own.complete(std::iter::once(request.refuse(Error::Closed))),
        }
    }
}

/// Serves requests until the last sender is gone and nothing is in flight. Every request is
/// answered, once the controller has ended with its error.
pub(crate) async fn run<P: Provider>(
    mut poller: Poller<P>,
    requests: RequestReceiver,
    peers: IoTaskPeers,
    wait: WaitMode,
) {
    poller.set_forwarding();
    let waiter = Waiter::new(wait);
    let mut task = IoTask { poller, requests, peers, completed: Vec::new(), waiter };
    let error = task.serve().await.err().unwrap_or(Error::Closed);
    let error = task.poller.fail(error);
    task.deliver();
    task.requests.refuse(&error);
}

struct IoTask<P: Provider> {
    poller: Poller<P>,
    requests: RequestReceiver,
    peers: IoTaskPeers,
    /// Completions to be delivered together; empty between calls.
    completed: Vec<CommandCompletion>,
    waiter: Waiter,
}

impl<P: Provider> IoTask<P> {
    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            let taken = self.take_requests()?;
            let delivered = self.poll()?;
            if self.requests.is_closed() && self.poller.in_flight() == 0 {
                return Ok(());
            }
            if self.poller.is_without_queues() {
                self.forward().await?;
            } else if taken + delivered > 0 {
                self.waiter.busy();
                tokio::task::yield_now().await;
            } else if self.poller.is_connected() && self.waiter.spins() {
                tokio::task::yield_now().await;
            } else {
                self.sleep().await?;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.poller.room() > 0 && !self.poller.is_without_queues()
    }

    /// Submits the requests that wait, as far as there is room, with one doorbell; returns their
    /// number.
    fn take_requests(&mut self) -> Result<usize, Error> {
        let mut taken = 0;
        while self.has_room()
            && let Some(request) = self.requests.first()
        {
            if request.sends > 0 {
                self.poller.add_pending(request.command.take(), request.sends);
            } else if let Err(SubmitError { error, user, data }) =
                self.poller.submit_from(&mut request.command)
            {
                let (outcome, execution) = (Err(error), ExecutionStatus::NotSent);
                self.completed.push(CommandCompletion { user, outcome, data, execution });
            }
            self.requests.pop();
            taken += 1;
        }
        if taken > 0 {
            self.poller.ring_doorbells()?;
        }
        Ok(taken)
    }

    /// Polls, and delivers completions; returns their number.
    fn poll(&mut self) -> Result<usize, Error> {
        self.poller.poll_with(|completion| self.completed.push(completion))?;
        Ok(self.deliver())
    }

    /// Delivers completions; returns their number.
    fn deliver(&mut self) -> usize {
        self.completed.extend(std::iter::from_fn(|| self.poller.take()));
        let count = self.completed.len();
        if count > 0 {
            self.requests.complete(self.completed.drain(..));
        }
        count
    }

    /// Forwards requests and pending commands while the connection has no queue for this poller.
    async fn forward(&mut self) -> Result<(), Error> {
        while self.poller.is_without_queues() {
            let request = match self.poller.take_pending() {
                Some(PendingCommand { command, sends, .. }) => Request { command, sends },
                None if self.requests.first().is_some() => {
                    self.requests.pop().expect("the first one")
                }
                None if self.requests.is_closed() => return Ok(()),
                None => {
                    tokio::select! {
                        biased;
                        () = self.requests.ready() => {}
                        ready = self.poller.ready(IDLE_TIMEOUT) => ready?,
                    }
                    continue;
                }
            };
            // A peer without room for long has lost its queues, too: it gets others, or fails.
            let connected = self.poller.connected_pollers();
            self.peers.forward(request, &mut self.requests, connected).await;
        }
        Ok(())
    }

    async fn sleep(&mut self) -> Result<(), Error> {
        let takes = self.has_room() && !self.requests.is_closed();
        tokio::select! {
            biased;
            () = self.requests.ready(), if takes => Ok(()),
            ready = self.poller.ready(IDLE_TIMEOUT) => ready,
        }
    }
}
