//! What can go wrong, sorted by who is to blame.

use std::sync::Arc;
use std::time::Duration;

use auth::FailureClass;
use auth::message::MessageId;

use crate::wire::{
    CmReject, CommandId, ControllerId, ControllerType, IdentifyError, LogError, NamespaceId,
    PrivateDataError, QueueId, RemoteKey, Status,
};

/// A failure, by blame. Cheap to clone: one cause may end many requests.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A queue could not be authenticated, or was not to be used without.
    #[error("queue {queue}: {failure}")]
    Authentication {
        /// Which queue.
        queue: QueueId,
        /// Why.
        failure: AuthenticationFailure,
    },
    /// The controller was closed by its owner.
    #[error("the controller was closed")]
    Closed,
    /// A command did not come back in time, nor after an Abort.
    #[error("no answer to a command on queue {queue} within {after:?}, nor to its Abort")]
    CommandTimeout {
        /// On which queue.
        queue: QueueId,
        /// How long.
        after: Duration,
    },
    /// The controller reported a fatal error (CSTS.CFS).
    #[error("the controller reports a fatal error (CSTS.CFS); see the target's log")]
    ControllerFatal,
    /// The connection was lost, and there will be no more attempts to get it back.
    #[error("{0}")]
    GaveUp(Arc<GaveUp>),
    /// Nothing in common with this target.
    #[error("incompatible target: {0}")]
    Incompatible(#[from] Incompatible),
    /// The controller gave no sign of life for the keep-alive time.
    #[error("no sign of life for {0:?} (keep-alive); the target or the network is gone")]
    KeepAlive(Duration),
    /// Bytes that can't be read.
    #[error("malformed answer from the target: {0}")]
    Malformed(#[from] Malformed),
    /// Our caller asked for what can't be.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// There is no connection now; one is being sought.
    #[error("{0}")]
    NotConnected(Arc<NotConnected>),
    /// New secrets were not taken: the ones before stay in use.
    #[error("{0}; the secrets in use stay as they were")]
    ReauthenticationFailed(Box<Error>),
    /// A well-formed refusal.
    #[error("{0}")]
    Rejected(#[from] Rejected),
    /// The target broke the protocol.
    #[error("the target misbehaved: {0}")]
    TargetMisbehaved(#[from] TargetMisbehaved),
    /// A deadline passed.
    #[error("no answer to {step} within {after:?}; the target or the network is stuck")]
    Timeout {
        /// What was waited for.
        step: &'static str,
        /// How long.
        after: Duration,
    },
    /// The controller was reset by its owner.
    #[error("the controller was reset")]
    Reset,
    /// The RDMA connection or device failed.
    #[error("{0}")]
    Transport(#[from] Transport),
}

/// Why a queue is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationFailure {
    /// The exchange failed.
    #[error("{0}")]
    Exchange(#[from] auth::Failure),
    /// The target ended the connection where this message was due: on RDMA, Linux's target refuses
    /// so, since what it has to say is overtaken by its hanging up.
    #[error("{}", disconnect_reason(*.0))]
    Disconnected(MessageId),
    /// One of the names can't be used.
    #[error("{0}")]
    Name(#[from] auth::NqnError),
    /// The system gave no random bytes.
    #[error("the system has no random bytes for a challenge: {0}")]
    Randomness(#[from] getrandom::Error),
    /// What the target asks and what we have do not fit.
    #[error("{0}")]
    Requirements(#[from] auth::RequirementsError),
}

impl AuthenticationFailure {
    /// What it means for another attempt; nothing for a failure of our own system.
    #[must_use]
    pub fn class(&self) -> Option<auth::FailureClass> {
        match self {
            Self::Exchange(failure) => Some(failure.class()),
            Self::Disconnected(MessageId::SUCCESS1) => Some(FailureClass::KeyRejected),
            Self::Disconnected(_) => Some(FailureClass::Incompatible),
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

/// Commands are not held any longer while there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not connected, attempt {attempt}{} to reconnect: {cause}", of_max(*.max))]
pub struct NotConnected {
    /// Why the connection was lost, or the latest attempt failed.
    pub cause: Box<Error>,
    /// Attempts begun since the loss.
    pub attempt: u32,
    /// How many there will be; nothing for no end of them.
    pub max: Option<u32>,
}

/// The end of all attempts.
#[derive(Clone, Debug, thiserror::Error)]
#[error("gave up after {} ({reason}): {cause}", count_of(*.attempts))]
pub struct GaveUp {
    /// The last thing that went wrong.
    pub cause: Box<Error>,
    /// Attempts made since the loss.
    pub attempts: u32,
    /// Why there are no more.
    pub reason: GiveUpReason,
}

/// Why there are no more attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUpReason {
    /// All attempts that `loss_timeout` allows were made.
    #[error("no attempts left (ctrl_loss_tmo)")]
    Exhausted,
    /// The cause can't be cured by trying again.
    #[error("trying again can't help")]
    NotRetryable,
    /// The target must be mended, and strict mode does not wait for that.
    #[error("somebody must mend the target (strict)")]
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

/// No common ground with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// In-capsule data would not follow the command.
    #[error("it wants in-capsule data {0} bytes behind the command (ICDOFF); only 0 is supported")]
    InCapsuleOffset(u32),
    /// No change of the discovery log is told (OAES bit 31).
    #[error(
        "it does not tell when its discovery log changes (OAES); read the log again now and then \
         instead"
    )]
    NoDiscoveryEvents,
    /// KAS is 0, though Connect has turned the keep-alive on.
    #[error("it has no keep-alive timer (KAS); do without by a keep-alive time of 0")]
    NoKeepAlive,
    /// SGLS bit 2 is missing.
    #[error("it takes no keyed SGLs, which RDMA needs (SGLS)")]
    NoKeyedSgl,
    /// CAP.CSS without NVM.
    #[error("it has no NVM command set (CAP.CSS)")]
    NoNvmCommandSet,
    /// CAP.MPSMIN above 4 KiB.
    #[error("its smallest page has {0} bytes (CAP.MPSMIN); at most 4096 is supported")]
    PageSize(u64),
    /// ASCR in a Connect response.
    #[error("it demands a secure channel on queue {0}, which RDMA does not have")]
    SecureChannel(QueueId),
}

/// Bytes that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Identify data.
    #[error("{0}")]
    Identify(#[from] IdentifyError),
    /// A log page.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Private data of a connection.
    #[error("{0}")]
    PrivateData(#[from] PrivateDataError),
    /// A response capsule that is not 16 bytes.
    #[error("a response of {0} bytes on queue {1}; 16 are due")]
    ResponseLength(u32, QueueId),
}

/// Our caller asked for what can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The buffer does not hold whole blocks.
    #[error("{bytes} bytes is not a multiple of the block size, {block_size} bytes")]
    BlockMultiple {
        /// What was asked.
        bytes: u64,
        /// The namespace's block size.
        block_size: u32,
    },
    /// More than one command can carry.
    #[error("{bytes} bytes in one command; at most {max} are possible")]
    CommandBytes {
        /// What was asked.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The discovery subsystem has no namespaces.
    #[error(
        "this is the discovery subsystem, which has no namespaces; `nvmf discover` lists \
            those that do"
    )]
    Discovery,
    /// Discovery was asked of a subsystem that has namespaces.
    #[error(
        "this subsystem is no discovery subsystem (its controller is of type {}); use \
         nqn.2014-08.org.nvmexpress.discovery, or `nvmf identify` for this one", .0.0
    )]
    NotDiscovery(ControllerType),
    /// Every slot is taken: complete commands first.
    #[error("all queues are full")]
    QueuesFull,
    /// After a reconnect or a change the namespace was another one: what is read and written now
    /// must not mix with what was.
    #[error(
        "namespace {0} is not the one it was when it was identified; identify it anew to use it"
    )]
    NamespaceReplaced(NamespaceId),
    /// There is no such namespace, or not for this host.
    #[error("namespace {0} is not there; `nvmf identify` lists those that are")]
    NoNamespace(NamespaceId),
    /// An option out of its range.
    #[error("{option} {value} is out of range; {range} is possible")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was asked.
        value: u64,
        /// What is possible.
        range: &'static str,
    },
    /// The range ends beyond the namespace.
    #[error(
        "blocks {lba} to {} are past the end: namespace {namespace} has {size} blocks, 0 to {}",
        lba.saturating_add(*blocks).saturating_sub(1), size.saturating_sub(1)
    )]
    PastEnd {
        /// Which namespace.
        namespace: NamespaceId,
        /// First block asked for.
        lba: u64,
        /// Blocks asked for.
        blocks: u64,
        /// Blocks there are.
        size: u64,
    },
}

