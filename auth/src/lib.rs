//! DH-HMAC-CHAP, the in-band authentication of NVMe over Fabrics: secrets and calculations.
//!
//! Host and controller each hold a secret. A challenge and a keyed hash over it show that the
//! other side holds the same one, without sending it. The protocol is that of the NVMe Base
//! Specification 2.2, section 8.3.4.
//!
//! ```text
//!   DHHC-1:01:<base64>:          challenge C     shared secret of the DH group
//!          |                          |               |
//!    Secret::parse                    +-------+-------+
//!          |                                  |
//!        Secret                      augmented_challenge
//!          |                                  |
//!    Secret::transform(nqn)                   |
//!          |                                  |
//!         Key --------------+--- AugmentedChallenge
//!                           |
//!              host_response, controller_response
//!                           |
//!                          Tag --- matches(received)
//!                           |
//!                       into_wire
//!                           |
//!                        WireTag
//! ```
//!
//! # Quick start
//!
//! ```
//! use auth::{
//!     ChallengeInput, GroupId, HashId, ResponseInput, Secret, SecureChannel, TransactionId,
//!     augmented_challenge, host_response,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host_nqn = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
//! let secret = Secret::parse("DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:")?;
//! let key = secret.transform(host_nqn);
//!
//! let challenge = augmented_challenge(&ChallengeInput {
//!     hash: HashId::SHA_256,
//!     group: GroupId::NULL,
//!     challenge: &[0x5a; 32],
//!     shared_secret: &[],
//! })?;
//! let input = ResponseInput {
//!     key: &key,
//!     challenge: &challenge,
//!     sequence_number: 1,
//!     transaction_id: TransactionId(0),
//!     host_nqn,
//!     subsystem_nqn: "nqn.test:s1",
//! };
//! let response = host_response(&input, SecureChannel::NONE).into_wire();
//! assert_eq!(response.as_bytes().len(), 32);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! * It exchanges no messages, and keeps no state between calls.
//! * It computes no Diffie-Hellman value: the shared secret of an FFDHE group is an argument.
//! * It draws no randomness, reads no clock or file, logs nothing, starts no thread. Random bytes
//!   for a new secret, challenges and sequence numbers are the caller's.
//! * It derives no TLS key; secure channel concatenation belongs to TCP.
//! * It protects no data. Authentication proves who is at the other end when a queue connects;
//!   commands and data on RDMA travel as before, unsealed.
//!
//! # Secrets
//!
//! [`Secret`], [`Key`], [`AugmentedChallenge`] and [`Tag`] keep their bytes on the heap, wipe them
//! when dropped, and implement neither `Debug` nor `Display` nor `Clone`. Two named crossings lead
//! from secret to readable: [`Secret::encode`] and [`Tag::into_wire`]. Received responses are
//! compared in constant time. No error carries bytes of a secret.
//!
//! All values are `Send` and `Sync`; no call blocks.
//!
//! # Limits
//!
//! * Secrets have 32, 48 or 64 bytes. Their length is checked, their randomness cannot be.
//! * Hashes are SHA-256, SHA-384 and SHA-512; groups are null and ffdhe2048 to ffdhe8192. The key
//!   exchanges added by TP4201 are known by name only.
//! * Memory is neither locked nor kept out of core dumps. The hash functions wipe their own
//!   state; copies which the compiler leaves on the stack or in registers are not wiped.

#![forbid(unsafe_code)]

mod credentials;
mod dh;
mod error;
mod exchange;
mod failure;
mod group;
mod hash;
pub mod message;
mod policy;
mod response;
mod secret;

pub use credentials::{Credentials, SameSecret};
pub use dh::{EXPONENT_LENGTH_MAX, PrivateKey, PublicValueError, SharedSecret};
pub use error::{CalculationError, SecretError};
pub use exchange::{Authenticated, AwaitChallenge, AwaitSuccess1, NqnError, Offer, Randomness};
pub use failure::{ExchangeError, Failure, FailureClass};
pub use group::GroupId;
pub use hash::HashId;
pub use policy::{Demand, Policy, PolicyError, Start, StartError, Warning};
pub use response::{
    AugmentedChallenge, ChallengeInput, ResponseInput, SecureChannel, SequenceNumber, Tag,
    TransactionId, WireTag, augmented_challenge, controller_response, host_response,
};
pub use secret::{Key, Secret};
