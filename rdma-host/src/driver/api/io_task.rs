//! The task that drives a poller for the async API.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::{IDLE_TIMEOUT, WaitMode},
    driver::data_path::{
        command::{Command, CommandCompletion, ExecutionStatus},
        pending::PendingCommand,
        poller::Poller,
        wait::Waiter,
    },
    error::Error,
};

/// A command from any thread, and where it goes when it is done. `command.user` is not used.
pub(crate) struct IoRequest {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<CommandCompletion>,
    /// Whether it was sent before, on a connection that is lost.
    pub(crate) execution: ExecutionStatus,
}

impl IoRequest {
    pub(crate) fn refuse(self, error: Error) {
        let Self { command, reply, execution } = self;
        // Who no longer waits has given the buffer up.
        let _ = reply
            .send(CommandCompletion { execution, ..CommandCompletion::unsent(error, command) });
    }
}

/// The tasks of one controller, as one of them sees the others.
pub(crate) struct PollerPeers {
    others: Vec<mpsc::WeakSender<IoRequest>>,
    index: usize,
}

impl PollerPeers {
    pub(crate) fn of(senders: &[mpsc::Sender<IoRequest>], index: usize) -> Self {
        Self { others: senders.iter().map(mpsc::Sender::downgrade).collect(), index }
    }

    /// Who serves in our place while only the first `connected` tasks have queues.
    fn deputy(&self, connected: usize) -> Option<mpsc::Sender<IoRequest>> {
        self.others.get(self.index % connected.max(1))?.upgrade()
    }
}

/// Serves requests until the last sender is gone and nothing is in flight. Every request is
/// answered, once the controller has ended with its error.
pub(crate) async fn run<P: Provider>(
    mut poller: Poller<P>,
    requests: mpsc::Receiver<IoRequest>,
    siblings: PollerPeers,
    wait: WaitMode,
) {
    poller.keep_stranded();
    let mut task = IoTask {
        poller,
        requests,
        siblings,
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
    siblings: PollerPeers,
    /// Who waits, by the command's `user`.
    replies: Vec<Option<oneshot::Sender<CommandCompletion>>>,
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
            if self.poller.is_stranded() {
                self.hand_over(&mut closing).await?;
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

    /// A place for every command that the poller may have now.
    fn make_room(&mut self) {
        for index in self.replies.len()..self.poller.depth() {
            self.replies.push(None);
            self.free.push(index);
        }
    }

    fn has_room(&self) -> bool {
        self.poller.room() > 0 && !self.free.is_empty() && !self.poller.is_stranded()
    }

    /// Submits what waits, as far as there is room; one doorbell for all of it.
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
            self.poller.flush()?;
        }
        Ok(taken)
    }

    fn begin(&mut self, request: IoRequest) {
        let IoRequest { mut command, reply, execution } = request;
        let index = self.free.pop().expect("requests are taken only while there is room");
        command.user = index as u64;
        match self.poller.submit(command) {
            Ok(()) => self.replies[index] = Some(reply),
            Err(rejection) => {
                self.free.push(index);
                let outcome = Err(rejection.error);
                let _ = reply.send(CommandCompletion {
                    user: 0,
                    outcome,
                    data: rejection.data,
                    execution,
                });
            }
        }
    }

    /// Answers what is done. Who no longer waits has given the buffer up.
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

    /// There is a connection, but no queue of it is ours: others do our work.
    async fn hand_over(&mut self, closing: &mut bool) -> Result<(), Error> {
        let mut stranded = VecDeque::new();
        while let Some(PendingCommand { command, execution, .. }) = self.poller.surrender() {
            if let Some(reply) = self.reply_of(command.user) {
                stranded.push_back(IoRequest { command, reply, execution });
            }
        }
        while self.poller.is_stranded() {
            let request = match stranded.pop_front() {
                Some(request) => request,
                None => tokio::select! {
                    request = self.requests.recv(), if !*closing => match request {
                        Some(request) => request,
                        None => {
                            *closing = true;
                            return Ok(());
                        }
                    },
                    slept = self.poller.ready(IDLE_TIMEOUT) => {
                        slept?;
                        continue;
                    }
                },
            };
            match self.siblings.deputy(self.poller.connected_pollers()) {
                // Its backlog is bounded, and so is the wait: it has queues, or will fail.
                Some(deputy) => {
                    if let Err(refused) = deputy.send(request).await {
                        refused.0.refuse(Error::Closed);
                    }
                }
                None => request.refuse(Error::Closed),
            }
        }
        // The connection was lost meanwhile: what is left waits here for the next.
        for IoRequest { command, reply, execution } in stranded {
            self.inherit(command, reply, execution);
        }
        Ok(())
    }

    fn inherit(
        &mut self,
        mut command: Command,
        reply: oneshot::Sender<CommandCompletion>,
        execution: ExecutionStatus,
    ) {
        let index = self.free.pop().unwrap_or(self.replies.len());
        if index == self.replies.len() {
            self.replies.push(None);
        }
        self.replies[index] = Some(reply);
        command.user = index as u64;
        self.poller.inherit(command, execution);
    }

    async fn sleep(&mut self, closing: &mut bool) -> Result<(), Error> {
        let room = self.has_room() && !*closing;
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
            ready = self.poller.ready(IDLE_TIMEOUT) => ready,
        }
    }
}
