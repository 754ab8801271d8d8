//! Block devices of Linux that a process serves: ublk (linux/ublk_cmd.h), which needs Linux 6.4.
//!
//! [`Control`] makes, starts, takes over, stops and deletes devices. A [`Queue`] belongs to one
//! thread, which takes [requests](Request) from it and completes them by their tags. The data of a
//! request is copied to or from [`SharedMemory`](verbs::SharedMemory), where an RDMA device
//! transfers it, by the driver or by this process ([`user_copy`](DeviceOptions::user_copy)): that
//! copy is the only one.
//!
//! A device whose daemon ends keeps its requests until another process takes it over
//! ([`Control::start_recovery`]); with [`Recovery::Reissue`] those that were in flight are given to
//! that process again.
//!
//! The package `nvmf-ublk` has the library `ublk`. Its loop, on the thread of a queue:
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//!
//! use ublk::{Device, Error, Operation, Queue};
//!
//! # fn serve(device: &Arc<Device>, memory: verbs::SharedMemory) -> Result<(), Error> {
//! let mut queue = Queue::new(device, 0, memory)?;
//! while !queue.is_ended() {
//!     while let Some(request) = queue.next_request() {
//!         // Blocks that are zeros; a read's would be written to the memory from `offset` on.
//!         let result = match request.operation {
//!             Operation::Read => i32::try_from(request.bytes()).expect("a request is small"),
//!             _ => -5,
//!         };
//!         queue.complete(request.tag, result);
//!     }
//!     if !queue.submit()? {
//!         queue.sleep(None, Duration::from_secs(1))?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! Linux 6.4 or later with `CONFIG_BLK_DEV_UBLK`, and io_uring, which a system may forbid. No zoned
//! devices. Requests are taken and completed by the thread that made the queue alone.
#![deny(unsafe_code)]

mod control;
mod device;
mod error;
mod layout;
mod queue;
mod sys;

pub use control::{Control, DeviceInfo, DeviceOptions, DeviceState, Features, Recovery};
pub use device::Device;
pub use error::Error;
pub use layout::{Attributes, Discard, Parameters};
pub use queue::{Operation, Queue, Request};
pub use sys::leave_mount_namespace;
