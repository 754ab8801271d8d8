//! The admin queue of a live controller: commands one at a time, and the keep-alive beside them.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use verbs::{Buffer, Domain, Provider};

use super::command::{Command, Data, Done};
use super::controller::IDLE;
use super::liveness::Liveness;
use super::poller::Poller;
use super::{data_access, verbs_error};
use crate::config::{ADMIN_TIMEOUT, SHUTDOWN_TIMEOUT};
use crate::error::Error;
use crate::proto::{Execute, KeepAlive, KeepAliveAction, Shutdown, ShutdownAction, Transfer};
use crate::wire::{Cqe, Identify, QueueId, Sqe};

/// An admin command from outside, and where its answer goes.
pub(super) struct Request {
    pub(super) execute: Execute,
    pub(super) reply: oneshot::Sender<Result<(Cqe, Vec<u8>), Error>>,
}

/// The task that owns the admin queue.
pub(super) struct Admin<P: Provider> {
    poller: Poller<P>,
    keep_alive: KeepAlive,
    scratch: Option<Buffer>,
    current: Option<Request>,
    liveness: Liveness,
}

/// Which command a completion ends.
const KEEP_ALIVE: u64 = 1;
const REQUEST: u64 = 2;

impl<P: Provider> Admin<P> {
    pub(super) fn new(
        poller: Poller<P>,
        domain: &Domain<P>,
        keep_alive: Duration,
        liveness: Liveness,
    ) -> Result<Self, Error> {
        let scratch = domain.allocate(Identify::SIZE, data_access()).map_err(verbs_error)?;
        Ok(Self {
            poller,
            keep_alive: KeepAlive::new(keep_alive, Instant::now()),
            scratch: Some(scratch),
            current: None,
            liveness,
        })
    }

    /// Serves until the last sender of requests is gone, then shuts the controller down; or until
    /// the controller fails. Whoever still waits then learns why when the request is dropped.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        match self.serve(&mut requests).await {
            Ok(()) => {
                self.liveness.end(Error::Closed);
                // Past the time limit the connection is dropped as it is.
                let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.shut_down()).await;
                self.poller.fail(Error::Closed);
            }
            Err(error) => {
                self.liveness.end(error.clone());
                self.poller.fail(error);
            }
        }
    }

    async fn serve(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<(), Error> {
        loop {
            self.poller.poll()?;
            while let Some(done) = self.poller.take() {
                self.handle_done(done)?;
            }
            let limit = self.keep_alive()?;
            let idle = self.current.is_none();
            let live = self.liveness.cause().is_none();
            tokio::select! {
                cause = self.liveness.ended(), if live => match cause {
                    // By its owner: the requests end next, and with them the queue, in order.
                    Error::Closed => {}
                    cause => return Err(cause),
                },
                request = requests.recv(), if idle => match request {
                    Some(request) => self.begin(request)?,
                    None => return Ok(()),
                },
                ready = self.poller.ready(limit) => ready?,
            }
        }
    }

    /// Sends a keep-alive when it is due; returns how long the task may sleep.
    fn keep_alive(&mut self) -> Result<Duration, Error> {
        let now = Instant::now();
        match self.keep_alive.poll_action(now) {
            KeepAliveAction::Expired(after) => Err(Error::Timeout { step: "Keep Alive", after }),
            KeepAliveAction::Send => {
                let command =
                    Command { sqe: Sqe::keep_alive(), data: Data::None, user: KEEP_ALIVE };
                self.submit(command)?;
                Ok(IDLE)
            }
            KeepAliveAction::Wait(Some(due)) => Ok(IDLE.min(due - now)),
            KeepAliveAction::Wait(None) => Ok(IDLE),
        }
    }

    fn begin(&mut self, request: Request) -> Result<(), Error> {
        let data = data_for(&request.execute.transfer, &mut self.scratch);
        let command = Command { sqe: request.execute.sqe, data, user: REQUEST };
        self.current = Some(request);
        self.submit(command)
    }

    fn submit(&mut self, command: Command) -> Result<(), Error> {
        let submitted = self.poller.submit_to(QueueId::ADMIN, command);
        submitted.map_err(|rejection| rejection.error)?;
        self.poller.flush()
    }

    fn handle_done(&mut self, done: Done) -> Result<(), Error> {
        if done.user == KEEP_ALIVE {
            let (outcome, _) = done.into_result("Keep Alive");
            outcome?;
            self.keep_alive.handle_response();
        } else if let Some(request) = self.current.take() {
            let answer = read_answer(done, &request.execute, &mut self.scratch);
            // Nobody waits any more: then nobody wants to know.
            let _ = request.reply.send(answer);
        }
        Ok(())
    }

    async fn shut_down(&mut self) {
        let mut shutdown = Shutdown::Announce;
        loop {
            match shutdown.action() {
                ShutdownAction::Disconnect => return,
                ShutdownAction::Wait(time) => {
                    tokio::time::sleep(time).await;
                    shutdown.handle_waited();
                }
                ShutdownAction::Execute(command) => {
                    let outcome =
                        execute(&mut self.poller, &mut self.scratch, command, ADMIN_TIMEOUT).await;
                    shutdown.handle_response(outcome.ok().map(|(response, _)| response));
                }
            }
        }
    }
}

