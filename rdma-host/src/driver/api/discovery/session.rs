//! The admin queue of a discovery controller, driven by whoever holds it: one command at a time,
//! the keep-alive and the event request beside it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use verbs::{Buffer, ProtectionDomain, Provider};

use crate::{
    config::{
        ADMIN_QUEUE_ENTRIES, ADMIN_TIMEOUT, BRING_UP_TIMEOUT, ConnectOptions,
        DISCOVERY_CHUNK_BYTES, IDLE_TIMEOUT, MemoryMode, SHUTDOWN_TIMEOUT,
    },
    driver::{
        buffers::verbs_error,
        connect::{
            admin_queue::{data_for, read_answer},
            authenticate::{
                AuthenticationParties, CommandChannel, authenticate, warn_if_unauthenticated,
            },
            rdma::{Completions, Plan, Resolved},
        },
        data_path::{
            command::{Command, CommandCompletion, Data},
            poller::Poller,
        },
    },
    error::{Error, TargetMisbehaved},
    proto::{
        BringUp, BringUpAction, BringUpInput, Execute, KeepAlive, KeepAliveAction, Negotiated,
        RdmaConnect, Shutdown, ShutdownAction,
    },
    wire::{AsyncEvent, CmAcceptData, Cqe, Sqe},
};

/// A connection, live once [`connect`](Self::connect) returns it.
pub(super) struct Session<P: Provider> {
    poller: Poller<P>,
    domain: ProtectionDomain<P>,
    scratch: Option<Buffer>,
    keep_alive: KeepAlive,
    /// A request is in flight, maybe one that nobody waits for any more.
    busy: bool,
    armed: bool,
    event: Option<AsyncEvent>,
}

impl<P: Provider> CommandChannel for Session<P> {
    async fn carry(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.execute(&execute).await
    }
}

/// Which command a completion ends.
const KEEP_ALIVE: u64 = 1;
const REQUEST: u64 = 2;
const EVENT: u64 = 3;

impl<P: Provider> Session<P> {
    /// Brings a discovery controller up.
    pub(super) async fn connect(
        provider: &Arc<P>,
        options: &ConnectOptions,
    ) -> Result<(Self, Negotiated), Error> {
        let bring_up = async {
            let resolved = Resolved::new(provider, options).await?;
            let mut session = Self::new(&resolved)?;
            let negotiated = session.bring_up(resolved, options).await?;
            session.keep_alive = KeepAlive::new(options.keep_alive, false, Instant::now());
            Ok((session, negotiated))
        };
        let timeout = Error::Timeout { step: "the whole connect", after: BRING_UP_TIMEOUT };
        tokio::time::timeout(BRING_UP_TIMEOUT, bring_up).await.unwrap_or(Err(timeout))
    }

    fn new(resolved: &Resolved<P>) -> Result<Self, Error> {
        let domain = resolved.endpoint().domain().map_err(verbs_error)?;
        let entries = 3 * u32::from(ADMIN_QUEUE_ENTRIES);
        let queue = resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
        let scratch = domain.allocate(DISCOVERY_CHUNK_BYTES as usize, MemoryMode::Pool.access());
        Ok(Self {
            poller: Poller::new(queue, ADMIN_TIMEOUT),
            scratch: Some(scratch.map_err(verbs_error)?),
            domain,
            keep_alive: KeepAlive::new(Duration::ZERO, false, Instant::now()),
            busy: false,
            armed: false,
            event: None,
        })
    }

    /// Climbs the ladder.
    async fn bring_up(
        &mut self,
        resolved: Resolved<P>,
        options: &ConnectOptions,
    ) -> Result<Negotiated, Error> {
        let mut ladder = BringUp::discovery(options.clone());
        let mut resolved = Some(resolved);
        loop {
            match ladder.action()? {
                BringUpAction::Live(negotiated) => {
                    warn_if_unauthenticated(&negotiated);
                    return Ok(*negotiated);
                }
                BringUpAction::Authenticate(queue) => {
                    let parties = AuthenticationParties {
                        authentication: options.authentication.clone(),
                        host: options.host.clone(),
                        subsystem: options.subsystem.clone(),
                    };
                    let how = authenticate(self, queue, &parties).await?;
                    ladder.handle(&BringUpInput::Authenticated(how))?;
                }
                BringUpAction::Wait(time) => {
                    tokio::time::sleep(time).await;
                    ladder.handle(&BringUpInput::TimerFired)?;
                }
                BringUpAction::ConnectIoQueues { .. } => {
                    let none = TargetMisbehaved::UnexpectedEvent("connecting the I/O queues");
                    return Err(none.into());
                }
                BringUpAction::RdmaConnect(open) => {
                    let only = TargetMisbehaved::UnexpectedEvent("opening an I/O queue");
                    let resolved = resolved.take().ok_or(only)?;
                    let accept = self.open(resolved, options, &open).await?;
                    ladder.handle(&BringUpInput::RdmaConnected(accept))?;
                }
                BringUpAction::Execute(command) => {
                    let (response, data) = self.execute(&command).await?;
                    ladder.handle(&BringUpInput::Completed(response, &data))?;
                }
            }
        }
    }

