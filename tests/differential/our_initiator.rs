//! Our initiator.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use auth::{Credentials, Secret};
use rdma_host::{
    ConnectOptions, Controller, LifecycleState, Namespace, StateChange, wire::NamespaceId,
};
use tests::address;
use tokio::runtime::Handle;

use super::{
    case::{Options, OwnerRequest},
    case_target::CaseTarget,
    observe::{ControllerState, Initiator, Pending},
};

/// One controller of ours.
pub(crate) struct OurInitiator {
    runtime: Handle,
    /// Until it is deleted.
    controller: Mutex<Option<Controller>>,
    namespace: Option<Namespace>,
    changes: Arc<Mutex<Vec<StateChange>>>,
}

impl OurInitiator {
    /// Connects.
    pub(crate) fn connect(
        runtime: &Handle,
        target: &CaseTarget,
        options: &Options,
    ) -> Result<Self, Box<dyn Error>> {
        let mut ours = ours(target, options);
        ours.authentication.credentials = credentials(options.secrets)?.map(Arc::new);
        let controller = runtime.block_on(Controller::connect(&ours).into_future())?;
        let changes = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&changes);
        let mut stream = controller.changes();
        runtime.spawn(async move {
            while let Some(change) = stream.next().await {
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(change);
            }
        });
        let runtime = runtime.clone();
        Ok(Self { runtime, controller: Mutex::new(Some(controller)), namespace: None, changes })
    }

    fn controller(&self) -> MutexGuard<'_, Option<Controller>> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Vec<StateChange> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Initiator for OurInitiator {
    fn state(&self) -> ControllerState {
        match self.seen().last().map(|change| change.state) {
            None | Some(LifecycleState::Live) => ControllerState::Live,
            Some(LifecycleState::Dead) => ControllerState::Gone,
            Some(_) => ControllerState::Disconnected,
        }
    }

    fn mark(&self) -> usize {
        self.seen().len()
    }

    fn left_since(&self, mark: usize) -> bool {
        self.seen().len() > mark
    }

    fn attempts(&self) -> u32 {
        self.seen().iter().map(|change| change.attempt).max().unwrap_or(0)
    }

    fn open(&mut self) {
        let controller = self.controller.get_mut().unwrap_or_else(PoisonError::into_inner);
        let controller = controller.as_ref().expect("nobody has deleted it");
        let namespace = self.runtime.block_on(controller.namespace(NamespaceId(1)));
        self.namespace = Some(namespace.expect("the namespace is well before the fault"));
    }

    fn read(&self) -> Pending {
        let namespace = self.namespace.clone().expect("opened before the fault");
        let controller = self.controller();
        let controller = controller.as_ref().expect("nobody has deleted it");
        let buffer = controller.allocate(4096).expect("memory");
        let pending = Pending::default();
        let answer = pending.clone();
        self.runtime.spawn(async move { answer.set(namespace.read(0, buffer).await.is_ok()) });
        pending
    }

    fn request(&self, request: OwnerRequest) {
        let mut controller = self.controller();
        match request {
            OwnerRequest::Delete => {
                if let Some(controller) = controller.take() {
                    self.runtime.block_on(controller.shutdown());
                }
            }
            OwnerRequest::Reset => {
                if let Some(controller) = &*controller {
                    self.runtime.block_on(controller.reset());
                }
            }
        }
    }

    fn history(&self) -> String {
        self.seen().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Credentials of these secrets; faults of a secret are found before any connect.
fn credentials(secrets: [Option<&str>; 2]) -> Result<Option<Credentials>, Box<dyn Error>> {
    let [host, controller] = secrets;
    let Some(host) = host.map(Secret::parse).transpose()? else { return Ok(None) };
    Ok(Some(match controller.map(Secret::parse).transpose()? {
        None => Credentials::one_way(host),
        Some(controller) => Credentials::two_way(host, controller)?,
    }))
}

/// Options of a case as our initiator has them.
fn ours(target: &CaseTarget, options: &Options) -> ConnectOptions {
    let host = options.address.map_or_else(address, str::to_owned);
    let service = options.service.unwrap_or_else(|| target.our_service());
    let address = format!("{host}:{service}").parse().expect("an address and a port");
    let subsystem = options.subsystem.unwrap_or_else(|| target.nqn()).parse().expect("an NQN");
    let mut ours = ConnectOptions::new(address, subsystem, target.our_host().clone());
    ours.io_queues = options.io_queues;
    ours.queue_entries = options.queue_entries;
    ours.keep_alive = Duration::from_secs(options.keep_alive.into());
    if let Some(seconds) = options.io_timeout {
        ours.io_timeout = Duration::from_secs(seconds.into());
    }
    ours.reconnect.delay = Duration::from_secs(1);
    ours.reconnect.loss_timeout = u64::try_from(options.loss_timeout).ok().map(Duration::from_secs);
    ours.reconnect.fast_io_fail =
        options.fast_io_fail.map(|seconds| Duration::from_secs(seconds.into()));
    ours
}
