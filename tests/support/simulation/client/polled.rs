//! Pollers that the host drives.

use std::{collections::BTreeMap, time::Duration};

use rdma_fabric::Host;
use rdma_host::Poller;
use tokio::sync::{mpsc, oneshot};

use super::{
    Client,
    io::{Io, PolledRequest},
};

/// Senders of the completions, by the command's number.
type Replies = BTreeMap<u64, oneshot::Sender<rdma_host::CommandCompletion>>;

/// Empty polls after which a poller that spins sleeps: a wait of minutes would be most of the run.
const SPINS_MAX: u32 = 300;

/// Longest sleep of a poller: longer after many polls that found nothing.
fn ready_limit(empty_polls: u32) -> Duration {
    Duration::from_millis(5) * (1 << (empty_polls / 64).min(6))
}

impl Client {
    /// Drives pollers in tasks of their own; commands go to them in turn.
    pub(super) fn drive(&self, pollers: Vec<Poller<Host>>) -> Io {
        let (sender, mut requests) = mpsc::unbounded_channel::<PolledRequest>();
        let mut queues = Vec::new();
        for poller in pollers {
            let (queue, own) = mpsc::unbounded_channel();
            queues.push(queue);
            self.world.spawn(self.clone().drive_one(poller, own));
        }
        self.world.spawn(async move {
            let mut turn = 0;
            while let Some(request) = requests.recv().await {
                // A poller that has failed drops the request.
                let _ = queues[turn % queues.len()].send(request);
                turn += 1;
            }
        });
        Io::Pollers(sender)
    }

    async fn drive_one(
        self,
        mut poller: Poller<Host>,
        mut requests: mpsc::UnboundedReceiver<PolledRequest>,
    ) {
        let mut replies = Replies::new();
        let (mut next, mut is_closing, mut failure, mut empty_polls) = (0_u64, false, None, 0_u32);
        let mut arrived = None;
        while !(is_closing && replies.is_empty()) {
            while poller.room() > 0 || failure.is_some() {
                let request = match arrived.take().map_or_else(|| requests.try_recv(), Ok) {
                    Ok(request) => request,
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        is_closing = true;
                        break;
                    }
                };
                next += 1;
                self.submit(&mut poller, request, next, &mut replies);
            }
            if self.setup.spins && self.world.draw(|random| random.once_in(4)) {
                let pause = self.world.draw(|random| random.below(1_000));
                self.world.sleep(Duration::from_micros(pause)).await;
            }
            let flushed = poller.ring_doorbells();
            let polled = flushed.and_then(|()| poller.poll());
            let taken = self.deliver(&mut poller, &mut replies);
            empty_polls = if taken == 0 { empty_polls + 1 } else { 0 };
            if let Err(error) = polled {
                if !replies.is_empty() {
                    let left = replies.len();
                    self.violation(format!("a poller failed and kept {left} commands"));
                }
                failure = Some(error);
            }
            match &failure {
                Some(_) => self.world.sleep(Duration::from_millis(10)).await,
                None if self.setup.spins && !replies.is_empty() && empty_polls < SPINS_MAX => {
                    // It does something else for a time now and then.
                    let pause = Duration::from_micros(1 << self.world.draw(|r| r.below(12)));
                    self.world.sleep(pause).await;
                }
                None if taken == 0 && (is_closing || poller.room() == 0) => {
                    drop(poller.ready(ready_limit(empty_polls)).await);
                }
                None if taken == 0 => tokio::select! {
                    biased;
                    request = requests.recv() => {
                        is_closing = request.is_none();
                        arrived = request;
                    }
                    _ = poller.ready(ready_limit(empty_polls)) => {}
                },
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Passes completions on; returns their number.
    fn deliver(&self, poller: &mut Poller<Host>, replies: &mut Replies) -> usize {
        let mut taken = 0;
        while let Some(done) = poller.take() {
            taken += 1;
            match replies.remove(&done.user) {
                // A caller that does not wait has dropped the receiver.
                Some(reply) => drop(reply.send(done)),
                None => self.violation(format!("command {} completed twice", done.user)),
            }
        }
        taken
    }

    fn submit(
        &self,
        poller: &mut Poller<Host>,
        request: PolledRequest,
        user: u64,
        replies: &mut Replies,
    ) {
        let PolledRequest { command, reply } = request;
        match poller.submit(command.with_user(user)) {
            Ok(()) => drop(replies.insert(user, reply)),
            Err(refused) => {
                let completion = rdma_host::CommandCompletion {
                    user,
                    outcome: Err(refused.error),
                    data: refused.data,
                    execution: rdma_host::ExecutionStatus::NotSent,
                };
                let _ = reply.send(completion);
            }
        }
    }
}
