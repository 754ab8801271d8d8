//! What every command that connects has in common.

use auth::Authenticated;
use rdma_host::proto::Negotiated;
use rdma_host::wire::NamespaceId;
use rdma_host::{Controller, Namespace};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::target::TargetArguments;

/// A connection and the runtime that serves it.
pub(crate) struct Session {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) controller: Controller,
}

impl Session {
    /// Connects, with tasks serving the I/O queues.
    pub(crate) fn connect(target: &TargetArguments) -> Result<Self, Failure> {
        let options = target.options()?;
        let runtime = runtime()?;
        let controller = runtime.block_on(Controller::connect(&options))?;
        warn(&controller.negotiated());
        Ok(Self { runtime, controller })
    }

    /// The namespace to use: the one asked for, or the only one there is.
    pub(crate) fn namespace(&self, id: Option<u32>) -> Result<Namespace, Failure> {
        let id = self.runtime.block_on(choose(&self.controller, id))?;
        Ok(self.runtime.block_on(self.controller.namespace(id))?)
    }

    /// Disconnects in order.
    pub(crate) fn close(self) {
        self.runtime.block_on(self.controller.shutdown());
    }
}

/// A runtime for the control plane and the async API.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start worker threads: {error}")))
}

/// The namespace asked for, or the only one there is.
pub(crate) async fn choose(
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

/// Says what is weaker than it should be in how the queues were authenticated.
pub(crate) fn warn(agreed: &Negotiated) {
    for warning in agreed.warnings() {
        eprintln!("nvmf: warning: {warning}");
    }
}

/// How the queues were authenticated, in words: alike ones together.
pub(crate) fn authentication(agreed: &Negotiated) -> String {
    let mut words: Vec<(String, Vec<usize>)> = Vec::new();
    for (queue, how) in agreed.authenticated.iter().enumerate() {
        let how = how.map_or_else(|| "none".to_owned(), describe);
        match words.iter_mut().find(|(known, _)| *known == how) {
            Some((_, queues)) => queues.push(queue),
            None => words.push((how, vec![queue])),
        }
    }
    match words.as_slice() {
        [(how, _)] => how.clone(),
        several => {
            let parts: Vec<_> =
                several.iter().map(|(how, queues)| format!("{how} on queues {queues:?}")).collect();
            parts.join("; ")
        }
    }
}

fn describe(how: Authenticated) -> String {
    let way = if how.controller_proved { "two-way" } else { "one-way" };
    format!("DH-HMAC-CHAP, {way}, {}, {}", how.hash, how.group)
}

/// The same for programs: a value for each queue, the admin queue first.
pub(crate) fn authentication_json(agreed: &Negotiated) -> Value {
    let queues = agreed.authenticated.iter().map(|how| match how {
        None => Value::Null,
        Some(how) => json!({
            "hash": how.hash.to_string(),
            "dhgroup": how.group.to_string(),
            "bidirectional": how.controller_proved,
        }),
    });
    queues.collect()
}
