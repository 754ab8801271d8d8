//! Responses: keyed hashes over the challenge of the other side.
//!
//! NVMe Base Specification 2.2, section 8.3.4, and 8.3.4.5.4 for the host's response.

use std::num::NonZeroU32;

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{CalculationError, GroupId, HashId, Key, hash::Algorithm};

/// Transaction identifier (T_ID), common to all messages of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u16);

impl TransactionId {
    /// Returns the number for the controller's next exchange, on any queue.
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Sequence number of a challenge (S1 or S2), never zero.
///
/// A host uses one counter for all its exchanges, which starts at a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub NonZeroU32);

impl SequenceNumber {
    /// Returns the number for the next challenge; wraps around to 1.
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU32::MIN))
    }
}

/// Secure channel concatenation field (SC_C).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecureChannel(pub u8);

impl SecureChannel {
    /// No secure channel; the only value allowed on RDMA.
    pub const NONE: Self = Self(0x00);
}

/// Input of [`augmented_challenge`].
#[derive(Clone, Copy)]
pub struct ChallengeInput<'a> {
    /// The negotiated hash.
    pub hash: HashId,
    /// The negotiated group.
    pub group: GroupId,
    /// Challenge value as received or sent (C1 or C2), as long as the hash's digest.
    pub challenge: &'a [u8],
    /// Shared secret of the group, big-endian, with leading zeros to the length of the modulus;
    /// empty for the null group.
    pub shared_secret: &'a [u8],
}

/// Computes the augmented challenge: the challenge mixed with the group's shared secret.
///
/// # Errors
///
/// [`CalculationError`] if hash or group is not implemented, or if the challenge or the shared
/// secret does not have the length they prescribe.
pub fn augmented_challenge(
    input: &ChallengeInput<'_>,
) -> Result<AugmentedChallenge, CalculationError> {
    let algorithm = input.hash.algorithm().ok_or(CalculationError::HashUnsupported(input.hash))?;
    let value_length =
        input.group.value_length().ok_or(CalculationError::GroupUnsupported(input.group))?;
    if input.challenge.len() != algorithm.digest_length() {
        return Err(CalculationError::ChallengeLength {
            expected: algorithm.digest_length(),
            actual: input.challenge.len(),
        });
    }
    if input.shared_secret.len() != value_length {
        return Err(CalculationError::SharedSecretLength {
            expected: value_length,
            actual: input.shared_secret.len(),
        });
    }

    let bytes = if input.group == GroupId::NULL {
        Zeroizing::new(Box::from(input.challenge))
    } else {
        let session_key = algorithm.digest(input.shared_secret);
        algorithm.hmac(&session_key, &[input.challenge])
    };
    Ok(AugmentedChallenge { algorithm, bytes })
}

/// Augmented challenge, with the hash it belongs to. Secret unless the group is null.
pub struct AugmentedChallenge {
    algorithm: Algorithm,
    bytes: Zeroizing<Box<[u8]>>,
}

impl ZeroizeOnDrop for AugmentedChallenge {}

/// Input of [`host_response`] and [`controller_response`].
///
/// The names are those of the Connect command, without padding. They are joined by a NUL byte in
/// the hash input, so neither may contain one.
#[derive(Clone, Copy)]
pub struct ResponseInput<'a> {
    /// The key of the side that responds.
    pub key: &'a Key,
    /// Challenge sent to that side.
    pub challenge: &'a AugmentedChallenge,
    /// Sequence number sent with the challenge (S1 or S2).
    pub sequence_number: u32,
    /// Transaction identifier of the exchange (T_ID).
    pub transaction_id: TransactionId,
    /// The host's NQN.
    pub host_nqn: &'a str,
    /// The subsystem's NQN.
    pub subsystem_nqn: &'a str,
}

/// Computes the host's response (R1).
#[must_use]
pub fn host_response(input: &ResponseInput<'_>, secure_channel: SecureChannel) -> Tag {
    respond(
        input,
        &[
            &[secure_channel.0],
            b"HostHost",
            input.host_nqn.as_bytes(),
            &[0],
            input.subsystem_nqn.as_bytes(),
        ],
    )
}

/// Computes the controller's response (R2).
///
/// A host computes it for comparison only, and must not send it.
#[must_use]
pub fn controller_response(input: &ResponseInput<'_>) -> Tag {
    respond(
        input,
        &[&[0], b"Controller", input.subsystem_nqn.as_bytes(), &[0], input.host_nqn.as_bytes()],
    )
}

/// Computed response that has not been sent.
///
/// Secret, because a third party that learns it before the other side has answered can answer in
/// its place.
pub struct Tag {
    bytes: Zeroizing<Box<[u8]>>,
}

impl Tag {
    /// Compares `received` with this response, in time that depends on its length only.
    #[must_use]
    pub fn matches(&self, received: &[u8]) -> bool {
        self.bytes.ct_eq(received).into()
    }

    /// Converts the response for sending. Only the side that it belongs to may do so; afterwards it
    /// is readable by anyone on the path.
    #[must_use]
    pub fn into_wire(self) -> WireTag {
        WireTag { bytes: Box::from(&**self.bytes) }
    }
}

impl ZeroizeOnDrop for Tag {}

/// Response as sent in a message: public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireTag {
    bytes: Box<[u8]>,
}

impl WireTag {
    /// Bytes of the message's response field, as many as the hash's digest has.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Computes either response; `role` holds the parts in which they differ.
fn respond(input: &ResponseInput<'_>, role: &[&[u8]; 5]) -> Tag {
    let sequence_number = input.sequence_number.to_le_bytes();
    let transaction_id = input.transaction_id.0.to_le_bytes();
    let [channel, label, own_nqn, separator, other_nqn] = *role;
    let parts: [&[u8]; 8] = [
        &input.challenge.bytes,
        &sequence_number,
        &transaction_id,
        channel,
        label,
        own_nqn,
        separator,
        other_nqn,
    ];
    Tag { bytes: input.challenge.algorithm.hmac(input.key.as_bytes(), &parts) }
}

#[cfg(test)]
mod tests;
