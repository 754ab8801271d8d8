//! Our declarations beside those of the crate `ibverbs`: sizes, alignments, offsets, constants.
//!
//! Ours (`rdma-core-sys`) are written against rdma-core 44, the others (`ibverbs-sys`) generated
//! from rdma-core 55: a second judge beside the installed headers, and one of a later version.
//! It has nothing of librdmacm, and no `IBV_ACCESS_OPTIONAL_RANGE`.

use std::mem::offset_of;

use ibverbs_sys::{
    self as theirs, ibv_access_flags, ibv_port_state, ibv_qp_state, ibv_qp_type, ibv_send_flags,
    ibv_wc_flags, ibv_wc_opcode, ibv_wc_status, ibv_wr_opcode,
};
use rdma_core_sys as ours;

/// Structures with their fields, and a field's name in the other's declarations if it differs.
macro_rules! layouts {
    ($($name:ident { $($field:ident $(= $other:ident)?),* })*) => {
        &[$(
            layouts!(@row $name size_of::<ours::$name>(), size_of::<theirs::$name>()),
            layouts!(@row $name align_of::<ours::$name>(), align_of::<theirs::$name>()),
            $(layouts!(
                @row $name.$field
                offset_of!(ours::$name, $field),
                layouts!(@offset $name $field $($other)?)
            ),)*
        )*]
    };
    (@row $name:ident $(. $field:ident)? $ours:expr, $theirs:expr) => {
        (concat!(stringify!($name), $(".", stringify!($field))?), $ours, $theirs)
    };
    (@offset $name:ident $field:ident) => { offset_of!(theirs::$name, $field) };
    (@offset $name:ident $field:ident $other:ident) => { offset_of!(theirs::$name, $other) };
}

/// Constants, each group with the module that holds it in the other's declarations.
macro_rules! constants {
    ($($scope:ident { $($name:ident),* $(,)? })*) => {
        &[$($((stringify!($name), ours::$name.number(), $scope::$name.number()),)*)*]
    };
}

