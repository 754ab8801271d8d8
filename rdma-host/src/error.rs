//! Errors, grouped by whose fault they are.

mod path_error;
mod protection_mismatch;
mod rejected;
mod target_misbehaved;
mod zone_misuse;

use std::{sync::Arc, time::Duration};

use auth::{FailureClass, message::MessageId};

use crate::wire::{
    ControllerId, ControllerType, IdentifyError, LogError, NamespaceId, NamespaceInfo, Opcode,
    OptionalCommand, PrivateDataError, QueueId, ZoneReportError,
};

pub use path_error::{PathDifference, PathError};
pub use protection_mismatch::{ProtectionField, ProtectionMismatch};
pub use rejected::Rejected;
pub use target_misbehaved::TargetMisbehaved;
pub use zone_misuse::ZoneMisuse;

/// Error of this library, grouped by whose fault it is. Cheap to clone: one failure may end many
/// requests.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Authentication of a queue failed, or the policy forbids its use without.
    #[error("queue {queue}: {failure}")]
    Authentication {
        /// Queue.
        queue: QueueId,
        /// Failure of the authentication.
        failure: AuthenticationFailure,
    },
    /// The controller was closed by its owner.
    #[error("the controller was closed")]
    Closed,
    /// A command timed out and did not complete after an Abort either.
    #[error("no answer to a command on queue {queue} within {after:?}{abort}")]
    CommandTimeout {
        /// Queue.
        queue: QueueId,
        /// Timeout.
        after: Duration,
        /// Outcome of the Abort.
        abort: AbortOutcome,
    },
    /// The controller reported a fatal error (CSTS.CFS).
    #[error("the controller reports a fatal error (CSTS.CFS); see the target's log")]
    ControllerFatal,
    /// A write waited too long behind the write fence: see
    /// [`FenceOptions`](crate::config::FenceOptions).
    #[error("{0}")]
    Fenced(Fenced),
    /// The connection was lost, and no more attempts to reconnect are made.
    #[error("{0}")]
    GaveUp(Arc<GaveUp>),
    /// The target lacks something that is required.
    #[error("incompatible target: {0}")]
    Incompatible(#[from] Incompatible),
    /// The keep-alive timeout expired.
    #[error("no response for {0:?} (keep-alive); the target or the network is gone")]
    KeepAlive(Duration),
    /// Data from the target is malformed.
    #[error("malformed answer from the target: {0}")]
    Malformed(#[from] Malformed),
    /// The caller passed invalid arguments or called at the wrong time.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// There is no connection now; attempts to reconnect are being made.
    #[error("{0}")]
    NotConnected(Arc<NotConnected>),
    /// The paths of a subsystem do not belong together, or none of them can be used.
    #[error("{0}")]
    Path(Arc<PathError>),
    /// A block differs from its protection information.
    #[error("{0}")]
    Protection(#[from] ProtectionMismatch),
    /// Authentication with new secrets failed; the previous ones stay in use.
    #[error("{0}; the secrets in use stay as they were")]
    ReauthenticationFailed(Box<Error>),
    /// The target rejected a command or connection.
    #[error("{0}")]
    Rejected(#[from] Rejected),
    /// The target violated the protocol.
    #[error("the target misbehaved: {0}")]
    TargetMisbehaved(#[from] TargetMisbehaved),
    /// A step timed out.
    #[error("no answer to {step} within {after:?}; the target or the network is stuck")]
    Timeout {
        /// Step that timed out.
        step: &'static str,
        /// Timeout.
        after: Duration,
    },
    /// The controller was reset by its owner.
    #[error("the controller was reset")]
    Reset,
    /// The RDMA connection or device failed.
    #[error("{0}")]
    Transport(#[from] Transport),
}

/// Outcome of the Abort of a command that timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AbortOutcome {
    /// The controller says that it has aborted the command, which did not complete.
    #[error(", though the target says that it has aborted it")]
    Aborted,
    /// The controller did not answer.
    #[error(", nor to its Abort")]
    NoAnswer,
    /// The controller did not abort the command.
    #[error("; the target answered its Abort, but did not abort it")]
    NotAborted,
    /// No Abort could be sent.
    #[error("")]
    NotSent,
}

/// Reason why a queue is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationFailure {
    /// The exchange failed.
    #[error("{0}")]
    Exchange(#[from] auth::Failure),
    /// The target disconnected when this message was expected. On RDMA, Linux's target refuses this
    /// way: its disconnect overtakes the message with the reason.
    #[error("{}", disconnect_reason(*.0))]
    Disconnected(MessageId),
    /// The target refuses two-way authentication, though it takes the host's secret.
    #[error(
        "the target has no controller secret for this host: set the one that was given here there, \
         or give none"
    )]
    NoControllerSecret,
    /// An NQN is not valid.
    #[error("{0}")]
    Name(#[from] auth::NqnError),
    /// The operating system supplied no random bytes.
    #[error("the system has no random bytes for a challenge: {0}")]
    Randomness(#[from] getrandom::Error),
    /// The requirements of the target conflict with the credentials or the policy.
    #[error("{0}")]
    Requirements(#[from] auth::RequirementsError),
}

impl AuthenticationFailure {
    /// Class for the decision on a retry; `None` for a local failure.
    #[must_use]
    pub fn class(&self) -> Option<auth::FailureClass> {
        match self {
            Self::Exchange(failure) => Some(failure.class()),
            Self::Disconnected(MessageId::SUCCESS1) => Some(FailureClass::KeyRejected),
            Self::Disconnected(_) => Some(FailureClass::Incompatible),
            Self::NoControllerSecret => Some(FailureClass::KeyMissing),
            Self::Requirements(error) => Some(error.class()),
            Self::Name(_) | Self::Randomness(_) => None,
        }
    }
}

fn disconnect_reason(expected: MessageId) -> &'static str {
    match expected {
        MessageId::SUCCESS1 => {
            "the target hung up on our response to its challenge, as targets do that refuse a \
             secret; compare the host secret at both ends, and see the target's log"
        }
        _ => {
            "the target hung up on our offer of hashes and groups; it may allow none of them: see \
             its log"
        }
    }
}

/// State without a connection, in which commands no longer wait for one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not connected, attempt {attempt}{} to reconnect: {cause}", of_max(*.max))]
pub struct NotConnected {
    /// Error that ended the connection or the latest attempt.
    pub cause: Box<Error>,
    /// Number of attempts started since the loss.
    pub attempt: u32,
    /// Maximum number of attempts; `None` for unlimited.
    pub max: Option<u32>,
}

/// Final failure after all attempts to reconnect.
#[derive(Clone, Debug, thiserror::Error)]
#[error("gave up after {} ({reason}): {cause}", count_of(*.attempts))]
pub struct GaveUp {
    /// Last error.
    pub cause: Box<Error>,
    /// Number of attempts made since the loss.
    pub attempts: u32,
    /// Reason for giving up.
    pub reason: GiveUpReason,
}

/// Blocks that are closed to writes, since a write of a lost connection may still change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "controller {controller} of a lost connection may still write to these blocks: no proof of its \
     end within {after:?}; see the target, or open the fence (option fence)"
)]
pub struct Fenced {
    /// Controller that is not known to have ended.
    pub controller: ControllerId,
    /// Time for which the write has waited.
    pub after: Duration,
}

/// Reason for making no more attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUpReason {
    /// All attempts allowed by `loss_timeout` were made.
    #[error("no attempts left (ctrl_loss_tmo)")]
    Exhausted,
    /// A retry cannot succeed.
    #[error("trying again can't help")]
    NotRetryable,
    /// The target needs a fix, and strict mode does not retry until it is fixed.
    #[error("the target has to be repaired first (strict)")]
    NeedsFix,
    /// The time limit has passed.
    #[error("out of time")]
    TimeLimit,
}

fn of_max(max: Option<u32>) -> String {
    max.map_or_else(String::new, |max| format!(" of {max}"))
}

fn count_of(count: u32) -> String {
    match count {
        1 => "1 attempt to reconnect".to_owned(),
        count => format!("{count} attempts to reconnect"),
    }
}

/// Requirement that the target does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// In-capsule data does not directly follow the command (ICDOFF).
    #[error("it wants in-capsule data {0} bytes behind the command (ICDOFF); only 0 is supported")]
    InCapsuleOffset(u32),
    /// Discovery log change notices are not supported (OAES bit 31).
    #[error(
        "it does not tell when its discovery log changes (OAES); read the log again now and then \
         instead"
    )]
    NoDiscoveryEvents,
    /// A command is not supported that the controller need not support (ONCS, FUSES).
    #[error("it does not support {0}")]
    NoCommand(OptionalCommand),
    /// There is no keep-alive timer (KAS is 0), though Connect has enabled it.
    #[error("it has no keep-alive timer (KAS); do without by a keep-alive time of 0")]
    NoKeepAlive,
    /// Keyed SGLs are not supported (SGLS bit 2).
    #[error("it takes no keyed SGLs, which RDMA needs (SGLS)")]
    NoKeyedSgl,
    /// The NVM command set is not supported (CAP.CSS).
    #[error("it has no NVM command set (CAP.CSS)")]
    NoNvmCommandSet,
    /// The minimum page size exceeds 4 KiB (CAP.MPSMIN).
    #[error("its smallest page has {0} bytes (CAP.MPSMIN); at most 4096 is supported")]
    PageSize(u64),
    /// A secure channel is required (ASCR in a Connect response).
    #[error("it demands a secure channel on queue {0}, which RDMA does not have")]
    SecureChannel(QueueId),
}

