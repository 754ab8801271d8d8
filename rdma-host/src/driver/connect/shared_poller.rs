//! A poller whose queues are brought up, several at the same time.

use std::convert::Infallible;

use tokio::sync::{Mutex, MutexGuard, Notify, SetOnce, oneshot};
use verbs::{CompletionQueue, Provider};

use crate::{
    config::{ADMIN_TIMEOUT, IDLE_TIMEOUT},
    driver::{
        connect::{authenticate::CommandChannel, command_buffer::CommandBuffer},
        data_path::{
            command::{Command, CommandCompletion, ExecutionStatus},
            connection::QueueSet,
            poller::Poller,
            queue::Queue,
        },
    },
    error::Error,
    proto::Execute,
    wire::Cqe,
};

/// A poller that one task drives, by [`serve`](Self::serve), while others have a command each on
/// queues of theirs. For bring-up alone: the data path shares nothing.
pub(crate) struct SharedPoller<P: Provider> {
    desk: Mutex<Desk<P>>,
    /// Somebody waits for the desk, at which `serve` sleeps.
    wanted: Notify,
    failure: SetOnce<Error>,
}

/// The poller, and who waits for the answer to the command of each number.
pub(crate) struct Desk<P: Provider> {
    poller: Poller<P>,
    /// How many queues come up in all.
    queues: u16,
    replies: Vec<Option<oneshot::Sender<CommandCompletion>>>,
}

impl<P: Provider> SharedPoller<P> {
    pub(crate) fn new(poller: Poller<P>, queues: u16) -> Self {
        let desk = Mutex::new(Desk { poller, queues, replies: Vec::new() });
        Self { desk, wanted: Notify::new(), failure: SetOnce::new() }
    }

    /// The queues, once all are up.
    pub(crate) fn into_assembly(self) -> Result<QueueSet<P>, Error> {
        if let Some(error) = self.failure.into_inner() {
            return Err(error);
        }
        let mut assembly = self.desk.into_inner().poller.into_assembly().ok_or(Error::Closed)?;
        assembly.queues.sort_by_key(Queue::id);
        Ok(assembly)
    }

    /// Drives the poller as long as it lives. Its failure is for those to tell who wait for
    /// something: an answer that came before counts, since a target that refuses a key says so
    /// and hangs up.
    pub(crate) async fn serve(&self) -> Infallible {
        let error = loop {
            let mut desk = self.desk.lock().await;
            let ready = tokio::select! {
                () = self.wanted.notified() => Ok(()),
                ready = desk.poller.ready(IDLE_TIMEOUT) => ready,
            };
            let polled = ready.and_then(|()| desk.poller.poll());
            desk.deliver();
            if let Err(error) = polled {
                desk.replies.clear();
                break error;
            }
        };
        // Nobody else sets it.
        let _ = self.failure.set(error);
        std::future::pending().await
    }

    /// Waits for something that the failure of the poller makes pointless.
    pub(crate) async fn unless_failed<T>(
        &self,
        something: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            outcome = something => outcome,
            error = self.failure.wait() => Err(error.clone()),
        }
    }

    pub(crate) async fn add(&self, queue: Queue<P>) {
        self.desk().await.poller.add(queue);
    }

    /// The poller for a moment.
    pub(crate) async fn desk(&self) -> MutexGuard<'_, Desk<P>> {
        self.wanted.notify_one();
        self.desk.lock().await
    }

    /// Sends a command on one of the queues and waits for its answer.
    pub(crate) async fn execute(
        &self,
        scratch: &mut CommandBuffer,
        execute: Execute,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let answered = async {
            let reply = self.desk().await.submit(scratch, &execute)?;
            match reply.await {
                Ok(done) if done.execution == ExecutionStatus::Answered => Ok(done),
                _ => Err(self.failure.wait().await.clone()),
            }
        };
        let timeout = Error::Timeout { step: execute.name, after: ADMIN_TIMEOUT };
        let done = tokio::time::timeout(ADMIN_TIMEOUT, answered).await.unwrap_or(Err(timeout))?;
        scratch.response(done, &execute)
    }
}

impl<P: Provider> Desk<P> {
    pub(crate) fn completion_queue(&mut self) -> Option<&mut CompletionQueue<P>> {
        self.poller.completion_queue()
    }

    /// How often the runtime's other tasks come first after a call that takes its thread for long.
    /// A command takes some turns: to be completed, for its caller to go on, to send the next.
    /// A few queues are up before anybody has waited, and are not to wait for a busy runtime.
    pub(crate) fn turns_for_others(&self) -> u8 {
        const FEW: u16 = 4;
        if self.queues > FEW { 4 } else { 0 }
    }

    fn submit(
        &mut self,
        scratch: &mut CommandBuffer,
        execute: &Execute,
    ) -> Result<oneshot::Receiver<CommandCompletion>, Error> {
        let (reply, answer) = oneshot::channel();
        let free = self.replies.iter().position(Option::is_none);
        let index = free.unwrap_or(self.replies.len());
        if free.is_none() {
            self.replies.push(None);
        }
        let data = scratch.data(&execute.transfer);
        let command = Command { sqe: execute.sqe, data, user: index as u64 };
        self.poller.submit_to(execute.queue, command).map_err(|rejection| rejection.error)?;
        self.replies[index] = Some(reply);
        self.poller.flush()?;
        Ok(answer)
    }

    fn deliver(&mut self) {
        while let Some(done) = self.poller.take() {
            let index = usize::try_from(done.user).unwrap_or(usize::MAX);
            if let Some(reply) = self.replies.get_mut(index).and_then(Option::take) {
                // Who no longer waits has given up.
                let _ = reply.send(done);
            }
        }
    }
}

/// A queue of a shared poller.
pub(crate) struct SharedQueue<'a, P: Provider> {
    pub(crate) poller: &'a SharedPoller<P>,
    pub(crate) scratch: &'a mut CommandBuffer,
}

impl<P: Provider> CommandChannel for SharedQueue<'_, P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.poller.execute(self.scratch, execute).await
    }
}
