//! Blocks of a pcapng file: one section, one Ethernet interface, enhanced packets.

use std::{
    io::{self, Write},
    time::Duration,
};

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// Option codes; their meaning depends on the block.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_TIME_RESOLUTION: u16 = 9;

/// Program that wrote the file.
const APPLICATION: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// Time stamps are in units of 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// Writes the blocks that precede all packets; returns their bytes.
pub(crate) fn write_header(out: &mut impl Write, comment: &str) -> io::Result<u64> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER_MAGIC.to_le_bytes());
    section.extend([1_u16, 0].map(u16::to_le_bytes).as_flattened()); // version 1.0
    section.extend(u64::MAX.to_le_bytes()); // length of the section not specified
    put_option(&mut section, COMMENT, comment.as_bytes());
    put_option(&mut section, SECTION_APPLICATION, APPLICATION.as_bytes());
    put_option(&mut section, END_OF_OPTIONS, &[]);
    let section_bytes = write_block(out, SECTION_HEADER, &section)?;

    let mut interface = Vec::new();
    interface.extend([LINKTYPE_ETHERNET, 0].map(u16::to_le_bytes).as_flattened());
    interface.extend(0_u32.to_le_bytes()); // no limit of the captured length
    put_option(&mut interface, INTERFACE_NAME, b"rdma");
    put_option(&mut interface, INTERFACE_TIME_RESOLUTION, &[NANOSECONDS]);
    put_option(&mut interface, END_OF_OPTIONS, &[]);
    Ok(section_bytes + write_block(out, INTERFACE_DESCRIPTION, &interface)?)
}

/// Bytes of a block of a packet besides the packet itself, its padding and comment included.
pub(crate) const PACKET_OVERHEAD: u64 = 256;

/// Writes a packet, with a comment of at most 200 bytes; returns the bytes of its block.
pub(crate) fn write_packet(
    out: &mut impl Write,
    since_epoch: Duration,
    bytes: &[u8],
    comment: Option<&str>,
) -> io::Result<u64> {
    // 64 bits of nanoseconds last until the year 2554; the high half precedes the low half.
    let time = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX).to_be_bytes();
    let [high, low] = [0, 4].map(|at| [time[at + 3], time[at + 2], time[at + 1], time[at]]);
    let mut packet = Vec::with_capacity(bytes.len() + 64);
    packet.extend(0_u32.to_le_bytes()); // the only interface
    packet.extend([high, low].as_flattened());
    // Its captured length, and that on the wire.
    packet.extend([to_u32(bytes.len()); 2].map(u32::to_le_bytes).as_flattened());
    packet.extend(bytes);
    pad(&mut packet);
    if let Some(comment) = comment {
        put_option(&mut packet, COMMENT, comment.as_bytes());
        put_option(&mut packet, END_OF_OPTIONS, &[]);
    }
    write_block(out, ENHANCED_PACKET, &packet)
}

/// Writes a block in one call, so that a file never ends within one unless the disk is full;
/// returns its bytes.
fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<u64> {
    let length = to_u32(body.len() + 12).to_le_bytes();
    let block = [&kind.to_le_bytes(), &length[..], body, &length].concat();
    out.write_all(&block)?;
    Ok(block.len() as u64)
}

fn put_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("options are constants, and short");
    out.extend([code, length].map(u16::to_le_bytes).as_flattened());
    out.extend(value);
    pad(out);
}

/// Pads to a multiple of 32 bits.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("packets are shorter than 4 GiB")
}
