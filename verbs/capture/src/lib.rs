//! Provider that captures the traffic of another provider as a pcapng file.
//!
//! Network captures of a kernel-bypass connection need a mirroring switch or the device vendor's
//! sniffer, as tcpdump sees no frame of it. [`Capture`] wraps any [`Provider`](verbs::Provider) and
//! writes the frames that the work requests and completions of this process imply: the connection
//! manager's messages with their private data, and the sends of both sides, as RoCE v2. Wireshark's
//! dissectors for InfiniBand and NVMe over RDMA read them.
//!
//! The package `rdma-capture` has the library `rdma_capture`; it needs what `rdma-verbs` needs.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{fs::File, sync::Arc};
//!
//! use rdma_capture::{Capture, CaptureFile};
//!
//! let file = CaptureFile::new(File::create_new("host.pcapng")?, |_| 64, 256 << 20);
//! let provider = Capture::new(Arc::new(verbs::RdmaCore::new()), &file);
//! let endpoint = verbs::Endpoint::open_with(provider)?;
//! // Connect, send, receive.
//! file.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! * RDMA reads and writes of the peer are invisible: the device executes them by itself.
//! * Time stamps are those of posting and polling. Hardware addresses, packet sequence numbers and
//!   communication ids are not known here; the file has made-up ones, and its comment says so.
//! * A message is one frame, whatever the MTU; only its first 60 KiB are in it. On iWARP the frames
//!   are RoCE v2 all the same.
//! * A send that the device then refuses is in the file too.
//! * Passive sides ([`Endpoint::listen`](verbs::Endpoint::listen)) are not captured.
//! * Every post, and every poll that finds something, takes a lock and writes to the file.

#![forbid(unsafe_code)]

mod capture_file;
mod cm_message;
mod frame;
mod pcapng;
mod provider;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use capture_file::CaptureFile;
pub use provider::Capture;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
