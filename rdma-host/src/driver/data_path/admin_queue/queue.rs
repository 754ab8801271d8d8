//! Admin queue of one connection, to an I/O or discovery controller: during bring-up, then live.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use verbs::{CompletionQueue, Provider};

use crate::{
    config::{ADMIN_TIMEOUT, EVENT_INTERVAL_MIN, IDLE_TIMEOUT},
    driver::{
        data_path::{
            admin_queue::{client::AdminRequest, command_buffer::CommandBuffer},
            command::{Command, CommandCompletion, Data, ExecutionStatus},
            connection::{Connection, TimedOutCommand},
            device_events::DeviceWatch,
            poller::Poller,
            queue::Queue,
        },
        runtime,
    },
    error::{AbortOutcome, Error, TargetMisbehaved},
    proto::{Execute, KeepAlive, KeepAliveAction, Shutdown, ShutdownAction},
    wire::{AsyncEvent, Cqe, QueueId, Sqe},
};

/// Admin queue of one connection: commands one at a time, and beside them Keep Alive, Abort and
/// Asynchronous Event Request.
///
/// ```text
///  connect → execute… → start_keep_alive → execute… → serve → shut_down
/// ```
pub(crate) struct AdminQueue<P: Provider> {
    poller: Poller<P>,
    buffer: CommandBuffer,
    keep_alive: KeepAlive,
    /// Connection that it belongs to, once that is live: its I/O counts as keep-alive traffic.
    connection: Option<Arc<Connection<P>>>,
    /// Request in flight.
    current: Option<AdminRequest>,
    /// Receiver of asynchronous events; `None` before the controller is live, and if it refuses
    /// Asynchronous Event Requests.
    events: Option<mpsc::Sender<AsyncEvent>>,
    /// Time to send the next Asynchronous Event Request; `None` while one is in flight.
    event_request_at: Option<Instant>,
    /// Timeout of I/O commands.
    io_timeout: Duration,
}

/// Tags of commands ([`Command::user`]), in the low byte; an Abort's tag has the queue of the
/// aborted command above it.
const KEEP_ALIVE: u64 = 1;
const REQUEST: u64 = 2;
const ABORT: u64 = 3;
const EVENT: u64 = 4;
/// Tag of commands of [`AdminQueue::execute`], different from requests: one of these may still be
/// in flight.
const EXECUTE: u64 = 5;

impl<P: Provider> AdminQueue<P> {
    /// Creates the driver of a queue that is not connected yet.
    pub(crate) fn new(poller: Poller<P>, buffer: CommandBuffer, io_timeout: Duration) -> Self {
        Self {
            poller,
            buffer,
            keep_alive: KeepAlive::new(Duration::ZERO, false, runtime::now()),
            connection: None,
            current: None,
            events: None,
            event_request_at: None,
            io_timeout,
        }
    }

    /// Completion queue of the poller, for the queue pair of the connection.
    pub(crate) fn completion_queue(&mut self) -> &mut CompletionQueue<P> {
        self.poller.completion_queue().expect("a poller that has not failed has one")
    }

    /// Adds the connected queue.
    pub(crate) fn add(&mut self, queue: Queue<P>) {
        self.poller.add(queue);
    }

    /// Starts the keep-alive timer, which [`serve`](Self::serve) acts on.
    pub(crate) fn start_keep_alive(&mut self, timeout: Duration, traffic_based: bool) {
        self.keep_alive = KeepAlive::new(timeout, traffic_based, runtime::now());
    }

    /// Starts to send Asynchronous Event Requests; the events go to `events`.
    pub(crate) fn request_events(&mut self, events: mpsc::Sender<AsyncEvent>) {
        self.events = Some(events);
        self.event_request_at = Some(runtime::now());
    }

    /// Registers the queue with a watch for device events.
    pub(crate) fn report_to(&self, watch: &mut DeviceWatch<P>) {
        self.poller.report_to(watch);
    }

    /// Notes that the connection is live.
    pub(crate) fn go_live(&mut self, connection: Arc<Connection<P>>) {
        connection.admin.note_alive(runtime::now());
        self.connection = Some(connection);
    }