/// Data from the target is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Identify data.
    #[error("{0}")]
    Identify(#[from] IdentifyError),
    /// A log page.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Private data of a connection reply.
    #[error("{0}")]
    PrivateData(#[from] PrivateDataError),
    /// A response capsule that is not 16 bytes.
    #[error("a response of {0} bytes on queue {1}; 16 are due")]
    ResponseLength(u32, QueueId),
    /// Data on zones.
    #[error("{0}")]
    Zones(#[from] ZoneReportError),
}

/// The caller passed invalid arguments or called at the wrong time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The length is not a multiple of the block size.
    #[error("{bytes} bytes is not a multiple of the block size, {block_size} bytes")]
    BlockMultiple {
        /// Value requested.
        bytes: u64,
        /// The namespace's block size.
        block_size: u32,
    },
    /// The transfer is larger than one command allows.
    #[error("{bytes} bytes in one command; at most {max} are possible")]
    CommandBytes {
        /// Value requested.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The operation does not transfer metadata, which the namespace has.
    #[error(
        "namespace {namespace} has {bytes} bytes of metadata a block, which this does not \
         transfer; `nvmf read`, `write` and `compare` do, by --metadata"
    )]
    Metadata {
        /// Namespace.
        namespace: NamespaceId,
        /// Bytes of metadata for each block.
        bytes: u16,
    },
    /// Tags or an action of protection information that the namespace does not have.
    #[error("namespace {namespace}: {reason}")]
    Protection {
        /// Namespace.
        namespace: NamespaceId,
        /// Reason.
        reason: &'static str,
    },
    /// The discovery subsystem has no namespaces.
    #[error(
        "this is the discovery subsystem, which has no namespaces; `nvmf discover` lists \
            those that do"
    )]
    Discovery,
    /// The device allows less than the queues need.
    #[error(
        "the queues need {needed} {what}, and device {device} allows {max}; use fewer or smaller \
         queues"
    )]
    DeviceLimit {
        /// Name of the RDMA device.
        device: String,
        /// Resource.
        what: &'static str,
        /// Value that is needed.
        needed: u64,
        /// The limit.
        max: u64,
    },
    /// Discovery was requested from a subsystem that is not a discovery subsystem.
    #[error(
        "this subsystem is no discovery subsystem (its controller is of type {}); use \
         nqn.2014-08.org.nvmexpress.discovery, or `nvmf identify` for this one", .0.0
    )]
    NotDiscovery(ControllerType),
    /// The queues of the controller belong to pollers of the caller: namespaces can't be read and
    /// written otherwise.
    #[error("the I/O queues of this controller are polled by the caller: submit to its pollers")]
    PolledController,
    /// All queues are full: complete commands first.
    #[error("all queues are full")]
    QueuesFull,
    /// After a reconnect or a change, the namespace id belongs to another namespace. Further reads
    /// and writes are refused so that the data of both is not mixed.
    #[error(
        "namespace {0} is not the one it was when it was identified; identify it again to use it"
    )]
    NamespaceReplaced(NamespaceId),
    /// The namespace does not exist or is not attached for this host.
    #[error("namespace {0} is not there; `nvmf identify` lists those that are")]
    NoNamespace(NamespaceId),
    /// An option is out of range.
    #[error("{option} {value} is out of range; {range} is possible")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Value requested.
        value: u64,
        /// Valid range.
        range: &'static str,
    },
    /// A command of the caller's own making is not one that can be sent.
    #[error("a command with opcode {:#04x}: {reason}", .opcode.0)]
    Passthrough {
        /// Opcode.
        opcode: Opcode,
        /// Reason.
        reason: &'static str,
    },
    /// The block range ends beyond the namespace.
    #[error(
        "blocks {lba} to {} are past the end: namespace {namespace} has {size} blocks, 0 to {}",
        lba.saturating_add(*blocks).saturating_sub(1), size.saturating_sub(1)
    )]
    PastEnd {
        /// Namespace.
        namespace: NamespaceId,
        /// First block of the range.
        lba: u64,
        /// Number of blocks in the range.
        blocks: u64,
        /// Size of the namespace in blocks.
        size: u64,
    },
    /// A command on zones is not one that the namespace can execute.
    #[error("{0}")]
    Zone(#[from] ZoneMisuse),
}

