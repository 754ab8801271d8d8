//! DH-HMAC-CHAP, the in-band authentication of NVMe over Fabrics: secrets and calculations.

#![forbid(unsafe_code)]

mod group;

pub use group::GroupId;
