//! An NVMe over Fabrics host over RDMA, in user space: queue pairs carry NVMe commands past the
//! kernel.
//!
//! It asks discovery controllers where subsystems are; connects to one controller of a subsystem,
//! with as many I/O queues as asked for and granted; authenticates each queue where secrets are
//! given, and again whenever it is asked to ([`Controller::reauthenticate`]); reads, writes and
//! flushes namespaces; and connects again when the connection is lost, by the rules of Linux. It
//! does not use several paths.
//!
//! ```text
//!   Namespace: async, from any task          Poller: polled, from one thread
//!              \                                /
//!    driver     the only part that touches time, threads and verbs
//!    proto      sans-IO: lifecycle, reconnect policy, bring-up, slots, keep-alive, discovery
//!    wire       bytes: commands, responses, Connect, Identify, log pages, private data
//!               |
//!             verbs                      auth
//! ```
//!
//! # Quick start
//!
//! ```no_run
//! use rdma_host::wire::NamespaceId;
//! use rdma_host::{ConnectOptions, Controller, HostIdentity};
//!
//! # async fn quick_start() -> Result<(), Box<dyn std::error::Error>> {
//! let host = HostIdentity::from_id(uuid::Uuid::new_v4());
//! let nqn = "nqn.2014-08.org.example:disk".parse()?;
//! let options = ConnectOptions::new("192.0.2.7:4420".parse()?, nqn, host);
//!
//! let controller = Controller::connect(&options).await?;
//! let namespace = controller.namespace(NamespaceId(1)).await?;
//!
//! let mut buffer = controller.allocate(64 << 10)?;
//! buffer.copy_in(0, b"hello");
//! let buffer = namespace.write(0, buffer).await?;
//! let buffer = namespace.read(0, buffer).await?;
//!
//! let mut word = [0; 5];
//! buffer.copy_out(0, &mut word);
//! controller.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Buffers
//!
//! A [`Buffer`] is memory the device may reach, so it is never a Rust reference: bytes are copied
//! in and out. It is moved into an operation and comes back with the result, failed or not, once
//! the device can no longer touch it. Dropping a future stops nothing; the buffer stays with the
//! queue until the controller has answered.
//!
//! Registering memory costs a system call and more, so it is done once: a buffer that came back
//! goes into the next operation as it is, with the key it has. [`Controller::allocate_many`] cuts
//! many buffers from one registration, on the NUMA node of the device; [`Controller::register`]
//! takes memory of the caller, where it lies, and [`Buffer::deregister`] gives it back.
//!
//! An operation larger than a command is split, with all parts in flight together. Several buffers
//! make one operation by [`Namespace::read_vectored`] and [`Namespace::write_vectored`]; with a
//! [`Poller`], submit a [`Command`] for each, and flush once.
//!
//! Memory mode `pool`: a registration keeps its key for life, and one controller's registrations
//! are out of every other controller's reach, by a protection domain of its own. While a buffer
//! lives, its controller can read and write it, also between operations.
//!
//! Memory mode `window`: what a controller can reach are the bytes of the commands in flight, each
//! by a key of its own, over its own queue, for the one direction of the command; the key is dead
//! before the buffer comes back. [`MemoryMode`] chooses, [`Controller::memory`] says what it is.
//!
//! # Threads
//!
//! A [`Controller`] runs an admin task, and with [`Controller::connect`] one task for each poller,
//! on the current tokio runtime. [`Namespace`] is `Clone + Send + Sync`; its futures may be awaited
//! anywhere, under any executor: they hand commands to the pollers' tasks through queues of limited
//! length, and wait while those are full. A [`Poller`] has one owner, on a thread that the owner
//! chooses and pins; what it does for one command allocates nothing, takes no lock and makes no
//! system call of its own.
//!
//! Queues are connected several at a time ([`config::CONCURRENT_CONNECTS_MAX`]), with turns for the
//! runtime's other tasks after each call that takes its thread for long; pollers on threads of
//! their own notice nothing of it.
//!
//! # When the connection is lost
//!
//! Commands wait while the controller connects again: those in flight are sent once more, new ones
//! are held, as many as there was room for. [`ReconnectOptions`] say how long and how often, with
//! the names and defaults of Linux; a status with DNR, a rejected key and a missing key end it at
//! once, and every command then fails with [`Error::GaveUp`]. [`Execution`] says of a failed
//! command whether it may have been executed. [`Controller::changes`] tells of every change.
//!
//! Between the loss and the next connection the target may still be executing a write, which is
//! then sent again: as with Linux, and as there, `resend` set to false leaves that to the caller.
//!
//! # Clean-up
//!
//! [`Controller::shutdown`] fails what is in flight, announces the shutdown, waits less than a
//! second for it and disconnects. Dropping a controller does the same in the background. A queue
//! that ends destroys its queue pair first and returns its buffers then.
//!
//! # Errors
//!
//! [`Error`] is sorted by who is to blame, and [`Error::class`] says what that means for a retry.
//! Every wait has a deadline; [`config`] names them all, with units and reasons.
//!
//! # Limits
//!
//! * One command moves what the controller allows (MDTS), 1 MiB if it sets no limit, below 16 MiB
//!   in any case; [`Namespace`] splits what is larger.
//! * Blocks of 512 bytes to 1 MiB, without metadata.
//! * I/O queues of 2 to 1,024 entries; the admin queue has 32.
#![forbid(unsafe_code)]

pub mod config;
pub mod driver;
pub mod error;
pub mod proto;
pub mod wire;

pub use config::{ConnectOptions, HostIdentity, MemoryMode, ReconnectOptions, WaitMode};
pub use driver::{
    Change, Changes, Command, Connecting, Controller, Data, Detail, Device, Discovered, Discovery,
    DiscoveryController, DiscoveryNews, DiscoveryWatch, Done, Execution, Failed, FailedVectored,
    Fate, MemoryReport, Namespace, Notice, Notices, Operation, Poller, Rejection, Statistics,
    Waiter, Windows,
};
pub use error::{Error, ErrorClass};
pub use verbs::{Buffer, NotDeregistered, PageSize, Pool, PoolOptions, RdmaCore, RefusedMemory};
