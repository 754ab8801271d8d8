//! Fabrics commands: Connect, Property Get and Property Set (Base 6).

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{ControllerId, Nqn, Opcode, Property, QueueId, SglDescriptor, Sqe, command::FLAGS_SGL};

/// Common first 40 bytes of all Fabrics commands.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    opcode: Opcode,
    flags: u8,
    command_id: U16,
    fabrics_type: u8,
    reserved: [u8; 19],
    sgl: SglDescriptor,
}

const _: () = assert!(size_of::<Header>() == 40);

impl Header {
    fn new(fabrics_type: u8) -> Self {
        Self {
            opcode: Opcode::FABRICS,
            flags: FLAGS_SGL,
            command_id: U16::ZERO,
            fabrics_type,
            reserved: [0; 19],
            sgl: SglDescriptor::none(),
        }
    }
}

const PROPERTY_SET: u8 = 0x00;
const CONNECT: u8 = 0x01;
const PROPERTY_GET: u8 = 0x04;
const AUTHENTICATION_SEND: u8 = 0x05;
const AUTHENTICATION_RECEIVE: u8 = 0x06;

/// Connect: binds an RDMA connection to a queue of a controller (Base 6.3).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectCommand {
    header: Header,
    record_format: U16,
    queue_id: U16,
    submission_size: U16,
    attributes: u8,
    reserved: u8,
    keep_alive_ms: U32,
    reserved_end: [u8; 12],
}

const _: () = assert!(size_of::<ConnectCommand>() == 64);
const _: () = assert!(offset_of!(ConnectCommand, queue_id) == 42);
const _: () = assert!(offset_of!(ConnectCommand, keep_alive_ms) == 48);

impl ConnectCommand {
    /// CATTR bit 2: submission queue flow control is off.
    const DISABLE_FLOW_CONTROL: u8 = 1 << 2;

    /// Connect for a queue of `entries` entries. `keep_alive_ms` is the keep-alive timeout (KATO)
    /// in milliseconds, used on the admin queue only; 0 turns it off.
    #[must_use]
    pub fn new(queue: QueueId, entries: u16, keep_alive_ms: u32) -> Self {
        Self {
            header: Header::new(CONNECT),
            record_format: U16::ZERO,
            queue_id: U16::new(queue.0),
            submission_size: U16::new(entries.saturating_sub(1)),
            attributes: 0,
            reserved: 0,
            keep_alive_ms: U32::new(keep_alive_ms),
            reserved_end: [0; 12],
        }
    }

    /// Disables submission queue flow control: the controller neither tracks nor reports SQHD.
    #[must_use]
    pub fn without_flow_control(mut self) -> Self {
        self.attributes |= Self::DISABLE_FLOW_CONTROL;
        self
    }

    /// Converts the command to a submission queue entry.
    #[must_use]
    pub fn to_sqe(self) -> Sqe {
        zerocopy::transmute!(self)
    }
}

/// Data of a Connect: host id and the NQNs of host and subsystem (Base figure 531).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    host_id: [u8; 16],
    controller_id: U16,
    reserved: [u8; 238],
    subsystem_nqn: [u8; 256],
    host_nqn: [u8; 256],
    reserved_end: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == 1024);
const _: () = assert!(offset_of!(ConnectData, controller_id) == 16);
const _: () = assert!(offset_of!(ConnectData, subsystem_nqn) == 256);
const _: () = assert!(offset_of!(ConnectData, host_nqn) == 512);

impl ConnectData {
    /// Data for one queue; `controller` is [`ControllerId::DYNAMIC`] on the admin queue.
    #[must_use]
    pub fn new(host_id: Uuid, controller: ControllerId, subsystem: &Nqn, host: &Nqn) -> Self {
        Self {
            host_id: host_id.into_bytes(),
            controller_id: U16::new(controller.0),
            reserved: [0; 238],
            subsystem_nqn: subsystem.to_field(),
            host_nqn: host.to_field(),
            reserved_end: [0; 256],
        }
    }
}

/// Authentication requirements in the result of Connect (AUTHREQ, Base figure 533).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationRequirements {
    /// ATR: the queue must be authenticated before use.
    pub authenticate: bool,
    /// ASCR: a secure channel must be established, which RDMA does not support.
    pub secure_channel: bool,
}

impl AuthenticationRequirements {
    /// Decodes the result of a successful Connect.
    #[must_use]
    pub fn parse(result: u32) -> Self {
        Self { authenticate: result & (1 << 17) != 0, secure_channel: result & (1 << 18) != 0 }
    }

    /// Returns true if anything is required.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.authenticate || self.secure_channel
    }
}

