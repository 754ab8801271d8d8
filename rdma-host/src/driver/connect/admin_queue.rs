//! The admin queue of a connected controller: commands one at a time, and beside them the
//! keep-alive, Aborts and the request for an event.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use verbs::{Buffer, Provider};

use crate::{
    config::{ADMIN_TIMEOUT, EVENT_INTERVAL_MIN, IDLE_TIMEOUT},
    driver::data_path::{
        command::{Command, CommandCompletion, Data, ExecutionStatus},
        connection::{Connection, TimedOutCommand},
        connection_state::{ConnectionState, ConnectionWatch},
        device_events::DeviceWatch,
        poller::Poller,
    },
    error::{Error, Rejected, TargetMisbehaved},
    proto::{Execute, KeepAlive, KeepAliveAction, Shutdown, ShutdownAction, Transfer},
    wire::{AsyncEvent, AsyncEventMask, Cqe, GetFeatures, QueueId, SetFeatures, Sqe},
};

/// An admin command from outside, and where its answer goes.
pub(crate) struct AdminRequest {
    execute: Execute,
    /// The only connection that may carry it; nothing for any.
    generation: Option<u64>,
    reply: oneshot::Sender<Result<(Cqe, Vec<u8>), Error>>,
}

/// A way to send admin commands, whichever connection there is.
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

    /// Sends a command and waits for a successful answer and its data. Without a connection it
    /// waits for one, as I/O commands do; a command that only asks is sent again if its connection
    /// is lost.
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

    /// The same, for an answer of any status.
    pub(crate) async fn answer(&self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        loop {
            if !matches!(self.watch.until_live_or_failing().await, ConnectionState::Live(_)) {
                return Err(self.unavailable_error());
            }
            match self.ask(execute.clone(), None).await {
                Some(outcome) => return outcome,
                None if execute.sqe.opcode().is_idempotent() => {}
                None => return Err(self.unavailable_error()),
            }
        }
    }

    /// The outcome of one command; nothing when its connection was lost.
    async fn ask(
        &self,
        execute: Execute,
        generation: Option<u64>,
    ) -> Option<Result<(Cqe, Vec<u8>), Error>> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(AdminRequest { execute, generation, reply }).await.is_err() {
            return Some(Err(self.watch.until_ended().await));
        }
        // The queue has its own deadline; past this one, it waits for another connection.
        let answered = tokio::time::timeout(2 * ADMIN_TIMEOUT, answer).await;
        answered.unwrap_or_else(|_| Ok(Err(self.unavailable_error()))).ok()
    }

    /// Sends a command and waits for its answer, whatever it is; with a number, on the connection
    /// of that number or not at all.
    pub(crate) async fn request(
        &self,
        execute: Execute,
        generation: Option<u64>,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        self.ask(execute, generation).await.unwrap_or_else(|| Err(self.unavailable_error()))
    }

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

/// The admin queue of one connection.
pub(crate) struct AdminQueue<P: Provider> {
    poller: Poller<P>,
    keep_alive: KeepAlive,
    /// Connection that it belongs to, once that is live: its I/O counts as keep-alive traffic.
    connection: Option<Arc<Connection<P>>>,
    scratch: Option<Buffer>,
    current: Option<AdminRequest>,
    /// Where events go; nothing before the controller is live, and when it takes no request.
    events: Option<mpsc::Sender<AsyncEvent>>,
    /// When to ask for the next event; nothing while that is under way.
    ask_at: Option<Instant>,
    /// How long I/O commands may take.
    io_timeout: Duration,
}

/// Which command a completion ends: its low byte; above it stands the queue of an aborted one.
const KEEP_ALIVE: u64 = 1;
const REQUEST: u64 = 2;
const ABORT: u64 = 3;
const EVENT: u64 = 4;

impl<P: Provider> AdminQueue<P> {
    pub(crate) fn new(
        poller: Poller<P>,
        scratch: Option<Buffer>,
        keep_alive: KeepAlive,
        io_timeout: Duration,
    ) -> Self {
        Self {
            poller,
            keep_alive,
            connection: None,
            scratch,
            current: None,
            events: None,
            ask_at: None,
            io_timeout,
        }
    }

    /// From now on asks for events, and hands them on.
    pub(crate) fn tell(&mut self, events: mpsc::Sender<AsyncEvent>) {
        self.events = Some(events);
        self.ask_at = Some(Instant::now());
    }

    /// Has a watch listen for what the device reports of the admin queue.
    pub(crate) fn report_to(&self, watch: &mut DeviceWatch<P>) {
        self.poller.report_to(watch);
    }

