//! RoCE v2 frames (InfiniBand annex A17): Ethernet, IP, UDP, base transport header, payload, ICRC.

use std::net::{IpAddr, SocketAddr};

/// UDP port of RoCE v2.
const ROCE_PORT: u16 = 4791;
/// Default partition.
const PARTITION: u16 = 0xffff;
/// Queue pair of the general services, to which management datagrams go.
const GENERAL_SERVICES: u32 = 1;
/// Queue key of the general services.
const GENERAL_SERVICES_KEY: u32 = 0x8001_0000;
/// Longest payload of a frame, in bytes: an IP packet has less than 64 KiB.
const PAYLOAD_MAX: usize = 60 << 10;
/// Longest frame, in bytes: headers of Ethernet, IP, UDP and RoCE, payload, and CRC.
pub(crate) const BYTES_MAX: usize = PAYLOAD_MAX + 128;
/// Length of the invariant CRC, the last field of a frame.
const ICRC_LEN: usize = 4;

/// Opcodes of the base transport header.
const RC_SEND_ONLY: u8 = 0x04;
const RC_SEND_ONLY_WITH_INVALIDATE: u8 = 0x17;
const UD_SEND_ONLY: u8 = 0x64;

/// Addresses of a frame's two ends; the ports are those of the connection manager's IP service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Route {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Route {
    pub(crate) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// Message of a reliable connection.
pub(crate) struct Message<'a> {
    pub(crate) destination_queue_pair: u32,
    pub(crate) sequence_number: u32,
    /// Key that the message invalidates at its destination.
    pub(crate) invalidates: Option<u32>,
    pub(crate) payload: &'a [u8],
}

/// Returns the frame of a message, as if it fitted one packet, up to [`PAYLOAD_MAX`].
pub(crate) fn message(route: Route, message: &Message<'_>) -> Vec<u8> {
    let opcode = match message.invalidates {
        Some(_) => RC_SEND_ONLY_WITH_INVALIDATE,
        None => RC_SEND_ONLY,
    };
    let payload = &message.payload[..message.payload.len().min(PAYLOAD_MAX)];
    let pad = match payload.len() % 4 {
        0 => 0,
        1 => 3,
        2 => 2,
        _ => 1,
    };
    let mut transport =
        base_header(opcode, pad, message.destination_queue_pair, message.sequence_number);
    transport.extend(message.invalidates.map(u32::to_be_bytes).as_slice().as_flattened());
    transport.extend(payload);
    transport.resize(transport.len() + usize::from(pad), 0);
    frame(route, &transport)
}

/// Returns the frame of a management datagram.
pub(crate) fn management(route: Route, sequence_number: u32, datagram: &[u8; 256]) -> Vec<u8> {
    let mut transport = base_header(UD_SEND_ONLY, 0, GENERAL_SERVICES, sequence_number);
    transport.extend(GENERAL_SERVICES_KEY.to_be_bytes());
    transport.extend(GENERAL_SERVICES.to_be_bytes()); // reserved byte and source queue pair
    transport.extend(datagram);
    frame(route, &transport)
}

/// Base transport header (9.2).
fn base_header(opcode: u8, pad: u8, queue_pair: u32, sequence_number: u32) -> Vec<u8> {
    let mut header = vec![opcode, pad << 4];
    header.extend(PARTITION.to_be_bytes());
    header.extend((queue_pair & 0xff_ffff).to_be_bytes());
    header.extend((sequence_number & 0xff_ffff).to_be_bytes());
    header
}

/// Adds what stands before and behind the transport headers and payload.
fn frame(route: Route, transport: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(8 + transport.len() + ICRC_LEN).expect("a limited payload");
    let mut udp = Vec::with_capacity(8);
    udp.extend(flow_port(route).to_be_bytes());
    udp.extend(ROCE_PORT.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0; 2]); // no checksum: the ICRC covers the packet

    let (kind, ip) = match (route.source.ip().to_canonical(), route.destination.ip().to_canonical())
    {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (0x0800_u16, ipv4_header(source.octets(), destination.octets(), udp_length))
        }
        (source, destination) => (0x86dd, ipv6_header(gid(source), gid(destination), udp_length)),
    };
    let crc = invariant_crc(&ip, &udp, transport);
    let mut frame = Vec::new();
    frame.extend(hardware_address(route.destination));
    frame.extend(hardware_address(route.source));
    frame.extend(kind.to_be_bytes());
    frame.extend(ip);
    frame.extend(udp);
    frame.extend(transport);
    frame.extend(crc.to_le_bytes());
    frame
}

/// Global identifier of a RoCE v2 port with this address.
pub(crate) fn gid(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Locally administered address made of the end of the IP address: real ones are not known here.
fn hardware_address(end: SocketAddr) -> [u8; 6] {
    let gid = gid(end.ip());
    [2, 0, gid[12], gid[13], gid[14], gid[15]]
}

/// UDP source port, the same for all packets of a connection.
fn flow_port(route: Route) -> u16 {
    0xc000 | (route.source.port() ^ route.destination.port())
}

fn ipv4_header(source: [u8; 4], destination: [u8; 4], udp_length: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]); // don't fragment, 64 hops, UDP
    header.extend(source);
    header.extend(destination);
    let sum: u32 =
        header.chunks_exact(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16));
    header[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    header
}

fn ipv6_header(source: [u8; 16], destination: [u8; 16], udp_length: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(udp_length.to_be_bytes());
    header.extend([17, 64]); // UDP, 64 hops
    header.extend(source);
    header.extend(destination);
    header
}

/// Invariant CRC (A17.3.3): what routers may change counts as ones.
fn invariant_crc(ip: &[u8], udp: &[u8], transport: &[u8]) -> u32 {
    let mut masked = vec![0xff; 8]; // in place of a local route header
    let start = masked.len();
    masked.extend(ip);
    let fields: &[usize] = if ip[0] >> 4 == 4 {
        &[1, 8, 10, 11] // type of service, time to live, checksum
    } else {
        masked[start] |= 0x0f; // traffic class and flow label
        &[1, 2, 3, 7]
    };
    fields.iter().for_each(|&field| masked[start + field] = 0xff);
    let start = masked.len();
    masked.extend(udp);
    masked[start + 6..].fill(0xff);
    let start = masked.len();
    masked.extend(transport);
    masked[start + 4] = 0xff; // reserved, with the congestion bits
    crc32fast::hash(&masked)
}