/// Authentication Send and Authentication Receive (Base 6.1 and 6.2), which carry the messages of
/// DH-HMAC-CHAP.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AuthenticationCommand {
    header: Header,
    reserved: u8,
    protocol_specific: [u8; 2],
    protocol: u8,
    length: U32,
    reserved_end: [u8; 16],
}

const _: () = assert!(size_of::<AuthenticationCommand>() == 64);
const _: () = assert!(offset_of!(AuthenticationCommand, protocol) == 43);
const _: () = assert!(offset_of!(AuthenticationCommand, length) == 44);

impl AuthenticationCommand {
    /// Security protocol (SECP): NVMe (Base figure 522).
    const NVME: u8 = 0xe9;

    /// Authentication Send of a message of `length` bytes.
    #[must_use]
    pub fn send(length: u32) -> Self {
        Self::new(AUTHENTICATION_SEND, length)
    }

    /// Authentication Receive of a message of at most `length` bytes.
    #[must_use]
    pub fn receive(length: u32) -> Self {
        Self::new(AUTHENTICATION_RECEIVE, length)
    }

    /// Returns the number of bytes of a capsule or response, from its start, that hold nothing of
    /// an authentication: the command alone of an Authentication Send, all of any other. What is
    /// behind that, a challenge or a response to one, lets others try secrets offline.
    #[must_use]
    pub fn bytes_without_payload(message: &[u8]) -> usize {
        let is_send = message.first() == Some(&Opcode::FABRICS.0)
            && message.get(offset_of!(Header, fabrics_type)) == Some(&AUTHENTICATION_SEND);
        if is_send { message.len().min(Sqe::SIZE) } else { message.len() }
    }

    fn new(fabrics_type: u8, length: u32) -> Self {
        Self {
            header: Header::new(fabrics_type),
            reserved: 0,
            protocol_specific: [1, 1],
            protocol: Self::NVME,
            length: U32::new(length),
            reserved_end: [0; 16],
        }
    }

    /// Converts the command to a submission queue entry.
    #[must_use]
    pub fn to_sqe(self) -> Sqe {
        zerocopy::transmute!(self)
    }
}

/// Describes the field that a failed Connect reports as invalid (Base figure 532). The result of
/// "invalid parameters" holds an offset (IPO) into the data (IATTR bit 0 set) or into the command.
#[must_use]
pub fn connect_invalid_parameter(result: u32) -> &'static str {
    match invalid_parameter_offset(result) {
        (true, 0..16) => "the host identifier",
        (true, 16..18) => "the controller id",
        (true, 256..512) => "the subsystem NQN: no such subsystem is offered at this address",
        (true, 512..768) => "the host NQN",
        (false, 40..42) => "the record format",
        (false, 42..44) => "the queue id",
        (false, 44..46) => "the queue size",
        (false, 46) => "the connect attributes",
        (false, 48..52) => "the keep-alive time",
        _ => "a field it does not name",
    }
}

/// Returns true if a failed Connect reports the controller id as invalid.
#[must_use]
pub fn is_invalid_controller_id(result: u32) -> bool {
    matches!(invalid_parameter_offset(result), (true, 16..18))
}

/// Returns true if a failed Connect reports the queue size as invalid.
#[must_use]
pub fn is_invalid_queue_size(result: u32) -> bool {
    matches!(invalid_parameter_offset(result), (false, 44..46))
}

/// Decodes the result: true if the invalid field is in the data, and its offset in the data or the
/// command.
fn invalid_parameter_offset(result: u32) -> (bool, u16) {
    let [low, high, area, _] = result.to_le_bytes();
    (area & 1 != 0, u16::from_le_bytes([low, high]))
}

/// Property Get (Base 6.5).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PropertyGet {
    header: Header,
    attributes: u8,
    reserved: [u8; 3],
    offset: U32,
    reserved_end: [u8; 16],
}

const _: () = assert!(size_of::<PropertyGet>() == 64);
const _: () = assert!(offset_of!(PropertyGet, offset) == 44);

impl PropertyGet {
    /// Property Get of `property`.
    #[must_use]
    pub fn new(property: Property) -> Self {
        Self {
            header: Header::new(PROPERTY_GET),
            attributes: u8::from(property.wide),
            reserved: [0; 3],
            offset: U32::new(property.offset),
            reserved_end: [0; 16],
        }
    }

    /// Converts the command to a submission queue entry.
    #[must_use]
    pub fn to_sqe(self) -> Sqe {
        zerocopy::transmute!(self)
    }
}

/// Property Set (Base 6.6).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PropertySet {
    header: Header,
    attributes: u8,
    reserved: [u8; 3],
    offset: U32,
    value: U64,
    reserved_end: [u8; 8],
}

