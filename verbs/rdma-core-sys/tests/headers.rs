//! Sizes, offsets and constants, against the headers installed on this machine. The C compiler
//! is the judge: a program of `_Static_assert`s is written and compiled. A missing compiler or
//! header fails the test; it does not skip it.

use std::{fmt::Write as _, io::Write as _, mem::offset_of, process::Command};

use rdma_core_sys::*;

macro_rules! layouts {
    ($source:ident: $($name:ident { $($field:ident $(as $c_name:literal)?),* })*) => {
        $(
            writeln!(
                $source,
                "_Static_assert(sizeof(struct {0}) == {1}, \"size of {0}\");",
                stringify!($name),
                size_of::<$name>(),
            )
            .expect("writing to a string cannot fail");
            $(
                let c_name: &str = layouts!(@name $field $($c_name)?);
                writeln!(
                    $source,
                    "_Static_assert(offsetof(struct {0}, {1}) == {2}, \"{0}.{1}\");",
                    stringify!($name),
                    c_name,
                    offset_of!($name, $field),
                )
                .expect("writing to a string cannot fail");
            )*
        )*
    };
    (@name $field:ident $c_name:literal) => { $c_name };
    (@name $field:ident) => { stringify!($field) };
}

/// As `layouts`, of structures that newer headers append to.
macro_rules! offsets {
    ($source:ident: $($name:ident { $($field:ident),* })*) => {
        $($(
            writeln!(
                $source,
                "_Static_assert(offsetof(struct {0}, {1}) == {2}, \"{0}.{1}\");",
                stringify!($name),
                stringify!($field),
                offset_of!($name, $field),
            )
            .expect("writing to a string cannot fail");
        )*)*
    };
}

macro_rules! constants {
    ($source:ident: $($name:ident),* $(,)?) => {
        $(
            writeln!(
                $source,
                "_Static_assert((long long){0} == {1}LL, \"value of {0}\");",
                stringify!($name),
                i64::from(Value::from($name).0),
            )
            .expect("writing to a string cannot fail");
        )*
    };
}

/// The integer inside any of the newtypes.
struct Value(i64);

macro_rules! values {
    ($($name:ident),*) => {
        $(impl From<$name> for Value {
            fn from(value: $name) -> Self {
                Self(value.0.into())
            }
        })*
    };
}
values!(
    ibv_atomic_cap,
    ibv_event_type,
    ibv_mtu,
    ibv_mw_type,
    ibv_node_type,
    ibv_port_state,
    ibv_qp_state,
    ibv_qp_type,
    ibv_transport_type,
    ibv_wc_opcode,
    ibv_wc_status,
    ibv_wr_opcode,
    rdma_cm_event_type,
    rdma_port_space
);

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self(value.into())
    }
}

