//! The part that touches time, threads and verbs: it does what [`proto`](crate::proto) asks.
//!
//! What a 4 KiB read costs on the wire and in the device, queue depth 1:
//!
//! ```text
//!             bytes            messages   doorbells   completions
//!  command       64 (inline)   1 SEND     1           1 in N
//!  data       4,096            RDMA WRITE by the target: none here
//!  response      16            1 RECV     1 (repost)  1
//! ```
//!
//! At depth, a burst of completions shares one receive doorbell, and a burst of submissions one
//! send doorbell for each queue.

mod admin;
mod command;
mod connect;
mod controller;
mod io_task;
mod liveness;
mod namespace;
mod poller;
mod queue;
mod readable;
mod statistics;
mod wait;

use std::sync::Arc;

pub use command::{Command, Data, Done, Rejection};
pub use controller::Controller;
pub use namespace::{Failed, Namespace};
pub use poller::Poller;
pub use statistics::{Operation, Statistics};
pub use wait::Waiter;

use crate::error::{Error, Transport};

fn verbs_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Transport::Verbs(Arc::new(error)).into()
}