const _: () = assert!(size_of::<PropertySet>() == 64);
const _: () = assert!(offset_of!(PropertySet, value) == 48);

impl PropertySet {
    /// Property Set of `property` to `value`.
    #[must_use]
    pub fn new(property: Property, value: u64) -> Self {
        Self {
            header: Header::new(PROPERTY_SET),
            attributes: u8::from(property.wide),
            reserved: [0; 3],
            offset: U32::new(property.offset),
            value: U64::new(value),
            reserved_end: [0; 8],
        }
    }

    /// Converts the command to a submission queue entry.
    #[must_use]
    pub fn to_sqe(self) -> Sqe {
        zerocopy::transmute!(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_in_literal_bytes() {
        let sqe = ConnectCommand::new(QueueId(3), 128, 5000).without_flow_control().to_sqe();
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[..8], [0x7f, 0x40, 0, 0, 0x01, 0, 0, 0]);
        assert_eq!(bytes[39], 0x40);
        assert_eq!(bytes[40..52], [0, 0, 3, 0, 127, 0, 4, 0, 0x88, 0x13, 0, 0]);
    }

    #[test]
    fn connect_data_in_literal_bytes() {
        let subsystem = "nqn.s".parse().unwrap();
        let host = "nqn.h".parse().unwrap();
        let id = Uuid::from_bytes([0xab; 16]);
        let data = ConnectData::new(id, ControllerId::DYNAMIC, &subsystem, &host);
        let bytes = data.as_bytes();
        assert_eq!(bytes[..19], [[0xab; 16].as_slice(), &[0xff, 0xff, 0]].concat());
        assert_eq!(&bytes[256..262], b"nqn.s\0");
        assert_eq!(&bytes[512..518], b"nqn.h\0");
        assert!(bytes[768..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn properties_in_literal_bytes() {
        let get = PropertyGet::new(Property::CAPABILITIES).to_sqe();
        assert_eq!(get.as_bytes()[..5], [0x7f, 0x40, 0, 0, 0x04]);
        assert_eq!(get.as_bytes()[40..48], [1, 0, 0, 0, 0, 0, 0, 0]);
        let set = PropertySet::new(Property::CONFIGURATION, 0x0046_0001).to_sqe();
        assert_eq!(set.as_bytes()[4], 0x00);
        assert_eq!(set.as_bytes()[40..56], [0, 0, 0, 0, 0x14, 0, 0, 0, 1, 0, 0x46, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn authentication_bits() {
        let asked = AuthenticationRequirements::parse(0x0002_0001);
        assert!(asked.authenticate && !asked.secure_channel && asked.is_any());
        assert!(AuthenticationRequirements::parse(0x0004_0001).secure_channel);
        assert!(!AuthenticationRequirements::parse(0x0001_ffff).is_any());
    }

    #[test]
    fn authentication_in_literal_bytes() {
        let send = AuthenticationCommand::send(72).to_sqe();
        assert_eq!(send.as_bytes()[..5], [0x7f, 0x40, 0, 0, 0x05]);
        assert_eq!(send.as_bytes()[40..49], [0, 1, 1, 0xe9, 72, 0, 0, 0, 0]);
        let receive = AuthenticationCommand::receive(4096).to_sqe();
        assert_eq!(receive.as_bytes()[4], 0x06);
        assert_eq!(receive.as_bytes()[43..48], [0xe9, 0, 0x10, 0, 0]);
    }

    #[test]
    fn a_payload_of_authentication_is_no_part_of_what_others_may_see() {
        let bytes = AuthenticationCommand::bytes_without_payload;
        let capsule = |command: Sqe| [command.as_bytes(), b"payload"].concat();
        assert_eq!(bytes(&capsule(AuthenticationCommand::send(7).to_sqe())), 64);
        assert_eq!(bytes(AuthenticationCommand::send(7).to_sqe().as_bytes()), 64);
        assert_eq!(bytes(&capsule(AuthenticationCommand::receive(7).to_sqe())), 71);
        assert_eq!(bytes(&[Opcode::FABRICS.0; 16]), 16);
        assert_eq!(bytes(&[]), 0);
    }

    #[test]
    fn invalid_parameters_in_words() {
        assert!(connect_invalid_parameter(0x0001_0100).contains("subsystem NQN"));
        assert_eq!(connect_invalid_parameter(0x0001_0200), "the host NQN");
        assert_eq!(connect_invalid_parameter(0x0000_002c), "the queue size");
        assert_eq!(connect_invalid_parameter(0xffff_ffff), "a field it does not name");
    }
}
