//! NVMe over Fabrics host over RDMA in user space: commands go through RDMA queue pairs without the
//! kernel.
//!
//! Features: discovery; connections to a controller of a subsystem with any number of I/O queues;
//! authentication of each queue, and re-authentication on request ([`Controller::reauthenticate`]);
//! reads, writes, flushes, deallocation and the optional commands of the NVM command set (Compare,
//! Copy, Verify, Write Uncorrectable, Write Zeroes) on namespaces; reservations; zoned namespaces
//! ([`ZonedNamespace`]); reconnecting by the rules of Linux; several paths to a subsystem
//! ([`Subsystem`]).
//!
//! ```text
//!   Namespace: async, from any task          Poller: polled, from one thread
//!              \                                /
//!    driver     time, threads, verbs
//!    proto      sans-IO: lifecycle, reconnect policy, bring-up, slots, keep-alive, discovery
//!    wire       encoding: commands, responses, Connect, Identify, log pages, private data
//!               |
//!             verbs                      auth
//! ```
//!
//! # Quick start
//!
//! The package `nvme-rdma` has the library `rdma_host`. It needs a tokio runtime, and the
//! development files of libibverbs and librdmacm (Debian: `libibverbs-dev`, `librdmacm-dev`).
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
//! A [`Buffer`] is memory that the device may access, so it is never a Rust reference: bytes are
//! copied in and out. It is moved into an operation and returned with the result, on success or
//! error, once the device can no longer access it. Dropping a future cancels nothing; the buffer
//! stays with the queue until the controller has responded.
//!
//! Registering memory costs a system call and more, so a buffer is registered once and reused with
//! the same key. [`Controller::allocate_many`] creates many buffers in one registration, on the
//! NUMA node of the device; [`Controller::register`] registers memory of the caller in place, and
//! [`Buffer::deregister`] returns it.
//!
//! An operation that exceeds the maximum of one command is split, with all parts in flight
//! together. [`Namespace::read_vectored`] and [`Namespace::write_vectored`] combine several buffers
//! to one operation; with a [`Poller`], submit a [`Command`] for each, and ring the doorbells once.
//!
//! Memory mode `pool`: a registration keeps its key for life. Each controller has its own
//! protection domain, so no other controller can access its registrations. While a buffer lives,
//! its controller can read and write it, also between operations.
//!
//! Memory mode `window`: a controller can access only the data of commands in flight, each with a
//! key of its own, on its own queue, in the direction of the command; the key is invalid before the
//! buffer is returned. [`MemoryMode`] selects the mode, [`Controller::memory`] returns the one in
//! force.
//!
//! # Threads
//!
//! A [`Controller`] runs an admin task, and with [`Controller::connect`] one task per poller, on
//! the current tokio runtime. [`Namespace`] is `Clone + Send + Sync`; its futures may be awaited
//! anywhere, under any executor: they pass commands to the pollers' tasks through bounded queues,
//! and wait while those are full. A [`Poller`] has one owner, on a thread that the owner chooses
//! and pins; its path of a command allocates nothing, takes no lock and makes no system call of its
//! own.
//!
//! Queues connect concurrently ([`config::CONCURRENT_CONNECTS_MAX`]) and yield to the runtime's
//! other tasks after each blocking call; pollers on threads of their own are not affected.
//!
//! # Metadata and protection information
//!
//! A namespace may be formatted with [metadata](wire::MetadataFormat): bytes beside the data of
//! each block, and protection information within them, a guard (CRC of 16, 32 or 64 bits) and tags.
//! Over Fabrics the metadata of a block follows its data in the same transfer: an extended block.
//!
//! * Metadata that is nothing but protection information: [`Namespace::read`] and the other
//!   operations take plain buffers. The controller makes the protection information of what is
//!   written, and checks and strips it on reads (PRACT). What happens to data between this host and
//!   the controller, it can't see.
//! * [`Namespace::write_extended`] computes guards and tags in this process, and
//!   [`Namespace::read_extended`] checks them: from end to end, with an error that names the block,
//!   the value found and the value expected ([`Error::Protection`]). [`ProtectionOptions`] have the
//!   tags, and leave the work to the controller or to the caller.
//! * Other metadata: extended buffers as well, or [`Namespace::write_separate`] and
//!   [`Namespace::read_separate`], which copy data and metadata through a bounce buffer.
//!
//! ```no_run
//! use rdma_host::{Controller, Namespace, ProtectionOptions};
//!
//! # async fn protected(controller: &Controller, namespace: &Namespace)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let blocks = 8;
//! let bytes = blocks * namespace.info().extended_block_size() as usize;
//! let mut buffer = controller.allocate(bytes)?;
//! buffer.copy_in(0, b"the data of the first block");
//! let options = ProtectionOptions { application_tag: 7, ..ProtectionOptions::default() };
//! let buffer = namespace.write_extended(0, buffer, &options).await?;
//! let buffer = namespace.read_extended(0, buffer, &options).await?;
//! # drop(buffer);
//! # Ok(())
//! # }
//! ```
//!
//! The processor computes the guards, by its vector instructions, over a copy of each block;
//! nothing of it is offloaded to the RDMA device. With a [`Poller`], whose commands are the
//! caller's, [`Sqe::with_protection`](wire::Sqe::with_protection) sets the fields. Copy is refused
//! where there is protection information, Compare takes extended blocks alone, and a
//! [`SubsystemNamespace`] transfers no metadata: it reads and writes what the controller protects.
//!
//! # When the connection is lost
//!
//! Commands wait while the controller reconnects: those that were in flight are resent once it is
//! live, new ones are queued up to a limit. [`ReconnectOptions`] set how long and how often, with
//! the names and defaults of Linux. A status with DNR, a rejected key or a missing key ends the
//! attempts at once, and every command then fails with [`Error::GaveUp`]. [`ExecutionStatus`] tells
//! whether a failed command may have been executed. [`Controller::changes`] reports every change of
//! state.
//!
//! The target may execute a write long after its connection was lost. Writes to the same blocks,
//! repeated or new, wait until it is proved that it executes nothing more of that connection, and
//! fail with [`Error::Fenced`] if nothing proves it in time: see [`FenceOptions`]. Reads and writes
//! to other blocks do not wait. [`Controller::fence_changes`] reports what waits, and why. With
//! `resend` set to false, commands in flight fail, and the fence is the same.
//!
//! # Several paths
//!
//! A [`Subsystem`] has a controller at each of several addresses of one subsystem, its paths, and
//! goes on while one of them is usable. Its [`SubsystemNamespace`]s choose a path for each command:
//! by its asymmetric access (ANA), which is read at connect, on its event and on its statuses, and
//! among equal paths by a [`PathPolicy`]. What differs by path, subsystem or namespace, is refused.
//!
//! A command that fails for the state of its path, or that was not sent, goes to another path at
//! once, and so does a read without a response. A write without a response may yet be executed: it
//! is sent again behind the fence of all paths; with [`Fence::Off`] at once, as by Linux. Commands
//! that must not be executed twice fail with [`ExecutionStatus::Unknown`]. With no usable path,
//! commands are held as long as [`ReconnectOptions::fast_io_fail`] says, and then fail with
//! [`Error::Path`].
//!
//! ```no_run
//! use rdma_host::wire::NamespaceId;
//! use rdma_host::{ConnectOptions, PathPolicy, Subsystem, SubsystemOptions};
//!
//! # async fn several_paths(connect: ConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
//! let options = SubsystemOptions::new(connect)
//!     .path("192.0.2.8:4420".parse()?, None)
//!     .policy(PathPolicy::QueueDepth);
//! let subsystem = Subsystem::connect(&options).await?;
//! let namespace = subsystem.namespace(NamespaceId(1)).await?;
//! let buffer = namespace.read(0, subsystem.allocate(64 << 10)?).await?;
//! println!("{}", subsystem.status()); // a line for each path, with its counters
//! # drop(buffer);
//! subsystem.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! All paths use one RDMA device, and share its protection domain: each controller of the subsystem
//! can access all buffers of it. A [`Poller`] is of one controller; a [`SubsystemPoller`], by
//! [`ConnectingSubsystem::polled`], has queues of all paths, driven by the thread of its owner.
//!
//! # When the controller refuses a command
//!
//! A read, write, flush, write zeroes or deallocation that fails with a status without DNR is sent
//! again, by the rules of Linux: up to five times, after the delay that the controller asks for.
//! While the controller's access to the namespace changes (ANA), for up to twice the time that it
//! allows for that, such retries are not counted: a failover within that time is no error.
//! [`ExecutionStatus`] and the status of the last response come with the failure;
//! [`Statistics`] counts the retries. With `resend` set to false, the caller decides.
//!
//! # Captures
//!
//! tcpdump sees nothing of what bypasses the kernel. Over a provider of the crate `rdma-capture`,
//! which [`Controller::connect_over`] takes, connection messages, commands and responses go to a
//! file that Wireshark reads. Without it, nothing of a capture is on the path of a command.
//!
//! ```no_run
//! use std::{fs::File, sync::Arc};
//!
//! use rdma_capture::{Capture, CaptureFile};
//! use rdma_host::{ConnectOptions, Controller, RdmaCore, wire::Sqe};
//!
//! # async fn captured(options: &ConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
//! let file = CaptureFile::new(File::create_new("host.pcapng")?, |_| Sqe::SIZE, 256 << 20);
//! let provider = Capture::new(Arc::new(RdmaCore::new()), &file);
//! let controller = Controller::connect_over(&provider, options).await?;
//! controller.shutdown().await;
//! file.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! With `|_| Sqe::SIZE` no data is in the file; the function `bytes_without_payload` of
//! [`AuthenticationCommand`](wire::AuthenticationCommand) in its place adds in-capsule data, but
//! for the payload of an Authentication Send.
//!
//! # Clean-up
//!
//! [`Controller::shutdown`] fails the commands in flight, sends the shutdown notification, waits
//! less than a second for its completion and disconnects. Dropping a controller does the same in
//! the background. A queue destroys its queue pair before it returns its buffers.
//!
//! # Errors
//!
//! [`Error`] is grouped by whose fault it is, and [`Error::class`] is the basis for a retry. Every
//! wait has a deadline; [`config`] lists them all, with units and reasons.
//!
//! # Limits
//!
//! * One command transfers up to the controller's limit (MDTS), 1 MiB if it reports none, and less
//!   than 16 MiB in any case; [`Namespace`] splits larger operations.
//! * Blocks of 512 bytes to 1 MiB, and metadata that follows the data of its block.
//! * I/O queues of 2 to 1,024 entries; the admin queue has 32.
#![forbid(unsafe_code)]