impl Misuse {
    /// Checks that a namespace has no metadata, for an operation that transfers none.
    ///
    /// # Errors
    ///
    /// [`Misuse::Metadata`] if it has.
    pub fn check_no_metadata(info: &NamespaceInfo) -> Result<(), Self> {
        match info.metadata.bytes {
            0 => Ok(()),
            bytes => Err(Self::Metadata { namespace: info.id, bytes }),
        }
    }
}

/// The RDMA connection or device failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Transport {
    /// Address or route resolution of the target failed.
    #[error(
        "no RDMA path to {address} ({step}: {reason}); check the address and that an RDMA device \
         serves the network it is on"
    )]
    Address {
        /// Address of the target.
        address: std::net::SocketAddr,
        /// Failed step.
        step: &'static str,
        /// Error text of the operating system.
        reason: String,
    },
    /// The local device reported an event that ends the connection.
    #[error("our RDMA device reports that {0}; a new connection is possible once it works")]
    Device(&'static str),
    /// The route leads through another RDMA device than before, or the device was removed and added
    /// again.
    #[error("the RDMA device is not the one of before; memory registered with that is of no use")]
    DeviceChanged,
    /// The target or the network closed the connection.
    #[error("the target or the network closed the connection of queue {0}")]
    Disconnected(QueueId),
    /// The target granted fewer queues than before, and none is left for this poller.
    #[error("the target grants fewer queues than before, and none for this poller")]
    NoQueue,
    /// The port of the local device is down.
    #[error("the port of our RDMA device is down")]
    PortDown,
    /// A work request completed with an error status.
    #[error("queue {queue}: a work request failed: {status}")]
    QueuePair {
        /// Queue.
        queue: QueueId,
        /// Text of the completion status.
        status: String,
    },
    /// The target is unreachable, or does not answer connection requests.
    #[error("{address} does not answer ({reason}); check the address and the network")]
    Unreachable {
        /// Address of the target.
        address: std::net::SocketAddr,
        /// Event and status of the CM.
        reason: String,
    },
    /// A verbs call failed.
    #[error("{}", chain(&**.0))]
    Verbs(Arc<dyn std::error::Error + Send + Sync>),
}

