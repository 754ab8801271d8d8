//! Driver of the admin queue: of I/O and of discovery controllers, during bring-up and after it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::{ADMIN_TIMEOUT, EVENT_INTERVAL_MIN, IDLE_TIMEOUT},
    driver::{
        connect::{
            authenticate::CommandChannel,
            command_buffer::CommandBuffer,
            rdma::{Plan, Resolved},
        },
        data_path::{
            command::{Command, CommandCompletion, Data, ExecutionStatus},
            connection::{Connection, TimedOutCommand},
            connection_state::{ConnectionState, ConnectionWatch},
            device_events::DeviceWatch,
            poller::Poller,
        },
        runtime,
    },
    error::{AbortOutcome, Error, Incompatible, Rejected, TargetMisbehaved},
    proto::{Execute, KeepAlive, KeepAliveAction, Shutdown, ShutdownAction, Transfer},
    wire::{
        AsyncEvent, AsyncEventMask, CmAcceptData, Cqe, GetFeatures, HostBehavior, QueueId,
        SetFeatures, Sqe,
    },
};

/// Admin command of a client, with the sender of its outcome.
pub(crate) struct AdminRequest {
    execute: Execute,
    /// Generation of the only connection that may carry it; `None` for any.
    generation: Option<u64>,
    reply: oneshot::Sender<Result<(Cqe, Vec<u8>), Error>>,
}

/// Client of a controller's admin queue, across reconnects.
pub(crate) struct AdminClient<P: Provider> {
    requests: mpsc::Sender<AdminRequest>,
    watch: ConnectionWatch<P>,
}

impl<P: Provider> Clone for AdminClient<P> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), watch: self.watch.clone() }
    }
}

impl<P: Provider> AdminClient<P> {
    pub(crate) fn new(requests: mpsc::Sender<AdminRequest>, watch: ConnectionWatch<P>) -> Self {
        Self { requests, watch }
    }

    /// Executes a command; returns the response, of status success, and the data. Without a
    /// connection it waits for one, as I/O commands do; an idempotent command whose connection is
    /// lost is sent again.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        sqe: Sqe,
        transfer: Transfer,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let execute = Execute { queue: QueueId::ADMIN, sqe, transfer, name };
        let (response, data) = self.answer(execute).await?;
        match response.status() {
            status if status.is_success() => Ok((response, data)),
            status => Err(Rejected::Command { command: name, status }.into()),
        }
    }

    /// Executes a command as [`execute`](Self::execute); returns a response of any status.
    pub(crate) async fn answer(&self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        loop {
            if !matches!(self.watch.until_live_or_failing().await, ConnectionState::Live(_)) {
                return Err(self.unavailable_error());
            }
            match self.send(execute.clone(), None).await {
                Some(outcome) => return outcome,
                None if execute.sqe.opcode().is_idempotent() => {}
                None => return Err(self.unavailable_error()),
            }
        }
    }

    /// Executes a command on the connection of this generation only; returns a response of any
    /// status.
    pub(crate) async fn answer_on(
        &self,
        generation: u64,
        execute: Execute,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let outcome = self.send(execute, Some(generation)).await;
        outcome.unwrap_or_else(|| Err(self.unavailable_error()))
    }

    /// Sends a command once; returns its outcome, or `None` if its connection was lost.
    async fn send(
        &self,
        execute: Execute,
        generation: Option<u64>,
    ) -> Option<Result<(Cqe, Vec<u8>), Error>> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(AdminRequest { execute, generation, reply }).await.is_err() {
            return Some(Err(self.watch.until_ended().await));
        }
        // The queue has its own deadline; past this one, it waits for another connection.
        let answered = runtime::timeout(2 * ADMIN_TIMEOUT, answer).await;
        answered.unwrap_or_else(|_| Ok(Err(self.unavailable_error()))).ok()
    }

    /// Error of a command that cannot be executed now.
    pub(crate) fn unavailable_error(&self) -> Error {
        match self.watch.state() {
            ConnectionState::Disconnected(disconnection) => {
                Error::NotConnected(disconnection.error)
            }
            ConnectionState::Ended(error) => error,
            ConnectionState::Live(_) => {
                Error::Timeout { step: "an admin command", after: ADMIN_TIMEOUT }
            }
        }
    }
}

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

    /// Establishes the RDMA connection; returns the target's private data.
    pub(crate) async fn connect(
        &mut self,
        resolved: Resolved<P>,
        plan: Plan<'_, P>,
    ) -> Result<CmAcceptData, Error> {
        let completion_queue = self.poller.completion_queue();
        let completion_queue = completion_queue.expect("a poller that has not failed has one");
        let (queue, accept) = resolved.connector(plan).run(completion_queue).await?;
        self.poller.add(queue);
        Ok(accept)
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
        let answered = |completion: &CommandCompletion| {
            completion.user == EXECUTE && completion.execution == ExecutionStatus::Answered
        };
        completions.filter(answered).last()
    }

    /// Sends a Keep Alive if it is due; returns the time until the next check.
    fn check_keep_alive(&mut self) -> Result<Duration, Error> {
        let now = runtime::now();
        let traffic = self.connection.as_ref().and_then(|connection| connection.last_traffic());
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
        let submitted = self.poller.submit_to(queue, command);
        submitted.map_err(|rejection| rejection.error)?;
        self.poller.ring_doorbells()
    }

    fn handle_completion(&mut self, completion: CommandCompletion) -> Result<(), Error> {
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
                let answer = self.buffer.response(completion, &request.execute);
                // A client that no longer waits has dropped the receiver.
                let _ = request.reply.send(answer);
            }
            tag => unreachable!("no command has the tag {tag} while clients are served"),
        }
        Ok(())
    }

    /// Notifies the controller of the shutdown, and waits until it has shut down.
    pub(crate) async fn shut_down(&mut self) {
        let mut shutdown = Shutdown::Announce;
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

/// Executes commands on whichever connection is live.
impl<P: Provider> CommandChannel for &AdminClient<P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.answer(execute).await
    }
}

