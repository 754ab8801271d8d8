//! Connecting, for all commands that need a controller.

use std::sync::Arc;

use auth::Authenticated;
use clap::Args;
use rdma_host::{
    Controller, Error, Namespace, Negotiated, PathId, Provider, Subsystem, SubsystemOptions,
    wire::{NamespaceId, Nqn, QueueId},
};
use serde::{Deserialize, Serialize};

use crate::{
    capture::CaptureArguments, failure::Failure, io_namespace::IoNamespace, output,
    progress::with_progress, shutdown::InterruptibleRuntime, size, target::TargetArguments,
};

/// Target, and a namespace of it.
#[derive(Args)]
pub(crate) struct NamespaceArguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_field)]
    ns: Option<u32>,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    pub(crate) capture: CaptureArguments,
}

impl NamespaceArguments {
    /// Namespace id, if one is given.
    pub(crate) fn ns(&self) -> Option<u32> {
        self.ns
    }

    fn refuse_no_namespace(&self) -> Result<(), Failure> {
        match self.ns {
            Some(0) => Err(Failure::usage("no namespace has the id 0: they count from 1")),
            _ => Ok(()),
        }
    }

    /// Connects, without a namespace.
    pub(crate) fn connect_controller<P: Provider>(
        &self,
        provider: &Arc<P>,
    ) -> Result<ConnectedController<P>, Failure> {
        ConnectedController::connect(provider, &self.target)
    }

    /// Connects, and identifies the namespace.
    pub(crate) fn connect<P: Provider>(
        &self,
        provider: &Arc<P>,
    ) -> Result<(ConnectedController<P>, Namespace), Failure> {
        self.refuse_no_namespace()?;
        let connected = ConnectedController::connect(provider, &self.target)?;
        let namespace = connected.namespace(self.ns)?;
        Ok((connected, namespace))
    }

    /// Connects one path or several, and identifies the namespace.
    pub(crate) fn connect_paths<P: Provider>(
        &self,
        provider: &Arc<P>,
    ) -> Result<(ConnectedController<P>, IoNamespace), Failure> {
        self.refuse_no_namespace()?;
        let connected = ConnectedController::connect_paths(provider, &self.target)?;
        let namespace = connected.io_namespace(self.ns)?;
        Ok((connected, namespace))
    }
}

/// Controller, and the runtime that serves its queues.
pub(crate) struct ConnectedController<P: Provider> {
    pub(crate) runtime: InterruptibleRuntime,
    /// Controller; of several paths, that of one that is live.
    pub(crate) controller: Arc<Controller<P>>,
    /// Paths, if there are several.
    pub(crate) paths: Option<Subsystem<P>>,
    pub(crate) subsystem: Nqn,
}

/// Authentication of one queue in JSON.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct QueueAuthentication {
    hash: String,
    dhgroup: String,
    bidirectional: bool,
}

impl<P: Provider> ConnectedController<P> {
    /// Connects, with tasks serving the I/O queues. From here on a signal ends what the runtime
    /// [runs](InterruptibleRuntime::run).
    pub(crate) fn connect(provider: &Arc<P>, target: &TargetArguments) -> Result<Self, Failure> {
        Self::open(provider, &SubsystemOptions::new(target.options()?))
    }

    /// Connects one path or several.
    pub(crate) fn connect_paths(
        provider: &Arc<P>,
        target: &TargetArguments,
    ) -> Result<Self, Failure> {
        Self::open(provider, &target.subsystem_options()?)
    }

    fn open(provider: &Arc<P>, options: &SubsystemOptions) -> Result<Self, Failure> {
        let runtime = InterruptibleRuntime::new()?;
        let subsystem = options.connect().subsystem.clone();
        let addresses = addresses(options);
        let describe = || format!("connecting to {subsystem} at {addresses}");
        if let [_] = *options.addresses().collect::<Vec<_>>() {
            let connecting = Controller::connect_over(provider, options.connect()).into_future();
            let controller = Arc::new(runtime.run(with_progress(describe, connecting))?);
            print_warnings(&controller.negotiated());
            return Ok(Self { runtime, controller, paths: None, subsystem });
        }
        let connecting = Subsystem::connect_over(provider, options);
        let paths = runtime.run(with_progress(describe, async {
            let paths = connecting.await?;
            print_fence_changes(&paths);
            Ok::<_, Error>(paths)
        }))?;
        Ok(Self { runtime, controller: paths.any_controller(), paths: Some(paths), subsystem })
    }

