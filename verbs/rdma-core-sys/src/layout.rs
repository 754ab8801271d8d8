//! Sizes on 64-bit Linux, checked when this package is compiled. The tests compare sizes and
//! offsets with the installed headers; this check also runs where no header is installed.

#![cfg(target_pointer_width = "64")]

use crate::{ibverbs::*, query_qp::*, rdmacm::*};

macro_rules! sizes {
    ($($name:ident = $size:expr,)*) => {
        $(const _: () = assert!(size_of::<$name>() == $size, stringify!($name));)*
    };
}

sizes! {
    ibv_ah_attr = 32,
    ibv_async_event = 16,
    ibv_comp_channel = 16,
    ibv_context_ops = 256,
    ibv_device = 664,
    ibv_device_attr = 232,
    ibv_mr = 48,
    ibv_mw = 32,
    ibv_pd = 16,
    ibv_port_attr = 52,
    ibv_qp_attr = 144,
    ibv_qp_init_attr = 64,
    ibv_recv_wr = 32,
    ibv_send_wr = 128,
    ibv_sge = 16,
    ibv_wc = 48,
    rdma_addr = 296,
    rdma_cm_event = 80,
    rdma_cm_id = 416,
    rdma_conn_param = 24,
    rdma_event_channel = 4,
    rdma_route = 312,
}
