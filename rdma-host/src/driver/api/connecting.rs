//! Connecting a controller.

use std::{pin::Pin, sync::Arc};

use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{Provider, RdmaCore};

use crate::{
    config::{
        ACK_TIMEOUT_MAX, ADMIN_BACKLOG, ConnectOptions, EVENT_BACKLOG, QUEUE_ENTRIES,
        RETRY_COUNT_MAX, STATE_CHANGE_BACKLOG,
    },
    driver::{
        api::controller::Controller,
        connect::context::Purpose,
        control::{
            active_namespaces::ActiveNamespaces,
            async_events::AsyncEventTask,
            shared::{ControlChannels, ControllerShared, SupervisorChannels},
            subscription::{ControllerEvents, StateChanges},
            supervisor::Supervisor,
        },
        data_path::{
            admin_queue::{client::AdminClient, counters::AdminCounters},
            connection_state::ConnectionWatch,
            controller_group::ControllerGroup,
            fence::SharedFence,
            namespace_registry::NamespaceRegistry,
            poller::Poller,
        },
        runtime,
    },
    error::{Error, Misuse},
    wire::Nqn,
};

/// First connect of a controller, not started yet. It is started by awaiting it, or by
/// [`polled`](Self::polled), in a tokio runtime; dropping the future ends it.
///
/// Awaited, it returns a [`Controller`] whose I/O queues are served by tasks of the current
/// runtime, one for each processor at most.
#[must_use = "it connects when awaited"]
pub struct Connecting<P: Provider = RdmaCore> {
    provider: Arc<P>,
    options: ConnectOptions,
    purpose: Purpose,
    controller: Controller<P>,
    channels: SupervisorChannels<P>,
    event_task: AsyncEventTask<P>,
    connected: oneshot::Receiver<Result<Vec<Poller<P>>, Error>>,
}

impl Controller {
    /// Connects over the system's RDMA devices.
    ///
    /// # Errors
    ///
    /// Awaited, [`Misuse`] for options out of range, or the error that prevents the controller from
    /// becoming live; nothing of it is left then. The first connect is not retried unless the
    /// options ask for it.
    pub fn connect(options: &ConnectOptions) -> Connecting {
        Self::connect_over(&Arc::new(RdmaCore::new()), options)
    }
}

impl<P: Provider> Controller<P> {
    /// Connects as [`connect`](Controller::connect), over any RDMA provider.
    ///
    /// # Errors
    ///
    /// As [`connect`](Controller::connect).
    pub fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Connecting<P> {
        Connecting::new(provider, options, Purpose::Io, None)
    }
}

impl<P: Provider> Connecting<P> {
    /// Connects a controller, of a group if it is a path of a subsystem. The fence of the options
    /// is that of a controller without a group.
    pub(super) fn new(
        provider: &Arc<P>,
        options: &ConnectOptions,
        purpose: Purpose,
        group: Option<Arc<ControllerGroup<P>>>,
    ) -> Self {
        let changes = broadcast::Sender::new(STATE_CHANGE_BACKLOG);
        let fence = match &group {
            Some(group) => Arc::clone(&group.fence),
            None => Arc::new(SharedFence::new(options.fence.clone())),
        };
        let connection = ConnectionWatch::new(fence);
        let shared = Arc::new(ControllerShared {
            group,
            registry: Arc::new(NamespaceRegistry::new(connection.summary())),
            admin: AdminCounters::new(),
            connection,
            changes: changes.downgrade(),
            authentication: parking_lot::Mutex::new(options.authentication.clone()),
        });
        let (control, control_requests) = mpsc::channel(1);
        let (probes, probe_requests) = mpsc::channel(1);
        let (admin, requests) = mpsc::channel(ADMIN_BACKLOG);
        let inbox = ControlChannels { control: control_requests, probes: probe_requests, requests };
        let (events, async_events) = mpsc::channel(EVENT_BACKLOG);
        let (first, connected) = oneshot::channel();
        let admin = AdminClient::new(admin, shared.connection.clone());
        let event_task = AsyncEventTask {
            admin: admin.clone(),
            shared: Arc::clone(&shared),
            events: async_events,
            notices: broadcast::Sender::new(STATE_CHANGE_BACKLOG),
            namespaces: ActiveNamespaces::default(),
            has_namespaces: purpose == Purpose::Io,
        };
        Self {
            provider: Arc::clone(provider),
            options: options.clone(),
            purpose,
            controller: Controller::new(
                options,
                Arc::clone(&shared),
                admin,
                (control, probes),
                event_task.notices.downgrade(),
            ),
            channels: SupervisorChannels {
                shared,
                inbox,
                admin: event_task.admin.clone(),
                changes,
                events,
                first,
            },
            event_task,
            connected,
        }
    }

    /// State changes of the controller, from the first connect on.
    #[must_use]
    pub fn changes(&self) -> StateChanges {
        self.controller.changes()
    }

    /// Events of the controller, from the first connect on.
    #[must_use]
    pub fn events(&self) -> ControllerEvents {
        self.controller.events()
    }

    /// Connects and leaves the I/O queues to the caller, who drives them: they are distributed over
    /// `pollers` pollers, or fewer when there are fewer queues. The controller has no namespaces to
    /// read from then, only its admin queue.
    ///
    /// # Errors
    ///
    /// As [`Controller::connect`].
    pub async fn polled(self, pollers: usize) -> Result<(Controller<P>, Vec<Poller<P>>), Error> {
        let Self { provider, options, purpose, controller, channels, event_task, connected } = self;
        if matches!(purpose, Purpose::Io) {
            check(&options)?;
        }
        let supervisor = Supervisor::new(provider, options, purpose, pollers, channels);
        runtime::spawn(supervisor.run());
        runtime::spawn(event_task.run());
        let pollers = connected.await.unwrap_or(Err(Error::Closed))?;
        Ok((controller, pollers))
    }
}

impl<P: Provider> IntoFuture for Connecting<P> {
    type Output = Result<Controller<P>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let wait = self.options.wait;
            let processors = runtime::processors();
            let (mut controller, pollers) = self.polled(processors).await?;
            controller.serve(pollers, wait);
            Ok(controller)
        })
    }
}

/// Refuses options out of range before anything is sent.
fn check(options: &ConnectOptions) -> Result<(), Misuse> {
    if !QUEUE_ENTRIES.contains(&options.queue_entries) {
        let value = u64::from(options.queue_entries);
        return Err(Misuse::Option { option: "queue size", value, range: "2 to 1024" });
    }
    if options.reconnect.delay.is_zero() {
        let range = "more than 0 seconds";
        return Err(Misuse::Option { option: "reconnect delay", value: 0, range });
    }
    if options.io_queues == 0 {
        return Err(Misuse::Option { option: "I/O queues", value: 0, range: "1 to 65535" });
    }
    for (option, value, max, range) in [
        ("acknowledge timeout", options.ack_timeout.unwrap_or(0), ACK_TIMEOUT_MAX, "0 to 31"),
        ("retry count", options.retry_count, RETRY_COUNT_MAX, "0 to 7"),
        ("receiver-not-ready retry count", options.rnr_retry_count, RETRY_COUNT_MAX, "0 to 7"),
    ] {
        if value > max {
            return Err(Misuse::Option { option, value: value.into(), range });
        }
    }
    if options.subsystem.as_str() == Nqn::DISCOVERY {
        return Err(Misuse::Discovery);
    }
    Ok(())
}
