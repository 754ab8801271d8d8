//! RDMA queue pairs with safe posting, over the system's libibverbs and librdmacm.
//!
//! # Quick start
//!
//! A message from one end to the other. It runs as it stands, over RDMA within this process; over
//! a device `Endpoint::open()` replaces `open_with`, and whoever finds no event yet sleeps until
//! the endpoint's file descriptor is readable (`examples/loopback.rs`).
//!
//! ```
//! use std::time::Duration;
//!
//! use rdma_fabric::Fabric;
//! use verbs::{Access, Capabilities, Completion, ConnectParameters, Endpoint, CompletedWork};
//! use verbs::ConnectionEvent as Event;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fabric = Fabric::auto(1);
//! let (address, patience) = ("10.0.0.2:4420".parse()?, Duration::from_secs(1));
//! // So many sends and receives under way, of so many buffers; inline ones of so many bytes.
//! let size =
//!     Capabilities { max_send_wr: 4, max_recv_wr: 4, max_send_sge: 1, max_inline_data: 64 };
//!
//! // An endpoint asks the connection manager; the answers are events.
//! let mut listener = Endpoint::open_with(fabric.host("server", [10, 0, 0, 2].into()))?;
//! listener.listen(address, 1)?;
//! let mut client = Endpoint::open_with(fabric.host("client", [10, 0, 0, 1].into()))?;
//! client.resolve_address(None, address, patience)?;
//! let Some(Event::AddressResolved) = client.next_event()? else { panic!("no device") };
//! client.resolve_route(patience)?;
//! let Some(Event::RouteResolved) = client.next_event()? else { panic!("no route") };
//!
//! // Memory is of a domain; what is done is told on a completion queue; a queue pair needs both.
//! let (domain, mut queue) = (client.domain()?, client.completion_queue(8)?);
//! let pair = client.queue_pair(&domain, &queue, size)?;
//! client.connect(&ConnectParameters::default())?;
//!
//! // A message needs a receive that was posted before it came.
//! let Some(Event::ConnectRequest { endpoint: mut server, .. }) = listener.next_event()?
//!     else { panic!("nobody came") };
//! let (server_domain, mut server_queue) = (server.domain()?, server.completion_queue(8)?);
//! let mut server_pair = server.queue_pair(&server_domain, &server_queue, size)?;
//! server_pair.post_receive(server_domain.allocate(64, Access::LOCAL_WRITE)?, 7)?;
//! server_pair.flush()?;
//! server.accept(&ConnectParameters::default())?;
//!
//! // Only a connected queue pair can send. What is posted is the queue pair's ...
//! let Some(Event::Established(established)) = client.next_event()? else { panic!("refused") };
//! let mut pair = pair.ready(&established);
//! let mut buffer = domain.allocate(5, Access::NONE)?;
//! buffer.copy_in(0, b"hello");
//! pair.send(buffer, 1)?; // queued, and `buffer` is gone
//! pair.flush()?; // handed to the device, however much is queued, with one doorbell
//!
//! // ... until its completion gives it back.
//! let mut done = [Completion::default(); 8];
//! assert_eq!(queue.poll(&mut done)?, 1);
//! let CompletedWork::Send { tag: 1, .. } = pair.complete(&done[0])?
//!     else { panic!("a send was posted") };
//!
//! let Some(Event::Established(established)) = server.next_event()? else { panic!("gone") };
//! let mut server_pair = server_pair.ready(&established);
//! assert_eq!(server_queue.poll(&mut done)?, 1);
//! let CompletedWork::Receive { tag: 7, buffer, length: 5 } = server_pair.complete(&done[0])?
//!     else { panic!("{}", done[0].status()) };
//! let mut message = [0; 5];
//! buffer.copy_out(0, &mut message);
//! assert_eq!(&message, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It knows reliable connected queue pairs made through the RDMA connection manager: sends,
//! receives, RDMA reads and writes, and memory that a peer may reach, by
//! registration or by a memory window of type 2. It has no atomic operations, datagrams,
//! multicast, immediate data, fences, windows of type 1 or on-demand paging. It never sleeps,
//! spawns, logs or reads a clock: the caller owns the loop, and
//! [`poll_or_arm`](CompletionQueue::poll_or_arm) says when it is safe to sleep. It knows nothing of
//! NVMe.
//!
//! # Picture
//!
//! ```text
//!                  Endpoint -- next_event --> ConnectionEvent: AddressResolved, RouteResolved,
//!                  /   |   \                  ConnectRequest, Established, Rejected, ...
//!            domain  queue  queue_pair
//!                /     |        \
//!      Protection-  Completion-  PreparedQueuePair -- ready(&Established) --> QueuePair
//!           Domain    Queue           |                                        |
//!          allocate    |         post_receive, flush      send, send_inline, post_receive, flush
//!              |       |                                                       ^
//!            Buffer    '-- poll --> Completion -- complete --> CompletedWork: buffers back
//! ```
//!
//! A [`Buffer`] is in one of two hands: yours, or, from the call that queues it until its
//! completion is [completed](QueuePair::complete) or the queue pair is [closed](QueuePair::close),
//! the queue pair's. So posting is a safe call: what the device may touch cannot be touched,
//! freed or posted again. Completions carry a number that is not used again, never a pointer; one
//! that is stale is an error, [`StaleCompletion`].
//!
//! What the compiler refuses: to touch a posted buffer or post it twice ([`Buffer`]), to send
//! before there is a connection ([`PreparedQueuePair`]), to bind a bound window ([`Window`]).
//! Memory of another protection domain than the queue pair's is refused when it is used, as
//! [`Error::Misuse`]. Nothing has to be kept alive for anything else, so nothing can be outlived:
//! what is made from a domain keeps it, and what is only borrowed from it cannot be kept
//! ([`ProtectionDomain`]).
//!
//! Reads and writes move their buffers, too. A window is bound to part of a buffer for one
//! connection, by a request on the send queue, and comes back once its key is out of use:
//!
//! ```no_run
//! # fn expose(queue_pair: &mut verbs::QueuePair, domain: &verbs::ProtectionDomain)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use verbs::{Access, BindInfo};
//!
//! let buffer = domain.allocate(4096, Access::LOCAL_WRITE | Access::BIND)?;
//! let window = domain.window()?;
//! let to = BindInfo { buffer: &buffer, range: 0..512, access: Access::REMOTE_WRITE };
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
//! A device's own events, such as a port that goes down, the device's removal or a completion
//! queue that overran, reach each [`ProtectionDomain`] of it, and say what they are about:
//! [`ProtectionDomain::next_event`]. Sends and completions go by the legacy calls of the device's
//! plug-in, or by the extended ones (`ibv_wr_*`, `ibv_start_poll`): [`VerbsApi`].
//!
//! # Cost
//!
//! Posting and polling allocate nothing, lock nothing but what the device's plug-in does, and make
//! no system call of their own. What they cost is counted in instructions, over devices that do
//! next to nothing, and fails beyond a limit (`examples/cost.sh`, `examples/cost-limits.txt`):
//!
//! ```text
//!                                          above a provider   with `RdmaCore`
//!   a send of 64 inline bytes, in a chain               48                90
//!   the same, by itself                                 60               129
//!   a completion, sixteen at a time                      1                39
//! ```
//!
//! What rxe's plug-in adds is told at [`VerbsApi`]. A poll that finds nothing costs the same for
//! one queue pair and for 64.
//!
//! # Threads
//!
//! Every type is [`Send`]; [`ProtectionDomain`] is also [`Sync`] and [`Clone`]. Endpoints,
//! completion queues and queue pairs are used through `&mut`, so one thread has each at a time;
//! different ones can be used by different threads at once, also when one was made from the other.
//!
//! # Clean-up
//!
//! Drop things in any order. What is made from something keeps that alive:
//!
//! ```text
//!   QueuePair --> connection, ProtectionDomain, CompletionQueue
//!   Buffer --> registration --> ProtectionDomain
//!   ProtectionDomain, CompletionQueue --> the device, but no connection
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
//! * Memory to register is owned: allocated [here](ProtectionDomain::allocate), in [pools](Pool),
//!   or [moved in](ProtectionDomain::register). There is no registering of bare addresses, safe or
//!   unsafe.

