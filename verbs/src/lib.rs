//! RDMA queue pairs with safe posting, over the system's libibverbs and librdmacm.
//!
//! # What it does not do
//!
//! It knows reliable connected queue pairs made through the RDMA connection manager: sends,
//! receives of their own or shared, RDMA reads and writes, and memory that a peer may reach, by
//! registration or by a memory window of type 2. It has no atomic operations, datagrams,
//! multicast, immediate data, fences, windows of type 1 or on-demand paging, and no extended
//! (`ibv_wr_*`) posting. It never waits, spawns, logs or reads a clock: whoever calls it owns the
//! loop. It knows nothing of NVMe.
//!
//! # Picture
//!
//! ```text
//!                  Endpoint -- next_event --> ConnectionEvent: AddressResolved, RouteResolved,
//!                  /   |   \                  ConnectRequest, Established, Rejected, ...
//!            domain  queue  queue_pair
//!                /     |        \
//!           Domain  Completion-  PreparedQueuePair -- ready(&Established) --> QueuePair
//!              |      Queue           |                                        |
//!          allocate    |         post_receive, flush      send, send_inline, post_receive, flush
//!              |       |                                                       ^
//!            Buffer    '-- poll --> Completion -- retire --> Retired: the buffers back
//! ```
//!
//! A [`Buffer`] is in one of two hands: yours, or, from the call that queues it until its
//! completion is [retired](QueuePair::retire) or the queue pair is [closed](QueuePair::close),
//! the queue pair's. So posting is a safe call: what the device may touch cannot be touched,
//! freed or posted again. Completions carry a slot's number and generation, never a pointer; one
//! that is stale is an error, [`StaleCompletion`].
//!
//! What the compiler refuses: to touch a posted buffer or post it twice ([`Buffer`]), to send
//! before there is a connection ([`PreparedQueuePair`]), to bind a bound window ([`Window`]).
//! What is refused when it is tried, as [`Error::Misuse`], because domains are made at run time:
//! a buffer or a window of another domain. Nothing has to be kept alive for anything else, so
//! nothing can be outlived: what is made from a domain keeps it.
//!
//! Reads and writes move their buffers, too. A window is bound to part of a buffer for one
//! connection, by a request on the send queue, and comes back once its key is out of use:
//!
//! ```no_run
//! # fn expose(queue_pair: &mut verbs::QueuePair, domain: &verbs::Domain)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use verbs::{Access, Binding};
//!
//! let buffer = domain.allocate(4096, Access::LOCAL_WRITE | Access::BIND)?;
//! let window = domain.window()?;
//! let to = Binding { buffer: &buffer, range: 0..512, access: Access::REMOTE_WRITE };
//! let key = queue_pair.bind(window, to)?;
//! queue_pair.send_inline(&key.0.to_le_bytes())?; // the peer is told by the same chain
//! queue_pair.flush()?;
//! // ... poll and retire; the peer answers by a send that takes the key out of use ...
//! match queue_pair.reclaim(key) {
//!     Some(window) => drop(window), // or bind it again
//!     None => queue_pair.local_invalidate(key)?, // the peer did not
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A device's own events, such as a port that goes down or the device's removal, reach each
//! [`Domain`] of it: [`Domain::next_event`].
//!
//! # Quick start
//!
//! `examples/loopback.rs` does this with both ends and both directions.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use verbs::{Access, Capabilities, Completion, ConnectParameters, ConnectionEvent, Endpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut endpoint = Endpoint::open()?;
//! let target = "192.0.2.7:4420".parse()?;
//! endpoint.resolve_address(None, target, Duration::from_secs(3))?;
//! let mut prepared = None;
//! let mut queue_pair = loop {
//!     // A real program sleeps until the endpoint's file descriptor is readable.
//!     match endpoint.next_event()? {
//!         None => continue,
//!         Some(ConnectionEvent::AddressResolved) => {
//!             let domain = endpoint.domain()?;
//!             let queue = endpoint.completion_queue(64)?;
//!             let size = Capabilities { send: 32, receive: 32, segments: 1, inline: 64 };
//!             let mut queue_pair = endpoint.queue_pair(&domain, &queue, size)?;
//!             queue_pair.post_receive(domain.allocate(4096, Access::LOCAL_WRITE)?, 0)?;
//!             prepared = Some((queue_pair, queue));
//!             endpoint.resolve_route(Duration::from_secs(3))?;
//!         }
//!         Some(ConnectionEvent::RouteResolved) => {
//!             endpoint.connect(&ConnectParameters::default())?;
//!         }
//!         Some(ConnectionEvent::Established(established)) => {
//!             let (queue_pair, queue) = prepared.take().ok_or("established before resolved")?;
//!             break (queue_pair.ready(&established), queue);
//!         }
//!         Some(other) => return Err(format!("not connected: {other:?}").into()),
//!     }
//! };
//! let (queue_pair, queue) = (&mut queue_pair.0, &mut queue_pair.1);
//!
//! queue_pair.send_inline(b"hello")?;
//! queue_pair.flush()?;
//! let mut completions = [Completion::default(); 16];
//! let count = queue.poll(&mut completions)?;
//! for completion in &completions[..count] {
//!     println!("{:?}: {:?}", completion.status(), queue_pair.retire(completion)?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! Every type is [`Send`]; [`Domain`] is also [`Sync`] and [`Clone`]. Endpoints, completion
//! queues, shared receive queues and queue pairs are used through `&mut`, so one thread has each
//! at a time; different ones can be used by different threads at once, also when one was made
//! from the other.
//!
//! # Clean-up
//!
//! Drop things in any order. What is made from something keeps that alive:
//!
//! ```text
//!   QueuePair --> connection, Domain, CompletionQueue         Buffer --> registration --> Domain
//!   Domain, CompletionQueue --> the device, but no connection
//! ```
//!
//! A queue pair is destroyed before the buffers in its slots are freed or returned. Memory is
//! deregistered before it is freed; where that fails it is leaked. A connection ends when both
//! its endpoint and its queue pair are gone, if it was not [ended](Endpoint::disconnect) before.
//! Leaking anything is safe.
//!
//! # Limits
//!
//! * Linux, 64 bits; libibverbs and librdmacm of rdma-core 44 or later, with the plug-in of the
//!   device (Debian: `ibverbs-providers`).
//! * A process that forks must not use RDMA memory in the child.
//! * A send gathers at most four buffers, a receive has one, of up to 2 GiB each.
//! * A full completion queue would lose completions, so each queue pair reserves room for all of
//!   its slots and is refused where there is none. A closed queue pair's last completions may
//!   still come out; [`Completion::queue_pair`] tells whose they are.
//! * Messages that arrive without a receive being posted wait for the sender's retries; on rxe
//!   each takes 0.65 s. Post receives before the peer sends, and give it no more credit.
//! * rxe compares what comes by a window's key with the whole registration, not with the window's
//!   range (measured on 6.12 and 7.3); other devices with the range.
//! * Events of a device are read from the context that librdmacm shares within the process; its
//!   descriptor is made not to block, and another library that reads it would take events away.
//! * Registered memory is locked: see [`Error::LockedMemoryLimit`] for what to raise.
//! * Memory to register is owned: allocated [here](Domain::allocate), in [pools](Pool), or
//!   [moved in](Domain::register). There is no registering of bare addresses, safe or unsafe.

