//! Controller: connect, namespaces, log pages, memory, shutdown.

use std::{sync::Arc, time::Duration};

use auth::{Authenticated, Credentials};
use tokio::sync::{broadcast, mpsc, oneshot};
use verbs::{ProtectionDomain, Provider, RdmaCore};

use crate::{
    config::{
        BACKLOG_PER_ENTRY, ConnectOptions, FENCE_PROBE_INTERVAL, MemoryMode, NAMESPACES_TIMEOUT,
        WaitMode,
    },
    driver::{
        api::{
            io_task::{self, IoTaskPeers},
            namespace::Namespace,
            namespace_walk::NamespaceWalk,
            request_channel::{self, RequestSender},
        },
        connect::authenticate::AuthenticationParties,
        control::{
            controller_event::ControllerEvent,
            identify_namespace::identify_namespace,
            log_pages::LogPages,
            reauthenticate::Reauthentication,
            shared::{ControlRequest, ControllerShared, ProbeRequest},
            subscription::{ControllerEvents, FenceChanges, StateChanges},
        },
        data_path::{
            admin_queue::{client::AdminClient, counters::AdminCounters},
            connection::Connection,
            connection_state::ConnectionWatch,
            memory::MemoryReport,
            poller::Poller,
        },
        runtime,
    },
    error::{Error, Misuse, Rejected},
    proto::{Negotiated, Transfer},
    wire::{
        AnaLog, ChangedNamespaceList, ControllerId, CopyLimits, EffectsLog, EnduranceGroupLog,
        ErrorLogEntry, FeatureEffectsLog, FirmwareSlotLog, HealthLog, Identify, NamespaceId,
        NamespaceInfo, NvmLimits, ReservationNotification, RotationalMediaLog, Sqe, Status,
        SupportedLogPages,
    },
};

/// Controller of a subsystem, with its admin queue and I/O queues. A task reconnects it when the
/// connection is lost, as [`ReconnectOptions`](crate::config::ReconnectOptions) say.
///
/// Dropping it shuts it down in the background; [`shutdown`](Self::shutdown) waits for that.
pub struct Controller<P: Provider = RdmaCore> {
    shared: Arc<ControllerShared<P>>,
    admin: AdminClient<P>,
    control: mpsc::Sender<ControlRequest>,
    probes: mpsc::Sender<ProbeRequest>,
    io: Arc<[RequestSender]>,
    parties: AuthenticationParties,
    /// Locked while the queues are reauthenticated.
    reauthentication: Arc<tokio::sync::Mutex<()>>,
    events: broadcast::WeakSender<ControllerEvent>,
}

impl<P: Provider> Controller<P> {
    pub(super) fn new(
        options: &ConnectOptions,
        shared: Arc<ControllerShared<P>>,
        admin: AdminClient<P>,
        (control, probes): (mpsc::Sender<ControlRequest>, mpsc::Sender<ProbeRequest>),
        events: broadcast::WeakSender<ControllerEvent>,
    ) -> Self {
        Self {
            shared,
            admin,
            control,
            probes,
            io: Arc::default(),
            parties: AuthenticationParties::of(options),
            reauthentication: Arc::default(),
            events,
        }
    }

    /// Spawns the tasks that drive the pollers.
    pub(super) fn serve(&mut self, pollers: Vec<Poller<P>>, wait: WaitMode) {
        let open_max = |poller: &Poller<P>| poller.depth().max(1) * (1 + BACKLOG_PER_ENTRY);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            pollers.iter().map(|poller| request_channel::channel(open_max(poller))).unzip();
        self.io = senders.into();
        for (index, (poller, requests)) in pollers.into_iter().zip(receivers).enumerate() {
            let peers = IoTaskPeers::new(&self.io, index);
            runtime::spawn(io_task::run(poller, requests, peers, wait));
        }
    }

    /// Parameters negotiated for the latest connection.
    ///
    /// # Panics
    ///
    /// Never: a controller is handed out once it is connected.
    #[must_use]
    pub fn negotiated(&self) -> Arc<Negotiated> {
        self.connection().negotiated()
    }

    /// Name of the RDMA device.
    #[must_use]
    pub fn device(&self) -> String {
        self.connection().device.device.clone()
    }

