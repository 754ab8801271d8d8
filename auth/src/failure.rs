//! Why an exchange failed, what is to be sent then, and what that means for another attempt.

use std::fmt;

use crate::message::{Explanation, FailureMessage, MessageError, MessageId};
use crate::{GroupId, HashId, PublicValueError, TransactionId};

/// A failed exchange: the error, and the Failure2 that tells the controller.
///
/// After a Failure1 there is nothing to send. The queue is of no use in any case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    error: ExchangeError,
    transaction_id: TransactionId,
    /// The message that was due.
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

    /// Why the exchange failed.
    pub fn error(&self) -> &ExchangeError {
        &self.error
    }

    /// What kind of failure this is.
    pub fn class(&self) -> FailureClass {
        self.error.class()
    }

    /// Whether Linux takes it for a rejected key, after which it makes no further attempt: a
    /// Failure1, whatever it explains; another message or exchange than was due; and a Success1
    /// whose response is not right. (Seen of 6.12 and 7.3; their error is EKEYREJECTED.)
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

    /// The Failure2 to send before disconnecting, 8 bytes; `None` after a Failure1.
    pub fn message(&self) -> Option<Vec<u8>> {
        let explanation = self.error.explanation()?;
        let (id, transaction_id) = (MessageId::FAILURE2, self.transaction_id);
        Some(FailureMessage { id, transaction_id, explanation }.encode())
    }
}

/// What a failure means for another attempt.
///
/// Linux makes no further attempt after a missing or rejected key, whatever a Failure1 explained;
/// it does try again when it finds the controller's choice or public value unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureClass {
    /// Less security than was configured: another attempt would invite the same.
    Downgraded,
    /// No common ground. Configuration at either end must change.
    Incompatible,
    /// A secret was demanded and there is none.
    KeyMissing,
    /// A secret is wrong, at this end or the other.
    KeyRejected,
    /// The controller broke the protocol, or answers with what we sent.
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

/// What went wrong in an exchange. Every variant is the controller's doing or its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The controller's challenge or response is the challenge we sent it, or would have.
    #[error("the target returned our own challenge; it is hostile or broken, do not trust it")]
    ChallengeReflected,

    /// The controller chose a group below the minimum.
    #[error("the target chose {chosen}, below the minimum {minimum}; raise the target's setting")]
    GroupBelowMinimum {
        /// What the controller chose.
        chosen: GroupId,
        /// The weakest group the policy allows.
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
        /// What the controller chose.
        chosen: HashId,
        /// The weakest hash the policy allows.
        minimum: HashId,
    },

    /// HL is not the length of the hash.
    #[error("the target says {hash} has {actual} bytes; it is broken, update or replace it")]
    HashLength {
        /// The hash chosen.
        hash: HashId,
        /// The length in bytes the message has for it.
        actual: usize,
    },

    /// The controller chose a hash that was not offered and is not known.
    #[error("the target chose {0}, which was not offered; update or replace the target")]
    HashNotOffered(HashId),

    /// The bytes are not the message that was due.
    #[error("bad {expected} from the target: {error}; update or replace the target")]
    Malformed {
        /// The message that was due.
        expected: MessageId,
        /// What is wrong with the bytes.
        error: MessageError,
    },

    /// Another message was due.
    #[error("{actual} from the target where {expected} was due; update or replace the target")]
    OutOfOrder {
        /// The message that was due.
        expected: MessageId,
        /// The message that came.
        actual: MessageId,
    },

    /// The controller's public value is of the wrong length or out of range.
    #[error("{group} from the target: {error}; do not trust it")]
    PublicValue {
        /// The group chosen.
        group: GroupId,
        /// What is wrong with the value.
        error: PublicValueError,
    },

    /// The controller's public value is the one we made.
    #[error("the target returned our own public value; it is hostile or broken, do not trust it")]
    PublicValueReflected,

    /// The controller refused, with a Failure1.
    #[error("the target refused: {0}; {remedy}", remedy = remedy(*.0))]
    Refused(Explanation),

    /// The controller was challenged and did not respond.
    #[error("the target did not prove itself though asked to; set its controller secret there")]
    ResponseMissing,

    /// The controller's response is the one we sent it.
    #[error("the target returned our own response; it is hostile or broken, do not trust it")]
    ResponseReflected,

    /// The controller responds though it was not challenged.
    #[error("the target sent a response nobody asked for; update or replace the target")]
    ResponseUnexpected,

    /// The controller's response is not the one its secret gives.
    #[error("the target has another controller secret than this host; make both the same")]
    ResponseWrong,

    /// S1 is zero.
    #[error("the target's sequence number is zero; update or replace the target")]
    SequenceNumberZero,

    /// The message belongs to another exchange.
    #[error("the target answered exchange {actual:#06x}, not {expected:#06x}; connect again")]
    TransactionId {
        /// The number of this exchange.
        expected: u16,
        /// The number in the message.
        actual: u16,
    },
}

impl ExchangeError {
    /// What kind of failure this is.
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

    /// What a Failure2 says of this; `None` where none is sent.
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

/// An unknown explanation counts as a rejected key, as any does for Linux.
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
