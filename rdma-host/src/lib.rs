//! NVMe over Fabrics host over RDMA, in user space.
#![forbid(unsafe_code)]

pub mod config;
pub mod driver;
pub mod error;
pub mod proto;
pub mod wire;

pub use config::{ConnectOptions, HostIdentity, WaitMode};
pub use driver::{
    Command, Controller, Data, Done, Failed, Namespace, Operation, Poller, Rejection, Statistics,
    Waiter,
};
pub use error::{Class, Error};
pub use verbs::Buffer;