/// Class of an error, for exit codes and the decision on a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Access is denied permanently: a retry cannot succeed.
    Access,
    /// Caller error.
    Caller,
    /// Any other failure of a command or the target.
    Failed,
    /// The network failed or the target is absent; a retry may succeed.
    Transport,
}

impl Error {
    /// Class of this error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Authentication { failure, .. } => match failure.class() {
                Some(FailureClass::Downgraded | FailureClass::KeyMissing) => ErrorClass::Access,
                Some(FailureClass::KeyRejected) => ErrorClass::Access,
                _ => ErrorClass::Failed,
            },
            Self::NotConnected(state) => state.cause.class(),
            Self::GaveUp(end) => end.cause.class(),
            Self::ReauthenticationFailed(cause) => cause.class(),
            Self::Rejected(rejected) => rejected.class(),
            Self::Misuse(_) => ErrorClass::Caller,
            Self::Path(path) => path.class(),
            Self::CommandTimeout { .. }
            | Self::KeepAlive(_)
            | Self::Timeout { .. }
            | Self::Transport(_) => ErrorClass::Transport,
            _ => ErrorClass::Failed,
        }
    }
}

/// Formats an error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<IdentifyError> for Error {
    fn from(error: IdentifyError) -> Self {
        match error {
            IdentifyError::NoNamespace(id) => Self::Misuse(Misuse::NoNamespace(id)),
            error => Self::Malformed(error.into()),
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<PrivateDataError> for Error {
    fn from(error: PrivateDataError) -> Self {
        Self::Malformed(error.into())
    }
}
