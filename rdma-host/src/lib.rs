//! NVMe over Fabrics host over RDMA, in user space.
#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod proto;
pub mod wire;

pub use config::{ConnectOptions, HostIdentity, WaitMode};
pub use error::{Class, Error};
