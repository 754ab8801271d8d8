//! Declarations of the system's libibverbs and librdmacm: the calls that `verbs` makes, and no
//! more.
//!
//! # What this package does not do
//!
//! It ships no C, compiles no C and runs no generator: the declarations are checked in, written
//! against the headers of rdma-core 44, the oldest version we support. It makes nothing safe;
//! that is the work of `verbs`. It does not claim `links = "ibverbs"`, so it can stand in one
//! build with another package that does.
//!
//! # Linking
//!
//! The package `rdma-verbs-sys` has the library `rdma_core_sys`. It needs the development files of
//! both libraries (Debian: `libibverbs-dev`, `librdmacm-dev`).
//!
//! Both libraries are linked dynamically, from the system. librdmacm calls libibverbs itself, so
//! a static libibverbs would be a second copy in the process: the provider plug-in registers
//! with one, we would ask the other, and find no device.
//!
//! # Shape
//!
//! ```text
//!   ibverbs.rs    what <infiniband/verbs.h> declares: types, constants, functions
//!   dispatch.rs   what that header defines in line: calls through a context's function table
//!   extended.rs   the extended queue pairs and completion queues of that header
//!   rdmacm.rs     what <rdma/rdma_cma.h> declares
//!   layout.rs     sizes, checked when this package is compiled
//!   tests/        sizes, offsets and constants against the installed headers; every symbol
//!                 against the installed libraries
//! ```
//!
//! C names are kept as they are. A C enumeration is a newtype over its integer with constants,
//! because a newer library may return a value that this file has not heard of, and such a value
//! in a Rust `enum` would be undefined behaviour.
//!
//! Newer rdma-core versions only append to these structures. We never place one of the
//! library's own objects in our memory, except those that the caller is meant to fill, whose
//! layout is fixed.

#![allow(non_camel_case_types)] // the names are C's

mod dispatch;
mod extended;
mod ibverbs;
mod layout;
mod query_qp;
mod rdmacm;

pub use dispatch::{
    ibv_alloc_mw, ibv_dealloc_mw, ibv_poll_cq, ibv_post_recv, ibv_post_send, ibv_query_port,
    ibv_reg_mr, ibv_req_notify_cq,
};
pub use extended::*;
pub use ibverbs::*;
pub use query_qp::*;
pub use rdmacm::*;
