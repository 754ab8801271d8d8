//! Messages of the connection manager (InfiniBand 12.6), as 256-byte management datagrams, for the
//! IP service (annex A11).

use std::net::{IpAddr, SocketAddr};

use crate::frame::{Route, gid};

/// Attribute ids.
const REQ: u16 = 0x10;
const REJ: u16 = 0x12;
const REP: u16 = 0x13;
const RTU: u16 = 0x14;
const DREQ: u16 = 0x15;
const DREP: u16 = 0x16;

/// Class of communication management, and the method Send.
const COMMUNICATION_MANAGEMENT: u8 = 7;
const SEND: u8 = 3;

/// Service id of the IP service for TCP's port space; the port takes the low 16 bits.
const IP_SERVICE_TCP: u64 = 0x0106_0000;

/// Length of the management datagram's header.
const HEADER_LEN: usize = 24;

/// Communication ids of a connection, by which its messages belong together: chosen here, as those
/// of the system's connection manager are not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) active: u32,
    pub(crate) passive: u32,
}

/// Fields of a connection request that are known here.
pub(crate) struct Request<'a> {
    pub(crate) queue_pair: u32,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) private_data: &'a [u8],
}

/// Connection request (12.6.5), with the IP service's private data (A11.3.1) before the consumer's.
pub(crate) fn request(ids: Ids, route: Route, request: &Request<'_>) -> [u8; 256] {
    let mut message = Datagram::new(REQ, ids);
    message.put(0, &ids.active.to_be_bytes());
    let service = IP_SERVICE_TCP | u64::from(route.destination.port());
    message.put(8, &service.to_be_bytes());
    message.put_24(32, request.queue_pair, request.responder_resources);
    message.put_24(36, 0, request.initiator_depth);
    message.put_24(44, 0, request.retry_count & 7);
    message.put(48, &[0xff, 0xff]);
    message.put(50, &[request.rnr_retry_count & 7]);
    message.put(51, &[15 << 4]); // retries of the connection manager
    message.put(52, &[0xff; 4]); // permissive LIDs, as of RoCE
    message.put(56, &gid(route.source.ip()));
    message.put(72, &gid(route.destination.ip()));
    message.put(93, &[64]); // hops

    let version = if route.destination.is_ipv4() { 4 } else { 6 };
    message.put(141, &[version << 4]);
    message.put(142, &route.source.port().to_be_bytes());
    message.put(144, &ip_service_address(route.source));
    message.put(160, &ip_service_address(route.destination));
    message.put_private_data(176, request.private_data);
    message.bytes
}

/// Reply to a connection request (12.6.8).
pub(crate) fn reply(ids: Ids, queue_pair: u32, private_data: &[u8]) -> [u8; 256] {
    let mut message = Datagram::of_passive(REP, ids);
    message.put_24(12, queue_pair, 0);
    message.put_private_data(36, private_data);
    message.bytes
}

/// Ready to use (12.6.9): the active side's confirmation of the reply.
pub(crate) fn ready_to_use(ids: Ids) -> [u8; 256] {
    Datagram::of_active(RTU, ids).bytes
}

/// Rejection of a connection request (12.6.7).
pub(crate) fn rejection(ids: Ids, reason: u16, private_data: &[u8]) -> [u8; 256] {
    let mut message = Datagram::of_passive(REJ, ids);
    message.put(10, &reason.to_be_bytes());
    message.put_private_data(84, private_data);
    message.bytes
}

/// Request to disconnect (12.6.10), by the active side.
pub(crate) fn disconnect_request(ids: Ids, remote_queue_pair: u32) -> [u8; 256] {
    let mut message = Datagram::of_active(DREQ, ids);
    message.put_24(8, remote_queue_pair, 0);
    message.bytes
}

/// Request to disconnect, by the passive side.
pub(crate) fn peer_disconnect_request(ids: Ids, remote_queue_pair: u32) -> [u8; 256] {
    let mut message = Datagram::of_passive(DREQ, ids);
    message.put_24(8, remote_queue_pair, 0);
    message.bytes
}

/// Reply to the passive side's request to disconnect (12.6.11).
pub(crate) fn disconnect_reply(ids: Ids) -> [u8; 256] {
    Datagram::of_active(DREP, ids).bytes
}

/// Management datagram; offsets are those of the message, behind the header.
struct Datagram {
    bytes: [u8; 256],
}

impl Datagram {
    fn new(attribute: u16, ids: Ids) -> Self {
        let mut bytes = [0; 256];
        bytes[..4].copy_from_slice(&[1, COMMUNICATION_MANAGEMENT, 2, SEND]);
        bytes[8..16].copy_from_slice(&u64::from(ids.active).to_be_bytes()); // transaction
        bytes[16..18].copy_from_slice(&attribute.to_be_bytes());
        Self { bytes }
    }

    /// A message with both communication ids, sent by the active side.
    fn of_active(attribute: u16, ids: Ids) -> Self {
        let mut message = Self::new(attribute, ids);
        message.put(0, &ids.active.to_be_bytes());
        message.put(4, &ids.passive.to_be_bytes());
        message
    }

    /// A message with both communication ids, sent by the passive side.
    fn of_passive(attribute: u16, ids: Ids) -> Self {
        let mut message = Self::new(attribute, ids);
        message.put(0, &ids.passive.to_be_bytes());
        message.put(4, &ids.active.to_be_bytes());
        message
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[HEADER_LEN + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// A field of 24 bits, with the byte behind it.
    fn put_24(&mut self, offset: usize, field: u32, byte: u8) {
        self.put(offset, &(field << 8 | u32::from(byte)).to_be_bytes());
    }

    /// Private data, from `offset` to the end of the message at most.
    fn put_private_data(&mut self, offset: usize, data: &[u8]) {
        let room = self.bytes.len() - HEADER_LEN - offset;
        self.put(offset, &data[..data.len().min(room)]);
    }
}

/// Address in the IP service's private data: an IPv4 address is in the last 4 of 16 bytes.
fn ip_service_address(end: SocketAddr) -> [u8; 16] {
    match end.ip() {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[12..].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}
