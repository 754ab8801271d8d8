//! RDMA queue pairs with safe posting, over the system's libibverbs and librdmacm.

mod completion;
mod connection;
mod domain;
mod error;
pub mod memory;
pub mod provider;
mod queue_pair;
mod slot;
mod sys;
mod token;
mod work;

pub use completion::{Completion, CompletionQueue, Status};
pub use connection::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionEvent, ConnectionParameters,
    Endpoint, Established, Limits, PrivateData, REJECT_DATA_MAX,
};
pub use domain::Domain;
pub use error::Error;
pub use memory::{Access, Buffer, RemoteKey};
pub use provider::Provider;
pub use queue_pair::{Capabilities, PreparedQueuePair, QueuePair};
pub use sys::{DeviceInfo, PortInfo, PortState, RdmaCore, devices};
pub use work::{
    Refused, RefusedReceive, Retired, Returned, SEGMENTS_MAX, Segments, StaleCompletion, WorkKind,
};
