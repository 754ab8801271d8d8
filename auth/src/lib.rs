//! DH-HMAC-CHAP, the in-band authentication of NVMe over Fabrics: secrets and calculations.

#![forbid(unsafe_code)]

mod error;
mod group;
mod hash;
mod response;
mod secret;

pub use error::{CalculationError, SecretError};
pub use group::GroupId;
pub use hash::HashId;
pub use response::{
    AugmentedChallenge, ChallengeInput, ResponseInput, SecureChannel, Tag, TransactionId, WireTag,
    augmented_challenge, controller_response, host_response,
};
pub use secret::{Key, Secret};