    /// Notes that the connection is live.
    pub(crate) fn go_live(&mut self, connection: Arc<Connection<P>>) {
        self.connection = Some(connection);
    }

    /// Serves until the connection fails; never returns otherwise. Whoever still waits then learns
    /// why when the request is dropped.
    pub(crate) async fn serve(
        &mut self,
        requests: &mut mpsc::Receiver<AdminRequest>,
        late: &mut mpsc::Receiver<TimedOutCommand>,
    ) -> Error {
        match self.serve_until_failure(requests, late).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve_until_failure(
        &mut self,
        requests: &mut mpsc::Receiver<AdminRequest>,
        late: &mut mpsc::Receiver<TimedOutCommand>,
    ) -> Result<std::convert::Infallible, Error> {
        loop {
            self.poller.poll()?;
            while let Some(done) = self.poller.take() {
                self.handle_done(done)?;
            }
            let limit = self.keep_alive()?.min(self.ask()?);
            let idle = self.current.is_none();
            tokio::select! {
                Some(request) = requests.recv(), if idle => self.begin(request)?,
                Some(late) = late.recv() => self.abort(late)?,
                ready = self.poller.ready(limit) => ready?,
            }
        }
    }

    /// Sends one command and waits for its answer, when nobody else is served.
    pub(crate) async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self::execute(&mut self.poller, &mut self.scratch, execute, ADMIN_TIMEOUT).await
    }

    /// Sends a keep-alive when it is due; returns how long the task may sleep.
    fn keep_alive(&mut self) -> Result<Duration, Error> {
        let now = Instant::now();
        let traffic = self.connection.as_ref().and_then(|connection| connection.last_traffic());
        match self.keep_alive.poll_action(traffic, now) {
            KeepAliveAction::Expired(after) => Err(Error::KeepAlive(after)),
            KeepAliveAction::Send => {
                let command =
                    Command { sqe: Sqe::keep_alive(), data: Data::None, user: KEEP_ALIVE };
                self.submit(command)?;
                Ok(IDLE_TIMEOUT)
            }
            KeepAliveAction::Wait(Some(due)) => {
                Ok(IDLE_TIMEOUT.min(due.saturating_duration_since(now)))
            }
            KeepAliveAction::Wait(None) => Ok(IDLE_TIMEOUT),
        }
    }

    /// Asks for an event when it is time and there is room for one; returns how long the task may
    /// sleep.
    fn ask(&mut self) -> Result<Duration, Error> {
        let Some(at) = self.ask_at else { return Ok(IDLE_TIMEOUT) };
        let early = at.saturating_duration_since(Instant::now());
        let room = self.events.as_ref().is_some_and(|events| events.capacity() > 0);
        if !early.is_zero() || !room {
            return Ok(if early.is_zero() { IDLE_TIMEOUT } else { early });
        }
        self.ask_at = None;
        self.submit(Command { sqe: AsyncEvent::request(), data: Data::None, user: EVENT })?;
        Ok(IDLE_TIMEOUT)
    }

    /// An event, or the refusal to tell any.
    fn hear(&mut self, response: Cqe) {
        let status = response.status();
        let Some(events) = self.events.as_ref().filter(|_| status.is_success()) else {
            tracing::info!(%status, "the controller tells of no events");
            self.events = None;
            return;
        };
        // There was room for it when it was asked for.
        let _ = events.try_send(AsyncEvent(response.result()));
        self.ask_at = Some(Instant::now() + EVENT_INTERVAL_MIN);
    }

    fn begin(&mut self, request: AdminRequest) -> Result<(), Error> {
        let generation = self.connection.as_ref().map(|connection| connection.generation);
        if request.generation.is_some() && request.generation != generation {
            let _ = request.reply.send(Err(Error::Reset));
            return Ok(());
        }
        let data = data_for(&request.execute.transfer, &mut self.scratch);
        let command = Command { sqe: request.execute.sqe, data, user: REQUEST };
        self.current = Some(request);
        self.submit(command)
    }

    fn abort(&mut self, late: TimedOutCommand) -> Result<(), Error> {
        let TimedOutCommand { queue, command } = late;
        tracing::info!(%queue, %command, "no answer in time: aborting the command");
        let user = u64::from(queue.0) << 8 | ABORT;
        self.submit(Command { sqe: Sqe::abort(queue, command), data: Data::None, user })
    }

    fn submit(&mut self, command: Command) -> Result<(), Error> {
        let submitted = self.poller.submit_to(QueueId::ADMIN, command);
        submitted.map_err(|rejection| rejection.error)?;
        self.poller.flush()
    }

