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
