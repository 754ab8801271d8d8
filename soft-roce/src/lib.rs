//! RDMA without hardware: a kernel with rxe and nvmet as an ordinary process.

#![forbid(unsafe_code)]

pub mod machine;