#[test]
fn structures_agree() {
    agree(layouts! {
        ibv_ah_attr { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
        ibv_comp_channel { context, fd, refcnt }
        ibv_context { device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat }
        ibv_context_ops { _compat_query_device, alloc_mw, poll_cq, req_notify_cq,
            _compat_cq_event, post_send, post_recv, _compat_create_ah }
        ibv_cq { context, channel, cq_context, handle, cqe, mutex, cond, comp_events_completed,
            async_events_completed }
        ibv_device { _ops, node_type, transport_type, name, dev_name, dev_path, ibdev_path }
        ibv_device_attr { fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap,
            vendor_id, vendor_part_id, hw_ver, max_qp, max_qp_wr, device_cap_flags, max_sge,
            max_sge_rd, max_cq, max_cqe, max_mr, max_pd, max_qp_rd_atom, max_ee_rd_atom,
            max_res_rd_atom, max_qp_init_rd_atom, max_ee_init_rd_atom, atomic_cap, max_ee,
            max_rdd, max_mw, max_raw_ipv6_qp, max_raw_ethy_qp, max_mcast_grp,
            max_mcast_qp_attach, max_total_mcast_qp_attach, max_ah, max_fmr, max_map_per_fmr,
            max_srq, max_srq_wr, max_srq_sge, max_pkeys, local_ca_ack_delay, phys_port_cnt }
        ibv_gid { raw, global }
        ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        ibv_mr { context, pd, addr, length, handle, lkey, rkey }
        ibv_mw_bind_info { mr, addr, length, mw_access_flags }
        ibv_pd { context, handle }
        ibv_qp { context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type,
            mutex, cond, events_completed }
        ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        ibv_qp_attr { qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn,
            dest_qp_num, qp_access_flags, cap, ah_attr, alt_ah_attr, pkey_index, alt_pkey_index,
            en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer,
            port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit }
        ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
        ibv_recv_wr { wr_id, next, sg_list, num_sge }
        ibv_send_wr { wr_id, next, sg_list, num_sge, opcode, send_flags,
            imm_data_or_invalidate_rkey = __bindgen_anon_1, wr, qp_type,
            bind_mw = __bindgen_anon_2 }
        ibv_sge { addr, length, lkey }
        ibv_wc { imm_data_or_invalidated_rkey = imm_data, qp_num, src_qp, wc_flags, pkey_index,
            slid, sl, dlid_path_bits }
    });
}

/// rdma-core 55 has a field more at the end, which the symbol that we call never writes.
#[test]
fn the_port_has_only_grown() {
    let grown = size_of::<ours::ibv_port_attr>();
    assert_eq!(grown, offset_of!(theirs::ibv_port_attr, active_speed_ex));
    let fields = layouts! {
        ibv_port_attr { state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz,
            bad_pkey_cntr, qkey_viol_cntr, pkey_tbl_len, lid, sm_lid, lmc, max_vl_num, sm_sl,
            subnet_timeout, init_type_reply, active_width, active_speed, phys_state, link_layer,
            flags, port_cap_flags2 }
    };
    agree(&fields[1..]);
}

#[test]
#[rustfmt::skip] // one group a line
fn constants_agree() {
    agree(constants! {
        ibv_wc_status {
            IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_EEC_OP_ERR,
            IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_MW_BIND_ERR, IBV_WC_BAD_RESP_ERR,
            IBV_WC_LOC_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR,
            IBV_WC_REM_OP_ERR, IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR,
            IBV_WC_LOC_RDD_VIOL_ERR, IBV_WC_REM_INV_RD_REQ_ERR, IBV_WC_REM_ABORT_ERR,
            IBV_WC_INV_EECN_ERR, IBV_WC_INV_EEC_STATE_ERR, IBV_WC_FATAL_ERR,
            IBV_WC_RESP_TIMEOUT_ERR, IBV_WC_GENERAL_ERR, IBV_WC_TM_ERR, IBV_WC_TM_RNDV_INCOMPLETE,
        }
        ibv_wc_opcode { IBV_WC_SEND, IBV_WC_RECV }
        ibv_wr_opcode { IBV_WR_SEND }
        ibv_qp_type { IBV_QPT_RC }
        ibv_qp_state { IBV_QPS_RESET, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_ERR }
        ibv_port_state {
            IBV_PORT_NOP, IBV_PORT_DOWN, IBV_PORT_INIT, IBV_PORT_ARMED, IBV_PORT_ACTIVE,
            IBV_PORT_ACTIVE_DEFER,
        }
        theirs {
            IBV_MTU_256, IBV_MTU_512, IBV_MTU_1024, IBV_MTU_2048, IBV_MTU_4096,
            IBV_NODE_UNKNOWN, IBV_NODE_CA, IBV_TRANSPORT_UNKNOWN, IBV_TRANSPORT_IB,
            IBV_ATOMIC_NONE,
        }
        ibv_send_flags { IBV_SEND_SIGNALED, IBV_SEND_INLINE }
        ibv_wc_flags { IBV_WC_IP_CSUM_OK, IBV_WC_WITH_INV }
        ibv_access_flags {
            IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ,
        }
    });
}

/// Fails naming every row whose two numbers differ.
fn agree<N: PartialEq + std::fmt::Debug>(rows: &[(&str, N, N)]) {
    let differ: Vec<_> = rows.iter().filter(|(_, ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "name, ours, theirs: {differ:#?}");
    assert!(!rows.is_empty(), "something is compared");
}

/// A constant of any of the types that either has for them.
trait Constant {
    fn number(self) -> i64;
}

impl Constant for i32 {
    fn number(self) -> i64 {
        self.into()
    }
}

impl Constant for u32 {
    fn number(self) -> i64 {
        self.into()
    }
}

macro_rules! newtypes {
    ($($name:path),* $(,)?) => {
        $(impl Constant for $name {
            fn number(self) -> i64 {
                self.0.into()
            }
        })*
    };
}
newtypes!(
    ours::ibv_atomic_cap,
    ours::ibv_mtu,
    ours::ibv_node_type,
    ours::ibv_port_state,
    ours::ibv_qp_state,
    ours::ibv_qp_type,
    ours::ibv_transport_type,
    ours::ibv_wc_opcode,
    ours::ibv_wc_status,
    ours::ibv_wr_opcode,
    ibv_access_flags,
    ibv_send_flags,
    ibv_wc_flags,
);