    fn handle_done(&mut self, done: CommandCompletion) -> Result<(), Error> {
        match done.user & 0xff {
            KEEP_ALIVE => {
                let status = done.outcome?.status();
                if !status.is_success() {
                    // Its DNR is about this command: it says nothing of another connection.
                    return Err(TargetMisbehaved::KeepAliveRefused(status).into());
                }
                self.keep_alive.handle_response();
            }
            EVENT => self.hear(done.outcome?),
            ABORT => {
                let queue = QueueId(u16::try_from(done.user >> 8).unwrap_or(u16::MAX));
                // A command that was not aborted is given up with its queue.
                let aborted = done.outcome.is_ok_and(|response| {
                    response.status().is_success() && response.result_dword() & 1 == 0
                });
                if !aborted {
                    return Err(Error::CommandTimeout { queue, after: self.io_timeout });
                }
            }
            _ => {
                if let Some(request) = self.current.take() {
                    let answer = read_answer(done, &request.execute, &mut self.scratch);
                    // Nobody waits any more: then nobody wants to know.
                    let _ = request.reply.send(answer);
                }
            }
        }
        Ok(())
    }

    /// Tells the controller that it is over, and waits until it is done.
    pub(crate) async fn shut_down(&mut self) {
        let mut shutdown = Shutdown::Announce;
        loop {
            match shutdown.action() {
                ShutdownAction::Disconnect => return,
                ShutdownAction::Wait(time) => tokio::time::sleep(time).await,
                ShutdownAction::Execute(command) => {
                    let outcome = self.execute(command).await;
                    shutdown.handle_response(outcome.ok().map(|(response, _)| response));
                    continue;
                }
            }
            shutdown.handle_timer();
        }
    }
}

/// Sends one command and waits for its answer, on a queue where nothing else is going on but a
/// keep-alive.
pub(crate) async fn execute<P: Provider>(
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
            let polled = poller.poll();
            // An answer counts, whatever happened to the connection right after it: a target that
            // refuses a key says so and hangs up.
            if let Some(done) = take_answer(poller) {
                return Ok(done);
            }
            polled?;
            if let Err(error) = poller.ready(IDLE_TIMEOUT).await {
                return take_answer(poller).ok_or(error);
            }
        }
    };
    let timeout = Error::Timeout { step: execute.name, after: limit };
    let done = tokio::time::timeout(limit, answered).await.unwrap_or(Err(timeout))?;
    read_answer(done, &execute, scratch)
}

/// The answer to the one command, if it has come.
fn take_answer<P: Provider>(poller: &mut Poller<P>) -> Option<CommandCompletion> {
    let done = std::iter::from_fn(|| poller.take());
    done.filter(|done| done.user == REQUEST && done.execution == ExecutionStatus::Answered).last()
}

/// The buffer of a command, filled with what it sends.
pub(crate) fn data_for(transfer: &Transfer, scratch: &mut Option<Buffer>) -> Data {
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
pub(crate) fn read_answer(
    done: CommandCompletion,
    execute: &Execute,
    scratch: &mut Option<Buffer>,
) -> Result<(Cqe, Vec<u8>), Error> {
    let CommandCompletion { outcome, data, .. } = done;
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

/// The events that mean something to us, beside those of errors and health, which need not be
/// asked for.
const WANTED: [AsyncEventMask; 3] = [
    AsyncEventMask::NAMESPACE_ATTRIBUTE,
    AsyncEventMask::FIRMWARE_ACTIVATION,
    AsyncEventMask::ANA_CHANGE,
];

/// Has the controller tell the events it can tell. One that refuses tells fewer; that is no reason
/// to do without it.
pub(crate) async fn enable_events<P: Provider>(
    admin: &mut AdminQueue<P>,
    offered: AsyncEventMask,
) -> Result<(), Error> {
    let wanted = WANTED.into_iter().fold(AsyncEventMask(0), |all, one| all | (one & offered));
    if wanted == AsyncEventMask(0) {
        return Ok(());
    }
    let command = |sqe, name| {
        let transfer = Transfer::None;
        Execute { queue: QueueId::ADMIN, sqe, transfer, name }
    };
    // What is on already stays on: warnings of health among them.
    let get = command(GetFeatures::async_events(), "Get Features (events)");
    let (response, _) = admin.execute(get).await?;
    let before = match response.status().is_success() {
        true => AsyncEventMask(response.result_dword()),
        false => AsyncEventMask(0),
    };
    let set = command(SetFeatures::async_events(before | wanted), "Set Features (events)");
    let (response, _) = admin.execute(set).await?;
    if !response.status().is_success() {
        let status = response.status();
        tracing::info!(%status, "the controller will not tell of changes");
    }
    Ok(())
}
