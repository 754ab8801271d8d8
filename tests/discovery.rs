//! Discovery: against targets that lie, and, in the bed, against the kernel's.

#[path = "discovery/lies.rs"]
mod lies;
