//! NVMe over Fabrics host over RDMA, in user space.
#![forbid(unsafe_code)]

pub mod wire;
