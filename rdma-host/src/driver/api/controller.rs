//! A controller, from its first connection to its end.

use std::sync::Arc;

use auth::{Authenticated, Credentials};
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{
    Buffer, CallerMemory, Pool, PoolOptions, ProtectionDomain, Provider, RdmaCore, RegisterError,
};

use crate::{
    config::{
        ACK_TIMEOUT_MAX, ADMIN_BACKLOG, BACKLOG_PER_ENTRY, ConnectOptions, EVENT_BACKLOG,
        MemoryMode, NAMESPACES_MAX, QUEUE_ENTRIES, RETRY_COUNT_MAX, STATE_CHANGE_BACKLOG,
    },
    driver::{
        api::{
            io_task::{self, IoRequest},
            namespace::Namespace,
        },
        buffers::verbs_error,
        connect::{
            admin_queue::AdminClient, authenticate::AuthenticationParties, context::Purpose,
        },
        control::{
            async_events::AsyncEventTask,
            controller_event::{ControllerEvent, ControllerEvents},
            identify_namespace::inspect,
            log_pages::LogPages,
            reauthenticate::Reauthentication,
            shared::{ControlChannels, ControlRequest, ControllerShared, SupervisorChannels},
            state_change::StateChanges,
            supervisor::Supervisor,
        },
        data_path::{
            connection::Connection, connection_state::ConnectionWatch, memory::MemoryReport,
            namespace_registry::NamespaceRegistry, poller::Poller,
        },
        task,
    },
    error::{Error, Misuse, Rejected, TargetMisbehaved},
    proto::{Negotiated, Transfer},
    wire::{
        AnaLog, ChangedNamespaceList, EffectsLog, ErrorLogEntry, FirmwareSlotLog, HealthLog,
        Identify, NamespaceId, NamespaceInfo, NamespaceList, Nqn, NvmLimits, Status,
    },
};

/// A controller of a subsystem: the admin queue and the I/O queues, connected again whenever they
/// are lost, as long as [`ReconnectOptions`](crate::config::ReconnectOptions) allow.
///
/// Dropping it disconnects; [`shutdown`](Self::shutdown) does so in order and waits.
pub struct Controller<P: Provider = RdmaCore> {
    shared: Arc<ControllerShared<P>>,
    admin: AdminClient<P>,
    control: mpsc::Sender<ControlRequest>,
    io: Vec<mpsc::Sender<IoRequest>>,
    parties: AuthenticationParties,
    /// Held while the queues are authenticated again.
    again: Arc<tokio::sync::Mutex<()>>,
    notices: broadcast::WeakSender<ControllerEvent>,
}

/// A controller that is not there yet. Dropping it ends the attempt.
pub struct Connecting<P: Provider = RdmaCore> {
    controller: Controller<P>,
    /// From the beginning, until somebody wants them.
    changes: parking_lot::Mutex<Option<StateChanges>>,
    options: ConnectOptions,
    pollers: oneshot::Receiver<Result<Vec<Poller<P>>, Error>>,
}

impl Controller {
    /// Connects over the system's RDMA devices; the I/O queues are served by tasks of the current
    /// runtime, one for each processor at most.
    ///
    /// # Errors
    ///
    /// Whatever keeps the controller from being live; nothing of it is left then. The first
    /// connect is not retried unless the options ask for it.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }

    /// Connects as [`connect`](Self::connect), but leaves the I/O queues to the caller: they are
    /// shared out over `pollers` pollers (fewer when there are fewer queues), which the caller
    /// drives. The controller has no namespaces to read from then, only its admin queue.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_polled(
        options: &ConnectOptions,
        pollers: usize,
    ) -> Result<(Self, Vec<Poller>), Error> {
        Self::begin(&Arc::new(RdmaCore::new()), options, pollers)?.polled().await
    }
}

