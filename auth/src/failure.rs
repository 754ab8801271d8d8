//! Failures of an exchange: the error, the Failure2 to send, and the class that decides on a retry.

use std::fmt;

use crate::{
    GroupId, HashId, PublicValueError, TransactionId,
    message::{Explanation, FailureMessage, MessageError, MessageId},
};

/// Failed exchange: the error, and the Failure2 to send to the controller.
///
/// After a Failure1 nothing is sent. The queue must be disconnected in either case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    error: ExchangeError,
    transaction_id: TransactionId,
    /// Message that was expected.
    expected: MessageId,
}

impl Failure {
    pub(crate) fn new(
        error: ExchangeError,
        transaction_id: TransactionId,
        expected: MessageId,
    ) -> Self {
        Self { error, transaction_id, expected }
    }

    /// Returns the error.
    pub fn error(&self) -> &ExchangeError {
        &self.error
    }

    /// Returns the message that was expected.
    pub fn expected(&self) -> MessageId {
        self.expected
    }

    /// Returns the class of this failure.
    pub fn class(&self) -> FailureClass {
        self.error.class()
    }

    /// Returns true if Linux treats this as a rejected key and makes no further attempt: a Failure1
    /// with any explanation; a message or transaction id other than expected; and a Success1 whose
    /// response is wrong. (Observed with 6.12 and 7.3, whose error is EKEYREJECTED.)
    pub fn is_final(&self) -> bool {
        match self.error {
            ExchangeError::OutOfOrder { .. }
            | ExchangeError::Refused(_)
            | ExchangeError::TransactionId { .. } => true,
            ExchangeError::ChallengeReflected
            | ExchangeError::HashLength { .. }
            | ExchangeError::ResponseReflected
            | ExchangeError::ResponseUnexpected
            | ExchangeError::ResponseWrong => self.expected == MessageId::SUCCESS1,
            _ => false,
        }
    }

    /// Returns the Failure2 to send before disconnecting, 8 bytes; `None` after a Failure1.
    pub fn message(&self) -> Option<Vec<u8>> {
        let explanation = self.error.explanation()?;
        let (id, transaction_id) = (MessageId::FAILURE2, self.transaction_id);
        Some(FailureMessage { id, transaction_id, explanation }.encode())
    }
}

/// Class of a failure, from which a caller decides whether to retry.
///
/// Linux does not retry after a missing or rejected key, whatever explanation a Failure1 carries;
/// it retries when it finds the controller's choice or public value unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureClass {
    /// Less security than configured; a retry would give the peer the same opportunity.
    Downgraded,
    /// Nothing in common; the configuration of one side must change.
    Incompatible,
    /// Authentication is required and there is no secret.
    KeyMissing,
    /// A secret is wrong, on this side or the other.
    KeyRejected,
    /// The peer violated the protocol, or returned values that it was sent.
    PeerMisbehaved,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Downgraded => "downgraded",
            Self::Incompatible => "incompatible",
            Self::KeyMissing => "key missing",
            Self::KeyRejected => "key rejected",
            Self::PeerMisbehaved => "target misbehaved",
        })
    }
}

/// Error of an exchange. Each variant is caused or reported by the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The controller's challenge or response equals the host's challenge.
    #[error("the target returned our own challenge; it is hostile or broken, do not trust it")]
    ChallengeReflected,

    /// The controller chose a group below the minimum.
    #[error("the target chose {chosen}, below the minimum {minimum}; raise the target's setting")]
    GroupBelowMinimum {
        /// Choice of the controller.
        chosen: GroupId,
        /// Weakest group that the policy allows.
        minimum: GroupId,
    },

    /// The controller chose a group that was not offered and is not known.
    #[error("the target chose {0}, which was not offered; update or replace the target")]
    GroupNotOffered(GroupId),

    /// The controller chose a key exchange of TP4201.
    #[error("the target wants {0} (TP4201), not supported here; set null or an ffdhe group there")]
    GroupUnsupported(GroupId),

    /// The controller chose a hash below the minimum.
    #[error("the target chose {chosen}, below the minimum {minimum}; raise the target's setting")]
    HashBelowMinimum {
        /// Choice of the controller.
        chosen: HashId,
        /// Weakest hash that the policy allows.
        minimum: HashId,
    },

    /// HL is not the length of the hash.
    #[error("the target says {hash} has {actual} bytes; it is broken, update or replace it")]
    HashLength {
        /// The hash chosen.
        hash: HashId,
        /// Length in bytes according to the message.
        actual: usize,
    },

    /// The controller chose a hash that was not offered and is not known.
    #[error("the target chose {0}, which was not offered; update or replace the target")]
    HashNotOffered(HashId),

    /// The bytes are not the expected message.
    #[error("bad {expected} from the target: {error}; update or replace the target")]
    Malformed {
        /// Message that was expected.
        expected: MessageId,
        /// Decoding error.
        error: MessageError,
    },

    /// Another message was expected.
    #[error("{actual} from the target where {expected} was due; update or replace the target")]
    OutOfOrder {
        /// Message that was expected.
        expected: MessageId,
        /// Message that was received.
        actual: MessageId,
    },

    /// The controller's public value is of the wrong length or out of range.
    #[error("{group} from the target: {error}; do not trust it")]
    PublicValue {
        /// The group chosen.
        group: GroupId,
        /// Error of the value.
        error: PublicValueError,
    },

    /// The controller's public value equals the host's.
    #[error("the target returned our own public value; it is hostile or broken, do not trust it")]
    PublicValueReflected,

    /// The controller refused, with a Failure1.
    #[error("the target refused: {0}; {remedy}", remedy = remedy(*.0))]
    Refused(Explanation),

    /// The controller was challenged and sent no response.
    #[error("the target did not prove itself though asked to; set its controller secret there")]
    ResponseMissing,

    /// The controller's response equals the host's.
    #[error("the target returned our own response; it is hostile or broken, do not trust it")]
    ResponseReflected,

    /// The controller sent a response without having been challenged.
    #[error("the target sent a response nobody asked for; update or replace the target")]
    ResponseUnexpected,

    /// The controller's response does not match the configured controller secret.
    #[error("the target has another controller secret than this host; make both the same")]
    ResponseWrong,

    /// S1 is zero.
    #[error("the target's sequence number is zero; update or replace the target")]
    SequenceNumberZero,

    /// The message belongs to another exchange.
    #[error("the target answered exchange {actual:#06x}, not {expected:#06x}; connect again")]
    TransactionId {
        /// T_ID of this exchange.
        expected: u16,
        /// T_ID in the message.
        actual: u16,
    },
}