    async fn open(
        &mut self,
        resolved: Resolved<P>,
        options: &ConnectOptions,
        open: &RdmaConnect,
    ) -> Result<CmAcceptData, Error> {
        let completion_queue = self.poller.completion_queue().ok_or(Error::Closed)?;
        let memory = MemoryMode::Pool;
        let plan = Plan { options, domain: &self.domain, open, memory };
        let completions = Completions::Own(completion_queue);
        let (queue, accept) = resolved.connect(plan, completions).await?;
        self.poller.add(queue);
        Ok(accept)
    }

    /// Sends a command and waits for its answer. What it moves must fit a chunk of the log. When
    /// the future is dropped, the next command waits until this one is answered.
    pub(super) async fn execute(&mut self, command: &Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let answered = async {
            while self.busy {
                if let Some(done) = self.take()? {
                    self.restore(done);
                } else {
                    self.wait().await?;
                }
            }
            let data = data_for(&command.transfer, &mut self.scratch);
            self.submit(Command { sqe: command.sqe, data, user: REQUEST })?;
            self.busy = true;
            loop {
                if let Some(done) = self.take()? {
                    return Ok(done);
                }
                self.wait().await?;
            }
        };
        let timeout = Error::Timeout { step: command.name, after: ADMIN_TIMEOUT };
        let done = tokio::time::timeout(ADMIN_TIMEOUT, answered).await.unwrap_or(Err(timeout))?;
        read_answer(done, command, &mut self.scratch)
    }

    /// Asks for the next event, unless that is under way.
    pub(super) fn arm(&mut self) -> Result<(), Error> {
        if self.armed {
            return Ok(());
        }
        self.armed = true;
        self.submit(Command { sqe: AsyncEvent::request(), data: Data::None, user: EVENT })
    }

    /// Waits for an event; without a limit, since none may ever come.
    pub(super) async fn event(&mut self) -> Result<AsyncEvent, Error> {
        loop {
            self.take_events()?;
            if let Some(event) = self.event.take() {
                return Ok(event);
            }
            self.wait().await?;
        }
    }

    /// Lets time pass, and stays alive meanwhile.
    pub(super) async fn idle(&mut self, time: Duration) -> Result<(), Error> {
        let idle = async {
            loop {
                self.take_events()?;
                self.wait().await?;
            }
        };
        tokio::time::timeout(time, idle).await.unwrap_or(Ok(()))
    }

    /// Says goodbye and disconnects; takes a second at most.
    pub(super) async fn shut_down(mut self) {
        // Past the time limit the connection is dropped as it is.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.announce()).await;
        self.poller.fail(Error::Closed);
    }

    async fn announce(&mut self) {
        let mut shutdown = Shutdown::Announce;
        loop {
            match shutdown.action() {
                ShutdownAction::Disconnect => return,
                ShutdownAction::Wait(time) => {
                    tokio::time::sleep(time).await;
                    shutdown.handle_timer();
                }
                ShutdownAction::Execute(command) => {
                    let outcome = self.execute(&command).await;
                    shutdown.handle_response(outcome.ok().map(|(response, _)| response));
                }
            }
        }
    }

    /// Takes what has come; returns the command that was sent last, when it is done.
    fn take(&mut self) -> Result<Option<CommandCompletion>, Error> {
        self.poller.poll()?;
        while let Some(done) = self.poller.take() {
            match done.user {
                KEEP_ALIVE => {
                    done.into_result("Keep Alive").0?;
                    self.keep_alive.handle_response();
                }
                EVENT => {
                    let (response, _) = done.into_result("Asynchronous Event Request");
                    self.armed = false;
                    self.event = Some(AsyncEvent(response?.result()));
                }
                _ => {
                    self.busy = false;
                    return Ok(Some(done));
                }
            }
        }
        Ok(None)
    }

    /// Takes what has come while no request of interest is in flight.
    fn take_events(&mut self) -> Result<(), Error> {
        while let Some(done) = self.take()? {
            self.restore(done);
        }
        Ok(())
    }

    /// Makes the buffer of an answer that nobody waits for whole again.
    fn restore(&mut self, done: CommandCompletion) {
        if let Some(mut buffer) = done.data {
            if let Some(rest) = self.scratch.take() {
                // The two were cut from one another.
                let _ = buffer.unsplit(rest);
            }
            self.scratch = Some(buffer);
        }
    }

    /// Waits until something comes or is due. A future dropped loses nothing.
    async fn wait(&mut self) -> Result<(), Error> {
        let limit = self.keep_alive()?;
        self.poller.ready(limit).await
    }

    /// Sends a keep-alive when it is due; returns how long there is nothing to do.
    fn keep_alive(&mut self) -> Result<Duration, Error> {
        let now = Instant::now();
        match self.keep_alive.poll_action(None, now) {
            KeepAliveAction::Expired(after) => Err(Error::KeepAlive(after)),
            KeepAliveAction::Send => {
                let sqe = Sqe::keep_alive();
                self.submit(Command { sqe, data: Data::None, user: KEEP_ALIVE })?;
                Ok(IDLE_TIMEOUT)
            }
            KeepAliveAction::Wait(Some(due)) => Ok(IDLE_TIMEOUT.min(due - now)),
            KeepAliveAction::Wait(None) => Ok(IDLE_TIMEOUT),
        }
    }

    fn submit(&mut self, command: Command) -> Result<(), Error> {
        self.poller.submit(command).map_err(|rejection| rejection.error)?;
        self.poller.flush()
    }
}
