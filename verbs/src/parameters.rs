//! Parameters of connections and queue pairs, and limits of devices: plain values.

use std::{fmt, ops::Deref};

use arrayvec::ArrayVec;

use crate::token::SLOTS_MAX;

/// Parameters of a connection request or acceptance (`rdma_conn_param`).
#[derive(Clone, Copy, Debug)]
pub struct ConnectParameters<'a> {
    /// Bytes for the peer; at most [`CONNECT_DATA_MAX`] or [`ACCEPT_DATA_MAX`].
    pub private_data: &'a [u8],
    /// Maximum number of RDMA reads of the peer outstanding here; see [`Limits::read_atomic`].
    pub responder_resources: u8,
    /// Maximum number of RDMA reads of this side outstanding at the peer.
    pub initiator_depth: u8,
    /// Number of retries without an acknowledgement, up to 7. With 7 rxe never gives up.
    pub retry_count: u8,
    /// Number of retries when the peer has no receive posted; 7 is without limit.
    pub rnr_retry_count: u8,
}

impl Default for ConnectParameters<'_> {
    /// No private data, one read each way, a moderate number of retries (so that a dead peer is
    /// noticed on any device), and unlimited RNR retries.
    fn default() -> Self {
        Self {
            private_data: &[],
            responder_resources: 1,
            initiator_depth: 1,
            retry_count: 4,
            rnr_retry_count: 7,
        }
    }
}

/// Parameters that the peer proposed or accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionParameters {
    /// Maximum number of RDMA reads of the peer outstanding here: its `initiator_depth`, seen from
    /// this side.
    pub responder_resources: u8,
    /// Maximum number of RDMA reads of this side outstanding at the peer: its
    /// `responder_resources`.
    pub initiator_depth: u8,
    /// Number of retries of the peer without an acknowledgement.
    pub retry_count: u8,
    /// Number of retries of the peer when this side has no receive posted.
    pub rnr_retry_count: u8,
    /// Number of the peer's queue pair; 0 where the message names none.
    pub queue_pair: u32,
}

/// Bytes that travelled with a connection request or its answer.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct PrivateData(ArrayVec<u8, ACCEPT_DATA_MAX>);

impl PrivateData {
    /// Copies up to [`ACCEPT_DATA_MAX`] bytes, the most that any of the messages carries.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().take(ACCEPT_DATA_MAX).collect())
    }
}

impl Deref for PrivateData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for PrivateData {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateData({:02x?})", &self.0[..])
    }
}

/// Size of a queue pair (`ibv_qp_cap`). Everything is allocated when it is created; posting
/// allocates nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueuePairCapabilities {
    /// Maximum number of outstanding sends.
    pub max_send_wr: u32,
    /// Maximum number of outstanding receives.
    pub max_recv_wr: u32,
    /// Maximum number of buffers of one send, 1 to [`SGE_MAX`].
    pub max_send_sge: u32,
    /// Maximum length of an inline send in bytes; rxe allows 512. 0 for none.
    pub max_inline_data: u32,
}

impl QueuePairCapabilities {
    /// Refuses sizes that no device supports.
    pub(crate) fn check(self) -> Result<(), &'static str> {
        let Self { max_send_wr, max_recv_wr, max_send_sge, .. } = self;
        if max_send_wr == 0 || max_recv_wr == 0 {
            return Err("a queue pair needs at least one send and one receive");
        }
        if max_send_wr > SLOTS_MAX || max_recv_wr > SLOTS_MAX {
            return Err("a queue pair has at most 2^24 sends and 2^24 receives");
        }
        if max_send_sge == 0 || max_send_sge as usize > SGE_MAX {
            return Err("a send gathers 1 to 4 buffers");
        }
        Ok(())
    }
}

/// Limits of a device (`ibv_device_attr`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Name of the device, such as `mlx5_0`.
    pub device: String,
    /// Version of its firmware; empty for software.
    pub firmware: String,
    /// Bytes of the largest packet of the endpoint's connection (path MTU); before it is connected,
    /// of the port that it resolved to. Nothing for iWARP, whose segments are TCP's, or where it is
    /// unknown.
    pub path_mtu: Option<u32>,
    /// Entries of a completion queue.
    pub completion_queue_entries: u32,
    /// RDMA reads and atomics that one queue pair can have outstanding itself.
    pub initiator_read_atomic: u32,
    /// Bytes of one registration.
    pub memory_region_bytes: u64,
    /// Registrations.
    pub memory_regions: u32,
    /// Outstanding work requests of one queue, send or receive, of a queue pair.
    pub queue_pair_work_requests: u32,
    /// The NUMA node that the device is on; nothing where there is but one, or for software.
    pub numa_node: Option<u32>,
    /// Queue pairs.
    pub queue_pairs: u32,
    /// RDMA reads and atomics of the peer that one queue pair can have outstanding.
    pub read_atomic: u32,
    /// Buffers that one send can gather.
    pub send_sge: u32,
    /// The transport, which the connection manager uses in its own way.
    pub transport: TransportType,
    /// Memory windows of type 2; 0 where the device has none.
    pub windows: u32,
}

/// The transport of a device, by `enum ibv_transport_type`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum TransportType {
    /// InfiniBand, and RoCE, which is InfiniBand's transport over Ethernet.
    #[default]
    InfiniBand,
    /// iWARP, RDMA over TCP. [`Endpoint::connect`](crate::Endpoint::connect) may block there.
    Iwarp,
    /// Another one.
    Other,
}

/// Private data of a connection request, in bytes, with TCP-like ports.
pub const CONNECT_DATA_MAX: usize = 56;
/// Private data of an acceptance, in bytes.
pub const ACCEPT_DATA_MAX: usize = 196;
/// Private data of a rejection, in bytes.
pub const REJECT_DATA_MAX: usize = 148;
/// Maximum number of buffers of one send.
pub const SGE_MAX: usize = 4;
/// Maximum number of sends that wait for a doorbell. One doorbell for more of them saves nothing
/// measurable. The requests are kept for each queue pair; the chain that libibverbs takes is made
/// in memory of the thread.
pub const SENDS_QUEUED_MAX: u32 = 64;