impl ExchangeError {
    /// Returns the class of this failure.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::GroupBelowMinimum { .. }
            | Self::HashBelowMinimum { .. }
            | Self::ResponseMissing => FailureClass::Downgraded,
            Self::GroupUnsupported(_) => FailureClass::Incompatible,
            Self::ResponseWrong => FailureClass::KeyRejected,
            Self::Refused(explanation) => refused_class(*explanation),
            Self::ChallengeReflected
            | Self::GroupNotOffered(_)
            | Self::HashLength { .. }
            | Self::HashNotOffered(_)
            | Self::Malformed { .. }
            | Self::OutOfOrder { .. }
            | Self::PublicValue { .. }
            | Self::PublicValueReflected
            | Self::ResponseReflected
            | Self::ResponseUnexpected
            | Self::SequenceNumberZero
            | Self::TransactionId { .. } => FailureClass::PeerMisbehaved,
        }
    }

    /// Returns the explanation for the Failure2; `None` if none is sent.
    pub fn explanation(&self) -> Option<Explanation> {
        Some(match self {
            Self::Refused(_) => return None,
            Self::OutOfOrder { .. } => Explanation::INCORRECT_MESSAGE,
            Self::HashBelowMinimum { .. } | Self::HashNotOffered(_) => Explanation::HASH_NOT_USABLE,
            Self::GroupBelowMinimum { .. }
            | Self::GroupNotOffered(_)
            | Self::GroupUnsupported(_) => Explanation::GROUP_NOT_USABLE,
            Self::HashLength { .. }
            | Self::Malformed { .. }
            | Self::PublicValue { .. }
            | Self::ResponseUnexpected
            | Self::SequenceNumberZero
            | Self::TransactionId { .. } => Explanation::INCORRECT_PAYLOAD,
            Self::ChallengeReflected
            | Self::PublicValueReflected
            | Self::ResponseMissing
            | Self::ResponseReflected
            | Self::ResponseWrong => Explanation::AUTHENTICATION_FAILED,
        })
    }
}

/// Maps the explanation of a Failure1 to a class. An unknown one counts as a rejected key; Linux
/// treats all of them so.
fn refused_class(explanation: Explanation) -> FailureClass {
    match explanation {
        Explanation::PROTOCOL_NOT_USABLE
        | Explanation::SECURE_CHANNEL_MISMATCH
        | Explanation::HASH_NOT_USABLE
        | Explanation::GROUP_NOT_USABLE
        | Explanation::INCORRECT_PAYLOAD
        | Explanation::INCORRECT_MESSAGE => FailureClass::Incompatible,
        _ => FailureClass::KeyRejected,
    }
}

fn remedy(explanation: Explanation) -> &'static str {
    match explanation {
        Explanation::PROTOCOL_NOT_USABLE => "it may not support DH-HMAC-CHAP",
        Explanation::SECURE_CHANNEL_MISMATCH => "turn secure channels off at the target",
        Explanation::HASH_NOT_USABLE => "allow a common hash at either end",
        Explanation::GROUP_NOT_USABLE => "allow a common DH group at either end",
        Explanation::INCORRECT_PAYLOAD | Explanation::INCORRECT_MESSAGE => {
            "host and target understand the protocol differently"
        }
        _ => "compare secrets and host NQN at both ends",
    }
}

#[cfg(test)]
mod tests;