#[test]
fn structures_of_ibverbs_agree_with_the_header() {
    let mut source = prelude();
    layouts! { source:
        ibv_ah_attr { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
        ibv_comp_channel { context, fd, refcnt }
        ibv_context { device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat }
        ibv_context_ops { _compat_query_device, alloc_mw, dealloc_mw, poll_cq, req_notify_cq,
            _compat_cq_event, post_send, post_recv, _compat_create_ah }
        ibv_cq { context, channel, cq_context, handle, cqe, mutex, cond,
            comp_events_completed, async_events_completed }
        ibv_cq_init_attr_ex { cqe, cq_context, channel, comp_vector, wc_flags, comp_mask, flags,
            parent_domain }
        ibv_poll_cq_attr { comp_mask }
        ibv_qp_init_attr_ex { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all,
            comp_mask, pd, xrcd, create_flags, max_tso_header, rwq_ind_tbl, rx_hash_conf,
            source_qpn, send_ops_flags }
        ibv_rx_hash_conf { rx_hash_function, rx_hash_key_len, rx_hash_key, rx_hash_fields_mask }
        ibv_device { _ops, node_type, transport_type, name, dev_name, dev_path, ibdev_path }
        ibv_device_attr { fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap,
            vendor_id, vendor_part_id, hw_ver, max_qp, max_qp_wr, device_cap_flags, max_sge,
            max_cq, max_cqe, max_mr, max_pd, max_qp_rd_atom, max_qp_init_rd_atom, atomic_cap,
            max_mw, max_srq_sge, max_pkeys, local_ca_ack_delay, phys_port_cnt }
        ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        ibv_mr { context, pd, addr, length, handle, lkey, rkey }
        ibv_async_event { element, event_type }
        ibv_mw { context, pd, rkey, handle, r#type as "type" }
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
            imm_data_or_invalidate_rkey as "imm_data", wr, qp_type, bind_mw }
        ibv_sge { addr, length, lkey }
        ibv_wc { wr_id, status, opcode, vendor_err, byte_len,
            imm_data_or_invalidated_rkey as "invalidated_rkey", qp_num, src_qp, wc_flags,
            pkey_index, slid, sl, dlid_path_bits }
    }
    compile("ibverbs", &source);
}

#[test]
fn structures_that_grow_begin_as_in_the_header() {
    let mut source = prelude();
    offsets! { source:
        ibv_cq_ex { context, channel, cq_context, handle, cqe, mutex, cond,
            comp_events_completed, async_events_completed, comp_mask, status, wr_id, start_poll,
            next_poll, end_poll, read_opcode, read_vendor_err, read_byte_len, read_imm_data,
            read_qp_num, read_src_qp, read_wc_flags }
        ibv_qp_ex { qp_base, comp_mask, wr_id, wr_flags, wr_atomic_cmp_swp, wr_atomic_fetch_add,
            wr_bind_mw, wr_local_inv, wr_rdma_read, wr_rdma_write, wr_rdma_write_imm, wr_send,
            wr_send_imm, wr_send_inv, wr_send_tso, wr_set_ud_addr, wr_set_xrc_srqn,
            wr_set_inline_data, wr_set_inline_data_list, wr_set_sge, wr_set_sge_list, wr_start,
            wr_complete, wr_abort }
        ibv_port_attr { state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz,
            pkey_tbl_len, lid, sm_lid, lmc, phys_state, link_layer, flags, port_cap_flags2 }
    }
    writeln!(
        source,
        "_Static_assert(offsetof(struct verbs_context, context) \
         - offsetof(struct verbs_context, create_cq_ex) == {CREATE_CQ_EX_BEFORE_CONTEXT}, \
         \"create_cq_ex\");\n\
         _Static_assert(offsetof(struct verbs_context, context) \
         - offsetof(struct verbs_context, sz) == sizeof(size_t), \"sz\");\n\
         _Static_assert(offsetof(struct verbs_context, context) + sizeof(struct ibv_context) \
         == sizeof(struct verbs_context), \"context\");",
    )
    .expect("writing to a string cannot fail");
    compile("extended", &source);
}

#[test]
fn structures_of_rdmacm_agree_with_the_header() {
    let mut source = prelude();
    layouts! { source:
        rdma_addr { src as "src_addr", dst as "dst_addr", addr }
        rdma_cm_event { id, listen_id, event, status, param }
        rdma_cm_id { verbs, channel, context, qp, route, ps, port_num, event, send_cq_channel,
            send_cq, recv_cq_channel, recv_cq, srq, pd, qp_type }
        rdma_conn_param { private_data, private_data_len, responder_resources, initiator_depth,
            flow_control, retry_count, rnr_retry_count, srq, qp_num }
        rdma_event_channel { fd }
        rdma_ib_addr { sgid, dgid, pkey }
        rdma_route { addr, path_rec, num_paths }
        rdma_ud_param { private_data, private_data_len, ah_attr, qp_num, qkey }
    }
    compile("rdmacm", &source);
}

#[test]
#[rustfmt::skip] // one group a line
fn constants_agree_with_the_headers() {
    let mut source = prelude();
    constants! { source:
        IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_EEC_OP_ERR,
        IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_MW_BIND_ERR, IBV_WC_BAD_RESP_ERR,
        IBV_WC_LOC_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR,
        IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_LOC_RDD_VIOL_ERR,
        IBV_WC_REM_INV_RD_REQ_ERR, IBV_WC_REM_ABORT_ERR, IBV_WC_INV_EECN_ERR,
        IBV_WC_INV_EEC_STATE_ERR, IBV_WC_FATAL_ERR, IBV_WC_RESP_TIMEOUT_ERR, IBV_WC_GENERAL_ERR,
        IBV_WC_TM_ERR, IBV_WC_TM_RNDV_INCOMPLETE,
        IBV_WC_SEND, IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_BIND_MW, IBV_WC_LOCAL_INV,
        IBV_WC_RECV, IBV_WR_RDMA_WRITE, IBV_WR_SEND, IBV_WR_RDMA_READ, IBV_WR_LOCAL_INV,
        IBV_WR_BIND_MW, IBV_WR_SEND_WITH_INV, IBV_MW_TYPE_1, IBV_MW_TYPE_2,
        IBV_EVENT_CQ_ERR, IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR, IBV_EVENT_QP_ACCESS_ERR,
        IBV_EVENT_COMM_EST, IBV_EVENT_SQ_DRAINED, IBV_EVENT_PATH_MIG, IBV_EVENT_PATH_MIG_ERR,
        IBV_EVENT_DEVICE_FATAL, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR, IBV_EVENT_LID_CHANGE,
        IBV_EVENT_PKEY_CHANGE, IBV_EVENT_SM_CHANGE, IBV_EVENT_SRQ_ERR,
        IBV_EVENT_SRQ_LIMIT_REACHED, IBV_EVENT_QP_LAST_WQE_REACHED,
        IBV_EVENT_CLIENT_REREGISTER, IBV_EVENT_GID_CHANGE, IBV_EVENT_WQ_FATAL,
        IBV_QPT_RC, IBV_QPS_RESET, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_ERR, IBV_QP_STATE,
        IBV_QP_PATH_MTU,
        IBV_MTU_256, IBV_MTU_512, IBV_MTU_1024, IBV_MTU_2048, IBV_MTU_4096,
        IBV_PORT_NOP, IBV_PORT_DOWN, IBV_PORT_INIT, IBV_PORT_ARMED, IBV_PORT_ACTIVE,
        IBV_PORT_ACTIVE_DEFER, IBV_NODE_UNKNOWN, IBV_NODE_CA, IBV_TRANSPORT_UNKNOWN,
        IBV_TRANSPORT_IB, IBV_TRANSPORT_IWARP, IBV_ATOMIC_NONE,
        IBV_SEND_SIGNALED, IBV_SEND_INLINE, IBV_WC_IP_CSUM_OK, IBV_WC_WITH_INV,
        IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ,
        IBV_ACCESS_MW_BIND, IBV_ACCESS_OPTIONAL_RANGE, IBV_ACCESS_RELAXED_ORDERING,
        IBV_DEVICE_MEM_WINDOW_TYPE_2A, IBV_DEVICE_MEM_WINDOW_TYPE_2B,
        IBV_QP_INIT_ATTR_PD, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_SEND, IBV_QP_EX_WITH_RDMA_READ,
        IBV_QP_EX_WITH_LOCAL_INV, IBV_QP_EX_WITH_BIND_MW, IBV_QP_EX_WITH_SEND_WITH_INV,
        IBV_WC_EX_WITH_BYTE_LEN, IBV_WC_EX_WITH_IMM, IBV_WC_EX_WITH_QP_NUM,
        RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ADDR_ERROR, RDMA_CM_EVENT_ROUTE_RESOLVED,
        RDMA_CM_EVENT_ROUTE_ERROR, RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_RESPONSE,
        RDMA_CM_EVENT_CONNECT_ERROR, RDMA_CM_EVENT_UNREACHABLE, RDMA_CM_EVENT_REJECTED,
        RDMA_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_DISCONNECTED, RDMA_CM_EVENT_DEVICE_REMOVAL,
        RDMA_CM_EVENT_MULTICAST_JOIN, RDMA_CM_EVENT_MULTICAST_ERROR, RDMA_CM_EVENT_ADDR_CHANGE,
        RDMA_CM_EVENT_TIMEWAIT_EXIT, RDMA_PS_TCP,
        RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, RDMA_OPTION_ID_ACK_TIMEOUT,
    }
    compile("constants", &source);
}

fn prelude() -> String {
    "#include <stddef.h>\n#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n".to_owned()
}

fn compile(name: &str, source: &str) {
    let path = std::env::temp_dir().join(format!("rdma-core-sys-{name}-{}.c", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("the temporary directory is writable");
    file.write_all(source.as_bytes()).expect("the temporary file is writable");
    let output = Command::new("cc").arg("-fsyntax-only").arg(&path).output();
    std::fs::remove_file(&path).expect("the file was just made");
    let output = output.expect("a C compiler named cc is needed to judge the declarations");
    assert!(
        output.status.success(),
        "the installed headers disagree (or libibverbs-dev, librdmacm-dev are missing):\n{}",
        String::from_utf8_lossy(&output.stderr),
    );
}
