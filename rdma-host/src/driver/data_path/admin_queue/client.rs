//! Clients of the admin queue: admin commands across reconnects.

use tokio::sync::{mpsc, oneshot};
use verbs::Provider;

use crate::{
    config::ADMIN_TIMEOUT,
    driver::{
        data_path::connection_state::{ConnectionState, ConnectionWatch},
        runtime,
    },
    error::{Error, Rejected},
    proto::{Execute, Transfer},
    wire::{Cqe, QueueId, Sqe},
};

/// Admin command of a client, with the sender of its outcome.
pub(crate) struct AdminRequest {
    pub(crate) execute: Execute,
    /// Generation of the only connection that may carry it; `None` for any.
    pub(crate) generation: Option<u64>,
    pub(crate) reply: oneshot::Sender<Result<(Cqe, Vec<u8>), Error>>,
}

/// Client of a controller's admin queue, across reconnects.
pub(crate) struct AdminClient<P: Provider> {
    requests: mpsc::Sender<AdminRequest>,
    watch: ConnectionWatch<P>,
}

impl<P: Provider> Clone for AdminClient<P> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), watch: self.watch.clone() }
    }
}

impl<P: Provider> AdminClient<P> {
    pub(crate) fn new(requests: mpsc::Sender<AdminRequest>, watch: ConnectionWatch<P>) -> Self {
        Self { requests, watch }
    }

    /// Executes a command; returns the response, of status success, and the data. Without a
    /// connection it waits for one, as I/O commands do; an idempotent command whose connection is
    /// lost is sent again.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        sqe: Sqe,
        transfer: Transfer,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let execute = Execute { queue: QueueId::ADMIN, sqe, transfer, name };
        let (response, data) = self.response_to(execute).await?;
        match response.status() {
            status if status.is_success() => Ok((response, data)),
            status => Err(Rejected::Command { command: name, status }.into()),
        }
    }

    /// Executes a command as [`execute`](Self::execute); returns a response of any status.
    pub(crate) async fn response_to(&self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        loop {
            if !matches!(self.watch.until_live_or_failing().await, ConnectionState::Live(_)) {
                return Err(self.unavailable_error());
            }
            match self.send(execute.clone(), None).await {
                Some(outcome) => return outcome,
                None if execute.sqe.opcode().is_idempotent() => {}
                None => return Err(self.unavailable_error()),
            }
        }
    }

    /// Executes a command on the connection of this generation only; returns a response of any
    /// status.
    pub(crate) async fn response_on_connection(
        &self,
        generation: u64,
        execute: Execute,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let outcome = self.send(execute, Some(generation)).await;
        outcome.unwrap_or_else(|| Err(self.unavailable_error()))
    }

    /// Sends a command once; returns its outcome, or `None` if its connection was lost.
    async fn send(
        &self,
        execute: Execute,
        generation: Option<u64>,
    ) -> Option<Result<(Cqe, Vec<u8>), Error>> {
        let (reply, outcome) = oneshot::channel();
        if self.requests.send(AdminRequest { execute, generation, reply }).await.is_err() {
            return Some(Err(self.watch.until_ended().await));
        }
        // The queue has its own deadline; past this one, it waits for another connection.
        let outcome = runtime::timeout(2 * ADMIN_TIMEOUT, outcome).await;
        outcome.unwrap_or_else(|_| Ok(Err(self.unavailable_error()))).ok()
    }

    /// Error of a command that cannot be executed now.
    pub(crate) fn unavailable_error(&self) -> Error {
        match self.watch.state() {
            ConnectionState::Disconnected(disconnection) => {
                Error::NotConnected(disconnection.error)
            }
            ConnectionState::Ended(error) => error,
            ConnectionState::Live(_) => {
                Error::Timeout { step: "an admin command", after: ADMIN_TIMEOUT }
            }
        }
    }
}
