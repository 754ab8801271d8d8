//! Actions, inputs and results that the bring-up of a controller and that of an I/O queue share,
//! and what both send and check.

use std::iter;

use auth::{AuthDecision, AuthRequirements, Authenticated, RequirementsError};

use crate::{
    config::{AuthenticationOptions, ConnectOptions},
    error::{Error, Incompatible},
    wire::{
        AuthenticationRequirements, CmAcceptData, CmRequestData, ConnectCommand, ConnectData,
        ControllerCapabilities, ControllerId, ControllerInfo, Cqe, IntoBytes, QueueId, Sqe,
        Version,
    },
};

/// Parameters of an RDMA connection for one queue.
#[derive(Debug)]
pub struct RdmaConnect {
    /// Queue to connect.
    pub queue: QueueId,
    /// Entries of the queue; one less may be in flight.
    pub entries: u16,
    /// Private data of the connection request.
    pub request: CmRequestData,
    /// Maximum in-capsule data of a command in bytes; 0 for none.
    pub in_capsule_bytes: u32,
}

/// Command for the driver to send.
#[derive(Clone, Debug)]
pub struct Execute {
    /// Queue to send it on.
    pub queue: QueueId,
    /// Submission queue entry; the driver sets command id and data pointer.
    pub sqe: Sqe,
    /// Data of the command.
    pub transfer: Transfer,
    /// Name of the step in messages, such as "reading CAP".
    pub name: &'static str,
}

/// Data transfer of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// This number of bytes from the controller.
    FromController(usize),
    /// No data.
    None,
    /// These bytes to the controller.
    ToController(Vec<u8>),
}

/// Outcome of the last action.
#[derive(Debug)]
pub enum BringUpInput<'a> {
    /// The queue has been authenticated.
    Authenticated(Authenticated),
    /// The command completed, with this response and data.
    Completed(Cqe, &'a [u8]),
    /// The RDMA connection is established, with the target's private data.
    RdmaConnected(CmAcceptData),
    /// All I/O queues are ready, in the order of their ids.
    IoQueuesReady(&'a [QueueReady]),
    /// The wait is over.
    TimerFired,
}

/// I/O queue that accepts commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReady {
    /// Entries of the queue; one less may be in flight.
    pub entries: u16,
    /// Outcome of authentication; `None` if there was none.
    pub authenticated: Option<Authenticated>,
}

/// Parameters negotiated with a controller.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// CNTLID.
    pub controller: ControllerId,
    /// Identify Controller data.
    pub info: ControllerInfo,
    /// Version of the specification it complies with.
    pub version: Version,
    /// Controller capabilities (CAP).
    pub capabilities: ControllerCapabilities,
    /// Number of I/O queues connected.
    pub io_queues: u16,
    /// Id of the first of them; the others follow.
    pub first_io_queue: QueueId,
    /// Entries of each I/O queue; one less may be in flight.
    pub queue_entries: u16,
    /// Maximum data transfer of one command in bytes.
    pub transfer_bytes_max: u64,
    /// Maximum in-capsule write data in bytes; 0 for none.
    pub in_capsule_bytes: u32,
    /// Outcome of authentication per queue, the admin queue first; `None` where there was none.
    pub authenticated: Vec<Option<Authenticated>>,
    /// True if a queue was not authenticated though there are secrets, which the policy must allow.
    pub unauthenticated_with_secrets: bool,
}

impl Negotiated {
    /// Ids of all queues, the admin queue first.
    pub fn queue_ids(&self) -> impl Iterator<Item = QueueId> {
        let first = self.first_io_queue.0;
        let io_queues = first..first.saturating_add(self.io_queues);
        iter::once(QueueId::ADMIN).chain(io_queues.map(QueueId))
    }

    /// Returns the authentication warnings of all queues, without duplicates.
    #[must_use]
    pub fn warnings(&self) -> Vec<auth::Warning> {
        let queues = self.authenticated.iter().flatten().flat_map(Authenticated::warnings);
        let mut all = Vec::new();
        for warning in self
            .unauthenticated_with_secrets
            .then_some(auth::Warning::NotRequired)
            .into_iter()
            .chain(queues)
        {
            if !all.contains(&warning) {
                all.push(warning);
            }
        }
        all
    }
}

/// Returns true if a queue must be authenticated now, according to the result of its Connect.
/// `expected` is set for I/O queues of a controller whose admin queue was authenticated.
pub(super) fn needs_authentication(
    options: &ConnectOptions,
    queue: QueueId,
    result: u32,
    expected: bool,
) -> Result<bool, Error> {
    let required = AuthenticationRequirements::parse(result);
    let requirements = AuthRequirements {
        authentication: required.authenticate,
        secure_channel: required.secure_channel,
    };
    let AuthenticationOptions { credentials, policy } = &options.authentication;
    match policy.decide(requirements, credentials.as_deref()) {
        Ok(decision) => Ok(decision == AuthDecision::Authenticate),
        // Linux 7's target requires authentication on the admin queue only, but accepts it on the
        // I/O queues: authenticate these too, so that a peer without the secrets cannot take their
        // place.
        Err(RequirementsError::NotRequired) if expected => Ok(true),
        Err(RequirementsError::SecureChannel) => Err(Incompatible::SecureChannel(queue).into()),
        Err(error) => Err(Error::Authentication { queue, failure: error.into() }),
    }
}

pub(super) fn connect_command(
    options: &ConnectOptions,
    queue: QueueId,
    entries: u16,
    keep_alive_ms: u32,
) -> Sqe {
    let command = ConnectCommand::new(queue, entries, keep_alive_ms);
    if options.disable_flow_control {
        command.without_flow_control().to_sqe()
    } else {
        command.to_sqe()
    }
}

pub(super) fn connect_data(options: &ConnectOptions, controller: ControllerId) -> Transfer {
    let host = &options.host;
    let data = ConnectData::new(host.id, controller, &options.subsystem, &host.nqn);
    Transfer::ToController(data.as_bytes().to_vec())
}
