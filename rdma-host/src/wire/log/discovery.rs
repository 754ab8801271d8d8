//! The discovery log page (Base 5.1.12.3.1): which subsystems can be reached, and where.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{LogError, LogPage, text};
use crate::wire::{ControllerId, Nqn};

/// The beginning of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryHeader {
    /// GENCTR: changes with every change of the page.
    pub generation: u64,
    /// NUMREC: entries that follow.
    pub records: u64,
    /// RECFMT: how they are written; 0 is the only format there is.
    pub format: u16,
}

/// One entry: a way to a subsystem. Texts are free of control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryEntry {
    /// TRTYPE.
    pub transport: TransportType,
    /// ADRFAM.
    pub family: AddressFamily,
    /// SUBTYPE.
    pub kind: SubsystemType,
    /// TREQ.
    pub requirements: TransportRequirements,
    /// PORTID: two ways with the same number lead through the same port of the subsystem.
    pub port: u16,
    /// CNTLID: which controller to ask for.
    pub controller: ControllerId,
    /// ASQSZ: the largest admin queue, in entries.
    pub admin_queue_entries: u16,
    /// EFLAGS.
    pub flags: DiscoveryEntryFlags,
    /// TRSVCID: the service, for IP a port number.
    pub service: String,
    /// SUBNQN.
    pub subsystem: String,
    /// TRADDR.
    pub address: String,
    /// TSAS.
    pub specific: TransportSpecific,
}

/// What only one transport has (TSAS; Base figure 298).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportSpecific {
    /// Of a transport we know nothing of.
    None,
    /// RDMA.
    Rdma {
        /// RDMA QPTYPE.
        service: RdmaService,
        /// RDMA PRTYPE.
        provider: RdmaProvider,
        /// RDMA CMS: 1 for RDMA CM.
        connection_management: u8,
        /// The partition key, for InfiniBand.
        partition_key: u16,
    },
    /// TCP.
    Tcp(SecurityType),
}

/// Why an entry names no place that RDMA can reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryEntryError {
    /// The address is none, or of another family than it says.
    #[error("its address {address:?} is not of family {family}")]
    Address {
        /// As sent.
        address: String,
        /// As sent.
        family: AddressFamily,
    },
    /// The port number is none.
    #[error("its service {0:?} is no port, 1 to 65535")]
    Service(String),
    /// The name of the subsystem is none.
    #[error("its subsystem {0:?} is no NQN")]
    Subsystem(String),
    /// Another transport.
    #[error("its transport is {0}, not rdma")]
    Transport(TransportType),
}

/// The header as sent; 1,024 bytes with what we skip.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    generation: U64,
    records: U64,
    format: U16,
}

/// An entry as sent (Base figure 296).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    transport: u8,
    family: u8,
    kind: u8,
    requirements: u8,
    port: U16,
    controller: U16,
    admin_queue_entries: U16,
    flags: U16,
    gap_12: [u8; 20],
    service: [u8; 32],
    gap_64: [u8; 192],
    subsystem: [u8; 256],
    address: [u8; 256],
    specific: [u8; 256],
}

const _: () = assert!(size_of::<Header>() <= DiscoveryHeader::READ as usize);
const _: () = assert!(size_of::<Layout>() == DiscoveryEntry::SIZE);
const _: () = assert!(offset_of!(Layout, service) == 32);
const _: () = assert!(offset_of!(Layout, subsystem) == 256);
const _: () = assert!(offset_of!(Layout, address) == 512);
const _: () = assert!(offset_of!(Layout, specific) == 768);

impl DiscoveryHeader {
    /// Bytes of the header; entries follow.
    pub const SIZE: u32 = 1024;
    /// Bytes of it that say something, in whole dwords.
    pub const READ: u32 = 20;

    /// Reads the header, or its beginning.
    ///
    /// # Errors
    ///
    /// When there are less than 18 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| LogError::Length {
            page: LogPage::DISCOVERY,
            bytes: bytes.len(),
            least: size_of::<Header>(),
        })?;
        Ok(Self {
            generation: header.generation.get(),
            records: header.records.get(),
            format: header.format.get(),
        })
    }
}

