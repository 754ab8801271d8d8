//! RDMA without hardware.
