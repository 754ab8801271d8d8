//! Discovery log page (Base 5.1.12.3.1): subsystems and the addresses of their ports.

use std::{
    fmt,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
};

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U64},
};

use super::{LogError, LogPage, text};
use crate::wire::{ControllerId, Nqn};

/// Header of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryHeader {
    /// Generation counter (GENCTR), incremented with every change of the page.
    pub generation: u64,
    /// Number of records (NUMREC).
    pub records: u64,
    /// Record format (RECFMT); 0 is the only one defined.
    pub format: u16,
}

/// Discovery log page entry: a port of a subsystem. Texts contain no control characters.
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
    /// PORTID; entries with the same number describe the same port of the subsystem.
    pub port: u16,
    /// CNTLID to use in Connect.
    pub controller: ControllerId,
    /// ASQSZ: maximum size of the admin queue in entries.
    pub admin_queue_entries: u16,
    /// EFLAGS.
    pub flags: DiscoveryEntryFlags,
    /// TRSVCID: transport service; a port number for IP.
    pub service: String,
    /// SUBNQN.
    pub subsystem: String,
    /// TRADDR.
    pub address: String,
    /// TSAS.
    pub specific: TransportSpecific,
}

/// Transport specific address subtype (TSAS, Base figure 298).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportSpecific {
    /// Transport without known subtype.
    None,
    /// RDMA.
    Rdma {
        /// RDMA QPTYPE.
        service: RdmaService,
        /// RDMA PRTYPE.
        provider: RdmaProvider,
        /// RDMA CMS: 1 for RDMA CM.
        connection_management: u8,
        /// Partition key of InfiniBand.
        partition_key: u16,
    },
    /// TCP.
    Tcp(SecurityType),
}

/// Error of an entry that is not a valid RDMA address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryEntryError {
    /// The address does not parse, or is not of the family stated.
    #[error("its address {address:?} is not of family {family}")]
    Address {
        /// Value as sent.
        address: String,
        /// Value as sent.
        family: AddressFamily,
    },
    /// The port number is invalid.
    #[error("its service {0:?} is no port, 1 to 65535")]
    Service(String),
    /// The subsystem NQN is invalid.
    #[error("its subsystem {0:?} is no NQN")]
    Subsystem(String),
    /// The transport is not RDMA.
    #[error("its transport is {0}, not rdma")]
    Transport(TransportType),
}

/// Layout of the header; 1,024 bytes with the reserved part.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    generation: U64,
    records: U64,
    format: U16,
}

/// Layout of an entry (Base figure 296).
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
    /// Size of the header in bytes; entries follow.
    pub const SIZE: u32 = 1024;
    /// Size in bytes of the part that is used, in whole dwords.
    pub const READ: u32 = 20;

    /// Decodes the header, or its first 18 bytes.
    ///
    /// # Errors
    ///
    /// When there are fewer than 18 bytes.
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
    /// Size of one entry in bytes.
    pub const SIZE: usize = 1024;

    /// Decodes consecutive entries.
    ///
    /// # Errors
    ///
    /// When the last one is incomplete.
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

    /// Address and port of the entry.
    ///
    /// # Errors
    ///
    /// When it is not a valid RDMA address.
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

    /// NQN of the subsystem.
    ///
    /// # Errors
    ///
    /// When it is not a valid NQN.
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

/// Defines a number type with names for some of its values, spelled as by nvme-cli so that scripts
/// find them. Other values print as their number.
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
    /// Transport type (TRTYPE).
    TransportType(u8) {
        /// RDMA.
        RDMA = 1, "rdma";
        /// Fibre Channel.
        FIBRE_CHANNEL = 2, "fc";
        /// TCP.
        TCP = 3, "tcp";
        /// Loopback inside one host.
        LOOP = 254, "loop";
    }
);

named!(
    /// Address family (ADRFAM).
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
    /// Subsystem type (SUBTYPE).
    SubsystemType(u8) {
        /// Referral to another discovery subsystem.
        REFERRAL = 1, "discovery subsystem referral";
        /// A subsystem with namespaces.
        NVM = 2, "nvme subsystem";
        /// The discovery subsystem that returned the log.
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
    /// RDMA queue pair type (QPTYPE).
    RdmaService(u8) {
        /// Reliable connection.
        CONNECTED = 1, "connected";
        /// Reliable datagram.
        DATAGRAM = 2, "datagram";
    }
);

named!(
    /// RDMA provider type (PRTYPE).
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

/// Transport requirements (TREQ, Base figure 296).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportRequirements(pub u8);

impl TransportRequirements {
    /// Secure channel requirement: bits 1:0.
    #[must_use]
    pub fn secure_channel(self) -> &'static str {
        match self.0 & 0b11 {
            0 => "not specified",
            1 => "required",
            2 => "not required",
            _ => "reserved",
        }
    }

    /// Bit 2: disabling submission queue flow control is supported.
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
        if self.flow_control_optional() {
            f.write_str(", sq flow control disable supported")?;
        }
        Ok(())
    }
}

/// Entry flags (EFLAGS, Base figure 296).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiscoveryEntryFlags(pub u16);

impl DiscoveryEntryFlags {
    const DUPLICATE_INFORMATION: u16 = 1 << 0;
    const PERSISTENT_CONNECTIONS: u16 = 1 << 1;
    const NO_CENTRAL_CONTROLLER: u16 = 1 << 2;

    /// DUPRETINFO: other entries return the same information.
    #[must_use]
    pub fn duplicates(self) -> bool {
        self.0 & Self::DUPLICATE_INFORMATION != 0
    }

    /// EPCSD: the discovery subsystem supports explicit persistent connections.
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
        if set.is_empty() { f.write_str("none") } else { f.write_str(&set.join(", ")) }
    }
}

#[cfg(test)]
mod tests;