impl DiscoveryEntry {
    /// Bytes of one entry.
    pub const SIZE: usize = 1024;

    /// Reads entries that stand one behind the other.
    ///
    /// # Errors
    ///
    /// When the last one is cut off.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, LogError> {
        let entries = <[Layout]>::ref_from_bytes(bytes).map_err(|_| LogError::Length {
            page: LogPage::DISCOVERY,
            bytes: bytes.len(),
            least: bytes.len().next_multiple_of(Self::SIZE),
        })?;
        Ok(entries.iter().map(Self::new).collect())
    }

    fn new(entry: &Layout) -> Self {
        let transport = TransportType(entry.transport);
        Self {
            transport,
            family: AddressFamily(entry.family),
            kind: SubsystemType(entry.kind),
            requirements: TransportRequirements(entry.requirements),
            port: entry.port.get(),
            controller: ControllerId(entry.controller.get()),
            admin_queue_entries: entry.admin_queue_entries.get(),
            flags: DiscoveryEntryFlags(entry.flags.get()),
            service: text(&entry.service),
            subsystem: text(&entry.subsystem),
            address: text(&entry.address),
            specific: TransportSpecific::new(transport, &entry.specific),
        }
    }

    /// Where the entry leads.
    ///
    /// # Errors
    ///
    /// When that is no RDMA address.
    pub fn socket_address(&self) -> Result<SocketAddr, DiscoveryEntryError> {
        if self.transport != TransportType::RDMA {
            return Err(DiscoveryEntryError::Transport(self.transport));
        }
        let wrong =
            || DiscoveryEntryError::Address { address: self.address.clone(), family: self.family };
        let address: IpAddr = self.address.parse().map_err(|_| wrong())?;
        let family = if address.is_ipv4() { AddressFamily::IPV4 } else { AddressFamily::IPV6 };
        if family != self.family {
            return Err(wrong());
        }
        let port = self.service.parse().ok().filter(|&port: &u16| port != 0);
        let port = port.ok_or_else(|| DiscoveryEntryError::Service(self.service.clone()))?;
        Ok(SocketAddr::new(address, port))
    }

    /// The name of the subsystem.
    ///
    /// # Errors
    ///
    /// When it is no NQN.
    pub fn nqn(&self) -> Result<Nqn, DiscoveryEntryError> {
        self.subsystem.parse().map_err(|_| DiscoveryEntryError::Subsystem(self.subsystem.clone()))
    }
}

impl TransportSpecific {
    fn new(transport: TransportType, field: &[u8; 256]) -> Self {
        match transport {
            TransportType::RDMA => Self::Rdma {
                service: RdmaService(field[0]),
                provider: RdmaProvider(field[1]),
                connection_management: field[2],
                partition_key: u16::from_le_bytes([field[8], field[9]]),
            },
            TransportType::TCP => Self::Tcp(SecurityType(field[0])),
            _ => Self::None,
        }
    }
}

