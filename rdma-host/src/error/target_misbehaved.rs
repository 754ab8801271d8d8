//! Protocol violations of the target.

use crate::wire::{CommandId, ControllerId, QueueId, RemoteKey, Status};

/// Protocol violation of the target, after which its queue cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetMisbehaved {
    /// The capsules are too small for a command or response.
    #[error("{what} of {bytes} bytes are too small")]
    CapsuleSize {
        /// Kind of capsules.
        what: &'static str,
        /// Size in bytes.
        bytes: u64,
    },
    /// Identify Controller reports another controller id than Connect.
    #[error("Connect granted controller {granted:?}, Identify speaks of {identified:?}")]
    ControllerId {
        /// Controller id in the Connect response.
        granted: ControllerId,
        /// Controller id in Identify Controller.
        identified: ControllerId,
    },
    /// The Connect of an I/O queue was answered by another controller.
    #[error(
        "Connect on queue {queue} was answered by controller {answered}, not by {granted}, which \
         the admin queue belongs to"
    )]
    AnotherController {
        /// Queue.
        queue: QueueId,
        /// Controller id in the admin queue's Connect response.
        granted: ControllerId,
        /// Controller id in the I/O queue's Connect response.
        answered: ControllerId,
    },
    /// The discovery log changed during every attempt to read it.
    #[error("its discovery log keeps changing while it is read, {0} times now; try again later")]
    DiscoveryLogChanges(u8),
    /// The record format is unknown (RECFMT).
    #[error("its discovery log has format {0}; only format 0 is known")]
    DiscoveryLogFormat(u16),
    /// The discovery log has too many entries.
    #[error("its discovery log claims {records} entries; more than {max} are not read")]
    DiscoveryLogSize {
        /// NUMREC as sent.
        records: u64,
        /// The limit.
        max: u64,
    },
    /// The admin queue receives fewer commands at once than a controller needs (CRQSIZE).
    #[error("its admin queue receives {size} commands at once (CRQSIZE); {needed} are needed")]
    ReceiveQueueSize {
        /// CRQSIZE as sent.
        size: u16,
        /// The minimum.
        needed: u16,
    },
    /// The Write of a fused Compare and Write succeeded though the Compare had failed.
    #[error("it wrote the blocks of a fused Compare and Write whose Compare failed: {0}")]
    FusedWrite(Status),
    /// A connection event is not allowed in the current state.
    #[error("connection event {0} came out of order")]
    UnexpectedEvent(&'static str),
    /// A response invalidated a remote key that is not its command's.
    #[error(
        "the response to command {command} on queue {queue} took key {:#010x} out of use, which \
         is not that command's", key.0
    )]
    WrongKeyInvalidated {
        /// Invalidated key.
        key: RemoteKey,
        /// Command id of the response.
        command: CommandId,
        /// Queue.
        queue: QueueId,
    },
    /// Keep Alive is not supported though Connect has enabled it: the controller would drop the
    /// association.
    #[error("it refuses Keep Alive, which it has agreed to: {0}")]
    KeepAliveRefused(Status),
    /// The active namespace list does not end.
    #[error("its list of namespaces does not end")]
    NamespaceList,
    /// Connect returned the dynamic controller id, FFFFh (Base 3.1.1).
    #[error("Connect granted controller id 0xffff, which is none")]
    InvalidControllerId,
    /// A response belongs to no command in flight: unknown, completed, or answered twice.
    #[error("a response to command {command} on queue {queue}, which is not in flight")]
    UnknownCommand {
        /// Command id of the response.
        command: CommandId,
        /// Queue.
        queue: QueueId,
    },
}