pub use auth;

pub mod config;
mod driver;
pub mod error;
pub mod proto;
pub mod wire;

pub mod runtime {
    //! Runtime of the controllers of a thread, for simulations: see [`Runtime`].

    pub use crate::driver::runtime::{BoxTask, EnterGuard, Readiness, Runtime, enter};
}

pub use config::{
    AuthenticationOptions, ConnectOptions, Fence, FenceOptions, HostIdentity, MemoryMode,
    ReconnectOptions, WaitMode,
};
pub use driver::{
    AdminCounters, Command, CommandCompletion, Connecting, ConnectingSubsystem, Controller,
    ControllerEvent, ControllerEvents, Data, DeviceCounters, Discovered, Discovery,
    DiscoveryController, DiscoveryEvent, DiscoveryWatch, EventDetail, ExecutionStatus, FenceChange,
    FenceChangeKind, FenceChanges, LocalNamespace, LocalPoller, MemoryReport, Namespace,
    NamespaceChange, NamespacePath, NamespaceWalk, OperationStatistics, PathStatus, Poller,
    ProtectionAction, ProtectionOptions, RangeCommands, StateChange, StateChanges, Statistics,
    SubmitError, Subscription, Subsystem, SubsystemChanges, SubsystemNamespace, SubsystemOptions,
    SubsystemPoller, SubsystemStatus, TransferError, VectoredTransferError, Waiter, WindowCounters,
    ZoneSelection, ZonedNamespace,
};
pub use error::{Error, ErrorClass};
pub use proto::{
    DiscoveryLog, DiscoveryTarget, LifecycleState, Negotiated, PathId, PathPolicy, PathState,
    Retryability, SkipReason, SkippedReferral,
};
pub use verbs::{
    Buffer, DeregisterError, MemoryOwner, PageSize, Pool, PoolOptions, Provider, RdmaCore,
    RegisterError, ReleaseError, SharedMemory,
};