    /// NUMA node of the RDMA device, if the system knows it: its processors and memory are nearest.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.connection().device.numa_node
    }

    /// MTU of the path to the target in bytes; `None` over iWARP, or where the device does not say.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.connection().device.path_mtu
    }

    /// Memory mode in use; not the requested one where the device does not support that.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        self.connection().memory.clone()
    }

    /// Numbers of the admin queue.
    #[must_use]
    pub fn admin_counters(&self) -> AdminCounters {
        self.shared.admin.clone()
    }

    /// Subscribes to the changes of the controller's state.
    #[must_use]
    pub fn changes(&self) -> StateChanges {
        StateChanges::of(&self.shared.changes)
    }

    /// Subscribes to the controller's asynchronous events: changes of namespaces and of access to
    /// them (ANA), firmware, errors, health. Namespaces in use are identified before.
    #[must_use]
    pub fn events(&self) -> ControllerEvents {
        ControllerEvents::of(&self.events)
    }

    /// Subscribes to the changes of the fence for writes after a loss of the connection: see
    /// [`FenceOptions`](crate::config::FenceOptions).
    #[must_use]
    pub fn fence_changes(&self) -> FenceChanges {
        FenceChanges::of(&self.shared.connection.fence().changes())
    }

    /// Opens the fence: the caller knows that no controller of a lost connection executes a write
    /// any more. If one does, data of later writes is lost.
    pub fn open_fence(&self) {
        self.shared.connection.fence().open_by_owner();
    }

    /// Resets the controller: orderly shutdown, then a new connection at once. Commands in flight
    /// are treated as on a loss of the connection.
    pub async fn reset(&self) {
        // A controller that has ended is not reset.
        let _ = self.control.send(ControlRequest::Reset).await;
    }

    /// Waits until it is proved that another controller of the subsystem executes nothing more: one
    /// that an earlier process of this host had, and that may still execute its writes. Returns
    /// false if there is no proof within `limit`, and at once where no answer of the target is one,
    /// as [`FenceOptions::controller_ids`](crate::FenceOptions::controller_ids) says.
    pub async fn until_gone(&self, controller: ControllerId, limit: Duration) -> bool {
        let asked = async {
            // Once the target has given this controller the id, it is not the other's any more.
            while self.negotiated().controller != controller {
                let (gone, answer) = oneshot::channel();
                self.probes.send(ProbeRequest { controller, gone }).await.ok()?;
                if answer.await.ok()? {
                    break;
                }
                runtime::sleep(FENCE_PROBE_INTERVAL).await;
            }
            Some(())
        };
        runtime::timeout(limit, asked).await.is_ok_and(|proved| proved.is_some())
    }

    /// Reauthenticates the queues during I/O: the admin queue, then each I/O queue that is
    /// authenticated. `credentials` replace the present ones, for later connections too; `None`
    /// keeps them. Returns the outcome of each queue, the admin queue first. Takes at most
    /// [`AUTHENTICATION_TIMEOUT`](crate::config::AUTHENTICATION_TIMEOUT) per queue, and continues
    /// if the future is dropped.
    ///
    /// Give a new secret to the target first. A caller that drives the pollers must do so
    /// meanwhile: the exchange runs between its commands.
    ///
    /// # Errors
    ///
    /// [`Error::ReauthenticationFailed`] if the admin queue refuses new secrets: the old ones stay
    /// in use. A target may close the connection then, as Linux does; the controller reconnects
    /// with the old ones. Any other error after the admin queue has accepted them: they stay in
    /// use, even if an I/O queue is not authenticated with them. [`Error::NotConnected`] without a
    /// connection.
    pub async fn reauthenticate(
        &self,
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Vec<Option<Authenticated>>, Error> {
        let reauthentication = Reauthentication {
            shared: Arc::clone(&self.shared),
            admin: self.admin.clone(),
            parties: self.parties.clone(),
            credentials,
        };
        let guard = Arc::clone(&self.reauthentication).lock_owned().await;
        // In a task of its own: a queue must not be left in the middle of an exchange.
        let task = runtime::spawn(async move {
            let outcome = reauthentication.run().await;
            drop(guard);
            outcome
        });
        task.output().await?
    }

    /// Reads the list of active namespaces.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceId>, Error> {
        let walk = self.identify_namespaces(NAMESPACES_TIMEOUT).await?;
        Ok(walk.remaining().to_vec())
    }

    /// Begins to identify all active namespaces, one after the other, within this time for all of
    /// them and their list.
    ///
    /// # Errors
    ///
    /// When the list of them can't be read.
    pub async fn identify_namespaces(&self, within: Duration) -> Result<NamespaceWalk<P>, Error> {
        NamespaceWalk::new(self.admin.clone(), self.negotiated().version, within).await
    }

    /// Identifies a namespace.
    ///
    /// # Errors
    ///
    /// When it is not active, its format is not supported, or the controller is gone.
    pub async fn identify_namespace(&self, id: NamespaceId) -> Result<NamespaceInfo, Error> {
        let info = identify_namespace(&mut &self.admin, self.negotiated().version, id).await?;
        self.shared.registry.insert(info);
        Ok(info)
    }

    /// Latest identification of a namespace that was identified before, which is repeated after a
    /// reconnect and when the controller says that the namespace has changed. Sends no command.
    ///
    /// # Errors
    ///
    /// [`Misuse::NamespaceReplaced`] if its id belongs to another namespace now, commands to which
    /// are refused; [`Misuse::NoNamespace`] if it was not identified before.
    pub fn latest_namespace(&self, id: NamespaceId) -> Result<NamespaceInfo, Misuse> {
        self.shared.registry.latest(id)
    }

    /// Reads the Identify Controller data structure, 4,096 bytes as the controller sends them;
    /// [`controller_fields`](crate::wire::controller_fields) names its fields.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn identify_controller_data(&self) -> Result<Vec<u8>, Error> {
        self.identify("Identify (controller)", Identify::controller()).await
    }

    /// Reads the Identify Namespace data structure, 4,096 bytes as the controller sends them, also
    /// of a namespace whose format is not supported;
    /// [`namespace_fields`](crate::wire::namespace_fields) names its fields. All bytes are zero for
    /// a namespace that is not active.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn identify_namespace_data(&self, id: NamespaceId) -> Result<Vec<u8>, Error> {
        self.identify("Identify (namespace)", Identify::namespace(id)).await
    }

    /// Identifies all active namespaces; returns those with a supported format. I/O to a namespace
    /// in use that was replaced by another one is refused from now on.
    ///
    /// # Errors
    ///
    /// When the controller refuses, is gone, or takes longer than [`NAMESPACES_TIMEOUT`] for all.
    pub async fn rescan(&self) -> Result<Vec<NamespaceInfo>, Error> {
        let mut found = Vec::new();
        let mut walk = self.identify_namespaces(NAMESPACES_TIMEOUT).await?;
        while let Some((id, identified)) = walk.next().await {
            match identified {
                Ok(info) => {
                    self.shared.registry.compare(info);
                    found.push(info);
                }
                // Detached after the list was read, or not supported.
                Err(error @ (Error::Malformed(_) | Error::Misuse(_))) => {
                    tracing::info!(%id, %error, "a namespace is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Reads the limits of commands without data transfer; none if the controller does not support
    /// the data structure.
    ///
    /// # Errors
    ///
    /// When the controller refuses for another reason, or is gone.
    pub async fn nvm_limits(&self) -> Result<NvmLimits, Error> {
        match self.identify("Identify (NVM command set)", Identify::nvm_limits()).await {
            Ok(data) => Ok(NvmLimits::parse(&data)?),
            Err(Error::Rejected(Rejected::Command { status, .. }))
                if [Status::INVALID_FIELD, Status::INVALID_OPCODE].contains(&status.code()) =>
            {
                Ok(NvmLimits::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the limits of the Copy command of a namespace.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn copy_limits(&self, id: NamespaceId) -> Result<CopyLimits, Error> {
        Ok(CopyLimits::parse(&self.identify_namespace_data(id).await?)?)
    }

    /// Identifies a namespace for I/O.
    ///
    /// # Errors
    ///
    /// As [`identify_namespace`](Self::identify_namespace), and [`Misuse::PolledController`] if the
    /// I/O queues are polled by the caller.
    pub async fn namespace(&self, id: NamespaceId) -> Result<Namespace, Error> {
        if self.io.is_empty() {
            return Err(Misuse::PolledController.into());
        }
        self.namespace_of_path(id).await
    }

    /// Identifies a namespace on a path of a subsystem; without queues for I/O if these are polled
    /// by the caller.
    pub(super) async fn namespace_of_path(&self, id: NamespaceId) -> Result<Namespace, Error> {
        let info = self.identify_namespace(id).await?;
        let ControllerShared { connection, registry, .. } = &*self.shared;
        Ok(Namespace::new(info, self.io.clone(), connection.summary(), registry))
    }

    /// Waits until the controller has ended; returns the cause.
    pub async fn failed(&self) -> Error {
        self.shared.connection.until_ended().await
    }

    /// Shuts the controller down and disconnects, within a second even if the target is dead.
    /// Commands in flight and pending ones fail. A caller that drives the pollers drops them first.
    pub async fn shutdown(self) {
        self.close().await;
    }

    /// Shuts the controller down, as [`shutdown`](Self::shutdown), while others have handles of it.
    pub(super) async fn close(&self) {
        let (done, deleted) = oneshot::channel();
        if self.control.send(ControlRequest::Delete(done)).await.is_ok() {
            let _ = deleted.await;
        }
    }

    /// Sends an Identify command; returns its 4,096 bytes.
    pub(super) async fn identify(&self, name: &'static str, sqe: Sqe) -> Result<Vec<u8>, Error> {
        let transfer = Transfer::FromController(Identify::SIZE);
        self.admin.execute(name, sqe, transfer).await.map(|(_, data)| data)
    }

    /// Reports a failure of the live connection; the controller reconnects as the options say.
    pub(crate) fn fail_connection(&self, error: Error) {
        self.shared.connection.lost(self.connection().generation, error);
    }

    /// State of the connection.
    pub(super) fn connection_watch(&self) -> &ConnectionWatch<P> {
        &self.shared.connection
    }

    pub(crate) fn admin(&self) -> &AdminClient<P> {
        &self.admin
    }

    pub(super) fn domain(&self) -> (ProtectionDomain<P>, MemoryMode) {
        let connection = self.connection();
        (connection.domain.clone(), connection.memory.mode)
    }

    /// Connection that is live, or was last.
    fn connection(&self) -> Arc<Connection<P>> {
        self.shared.connection.latest().expect("a controller is handed out once it is connected")
    }
}

impl<P: Provider> Controller<P> {
    /// Reads the Asymmetric Namespace Access log page, which clears its event. If it does not fit
    /// one command, the groups are read without their namespaces.
    ///
    /// # Errors
    ///
    /// When the controller refuses, is gone, or sends a page that can't be parsed.
    pub async fn ana_log(&self) -> Result<AnaLog, Error> {
        self.log_pages(&self.negotiated()).ana().await
    }

    /// Reads the Changed Namespace List, which clears it. A task reads it after each event, for
    /// [`events`](Self::events).
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn changed_namespaces(&self) -> Result<ChangedNamespaceList, Error> {
        self.log_pages(&self.negotiated()).changed().await
    }

    /// Reads the Commands Supported and Effects log page of a command set, which is
    /// [`NamespaceInfo::command_set`] of a namespace.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn effects(&self, command_set: u8) -> Result<EffectsLog, Error> {
        self.log_pages(&self.negotiated()).effects(command_set).await
    }

    /// Reads the Error Information log page, as many entries as one command transfers.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn error_log(&self) -> Result<Vec<ErrorLogEntry>, Error> {
        self.log_pages(&self.negotiated()).errors().await
    }

    /// Reads the Firmware Slot Information log page.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn firmware_slots(&self) -> Result<FirmwareSlotLog, Error> {
        self.log_pages(&self.negotiated()).firmware().await
    }

    /// Reads the SMART / Health Information log page.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn health(&self) -> Result<HealthLog, Error> {
        self.log_pages(&self.negotiated()).health().await
    }

    /// Reads the Supported Log Pages log page.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn supported_log_pages(&self) -> Result<SupportedLogPages, Error> {
        self.log_pages(&self.negotiated()).supported().await
    }

    /// Reads the Feature Identifiers Supported and Effects log page.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn feature_effects(&self) -> Result<FeatureEffectsLog, Error> {
        self.log_pages(&self.negotiated()).features().await
    }

    /// Reads the Endurance Group Information log page of a group, from 1 on.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn endurance_group(&self, group: u16) -> Result<EnduranceGroupLog, Error> {
        self.log_pages(&self.negotiated()).endurance_group(group).await
    }

    /// Reads the Rotational Media Information log page of an endurance group, from 1 on.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn rotational_media(&self, group: u16) -> Result<RotationalMediaLog, Error> {
        self.log_pages(&self.negotiated()).rotational_media(group).await
    }

    /// Reads the Reservation Notification log page, which takes the oldest notification.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn reservation_notification(&self) -> Result<ReservationNotification, Error> {
        self.log_pages(&self.negotiated()).reservation_notification().await
    }

    fn log_pages<'a>(&'a self, negotiated: &'a Negotiated) -> LogPages<'a, P> {
        LogPages { admin: self.admin(), negotiated }
    }
}