/// A well-formed refusal by the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A command failed.
    #[error("{command} failed: {status}")]
    Command {
        /// What was asked.
        command: &'static str,
        /// What the controller said.
        status: Status,
    },
    /// Fabrics Connect failed.
    #[error("{}", connect_refusal(*queue, *status, *result))]
    Connect {
        /// Which queue.
        queue: QueueId,
        /// What the controller said.
        status: Status,
        /// The result, which locates a wrong parameter.
        result: u32,
    },
    /// RDMA CM or the target's CM code refused the connection.
    #[error("queue {queue} was rejected: {reject}")]
    Connection {
        /// Which queue.
        queue: QueueId,
        /// By whom and why.
        reject: CmReject,
    },
}

fn connect_refusal(queue: QueueId, status: Status, result: u32) -> String {
    match status.code() {
        Status::CONNECT_INVALID_PARAMETERS => format!(
            "the target refused Connect on queue {queue}: {status}; it dislikes {}",
            crate::wire::connect_invalid_parameter(result)
        ),
        Status::CONNECT_INVALID_HOST => format!(
            "the target does not allow this host: {status}; add our host NQN to the subsystem's \
             allowed hosts"
        ),
        _ => format!("the target refused Connect on queue {queue}: {status}"),
    }
}

/// The target broke the protocol; its queue can't be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetMisbehaved {
    /// Capsules too small to carry a command or response.
    #[error("{what} of {bytes} bytes are too small")]
    CapsuleSize {
        /// Which capsules.
        what: &'static str,
        /// Their size.
        bytes: u64,
    },
    /// Identify names another controller than Connect.
    #[error("Connect granted controller {granted:?}, Identify speaks of {identified:?}")]
    ControllerId {
        /// By Connect.
        granted: ControllerId,
        /// By Identify.
        identified: ControllerId,
    },
    /// Its discovery log is never the same twice.
    #[error("its discovery log keeps changing while it is read, {0} times now; try again later")]
    DiscoveryLogChanges(u8),
    /// RECFMT is none we know.
    #[error("its discovery log has format {0}; only format 0 is known")]
    DiscoveryLogFormat(u16),
    /// More entries than make sense.
    #[error("its discovery log claims {records} entries; more than {max} are not read")]
    DiscoveryLogSize {
        /// NUMREC as sent.
        records: u64,
        /// The limit.
        max: u64,
    },
    /// A connection event that can't come in this state.
    #[error("connection event {0} came out of order")]
    UnexpectedEvent(&'static str),
    /// A response took a key out of use that is not its command's.
    #[error(
        "the response to command {command} on queue {queue} took key {:#010x} out of use, which \
         is not that command's", key.0
    )]
    WrongKeyInvalidated {
        /// The key that went.
        key: RemoteKey,
        /// The response's command id.
        command: CommandId,
        /// On which queue.
        queue: QueueId,
    },
    /// Without the keep-alive that Connect has turned on, it would forget us.
    #[error("it refuses Keep Alive, which it has agreed to: {0}")]
    KeepAliveRefused(Status),
    /// A list that goes in circles, or on for ever.
    #[error("its list of namespaces does not end")]
    NamespaceList,
    /// Connect granted the id that stands for any (Base 3.1.1).
    #[error("Connect granted controller id 0xffff, which is none")]
    InvalidControllerId,
    /// A response to no command in flight: unknown, finished, or answered twice.
    #[error("a response to command {command} on queue {queue}, which is not in flight")]
    UnknownCommand {
        /// The response's command id.
        command: CommandId,
        /// On which queue.
        queue: QueueId,
    },
}

