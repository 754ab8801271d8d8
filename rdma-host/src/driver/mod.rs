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
//! That is with memory mode `pool`; `memory` says what a window for each command adds.
//!
//! At depth, a burst of completions shares one receive doorbell, and a burst of submissions one
//! send doorbell for each queue.

mod admin;
mod attempt;
mod authenticate;
mod berth;
mod change;
mod command;
mod connect;
mod controller;
mod device;
mod discovery;
mod forget;
mod gathering;
mod held;
mod herald;
mod inspect;
mod io_task;
mod limbo;
mod log_pages;
mod memory;
mod namespace;
mod notice;
mod phase;
mod poller;
mod port;
mod queue;
mod readable;
mod reauthenticate;
mod recent;
mod registry;
mod shared_poller;
mod statistics;
mod supervisor;
mod vectored;
mod wait;

use std::sync::Arc;

use verbs::{Access, Buffer, Domain, Provider};

pub use change::{Change, Changes};
pub use command::{Command, Data, Done, Execution, Rejection};
pub use controller::{Connecting, Controller};
pub use discovery::{Discovered, Discovery, DiscoveryController, DiscoveryNews, DiscoveryWatch};
pub use memory::MemoryReport;
pub use namespace::{Failed, Namespace};
pub use notice::{Detail, Fate, Notice, Notices};
pub use poller::Poller;
pub use statistics::{Device, Operation, Statistics, Windows};
pub use vectored::FailedVectored;
pub use wait::Waiter;

use crate::error::{Error, Transport};

/// One registration cut into `count` buffers of `size` bytes.
fn buffers<P: Provider>(
    domain: &Domain<P>,
    count: usize,
    size: usize,
    access: Access,
) -> Result<Vec<Buffer>, Error> {
    let mut rest = domain.allocate(count * size, access).map_err(verbs_error)?;
    let mut cut = Vec::with_capacity(count);
    while rest.len() > size {
        let tail = rest.split_off(size);
        cut.push(std::mem::replace(&mut rest, tail));
    }
    cut.push(rest);
    Ok(cut)
}

fn verbs_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Transport::Verbs(Arc::new(error)).into()
}