impl<P: Provider> CommandChannel for AdminQueue<P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.execute(execute).await
    }
}

/// Asynchronous events of an I/O controller that are handled, beside errors and health, which need
/// not be enabled.
const IO_EVENTS: [AsyncEventMask; 3] = [
    AsyncEventMask::NAMESPACE_ATTRIBUTE,
    AsyncEventMask::FIRMWARE_ACTIVATION,
    AsyncEventMask::ANA_CHANGE,
];

/// Enables the asynchronous events that an I/O controller supports. A refusal is not an error: the
/// controller then reports fewer events.
pub(crate) async fn enable_events<P: Provider>(
    admin: &mut AdminQueue<P>,
    supported: AsyncEventMask,
) -> Result<(), Error> {
    let wanted = IO_EVENTS.into_iter().fold(AsyncEventMask(0), |all, one| all | (one & supported));
    if wanted == AsyncEventMask(0) {
        return Ok(());
    }
    let command = |sqe, name| {
        let transfer = Transfer::None;
        Execute { queue: QueueId::ADMIN, sqe, transfer, name }
    };
    // Events that are enabled already stay so: health warnings among them.
    let get = command(GetFeatures::async_events(), "Get Features (events)");
    let (response, _) = admin.execute(get).await?;
    let enabled = if response.status().is_success() {
        AsyncEventMask(response.result_dword())
    } else {
        AsyncEventMask(0)
    };
    let set = command(SetFeatures::async_events(enabled | wanted), "Set Features (events)");
    let (response, _) = admin.execute(set).await?;
    if !response.status().is_success() {
        let status = response.status();
        tracing::info!(%status, "the controller will not tell of changes");
    }
    Ok(())
}

/// Announces to a controller that has retry delays that this host heeds them, as Linux does. A
/// refusal is not an error: the controller then names none.
pub(crate) async fn enable_retry_delays<P: Provider>(
    admin: &mut AdminQueue<P>,
    delays: [Duration; 3],
) -> Result<(), Error> {
    if delays[0].is_zero() {
        return Ok(());
    }
    let behavior = HostBehavior { retry_delays: true }.to_bytes().to_vec();
    let set = Execute {
        queue: QueueId::ADMIN,
        sqe: SetFeatures::host_behavior(),
        transfer: Transfer::ToController(behavior),
        name: "Set Features (Host Behavior Support)",
    };
    let (response, _) = admin.execute(set).await?;
    let status = response.status();
    if !status.is_success() {
        tracing::info!(%status, "the controller names no retry delays");
    }
    Ok(())
}

/// Enables the discovery log change event of a discovery controller.
///
/// # Errors
///
/// When the controller does not support it or refuses: the log could not be watched.
pub(crate) async fn enable_discovery_events<P: Provider>(
    admin: &mut AdminQueue<P>,
    supported: AsyncEventMask,
) -> Result<(), Error> {
    let events = AsyncEventMask::DISCOVERY_LOG_CHANGE;
    if !supported.contains(events) {
        return Err(Incompatible::NoDiscoveryEvents.into());
    }
    let command = "Set Features (Asynchronous Event Configuration)";
    let set = Execute {
        queue: QueueId::ADMIN,
        sqe: SetFeatures::async_events(events),
        transfer: Transfer::None,
        name: command,
    };
    let (response, _) = admin.execute(set).await?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(Rejected::Command { command, status }.into()),
    }
}