/// The RDMA connection or device failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Transport {
    /// The target's address did not resolve to an RDMA path.
    #[error(
        "no RDMA path to {address} ({step}: {reason}); check the address and that an RDMA device \
         serves the network it is on"
    )]
    Address {
        /// The target's address.
        address: std::net::SocketAddr,
        /// Which step failed.
        step: &'static str,
        /// The operating system's words.
        reason: String,
    },
    /// Our device reports by itself what ends the connection.
    #[error("our RDMA device reports that {0}; a new connection is possible once it works")]
    Device(&'static str),
    /// The route now leads through another RDMA device, or ours was removed and is back.
    #[error("the RDMA device is not the one of before; memory registered with that is of no use")]
    DeviceChanged,
    /// The connection ended.
    #[error("the target or the network closed the connection of queue {0}")]
    Disconnected(QueueId),
    /// The target grants fewer queues than there were: none is left for this poller.
    #[error("the target grants fewer queues than before, and none for this poller")]
    NoQueue,
    /// The port of our device is down.
    #[error("the port of our RDMA device is down")]
    PortDown,
    /// A work request failed on the wire or in memory.
    #[error("queue {queue}: a work request failed: {status}")]
    QueuePair {
        /// Which queue.
        queue: QueueId,
        /// The completion status in words.
        status: String,
    },
    /// The target can't be reached, or does not answer connection requests.
    #[error("{address} does not answer ({reason}); check the address and the network")]
    Unreachable {
        /// The target's address.
        address: std::net::SocketAddr,
        /// The CM's words.
        reason: String,
    },
    /// The verbs layer failed.
    #[error("{}", chain(&**.0))]
    Verbs(Arc<dyn std::error::Error + Send + Sync>),
}

/// What an error means for who waits: which exit code, and whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Access is refused for good: a retry can't help.
    Access,
    /// Our caller's mistake.
    Caller,
    /// The command or the target failed in another way.
    Failed,
    /// The network or the target's presence; a retry may help.
    Transport,
}

impl Error {
    /// What this means for who waits.
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
            Self::Rejected(Rejected::Connect { status, .. }) if status.do_not_retry() => {
                ErrorClass::Access
            }
            Self::Rejected(Rejected::Command { status, .. })
                if status.code() == Status::AUTHENTICATION_REQUIRED =>
            {
                ErrorClass::Access
            }
            Self::Misuse(_) => ErrorClass::Caller,
            Self::Rejected(Rejected::Connection { .. })
            | Self::CommandTimeout { .. }
            | Self::KeepAlive(_)
            | Self::Timeout { .. }
            | Self::Transport(_) => ErrorClass::Transport,
            _ => ErrorClass::Failed,
        }
    }
}

/// An error and its causes in one line.
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
