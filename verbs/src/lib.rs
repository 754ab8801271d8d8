//! RC queue pairs over RDMA CM, with safe posting, on the system's libibverbs and librdmacm.
//!
//! Reliable connected queue pairs that the RDMA connection manager connects: sends, receives, RDMA
//! reads and writes, registered memory, and memory windows of type 2. No function of the crate is
//! `unsafe` to call. There are no unreliable datagrams, atomic operations, immediate data, fences,
//! multicast, shared receive queues, windows of type 1 or on-demand paging.
//!
//! # Installation
//!
//! On Debian: `apt install libibverbs-dev librdmacm-dev ibverbs-providers`; rdma-core 44 or later,
//! Linux, 64 bits. The package `rdma-verbs` has the library `verbs`.
//!
//! # First program
//!
//! A message from one end to the other. It runs as it stands, over RDMA within this process; over a
//! device `Endpoint::open()` replaces `open_with`, and a program that finds no event sleeps until
//! the endpoint's file descriptor is readable (`examples/loopback.rs`).
//!
//! ```
//! use std::time::Duration;
//!
//! use rdma_fabric::Fabric;
//! use verbs::{
//!     Access, QueuePairCapabilities, CompletedWork, Completion, ConnectParameters,
//!     ConnectionEvent as Event, Endpoint,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fabric = Fabric::auto(1);
//! let (address, timeout) = ("10.0.0.2:4420".parse()?, Duration::from_secs(1));
//! let size = QueuePairCapabilities {
//!     max_send_wr: 4,
//!     max_recv_wr: 4,
//!     max_send_sge: 1,
//!     max_inline_data: 64,
//! };
//!
//! // Requests to the connection manager are answered by events.
//! let mut listener = Endpoint::open_with(fabric.host("server", [10, 0, 0, 2].into()))?;
//! listener.listen(address, 1)?;
//! let mut client = Endpoint::open_with(fabric.host("client", [10, 0, 0, 1].into()))?;
//! client.resolve_address(None, address, timeout)?;
//! let Some(Event::AddressResolved) = client.next_event()? else { panic!("no device") };
//! client.resolve_route(timeout)?;
//! let Some(Event::RouteResolved) = client.next_event()? else { panic!("no route") };
//!
//! // A queue pair uses the memory of one protection domain, and reports to a completion queue.
//! let (domain, mut queue) = (client.domain()?, client.completion_queue(8)?);
//! let pair = client.queue_pair(&domain, &queue, size)?;
//! client.connect(&ConnectParameters::default())?;
//!
//! // The receive of a message is posted before the message arrives.
//! let Some(Event::ConnectRequest { endpoint: mut server, .. }) = listener.next_event()?
//!     else { panic!("no request") };
//! let (server_domain, mut server_queue) = (server.domain()?, server.completion_queue(8)?);
//! let mut server_pair = server.queue_pair(&server_domain, &server_queue, size)?;
//! server_pair.post_receive(server_domain.allocate(64, Access::LOCAL_WRITE)?, 7)?;
//! server_pair.flush()?;
//! server.accept(&ConnectParameters::default())?;
//!
//! // Only a connected queue pair can send. The queue pair owns the buffers of queued sends ...
//! let Some(Event::Established(established)) = client.next_event()? else { panic!("refused") };
//! let mut pair = pair.ready(&established);
//! let mut buffer = domain.allocate(5, Access::NONE)?;
//! buffer.copy_in(0, b"hello");
//! pair.send(buffer, 1)?; // moves the buffer
//! pair.flush()?; // hands all that is queued to the device, with one doorbell
//!
//! // ... until their completion.
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
//! # From ibverbs and rdmacm
//!
//! | C | here |
//! | --- | --- |
//! | `rdma_create_event_channel`, `rdma_create_id` | [`Endpoint::open`] |
//! | `rdma_resolve_addr`, `rdma_resolve_route` | [`Endpoint::resolve_address`], `resolve_route` |
//! | `rdma_get_cm_event`, `rdma_ack_cm_event` | [`Endpoint::next_event`] |
//! | `rdma_listen`, `rdma_accept`, `rdma_reject` | [`Endpoint::listen`], `accept`, `reject` |
//! | `rdma_connect`, `rdma_disconnect` | [`Endpoint::connect`], `disconnect` |
//! | `rdma_set_option` | [`Endpoint::set_ack_timeout`], `set_type_of_service` |
//! | `ibv_query_device`, `ibv_get_device_list` | [`Endpoint::limits`], [`devices`] |
//! | `ibv_alloc_pd` | [`Endpoint::domain`] |
//! | `ibv_reg_mr` | [`ProtectionDomain::allocate`], `register` |
//! | `ibv_dereg_mr` | [`Buffer::deregister`], or dropping the buffer |
//! | `ibv_reg_dmabuf_mr` | [`ProtectionDomain::register_dma_buf`] |
//! | `ibv_create_cq` | [`Endpoint::completion_queue`] |
//! | `ibv_poll_cq`, `ibv_resize_cq` | [`CompletionQueue::poll`], `resize` |
//! | `ibv_req_notify_cq` | [`CompletionQueue::arm`], `poll_or_arm` |
//! | `ibv_get_cq_event`, `ibv_ack_cq_events` | [`CompletionQueue::acknowledge`] |
//! | `ibv_wc` | [`Completion`] |
//! | `wr_id` | the crate's own; a caller's tag comes back in [`CompletedWork`] |
//! | `rdma_create_qp`, `ibv_qp_cap` | [`Endpoint::queue_pair`], [`QueuePairCapabilities`] |
//! | `ibv_post_recv` | [`QueuePair::post_receive`], then `flush` |
//! | `ibv_post_send` | [`QueuePair::send`], `send_inline`, `rdma_read`, `rdma_write`; `flush` |
//! | `IBV_WR_SEND_WITH_INV` | [`QueuePair::send_with_invalidate`] |
//! | `IBV_WR_LOCAL_INV` | [`QueuePair::local_invalidate`] |
//! | `ibv_alloc_mw`, `IBV_WR_BIND_MW` | [`ProtectionDomain::window`], [`QueuePair::bind`] |
//! | `ibv_wr_*`, `ibv_start_poll` | [`VerbsApi::Extended`] |
//! | `ibv_get_async_event` | [`ProtectionDomain::next_event`], [`PortWatch`] |
//!
//! # Ownership
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
//! A [`Buffer`] is owned by the program, or, from the call that queues it until its
//! [completion](QueuePair::complete) or the [end](QueuePair::close) of the queue pair, by the queue
//! pair. So memory that the device may access cannot be accessed, freed or posted again, and
//! posting is a safe call. Completions carry a number that is not used again, never a pointer; a
//! stale one is an error, [`StaleCompletion`].
//!
//! The compiler refuses access to a posted buffer, or posting it twice ([`Buffer`]), sends before
//! there is a connection ([`PreparedQueuePair`]). Binds of a bound [`Window`], and memory of
//! another protection domain than the queue pair's, are refused as [`Error::Misuse`]. Objects keep
//! those they were created from alive.
//!
//! Reads and writes move their buffers, too. A window is bound to part of a buffer for one
//! connection, by a request on the send queue, and can be bound again once its key is invalid:
//!
//! ```no_run
//! # fn expose(queue_pair: &mut verbs::QueuePair, domain: &verbs::ProtectionDomain)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use verbs::{Access, BindInfo};
//!
//! let buffer = domain.allocate(4096, Access::LOCAL_WRITE | Access::BIND)?;
//! let window = queue_pair.add_window(domain.window()?)?;
//! let to = BindInfo { buffer: &buffer, range: 0..512, access: Access::REMOTE_WRITE };
//! let key = queue_pair.bind(window, &to)?;
//! queue_pair.send_inline(&key.0.to_le_bytes())?; // tells the peer, in the same chain
//! queue_pair.flush()?;
//! // ... poll and complete; the peer answers by a send that invalidates the key ...
//! if queue_pair.is_bound(window) {
//!     queue_pair.local_invalidate(window)?; // the peer did not
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A device's own events, such as a port that goes down, the device's removal or a completion queue
//! that overran, reach each [`ProtectionDomain`] of it and name their object:
//! [`ProtectionDomain::next_event`].
//!
//! # Cost
//!
//! Posting and polling allocate nothing, lock nothing but what the device's plug-in does, and make
//! no system call of their own. Their instructions are counted over devices that do next to
//! nothing, and a test fails beyond a limit (`examples/cost.sh`, `examples/cost-limits.txt`):
//!
//! ```text
//!                                          above a provider   with `RdmaCore`
//!   a send of 64 inline bytes, in a chain               43                90
//!   the same, by itself                                 59               123
//!   a completion, sixteen at a time                      1                39
//! ```
//!
//! The cost of rxe's plug-in is at [`VerbsApi`]. A poll that finds nothing costs the same for one
//! queue pair and for 64. The crate never sleeps, spawns, logs or reads a clock: the caller owns
//! the loop, and [`poll_or_arm`](CompletionQueue::poll_or_arm) says when it is safe to sleep.
//!
//! # Threads
//!
//! Every type is [`Send`]; [`ProtectionDomain`] is also [`Sync`] and [`Clone`]. Endpoints,
//! completion queues and queue pairs are used through `&mut`, so one thread has each at a time;
//! different ones can be used by different threads at once, also when one was created from the
//! other.
//!
//! # Destruction
//!
//! Objects can be dropped in any order:
//!
//! ```text
//!   QueuePair --> connection, ProtectionDomain, CompletionQueue
//!   Buffer --> registration --> ProtectionDomain
//!   ProtectionDomain, CompletionQueue --> the device, but no connection
//! ```
//!
//! A queue pair is destroyed before the buffers in its slots are freed or returned. Memory is
//! deregistered before it is freed; where that fails it is leaked. A connection ends when both its
//! endpoint and its queue pair are gone, if it was not [ended](Endpoint::disconnect) before.
//! Leaking anything is safe.
//!
//! # Limits
//!
//! * A process that forks must not use RDMA memory in the child.
//! * A send gathers at most four buffers, a receive has one, of up to 2 GiB each.
//! * A full completion queue would lose completions, so each queue pair reserves room for all of
//!   its slots and is refused where there is none. A closed queue pair's last completions may still
//!   come out; [`Completion`] has the queue pair's number.
//! * Messages that arrive without a posted receive wait for the sender's retries; on rxe each takes
//!   0.65 s. Receives are to be posted before the peer sends, and the peer's credits limited to
//!   them.
//! * rxe checks an access by a window's key against the whole registration, not the window's range
//!   (measured on 6.12 and 7.3); other devices check the range.
//! * rxe sends no message of the connection manager again after one that was sent while its port
//!   was down. So connections that end then are closed when the port is active again.
//! * Dma-bufs and the extended calls: see [`ProtectionDomain::register_dma_buf`] and [`VerbsApi`]
//!   for where they have and have not been seen to work.
//! * Events of a device are read from the context that librdmacm shares within the process; its
//!   descriptor is made non-blocking, and another library that reads it would take events away.
//! * Registered memory is locked: [`Error::LockedMemoryLimit`] says what to raise.
//! * Memory to register is owned: [allocated](ProtectionDomain::allocate), in [pools](Pool), or
//!   [moved in](ProtectionDomain::register). Bare addresses cannot be registered.

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
pub use memory::{
    Access, Buffer, DeregisterError, MemoryOwner, PageSize, ReleaseError, RemoteAddress, RemoteKey,
    SharedMemory,
};
pub use parameters::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, ConnectParameters, ConnectionParameters, Limits,
    PrivateData, QueuePairCapabilities, REJECT_DATA_MAX, SENDS_QUEUED_MAX, SGE_MAX, TransportType,
};
pub use pool::{Placement, Pool, PoolOptions, PoolReport};
pub use port_watch::PortWatch;
pub use protection_domain::ProtectionDomain;
pub use provider::Provider;
pub use queue_pair::{PreparedQueuePair, QueuePair};
pub use sys::{DeviceInfo, PortInfo, PortState, RdmaCore, devices};
pub use token::WorkKind;
pub use verbs_api::VerbsApi;
pub use window::{BindInfo, Window};
pub use work::{
    CompletedWork, FlushedWork, PostBufferError, PostSendError, SgList, StaleCompletion,
};