    /// Serves clients and the timers until the connection fails. Requests that have no response
    /// then are dropped, which tells the client.
    pub(crate) async fn serve(
        &mut self,
        requests: &mut mpsc::Receiver<AdminRequest>,
        timed_out: &mut mpsc::Receiver<TimedOutCommand>,
    ) -> Error {
        match self.serve_until_failure(requests, timed_out).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve_until_failure(
        &mut self,
        requests: &mut mpsc::Receiver<AdminRequest>,
        timed_out: &mut mpsc::Receiver<TimedOutCommand>,
    ) -> Result<Infallible, Error> {
        loop {
            self.poller.poll()?;
            while let Some(completion) = self.poller.take() {
                self.handle_completion(completion)?;
            }
            let limit = self.check_keep_alive()?.min(self.check_event_request()?);
            let idle = self.current.is_none();
            tokio::select! {
                biased;
                Some(request) = requests.recv(), if idle => self.begin(request)?,
                Some(command) = timed_out.recv() => self.abort(command)?,
                ready = self.poller.ready(limit) => ready?,
            }
        }
    }

    /// Executes one command, while no clients are served; returns a response of any status. Its
    /// queue is the one that was connected.
    pub(crate) async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let data = self.buffer.data(&execute.transfer);
        let command = Command { sqe: execute.sqe, data, user: EXECUTE };
        self.submit_to(execute.queue, command)?;
        let completed = async {
            loop {
                let polled = self.poller.poll();
                // A response counts even if the connection failed right after it: a target that
                // refuses a key says so and disconnects.
                if let Some(completion) = self.take_response() {
                    return Ok(completion);
                }
                polled?;
                if let Err(error) = self.poller.ready(IDLE_TIMEOUT).await {
                    return self.take_response().ok_or(error);
                }
            }
        };
        let timeout = Error::Timeout { step: execute.name, after: ADMIN_TIMEOUT };
        let completed = runtime::timeout(ADMIN_TIMEOUT, completed).await;
        self.buffer.response(completed.unwrap_or(Err(timeout))?, &execute)
    }

    /// Takes the completion of [`execute`](Self::execute)'s command, if the controller has
    /// responded.
    fn take_response(&mut self) -> Option<CommandCompletion> {
        let completions = std::iter::from_fn(|| self.poller.take());
        let has_response = |completion: &CommandCompletion| {
            completion.user == EXECUTE && completion.execution == ExecutionStatus::Responded
        };
        completions.filter(has_response).last()
    }

    /// Sends a Keep Alive if it is due; returns the time until the next check.
    fn check_keep_alive(&mut self) -> Result<Duration, Error> {
        let now = runtime::now();
        let traffic = self.connection.as_ref().and_then(|connection| connection.last_traffic());
        if let (Some(connection), Some(traffic)) = (&self.connection, traffic) {
            connection.admin.note_alive(traffic);
        }
        match self.keep_alive.poll_action(traffic, now) {
            KeepAliveAction::Expired(after) => Err(Error::KeepAlive(after)),
            KeepAliveAction::Send => {
                let sqe = Sqe::keep_alive();
                self.submit(Command { sqe, data: Data::None, user: KEEP_ALIVE })?;
                Ok(IDLE_TIMEOUT)
            }
            KeepAliveAction::Wait(Some(due)) => {
                Ok(IDLE_TIMEOUT.min(due.saturating_duration_since(now)))
            }
            KeepAliveAction::Wait(None) => Ok(IDLE_TIMEOUT),
        }
    }

    /// Sends an Asynchronous Event Request if it is due and the receiver has room for the event;
    /// returns the time until the next check.
    fn check_event_request(&mut self) -> Result<Duration, Error> {
        let Some(at) = self.event_request_at else { return Ok(IDLE_TIMEOUT) };
        let early = at.saturating_duration_since(runtime::now());
        let room = self.events.as_ref().is_some_and(|events| events.capacity() > 0);
        if !early.is_zero() || !room {
            return Ok(if early.is_zero() { IDLE_TIMEOUT } else { early });
        }
        self.event_request_at = None;
        self.submit(Command { sqe: AsyncEvent::request(), data: Data::None, user: EVENT })?;
        Ok(IDLE_TIMEOUT)
    }