/// A number with names for some of its values: the words of nvme-cli, so that scripts find what
/// they look for. Other values print as their number.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident($inner:ty) {
        $($(#[$constant_doc:meta])* $constant:ident = $value:literal, $word:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$constant_doc])* pub const $constant: Self = Self($value);)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$constant => f.write_str($word),)*
                    Self(number) => write!(f, "unrecognized ({number:#04x})"),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

named!(
    /// TRTYPE: which transport.
    TransportType(u8) {
        /// RDMA.
        RDMA = 1, "rdma";
        /// Fibre Channel.
        FIBRE_CHANNEL = 2, "fc";
        /// TCP.
        TCP = 3, "tcp";
        /// Inside one host.
        LOOP = 254, "loop";
    }
);

named!(
    /// ADRFAM: what the address is.
    AddressFamily(u8) {
        /// PCI.
        PCI = 0, "pci";
        /// IPv4.
        IPV4 = 1, "ipv4";
        /// IPv6.
        IPV6 = 2, "ipv6";
        /// InfiniBand.
        INFINIBAND = 3, "infiniband";
        /// Fibre Channel.
        FIBRE_CHANNEL = 4, "fibre-channel";
    }
);

named!(
    /// SUBTYPE: what the entry leads to.
    SubsystemType(u8) {
        /// Another discovery subsystem, that knows more.
        REFERRAL = 1, "discovery subsystem referral";
        /// A subsystem with namespaces.
        NVM = 2, "nvme subsystem";
        /// The discovery subsystem that was asked.
        CURRENT_DISCOVERY = 3, "current discovery subsystem";
    }
);

named!(
    /// TSAS SECTYPE of TCP.
    SecurityType(u8) {
        /// No security.
        NONE = 0, "none";
        /// TLS 1.2.
        TLS = 1, "tls";
        /// TLS 1.3.
        TLS13 = 2, "tls13";
    }
);

named!(
    /// RDMA QPTYPE: the transport service.
    RdmaService(u8) {
        /// Reliable connection.
        CONNECTED = 1, "connected";
        /// Reliable datagram.
        DATAGRAM = 2, "datagram";
    }
);

named!(
    /// RDMA PRTYPE: the kind of network.
    RdmaProvider(u8) {
        /// Any.
        NOT_SPECIFIED = 1, "not specified";
        /// InfiniBand.
        INFINIBAND = 2, "infiniband";
        /// RoCE version 1.
        ROCE = 3, "roce";
        /// RoCE version 2.
        ROCE_V2 = 4, "roce-v2";
        /// iWARP.
        IWARP = 5, "iwarp";
    }
);

/// TREQ: what the transport needs (Base figure 296).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportRequirements(pub u8);

impl TransportRequirements {
    /// Whether a secure channel is required: bits 0-1.
    #[must_use]
    pub fn secure_channel(self) -> &'static str {
        match self.0 & 0b11 {
            0 => "not specified",
            1 => "required",
            2 => "not required",
            _ => "reserved",
        }
    }

    /// Bit 2: submission queue flow control can be turned off.
    #[must_use]
    pub fn flow_control_optional(self) -> bool {
        self.0 & (1 << 2) != 0
    }
}

impl fmt::Display for TransportRequirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & !0b111 != 0 || self.0 & 0b11 == 0b11 {
            return write!(f, "unrecognized ({:#04x})", self.0);
        }
        f.write_str(self.secure_channel())?;
        match self.flow_control_optional() {
            true => f.write_str(", sq flow control disable supported"),
            false => Ok(()),
        }
    }
}

/// EFLAGS (Base figure 296).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiscoveryEntryFlags(pub u16);

impl DiscoveryEntryFlags {
    const DUPLICATE_INFORMATION: u16 = 1 << 0;
    const PERSISTENT_CONNECTIONS: u16 = 1 << 1;
    const NO_CENTRAL_CONTROLLER: u16 = 1 << 2;

    /// DUPRETINFO: other entries of the page lead to the same information.
    #[must_use]
    pub fn duplicates(self) -> bool {
        self.0 & Self::DUPLICATE_INFORMATION != 0
    }

    /// EPCSD: the discovery subsystem takes persistent connections.
    #[must_use]
    pub fn takes_persistent_connections(self) -> bool {
        self.0 & Self::PERSISTENT_CONNECTIONS != 0
    }
}

impl fmt::Display for DiscoveryEntryFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (Self::PERSISTENT_CONNECTIONS, "explicit discovery connections"),
            (Self::DUPLICATE_INFORMATION, "duplicate discovery information"),
            (Self::NO_CENTRAL_CONTROLLER, "no cdc connectivity"),
        ];
        let all = known.iter().fold(0, |all, (bit, _)| all | bit);
        if self.0 & !all != 0 {
            return write!(f, "unrecognized ({:#04x})", self.0);
        }
        let set: Vec<_> =
            known.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, word)| *word).collect();
        match set.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&set.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