    /// Namespace of this id, or the only one there is, of the only path.
    pub(crate) fn namespace(&self, id: Option<u32>) -> Result<Namespace, Failure> {
        let id = self.runtime.run(namespace_id(&self.controller, id))?;
        self.runtime.run(self.controller.namespace(id))
    }

    /// Namespace of this id, or the only one there is, over all paths.
    pub(crate) fn io_namespace(&self, id: Option<u32>) -> Result<IoNamespace, Failure> {
        match &self.paths {
            None => self.namespace(id).map(IoNamespace::Controller),
            Some(paths) => {
                let id = self.runtime.run(namespace_id(&self.controller, id))?;
                self.runtime.run(paths.namespace(id)).map(IoNamespace::Subsystem)
            }
        }
    }

    /// Disconnects in order.
    pub(crate) fn close(self) {
        let Self { runtime, controller, paths, .. } = self;
        runtime.runtime.block_on(shutdown(controller, paths));
    }
}

/// Prints what the controllers of several paths warn of, and a message for each change of the fence
/// for writes: what waits for what, and for how long at most.
pub(crate) fn print_fence_changes<P: Provider>(paths: &Subsystem<P>) {
    controllers(paths).for_each(|controller| print_warnings(&controller.negotiated()));
    let mut changes = paths.fence_changes();
    tokio::spawn(async move {
        while let Some(change) = changes.next().await {
            output::print_message(format_args!("nvmf: fence: {change}"));
        }
    });
}

/// Shuts down a controller, or all of a subsystem that it is of.
pub(crate) async fn shutdown<P: Provider>(
    controller: Arc<Controller<P>>,
    paths: Option<Subsystem<P>>,
) {
    match (paths, Arc::into_inner(controller)) {
        (Some(paths), _) => paths.shutdown().await,
        (None, controller) => controller.expect("it has no other handle").shutdown().await,
    }
}

/// Controllers of all paths that were connected.
pub(crate) fn controllers<P: Provider>(
    paths: &Subsystem<P>,
) -> impl Iterator<Item = Arc<Controller<P>>> {
    (0..paths.status().paths.len()).filter_map(|path| paths.controller(PathId(path)))
}

/// Addresses of all paths, as they are given: between commas.
pub(crate) fn addresses(options: &SubsystemOptions) -> String {
    let addresses = options.addresses().map(|address| address.to_string());
    addresses.collect::<Vec<_>>().join(",")
}

/// The given namespace id, or that of the only namespace.
pub(crate) async fn namespace_id<P: Provider>(
    controller: &Controller<P>,
    id: Option<u32>,
) -> Result<NamespaceId, Failure> {
    if let Some(id) = id {
        return Ok(NamespaceId(id));
    }
    match controller.namespaces().await?.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::failed("the subsystem has no namespaces for this host")),
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            let ids = ids.join(", ");
            Err(Failure::usage(format!("there are namespaces {ids}; choose one with --ns")))
        }
    }
}

/// Warns of weaknesses in the authentication of the queues.
pub(crate) fn print_warnings(negotiated: &Negotiated) {
    for warning in negotiated.warnings() {
        output::print_message(format_args!("nvmf: warning: {warning}"));
    }
}

/// Authentication of the queues in words; those authenticated alike are named together.
pub(crate) fn describe_authentication(negotiated: &Negotiated) -> String {
    let mut groups: Vec<(String, Vec<u16>)> = Vec::new();
    for (QueueId(queue), authenticated) in negotiated.queue_ids().zip(&negotiated.authenticated) {
        let text = authenticated.map_or_else(|| "none".to_owned(), describe);
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, queues)) => queues.push(queue),
            None => groups.push((text, vec![queue])),
        }
    }
    match groups.as_slice() {
        [(text, _)] => text.clone(),
        several => {
            let parts = several.iter().map(|(text, queues)| format!("{text} on queues {queues:?}"));
            parts.collect::<Vec<_>>().join("; ")
        }
    }
}

fn describe(authenticated: Authenticated) -> String {
    let Authenticated { hash, group, controller_proved, .. } = authenticated;
    let way = if controller_proved { "two-way" } else { "one-way" };
    format!("DH-HMAC-CHAP, {way}, {hash}, {group}")
}

/// Authentication of each queue, the admin queue first; none for a queue without it.
pub(crate) fn queue_authentication(negotiated: &Negotiated) -> Vec<Option<QueueAuthentication>> {
    let queues = negotiated.authenticated.iter().map(|authenticated| {
        authenticated.map(|authenticated| QueueAuthentication {
            hash: authenticated.hash.to_string(),
            dhgroup: authenticated.group.to_string(),
            bidirectional: authenticated.controller_proved,
        })
    });
    queues.collect()
}
