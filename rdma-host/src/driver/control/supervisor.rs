//! The task that keeps a controller alive: it does what [`Lifecycle`] says.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{Provider, active_side::Event as PortEvent};

use crate::{
    config::{
        BRING_UP_TIMEOUT, ConnectOptions, PORT_POLL_INTERVAL, PORT_UP_DELAY, QUIESCE_TIMEOUT,
        SHUTDOWN_TIMEOUT,
    },
    driver::{
        connect::{
            admin_queue::{AdminQueue, enable_events},
            authenticate::AuthenticationParties,
            bring_up::{self, EstablishedController},
            rdma::ConnectContext,
        },
        control::{
            identify_namespace::inspect_alone,
            shared::{
                Connection, ControlChannels, ControlRequest, ControllerShared, SupervisorChannels,
            },
            state_change::StateChange,
        },
        data_path::{
            connection_state::{ConnectionInfo, ConnectionState, ConnectionWatch, Disconnection},
            device_events::DeviceWatch,
            mailbox::{PollerMailbox, TimedOutCommand},
            namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
        port_watch::PortWatch,
    },
    error::{Error, GaveUp, Misuse, NotConnected},
    proto::{FailureKind, Lifecycle, LifecycleEvent, LifecycleState, LifecycleTask},
    wire::{AsyncEvent, Version},
};

pub(crate) struct Supervisor<P: Provider> {
    provider: Arc<P>,
    options: ConnectOptions,
    life: Lifecycle,
    shared: Arc<ControllerShared<P>>,
    inbox: ControlChannels,
    changes: broadcast::Sender<StateChange>,
    late: mpsc::Sender<TimedOutCommand>,
    events: mpsc::Sender<AsyncEvent>,
    /// How many pollers are wanted.
    pollers: usize,
    /// Empty until the first connection; from then on of one length.
    berths: Vec<Arc<PollerMailbox<P>>>,
    admin: Option<AdminQueue<P>>,
    device: Option<DeviceWatch<P>>,
    generation: u64,
    /// What went wrong last.
    cause: Error,
    port: PortWatch,
    first: Option<oneshot::Sender<Result<Vec<Poller<P>>, Error>>>,
    /// Who waits for the end.
    deleted: Option<oneshot::Sender<()>>,
}

impl<P: Provider> Supervisor<P> {
    pub(crate) fn new(
        provider: Arc<P>,
        options: ConnectOptions,
        pollers: usize,
        wiring: SupervisorChannels<P>,
    ) -> Self {
        let SupervisorChannels { shared, inbox, changes, late, events, first } = wiring;
        Self {
            provider,
            life: Lifecycle::new(options.reconnect.clone()),
            options,
            shared,
            inbox,
            changes,
            late,
            events,
            pollers: pollers.max(1),
            berths: Vec::new(),
            admin: None,
            device: None,
            generation: 0,
            cause: Error::Closed,
            port: PortWatch::default(),
            first: Some(first),
            deleted: None,
        }
    }

    /// Lives the controller's life to its end.
    pub(crate) async fn run(mut self) {
        self.handle(LifecycleEvent::Start);
        loop {
            match self.life.task(Instant::now()) {
                LifecycleTask::End => break,
                LifecycleTask::Connect => self.connect().await,
                LifecycleTask::Serve => self.serve().await,
                LifecycleTask::TearDown { announce } => self.tear_down(announce).await,
                LifecycleTask::Wait(due) => self.wait(due).await,
            }
        }
        let error = self.last_words();
        self.shared.liveness.enter(ConnectionState::Ended(error.clone()));
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(error));
        }
        if let Some(deleted) = self.deleted.take() {
            let _ = deleted.send(());
        }
    }

    async fn connect(&mut self) {
        self.options.authentication = self.shared.authentication.lock().clone();
        let parties = self.parties();
        let means = ConnectContext {
            parties: &parties,
            provider: &self.provider,
            options: &self.options,
            pollers: if self.berths.is_empty() { self.pollers } else { self.berths.len() },
            domain: self.shared.present.lock().as_ref().map(|present| present.domain.clone()),
        };
        let registry = &self.shared.registry;
        let attempt = async {
            let mut connected = bring_up::connect(means).await?;
            let EstablishedController { admin, negotiated, .. } = &mut connected;
            recognise(registry, admin, negotiated.version).await?;
            enable_events(admin, negotiated.info.events).await?;
            Ok(connected)
        };
        let timeout = Error::Timeout { step: "the whole connect", after: BRING_UP_TIMEOUT };
        let attempt = tokio::time::timeout(BRING_UP_TIMEOUT, attempt);
        let fails_at = self.life.commands_fail_at();
        let holding = hold_until(fails_at, &self.shared.liveness);
        let outcome = tokio::select! {
            outcome = attempt => outcome.unwrap_or(Err(timeout)),
            control = next(&mut self.inbox.control) => return self.obey(control),
            never = holding => match never {},
        };
        match outcome {
            Ok(connected) => self.establish(connected),
            Err(error) => self.fail(error),
        }
    }

    fn parties(&self) -> AuthenticationParties {
        AuthenticationParties::of(&self.options)
    }

    /// Hands the queues to the pollers.
    fn establish(&mut self, connected: EstablishedController<P>) {
        let EstablishedController { negotiated, domain, device, numa_node, memory, admin, io } =
            connected;
        self.generation += 1;
        let is_first = self.berths.is_empty();
        if is_first {
            let liveness = &self.shared.liveness;
            let registry = &self.shared.registry;
            let berth = || {
                Arc::new(PollerMailbox::new(
                    liveness.clone(),
                    Arc::clone(registry),
                    self.late.clone(),
                ))
            };
            self.berths = io.iter().map(|_| berth()).collect();
        }
        self.shared.registry.set_transfer_bytes_max(negotiated.transfer_bytes_max);
        let terms = ConnectionInfo {
            generation: self.generation,
            pollers: io.len(),
            transfer_bytes_max: negotiated.transfer_bytes_max,
            replaced: self.shared.registry.replaced(),
        };
        let mut watch = DeviceWatch::new(domain.clone());
        admin.report_to(&mut watch);
        io.iter().for_each(|one| watch.add(&one.queues, &one.completion_queue));
        self.device = Some(watch);
        let mut assemblies = io.into_iter();
        for berth in &self.berths {
            berth.put(assemblies.next());
        }
        let admin = self.admin.insert(admin);
        admin.go_live(self.generation, self.berths.clone());
        admin.tell(self.events.clone());
        self.port = PortWatch::new(&device);
        let negotiated = Arc::new(negotiated);
        let (generation, berths) = (self.generation, self.berths.clone());
        let present =
            Connection { negotiated, domain, device, numa_node, memory, generation, berths };
        *self.shared.present.lock() = Some(present);
        self.shared.liveness.enter(ConnectionState::Live(Arc::new(terms)));
        self.handle(LifecycleEvent::Established);
        if let Some(first) = self.first.take() {
            let pollers = self.berths.iter();
            let pollers = pollers.map(|berth| Poller::at(Arc::clone(berth), &self.options));
            // Who does not wait any more has dropped the controller too, which ends it.
            let _ = first.send(Ok(pollers.collect()));
        }
    }

    async fn serve(&mut self) {
        let (Some(admin), Some(device)) = (&mut self.admin, &self.device) else {
            return self.fail(Error::Closed);
        };
        let liveness = self.shared.liveness.clone();
        let failed = async {
            tokio::select! {
                error = admin.serve(&mut self.inbox.requests, &mut self.inbox.late) => error,
                error = device.ends() => error,
            }
        };
        tokio::select! {
            error = failed => {
                let cause = liveness.lost(self.generation, error);
                self.fail(cause);
            }
            () = liveness.left(self.generation) => {
                self.fail(liveness.cause().unwrap_or(Error::Closed));
            }
            control = next(&mut self.inbox.control) => self.obey(control),
        }
    }

    /// Lets the pollers give up their queues, tells the controller, and drops the connection.
    async fn tear_down(&mut self, announce: bool) {
        if self.life.state() == LifecycleState::Deleting {
            self.shared.liveness.enter(ConnectionState::Ended(self.last_words()));
        }
        if announce && let Some(mut admin) = self.admin.take() {
            let orderly = async {
                while self.berths.iter().any(|berth| berth.in_use()) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // A poller that its owner does not drive is not waited for.
            let _ = tokio::time::timeout(QUIESCE_TIMEOUT, orderly).await;
            // Past the time limit the connection is dropped as it is.
            let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, admin.shut_down()).await;
        }
        self.admin = None;
        self.device = None;
        for berth in &self.berths {
            berth.put(None);
        }
        // What came too late for this connection must not reach the next.
        while self.inbox.late.try_recv().is_ok() {}
        self.handle(LifecycleEvent::TornDown);
    }

    /// Waits for the time of the next attempt, or the port that was down.
    async fn wait(&mut self, due: Instant) {
        let until_due = tokio::time::sleep_until(due.into());
        let fails_at = self.life.commands_fail_at();
        let holding = hold_until(fails_at, &self.shared.liveness);
        tokio::select! {
            () = until_due => self.handle(LifecycleEvent::Due),
            () = port_is_back(&mut self.port) => self.handle(LifecycleEvent::PortActive),
            control = next(&mut self.inbox.control) => self.obey(control),
            never = holding => match never {},
        }
    }

    fn obey(&mut self, control: ControlRequest) {
        match control {
            ControlRequest::Reset => {
                let away = NotConnected { cause: Box::new(Error::Reset), attempt: 0, max: None };
                let outage = Disconnection { away: Arc::new(away), commands_fail: false };
                self.cause = Error::Reset;
                if self.life.state() == LifecycleState::Live {
                    self.shared.liveness.enter(ConnectionState::Away(outage));
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
        let before = self.life.state();
        self.cause = error;
        self.life.fail(FailureKind::from(&self.cause), Instant::now(), jitter_seed());
        self.enter_outage();
        self.announce(before);
    }

    fn handle(&mut self, event: LifecycleEvent) {
        let before = self.life.state();
        self.life.handle(event, Instant::now());
        if self.life.state() == LifecycleState::Connecting {
            self.enter_outage();
        }
        self.announce(before);
    }

    /// Tells the pollers how things stand while there is no connection.
    fn enter_outage(&self) {
        let away = NotConnected {
            cause: Box::new(self.cause.clone()),
            attempt: self.life.attempts(),
            max: self.life.attempts_max(),
        };
        let commands_fail = self.life.commands_fail_at().is_some_and(|at| Instant::now() >= at);
        self.shared
            .liveness
            .enter(ConnectionState::Away(Disconnection { away: Arc::new(away), commands_fail }));
    }

    /// Tells the watchers, and the log.
    fn announce(&self, before: LifecycleState) {
        let state = self.life.state();
        if state == before {
            return;
        }
        let failed = matches!(
            state,
            LifecycleState::Resetting | LifecycleState::Waiting | LifecycleState::Dead
        );
        let cause = match (state, &self.cause) {
            (LifecycleState::Dead, _) => Some(self.last_words()),
            (_, Error::Closed) => None,
            (_, cause) if failed => Some(cause.clone()),
            _ => None,
        };
        let now = Instant::now();
        let change = StateChange {
            at: SystemTime::now(),
            state,
            cause: cause.filter(|cause| !matches!(cause, Error::Closed)),
            attempt: self.life.attempts(),
            attempts_max: self.life.attempts_max(),
            next: match self.life.task(now) {
                LifecycleTask::Wait(due) => Some(due.saturating_duration_since(now)),
                _ => None,
            },
        };
        let (subsystem, attempt) = (&self.options.subsystem, change.attempt);
        tracing::info!(%subsystem, %state, attempt, "{change}");
        // Nobody need be watching.
        let _ = self.changes.send(change);
    }

    /// Why it is over.
    fn last_words(&self) -> Error {
        match self.life.reason() {
            Some(reason) if self.life.attempts() > 0 => {
                let (cause, attempts) = (Box::new(self.cause.clone()), self.life.attempts());
                Error::GaveUp(Arc::new(GaveUp { cause, attempts, reason }))
            }
            _ => self.cause.clone(),
        }
    }
}

/// What the owner asks for next; an owner that is gone wants the end.
async fn next(control: &mut mpsc::Receiver<ControlRequest>) -> ControlRequest {
    match control.recv().await {
        Some(control) => control,
        None => ControlRequest::Delete(oneshot::channel().0),
    }
}

/// Lets commands fail from this time on.
async fn hold_until(at: Option<Instant>, liveness: &ConnectionWatch) -> std::convert::Infallible {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
        liveness.fail_commands();
    }
    std::future::pending().await
}

async fn port_is_back(port: &mut PortWatch) {
    while port.news() != Some(PortEvent::PortActive) {
        tokio::time::sleep(PORT_POLL_INTERVAL).await;
    }
    // A question about the way that is lost now is not asked again for a second.
    tokio::time::sleep(PORT_UP_DELAY).await;
}

/// Looks at all namespaces in use, before commands can reach them.
async fn recognise<P: Provider>(
    registry: &NamespaceRegistry,
    admin: &mut AdminQueue<P>,
    version: Version,
) -> Result<(), Error> {
    for id in registry.ids() {
        match inspect_alone(admin, version, id).await {
            Ok(info) if registry.compare(info) => {}
            Ok(_) => tracing::warn!(%id, "a namespace in use was replaced by another one"),
            // One that is not there now may be again later.
            Err(error @ (Error::Malformed(_) | Error::Misuse(Misuse::NoNamespace(_)))) => {
                tracing::info!(%id, %error, "a namespace in use is gone");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A random number, to spread attempts by.
pub(crate) fn jitter_seed() -> u16 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    u16::try_from(high >> 48).unwrap_or(0)
}
