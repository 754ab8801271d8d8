//! Responses: what each side computes over the other's challenge.
//!
//! NVMe Base Specification 2.2, section 8.3.4, and 8.3.4.5.4 for the host's response.

use std::num::NonZeroU32;

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::hash::Algorithm;
use crate::{CalculationError, GroupId, HashId, Key};

/// The number that ties the messages of one authentication together: T_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u16);

impl TransactionId {
    /// The number for the next exchange of this controller, on whichever queue.
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The number that comes with a challenge, never zero: S1 or S2.
///
/// A host has one counter for all its exchanges, which begins with a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub NonZeroU32);

impl SequenceNumber {
    /// The number for the next challenge; after the last comes 1.
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU32::MIN))
    }
}

/// Whether a secure channel is to be set up after the authentication: SC_C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecureChannel(pub u8);

impl SecureChannel {
    /// No secure channel; the only value there is on RDMA.
    pub const NONE: Self = Self(0x00);
}

/// What an augmented challenge is computed from.
#[derive(Clone, Copy)]
pub struct ChallengeInput<'a> {
    /// The negotiated hash.
    pub hash: HashId,
    /// The negotiated group.
    pub group: GroupId,
    /// The challenge value as received or sent, C1 or C2, as long as the hash's digest.
    pub challenge: &'a [u8],
    /// The group's shared secret, big-endian, with leading zeros to the length of the modulus;
    /// empty for the null group.
    pub shared_secret: &'a [u8],
}

/// Computes the challenge as it enters a response, mixed with the group's shared secret.
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

/// A challenge ready for a response, with the hash it belongs to. Secret if a group made it so.
pub struct AugmentedChallenge {
    algorithm: Algorithm,
    bytes: Zeroizing<Box<[u8]>>,
}

impl ZeroizeOnDrop for AugmentedChallenge {}

/// What a response is computed from.
///
/// The names are those of the Connect command, without padding. They are joined by a NUL byte, so
/// neither may contain one.
#[derive(Clone, Copy)]
pub struct ResponseInput<'a> {
    /// The key of the side that responds.
    pub key: &'a Key,
    /// The challenge that side was given.
    pub challenge: &'a AugmentedChallenge,
    /// The sequence number sent with the challenge: S1 or S2.
    pub sequence_number: u32,
    /// The number of this authentication.
    pub transaction_id: TransactionId,
    /// The host's NQN.
    pub host_nqn: &'a str,
    /// The subsystem's NQN.
    pub subsystem_nqn: &'a str,
}

/// Computes the response by which a host proves that it has its secret: R1.
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

/// Computes the response by which a controller proves that it has its secret: R2.
///
/// A host computes it to compare, and must not send it.
#[must_use]
pub fn controller_response(input: &ResponseInput<'_>) -> Tag {
    respond(
        input,
        &[&[0], b"Controller", input.subsystem_nqn.as_bytes(), &[0], input.host_nqn.as_bytes()],
    )
}

/// A response that has been computed and not yet sent.
///
/// Secret, because whoever sees it before the other side has answered can answer in its stead.
pub struct Tag {
    bytes: Zeroizing<Box<[u8]>>,
}

impl Tag {
    /// Whether `received` is this response, in time that depends on its length only.
    #[must_use]
    pub fn matches(&self, received: &[u8]) -> bool {
        self.bytes.ct_eq(received).into()
    }

    /// Gives the response up for sending: only the side it belongs to may do so, and then anyone
    /// on the path can read it.
    #[must_use]
    pub fn into_wire(self) -> WireTag {
        WireTag { bytes: Box::from(&**self.bytes) }
    }
}

impl ZeroizeOnDrop for Tag {}

/// A response as it stands in a message: public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireTag {
    bytes: Box<[u8]>,
}

impl WireTag {
    /// The bytes of the message's response field, as many as the hash's digest has.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Both responses begin alike; `role` is where they differ.
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
