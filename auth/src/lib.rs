//! DH-HMAC-CHAP, the in-band authentication of NVMe over Fabrics: secrets and calculations.

#![forbid(unsafe_code)]

mod error;
mod group;
mod hash;
mod secret;

pub use error::SecretError;
pub use group::GroupId;
pub use hash::HashId;
pub use secret::{Key, Secret};