pub mod active_side;
mod caller_memory;
mod completion;
mod completion_queue;
mod device_event;
mod endpoint;
mod error;
mod established;
pub mod memory;
mod parameters;
mod pool;
mod port_watch;
mod protection_domain;
pub mod provider;
mod queue_pair;
mod sge;
mod sys;
mod token;
mod verbs_api;
mod window;
mod work;

pub use caller_memory::{CallerMemory, RegisterError};
pub use completion::{Completion, Status};
pub use completion_queue::CompletionQueue;
pub use device_event::{DeviceEvent, DeviceEventKind, EventSubject};
pub use endpoint::{ConnectionEvent, Endpoint};
pub use error::Error;
pub use established::Established;
pub use memory::{Access, Buffer, DeregisterError, PageSize, RemoteAddress, RemoteKey};
pub use parameters::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, Capabilities, ConnectParameters, ConnectionParameters,
    Limits, PrivateData, REJECT_DATA_MAX, SENDS_QUEUED_MAX, SGE_MAX, TransportType,
};
pub use pool::{Placement, Pool, PoolOptions, PoolReport};
pub use port_watch::PortWatch;
pub use protection_domain::ProtectionDomain;
pub use provider::Provider;
pub use queue_pair::{PreparedQueuePair, QueuePair};
pub use sys::{DeviceInfo, PortInfo, PortState, RdmaCore, devices};
pub use token::WorkKind;
pub use verbs_api::VerbsApi;
pub use window::{BindError, BindInfo, Window};
pub use work::{
    CompletedWork, FlushedWork, PostBufferError, PostSendError, SgList, StaleCompletion,
};
