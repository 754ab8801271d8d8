//! Re-authentication of the queues of a live controller, during I/O.
//!
//! ```text
//!   admin queue      beside keep-alives and requests, by the admin task
//!      |  from here on the new secrets are in use
//!   I/O queue 1..n   by the poller that owns it, among the commands of its owner
//! ```

use std::sync::Arc;

use auth::{Authenticated, Credentials};
use tokio::sync::oneshot;
use verbs::Provider;

use crate::{
    config::ADMIN_TIMEOUT,
    driver::{
        buffers::verbs_error,
        connect::authenticate::{AuthenticationParties, CommandChannel, authenticate},
        control::shared::ControllerShared,
        data_path::{
            admin_queue::{client::AdminClient, command_buffer::CommandBuffer},
            command::Command,
            connection::{Connection, InternalCommand, PollerMailbox},
            connection_state::{ConnectionState, ConnectionWatch},
        },
        runtime,
    },
    error::Error,
    proto::Execute,
    wire::{Cqe, Identify, QueueId},
};

/// Re-authentication of a controller.
pub(crate) struct Reauthentication<P: Provider> {
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) admin: AdminClient<P>,
    pub(crate) parties: AuthenticationParties,
    /// New secrets; `None` to use the present ones.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

impl<P: Provider> Reauthentication<P> {
    /// Authenticates the admin queue, and then each I/O queue that was authenticated before.
    pub(crate) async fn run(mut self) -> Result<Vec<Option<Authenticated>>, Error> {
        let new = self.credentials.is_some();
        self.parties.authentication = self.shared.authentication.lock().clone();
        if new {
            self.parties.authentication.credentials = self.credentials.take();
        }
        let outcome = self.admin_queue().await;
        let connection = match outcome {
            Ok(connection) => connection,
            Err(error) if new => {
                tracing::warn!(%error, "the new secrets are not in use: the old ones stay");
                return Err(Error::ReauthenticationFailed(Box::new(error)));
            }
            Err(error) => return Err(error),
        };
        // The target uses the new secrets, whether or not the I/O queues succeed.
        *self.shared.authentication.lock() = self.parties.authentication.clone();
        let outcome = self.io_queues(&connection).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "an I/O queue is not authenticated again");
        }
        outcome
    }

    async fn admin_queue(&self) -> Result<Arc<Connection<P>>, Error> {
        let ConnectionState::Live(connection) = self.shared.connection.state() else {
            return Err(self.admin.unavailable_error());
        };
        let mut channel = AdminQueue { client: &self.admin, generation: connection.generation };
        let authenticated = authenticate(&mut channel, QueueId::ADMIN, &self.parties).await?;
        record(&connection, 0, authenticated);
        Ok(connection)
    }

    async fn io_queues(
        &self,
        connection: &Connection<P>,
    ) -> Result<Vec<Option<Authenticated>>, Error> {
        let buffer = connection.domain.allocate(Identify::SIZE, connection.memory.mode.access());
        let mut buffer = CommandBuffer::from(buffer.map_err(verbs_error)?);
        let before = connection.negotiated();
        let queues = before.queue_ids().zip(&before.authenticated).enumerate();
        for (index, (queue, before)) in queues.skip(1) {
            if before.is_none() {
                continue;
            }
            let mut channel = LiveQueue {
                mailbox: connection.mailbox_of(queue).expect("each I/O queue has a poller"),
                watch: &self.shared.connection,
                buffer: &mut buffer,
            };
            let authenticated = authenticate(&mut channel, queue, &self.parties).await?;
            record(connection, index, authenticated);
        }
        Ok(connection.negotiated().authenticated.clone())
    }
}

/// Stores the outcome for a queue in the connection; the admin queue is the first.
fn record<P: Provider>(connection: &Connection<P>, index: usize, authenticated: Authenticated) {
    let mut negotiated = connection.negotiated.lock();
    let outcomes = &mut Arc::make_mut(&mut negotiated).authenticated;
    outcomes[index] = Some(authenticated);
}

/// Admin queue of a live connection, which also serves other clients.
struct AdminQueue<'a, P: Provider> {
    client: &'a AdminClient<P>,
    generation: u64,
}

impl<P: Provider> CommandChannel for AdminQueue<'_, P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.client.response_on_connection(self.generation, execute).await
    }
}

/// I/O queue of a live connection, which its poller owns.
struct LiveQueue<'a, P: Provider> {
    mailbox: &'a PollerMailbox<P>,
    watch: &'a ConnectionWatch<P>,
    buffer: &'a mut CommandBuffer,
}

impl<P: Provider> CommandChannel for LiveQueue<'_, P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let data = self.buffer.data(&execute.transfer);
        let (reply, done) = oneshot::channel();
        self.mailbox.post(InternalCommand {
            queue: execute.queue,
            command: Command { sqe: execute.sqe, data, user: 0 },
            reply,
        });
        let timeout = Error::Timeout { step: execute.name, after: ADMIN_TIMEOUT };
        match runtime::timeout(ADMIN_TIMEOUT, done).await {
            Ok(Ok(done)) => self.buffer.response(done, &execute),
            Ok(Err(_)) => Err(self.watch.cause().unwrap_or(Error::Reset)),
            Err(_) => Err(timeout),
        }
    }
}
