//! C library `libnvmf-rdma`: the polled interface of [`rdma_host`] for programs in C and C++.
//!
//! `include/nvmf-rdma.h` declares it, `nvmf-rdma.3` is its manual page. The functions are in `ffi`,
//! which has all unsafe code, and do nothing but pass their arguments on.
//!
//! `rdma-host/capi/install --prefix DIR` builds and installs it, with a file for pkg-config; the
//! package is `nvmf-rdma`. `examples/` has a first program in C and one in C++. A queue has one
//! path to its namespaces, and the interface may change until version 1.
//!
//! ```text
//!   ffi          pointers of C: texts, structures, arrays
//!   handle       tables of all objects; a handle is a number, so that a wrong one is an error
//!   options  controller  memory  queue
//!   layout       structures of the interface
//!   error        numbers and texts of errors
//! ```
//!
//! What an object of C is, never leaves its table: a handle is looked up in each call, and a queue
//! is locked for the call. So a handle that is wrong, or in use by another thread, is an error. A
//! lock that is not contended costs a few nanoseconds beside the microseconds of a command.

mod controller;
mod error;
#[expect(unsafe_code, reason = "C passes pointers")]
mod ffi;
mod handle;
mod layout;
mod memory;
mod options;
mod queue;

pub use ffi::*;
pub use layout::*;
pub use queue::add_queue;