    /// Passes an asynchronous event on, or notes that the controller sends none.
    fn handle_event(&mut self, response: Cqe) {
        let status = response.status();
        let Some(events) = self.events.as_ref().filter(|_| status.is_success()) else {
            tracing::info!(%status, "the controller tells of no events");
            self.events = None;
            return;
        };
        // There was room for it when it was requested; without a receiver it is dropped.
        let _ = events.try_send(AsyncEvent(response.result()));
        self.event_request_at = Some(runtime::now() + EVENT_INTERVAL_MIN);
    }

    fn begin(&mut self, request: AdminRequest) -> Result<(), Error> {
        let generation = self.connection.as_ref().map(|connection| connection.generation);
        if request.generation.is_some() && request.generation != generation {
            let _ = request.reply.send(Err(Error::Reset));
            return Ok(());
        }
        let data = self.buffer.data(&request.execute.transfer);
        let command = Command { sqe: request.execute.sqe, data, user: REQUEST };
        self.current = Some(request);
        self.submit(command)
    }

    fn abort(&mut self, timed_out: TimedOutCommand) -> Result<(), Error> {
        let TimedOutCommand { queue, command } = timed_out;
        tracing::info!(%queue, %command, "no answer in time: aborting the command");
        let user = u64::from(queue.0) << 8 | ABORT;
        self.submit(Command { sqe: Sqe::abort(queue, command), data: Data::None, user })
    }

    fn submit(&mut self, command: Command) -> Result<(), Error> {
        self.submit_to(QueueId::ADMIN, command)
    }

    fn submit_to(&mut self, queue: QueueId, command: Command) -> Result<(), Error> {
        if let Some(connection) = &self.connection {
            connection.admin.count(command.user == KEEP_ALIVE);
        }
        let submitted = self.poller.submit_to(queue, command);
        submitted.map_err(|rejection| rejection.error)?;
        self.poller.ring_doorbells()
    }

    fn handle_completion(&mut self, completion: CommandCompletion) -> Result<(), Error> {
        if let (Some(connection), Ok(_)) = (&self.connection, &completion.outcome) {
            connection.admin.note_alive(runtime::now());
        }
        match completion.user & 0xff {
            KEEP_ALIVE => {
                let status = completion.outcome?.status();
                if !status.is_success() {
                    // Its DNR is about this command: it says nothing of another connection.
                    return Err(TargetMisbehaved::KeepAliveRefused(status).into());
                }
                self.keep_alive.handle_response();
            }
            EVENT => self.handle_event(completion.outcome?),
            ABORT => {
                let queue = QueueId(u16::try_from(completion.user >> 8).unwrap_or(u16::MAX));
                // A command that was not aborted is given up with its queue.
                let aborted = completion.outcome.is_ok_and(|response| {
                    response.status().is_success() && response.result_dword() & 1 == 0
                });
                if !aborted {
                    let (after, abort) = (self.io_timeout, AbortOutcome::NotAborted);
                    return Err(Error::CommandTimeout { queue, after, abort });
                }
                if let Some(connection) = &self.connection {
                    connection.set_aborted(queue, true);
                }
            }
            REQUEST => {
                let request = self.current.take().expect("the request is in flight");
                let outcome = self.buffer.response(completion, &request.execute);
                // A client that no longer waits has dropped the receiver.
                let _ = request.reply.send(outcome);
            }
            tag => unreachable!("no command has the tag {tag} while clients are served"),
        }
        Ok(())
    }

    /// Notifies the controller of the shutdown, and waits until it has shut down.
    pub(crate) async fn shut_down(&mut self) {
        let Some(connection) = &self.connection else { return };
        let mut shutdown = Shutdown::Announce(connection.negotiated().capabilities);
        loop {
            match shutdown.action() {
                ShutdownAction::Disconnect => return,
                ShutdownAction::Wait(time) => {
                    runtime::sleep(time).await;
                    shutdown.handle_timer();
                }
                ShutdownAction::Execute(command) => {
                    let outcome = self.execute(command).await;
                    shutdown.handle_response(outcome.ok().map(|(response, _)| response));
                }
            }
        }
    }
}
