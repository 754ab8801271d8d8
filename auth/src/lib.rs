//! Host side of DH-HMAC-CHAP, the in-band authentication of NVMe over Fabrics.
//!
//! Host and controller share a secret. A challenge and a keyed hash over it prove that the other
//! side has the secret without sending it. The protocol is defined in the NVMe Base Specification
//! 2.2, section 8.3.4.
//!
//! ```text
//!   DHHC-1:01:<base64>:           AUTHREQ of the Connect response
//!          |                               |
//!    Secret::parse                   Policy::decide
//!          |                               |
//!     Credentials ------------->  Negotiation::start ---------> Negotiate
//!                                          |
//!      Randomness, S2 --------->  AwaitChallenge::handle <----- Challenge
//!                                          |      `-----------> Reply
//!                                 AwaitSuccess1::handle <------ Success1
//!                                          |      `-----------> Success2, if two-way
//!                                    Authenticated
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `secret.rs` | DHHC-1 text form; key derived from a secret for a name |
//! | `hash.rs`, `group.rs` | registries of ids |
//! | `dh.rs` | Diffie-Hellman in the groups of RFC 7919 |
//! | `response.rs` | challenges and responses as pure functions of bytes |
//! | `message.rs` | encoding and decoding of the messages |
//! | `policy.rs` | minimum hash and group, mandatory authentication |
//! | `exchange.rs` | state machine of the exchange, one type per state |
//! | `failure.rs` | error, Failure2 to send, class for retries |
//!
//! # Quick start
//!
//! The package `nvme-auth` has the library `auth`; it needs nothing of the system.
//!
//! Authenticates a queue when the controller requires it. Each `send` is an Authentication Send,
//! each `receive` an Authentication Receive of [`RECEIVE_LENGTH`](message::RECEIVE_LENGTH) bytes
//! into a zeroed buffer.
//!
//! ```
//! use auth::{
//!     AuthDecision, AuthRequirements, Authenticated, Credentials, Failure, Negotiation, Policy,
//!     Randomness, Secret, SequenceNumber, TransactionId,
//! };
//!
//! fn authenticate(
//!     negotiation: &Negotiation<'_>,
//!     send: &mut dyn FnMut(&[u8]),
//!     receive: &mut dyn FnMut() -> Vec<u8>,
//!     randomness: Randomness,
//!     sequence_number: SequenceNumber,
//! ) -> Result<Authenticated, Failure> {
//!     let (negotiate, state) = negotiation.start().expect("the names Connect was sent with");
//!     send(&negotiate);
//!     // This takes milliseconds if the controller chooses a group: keep it off I/O threads.
//!     let (reply, state) = state.handle(&receive(), randomness, sequence_number)?;
//!     send(&reply);
//!     let (success2, authenticated) = state.handle(&receive())?;
//!     if let Some(success2) = success2 {
//!         send(&success2);
//!     }
//!     Ok(authenticated)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::parse("DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:")?;
//! let credentials = Credentials::one_way(secret);
//! let policy = Policy::default();
//! let requirements = AuthRequirements { authentication: true, secure_channel: false };
//! assert_eq!(policy.decide(requirements, Some(&credentials))?, AuthDecision::Authenticate);
//!
//! let negotiation = Negotiation {
//!     credentials: &credentials,
//!     policy,
//!     host_nqn: "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001",
//!     subsystem_nqn: "nqn.test:s1",
//!     transaction_id: TransactionId(0),
//! };
//! // A controller that breaks off at once; and the bytes must be random, these are not.
//! let mut receive = || vec![0x00, 0xf1, 0, 0, 0, 0, 0x01, 0x01];
//! let randomness = Randomness::draw(|bytes| Ok::<_, std::io::Error>(bytes.fill(7)))?;
//! let sequence_number = SequenceNumber(1.try_into()?);
//! let result =
//!     authenticate(&negotiation, &mut |_| (), &mut receive, randomness, sequence_number);
//! let failure = result.unwrap_err();
//! assert_eq!(failure.class(), auth::FailureClass::KeyRejected);
//! assert_eq!(failure.message(), None, "nothing is sent after a Failure1");
//! # Ok(())
//! # }
//! ```
//!
//! # Checks
//!
//! Each of these ends the exchange with an [`ExchangeError`] of its own and, except after a
//! Failure1, with a Failure2: a choice that was not offered or is below the minimums of [`Policy`];
//! lengths other than the hash's and the group's; non-zero bytes after a message; another T_ID; a
//! message out of order; S1 = 0; public values outside 2..=p−2; the host's own challenge, response
//! or public value returned; a missing, unexpected or wrong response. Refused before it begins:
//! secrets that would go unused because the controller does not require authentication, and one
//! secret for both sides.
//!
//! # Tests
//!
//! | what is tested | result | command |
//! | --- | --- | --- |
//! | results of another implementation | 525, 129 exchanges | `cargo test -p nvme-auth` |
//! | the same against Linux 6.12.117 and 7.3.4 | 525 on each | `VECTORS=all tests/run` |
//! | lines of product code covered by tests | 862 of 862 | `tests/longer coverage` |
//! | mutants that compile, caught by a test | 248 of 248 | `tests/longer mutants` |
//! | inputs of nine fuzz targets, failures | 4.9 million, 0 | `tests/longer 75 fuzz-auth` |
//! | timing: comparison, exponentiation | t of 1.1, at most 2.1 | `tests/longer leak` |
//!
//! # Out of scope
//!
//! * I/O: the caller sends and receives the commands that carry the messages.
//! * Randomness, clocks, files, logs, threads: random bytes, transaction and sequence numbers, and
//!   one deadline for a whole exchange are supplied by the caller.
//! * TLS keys: secure channel concatenation belongs to TCP.
//! * Data protection: authentication identifies the peer when a queue connects; commands and data
//!   on RDMA are neither encrypted nor authenticated.
//!
//! # Secrets
//!
//! [`Secret`], [`Credentials`], [`Key`], [`PrivateKey`], [`SharedSecret`], [`AugmentedChallenge`],
//! [`Tag`], [`Randomness`] and the states of the exchange keep their bytes on the heap, wipe them
//! when dropped, also when a step fails, and implement neither `Debug` nor `Display` nor `Clone`.
//! Three methods give access to secret bytes: [`Secret::encode`], [`Tag::into_wire`] and
//! [`SharedSecret::as_bytes`]. Received responses are compared, and powers computed, in constant
//! time; `examples/leak.rs` measures both. No error carries bytes of a secret.
//!
//! All values are `Send` and `Sync`. Only [`AwaitChallenge::handle`] and the methods of
//! [`PrivateKey`] take longer than microseconds.
//!
//! # Limits
//!
//! * Secrets have 32, 48 or 64 bytes. Their length is checked, their randomness cannot be.
//! * Hashes are SHA-256, SHA-384 and SHA-512; groups are null and ffdhe2048 to ffdhe8192. The key
//!   exchanges added by TP4201 have a name for messages, and are refused.
//! * Memory is neither locked nor excluded from core dumps: that is a matter of the process, see
//!   `process_hardening.rs` of `nvmf`. Hash functions and exponentiation wipe their own state,
//!   except four bits of an exponent; copies that the compiler leaves on the stack or in registers
//!   are not wiped.

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
pub use exchange::{
    Authenticated, AwaitChallenge, AwaitSuccess1, Negotiation, NqnError, Randomness,
};
pub use failure::{ExchangeError, Failure, FailureClass};
pub use group::GroupId;
pub use hash::HashId;
pub use policy::{AuthDecision, AuthRequirements, Policy, PolicyError, RequirementsError, Warning};
pub use response::{
    AugmentedChallenge, ChallengeInput, ResponseInput, SecureChannel, SequenceNumber, Tag,
    TransactionId, WireTag, augmented_challenge, controller_response, host_response,
};
pub use secret::{Key, Secret};