pub mod active_side;
mod caller_memory;
mod completion;
mod connection;
mod device_event;
mod domain;
mod error;
pub mod memory;
mod parameters;
mod pool;
pub mod provider;
mod queue_pair;
mod registration_cache;
mod shared_receive_queue;
mod slot;
mod sys;
mod token;
mod window;
mod work;

pub use caller_memory::{CallerMemory, NotDeregistered, RefusedMemory};
pub use completion::{Completion, CompletionQueue, Status};
pub use connection::{ConnectionEvent, Endpoint, Established};
pub use device_event::{DeviceEvent, DeviceEventKind, Subject};
pub use domain::Domain;
pub use error::Error;
pub use memory::{Access, Buffer, RemoteAddress, RemoteKey};
pub use parameters::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionParameters, Limits,
    PrivateData, REJECT_DATA_MAX,
};
pub use pool::{Placement, Pool, PoolOptions, PoolReport};
pub use provider::Provider;
pub use queue_pair::{Capabilities, PreparedQueuePair, QueuePair};
pub use registration_cache::{Allocation, CacheCounters, CacheLimits, RegistrationCache};
pub use shared_receive_queue::SharedReceiveQueue;
pub use sys::{DeviceInfo, PageSize, PortInfo, PortState, RdmaCore, devices};
pub use window::{Binding, RefusedBind, Window};
pub use work::{
    Refused, RefusedReceive, Retired, Returned, SEGMENTS_MAX, Segments, StaleCompletion, WorkKind,
};
