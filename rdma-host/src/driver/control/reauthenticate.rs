//! Authenticating the queues of a live controller again, with I/O going on.
//!
//! ```text
//!   admin queue      beside keep-alives and requests, by the admin task
//!      |  the new secrets hold from here on
//!   I/O queue 1..n   by the poller that owns it, among the commands of its owner (an errand)
//! ```

use std::sync::Arc;

use auth::{Authenticated, Credentials};
use tokio::sync::oneshot;
use verbs::{Buffer, Domain, Provider};

use crate::{
    config::{ADMIN_TIMEOUT, MemoryMode},
    driver::{
        buffers::verbs_error,
        connect::{
            admin_queue::{AdminClient, data_for, read_answer},
            authenticate::{AuthenticationParties, CommandChannel, authenticate},
        },
        control::shared::ControllerShared,
        data_path::{
            command::Command,
            connection_state::ConnectionWatch,
            mailbox::{InternalCommand, PollerMailbox},
        },
    },
    error::{Error, Transport},
    proto::Execute,
    wire::{Cqe, Identify, QueueId},
};

/// What it takes to authenticate a controller again.
pub(crate) struct Reauthentication<P: Provider> {
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) admin: AdminClient,
    pub(crate) parties: AuthenticationParties,
    /// New secrets, if they change.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// The connection that it is done on.
struct Connection<P: Provider> {
    generation: u64,
    domain: Domain<P>,
    mode: MemoryMode,
    berths: Vec<Arc<PollerMailbox<P>>>,
    authenticated: Vec<Option<Authenticated>>,
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
        // Whatever becomes of the I/O queues, the target has these.
        *self.shared.authentication.lock() = self.parties.authentication.clone();
        let outcome = self.io_queues(&connection).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "an I/O queue is not authenticated again");
        }
        outcome
    }

    fn connection(&self) -> Result<Connection<P>, Error> {
        let present = self.shared.present.lock();
        match &*present {
            Some(present) if self.shared.liveness.is_live(present.generation) => Ok(Connection {
                generation: present.generation,
                domain: present.domain.clone(),
                mode: present.memory.mode,
                berths: present.berths.clone(),
                authenticated: present.negotiated.authenticated.clone(),
            }),
            _ => Err(self.admin.why_not()),
        }
    }

    async fn admin_queue(&self) -> Result<Connection<P>, Error> {
        let mut connection = self.connection()?;
        let mut carrier = AdminQueue { client: &self.admin, generation: connection.generation };
        let how = authenticate(&mut carrier, QueueId::ADMIN, &self.parties).await?;
        connection.authenticated[0] = Some(how);
        self.record(&connection);
        Ok(connection)
    }

    async fn io_queues(
        &self,
        connection: &Connection<P>,
    ) -> Result<Vec<Option<Authenticated>>, Error> {
        let scratch = connection.domain.allocate(Identify::SIZE, connection.mode.access());
        let mut scratch = Some(scratch.map_err(verbs_error)?);
        let mut now = connection.authenticated.clone();
        for (queue, how) in (0..).map(QueueId).zip(&mut now).skip(1) {
            if how.is_none() {
                continue;
            }
            let berth = connection.berths.iter().find(|berth| berth.serves(queue));
            let mut carrier = LiveQueue {
                berth: berth.ok_or(Transport::NoQueue)?,
                liveness: &self.shared.liveness,
                generation: connection.generation,
                scratch: &mut scratch,
            };
            *how = Some(authenticate(&mut carrier, queue, &self.parties).await?);
        }
        let connection = Connection { authenticated: now, ..connection.clone() };
        self.record(&connection);
        Ok(connection.authenticated)
    }

    /// For whoever asks how the queues are authenticated.
    fn record(&self, connection: &Connection<P>) {
        if let Some(present) = &mut *self.shared.present.lock()
            && present.generation == connection.generation
        {
            let negotiated = Arc::make_mut(&mut present.negotiated);
            negotiated.authenticated.clone_from(&connection.authenticated);
        }
    }
}

impl<P: Provider> Clone for Connection<P> {
    fn clone(&self) -> Self {
        Self {
            generation: self.generation,
            domain: self.domain.clone(),
            mode: self.mode,
            berths: self.berths.clone(),
            authenticated: self.authenticated.clone(),
        }
    }
}

/// The admin queue of a live connection, which others use, too.
struct AdminQueue<'a> {
    client: &'a AdminClient,
    generation: u64,
}

impl CommandChannel for AdminQueue<'_> {
    async fn carry(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.client.request(execute, Some(self.generation)).await
    }
}

/// An I/O queue of a live connection, in the hands of its poller.
struct LiveQueue<'a, P: Provider> {
    berth: &'a PollerMailbox<P>,
    liveness: &'a ConnectionWatch,
    generation: u64,
    scratch: &'a mut Option<Buffer>,
}

impl<P: Provider> CommandChannel for LiveQueue<'_, P> {
    async fn carry(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let data = data_for(&execute.transfer, self.scratch);
        let (reply, done) = oneshot::channel();
        self.berth.post(InternalCommand {
            generation: self.generation,
            queue: execute.queue,
            command: Command { sqe: execute.sqe, data, user: 0 },
            reply,
        });
        let timeout = Error::Timeout { step: execute.name, after: ADMIN_TIMEOUT };
        match tokio::time::timeout(ADMIN_TIMEOUT, done).await {
            Ok(Ok(done)) => read_answer(done, &execute, self.scratch),
            Ok(Err(_)) => Err(self.liveness.cause().unwrap_or(Error::Reset)),
            Err(_) => Err(timeout),
        }
    }
}
