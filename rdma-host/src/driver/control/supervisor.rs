//! Supervisor of a controller: performs the tasks of its [`Lifecycle`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{Instrument, Span, field};
use verbs::{PortWatch, Provider, active_side::Event as PortEvent};

use crate::{
    config::{
        ABORT_BACKLOG, BRING_UP_TIMEOUT, ConnectOptions, PORT_POLL_INTERVAL, PORT_UP_DELAY,
        QUIESCE_TIMEOUT, SHUTDOWN_TIMEOUT,
    },
    driver::{
        connect::{
            authenticate::AuthenticationParties,
            bring_up::{self, EstablishedController},
            context::{ConnectContext, Purpose},
            controller_probe::ProbeContext,
        },
        control::{
            fence_keeper::{ResetContext, answer_probes, keep_fence},
            identify_namespace::identify_namespace,
            shared::{ControlChannels, ControlRequest, ControllerShared, SupervisorChannels},
            state_change::StateChange,
        },
        data_path::{
            admin_queue::{
                client::AdminClient,
                features::{enable_discovery_events, enable_events, enable_retry_delays},
                queue::AdminQueue,
            },
            connection::{Connection, PollerMailbox, TimedOutCommand},
            connection_state::{ConnectionState, ConnectionWatch, Disconnection},
            device_events::DeviceWatch,
            namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
        runtime,
    },
    error::{Error, GaveUp, Misuse, NotConnected},
    proto::{Association, FailureKind, Lifecycle, LifecycleEvent, LifecycleState, LifecycleTask},
    wire::{AsyncEvent, Version},
};

pub(crate) struct Supervisor<P: Provider> {
    provider: Arc<P>,
    options: ConnectOptions,
    purpose: Purpose,
    lifecycle: Lifecycle,
    shared: Arc<ControllerShared<P>>,
    inbox: ControlChannels,
    /// Client of the admin queue of the live connection.
    admin: AdminClient<P>,
    changes: broadcast::Sender<StateChange>,
    events: mpsc::Sender<AsyncEvent>,
    /// Number of pollers; the first connection lowers it to the number of I/O queues.
    pollers: usize,
    live: Option<LiveParts<P>>,
    /// Seed of the ids of the I/O queues, so that the target's controllers of one host
    /// NQN differ in them.
    queue_id_seed: u32,
    /// Span of the latest attempt to connect, and of the connection that it made.
    span: Span,
    /// Error that ended the connection or the latest attempt.
    cause: Error,
    /// Ports of the device of the latest connection.
    port: Option<PortWatch<P>>,
    /// Reply to the first connect.
    first: Option<oneshot::Sender<Result<Vec<Poller<P>>, Error>>>,
    /// Reply to the request to delete the controller.
    deleted: Option<oneshot::Sender<()>>,
}

/// Parts of a live connection that the supervisor itself serves.
struct LiveParts<P: Provider> {
    connection: Arc<Connection<P>>,
    admin: AdminQueue<P>,
    device: DeviceWatch<P>,
    /// Commands to abort.
    timed_out: mpsc::Receiver<TimedOutCommand>,
}

impl<P: Provider> Supervisor<P> {
    pub(crate) fn new(
        provider: Arc<P>,
        options: ConnectOptions,
        purpose: Purpose,
        pollers: usize,
        wiring: SupervisorChannels<P>,
    ) -> Self {
        let SupervisorChannels { shared, inbox, admin, changes, events, first } = wiring;
        Self {
            provider,
            lifecycle: Lifecycle::new(options.reconnect.clone()),
            span: controller_span(&options),
            options,
            purpose,
            shared,
            inbox,
            admin,
            changes,
            events,
            pollers: pollers.max(1),
            queue_id_seed: queue_id_seed(),
            live: None,
            cause: Error::Closed,
            port: None,
            first: Some(first),
            deleted: None,
        }
    }

    /// Runs the controller's state machine until the controller is dead.
    pub(crate) async fn run(mut self) {
        self.span.clone().in_scope(|| self.handle(LifecycleEvent::Start));
        loop {
            let task = self.lifecycle.task(runtime::now());
            match task {
                LifecycleTask::End => break,
                LifecycleTask::Connect => self.span = controller_span(&self.options),
                _ => {}
            }
            let span = self.span.clone();
            self.perform(task).instrument(span).await;
        }
        let error = self.terminal_error();
        self.shared.connection.enter(ConnectionState::Ended(error.clone()));
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(error));
        }
        if let Some(deleted) = self.deleted.take() {
            let _ = deleted.send(());
        }
    }

    async fn perform(&mut self, task: LifecycleTask) {
        match task {
            LifecycleTask::End => {}
            LifecycleTask::Connect => self.connect().await,
            LifecycleTask::Serve => self.serve().await,
            LifecycleTask::TearDown { announce } => self.tear_down(announce).await,
            LifecycleTask::Wait(due) => self.wait(due).await,
        }
    }

    async fn connect(&mut self) {
        self.options.authentication = self.shared.authentication.lock().clone();
        let parties = self.parties();
        let means = ConnectContext {
            parties: &parties,
            provider: &self.provider,
            options: &self.options,
            purpose: self.purpose,
            pollers: self.pollers,
            queue_id_seed: self.queue_id_seed,
            domain: self.shared.connection.latest().map(|latest| latest.domain.clone()),
            group: self.shared.group.as_deref(),
        };
        let (registry, purpose) = (&self.shared.registry, self.purpose);
        // On the heap, since it is large, and the supervisor stays for long after it.
        let attempt = Box::pin(async {
            let mut connected = bring_up::connect(means).await?;
            let EstablishedController { admin, negotiated, .. } = &mut connected;
            let (events, delays) = (negotiated.info.events, negotiated.info.retry_delays);
            match purpose {
                Purpose::Io => {
                    revalidate_namespaces(registry, admin, negotiated.version).await?;
                    enable_events(admin, events).await?;
                    enable_retry_delays(admin, delays).await?;
                }
                Purpose::Discovery { events: true } => {
                    enable_discovery_events(admin, events).await?;
                }
                Purpose::Discovery { events: false } => {}
            }
            Ok(connected)
        });
        let timeout = Error::Timeout { step: "the whole connect", after: BRING_UP_TIMEOUT };
        let attempt = runtime::timeout(BRING_UP_TIMEOUT, attempt);
        let fails_at = self.lifecycle.commands_fail_at();
        let failing = fail_commands_at(fails_at, &self.shared.connection);
        let outcome = tokio::select! {
            biased;
            outcome = attempt => outcome.unwrap_or(Err(timeout)),
            control = next_request(&mut self.inbox.control) => return self.handle_request(control),
            never = failing => match never {},
        };
        match outcome {
            Ok(connected) => self.establish(connected),
            Err(error) => self.fail(error),
        }
    }

    fn parties(&self) -> AuthenticationParties {
        AuthenticationParties::of(&self.options)
    }

    /// Goes live with a new connection.
    fn establish(&mut self, established: EstablishedController<P>) {
        let EstablishedController { negotiated, domain, device, memory, mut admin, io } =
            established;
        self.span.record("cntlid", negotiated.controller.0);
        let mut device_watch = DeviceWatch::new(domain.clone());
        admin.report_to(&mut device_watch);
        io.iter().for_each(|set| device_watch.add(&set.queues, &set.completion_queue));
        self.port = Some(PortWatch::new(domain.clone()));
        let (sender, timed_out) = mpsc::channel(ABORT_BACKLOG);
        let latest = self.shared.connection.latest();
        let generation = latest.map_or(0, |latest| latest.generation) + 1;
        let fence = self.shared.connection.fence();
        let association = Association::new(fence.next_number(), &negotiated, &self.options);
        // Before any command is sent.
        fence.established(association);
        let connection = Arc::new(Connection {
            span: self.span.clone(),
            generation,
            association,
            negotiated: Mutex::new(Arc::new(negotiated)),
            domain,
            device,
            memory,
            admin: self.shared.admin.clone(),
            mailboxes: io.into_iter().map(PollerMailbox::new).collect(),
            timed_out: sender,
        });
        admin.go_live(Arc::clone(&connection));
        if self.purpose != (Purpose::Discovery { events: false }) {
            admin.request_events(self.events.clone());
        }
        self.shared.connection.enter(ConnectionState::Live(Arc::clone(&connection)));
        self.live = Some(LiveParts { connection, admin, device: device_watch, timed_out });
        self.handle(LifecycleEvent::Established);
        if let Some(first) = self.first.take() {
            // If the receiver is gone, so is the controller, which ends the supervisor.
            let _ = first.send(Ok(self.create_pollers()));
        }
    }

    /// Creates one poller per set of queues of the first connection.
    fn create_pollers(&mut self) -> Vec<Poller<P>> {
        let ControllerShared { connection: watch, registry, .. } = &*self.shared;
        self.pollers = watch.latest().map_or(0, |connection| connection.mailboxes.len());
        let poller =
            |index| Poller::linked(index, watch.clone(), Arc::clone(registry), &self.options);
        (0..self.pollers).map(poller).collect()
    }

    async fn serve(&mut self) {
        let live = self.live.as_mut().expect("a live controller has a connection");
        let LiveParts { connection, admin, device, timed_out } = live;
        let (generation, watch) = (connection.generation, self.shared.connection.clone());
        let probe = ProbeContext {
            provider: &self.provider,
            options: &self.options,
            domain: &connection.domain,
            memory: connection.memory.mode,
        };
        let reset = ResetContext { admin: &self.admin, generation };
        let kept = keep_fence(watch.fence(), &probe, &reset);
        let answered =
            answer_probes(&mut self.inbox.probes, connection.association.ids_prove, &probe);
        let failed = async {
            tokio::select! {
                biased;
                error = admin.serve(&mut self.inbox.requests, timed_out) => error,
                error = device.until_fatal() => error,
            }
        };
        tokio::select! {
            biased;
            error = failed => self.fail(watch.lost(generation, error)),
            () = watch.until_lost(generation) => {
                self.fail(watch.cause().expect("a lost connection has a cause"));
            }
            control = next_request(&mut self.inbox.control) => self.handle_request(control),
            never = kept => match never {},
            never = answered => match never {},
        }
    }

    /// Waits for the pollers to close their queues, shuts the controller down if `announce` is set,
    /// and drops the connection.
    async fn tear_down(&mut self, announce: bool) {
        if self.lifecycle.state() == LifecycleState::Deleting {
            self.shared.connection.enter(ConnectionState::Ended(self.terminal_error()));
        }
        if let Some(LiveParts { connection, mut admin, .. }) = self.live.take() {
            if announce {
                let released = async {
                    while connection.is_in_use() {
                        runtime::sleep(Duration::from_millis(1)).await;
                    }
                };
                // A poller that its owner does not drive is not waited for.
                let _ = runtime::timeout(QUIESCE_TIMEOUT, released).await;
                // Past the time limit the connection is dropped as it is.
                let _ = runtime::timeout(SHUTDOWN_TIMEOUT, admin.shut_down()).await;
            }
            connection.close_untaken();
        }
        self.handle(LifecycleEvent::TornDown);
    }

    /// Waits until the next attempt is due, or until the port is active again.
    async fn wait(&mut self, due: Instant) {
        let until_due = runtime::sleep_until(due);
        let fails_at = self.lifecycle.commands_fail_at();
        let failing = fail_commands_at(fails_at, &self.shared.connection);
        tokio::select! {
            biased;
            () = until_due => self.handle(LifecycleEvent::Due),
            () = until_port_active(&mut self.port) => self.handle(LifecycleEvent::PortActive),
            control = next_request(&mut self.inbox.control) => self.handle_request(control),
            never = failing => match never {},
        }
    }

    fn handle_request(&mut self, control: ControlRequest) {
        match control {
            ControlRequest::Reset => {
                self.cause = Error::Reset;
                if self.lifecycle.state() == LifecycleState::Live {
                    let disconnection = Disconnection::new(Error::Reset);
                    self.shared.connection.enter(ConnectionState::Disconnected(disconnection));
                }
                self.handle(LifecycleEvent::Reset);
            }
            ControlRequest::Delete(done) => {
                self.cause = Error::Closed;
                self.deleted = Some(done);
                self.handle(LifecycleEvent::Delete);
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let before = self.lifecycle.state();
        self.cause = error;
        self.lifecycle.fail(FailureKind::from(&self.cause), runtime::now(), jitter_seed());
        self.enter_disconnected();
        self.announce(before);
    }

    fn handle(&mut self, event: LifecycleEvent) {
        let before = self.lifecycle.state();
        self.lifecycle.handle(event, runtime::now());
        if self.lifecycle.state() == LifecycleState::Connecting {
            self.enter_disconnected();
        }
        self.announce(before);
    }

    /// Publishes the state of the attempts to reconnect.
    fn enter_disconnected(&self) {
        let error = NotConnected {
            cause: Box::new(self.cause.clone()),
            attempt: self.lifecycle.attempts(),
            max: self.lifecycle.attempts_max(),
        };
        let commands_fail =
            self.lifecycle.commands_fail_at().is_some_and(|at| runtime::now() >= at);
        let disconnection = Disconnection { error: Arc::new(error), commands_fail };
        self.shared.connection.enter(ConnectionState::Disconnected(disconnection));
    }

    /// Publishes a change of state to the subscribers and the log.
    fn announce(&self, before: LifecycleState) {
        let state = self.lifecycle.state();
        if state == before {
            return;
        }
        let failed = matches!(
            state,
            LifecycleState::Resetting | LifecycleState::Waiting | LifecycleState::Dead
        );
        let cause = match (state, &self.cause) {
            (LifecycleState::Dead, _) => Some(self.terminal_error()),
            (_, Error::Closed) => None,
            (_, cause) if failed => Some(cause.clone()),
            _ => None,
        };
        let now = runtime::now();
        let change = StateChange {
            at: runtime::system_time(),
            state,
            cause: cause.filter(|cause| !matches!(cause, Error::Closed)),
            attempt: self.lifecycle.attempts(),
            attempts_max: self.lifecycle.attempts_max(),
            next: match self.lifecycle.task(now) {
                LifecycleTask::Wait(due) => Some(due.saturating_duration_since(now)),
                _ => None,
            },
        };
        let (subsystem, attempt) = (&self.options.subsystem, change.attempt);
        tracing::info!(%subsystem, %state, attempt, "{change}");
        // There may be no subscribers.
        let _ = self.changes.send(change);
    }

    /// Error of the final state.
    fn terminal_error(&self) -> Error {
        match self.lifecycle.reason() {
            Some(reason) if self.lifecycle.attempts() > 0 => {
                let (cause, attempts) = (Box::new(self.cause.clone()), self.lifecycle.attempts());
                Error::GaveUp(Arc::new(GaveUp { cause, attempts, reason }))
            }
            _ => self.cause.clone(),
        }
    }
}

/// Creates the span of an attempt to connect. Its field `cntlid` is recorded when that succeeds.
fn controller_span(options: &ConnectOptions) -> Span {
    tracing::info_span!("controller", nqn = %options.subsystem, cntlid = field::Empty)
}

/// Next request of the owner; a deletion if the owner is gone.
async fn next_request(control: &mut mpsc::Receiver<ControlRequest>) -> ControlRequest {
    match control.recv().await {
        Some(control) => control,
        None => ControlRequest::Delete(oneshot::channel().0),
    }
}

/// Lets commands fail from this time on.
async fn fail_commands_at<P: Provider>(
    at: Option<Instant>,
    watch: &ConnectionWatch<P>,
) -> std::convert::Infallible {
    if let Some(at) = at {
        runtime::sleep_until(at).await;
        watch.fail_commands();
    }
    std::future::pending().await
}

/// Waits until the port, which was down, is active again.
async fn until_port_active<P: Provider>(port: &mut Option<PortWatch<P>>) {
    let Some(port) = port else { return std::future::pending().await };
    while port.next_event() != Some(PortEvent::PortActive) {
        runtime::sleep(PORT_POLL_INTERVAL).await;
    }
    // Address resolution that fails now is not tried again for a second.
    runtime::sleep(PORT_UP_DELAY).await;
}

/// Identifies all namespaces in use, before commands can reach them (Linux: revalidation).
async fn revalidate_namespaces<P: Provider>(
    registry: &NamespaceRegistry,
    admin: &mut AdminQueue<P>,
    version: Version,
) -> Result<(), Error> {
    for id in registry.ids() {
        match identify_namespace(admin, version, id).await {
            Ok(info) if registry.compare(info) => {}
            Ok(_) => tracing::warn!(%id, "a namespace in use was replaced by another one"),
            // A namespace that is gone may come back.
            Err(error @ (Error::Malformed(_) | Error::Misuse(Misuse::NoNamespace(_)))) => {
                tracing::info!(%id, %error, "a namespace in use is gone");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Number that differs from those of other controllers of this process, and of processes with a
/// process id near to its own; from others by chance. It is 0 in a simulation.
fn queue_id_seed() -> u32 {
    /// Processes that are started together have consecutive numbers.
    const STEP: u32 = 31;
    static DISPLACEMENT: AtomicU32 = AtomicU32::new(0);
    let Some(process) = runtime::process_number() else { return 0 };
    process.wrapping_add(DISPLACEMENT.fetch_add(STEP, Ordering::Relaxed))
}

/// Draws a random number for the jitter of the retry delay.
fn jitter_seed() -> u16 {
    // Without random bytes there is no jitter.
    let [low, high, ..] = runtime::random_u32().unwrap_or(0).to_ne_bytes();
    u16::from_ne_bytes([low, high])
}
