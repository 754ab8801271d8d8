//! Connecting: the RDMA connection of one queue, the bring-up of a controller and of its I/O
//! queues, and authentication.

pub(crate) mod authenticate;
pub(crate) mod bring_up;
pub(crate) mod connect_error;
pub(crate) mod connect_thread;
pub(crate) mod context;
pub(crate) mod controller_probe;
pub(crate) mod io_queues;
pub(crate) mod rdma;
