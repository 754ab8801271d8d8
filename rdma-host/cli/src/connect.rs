//! Connecting, for all commands that need a controller.

use auth::Authenticated;
use rdma_host::{
    Controller, Namespace, Negotiated,
    wire::{NamespaceId, Nqn},
};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, output, progress::with_progress, target::TargetArguments};

/// Controller, and the runtime that serves its queues.
pub(crate) struct ConnectedController {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) controller: Controller,
    pub(crate) subsystem: Nqn,
}

/// Authentication of one queue in JSON.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct QueueAuthentication {
    hash: String,
    dhgroup: String,
    bidirectional: bool,
}

impl ConnectedController {
    /// Connects, with tasks serving the I/O queues.
    pub(crate) fn connect(target: &TargetArguments) -> Result<Self, Failure> {
        let options = target.options()?;
        let runtime = runtime()?;
        let describe = || format!("connecting to {} at {}", options.subsystem, options.address);
        let connecting = Controller::connect(&options).into_future();
        let controller = runtime.block_on(with_progress(describe, connecting))?;
        print_warnings(&controller.negotiated());
        Ok(Self { runtime, controller, subsystem: options.subsystem })
    }

    /// Namespace of this id, or the only one there is.
    pub(crate) fn namespace(&self, id: Option<u32>) -> Result<Namespace, Failure> {
        let id = self.runtime.block_on(namespace_id(&self.controller, id))?;
        Ok(self.runtime.block_on(self.controller.namespace(id))?)
    }

    /// Disconnects in order.
    pub(crate) fn close(self) {
        self.runtime.block_on(self.controller.shutdown());
    }
}

/// Runtime for the control plane and the async API.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start worker threads: {error}")))
}

/// The given namespace id, or that of the only namespace.
pub(crate) async fn namespace_id(
    controller: &Controller,
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
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (queue, authenticated) in negotiated.authenticated.iter().enumerate() {
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
