//! The part that touches time, threads and verbs: it does what [`proto`](crate::proto) asks.
//!
//! What a 4 KiB read costs on the wire and in the device, in memory mode `pool`:
//!
//! ```text
//!             bytes            messages   doorbells            completions
//!  command       64 (inline)   1 SEND     1 a burst            1 in 32
//!  data       4,096            RDMA WRITE by the target: none here
//!  response      16            1 RECV     1 for half a queue   1
//! ```
//!
//! `memory` says what a window for each command adds. A burst of submissions shares one doorbell
//! for each queue; receives are queued again as responses are read, and rung for when half of a
//! queue's are, or when the device would have fewer than there are commands in flight.
//!
//! And in this process, about 550 instructions at depth 32 (`benches/instructions`) and, roughly,
//! eight cache lines: one of the capsule, which is built in place, one of the slot, one of what is
//! kept of the command, two of the work request, one of the response, two of the receive. The hot
//! loop is in two files,
//! `poller` and `queue`; the memory it touches was made when the queue was connected. The clock is
//! read once for a burst of submissions and once for a batch of completions; timeouts and
//! connections are looked after in `poller::tick`.

mod admin;
mod attempt;
mod authenticate;
mod berth;
mod change;
mod command;
mod connect;
mod connect_thread;
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
