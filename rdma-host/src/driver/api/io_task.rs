//! Task that drives a poller for the async API.

use tokio::sync::{mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::{IDLE_TIMEOUT, WaitMode},
    driver::data_path::{
        command::{Command, CommandCompletion, ExecutionStatus, SubmitError},
        pending_command::PendingCommand,
        poller::Poller,
        wait::Waiter,
    },
    error::Error,
};

/// Command from any thread, with the sender of its completion. `command.user` is not used.
pub(crate) struct IoRequest {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<CommandCompletion>,
    /// Number of times that it was sent, on connections that were lost.
    pub(crate) sends: u8,
}

impl IoRequest {
    /// Completes the request with an error.
    pub(crate) fn refuse(self, error: Error) {
        let Self { command, reply, sends } = self;
        let execution = ExecutionStatus::without_response(sends);
        let completion =
            CommandCompletion { execution, ..CommandCompletion::unsent(error, command) };
        // The receiver may have given up, and its buffer with it.
        let _ = reply.send(completion);
    }
}

/// Request channels of all I/O tasks of a controller.
pub(crate) struct IoTaskPeers {
    senders: Vec<mpsc::WeakSender<IoRequest>>,
    /// Index of the task that holds this.
    index: usize,
}

impl IoTaskPeers {
    pub(crate) fn new(senders: &[mpsc::Sender<IoRequest>], index: usize) -> Self {
        Self { senders: senders.iter().map(mpsc::Sender::downgrade).collect(), index }
    }

    /// Sends a request to one of the first `connected` tasks, those that have queues.
    async fn forward(&self, request: IoRequest, connected: usize) {
        let peer = &self.senders[self.index % connected.max(1)];
        let refused = match peer.upgrade() {
            Some(peer) => peer.send(request).await.err().map(|refused| refused.0),
            None => Some(request),
        };
        if let Some(request) = refused {
            request.refuse(Error::Closed);
        }
    }
}

/// Serves requests until the last sender is gone and nothing is in flight. Every request is
/// answered, once the controller has ended with its error.
pub(crate) async fn run<P: Provider>(
    mut poller: Poller<P>,
    requests: mpsc::Receiver<IoRequest>,
    peers: IoTaskPeers,
    wait: WaitMode,
) {
    poller.set_forwarding();
    let mut task = IoTask {
        poller,
        requests,
        peers,
        replies: Vec::new(),
        free: Vec::new(),
        waiter: Waiter::new(wait),
    };
    task.make_room();
    let error = task.serve().await.err().unwrap_or(Error::Closed);
    let error = task.poller.fail(error);
    task.deliver();
    let IoTask { poller, mut requests, .. } = task;
    drop(poller);
    while let Some(request) = requests.recv().await {
        request.refuse(error.clone());
    }
}

struct IoTask<P: Provider> {
    poller: Poller<P>,
    requests: mpsc::Receiver<IoRequest>,
    peers: IoTaskPeers,
    /// Senders of the completions, by the tag of the command.
    replies: Vec<Option<oneshot::Sender<CommandCompletion>>>,
    /// Tags that are not in use.
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
            if self.poller.is_without_queues() {
                self.forward(&mut closing).await?;
            } else if taken + delivered > 0 {
                self.waiter.busy();
                tokio::task::yield_now().await;
            } else if self.poller.is_connected() && self.waiter.spins() {
                tokio::task::yield_now().await;
            } else {
                self.sleep(&mut closing).await?;
            }
        }
    }

    /// Creates a tag for every command that the poller has room for.
    fn make_room(&mut self) {
        for index in self.replies.len()..self.poller.depth() {
            self.replies.push(None);
            self.free.push(index);
        }
    }

    fn has_room(&self) -> bool {
        self.poller.room() > 0 && !self.free.is_empty() && !self.poller.is_without_queues()
    }

    /// Submits the requests that wait, as far as there is room, with one doorbell; returns their
    /// number.
    fn take_requests(&mut self, closing: &mut bool) -> Result<usize, Error> {
        self.make_room();
        let mut taken = 0;
        while self.has_room() {
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
            self.poller.ring_doorbells()?;
        }
        Ok(taken)
    }

    fn begin(&mut self, request: IoRequest) {
        let IoRequest { mut command, reply, sends } = request;
        let index = self.free.pop().expect("requests are taken only while there is room");
        command.user = index as u64;
        self.replies[index] = Some(reply);
        if sends > 0 {
            self.poller.add_pending(command, sends);
        } else if let Err(SubmitError { error, user, data }) = self.poller.submit(command) {
            let reply = self.reply_of(user).expect("it was just stored");
            let (outcome, execution) = (Err(error), ExecutionStatus::NotSent);
            let _ = reply.send(CommandCompletion { user: 0, outcome, data, execution });
        }
    }

    /// Sends completions to their receivers, which may have given up; returns their number.
    fn deliver(&mut self) -> usize {
        let mut delivered = 0;
        while let Some(done) = self.poller.take() {
            delivered += 1;
            if let Some(reply) = self.reply_of(done.user) {
                let _ = reply.send(done);
            }
        }
        delivered
    }

    fn reply_of(&mut self, user: u64) -> Option<oneshot::Sender<CommandCompletion>> {
        let index = usize::try_from(user).expect("users are indices");
        let reply = self.replies[index].take()?;
        self.free.push(index);
        Some(reply)
    }

    /// Forwards requests and pending commands while the connection has no queue for this poller.
    async fn forward(&mut self, closing: &mut bool) -> Result<(), Error> {
        while self.poller.is_without_queues() {
            let request = match self.poller.take_pending() {
                Some(PendingCommand { command, sends, .. }) => {
                    let reply = self.reply_of(command.user).expect("a pending command has a tag");
                    IoRequest { command, reply, sends }
                }
                None => tokio::select! {
                    biased;
                    request = self.requests.recv(), if !*closing => match request {
                        Some(request) => request,
                        None => {
                            *closing = true;
                            return Ok(());
                        }
                    },
                    ready = self.poller.ready(IDLE_TIMEOUT) => {
                        ready?;
                        continue;
                    }
                },
            };
            // A peer without room for long has lost its queues, too: it gets others, or fails.
            self.peers.forward(request, self.poller.connected_pollers()).await;
        }
        Ok(())
    }

    async fn sleep(&mut self, closing: &mut bool) -> Result<(), Error> {
        let room = self.has_room() && !*closing;
        tokio::select! {
            biased;
            request = self.requests.recv(), if room => match request {
                Some(request) => {
                    self.begin(request);
                    self.poller.ring_doorbells()
                }
                None => {
                    *closing = true;
                    Ok(())
                }
            },
            ready = self.poller.ready(IDLE_TIMEOUT) => ready,
        }
    }
}