impl<P: Provider> Controller<P> {
    /// Connects as [`connect`](Controller::connect), over any provider of RDMA.
    ///
    /// # Errors
    ///
    /// As [`connect`](Controller::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::begin(provider, options, processors)?.live().await
    }

    /// Begins to connect, for who wants to watch it. The I/O queues will be shared out over
    /// `pollers` pollers at most.
    ///
    /// # Errors
    ///
    /// [`Misuse`] for options out of range.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn begin(
        provider: &Arc<P>,
        options: &ConnectOptions,
        pollers: usize,
    ) -> Result<Connecting<P>, Error> {
        check(options)?;
        Ok(Self::begin_with(provider, options, Purpose::Io, pollers))
    }

    /// Starts to connect a controller of this purpose.
    pub(crate) fn begin_with(
        provider: &Arc<P>,
        options: &ConnectOptions,
        purpose: Purpose,
        pollers: usize,
    ) -> Connecting<P> {
        let changes = broadcast::Sender::new(STATE_CHANGE_BACKLOG);
        let shared = Arc::new(ControllerShared {
            connection: ConnectionWatch::new(),
            registry: Arc::new(NamespaceRegistry::default()),
            changes: changes.downgrade(),
            authentication: parking_lot::Mutex::new(options.authentication.clone()),
        });
        let (control, controls) = mpsc::channel(1);
        let (admin, requests) = mpsc::channel(ADMIN_BACKLOG);
        let (events, heard) = mpsc::channel(EVENT_BACKLOG);
        let (first, pollers_made) = oneshot::channel();
        let wiring = SupervisorChannels {
            shared: Arc::clone(&shared),
            inbox: ControlChannels { control: controls, requests },
            changes,
            events,
            first,
        };
        let watched = parking_lot::Mutex::new(Some(StateChanges::of(&shared.changes)));
        let (provider, supervised) = (Arc::clone(provider), options.clone());
        let supervisor = Supervisor::new(provider, supervised, purpose, pollers, wiring);
        tokio::spawn(supervisor.run());
        let admin = AdminClient::new(admin, shared.connection.clone());
        let notices = broadcast::Sender::new(STATE_CHANGE_BACKLOG);
        let (told, shared_too) = (notices.downgrade(), Arc::clone(&shared));
        let herald =
            AsyncEventTask { admin: admin.clone(), shared: shared_too, events: heard, notices };
        tokio::spawn(herald.run());
        let controller = Self {
            shared,
            admin,
            control,
            io: Vec::new(),
            parties: AuthenticationParties::of(options),
            again: Arc::default(),
            notices: told,
        };
        Connecting { controller, changes: watched, options: options.clone(), pollers: pollers_made }
    }

    fn serve(&mut self, pollers: Vec<Poller<P>>, options: &ConnectOptions) {
        let backlog = |poller: &Poller<P>| poller.depth().max(1) * BACKLOG_PER_ENTRY;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            pollers.iter().map(|poller| mpsc::channel(backlog(poller))).unzip();
        for (poller, requests) in pollers.into_iter().zip(receivers) {
            // Weak senders: a task ends when the handles of the controller are gone.
            let peers = io_task::IoTaskPeers::new(&senders, self.io.len());
            self.io.push(senders[self.io.len()].clone());
            tokio::spawn(io_task::run(poller, requests, peers, options.wait));
        }
    }

    /// What was agreed with the controller when it was connected last.
    ///
    /// # Panics
    ///
    /// Never: there is a controller only once it has been connected.
    #[must_use]
    pub fn negotiated(&self) -> Arc<Negotiated> {
        self.connection().negotiated()
    }

    /// The name of the RDMA device in use.
    #[must_use]
    pub fn device(&self) -> String {
        self.connection().device.clone()
    }

    /// The NUMA node that the RDMA device is on, where the system knows: the processors and the
    /// memory to prefer.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.connection().numa_node
    }

    /// How it reaches our memory; not as was asked for where the device cannot.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        self.connection().memory.clone()
    }

    /// The changes of the controller's state from now on.
    #[must_use]
    pub fn changes(&self) -> StateChanges {
        StateChanges::of(&self.shared.changes)
    }

    /// What the controller tells from now on: changes of namespaces and of how well it reaches
    /// them, firmware, errors, health. Namespaces in use are looked at before they are told of.
    #[must_use]
    pub fn notices(&self) -> ControllerEvents {
        ControllerEvents::of(&self.notices)
    }

    /// Drops the connection in order and makes a new one at once. Commands in flight are treated
    /// as when the connection is lost.
    pub async fn reset(&self) {
        // A controller that has ended is not reset.
        let _ = self.control.send(ControlRequest::Reset).await;
    }

    /// Authenticates the queues again while commands flow: the admin queue, and then each I/O queue
    /// that was authenticated before. With `credentials`, these are used, now and for connections
    /// to come; without, the present ones. Returns how each queue is authenticated then, the admin
    /// queue first. Takes [`AUTHENTICATION_TIMEOUT`](crate::config::AUTHENTICATION_TIMEOUT) a queue
    /// at most, and goes on when the future is dropped.
    ///
    /// Give a new secret to the target first. Pollers that the caller drives must be driven
    /// meanwhile: the exchange runs among their commands.
    ///
    /// # Errors
    ///
    /// [`Error::ReauthenticationFailed`] when the admin queue does not take new secrets: the old
    /// ones stay. A target may end the connection over that, as Linux's does, and the controller
    /// connects again with the old ones. Any other error once the admin queue has taken them: they
    /// stay, though an I/O queue may not be authenticated with them. [`Error::NotConnected`] while
    /// there is no connection.
    pub async fn reauthenticate(
        &self,
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Vec<Option<Authenticated>>, Error> {
        let again = Reauthentication {
            shared: Arc::clone(&self.shared),
            admin: self.admin.clone(),
            parties: self.parties.clone(),
            credentials,
        };
        let turn = Arc::clone(&self.again).lock_owned().await;
        // In a task of its own: a queue must not be left in the middle of an exchange.
        let task = tokio::spawn(async move {
            let outcome = again.run().await;
            drop(turn);
            outcome
        });
        task::output(task.await)?
    }

    /// Memory that this controller may read and write: one registration of its own.
    ///
    /// # Errors
    ///
    /// When the memory can't be had or registered; a limit is named with its remedy.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        let (domain, mode) = self.domain();
        domain.allocate(bytes, mode.access()).map_err(verbs_error)
    }

    /// As [`allocate`](Self::allocate), `count` buffers of `bytes` bytes each, in one registration:
    /// on [the NUMA node of the device](Self::numa_node), if it has one with room.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_many(&self, count: usize, bytes: usize) -> Result<Vec<Buffer>, Error> {
        let (domain, mode) = self.domain();
        let Some(node) = self.numa_node().filter(|_| count * bytes > 0) else {
            return crate::driver::buffers::buffers(&domain, count, bytes, mode.access());
        };
        let options =
            PoolOptions { count, size: bytes, node: Some(node), ..PoolOptions::default() };
        let mut pool = self.pool(options)?;
        // The buffers keep the registration.
        Ok(std::iter::from_fn(|| pool.take()).collect())
    }

    /// Memory of the caller, a `Vec<u8>` or a `Box<[u8]>`, for this controller to read and write,
    /// without copying it; [`Buffer::deregister`] gives it back.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), with the memory handed back.
    pub fn register<M: CallerMemory>(&self, memory: M) -> Result<Buffer, RegisterError<M>> {
        let (domain, mode) = self.domain();
        domain.register(memory, mode.access())
    }

    /// A pool of buffers, on pages as they are wanted: huge ones, or of a NUMA node. What may be
    /// done to them is for the memory mode to say, and not for the options.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); also when pages are demanded that cannot be had.
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, Error> {
        let (domain, mode) = self.domain();
        domain.pool(PoolOptions { access: mode.access(), ..options }).map_err(verbs_error)
    }

    /// The active namespaces.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceId>, Error> {
        let mut all = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(NamespaceId(0));
            let command = Identify::active_namespaces(after);
            let data = self.identify("Identify (active namespaces)", command).await?;
            let list = NamespaceList::parse(&data)?.0;
            let known = all.len();
            let complete = list.len() < NamespaceList::ENTRIES;
            all.extend(list.into_iter().skip_while(|&id| id <= after));
            if all.len() > NAMESPACES_MAX || (all.len() == known && !complete) {
                return Err(TargetMisbehaved::NamespaceList.into());
            }
            if complete {
                return Ok(all);
            }
        }
    }

    /// What a namespace is.
    ///
    /// # Errors
    ///
    /// When it is not there, has a format we can't use, or the controller is gone.
    pub async fn identify_namespace(&self, id: NamespaceId) -> Result<NamespaceInfo, Error> {
        let info = inspect(&self.admin, self.negotiated().version, id).await?;
        self.shared.registry.insert(info);
        Ok(info)
    }

    /// Looks for namespaces anew: returns all that are active and of a format we can use. Those in
    /// use that are not what they were are refused from now on.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn rescan(&self) -> Result<Vec<NamespaceInfo>, Error> {
        let mut found = Vec::new();
        for id in self.namespaces().await? {
            match inspect(&self.admin, self.negotiated().version, id).await {
                Ok(info) => {
                    self.shared.registry.compare(info);
                    found.push(info);
                }
                // It went between the two questions, or is not for us.
                Err(error @ (Error::Malformed(_) | Error::Misuse(_))) => {
                    tracing::info!(%id, %error, "a namespace is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What commands without data may be about; no limits where the controller tells none.
    ///
    /// # Errors
    ///
    /// When the controller is gone, or refuses for another reason than not knowing the question.
    pub async fn nvm_limits(&self) -> Result<NvmLimits, Error> {
        match self.identify("Identify (NVM command set)", Identify::nvm_limits()).await {
            Ok(data) => Ok(NvmLimits::parse(&data)?),
            Err(Error::Rejected(Rejected::Command { status, .. }))
                if status.code() == Status::INVALID_FIELD =>
            {
                Ok(NvmLimits::default())
            }
            Err(error) => Err(error),
        }
    }

    /// A namespace to read and write.
    ///
    /// # Errors
    ///
    /// As [`identify_namespace`](Self::identify_namespace).
    pub async fn namespace(&self, id: NamespaceId) -> Result<Namespace, Error> {
        let info = self.identify_namespace(id).await?;
        let ControllerShared { connection, registry, .. } = &*self.shared;
        Ok(Namespace::new(info, self.io.clone(), connection.summary(), registry))
    }

    /// Waits until the controller has ended, and says why.
    pub async fn failed(&self) -> Error {
        self.shared.connection.until_ended().await
    }

    /// Ends the I/O queues, tells the controller if there is a connection, and disconnects. Takes
    /// less than a second, with the target dead too. Commands in flight and held ones are failed.
    /// Pollers that the caller drives are to be dropped before.
    pub async fn shutdown(self) {
        let (done, deleted) = oneshot::channel();
        if self.control.send(ControlRequest::Delete(done)).await.is_ok() {
            let _ = deleted.await;
        }
    }

    async fn identify(&self, name: &'static str, sqe: crate::wire::Sqe) -> Result<Vec<u8>, Error> {
        let transfer = Transfer::FromController(Identify::SIZE);
        self.admin.execute(name, sqe, transfer).await.map(|(_, data)| data)
    }

    /// Reports that the live connection failed; it is made again as the options say.
    pub(crate) fn fail_connection(&self, error: Error) {
        self.shared.connection.lost(self.connection().generation, error);
    }

    pub(crate) fn admin(&self) -> &AdminClient<P> {
        &self.admin
    }

    fn domain(&self) -> (ProtectionDomain<P>, MemoryMode) {
        let connection = self.connection();
        (connection.domain.clone(), connection.memory.mode)
    }

    /// Connection that is live, or was last.
    fn connection(&self) -> Arc<Connection<P>> {
        self.shared.connection.latest().expect("a controller is handed out once it is connected")
    }
}

impl<P: Provider> Connecting<P> {
    /// The changes of the controller's state: from the beginning for who asks first, from now on
    /// for others.
    #[must_use]
    pub fn changes(&self) -> StateChanges {
        let first = self.changes.lock().take();
        first.unwrap_or_else(|| StateChanges::of(&self.controller.shared.changes))
    }

    /// What the controller tells from now on.
    #[must_use]
    pub fn notices(&self) -> ControllerEvents {
        ControllerEvents::of(&self.controller.notices)
    }

    /// Waits for the connection; tasks of the current runtime serve the I/O queues then.
    ///
    /// # Errors
    ///
    /// As [`Controller::connect`].
    pub async fn live(self) -> Result<Controller<P>, Error> {
        let options = self.options.clone();
        let (mut controller, pollers) = self.polled().await?;
        controller.serve(pollers, &options);
        Ok(controller)
    }

    /// Waits for the connection; the caller drives the I/O queues.
    ///
    /// # Errors
    ///
    /// As [`Controller::connect`].
    pub async fn polled(self) -> Result<(Controller<P>, Vec<Poller<P>>), Error> {
        let pollers = self.pollers.await.unwrap_or(Err(Error::Closed))?;
        Ok((self.controller, pollers))
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

impl<P: Provider> Controller<P> {
    /// Reads how well this controller reaches which namespaces (ANA), and clears the event that
    /// goes with it. Where all namespaces do not fit one command, groups are without theirs.
    ///
    /// # Errors
    ///
    /// When the controller refuses, is gone, or writes what can't be read.
    pub async fn ana_log(&self) -> Result<AnaLog, Error> {
        self.log_pages(&self.negotiated()).ana().await
    }

    /// Reads which namespaces changed since this was last read, and so forgets them. The
    /// controller's own task reads it after every event: [`notices`](Self::notices) has it all.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn changed_namespaces(&self) -> Result<ChangedNamespaceList, Error> {
        self.log_pages(&self.negotiated()).changed().await
    }

    /// Reads which commands the controller takes.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn effects(&self) -> Result<EffectsLog, Error> {
        self.log_pages(&self.negotiated()).effects().await
    }

    /// Reads the errors that the controller remembers, as far as one command carries them.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn error_log(&self) -> Result<Vec<ErrorLogEntry>, Error> {
        self.log_pages(&self.negotiated()).errors().await
    }

    /// Reads which firmware the controller has.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn firmware_slots(&self) -> Result<FirmwareSlotLog, Error> {
        self.log_pages(&self.negotiated()).firmware().await
    }

    /// Reads how well the controller is.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn health(&self) -> Result<HealthLog, Error> {
        self.log_pages(&self.negotiated()).health().await
    }

    fn log_pages<'a>(&'a self, negotiated: &'a Negotiated) -> LogPages<'a, P> {
        LogPages { admin: self.admin(), negotiated }
    }
}