/// Sends one command and waits for its answer, on a queue where nothing else is going on but a
/// keep-alive.
pub(super) async fn execute<P: Provider>(
    poller: &mut Poller<P>,
    scratch: &mut Option<Buffer>,
    execute: Execute,
    limit: Duration,
) -> Result<(Cqe, Vec<u8>), Error> {
    let data = data_for(&execute.transfer, scratch);
    let command = Command { sqe: execute.sqe, data, user: REQUEST };
    poller.submit_to(execute.queue, command).map_err(|rejection| rejection.error)?;
    poller.flush()?;
    let answered = async {
        loop {
            poller.poll()?;
            while let Some(done) = poller.take() {
                if done.user == REQUEST {
                    return Ok(done);
                }
            }
            poller.ready(IDLE).await?;
        }
    };
    let timeout = Error::Timeout { step: execute.name, after: limit };
    let done = tokio::time::timeout(limit, answered).await.unwrap_or(Err(timeout))?;
    read_answer(done, &execute, scratch)
}

/// The buffer of a command, filled with what it sends.
pub(super) fn data_for(transfer: &Transfer, scratch: &mut Option<Buffer>) -> Data {
    let Some(mut buffer) = scratch.take() else { return Data::None };
    match transfer {
        Transfer::None => {
            *scratch = Some(buffer);
            Data::None
        }
        Transfer::FromController(length) => {
            buffer.fill(0);
            shorten(&mut buffer, *length, scratch);
            Data::FromController(buffer)
        }
        Transfer::ToController(bytes) => {
            shorten(&mut buffer, bytes.len(), scratch);
            buffer.copy_in(0, bytes);
            Data::ToController(buffer)
        }
    }
}

/// Leaves `length` bytes in the buffer and the rest in the scratch.
fn shorten(buffer: &mut Buffer, length: usize, scratch: &mut Option<Buffer>) {
    if length < buffer.len() {
        *scratch = Some(buffer.split_off(length));
    }
}

/// The response and its data; the buffer is whole again afterwards.
pub(super) fn read_answer(
    done: Done,
    execute: &Execute,
    scratch: &mut Option<Buffer>,
) -> Result<(Cqe, Vec<u8>), Error> {
    let Done { outcome, data, .. } = done;
    let mut bytes = Vec::new();
    if let Some(mut buffer) = data {
        if let Transfer::FromController(length) = execute.transfer {
            bytes.resize(length, 0);
            buffer.copy_out(0, &mut bytes);
        }
        if let Some(rest) = scratch.take() {
            // The two were cut from one another.
            let _ = buffer.unsplit(rest);
        }
        *scratch = Some(buffer);
    }
    Ok((outcome?, bytes))
}
